//! The foundation of the tests: the lab, and fakes of AWS and DNS.

// Test helpers report failures by panicking, and control their own indices.
#![allow(clippy::indexing_slicing)]

pub mod fake_aws;
pub mod fake_dns;
pub mod lab;
pub mod programs;

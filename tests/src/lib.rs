//! What the tests stand on: the lab, and fakes of what AWS answers.

// A test helper says what went wrong by panicking, and its indices are its own.
#![allow(clippy::indexing_slicing)]

pub mod fake_aws;
pub mod fake_dns;
pub mod lab;
pub mod programs;

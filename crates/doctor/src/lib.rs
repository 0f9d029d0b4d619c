//! What is wrong, and what to do about it: facts in, findings out.
//!
//! `cachenat check` judges the gateway with it, and `cachenat probe` the way of a client. Nothing here looks at the kernel, the
//! network or a file; those who gather the facts are in the binary.

#![forbid(unsafe_code)]

pub mod access;
pub mod aws;
pub mod chains;
mod finding;
pub mod host;
pub mod nodes;
pub mod probe;
pub mod schedule;

pub use finding::{Finding, Level, age, json, summary, text};

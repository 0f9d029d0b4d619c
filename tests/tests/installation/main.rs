//! The packages and their contents, on a booted machine in place of the lab's NAT instance.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that is not as it should be fails")]

mod cloudformation;
mod common;
mod cron;
mod packages;
mod units;
mod user_data;
mod workflows;

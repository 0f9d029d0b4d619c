//! cachenat in the lab: real servers behind a real NAT, seen from the client's side.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that is not as it should be fails")]

mod cluster;
mod common;
mod confirm;
mod cut;
mod faults;
mod follow;
mod reach;
mod restore;
mod rules;
mod state;
mod watch;

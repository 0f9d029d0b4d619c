//! cachenat in the lab: real servers behind a real NAT, tested from the client's side.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that is not as it should be fails")]

mod check;
mod cluster;
mod common;
mod confirm;
mod cut;
mod faults;
mod flowtable;
mod follow;
mod foreign;
mod gate;
mod gateway;
mod hostile_state;
mod kill;
mod log;
mod metrics;
mod reach;
mod removal;
mod restore;
mod review;
mod rules;
mod sources;
mod speech;
mod state;
mod status;
mod strangers;
mod syscalls;
mod tunnel;
mod turns;
mod watch;
mod ways_in;
mod writers;

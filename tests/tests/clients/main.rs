//! The output of `cachenat endpoints`, pasted unchanged into programs that use the real client libraries.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that is not as it should be fails")]

mod cluster;
mod compiled;
mod memcached;
mod own_addresses;
mod probe;
mod program;
mod replication_group;
mod stubs;

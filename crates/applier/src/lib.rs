//! Applies rulesets to the kernel: dumps the current table, commits the difference as one transaction, and reads the
//! result back.
//!
//! [`sync::sync`] works on any [`kernel::Netfilter`]: [`netlink::Kernel`] is the running kernel, and `fake::Fake`
//! (feature `test-support`) is an in-memory kernel with the same guarantees.

#[cfg(any(test, feature = "test-support"))]
pub mod fake;
pub mod host;
pub mod host_facts;
pub mod kernel;
pub mod legacy_iptables;
mod listening;
pub mod lock;
pub mod netlink;
pub mod plain_file;
pub mod sync;
pub mod sysctl;
mod xtables;

pub use netlink::{conntrack, monitor};

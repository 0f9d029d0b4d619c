//! The kernel's side of cachenat: what is in force is dumped, the difference is committed as one transaction, and
//! the result is read back.
//!
//! [`kernel::Netfilter`] is the seam: [`netlink::Kernel`] is the real one, `fake::Fake` (feature `test-support`) keeps the same promises
//! in memory, and [`sync::sync`] works on either.

#[cfg(any(test, feature = "test-support"))]
pub mod fake;
pub mod host;
pub mod kernel;
pub mod legacy_iptables;
mod listening;
pub mod lock;
pub mod netlink;
pub mod plain_file;
pub mod surroundings;
pub mod sync;
pub mod sysctl;
mod xtables;

pub use netlink::{conntrack, monitor};

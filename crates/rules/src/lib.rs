//! The pure core of cachenat: which port leads to which node, the nftables ruleset that makes it so, and what
//! separates two rulesets.
//!
//! Nothing here reads a clock, a file, a socket or the environment; what a function must know is a parameter, and
//! the same input gives the same bytes.

#![forbid(unsafe_code)]

pub mod assign;
pub mod diff;
pub mod flows;
pub mod foreign;
pub mod iptables;
pub mod json;
pub mod leases;
#[cfg(any(test, feature = "test-support"))]
pub mod model;
pub mod name;
pub mod render;
pub mod ruleset;
pub mod sysctl;
mod text;
#[cfg(any(test, feature = "test-support"))]
pub mod trace;
pub mod transaction;

pub use assign::{Assigned, PlanError, Pool, Request, assign};
pub use diff::{Action, Actual, Change, Changes, diff};
pub use leases::{Leases, Listener};
pub use name::{ForwardId, IfName, NameError};
pub use render::{Forward, Gateway, Snat, render};
pub use ruleset::{
    AddressRange, Chain, Element, Elements, Endpoint, Family, Flowtable, Key, Place, Rule, Ruleset, Set,
    SetKind, SnatTo,
};
pub use sysctl::{Switch, Sysctl, SysctlChange};
pub use transaction::{Operation, Transaction};

//! nftables as values: the ruleset that makes ports lead to nodes, what separates two rulesets, and the transaction
//! between them.
//!
//! Nothing here reads a clock, a file, a socket or the environment; what a function must know is a parameter, and
//! the same input gives the same bytes.

#![forbid(unsafe_code)]

mod content;
pub mod diff;
pub mod flows;
pub mod foreign;
pub mod iptables;
pub mod json;
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

pub use diff::{Action, Actual, ForwardChange, RulesetDiff, diff};
pub use name::{ForwardId, IfName, NameError};
pub use render::{AccessList, Forward, Gateway, Snat, Tunnel, render};
pub use ruleset::{
    AddrPort, AddressRange, Chain, Element, Elements, Family, Flowtable, Key, ListIndex, Rule, Ruleset, Set,
    SetKind, SnatTo, SpreadIndex,
};
pub use sysctl::{Switch, Sysctl, SysctlChange};
pub use text::SyntaxError;
pub use transaction::{Operation, Transaction};

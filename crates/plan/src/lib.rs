//! Which port of the gateway leads to which node: the pure core between what discovery found and what the kernel gets.
//!
//! [`plan`] takes the inventory, the last good one, the leases and what is in force, and returns the ruleset that is wanted,
//! with a reason for each thing that it keeps or leaves out; leases that change hands are in the debug log. Nothing here reads a
//! clock, a file, a socket or the environment, and the same input gives the same plan.

#![forbid(unsafe_code)]

mod addresses;
mod assign;
mod clients;
mod config;
mod conflicts;
mod desired;
mod gate;
mod gateway;
pub mod leases;
mod merge;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod test_support;

pub use addresses::Addresses;
pub use assign::{Assigned, PlanError, Pool, Request, assign};
pub use clients::{Client, ClientAnswers, ClientNetworks, Clients, Known, KnownClients, settle_clients};
pub use config::{PlanConfig, PlanSource};
pub use desired::{Plan, PlanInputs, is_whole, plan};
pub use discovery::Timestamp;
pub use gate::{Admitted, Gate, Reason, Refused, SSH, admit_former};
pub use gateway::{Gateway, Host};
pub use leases::{Leases, ListenPort};
pub use merge::{Merged, OnEmptyAnswer, Policy, Warning, merge_with_last_good, readd_unread_nodes};

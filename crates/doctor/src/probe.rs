//! Is each port reachable, and the right node behind it? What is to be asked, and what the answers mean: pure.

mod targets;
mod verdict;

pub use targets::{Target, TargetError, parse};
pub use verdict::{ProbeResult, ProbeVerdict, evaluate};

//! Is each port reachable, and the right node behind it? What is to be asked, and what the answers mean: pure.

mod targets;
mod verdict;

pub(crate) use targets::{Target, parse};
pub(crate) use verdict::{Verdict, Word, judge};

//! The applier on the running kernel, in private namespaces, checked independently with nft.

// Test helpers report failures by panicking, and control their own indices.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

mod firewalls;
mod nft_versions;
mod on_a_kernel_with_flowtables;
mod others;
mod refusals;
mod round_trips;
#[path = "../rulesets/mod.rs"]
mod rulesets;
mod strangers;
mod sysctls;
mod writers;

use applier::kernel::{Dump, Netfilter as _, Table};
use applier::netlink::Kernel;
use cachenat_tests::lab::namespace::Namespace;
use cachenat_tests::lab::shell::run;
use rules::Actual;
use rules::ruleset::Ruleset;
use serde_json::Value;

/// The kernel as seen from inside `namespace`; a socket stays in the namespace in which it was opened.
fn open(namespace: &Namespace) -> Kernel {
    namespace.enter(|| Kernel::open().unwrap())
}

fn dump(kernel: &mut Kernel) -> Dump {
    kernel.dump().unwrap()
}

fn ours(ruleset: Ruleset) -> Table {
    Table::Ours(Actual { ruleset, strangers: vec![] })
}

/// All tables as nft's JSON, without handles, which depend on the order of creation.
fn listed(namespace: &Namespace) -> Value {
    let mut listed =
        serde_json::from_str(&run(namespace.command("nft").args(["-j", "list", "ruleset"]))).unwrap();
    forget_handles(&mut listed);
    listed
}

fn forget_handles(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.remove("handle");
            object.values_mut().for_each(forget_handles);
        }
        Value::Array(array) => array.iter_mut().for_each(forget_handles),
        _ => {}
    }
}

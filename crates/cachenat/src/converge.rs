//! From what is wanted to what is in force: kernel settings, rules, state, one step after the other.

use std::error::Error;

use applier::kernel::{Dump, Netfilter};
use applier::sync::{SyncError, Synced, ours, sync_from};
use applier::sysctl::Sysctls;
use discovery::{Emptied, Inventory};
use rules::{Ruleset, Sysctl, SysctlChange};

use crate::desired::Desired;
use crate::output::Output;
use crate::report::Report;
use crate::setting::{Setting, is_whole};
use crate::state::State;

/// Plans what is wanted from what was found and what is in force.
///
/// # Errors
///
/// If the table is foreign, the plan is impossible, or nothing at all is known.
pub(crate) fn plan(
    setting: &Setting,
    state: &State,
    fresh: &Inventory,
    dump: &Dump,
    emptied: Emptied,
) -> anyhow::Result<Desired> {
    let nothing = Ruleset::default();
    let actual = ours(dump)?.map_or(&nothing, |actual| &actual.ruleset);
    let desired = setting.desired(fresh, state, actual, emptied)?;
    if desired.inventory.nodes.is_empty() && actual.sets.is_empty() && !is_whole(fresh) {
        anyhow::bail!("no source could be read, and nothing is known from before");
    }
    Ok(desired)
}

/// Makes the kernel's settings and rules what is wanted; the dump is what the plan was made from.
///
/// Settings come first because they can be put back if the kernel refuses the rules.
///
/// # Errors
///
/// If either is refused; nothing has changed then, except where the kernel's answer stayed unknown.
pub(crate) fn carry_out(
    sysctls: &Sysctls,
    kernel: &mut impl Netfilter,
    dump: Dump,
    ruleset: &Ruleset,
    wanted: &[Sysctl],
    output: Output,
) -> anyhow::Result<(Synced, Vec<SysctlChange>)> {
    let settings = sysctls.apply(wanted)?;
    match sync_from(kernel, dump, Some(ruleset)) {
        Ok(synced) => Ok((synced, settings)),
        Err(error) => {
            match &error {
                SyncError::Foreign { .. } | SyncError::Dump(_) | SyncError::Commit(_) => {
                    if let Err(left) = sysctls.revert(&settings) {
                        output
                            .warn(&format!("kernel settings were changed and could not be put back: {left}"));
                    }
                }
                // Rules may be in force, and need them.
                SyncError::ReadBack(_) | SyncError::Contended { .. } | SyncError::NotAsWritten { .. } => {}
            }
            Err(error.into())
        }
    }
}

/// Writes the state; the rules are in force by now, so what can't be written costs memory and not traffic.
///
/// `changed` says whether the rules are other than before; they are written then, for `restore`.
pub(crate) fn remember(state: &State, desired: &Desired, changed: bool, output: Output) -> bool {
    let ruleset = (changed || !state.has_ruleset()).then(|| desired.wanted());
    let saved = state.save(&desired.leases, &desired.inventory, ruleset.as_ref());
    if let Err(error) = &saved {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        output.warn(&format!("{error}{cause}; the rules are in force, but the next run knows less"));
    }
    saved.is_ok()
}

/// Tells what was changed.
pub(crate) fn report(output: Output, report: &Report, json: bool) -> anyhow::Result<()> {
    output.data(&if json { report.json()? } else { report.lines() })?;
    if report.is_empty() {
        output.idle("in step: nothing was sent to the kernel");
    } else {
        output.note(&format!("applied: {}", report.summary()));
    }
    Ok(())
}

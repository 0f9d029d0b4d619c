//! `apply`: makes the kernel forward to the nodes as they are now.

use std::time::Duration;

use applier::kernel::Netfilter;
use applier::lock;
use applier::netlink::Kernel;
use applier::sync::{SyncError, Synced, ours, sync_from};
use applier::sysctl::{Applied, Sysctls};
use discovery::Emptied;
use rules::Ruleset;

use super::Setting;
use crate::args::Global;
use crate::inventory;
use crate::output::{Exit, Output};
use crate::report::Report;

pub(super) fn run(global: &Global, json: bool, emptied: Emptied, wait: Duration) -> anyhow::Result<Exit> {
    let setting = Setting::read(global)?;
    setting.check_host()?;
    // Taken before discovery: of two runs the later one has the later answer.
    let _lock = lock::acquire(&setting.config.lock_file, lock::WAIT)?;
    let state = setting.state();
    let mut kernel = Kernel::open()?;
    // Dumped before discovery too: without privilege or with a foreign table nobody needs to wait for AWS.
    let dump = kernel.dump()?;
    let nothing = Ruleset::default();
    let actual = ours(&dump)?.map_or(&nothing, |actual| &actual.ruleset);

    let (own, last_good) = (&setting.gateway.addresses, state.last_good.as_ref());
    let fresh = inventory::take(&setting.config, own, global.inventory.as_deref(), last_good, wait)?;
    let desired = setting.desired(&fresh, &state, actual, emptied)?;
    if desired.inventory.nodes.is_empty() && actual.sets.is_empty() && !super::is_whole(&fresh) {
        anyhow::bail!("no source could be read, and nothing is known from before");
    }

    let applied = Sysctls::new(&setting.config.sysctl_dir).apply(&desired.sysctls)?;
    let sysctls = applied.changes.clone();
    let synced = sync_from(&mut kernel, dump, Some(&desired.ruleset));
    let Synced { changes, .. } = synced.map_err(|error| take_back(applied, error, setting.output))?;

    // The rules are in force; a state that can't be written costs memory, not traffic.
    let saved = state.save(&desired.leases, &desired.inventory);
    if let Err(error) = &saved {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        setting.output.warn(&format!("{error}{cause}; the rules are in force, but the next run knows less"));
    }
    let whole = super::is_whole(&fresh) && desired.kept.is_empty() && saved.is_ok();
    report(setting.output, &Report { changes, sysctls, kept: desired.kept }, json)?;
    Ok(Exit::of(whole))
}

/// Undoes the settings if no rule was changed, so that the error leaves all as it was.
fn take_back(applied: Applied, error: SyncError, output: Output) -> anyhow::Error {
    match error {
        SyncError::Foreign { .. } | SyncError::Dump(_) | SyncError::Commit(_) => {
            if let Err(left) = applied.undo() {
                output.warn(&format!("kernel settings were changed and could not be put back: {left}"));
            }
        }
        SyncError::ReadBack(_) | SyncError::Contended { .. } | SyncError::NotAsWritten { .. } => {}
    }
    error.into()
}

fn report(output: Output, report: &Report, json: bool) -> anyhow::Result<()> {
    if json {
        output.data(&report.json()?)?;
    } else {
        output.data(&report.lines())?;
    }
    if report.is_empty() {
        output.idle("in step: nothing was sent to the kernel");
    } else {
        output.note(&format!("applied: {}", report.summary()));
    }
    Ok(())
}

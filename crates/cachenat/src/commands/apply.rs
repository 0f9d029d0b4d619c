//! `apply`: makes the kernel forward to the nodes as they are now.

use std::process::Child;
use std::time::Duration;

use applier::kernel::{Dump, Netfilter};
use applier::lock;
use applier::netlink::Kernel;
use applier::sync::{difference, ours};
use applier::sysctl::Sysctls;
use discovery::Emptied;

use crate::args::Global;
use crate::converge::{Done, carry_out, plan, remember, report};
use crate::desired::Desired;
use crate::inventory;
use crate::output::Exit;
use crate::pending::{self, Verdict};
use crate::report::Report;
use crate::setting::{Setting, now};

pub(super) fn run(
    global: &Global,
    json: bool,
    emptied: Emptied,
    confirm: Option<u64>,
    wait: Duration,
) -> anyhow::Result<Exit> {
    let setting = Setting::read(global)?;
    setting.check_host()?;
    // Taken before discovery: of two runs the later one has the later answer.
    let lock = lock::acquire(&setting.config.lock_file, lock::WAIT)?;
    pending::refuse(&setting.config, setting.output)?;
    // The files first, one after the other: each text is gone before what comes next takes its room.
    let given = inventory::given(global)?;
    let mut state = setting.state();
    let mut kernel = Kernel::open()?;
    // Dumped before discovery too: without privilege or with a foreign table nobody needs to wait for AWS.
    let dump = kernel.dump()?;
    ours(&dump)?;

    let fresh = inventory::take(&setting.config, &setting.options()?, given, state.last_good.as_ref(), wait)?;
    let desired = plan(&setting, &mut state, fresh, &dump, emptied)?;
    let warnings = desired.warnings(now());
    warnings.iter().for_each(|line| setting.output.warn(line));
    let whole = desired.is_whole();
    let probation = match confirm {
        Some(seconds) => on_probation(&setting, seconds, &dump, &desired)?,
        None => None,
    };
    let done = carry_out(&setting.config, &mut kernel, dump, &desired.wanted, setting.output);
    let (Done { report: done, is_verified, .. }, saved) = match (done, probation) {
        (Ok(done), None) => (done, remember(&state, &desired, setting.output)),
        (Ok(done), Some((seconds, guard))) => {
            drop(lock);
            match pending::wait(&setting.config, guard, seconds, setting.output)? {
                Verdict::Confirmed => (done, true),
                Verdict::TakenBack => anyhow::bail!("the change was not confirmed within {seconds} s"),
            }
        }
        (Err(error), None) => return Err(error),
        (Err(error), Some((_, guard))) => {
            if let Err(left) = pending::abandon(&setting.config, guard, setting.output) {
                setting.output.warn(&format!("{left:#}; the guard tries again"));
            }
            return Err(error);
        }
    };
    report(setting.output, &Report { warnings, ..done }, json)?;
    Ok(Exit::of(whole && saved && is_verified))
}

/// Starts the probation of a change, if there is one.
fn on_probation(
    setting: &Setting,
    seconds: u64,
    dump: &Dump,
    desired: &Desired,
) -> anyhow::Result<Option<(u64, Child)>> {
    let sysctls = Sysctls::new(&setting.config.sysctl_dir).plan(&desired.wanted.sysctls)?.changes;
    if difference(dump, Some(&desired.wanted.ruleset))?.is_empty() && sysctls.is_empty() {
        return Ok(None);
    }
    let before = pending::restorable(ours(dump)?)?;
    Ok(Some((seconds, pending::begin(&setting.config, seconds, before, &sysctls, desired)?)))
}

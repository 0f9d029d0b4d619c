//! `remove`: takes the table, the drop-in and the changed kernel settings back.

use applier::lock;
use applier::netlink::Kernel;
use applier::sync::{Synced, sync};
use applier::sysctl::Sysctls;

use crate::args::Global;
use crate::config::Config;
use crate::converge::verified;
use crate::output::{Exit, Output, with_cause};
use crate::pending;
use crate::report::Report;
use crate::state::State;

pub(super) fn run(global: &Global) -> anyhow::Result<Exit> {
    let output = Output::new(global);
    let config = Config::read(&global.config)?;
    let _lock = lock::acquire(&config.lock_file, lock::WAIT)?;
    pending::refuse(&config, output)?;
    let Synced { changes, outcome, .. } = sync(&mut Kernel::open()?, None)?;
    let is_verified = verified(&outcome, output);
    let sysctls = Sysctls::new(&config.sysctl_dir).remove()?;
    if let Err(error) = State::forget_ruleset(&config.state_dir) {
        output.warn(&format!("{}; 'cachenat restore' would bring the rules back", with_cause(&error)));
    }
    let report = Report::new(changes, sysctls, vec![]);
    output.data(&report.lines())?;
    if report.is_empty() {
        output.idle("nothing of cachenat was there");
    } else {
        let state = config.state_dir.display();
        output.note(&format!("removed: {}; the port leases stay in {state}", report.summary()));
    }
    Ok(Exit::of(is_verified))
}

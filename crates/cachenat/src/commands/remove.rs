//! `remove`: takes the table, the drop-in and the changed kernel settings back.

use std::path::Path;

use applier::lock::WAIT;
use applier::netlink::Kernel;
use applier::sync::Synced;
use applier::sysctl::{SysctlError, Sysctls};
use rules::RulesetDiff;

use crate::args::Global;
use crate::config::Config;
use crate::converge::replace;
use crate::cut::Uncut;
use crate::output::{Exit, Output};
use crate::pending;
use crate::report::Report;
use crate::runners::runners;
use crate::state::State;
use crate::turn::{Moment, Turn};

pub(super) fn run(global: &Global) -> anyhow::Result<Exit> {
    let output = Output::new(global);
    // Where it is depends on three keys alone, so a mistake in another keeps nothing from being removed.
    let (config, mistake) = Config::read_paths(&global.config);
    let turn = Turn::take(&config, WAIT)?;
    let Removal { report, is_forgotten, mut left } = removal(&config, turn, output);
    left.extend(mistake.map(|mistake| {
        anyhow::Error::from(mistake).context(
            "the usual paths were taken for state_dir and sysctl_dir, as the configuration can't be read",
        )
    }));
    if report.is_empty() && !is_forgotten && !left.is_empty() {
        let first = left.remove(0);
        left.iter().for_each(|left| output.warn(&format!("{left:#}")));
        return Err(first.context("nothing was removed"));
    }
    output.changes(&report.lines());
    if report.is_empty() {
        output.idle("nothing of cachenat was in force");
    } else {
        let state = config.state_dir.display();
        output.note(&format!("removed: {}; the port leases stay in {state}", report.summary()));
    }
    left.iter().for_each(|left| output.warn(&format!("{left:#}")));
    let is_marked = State::is_removed(&config.state_dir);
    for runner in runners(Path::new("/")).iter().filter(|runner| runner.kind.applies() || !is_marked) {
        output.warn(&format!("{} will bring the rules back: {}", runner.name, runner.stop()));
    }
    Ok(Exit::of(left.is_empty()))
}

struct Removal {
    report: Report,
    /// Whether the state directory says now that everything is removed, or no longer what it was.
    is_forgotten: bool,
    /// What is left and why, with the remedy.
    left: Vec<anyhow::Error>,
}

/// Takes every step, whatever becomes of the others.
fn removal(config: &Config, mut turn: Turn, output: Output) -> Removal {
    let mut left: Vec<anyhow::Error> = Vec::new();
    // First: wherever this run ends, nothing brings the rules back.
    let (dir, was_known) = (&config.state_dir, State::last_change(&config.state_dir).is_some());
    let intended = State::intend_removal(dir);
    let is_marked = intended.is_ok();
    if let Err(error) = intended {
        left.push(anyhow::Error::from(error).context(
            "the removal is not written down, so 'cachenat watch' and 'cachenat restore' may bring the rules back: stop \
             and disable them",
        ));
    }
    if let Err(error) = pending::discard(config) {
        left.push(error.context("a change that awaits its confirmation may be rolled back: delete the file"));
    }
    let (changes, unverified) = match table_removed(config, output) {
        Ok((Synced { changes, outcome, .. }, uncut)) => {
            left.extend(uncut.map(Into::into));
            (changes, outcome.failure().map(Into::into))
        }
        Err(error) => (RulesetDiff::default(), Some(error)),
    };
    left.extend(unverified.map(|error| {
        error.context("the rules may still be in force: 'nft delete table inet cachenat' removes them")
    }));
    let (sysctls, error) = Sysctls::new(&config.sysctl_dir).remove();
    if let Some(error) = error {
        let what = match error {
            SysctlError::DropIn { .. } => "the drop-in is left, and the next boot goes by it: delete it",
            _ => "kernel settings are not all as they were before cachenat",
        };
        left.push(anyhow::Error::from(error).context(what));
    }
    if let Err(error) = State::forget_ruleset(dir) {
        left.push(anyhow::Error::from(error).context("the last ruleset is left: delete the file"));
    }
    // Whatever asked its sources before this is not to be committed.
    turn.asked(Moment::now());
    let is_forgotten = is_marked || (was_known && State::last_change(dir).is_none());
    Removal { report: Report::new(changes, sysctls, vec![]), is_forgotten, left }
}

fn table_removed(config: &Config, output: Output) -> anyhow::Result<(Synced, Option<Uncut>)> {
    replace(config, &mut Kernel::open()?, None, output)
}

//! `confirm`: keeps what `apply --confirm` put on probation; and the guard that takes it back otherwise.

use crate::args::Global;
use crate::config::Config;
use crate::output::{Exit, Output};
use crate::pending::{self, ConfirmOutcome};

pub(super) fn run(global: &Global, accept: bool) -> anyhow::Result<Exit> {
    let output = Output::new(global);
    if accept {
        pending::accept(&Config::read(&global.config)?)?;
        output.note("accepted: the next run applies the configuration");
        return Ok(Exit::Done);
    }
    let saved = pending::confirm(&Config::read(&global.config)?, output)?;
    output.note("confirmed: the rules stay");
    Ok(Exit::of(saved))
}

/// The guard's exit code tells its parent how it ended.
pub(super) fn guard(global: &Global) -> anyhow::Result<Exit> {
    let output = Output::new(global);
    Ok(match pending::guard(&Config::read(&global.config)?, output)? {
        ConfirmOutcome::Confirmed => Exit::Done,
        ConfirmOutcome::RolledBack => {
            output.warn("not confirmed in time: the former rules and kernel settings are back in force");
            output
                .note("timers and 'cachenat watch' do not apply this configuration until it changes or you accept it");
            Exit::Found
        }
        ConfirmOutcome::Removed => Exit::Partial,
    })
}

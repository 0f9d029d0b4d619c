//! `confirm`: keeps what `apply --confirm` put on probation; and the guard that takes it back otherwise.

use crate::args::Global;
use crate::config::Config;
use crate::output::{Exit, Output};
use crate::pending::{self, Verdict};

pub(super) fn run(global: &Global) -> anyhow::Result<Exit> {
    let output = Output::new(global);
    let saved = pending::confirm(&Config::read(&global.config)?, output)?;
    output.note("confirmed: the rules stay");
    Ok(Exit::of(saved))
}

/// The guard's exit code tells its parent how it ended.
pub(super) fn guard(global: &Global) -> anyhow::Result<Exit> {
    let output = Output::new(global);
    Ok(match pending::guard(&Config::read(&global.config)?, output)? {
        Verdict::Confirmed => Exit::Done,
        Verdict::TakenBack => {
            output.warn("not confirmed in time: the former rules and kernel settings are back in force");
            output
                .note("the configuration is as you wrote it: the next 'cachenat apply' carries it out again");
            Exit::Found
        }
        Verdict::Removed => Exit::Partial,
    })
}

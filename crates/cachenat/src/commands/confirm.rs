//! `confirm`: keeps what `apply --confirm` put on probation; and the guard that takes it back otherwise.

use crate::args::Global;
use crate::config::Config;
use crate::output::{Exit, Output};
use crate::pending::{self, Verdict};

pub(super) fn run(global: &Global) -> anyhow::Result<Exit> {
    let output = Output::new(global);
    pending::confirm(&Config::read(&global.config)?, output)?;
    output.note("confirmed: the rules stay");
    Ok(Exit::Done)
}

/// The guard's exit code tells its parent how it ended.
pub(super) fn guard(global: &Global) -> anyhow::Result<Exit> {
    Ok(match pending::guard(&Config::read(&global.config)?)? {
        Verdict::Confirmed => Exit::Done,
        Verdict::TakenBack => Exit::Found,
    })
}

//! One file per command; each reads what it needs, decides nothing that a library could, and reports.

mod apply;
mod check;
mod confirm;
mod diff;
mod discover;
mod endpoints;
mod leases;
mod manual;
mod probe;
mod remove;
mod render;
mod restore;
mod status;
mod watch;

use plan::OnEmptyAnswer;

use crate::args::{Cli, Command};
use crate::metrics::http::Names;
use crate::output::Exit;

/// Runs the command.
pub(crate) fn run(cli: &Cli) -> anyhow::Result<Exit> {
    let global = &cli.global;
    match &cli.command {
        Command::Discover { json } => discover::run(global, *json),
        Command::Render { format } => render::run(global, *format),
        Command::Diff { format, against } => diff::run(global, *format, against.as_deref()),
        Command::Apply { json, allow_empty, confirm, wait } => {
            let emptied = if *allow_empty { OnEmptyAnswer::Remove } else { OnEmptyAnswer::Keep };
            apply::run(global, *json, emptied, *confirm, wait.get())
        }
        Command::Confirm { accept } => confirm::run(global, *accept),
        Command::Guard => confirm::guard(global),
        Command::Watch { interval, dns_interval, metrics, metrics_host } => {
            let metrics = metrics.map(|address| (address, Names::new(metrics_host)));
            watch::run(global, interval.get(), dns_interval.get(), metrics)
        }
        Command::Restore => restore::run(global),
        Command::Leases { action } => leases::run(global, action.as_ref()),
        Command::Endpoints { format, cluster } => endpoints::run(global, *format, cluster.as_deref()),
        Command::Probe { whom, tls, ca_file, timeout, json } => {
            let (ca_file, patience) = (ca_file.as_deref(), timeout.get());
            probe::run(global, &probe::Asking { whom, tls: *tls, ca_file, patience, json: *json })
        }
        Command::Status { format } => status::run(global, *format),
        Command::Check { json } => check::run(global, *json),
        Command::Man { dir } => manual::man(global, dir.as_deref()),
        Command::Completions { shell } => manual::completions(global, *shell),
        Command::Remove => remove::run(global),
    }
}

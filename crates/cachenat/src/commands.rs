//! One file per command; each reads what it needs, decides nothing that a library could, and reports.

mod apply;
mod diff;
mod discover;
mod remove;
mod render;
mod status;

use std::time::{SystemTime, UNIX_EPOCH};

use discovery::{Emptied, Inventory, Outcome};
use rules::Ruleset;

use crate::args::{Cli, Command, Global};
use crate::config::Config;
use crate::desired::{Desired, Known, desired};
use crate::gateway::Gateway;
use crate::output::{Exit, Output};
use crate::state::State;

/// Runs the command.
pub(crate) fn run(cli: &Cli) -> anyhow::Result<Exit> {
    let global = &cli.global;
    match &cli.command {
        Command::Discover { json } => discover::run(global, *json),
        Command::Render { format } => render::run(global, *format),
        Command::Diff { format, against } => diff::run(global, *format, against.as_deref()),
        Command::Apply { json, allow_empty, wait } => {
            let emptied = if *allow_empty { Emptied::Remove } else { Emptied::Keep };
            apply::run(global, *json, emptied, *wait)
        }
        Command::Status { format } => status::run(global, *format),
        Command::Remove => remove::run(global),
    }
}

/// What every command that plans has read before it looks at the kernel.
struct Setting {
    config: Config,
    gateway: Gateway,
    output: Output,
}

impl Setting {
    fn read(global: &Global) -> anyhow::Result<Self> {
        let output = Output::new(global);
        let config = Config::read(&global.config)?;
        let gateway = Gateway::resolve(&config)?;
        for client in config.clients.iter().filter(|client| client.prefix_len() == 0) {
            output.warn(&format!("clients: {client} lets everybody connect; the caches have no other guard"));
        }
        Ok(Self { config, gateway, output })
    }

    /// Checks what only matters where the rules take effect: on this host.
    fn check_host(&self) -> anyhow::Result<()> {
        self.gateway.check_listening(&self.config)?;
        for address in self.gateway.absent_addresses()? {
            self.output.warn(&format!("gateway.addresses: no interface of this host has {address}"));
        }
        Ok(())
    }

    /// The state directory; what is damaged in it is told.
    fn state(&self) -> State {
        let state = State::open(&self.config.state_dir);
        for error in &state.damaged {
            let cause =
                std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
            self.output.warn(&format!("{error}{cause}; what the kernel tells stands in for it"));
        }
        state
    }

    /// Plans, and tells what is kept although the sources leave it open.
    fn desired(
        &self,
        fresh: &Inventory,
        state: &State,
        actual: &Ruleset,
        emptied: Emptied,
    ) -> anyhow::Result<Desired> {
        let (last_good, leases) = (state.last_good.as_ref(), state.leases.as_ref());
        let known = Known { fresh, last_good, emptied, leases, actual, now: now() };
        let desired = desired(&self.config, &self.gateway, &known)?;
        for report in fresh.sources.iter().filter(|report| report.outcome != Outcome::Complete) {
            let error = report.error.as_deref().unwrap_or("no reason was given");
            self.output.warn(&format!("{}: {error}", report.source));
        }
        desired.kept.iter().for_each(|line| self.output.warn(line));
        Ok(desired)
    }
}

/// Seconds since 1970, the one place where the clock is read.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Whether every source was read whole; a node that is still being created is no fault of the answer.
fn is_whole(inventory: &Inventory) -> bool {
    inventory.sources.iter().all(|report| report.outcome == Outcome::Complete)
}

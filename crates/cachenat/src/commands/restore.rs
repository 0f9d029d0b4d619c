//! `restore`: puts the last good rules in force, without AWS, DNS or even a network.

use applier::kernel::Netfilter;
use applier::lock;
use applier::netlink::Kernel;
use applier::sync::ours;

use crate::args::Global;
use crate::config::Config;
use crate::converge::{carry_out, report};
use crate::output::{Exit, Output};
use crate::pending;
use crate::state::State;

pub(super) fn run(global: &Global) -> anyhow::Result<Exit> {
    let output = Output::new(global);
    // The gateway is not resolved: at boot there may be no route yet, and the rules name interface and addresses.
    let config = Config::read(&global.config)?;
    let _lock = lock::acquire(&config.lock_file, lock::WAIT)?;
    pending::refuse(&config, output)?;
    let mut wanted = match State::ruleset(&config.state_dir)? {
        Some(wanted) => wanted,
        None => anyhow::bail!(
            "{} has no ruleset of an earlier run; 'cachenat apply' leaves one",
            config.state_dir.display()
        ),
    };
    let mut kernel = Kernel::open()?;
    let dump = kernel.dump()?;
    // Without its device there can be no flowtable, and no rule is worth less for that.
    let has_flowtable = ours(&dump)?.is_some_and(|actual| actual.ruleset.flowtable.is_some());
    if wanted.ruleset.flowtable.is_some() && !has_flowtable {
        wanted.ruleset.forgo_offload();
        output
            .note("gateway.flowtable is left to the next apply: at boot its interface may not be there yet");
    }
    let done = carry_out(&config, &mut kernel, dump, &wanted, output)?;
    report(output, &done.report, false)?;
    Ok(Exit::of(done.is_verified))
}

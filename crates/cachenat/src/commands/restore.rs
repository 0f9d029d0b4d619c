//! `restore`: puts the last good rules in force, without AWS, DNS or even a network.

use applier::kernel::Netfilter;
use applier::lock::WAIT;
use applier::netlink::Kernel;
use applier::sync::ours;

use crate::args::Global;
use crate::config::Config;
use crate::converge::{Until, admit_saved, carry_out, report};
use crate::output::{Exit, Output};
use crate::pending;
use crate::state::State;
use crate::turn::Turn;

pub(super) fn run(global: &Global) -> anyhow::Result<Exit> {
    let output = Output::new(global);
    // The gateway is not resolved: at boot there may be no route yet, and the rules name interface and addresses.
    let config = Config::read(&global.config)?;
    let turn = Turn::take(&config, WAIT)?;
    let mut kernel = Kernel::open()?;
    pending::refuse(&config, &mut kernel, output)?;
    if State::is_removed(&config.state_dir) {
        anyhow::bail!("'cachenat remove' was run; 'cachenat apply' forwards again");
    }
    let saved = match State::ruleset(&config.state_dir)? {
        Some(wanted) => wanted.ruleset,
        None => anyhow::bail!(
            "{} has no ruleset of an earlier run; 'cachenat apply' leaves one",
            config.state_dir.display()
        ),
    };
    let dump = kernel.dump()?;
    // Without its device there can be no flowtable, and no rule is worth less for that.
    let has_flowtable = ours(&dump)?.is_some_and(|actual| actual.ruleset.flowtable.is_some());
    if saved.flowtable.is_some() && !has_flowtable {
        output
            .note("gateway.flowtable is left to the next apply: at boot its interface may not be there yet");
    }
    let (wanted, refused) = admit_saved(&config, &saved, has_flowtable, output)?;
    refused.iter().for_each(|why| output.warn(&why.to_string()));
    let done = carry_out(&config, &mut kernel, dump, &wanted, Until::Changed, output)?;
    drop(turn);
    report(output, &done.report, false);
    done.uncut.iter().for_each(|uncut| output.warn(&uncut.to_string()));
    Ok(Exit::of(refused.is_empty() && done.is_verified && done.uncut.is_none()))
}

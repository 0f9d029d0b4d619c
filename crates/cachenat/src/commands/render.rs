//! `render`: prints the ruleset and the kernel settings that are wanted.

use applier::kernel::Netfilter;
use applier::netlink::Kernel;
use applier::sync::ours;
use plan::OnEmptyAnswer;
use rules::Ruleset;
use rules::iptables::iptables_restore;

use crate::args::{Global, RenderFormat};
use crate::client_lists::Ask;
use crate::clock::now;
use crate::gateway;
use crate::output::Exit;
use crate::run_context::{Effect, RunContext};
use crate::state::State;

pub(super) fn run(global: &Global, format: RenderFormat) -> anyhow::Result<Exit> {
    let context = RunContext::read(global, Ask::All)?;
    if gateway::absent_addresses(&context.gateway)?.is_empty() {
        gateway::check_pins(&context.gateway, &context.config)?;
    }
    let (mut state, fresh) = context.state_and_inventory(global)?;
    let actual = remembered(&state);
    let desired = context.desired(Effect::Shown, fresh, &mut state, &actual, OnEmptyAnswer::Keep)?;
    desired.warnings(now()).iter().for_each(|line| context.output.warn(line));
    let sysctls =
        || -> String { desired.wanted.sysctls.iter().map(|sysctl| format!("# sysctl {sysctl}\n")).collect() };
    let text = match format {
        RenderFormat::Nft => sysctls() + &desired.wanted.ruleset.script(),
        RenderFormat::IptablesRestore => sysctls() + &iptables_restore(&desired.wanted.ruleset),
        RenderFormat::Json => desired.wanted.to_json(),
    };
    context.output.data(&text)?;
    Ok(Exit::of(desired.is_whole()))
}

/// What the kernel remembers of ports and targets where the state directory does not; nothing where it may not be asked.
pub(super) fn remembered(state: &State) -> Ruleset {
    if state.leases.is_some() {
        return Ruleset::default();
    }
    let dump = Kernel::open().ok().and_then(|mut kernel| kernel.dump().ok());
    let actual = dump.as_ref().and_then(|dump| ours(dump).ok().flatten());
    actual.map(|actual| actual.ruleset.clone()).unwrap_or_default()
}

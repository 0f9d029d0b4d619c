//! From what is wanted to what is in force: kernel settings, rules, state, one step after the other.

use anyhow::Context;
use applier::host;
use applier::kernel::{CommitError, Dump, Generation, Netfilter};
use applier::sync::{Outcome, SyncError, Synced, ours, sync_from};
use applier::sysctl::Applied;
use discovery::{Admission, Imds, Inventory, Refusal, SourceName, admit};
use plan::{Admitted, Gate, OnEmptyAnswer, Plan, Refused, is_whole};
use rules::{ForwardId, Operation, Rule, Ruleset};
use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use tokio::runtime::Builder;

use crate::client_lists::{self, Ask};
use crate::clock::now;
use crate::config::Config;
use crate::cut::{Cut, Uncut};
use crate::gateway;
use crate::inventory;
use crate::moves::Moves;
use crate::output::{Output, with_cause};
use crate::report::Report;
use crate::run_context::{Effect, RunContext};
use crate::state::{State, remembered};
use crate::sysctls;

/// Plans what is wanted from what was found and what is in force, and uses up what the state knows.
///
/// # Errors
///
/// If the table is foreign, the plan is impossible, or nothing at all is known.
pub(crate) fn plan(
    context: &RunContext,
    state: &mut State,
    fresh: Inventory,
    dump: &Dump,
    emptied: OnEmptyAnswer,
) -> anyhow::Result<Plan> {
    let actual = &*in_force(state.dir(), dump)?;
    let desired = context.desired(Effect::Here, fresh, state, actual, emptied)?;
    check_known(&desired, actual)?;
    Ok(desired)
}

/// Refuses a plan that would forward nothing because nothing is known.
///
/// # Errors
///
/// What each source said.
pub(crate) fn check_known(desired: &Plan, actual: &Ruleset) -> anyhow::Result<()> {
    let knows_nothing = desired.inventory.nodes.is_empty() && actual.sets.is_empty();
    if !knows_nothing || is_whole(&desired.inventory) {
        return Ok(());
    }
    let reasons: Vec<String> = desired.warnings(now()).iter().map(|line| format!("\n  {line}")).collect();
    anyhow::bail!("no source could be read, and there is no saved state:{}", reasons.concat())
}

/// What is in force; where somebody has taken the table away, what was in force last stands in for it.
///
/// # Errors
///
/// If the table is foreign.
pub(crate) fn in_force<'a>(dir: &Path, dump: &'a Dump) -> Result<Cow<'a, Ruleset>, SyncError> {
    Ok(match ours(dump)? {
        Some(actual) => Cow::Borrowed(&actual.ruleset),
        None => Cow::Owned(State::last_ruleset(dir).unwrap_or_default()),
    })
}

/// What of a ruleset that was saved may be in force now, and what may not.
///
/// The gateway is not resolved: at boot there may be no route yet, and the ruleset names interface and addresses. The
/// instance metadata is only asked for the VPC's ranges, and only where a target is outside the private ones.
pub(crate) fn admit_saved(
    config: &Config,
    saved: &Ruleset,
    offloads: bool,
    output: Output,
) -> anyhow::Result<(Admitted, Vec<Refused>)> {
    let gateway = gateway::of_saved(config, saved)?;
    let context = RunContext::new(
        config.clone(),
        // At boot there may be no name server yet, and nothing waits for one.
        client_lists::read(config, &Imds::default(), Ask::Files),
        gateway,
        Imds::default(),
        output,
    );
    let mut admission = context.host(&context.gateway, Effect::Here)?.admission;
    let mut targets = saved.forwards().into_iter().flat_map(|forward| forward.targets);
    if targets.any(|target| matches!(admit(target.address, &admission), Err(Refusal::Outside(_)))) {
        let options = inventory::options(config, admission, &context.imds);
        let runtime = Builder::new_current_thread().enable_all().build().context("starting tokio")?;
        admission = runtime.block_on(options.admission());
    }
    let plan = context.plan_config();
    let gate = Gate { config: &plan, gateway: &context.gateway, admission: &admission, offloads };
    let last_good = State::open(&config.state_dir).last_good.unwrap_or_default();
    let source_of: HashMap<&str, &SourceName> =
        last_good.nodes.iter().map(|node| (node.id.as_str(), &node.source)).collect();
    let list_of = |id: &ForwardId| match source_of.get(id.as_str()) {
        Some(source) => Some(plan.list_of(source)),
        None => (plan.clients.len() == 1).then_some(0),
    };
    Ok(gate.admit_saved(saved, list_of))
}

/// What [`carry_out`] did.
pub(crate) struct Done {
    /// Without the warnings of the plan.
    pub(crate) report: Report,
    /// What is in force is of this generation, or somebody else's doing.
    pub(crate) generation: Generation,
    /// Whether what is in force was read back and is what was wanted; if not, a warning says so.
    pub(crate) is_verified: bool,
    /// Connections that were to be cut and are left.
    pub(crate) uncut: Option<Uncut>,
}

/// How long what is carried out is to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Until another run changes it.
    Changed,
    /// No longer than to the next boot: it is not confirmed yet.
    Reboot,
}

/// Makes the kernel's settings and rules what is wanted; the dump is what the plan was made from.
///
/// Settings come first because they can be put back if the kernel refuses the rules. Flows come last: one that is cut
/// before the rules have changed is made anew to the old target.
///
/// # Errors
///
/// If either is refused; nothing has changed then.
pub(crate) fn carry_out(
    config: &Config,
    kernel: &mut impl Netfilter,
    dump: Dump,
    wanted: &Admitted,
    until: Until,
    output: Output,
) -> anyhow::Result<Done> {
    let cut = Cut::prepare(config, &*in_force(&config.state_dir, &dump)?, &wanted.ruleset, output);
    let settings = sysctls::of_host(config, wanted)?;
    let Applied { changes: sysctls, skipped_drop_in: left } = match until {
        Until::Changed => settings.apply(&wanted.sysctls)?,
        Until::Reboot => settings.apply_now(&wanted.sysctls)?,
    };
    left.iter().for_each(|denied| output.warn(&sysctls::left_to_root(denied)));
    let Synced { changes, dump: Dump { generation, .. }, outcome } =
        match sync_from(kernel, dump, Some(&wanted.ruleset)) {
            Ok(synced) => synced,
            // Nothing was changed.
            Err(error) => {
                if let Err(left) = settings.revert(&sysctls) {
                    output.warn(&format!("kernel settings were changed and could not be put back: {left}"));
                }
                return Err(explained(config, error));
            }
        };
    let is_verified = verified(&outcome, output);
    let report = Report::new(changes, sysctls, vec![]);
    let uncut = cut.carry_out(output).err();
    if !report.forwards.is_empty() {
        remembered(Moves::note(&config.state_dir, &report.forwards, now()), output);
    }
    Ok(Done { report, generation, is_verified, uncut })
}

/// Puts rules back in force that were there before (`None`: there was no table).
///
/// # Errors
///
/// If the kernel refuses them, or they could not be read back.
pub(crate) fn put_back(
    config: &Config,
    kernel: &mut impl Netfilter,
    before: Option<Ruleset>,
    output: Output,
) -> anyhow::Result<()> {
    let before = match before {
        Some(before) => Some(admit_former(config, before, output)?),
        None => None,
    };
    let wanted = before.as_ref().map(|before| &before.ruleset);
    let (Synced { outcome, .. }, uncut) = replace(config, kernel, wanted, output)?;
    uncut.iter().for_each(|uncut| output.warn(&uncut.to_string()));
    match outcome.failure() {
        None => Ok(()),
        Some(why) => Err(why).context("the former rules were committed, but not verified"),
    }
}

/// Makes the table what is wanted, whatever it is (`None`: it shall go), and cuts what it would not make.
///
/// # Errors
///
/// If the kernel refuses it; nothing has changed then.
pub(crate) fn replace(
    config: &Config,
    kernel: &mut impl Netfilter,
    wanted: Option<&Ruleset>,
    output: Output,
) -> anyhow::Result<(Synced, Option<Uncut>)> {
    let (dump, nothing) = (kernel.dump()?, Ruleset::default());
    let cut = Cut::prepare(config, &*in_force(&config.state_dir, &dump)?, wanted.unwrap_or(&nothing), output);
    let synced = sync_from(kernel, dump, wanted)?;
    Ok((synced, cut.carry_out(output).err()))
}

/// What of rules that were in force may be so again.
fn admit_former(config: &Config, before: Ruleset, output: Output) -> anyhow::Result<Admitted> {
    // Rules without a forward name no interface, and lead nowhere.
    let admission = match gateway::of_saved(config, &before) {
        Ok(gateway) => gateway::host(&gateway, vec![])?.admission,
        Err(_) => Admission::default(),
    };
    let (admitted, refused) = plan::admit_former(before, &admission);
    refused.iter().for_each(|why| output.warn(&why.to_string()));
    Ok(admitted)
}

/// Whether the rules were read back as they were written; warns if not.
pub(crate) fn verified(outcome: &Outcome, output: Output) -> bool {
    match outcome {
        Outcome::Verified => true,
        Outcome::Unverified { why } => {
            output.warn(&format!(
                "the change was committed, but not verified: {}; 'cachenat diff' shows what is in force",
                with_cause(why)
            ));
            false
        }
    }
}

/// The error, and what of the configuration it is about if that can be told.
fn explained(config: &Config, error: SyncError) -> anyhow::Error {
    let SyncError::Commit(CommitError::Refused { operation, source, .. }) = &error else {
        return error.into();
    };
    let interface = match &**operation {
        Operation::AddFlowtable(flowtable) => &flowtable.interface,
        Operation::AddRule(_, Rule::Offload { interface, .. }) => interface,
        _ => return error.into(),
    };
    // nf_tables says ENOENT of a device, and of a part of itself that is not built or can't be loaded.
    if source.kind() != io::ErrorKind::NotFound {
        return error.into();
    }
    let mistake =
        if host::addresses().is_ok_and(|all| all.iter().all(|other| other.interface != interface.as_str())) {
            config.gateway_mistake(
                "flowtable",
                format!("this host has no interface {interface} with an address"),
                "name the one that has in gateway.interface",
            )
        } else {
            config.gateway_mistake(
                "flowtable",
                format!("this kernel (Linux {}) has no flowtables", host::kernel_release()),
                "load the modules nf_flow_table_inet and nft_flow_offload (CONFIG_NF_FLOW_TABLE_INET, \
             CONFIG_NFT_FLOW_OFFLOAD), or write false",
            )
        };
    anyhow::Error::from(error).context(mistake)
}

/// Writes the state; the rules are in force by now, so what can't be written costs memory and not traffic.
pub(crate) fn remember(state: &State, desired: &Plan, output: Output) -> bool {
    remembered(state.save(desired), output)
}

/// Tells what was changed. The changes are made and saved by now, so nothing here is an error.
pub(crate) fn report(output: Output, report: &Report, json: bool) {
    if json {
        match report.json() {
            Ok(text) => output.report(&text),
            Err(error) => output.warn(&format!("the report: {error}; the changes are made all the same")),
        }
    } else {
        output.changes(&report.lines());
    }
    if report.is_empty() {
        output.idle("in step: nothing was sent to the kernel");
    } else {
        output.note(&format!("applied: {}", report.summary()));
    }
}

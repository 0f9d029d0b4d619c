//! `apply`: makes the kernel forward to the nodes as they are now.

use std::process::Child;
use std::time::{Duration, Instant};

use applier::kernel::{Dump, Netfilter};
use applier::lock::WAIT;
use applier::netlink::Kernel;
use applier::sync::{difference, ours};
use discovery::Inventory;

use plan::{OnEmptyAnswer, Plan};
use rules::sysctl::SysctlTarget;
use rules::{IfName, Ruleset};

use crate::args::Global;
use crate::client_lists::Ask;
use crate::clock::now;
use crate::converge::{Done, Until, carry_out, plan, remember, report};
use crate::inventory;
use crate::output::{Exit, Hush};
use crate::pending::{self, ConfirmOutcome};
use crate::report::Report;
use crate::run_context::RunContext;
use crate::session;
use crate::state::State;
use crate::sysctls;
use crate::turn::{Moment, Turn};

/// How often the sources are asked again because another run has asked them since. Few runs at once meet that once or
/// twice; whoever forges a later answer again and again holds a run up no longer.
const OVERTAKEN: usize = 5;

pub(super) fn run(
    global: &Global,
    json: bool,
    emptied: OnEmptyAnswer,
    confirm: Option<u64>,
    wait: Duration,
) -> anyhow::Result<Exit> {
    // Even what there is to warn of beforehand waits until all is done: a reader may be slow, or gone.
    let hush = Hush::begin();
    let deadline = Instant::now() + wait;
    let mut context = RunContext::awaited(global, Some(deadline), |_| {})?;
    context.check_host()?;
    let mut kernel = Kernel::open()?;
    let was_removed = {
        let _turn = Turn::take(&context.config, WAIT)?;
        pending::refuse(&context.config, &mut kernel, context.output)?;
        if confirm.is_none() {
            pending::refuse_rejected(&context.config)?;
        }
        State::is_removed(&context.config.state_dir)
    };
    let answer = match inventory::given(global)? {
        Some(given) => as_given(&context, given)?,
        None => {
            // Without privilege, or with another program's table of our name, nothing is worth waiting for.
            ours(&kernel.dump()?)?;
            ask(&mut context, global, deadline)?
        }
    };
    let Answer { mut turn, moment, inventory: fresh } = answer;
    pending::refuse(&context.config, &mut kernel, context.output)?;
    if State::is_removed(&context.config.state_dir) && !was_removed {
        anyhow::bail!("'cachenat remove' was run meanwhile; run 'cachenat apply' again to forward again");
    }
    let mut state = context.state();
    let dump = kernel.dump()?;
    let desired = plan(&context, &mut state, fresh, &dump, emptied)?;
    let mut warnings = desired.warnings(now());
    warnings.extend(sysctls::boot_warnings(&context.config, &desired.wanted));
    warnings.iter().for_each(|line| context.output.warn(line));
    if confirm.is_none() {
        refuse_to_shut_out(&context, &dump)?;
    }
    let whole = desired.is_whole();
    let probation = match confirm {
        Some(seconds) => on_probation(&context, seconds, &dump, &desired)?,
        None => None,
    };
    let until = if probation.is_some() { Until::Reboot } else { Until::Changed };
    let done = carry_out(&context.config, &mut kernel, dump, &desired.wanted, until, context.output);
    let (Done { report: done, is_verified, uncut, .. }, saved) = match (done, probation) {
        (Ok(done), None) => {
            let saved = remember(&state, &desired, context.output);
            turn.committed(moment, saved, &context.config);
            drop(turn);
            drop(hush);
            (done, saved)
        }
        (Ok(done), Some((seconds, guard))) => {
            // It is saved by whoever confirms it.
            turn.asked(moment);
            drop(turn);
            drop(hush);
            match pending::wait(&context.config, guard, seconds, context.output) {
                Ok(ConfirmOutcome::Confirmed) => (done, is_saved(&context, &desired)),
                Ok(ConfirmOutcome::RolledBack) => {
                    anyhow::bail!("the change was not confirmed within {seconds} s")
                }
                Ok(ConfirmOutcome::Removed) => {
                    anyhow::bail!("'cachenat remove' was run before the change was confirmed")
                }
                Err(error) => {
                    context.output.warn(&format!(
                        "{error:#}; unless 'cachenat confirm' keeps the change, the next run rolls it back"
                    ));
                    (done, false)
                }
            }
        }
        (Err(error), None) => return Err(error),
        (Err(error), Some((_, guard))) => {
            if let Err(left) = pending::abandon(&context.config, &mut kernel, guard, context.output) {
                context.output.warn(&format!("{left:#}; the guard tries again"));
            }
            return Err(error);
        }
    };
    uncut.iter().for_each(|uncut| context.output.warn(&uncut.to_string()));
    report(context.output, &Report { warnings, ..done }, json);
    Ok(Exit::of(whole && saved && is_verified && uncut.is_none()))
}

/// Refuses to confine the tunnel by which the operator is logged in: the next login would be dropped.
fn refuse_to_shut_out(context: &RunContext, dump: &Dump) -> anyhow::Result<()> {
    let in_force = ours(dump)?.map(|actual| &actual.ruleset);
    let confined: Vec<&IfName> = in_force.map(Ruleset::confined).unwrap_or_default();
    let mut new = context
        .gateway
        .tunnels
        .iter()
        .filter(|tunnel| tunnel.confine && !confined.contains(&&tunnel.interface));
    let Some(own) = session::interface() else { return Ok(()) };
    if new.any(|tunnel| tunnel.interface == own) {
        anyhow::bail!(
            "gateway.tunnels: your own SSH session comes in by {own}, and confine: true drops new logins there; use \
             'cachenat apply --confirm 60' from a session that has another way in, or write confine: false"
        );
    }
    Ok(())
}

/// What the sources answered, and the turn to act on it.
struct Answer {
    turn: Turn,
    /// When they were asked.
    moment: Moment,
    inventory: Inventory,
}

/// What the operator gives counts as asked for when its turn comes.
fn as_given(context: &RunContext, given: Inventory) -> anyhow::Result<Answer> {
    let last_good = State::open(&context.config.state_dir).last_good;
    let inventory = inventory::take(
        &context.config,
        &context.options()?,
        Some(given),
        last_good.as_ref(),
        Duration::ZERO,
    )?;
    let turn = Turn::take(&context.config, WAIT)?;
    Ok(Answer { turn, moment: Moment::now(), inventory })
}

/// Asks the sources, without the lock: others go on meanwhile, and where one of them has asked later, or the
/// configuration has changed, so do we.
fn ask(context: &mut RunContext, global: &Global, deadline: Instant) -> anyhow::Result<Answer> {
    let mut asked = 0;
    loop {
        let moment = Moment::now();
        if asked > 0 && !context.config.is_current().unwrap_or(false) {
            *context = RunContext::read(global, Ask::All)?;
            context.check_host()?;
        }
        let last_good = State::open(&context.config.state_dir).last_good;
        let left = deadline.saturating_duration_since(Instant::now());
        let inventory =
            inventory::take(&context.config, &context.options()?, None, last_good.as_ref(), left)?;
        let turn = Turn::take(&context.config, WAIT)?;
        asked += 1;
        let is_latest = turn.later_than(moment).is_none() && context.config.is_current().unwrap_or(false);
        if is_latest || asked > OVERTAKEN {
            return Ok(Answer { turn, moment, inventory });
        }
    }
}

/// Whether what was confirmed, here or elsewhere, was saved.
fn is_saved(context: &RunContext, desired: &Plan) -> bool {
    let saved = State::open(&context.config.state_dir);
    State::last_ruleset(saved.dir()).as_ref() == Some(&desired.wanted.ruleset)
        && saved.leases.as_ref() == Some(&desired.leases)
        && saved.last_good.as_ref() == Some(&desired.inventory)
}

/// Starts the probation of a change, if there is one.
fn on_probation(
    context: &RunContext,
    seconds: u64,
    dump: &Dump,
    desired: &Plan,
) -> anyhow::Result<Option<(u64, Child)>> {
    let settings = sysctls::of_host(&context.config, &desired.wanted)?;
    let mut changes = settings.plan(&desired.wanted.sysctls)?.changes;
    // The next boot hears of it once it is confirmed.
    changes.retain(|change| change.place == SysctlTarget::Live);
    if difference(dump, Some(&desired.wanted.ruleset))?.is_empty() && changes.is_empty() {
        return Ok(None);
    }
    let before = pending::restorable(ours(dump)?)?;
    Ok(Some((seconds, pending::begin(&context.config, seconds, before, &changes, desired)?)))
}

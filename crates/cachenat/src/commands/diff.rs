//! `diff`: prints what `apply` would change.

use std::fs;
use std::path::Path;

use anyhow::Context;
use applier::kernel::Netfilter;
use applier::netlink::Kernel;
use applier::sync::difference;
use applier::sysctl::Applied;
use plan::{OnEmptyAnswer, Plan};
use rules::json::DesiredState;
use rules::sysctl::{SysctlChange, SysctlTarget};
use rules::{Actual, Sysctl, diff};

use crate::args::{DiffFormat, Global};
use crate::client_lists::Ask;
use crate::clock::now;
use crate::converge::{check_known, in_force};
use crate::output::Exit;
use crate::report::Report;
use crate::run_context::{Effect, RunContext};
use crate::sysctls;

pub(super) fn run(global: &Global, format: DiffFormat, against: Option<&Path>) -> anyhow::Result<Exit> {
    let context = RunContext::read(global, Ask::All)?;
    let (report, whole) = match against {
        Some(file) => against_file(&context, global, file)?,
        None => {
            context.check_host()?;
            against_kernel(&context, global)?
        }
    };
    match format {
        DiffFormat::Text => context.output.diff(&report.text())?,
        DiffFormat::Json => context.output.data(&report.json()?)?,
        DiffFormat::Markdown => context.output.data(&report.markdown())?,
    }
    if report.is_empty() {
        context.output.idle("in step: nothing to change");
    } else {
        context.output.note(&format!("'cachenat apply' would change this: {}", report.summary()));
    }
    Ok(match (whole, report.is_empty()) {
        (false, _) => Exit::Partial,
        (true, false) => Exit::Found,
        (true, true) => Exit::Done,
    })
}

fn against_kernel(context: &RunContext, global: &Global) -> anyhow::Result<(Report, bool)> {
    let dump = Kernel::open()?.dump()?;
    let (mut state, fresh) = context.state_and_inventory(global)?;
    let actual = &*in_force(state.dir(), &dump)?;
    let desired = context.desired(Effect::Shown, fresh, &mut state, actual, OnEmptyAnswer::Keep)?;
    // What `apply` would refuse is not promised.
    check_known(&desired, actual)?;
    let mut warnings = warn(context, &desired);
    let at_boot = sysctls::boot_warnings(&context.config, &desired.wanted);
    at_boot.iter().for_each(|line| context.output.warn(line));
    warnings.extend(at_boot);
    let changes = difference(&dump, Some(&desired.wanted.ruleset))?;
    let Applied { changes: settings, skipped_drop_in: left } =
        sysctls::of_host(&context.config, &desired.wanted)?.plan(&desired.wanted.sysctls)?;
    left.iter().for_each(|left| context.output.warn(&sysctls::left_to_root(left)));
    let whole = desired.is_whole();
    Ok((Report::new(changes, settings, warnings), whole))
}

fn against_file(context: &RunContext, global: &Global, file: &Path) -> anyhow::Result<(Report, bool)> {
    let name = || format!("rendered ruleset {}", file.display());
    let before = DesiredState::from_json(&fs::read_to_string(file).with_context(name)?).with_context(name)?;
    let (mut state, fresh) = context.state_and_inventory(global)?;
    let after = context.desired(Effect::Shown, fresh, &mut state, &before.ruleset, OnEmptyAnswer::Keep)?;
    let warnings = warn(context, &after);
    let actual = Actual { ruleset: before.ruleset, strangers: vec![] };
    let changes = diff(Some(&actual), Some(&after.wanted.ruleset));
    let sysctls = between(&before.sysctls, &after.wanted.sysctls);
    let whole = after.is_whole();
    Ok((Report::new(changes, sysctls, warnings), whole))
}

fn warn(context: &RunContext, desired: &Plan) -> Vec<String> {
    let warnings = desired.warnings(now());
    warnings.iter().for_each(|line| context.output.warn(line));
    warnings
}

/// The settings that the one list has and the other has not.
fn between(before: &[Sysctl], after: &[Sysctl]) -> Vec<SysctlChange> {
    let lacking = |these: &[Sysctl], those: &[Sysctl]| -> Vec<Sysctl> {
        these.iter().filter(|sysctl| !those.contains(sysctl)).cloned().collect()
    };
    let change = |sysctl: Sysctl, is_new| {
        let value = Some(sysctl.wanted());
        let (from, to) = if is_new { (None, value) } else { (value, None) };
        SysctlChange { sysctl, place: SysctlTarget::Live, from, to }
    };
    let gone = lacking(before, after).into_iter().map(|sysctl| change(sysctl, false));
    gone.chain(lacking(after, before).into_iter().map(|sysctl| change(sysctl, true))).collect()
}

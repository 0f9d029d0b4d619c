//! `apply --confirm`: a change that is taken back unless the operator says yes in time.
//!
//! Whoever applies may lose the session through the very change, so the taking back is the work of a process of its
//! own, which is started before the change and belongs to no terminal. Nothing of the change outlives a reboot: the
//! drop-in and the state are written once it is confirmed.

mod directory;

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use applier::lock::WAIT;
use applier::netlink::Kernel;
use applier::sysctl::Sysctls;
use discovery::Inventory;
use plan::{Leases, Plan};
use rules::json::DesiredState;
use rules::{Actual, Ruleset, SysctlChange};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::converge::{admit_saved, put_back, remember};
use crate::output::{Output, in_background, say};
use crate::state::{State, remembered};
use crate::sysctls;
use crate::turn::{Moment, Turn};
use directory::{Found, PendingDir, Stage};

/// How often the file is looked at; flock and rename tell nobody.
const POLL: Duration = Duration::from_millis(100);

/// How often the guard tries to take a change back, a second apart.
const TRIES: usize = 60;

/// What the guard says once it is out of the terminal's reach.
const READY: &str = "ready\n";

/// A change on probation: what was before, and what will be remembered once it is confirmed.
///
/// The guard holds a lock on the file for as long as it lives.
#[derive(Serialize, Deserialize)]
pub(crate) struct Pending {
    version: u32,
    /// For how long it is on probation, in seconds.
    seconds: u64,
    /// The digest of the configuration that it comes from.
    config: u64,
    /// The ruleset before, as `render --format json` has it; `None`: there was no table.
    before: Option<String>,
    /// The settings that were changed, with their values before.
    sysctls: Vec<SysctlChange>,
    leases: Leases,
    /// The inventory, as `discover --json` has it.
    inventory: String,
    /// The ruleset on probation.
    after: String,
}

/// How a probation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfirmOutcome {
    Confirmed,
    RolledBack,
    /// `remove` took the new rules and the former ones.
    Removed,
}

fn read(mut file: impl Read) -> anyhow::Result<Pending> {
    let mut text = String::new();
    file.read_to_string(&mut text).context("the pending change")?;
    let pending: Pending = serde_json::from_str(&text).context("the pending change")?;
    // What cannot be put back is not begun, and what is damaged stops no later run.
    pending.former_rules().context("the pending change")?;
    Ok(pending)
}

impl Pending {
    fn former_rules(&self) -> anyhow::Result<Option<Ruleset>> {
        let before = self.before.as_deref().map(DesiredState::from_json).transpose();
        Ok(before.context("the rules before the change")?.map(|wanted| wanted.ruleset))
    }
}

/// Refuses to work while a change waits for its confirmation; one whose guard is gone is taken back first.
///
/// The caller holds the lock.
pub(crate) fn refuse(config: &Config, kernel: &mut Kernel, output: Output) -> anyhow::Result<()> {
    let place = PendingDir::of(config);
    let Some(found) = place.find()? else { return Ok(()) };
    let is_guarded = found.is_guarded()?;
    if is_guarded && found.stage == Stage::Waiting {
        anyhow::bail!(
            "a change awaits its confirmation: 'cachenat confirm' keeps it, or it is rolled back in time"
        );
    }
    if is_guarded {
        // The guard is about to clear up.
        return Ok(());
    }
    // The guard was killed.
    match (found.stage, read(&found.file)) {
        (Stage::Waiting, Ok(pending)) => {
            take_back(config, kernel, &pending, output)?;
            output
                .warn("a change was never confirmed: the former rules and kernel settings are back in force");
            Ok(())
        }
        (Stage::Confirmed, Ok(pending)) => {
            finish(config, pending, output)?;
            place.clear()
        }
        (Stage::Removed, _) => place.clear(),
        // Nothing is known of it, so nothing can be taken back; what is in force is where the next plan starts.
        (stage, Err(error)) => {
            place.put_aside(stage)?;
            output.warn(&format!("{error:#}; moved aside; the rules in force stay"));
            Ok(())
        }
    }
}

/// Refuses a configuration that was applied with `--confirm` and not confirmed, to a run that nobody watches.
///
/// # Errors
///
/// Unless it has changed since, or somebody has applied it from a terminal or accepted it.
pub(crate) fn refuse_rejected(config: &Config) -> anyhow::Result<()> {
    let is_rejected = State::rejected(&config.state_dir) == Some(config.digest());
    anyhow::ensure!(
        !is_rejected || io::stdin().is_terminal(),
        "{} was applied with --confirm, not confirmed, and rolled back: change it, run 'cachenat apply' from a terminal, or \
         run 'cachenat confirm --accept'",
        config.file.display()
    );
    Ok(())
}

/// The rules to be put back if the change is not confirmed.
///
/// # Errors
///
/// If the table holds what cachenat does not write, and so cannot put back.
pub(crate) fn restorable(table: Option<&Actual>) -> anyhow::Result<Option<&Ruleset>> {
    let Some(Actual { ruleset, strangers }) = table else { return Ok(None) };
    anyhow::ensure!(
        strangers.is_empty(),
        "apply --confirm could not roll back: table inet cachenat contains what cachenat did not write ({}); delete that \
         with nft, or run 'cachenat apply' without --confirm, which removes it",
        strangers.join(", ")
    );
    Ok(Some(ruleset))
}

/// Puts a change on probation; the caller carries it out next.
///
/// `before` is the table as it is (`None`: there is none), `sysctls` what will be changed.
pub(crate) fn begin(
    config: &Config,
    seconds: u64,
    before: Option<&Ruleset>,
    sysctls: &[SysctlChange],
    desired: &Plan,
) -> anyhow::Result<Child> {
    let as_json = |ruleset: &Ruleset| DesiredState { ruleset: ruleset.clone(), sysctls: vec![] }.to_json();
    let pending = Pending {
        version: 1,
        seconds,
        config: config.digest(),
        before: before.map(as_json),
        sysctls: sysctls.to_vec(),
        leases: desired.leases.clone(),
        inventory: desired.inventory.to_json(),
        after: desired.wanted.to_json(),
    };
    let place = PendingDir::of(config);
    let guard = start_guard(config, place.put(serde_json::to_string(&pending)?)?);
    if guard.is_err() {
        place.clear()?;
    }
    guard
}

/// Starts the guard, which inherits the file and the lock on it, and waits until it is out of the terminal's reach.
fn start_guard(config: &Config, file: File) -> anyhow::Result<Child> {
    file.try_lock().context("the lock of the pending change")?;
    let mut guard = Command::new(std::env::current_exe().context("path of this program")?)
        .arg("--config")
        .arg(&config.file)
        .arg("guard")
        .stdin(file)
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the guard")?;
    let mut word = String::new();
    if let Some(said) = &mut guard.stdout {
        BufReader::new(said).read_line(&mut word).context("waiting for the guard")?;
    }
    if word != READY {
        let status = guard.wait().context("the guard")?;
        anyhow::bail!("the guard ended at once ({status}); nothing was changed");
    }
    Ok(guard)
}

/// Takes back a change that could not be carried out, whatever of it is in force.
pub(crate) fn abandon(
    config: &Config,
    kernel: &mut Kernel,
    mut guard: Child,
    output: Output,
) -> anyhow::Result<()> {
    let place = PendingDir::of(config);
    if let Some(Found { stage: Stage::Waiting, file }) = place.find()? {
        roll_back(config, kernel, &read(file)?, output)?;
        place.advance(Stage::Removed)?;
    }
    guard.wait().context("the guard")?;
    Ok(())
}

/// Ends the probation because everything is removed.
///
/// The caller holds the lock.
pub(crate) fn discard(config: &Config) -> anyhow::Result<()> {
    let place = PendingDir::of(config);
    match place.find()? {
        Some(found) if found.is_guarded()? && found.stage == Stage::Waiting => place.advance(Stage::Removed),
        Some(_) => place.clear(),
        None => Ok(()),
    }
}

/// The guard, whose stdin is the locked file: waits until somebody ends the probation, and takes the change back when time
/// is over.
pub(crate) fn guard(config: &Config, output: Output) -> anyhow::Result<ConfirmOutcome> {
    // A session of its own: the terminal's end reaches it no more. That fails only for a leader, which is fine too.
    let _ = nix::unistd::setsid();
    let file = File::from(io::stdin().as_fd().try_clone_to_owned().context("the guard's stdin")?);
    let pending = read(&file)?;
    let deadline = Instant::now() + Duration::from_secs(pending.seconds);
    output.data(READY)?;

    // From here on nothing that reads its output slowly, or not at all, keeps it from its work.
    in_background();
    let place = PendingDir::of(config);
    let verdict = || match place.stage_of(&file) {
        Some(Stage::Confirmed) => Some(ConfirmOutcome::Confirmed),
        Some(Stage::Removed) => Some(ConfirmOutcome::Removed),
        // A file that is gone says nothing: to confirm is an act.
        Some(Stage::Waiting) | None => None,
    };
    while Instant::now() < deadline && verdict().is_none() {
        thread::sleep(POLL);
    }
    let mut tries = 0;
    loop {
        // It may have been confirmed in the last moment.
        let ended = Turn::take(config, WAIT).map_err(Into::into).and_then(|_turn| match verdict() {
            Some(verdict) => place.clear().map(|()| verdict),
            None => take_back(config, &mut Kernel::open()?, &pending, output),
        });
        tries += 1;
        match ended {
            Err(error) if tries < TRIES => output.warn(&format!("{error:#}; trying again")),
            other => return other,
        }
        thread::sleep(Duration::from_secs(1));
    }
}

/// Ends a probation that nobody confirmed: its configuration is not applied again by itself. The caller holds the lock.
fn take_back(
    config: &Config,
    kernel: &mut Kernel,
    pending: &Pending,
    output: Output,
) -> anyhow::Result<ConfirmOutcome> {
    roll_back(config, kernel, pending, output)?;
    remembered(State::reject(&config.state_dir, pending.config), output);
    PendingDir::of(config).clear()?;
    Ok(ConfirmOutcome::RolledBack)
}

/// Puts back what was before.
fn roll_back(config: &Config, kernel: &mut Kernel, pending: &Pending, output: Output) -> anyhow::Result<()> {
    put_back(config, kernel, pending.former_rules()?, output)?;
    Ok(Sysctls::new(&config.sysctl_dir).revert(&pending.sysctls)?)
}

/// Keeps the change: what goes with it is remembered, and the guard goes home.
///
/// `false`: it could not be remembered, which is told.
pub(crate) fn confirm(config: &Config, output: Output) -> anyhow::Result<bool> {
    let mut turn = Turn::take(config, WAIT)?;
    let place = PendingDir::of(config);
    let Some(Found { stage: Stage::Waiting, file }) = place.find()? else {
        anyhow::bail!("no change waits for a confirmation");
    };
    let pending = read(&file)?;
    // First the guard, or it would take back what is remembered as done. Should this run end here, the next one finishes.
    place.advance(Stage::Confirmed)?;
    let is_saved = finish(config, pending, output)?;
    if !(Found { stage: Stage::Confirmed, file }).is_guarded()? {
        place.clear()?;
    }
    turn.committed(Moment::default(), is_saved, config);
    Ok(is_saved)
}

/// Writes down what goes with a confirmed change, and has the next boot know of its settings.
fn finish(config: &Config, pending: Pending, output: Output) -> anyhow::Result<bool> {
    let inventory =
        Inventory::from_json(&pending.inventory).context("the inventory of the pending change")?;
    let wanted = DesiredState::from_json(&pending.after).context("the rules of the pending change")?;
    let (wanted, _) = admit_saved(config, &wanted.ruleset, wanted.ruleset.flowtable.is_some(), output)?;
    let are_kept = sysctls::keep(config, &wanted, output);
    let done =
        Plan { wanted, leases: pending.leases, inventory, is_news: true, kept: vec![], remarks: vec![] };
    Ok(remember(&State::open(&config.state_dir), &done, output) && are_kept)
}

/// Accepts the configuration that was rolled back, so that runs without a terminal apply it.
pub(crate) fn accept(config: &Config) -> anyhow::Result<()> {
    let _turn = Turn::take(config, WAIT)?;
    anyhow::ensure!(State::rejected(&config.state_dir).is_some(), "no configuration was rolled back");
    Ok(State::forget_rejected(&config.state_dir)?)
}

/// Waits for the operator's yes, here or by `cachenat confirm`, or for the guard.
pub(crate) fn wait(
    config: &Config,
    mut guard: Child,
    seconds: u64,
    output: Output,
) -> anyhow::Result<ConfirmOutcome> {
    let answers = ask(seconds);
    loop {
        if let Some(status) = guard.try_wait().context("the guard")? {
            return match status.code() {
                Some(0) => Ok(ConfirmOutcome::Confirmed),
                Some(1) => Ok(ConfirmOutcome::RolledBack),
                Some(3) => Ok(ConfirmOutcome::Removed),
                // It was killed, or could not do its work.
                _ => {
                    let _turn = Turn::take(config, WAIT)?;
                    refuse(config, &mut Kernel::open()?, output)?;
                    Ok(ConfirmOutcome::RolledBack)
                }
            };
        }
        if let Ok(true) = answers.recv_timeout(POLL) {
            confirm(config, output)?;
            guard.wait().context("the guard")?;
            return Ok(ConfirmOutcome::Confirmed);
        }
    }
}

/// The operator's answers at the terminal; without one there are none, and the channel stays silent.
fn ask(seconds: u64) -> mpsc::Receiver<bool> {
    let (answer, answers) = mpsc::channel();
    say(&format!(
        "the new rules are in force for {seconds} s; 'cachenat confirm' from any terminal keeps them"
    ));
    thread::spawn(move || {
        if io::stdin().is_terminal() {
            say("type yes to keep them:");
            for line in io::stdin().lock().lines().map_while(Result::ok) {
                let _ = answer.send(matches!(line.trim(), "y" | "yes"));
            }
        }
        // Whoever receives would take a closed channel for an answer at full speed.
        loop {
            thread::park();
        }
    });
    answers
}

//! `apply --confirm`: a change that is taken back unless the operator says yes in time.
//!
//! Whoever applies may lose the session through the very change, so the taking back is the work of a process of its
//! own, which is started before the change and belongs to no terminal.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use applier::lock::WAIT;
use applier::netlink::Kernel;
use applier::sync::{Outcome, Synced, sync};
use applier::sysctl::Sysctls;
use discovery::Inventory;
use rules::json::Wanted;
use rules::{Actual, Leases, Ruleset, SysctlChange};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::converge::{admit_saved, cut, left_to_root, remember};
use crate::desired::Desired;
use crate::output::{Output, in_background, say};
use crate::state::{self, State};
use crate::turn::{Moment, Turn};

/// How often the file is looked at; flock and unlink tell nobody.
const POLL: Duration = Duration::from_millis(100);

/// How often the guard tries to take a change back, a second apart.
const TRIES: usize = 60;

/// What the guard says once it is out of the terminal's reach.
const READY: &str = "ready\n";

/// A change on probation: what was before, and what will be remembered once it is confirmed.
///
/// The guard holds a lock on the file for as long as it lives, and the file is deleted when the probation ends.
#[derive(Serialize, Deserialize)]
pub(crate) struct Pending {
    version: u32,
    /// For how long it is on probation, in seconds.
    seconds: u64,
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
pub(crate) enum Verdict {
    Confirmed,
    TakenBack,
    /// `remove` took the new rules and the former ones.
    Removed,
}

fn path(config: &Config) -> PathBuf {
    config.state_dir.join("pending.json")
}

fn context(config: &Config) -> String {
    format!("pending change {}", path(config).display())
}

fn open(config: &Config) -> anyhow::Result<Option<File>> {
    match File::open(path(config)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| context(config)),
    }
}

fn read(config: &Config, mut file: impl Read) -> anyhow::Result<Pending> {
    let mut text = String::new();
    file.read_to_string(&mut text).with_context(|| context(config))?;
    let pending: Pending = serde_json::from_str(&text).with_context(|| context(config))?;
    // What cannot be put back is not begun, and what is damaged stops no later run.
    pending.former_rules().with_context(|| context(config))?;
    Ok(pending)
}

impl Pending {
    fn former_rules(&self) -> anyhow::Result<Option<Ruleset>> {
        let before = self.before.as_deref().map(Wanted::from_json).transpose();
        Ok(before.context("the rules before the change")?.map(|wanted| wanted.ruleset))
    }
}

/// Refuses to work while a change waits for its confirmation; one whose guard is gone is taken back first.
///
/// The caller holds the lock.
pub(crate) fn refuse(config: &Config, output: Output) -> anyhow::Result<()> {
    let Some(file) = open(config)? else { return Ok(()) };
    match file.try_lock() {
        // The guard was killed, or the host was restarted.
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => anyhow::bail!(
            "a change waits for its confirmation: 'cachenat confirm' keeps it, else it is taken back in time"
        ),
        Err(TryLockError::Error(error)) => return Err(error).with_context(|| context(config)),
    }
    match read(config, &file) {
        Ok(pending) => {
            take_back(config, &pending, output)?;
            output
                .warn("a change was never confirmed: the former rules and kernel settings are back in force");
            Ok(())
        }
        // Nothing is known of it, so nothing can be taken back; what is in force is where the next plan starts.
        Err(error) => {
            let aside = path(config).with_extension("json.damaged");
            fs::rename(path(config), aside).with_context(|| context(config))?;
            output.warn(&format!("{error:#}; it is put aside, and what is in force stays"));
            Ok(())
        }
    }
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
    desired: &Desired,
) -> anyhow::Result<Child> {
    let as_json = |ruleset: &Ruleset| Wanted { ruleset: ruleset.clone(), sysctls: vec![] }.to_json();
    let pending = Pending {
        version: 1,
        seconds,
        before: before.map(as_json),
        sysctls: sysctls.to_vec(),
        leases: desired.leases.clone(),
        inventory: desired.inventory.to_json(),
        after: desired.wanted.to_json(),
    };
    state::write(&path(config), [serde_json::to_string(&pending)?])?;
    let guard = start_guard(config);
    if guard.is_err() {
        end(config)?;
    }
    guard
}

/// Starts the guard, which inherits the file and the lock on it, and waits until it is out of the terminal's reach.
fn start_guard(config: &Config) -> anyhow::Result<Child> {
    let file = File::open(path(config)).with_context(|| context(config))?;
    file.try_lock().with_context(|| context(config))?;
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
pub(crate) fn abandon(config: &Config, mut guard: Child, output: Output) -> anyhow::Result<()> {
    if let Some(file) = open(config)? {
        take_back(config, &read(config, file)?, output)?;
    }
    guard.wait().context("the guard")?;
    Ok(())
}

fn end(config: &Config) -> anyhow::Result<()> {
    fs::remove_file(path(config)).with_context(|| context(config))
}

/// Ends the probation because everything is removed, which [`State::is_removed`] tells the guard.
///
/// The caller holds the lock.
pub(crate) fn discard(config: &Config) -> anyhow::Result<()> {
    match fs::remove_file(path(config)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).with_context(|| context(config)),
        _ => Ok(()),
    }
}

/// The guard, whose stdin is the locked file: waits until it is deleted, and takes the change back when time is over.
pub(crate) fn guard(config: &Config, output: Output) -> anyhow::Result<Verdict> {
    // A session of its own: the terminal's end reaches it no more. That fails only for a leader, which is fine too.
    let _ = nix::unistd::setsid();
    let file = File::from(io::stdin().as_fd().try_clone_to_owned().context("the guard's stdin")?);
    let pending = read(config, &file)?;
    let deadline = Instant::now() + Duration::from_secs(pending.seconds);
    output.data(READY)?;

    // From here on nothing that reads its output slowly, or not at all, keeps it from its work.
    in_background();
    let has_ended = || file.metadata().is_ok_and(|metadata| metadata.nlink() == 0);
    while Instant::now() < deadline && !has_ended() {
        thread::sleep(POLL);
    }
    let mut tries = 0;
    loop {
        // It may have been confirmed in the last moment.
        let verdict = Turn::take(config, WAIT).map_err(Into::into).and_then(|_turn| match has_ended() {
            true if State::is_removed(&config.state_dir) => Ok(Verdict::Removed),
            true => Ok(Verdict::Confirmed),
            false => take_back(config, &pending, output),
        });
        tries += 1;
        match verdict {
            Err(error) if tries < TRIES => output.warn(&format!("{error:#}; trying again")),
            other => return other,
        }
        thread::sleep(Duration::from_secs(1));
    }
}

/// Puts back what was before. The caller holds the lock.
fn take_back(config: &Config, pending: &Pending, output: Output) -> anyhow::Result<Verdict> {
    let before = pending.former_rules()?;
    let Synced { changes, outcome, .. } = sync(&mut Kernel::open()?, before.as_ref())?;
    if let Outcome::Unverified { why } = outcome {
        return Err(why).context("the former rules were committed, but not verified");
    }
    cut(config, &changes.forwards(), output);
    match Sysctls::new(&config.sysctl_dir).revert(&pending.sysctls) {
        // Root began the probation, and a service of less privilege ends it.
        Err(denied) if denied.is_denied_drop_in() => output.warn(&left_to_root(&denied)),
        other => other?,
    }
    end(config)?;
    Ok(Verdict::TakenBack)
}

/// Keeps the change: what goes with it is remembered, and the guard goes home.
///
/// `false`: it could not be remembered, which is told.
pub(crate) fn confirm(config: &Config, output: Output) -> anyhow::Result<bool> {
    let mut turn = Turn::take(config, WAIT)?;
    let Some(file) = open(config)? else {
        anyhow::bail!("no change waits for a confirmation");
    };
    let pending = read(config, file)?;
    let inventory =
        Inventory::from_json(&pending.inventory).context("the inventory of the pending change")?;
    let wanted = Wanted::from_json(&pending.after).context("the rules of the pending change")?;
    let (wanted, _) = admit_saved(config, &wanted.ruleset, wanted.ruleset.flowtable.is_some(), output)?;
    let done = Desired { wanted, leases: pending.leases, inventory, is_news: true, kept: vec![] };
    // First the guard, or it would take back what is remembered as done.
    end(config)?;
    let is_saved = remember(&State::open(&config.state_dir), &done, output);
    turn.committed(Moment::default(), is_saved, config);
    Ok(is_saved)
}

/// Waits for the operator's yes, here or by `cachenat confirm`, or for the guard.
pub(crate) fn wait(
    config: &Config,
    mut guard: Child,
    seconds: u64,
    output: Output,
) -> anyhow::Result<Verdict> {
    let answers = ask(seconds);
    loop {
        if let Some(status) = guard.try_wait().context("the guard")? {
            return match status.code() {
                Some(0) => Ok(Verdict::Confirmed),
                Some(1) => Ok(Verdict::TakenBack),
                Some(3) => Ok(Verdict::Removed),
                // It was killed, or could not do its work.
                _ => {
                    let _turn = Turn::take(config, WAIT)?;
                    refuse(config, output)?;
                    Ok(Verdict::TakenBack)
                }
            };
        }
        if let Ok(true) = answers.recv_timeout(POLL) {
            confirm(config, output)?;
            guard.wait().context("the guard")?;
            return Ok(Verdict::Confirmed);
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

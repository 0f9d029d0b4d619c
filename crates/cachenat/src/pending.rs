//! `apply --confirm`: a change that is taken back unless the operator says yes in time.
//!
//! Whoever applies may lose the session through the very change, so the taking back is the work of a process of its
//! own, which is started before the change and belongs to no terminal.

use std::fs;
use std::io::{self, BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use applier::lock;
use applier::netlink::Kernel;
use applier::sync::sync;
use applier::sysctl::Sysctls;
use discovery::Inventory;
use rules::json::Wanted;
use rules::{Leases, Ruleset, SysctlChange};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::desired::Desired;
use crate::output::{Output, say};
use crate::setting::now;
use crate::state::{self, State};

/// How often the file is looked at; flock and rename tell nobody.
const POLL: Duration = Duration::from_millis(100);

/// A change on probation: what was before, and what will be remembered once it is confirmed.
#[derive(Serialize, Deserialize)]
pub(crate) struct Pending {
    version: u32,
    /// When it is taken back, in seconds since 1970; for people and other runs, the guard counts for itself.
    deadline: u64,
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
}

fn file(config: &Config) -> PathBuf {
    config.state_dir.join("pending.json")
}

fn read(file: &Path) -> anyhow::Result<Option<Pending>> {
    match fs::read_to_string(file) {
        Ok(text) => {
            let pending =
                serde_json::from_str(&text).with_context(|| format!("pending change {}", file.display()))?;
            Ok(Some(pending))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("pending change {}", file.display())),
    }
}

/// Refuses to work while a change waits for its confirmation; one whose guard is gone is taken back first.
///
/// The caller holds the lock.
pub(crate) fn refuse(config: &Config) -> anyhow::Result<()> {
    let Some(pending) = read(&file(config))? else { return Ok(()) };
    // The guard has had its time and more: it was killed, or the host was restarted.
    if now() > pending.deadline + 5 || pending.deadline > now() + pending.seconds {
        return take_back(config, &pending);
    }
    let left = pending.deadline.saturating_sub(now());
    anyhow::bail!(
        "a change waits for its confirmation: 'cachenat confirm' keeps it, else it is taken back in {left} s"
    )
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
        deadline: now() + seconds,
        seconds,
        before: before.map(as_json),
        sysctls: sysctls.to_vec(),
        leases: desired.leases.clone(),
        inventory: desired.inventory.to_json(),
        after: desired.wanted.to_json(),
    };
    state::write(&file(config), &serde_json::to_string(&pending)?)?;
    let guard = Command::new(std::env::current_exe().context("path of this program")?)
        .arg("--config")
        .arg(&config.file)
        .arg("guard")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("starting the guard");
    if guard.is_err() {
        end(config)?;
    }
    guard
}

/// Ends a probation whose change was not carried out.
pub(crate) fn abandon(config: &Config, mut guard: Child) -> anyhow::Result<()> {
    end(config)?;
    guard.wait().context("the guard")?;
    Ok(())
}

fn end(config: &Config) -> anyhow::Result<()> {
    let file = file(config);
    fs::remove_file(&file).with_context(|| format!("pending change {}", file.display()))
}

/// The guard: waits until the change is confirmed, and takes it back when its time is over.
pub(crate) fn guard(config: &Config) -> anyhow::Result<Verdict> {
    // A session of its own: the terminal's end reaches it no more. That fails only for a leader, which is fine too.
    let _ = nix::unistd::setsid();
    let Some(pending) = read(&file(config))? else { return Ok(Verdict::Confirmed) };
    let deadline = Instant::now() + Duration::from_secs(pending.seconds);
    while Instant::now() < deadline {
        if !file(config).exists() {
            return Ok(Verdict::Confirmed);
        }
        thread::sleep(POLL);
    }
    let _lock = lock::acquire(&config.lock_file, lock::WAIT)?;
    // Confirmed in the last moment, or taken back by another run.
    if !file(config).exists() {
        return Ok(Verdict::Confirmed);
    }
    take_back(config, &pending)?;
    Ok(Verdict::TakenBack)
}

/// Puts back what was before. The caller holds the lock.
fn take_back(config: &Config, pending: &Pending) -> anyhow::Result<()> {
    let before = pending
        .before
        .as_deref()
        .map(Wanted::from_json)
        .transpose()
        .context("the rules before the change")?;
    sync(&mut Kernel::open()?, before.as_ref().map(|wanted| &wanted.ruleset))?;
    Sysctls::new(&config.sysctl_dir).revert(&pending.sysctls)?;
    end(config)?;
    say("not confirmed in time: the former rules and kernel settings are back in force");
    say("the configuration is as you wrote it: the next 'cachenat apply' carries it out again");
    Ok(())
}

/// Keeps the change: what goes with it is remembered, and the guard goes home.
pub(crate) fn confirm(config: &Config, output: Output) -> anyhow::Result<()> {
    let _lock = lock::acquire(&config.lock_file, lock::WAIT)?;
    let Some(pending) = read(&file(config))? else {
        anyhow::bail!("no change waits for a confirmation");
    };
    let inventory =
        Inventory::from_json(&pending.inventory).context("the inventory of the pending change")?;
    let after = Wanted::from_json(&pending.after).context("the rules of the pending change")?;
    // First the guard, or it would take back what is remembered as done.
    end(config)?;
    if let Err(error) = State::open(&config.state_dir).save(&pending.leases, &inventory, Some(&after)) {
        output.warn(&format!("{error}; the rules are in force, but the next run knows less"));
    }
    Ok(())
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
        if guard.try_wait().context("the guard")?.is_some() {
            // The guard leaves the file only where it could not do its work.
            return match read(&file(config))? {
                Some(_) => anyhow::bail!("the guard ended and could not put the former rules back"),
                None => Ok(if confirmed(&mut guard) { Verdict::Confirmed } else { Verdict::TakenBack }),
            };
        }
        if let Ok(true) = answers.recv_timeout(POLL) {
            confirm(config, output)?;
            guard.wait().context("the guard")?;
            return Ok(Verdict::Confirmed);
        }
    }
}

fn confirmed(guard: &mut Child) -> bool {
    guard.wait().is_ok_and(|status| status.success())
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

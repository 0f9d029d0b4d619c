//! `watch`: applies again and again, and at once when DNS, the API or the kernel say that something has changed.
//!
//! Questions run beside the loop, so that a slow answer holds up neither the repair of the rules nor the watchdog.

mod metrics;

use std::collections::BTreeSet;
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use applier::kernel::{Generation, Netfilter};
use applier::lock::{self, LockError};
use applier::monitor::{Monitor, MonitorError, Noticed};
use applier::netlink::Kernel;
use discovery::{Emptied, Inventory, Listed, Options, Source, recall};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, sleep_until};

use crate::args::Global;
use crate::converge::{Done, carry_out, plan, remember};
use crate::inventory;
use crate::memory::Memory;
use crate::output::Exit;
use crate::pending as probation;
use crate::rounds::Rounds;
use crate::setting::{Setting, now};
use crate::state::State;
use metrics::{Metrics, Sync};

/// A name server that gives out TTLs of zero is not asked more often than this.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);

/// How soon a convergence is tried again that another run or an error was in the way of.
const RETRY: Duration = Duration::from_secs(1);

/// Two who undo each other's rules do it no faster than this.
const SHORTEST_REPAIR: Duration = Duration::from_millis(500);

pub(super) fn run(
    global: &Global,
    interval: Duration,
    dns_interval: Duration,
    metrics: Option<SocketAddr>,
) -> anyhow::Result<Exit> {
    let bound = metrics.map(metrics::bind).transpose()?;
    let mut watch = Watch::open(global)?;
    if let (Some(address), Some(bound)) = (metrics, bound) {
        if !address.ip().is_loopback() {
            let warning = format!("--metrics {address}: whoever reaches that address can read the metrics");
            watch.setting.output.warn(&warning);
        }
        watch.metrics.serve(bound)?;
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    runtime.block_on(watch.run(interval, dns_interval))?;
    Ok(Exit::Done)
}

/// Something that is asked again and again; an answer comes once it is due.
struct Asked<T> {
    due: Instant,
    running: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Asked<T> {
    fn now() -> Self {
        Self { due: Instant::now(), running: None }
    }

    /// The next answer. Dropped halfway, as `select!` does, it goes on where it was.
    async fn answer<F>(&mut self, question: impl FnOnce() -> F) -> T
    where
        F: Future<Output = T> + Send + 'static,
    {
        if self.running.is_none() {
            sleep_until(self.due).await;
        }
        let running = self.running.get_or_insert_with(|| tokio::spawn(question()));
        let answer = running.await;
        self.running = None;
        match answer {
            Ok(answer) => answer,
            // It panicked, which the release profile makes the end of the process; or the runtime is shutting down.
            Err(_) => pending().await,
        }
    }

    /// Asks again after so long; a running question is given up.
    fn again_in(&mut self, pause: Duration) {
        self.due = Instant::now() + pause;
        if let Some(running) = self.running.take() {
            running.abort();
        }
    }
}

struct Watch<'a> {
    global: &'a Global,
    setting: Arc<Setting>,
    sources: Vec<Source>,
    options: Options,
    kernel: Kernel,
    /// Which sources are asked when.
    rounds: Rounds,
    /// What the sources said last, without addresses.
    listed: Option<Inventory>,
    /// The same with addresses: what is to be in force.
    found: Option<Inventory>,
    /// The kernel's generation after our own last look or commit; what is later is somebody else's.
    generation: Option<Generation>,
    /// When somebody else's change was met last, or a retry.
    repaired: Option<Instant>,
    /// When to converge although nothing new was heard.
    retry: Option<Instant>,
    /// What was warned of last, so that it is said once.
    warned: BTreeSet<String>,
    /// Whether the sources have answered since `found`.
    is_listed_anew: bool,
    /// Whether `found` was converged to before, so that it is no second word on what is missing.
    is_repeated: bool,
    /// Whether the sources are to be asked at once, as another run knows more than they told us.
    is_overtaken: bool,
    memory: Memory,
    /// When the answer came that is not in force yet.
    heard: Option<Instant>,
    metrics: Metrics,
}

impl<'a> Watch<'a> {
    fn open(global: &'a Global) -> anyhow::Result<Self> {
        anyhow::ensure!(global.inventory.is_none(), "watch discovers by itself; --inventory goes with apply");
        let (setting, sources, options) = read(global)?;
        Ok(Self {
            metrics: Metrics::new(Arc::clone(&setting)),
            global,
            setting,
            sources,
            options,
            kernel: Kernel::open()?,
            rounds: Rounds::default(),
            listed: None,
            found: None,
            generation: None,
            repaired: None,
            retry: None,
            warned: BTreeSet::new(),
            is_listed_anew: false,
            is_repeated: false,
            is_overtaken: false,
            memory: Memory::default(),
            heard: None,
        })
    }

    async fn run(&mut self, interval: Duration, dns_interval: Duration) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
        let mut hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
        // Subscribed before the first look, so that nothing falls between.
        let mut notices = notices()?;
        let mut watchdog = watchdog();
        let (mut listing, mut resolving) = (Asked::now(), Asked::now());
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => {
                    if self.reload() {
                        self.rounds.restart();
                        listing.again_in(Duration::ZERO);
                    }
                }
                answers = listing.answer(|| list(self.rounds.due(&self.sources), self.options.clone())) => {
                    self.metrics.listed(&answers);
                    listing.again_in(jittered(interval));
                    if answers.is_empty() {
                        self.rounds.heard(&self.sources, answers);
                        continue;
                    }
                    let listed = self.rounds.heard(&self.sources, answers);
                    let state = self.memory.complete(State::open(&self.setting.config.state_dir));
                    self.listed = Some(recall(listed, state.last_good.as_ref()));
                    self.is_listed_anew = true;
                    // The answer may have come because something changed: what the names lead to is asked at once.
                    resolving.again_in(Duration::ZERO);
                }
                (found, ttl) = resolving.answer(|| resolve(self.listed.clone(), self.options.clone())),
                    if self.listed.is_some() =>
                {
                    let pause = ttl.unwrap_or(dns_interval).min(dns_interval).max(SHORTEST_PAUSE);
                    resolving.again_in(jittered(pause));
                    let is_new = std::mem::take(&mut self.is_listed_anew);
                    if is_new || self.found.as_ref() != Some(&found) {
                        self.is_repeated &= !is_new;
                        self.found = Some(found);
                        self.heard = Some(Instant::now());
                        self.converge();
                    }
                }
                Some(noticed) = notices.recv() => self.repair(&noticed?),
                () = at(self.retry) => {
                    self.retry = None;
                    // It may be a repair that was put off: the next one waits again.
                    self.repaired = Some(Instant::now());
                    self.converge();
                }
                () = tick(&mut watchdog) => notify(&[NotifyState::Watchdog]),
            }
            if std::mem::take(&mut self.is_overtaken) {
                self.rounds.restart();
                listing.again_in(Duration::ZERO);
            }
        }
        notify(&[NotifyState::Stopping]);
        self.setting.output.note("stopping: the rules stay in force");
        Ok(())
    }

    /// Takes the new configuration, or keeps the old one and says why.
    fn reload(&mut self) -> bool {
        match read(self.global) {
            Ok((setting, sources, options)) => {
                (self.setting, self.sources, self.options) = (setting, sources, options);
                self.metrics.reloaded(Arc::clone(&self.setting));
                self.setting.output.note("configuration read again");
                true
            }
            Err(error) => {
                self.setting.output.warn(&format!("{error:#}; the old configuration stays in force"));
                false
            }
        }
    }

    /// Converges if somebody else touched our table.
    fn repair(&mut self, noticed: &Noticed) {
        let newer = noticed.generation.is_none() || noticed.generation != self.generation;
        if noticed.touched_ours && newer {
            self.metrics.intruded();
        }
        if noticed.overrun || (noticed.touched_ours && newer) {
            let who: Vec<String> =
                noticed.who.iter().map(|who| format!("{} (pid {})", who.name, who.pid)).collect();
            if !who.is_empty() && noticed.touched_ours {
                self.setting.output.note(&format!("our table was changed by {}", who.join(", ")));
            }
            match self.repaired.filter(|at| at.elapsed() < SHORTEST_REPAIR) {
                Some(at) => self.retry = Some(at + SHORTEST_REPAIR),
                None => {
                    self.repaired = Some(Instant::now());
                    self.converge();
                }
            }
        }
    }

    /// Makes what was found be in force; whatever is in the way is told, and tried again.
    fn converge(&mut self) {
        let Some(found) = self.found.clone() else { return };
        let result = self.try_converge(found).unwrap_or_else(|error| {
            self.warn(BTreeSet::from([format!("{error:#}")]));
            Sync::Failed
        });
        self.metrics.synced(result, self.heard.map(|heard| heard.elapsed()));
        match result {
            Sync::InStep | Sync::Changed => {
                self.heard = None;
                notify(&[NotifyState::Ready]);
            }
            Sync::Busy | Sync::Failed => self.retry = Some(Instant::now() + RETRY),
        }
    }

    fn try_converge(&mut self, mut found: Inventory) -> anyhow::Result<Sync> {
        let output = self.setting.output;
        let _lock = match lock::acquire(&self.setting.config.lock_file, Duration::ZERO) {
            Ok(lock) => lock,
            Err(LockError::Held { .. }) => return Ok(Sync::Busy),
            Err(error) => return Err(error.into()),
        };
        probation::refuse(&self.setting.config, output)?;
        let mut state = self.memory.complete(self.setting.state());
        if let Some(theirs) = self.memory.overtaken(&state) {
            (self.listed, self.found) = (Some(theirs.clone()), Some(theirs.clone()));
            (found, self.is_overtaken) = (theirs, true);
        }
        if self.is_repeated {
            state.forget_held();
        }
        let dump = self.kernel.dump()?;
        let desired = plan(&self.setting, &mut state, found, &dump, Emptied::Keep)?;
        let done = carry_out(&self.setting.config, &mut self.kernel, dump, &desired.wanted, output)?;
        let Done { report, generation } = done;
        self.generation = Some(generation);
        self.is_repeated = true;

        self.warn(desired.warnings(now()).into_iter().collect());
        output.changes(&report.lines())?;
        let (nodes, kept) = (desired.inventory.nodes.len(), desired.kept.len());
        let unsure = if kept > 0 { format!(", {kept} kept as they were") } else { String::new() };
        notify(&[NotifyState::Status(&format!("{nodes} nodes forwarded{unsure}"))]);
        let is_saved = remember(&state, &desired, output);
        self.memory.note(desired, is_saved);
        Ok(if report.is_empty() { Sync::InStep } else { Sync::Changed })
    }

    /// Says what was not said the last time.
    fn warn(&mut self, lines: BTreeSet<String>) {
        lines.difference(&self.warned).for_each(|line| self.setting.output.warn(line));
        self.warned = lines;
    }
}

fn read(global: &Global) -> anyhow::Result<(Arc<Setting>, Vec<Source>, Options)> {
    let setting = Setting::read(global)?;
    setting.check_host()?;
    let sources = inventory::sources(&setting.config)?;
    let options = inventory::options(&setting.config, &setting.gateway.addresses);
    Ok((Arc::new(setting), sources, options))
}

async fn list(sources: Vec<Source>, options: Options) -> Vec<Listed> {
    discovery::list_each(&sources, &options).await
}

async fn resolve(listed: Option<Inventory>, options: Options) -> (Inventory, Option<Duration>) {
    discovery::resolve(listed.unwrap_or_default(), &options).await
}

/// The commits that anybody makes to nf_tables, heard by a thread of its own.
fn notices() -> anyhow::Result<mpsc::Receiver<Result<Noticed, MonitorError>>> {
    let mut monitor = Monitor::open()?;
    let (hear, heard) = mpsc::channel(16);
    thread::spawn(move || {
        loop {
            let noticed = monitor.wait();
            let broken = noticed.is_err();
            if hear.blocking_send(noticed).is_err() || broken {
                return;
            }
        }
    });
    Ok(heard)
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// Ticks at half of the time within which systemd wants to hear from us (sd_watchdog_enabled(3)).
fn watchdog() -> Option<tokio::time::Interval> {
    let mut ticks = tokio::time::interval(sd_notify::watchdog_enabled()? / 2);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(ticks)
}

async fn tick(watchdog: &mut Option<tokio::time::Interval>) {
    match watchdog {
        Some(watchdog) => drop(watchdog.tick().await),
        None => pending().await,
    }
}

/// Without systemd there is nobody to tell, and a lost word costs nothing.
fn notify(state: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(state);
}

/// A tenth more or less, so that many gateways don't ask in step.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(fastrand::f64().mul_add(0.2, 0.9))
}

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
use applier::lock::LockError;
use applier::monitor::{Monitor, MonitorError, Noticed, Port};
use applier::netlink::Kernel;
use discovery::{Inventory, Listed, Options, Source, SourceName};
use plan::{ClientAnswers, OnEmptyAnswer, readd_unread_nodes};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, sleep_until};

use crate::args::Global;
use crate::client_lists::{self, Ask};
use crate::clock::now;
use crate::converge::{Done, Until, carry_out, plan, remember};
use crate::inventory;
use crate::metrics::http::Names;
use crate::output::{Exit, Output, in_background};
use crate::pending as probation;
use crate::rounds::Rounds;
use crate::run_context::RunContext;
use crate::state::State;
use crate::sysctls;
use crate::turn::{Moment, Turn};
use crate::unsaved::UnsavedState;
use metrics::{Metrics, SyncOutcome};

/// A name server that gives out TTLs of zero is not asked more often than this.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);

/// The names of clients are asked once in so many intervals of the nodes' names, unless their answers hold for longer.
const NAMES_INTERVALS: u32 = 15;

/// However long an answer holds, a client that has moved is let in again after this.
const LONGEST_TTL: Duration = Duration::from_secs(600);

/// How soon a convergence is tried again that another run or an error was in the way of.
const RETRY: Duration = Duration::from_secs(1);

/// Two who undo each other's rules do it no faster than this.
const SHORTEST_REPAIR: Duration = Duration::from_millis(500);

pub(super) fn run(
    global: &Global,
    interval: Duration,
    dns_interval: Duration,
    metrics: Option<(SocketAddr, Names)>,
) -> anyhow::Result<Exit> {
    // Nothing that reads its output slowly, or not at all, keeps it from its work.
    in_background();
    let bound = metrics.as_ref().map(|(address, _)| metrics::bind(*address)).transpose()?;
    let mut watch = Watch::open(global)?;
    if let (Some((address, names)), Some(bound)) = (metrics, bound) {
        if !address.ip().is_loopback() {
            let warning = format!("--metrics {address}: whoever reaches that address can read the metrics");
            watch.context.output.warn(&warning);
        }
        watch.metrics.serve(bound, names)?;
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    runtime.block_on(watch.run(interval, dns_interval))?;
    Ok(Exit::Done)
}

/// Something that is asked again and again; an answer comes once it is due.
struct PollTask<T> {
    due: Instant,
    running: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> PollTask<T> {
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
    context: Arc<RunContext>,
    sources: Vec<Source>,
    options: Options,
    kernel: Kernel,
    /// Which sources are asked when.
    rounds: Rounds,
    /// What the sources said last, without addresses.
    listed: Option<Inventory>,
    /// When they were asked.
    listed_at: Moment,
    /// The same with addresses: what is to be in force.
    found: Option<Inventory>,
    /// When the sources were asked that this comes from.
    found_at: Moment,
    /// What systemd is to show.
    status: String,
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
    memory: UnsavedState,
    /// When the answer came that is not in force yet.
    heard: Option<Instant>,
    metrics: Metrics,
}

impl<'a> Watch<'a> {
    fn open(global: &'a Global) -> anyhow::Result<Self> {
        anyhow::ensure!(global.inventory.is_none(), "watch discovers by itself; --inventory goes with apply");
        let output = Output::new(global);
        let mut last = String::new();
        let context = RunContext::awaited(global, None, |error| {
            let words = format!("{error:#}; waiting for it");
            if words != last {
                output.warn(&words);
                last = words;
            }
        })?;
        let (context, sources, options) = checked(context)?;
        Ok(Self {
            metrics: Metrics::new(Arc::clone(&context)),
            global,
            context,
            sources,
            options,
            kernel: Kernel::open()?,
            rounds: Rounds::default(),
            listed: None,
            listed_at: Moment::default(),
            found: None,
            found_at: Moment::default(),
            status: String::new(),
            generation: None,
            repaired: None,
            retry: None,
            warned: BTreeSet::new(),
            is_listed_anew: false,
            is_repeated: false,
            is_overtaken: false,
            memory: UnsavedState::default(),
            heard: None,
        })
    }

    async fn run(&mut self, interval: Duration, dns_interval: Duration) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
        let mut hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
        // Subscribed before the first look, so that nothing falls between.
        let mut notices = notices(self.kernel.port())?;
        let mut watchdog = watchdog();
        let (mut listing, mut resolving) = (PollTask::now(), PollTask::now());
        let (mut client_files, mut client_names) = (PollTask::now(), PollTask::now());
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => {
                    if self.reload() {
                        self.rounds.restart();
                        listing.again_in(Duration::ZERO);
                        client_names.again_in(Duration::ZERO);
                    }
                }
                answers = client_files.answer(|| client_files_of(Arc::clone(&self.context))),
                    if self.context.config.has_client_files() =>
                {
                    client_files.again_in(dns_interval);
                    self.take_clients(&answers);
                }
                (answers, ttl) = client_names.answer(|| client_lists::ask_names(client_lists::names(&self.context.config), self.context.imds.clone())),
                    if self.context.config.has_client_names() =>
                {
                    client_names.again_in(ttl.unwrap_or_default().min(LONGEST_TTL).max(dns_interval * NAMES_INTERVALS));
                    self.take_clients(&answers);
                }
                (asked, answers) = listing.answer(|| list(self.rounds.due(&self.sources), current(&self.context, &self.options))) => {
                    self.metrics.listed(&answers);
                    listing.again_in(jittered(interval));
                    if answers.is_empty() {
                        self.rounds.heard(&self.sources, answers);
                        continue;
                    }
                    let listed = self.rounds.heard(&self.sources, answers);
                    let state = self.memory.complete(State::open(&self.context.config.state_dir));
                    self.listed = Some(readd_unread_nodes(listed, state.last_good.as_ref()));
                    self.listed_at = asked;
                    self.is_listed_anew = true;
                    // The answer may have come because something changed: what the names lead to is asked at once.
                    resolving.again_in(Duration::ZERO);
                }
                (found, ttl) = resolving.answer(|| resolve(self.listed.clone(), current(&self.context, &self.options))),
                    if self.listed.is_some() =>
                {
                    let pause = ttl.unwrap_or(dns_interval).min(dns_interval).max(SHORTEST_PAUSE);
                    resolving.again_in(jittered(pause));
                    let is_new = std::mem::take(&mut self.is_listed_anew);
                    if is_new || self.found.as_ref() != Some(&found) {
                        self.is_repeated &= !is_new;
                        self.found = Some(found);
                        self.found_at = self.listed_at;
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
                // What the other run found may be older than what the names lead to by now.
                resolving.again_in(Duration::ZERO);
                client_names.again_in(Duration::ZERO);
            }
        }
        notify(&[NotifyState::Stopping]);
        self.context.output.note("stopping: the rules stay in force");
        Ok(())
    }

    /// Takes the new configuration, or keeps the old one and says why.
    fn reload(&mut self) -> bool {
        let reread = self.reread();
        match &reread {
            Ok(()) => self.context.output.note("configuration read again"),
            Err(error) => self.context.output.warn(&kept(error)),
        }
        reread.is_ok()
    }

    /// The one way by which a configuration comes in while it runs.
    fn reread(&mut self) -> anyhow::Result<()> {
        (self.context, self.sources, self.options) = read(self.global)?;
        self.metrics.reloaded(Arc::clone(&self.context));
        Ok(())
    }

    /// Takes a configuration that has changed before anything is planned with the old one; `Err`: it can't be taken.
    fn refresh(&mut self) -> anyhow::Result<()> {
        if self.context.config.is_current().unwrap_or(false) {
            return Ok(());
        }
        self.reread()?;
        self.context.output.note("the configuration has changed and was read again");
        // Until the sources have answered to it, it only takes away.
        let named: BTreeSet<SourceName> = self.sources.iter().map(Source::name).collect();
        for inventory in self.listed.iter_mut().chain(&mut self.found) {
            inventory.nodes.retain(|node| named.contains(&node.source));
            inventory.sources.retain(|report| named.contains(&report.source));
        }
        self.is_overtaken = true;
        Ok(())
    }

    /// Takes what names or files of clients say now; what is no longer listed goes at once.
    fn take_clients(&mut self, answers: &ClientAnswers) {
        let clients = client_lists::settle(&self.context.config, answers, &self.context.clients);
        let is_new = (&clients.lists, &clients.kept, clients.is_open)
            != (&self.context.clients.lists, &self.context.clients.kept, self.context.clients.is_open);
        self.context = Arc::new(RunContext { clients, ..RunContext::clone(&self.context) });
        if is_new {
            self.metrics.reloaded(Arc::clone(&self.context));
            self.heard = Some(Instant::now());
            self.converge();
        }
    }

    /// Converges if another process has touched our table since it was last read.
    fn repair(&mut self, noticed: &Noticed) {
        self.metrics.intruded(noticed.intrusions);
        let who: Vec<String> =
            noticed.who.iter().map(|who| format!("{} (pid {})", who.name, who.pid)).collect();
        if !who.is_empty() {
            self.context.output.note(&format!("our table was changed by {}", who.join(", ")));
        }
        let is_unseen = |at: Generation| self.generation.is_none_or(|seen| at.is_after(seen));
        if noticed.overrun || noticed.last_intrusion.is_some_and(is_unseen) {
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
        if self.found.is_none() {
            return;
        }
        let result = self.try_converge().unwrap_or_else(|error| {
            self.warn(BTreeSet::from([format!("{error:#}")]));
            SyncOutcome::Failed
        });
        self.metrics.synced(result, self.heard.map(|heard| heard.elapsed()));
        match result {
            SyncOutcome::InStep | SyncOutcome::Changed => {
                self.heard = None;
                notify(&[NotifyState::Status(&self.status), NotifyState::Ready]);
            }
            SyncOutcome::Busy | SyncOutcome::Failed => self.retry = Some(Instant::now() + RETRY),
        }
    }

    fn try_converge(&mut self) -> anyhow::Result<SyncOutcome> {
        // While it lasts, nothing is printed and systemd hears nothing.
        let mut turn = match Turn::take(&self.context.config, Duration::ZERO) {
            Ok(turn) => turn,
            Err(LockError::Held { .. }) => return Ok(SyncOutcome::Busy),
            Err(error) => return Err(error.into()),
        };
        probation::refuse(&self.context.config, &mut self.kernel, self.context.output)?;
        if State::is_removed(&self.context.config.state_dir) {
            self.memory = UnsavedState::default();
            self.status = "nothing is forwarded: 'cachenat remove' was run".to_owned();
            let words = "'cachenat remove' was run: nothing is forwarded until the next 'cachenat apply'";
            self.warn(BTreeSet::from([words.to_owned()]));
            return Ok(SyncOutcome::InStep);
        }
        let lock_file = self.context.config.lock_file.clone();
        let refused = self.refresh().err().map(|error| kept(&error));
        if self.context.config.lock_file != lock_file {
            return Ok(SyncOutcome::Busy);
        }
        if self.context.clients.is_open {
            // Without its answer the clients of a name that has just been configured would lose their connections.
            return Ok(SyncOutcome::Busy);
        }
        let own = self.context.config.digest();
        if let Some(refused) = &refused
            && turn.latest().is_some_and(|latest| latest.config != own)
        {
            // The old one may let in whom the later one does not.
            anyhow::bail!(
                "{refused}, but another run has applied a later one: what is in force is kept as it is"
            );
        }
        let (output, state) = (self.context.output, self.context.state());
        if let Some(latest) = turn.later_than(self.found_at) {
            // That run knows more than our answer; ours is not mixed with it, and the sources are asked again.
            self.memory = UnsavedState::default();
            self.listed = state.last_good.clone().filter(|_| latest.is_saved);
            self.found = self.listed.clone();
            (self.listed_at, self.found_at) = (latest.moment, latest.moment);
            self.is_overtaken = true;
        }
        let Some(found) = self.found.clone() else { return Ok(SyncOutcome::Busy) };
        let mut state = self.memory.complete(state);
        if self.is_repeated {
            state.forget_held();
        }
        let dump = self.kernel.dump()?;
        let desired = plan(&self.context, &mut state, found, &dump, OnEmptyAnswer::Keep)?;
        let done =
            carry_out(&self.context.config, &mut self.kernel, dump, &desired.wanted, Until::Changed, output)?;
        let Done { report, generation, is_verified, uncut } = done;
        self.generation = Some(generation);
        self.is_repeated = true;
        let is_saved = remember(&state, &desired, output);
        turn.committed(self.found_at, is_saved, &self.context.config);
        drop(turn);

        let uncut = uncut.map(|uncut| uncut.to_string());
        let at_boot = sysctls::boot_warnings(&self.context.config, &desired.wanted);
        let warnings = desired.warnings(now()).into_iter().chain(at_boot);
        self.warn(warnings.chain(refused).chain(uncut).collect());
        output.changes(&report.lines());
        let (nodes, kept) = (desired.inventory.nodes.len(), desired.kept.len());
        let unsure = if kept > 0 { format!(", {kept} kept as they were") } else { String::new() };
        self.status = format!("{nodes} nodes forwarded{unsure}");
        self.memory.note(desired, is_saved);
        Ok(match is_verified {
            false => SyncOutcome::Failed,
            true if report.is_empty() => SyncOutcome::InStep,
            true => SyncOutcome::Changed,
        })
    }

    /// Says what was not said the last time.
    fn warn(&mut self, lines: BTreeSet<String>) {
        lines.difference(&self.warned).for_each(|line| self.context.output.warn(line));
        self.warned = lines;
    }
}

/// What is said of a configuration that can't be taken.
fn kept(error: &anyhow::Error) -> String {
    format!("{error:#}; the old configuration stays in force")
}

fn read(global: &Global) -> anyhow::Result<(Arc<RunContext>, Vec<Source>, Options)> {
    // The loop does not wait for a name server: names are asked beside it.
    checked(RunContext::read(global, Ask::Files)?)
}

fn checked(context: RunContext) -> anyhow::Result<(Arc<RunContext>, Vec<Source>, Options)> {
    context.check_host()?;
    probation::refuse_rejected(&context.config)?;
    let sources = inventory::sources(&context.config)?;
    let options = context.options()?;
    Ok((Arc::new(context), sources, options))
}

/// How to ask on this host as it is now; as it was when it can't be told.
fn current(context: &RunContext, last: &Options) -> Options {
    context.options().unwrap_or_else(|_| last.clone())
}

async fn client_files_of(context: Arc<RunContext>) -> ClientAnswers {
    client_lists::files(&context.config)
}

/// What the sources say, and when they were asked.
async fn list(sources: Vec<Source>, options: Options) -> (Moment, Vec<Listed>) {
    let asked = Moment::now();
    (asked, discovery::list_each(&sources, &options).await)
}

async fn resolve(listed: Option<Inventory>, options: Options) -> (Inventory, Option<Duration>) {
    discovery::resolve(listed.unwrap_or_default(), &options).await
}

/// The commits that anybody makes to nf_tables, heard by a thread of its own.
fn notices(own: Port) -> anyhow::Result<mpsc::Receiver<Result<Noticed, MonitorError>>> {
    let mut monitor = Monitor::open(Some(own))?;
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

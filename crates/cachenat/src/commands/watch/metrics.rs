//! What `watch` counts of itself, and serves together with the status.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use discovery::{Listed, Outcome};
use plan::Timestamp;

use crate::clock::now;
use crate::commands::status::{Status, gather, prometheus};
use crate::metrics::http::{self, Names};
use crate::metrics::{Exposition, Kind, sample};
use crate::run_context::RunContext;
use crate::state::State;

/// The upper bounds of the time from an answer to the commit, in milliseconds.
const BOUNDS: [u64; 8] = [5, 10, 25, 100, 500, 1_000, 5_000, 30_000];

/// How an attempt to make what was found be in force ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SyncOutcome {
    /// There was nothing to change.
    InStep,
    /// Something was changed.
    Changed,
    /// Another run has the lock.
    Busy,
    /// It was not possible.
    Failed,
}

/// Shared by the loop, which counts, and the thread that serves.
#[derive(Clone)]
pub(super) struct Metrics(Arc<Mutex<Shared>>);

struct Shared {
    /// What the status is made from: the configuration that is in force.
    context: Arc<RunContext>,
    counters: Counters,
}

struct Counters {
    started: Timestamp,
    syncs: BTreeMap<SyncOutcome, u64>,
    last_success: Option<Timestamp>,
    /// By source, how many of its answers were not whole.
    failures: BTreeMap<String, u64>,
    /// How often somebody else changed our table.
    intrusions: u64,
    commits: Latency,
}

/// How long it took from an answer to the commit of what it changed.
#[derive(Clone, Debug, Default)]
struct Latency {
    /// As many as took no longer than each of [`BOUNDS`].
    within: [u64; BOUNDS.len()],
    count: u64,
    sum: Duration,
}

impl Latency {
    fn add(&mut self, took: Duration) {
        for (within, bound) in self.within.iter_mut().zip(BOUNDS) {
            *within += u64::from(took <= Duration::from_millis(bound));
        }
        self.count += 1;
        self.sum += took;
    }

    fn samples(&self) -> Vec<String> {
        let bounds = self.within.iter().zip(BOUNDS);
        let buckets = bounds.map(|(within, bound)| {
            let bound = Duration::from_millis(bound).as_secs_f64().to_string();
            ("_bucket", sample(&[("le", &bound)], within))
        });
        let rest = [
            ("_bucket", sample(&[("le", "+Inf")], self.count)),
            ("_sum", sample(&[], self.sum.as_secs_f64())),
            ("_count", sample(&[], self.count)),
        ];
        buckets.chain(rest).map(|(suffix, sample)| format!("{suffix}{sample}")).collect()
    }
}

impl Metrics {
    pub(super) fn new(context: Arc<RunContext>) -> Self {
        Self(Arc::new(Mutex::new(Shared { context, counters: Counters::new(now()) })))
    }

    /// Serves on this socket from now on.
    pub(super) fn serve(&self, bound: TcpListener, names: Names) -> anyhow::Result<()> {
        let metrics = self.clone();
        http::serve(bound, names, move || metrics.text())
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another configuration is in force.
    pub(super) fn reloaded(&self, context: Arc<RunContext>) {
        self.shared().context = context;
    }

    /// Counts the sources that were asked and not read whole.
    pub(super) fn listed(&self, answers: &[Listed]) {
        let mut shared = self.shared();
        for report in answers.iter().map(Listed::report) {
            let count = shared.counters.failures.entry(report.source.to_string()).or_default();
            *count += u64::from(report.outcome != Outcome::Complete);
        }
    }

    /// Counts other processes' changes of our table.
    pub(super) fn intruded(&self, times: u64) {
        self.shared().counters.intrusions += times;
    }

    /// Counts an attempt; `took` is the time since the answer that it follows.
    pub(super) fn synced(&self, result: SyncOutcome, took: Option<Duration>) {
        let counters = &mut self.shared().counters;
        *counters.syncs.entry(result).or_default() += 1;
        if matches!(result, SyncOutcome::InStep | SyncOutcome::Changed) {
            counters.last_success = Some(now());
        }
        if let Some(took) = took.filter(|_| result == SyncOutcome::Changed) {
            counters.commits.add(took);
        }
    }

    /// The status and the counters. The loop is held up no longer than it takes to copy the counters.
    fn text(&self) -> String {
        let context = Arc::clone(&self.shared().context);
        let state = State::open(&context.config.state_dir);
        let status = gather(&context, state, &mut Vec::new());
        text(status.ok().as_ref(), &self.shared().counters)
    }
}

fn text(status: Option<&Status>, counters: &Counters) -> String {
    let mut exposition = Exposition::default();
    exposition.metric(
        "watch_status_readable",
        Kind::Gauge,
        "Whether the kernel and the state could be read for this; if not, what they tell is missing.",
        [sample(&[], u8::from(status.is_some()))],
    );
    if let Some(status) = status {
        prometheus::write(&mut exposition, status);
    }
    counters.write(&mut exposition);
    exposition.into_text()
}

impl Counters {
    fn new(started: Timestamp) -> Self {
        // Each result is there from the beginning, so that its first increase is one.
        let results = [SyncOutcome::InStep, SyncOutcome::Changed, SyncOutcome::Busy, SyncOutcome::Failed];
        Self {
            started,
            syncs: results.map(|result| (result, 0)).into(),
            last_success: None,
            failures: BTreeMap::new(),
            intrusions: 0,
            commits: Latency::default(),
        }
    }

    fn write(&self, to: &mut Exposition) {
        to.metric(
            "watch_start_timestamp_seconds",
            Kind::Gauge,
            "When the watch began.",
            [sample(&[], self.started)],
        );
        let result = |result: SyncOutcome| match result {
            SyncOutcome::InStep => "in_step",
            SyncOutcome::Changed => "changed",
            SyncOutcome::Busy => "busy",
            SyncOutcome::Failed => "failed",
        };
        to.metric(
            "watch_syncs_total",
            Kind::Counter,
            "Attempts to make what was found be in force; busy: another run had the lock.",
            self.syncs.iter().map(|(&of, count)| sample(&[("result", result(of))], count)),
        );
        to.metric(
            "watch_last_success_timestamp_seconds",
            Kind::Gauge,
            "When what was found was in force last, as read back.",
            self.last_success.map(|at| sample(&[], at)),
        );
        to.metric(
            "watch_source_failures_total",
            Kind::Counter,
            "Answers of the source that were not whole.",
            self.failures.iter().map(|(source, count)| sample(&[("source", source)], count)),
        );
        to.metric(
            "watch_foreign_changes_total",
            Kind::Counter,
            "How often somebody else changed our table.",
            [sample(&[], self.intrusions)],
        );
        to.metric(
            "watch_commit_seconds",
            Kind::Histogram,
            "How long it took from an answer of the sources to the commit of what it changed.",
            self.commits.samples(),
        );
    }
}

/// Takes the socket at once, so that a port that is taken is an error before anything is touched.
pub(super) fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("--metrics {address}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn each_time_counts_in_every_bucket_that_it_fits_in() {
        let mut latency = Latency::default();
        [3, 10, 200, 60_000].map(Duration::from_millis).into_iter().for_each(|took| latency.add(took));
        let samples = latency.samples();
        assert_eq!(samples[0], "_bucket{le=\"0.005\"} 1");
        assert_eq!(samples[1], "_bucket{le=\"0.01\"} 2");
        assert_eq!(samples[7], "_bucket{le=\"30\"} 3");
        assert_eq!(samples[8..], ["_bucket{le=\"+Inf\"} 4", "_sum 60.213", "_count 4"]);
    }

    /// Everything that is ever served.
    fn everything() -> String {
        let mut counters = Counters::new(Timestamp::from_secs(1_700_000_000));
        counters.last_success = Some(Timestamp::from_secs(1_700_000_001));
        counters.failures.insert("static/local".to_owned(), 1);
        text(Some(&prometheus::tests::status(Some(3))), &counters)
    }

    #[test]
    fn where_the_status_can_not_be_read_the_counters_are_served_all_the_same() {
        let text = text(None, &Counters::new(Timestamp::from_secs(7)));
        assert!(text.contains("cachenat_watch_status_readable 0\n"), "{text}");
        assert!(text.contains("cachenat_watch_syncs_total{result=\"changed\"} 0\n"), "{text}");
        assert!(!text.contains("cachenat_in_step"), "{text}");
    }

    /// The names in a text that are metrics of ours; a histogram's parts count as the histogram.
    fn metrics(text: &str) -> BTreeSet<&str> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let ours = words.filter(|word| word.starts_with("cachenat_"));
        let suffixes = ["_bucket", "_sum", "_count"];
        ours.map(|word| suffixes.iter().find_map(|suffix| word.strip_suffix(suffix)).unwrap_or(word))
            .collect()
    }

    fn file(path: &str) -> String {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)).unwrap()
    }

    #[test]
    fn dashboard_alerts_and_documentation_name_metrics_that_there_are_and_all_of_them() {
        let (dashboard, alerts) =
            (file("examples/grafana-dashboard.json"), file("examples/prometheus-alerts.yml"));
        let (documentation, text) = (file("docs/OPERATIONS.md"), everything());
        let ours = metrics(&text);
        assert!(metrics(&alerts).is_subset(&ours), "{:?}", metrics(&alerts).difference(&ours));
        assert_eq!(metrics(&dashboard), ours);
        assert_eq!(metrics(&documentation), ours);
        serde_json::from_str::<serde_json::Value>(&dashboard).unwrap();
        serde_yaml::from_str::<serde_yaml::Value>(&alerts).unwrap();
    }
}

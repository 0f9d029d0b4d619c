//! `status`: prints what is in force.

mod prometheus;

use std::collections::BTreeMap;

use applier::conntrack::Conntrack;
use applier::kernel::{Dump, Netfilter};
use applier::netlink::Kernel;
use applier::sync::{difference, ours};
use applier::sysctl::Sysctls;
use discovery::{Emptied, Inventory, Node, SourceReport};
use rules::ruleset::Key;
use rules::{Endpoint, ForwardId, Ruleset};
use serde::Serialize;

use crate::args::{Global, StatusFormat};
use crate::desired::listeners;
use crate::output::{Exit, Output, age, columns, with_cause};
use crate::report::Report;
use crate::setting::{Setting, now};
use crate::state::State;

#[derive(Serialize)]
struct Status {
    version: u32,
    /// Whether our table is there.
    installed: bool,
    /// Whether what is in force is what was last known to be wanted.
    in_step: bool,
    /// When what is wanted of the kernel last changed, in seconds since 1970.
    last_change: Option<u64>,
    listeners: Vec<Listener>,
    sources: Vec<SourceStatus>,
    /// What separates the two, in nft's words and as settings.
    drift: Vec<String>,
}

#[derive(Serialize)]
struct Listener {
    id: String,
    cluster: Option<String>,
    role: Option<discovery::Role>,
    listen: String,
    targets: Vec<String>,
    /// Connections made since the element was added.
    connections: u64,
    /// Connections that are open now; `None` where the kernel does not tell.
    flows: Option<u64>,
    /// When the port was leased, in seconds since 1970.
    since: Option<u64>,
    /// For how long, in seconds.
    age: Option<u64>,
}

#[derive(Serialize)]
struct SourceStatus {
    source: String,
    /// For how long it could not be read whole, in seconds; `None`: it can.
    failing_for: Option<u64>,
}

pub(super) fn run(global: &Global, format: StatusFormat) -> anyhow::Result<Exit> {
    let setting = Setting::read(global)?;
    let state = setting.state();
    let dump = Kernel::open()?.dump()?;
    let nothing = Ruleset::default();
    let actual = ours(&dump)?;
    let in_force = actual.map_or(&nothing, |actual| &actual.ruleset);
    let last_good = state.last_good.clone().unwrap_or_default();

    let desired = setting.desired(&last_good, &state, in_force, Emptied::Keep)?;
    desired.warnings(now()).iter().for_each(|line| setting.output.warn(line));
    // Before the first run there is nothing that could have drifted.
    let expected = state.last_good.is_some();
    let changes =
        if expected { difference(&dump, Some(&desired.wanted.ruleset))? } else { rules::Changes::default() };
    let sysctls = if expected {
        Sysctls::new(&setting.config.sysctl_dir).plan(&desired.wanted.sysctls)?
    } else {
        vec![]
    };
    let report = Report { changes, sysctls, warnings: vec![] };

    let nodes: BTreeMap<&str, &Node> = last_good.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let since: BTreeMap<(&ForwardId, u16), u64> = desired
        .leases
        .iter()
        .filter(|lease| lease.released.is_none() && state.leases.is_some())
        .map(|lease| ((&lease.id, lease.port.get()), lease.since))
        .collect();
    let (connections, flows) = (connections(&dump), flows(setting.output));
    let listener = |(id, listen, to): (ForwardId, Endpoint, Vec<Endpoint>)| {
        let node = nodes.get(id.as_str());
        let since = since.get(&(&id, listen.port.get())).copied();
        Listener {
            cluster: node.map(|node| node.cluster.clone()),
            role: node.and_then(|node| node.role),
            listen: listen.to_string(),
            targets: to.iter().map(ToString::to_string).collect(),
            connections: connections.get(&listen).copied().unwrap_or_default(),
            flows: flows.as_ref().map(|flows| flows.get(&listen).copied().unwrap_or_default()),
            since,
            age: since.map(|since| now().saturating_sub(since)),
            id: id.to_string(),
        }
    };
    let status = Status {
        version: 1,
        installed: actual.is_some(),
        in_step: report.is_empty(),
        last_change: State::last_change(&setting.config.state_dir),
        listeners: listeners(in_force).into_iter().map(listener).collect(),
        sources: sources(&last_good, now()),
        drift: report.text().lines().map(str::to_owned).collect(),
    };
    match format {
        StatusFormat::Json => setting.output.data(&(serde_json::to_string_pretty(&status)? + "\n"))?,
        StatusFormat::Text => setting.output.data(&text(&status))?,
        StatusFormat::Prometheus => setting.output.data(&prometheus::text(&status))?,
    }
    if !status.in_step && matches!(format, StatusFormat::Text) {
        let summary = report.summary();
        setting.output.warn(&format!(
            "out of step ({summary}): 'cachenat diff' shows what differs, 'cachenat apply' mends it"
        ));
    }
    Ok(Exit::Done)
}

/// The connections made through each listener, over all of its elements.
fn connections(dump: &Dump) -> BTreeMap<Endpoint, u64> {
    let mut connections = BTreeMap::new();
    for ((_, key), counter) in &dump.counters {
        if let Key::Endpoint(listen) | Key::Slots { listen, .. } = *key {
            *connections.entry(listen).or_default() += counter.packets;
        }
    }
    connections
}

/// The open connections through each listener, to whatever target; `None` where the kernel does not tell.
fn flows(output: Output) -> Option<BTreeMap<Endpoint, u64>> {
    match Conntrack::open().and_then(|mut conntrack| conntrack.count()) {
        Ok(counts) => {
            let mut flows = BTreeMap::new();
            for ((listen, _), count) in counts {
                *flows.entry(listen).or_default() += count;
            }
            Some(flows)
        }
        Err(error) => {
            let error = with_cause(&error);
            output.warn(&format!("open connections are not counted: {error}"));
            None
        }
    }
}

fn sources(last_good: &Inventory, now: u64) -> Vec<SourceStatus> {
    let failing_for = |report: &SourceReport| report.failing_since.map(|since| now.saturating_sub(since));
    let reports = last_good.sources.iter();
    reports
        .map(|report| SourceStatus { source: report.source.to_string(), failing_for: failing_for(report) })
        .collect()
}

fn text(status: &Status) -> String {
    if !status.installed {
        return "no table inet cachenat: nothing is forwarded\n".to_owned();
    }
    let row = |listener: &Listener| {
        [
            listener.id.clone(),
            listener.role.map_or_else(|| "-".to_owned(), |role| format!("{role:?}").to_lowercase()),
            listener.listen.clone(),
            listener.targets.join(" "),
            listener.connections.to_string(),
            listener.flows.map_or_else(|| "-".to_owned(), |flows| flows.to_string()),
            listener.age.map_or_else(|| "-".to_owned(), age),
        ]
    };
    let last_change =
        status.last_change.map(|at| format!("last change {} ago\n", age(now().saturating_sub(at))));
    let header = ["NODE", "ROLE", "LISTEN", "TARGET", "CONNECTIONS", "OPEN", "AGE"];
    columns(header, status.listeners.iter().map(row)) + &last_change.unwrap_or_default()
}

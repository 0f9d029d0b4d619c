//! `status`: prints what is in force.

pub(super) mod prometheus;

use std::collections::BTreeMap;
use std::time::Duration;

use applier::conntrack::{self, Bytes, Conntrack, Flows, Which};
use applier::host_facts;
use applier::kernel::{Dump, Netfilter};
use applier::lock;
use applier::netlink::Kernel;
use applier::sync::{difference, ours};
use discovery::{Inventory, Node, SourceReport};
use doctor::age;
use doctor::{Level, host as kernel_settings};
use ipnet::IpNet;
use plan::{Known, OnEmptyAnswer, Timestamp};
use rules::diff::Action;
use rules::flows::ConntrackFill;
use rules::ruleset::Key;
use rules::{AccessList, AddrPort, Forward, ForwardId, ListIndex, Ruleset, RulesetDiff};
use serde::{Serialize, Serializer};

use crate::args::{Global, StatusFormat};
use crate::client_lists::Ask;
use crate::clock::now;
use crate::moves::Moves;
use crate::output::{Exit, columns, size, with_cause};
use crate::report::Report;
use crate::run_context::{Effect, RunContext};
use crate::state::State;
use crate::sysctls;

/// What is in force, and how it stands to what is wanted.
#[derive(Serialize)]
pub(super) struct Status {
    version: u32,
    /// Whether our table is there.
    installed: bool,
    /// Whether what is in force is what was last known to be wanted.
    in_step: bool,
    /// When what is wanted of the kernel last changed.
    last_change: Option<Timestamp>,
    /// When a run of any kind worked here last.
    last_run: Option<Timestamp>,
    listeners: Vec<ListenerStatus>,
    sources: Vec<SourceStatus>,
    /// What the names and files of clients stand for.
    clients: Vec<ClientStatus>,
    /// What separates the two, in nft's words and as settings.
    drift: Vec<String>,
    #[serde(skip)]
    conntrack: Option<ConntrackFill>,
    /// How many connections the target has that has the most.
    #[serde(skip)]
    busiest: Option<u64>,
    #[serde(skip)]
    summary: String,
}

#[derive(Serialize)]
struct ListenerStatus {
    id: String,
    cluster: Option<String>,
    role: Option<discovery::Role>,
    /// Where clients connect to, where that is known to be another address.
    public: Option<String>,
    listen: String,
    /// The number of the list of clients that may connect, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    list: Option<u8>,
    targets: Vec<String>,
    /// Connections made since the element was added.
    connections: u64,
    /// Connections that are open now; `None` where the kernel does not tell.
    flows: Option<u64>,
    /// Connections to its targets' own addresses that are open now, where there are tunnels.
    #[serde(skip_serializing_if = "Option::is_none")]
    routed: Option<u64>,
    /// What the open connections have carried from clients; `None` where the kernel does not account for it.
    bytes_sent: Option<u64>,
    /// What they have carried to clients.
    bytes_received: Option<u64>,
    /// When it was led to its targets.
    changed: Option<Timestamp>,
    /// When the port was leased.
    since: Option<Timestamp>,
    /// For how long.
    #[serde(serialize_with = "seconds")]
    age: Option<Duration>,
    /// What `apply` would do to it; `None`: it is in step.
    drift: Option<Action>,
}

#[derive(Serialize)]
struct SourceStatus {
    source: String,
    /// For how long it could not be read completely; `None`: it can.
    #[serde(serialize_with = "seconds")]
    failing_for: Option<Duration>,
}

#[derive(Serialize)]
struct ClientStatus {
    /// `dns home.example.net`, `file /etc/cachenat/clients.txt`
    entry: String,
    networks: Vec<IpNet>,
    /// When its networks last changed.
    since: Timestamp,
    /// When it was last read.
    seen: Timestamp,
}

fn seconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs()).serialize(serializer)
}

pub(super) fn run(global: &Global, format: StatusFormat) -> anyhow::Result<Exit> {
    let context = RunContext::read(global, Ask::Files)?;
    let mut warnings = Vec::new();
    let mut status = gather(&context, context.state(), &mut warnings)?;
    warnings.iter().for_each(|line| context.output.warn(line));
    let text = match format {
        StatusFormat::Prometheus => prometheus::text(&status),
        StatusFormat::Json | StatusFormat::Text => {
            status.name_public(&context)?;
            match format {
                StatusFormat::Json => serde_json::to_string_pretty(&status)? + "\n",
                _ => text(&status),
            }
        }
    };
    context.output.data(&text)?;
    if !status.in_step && matches!(format, StatusFormat::Text) {
        let summary = &status.summary;
        context.output.warn(&format!(
            "out of step ({summary}): 'cachenat diff' shows what differs, 'cachenat apply' mends it"
        ));
    }
    Ok(Exit::Done)
}

/// Looks at the kernel and at the state directory; what is amiss and no error goes to `warnings`.
pub(super) fn gather(
    context: &RunContext,
    mut state: State,
    warnings: &mut Vec<String>,
) -> anyhow::Result<Status> {
    let dump = Kernel::open()?.dump()?;
    let nothing = Ruleset::default();
    let actual = ours(&dump)?;
    let in_force = actual.map_or(&nothing, |actual| &actual.ruleset);
    // Before the first run there is nothing that could have drifted.
    let (expected, is_leased) = (state.last_good.is_some(), state.leases.is_some());
    let last_good = state.last_good.clone().unwrap_or_default();

    let desired =
        context.desired(Effect::Shown, last_good.clone(), &mut state, in_force, OnEmptyAnswer::Keep)?;
    warnings.extend(desired.warnings(now()));
    let changes =
        if expected { difference(&dump, Some(&desired.wanted.ruleset))? } else { RulesetDiff::default() };
    let sysctls = if expected {
        let planned = sysctls::of_host(&context.config, &desired.wanted)?.plan(&desired.wanted.sysctls)?;
        warnings.extend(planned.skipped_drop_in.iter().map(sysctls::left_to_root));
        planned.changes
    } else {
        vec![]
    };
    let report = Report::new(changes, sysctls, vec![]);

    let nodes: BTreeMap<&str, &Node> = last_good.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let since: BTreeMap<(&ForwardId, u16), Timestamp> = desired
        .leases
        .iter()
        .filter(|lease| lease.released.is_none() && is_leased)
        .map(|lease| ((&lease.id, lease.port.get()), lease.since))
        .collect();
    let drift: BTreeMap<(&str, AddrPort), Action> =
        report.forwards.iter().map(|change| ((&*change.id, change.listen), change.action)).collect();
    let lists = lists(in_force);
    let moves = Moves::read(&context.config.state_dir);
    let Open { flows, routed, busiest } = open(context, in_force, warnings);
    let connections = connections(&dump);
    let listener = |Forward { id, listen, targets: to }: Forward| {
        let node = nodes.get(id.as_str());
        let since = since.get(&(&id, listen.port.get())).copied();
        let flows = flows.as_ref().map(|flows| flows.get(&listen).copied().unwrap_or_default());
        // Where no connection is open, none was accounted for.
        let bytes = flows.and_then(|flows| flows.bytes);
        ListenerStatus {
            cluster: node.map(|node| node.cluster.to_string()),
            role: node.and_then(|node| node.role),
            public: None,
            listen: listen.to_string(),
            list: lists.get(&listen).copied(),
            routed: routed
                .as_ref()
                .map(|routed| to.iter().map(|target| routed.get(target).copied().unwrap_or_default()).sum()),
            targets: to.iter().map(ToString::to_string).collect(),
            connections: connections.get(&listen).copied().unwrap_or_default(),
            flows: flows.map(|flows| flows.open),
            bytes_sent: bytes.map(|Bytes { sent, .. }| sent),
            bytes_received: bytes.map(|Bytes { received, .. }| received),
            changed: moves.of(listen).or(since),
            since,
            age: since.map(|since| since.elapsed(now())),
            drift: drift.get(&(id.as_str(), listen)).copied(),
            id: id.to_string(),
        }
    };
    // What is missing from the kernel is a line as well: it is what somebody looks for.
    let missing = report.forwards.iter().filter(|change| change.action == Action::Add);
    let missing = missing.filter_map(|change| {
        Some(Forward { id: change.id.parse().ok()?, listen: change.listen, targets: change.to.clone() })
    });
    Ok(Status {
        version: 1,
        installed: actual.is_some(),
        in_step: report.is_empty(),
        last_change: State::last_change(&context.config.state_dir),
        last_run: lock::last_held(&context.config.lock_file).and_then(Timestamp::from_system_time),
        listeners: in_force.forwards().into_iter().chain(missing).map(listener).collect(),
        sources: sources(&last_good, now()),
        clients: clients(context),
        drift: report.text().lines().map(str::to_owned).collect(),
        conntrack: host_facts::conntrack_fill(),
        busiest,
        summary: report.summary(),
    })
}

impl Status {
    /// Says of each listener what clients on the internet dial.
    fn name_public(&mut self, context: &RunContext) -> anyhow::Result<()> {
        let public = context.public_addresses()?;
        for listener in &mut self.listeners {
            let Ok(listen) = listener.listen.parse::<AddrPort>() else { continue };
            let dialled = public.get(&listen.address);
            listener.public = dialled.map(|&address| AddrPort { address, ..listen }.to_string());
        }
        Ok(())
    }
}

/// The connections made through each listener, over all of its elements.
fn connections(dump: &Dump) -> BTreeMap<AddrPort, u64> {
    let mut connections = BTreeMap::new();
    for ((_, key), counter) in &dump.counters {
        if let Key::AddrPort(listen) = *key {
            *connections.entry(listen).or_default() += counter.packets;
        }
    }
    connections
}

/// The open connections.
#[derive(Default)]
struct Open {
    /// Through each listener, to whatever target; `None` where the kernel does not tell.
    flows: Option<BTreeMap<AddrPort, Flows>>,
    /// To each target's own address, where there are tunnels.
    routed: Option<BTreeMap<AddrPort, u64>>,
    /// To the target that has the most, for each of the gateway's addresses that they are shared among.
    busiest: Option<u64>,
}

/// Counts them.
fn open(context: &RunContext, in_force: &Ruleset, warnings: &mut Vec<String>) -> Open {
    let which = if in_force.has_routed() { Which::All } else { Which::Translated };
    match Conntrack::open().and_then(|mut conntrack| conntrack.count(which)) {
        Ok(counts) => {
            let busiest = conntrack::busiest(&counts);
            let output = context.output_towards(busiest.map(|(target, _)| target.address));
            let amiss = kernel_settings::nat_ports(busiest, in_force, &output);
            if let (Level::Warn | Level::Fail, Some(remedy)) = (amiss.verdict, &amiss.remedy) {
                warnings.push(format!("{}; {remedy}", amiss.what));
            }
            let mut flows: BTreeMap<AddrPort, Flows> = BTreeMap::new();
            let mut routed: BTreeMap<AddrPort, u64> = BTreeMap::new();
            for ((listen, target), count) in counts {
                if listen == target {
                    routed.insert(target, count.open);
                } else {
                    flows.entry(listen).or_default().add(count);
                }
            }
            let routed = (which == Which::All).then_some(routed);
            let each = |(target, open): (AddrPort, u64)| {
                open.div_ceil(kernel_settings::sources(in_force, target, &output))
            };
            Open { flows: Some(flows), routed, busiest: busiest.map(each) }
        }
        Err(error) => {
            warnings.push(format!("open connections are not counted: {}", with_cause(&error)));
            Open::default()
        }
    }
}

fn clients(context: &RunContext) -> Vec<ClientStatus> {
    let known = context.clients.known.iter();
    known
        .map(|(entry, Known { networks, since, seen, .. })| ClientStatus {
            entry: entry.to_owned(),
            networks: networks.clone(),
            since: *since,
            seen: *seen,
        })
        .collect()
}

/// The list of each listener, where there are several lists.
fn lists(in_force: &Ruleset) -> BTreeMap<AddrPort, u8> {
    let lists = in_force.access_lists();
    if lists.len() < 2 {
        return BTreeMap::new();
    }
    let of_list = |(list, access): (ListIndex, AccessList)| {
        access.forwards.into_iter().map(move |forward| (forward.listen, list.number()))
    };
    lists.into_iter().flat_map(of_list).collect()
}

fn sources(last_good: &Inventory, now: Timestamp) -> Vec<SourceStatus> {
    let failing_for = |report: &SourceReport| report.failing_since.map(|since| since.elapsed(now));
    let reports = last_good.sources.iter();
    reports
        .map(|report| SourceStatus { source: report.source.to_string(), failing_for: failing_for(report) })
        .collect()
}

fn text(status: &Status) -> String {
    if !status.installed && status.listeners.is_empty() {
        return "no table inet cachenat: nothing is forwarded\n".to_owned();
    }
    let ago = |at: Timestamp| age(at.elapsed(now()));
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let row = |listener: &ListenerStatus| {
        let bytes = listener.bytes_sent.zip(listener.bytes_received);
        [
            listener.id.clone(),
            or_dash(listener.role.map(|role| format!("{role:?}").to_lowercase())),
            or_dash(listener.public.clone()),
            listener.listen.clone(),
            listener.targets.join(" "),
            listener.connections.to_string(),
            or_dash(listener.flows.map(|flows| flows.to_string())),
            or_dash(bytes.map(|(sent, received)| format!("{}/{}", size(sent), size(received)))),
            or_dash(listener.changed.map(ago)),
            or_dash(listener.age.map(age)),
            listener.drift.map_or("ok", action).to_owned(),
        ]
    };
    let header = [
        "NODE",
        "ROLE",
        "PUBLIC",
        "LISTEN",
        "TARGET",
        "CONNECTIONS",
        "OPEN",
        "IN/OUT",
        "CHANGED",
        "AGE",
        "STATE",
    ];
    let nothing = if status.installed { "" } else { "no table inet cachenat: nothing is forwarded\n" };
    let last_change = status.last_change.map(|at| format!("last change {} ago\n", ago(at)));
    let client = |client: &ClientStatus| {
        let shown: Vec<String> = client.networks.iter().take(4).map(ToString::to_string).collect();
        let more = client.networks.len().saturating_sub(4);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let (shown, since, seen) = (shown.join(", "), ago(client.since), ago(client.seen));
        format!("client {}: {shown}{more} for {since}, read {seen} ago\n", client.entry)
    };
    let clients: String = status.clients.iter().map(client).collect();
    columns(header, status.listeners.iter().map(row)) + nothing + &clients + &last_change.unwrap_or_default()
}

/// What stands in a listener's way, in a word: what `apply` would do about it.
fn action(action: Action) -> &'static str {
    match action {
        Action::Add => "missing",
        Action::Remove => "unwanted",
        Action::Move => "elsewhere",
        Action::Update => "outdated",
    }
}

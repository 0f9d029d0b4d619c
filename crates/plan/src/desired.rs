//! The one place where all meet: configuration, inventory, leases and what the kernel has become what is wanted.

use std::cell::OnceCell;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use discovery::{
    Coverage, Inventory, Node, NodeId, Outcome, Role, Route, SourceName, SourceReport, Timestamp,
};
use ipnet::IpNet;
use rules::{AccessList, AddrPort, Family, Forward, ForwardId, ListIndex, Ruleset};

use crate::assign::{Assigned, PlanError, Pool, Request, assign};
use crate::config::PlanConfig;
use crate::conflicts::{Claimant, Denied, resolve_conflicts, role_of};
use crate::gate::{Admitted, Gate};
use crate::gateway::{Gateway, Host};
use crate::leases::{Leases, ListenPort};
use crate::merge::{Merged, OnEmptyAnswer, Policy, merge_with_last_good};

/// What is known when the plan is made, beside what discovery found now.
#[derive(Debug)]
pub struct PlanInputs<'a> {
    /// What discovery found when it was last sure.
    pub last_good: Option<Inventory>,
    /// What to make of a source that has no node any more.
    pub emptied: OnEmptyAnswer,
    /// The leases so far, which the kernel's comments add to; `None`: the state is lost.
    pub leases: Option<Leases>,
    /// What is in force.
    pub actual: &'a Ruleset,
    /// The time of this run.
    pub now: Timestamp,
}

/// What is wanted of the kernel, and what goes with it.
#[derive(Debug)]
pub struct Plan {
    /// The ruleset and the sysctls.
    pub wanted: Admitted,
    /// Who has which listener.
    pub leases: Leases,
    /// The fresh inventory laid over the last good one: the next last good.
    pub inventory: Inventory,
    /// Whether it is another than the last good one.
    pub is_news: bool,
    /// What was kept as it was because the inventory leaves it open; each line names the node or source and why.
    pub kept: Vec<String>,
    /// What the sources remark, and did not remark the last time.
    pub remarks: Vec<String>,
}

/// Whether every source was read whole, and every node that is not leaving has its addresses.
pub fn is_whole(inventory: &Inventory) -> bool {
    inventory.sources.iter().all(|report| report.outcome == Outcome::Complete)
}

impl Plan {
    /// Whether everything could be read, and nothing had to be kept.
    pub fn is_whole(&self) -> bool {
        is_whole(&self.inventory) && self.kept.is_empty()
    }

    /// What the operator has to know: sources that could not be read, for how long, and what is kept for that.
    pub fn warnings(&self, now: Timestamp) -> Vec<String> {
        let unread = self.inventory.sources.iter().filter(|report| report.outcome != Outcome::Complete);
        let unread = unread.map(|report| {
            let error = report.error.as_deref().unwrap_or("no reason was given");
            let age = report.failing_since.map_or(Duration::ZERO, |since| since.elapsed(now));
            format!("{}: {error}{}", report.source, urgency(age))
        });
        unread.chain(self.kept.iter().chain(&self.remarks).cloned()).collect()
    }
}

/// What a warning says of its age; in steps, so that a daemon repeats it only when it has become more urgent.
fn urgency(age: Duration) -> String {
    match age.as_secs() {
        0..60 => String::new(),
        60..600 => " (failing for over a minute)".to_owned(),
        600..3600 => " (failing for over 10 minutes)".to_owned(),
        seconds @ 3600..86400 => {
            format!(" (FAILING FOR {} h: changes of its nodes are being missed)", seconds / 3600)
        }
        seconds => format!(" (FAILING FOR {} DAYS: changes of its nodes are being missed)", seconds / 86400),
    }
}

/// A node that gets a port, and where the port shall lead.
struct Backend<'a> {
    id: ForwardId,
    /// The node; `None`: only the kernel knows it.
    node: Option<&'a Node>,
    /// In order, each once.
    targets: Vec<AddrPort>,
}

impl<'a> Backend<'a> {
    fn claimant(&self) -> Claimant<'a> {
        let cluster = self.node.map(|node| node.cluster.as_str());
        let is_role = self.node.map_or_else(|| role_of(&self.id).is_some(), is_role);
        Claimant { id: self.id.clone(), cluster, is_role, targets: self.targets.clone() }
    }
}

/// Puts together what is wanted.
///
/// What is in force stands in for the last good inventory and for the leases where the state directory was lost, so
/// that what discovery is unsure of never takes a working forward away.
///
/// # Errors
///
/// [`PlanError`], if a pool is full or a pin is taken.
pub fn plan(
    config: &PlanConfig,
    gateway: &Gateway,
    host: &Host,
    fresh: Inventory,
    inputs: PlanInputs<'_>,
) -> Result<Plan, PlanError> {
    let asked = config.sources.iter().filter(|source| source.is_asked);
    let guarded: Vec<SourceName> = asked.map(|source| source.name.clone()).collect();
    let policy = Policy {
        emptied: inputs.emptied,
        max_removed_percent: config.max_removed_percent,
        guarded_sources: &guarded,
        now: inputs.now,
    };
    let of_sources = fresh.nodes.chunk_by(|one, other| one.source == other.source);
    let named: HashSet<SourceName> =
        of_sources.filter_map(|nodes| Some(nodes.first()?.source.clone())).collect();
    let Merged { inventory, unseen, kept } = merge_with_last_good(fresh, inputs.last_good.as_ref(), policy);
    let inventory = in_order(config, inventory);
    let mut kept: Vec<String> = kept.iter().map(ToString::to_string).collect();
    let in_force = InForce::new(inputs.actual);
    let mut backends = backends(&inventory, &unseen, gateway, &in_force, &mut kept);
    let unread = unread(&inventory, &named, inputs.emptied);
    if !unread.is_empty() {
        backends.extend(orphaned_forwards(
            &unread,
            inputs.last_good.as_ref(),
            &backends,
            &in_force,
            &mut kept,
        ));
    }
    settle_claims(&mut backends, &in_force, &mut kept);

    let before = |report: &SourceReport| inputs.last_good.as_ref()?.report(&report.source);
    let remarks = inventory.sources.iter().flat_map(|report| {
        let before = before(report).map(|before| before.remarks.as_slice()).unwrap_or_default();
        let new = report.remarks.iter().filter(move |remark| !before.contains(remark));
        new.map(move |remark| format!("{}: {remark}; nothing of it is forwarded", report.source))
    });
    let remarks = remarks.collect();
    let is_news = inputs.last_good.as_ref() != Some(&inventory);
    // Of 60,000 nodes it takes 21 MB, and what follows has no use for it.
    drop(inputs.last_good);

    let leases = leases(gateway, inputs.leases, inputs.actual, inputs.now);
    let taken: BTreeSet<ListenPort> = host.listening.keys().copied().collect();
    let requests = requests(config, gateway, &backends);
    let Assigned { leases, left_out } = assign(&requests, &config.pins, &taken, leases, inputs.now)?;
    kept.extend(left_out.iter().map(|error| format!("{error}; it is not forwarded")));
    kept.extend(listened_on(host, &leases));
    let forwards = forwards(backends, gateway, &leases);
    let named = |id: &ForwardId, target: AddrPort| {
        let node = inventory.nodes.iter().find(|node| node.id.as_str() == id.as_str());
        let is_there = |node: &Node| node.port == target.port && node.addresses.contains(&target.address);
        node.is_some_and(is_there) && in_force.get(id).is_some_and(|targets| targets.contains(&target))
    };
    kept.extend(ways_without_return(&forwards, gateway, host));
    let gate = Gate { config, gateway, admission: &host.admission, offloads: true };
    let lists = Lists::new(config, &inventory, inputs.actual);
    let (wanted, refused) = gate.admit(forwards, |id| lists.of(id), named);
    kept.extend(refused.iter().map(ToString::to_string));
    Ok(Plan { wanted, leases, inventory, is_news, kept, remarks })
}

/// Which list of clients each node is for.
struct Lists<'a> {
    config: &'a PlanConfig,
    /// By node; empty where there is one list only.
    by_node: HashMap<&'a str, usize>,
    in_force: BTreeMap<ListIndex, AccessList>,
}

impl<'a> Lists<'a> {
    fn new(config: &'a PlanConfig, inventory: &'a Inventory, actual: &Ruleset) -> Self {
        if config.clients.len() == 1 {
            return Self { config, by_node: HashMap::new(), in_force: BTreeMap::new() };
        }
        let list = |node: &'a Node| (node.id.as_str(), config.list_of(&node.source));
        let by_node = inventory.nodes.iter().map(list).collect();
        Self { config, by_node, in_force: actual.access_lists() }
    }

    /// Only the kernel may know a node, and not its source: then the list is the one with the clients that it has there.
    fn of(&self, id: &ForwardId) -> Option<usize> {
        if self.config.clients.len() == 1 {
            return Some(0);
        }
        self.by_node.get(id.as_str()).copied().or_else(|| {
            let mut lists = self.in_force.values();
            let before = lists.find(|list| list.forwards.iter().any(|forward| forward.id == *id))?;
            let same = |clients: &Vec<IpNet>| IpNet::aggregate(clients) == IpNet::aggregate(&before.clients);
            self.config.clients.iter().position(same)
        })
    }
}

/// Nodes to which packets leave by an interface that the way back does not cover.
fn ways_without_return(forwards: &[Forward], gateway: &Gateway, host: &Host) -> Vec<String> {
    let mut by_interface: BTreeMap<&str, Vec<&ForwardId>> = BTreeMap::new();
    for forward in forwards {
        let family = Family::of(forward.listen.address);
        let mut routes = forward.targets.iter().filter_map(|target| host.admission.route(target.address));
        let is_uncovered =
            |route: &&Route| route.leads_to_caches && !gateway.snat.covers(&route.interface, family);
        if let Some(route) = routes.find(is_uncovered) {
            by_interface.entry(&route.interface).or_default().push(&forward.id);
        }
    }
    let line = |(interface, ids): (&str, Vec<&ForwardId>)| {
        let (first, more) = (ids.first().map(|id| id.as_str()).unwrap_or_default(), ids.len() - 1);
        let ids = if more == 0 { first.to_owned() } else { format!("{first} and {more} more") };
        format!(
            "{ids}: the route to it leaves by {interface}, for which gateway.snat has no address, so its answers do not \
             come back; write snat: auto, or add {interface} there (snat: off if its subnet routes the clients back here)"
        )
    };
    by_interface.into_iter().map(line).collect()
}

/// Leases on what a program of this host listens on: clients reach the node there, and others the program.
fn listened_on(host: &Host, leases: &Leases) -> Vec<String> {
    let of = |(id, listener): (&ForwardId, ListenPort)| {
        let address = host.listening.get(&listener)?;
        let port = listener.port;
        Some(format!(
            "{id}: its port {listener} is also listened on by a program of this host, on {address} \
             ('ss -ltnp sport = :{port}' names it); clients reach the node there and not the program: move that program"
        ))
    };
    if host.listening.is_empty() { vec![] } else { leases.holders().into_iter().filter_map(of).collect() }
}

/// The leases so far, as the gateway has its addresses now, and what the kernel knows beyond them.
fn leases(gateway: &Gateway, known: Option<Leases>, actual: &Ruleset, now: Timestamp) -> Leases {
    let mut leases = known.unwrap_or_default();
    if let Some(first) = gateway.addresses.leased().next() {
        leases = leases.of_gateway(first, gateway.addresses.are_several());
    }
    let in_kernel = actual.forwards().into_iter();
    leases.with_kernel(in_kernel.map(|forward| (forward.id, gateway.addresses.listener(forward.listen))), now)
}

/// The nodes in the order in which they get their ports: by the configuration's sources, then shard and id.
fn in_order(config: &PlanConfig, mut inventory: Inventory) -> Inventory {
    let names = config.sources.iter().map(|source| &source.name);
    let places: HashMap<&SourceName, usize> = names.zip(0..).collect();
    let place = |node: &Node| places.get(&node.source).copied().unwrap_or(usize::MAX);
    // Most neighbours are of one source, whose place matters to neither.
    let by_place = |one: &Node, other: &Node| match one.source == other.source {
        true => Ordering::Equal,
        false => (place(one), &one.source).cmp(&(place(other), &other.source)),
    };
    inventory.nodes.sort_by(|one, other| {
        by_place(one, other).then_with(|| (&one.shard, &one.id).cmp(&(&other.shard, &other.id)))
    });
    inventory
}

/// What the kernel leads each id to; worked out once somebody asks, and in most runs nobody does.
struct InForce<'a> {
    actual: &'a Ruleset,
    targets: OnceCell<HashMap<ForwardId, BTreeSet<AddrPort>>>,
}

impl<'a> InForce<'a> {
    fn new(actual: &'a Ruleset) -> Self {
        Self { actual, targets: OnceCell::new() }
    }

    fn targets(&self) -> &HashMap<ForwardId, BTreeSet<AddrPort>> {
        self.targets.get_or_init(|| {
            let mut targets: HashMap<ForwardId, BTreeSet<AddrPort>> = HashMap::new();
            for forward in self.actual.forwards() {
                targets.entry(forward.id).or_default().extend(forward.targets);
            }
            targets
        })
    }

    fn get(&self, id: &ForwardId) -> Option<&BTreeSet<AddrPort>> {
        self.targets().get(id)
    }
}

/// A role is reached through a port of its own, behind which another node's address is no surprise.
fn is_role(node: &Node) -> bool {
    let suffix = node.id.as_str().strip_prefix(node.cluster.as_str());
    node.role == Some(Role::Reader) || matches!(suffix, Some("/primary" | "/reader"))
}

/// The backends that the inventory names, in its order.
///
/// A node whose address lookup failed keeps the forward that is in force: a run that was ended before it wrote the last good
/// inventory has led the kernel further.
fn backends<'a>(
    inventory: &'a Inventory,
    unseen: &HashSet<NodeId>,
    gateway: &Gateway,
    in_force: &InForce<'_>,
    kept: &mut Vec<String>,
) -> Vec<Backend<'a>> {
    let mut backends: Vec<Backend<'_>> = Vec::with_capacity(inventory.nodes.len());
    for node in &inventory.nodes {
        let Ok(id) = node.id.as_str().parse::<ForwardId>() else { continue };
        let reachable =
            |address: &&IpAddr| gateway.addresses.iter().any(|own| own.is_ipv4() == address.is_ipv4());
        let mut targets: Vec<AddrPort> = node
            .addresses
            .iter()
            .filter(reachable)
            .map(|&address| AddrPort { address, port: node.port })
            .collect();
        // What is in force is only worked out where a node is not found, so that is asked first.
        let before = if unseen.contains(&node.id) { in_force.get(&id) } else { None };
        if let Some(before) = before {
            if node.addresses.is_empty() {
                let why = node.error.as_deref().unwrap_or("address lookup failed");
                kept.push(format!("{id}: {why}; keeping its forward to {}", list(before)));
            }
            targets = before.iter().copied().collect();
        } else if targets.is_empty() {
            if let Some(address) = node.addresses.first() {
                let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
                kept.push(format!(
                    "{id}: it has only {family} addresses ({address}) and the gateway has none, so it is not \
                     forwarded; give the gateway an {family} address, or the cache the gateway's family"
                ));
                continue;
            } else if node.is_leaving() {
                continue;
            }
        }
        backends.push(Backend { id, node: Some(node), targets });
    }
    backends
}

/// Leaves each target to those who may have it, and names the others.
fn settle_claims(backends: &mut [Backend<'_>], in_force: &InForce<'_>, kept: &mut Vec<String>) {
    let mut claimants: Vec<Claimant<'_>> = backends.iter().map(Backend::claimant).collect();
    let denied = resolve_conflicts(&mut claimants, |id| in_force.get(id));
    if denied.is_empty() {
        return;
    }
    let mut settled: HashMap<ForwardId, Vec<AddrPort>> =
        claimants.into_iter().map(|claimant| (claimant.id, claimant.targets)).collect();
    for backend in backends.iter_mut() {
        backend.targets = settled.remove(&backend.id).unwrap_or_default();
    }
    for Denied { id, target, owner } in denied {
        let backend = backends.iter().find(|backend| backend.id == id);
        let targets = backend.map(|backend| backend.targets.as_slice()).unwrap_or_default();
        let instead = match targets {
            [] => "not forwarded until the conflict clears".to_owned(),
            targets => format!("keeping its forward to {}", list(targets)),
        };
        kept.push(format!("{id}: {target} is also claimed by {owner}; {instead}"));
    }
}

/// The sources whose silence about a node says nothing; `named` are those of which the fresh inventory names a node.
fn unread(inventory: &Inventory, named: &HashSet<SourceName>, emptied: OnEmptyAnswer) -> Vec<String> {
    let silent = |report: &&SourceReport| match (report.coverage, emptied) {
        (Coverage::Part | Coverage::Nothing, _) | (Coverage::Absent, OnEmptyAnswer::Keep) => true,
        // What it does not name is kept as well by the last good inventory, for now.
        (Coverage::Whole, OnEmptyAnswer::Keep) => !named.contains(&report.source) || !report.held.is_empty(),
        (Coverage::Whole | Coverage::Absent, OnEmptyAnswer::Remove) => false,
    };
    inventory.sources.iter().filter(silent).map(|report| report.source.to_string()).collect()
}

/// Forwards in force that the inventory does not speak of, where the silence of the `unread` sources says nothing.
///
/// This is for a state directory that was lost: a node that the last good inventory names is no secret, and if it is
/// not in the new one, its source has said so.
fn orphaned_forwards(
    unread: &[String],
    last_good: Option<&Inventory>,
    backends: &[Backend<'_>],
    in_force: &InForce<'_>,
    kept: &mut Vec<String>,
) -> Vec<Backend<'static>> {
    let named: HashSet<&str> = backends.iter().map(|backend| backend.id.as_str()).collect();
    let known = last_good.iter().flat_map(|before| &before.nodes).map(|node| node.id.as_str());
    let named: HashSet<&str> = known.chain(named).collect();
    let mut rest: Vec<Backend<'_>> = in_force
        .targets()
        .iter()
        .filter(|(id, _)| !named.contains(id.as_str()))
        .map(|(id, to)| Backend { id: id.clone(), node: None, targets: to.iter().copied().collect() })
        .collect();
    rest.sort_by(|one, other| one.id.cmp(&other.id));
    for Backend { id, targets, .. } in &rest {
        let why = format!("{} could not be read whole", unread.join(", "));
        kept.push(format!("{id}: {why}; keeping its forward to {}", list(targets)));
    }
    rest
}

fn list<'a>(targets: impl IntoIterator<Item = &'a AddrPort>) -> String {
    rules::diff::targets(&targets.into_iter().copied().collect::<Vec<_>>())
}

/// What the backends ask for; neighbours are mostly of one pool, which is made once for all of them.
fn requests(config: &PlanConfig, gateway: &Gateway, backends: &[Backend<'_>]) -> Vec<Request> {
    let are_several = gateway.addresses.are_several();
    let share_a_pool = |one: &Backend<'_>, other: &Backend<'_>| match (one.node, other.node) {
        (Some(one), Some(other)) => one.source == other.source && (!are_several || one.port == other.port),
        (one, other) => one.is_none() && other.is_none(),
    };
    let mut by_host: HashMap<&str, &ForwardId> = HashMap::new();
    let mut requests = Vec::with_capacity(backends.len());
    for backends in backends.chunk_by(share_a_pool) {
        let pool = Arc::new(pool(config, gateway, backends.first().and_then(|backend| backend.node)));
        for Backend { id, node, .. } in backends {
            // A name leads to one address, so all that is behind it has to be found there.
            let host = node.map(|node| node.host.as_str()).filter(|host| are_several && !host.is_empty());
            let first = host.map(|host| *by_host.entry(host).or_insert(id));
            let beside = first.filter(|first| *first != id).cloned();
            requests.push(Request { id: id.clone(), pool: Arc::clone(&pool), beside });
        }
    }
    requests
}

/// Where a node may listen: with several addresses on its own port, unless its source has a pool.
fn pool(config: &PlanConfig, gateway: &Gateway, node: Option<&Node>) -> Pool {
    let (own, key) = match node {
        Some(node) => config.pool(&node.source),
        None => (None, "ports".to_owned()),
    };
    let addresses = &gateway.addresses;
    match own {
        _ if !addresses.are_several() => {
            Pool { addresses: vec![None], ports: own.unwrap_or(&config.ports).clone(), key }
        }
        Some(own) => {
            Pool { addresses: addresses.leased().take(1).map(Some).collect(), ports: own.clone(), key }
        }
        None => {
            let ports = node.map_or(1..=u16::MAX, |node| node.port.get()..=node.port.get());
            Pool {
                addresses: addresses.leased().map(Some).collect(),
                ports,
                key: "gateway.addresses".to_owned(),
            }
        }
    }
}

/// The forwards to the backends on the listeners that they hold.
fn forwards(backends: Vec<Backend<'_>>, gateway: &Gateway, leases: &Leases) -> Vec<Forward> {
    let holders = leases.holders();
    backends
        .into_iter()
        .filter_map(|backend| Some((*holders.get(&backend.id)?, backend)))
        .flat_map(|(listener, backend)| forwards_to(backend, gateway, listener))
        .collect()
}

/// One forward per family in which the gateway and the node both have an address.
fn forwards_to<'a>(
    backend: Backend<'_>,
    gateway: &'a Gateway,
    listener: ListenPort,
) -> impl Iterator<Item = Forward> + use<'a> {
    let Backend { id, targets: mut ipv4, .. } = backend;
    let ipv6 = ipv4.split_off(ipv4.partition_point(|target| target.address.is_ipv4()));
    [(Family::Ipv4, ipv4), (Family::Ipv6, ipv6)].into_iter().filter_map(move |(family, targets)| {
        let listen = gateway.addresses.endpoint(listener, family)?;
        (!targets.is_empty()).then(|| Forward { id: id.clone(), listen, targets })
    })
}

#[cfg(test)]
mod tests;

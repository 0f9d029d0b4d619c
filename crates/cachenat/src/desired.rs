//! The one place where all meet: configuration, inventory, leases and what the kernel has become what is wanted.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use discovery::{
    Coverage, Emptied, Inventory, Merged, Node, Outcome, Policy, Role, Source, SourceName, SourceReport,
    over_last_good,
};
use rules::json::Wanted;
use rules::ruleset::Key;
use rules::{
    Endpoint, Family, Forward, ForwardId, Leases, Listener, PlanError, Pool, Request, Ruleset, Sysctl,
    assign, render,
};

use crate::config::Config;
use crate::gateway::Gateway;

/// What is known when the plan is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    /// What discovery found now.
    pub(crate) fresh: &'a Inventory,
    /// What it found when it was last sure.
    pub(crate) last_good: Option<&'a Inventory>,
    /// What to make of a source that has no node any more.
    pub(crate) emptied: Emptied,
    /// The leases so far, which the kernel's comments add to; `None`: the state is lost.
    pub(crate) leases: Option<&'a Leases>,
    /// What is in force.
    pub(crate) actual: &'a Ruleset,
    /// Seconds since 1970.
    pub(crate) now: u64,
}

/// What is wanted of the kernel, and what goes with it.
#[derive(Debug)]
pub(crate) struct Desired {
    pub(crate) wanted: Wanted,
    pub(crate) leases: Leases,
    /// The fresh inventory laid over the last good one: the next last good.
    pub(crate) inventory: Inventory,
    /// What was kept as it was because the inventory leaves it open; each line names the node or source and why.
    pub(crate) kept: Vec<String>,
}

impl Desired {
    /// What the operator has to know: sources that could not be read, for how long, and what is kept for that.
    pub(crate) fn warnings(&self, now: u64) -> Vec<String> {
        let unread = self.inventory.sources.iter().filter(|report| report.outcome != Outcome::Complete);
        let unread = unread.map(|report| {
            let error = report.error.as_deref().unwrap_or("no reason was given");
            let age = report.failing_since.map_or(0, |since| now.saturating_sub(since));
            format!("{}: {error}{}", report.source, urgency(age))
        });
        unread.chain(self.kept.iter().cloned()).collect()
    }
}

/// What a warning says of its age; in steps, so that a daemon repeats it only when it has become more urgent.
fn urgency(age: u64) -> String {
    match age {
        0..60 => String::new(),
        60..600 => " (for over a minute)".to_owned(),
        600..3600 => " (for over 10 minutes)".to_owned(),
        3600..86400 => format!(" (FOR OVER {} h: added and removed nodes are not followed)", age / 3600),
        _ => format!(" (FOR OVER {} DAYS: added and removed nodes are not followed)", age / 86400),
    }
}

/// The listeners of a ruleset: id, listener and targets; the kernel's are the memory that survives the state directory.
pub(crate) fn listeners(ruleset: &Ruleset) -> Vec<(ForwardId, Endpoint, Vec<Endpoint>)> {
    let mut found: BTreeMap<(Endpoint, ForwardId), Vec<Endpoint>> = BTreeMap::new();
    for (id, listen, target) in legs(ruleset) {
        found.entry((listen, id)).or_default().push(target);
    }
    found.into_iter().map(|((listen, id), targets)| (id, listen, targets)).collect()
}

/// The elements of a ruleset's maps: id, listener and target.
fn legs(ruleset: &Ruleset) -> impl Iterator<Item = (ForwardId, Endpoint, Endpoint)> {
    let maps = ruleset.sets.iter().filter(|(set, _)| set.is_map());
    maps.flat_map(|(_, elements)| elements).filter_map(|(key, element)| {
        let (Key::Endpoint(listen) | Key::Slots { listen, .. }) = *key else { return None };
        Some((element.comment.as_deref()?.parse().ok()?, listen, element.data?))
    })
}

/// A node that gets a port, and where the port shall lead.
struct Backend<'a> {
    id: ForwardId,
    /// The node; `None`: only the kernel knows it.
    node: Option<&'a Node>,
    targets: BTreeSet<Endpoint>,
}

/// Puts together what is wanted.
///
/// What is in force stands in for the last good inventory and for the leases where the state directory was lost, so
/// that what discovery is unsure of never takes a working forward away.
///
/// # Errors
///
/// [`PlanError`], if a pool is full or a pin is taken.
pub(crate) fn desired(config: &Config, gateway: &Gateway, known: &Known<'_>) -> Result<Desired, PlanError> {
    let asked: Vec<SourceName> = config.asked().map(Source::name).collect();
    let policy =
        Policy { emptied: known.emptied, at_once: config.removal_guard, asked: &asked, now: known.now };
    let Merged { inventory, kept } = over_last_good(known.fresh.clone(), known.last_good, policy);
    let inventory = in_order(config, inventory);
    let mut kept: Vec<String> = kept.iter().map(ToString::to_string).collect();
    let in_force = InForce::new(known.actual);
    let mut backends = backends(&inventory, known.fresh, gateway, &in_force, &mut kept);
    backends.extend(unspoken(&inventory, known, &backends, &in_force, &mut kept));

    let requests = requests(config, gateway, &backends);
    let leases = assign(&requests, &config.pins, leases(gateway, known), known.now)?;
    let holders = leases.holders();
    let forwards: Vec<Forward> = backends
        .iter()
        .filter_map(|backend| Some((backend, *holders.get(&backend.id)?)))
        .flat_map(|(backend, listener)| forwards(backend, gateway, listener))
        .collect();
    let mut ruleset = render(&forwards, &config.clients, &as_seen_by_rules(gateway, &forwards));
    if config.gateway.flowtable {
        ruleset.offload(&gateway.interface);
    }
    let sysctls = Sysctl::needed_by(&ruleset);
    Ok(Desired { wanted: Wanted { ruleset, sysctls }, leases, inventory, kept })
}

/// The leases so far, as the gateway has its addresses now, and what the kernel knows beyond them.
fn leases(gateway: &Gateway, known: &Known<'_>) -> Leases {
    let mut leases = known.leases.cloned().unwrap_or_default();
    if let Some(first) = gateway.addresses.leased().next() {
        leases = leases.of_gateway(first, gateway.addresses.are_several());
    }
    let in_kernel = legs(known.actual).map(|(id, listen, _)| (id, gateway.addresses.listener(listen)));
    leases.with_kernel(in_kernel, known.now)
}

/// The nodes in the order in which they get their ports: by the configuration's sources, then shard and id.
fn in_order(config: &Config, mut inventory: Inventory) -> Inventory {
    let names = config.sources.iter().map(|configured| configured.source.name());
    let places: HashMap<SourceName, usize> = names.zip(0..).collect();
    let place = |node: &Node| places.get(&node.source).copied().unwrap_or(usize::MAX);
    inventory.nodes.sort_by(|one, other| {
        fn key(node: &Node) -> (&SourceName, &Option<String>, &discovery::NodeId) {
            (&node.source, &node.shard, &node.id)
        }
        place(one).cmp(&place(other)).then_with(|| key(one).cmp(&key(other)))
    });
    inventory
}

/// A family without a single forward would only be empty sets to read; IPv4 stands even so, as the table's frame.
fn as_seen_by_rules(gateway: &Gateway, forwards: &[Forward]) -> rules::Gateway {
    let has = |family| forwards.iter().any(|forward| Family::of(forward.listen.address) == family);
    let families: BTreeSet<Family> = gateway.addresses.iter().map(|&address| Family::of(address)).collect();
    let families = families.into_iter().filter(|&family| family == Family::Ipv4 || has(family)).collect();
    rules::Gateway { interface: gateway.interface.clone(), families, snat: gateway.snat.clone() }
}

/// What the kernel leads each id to; worked out once somebody asks, and in most runs nobody does.
struct InForce<'a> {
    actual: &'a Ruleset,
    targets: OnceCell<HashMap<ForwardId, BTreeSet<Endpoint>>>,
}

impl<'a> InForce<'a> {
    fn new(actual: &'a Ruleset) -> Self {
        Self { actual, targets: OnceCell::new() }
    }

    fn targets(&self) -> &HashMap<ForwardId, BTreeSet<Endpoint>> {
        self.targets.get_or_init(|| {
            let mut targets: HashMap<ForwardId, BTreeSet<Endpoint>> = HashMap::new();
            for (id, _, to) in listeners(self.actual) {
                targets.entry(id).or_default().extend(to);
            }
            targets
        })
    }

    fn get(&self, id: &ForwardId) -> Option<&BTreeSet<Endpoint>> {
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
/// A node whose address is not known now stays where it is in force: a run that was ended before it wrote the last good
/// inventory has led the kernel further.
fn backends<'a>(
    inventory: &'a Inventory,
    fresh: &Inventory,
    gateway: &Gateway,
    in_force: &InForce<'_>,
    kept: &mut Vec<String>,
) -> Vec<Backend<'a>> {
    let mut backends: Vec<Backend<'_>> = Vec::new();
    let mut claims: Vec<(Endpoint, usize)> = Vec::new();
    let found = fresh.nodes.iter().filter(|node| !node.addresses.is_empty());
    let found: HashSet<&str> = found.map(|node| node.id.as_str()).collect();
    for node in &inventory.nodes {
        let Ok(id) = node.id.as_str().parse::<ForwardId>() else { continue };
        let reachable =
            |address: &&IpAddr| gateway.addresses.iter().any(|own| own.is_ipv4() == address.is_ipv4());
        let mut targets: BTreeSet<Endpoint> = node
            .addresses
            .iter()
            .filter(reachable)
            .map(|&address| Endpoint { address, port: node.port })
            .collect();
        // What is in force is only worked out where a node is not found, so that is asked first.
        let before = if found.contains(id.as_str()) { None } else { in_force.get(&id) };
        if let Some(before) = before {
            if node.addresses.is_empty() {
                let why = node.error.as_deref().unwrap_or("its address is not known now");
                kept.push(format!("{id}: {why}; its forward to {} stays", list(before)));
            }
            targets.clone_from(before);
        } else if node.addresses.is_empty() && node.is_leaving() {
            continue;
        }
        if !is_role(node) {
            claims.extend(targets.iter().map(|&target| (target, backends.len())));
        }
        backends.push(Backend { id, node: Some(node), targets });
    }
    claims.sort_unstable();
    for twins in claims.chunk_by(|(one, _), (other, _)| one == other) {
        if let &[(target, _), _, ..] = twins {
            let nodes: Vec<usize> = twins.iter().map(|&(_, node)| node).collect();
            settle(&mut backends, target, &nodes, in_force, kept);
        }
    }
    backends
}

/// Two nodes can't be one address and port: one of the answers is old. The node that has had it keeps it; the others
/// stay where they were, or wait.
fn settle(
    backends: &mut [Backend<'_>],
    target: Endpoint,
    nodes: &[usize],
    in_force: &InForce<'_>,
    kept: &mut Vec<String>,
) {
    let had = |at: &usize| {
        backends.get(*at).is_some_and(|node| in_force.get(&node.id).is_some_and(|to| to.contains(&target)))
    };
    let Some(owner) = nodes.iter().find(|at| had(at)).or(nodes.first()).copied() else { return };
    let Some(owner_id) = backends.get(owner).map(|node| node.id.clone()) else { return };
    for &at in nodes.iter().filter(|&&at| at != owner) {
        let Some(backend) = backends.get_mut(at) else { continue };
        let before = in_force.get(&backend.id).filter(|before| !before.contains(&target));
        let instead = match before {
            Some(before) => {
                backend.targets.clone_from(before);
                format!("its forward to {} stays", list(before))
            }
            None => {
                backend.targets.remove(&target);
                "it is not forwarded until its address is its own".to_owned()
            }
        };
        kept.push(format!("{}: {target} is the address of {owner_id} as well; {instead}", backend.id));
    }
}

/// Forwards in force that the inventory does not speak of, where some source's silence says nothing.
///
/// This is for a state directory that was lost: a node that the last good inventory names is no secret, and if it is
/// not in the new one, its source has said so.
fn unspoken(
    inventory: &Inventory,
    known: &Known<'_>,
    backends: &[Backend<'_>],
    in_force: &InForce<'_>,
    kept: &mut Vec<String>,
) -> Vec<Backend<'static>> {
    let named: HashSet<&SourceName> = known.fresh.nodes.iter().map(|node| &node.source).collect();
    let silent = |report: &&SourceReport| match (report.coverage, known.emptied) {
        (Coverage::Part | Coverage::Nothing, _) | (Coverage::Absent, Emptied::Keep) => true,
        // What it does not name is kept as well by the last good inventory, for now.
        (Coverage::Whole, Emptied::Keep) => !named.contains(&report.source) || !report.held.is_empty(),
        (Coverage::Whole | Coverage::Absent, Emptied::Remove) => false,
    };
    let unread: Vec<String> =
        inventory.sources.iter().filter(silent).map(|report| report.source.to_string()).collect();
    if unread.is_empty() {
        return vec![];
    }
    let named: HashSet<&str> = backends.iter().map(|backend| backend.id.as_str()).collect();
    let known = known.last_good.iter().flat_map(|before| &before.nodes).map(|node| node.id.as_str());
    let named: HashSet<&str> = known.chain(named).collect();
    let mut rest: Vec<Backend<'_>> = in_force
        .targets()
        .iter()
        .filter(|(id, _)| !named.contains(id.as_str()))
        .map(|(id, to)| Backend { id: id.clone(), node: None, targets: to.clone() })
        .collect();
    rest.sort_by(|one, other| one.id.cmp(&other.id));
    for Backend { id, targets, .. } in &rest {
        let why = format!("{} could not be read whole", unread.join(", "));
        kept.push(format!("{id}: {why}; its forward to {} stays", list(targets)));
    }
    rest
}

fn list(targets: &BTreeSet<Endpoint>) -> String {
    rules::diff::targets(&targets.iter().copied().collect::<Vec<_>>())
}

/// What the backends ask for; a pool is made once and not for each node.
fn requests(config: &Config, gateway: &Gateway, backends: &[Backend<'_>]) -> Vec<Request> {
    let are_several = gateway.addresses.are_several();
    let mut pools: HashMap<(Option<&SourceName>, Option<NonZeroU16>), Arc<Pool>> = HashMap::new();
    let mut by_host: HashMap<&str, &ForwardId> = HashMap::new();
    let mut requests = Vec::with_capacity(backends.len());
    for Backend { id, node, .. } in backends {
        let key = (node.map(|node| &node.source), node.filter(|_| are_several).map(|node| node.port));
        let pool = pools.entry(key).or_insert_with(|| Arc::new(pool(config, gateway, *node)));
        // A name leads to one address, so all that is behind it has to be found there.
        let host = node.map(|node| node.host.as_str()).filter(|host| are_several && !host.is_empty());
        let first = host.map(|host| *by_host.entry(host).or_insert(id));
        let beside = first.filter(|first| *first != id).cloned();
        requests.push(Request { id: id.clone(), pool: Arc::clone(pool), beside });
    }
    requests
}

/// Where a node may listen: with several addresses on its own port, unless its source has a pool.
fn pool(config: &Config, gateway: &Gateway, node: Option<&Node>) -> Pool {
    let (own, key) = match node {
        Some(node) => config.pool(&node.source),
        None => (None, "ports".to_owned()),
    };
    let addresses = &gateway.addresses;
    match own {
        _ if !addresses.are_several() => {
            Pool { addresses: vec![None], ports: own.unwrap_or(&config.ports).range(), key }
        }
        Some(own) => {
            Pool { addresses: addresses.leased().take(1).map(Some).collect(), ports: own.range(), key }
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

/// One forward per family in which the gateway and the node both have an address.
fn forwards<'a>(
    backend: &'a Backend<'_>,
    gateway: &'a Gateway,
    listener: Listener,
) -> impl Iterator<Item = Forward> + 'a {
    [Family::Ipv4, Family::Ipv6].into_iter().filter_map(move |family| {
        let targets: Vec<Endpoint> =
            backend.targets.iter().filter(|target| Family::of(target.address) == family).copied().collect();
        let listen = gateway.addresses.endpoint(listener, family)?;
        (!targets.is_empty()).then(|| Forward { id: backend.id.clone(), listen, targets })
    })
}

#[cfg(test)]
mod tests;

//! Three days of a gateway's life in a second: caches that change, sources that fail, a kernel that others flush, and
//! runs that are killed. Each run prints its seed; `CACHENAT_SEED=n` repeats it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use applier::fake::{CarriedOut, Fake, Faults};
use applier::kernel::{Netfilter, Table};
use applier::sync::{ours, sync};
use discovery::{Coverage, Inventory, Node, Outcome, SourceName, SourceReport, Timestamp};
use fastrand::Rng;
use rules::Ruleset;

use crate::addresses::Addresses;
use crate::config::PlanConfig;
use crate::desired::{Plan, PlanInputs, plan};
use crate::gateway::{Gateway, Host};
use crate::leases::Leases;
use crate::merge::{OnEmptyAnswer, readd_unread_nodes};
use crate::test_support::config;

/// How long a life is.
const LIFE: Duration = Duration::from_secs(72 * 60 * 60);

/// How many lives the test lives.
const LIVES: u64 = 6;

/// A cache as it really is.
struct Cache {
    source: SourceName,
    name: &'static str,
    /// The nodes that there are, and where.
    nodes: BTreeMap<String, IpAddr>,
    /// The node that the role `primary` is at, where there is such a role.
    primary: Option<String>,
    made: usize,
}

/// How a source answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answering {
    Whole,
    Failing,
    /// Every other node is left out.
    InPart,
    /// Whole, and without any node.
    Empty,
    /// Whole, and with the first node only.
    Decimated,
}

/// What happens besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mishap {
    None,
    /// Somebody flushes the ruleset.
    Flushed,
    /// The state directory is lost.
    StateLost,
    /// The run is killed between its commit and the writing of its state.
    Killed,
    /// The kernel's answer is lost.
    AnswerLost(CarriedOut),
    /// Somebody else commits at the same moment.
    Contended,
}

struct World {
    config: PlanConfig,
    gateway: Gateway,
    rng: Rng,
    now: Timestamp,
    addresses: u32,
    caches: [Cache; 2],
    answering: [Answering; 2],
    /// Names that do not resolve now.
    unresolved: BTreeSet<String>,
    kernel: Fake,
    last_good: Option<Inventory>,
    leases: Option<Leases>,
    /// What was in force when the state was written last.
    ruleset: Ruleset,
    /// Who has or had each port.
    owners: BTreeMap<u16, String>,
    last_mishap: Mishap,
    log: Vec<String>,
}

/// What is in force: port and target by id.
type InForce = BTreeMap<String, (u16, IpAddr)>;

impl World {
    fn new(seed: u64) -> Self {
        let cache = |source: &str, name, primary| Cache {
            source: source.parse().unwrap(),
            name,
            nodes: BTreeMap::new(),
            primary,
            made: 0,
        };
        let mut config = config();
        config.sources[0].ports = None;
        let mut world = Self {
            config,
            gateway: Gateway {
                interface: "eth0".parse().unwrap(),
                ingress: vec!["eth0".parse().unwrap()],
                addresses: Addresses::new(vec!["10.0.0.55".parse().unwrap()]),
                snat: rules::Snat::Masquerade,
                tunnels: vec![],
                max_segment: None,
            },
            rng: Rng::with_seed(seed),
            now: Timestamp::from_secs(1_800_000_000),
            addresses: 0,
            caches: [
                cache("replication_group/my-cluster", "my-cluster", Some(String::new())),
                cache("cache_cluster/sessions", "sessions", None),
            ],
            answering: [Answering::Whole; 2],
            unresolved: BTreeSet::new(),
            kernel: Fake::default(),
            last_good: None,
            leases: None,
            ruleset: Ruleset::default(),
            owners: BTreeMap::new(),
            last_mishap: Mishap::None,
            log: Vec::new(),
        };
        for _ in 0..3 {
            world.add(0);
            world.add(1);
        }
        world
    }

    fn address(&mut self) -> IpAddr {
        self.addresses += 1;
        IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 1, 0).to_bits() + self.addresses))
    }

    fn add(&mut self, cache: usize) {
        let address = self.address();
        let Cache { name, nodes, primary, made, .. } = &mut self.caches[cache];
        *made += 1;
        let id = format!("{name}-{made:03}");
        if primary.as_ref().is_some_and(String::is_empty) {
            *primary = Some(id.clone());
        }
        nodes.insert(id, address);
    }

    fn any_node(&mut self, cache: usize) -> Option<String> {
        let nodes = &self.caches[cache].nodes;
        self.rng.choice(nodes.keys().cloned().collect::<Vec<_>>())
    }

    /// One thing changes in the world.
    fn change(&mut self) {
        let cache = self.rng.usize(..2);
        match self.rng.u32(..100) {
            0..8 if self.caches[cache].nodes.len() < 12 => self.add(cache),
            8..14 if self.caches[cache].nodes.len() > 2 => {
                let id = self.any_node(cache).unwrap();
                let Cache { nodes, primary, .. } = &mut self.caches[cache];
                nodes.remove(&id);
                if primary.as_ref() == Some(&id) {
                    *primary = nodes.keys().next().cloned();
                }
            }
            14..26 => {
                let (id, address) = (self.any_node(cache).unwrap(), self.address());
                self.caches[cache].nodes.insert(id, address);
            }
            26..32 => self.caches[0].primary = self.any_node(0),
            32..60 => {
                use Answering::{Decimated, Empty, Failing, InPart, Whole};
                self.answering[cache] =
                    self.rng.choice([Whole, Whole, Whole, Failing, InPart, Empty, Decimated]).unwrap();
            }
            60..66 => drop(self.any_node(cache).map(|id| self.unresolved.insert(id))),
            66..74 => self.unresolved.clear(),
            74..76 => self.now = self.now + Duration::from_secs(self.rng.u64(..86_400)),
            76..78 => self.now = Timestamp::from_secs(self.now.as_secs() - self.rng.u64(..86_400)),
            _ => {}
        }
    }

    fn mishap(&mut self) -> Mishap {
        let mishap = match self.rng.u32(..100) {
            0..5 => Mishap::Flushed,
            5..8 => Mishap::StateLost,
            8..14 => Mishap::Killed,
            14..17 => Mishap::AnswerLost(CarriedOut::Yes),
            17..20 => Mishap::AnswerLost(CarriedOut::No),
            20..24 => Mishap::Contended,
            _ => Mishap::None,
        };
        // What only the kernel knows is known to nobody once it is flushed, or once a second run that was killed has taken
        // a removed node's forward away.
        match (self.last_mishap, mishap) {
            (Mishap::Killed, Mishap::Flushed | Mishap::Killed) => Mishap::None,
            _ => mishap,
        }
    }

    /// What discovery makes of the world: the listing, with the last good names where it is not whole, looked up.
    fn discover(&self) -> Inventory {
        let mut listed = Inventory::default();
        for (cache, answering) in self.caches.iter().zip(self.answering) {
            let named = |place: usize| match answering {
                Answering::Whole => true,
                Answering::Failing | Answering::Empty => false,
                Answering::InPart => place.is_multiple_of(2),
                Answering::Decimated => place == 0,
            };
            let source = cache.source.clone();
            listed.sources.push(match answering {
                Answering::Failing => SourceReport::failed(source, "throttled"),
                Answering::InPart => SourceReport::partial(source, "page 2 was not read"),
                _ => SourceReport::complete(source),
            });
            let role = cache.primary.as_ref().map(|_| format!("{}/primary", cache.name));
            let ids = cache.nodes.keys().cloned().chain(role).enumerate();
            listed.nodes.extend(ids.filter(|(place, _)| named(*place)).map(|(_, id)| node(cache, &id)));
        }
        let mut found = readd_unread_nodes(listed, self.last_good.as_ref());
        for node in &mut found.nodes {
            let id = node.id.to_string();
            let address = self.caches.iter().find_map(|cache| {
                let role = cache.primary.as_ref().filter(|_| id == format!("{}/primary", cache.name));
                cache.nodes.get(role.unwrap_or(&id))
            });
            node.addresses =
                address.filter(|_| !self.unresolved.contains(&id)).copied().into_iter().collect();
            node.error = node.addresses.is_empty().then(|| "SERVFAIL".to_owned());
            let report = found.sources.iter_mut().find(|report| report.source == node.source).unwrap();
            if node.error.is_some() && report.outcome == Outcome::Complete {
                report.outcome = Outcome::Partial;
            }
        }
        found
    }

    fn in_force(&mut self) -> InForce {
        let dump = self.kernel.dump().unwrap();
        let nothing = Ruleset::default();
        let ruleset = ours(&dump).unwrap().map_or(&nothing, |actual| &actual.ruleset);
        let entry = |forward: rules::Forward| {
            (forward.id.to_string(), (forward.listen.port.get(), forward.targets[0].address))
        };
        ruleset.forwards().into_iter().map(entry).collect()
    }

    /// What a run does with what was found, but for the writing of its state.
    fn apply(&mut self, fresh: &Inventory) -> Plan {
        let dump = self.kernel.dump().unwrap();
        let inputs = PlanInputs {
            last_good: self.last_good.clone(),
            emptied: OnEmptyAnswer::Keep,
            leases: self.leases.clone(),
            actual: ours(&dump).unwrap().map_or(&self.ruleset, |actual| &actual.ruleset),
            now: self.now,
        };
        let planned = plan(&self.config, &self.gateway, &Host::default(), fresh.clone(), inputs).unwrap();
        let commits = self.kernel.commits.len();
        let synced = sync(&mut self.kernel, Some(&planned.wanted.ruleset)).unwrap();

        let dump = self.kernel.dump().unwrap();
        assert_eq!(ours(&dump).unwrap().map(|actual| &actual.ruleset), Some(&planned.wanted.ruleset));
        if synced.changes.is_empty() {
            assert_eq!(self.kernel.commits.len(), commits, "in step, nothing is sent");
        }
        planned
    }

    fn remember(&mut self, planned: Plan) {
        (self.last_good, self.leases) = (Some(planned.inventory), Some(planned.leases));
        self.ruleset = planned.wanted.ruleset.clone();
    }

    /// One run, and everything that has to hold after it.
    fn step(&mut self) {
        self.change();
        let mishap = self.mishap();
        let was = self.in_force();
        match mishap {
            Mishap::Flushed => self.kernel.overwrite(Table::Absent),
            Mishap::StateLost => {
                (self.last_good, self.leases, self.ruleset) = (None, None, Ruleset::default());
                // Which ports rest is written nowhere else.
                self.owners.retain(|_, id| was.contains_key(id));
            }
            Mishap::AnswerLost(carried_out) => self.kernel.faults.lose_answer = Some(carried_out),
            Mishap::Contended => self.kernel.faults.stale = self.rng.usize(1..5),
            Mishap::None | Mishap::Killed => {}
        }
        let fresh = self.discover();
        self.log.push(format!("{} {:?} {mishap:?} {:?}", self.now, self.answering, summary(&fresh)));
        let planned = self.apply(&fresh);
        let is = self.in_force();
        self.nothing_is_lost(&was, &is, &fresh, &planned.inventory);
        self.everybody_is_where_he_is(&was, &is, &fresh);
        self.no_port_changes_hands(&was, &is);
        self.kernel.faults = Faults::default();
        if mishap != Mishap::Killed {
            self.remember(planned);
        }
        self.last_mishap = mishap;
    }

    /// Only a whole answer with nodes in it removes one; if many are missing, only the second such answer.
    fn nothing_is_lost(&self, was: &InForce, is: &InForce, fresh: &Inventory, kept: &Inventory) {
        for id in was.keys().filter(|id| !is.contains_key(*id)) {
            let cache = self.caches.iter().find(|cache| id.starts_with(cache.name)).unwrap();
            let of_source = |node: &&Node| node.source == cache.source;
            let report = fresh.report(&cache.source).unwrap();
            assert_eq!(report.coverage, Coverage::Whole, "{id} was lost: {}", self.story());
            let named: Vec<String> =
                fresh.nodes.iter().filter(of_source).map(|node| node.id.to_string()).collect();
            assert!(!named.is_empty() && !named.contains(id), "{id} was lost: {}", self.story());
            let held = &kept.report(&cache.source).unwrap().held;
            assert!(held.is_empty(), "{id} was lost while others are held: {}", self.story());
            let Some(before) = &self.last_good else { continue };
            let had: Vec<&Node> = before.nodes.iter().filter(of_source).collect();
            if !had.iter().any(|node| node.id.as_str() == id) {
                // Only the kernel knew it.
                continue;
            }
            let missing = had.iter().filter(|node| !named.contains(&node.id.to_string())).count();
            let held = &before.report(&cache.source).unwrap().held;
            let said_before = held.iter().any(|held| held.as_str() == id);
            assert!(missing * 2 <= had.len() || said_before, "{id} was lost too soon: {}", self.story());
        }
    }

    /// A node whose address is known is forwarded there, and any other stays where it was.
    fn everybody_is_where_he_is(&self, was: &InForce, is: &InForce, fresh: &Inventory) {
        for node in &fresh.nodes {
            let id = node.id.to_string();
            if let Some(&address) = node.addresses.first() {
                assert_eq!(is.get(&id).map(|to| to.1), Some(address), "{id}: {}", self.story());
            }
        }
        for (id, &(_, target)) in is {
            let known = fresh.nodes.iter().find(|node| node.id.as_str() == id);
            if known.is_none_or(|node| node.addresses.is_empty())
                && let Some(before) = was.get(id)
            {
                assert_eq!(target, before.1, "{id} moved: {}", self.story());
            }
        }
    }

    fn no_port_changes_hands(&mut self, was: &InForce, is: &InForce) {
        for (id, &(port, _)) in is {
            if let Some(before) = was.get(id) {
                assert_eq!(port, before.0, "{id} has another port: {}", self.story());
            }
            let owner = self.owners.entry(port).or_insert_with(|| id.clone()).clone();
            assert_eq!(owner, *id, "port {port} changed hands: {}", self.story());
        }
    }

    /// The last steps, for a failure's message.
    fn story(&self) -> String {
        let from = self.log.len().saturating_sub(4);
        format!("\n{}", self.log[from..].join("\n"))
    }
}

fn node(cache: &Cache, id: &str) -> Node {
    Node {
        id: id.parse().unwrap(),
        cluster: cache.name.into(),
        source: cache.source.clone(),
        shard: None,
        role: None,
        engine: None,
        tls: false,
        status: "available".into(),
        host: format!("{id}.example"),
        port: 6379.try_into().unwrap(),
        addresses: vec![],
        error: None,
        resolves: vec![],
        configuration_host: None,
        network: None,
    }
}

fn summary(inventory: &Inventory) -> Vec<String> {
    let place = |node: &Node| node.addresses.first().map_or("?".to_owned(), ToString::to_string);
    inventory.nodes.iter().map(|node| format!("{}@{}", node.id, place(node))).collect()
}

fn live(seed: u64) {
    println!("CACHENAT_SEED={seed}");
    let mut world = World::new(seed);
    let mut lived = Duration::ZERO;
    while lived < LIFE {
        let pause = Duration::from_secs(world.rng.u64(2..360));
        lived += pause;
        world.now = world.now + pause;
        world.step();
    }
    // Once everything answers again, everything is as it really is; of many removals the second answer is believed.
    world.answering = [Answering::Whole; 2];
    world.unresolved.clear();
    for _ in 0..2 {
        let planned = world.apply(&world.discover());
        world.remember(planned);
    }
    let real: BTreeSet<String> = world.discover().nodes.iter().map(|node| node.id.to_string()).collect();
    assert_eq!(world.in_force().into_keys().collect::<BTreeSet<_>>(), real);
}

#[test]
fn three_days_of_everything_lose_no_forward_and_no_port() {
    match std::env::var("CACHENAT_SEED") {
        Ok(seed) => live(seed.parse().unwrap()),
        Err(_) => (0..LIVES).for_each(|_| live(fastrand::u64(..1 << 32))),
    }
}

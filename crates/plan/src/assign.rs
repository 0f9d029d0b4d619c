//! Who gets which listener.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::sync::Arc;

use discovery::Timestamp;
use rules::ForwardId;
use tracing::debug;

use crate::leases::{Lease, Leases, ListenPort, QUARANTINE};

/// The listeners that a node may have: each of the ports on each of the addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pool {
    /// In the order in which they are given out: several of a gateway, or `None` for its only one.
    pub addresses: Vec<Option<IpAddr>>,
    /// The ports, first and last included.
    pub ports: RangeInclusive<u16>,
    /// The configuration key that sets the pool, for the error when it is full: `ports`.
    pub key: String,
}

impl Pool {
    fn contains(&self, listener: &ListenPort) -> bool {
        self.ports.contains(&listener.port.get()) && self.addresses.contains(&listener.address)
    }

    fn size(&self) -> usize {
        self.ports.len() * self.addresses.len()
    }

    /// The listener at a place in the order in which they are given out.
    fn get(&self, at: usize) -> Option<ListenPort> {
        let address = *self.addresses.get(at.checked_rem(self.addresses.len())?)?;
        let port = usize::from(*self.ports.start()) + at / self.addresses.len();
        let port = u16::try_from(port).ok().filter(|port| self.ports.contains(port))?;
        Some(ListenPort { address, port: NonZeroU16::new(port)? })
    }
}

impl Display for Pool {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.addresses.len() {
            1 => write!(f, "pool {}-{} (key {})", self.ports.start(), self.ports.end(), self.key),
            several => write!(f, "port {} on the {several} {}", self.ports.start(), self.key),
        }
    }
}

/// A node or role that needs a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What the listener shall lead to.
    pub id: ForwardId,
    /// What it may be.
    pub pool: Arc<Pool>,
    /// Another request, earlier in the list, whose address it shall share: both are known by one name.
    pub beside: Option<ForwardId>,
}

/// Why listeners could not be assigned; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// All listeners of the pool are held, or rest after their node was removed.
    #[error(
        "no free port for {id}: {pool} has {active} in use{}{}; widen {}{}",
        reserved(*resting), others(*taken), pool.key, release(*resting)
    )]
    PoolFull {
        /// Who needed one.
        id: ForwardId,
        /// The pool.
        pool: Arc<Pool>,
        /// How many of its listeners are held by nodes or pins.
        active: usize,
        /// How many of them were released less than [`QUARANTINE`] ago.
        resting: usize,
        /// How many of them another program of this host listens on.
        taken: usize,
    },
    /// A pin names a listener which belongs to a node that is there and pinned nowhere else.
    #[error(
        "pins.{id}: port {listener} belongs to {holder}, whose clients know it by that; also pin {holder} to another port, \
         or {id} to a free one"
    )]
    PinTaken {
        /// Who is pinned.
        id: ForwardId,
        /// The listener.
        listener: ListenPort,
        /// Who holds it.
        holder: ForwardId,
    },
}

/// What [`assign`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The leases as they are now.
    pub leases: Leases,
    /// The requests that got no listener because programs of this host listen on what was left.
    pub left_out: Vec<PlanError>,
}

fn reserved(resting: usize) -> String {
    if resting == 0 {
        return String::new();
    }
    format!(", {resting} reserved for 7 days after the node was removed")
}

const fn release(resting: usize) -> &'static str {
    match resting {
        0 => "",
        _ => {
            ", or free a reserved one: 'cachenat leases' lists them, 'cachenat leases release ID|--resting' frees them"
        }
    }
}

fn others(taken: usize) -> String {
    if taken == 0 { String::new() } else { format!(", and other programs listen on {taken}") }
}

/// Gives each request its listener.
///
/// In the order of `requests`: a pin wins; a listener that the id holds, or held last, stays its own if its pool still
/// has it; else the lowest of the pool that was never given out; else the one released longest ago, at least
/// [`QUARANTINE`], or sooner where more than nine tenths of the pool rest.
/// Leases of ids that are not requested are released at `now`. A pinned listener goes to no other.
/// One that is `taken`, by a program of this host, is given to none; who holds it already keeps it.
///
/// # Errors
///
/// [`PlanError`], if a pool is full of leases or a pin is taken.
pub fn assign(
    requests: &[Request],
    pins: &BTreeMap<ForwardId, ListenPort>,
    taken: &BTreeSet<ListenPort>,
    leases: Leases,
    now: Timestamp,
) -> Result<Assigned, PlanError> {
    let mut plan = Plan::carry_over(requests, pins, taken, leases, now);
    let mut left_out = Vec::new();
    for request in requests {
        if !plan.placed.contains_key(&request.id) {
            match plan.choose(request, now) {
                Ok(listener) => plan.give(listener, &request.id, now),
                // Any user of the host can listen on ports, and is to stop no one else's forward by that.
                Err(error @ PlanError::PoolFull { taken: 1.., .. }) => left_out.push(error),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(Assigned { leases: plan.leases, left_out })
}

struct Plan<'a> {
    leases: Leases,
    placed: HashMap<&'a ForwardId, ListenPort>,
    /// The listeners that pins keep for one id each.
    pinned: BTreeMap<ListenPort, &'a ForwardId>,
    pins: &'a BTreeMap<ForwardId, ListenPort>,
    /// The listeners that something else on this host has.
    taken: &'a BTreeSet<ListenPort>,
    /// The listeners at rest whose last holder is asked for again, the one that it held last first.
    former: HashMap<ForwardId, Vec<ListenPort>>,
    /// By pool: every listener before this place can't be given out fresh, so the search goes on from here.
    searched: HashMap<Arc<Pool>, usize>,
}

impl<'a> Plan<'a> {
    /// The old leases, with those released that are not asked for or may not stay.
    fn carry_over(
        requests: &'a [Request],
        pins: &'a BTreeMap<ForwardId, ListenPort>,
        taken: &'a BTreeSet<ListenPort>,
        mut leases: Leases,
        now: Timestamp,
    ) -> Self {
        let wanted: HashMap<&ForwardId, &Request> = requests.iter().map(|r| (&r.id, r)).collect();
        let pinned: BTreeMap<ListenPort, &ForwardId> = pins.iter().map(|(id, &at)| (at, id)).collect();
        let mut resting: Vec<&Lease> = leases
            .iter()
            .filter(|lease| lease.released.is_some() && wanted.contains_key(&lease.id))
            .collect();
        resting.sort_by_key(|lease| Reverse(lease.released));
        let mut former: HashMap<ForwardId, Vec<ListenPort>> = HashMap::new();
        for lease in resting {
            former.entry(lease.id.clone()).or_default().push(lease.listener());
        }
        let mut placed = HashMap::new();
        leases.release(now, |lease| {
            let listener = lease.listener();
            let stays = wanted.get(&lease.id).filter(|request| match pins.get(&request.id) {
                Some(&pin) => pin == listener,
                None => request.pool.contains(&listener),
            });
            stays.is_some_and(|request| placed.insert(&request.id, listener).is_none())
        });
        Self { leases, placed, pinned, pins, taken, former, searched: HashMap::new() }
    }

    fn give(&mut self, listener: ListenPort, id: &'a ForwardId, now: Timestamp) {
        let why = || match (self.pins.get(id), self.leases.get(&listener)) {
            (Some(_), _) => "it is pinned".to_owned(),
            (None, Some(before)) if before.id == *id => "it had it before".to_owned(),
            (None, Some(before)) => format!("the lease of {} has rested longest", before.id),
            (None, None) => "it is the first that nobody had".to_owned(),
        };
        debug!("lease: {id} gets {listener}: {}", why());
        self.leases.give(listener, id.clone(), now);
        self.placed.insert(id, listener);
    }

    fn choose(&mut self, request: &Request, now: Timestamp) -> Result<ListenPort, PlanError> {
        if let Some(&listener) = self.pins.get(&request.id) {
            return match self.leases.get(&listener) {
                Some(Lease { id, released: None, .. }) => {
                    Err(PlanError::PinTaken { id: request.id.clone(), listener, holder: id.clone() })
                }
                _ => Ok(listener),
            };
        }
        let pool = match request.beside.as_ref().and_then(|other| self.placed.get(other)) {
            Some(other) => &Arc::new(Pool { addresses: vec![other.address], ..Pool::clone(&request.pool) }),
            None => &request.pool,
        };
        let mut former = self.former.get(&request.id).into_iter().flatten();
        let own = former.find(|listener| {
            !self.leases.is_held(listener) && pool.contains(listener) && self.is_free(listener)
        });
        match own.copied().or_else(|| self.fresh(pool)) {
            Some(listener) => Ok(listener),
            None => self.rested(&request.id, pool, now),
        }
    }

    /// Whether neither a pin nor another program has it.
    fn is_free(&self, listener: &ListenPort) -> bool {
        !self.pinned.contains_key(listener) && !self.taken.contains(listener)
    }

    /// The lowest listener of the pool that was never given out.
    fn fresh(&mut self, pool: &Arc<Pool>) -> Option<ListenPort> {
        let start = self.searched.get(pool).copied().unwrap_or_default();
        let found = (start..pool.size())
            .filter_map(|at| Some((at, pool.get(at)?)))
            .find(|(_, listener)| self.leases.get(listener).is_none() && self.is_free(listener));
        self.searched.insert(Arc::clone(pool), found.map_or(pool.size(), |(at, _)| at));
        found.map(|(_, listener)| listener)
    }

    /// The listener of the pool that was released longest ago, if that is long enough.
    fn rested(&self, id: &ForwardId, pool: &Arc<Pool>, now: Timestamp) -> Result<ListenPort, PlanError> {
        let released: Vec<(Timestamp, ListenPort)> = self
            .leases
            .iter()
            .map(|lease| (lease.released, lease.listener()))
            .filter(|(_, listener)| pool.contains(listener) && self.is_free(listener))
            .filter_map(|(released, listener)| Some((released?, listener)))
            .collect();
        // A release in the future, after the clock was set back, has not rested at all.
        let has_rested = |released: Timestamp| released.elapsed(now) >= QUARANTINE;
        // So many can't rest by mistake, and must not keep every node from its port for a week.
        let is_choked = released.len() > pool.size() - pool.size() / 10;
        let oldest = released.iter().filter(|lease| is_choked || has_rested(lease.0)).min();
        oldest.map(|&(_, listener)| listener).ok_or_else(|| {
            let others = |listener: &&ListenPort| pool.contains(listener) && !self.leases.is_held(listener);
            let taken = self.taken.iter().filter(others).count();
            PlanError::PoolFull {
                id: id.clone(),
                pool: Arc::clone(pool),
                active: pool.size() - released.len() - taken,
                resting: released.len(),
                taken,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> ForwardId {
        name.parse().unwrap()
    }

    fn requests(ids: &[&str], pool: RangeInclusive<u16>) -> Vec<Request> {
        let pool = Arc::new(Pool { addresses: vec![None], ports: pool, key: "ports".to_owned() });
        ids.iter().map(|name| Request { id: id(name), pool: Arc::clone(&pool), beside: None }).collect()
    }

    fn active(leases: &Leases) -> Vec<(String, u16)> {
        leases.holders().into_iter().map(|(id, listener)| (id.to_string(), listener.port.get())).collect()
    }

    fn plan(ids: &[&str], pool: RangeInclusive<u16>, leases: &Leases, now: u64) -> Result<Leases, PlanError> {
        let now = Timestamp::from_secs(now);
        assign(&requests(ids, pool), &BTreeMap::new(), &BTreeSet::new(), leases.clone(), now)
            .map(|done| done.leases)
    }

    fn on(port: u16) -> ListenPort {
        ListenPort { address: None, port: NonZeroU16::new(port).unwrap() }
    }

    fn pins(list: &[(&str, u16)]) -> BTreeMap<ForwardId, ListenPort> {
        list.iter().map(|&(name, port)| (id(name), on(port))).collect()
    }

    #[test]
    fn the_example_of_the_aws_procedure_comes_out_as_6379_6380_6381() {
        let nodes = ["my-cluster-001", "my-cluster-002", "my-cluster-003"];
        let leases = plan(&nodes, 6379..=7378, &Leases::default(), 0).unwrap();
        let expected = nodes.iter().map(|n| n.to_string()).zip([6379, 6380, 6381]).collect::<Vec<_>>();
        assert_eq!(active(&leases), expected);
    }

    #[test]
    fn removing_a_node_keeps_every_other_port_and_rests_its_own() {
        let before = plan(&["a", "b", "c"], 10..=20, &Leases::default(), 0).unwrap();
        let after = plan(&["a", "c", "d"], 10..=20, &before, 5).unwrap();
        assert_eq!(active(&after), [("a".to_owned(), 10), ("c".to_owned(), 12), ("d".to_owned(), 13)]);
    }

    #[test]
    fn a_node_that_comes_back_finds_its_own_port_at_rest() {
        let before = plan(&["a", "b"], 10..=20, &Leases::default(), 0).unwrap();
        let without = plan(&["b"], 10..=20, &before, 1).unwrap();
        let again = plan(&["c", "a", "b"], 10..=20, &without, 2).unwrap();
        assert_eq!(active(&again), [("a".to_owned(), 10), ("b".to_owned(), 11), ("c".to_owned(), 12)]);
    }

    #[test]
    fn a_released_port_is_given_again_after_seven_days_the_oldest_first() {
        let full = plan(&["a", "b"], 10..=11, &Leases::default(), 0).unwrap();
        let one = plan(&["b"], 10..=11, &full, 100).unwrap();
        let error = plan(&["b", "c"], 10..=11, &one, 99 + QUARANTINE.as_secs()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no free port for c: pool 10-11 (key ports) has 1 in use, 1 reserved for 7 days after the node was removed; \
             widen ports, or free a reserved one: 'cachenat leases' lists them, 'cachenat leases release ID|--resting' frees them"
        );
        let none = plan(&[], 10..=11, &one, 200).unwrap();
        let again = plan(&["c"], 10..=11, &none, 200 + QUARANTINE.as_secs()).unwrap();
        assert_eq!(active(&again), [("c".to_owned(), 10)]);
    }

    #[test]
    fn of_several_resting_ports_a_node_gets_the_one_it_held_last() {
        // Its pool was moved to 20-30 and back, so both of its ports rest; 10 was its own first.
        let json = r#"[{"port":10,"id":"a","since":1,"released":5},{"port":21,"id":"a","since":5,"released":9},
            {"port":11,"id":"a","since":0,"released":1}]"#;
        let leases: Leases = serde_json::from_str(json).unwrap();
        assert_eq!(active(&plan(&["a"], 10..=30, &leases, 10).unwrap()), [("a".to_owned(), 21)]);
        // Where the last one can't be had, the one before it.
        assert_eq!(active(&plan(&["a"], 10..=19, &leases, 10).unwrap()), [("a".to_owned(), 10)]);
    }

    #[test]
    fn a_port_that_something_listens_on_is_given_to_none() {
        let taken: BTreeSet<ListenPort> = [on(10), on(12)].into();
        let with = |ids: &[&str], pool, leases: &Leases, now| {
            let now = Timestamp::from_secs(now);
            assign(&requests(ids, pool), &BTreeMap::new(), &taken, leases.clone(), now).unwrap()
        };
        let leases = with(&["a", "b"], 10..=13, &Leases::default(), 0).leases;
        assert_eq!(active(&leases), [("a".to_owned(), 11), ("b".to_owned(), 13)]);
        let done = with(&["c", "a", "b"], 10..=13, &leases, 0);
        assert_eq!(active(&done.leases), active(&leases), "all others keep theirs");
        let error = &done.left_out[0];
        assert!(matches!(error, PlanError::PoolFull { active: 2, resting: 0, taken: 2, .. }), "{error}");
        assert!(error.to_string().contains("other programs listen on 2; widen ports"), "{error}");
        // Who held it before keeps it, and who comes back to it gets another.
        let before = plan(&["a", "b"], 10..=13, &Leases::default(), 0).unwrap();
        assert_eq!(active(&with(&["a", "b"], 10..=13, &before, 1).leases), active(&before));
        let without = plan(&["b"], 10..=13, &before, 1).unwrap();
        let again = with(&["a", "b"], 10..=13, &without, 2).leases;
        assert_eq!(active(&again), [("a".to_owned(), 13), ("b".to_owned(), 11)]);
    }

    #[test]
    fn a_tenth_of_a_pool_never_rests() {
        let planted: Vec<Lease> = (10..30)
            .map(|port| Lease {
                address: None,
                port: on(port).port,
                id: id(&format!("gone-{port}")),
                since: Timestamp::default(),
                released: Some(Timestamp::from_secs(port.into())),
            })
            .collect();
        let leases = Leases::try_from(planted).unwrap();
        // What was released longest ago goes first.
        let two = plan(&["a", "b"], 10..=29, &leases, 40).unwrap();
        assert_eq!(active(&two), [("a".to_owned(), 10), ("b".to_owned(), 11)]);
        let error = plan(&["a", "b", "c"], 10..=29, &leases, 40).unwrap_err();
        assert!(matches!(error, PlanError::PoolFull { active: 2, resting: 18, .. }), "{error}");
    }

    #[test]
    fn a_clock_that_was_set_back_frees_nothing_early() {
        let full = plan(&["a"], 10..=10, &Leases::default(), 1_000_000).unwrap();
        let none = plan(&[], 10..=10, &full, 1_000_000).unwrap();
        assert!(matches!(plan(&["b"], 10..=10, &none, 5), Err(PlanError::PoolFull { resting: 1, .. })));
    }

    #[test]
    fn a_pin_wins_over_the_order_and_is_given_to_no_other() {
        let leases = assign(
            &requests(&["a", "b"], 10..=20),
            &pins(&[("b", 10)]),
            &BTreeSet::new(),
            Leases::default(),
            Timestamp::default(),
        )
        .unwrap();
        assert_eq!(active(&leases.leases), [("a".to_owned(), 11), ("b".to_owned(), 10)]);
    }

    #[test]
    fn a_pin_on_a_port_that_another_node_holds_is_refused() {
        let before = plan(&["a", "b"], 10..=20, &Leases::default(), 0).unwrap();
        let error = assign(
            &requests(&["a", "b"], 10..=20),
            &pins(&[("b", 10)]),
            &BTreeSet::new(),
            before.clone(),
            Timestamp::from_secs(1),
        )
        .unwrap_err();
        assert!(matches!(error, PlanError::PinTaken { .. }), "{error}");
        let swapped = assign(
            &requests(&["a", "b"], 10..=20),
            &pins(&[("b", 10), ("a", 11)]),
            &BTreeSet::new(),
            before,
            Timestamp::from_secs(1),
        )
        .unwrap();
        assert_eq!(active(&swapped.leases), [("a".to_owned(), 11), ("b".to_owned(), 10)]);
    }

    #[test]
    fn a_port_outside_a_moved_pool_is_replaced() {
        let before = plan(&["a"], 10..=20, &Leases::default(), 0).unwrap();
        assert_eq!(active(&plan(&["a"], 30..=40, &before, 1).unwrap()), [("a".to_owned(), 30)]);
    }

    #[test]
    fn the_kernel_adds_what_the_leases_do_not_know_and_overrules_no_holder() {
        let in_kernel =
            |list: &[(&str, u16)]| list.iter().map(|&(name, port)| (id(name), on(port))).collect::<Vec<_>>();
        let before = plan(&["a", "b"], 10..=20, &Leases::default(), 0).unwrap();
        let before = plan(&["a"], 10..=20, &before, 1).unwrap();
        let known = before
            .clone()
            .with_kernel(in_kernel(&[("a", 13), ("x", 10), ("c", 12), ("b", 11)]), Timestamp::from_secs(2));
        let expected = [("a".to_owned(), 10), ("b".to_owned(), 11), ("c".to_owned(), 12)];
        assert_eq!(active(&known), expected);
        assert_eq!(
            active(
                &Leases::default().with_kernel(in_kernel(&[("a", 13), ("a", 12)]), Timestamp::from_secs(2))
            ),
            [("a".to_owned(), 12)]
        );
    }

    #[test]
    fn the_last_port_of_all_can_be_leased_and_the_pool_is_full_after_it() {
        let full = plan(&["a"], 65535..=65535, &Leases::default(), 0).unwrap();
        assert_eq!(active(&full), [("a".to_owned(), 65535)]);
        assert!(plan(&["a", "b"], 65535..=65535, &full, 1).is_err());
    }

    /// Requests for port 6379 on an address of their own, of the first `count` addresses from 10.0.0.55 on.
    fn on_own_addresses(ids: &[&str], count: u8) -> Vec<Request> {
        let addresses = (0..count).map(|at| Some(IpAddr::from([10, 0, 0, 55 + at]))).collect();
        let pool = Arc::new(Pool { addresses, ports: 6379..=6379, key: "gateway.addresses".to_owned() });
        ids.iter().map(|name| Request { id: id(name), pool: Arc::clone(&pool), beside: None }).collect()
    }

    fn listeners(leases: &Leases) -> Vec<String> {
        leases.holders().into_iter().map(|(id, listener)| format!("{id} {listener}")).collect()
    }

    #[test]
    fn with_several_addresses_each_node_keeps_the_port_on_an_address_of_its_own() {
        let plan = |ids: &[&str], count, leases, now| {
            assign(
                &on_own_addresses(ids, count),
                &BTreeMap::new(),
                &BTreeSet::new(),
                leases,
                Timestamp::from_secs(now),
            )
            .map(|done| done.leases)
        };
        let before = plan(&["a", "b", "c"], 3, Leases::default(), 0).unwrap();
        assert_eq!(listeners(&before), ["a 10.0.0.55:6379", "b 10.0.0.56:6379", "c 10.0.0.57:6379"]);
        let without = plan(&["a", "c"], 3, before, 1).unwrap();
        let error = plan(&["a", "c", "d"], 3, without.clone(), 2).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no free port for d: port 6379 on the 3 gateway.addresses has 2 in use, 1 reserved for 7 days after the node \
             was removed; widen gateway.addresses, or free a reserved one: 'cachenat leases' lists them, 'cachenat leases \
             release ID|--resting' frees them"
        );
        let widened = plan(&["a", "c", "d", "b"], 4, without, 3).unwrap();
        let expected = ["a 10.0.0.55:6379", "b 10.0.0.56:6379", "c 10.0.0.57:6379", "d 10.0.0.58:6379"];
        assert_eq!(listeners(&widened), expected);
    }

    #[test]
    fn two_ports_of_one_name_share_its_address() {
        let mut requests = on_own_addresses(&["a", "b", "b/reader"], 3);
        let reader = requests.last_mut().unwrap();
        reader.pool = Arc::new(Pool { ports: 6380..=6380, ..Pool::clone(&reader.pool) });
        reader.beside = Some(id("b"));
        let leases =
            assign(&requests, &BTreeMap::new(), &BTreeSet::new(), Leases::default(), Timestamp::default())
                .unwrap()
                .leases;
        assert_eq!(listeners(&leases), ["a 10.0.0.55:6379", "b 10.0.0.56:6379", "b/reader 10.0.0.56:6380"]);
    }
}

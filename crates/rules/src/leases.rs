//! Port leases: a port, once given to a node, belongs to it.
//!
//! A client that falls back to a port which meanwhile leads to another cluster reads that cluster's keys without
//! noticing. So a port stays with its node through replacement and failover, and when the node is gone it rests
//! before another may have it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::num::NonZeroU16;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::name::ForwardId;

/// For how long a released port is given to no other node, in seconds: 7 days.
pub const QUARANTINE: u64 = 7 * 24 * 60 * 60;

/// A lease on a port; the holder is what clients find behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The TCP port.
    pub port: NonZeroU16,
    /// The node or role that holds the port, or held it last.
    pub id: ForwardId,
    /// When it was given out, in seconds since 1970.
    pub since: u64,
    /// When the node was gone, in seconds since 1970; `None` while it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<u64>,
}

/// All ports that were ever given out, each with its latest lease; no id holds two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Lease>", into = "Vec<Lease>")]
pub struct Leases(BTreeMap<NonZeroU16, Lease>);

/// Why a list of leases can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeasesError {
    /// Two leases of one port.
    #[error("port {0} is leased twice")]
    Port(NonZeroU16),
    /// Two ports held by one id.
    #[error("{0} holds two ports")]
    Id(ForwardId),
}

impl TryFrom<Vec<Lease>> for Leases {
    type Error = LeasesError;

    fn try_from(list: Vec<Lease>) -> Result<Self, LeasesError> {
        let mut holders = HashSet::new();
        let mut leases = BTreeMap::new();
        for lease in list {
            if lease.released.is_none() && !holders.insert(lease.id.clone()) {
                return Err(LeasesError::Id(lease.id));
            }
            if let Some(twin) = leases.insert(lease.port, lease) {
                return Err(LeasesError::Port(twin.port));
            }
        }
        Ok(Self(leases))
    }
}

impl From<Leases> for Vec<Lease> {
    fn from(leases: Leases) -> Self {
        leases.0.into_values().collect()
    }
}

impl Leases {
    /// These leases, and what the kernel's own elements tell of: each listener's port is held by the id in its comment,
    /// unless the leases know that id or that port to be held otherwise.
    ///
    /// The kernel knows more where a run was ended before it wrote the leases, or could not write them. Of several ports
    /// of one id the lowest counts, of several ids on one port the first.
    #[must_use]
    pub fn with_kernel(
        mut self,
        listeners: impl IntoIterator<Item = (ForwardId, NonZeroU16)>,
        now: u64,
    ) -> Self {
        let news: BTreeSet<(ForwardId, NonZeroU16)> =
            listeners.into_iter().filter(|&(_, port)| !self.is_held(port)).collect();
        if news.is_empty() {
            return self;
        }
        let held = self.iter().filter(|lease| lease.released.is_none());
        let mut holders: HashSet<ForwardId> = held.map(|lease| lease.id.clone()).collect();
        for (id, port) in news {
            if !self.is_held(port) && holders.insert(id.clone()) {
                self.0.insert(port, Lease { port, id, since: now, released: None });
            }
        }
        self
    }

    fn is_held(&self, port: NonZeroU16) -> bool {
        self.0.get(&port).is_some_and(|lease| lease.released.is_none())
    }

    /// Every lease, by port.
    pub fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.0.values()
    }

    /// Whether no port was ever given out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets the ports that rest after `id`, so that they count as never given out; the last one, if there was any.
    ///
    /// A port that `id` holds stays its own.
    pub fn forget(&mut self, id: &ForwardId) -> Option<NonZeroU16> {
        let resting = self.iter().filter(|lease| lease.id == *id && lease.released.is_some());
        let ports: Vec<NonZeroU16> = resting.map(|lease| lease.port).collect();
        ports.into_iter().inspect(|port| drop(self.0.remove(port))).last()
    }

    /// The ports that are held, by their holder.
    pub fn ports(&self) -> BTreeMap<&ForwardId, NonZeroU16> {
        self.iter().filter(|lease| lease.released.is_none()).map(|lease| (&lease.id, lease.port)).collect()
    }
}

/// A node or role that needs a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What the port shall lead to.
    pub id: ForwardId,
    /// The ports that it may have.
    pub pool: RangeInclusive<u16>,
    /// The configuration key that sets the pool, for the error when it is full: `ports`.
    pub pool_key: String,
}

/// Why ports could not be assigned; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// All ports of the pool are held, or rest after their node was removed.
    #[error(
        "no port is left for {id}: of the pool {}-{} (key {pool_key}) {held} are held and {resting} rest for 7 days \
         after their node was removed; widen {pool_key}",
        pool.start(), pool.end()
    )]
    PoolFull {
        /// Who needed one.
        id: ForwardId,
        /// The pool.
        pool: RangeInclusive<u16>,
        /// Its key in the configuration.
        pool_key: String,
        /// How many of its ports are held by nodes or pins.
        held: usize,
        /// How many of them were released less than [`QUARANTINE`] ago.
        resting: usize,
    },
    /// A pin names a port which belongs to a node that is there and pinned nowhere else.
    #[error(
        "pins.{id}: port {port} belongs to {holder}, whose clients know it by that; pin {holder} to another port as \
         well, or {id} to a free one"
    )]
    PinTaken {
        /// Who is pinned.
        id: ForwardId,
        /// The port.
        port: NonZeroU16,
        /// Who holds it.
        holder: ForwardId,
    },
}

/// Gives each request its port, and returns the leases as they are then.
///
/// In the order of `requests`: a pin wins; a port that the id holds, or held last, stays its own if its pool still
/// has it; else the lowest port of the pool that was never given out; else the one released longest ago, at least
/// [`QUARANTINE`] seconds.
/// Leases of ids that nobody requests are released at `now` (seconds since 1970). A pinned port goes to no other.
///
/// # Errors
///
/// [`PlanError`], if a pool is full or a pin is taken.
pub fn assign(
    requests: &[Request],
    pins: &BTreeMap<ForwardId, NonZeroU16>,
    leases: &Leases,
    now: u64,
) -> Result<Leases, PlanError> {
    let mut plan = Plan::carry_over(requests, pins, leases, now);
    for request in requests {
        if !plan.placed.contains(&request.id) {
            let port = plan.choose(request, now)?;
            plan.give(port, &request.id, now);
        }
    }
    Ok(plan.leases)
}

struct Plan<'a> {
    leases: Leases,
    placed: HashSet<&'a ForwardId>,
    /// The ports that pins keep for one id each.
    pinned: BTreeMap<NonZeroU16, &'a ForwardId>,
    pins: &'a BTreeMap<ForwardId, NonZeroU16>,
    /// The ports at rest whose last holder is asked for again.
    former: HashMap<ForwardId, NonZeroU16>,
    /// By pool: every port below has been given out or is pinned, so the search goes on from here.
    searched: BTreeMap<(u16, u16), u16>,
}

impl<'a> Plan<'a> {
    /// The old leases, with those released that are not asked for or may not stay.
    fn carry_over(
        requests: &'a [Request],
        pins: &'a BTreeMap<ForwardId, NonZeroU16>,
        leases: &Leases,
        now: u64,
    ) -> Self {
        let wanted: HashMap<&ForwardId, &Request> = requests.iter().map(|r| (&r.id, r)).collect();
        let pinned: BTreeMap<NonZeroU16, &ForwardId> = pins.iter().map(|(id, &port)| (port, id)).collect();
        let mut leases = leases.clone();
        let former = leases
            .iter()
            .filter(|lease| lease.released.is_some() && wanted.contains_key(&lease.id))
            .map(|lease| (lease.id.clone(), lease.port))
            .collect();
        let mut placed = HashSet::new();
        for (&port, lease) in leases.0.iter_mut().filter(|(_, lease)| lease.released.is_none()) {
            let stays = wanted.get(&lease.id).filter(|request| match pins.get(&request.id) {
                Some(&pin) => pin == port,
                None => request.pool.contains(&port.get()),
            });
            match stays {
                Some(request) => drop(placed.insert(&request.id)),
                None => lease.released = Some(now),
            }
        }
        Self { leases, placed, pinned, pins, former, searched: BTreeMap::new() }
    }

    fn give(&mut self, port: NonZeroU16, id: &'a ForwardId, now: u64) {
        self.leases.0.insert(port, Lease { port, id: id.clone(), since: now, released: None });
        self.placed.insert(id);
    }

    fn choose(&mut self, request: &Request, now: u64) -> Result<NonZeroU16, PlanError> {
        if let Some(&port) = self.pins.get(&request.id) {
            return match self.leases.0.get(&port) {
                Some(Lease { id, released: None, .. }) => {
                    Err(PlanError::PinTaken { id: request.id.clone(), port, holder: id.clone() })
                }
                _ => Ok(port),
            };
        }
        let own = self.former.get(&request.id).filter(|port| {
            let at_rest = self.leases.0.get(port).is_some_and(|lease| lease.released.is_some());
            at_rest && request.pool.contains(&port.get()) && !self.pinned.contains_key(port)
        });
        if let Some(&port) = own {
            return Ok(port);
        }
        match self.fresh(&request.pool) {
            Some(port) => Ok(port),
            None => self.rested(request, now),
        }
    }

    /// The lowest port of the pool that was never given out.
    fn fresh(&mut self, pool: &RangeInclusive<u16>) -> Option<NonZeroU16> {
        let start = self.searched.entry((*pool.start(), *pool.end())).or_insert(*pool.start());
        let port = (*start..=*pool.end())
            .filter_map(NonZeroU16::new)
            .find(|port| !self.leases.0.contains_key(port) && !self.pinned.contains_key(port));
        *start = port.map_or(*pool.end(), NonZeroU16::get);
        port
    }

    /// The port of the pool that was released longest ago, if that is long enough.
    fn rested(&self, request: &Request, now: u64) -> Result<NonZeroU16, PlanError> {
        let pool = &request.pool;
        let released: Vec<(u64, NonZeroU16)> = self
            .leases
            .iter()
            .filter(|lease| pool.contains(&lease.port.get()) && !self.pinned.contains_key(&lease.port))
            .filter_map(|lease| Some((lease.released?, lease.port)))
            .collect();
        // A clock that was set back makes a release lie in the future; such a port rests on.
        let rested =
            |&&(at, _): &&(u64, NonZeroU16)| now.checked_sub(at).is_some_and(|age| age >= QUARANTINE);
        let oldest = released.iter().filter(rested).min();
        oldest.map(|&(_, port)| port).ok_or_else(|| PlanError::PoolFull {
            id: request.id.clone(),
            pool: pool.clone(),
            pool_key: request.pool_key.clone(),
            held: pool.len() - released.len(),
            resting: released.len(),
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
        ids.iter()
            .map(|name| Request { id: id(name), pool: pool.clone(), pool_key: "ports".to_owned() })
            .collect()
    }

    fn held(leases: &Leases) -> Vec<(String, u16)> {
        leases.ports().into_iter().map(|(id, port)| (id.to_string(), port.get())).collect()
    }

    fn plan(ids: &[&str], pool: RangeInclusive<u16>, leases: &Leases, now: u64) -> Result<Leases, PlanError> {
        assign(&requests(ids, pool), &BTreeMap::new(), leases, now)
    }

    fn pins(list: &[(&str, u16)]) -> BTreeMap<ForwardId, NonZeroU16> {
        list.iter().map(|&(name, port)| (id(name), NonZeroU16::new(port).unwrap())).collect()
    }

    #[test]
    fn the_example_of_the_aws_procedure_comes_out_as_6379_6380_6381() {
        let nodes = ["my-cluster-001", "my-cluster-002", "my-cluster-003"];
        let leases = plan(&nodes, 6379..=7378, &Leases::default(), 0).unwrap();
        let expected = nodes.iter().map(|n| n.to_string()).zip([6379, 6380, 6381]).collect::<Vec<_>>();
        assert_eq!(held(&leases), expected);
    }

    #[test]
    fn removing_a_node_keeps_every_other_port_and_rests_its_own() {
        let before = plan(&["a", "b", "c"], 10..=20, &Leases::default(), 0).unwrap();
        let after = plan(&["a", "c", "d"], 10..=20, &before, 5).unwrap();
        assert_eq!(held(&after), [("a".to_owned(), 10), ("c".to_owned(), 12), ("d".to_owned(), 13)]);
    }

    #[test]
    fn a_node_that_comes_back_finds_its_own_port_at_rest() {
        let before = plan(&["a", "b"], 10..=20, &Leases::default(), 0).unwrap();
        let without = plan(&["b"], 10..=20, &before, 1).unwrap();
        let again = plan(&["c", "a", "b"], 10..=20, &without, 2).unwrap();
        assert_eq!(held(&again), [("a".to_owned(), 10), ("b".to_owned(), 11), ("c".to_owned(), 12)]);
    }

    #[test]
    fn a_released_port_is_given_again_after_seven_days_the_oldest_first() {
        let full = plan(&["a", "b"], 10..=11, &Leases::default(), 0).unwrap();
        let one = plan(&["b"], 10..=11, &full, 100).unwrap();
        let error = plan(&["b", "c"], 10..=11, &one, 100 + QUARANTINE - 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no port is left for c: of the pool 10-11 (key ports) 1 are held and 1 rest for 7 days after their node \
             was removed; widen ports"
        );
        let none = plan(&[], 10..=11, &one, 200).unwrap();
        let again = plan(&["c"], 10..=11, &none, 200 + QUARANTINE).unwrap();
        assert_eq!(held(&again), [("c".to_owned(), 10)]);
    }

    #[test]
    fn a_clock_that_was_set_back_frees_nothing_early() {
        let full = plan(&["a"], 10..=10, &Leases::default(), 1_000_000).unwrap();
        let none = plan(&[], 10..=10, &full, 1_000_000).unwrap();
        assert!(matches!(plan(&["b"], 10..=10, &none, 5), Err(PlanError::PoolFull { resting: 1, .. })));
    }

    #[test]
    fn a_pin_wins_over_the_order_and_is_given_to_no_other() {
        let leases =
            assign(&requests(&["a", "b"], 10..=20), &pins(&[("b", 10)]), &Leases::default(), 0).unwrap();
        assert_eq!(held(&leases), [("a".to_owned(), 11), ("b".to_owned(), 10)]);
    }

    #[test]
    fn a_pin_on_a_port_that_another_node_holds_is_refused() {
        let before = plan(&["a", "b"], 10..=20, &Leases::default(), 0).unwrap();
        let error = assign(&requests(&["a", "b"], 10..=20), &pins(&[("b", 10)]), &before, 1).unwrap_err();
        assert!(matches!(error, PlanError::PinTaken { .. }), "{error}");
        let swapped =
            assign(&requests(&["a", "b"], 10..=20), &pins(&[("b", 10), ("a", 11)]), &before, 1).unwrap();
        assert_eq!(held(&swapped), [("a".to_owned(), 11), ("b".to_owned(), 10)]);
    }

    #[test]
    fn a_port_outside_a_moved_pool_is_replaced() {
        let before = plan(&["a"], 10..=20, &Leases::default(), 0).unwrap();
        assert_eq!(held(&plan(&["a"], 30..=40, &before, 1).unwrap()), [("a".to_owned(), 30)]);
    }

    #[test]
    fn the_kernel_adds_what_the_leases_do_not_know_and_overrules_no_holder() {
        let in_kernel = |list: &[(&str, u16)]| {
            list.iter().map(|&(name, port)| (id(name), NonZeroU16::new(port).unwrap())).collect::<Vec<_>>()
        };
        let before = plan(&["a", "b"], 10..=20, &Leases::default(), 0).unwrap();
        let before = plan(&["a"], 10..=20, &before, 1).unwrap();
        let known = before.clone().with_kernel(in_kernel(&[("a", 13), ("x", 10), ("c", 12), ("b", 11)]), 2);
        let expected = [("a".to_owned(), 10), ("b".to_owned(), 11), ("c".to_owned(), 12)];
        assert_eq!(held(&known), expected);
        assert_eq!(
            held(&Leases::default().with_kernel(in_kernel(&[("a", 13), ("a", 12)]), 2)),
            [("a".to_owned(), 12)]
        );
    }

    #[test]
    fn the_last_port_of_all_can_be_leased_and_the_pool_is_full_after_it() {
        let full = plan(&["a"], 65535..=65535, &Leases::default(), 0).unwrap();
        assert_eq!(held(&full), [("a".to_owned(), 65535)]);
        assert!(plan(&["a", "b"], 65535..=65535, &full, 1).is_err());
    }

    #[test]
    fn leases_read_back_from_json_and_a_doubled_port_is_refused() {
        let leases = plan(&["a", "b"], 10..=11, &Leases::default(), 7).unwrap();
        let json = serde_json::to_string(&leases).unwrap();
        assert_eq!(json, r#"[{"port":10,"id":"a","since":7},{"port":11,"id":"b","since":7}]"#);
        assert_eq!(serde_json::from_str::<Leases>(&json).unwrap(), leases);
        let doubled = serde_json::from_str::<Leases>(&json.replace("11", "10")).unwrap_err();
        assert!(doubled.to_string().starts_with("port 10 is leased twice"), "{doubled}");
    }
}

//! Leases: where clients connect, once given to a node, belongs to it.
//!
//! A client that falls back to a port which meanwhile leads to another cluster reads that cluster's keys without
//! noticing. So a port stays with its node through replacement and failover, and when the node is gone it rests
//! before another may have it. A gateway with several addresses leases pairs of address and port.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;
use std::time::Duration;

use discovery::Timestamp;
use rules::{AddrPort, ForwardId, SyntaxError};
use serde::{Deserialize, Serialize, Serializer};
use tracing::debug;

/// For how long a released listener is given to no other node: 7 days.
pub const QUARANTINE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Where clients connect on the gateway, as it is leased: `6379`, or `10.0.0.56:6379` of several addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenPort {
    /// Which of the gateway's several addresses; `None` where it has one, which may change.
    pub address: Option<IpAddr>,
    /// The TCP port.
    pub port: NonZeroU16,
}

impl Display for ListenPort {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Self { address: Some(address), port } => AddrPort { address, port }.fmt(f),
            Self { address: None, port } => port.fmt(f),
        }
    }
}

impl FromStr for ListenPort {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        if let Ok(port) = text.parse() {
            return Ok(Self { address: None, port });
        }
        let parsed: Result<AddrPort, SyntaxError> = text.parse();
        let AddrPort { address, port } =
            parsed.map_err(|error| SyntaxError { expected: "a port, or an address and port", ..error })?;
        Ok(Self { address: Some(address), port })
    }
}

/// A lease on a listener; the holder is what clients find behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Which of the gateway's several addresses; `None` where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The TCP port.
    pub port: NonZeroU16,
    /// The node or role that holds the listener, or held it last.
    pub id: ForwardId,
    /// When it was given out.
    pub since: Timestamp,
    /// When the node was gone; `None` while it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<Timestamp>,
}

impl Lease {
    /// What is leased.
    pub fn listener(&self) -> ListenPort {
        ListenPort { address: self.address, port: self.port }
    }
}

/// All listeners that were ever given out, each with its latest lease; no id holds two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<Lease>")]
pub struct Leases(BTreeMap<ListenPort, Lease>);

/// Why a list of leases can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeasesError {
    /// Two leases of one listener.
    #[error("port {0} is leased twice")]
    ListenPort(ListenPort),
    /// Two listeners held by one id.
    #[error("{0} holds two ports")]
    Id(ForwardId),
}

impl TryFrom<Vec<Lease>> for Leases {
    type Error = LeasesError;

    fn try_from(mut list: Vec<Lease>) -> Result<Self, LeasesError> {
        let mut holders = HashSet::with_capacity(list.len());
        let mut held = list.iter().filter(|lease| lease.released.is_none());
        if let Some(twin) = held.find(|lease| !holders.insert(&lease.id)) {
            return Err(LeasesError::Id(twin.id.clone()));
        }
        list.sort_by_key(Lease::listener);
        let mut neighbours = list.iter().zip(list.iter().skip(1));
        if let Some((twin, _)) = neighbours.find(|(one, other)| one.listener() == other.listener()) {
            return Err(LeasesError::ListenPort(twin.listener()));
        }
        Ok(Self(list.into_iter().map(|lease| (lease.listener(), lease)).collect()))
    }
}

impl Serialize for Leases {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl Leases {
    /// These leases as a gateway sees them whose first address is `first`, one of several, or which has only one.
    ///
    /// A gateway that gets more addresses goes on with what it leased on its first; one that is left with that
    /// address alone goes on as well. Of two leases of one listener then, one that is held counts, and of two that are
    /// held the one that was there: its clients connect to that listener already. The same goes for two of one id.
    #[must_use]
    pub fn of_gateway(self, first: IpAddr, has_several: bool) -> Self {
        let (before, after) = if has_several { (None, Some(first)) } else { (Some(first), None) };
        if !self.0.keys().any(|listener| listener.address == before) {
            return self;
        }
        let (moved, mut leases): (BTreeMap<_, _>, BTreeMap<_, _>) =
            self.0.into_iter().partition(|(listener, _)| listener.address == before);
        let held = leases.values().filter(|lease: &&Lease| lease.released.is_none());
        let holders: HashSet<ForwardId> = held.map(|lease| lease.id.clone()).collect();
        for lease in moved.into_values().map(|lease| Lease { address: after, ..lease }) {
            let is_held = lease.released.is_none();
            let may_have_it = match leases.get(&lease.listener()) {
                None => true,
                Some(twin) => is_held && twin.released.is_some(),
            };
            if may_have_it && !(is_held && holders.contains(&lease.id)) {
                leases.insert(lease.listener(), lease);
            }
        }
        Self(leases)
    }

    /// These leases, and what the kernel's own elements tell of: each listener is held by the id in its comment,
    /// unless the leases know that id or that listener to be held otherwise.
    ///
    /// The kernel knows more where a run was ended before it wrote the leases, or could not write them. Of several
    /// listeners of one id the lowest counts, of several ids on one listener the first.
    #[must_use]
    pub fn with_kernel(
        mut self,
        listeners: impl IntoIterator<Item = (ForwardId, ListenPort)>,
        now: Timestamp,
    ) -> Self {
        let news: BTreeSet<(ForwardId, ListenPort)> =
            listeners.into_iter().filter(|(_, listener)| !self.is_held(listener)).collect();
        if news.is_empty() {
            return self;
        }
        let mut holders: HashSet<ForwardId> = self.held().map(|lease| lease.id.clone()).collect();
        for (id, listener) in news {
            if !self.is_held(&listener) && holders.insert(id.clone()) {
                self.give(listener, id, now);
            }
        }
        self
    }

    pub(crate) fn is_held(&self, listener: &ListenPort) -> bool {
        self.get(listener).is_some_and(|lease| lease.released.is_none())
    }

    pub(crate) fn get(&self, listener: &ListenPort) -> Option<&Lease> {
        self.0.get(listener)
    }

    pub(crate) fn give(&mut self, ListenPort { address, port }: ListenPort, id: ForwardId, since: Timestamp) {
        self.0.insert(ListenPort { address, port }, Lease { address, port, id, since, released: None });
    }

    /// Releases at `now` those that are held and that `stays` does not want.
    pub(crate) fn release(&mut self, now: Timestamp, mut stays: impl FnMut(&Lease) -> bool) {
        for lease in self.0.values_mut().filter(|lease| lease.released.is_none()) {
            if !stays(lease) {
                debug!("lease: {} of {} rests from now on", lease.listener(), lease.id);
                lease.released = Some(now);
            }
        }
    }

    /// Every lease, by listener.
    pub fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.0.values()
    }

    fn held(&self) -> impl Iterator<Item = &Lease> {
        self.iter().filter(|lease| lease.released.is_none())
    }

    /// Whether nothing was ever given out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets the listeners that rest after `id`, so that they count as never given out; the last one, if there was
    /// any.
    ///
    /// A listener that `id` holds stays its own.
    pub fn forget(&mut self, id: &ForwardId) -> Option<ListenPort> {
        let resting = self.iter().filter(|lease| lease.id == *id && lease.released.is_some());
        let listeners: Vec<ListenPort> = resting.map(Lease::listener).collect();
        listeners.into_iter().inspect(|listener| drop(self.0.remove(listener))).last()
    }

    /// Forgets every listener that rests, and tells how many they were.
    pub fn forget_resting(&mut self) -> usize {
        let before = self.0.len();
        self.0.retain(|_, lease| lease.released.is_none());
        before - self.0.len()
    }

    /// The listeners that are held, by their holder.
    pub fn holders(&self) -> BTreeMap<&ForwardId, ListenPort> {
        self.held().map(|lease| (&lease.id, lease.listener())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_reads_back() {
        for text in ["6379", "10.0.0.56:6379", "[fd00::56]:6379"] {
            assert_eq!(text.parse::<ListenPort>().unwrap().to_string(), text);
        }
        for text in ["", "0", "65536", "10.0.0.56", "10.0.0.56:0", ":6379"] {
            assert!(text.parse::<ListenPort>().is_err(), "{text}");
        }
    }

    #[test]
    fn leases_read_back_from_json_and_a_doubled_listener_is_refused() {
        let json = r#"[{"port":10,"id":"a","since":7},{"port":11,"id":"b","since":7,"released":9},{"address":"10.0.0.56","port":10,"id":"c","since":7}]"#;
        let leases = serde_json::from_str::<Leases>(json).unwrap();
        assert_eq!(serde_json::to_string(&leases).unwrap(), json);
        let doubled = serde_json::from_str::<Leases>(&json.replace("11", "10")).unwrap_err();
        assert!(doubled.to_string().starts_with("port 10 is leased twice"), "{doubled}");
    }

    #[test]
    fn what_was_leased_on_the_only_address_is_leased_on_the_first_of_several_and_back() {
        let json = |leases: &Leases| serde_json::to_string(leases).unwrap();
        let only = r#"[{"port":10,"id":"a","since":7},{"port":11,"id":"b","since":7,"released":9}]"#;
        let leases: Leases = serde_json::from_str(only).unwrap();
        let first = "10.0.0.55".parse().unwrap();
        let several = leases.clone().of_gateway(first, true);
        assert_eq!(json(&several), only.replace(r#"{"port""#, r#"{"address":"10.0.0.55","port""#));
        assert_eq!(json(&several.of_gateway(first, false)), only);

        let both: Leases = serde_json::from_str(
            r#"[{"port":10,"id":"a","since":7},{"address":"10.0.0.55","port":10,"id":"b","since":8,"released":9}]"#,
        )
        .unwrap();
        let held = r#"[{"address":"10.0.0.55","port":10,"id":"a","since":7}]"#;
        assert_eq!(json(&both.clone().of_gateway(first, true)), held);
        assert_eq!(json(&both.of_gateway(first, false)), r#"[{"port":10,"id":"a","since":7}]"#);
    }

    #[test]
    fn a_held_lease_gives_way_to_none_that_moves() {
        let first = "10.0.0.55".parse().unwrap();
        for there in [
            r#"[{"address":"10.0.0.55","port":10,"id":"b","since":8}]"#,
            // The id of the lease that moves has a listener here already.
            r#"[{"address":"10.0.0.55","port":11,"id":"a","since":8}]"#,
        ] {
            let mut both: Vec<Lease> = serde_json::from_str(there).unwrap();
            let moves = r#"{"port":10,"id":"a","since":7}"#;
            both.push(serde_json::from_str(moves).unwrap());
            // Two listeners held by one id are no list of leases; one of each kind may be left by two versions of a state.
            let leases = Leases(both.into_iter().map(|lease| (lease.listener(), lease)).collect());
            let after = leases.of_gateway(first, true);
            assert_eq!(serde_json::to_string(&after).unwrap(), there);
        }
    }
}

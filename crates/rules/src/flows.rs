//! Which open connections the rules would make, and which are left over from former rules.
//!
//! A connection outlives the rule that translated its first packet. So each run compares what conntrack holds with the
//! rules, and what it cuts is what was once ours: a listener's way to a target, or a client, that the rules had and
//! have no more. What others translate is none of it, also where it looks the same today.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::diff::lacking;
use crate::ruleset::{AddrPort, AddressRange, Elements, Family, Key, ListIndex, Ruleset, Set, SetKind};

/// How many connections one source address can have to one target: NAT gives each a port of its own, from 1,024 up
/// (`nf_nat_l4proto_unique_tuple`, net/netfilter/nf_nat_core.c).
pub const PORTS: u64 = 65_536 - 1_024;

/// How full conntrack's table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConntrackFill {
    /// `nf_conntrack_count`: the flows that it holds.
    pub count: u64,
    /// `nf_conntrack_max`: how many it may hold; the first packet of one more is dropped.
    pub max: u64,
}

/// A listener's way to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    /// Where clients connect to: a flow's original destination.
    pub listen: AddrPort,
    /// Where it leads: the source of the flow's replies.
    pub target: AddrPort,
}

impl Pair {
    /// Whether it is a way to the target's own address, as clients go it through a tunnel.
    pub fn is_routed(&self) -> bool {
        self.listen == self.target
    }
}

/// A connection that rules of ours may have made: its destination was translated, or is a target's own address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translated {
    /// Who connected.
    pub client: IpAddr,
    /// From where to where.
    pub pair: Pair,
}

/// What rules had that was in force before, and has no place in those of now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Former {
    /// Ways that are no more.
    pub pairs: BTreeSet<Pair>,
    /// Clients that were listed; of a range only a part may be listed no more.
    pub clients: BTreeSet<AddressRange>,
}

/// What is to become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The rules would make it, or it was never ours.
    Stays,
    /// Its target is gone.
    Moved,
    /// Its client is listed no more.
    Delisted,
}

impl Former {
    /// What `before` had and `now` has not.
    pub fn of(before: &Ruleset, now: &Ruleset) -> Self {
        let mut former = Self::default();
        // Which of the lists of now lead what a list of before led.
        let mut successors: BTreeMap<(ListIndex, Family), BTreeSet<ListIndex>> = BTreeMap::new();
        let none = Elements::new();
        let leads = |set: &Set| set.is_map() || matches!(set.kind, SetKind::Routed(_));
        for (set, elements) in before.sets.iter().filter(|(set, _)| leads(set)) {
            let Some(list) = set.list() else { continue };
            let successors = successors.entry((list, set.family)).or_default();
            let changed = lacking(elements, now.sets.get(set).unwrap_or(&none));
            if changed.len() < elements.len() || elements.is_empty() {
                successors.insert(list);
            }
            for (key, element) in changed {
                let Key::AddrPort(listen) = key else { continue };
                let pair = Pair { listen, target: element.data.unwrap_or(listen) };
                let lists: Vec<ListIndex> = now.lists_of(pair).collect();
                if lists.is_empty() {
                    former.pairs.insert(pair);
                }
                successors.extend(lists);
            }
        }
        for ((list, family), successors) in successors {
            let clients = |ruleset: &Ruleset, list| -> Elements {
                ruleset.sets.get(&Set::new(SetKind::Clients(list), family)).cloned().unwrap_or_default()
            };
            let before = clients(before, list);
            for successor in successors {
                former.add_clients(lacking(&before, &clients(now, successor)).into_keys());
            }
        }
        former
    }

    fn add_clients(&mut self, keys: impl Iterator<Item = Key>) {
        self.clients.extend(keys.filter_map(|key| match key {
            Key::Addresses(range) => Some(range),
            Key::AddrPort(_) => None,
        }));
    }

    /// Adds what another has, but for ways that the rules of now have.
    pub fn extend(&mut self, other: Self, now: &Ruleset) {
        self.pairs.extend(other.pairs.into_iter().filter(|&pair| !now.leads(pair)));
        self.clients.extend(other.clients.into_iter().filter(|range| !now.lists_everywhere(*range)));
    }

    /// Whether there is nothing to cut.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty() && self.clients.is_empty()
    }

    /// What is to become of a connection under the rules of now.
    pub fn fate(&self, now: &Ruleset, flow: &Translated) -> Fate {
        let was_listed = || self.clients.iter().any(|range| range.contains(flow.client));
        if now.leads(flow.pair) {
            return if !now.makes(flow) && was_listed() { Fate::Delisted } else { Fate::Stays };
        }
        match self.pairs.contains(&flow.pair) {
            true if !now.lists(flow.client) && was_listed() => Fate::Delisted,
            // Others go there too, and not by rules of ours.
            true if flow.pair.is_routed() && !now.lists(flow.client) => Fate::Stays,
            true => Fate::Moved,
            false => Fate::Stays,
        }
    }
}

impl Ruleset {
    /// Whether a listener leads to a target, perhaps to others as well.
    pub fn leads(&self, pair: Pair) -> bool {
        self.lists_of(pair).next().is_some()
    }

    /// The lists whose clients a listener leads to a target.
    fn lists_of(&self, pair: Pair) -> impl Iterator<Item = ListIndex> {
        let Pair { listen, target } = pair;
        let family = Family::of(listen.address);
        let sets = self.sets.iter().filter(move |(set, _)| set.family == family);
        let leading = sets.filter(move |(set, elements)| {
            let element = elements.get(&Key::AddrPort(listen));
            match set.kind {
                SetKind::Routed(_) => pair.is_routed() && element.is_some(),
                _ if set.is_map() => element.is_some_and(|element| element.data == Some(target)),
                _ => false,
            }
        });
        leading.filter_map(|(set, _)| set.list())
    }

    /// Whether the rules would make the connection: a list has both its client and its way.
    pub fn makes(&self, flow: &Translated) -> bool {
        self.lists_of(flow.pair).any(|list| self.lists_in(list, flow.client))
    }

    /// Whether clients reach targets by their own addresses, through tunnels.
    pub fn has_routed(&self) -> bool {
        self.sets.keys().any(|set| matches!(set.kind, SetKind::Routed(_)))
    }

    /// Whether a client may connect to anything.
    pub fn lists(&self, client: IpAddr) -> bool {
        ListIndex::all().any(|list| self.lists_in(list, client))
    }

    fn lists_in(&self, list: ListIndex, client: IpAddr) -> bool {
        let listed = |elements: &Elements| {
            let alone = AddressRange::new(client, client)?;
            // Ranges don't overlap, so it is in the one that begins last before it, or in none.
            let (key, _) = elements.range(..=Key::Addresses(alone.to_the_end())).next_back()?;
            Some(matches!(key, Key::Addresses(range) if range.contains(client)))
        };
        let clients = self.sets.get(&Set::new(SetKind::Clients(list), Family::of(client)));
        clients.and_then(listed).unwrap_or(false)
    }

    /// Whether each list has these clients.
    fn lists_everywhere(&self, range: AddressRange) -> bool {
        let family = Family::of(range.first());
        let mut clients = self
            .sets
            .iter()
            .filter(|(set, _)| matches!(set.kind, SetKind::Clients(_)) && set.family == family)
            .peekable();
        clients.peek().is_some() && clients.all(|(_, elements)| elements.contains_key(&Key::Addresses(range)))
    }
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;
    use proptest::prelude::*;

    use super::*;
    use crate::render::{AccessList, Forward, Gateway, Snat, render};
    use crate::ruleset::TARGETS;
    use crate::trace::{Packet, trace};

    fn endpoint(text: &str) -> AddrPort {
        text.parse().unwrap()
    }

    fn ruleset(forwards: &[(u16, &[u8])], clients: &[&str]) -> Ruleset {
        let forward = |&(port, targets): &(u16, &[u8])| Forward {
            id: format!("n-{port}").parse().unwrap(),
            listen: endpoint(&format!("10.0.0.55:{port}")),
            targets: targets.iter().map(|last| endpoint(&format!("10.0.1.{last}:6379"))).collect(),
        };
        let forwards: Vec<Forward> = forwards.iter().map(forward).collect();
        let clients: Vec<IpNet> = clients.iter().map(|client| client.parse().unwrap()).collect();
        let gateway = Gateway {
            ingress: vec!["eth0".parse().unwrap()],
            families: vec![Family::Ipv4],
            snat: Snat::Masquerade,
            tunnels: vec![],
            max_segment: None,
        };
        render(&[AccessList { clients, forwards }], &gateway)
    }

    fn flow(client: &str, port: u16, target: u8) -> Translated {
        let pair = Pair {
            listen: endpoint(&format!("10.0.0.55:{port}")),
            target: endpoint(&format!("10.0.1.{target}:6379")),
        };
        Translated { client: client.parse().unwrap(), pair }
    }

    #[test]
    fn what_the_rules_had_and_have_no_more_is_cut() {
        let before = ruleset(&[(6379, &[1]), (6380, &[2, 3])], &["198.51.100.0/24"]);
        let now = ruleset(&[(6379, &[9]), (6380, &[2])], &["198.51.100.0/25"]);
        let former = Former::of(&before, &now);
        let fate = |client, port, target| former.fate(&now, &flow(client, port, target));
        assert_eq!(fate("198.51.100.1", 6379, 1), Fate::Moved);
        assert_eq!(fate("198.51.100.1", 6380, 3), Fate::Moved);
        assert_eq!(fate("198.51.100.1", 6380, 2), Fate::Stays);
        assert_eq!(fate("198.51.100.200", 6380, 2), Fate::Delisted);
        assert_eq!(fate("198.51.100.200", 6379, 1), Fate::Delisted, "also if its target drains");
        assert_eq!(fate("192.0.2.1", 6380, 2), Fate::Stays, "another table leads that client there");
        assert_eq!(fate("198.51.100.1", 7000, 2), Fate::Stays, "no listener of ours");
        assert!(Former::of(&now, &now).is_empty());
    }

    #[test]
    fn a_cache_that_gets_its_own_clients_loses_the_others() {
        let forward = |port: u16| Forward {
            id: format!("n-{port}").parse().unwrap(),
            listen: endpoint(&format!("10.0.0.55:{port}")),
            targets: vec![endpoint("10.0.1.1:6379")],
        };
        let list = |clients: &[&str], ports: &[u16]| AccessList {
            clients: clients.iter().map(|client| client.parse().unwrap()).collect(),
            forwards: ports.iter().copied().map(forward).collect(),
        };
        let gateway = Gateway {
            ingress: vec!["eth0".parse().unwrap()],
            families: vec![Family::Ipv4],
            snat: Snat::Masquerade,
            tunnels: vec![],
            max_segment: None,
        };
        let all = ["198.51.100.27/32", "198.51.100.28/32"];
        let before = render(&[list(&all, &[6379, 6380])], &gateway);
        let now = render(&[list(&all, &[6379]), list(&["198.51.100.28/32"], &[6380])], &gateway);
        let former = Former::of(&before, &now);
        let fate = |client, port| former.fate(&now, &flow(client, port, 1));
        assert_eq!(fate("198.51.100.27", 6379), Fate::Stays);
        assert_eq!(fate("198.51.100.27", 6380), Fate::Delisted);
        assert_eq!(fate("198.51.100.28", 6380), Fate::Stays);
        assert_eq!(fate("192.0.2.1", 6380), Fate::Stays, "another table leads that client there");
        let fate = |client, port| Former::of(&now, &before).fate(&before, &flow(client, port, 1));
        assert_eq!(fate("198.51.100.28", 6380), Fate::Stays, "who may reach more loses nothing");
        // The lists change places: nobody loses anything.
        let swapped = render(&[list(&["198.51.100.28/32"], &[6380]), list(&all, &[6379])], &gateway);
        let fate = |client, port| Former::of(&now, &swapped).fate(&swapped, &flow(client, port, 1));
        assert_eq!(fate("198.51.100.27", 6379), Fate::Stays);
        assert_eq!(fate("198.51.100.28", 6380), Fate::Stays);
    }

    proptest! {
        /// The rules would make a connection just if the packet trace leads its first packet there.
        #[test]
        fn what_stays_is_what_the_trace_would_make(
            before in proptest::collection::btree_map(0..4_u16, proptest::collection::btree_set(1..6_u8, 1..4), 0..4),
            now in proptest::collection::btree_map(0..4_u16, proptest::collection::btree_set(1..6_u8, 1..4), 0..4),
            listed in proptest::collection::vec((0..=255_u8, 24..=32_u8), 0..4),
            clients in (0..=255_u8, 0..4_u16, 1..6_u8),
        ) {
            let of = |forwards: &BTreeMap<u16, BTreeSet<u8>>, clients: &[&str]| {
                let targets: Vec<(u16, Vec<u8>)> =
                    forwards.iter().map(|(&port, to)| (6379 + port, to.iter().copied().collect())).collect();
                let forwards: Vec<(u16, &[u8])> = targets.iter().map(|(port, to)| (*port, to.as_slice())).collect();
                ruleset(&forwards, clients)
            };
            let listed: Vec<String> =
                listed.iter().map(|(last, length)| format!("198.51.100.{last}/{length}")).collect();
            let listed: Vec<&str> = listed.iter().map(String::as_str).collect();
            let (before, now) = (of(&before, &["198.51.100.0/24"]), of(&now, &listed));
            let (last, port, target) = clients;
            let flow = flow(&format!("198.51.100.{last}"), 6379 + port, target);
            let packet = Packet {
                input: "eth0".parse().unwrap(),
                output: "eth0".parse().unwrap(),
                tcp: true,
                source: flow.client,
                destination: flow.pair.listen,
            };
            let makes = |ruleset: &Ruleset| {
                (1..=TARGETS).any(|place| trace(ruleset, &packet, |hit| hit == place).1 == flow.pair.target)
            };
            prop_assert_eq!(now.makes(&flow), makes(&now));
            let is_cut = Former::of(&before, &now).fate(&now, &flow) != Fate::Stays;
            // All that the former rules made goes unless those of now would make it.
            prop_assert!(!is_cut || !makes(&now));
            prop_assert!(is_cut || !makes(&before) || makes(&now));
            // And nothing goes that is not between a listener's target and a client of before or now.
            let was_ours = (before.leads(flow.pair) || now.leads(flow.pair)) && before.lists(flow.client);
            prop_assert!(!is_cut || was_ours || before.leads(flow.pair));
        }
    }
}

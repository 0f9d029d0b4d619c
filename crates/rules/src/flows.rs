//! Which open connections the rules would make, and which are left over from former rules.
//!
//! A connection outlives the rule that translated its first packet. So each run compares what conntrack holds with the
//! rules, and what it cuts is what was once ours: a listener's way to a target, or a client, that the rules had and
//! have no more. What others translate is none of it, also where it looks the same today.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::diff::lacking;
use crate::ruleset::{AddrPort, AddressRange, Elements, Family, Key, Ruleset, Set, SetKind};

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

/// A connection whose destination was translated.
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
        let (mut former, none) = (Self::default(), Elements::new());
        for (set, elements) in &before.sets {
            for (key, element) in lacking(elements, now.sets.get(set).unwrap_or(&none)) {
                match (key, element.data) {
                    (Key::AddrPort(listen), Some(target)) => {
                        former.add_pair(Pair { listen, target }, now);
                    }
                    (Key::Addresses(range), None) => former.add_clients(range, now),
                    _ => {}
                }
            }
        }
        former
    }

    /// Adds a way, unless the rules of now have it.
    fn add_pair(&mut self, pair: Pair, now: &Ruleset) {
        if !now.leads(pair) {
            self.pairs.insert(pair);
        }
    }

    /// Adds clients, unless the rules of now list them as they are.
    fn add_clients(&mut self, range: AddressRange, now: &Ruleset) {
        let clients = now.sets.get(&Set::new(SetKind::Clients, Family::of(range.first())));
        if clients.is_none_or(|clients| clients.get(&Key::Addresses(range)).is_none()) {
            self.clients.insert(range);
        }
    }

    /// Adds what another has.
    pub fn extend(&mut self, other: Self, now: &Ruleset) {
        other.pairs.into_iter().for_each(|pair| self.add_pair(pair, now));
        other.clients.into_iter().for_each(|range| self.add_clients(range, now));
    }

    /// Whether there is nothing to cut.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty() && self.clients.is_empty()
    }

    /// What is to become of a connection under the rules of now.
    pub fn fate(&self, now: &Ruleset, flow: &Translated) -> Fate {
        let is_delisted =
            || !now.lists(flow.client) && self.clients.iter().any(|range| range.contains(flow.client));
        match (self.pairs.contains(&flow.pair), now.leads(flow.pair)) {
            (true, _) | (_, true) if is_delisted() => Fate::Delisted,
            (true, false) => Fate::Moved,
            _ => Fate::Stays,
        }
    }
}

impl Ruleset {
    /// Whether a listener leads to a target, perhaps to others as well.
    pub fn leads(&self, Pair { listen, target }: Pair) -> bool {
        let family = Family::of(listen.address);
        let mut maps = self.sets.iter().filter(|(set, _)| set.is_map() && set.family == family);
        maps.any(|(_, elements)| {
            elements.get(&Key::AddrPort(listen)).is_some_and(|element| element.data == Some(target))
        })
    }

    /// Whether a client may connect.
    pub fn lists(&self, client: IpAddr) -> bool {
        let listed = |elements: &Elements| {
            let alone = AddressRange::new(client, client)?;
            // Ranges don't overlap, so it is in the one that begins last before it, or in none.
            let (key, _) = elements.range(..=Key::Addresses(alone.to_the_end())).next_back()?;
            Some(matches!(key, Key::Addresses(range) if range.contains(client)))
        };
        let clients = self.sets.get(&Set::new(SetKind::Clients, Family::of(client)));
        clients.and_then(listed).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;
    use proptest::prelude::*;

    use super::*;
    use crate::render::{Forward, Gateway, Snat, render};
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
            interface: "eth0".parse().unwrap(),
            families: vec![Family::Ipv4],
            snat: Snat::Masquerade,
        };
        render(&forwards, &clients, &gateway)
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

    proptest! {
        /// The rules would make a connection just if the packet trace leads its first packet there.
        #[test]
        fn what_stays_is_what_the_trace_would_make(
            before in proptest::collection::btree_map(0..4_u16, proptest::collection::btree_set(1..6_u8, 1..4), 0..4),
            now in proptest::collection::btree_map(0..4_u16, proptest::collection::btree_set(1..6_u8, 1..4), 0..4),
            listed in proptest::collection::vec((0..=255_u8, 24..=32_u8), 0..4),
            clients in (0..=255_u8, 0..4_u16, 1..6_u8),
        ) {
            let of = |forwards: &std::collections::BTreeMap<u16, BTreeSet<u8>>, clients: &[&str]| {
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
            prop_assert_eq!(now.leads(flow.pair) && now.lists(flow.client), makes(&now));
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

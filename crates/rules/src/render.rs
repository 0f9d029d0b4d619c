//! From forwards and a gateway to the ruleset that makes them so.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::name::{ForwardId, IfName};
use crate::ruleset::{
    AddressRange, Chain, Element, Elements, Endpoint, Family, Flowtable, Key, Rule, Ruleset, SLOTS, Set,
    SetKind, SnatTo,
};

/// A listener of the gateway and what it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The id of the node or role, which becomes the comment of the element.
    pub id: ForwardId,
    /// The gateway's address and port that clients' packets arrive at.
    pub listen: Endpoint,
    /// Where they go, in the family of `listen`; new connections spread evenly over several. Of more than
    /// [`SLOTS`] the first [`SLOTS`] serve.
    pub targets: Vec<Endpoint>,
}

/// What the source of forwarded packets becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Snat {
    /// The gateway's address of each family, in the order in which they are preferred.
    Addresses(Vec<IpAddr>),
    /// The primary address of the interface that the packet leaves by, chosen by the kernel for each connection.
    Masquerade,
    /// Left as it is: the nodes' subnets route the clients' addresses back through the gateway.
    Off,
}

impl Snat {
    fn to(&self, family: Family) -> Option<SnatTo> {
        match self {
            Self::Addresses(addresses) => {
                let address = addresses.iter().find(|&&address| Family::of(address) == family)?;
                Some(SnatTo::Address(*address))
            }
            Self::Masquerade => Some(SnatTo::Masquerade),
            Self::Off => None,
        }
    }
}

/// The gateway as the rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// The interface that clients' packets come in by, and that packets leave by towards the nodes.
    pub interface: IfName,
    /// The families in which it has an address to listen on.
    pub families: Vec<Family>,
    /// The way back.
    pub snat: Snat,
}

/// Renders the ruleset that forwards `clients` to the targets of `forwards`.
///
/// Its shape depends on the families and on whether any listener has several targets, and on nothing else; nodes
/// are elements. `forwards` have a listener each.
pub fn render(forwards: &[Forward], clients: &[IpNet], gateway: &Gateway) -> Ruleset {
    let mut ruleset = Ruleset::default();
    for &family in &gateway.families {
        let forwards: Vec<&Forward> =
            forwards.iter().filter(|forward| Family::of(forward.listen.address) == family).collect();
        let spreads = forwards.iter().any(|forward| forward.targets.len() > 1);
        let interface = || gateway.interface.clone();

        ruleset.sets.insert(Set::new(SetKind::Clients, family), client_ranges(clients, family));
        ruleset.sets.insert(Set::new(SetKind::Forward, family), single(&forwards));
        ruleset.sets.insert(Set::new(SetKind::Backends, family), backends(&forwards));
        ruleset.sets.insert(Set::new(SetKind::Listeners, family), listeners(&forwards));
        let prerouting = ruleset.chains.entry(Chain::Prerouting).or_default();
        prerouting.push(Rule::Forward { interface: interface(), family });
        if spreads {
            ruleset.sets.insert(Set::new(SetKind::Spread, family), slots(&forwards));
            prerouting.push(Rule::Spread { interface: interface(), family });
        }
        if let Some(to) = gateway.snat.to(family) {
            let rule = Rule::Snat { interface: interface(), family, to };
            ruleset.chains.entry(Chain::Postrouting).or_default().push(rule);
            let input = [Rule::DropInvalidAnswers { family }, Rule::DropInvalidRequests { family }];
            ruleset.chains.entry(Chain::Input).or_default().extend(input);
        }
    }
    ruleset
}

impl Ruleset {
    /// The interface that clients' packets come in by, if any rule names one.
    pub fn ingress(&self) -> Option<&IfName> {
        let rules = self.chains.get(&Chain::Prerouting).into_iter().flatten();
        let mut named = rules.filter_map(|rule| match rule {
            Rule::Forward { interface, .. } | Rule::Spread { interface, .. } => Some(interface),
            _ => None,
        });
        named.next()
    }

    /// The forwards that the maps hold, by listener and id; the opposite of [`render`].
    ///
    /// Elements whose comment is no id are none of ours, and left out.
    pub fn forwards(&self) -> Vec<Forward> {
        let mut found: BTreeMap<(Endpoint, ForwardId), Vec<Endpoint>> = BTreeMap::new();
        let maps = self.sets.iter().filter(|(set, _)| set.is_map());
        for (key, element) in maps.flat_map(|(_, elements)| elements) {
            let (Key::Endpoint(listen) | Key::Slots { listen, .. }) = *key else { continue };
            let id = element.comment.clone().and_then(|comment| comment.try_into().ok());
            if let (Some(id), Some(target)) = (id, element.data) {
                found.entry((listen, id)).or_default().push(target);
            }
        }
        let forward = |((listen, id), targets)| Forward { id, listen, targets };
        found.into_iter().map(forward).collect()
    }

    /// Takes away the forwards of the ids that do not stay, with the targets and listeners that are theirs alone.
    pub fn retain_forwards(&mut self, stays: impl Fn(&ForwardId) -> bool) {
        let id_of = |element: &Element| element.comment.clone().and_then(|id| ForwardId::try_from(id).ok());
        for (_, elements) in self.sets.iter_mut().filter(|(set, _)| set.is_map()) {
            elements.retain(|_, element| id_of(element).is_some_and(|id| stays(&id)));
        }
        let forwards = self.forwards();
        let targets: BTreeSet<Endpoint> =
            forwards.iter().flat_map(|forward| forward.targets.iter().copied()).collect();
        let listeners: BTreeSet<Endpoint> = forwards.iter().map(|forward| forward.listen).collect();
        for (set, elements) in &mut self.sets {
            let used = match set.kind {
                SetKind::Backends => &targets,
                SetKind::Listeners => &listeners,
                SetKind::Clients | SetKind::Forward | SetKind::Spread => continue,
            };
            elements.retain(|key, _| matches!(key, Key::Endpoint(endpoint) if used.contains(endpoint)));
        }
    }

    /// Adds the flowtable, and the rules that add to it what this ruleset forwards by `interface` and both sides have
    /// agreed to: a first packet, and one that nobody answers, passes the chains.
    pub fn offload(&mut self, interface: &IfName) {
        let families = [Family::Ipv4, Family::Ipv6].into_iter();
        let families =
            families.filter(|&family| self.sets.contains_key(&Set::new(SetKind::Backends, family)));
        let rules = families.map(|family| Rule::Offload { interface: interface.clone(), family });
        self.chains.entry(Chain::Forward).or_default().extend(rules);
        self.flowtable = Some(Flowtable { interface: interface.clone() });
    }

    /// Adds the rule that drops what comes in by `interface` to be forwarded elsewhere: connections that neither this table
    /// nor another one translates, and that are not established.
    pub fn drop_others(&mut self, interface: &IfName) {
        self.chains
            .entry(Chain::Forward)
            .or_default()
            .push(Rule::DropOthers { interface: interface.clone() });
    }
}

/// The clients as the fewest ranges, neither overlapping (which the kernel refuses) nor touching.
fn client_ranges(clients: &[IpNet], family: Family) -> Elements {
    let mut ranges: Vec<(IpAddr, IpAddr)> = clients
        .iter()
        .filter(|client| Family::of(client.addr()) == family)
        .map(|client| (client.network(), client.broadcast()))
        .collect();
    ranges.sort_unstable();
    let mut merged: Vec<(IpAddr, IpAddr)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(open) if successor(open.1).is_none_or(|next| first <= next) => open.1 = open.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    let ranges = merged.into_iter().filter_map(|(first, last)| AddressRange::new(first, last));
    ranges.map(|range| (Key::Addresses(range), Element::default())).collect()
}

fn successor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(address) => address.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

fn element(forward: &Forward, target: Endpoint) -> Element {
    Element { data: Some(target), comment: Some(forward.id.comment()) }
}

fn single(forwards: &[&Forward]) -> Elements {
    forwards
        .iter()
        .filter_map(|forward| match forward.targets.as_slice() {
            &[target] => Some((Key::Endpoint(forward.listen), element(forward, target))),
            _ => None,
        })
        .collect()
}

/// Shares the slots out among each listener's targets, as evenly as whole slots allow.
fn slots(forwards: &[&Forward]) -> Elements {
    let mut elements = BTreeMap::new();
    for forward in forwards.iter().filter(|forward| forward.targets.len() > 1) {
        let count = forward.targets.len().min(usize::from(SLOTS));
        let edge = |at: usize| u8::try_from(at * usize::from(SLOTS) / count).unwrap_or(SLOTS);
        for (at, &target) in forward.targets.iter().take(count).enumerate() {
            let key = Key::Slots { listen: forward.listen, first: edge(at), last: edge(at + 1) - 1 };
            elements.insert(key, element(forward, target));
        }
    }
    elements
}

fn listeners(forwards: &[&Forward]) -> Elements {
    let serving = forwards.iter().filter(|forward| !forward.targets.is_empty());
    serving.map(|forward| (Key::Endpoint(forward.listen), Element::default())).collect()
}

fn backends(forwards: &[&Forward]) -> Elements {
    let targets = forwards.iter().flat_map(|forward| forward.targets.iter().take(usize::from(SLOTS)));
    targets.map(|&target| (Key::Endpoint(target), Element::default())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn forward(id: &str, listen: &str, targets: &[&str]) -> Forward {
        Forward {
            id: id.parse().unwrap(),
            listen: listen.parse().unwrap(),
            targets: targets.iter().map(|target| target.parse().unwrap()).collect(),
        }
    }

    fn gateway(families: &[Family], snat: Snat) -> Gateway {
        Gateway { interface: "eth0".parse().unwrap(), families: families.to_vec(), snat }
    }

    #[test]
    fn the_example_of_the_aws_procedure_renders_as_one_map_lookup() {
        let forwards = [
            forward("my-cluster-001", "10.0.0.55:6379", &["10.0.1.230:6379"]),
            forward("my-cluster-002", "10.0.0.55:6380", &["10.0.1.231:6379"]),
            forward("my-cluster-003", "10.0.0.55:6381", &["10.0.1.232:6379"]),
        ];
        let clients = ["198.51.100.27/32".parse().unwrap()];
        let snat = Snat::Addresses(vec!["10.0.0.55".parse().unwrap()]);
        let ruleset = render(&forwards, &clients, &gateway(&[Family::Ipv4], snat));
        expect![[r#"
            add table inet cachenat
            delete table inet cachenat
            table inet cachenat {
            	comment "made by cachenat: changes are undone by its next run"

            	set clients4 {
            		type ipv4_addr
            		flags interval
            		elements = { 198.51.100.27 }
            	}

            	map forward4 {
            		type ipv4_addr . inet_service : ipv4_addr . inet_service
            		counter
            		elements = { 10.0.0.55 . 6379 comment "my-cluster-001" : 10.0.1.230 . 6379,
            			     10.0.0.55 . 6380 comment "my-cluster-002" : 10.0.1.231 . 6379,
            			     10.0.0.55 . 6381 comment "my-cluster-003" : 10.0.1.232 . 6379 }
            	}

            	set backends4 {
            		type ipv4_addr . inet_service
            		elements = { 10.0.1.230 . 6379,
            			     10.0.1.231 . 6379,
            			     10.0.1.232 . 6379 }
            	}

            	set listeners4 {
            		type ipv4_addr . inet_service
            		elements = { 10.0.0.55 . 6379,
            			     10.0.0.55 . 6380,
            			     10.0.0.55 . 6381 }
            	}

            	chain prerouting {
            		type nat hook prerouting priority dstnat; policy accept;
            		iifname "eth0" ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4
            	}

            	chain input {
            		type filter hook input priority filter; policy accept;
            		ct state invalid ip saddr . tcp sport @backends4 drop
            		ct state invalid ip daddr . tcp dport @listeners4 drop
            	}

            	chain postrouting {
            		type nat hook postrouting priority srcnat; policy accept;
            		oifname "eth0" ct status dnat ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4 snat ip to 10.0.0.55
            	}
            }
        "#]]
        .assert_eq(&ruleset.script());
    }

    #[test]
    fn a_reader_and_ipv6_add_a_spread_map_and_the_ip6_twins() {
        let forwards = [
            forward("c/reader", "10.0.0.55:6390", &["10.0.1.231:6379", "10.0.1.232:6379"]),
            forward("d-001", "[fd00::55]:6391", &["[fd00:1::9]:6379"]),
        ];
        let clients = ["10.9.0.0/25".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        let ruleset = render(&forwards, &clients, &gateway(&[Family::Ipv4, Family::Ipv6], Snat::Masquerade));
        expect![[r#"
            table inet cachenat {
            	comment "made by cachenat: changes are undone by its next run"

            	set clients4 {
            		type ipv4_addr
            		flags interval
            		elements = { 10.9.0.0/25 }
            	}

            	set clients6 {
            		type ipv6_addr
            		flags interval
            		elements = { 2001:db8::/32 }
            	}

            	map forward4 {
            		type ipv4_addr . inet_service : ipv4_addr . inet_service
            		counter
            	}

            	map forward6 {
            		type ipv6_addr . inet_service : ipv6_addr . inet_service
            		counter
            		elements = { fd00::55 . 6391 comment "d-001" : fd00:1::9 . 6379 }
            	}

            	map spread4 {
            		typeof ip daddr . tcp dport . numgen random mod 60 : ip daddr . tcp dport
            		flags interval
            		counter
            		elements = { 10.0.0.55 . 6390 . 0-29 comment "c/reader" : 10.0.1.231 . 6379,
            			     10.0.0.55 . 6390 . 30-59 comment "c/reader" : 10.0.1.232 . 6379 }
            	}

            	set backends4 {
            		type ipv4_addr . inet_service
            		elements = { 10.0.1.231 . 6379,
            			     10.0.1.232 . 6379 }
            	}

            	set backends6 {
            		type ipv6_addr . inet_service
            		elements = { fd00:1::9 . 6379 }
            	}

            	set listeners4 {
            		type ipv4_addr . inet_service
            		elements = { 10.0.0.55 . 6390 }
            	}

            	set listeners6 {
            		type ipv6_addr . inet_service
            		elements = { fd00::55 . 6391 }
            	}

            	chain prerouting {
            		type nat hook prerouting priority dstnat; policy accept;
            		iifname "eth0" ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4
            		iifname "eth0" ip saddr @clients4 dnat ip to ip daddr . tcp dport . numgen random mod 60 map @spread4
            		iifname "eth0" ip6 saddr @clients6 dnat ip6 to ip6 daddr . tcp dport map @forward6
            	}

            	chain input {
            		type filter hook input priority filter; policy accept;
            		ct state invalid ip saddr . tcp sport @backends4 drop
            		ct state invalid ip daddr . tcp dport @listeners4 drop
            		ct state invalid ip6 saddr . tcp sport @backends6 drop
            		ct state invalid ip6 daddr . tcp dport @listeners6 drop
            	}

            	chain postrouting {
            		type nat hook postrouting priority srcnat; policy accept;
            		oifname "eth0" ct status dnat ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4 masquerade
            		oifname "eth0" ct status dnat ip6 daddr . tcp dport @backends6 ct original ip6 daddr . ct original proto-dst @listeners6 masquerade
            	}
            }
        "#]]
        .assert_eq(&ruleset.to_string());
    }

    #[test]
    fn offload_adds_a_flowtable_and_a_chain_that_fills_it() {
        let forwards = [
            forward("c-001", "10.0.0.55:6379", &["10.0.1.230:6379"]),
            forward("d-001", "[fd00::55]:6379", &["[fd00:1::9]:6379"]),
        ];
        let mut ruleset = render(&forwards, &[], &gateway(&[Family::Ipv4, Family::Ipv6], Snat::Off));
        let before = ruleset.to_string();
        ruleset.offload(&"eth0".parse().unwrap());
        let after = ruleset.to_string();
        let added = after.lines().filter(|line| !before.lines().any(|old| old == *line));
        let added: String = added.map(|line| format!("{}\n", line.trim())).collect();
        expect![[r#"
            flowtable fastpath {
            hook ingress priority filter
            devices = { "eth0" }
            chain forward {
            type filter hook forward priority filter; policy accept;
            oifname "eth0" ct state established ct status dnat ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4 flow add @fastpath
            oifname "eth0" ct state established ct status dnat ip6 daddr . tcp dport @backends6 ct original ip6 daddr . ct original proto-dst @listeners6 flow add @fastpath
        "#]].assert_eq(&added);
        ruleset.drop_others(&"eth0".parse().unwrap());
        let rule = "iifname \"eth0\" ct state invalid,new,untracked ct status ! dnat drop\n\t}";
        assert!(ruleset.to_string().contains(rule), "{ruleset}");
    }

    #[test]
    fn clients_become_the_fewest_ranges() {
        let clients: Vec<IpNet> =
            ["10.0.0.0/25", "10.0.0.128/25", "10.0.0.7/32", "10.0.1.0/32", "192.0.2.9/32"]
                .iter()
                .map(|client| client.parse().unwrap())
                .collect();
        let shown: Vec<String> = client_ranges(&clients, Family::Ipv4).keys().map(Key::to_string).collect();
        assert_eq!(shown, ["10.0.0.0-10.0.1.0", "192.0.2.9"]);
        let everyone = ["0.0.0.0/0".parse().unwrap(), "10.0.0.1/32".parse().unwrap()];
        let shown: Vec<String> = client_ranges(&everyone, Family::Ipv4).keys().map(Key::to_string).collect();
        assert_eq!(shown, ["0.0.0.0/0"]);
    }

    #[test]
    fn every_slot_belongs_to_one_target_and_shares_differ_by_one_at_most() {
        for count in 2..=u16::from(SLOTS) + 3 {
            let targets: Vec<String> = (1..=count).map(|host| format!("10.0.1.{host}:6379")).collect();
            let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
            let shares: Vec<(u8, u8)> = slots(&[&forward("r", "10.0.0.55:1", &targets)])
                .keys()
                .filter_map(|key| match *key {
                    Key::Slots { first, last, .. } => Some((first, last)),
                    _ => None,
                })
                .collect();
            assert_eq!(shares.first().unwrap().0, 0);
            assert_eq!(shares.last().unwrap().1, SLOTS - 1);
            assert!(shares.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0));
            let widths: Vec<u8> = shares.iter().map(|(first, last)| last - first + 1).collect();
            assert!(widths.iter().max().unwrap() - widths.iter().min().unwrap() <= 1, "{count}: {widths:?}");
        }
    }

    #[test]
    fn a_forward_that_goes_takes_what_is_its_alone() {
        let forwards = [
            forward("a-001", "10.0.0.55:6379", &["10.0.1.230:6379"]),
            forward("a/reader", "10.0.0.55:6380", &["10.0.1.230:6379", "10.0.1.231:6379"]),
        ];
        let of = |forwards: &[Forward]| render(forwards, &[], &gateway(&[Family::Ipv4], Snat::Masquerade));
        let mut without = of(&forwards);
        without.retain_forwards(|id| id.as_str() == "a-001");
        let spread = Set::new(SetKind::Spread, Family::Ipv4);
        assert_eq!(without.sets.remove(&spread), Some(Elements::new()));
        assert_eq!(without.sets, of(&forwards[..1]).sets);
    }
}

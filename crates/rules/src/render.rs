//! From forwards and a gateway to the ruleset that makes them so.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::name::{ForwardId, IfName};
use crate::ruleset::{
    AddrPort, AddressRange, Chain, Direction, Element, Elements, Family, Flowtable, Key, ListIndex, Rule,
    Ruleset, Set, SetKind, SnatTo, SpreadIndex, TARGETS,
};

/// A listener of the gateway and what it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The id of the node or role, which becomes the comment of the element.
    pub id: ForwardId,
    /// The gateway's address and port that clients' packets arrive at.
    pub listen: AddrPort,
    /// Where they go, in the family of `listen`; new connections spread evenly over several. Of more than
    /// [`TARGETS`] the first serve.
    pub targets: Vec<AddrPort>,
}

/// Clients, and the listeners that they may connect to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessList {
    /// The clients' networks, in any order; they may overlap.
    pub clients: Vec<IpNet>,
    /// What they reach.
    pub forwards: Vec<Forward>,
}

impl AccessList {
    /// The list of those clients and forwards.
    pub fn new(clients: &[IpNet], forwards: &[Forward]) -> Self {
        Self { clients: clients.to_vec(), forwards: forwards.to_vec() }
    }
}

/// What the source of forwarded packets becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Snat {
    /// Addresses of the gateway, by the interface that packets leave by towards the nodes.
    Fixed {
        /// New connections spread evenly over several addresses of a family: from one address NAT has 64,512 ports to one
        /// target. Of more than [`TARGETS`] of a family the first serve.
        addresses: BTreeMap<IfName, Vec<IpAddr>>,
        /// Whether what leaves by another interface is masqueraded; else it keeps its source.
        masquerade_elsewhere: bool,
    },
    /// The primary address of the interface that the packet leaves by, chosen by the kernel for each connection.
    Masquerade,
    /// Unchanged: the nodes' subnets route the clients' addresses back through the gateway.
    Off,
}

impl Snat {
    /// Addresses of one interface, and nothing for others.
    pub fn fixed(interface: IfName, addresses: Vec<IpAddr>) -> Self {
        Self::Fixed { addresses: [(interface, addresses)].into(), masquerade_elsewhere: false }
    }

    /// Whether a node's answers come back, when packets to it leave by that interface.
    pub fn covers(&self, interface: &str, family: Family) -> bool {
        match self {
            Self::Fixed { masquerade_elsewhere: true, .. } | Self::Masquerade | Self::Off => true,
            Self::Fixed { addresses, masquerade_elsewhere: false } => {
                addresses.iter().any(|(name, addresses)| {
                    name.as_str() == interface
                        && addresses.iter().any(|&address| Family::of(address) == family)
                })
            }
        }
    }

    /// The rules of a family, in order.
    fn rules(&self, family: Family) -> Vec<Rule> {
        let masquerade = Rule::Snat { interface: None, family, to: SnatTo::Masquerade, place: None };
        match self {
            Self::Fixed { addresses, masquerade_elsewhere } => {
                let fixed = addresses.iter().flat_map(|(interface, addresses)| {
                    let of_family = addresses.iter().filter(|&&address| Family::of(address) == family);
                    let numbered: Vec<_> = of_family.zip(1..=usize::from(TARGETS)).collect();
                    // The first takes what the others left over.
                    numbered.into_iter().rev().map(move |(&address, number)| Rule::Snat {
                        interface: Some(interface.clone()),
                        family,
                        to: SnatTo::Address(address),
                        place: SpreadIndex::new(number),
                    })
                });
                fixed.chain(masquerade_elsewhere.then_some(masquerade)).collect()
            }
            Self::Masquerade => vec![masquerade],
            Self::Off => vec![],
        }
    }
}

/// The gateway as the rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// The interfaces that clients' packets come in by.
    pub ingress: Vec<IfName>,
    /// The families in which it has an address to listen on.
    pub families: Vec<Family>,
    /// The way back.
    pub snat: Snat,
    /// Interfaces by which clients also reach the nodes' own addresses.
    pub tunnels: Vec<Tunnel>,
    /// The most bytes of a segment of what is forwarded, where no ICMP says that a path is narrow.
    pub max_segment: Option<u16>,
}

/// An interface by which clients come that are inside an encrypted tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The interface, such as `wg0`.
    pub interface: IfName,
    /// Whether nothing but the caches is reached by it.
    pub confine: bool,
}

/// Renders the ruleset that forwards the clients of each list to the targets of its forwards.
///
/// Its shape depends on the interfaces, the families, the number of lists and the most targets that a listener has, and on
/// nothing else; nodes are elements. The forwards of all lists have a listener each. Of more than [`ListIndex::MAX`]
/// lists the first count.
pub fn render(lists: &[AccessList], gateway: &Gateway) -> Ruleset {
    let mut ruleset = Ruleset::default();
    let tunnels = gateway.tunnels.iter().map(|tunnel| &tunnel.interface);
    let ingress: Vec<IfName> = gateway.ingress.iter().chain(tunnels).cloned().collect();
    for &family in &gateway.families {
        let prerouting = ruleset.chains.entry(Chain::Prerouting).or_default();
        for (list, access) in ListIndex::all().zip(lists) {
            let forwards: Vec<&Forward> = of_family(&access.forwards, family).collect();
            let clients = client_ranges(&access.clients, family);
            ruleset.sets.insert(Set::new(SetKind::Clients(list), family), clients);
            ruleset.sets.insert(Set::new(SetKind::Forward(list), family), targets(&forwards, 1));
            let most = forwards.iter().map(|forward| forward.targets.len()).max().unwrap_or(0);
            for place in SpreadIndex::all().rev().filter(|place| usize::from(place.number()) <= most) {
                let elements = targets(&forwards, place.number().into());
                ruleset.sets.insert(Set::new(SetKind::Spread(list, place), family), elements);
                let rule = |interface| Rule::Spread { interface, family, list, place };
                prerouting.extend(ingress.iter().cloned().map(rule));
            }
            let rule = |interface| Rule::Forward { interface, family, list };
            prerouting.extend(ingress.iter().cloned().map(rule));
            if !gateway.tunnels.is_empty() {
                ruleset.sets.insert(Set::new(SetKind::Routed(list), family), backends(&forwards));
            }
        }
        let forwards: Vec<&Forward> =
            lists.iter().flat_map(|access| of_family(&access.forwards, family)).collect();
        ruleset.sets.insert(Set::new(SetKind::Backends, family), backends(&forwards));
        ruleset.sets.insert(Set::new(SetKind::Listeners, family), listeners(&forwards));
        let way_back = gateway.snat.rules(family);
        if !way_back.is_empty() {
            ruleset.chains.entry(Chain::Postrouting).or_default().extend(way_back);
            let input = [Rule::DropInvalidAnswers { family }, Rule::DropInvalidRequests { family }];
            ruleset.chains.entry(Chain::Input).or_default().extend(input);
            let routed = gateway
                .tunnels
                .iter()
                .map(|tunnel| Rule::SnatRouted { interface: tunnel.interface.clone(), family });
            ruleset.chains.entry(Chain::Postrouting).or_default().extend(routed);
        }
        if let Some(size) = gateway.max_segment {
            let clamps =
                [Direction::In, Direction::Out].map(|direction| Rule::Clamp { family, direction, size });
            ruleset.chains.entry(Chain::Forward).or_default().extend(clamps);
        }
    }
    ruleset.confine(&gateway.tunnels, &gateway.families);
    ruleset
}

fn of_family(forwards: &[Forward], family: Family) -> impl Iterator<Item = &Forward> {
    forwards.iter().filter(move |forward| Family::of(forward.listen.address) == family)
}

impl Ruleset {
    /// The interfaces that clients' packets come in by, in the order of the rules.
    pub fn ingress(&self) -> Vec<&IfName> {
        let mut named = Vec::new();
        for rule in self.chains.get(&Chain::Prerouting).into_iter().flatten() {
            if let Rule::Forward { interface, .. } = rule
                && !named.contains(&interface)
            {
                named.push(interface);
            }
        }
        named
    }

    /// The tunnels by which nothing but the caches is reached.
    pub fn confined(&self) -> Vec<&IfName> {
        let rules = self.chains.get(&Chain::Confine).into_iter().flatten();
        let named = rules
            .filter_map(|rule| if let Rule::PassOthers { tunnels } = rule { Some(tunnels) } else { None });
        named.flatten().collect()
    }

    /// What the source of packets becomes that leave by an interface: one of these; empty: it stays.
    pub fn sources(&self, family: Family, output: &str) -> Vec<SnatTo> {
        let rules = self.chains.get(&Chain::Postrouting).into_iter().flatten();
        let of_family: Vec<(Option<&IfName>, SnatTo)> = rules
            .filter_map(|rule| match rule {
                Rule::Snat { interface, family: of, to, .. } if *of == family => {
                    Some((interface.as_ref(), *to))
                }
                _ => None,
            })
            .collect();
        let fixed: Vec<SnatTo> = of_family
            .iter()
            .filter(|(name, _)| name.is_some_and(|name| name.as_str() == output))
            .map(|&(_, to)| to)
            .collect();
        let elsewhere = || of_family.iter().filter(|(name, _)| name.is_none()).map(|&(_, to)| to).collect();
        if fixed.is_empty() { elsewhere() } else { fixed }
    }

    /// The forwards that the maps hold, by listener and id.
    ///
    /// Elements whose comment is no id are none of ours, and left out.
    pub fn forwards(&self) -> Vec<Forward> {
        self.forwards_of(|_| true)
    }

    /// The lists of clients with the forwards of each, by their numbers; the opposite of [`render`].
    pub fn access_lists(&self) -> BTreeMap<ListIndex, AccessList> {
        let lists: BTreeSet<ListIndex> = self.sets.keys().filter_map(|set| set.list()).collect();
        let access = |list| {
            let clients = [Family::Ipv4, Family::Ipv6]
                .into_iter()
                .flat_map(|family| self.elements(SetKind::Clients(list), family))
                .filter_map(|(key, _)| if let Key::Addresses(range) = key { Some(*range) } else { None })
                .flat_map(AddressRange::networks)
                .collect();
            AccessList { clients, forwards: self.forwards_of(|set| set.list() == Some(list)) }
        };
        lists.into_iter().map(|list| (list, access(list))).collect()
    }

    /// Whether anything is forwarded in a family.
    pub fn has_forwards(&self, family: Family) -> bool {
        self.elements(SetKind::Listeners, family).next().is_some()
    }

    fn forwards_of(&self, counts: impl Fn(&Set) -> bool) -> Vec<Forward> {
        let mut found: BTreeMap<(AddrPort, ForwardId), Vec<AddrPort>> = BTreeMap::new();
        let maps = self.sets.iter().filter(|(set, _)| set.is_map() && counts(set));
        for (key, element) in maps.flat_map(|(_, elements)| elements) {
            let Key::AddrPort(listen) = *key else { continue };
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
        let targets: BTreeSet<AddrPort> =
            forwards.iter().flat_map(|forward| forward.targets.iter().copied()).collect();
        let listeners: BTreeSet<AddrPort> = forwards.iter().map(|forward| forward.listen).collect();
        for (set, elements) in &mut self.sets {
            let used = match set.kind {
                SetKind::Backends | SetKind::Routed(_) => &targets,
                SetKind::Listeners => &listeners,
                SetKind::Clients(_) | SetKind::Forward(_) | SetKind::Spread(..) => continue,
            };
            elements.retain(|key, _| matches!(key, Key::AddrPort(endpoint) if used.contains(endpoint)));
        }
    }

    /// Adds what tunnels have beyond other interfaces: segments that fit, and for those that are confined no way but to the
    /// caches, and none in.
    fn confine(&mut self, tunnels: &[Tunnel], families: &[Family]) {
        let confined: Vec<IfName> =
            tunnels.iter().filter(|tunnel| tunnel.confine).map(|tunnel| tunnel.interface.clone()).collect();
        if !tunnels.is_empty() {
            let clamps = tunnels.iter().flat_map(|tunnel| {
                [Direction::In, Direction::Out]
                    .map(|direction| Rule::ClampToRoute { interface: tunnel.interface.clone(), direction })
            });
            let shut = confined.iter().map(|interface| Rule::DropInto { interface: interface.clone() });
            self.chains.entry(Chain::Forward).or_default().extend(clamps.chain(shut));
        }
        if !confined.is_empty() {
            let lists: BTreeSet<ListIndex> = self.sets.keys().filter_map(|set| set.list()).collect();
            let passed = families
                .iter()
                .flat_map(|&family| lists.iter().map(move |&list| Rule::PassRouted { family, list }));
            let mut rules = vec![Rule::PassOthers { tunnels: confined }, Rule::PassEstablished];
            rules.extend(passed);
            rules.push(Rule::DropRest);
            self.chains.insert(Chain::Confine, rules);
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

fn element(forward: &Forward, target: AddrPort) -> Element {
    Element { data: Some(target), comment: Some(forward.id.comment()) }
}

/// The listeners that have so many targets, each with the last of those.
fn targets(forwards: &[&Forward], place: usize) -> Elements {
    let target = |forward: &&&Forward| forward.targets.get(place - 1).copied();
    let served = forwards.iter().filter_map(|forward| Some((forward, target(&forward)?)));
    served.map(|(forward, target)| (Key::AddrPort(forward.listen), element(forward, target))).collect()
}

fn listeners(forwards: &[&Forward]) -> Elements {
    let serving = forwards.iter().filter(|forward| !forward.targets.is_empty());
    serving.map(|forward| (Key::AddrPort(forward.listen), Element::default())).collect()
}

fn backends(forwards: &[&Forward]) -> Elements {
    let targets = forwards.iter().flat_map(|forward| forward.targets.iter().take(usize::from(TARGETS)));
    targets.map(|&target| (Key::AddrPort(target), Element::default())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Packet, trace};
    use expect_test::expect;

    fn forward(id: &str, listen: &str, targets: &[&str]) -> Forward {
        Forward {
            id: id.parse().unwrap(),
            listen: listen.parse().unwrap(),
            targets: targets.iter().map(|target| target.parse().unwrap()).collect(),
        }
    }

    fn gateway(families: &[Family], snat: Snat) -> Gateway {
        Gateway {
            ingress: vec!["eth0".parse().unwrap()],
            families: families.to_vec(),
            snat,
            tunnels: vec![],
            max_segment: None,
        }
    }

    #[test]
    fn the_example_of_the_aws_procedure_renders_as_one_map_lookup() {
        let forwards = [
            forward("my-cluster-001", "10.0.0.55:6379", &["10.0.1.230:6379"]),
            forward("my-cluster-002", "10.0.0.55:6380", &["10.0.1.231:6379"]),
            forward("my-cluster-003", "10.0.0.55:6381", &["10.0.1.232:6379"]),
        ];
        let clients = ["198.51.100.27/32".parse().unwrap()];
        let snat = Snat::fixed("eth0".parse().unwrap(), vec!["10.0.0.55".parse().unwrap()]);
        let ruleset = render(&[AccessList::new(&clients, &forwards)], &gateway(&[Family::Ipv4], snat));
        expect![[r#"
            add table inet cachenat
            delete table inet cachenat
            table inet cachenat {
            	comment "managed by cachenat; manual changes will be reverted"

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
        let ruleset = render(
            &[AccessList::new(&clients, &forwards)],
            &gateway(&[Family::Ipv4, Family::Ipv6], Snat::Masquerade),
        );
        expect![[r#"
            table inet cachenat {
            	comment "managed by cachenat; manual changes will be reverted"

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
            		elements = { 10.0.0.55 . 6390 comment "c/reader" : 10.0.1.231 . 6379 }
            	}

            	map forward6 {
            		type ipv6_addr . inet_service : ipv6_addr . inet_service
            		counter
            		elements = { fd00::55 . 6391 comment "d-001" : fd00:1::9 . 6379 }
            	}

            	map spread4_2 {
            		type ipv4_addr . inet_service : ipv4_addr . inet_service
            		counter
            		elements = { 10.0.0.55 . 6390 comment "c/reader" : 10.0.1.232 . 6379 }
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
            		iifname "eth0" numgen random mod 2 0 ip saddr @clients4 dnat ip to ip daddr . tcp dport map @spread4_2
            		iifname "eth0" ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4
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
            		ct status dnat ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4 masquerade
            		ct status dnat ip6 daddr . tcp dport @backends6 ct original ip6 daddr . ct original proto-dst @listeners6 masquerade
            	}
            }
        "#]]
        .assert_eq(&ruleset.to_string());
    }

    #[test]
    fn several_lists_and_interfaces_have_a_rule_each() {
        let lists = [
            AccessList {
                clients: vec!["198.51.100.27/32".parse().unwrap()],
                forwards: vec![forward("a-001", "10.0.0.55:6379", &["10.0.1.230:6379"])],
            },
            AccessList {
                clients: vec!["198.51.100.28/32".parse().unwrap()],
                forwards: vec![forward(
                    "b/reader",
                    "10.0.0.55:6390",
                    &["10.0.3.240:6379", "10.0.3.241:6379"],
                )],
            },
        ];
        let snat = Snat::Fixed {
            addresses: [("eth0".parse().unwrap(), vec!["10.0.0.55".parse().unwrap()])].into(),
            masquerade_elsewhere: true,
        };
        let ingress = ["eth0", "eth2"].map(|name| name.parse().unwrap()).into();
        let ruleset = render(
            &lists,
            &Gateway { ingress, families: vec![Family::Ipv4], snat, tunnels: vec![], max_segment: None },
        );
        expect![[r#"
            table inet cachenat {
            	comment "managed by cachenat; manual changes will be reverted"

            	set clients4 {
            		type ipv4_addr
            		flags interval
            		elements = { 198.51.100.27 }
            	}

            	set clients4_2 {
            		type ipv4_addr
            		flags interval
            		elements = { 198.51.100.28 }
            	}

            	map forward4 {
            		type ipv4_addr . inet_service : ipv4_addr . inet_service
            		counter
            		elements = { 10.0.0.55 . 6379 comment "a-001" : 10.0.1.230 . 6379 }
            	}

            	map forward4_2 {
            		type ipv4_addr . inet_service : ipv4_addr . inet_service
            		counter
            		elements = { 10.0.0.55 . 6390 comment "b/reader" : 10.0.3.240 . 6379 }
            	}

            	map spread4_2_2 {
            		type ipv4_addr . inet_service : ipv4_addr . inet_service
            		counter
            		elements = { 10.0.0.55 . 6390 comment "b/reader" : 10.0.3.241 . 6379 }
            	}

            	set backends4 {
            		type ipv4_addr . inet_service
            		elements = { 10.0.1.230 . 6379,
            			     10.0.3.240 . 6379,
            			     10.0.3.241 . 6379 }
            	}

            	set listeners4 {
            		type ipv4_addr . inet_service
            		elements = { 10.0.0.55 . 6379,
            			     10.0.0.55 . 6390 }
            	}

            	chain prerouting {
            		type nat hook prerouting priority dstnat; policy accept;
            		iifname "eth0" ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4
            		iifname "eth2" ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4
            		iifname "eth0" numgen random mod 2 0 ip saddr @clients4_2 dnat ip to ip daddr . tcp dport map @spread4_2_2
            		iifname "eth2" numgen random mod 2 0 ip saddr @clients4_2 dnat ip to ip daddr . tcp dport map @spread4_2_2
            		iifname "eth0" ip saddr @clients4_2 dnat ip to ip daddr . tcp dport map @forward4_2
            		iifname "eth2" ip saddr @clients4_2 dnat ip to ip daddr . tcp dport map @forward4_2
            	}

            	chain input {
            		type filter hook input priority filter; policy accept;
            		ct state invalid ip saddr . tcp sport @backends4 drop
            		ct state invalid ip daddr . tcp dport @listeners4 drop
            	}

            	chain postrouting {
            		type nat hook postrouting priority srcnat; policy accept;
            		oifname "eth0" ct status dnat ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4 snat ip to 10.0.0.55
            		ct status dnat ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4 masquerade
            	}
            }
        "#]]
        .assert_eq(&ruleset.to_string());
        for set in ruleset.sets.keys() {
            assert_eq!(Set::from_name(&set.name()), Some(*set));
        }
        for name in [
            "forward4_1",
            "forward4_02",
            "forward4_17",
            "forward5",
            "spread4",
            "spread4_1",
            "spread4_2_1",
            "backends4_2",
        ] {
            assert_eq!(Set::from_name(name), None, "{name}");
        }
        let read = ruleset.access_lists();
        assert_eq!(read.into_values().collect::<Vec<_>>(), lists);
    }

    #[test]
    fn offload_adds_a_flowtable_and_a_chain_that_fills_it() {
        let forwards = [
            forward("c-001", "10.0.0.55:6379", &["10.0.1.230:6379"]),
            forward("d-001", "[fd00::55]:6379", &["[fd00:1::9]:6379"]),
        ];
        let mut ruleset =
            render(&[AccessList::new(&[], &forwards)], &gateway(&[Family::Ipv4, Family::Ipv6], Snat::Off));
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

    /// Every draw of the rules' numbers is as likely as any other, so the draws that lead to a target are its share.
    #[test]
    fn each_of_several_targets_gets_the_same_share_of_new_connections() {
        for count in 1..=6_usize {
            let targets: Vec<String> = (1..=count).map(|host| format!("10.0.1.{host}:6379")).collect();
            let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
            // Beside a listener with more, whose maps the others are not in.
            let more: Vec<String> = (1..=7).map(|host| format!("10.0.2.{host}:6379")).collect();
            let more: Vec<&str> = more.iter().map(String::as_str).collect();
            let forwards = [forward("r", "10.0.0.55:1", &targets), forward("s", "10.0.0.55:2", &more)];
            let clients = ["198.51.100.27/32".parse().unwrap()];
            let ruleset =
                render(&[AccessList::new(&clients, &forwards)], &gateway(&[Family::Ipv4], Snat::Masquerade));
            let packet = Packet {
                input: "eth0".parse().unwrap(),
                output: "eth0".parse().unwrap(),
                tcp: true,
                source: "198.51.100.27".parse().unwrap(),
                destination: "10.0.0.55:1".parse().unwrap(),
            };
            let draws: usize = (2..=count).product();
            let mut shares = BTreeMap::<AddrPort, usize>::new();
            for draw in 0..draws {
                // One number for each place up to the last: the draw in a number system of factorials.
                let hits = |place: u8| {
                    let below: usize = (2..usize::from(place)).product();
                    (draw / below).is_multiple_of(place.into())
                };
                *shares.entry(trace(&ruleset, &packet, hits).1).or_default() += 1;
            }
            let expected: BTreeMap<AddrPort, usize> =
                targets.iter().map(|target| (target.parse().unwrap(), draws / count)).collect();
            assert_eq!(shares, expected);
        }
    }

    #[test]
    fn of_more_targets_than_there_are_places_the_first_serve() {
        let targets: Vec<String> = (1..=20).map(|host| format!("10.0.1.{host}:6379")).collect();
        let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
        let ruleset = render(
            &[AccessList::new(&[], &[forward("r", "10.0.0.55:1", &targets)])],
            &gateway(&[Family::Ipv4], Snat::Masquerade),
        );
        assert_eq!(ruleset.elements(SetKind::Backends, Family::Ipv4).count(), usize::from(TARGETS));
        assert_eq!(ruleset.forwards()[0].targets.len(), usize::from(TARGETS));
        assert_eq!(ruleset.chains[&Chain::Prerouting].len(), usize::from(TARGETS));
    }

    #[test]
    fn a_forward_that_goes_takes_what_is_its_alone() {
        let forwards = [
            forward("a-001", "10.0.0.55:6379", &["10.0.1.230:6379"]),
            forward("a/reader", "10.0.0.55:6380", &["10.0.1.230:6379", "10.0.1.231:6379"]),
        ];
        let of = |forwards: &[Forward]| {
            render(&[AccessList::new(&[], forwards)], &gateway(&[Family::Ipv4], Snat::Masquerade))
        };
        let mut without = of(&forwards);
        without.retain_forwards(|id| id.as_str() == "a-001");
        let spread = Set::new(SetKind::Spread(ListIndex::FIRST, SpreadIndex::new(2).unwrap()), Family::Ipv4);
        assert_eq!(without.sets.remove(&spread), Some(Elements::new()));
        assert_eq!(without.sets, of(&forwards[..1]).sets);
    }
}

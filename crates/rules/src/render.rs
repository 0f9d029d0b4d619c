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
mod tests;

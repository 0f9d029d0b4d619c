//! What a ruleset does to a packet, without a kernel.

use std::net::IpAddr;

use crate::name::IfName;
use crate::ruleset::{AddrPort, Chain, Family, Key, Rule, Ruleset, Set, SetKind, SnatTo};

/// The first packet of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The interface that it comes in by.
    pub input: IfName,
    /// The interface that it leaves by; routing decides, so it is a given here.
    pub output: IfName,
    /// Whether it is TCP.
    pub tcp: bool,
    /// Its source address.
    pub source: IpAddr,
    /// Where it is sent.
    pub destination: AddrPort,
}

/// The packet behind the hooks: destination from prerouting, source from postrouting.
///
/// `hits` tells for each place from the last to the second whether the kernel's random number is the one that its rule waits
/// for, of targets and of sources alike. `None` as source stands for masquerade: the address of the output interface.
pub fn trace(ruleset: &Ruleset, packet: &Packet, hits: impl Fn(u8) -> bool) -> (Option<IpAddr>, AddrPort) {
    let rules = |chain| ruleset.chains.get(&chain).map(Vec::as_slice).unwrap_or_default();
    let target = rules(Chain::Prerouting).iter().find_map(|rule| dnat(ruleset, rule, packet, &hits));
    let destination = target.unwrap_or(packet.destination);
    let way_back = rules(Chain::Postrouting)
        .iter()
        .filter(|_| target.is_some())
        .find_map(|rule| snat(ruleset, rule, packet, destination, &hits));
    match way_back {
        None => (Some(packet.source), destination),
        Some(SnatTo::Address(address)) => (Some(address), destination),
        Some(SnatTo::Masquerade) => (None, destination),
    }
}

fn dnat(ruleset: &Ruleset, rule: &Rule, packet: &Packet, hits: impl Fn(u8) -> bool) -> Option<AddrPort> {
    let (interface, family, list, map) = match rule {
        Rule::Forward { interface, family, list } => (interface, *family, *list, SetKind::Forward(*list)),
        Rule::Spread { interface, family, list, place } if hits(place.number()) => {
            (interface, *family, *list, SetKind::Spread(*list, *place))
        }
        _ => return None,
    };
    let ours = packet.tcp && *interface == packet.input && Family::of(packet.source) == family;
    let listed = ruleset
        .elements(SetKind::Clients(list), family)
        .any(|(key, _)| matches!(key, Key::Addresses(range) if range.contains(packet.source)));
    if !ours || !listed {
        return None;
    }
    ruleset.sets.get(&Set::new(map, family))?.get(&Key::AddrPort(packet.destination))?.data
}

fn snat(
    ruleset: &Ruleset,
    rule: &Rule,
    packet: &Packet,
    target: AddrPort,
    hits: impl Fn(u8) -> bool,
) -> Option<SnatTo> {
    let Rule::Snat { interface, family, to, place } = rule else { return None };
    let has = |kind, endpoint| {
        let set = ruleset.sets.get(&Set::new(kind, *family));
        set.is_some_and(|elements| elements.contains_key(&Key::AddrPort(endpoint)))
    };
    let by = interface.as_ref().is_none_or(|interface| *interface == packet.output);
    let leaves = packet.tcp && by && Family::of(target.address) == *family;
    let ours = has(SetKind::Backends, target) && has(SetKind::Listeners, packet.destination);
    let has_turn = place.is_none_or(|place| hits(place.number()));
    (leaves && ours && has_turn).then_some(*to)
}

//! Converts rules to lists of expressions, as nft does from the rule's text, and back.

use nix::libc;
use rules::ruleset::{Direction, ListIndex, Rule, Set, SetKind, SnatTo, SpreadIndex};
use rules::{Family, IfName};

use super::expression::{AddressSide, Expression, MetaKey, Register};

/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)`, `linux/netfilter/nf_conntrack_common.h`: packets seen in both directions.
const ESTABLISHED: u32 = 1 << 1;

/// `NF_CT_STATE_INVALID_BIT` of the same header.
const INVALID: u32 = 1;

/// `NF_CT_STATE_BIT(IP_CT_RELATED)` and `NF_CT_STATE_BIT(IP_CT_NEW)` of the same header.
const RELATED: u32 = 1 << 2;
const NEW: u32 = 1 << 3;

/// The flag SYN of the TCP header (RFC 9293 section 3.1).
const SYN: u8 = 1 << 1;

/// `NF_CT_STATE_INVALID_BIT`, `NF_CT_STATE_BIT(IP_CT_NEW)` and `NF_CT_STATE_UNTRACKED_BIT` of the same header.
const UNESTABLISHED: u32 = 1 | 1 << 3 | 1 << 6;

/// `IPS_DST_NAT`, `linux/netfilter/nf_conntrack_common.h`.
const DNATED: u32 = 1 << 5;

/// `IFNAMSIZ`: names are compared at their full length, or `eth0` would also match `eth01`.
const IFNAMSIZ: usize = 16;

/// The expressions of a rule, as `nft --debug=netlink` shows them.
pub(super) fn lower(rule: &Rule) -> Vec<Expression> {
    match rule {
        Rule::Forward { interface, family, list } => {
            let set = Set::new(SetKind::Forward(*list), *family);
            [from(interface), clients(*family, *list), endpoint(*family), dnat(set)].concat()
        }
        Rule::Spread { interface, family, list, place } => {
            let (turn, set) = (turn_of(*place), Set::new(SetKind::Spread(*list, *place), *family));
            [from(interface), turn, clients(*family, *list), endpoint(*family), dnat(set)].concat()
        }
        Rule::Snat { interface, family, to: way_back, place } => {
            let output = interface.as_ref().map(to).unwrap_or_default();
            let turn = place.map(turn_of).unwrap_or_default();
            [output, turn, dnated(*family), ours(*family), snat(*family, way_back)].concat()
        }
        Rule::Offload { interface, family } => {
            let offload = vec![Expression::Offload];
            [to(interface), state(ESTABLISHED), dnated(*family), ours(*family), offload].concat()
        }
        Rule::DropInvalidAnswers { family } => {
            [state(INVALID), tcp_of(*family), answer(*family), vec![Expression::Drop]].concat()
        }
        Rule::DropInvalidRequests { family } => {
            let listeners = vec![Expression::Member(Set::new(SetKind::Listeners, *family)), Expression::Drop];
            [state(INVALID), tcp_of(*family), endpoint(*family), listeners].concat()
        }
        Rule::DropOthers { interface } => {
            [from(interface), state(UNESTABLISHED), not_dnated(), vec![Expression::Drop]].concat()
        }
        Rule::PassOthers { tunnels } => {
            let others = tunnels.iter().flat_map(not_from);
            others.chain([Expression::Accept]).collect()
        }
        Rule::PassEstablished => [state(ESTABLISHED | RELATED), vec![Expression::Accept]].concat(),
        Rule::PassRouted { family, list } => {
            let routed =
                vec![Expression::Member(Set::new(SetKind::Routed(*list), *family)), Expression::Accept];
            [state(NEW), clients(*family, *list), endpoint(*family), routed].concat()
        }
        Rule::DropRest => vec![Expression::Drop],
        Rule::DropInto { interface } => {
            [to(interface), state(UNESTABLISHED), vec![Expression::Drop]].concat()
        }
        Rule::ClampToRoute { interface, direction } => {
            let matches = match direction {
                Direction::In => from(interface),
                Direction::Out => to(interface),
            };
            let write = vec![Expression::RouteSegment, Expression::ToNetworkOrder, Expression::WriteSegment];
            [matches, is_tcp(), syn(), write].concat()
        }
        Rule::Clamp { family, direction, size } => {
            let pair = match direction {
                Direction::In => ours(*family),
                Direction::Out => [answer(*family), from_listener(*family)].concat(),
            };
            let write = vec![Expression::Number(*size), Expression::WriteSegment];
            [is_dnated(), is_tcp(), syn(), is_of(*family), pair, write].concat()
        }
        Rule::SnatRouted { interface, family } => {
            let masquerade =
                vec![Expression::Member(Set::new(SetKind::Backends, *family)), Expression::Masquerade];
            [from(interface), tcp_of(*family), endpoint(*family), masquerade].concat()
        }
    }
}

/// The rule with these expressions, if it is one of ours.
pub(super) fn recognise(expressions: &[Expression]) -> Option<Rule> {
    // What is guessed from a few expressions holds only if it is all of them.
    candidates(expressions).into_iter().flatten().find(|rule| lower(rule) == expressions)
}

/// The rules that these may be, by the set that they look up last and the interface that they name first.
fn candidates(expressions: &[Expression]) -> Vec<Option<Rule>> {
    let named = match expressions {
        [Expression::Meta(_), Expression::Equal(name), ..] => interface(name),
        _ => None,
    };
    let of_interface = |rule: fn(IfName) -> Rule| named.clone().map(rule);
    let set = expressions.iter().rev().find_map(|expression| match expression {
        Expression::Member(set) | Expression::Map(set) => Some(*set),
        _ => None,
    });
    let Some(Set { kind, family }) = set else {
        return vec![
            of_interface(|interface| Rule::DropOthers { interface }),
            of_interface(|interface| Rule::DropInto { interface }),
            of_interface(|interface| Rule::ClampToRoute { interface, direction: Direction::In }),
            of_interface(|interface| Rule::ClampToRoute { interface, direction: Direction::Out }),
            tunnels(expressions).map(|tunnels| Rule::PassOthers { tunnels }),
            Some(Rule::PassEstablished),
            Some(Rule::DropRest),
        ];
    };
    match kind {
        SetKind::Forward(list) => vec![named.map(|interface| Rule::Forward { interface, family, list })],
        SetKind::Spread(list, place) => {
            vec![named.map(|interface| Rule::Spread { interface, family, list, place })]
        }
        SetKind::Routed(list) => vec![Some(Rule::PassRouted { family, list })],
        SetKind::Backends => vec![
            Some(Rule::DropInvalidAnswers { family }),
            named.map(|interface| Rule::SnatRouted { interface, family }),
        ],
        SetKind::Listeners => {
            let snat = |to| Rule::Snat { interface: named.clone(), family, to, place: turn(expressions) };
            let clamp = |direction| segment(expressions).map(|size| Rule::Clamp { family, direction, size });
            vec![
                Some(Rule::DropInvalidRequests { family }),
                source(expressions).map(snat),
                named.clone().map(|interface| Rule::Offload { interface, family }),
                clamp(Direction::In),
                clamp(Direction::Out),
            ]
        }
        SetKind::Clients(_) => vec![],
    }
}

/// The interfaces that a rule is not about.
fn tunnels(expressions: &[Expression]) -> Option<Vec<IfName>> {
    let names = expressions.iter().filter_map(|expression| match expression {
        Expression::NotEqual(name) => Some(interface(name)),
        _ => None,
    });
    names.collect()
}

fn segment(expressions: &[Expression]) -> Option<u16> {
    expressions.iter().find_map(|expression| match expression {
        Expression::Number(size) => Some(*size),
        _ => None,
    })
}

/// The interface's name, without trailing NULs.
pub(super) fn interface(name: &[u8]) -> Option<IfName> {
    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
    std::str::from_utf8(name).ok()?.parse().ok()
}

fn turn(expressions: &[Expression]) -> Option<SpreadIndex> {
    expressions.iter().find_map(|expression| match expression {
        Expression::Random(modulus) => SpreadIndex::new(usize::try_from(*modulus).ok()?),
        _ => None,
    })
}

fn source(expressions: &[Expression]) -> Option<SnatTo> {
    expressions.iter().rev().find_map(|expression| match expression {
        Expression::Immediate(address) => Some(SnatTo::Address(*address)),
        Expression::Masquerade => Some(SnatTo::Masquerade),
        _ => None,
    })
}

/// `ip saddr @clients4`, of TCP packets
fn clients(family: Family, list: ListIndex) -> Vec<Expression> {
    vec![
        Expression::Meta(MetaKey::NetworkProtocol),
        network_protocol(family),
        Expression::Address(AddressSide::Source, family),
        Expression::Member(Set::new(SetKind::Clients(list), family)),
        Expression::Meta(MetaKey::TransportProtocol),
        tcp(),
    ]
}

/// `numgen random mod 3 0`
fn turn_of(place: SpreadIndex) -> Vec<Expression> {
    vec![Expression::Random(u32::from(place.number())), Expression::Equal(0u32.to_ne_bytes().to_vec())]
}

/// `iifname "eth0"`
fn from(interface: &IfName) -> Vec<Expression> {
    vec![Expression::Meta(MetaKey::InputInterface), named(interface)]
}

/// `ct status ! dnat`
fn not_dnated() -> Vec<Expression> {
    vec![Expression::CtStatus, Expression::Mask(DNATED), Expression::Equal(0u32.to_ne_bytes().to_vec())]
}

/// `oifname "eth0"`
fn to(interface: &IfName) -> Vec<Expression> {
    vec![Expression::Meta(MetaKey::OutputInterface), named(interface)]
}

/// `ct state established`, or any other state bits
fn state(bits: u32) -> Vec<Expression> {
    vec![Expression::CtState, Expression::Mask(bits), Expression::NotEqual(0u32.to_ne_bytes().to_vec())]
}

/// `ct status dnat`, of TCP packets
fn dnated(family: Family) -> Vec<Expression> {
    [is_dnated(), tcp_of(family)].concat()
}

/// `ct status dnat`
fn is_dnated() -> Vec<Expression> {
    let zero = 0u32.to_ne_bytes().to_vec();
    vec![Expression::CtStatus, Expression::Mask(DNATED), Expression::NotEqual(zero)]
}

/// `tcp flags syn`, of TCP packets
fn syn() -> Vec<Expression> {
    vec![Expression::TcpFlags, Expression::MaskByte(SYN), Expression::NotEqual(vec![0])]
}

/// What nft checks before the fields of `tcp`.
fn is_tcp() -> Vec<Expression> {
    vec![Expression::Meta(MetaKey::TransportProtocol), tcp()]
}

/// What nft checks before the fields of `ip`.
fn is_of(family: Family) -> Vec<Expression> {
    vec![Expression::Meta(MetaKey::NetworkProtocol), network_protocol(family)]
}

/// `iifname != "wg0"`
fn not_from(interface: &IfName) -> Vec<Expression> {
    vec![Expression::Meta(MetaKey::InputInterface), Expression::NotEqual(padded(interface))]
}

/// The checks that nft adds before fields of `ip` and `tcp`.
fn tcp_of(family: Family) -> Vec<Expression> {
    [is_of(family), is_tcp()].concat()
}

/// `ip daddr . tcp dport`, into register 1 and the register after the address.
fn endpoint(family: Family) -> Vec<Expression> {
    vec![
        Expression::Address(AddressSide::Destination, family),
        Expression::DestinationPort(port_register(family)),
    ]
}

/// `ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4`
fn ours(family: Family) -> Vec<Expression> {
    let backends = vec![Expression::Member(Set::new(SetKind::Backends, family))];
    [endpoint(family), backends, from_listener(family)].concat()
}

/// `ip saddr . tcp sport @backends4`
fn answer(family: Family) -> Vec<Expression> {
    vec![
        Expression::Address(AddressSide::Source, family),
        Expression::SourcePort(port_register(family)),
        Expression::Member(Set::new(SetKind::Backends, family)),
    ]
}

/// `ct original ip daddr . ct original proto-dst @listeners4`
fn from_listener(family: Family) -> Vec<Expression> {
    vec![
        Expression::OriginalAddress(family),
        Expression::OriginalPort(port_register(family)),
        Expression::Member(Set::new(SetKind::Listeners, family)),
    ]
}

/// `dnat ip to ... map @forward4`
fn dnat(map: Set) -> Vec<Expression> {
    vec![Expression::Map(map), Expression::Dnat(map.family, port_register(map.family))]
}

fn snat(family: Family, to: &SnatTo) -> Vec<Expression> {
    match to {
        SnatTo::Address(address) => vec![Expression::Immediate(*address), Expression::Snat(family)],
        SnatTo::Masquerade => vec![Expression::Masquerade],
    }
}

/// The register after an address, which takes one or four 4-byte registers; register 2 starts at the fifth
/// (`NFT_REG32_04`).
const fn port_register(family: Family) -> Register {
    match family {
        Family::Ipv4 => Register(9),
        Family::Ipv6 => Register(2),
    }
}

fn named(interface: &IfName) -> Expression {
    Expression::Equal(padded(interface))
}

fn padded(interface: &IfName) -> Vec<u8> {
    let mut name = interface.as_str().as_bytes().to_vec();
    name.resize(IFNAMSIZ, 0);
    name
}

fn network_protocol(family: Family) -> Expression {
    let protocol = match family {
        Family::Ipv4 => libc::NFPROTO_IPV4,
        Family::Ipv6 => libc::NFPROTO_IPV6,
    };
    Expression::Equal(vec![protocol as u8])
}

fn tcp() -> Expression {
    Expression::Equal(vec![libc::IPPROTO_TCP as u8])
}

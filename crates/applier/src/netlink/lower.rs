//! Converts rules to lists of expressions, as nft does from the rule's text, and back.

use nix::libc;
use rules::ruleset::{ListIndex, Rule, Set, SetKind, SnatTo, SpreadIndex};
use rules::{Family, IfName};

use super::expression::{AddressSide, Expression, MetaKey, Register};

/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)`, `linux/netfilter/nf_conntrack_common.h`: packets seen in both directions.
const ESTABLISHED: u32 = 1 << 1;

/// `NF_CT_STATE_INVALID_BIT` of the same header.
const INVALID: u32 = 1;

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
            let source = vec![
                Expression::Address(AddressSide::Source, *family),
                Expression::SourcePort(port_register(*family)),
                Expression::Member(Set::new(SetKind::Backends, *family)),
                Expression::Drop,
            ];
            [state(INVALID), tcp_of(*family), source].concat()
        }
        Rule::DropInvalidRequests { family } => {
            let listeners = vec![Expression::Member(Set::new(SetKind::Listeners, *family)), Expression::Drop];
            [state(INVALID), tcp_of(*family), endpoint(*family), listeners].concat()
        }
        Rule::DropOthers { interface } => {
            [from(interface), state(UNESTABLISHED), not_dnated(), vec![Expression::Drop]].concat()
        }
    }
}

/// The rule with these expressions, if it is one of ours.
pub(super) fn recognise(expressions: &[Expression]) -> Option<Rule> {
    if expressions.first() == Some(&Expression::CtState) {
        let families = [Family::Ipv4, Family::Ipv6].into_iter();
        let mut rules = families
            .flat_map(|family| [Rule::DropInvalidAnswers { family }, Rule::DropInvalidRequests { family }]);
        return rules.find(|rule| lower(rule) == expressions);
    }
    let named = match (expressions.first(), expressions.get(1)) {
        (Some(Expression::Meta(_)), Some(Expression::Equal(name))) => interface(name),
        _ => None,
    };
    if expressions.last() == Some(&Expression::Drop) {
        let rule = Rule::DropOthers { interface: named? };
        return (lower(&rule) == expressions).then_some(rule);
    }
    let set = expressions.iter().rev().find_map(|expression| match expression {
        Expression::Member(set) | Expression::Map(set) => Some(*set),
        _ => None,
    })?;
    let family = set.family;
    let rule = match set.kind {
        SetKind::Forward(list) => Rule::Forward { interface: named?, family, list },
        SetKind::Spread(list, place) => Rule::Spread { interface: named?, family, list, place },
        SetKind::Listeners if expressions.last() == Some(&Expression::Offload) => {
            Rule::Offload { interface: named?, family }
        }
        SetKind::Listeners => {
            Rule::Snat { interface: named, family, to: source(expressions)?, place: turn(expressions) }
        }
        SetKind::Clients(_) | SetKind::Backends => return None,
    };
    // The rule was guessed from a few expressions; it must match all of them.
    (lower(&rule) == expressions).then_some(rule)
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
    let status = vec![
        Expression::CtStatus,
        Expression::Mask(DNATED),
        Expression::NotEqual(0u32.to_ne_bytes().to_vec()),
    ];
    [status, tcp_of(family)].concat()
}

/// The checks that nft adds before fields of `ip` and `tcp`.
fn tcp_of(family: Family) -> Vec<Expression> {
    vec![
        Expression::Meta(MetaKey::NetworkProtocol),
        network_protocol(family),
        Expression::Meta(MetaKey::TransportProtocol),
        tcp(),
    ]
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
    let mut expressions = endpoint(family);
    expressions.extend([
        Expression::Member(Set::new(SetKind::Backends, family)),
        Expression::OriginalAddress(family),
        Expression::OriginalPort(port_register(family)),
        Expression::Member(Set::new(SetKind::Listeners, family)),
    ]);
    expressions
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
    let mut name = interface.as_str().as_bytes().to_vec();
    name.resize(IFNAMSIZ, 0);
    Expression::Equal(name)
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

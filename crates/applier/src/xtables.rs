//! Translates iptables matches and targets that have no nf_tables expression into the expressions that we evaluate.
//!
//! The kernel stores them as structures of its headers (`linux/netfilter/xt_*.h`): those of iptables-nft in nf_tables'
//! `match` and `target`, those of legacy iptables in its tables. Numbers are in host byte order unless noted.

use rules::foreign::{Expression, Field, Register, Relation, TableFamily, Verdict};

/// A register that no other expression uses during a match.
const REGISTER: Register = 48;

/// An extension that is not evaluated: a condition that may or may not hold.
fn unclear(name: &str) -> Vec<Expression> {
    vec![Expression::Unclear(name.to_owned())]
}

/// The conditions of a match.
pub(crate) fn condition(name: &str, revision: u32, info: &[u8], family: TableFamily) -> Vec<Expression> {
    let info = Info(info);
    let known = match (name, revision) {
        ("comment", _) => Some(vec![]),
        ("tcp", 0) => tcp(info),
        ("multiport", 1) => multiport(info),
        ("conntrack", 2..) => conntrack(info),
        ("state", 0) => info.u32(0).map(|mask| has_bits(Field::FlowState, &mask.to_ne_bytes(), false)),
        ("addrtype", 1) => address_type(info),
        ("mark", 1) => mark(Field::Mark, info),
        ("connmark", 1) => mark(Field::FlowMark, info),
        ("iprange", 1) => address_range(info, family),
        ("pkttype", 0) => info.u32(0).zip(info.u32(4)).map(|(kind, inverted)| {
            let (value, relation) = (vec![kind.to_le_bytes()[0]], equality(inverted != 0));
            vec![load(Field::PacketType, 1), Expression::Compare { from: REGISTER, relation, value }]
        }),
        ("rpfilter", 0) => info.u8(0).map(|flags| {
            // XT_RPFILTER_INVERT
            let (relation, value) = (equality(flags & 8 != 0), 1_u32.to_ne_bytes().to_vec());
            let found = Field::ReversePath { is_presence: true };
            vec![load(found, 4), Expression::Compare { from: REGISTER, relation, value }]
        }),
        // Never true for our packets: they are forwarded, not sent by a local socket, and are TCP without extension headers.
        (
            "owner" | "udp" | "udplite" | "icmp" | "icmp6" | "sctp" | "dccp" | "esp" | "ah" | "hbh" | "dst"
            | "rt" | "frag" | "mh",
            _,
        ) => Some(vec![load(Field::Absent, 4)]),
        _ => None,
    };
    known.unwrap_or_else(|| unclear(name))
}

/// What a target does with a matching packet.
pub(crate) fn target(name: &str, revision: u32, info: &[u8]) -> Vec<Expression> {
    let info = Info(info);
    let verdict = |verdict| vec![Expression::Verdict(verdict)];
    match name {
        "REJECT" => verdict(Verdict::Drop),
        "DNAT" | "REDIRECT" | "TPROXY" => verdict(Verdict::LeadElsewhere),
        "SNAT" | "MASQUERADE" => verdict(Verdict::Accept),
        "NFQUEUE" | "QUEUE" => verdict(Verdict::Queue),
        "NOTRACK" => verdict(Verdict::Untrack),
        // XT_CT_NOTRACK, linux/netfilter/xt_CT.h
        "CT" if info.u16(0).is_some_and(|flags| flags & 1 != 0) => verdict(Verdict::Untrack),
        "AUDIT" | "CHECKSUM" | "CLASSIFY" | "CONNSECMARK" | "CT" | "DSCP" | "ECN" | "HL" | "IDLETIMER"
        | "LED" | "LOG" | "NFLOG" | "RATEEST" | "SECMARK" | "SET" | "TCPMSS" | "TEE" | "TOS" | "TRACE"
        | "TTL" => {
            vec![]
        }
        "MARK" if revision == 2 => set_mark(info).unwrap_or_else(|| unclear(name)),
        "CONNMARK" => {
            let restored = Field::Unknown("CONNMARK".to_owned());
            vec![Expression::SetFlowMark, load(restored, 4), Expression::SetMark(REGISTER)]
        }
        // An unknown target may pass or drop the packet.
        name => [unclear(name), verdict(Verdict::Drop)].concat(),
    }
}

fn load(field: Field, length: usize) -> Expression {
    Expression::Load { field, to: REGISTER, length }
}

pub(crate) fn equality(is_inverted: bool) -> Relation {
    if is_inverted { Relation::NotEqual } else { Relation::Equal }
}

/// Compares the masked bits of a field with a value.
pub(crate) fn masked(field: Field, mask: Vec<u8>, relation: Relation, value: Vec<u8>) -> Vec<Expression> {
    let xor = vec![0; mask.len()];
    vec![
        load(field, mask.len()),
        Expression::Mask { from: REGISTER, to: REGISTER, mask, xor },
        Expression::Compare { from: REGISTER, relation, value },
    ]
}

/// Whether a field has any of these bits.
fn has_bits(field: Field, mask: &[u8], is_inverted: bool) -> Vec<Expression> {
    masked(field, mask.to_vec(), equality(!is_inverted), vec![0; mask.len()])
}

/// Whether a field is in one of these ranges.
fn within(field: Field, ranges: Vec<(Vec<u8>, Vec<u8>)>, negated: bool) -> Vec<Expression> {
    let length = ranges.first().map_or(4, |(first, _)| first.len());
    vec![load(field, length), Expression::Within { from: REGISTER, ranges, negated }]
}

/// A range of ports, in network byte order.
fn ports(first: u16, last: u16) -> (Vec<u8>, Vec<u8>) {
    (first.to_be_bytes().to_vec(), last.to_be_bytes().to_vec())
}

/// `struct xt_tcp`
fn tcp(info: Info<'_>) -> Option<Vec<Expression>> {
    let inverted = info.u8(11)?;
    let range = |at| Some(ports(info.u16(at)?, info.u16(at + 2)?));
    // XT_TCP_INV_SRCPT, XT_TCP_INV_DSTPT and XT_TCP_INV_FLAGS
    let mut found = within(Field::Transport(0), vec![range(0)?], inverted & 1 != 0);
    found.extend(within(Field::Transport(2), vec![range(4)?], inverted & 2 != 0));
    let (option, mask, flags) = (info.u8(8)?, info.u8(9)?, info.u8(10)?);
    if option != 0 {
        found.extend(unclear("tcp-option"));
    }
    if mask != 0 {
        found.extend(masked(Field::Transport(13), vec![mask], equality(inverted & 4 != 0), vec![flags]));
    }
    Some(found)
}

/// `struct xt_multiport_v1`
fn multiport(info: Info<'_>) -> Option<Vec<Expression>> {
    let (of, count, is_inverted) = (info.u8(0)?, usize::from(info.u8(1)?).min(15), info.u8(47)? != 0);
    let field = match of {
        0 => Field::Transport(0),
        1 => Field::Transport(2),
        // XT_MULTIPORT_EITHER
        _ => return None,
    };
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < count {
        let first = info.u16(2 + 2 * at)?;
        // A flagged port starts a range that the next port ends.
        let is_range = info.u8(32 + at)? != 0;
        at += usize::from(is_range);
        ranges.push(ports(first, info.u16(2 + 2 * at)?));
        at += 1;
    }
    Some(within(field, ranges, is_inverted))
}

/// `struct xt_conntrack_mtinfo3`: only its state and status conditions.
fn conntrack(info: Info<'_>) -> Option<Vec<Expression>> {
    const STATE: u16 = 1;
    const STATUS: u16 = 1 << 6;
    let (flags, inverted) = (info.u16(146)?, info.u16(148)?);
    let mut found = Vec::new();
    if flags & STATE != 0 {
        let mask = u32::from(info.u16(150)?);
        found.extend(has_bits(Field::XtState, &mask.to_ne_bytes(), inverted & STATE != 0));
    }
    if flags & STATUS != 0 {
        let mask = u32::from(info.u16(152)?);
        found.extend(has_bits(Field::FlowStatus, &mask.to_ne_bytes(), inverted & STATUS != 0));
    }
    if flags & !(STATE | STATUS) != 0 {
        found.extend(unclear("conntrack"));
    }
    Some(found)
}

/// `struct xt_addrtype_info_v1`: a bitmap of `RTN_*` types.
fn address_type(info: Info<'_>) -> Option<Vec<Expression>> {
    let (source, destination, flags) = (info.u16(0)?, info.u16(2)?, info.u32(4)?);
    let types = |mask: u16| {
        let numbers = (0..16_u32).filter(move |number| mask & (1 << number) != 0);
        numbers.map(|number| (number.to_ne_bytes().to_vec(), number.to_ne_bytes().to_vec())).collect()
    };
    let mut found = Vec::new();
    // XT_ADDRTYPE_INVERT_SOURCE and XT_ADDRTYPE_INVERT_DEST
    for (mask, of_source, inverted) in [(source, true, 1), (destination, false, 2)] {
        if mask != 0 {
            found.extend(within(Field::AddressType { of_source }, types(mask), flags & inverted != 0));
        }
    }
    Some(found)
}

/// `struct xt_mark_mtinfo1` and `struct xt_connmark_mtinfo1`
fn mark(field: Field, info: Info<'_>) -> Option<Vec<Expression>> {
    let (mark, mask, is_inverted) = (info.u32(0)?, info.u32(4)?, info.u8(8)? != 0);
    let (mask, value) = (mask.to_ne_bytes().to_vec(), mark.to_ne_bytes().to_vec());
    Some(masked(field, mask, equality(is_inverted), value))
}

/// `struct xt_mark_tginfo2`: `(mark & ~mask) ^ value`
fn set_mark(info: Info<'_>) -> Option<Vec<Expression>> {
    let (value, mask) = (info.u32(0)?, info.u32(4)?);
    let (mask, xor) = ((!mask).to_ne_bytes().to_vec(), value.to_ne_bytes().to_vec());
    Some(vec![
        load(Field::Mark, 4),
        Expression::Mask { from: REGISTER, to: REGISTER, mask, xor },
        Expression::SetMark(REGISTER),
    ])
}

/// `struct xt_iprange_mtinfo`: four addresses of 16 bytes each, in network byte order.
fn address_range(info: Info<'_>, family: TableFamily) -> Option<Vec<Expression>> {
    let (length, source, destination) = match family {
        TableFamily::Ip => (4, 12, 16),
        TableFamily::Ip6 => (16, 8, 24),
        TableFamily::Inet | TableFamily::Netdev => return None,
    };
    let flags = info.u8(64)?;
    let range = |at: usize| Some((info.bytes(at, length)?.to_vec(), info.bytes(at + 16, length)?.to_vec()));
    let mut found = Vec::new();
    // IPRANGE_SRC, IPRANGE_DST, IPRANGE_SRC_INV and IPRANGE_DST_INV
    if flags & 1 != 0 {
        found.extend(within(Field::Network(source), vec![range(0)?], flags & 1 << 4 != 0));
    }
    if flags & 2 != 0 {
        found.extend(within(Field::Network(destination), vec![range(32)?], flags & 1 << 5 != 0));
    }
    Some(found)
}

/// A kernel structure; reads past its end give `None`.
#[derive(Clone, Copy)]
struct Info<'a>(&'a [u8]);

impl<'a> Info<'a> {
    fn bytes(self, at: usize, length: usize) -> Option<&'a [u8]> {
        self.0.get(at..at + length)
    }

    fn u8(self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    fn u16(self, at: usize) -> Option<u16> {
        self.bytes(at, 2)?.try_into().ok().map(u16::from_ne_bytes)
    }

    fn u32(self, at: usize) -> Option<u32> {
        self.bytes(at, 4)?.try_into().ok().map(u32::from_ne_bytes)
    }
}

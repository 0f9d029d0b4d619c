//! Parses the nf_tables expressions of other programs' rules.

use nix::libc;
use rules::foreign::{Data, Expression, Field, Register, Relation, TableFamily, TuplePart, Verdict};

use crate::netlink::attribute::{Attributes, Fields, Malformed, shown};
use crate::netlink::uapi::{
    DATA_VALUE, DATA_VERDICT, VERDICT_CHAIN, VERDICT_CODE, bitwise, cmp, ct, expr, fib, immediate, lookup,
    meta, nat, object, objref, payload, range, xt,
};
use crate::xtables;

/// `NFT_REG32_00` and `NFT_REG32_15`: the sixteen 4-byte registers overlap the four 16-byte registers.
const REGISTER_0: u32 = 8;
const REGISTER_15: u32 = 23;

/// Parses `NFTA_RULE_EXPRESSIONS`.
pub(super) fn parse_list(list: &[u8], family: TableFamily) -> Result<Vec<Expression>, Malformed> {
    let mut found = Vec::new();
    for element in Attributes(list) {
        let fields = Fields::<4>::parse(element?.value)?;
        let data = Fields::<16>::parse(fields.get(expr::DATA).unwrap_or_default())?;
        let name = fields.name(expr::NAME);
        match parse(name, &data, family)? {
            Some(expressions) => found.extend(expressions),
            None => found.push(Expression::Unclear(shown(name))),
        }
    }
    Ok(found)
}

/// Parses an expression; `None` if it is unknown.
fn parse(
    name: &[u8],
    data: &Fields<'_, 16>,
    family: TableFamily,
) -> Result<Option<Vec<Expression>>, Malformed> {
    let one = |expression: Option<Expression>| expression.map(|expression| vec![expression]);
    let verdict = |verdict| Some(vec![Expression::Verdict(verdict)]);
    Ok(match name {
        b"counter" | b"log" | b"last" | b"dup" | b"flow_offload" => Some(vec![]),
        b"immediate" => one(parse_immediate(data)?),
        b"payload" => one(parse_payload(data)),
        b"meta" => parse_meta(data),
        b"ct" => parse_ct(data),
        b"fib" => one(parse_fib(data)),
        b"cmp" => one(parse_compare(data)?),
        b"range" => one(parse_range(data)?),
        b"bitwise" => one(parse_bitwise(data)?),
        b"lookup" => one(parse_lookup(data)),
        b"reject" => verdict(Verdict::Drop),
        b"redir" | b"tproxy" | b"fwd" => verdict(Verdict::LeadElsewhere),
        b"masq" => verdict(Verdict::Accept),
        b"nat" if data.be32(nat::TYPE) == Some(libc::NFT_NAT_DNAT as u32) => verdict(Verdict::LeadElsewhere),
        b"nat" => verdict(Verdict::Accept),
        b"queue" => verdict(Verdict::Queue),
        b"notrack" => verdict(Verdict::Untrack),
        // It answers in place of the node, if the rule matches.
        b"synproxy" => {
            Some(vec![Expression::Unclear("synproxy".to_owned()), Expression::Verdict(Verdict::Drop)])
        }
        // These objects never decide about a packet.
        b"objref" => match data.be32(objref::TYPE) {
            Some(
                object::COUNTER
                | object::CT_HELPER
                | object::CT_TIMEOUT
                | object::SECMARK
                | object::CT_EXPECT,
            ) => Some(vec![]),
            _ => None,
        },
        b"match" => data.get(xt::INFO).map(|info| {
            xtables::condition(
                &shown(data.name(xt::NAME)),
                data.be32(xt::REVISION).unwrap_or(0),
                info,
                family,
            )
        }),
        b"target" => data.get(xt::INFO).map(|info| {
            xtables::target(&shown(data.name(xt::NAME)), data.be32(xt::REVISION).unwrap_or(0), info)
        }),
        _ => None,
    })
}

/// The byte offset of a register; `None` for the verdict register or an unknown one.
fn register(number: Option<u32>) -> Option<Register> {
    match number? {
        number @ 1..=4 => Some((number as usize - 1) * 16),
        number @ REGISTER_0..=REGISTER_15 => Some((number - REGISTER_0) as usize * 4),
        _ => None,
    }
}

/// `enum nft_data_attributes`: bytes or a verdict.
pub(super) fn data(bytes: &[u8]) -> Result<Data, Malformed> {
    let fields = Fields::<4>::parse(bytes)?;
    let Some(verdict) = fields.get(DATA_VERDICT) else {
        return Ok(Data::Value(fields.get(DATA_VALUE).unwrap_or_default().to_vec()));
    };
    let verdict = Fields::<4>::parse(verdict)?;
    let chain = || shown(verdict.name(VERDICT_CHAIN));
    let code = verdict.be32(VERDICT_CODE).map(u32::cast_signed);
    Ok(Data::Verdict(match code {
        Some(libc::NF_ACCEPT) => Verdict::Accept,
        Some(libc::NFT_CONTINUE | libc::NFT_BREAK) | None => Verdict::Continue,
        Some(libc::NFT_JUMP) => Verdict::Jump(chain()),
        Some(libc::NFT_GOTO) => Verdict::Goto(chain()),
        Some(libc::NFT_RETURN) => Verdict::Return,
        // The upper half is the queue number.
        Some(code) if code & 0xffff == libc::NF_QUEUE => Verdict::Queue,
        Some(_) => Verdict::Drop,
    }))
}

fn value(data: &Fields<'_, 16>, kind: u16) -> Result<Vec<u8>, Malformed> {
    let value = Fields::<2>::parse(data.get(kind).unwrap_or_default())?;
    Ok(value.get(DATA_VALUE).unwrap_or_default().to_vec())
}

fn parse_immediate(fields: &Fields<'_, 16>) -> Result<Option<Expression>, Malformed> {
    let value = data(fields.get(immediate::DATA).unwrap_or_default())?;
    Ok(match (value, register(fields.be32(immediate::REGISTER))) {
        (Data::Verdict(verdict), _) => Some(Expression::Verdict(verdict)),
        (Data::Value(value), Some(to)) => Some(Expression::Constant { value, to }),
        (Data::Value(_), None) => None,
    })
}

/// Parses a payload load; `None` for a payload write, which has no destination register and does not change addresses or
/// ports.
fn parse_payload(data: &Fields<'_, 16>) -> Option<Expression> {
    let (at, length) = (data.be32(payload::OFFSET)? as usize, data.be32(payload::LEN)? as usize);
    let to = register(data.be32(payload::TO))?;
    let field = match data.be32(payload::BASE)? {
        payload::NETWORK => Field::Network(at),
        payload::TRANSPORT => Field::Transport(at),
        _ => Field::Unknown("link layer header".to_owned()),
    };
    Some(Expression::Load { field, to, length })
}

fn parse_meta(data: &Fields<'_, 16>) -> Option<Vec<Expression>> {
    let key = data.be32(meta::KEY)?.cast_signed();
    if data.get(meta::FROM).is_some() {
        let is_mark = key == libc::NFT_META_MARK;
        return Some(
            register(data.be32(meta::FROM))
                .filter(|_| is_mark)
                .map(Expression::SetMark)
                .into_iter()
                .collect(),
        );
    }
    let (field, length) = match key {
        libc::NFT_META_IIF => (Field::Input, 4),
        libc::NFT_META_OIF => (Field::Output, 4),
        libc::NFT_META_IIFNAME => (Field::InputName, 16),
        libc::NFT_META_OIFNAME => (Field::OutputName, 16),
        libc::NFT_META_NFPROTO => (Field::Family, 1),
        libc::NFT_META_PROTOCOL => (Field::EtherType, 2),
        libc::NFT_META_L4PROTO => (Field::Protocol, 1),
        libc::NFT_META_MARK => (Field::Mark, 4),
        libc::NFT_META_PKTTYPE => (Field::PacketType, 1),
        // Forwarded packets have no local socket, and no bridge port.
        libc::NFT_META_SKUID
        | libc::NFT_META_SKGID
        | libc::NFT_META_BRI_IIFNAME
        | libc::NFT_META_BRI_OIFNAME => (Field::Absent, 4),
        _ => (Field::Unknown("meta".to_owned()), 16),
    };
    Some(vec![Expression::Load { field, to: register(data.be32(meta::TO))?, length }])
}

fn parse_ct(data: &Fields<'_, 16>) -> Option<Vec<Expression>> {
    let key = data.be32(ct::KEY)?;
    let libc_key = key.cast_signed();
    if data.get(ct::FROM).is_some() {
        let is_mark = libc_key == libc::NFT_CT_MARK;
        return Some(is_mark.then_some(Expression::SetFlowMark).into_iter().collect());
    }
    let (part, length) = match (key, libc_key) {
        (ct::SRC_IP, _) => (Some(TuplePart::Source), 4),
        (ct::DST_IP, _) => (Some(TuplePart::Destination), 4),
        (ct::SRC_IP6, _) | (_, libc::NFT_CT_SRC) => (Some(TuplePart::Source), 16),
        (ct::DST_IP6, _) | (_, libc::NFT_CT_DST) => (Some(TuplePart::Destination), 16),
        (_, libc::NFT_CT_PROTO_SRC) => (Some(TuplePart::SourcePort), 2),
        (_, libc::NFT_CT_PROTO_DST) => (Some(TuplePart::DestinationPort), 2),
        _ => (None, 4),
    };
    let is_reply = data.get(ct::DIRECTION) == Some(&[ct::REPLY]);
    let field = match (part, libc_key) {
        (Some(part), _) => Field::Tuple { is_reply, part },
        (None, libc::NFT_CT_STATE) => Field::FlowState,
        (None, libc::NFT_CT_STATUS) => Field::FlowStatus,
        (None, libc::NFT_CT_MARK) => Field::FlowMark,
        (None, libc::NFT_CT_DIRECTION) => Field::FlowDirection,
        (None, libc::NFT_CT_PROTOCOL) => Field::Protocol,
        (None, libc::NFT_CT_L3PROTOCOL) => Field::Family,
        _ => Field::Unknown("ct".to_owned()),
    };
    let length = if matches!(field, Field::Unknown(_)) { 16 } else { length };
    Some(vec![Expression::Load { field, to: register(data.be32(ct::TO))?, length }])
}

fn parse_fib(data: &Fields<'_, 16>) -> Option<Expression> {
    let flags = data.be32(fib::FLAGS)?;
    let of_source = match flags & (fib::SOURCE | fib::DESTINATION) {
        fib::SOURCE => true,
        fib::DESTINATION => false,
        _ => return None,
    };
    let field = match data.be32(fib::RESULT)? {
        fib::ADDRESS_TYPE => Field::AddressType { of_source },
        fib::OIF if of_source && flags & fib::INPUT != 0 => {
            Field::ReversePath { is_presence: flags & fib::PRESENT != 0 }
        }
        _ => Field::Unknown("fib".to_owned()),
    };
    Some(Expression::Load { field, to: register(data.be32(fib::TO))?, length: 4 })
}

fn parse_compare(data: &Fields<'_, 16>) -> Result<Option<Expression>, Malformed> {
    let value = value(data, cmp::DATA)?;
    let relation = match data.be32(cmp::OP).map(u32::cast_signed) {
        Some(libc::NFT_CMP_EQ) => Relation::Equal,
        Some(libc::NFT_CMP_NEQ) => Relation::NotEqual,
        Some(libc::NFT_CMP_LT) => Relation::Less,
        Some(libc::NFT_CMP_LTE) => Relation::AtMost,
        Some(libc::NFT_CMP_GT) => Relation::Greater,
        Some(libc::NFT_CMP_GTE) => Relation::AtLeast,
        _ => return Ok(None),
    };
    let from = register(data.be32(cmp::FROM));
    Ok(from.map(|from| Expression::Compare { from, relation, value }))
}

fn parse_range(data: &Fields<'_, 16>) -> Result<Option<Expression>, Malformed> {
    let ranges = vec![(value(data, range::FROM)?, value(data, range::TO)?)];
    let negated = data.be32(range::OP) == Some(range::NOT);
    let from = register(data.be32(range::REGISTER));
    Ok(from.map(|from| Expression::Within { from, ranges, negated }))
}

fn parse_bitwise(data: &Fields<'_, 16>) -> Result<Option<Expression>, Malformed> {
    if data.be32(bitwise::OP).unwrap_or(bitwise::MASK_XOR) != bitwise::MASK_XOR {
        return Ok(None);
    }
    let (mask, xor) = (value(data, bitwise::MASK)?, value(data, bitwise::XOR)?);
    let registers = register(data.be32(bitwise::FROM)).zip(register(data.be32(bitwise::TO)));
    let registers = registers.filter(|_| mask.len() == xor.len());
    Ok(registers.map(|(from, to)| Expression::Mask { from, to, mask, xor }))
}

fn parse_lookup(data: &Fields<'_, 16>) -> Option<Expression> {
    Some(Expression::Lookup {
        from: register(data.be32(lookup::FROM))?,
        set: shown(data.name(lookup::SET)),
        to: register(data.be32(lookup::TO)),
        negated: data.be32(lookup::FLAGS).unwrap_or(0) & lookup::NOT != 0,
    })
}

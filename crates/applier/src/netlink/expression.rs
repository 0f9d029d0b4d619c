//! The expressions of our rules: as values, as libnftnl objects, and parsed from the kernel.

use nftnl::expr::{
    Bitwise, Cmp, CmpOp, Conntrack, Expression as NftnlExpression, Immediate, Ipv4HeaderField,
    Ipv6HeaderField, Masquerade, Meta, Nat, NatType, NetworkHeaderField, Payload, Register as NftnlRegister,
    Verdict,
};
use nftnl::{ProtoFamily, Rule};
use nix::libc;
use rules::Family;
use rules::ruleset::{Flowtable, Set};

use std::net::IpAddr;
use std::ptr::NonNull;

use super::attribute::{Attributes, Fields, Malformed};
use super::ffi;
use super::uapi::{
    self, DATA_VALUE, DATA_VERDICT, REGISTER_VERDICT, VERDICT_CODE, bitwise, byteorder, cmp, ct, expr,
    exthdr, flow_offload, immediate, meta, numgen, rt,
};

/// The number of a 4-byte register; `NFT_REG32_00` is 8. Addresses use register 1, which is 16 bytes wide and starts at
/// `NFT_REG32_00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Register(pub(super) u32);

/// `NFT_REG_1`
pub(super) const REGISTER_1: Register = Register(uapi::REGISTER_1);

/// One of the two addresses in the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressSide {
    Source,
    Destination,
}

/// What [`Expression::Meta`] loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetaKey {
    InputInterface,
    OutputInterface,
    NetworkProtocol,
    TransportProtocol,
}

/// An expression that our rules use. The comments show it as `nft --debug=netlink` does; the default register is 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    /// `meta load iifname => reg 1`
    Meta(MetaKey),
    /// `cmp eq reg 1 0x...`
    Equal(Vec<u8>),
    /// `cmp neq reg 1 0x...`
    NotEqual(Vec<u8>),
    /// `payload load 4b @ network header + 12 => reg 1`
    Address(AddressSide, Family),
    /// `payload load 2b @ transport header + 0 => reg 9`
    SourcePort(Register),
    /// `payload load 2b @ transport header + 2 => reg 9`
    DestinationPort(Register),
    /// `lookup reg 1 set clients4`
    Member(Set),
    /// `lookup reg 1 set forward4 dreg 1`
    Map(Set),
    /// `ct load status => reg 1`
    CtStatus,
    /// `ct load state => reg 1`
    CtState,
    /// `ct load dst_ip => reg 1 , dir original`
    OriginalAddress(Family),
    /// `ct load proto_dst => reg 9 , dir original`
    OriginalPort(Register),
    /// `bitwise reg 1 = ( reg 1 & 0x00000020 ) ^ 0x00000000`
    Mask(u32),
    /// `immediate reg 1 0x3700000a`
    Immediate(IpAddr),
    /// `nat dnat ip addr_min reg 1 proto_min reg 9`
    Dnat(Family, Register),
    /// `nat snat ip addr_min reg 1`
    Snat(Family),
    /// `masq`
    Masquerade,
    /// `numgen reg 1 = random mod 3`
    Random(u32),
    /// `flow_offload flowtable fastpath`
    Offload,
    /// `payload load 1b @ transport header + 13 => reg 1`
    TcpFlags,
    /// `bitwise reg 1 = ( reg 1 & 0x02 ) ^ 0x00`, of one byte
    MaskByte(u8),
    /// `rt load tcpmss => reg 1`
    RouteSegment,
    /// `byteorder reg 1 = hton(reg 1, 2, 2)`
    ToNetworkOrder,
    /// `immediate reg 1 0x5005`, a number of 2 bytes
    Number(u16),
    /// `exthdr write tcpopt reg 1 => 2b @ 2 + 2`: the maximum segment size of a SYN. The kernel only lowers it
    /// (`nft_exthdr_tcp_set_eval`, net/netfilter/nft_exthdr.c).
    WriteSegment,
    /// `immediate reg 0 accept`
    Accept,
    /// `immediate reg 0 drop`
    Drop,
}

/// The offset of the flags in the TCP header (RFC 9293 section 3.1).
const TCP_FLAGS: u32 = 13;

/// The TCP option Maximum Segment Size: kind, and offset and length of the number in it (RFC 9293 section 3.7.1).
const SEGMENT_OPTION: (u8, u32, u32) = (2, 2, 2);

/// The offset and length of an address in its header; nftnl does not expose them.
const fn address_field(side: AddressSide, family: Family) -> (u32, u32) {
    match (family, side) {
        (Family::Ipv4, AddressSide::Source) => (12, 4),
        (Family::Ipv4, AddressSide::Destination) => (16, 4),
        (Family::Ipv6, AddressSide::Source) => (8, 16),
        (Family::Ipv6, AddressSide::Destination) => (24, 16),
    }
}

const fn protocol(family: Family) -> ProtoFamily {
    match family {
        Family::Ipv4 => ProtoFamily::Ipv4,
        Family::Ipv6 => ProtoFamily::Ipv6,
    }
}

impl NftnlExpression for Expression {
    fn to_expr(&self, rule: &Rule<'_>) -> NonNull<nftnl_sys::nftnl_expr> {
        match self {
            Self::Meta(MetaKey::InputInterface) => Meta::IifName.to_expr(rule),
            Self::Meta(MetaKey::OutputInterface) => Meta::OifName.to_expr(rule),
            Self::Meta(MetaKey::NetworkProtocol) => Meta::NfProto.to_expr(rule),
            Self::Meta(MetaKey::TransportProtocol) => Meta::L4Proto.to_expr(rule),
            Self::Equal(value) => Cmp::new(CmpOp::Eq, value.as_slice()).to_expr(rule),
            Self::NotEqual(value) => Cmp::new(CmpOp::Neq, value.as_slice()).to_expr(rule),
            Self::Address(side, family) => Payload::Network(header_field(*side, *family)).to_expr(rule),
            Self::SourcePort(to) => ffi::payload(to.0, 0, 2).into_raw(),
            Self::DestinationPort(to) => ffi::payload(to.0, 2, 2).into_raw(),
            Self::Member(set) => ffi::lookup(*set, None).into_raw(),
            Self::Map(set) => ffi::lookup(*set, Some(REGISTER_1.0)).into_raw(),
            Self::CtStatus => Conntrack::Status.to_expr(rule),
            Self::CtState => Conntrack::State.to_expr(rule),
            Self::OriginalAddress(family) => {
                ffi::original(original_destination(*family), REGISTER_1.0).into_raw()
            }
            Self::OriginalPort(to) => ffi::original(libc::NFT_CT_PROTO_DST as u32, to.0).into_raw(),
            Self::Mask(mask) => Bitwise::new(*mask, 0u32).to_expr(rule),
            Self::Immediate(IpAddr::V4(ip)) => Immediate::new(ip.octets(), NftnlRegister::Reg1).to_expr(rule),
            Self::Immediate(IpAddr::V6(ip)) => Immediate::new(ip.octets(), NftnlRegister::Reg1).to_expr(rule),
            Self::Dnat(family, port) => ffi::dnat(protocol(*family) as u32, REGISTER_1.0, port.0).into_raw(),
            Self::Snat(family) => {
                let family = protocol(*family);
                Nat { nat_type: NatType::SNat, family, ip_register: NftnlRegister::Reg1, port_register: None }
                    .to_expr(rule)
            }
            Self::Masquerade => Masquerade.to_expr(rule),
            Self::Random(modulus) => ffi::random(REGISTER_1.0, *modulus).into_raw(),
            Self::Offload => ffi::flow_offload(Flowtable::NAME).into_raw(),
            Self::TcpFlags => ffi::payload(REGISTER_1.0, TCP_FLAGS, 1).into_raw(),
            Self::MaskByte(mask) => Bitwise::new(*mask, 0u8).to_expr(rule),
            Self::RouteSegment => ffi::route_segment(REGISTER_1.0).into_raw(),
            Self::ToNetworkOrder => ffi::to_network_order(REGISTER_1.0).into_raw(),
            Self::Number(number) => Immediate::new(number.to_be_bytes(), NftnlRegister::Reg1).to_expr(rule),
            Self::WriteSegment => ffi::write_segment(REGISTER_1.0, SEGMENT_OPTION).into_raw(),
            Self::Accept => Verdict::Accept.to_expr(rule),
            Self::Drop => Verdict::Drop.to_expr(rule),
        }
    }
}

const fn header_field(side: AddressSide, family: Family) -> NetworkHeaderField {
    match (family, side) {
        (Family::Ipv4, AddressSide::Source) => NetworkHeaderField::Ipv4(Ipv4HeaderField::Saddr),
        (Family::Ipv4, AddressSide::Destination) => NetworkHeaderField::Ipv4(Ipv4HeaderField::Daddr),
        (Family::Ipv6, AddressSide::Source) => NetworkHeaderField::Ipv6(Ipv6HeaderField::Saddr),
        (Family::Ipv6, AddressSide::Destination) => NetworkHeaderField::Ipv6(Ipv6HeaderField::Daddr),
    }
}

impl Expression {
    /// Parses `NFTA_RULE_EXPRESSIONS`; `None` if our rules do not use one of the expressions.
    pub(super) fn parse_list(list: &[u8]) -> Result<Option<Vec<Self>>, Malformed> {
        let mut expressions = Vec::new();
        for element in Attributes(list) {
            let fields = Fields::<3>::parse(element?.value)?;
            let data = Fields::parse(fields.get(expr::DATA).unwrap_or_default())?;
            match Self::parse(fields.name(expr::NAME), &Data(data)) {
                Some(expression) => expressions.push(expression),
                None => return Ok(None),
            }
        }
        Ok(Some(expressions))
    }

    /// Parses an expression from a dump, which always includes some attributes even if they were not sent.
    fn parse(name: &[u8], data: &Data<'_>) -> Option<Self> {
        match name {
            b"meta" => {
                let loads = data.exactly([(meta::TO, REG_1)], &[meta::KEY]);
                loads.then(|| meta_key(data.number(meta::KEY)?).map(Self::Meta))?
            }
            b"cmp" if data.compares(libc::NFT_CMP_EQ) => data.value(cmp::DATA).map(Self::Equal),
            b"cmp" if data.compares(libc::NFT_CMP_NEQ) => data.value(cmp::DATA).map(Self::NotEqual),
            b"payload" => payload(data),
            b"lookup" => lookup(data),
            b"ct" if data.loads_ct(libc::NFT_CT_STATUS) => Some(Self::CtStatus),
            b"ct" if data.loads_ct(libc::NFT_CT_STATE) => Some(Self::CtState),
            b"ct" => original(data),
            b"bitwise" if data.number(bitwise::LEN) == Some(1) => {
                let fixed =
                    [(bitwise::FROM, REG_1), (bitwise::TO, REG_1), (bitwise::OP, bitwise::MASK_XOR as i32)];
                let masks = data.exactly(fixed, &[bitwise::LEN, bitwise::MASK, bitwise::XOR]);
                let [mask] = data.value(bitwise::MASK)?.try_into().ok()?;
                (masks && data.value(bitwise::XOR)? == [0]).then_some(Self::MaskByte(mask))
            }
            b"bitwise" => {
                let masks = data.exactly(
                    [
                        (bitwise::FROM, REG_1),
                        (bitwise::TO, REG_1),
                        (bitwise::LEN, 4),
                        (bitwise::OP, bitwise::MASK_XOR as i32),
                    ],
                    &[bitwise::MASK, bitwise::XOR],
                );
                let keeps = data.value(bitwise::XOR)? == [0; 4];
                let mask = data.value(bitwise::MASK)?.try_into().ok().map(u32::from_ne_bytes)?;
                (masks && keeps).then_some(Self::Mask(mask))
            }
            b"immediate" if !data.0.only(&[immediate::REGISTER, immediate::DATA]) => None,
            b"immediate" => match data.number(immediate::REGISTER)? {
                REGISTER_VERDICT => match data.verdict(immediate::DATA)? {
                    libc::NF_DROP => Some(Self::Drop),
                    libc::NF_ACCEPT => Some(Self::Accept),
                    _ => None,
                },
                uapi::REGISTER_1 => match data.value(immediate::DATA)?.as_slice() {
                    &[high, low] => Some(Self::Number(u16::from_be_bytes([high, low]))),
                    value => address(value).map(Self::Immediate),
                },
                _ => None,
            },
            b"nat" => nat(data),
            b"masq" => data.exactly([], &[]).then_some(Self::Masquerade),
            b"numgen" => {
                let fixed = [(numgen::TO, REG_1), (numgen::TYPE, libc::NFT_NG_RANDOM), (numgen::OFFSET, 0)];
                let random = data.exactly(fixed, &[numgen::MODULUS]);
                random.then(|| data.number(numgen::MODULUS).map(Self::Random))?
            }
            b"rt" => data
                .exactly([(rt::TO, REG_1), (rt::KEY, rt::TCPMSS as i32)], &[])
                .then_some(Self::RouteSegment),
            b"byteorder" => {
                let fixed = [
                    (byteorder::FROM, REG_1),
                    (byteorder::TO, REG_1),
                    (byteorder::OP, byteorder::HTON as i32),
                    (byteorder::LEN, 2),
                    (byteorder::SIZE, 2),
                ];
                data.exactly(fixed, &[]).then_some(Self::ToNetworkOrder)
            }
            b"exthdr" => {
                let (kind, offset, length) = SEGMENT_OPTION;
                let fixed = [
                    (exthdr::FROM, REG_1),
                    (exthdr::OP, exthdr::TCPOPT as i32),
                    (exthdr::OFFSET, offset as i32),
                    (exthdr::LEN, length as i32),
                    (exthdr::FLAGS, 0),
                ];
                let writes =
                    data.exactly(fixed, &[exthdr::TYPE]) && data.0.get(exthdr::TYPE) == Some(&[kind]);
                writes.then_some(Self::WriteSegment)
            }
            b"flow_offload" => {
                let ours = data.0.only(&[flow_offload::TABLE])
                    && data.0.name(flow_offload::TABLE) == Flowtable::NAME.as_bytes();
                ours.then_some(Self::Offload)
            }
            _ => None,
        }
    }
}

/// `NFT_REG_1`, as the value of an attribute.
const REG_1: i32 = uapi::REGISTER_1 as i32;

/// The attributes of an expression; none of our expressions has more than 7.
struct Data<'a>(Fields<'a, 8>);

impl Data<'_> {
    fn number(&self, kind: u16) -> Option<u32> {
        self.0.be32(kind)
    }

    fn value(&self, kind: u16) -> Option<Vec<u8>> {
        let value = Fields::<2>::parse(self.0.get(kind)?).ok()?;
        value.get(DATA_VALUE).map(<[u8]>::to_vec)
    }

    /// The code of a verdict that does not name a chain.
    fn verdict(&self, kind: u16) -> Option<i32> {
        let data = Fields::<3>::parse(self.0.get(kind)?).ok()?;
        let verdict = Fields::<3>::parse(data.get(DATA_VERDICT)?).ok()?;
        let code = verdict.be32(VERDICT_CODE)?;
        verdict.only(&[VERDICT_CODE]).then_some(code.cast_signed())
    }

    /// Whether this is `cmp OP reg 1`, with any value.
    fn compares(&self, operation: i32) -> bool {
        self.exactly([(cmp::FROM, REG_1), (cmp::OP, operation)], &[cmp::DATA])
    }

    /// Whether this is `ct load KEY => reg 1`, without a direction.
    fn loads_ct(&self, key: i32) -> bool {
        self.exactly([(ct::TO, REG_1), (ct::KEY, key)], &[])
    }

    /// Whether the `fixed` attributes have these numbers and all others are in `free`; a missing attribute counts as 0.
    fn exactly<const N: usize>(&self, fixed: [(u16, i32); N], free: &[u16]) -> bool {
        let kinds: Vec<u16> = fixed.iter().map(|&(kind, _)| kind).chain(free.iter().copied()).collect();
        let number = |kind| self.number(kind).unwrap_or(0);
        self.0.only(&kinds) && fixed.iter().all(|&(kind, value)| i64::from(number(kind)) == i64::from(value))
    }
}

fn meta_key(key: u32) -> Option<MetaKey> {
    match i32::try_from(key).ok()? {
        libc::NFT_META_IIFNAME => Some(MetaKey::InputInterface),
        libc::NFT_META_OIFNAME => Some(MetaKey::OutputInterface),
        libc::NFT_META_NFPROTO => Some(MetaKey::NetworkProtocol),
        libc::NFT_META_L4PROTO => Some(MetaKey::TransportProtocol),
        _ => None,
    }
}

const fn original_destination(family: Family) -> u32 {
    match family {
        Family::Ipv4 => ct::DST_IP,
        Family::Ipv6 => ct::DST_IP6,
    }
}

fn original(data: &Data<'_>) -> Option<Expression> {
    let is_original =
        data.0.only(&[ct::TO, ct::KEY, ct::DIRECTION]) && data.0.get(ct::DIRECTION) == Some(&[ct::ORIGINAL]);
    let (register, key) = (Register(data.number(ct::TO)?), data.number(ct::KEY)?);
    let families = [Family::Ipv4, Family::Ipv6];
    match families.into_iter().find(|&family| original_destination(family) == key) {
        _ if !is_original => None,
        Some(family) => (register == REGISTER_1).then_some(Expression::OriginalAddress(family)),
        None => (key == libc::NFT_CT_PROTO_DST as u32).then_some(Expression::OriginalPort(register)),
    }
}

fn payload(data: &Data<'_>) -> Option<Expression> {
    use super::uapi::payload::{BASE, LEN, OFFSET, TO};
    if !data.0.only(&[TO, BASE, OFFSET, LEN]) {
        return None;
    }
    let [register, base, offset, length] =
        [data.number(TO)?, data.number(BASE)?, data.number(OFFSET)?, data.number(LEN)?];
    match i32::try_from(base).ok()? {
        libc::NFT_PAYLOAD_TRANSPORT_HEADER if (offset, length, register) == (TCP_FLAGS, 1, REGISTER_1.0) => {
            Some(Expression::TcpFlags)
        }
        libc::NFT_PAYLOAD_TRANSPORT_HEADER if (offset, length) == (0, 2) => {
            Some(Expression::SourcePort(Register(register)))
        }
        libc::NFT_PAYLOAD_TRANSPORT_HEADER if (offset, length) == (2, 2) => {
            Some(Expression::DestinationPort(Register(register)))
        }
        libc::NFT_PAYLOAD_NETWORK_HEADER if register == REGISTER_1.0 => {
            let fields = [AddressSide::Source, AddressSide::Destination].into_iter();
            let mut fields = fields.flat_map(|side| [(side, Family::Ipv4), (side, Family::Ipv6)]);
            let (side, family) =
                fields.find(|&(side, family)| address_field(side, family) == (offset, length))?;
            Some(Expression::Address(side, family))
        }
        _ => None,
    }
}

fn lookup(data: &Data<'_>) -> Option<Expression> {
    use super::uapi::lookup::{FLAGS, FROM, SET, TO};
    let set = Set::from_name(std::str::from_utf8(data.0.name(SET)).ok()?)?;
    match data.number(TO) {
        None => data.exactly([(FROM, REG_1), (FLAGS, 0)], &[SET]).then_some(Expression::Member(set)),
        Some(_) => {
            let maps = data.exactly([(FROM, REG_1), (TO, REG_1), (FLAGS, 0)], &[SET]);
            maps.then_some(Expression::Map(set))
        }
    }
}

fn nat(data: &Data<'_>) -> Option<Expression> {
    use super::uapi::nat::{
        ADDRESS_MAX, ADDRESS_MIN, FAMILY, FLAGS, MAP_IPS, PORT_MAX, PORT_MIN, PROTO_SPECIFIED, TYPE,
    };
    // The kernel sets these two itself; the other flags are random, persistent, and so on.
    let plain = data.number(FLAGS).unwrap_or(0) & !(MAP_IPS | PROTO_SPECIFIED) == 0;
    let family = match i32::try_from(data.number(FAMILY)?).ok()? {
        libc::NFPROTO_IPV4 => Family::Ipv4,
        libc::NFPROTO_IPV6 => Family::Ipv6,
        _ => return None,
    };
    // Without an upper end, the kernel dumps the lower end as the upper one.
    let port = data.number(PORT_MIN);
    let single = data.number(ADDRESS_MAX).is_none_or(|max| max == uapi::REGISTER_1)
        && data.number(PORT_MAX).is_none_or(|max| Some(max) == port);
    let free = [TYPE, FAMILY, ADDRESS_MAX, PORT_MIN, PORT_MAX, FLAGS];
    let plain = plain && single && data.exactly([(ADDRESS_MIN, REG_1)], &free);
    match (i32::try_from(data.number(TYPE)?).ok()?, port) {
        (libc::NFT_NAT_DNAT, Some(port)) if plain => Some(Expression::Dnat(family, Register(port))),
        (libc::NFT_NAT_SNAT, None) if plain => Some(Expression::Snat(family)),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let ipv4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    ipv4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

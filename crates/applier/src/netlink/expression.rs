//! The expressions that our rules consist of: as values, as libnftnl's objects, and read from the kernel.

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
use super::uapi::{DATA_VALUE, DATA_VERDICT, VERDICT_CODE, expr};

/// A register of 4 bytes by its number, `NFT_REG32_00` being 8. Addresses go to register 1, which is 16 bytes wide
/// and begins where `NFT_REG32_00` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Register(pub(super) u32);

/// `NFT_REG_1`
pub(super) const REGISTER_1: Register = Register(1);

/// One of the header's two addresses.
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

/// An expression in our vocabulary. The comments say it as `nft --debug=netlink` does; where no register is named
/// it is register 1.
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
    /// `immediate reg 0 drop`
    Drop,
}

/// Offset and length of an address in its header, which nftnl keeps to itself.
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
            Self::SourcePort(to) => ffi::tcp_port(to.0, 0),
            Self::DestinationPort(to) => ffi::tcp_port(to.0, 2),
            Self::Member(set) => ffi::lookup(*set, None),
            Self::Map(set) => ffi::lookup(*set, Some(REGISTER_1.0)),
            Self::CtStatus => Conntrack::Status.to_expr(rule),
            Self::CtState => Conntrack::State.to_expr(rule),
            Self::OriginalAddress(family) => ffi::original(original_destination(*family), REGISTER_1.0),
            Self::OriginalPort(to) => ffi::original(libc::NFT_CT_PROTO_DST as u32, to.0),
            Self::Mask(mask) => Bitwise::new(*mask, 0u32).to_expr(rule),
            Self::Immediate(IpAddr::V4(ip)) => Immediate::new(ip.octets(), NftnlRegister::Reg1).to_expr(rule),
            Self::Immediate(IpAddr::V6(ip)) => Immediate::new(ip.octets(), NftnlRegister::Reg1).to_expr(rule),
            Self::Dnat(family, port) => ffi::dnat(protocol(*family) as u32, REGISTER_1.0, port.0),
            Self::Snat(family) => {
                let family = protocol(*family);
                Nat { nat_type: NatType::SNat, family, ip_register: NftnlRegister::Reg1, port_register: None }
                    .to_expr(rule)
            }
            Self::Masquerade => Masquerade.to_expr(rule),
            Self::Random(modulus) => ffi::random(REGISTER_1.0, *modulus),
            Self::Offload => ffi::flow_offload(Flowtable::NAME),
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
    /// The expressions in `NFTA_RULE_EXPRESSIONS`; `None` if one is not in our vocabulary.
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

    /// An expression as the kernel dumps it: some attributes are always there, even if they were not sent.
    fn parse(name: &[u8], data: &Data<'_>) -> Option<Self> {
        match name {
            b"meta" => data.exactly([(1, 1)], &[2]).then(|| meta_key(data.number(2)?).map(Self::Meta))?,
            b"cmp" if data.exactly([(1, 1), (2, libc::NFT_CMP_EQ)], &[3]) => data.value(3).map(Self::Equal),
            b"cmp" if data.exactly([(1, 1), (2, libc::NFT_CMP_NEQ)], &[3]) => {
                data.value(3).map(Self::NotEqual)
            }
            b"payload" => data.exactly([], &[1, 2, 3, 4]).then(|| payload(data))?,
            b"lookup" => lookup(data),
            b"ct" if data.exactly([(1, 1), (2, libc::NFT_CT_STATUS)], &[]) => Some(Self::CtStatus),
            b"ct" if data.exactly([(1, 1), (2, libc::NFT_CT_STATE)], &[]) => Some(Self::CtState),
            b"ct" => original(data),
            b"bitwise" => {
                // NFTA_BITWISE_OP: NFT_BITWISE_BOOL, which since Linux 6.13 is called NFT_BITWISE_MASK_XOR.
                let masks = data.exactly([(1, 1), (2, 1), (3, 4), (6, 0)], &[4, 5]);
                let keeps = data.value(5)? == [0; 4];
                let mask = data.value(4)?.try_into().ok().map(u32::from_ne_bytes)?;
                (masks && keeps).then_some(Self::Mask(mask))
            }
            // NFT_REG_VERDICT
            b"immediate" if data.number(1) == Some(0) => {
                (data.exactly([(1, 0)], &[2]) && data.verdict(2)? == libc::NF_DROP).then_some(Self::Drop)
            }
            b"immediate" => {
                data.exactly([(1, 1)], &[2]).then(|| address(&data.value(2)?).map(Self::Immediate))?
            }
            b"nat" => nat(data),
            b"masq" => data.exactly([], &[]).then_some(Self::Masquerade),
            b"numgen" => {
                let random = data.exactly([(1, 1), (3, libc::NFT_NG_RANDOM), (4, 0)], &[2]);
                random.then(|| data.number(2).map(Self::Random))?
            }
            b"flow_offload" => {
                let ours = data.exactly([], &[1]) && data.0.name(1) == Flowtable::NAME.as_bytes();
                ours.then_some(Self::Offload)
            }
            _ => None,
        }
    }
}

/// The attributes of an expression by number; no expression of ours has more than 7.
struct Data<'a>(Fields<'a, 8>);

impl Data<'_> {
    fn number(&self, kind: u16) -> Option<u32> {
        self.0.be32(kind)
    }

    fn value(&self, kind: u16) -> Option<Vec<u8>> {
        let value = Fields::<2>::parse(self.0.get(kind)?).ok()?;
        value.get(DATA_VALUE).map(<[u8]>::to_vec)
    }

    /// The code of a verdict that goes to no other chain.
    fn verdict(&self, kind: u16) -> Option<i32> {
        let data = Fields::<3>::parse(self.0.get(kind)?).ok()?;
        let verdict = Fields::<3>::parse(data.get(DATA_VERDICT)?).ok()?;
        let code = verdict.be32(VERDICT_CODE)?;
        verdict.only(&[VERDICT_CODE]).then_some(code.cast_signed())
    }

    /// Whether these attributes have these numbers, those are there with any value, and there are no others.
    /// An attribute that is not sent and not dumped stands for 0.
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

/// `NFT_CT_DST_IP` and `NFT_CT_DST_IP6`, `linux/netfilter/nf_tables.h`; since Linux 4.17.
const fn original_destination(family: Family) -> u32 {
    match family {
        Family::Ipv4 => 20,
        Family::Ipv6 => 22,
    }
}

/// NFTA_CT: 1 dreg, 2 key, 3 direction, which is one byte
fn original(data: &Data<'_>) -> Option<Expression> {
    // IP_CT_DIR_ORIGINAL
    let is_original = data.0.only(&[1, 2, 3]) && data.0.get(3) == Some(&[0]);
    let (register, key) = (Register(data.number(1)?), data.number(2)?);
    let families = [Family::Ipv4, Family::Ipv6];
    match families.into_iter().find(|&family| original_destination(family) == key) {
        _ if !is_original => None,
        Some(family) => (register == REGISTER_1).then_some(Expression::OriginalAddress(family)),
        None => (key == libc::NFT_CT_PROTO_DST as u32).then_some(Expression::OriginalPort(register)),
    }
}

fn payload(data: &Data<'_>) -> Option<Expression> {
    let [register, base, offset, length] =
        [data.number(1)?, data.number(2)?, data.number(3)?, data.number(4)?];
    match i32::try_from(base).ok()? {
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

/// NFTA_LOOKUP: 1 set, 2 sreg, 3 dreg, 5 flags
fn lookup(data: &Data<'_>) -> Option<Expression> {
    let set = Set::from_name(std::str::from_utf8(data.0.name(1)).ok()?)?;
    match data.number(3) {
        None => data.exactly([(2, 1), (5, 0)], &[1]).then_some(Expression::Member(set)),
        Some(_) => data.exactly([(2, 1), (3, 1), (5, 0)], &[1]).then_some(Expression::Map(set)),
    }
}

/// NFTA_NAT: 1 type, 2 family, 3 addr_min, 4 addr_max, 5 proto_min, 6 proto_max, 7 flags
fn nat(data: &Data<'_>) -> Option<Expression> {
    // The kernel sets these two itself and shows them; the others are random, persistent, and so on.
    const IMPLIED: u32 = 1 /* NF_NAT_RANGE_MAP_IPS */ | 2 /* NF_NAT_RANGE_PROTO_SPECIFIED */;
    let plain = data.number(7).unwrap_or(0) & !IMPLIED == 0;
    let family = match i32::try_from(data.number(2)?).ok()? {
        libc::NFPROTO_IPV4 => Family::Ipv4,
        libc::NFPROTO_IPV6 => Family::Ipv6,
        _ => return None,
    };
    // Where no upper end was sent, it is the lower one, and shown.
    let port = data.number(5);
    let one = data.number(4).is_none_or(|max| max == REGISTER_1.0)
        && data.number(6).is_none_or(|max| Some(max) == port);
    let plain = plain && one && data.exactly([(3, 1)], &[1, 2, 4, 5, 6, 7]);
    match (i32::try_from(data.number(1)?).ok()?, port) {
        (libc::NFT_NAT_DNAT, Some(port)) if plain => Some(Expression::Dnat(family, Register(port))),
        (libc::NFT_NAT_SNAT, None) if plain => Some(Expression::Snat(family)),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let ipv4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    ipv4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

//! What a rule of somebody else's does to the packets that ours forward, as far as it can be told from outside.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use nix::libc;

use super::attribute::{Attributes, Fields, Malformed, shown};
use super::uapi::{DATA_VALUE, cmp, expr, immediate, meta, nat, payload, range, rule, xt};

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing that stands in a forwarded packet's way for sure.
    Other,
    /// It drops or rejects whatever comes to it.
    Refuses,
    /// It leads packets elsewhere.
    Takes(Taken),
}

/// Packets that a rule of somebody else's leads elsewhere: by `dnat`, `redirect`, `tproxy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The chain that the rule is in, control characters escaped.
    pub chain: String,
    /// The TCP ports that it is about, as far as it says so in words that are understood here; else all.
    pub ports: RangeInclusive<u16>,
    /// The one IPv4 destination that it is about; `None`: any, or it is not understood.
    pub address: Option<Ipv4Addr>,
    /// The interface that packets have to come in by, or how its name begins, likewise.
    pub interface: Option<Interface>,
    /// Whether it has no other condition, so that it takes every such packet that its chain meets.
    pub is_certain: bool,
}

/// A condition on an interface's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interface {
    /// `iifname "eth0"`
    Named(String),
    /// `iifname "eth*"`
    Beginning(String),
}

impl Taken {
    /// Whether it may be about packets that come in by this interface to this port of this address.
    pub fn may_take(&self, interface: &str, address: IpAddr, port: u16) -> bool {
        let comes_in = match &self.interface {
            None => true,
            Some(Interface::Named(name)) => name == interface,
            Some(Interface::Beginning(start)) => interface.starts_with(start.as_str()),
        };
        comes_in && self.ports.contains(&port) && self.address.is_none_or(|to| IpAddr::V4(to) == address)
    }
}

/// What a register holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loaded {
    Protocol,
    Interface,
    Destination,
    DestinationPort,
    Unknown,
}

/// What of a rule's expressions is read so far.
struct Reader {
    loaded: Loaded,
    low: u16,
    high: u16,
    address: Option<Ipv4Addr>,
    interface: Option<Interface>,
    has_condition: bool,
    /// Whether every condition so far is understood.
    is_certain: bool,
    is_of_another_protocol: bool,
}

/// `NFT_MSG_NEWRULE`: its effect on TCP packets.
pub(super) fn effect(fields: &Fields<'_, 16>) -> Result<Effect, Malformed> {
    let mut reader = Reader::new();
    let mut verdict = Effect::Other;
    for element in Attributes(fields.get(rule::EXPRESSIONS).unwrap_or_default()) {
        let expression = Fields::<4>::parse(element?.value)?;
        let data = Fields::<16>::parse(expression.get(expr::DATA).unwrap_or_default())?;
        let takes = |reader: &Reader| Effect::Takes(reader.taken(fields.name(rule::CHAIN)));
        match (expression.name(expr::NAME), data.name(xt::NAME)) {
            (b"counter" | b"log", _) => {}
            (b"reject", _) | (b"target", b"REJECT") => verdict = Effect::Refuses,
            (b"immediate", _) if drops(&data)? => verdict = Effect::Refuses,
            (b"redir" | b"tproxy", _) | (b"target", b"DNAT" | b"REDIRECT" | b"TPROXY") => {
                verdict = takes(&reader);
            }
            (b"nat", _) if data.be32(nat::TYPE) == Some(libc::NFT_NAT_DNAT as u32) => {
                verdict = takes(&reader);
            }
            // A value for what follows, or a verdict that is neither of the two.
            (b"immediate", _) => reader.loaded = Loaded::Unknown,
            (name, _) => reader.read(name, &data)?,
        }
    }
    Ok(match verdict {
        Effect::Refuses if reader.has_condition => Effect::Other,
        Effect::Takes(_) if reader.is_of_another_protocol => Effect::Other,
        verdict => verdict,
    })
}

impl Reader {
    fn new() -> Self {
        Self {
            loaded: Loaded::Unknown,
            low: 0,
            high: u16::MAX,
            address: None,
            interface: None,
            has_condition: false,
            is_certain: true,
            is_of_another_protocol: false,
        }
    }

    /// Reads a condition, or what loads its operand. Rules of iptables and nft use one register, one after the other.
    fn read(&mut self, name: &[u8], data: &Fields<'_, 16>) -> Result<(), Malformed> {
        self.has_condition = true;
        match name {
            b"meta" => {
                self.loaded = match data.be32(meta::KEY).map(u32::cast_signed) {
                    Some(libc::NFT_META_L4PROTO) => Loaded::Protocol,
                    Some(libc::NFT_META_IIFNAME) => Loaded::Interface,
                    _ => Loaded::Unknown,
                };
            }
            b"payload" => {
                let place = (data.be32(payload::BASE), data.be32(payload::OFFSET), data.be32(payload::LEN));
                self.loaded = match place {
                    (Some(payload::TRANSPORT), Some(2), Some(2)) => Loaded::DestinationPort,
                    (Some(payload::NETWORK), Some(16), Some(4)) => Loaded::Destination,
                    _ => Loaded::Unknown,
                };
            }
            b"cmp" => {
                let is_understood = self.compare(data.be32(cmp::OP), value(data, cmp::DATA)?).is_some();
                self.is_certain &= is_understood;
            }
            b"range" => {
                let is_within = data.be32(range::OP) == Some(range::EQ);
                match (self.loaded, port(value(data, range::FROM)?), port(value(data, range::TO)?)) {
                    (Loaded::DestinationPort, Some(from), Some(to)) if is_within => self.narrow(from, to),
                    _ => self.is_certain = false,
                }
            }
            // Masked, looked up: the condition is there, but not understood.
            _ => (self.loaded, self.is_certain) = (Loaded::Unknown, false),
        }
        Ok(())
    }

    /// `None`: it is not understood.
    fn compare(&mut self, operator: Option<u32>, value: &[u8]) -> Option<()> {
        match (self.loaded, operator?.cast_signed()) {
            (Loaded::Protocol, libc::NFT_CMP_EQ) => {
                self.is_of_another_protocol = value.first() != Some(&(libc::IPPROTO_TCP as u8));
            }
            (Loaded::Interface, libc::NFT_CMP_EQ) => {
                // A name ends with a NUL, what a name begins with does not.
                let name = value.split(|&byte| byte == 0).next().unwrap_or_default();
                let kind = if name.len() < value.len() { Interface::Named } else { Interface::Beginning };
                self.interface = Some(kind(String::from_utf8_lossy(name).into_owned()));
            }
            (Loaded::Destination, libc::NFT_CMP_EQ) => {
                self.address = Some(<[u8; 4]>::try_from(value).ok()?.into());
            }
            (Loaded::DestinationPort, libc::NFT_CMP_EQ) => self.narrow(port(value)?, port(value)?),
            (Loaded::DestinationPort, libc::NFT_CMP_GTE) => self.narrow(port(value)?, self.high),
            (Loaded::DestinationPort, libc::NFT_CMP_LTE) => self.narrow(self.low, port(value)?),
            _ => return None,
        }
        Some(())
    }

    /// Each condition holds besides those before it; of two that exclude each other no port is left.
    fn narrow(&mut self, low: u16, high: u16) {
        (self.low, self.high) = (self.low.max(low), self.high.min(high));
    }

    fn taken(&self, chain: &[u8]) -> Taken {
        Taken {
            chain: shown(chain),
            ports: self.low..=self.high,
            address: self.address,
            interface: self.interface.clone(),
            is_certain: self.is_certain,
        }
    }
}

fn value<'a>(data: &Fields<'a, 16>, kind: u16) -> Result<&'a [u8], Malformed> {
    Ok(Fields::<2>::parse(data.get(kind).unwrap_or_default())?.get(DATA_VALUE).unwrap_or_default())
}

fn port(value: &[u8]) -> Option<u16> {
    value.try_into().ok().map(u16::from_be_bytes)
}

/// Whether an `immediate` expression is the verdict `drop`.
fn drops(data: &Fields<'_, 16>) -> Result<bool, Malformed> {
    let value = Fields::<4>::parse(data.get(immediate::DATA).unwrap_or_default())?;
    let verdict = Fields::<4>::parse(value.get(immediate::VERDICT).unwrap_or_default())?;
    Ok(verdict.be32(immediate::CODE) == Some(libc::NF_DROP as u32))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_end_and_never_panic(bytes: Vec<u8>) {
            if let Ok(fields) = Fields::<16>::parse(&bytes) {
                let _ = effect(&fields);
            }
        }
    }

    #[test]
    fn two_conditions_on_the_port_hold_together() {
        let mut reader = Reader::new();
        reader.narrow(6379, 6390);
        reader.narrow(0, 6380);
        assert_eq!(reader.taken(b"c").ports, 6379..=6380);
        reader.narrow(80, 80);
        assert!(reader.taken(b"c").ports.is_empty());
    }

    #[test]
    fn a_rule_takes_the_ports_the_address_and_the_interface_that_it_names() {
        let (gateway, other): (IpAddr, IpAddr) = ("10.0.0.55".parse().unwrap(), "10.0.0.56".parse().unwrap());
        let any = Taken {
            chain: "c".to_owned(),
            ports: 0..=u16::MAX,
            address: None,
            interface: None,
            is_certain: true,
        };
        let takes = |taken: Taken, address| taken.may_take("eth0", address, 6379);
        assert!(takes(any.clone(), gateway));
        assert!(takes(Taken { ports: 6370..=6380, ..any.clone() }, gateway));
        assert!(!takes(Taken { ports: 80..=80, ..any.clone() }, gateway));
        assert!(!takes(Taken { address: "10.0.0.55".parse().ok(), ..any.clone() }, other));
        let by = |interface| Taken { interface: Some(interface), ..any.clone() };
        assert!(takes(by(Interface::Named("eth0".into())), gateway));
        assert!(takes(by(Interface::Beginning("eth".into())), gateway));
        assert!(!takes(by(Interface::Named("docker0".into())), gateway));
    }
}

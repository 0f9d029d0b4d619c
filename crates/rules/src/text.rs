//! nft syntax: how each object of the ruleset is written (nft(8)), and read back where files hold it.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use smol_str::{SmolStr, SmolStrBuilder};

use crate::ruleset::{
    AddrPort, AddressRange, Chain, Direction, Element, Family, Flowtable, Key, ListIndex, Rule, Ruleset, Set,
    SetKind, SnatTo, SpreadIndex, TABLE, TABLE_COMMENT,
};

impl Family {
    /// The word for the network header: `ip` or `ip6`.
    pub const fn keyword(self) -> &'static str {
        match self {
            Self::Ipv4 => "ip",
            Self::Ipv6 => "ip6",
        }
    }

    const fn address_type(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4_addr",
            Self::Ipv6 => "ipv6_addr",
        }
    }
}

/// `10.0.0.55:6379`, `[fd00::55]:6379`: the form that people and clients use; inside a ruleset it is
/// `10.0.0.55 . 6379`.
impl Display for AddrPort {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(address) => f.write_str(&joined(address, ":", self.port.get())),
            IpAddr::V6(address) => write!(f, "[{address}]:{}", self.port),
        }
    }
}

/// An address and a port as one text. A ruleset holds tens of thousands of these, and `write!` takes ten times as long.
fn joined(address: Ipv4Addr, separator: &str, port: u16) -> SmolStr {
    fn put(text: &mut SmolStrBuilder, number: u16) {
        if number >= 10 {
            put(text, number / 10);
        }
        text.push(char::from_digit(u32::from(number % 10), 10).unwrap_or_default());
    }
    let [a, b, c, d] = address.octets();
    // 255.255.255.255 . 65535 is as long as a text may be that needs no allocation.
    let mut text = SmolStrBuilder::new();
    for (before, number) in [("", a), (".", b), (".", c), (".", d)] {
        text.push_str(before);
        put(&mut text, number.into());
    }
    text.push_str(separator);
    put(&mut text, port);
    text.finish()
}

/// Why a text is no endpoint, key or range of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct SyntaxError {
    /// What was found.
    pub text: String,
    /// What it should be: `an address and port`.
    pub expected: &'static str,
}

impl FromStr for AddrPort {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        let parsed = text.rsplit_once(':').and_then(|(host, port)| {
            let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            let address = match bracketed {
                Some(host) => IpAddr::V6(host.parse::<Ipv6Addr>().ok()?),
                None => IpAddr::V4(host.parse().ok()?),
            };
            Some(Self { address, port: port.parse().ok()? })
        });
        parsed.ok_or_else(|| SyntaxError { text: text.to_owned(), expected: "an address and port" })
    }
}

/// An endpoint as a concatenation, `10.0.0.55 . 6379`.
struct Concatenation(AddrPort);

impl Display for Concatenation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.address {
            IpAddr::V4(address) => f.write_str(&joined(address, " . ", self.0.port.get())),
            IpAddr::V6(address) => write!(f, "{address} . {}", self.0.port),
        }
    }
}

/// As nft lists it: a lone address, a prefix where the range is one, else `first-last`.
impl Display for AddressRange {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.first(), self.last());
        if first == last {
            return write!(f, "{first}");
        }
        match prefix(first, last) {
            Some(network) => write!(f, "{network}"),
            None => write!(f, "{first}-{last}"),
        }
    }
}

fn prefix(first: IpAddr, last: IpAddr) -> Option<IpNet> {
    let length = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => (first.to_bits() ^ last.to_bits()).leading_zeros(),
        (IpAddr::V6(first), IpAddr::V6(last)) => (first.to_bits() ^ last.to_bits()).leading_zeros(),
        _ => return None,
    };
    let network = IpNet::new(first, u8::try_from(length).ok()?).ok()?;
    (network.network() == first && network.broadcast() == last).then_some(network)
}

impl FromStr for AddressRange {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        let range = if let Some((first, last)) = text.split_once('-') {
            first.parse().ok().zip(last.parse().ok()).and_then(|(first, last)| Self::new(first, last))
        } else if let Ok(network) = text.parse::<IpNet>() {
            Self::new(network.network(), network.broadcast())
        } else {
            text.parse().ok().and_then(|address| Self::new(address, address))
        };
        range.ok_or_else(|| SyntaxError {
            text: text.to_owned(),
            expected: "an address, a network or a range",
        })
    }
}

impl Display for Key {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Addresses(range) => range.fmt(f),
            Self::AddrPort(endpoint) => Concatenation(endpoint).fmt(f),
        }
    }
}

/// An element as it stands between the braces: `key comment "id" : data`.
pub(crate) struct ElementText<'a>(pub(crate) &'a Key, pub(crate) &'a Element);

impl Display for ElementText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(key, element) = self;
        write!(f, "{key}")?;
        if let Some(comment) = &element.comment {
            write!(f, " comment \"{comment}\"")?;
        }
        match element.data {
            Some(target) => write!(f, " : {}", Concatenation(target)),
            None => Ok(()),
        }
    }
}

impl Display for Set {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Set {
    /// `map` or `set`.
    pub const fn keyword(self) -> &'static str {
        if self.is_map() { "map" } else { "set" }
    }

    /// The lines that declare the set's type and flags.
    pub(crate) fn declaration(self) -> Vec<String> {
        let address = self.family.address_type();
        let kind = match self.kind {
            SetKind::Clients(_) => format!("type {address}"),
            SetKind::Routed(_) | SetKind::Backends | SetKind::Listeners => {
                format!("type {address} . inet_service")
            }
            SetKind::Forward(_) | SetKind::Spread(..) => {
                format!("type {address} . inet_service : {address} . inet_service")
            }
        };
        let mut lines = vec![kind];
        if self.is_interval() {
            lines.push("flags interval".to_owned());
        }
        if self.is_map() {
            lines.push("counter".to_owned());
        }
        lines
    }
}

impl Display for Chain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Chain {
    /// The line that makes it a base chain.
    pub(crate) const fn declaration(self) -> &'static str {
        match self {
            Self::Prerouting => "type nat hook prerouting priority dstnat; policy accept;",
            Self::Confine => "type filter hook prerouting priority dstnat + 10; policy accept;",
            Self::Input => "type filter hook input priority filter; policy accept;",
            Self::Forward => "type filter hook forward priority filter; policy accept;",
            Self::Postrouting => "type nat hook postrouting priority srcnat; policy accept;",
        }
    }
}

impl Flowtable {
    /// The lines that declare its place and its device.
    pub(crate) fn declaration(&self) -> [String; 2] {
        let devices = format!("devices = {{ \"{}\" }}", self.interface);
        ["hook ingress priority filter".to_owned(), devices]
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forward { interface, family, list } => {
                write!(f, "iifname \"{interface}\" ")?;
                translated(f, Set::new(SetKind::Forward(*list), *family), *list)
            }
            Self::Spread { interface, family, list, place } => {
                write!(f, "iifname \"{interface}\" ")?;
                turn_of(f, *place)?;
                translated(f, Set::new(SetKind::Spread(*list, *place), *family), *list)
            }
            Self::Snat { interface, family, to, place } => {
                let ip = family.keyword();
                if let Some(interface) = interface {
                    write!(f, "oifname \"{interface}\" ")?;
                }
                if let Some(place) = place {
                    turn_of(f, *place)?;
                }
                f.write_str("ct status dnat ")?;
                ours(f, *family)?;
                match to {
                    SnatTo::Address(address) => write!(f, "snat {ip} to {address}"),
                    SnatTo::Masquerade => f.write_str("masquerade"),
                }
            }
            Self::Offload { interface, family } => {
                write!(f, "oifname \"{interface}\" ct state established ct status dnat ")?;
                ours(f, *family)?;
                write!(f, "flow add @{}", Flowtable::NAME)
            }
            Self::DropInvalidAnswers { family } => {
                let (ip, backends) = (family.keyword(), Set::new(SetKind::Backends, *family));
                write!(f, "ct state invalid {ip} saddr . tcp sport @{backends} drop")
            }
            Self::DropInvalidRequests { family } => {
                let (ip, listeners) = (family.keyword(), Set::new(SetKind::Listeners, *family));
                write!(f, "ct state invalid {ip} daddr . tcp dport @{listeners} drop")
            }
            Self::DropOthers { interface } => {
                write!(f, "iifname \"{interface}\" ct state invalid,new,untracked ct status ! dnat drop")
            }
            Self::PassOthers { tunnels } => {
                tunnels.iter().try_for_each(|tunnel| write!(f, "iifname != \"{tunnel}\" "))?;
                f.write_str("accept")
            }
            Self::PassEstablished => f.write_str("ct state established,related accept"),
            Self::PassRouted { family, list } => {
                let (clients, routed) = (SetKind::Clients(*list), SetKind::Routed(*list));
                let (ip, clients, routed) =
                    (family.keyword(), Set::new(clients, *family), Set::new(routed, *family));
                write!(f, "ct state new {ip} saddr @{clients} {ip} daddr . tcp dport @{routed} accept")
            }
            Self::DropRest => f.write_str("drop"),
            Self::DropInto { interface } => {
                write!(f, "oifname \"{interface}\" ct state invalid,new,untracked drop")
            }
            Self::ClampToRoute { interface, direction } => {
                let word = match direction {
                    Direction::In => "iifname",
                    Direction::Out => "oifname",
                };
                write!(f, "{word} \"{interface}\" tcp flags syn tcp option maxseg size set rt mtu")
            }
            Self::Clamp { family, direction, size } => {
                f.write_str("ct status dnat tcp flags syn ")?;
                match direction {
                    Direction::In => ours(f, *family)?,
                    Direction::Out => answers(f, *family)?,
                }
                write!(f, "tcp option maxseg size set {size}")
            }
            Self::SnatRouted { interface, family } => {
                let (ip, backends) = (family.keyword(), Set::new(SetKind::Backends, *family));
                write!(f, "iifname \"{interface}\" {ip} daddr . tcp dport @{backends} masquerade")
            }
        }
    }
}

fn turn_of(f: &mut Formatter<'_>, place: SpreadIndex) -> fmt::Result {
    write!(f, "numgen random mod {} 0 ", place.number())
}

/// What a map leads clients' packets to.
fn translated(f: &mut Formatter<'_>, map: Set, list: ListIndex) -> fmt::Result {
    let (ip, clients) = (map.family.keyword(), Set::new(SetKind::Clients(list), map.family));
    write!(f, "{ip} saddr @{clients} dnat {ip} to {ip} daddr . tcp dport map @{map}")
}

/// The same flow, of packets from the target.
fn answers(f: &mut Formatter<'_>, family: Family) -> fmt::Result {
    let (ip, backends) = (family.keyword(), Set::new(SetKind::Backends, family));
    write!(f, "{ip} saddr . tcp sport @{backends} ")?;
    from_listener(f, family)
}

/// A flow from a listener to a target. The target comes first: nft reads `ct original proto-dst` only where it knows the
/// transport protocol already.
fn ours(f: &mut Formatter<'_>, family: Family) -> fmt::Result {
    let (ip, backends) = (family.keyword(), Set::new(SetKind::Backends, family));
    write!(f, "{ip} daddr . tcp dport @{backends} ")?;
    from_listener(f, family)
}

fn from_listener(f: &mut Formatter<'_>, family: Family) -> fmt::Result {
    let (ip, listeners) = (family.keyword(), Set::new(SetKind::Listeners, family));
    write!(f, "ct original {ip} daddr . ct original proto-dst @{listeners} ")
}

/// The table as `nft list` shows it; [`Ruleset::script`] is the same in a form that replaces what is there.
impl Display for Ruleset {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {TABLE} {{")?;
        writeln!(f, "\tcomment \"{TABLE_COMMENT}\"")?;
        for (set, elements) in &self.sets {
            writeln!(f, "\n\t{} {set} {{", set.keyword())?;
            for line in set.declaration() {
                writeln!(f, "\t\t{line}")?;
            }
            for (at, (key, element)) in elements.iter().enumerate() {
                f.write_str(if at == 0 { "\t\telements = { " } else { ",\n\t\t\t     " })?;
                write!(f, "{}", ElementText(key, element))?;
            }
            f.write_str(if elements.is_empty() { "\t}\n" } else { " }\n\t}\n" })?;
        }
        if let Some(flowtable) = &self.flowtable {
            writeln!(f, "\n\tflowtable {} {{", Flowtable::NAME)?;
            for line in flowtable.declaration() {
                writeln!(f, "\t\t{line}")?;
            }
            writeln!(f, "\t}}")?;
        }
        for (chain, rules) in &self.chains {
            writeln!(f, "\n\tchain {chain} {{\n\t\t{}", chain.declaration())?;
            for rule in rules {
                writeln!(f, "\t\t{rule}")?;
            }
            writeln!(f, "\t}}")?;
        }
        writeln!(f, "}}")
    }
}

impl Ruleset {
    /// The ruleset as a script for `nft -f`, which replaces the table as a whole.
    pub fn script(&self) -> String {
        // A lone `delete` of a missing table is ENOENT and would abort the file; `add` before it makes "start from
        // empty" hold whether or not the table is there.
        format!("add table inet {TABLE}\ndelete table inet {TABLE}\n{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_written_as_nft_lists_it_and_reads_back() {
        for text in
            ["198.51.100.27", "198.51.100.0/25", "10.0.0.1-10.0.0.6", "0.0.0.0/0", "2001:db8::/32", "::/0"]
        {
            assert_eq!(text.parse::<AddressRange>().unwrap().to_string(), text);
        }
        for text in ["", "10.0.0.9-10.0.0.1", "10.0.0.1-::1", "10.0.0.0/33", "10.0.0.1:1"] {
            assert!(text.parse::<AddressRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_endpoint_reads_back() {
        for text in ["10.0.0.55:6379", "[fd00::55]:6379"] {
            assert_eq!(text.parse::<AddrPort>().unwrap().to_string(), text);
        }
        for text in ["10.0.0.55", "10.0.0.55:0", "fd00::55:6379", "host:1", "10.0.0.55:65536"] {
            assert!(text.parse::<AddrPort>().is_err(), "{text}");
        }
    }
}

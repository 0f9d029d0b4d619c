//! Reads interfaces and the main routing table with rtnetlink(7).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::libc;

use super::attribute::{Attribute, Attributes, Fields, Malformed, shown};
use super::message::{Message, build_raw};
use super::request::AnswerEnd;
use super::socket::{Bus, Socket};

/// `sizeof(struct ifinfomsg)`, `linux/rtnetlink.h`
const LINK: usize = 16;

/// `sizeof(struct rtmsg)` and of `struct rtnexthop`, `linux/rtnetlink.h`
const ROUTE: usize = 12;
const NEXT_HOP: usize = 8;

/// `linux/rtnetlink.h`
const RTPROT_RA: u8 = 9;

/// `IFLA_*`, `linux/if_link.h`
mod link {
    pub(super) const NAME: u16 = 3;
    pub(super) const INFO: u16 = 18;
    pub(super) const INFO_KIND: u16 = 1;
    pub(super) const PROPERTIES: u16 = 52;
    pub(super) const ALTERNATIVE_NAME: u16 = 53;
}

/// `RTA_*`, `linux/rtnetlink.h`
mod route {
    pub(super) const DESTINATION: u16 = 1;
    pub(super) const INTERFACE: u16 = 4;
    pub(super) const METRIC: u16 = 6;
    pub(super) const MULTIPATH: u16 = 9;
    pub(super) const TABLE: u16 = 15;
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The name to use in rules.
    pub name: String,
    /// Alternative names (`IFLA_ALT_IFNAME`, ip-link(8)), which do not match in rules.
    pub alternative_names: Vec<String>,
    /// The kind of a virtual interface (`IFLA_INFO_KIND`), such as `bridge`, `wireguard` or `veth`, or `loopback`; `None` for
    /// hardware.
    pub kind: Option<String>,
}

/// A unicast route of the main routing table, or one of its next hops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination network.
    pub destination: IpNet,
    /// The metric; the kernel prefers the route with the lowest metric.
    pub metric: u32,
    /// Whether it comes from a router advertisement (`RTPROT_RA`).
    pub is_advertised: bool,
    /// The name of the outgoing interface.
    pub interface: String,
    /// [`Link::kind`] of that interface.
    pub kind: Option<String>,
}

/// The interfaces, in the kernel's order.
pub(crate) fn links() -> io::Result<Vec<Link>> {
    Ok(indexed_links(&mut Socket::open(Bus::Route)?)?.into_iter().map(|(_, link)| link).collect())
}

fn indexed_links(socket: &mut Socket) -> io::Result<Vec<(u32, Link)>> {
    let mut links = Vec::new();
    dump(socket, libc::RTM_GETLINK, libc::AF_UNSPEC, LINK, |message| {
        links.extend(read_link(message)?);
        Ok(())
    })?;
    Ok(links)
}

/// The unicast routes of the main table, in the kernel's order.
pub(crate) fn routes() -> io::Result<Vec<Route>> {
    let mut socket = Socket::open(Bus::Route)?;
    let links: HashMap<u32, Link> = indexed_links(&mut socket)?.into_iter().collect();
    let mut routes = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        dump(&mut socket, libc::RTM_GETROUTE, family, ROUTE, |message| {
            if let Some(Read { destination, metric, is_advertised, interfaces }) = read_route(message)? {
                let links = interfaces.iter().filter_map(|index| links.get(index));
                routes.extend(links.map(|link| Route {
                    destination,
                    metric,
                    is_advertised,
                    interface: link.name.clone(),
                    kind: link.kind.clone(),
                }));
            }
            Ok(())
        })?;
    }
    Ok(routes)
}

/// Requests all objects of a kind; the header after `struct nlmsghdr` starts with the address family.
fn dump(
    socket: &mut Socket,
    request: u16,
    family: i32,
    header: usize,
    take: impl FnMut(&Message<'_>) -> Result<(), Malformed>,
) -> io::Result<()> {
    let sequence = u32::from(request) << 8 | family.cast_unsigned();
    let message = build_raw(request, libc::NLM_F_DUMP, sequence, |writer| {
        writer.0.push(family as u8);
        writer.0.resize(writer.0.len() + header - 1, 0);
    });
    Ok(socket.request(&message, sequence, take).and_then(AnswerEnd::complete)?)
}

fn body<'a>(message: &Message<'a>, header: usize) -> Result<(&'a [u8], &'a [u8]), Malformed> {
    message.body.split_at_checked(header).ok_or(Malformed("a message of rtnetlink is cut off"))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

/// Parses `struct ifinfomsg`, which has the index at offset 4. Virtual interfaces have a kind.
fn read_link(message: &Message<'_>) -> Result<Option<(u32, Link)>, Malformed> {
    if message.kind != libc::RTM_NEWLINK {
        return Ok(None);
    }
    let (header, attributes) = body(message, LINK)?;
    let fields = Fields::<64>::parse(attributes)?;
    let info = Fields::<8>::parse(fields.get(link::INFO).unwrap_or_default())?;
    let name = shown(fields.name(link::NAME));
    let kind = match info.name(link::INFO_KIND) {
        [] => (name == "lo").then(|| "loopback".to_owned()),
        kind => Some(shown(kind)),
    };
    let mut alternative_names = Vec::new();
    for property in Attributes(fields.get(link::PROPERTIES).unwrap_or_default()) {
        let Attribute { kind, value } = property?;
        if kind == link::ALTERNATIVE_NAME {
            alternative_names.push(shown(value.strip_suffix(&[0]).unwrap_or(value)));
        }
    }
    Ok(u32_at(header, 4).map(|index| (index, Link { name, alternative_names, kind })))
}

/// A unicast route of the main table.
struct Read {
    destination: IpNet,
    metric: u32,
    is_advertised: bool,
    /// The links by index.
    interfaces: Vec<u32>,
}

fn read_route(message: &Message<'_>) -> Result<Option<Read>, Malformed> {
    if message.kind != libc::RTM_NEWROUTE {
        return Ok(None);
    }
    let (header, attributes) = body(message, ROUTE)?;
    let &[family, length, _, _, table, protocol, _, kind, ..] = header else { return Ok(None) };
    let fields = Fields::<32>::parse(attributes)?;
    let number = |kind| fields.get(kind).and_then(|value| u32_at(value, 0));
    if kind != libc::RTN_UNICAST
        || number(route::TABLE).unwrap_or(table.into()) != u32::from(libc::RT_TABLE_MAIN)
    {
        return Ok(None);
    }
    let Some(destination) = destination(family, length, fields.get(route::DESTINATION)) else {
        return Ok(None);
    };
    let mut interfaces: Vec<u32> = number(route::INTERFACE).into_iter().collect();
    let mut hops = fields.get(route::MULTIPATH).unwrap_or_default();
    // struct rtnexthop: its length, flags and hops (2 bytes), the interface's index, and attributes.
    while let (Some(&[low, high]), Some(index)) = (hops.first_chunk(), u32_at(hops, 4)) {
        interfaces.push(index);
        let length = usize::from(u16::from_ne_bytes([low, high])).max(NEXT_HOP).next_multiple_of(4);
        hops = hops.get(length..).unwrap_or_default();
    }
    let metric = number(route::METRIC).unwrap_or(0);
    Ok(Some(Read { destination, metric, is_advertised: protocol == RTPROT_RA, interfaces }))
}

/// The destination; a default route has none.
fn destination(family: u8, length: u8, address: Option<&[u8]>) -> Option<IpNet> {
    let address = match i32::from(family) {
        libc::AF_INET => match address {
            Some(bytes) => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
            None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        },
        libc::AF_INET6 => match address {
            Some(bytes) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
            None => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        },
        _ => return None,
    };
    IpNet::new(address, length).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_arbitrary_answer_terminates_without_panic(body: Vec<u8>, kind in 16..28_u16) {
            let message = Message { kind, flags: 0, sequence: 1, port: 0, body: &body };
            let _ = (read_link(&message), read_route(&message));
        }
    }
}

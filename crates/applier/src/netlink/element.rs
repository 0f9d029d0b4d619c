//! Encodes and parses elements of sets and maps.
//!
//! In the kernel, a range of [`SetKind::Clients`] is two elements: its first address, and the address after its last,
//! flagged as an interval end. A range up to the highest address has no end element.

use std::net::IpAddr;
use std::num::NonZeroU16;

use nix::libc;
use rules::Family;
use rules::ruleset::{AddrPort, AddressRange, Element, Elements, Key, Set};
use smol_str::SmolStr;

use super::attribute::{Fields, Malformed, Writer};
use super::uapi::{DATA_VALUE, LIST_ELEM, counter, element as attr, elements, expr};
use super::userdata;
use crate::kernel::{Counted, Counter};

/// Writes an element to add (`Some`), or the key of one to delete (`None`).
pub(super) fn put(writer: &mut Writer, key: &Key, element: Option<&Element>) {
    let data = element.and_then(|element| element.data);
    let comment = element.and_then(|element| element.comment.as_deref());
    match key {
        Key::AddrPort(endpoint) => one(writer, |writer| {
            put_data(writer, attr::KEY, &endpoint_bytes(endpoint));
            put_rest(writer, data, comment, false);
        }),
        Key::Addresses(range) => {
            let end = successor(range.last());
            one(writer, |writer| {
                put_data(writer, attr::KEY, &address_bytes(range.first()));
                // Like nft, mark a start without an end, but not when deleting it.
                put_rest(writer, data, comment, end.is_none() && element.is_some());
            });
            if let Some(end) = end {
                one(writer, |writer| {
                    writer.be32(attr::FLAGS, libc::NFT_SET_ELEM_INTERVAL_END as u32);
                    put_data(writer, attr::KEY, &address_bytes(end));
                });
            }
        }
    }
}

fn one(writer: &mut Writer, fill: impl FnOnce(&mut Writer)) {
    writer.nest(LIST_ELEM, fill);
}

fn put_rest(writer: &mut Writer, data: Option<AddrPort>, comment: Option<&str>, open: bool) {
    if let Some(target) = data {
        put_data(writer, attr::DATA, &endpoint_bytes(&target));
    }
    let userdata = userdata::element(comment, open);
    if !userdata.is_empty() {
        writer.put(attr::USERDATA, &userdata);
    }
}

fn put_data(writer: &mut Writer, kind: u16, value: &[u8]) {
    writer.nest(kind, |writer| writer.put(DATA_VALUE, value));
}

fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// An address and a port, padded to 4 bytes.
fn endpoint_bytes(endpoint: &AddrPort) -> Vec<u8> {
    let mut bytes = address_bytes(endpoint.address);
    bytes.extend_from_slice(&endpoint.port.get().to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes
}

/// One end of a range in an interval set. Bounds sort by address; at the same address an end sorts before a start.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bound {
    address: IpAddr,
    side: BoundSide,
}

/// Which end of a range a [`Bound`] is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum BoundSide {
    /// The address after the last.
    End,
    /// The first address, with the comment of the range.
    Start(Option<SmolStr>),
}

/// A parsed element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// An element of a set or map.
    Element(Key, Element, Counter),
    /// One end of a range.
    Bound(Bound),
    /// The catch-all element, which the kernel does not include in its count (`NFT_SET_ELEM_CATCHALL`).
    CatchAll,
    /// Any other element that cachenat does not write.
    Stranger,
}

/// Reads one element of `set`.
pub(super) fn parse(set: Set, bytes: &[u8]) -> Result<Found, Malformed> {
    let fields = Fields::<16>::parse(bytes)?;
    let flags = fields.be32(attr::FLAGS).unwrap_or(0);
    if flags & attr::CATCH_ALL != 0 {
        return Ok(Found::CatchAll);
    }
    // We never write a timeout, an object, and so on.
    if !fields.only(&[
        attr::KEY,
        attr::DATA,
        attr::FLAGS,
        attr::USERDATA,
        attr::EXPR,
        attr::PAD,
        attr::KEY_END,
    ]) {
        return Ok(Found::Stranger);
    }
    let Some(key) = value(&fields, attr::KEY)? else { return Ok(Found::Stranger) };
    let comment = fields.get(attr::USERDATA).and_then(userdata::comment).map(SmolStr::new);
    if set.is_interval() {
        let plain = fields.only(&[attr::KEY, attr::FLAGS, attr::USERDATA, attr::PAD]);
        let bound = address(set.family, key).filter(|_| plain).and_then(|address| match flags {
            0 => Some(Bound { address, side: BoundSide::Start(comment) }),
            END => Some(Bound { address, side: BoundSide::End }),
            _ => None,
        });
        return Ok(bound.map_or(Found::Stranger, Found::Bound));
    }
    let key = match value(&fields, attr::KEY_END)? {
        None => endpoint(set.family, key).map(Key::AddrPort),
        Some(_) => None,
    };
    let data = value(&fields, attr::DATA)?.map(|bytes| endpoint(set.family, bytes));
    let counter = count(&fields)?;
    Ok(match (key, data, counter) {
        (Some(key), Some(Some(target)), Some(counter)) if set.is_map() && flags == 0 => {
            Found::Element(key, Element { data: Some(target), comment }, counter)
        }
        (Some(key), None, _) if !set.is_map() && flags == 0 && fields.get(attr::EXPR).is_none() => {
            Found::Element(key, Element { data: None, comment }, Counter::default())
        }
        _ => Found::Stranger,
    })
}

/// Parses the single element in the answer to a request for `key`; `None` if cachenat would not write it.
pub(super) fn only(set: Set, key: Key, attributes: &[u8]) -> Result<Option<Counted>, Malformed> {
    let list = Fields::<4>::parse(attributes)?.get(elements::LIST).unwrap_or_default();
    let element = Fields::<2>::parse(list)?.get(LIST_ELEM).unwrap_or_default();
    Ok(match parse(set, element)? {
        Found::Element(found, element, counter) if found == key => Some((element, counter)),
        _ => None,
    })
}

const END: u32 = libc::NFT_SET_ELEM_INTERVAL_END as u32;

fn value<'a>(fields: &Fields<'a, 16>, kind: u16) -> Result<Option<&'a [u8]>, Malformed> {
    let Some(data) = fields.get(kind) else { return Ok(None) };
    Ok(Fields::<2>::parse(data)?.get(DATA_VALUE))
}

/// The element's counter; `None` if it has another expression.
fn count(fields: &Fields<'_, 16>) -> Result<Option<Counter>, Malformed> {
    let Some(expression) = fields.get(attr::EXPR) else { return Ok(Some(Counter::default())) };
    let expression = Fields::<3>::parse(expression)?;
    if expression.name(expr::NAME) != b"counter" {
        return Ok(None);
    }
    let data = Fields::<4>::parse(expression.get(expr::DATA).unwrap_or_default())?;
    let number = |kind| data.be64(kind).unwrap_or(0);
    Ok(Some(Counter { packets: number(counter::PACKETS), bytes: number(counter::BYTES) }))
}

fn address(family: Family, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        Family::Ipv4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        Family::Ipv6 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

fn endpoint(family: Family, bytes: &[u8]) -> Option<AddrPort> {
    let (bytes, &[port0, port1, 0, 0]) = bytes.split_last_chunk()? else { return None };
    let port = NonZeroU16::new(u16::from_be_bytes([port0, port1]))?;
    Some(AddrPort { address: address(family, bytes)?, port })
}

/// Pairs the bounds of an interval set into ranges; `None` if they do not match.
pub(super) fn ranges(family: Family, mut bounds: Vec<Bound>) -> Option<Elements> {
    bounds.sort_unstable();
    // nft adds an end without a start at the lowest address.
    let lowest = match family {
        Family::Ipv4 => IpAddr::from([0; 4]),
        Family::Ipv6 => IpAddr::from([0; 16]),
    };
    let ends_nothing = Bound { address: lowest, side: BoundSide::End };
    let mut bounds = bounds.into_iter().filter(|bound| *bound != ends_nothing);
    let mut found = Elements::new();
    while let Some(bound) = bounds.next() {
        let Bound { address: first, side: BoundSide::Start(comment) } = bound else { return None };
        let last = match bounds.next() {
            Some(Bound { address, side: BoundSide::End }) => predecessor(address)?,
            None => highest(family),
            Some(Bound { side: BoundSide::Start(_), .. }) => return None,
        };
        let range = AddressRange::new(first, last)?;
        found.insert(Key::Addresses(range), Element { data: None, comment });
    }
    Some(found)
}

fn highest(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => IpAddr::from([255; 4]),
        Family::Ipv6 => IpAddr::from([255; 16]),
    }
}

/// The next address; `None` after the highest.
fn successor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(address) => address.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

fn predecessor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_sub(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(address) => address.to_bits().checked_sub(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

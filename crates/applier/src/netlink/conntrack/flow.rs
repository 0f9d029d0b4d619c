//! Parses ctnetlink flows, and builds the messages that list and delete them.

use std::net::IpAddr;
use std::num::NonZeroU16;

use nix::libc;
use rules::AddrPort;
use rules::flows::{Pair, Translated};

use super::{Bytes, Which};
use crate::netlink::attribute::{Fields, Malformed};
use crate::netlink::message::build_for;
use crate::netlink::uapi::{STATUS_DNAT, counters, flow, flow_message, tcp, tuple};

/// A TCP flow of the default zone: one with a translated destination, or one to a server's own address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow<'a> {
    /// The client's address.
    client: IpAddr,
    /// The address and port that the client connected to.
    pub(super) listen: AddrPort,
    /// The address and port that the connection was forwarded to.
    pub(super) target: AddrPort,
    family: u8,
    /// The attributes of the original tuple, as received.
    original: &'a [u8],
    id: u32,
    /// `enum tcp_conntrack`
    state: u8,
    /// The bytes it carried; `None` without conntrack accounting.
    pub(super) bytes: Option<Bytes>,
}

/// Identifies one flow for deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    family: u8,
    original: Vec<u8>,
    id: u32,
}

impl<'a> Flow<'a> {
    /// Parses `IPCTNL_MSG_CT_NEW`; `None` for a flow that is not among `which`.
    pub(super) fn parse(which: Which, family: u8, attributes: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let fields = Fields::<32>::parse(attributes)?;
        let dnat = fields.be32(flow::STATUS).is_some_and(|status| status & STATUS_DNAT != 0);
        if !(dnat || which == Which::All) || fields.get(flow::ZONE).is_some() {
            return Ok(None);
        }
        let original = fields.get(flow::ORIGINAL).ok_or(Malformed("a flow has no original tuple"))?;
        let reply = fields.get(flow::REPLY).ok_or(Malformed("a flow has no reply tuple"))?;
        let id = fields.be32(flow::ID).ok_or(Malformed("a flow has no id"))?;
        let ends = (end(original, &SOURCE)?, end(original, &DESTINATION)?, end(reply, &SOURCE)?);
        let (Some(client), Some(listen), Some(target)) = ends else { return Ok(None) };
        let state = state(fields.get(flow::PROTOINFO).unwrap_or_default())?;
        let bytes = match (fields.get(flow::COUNTERS_ORIGINAL), fields.get(flow::COUNTERS_REPLY)) {
            (Some(sent), Some(received)) => Some(Bytes { sent: bytes(sent)?, received: bytes(received)? }),
            _ => None,
        };
        Ok(Some(Self { client: client.address, listen, target, family, original, id, state, bytes }))
    }

    pub(super) fn translated(&self) -> Translated {
        Translated { client: self.client, pair: Pair { listen: self.listen, target: self.target } }
    }

    pub(super) fn key(&self) -> Key {
        Key { family: self.family, original: self.original.to_vec(), id: self.id }
    }

    /// Whether the connection was closed or reset; the kernel keeps its flow for some time.
    pub(super) fn has_ended(&self) -> bool {
        [tcp::TIME_WAIT, tcp::CLOSE].contains(&self.state)
    }
}

impl Key {
    /// Builds `IPCTNL_MSG_CT_DELETE` with the original tuple; without a tuple it would flush the table. The id protects a
    /// newer flow with the same tuple.
    pub(super) fn deletion(&self, sequence: u32) -> Vec<u8> {
        let (kind, flags) = (flow_message::DELETE, libc::NLM_F_ACK);
        build_for(libc::NFNL_SUBSYS_CTNETLINK, self.family, kind, flags, sequence, |writer| {
            writer.nest(flow::ORIGINAL, |writer| writer.0.extend_from_slice(&self.original));
            writer.be32(flow::ID, self.id);
        })
    }
}

/// Builds `IPCTNL_MSG_CT_GET` for the flows of both families. Kernels that cannot filter by status ignore the attribute and
/// list all flows.
pub(super) fn request(which: Which, sequence: u32) -> Vec<u8> {
    let (family, kind, flags) = (libc::AF_UNSPEC as u8, flow_message::GET, libc::NLM_F_DUMP);
    build_for(libc::NFNL_SUBSYS_CTNETLINK, family, kind, flags, sequence, |writer| {
        if which == Which::Translated {
            writer.be32(flow::STATUS, STATUS_DNAT);
        }
    })
}

/// The attribute types of one end of a tuple.
struct TupleEnd {
    v4: u16,
    v6: u16,
    port: u16,
}

const SOURCE: TupleEnd = TupleEnd { v4: tuple::V4_SOURCE, v6: tuple::V6_SOURCE, port: tuple::SOURCE_PORT };
const DESTINATION: TupleEnd =
    TupleEnd { v4: tuple::V4_DESTINATION, v6: tuple::V6_DESTINATION, port: tuple::DESTINATION_PORT };

/// One end of a tuple; `None` if it is not TCP or not in the default zone.
fn end(bytes: &[u8], end: &TupleEnd) -> Result<Option<AddrPort>, Malformed> {
    let fields = Fields::<4>::parse(bytes)?;
    let proto = Fields::<8>::parse(fields.get(tuple::PROTO).unwrap_or_default())?;
    if proto.get(tuple::PROTO_NUMBER) != Some(&[libc::IPPROTO_TCP as u8]) || fields.get(tuple::ZONE).is_some()
    {
        return Ok(None);
    }
    let ip = Fields::<8>::parse(fields.get(tuple::IP).unwrap_or_default())?;
    let v4 = ip.get(end.v4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).map(IpAddr::from);
    let v6 = ip.get(end.v6).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()).map(IpAddr::from);
    let port = proto.get(end.port).and_then(|bytes| <[u8; 2]>::try_from(bytes).ok()).map(u16::from_be_bytes);
    let address = v4.or(v6).ok_or(Malformed("a tuple has no address"))?;
    let port = port.ok_or(Malformed("a tuple has no port"))?;
    Ok(NonZeroU16::new(port).map(|port| AddrPort { address, port }))
}

/// The byte counter of one direction.
fn bytes(counters: &[u8]) -> Result<u64, Malformed> {
    let bytes = Fields::<4>::parse(counters)?.be64(counters::BYTES);
    bytes.ok_or(Malformed("a flow's counters have no bytes"))
}

/// The TCP state; 0 (`TCP_CONNTRACK_NONE`) if the kernel does not report it.
fn state(protoinfo: &[u8]) -> Result<u8, Malformed> {
    let tcp = Fields::<4>::parse(protoinfo)?.get(tcp::PROTOINFO).unwrap_or_default();
    let state = Fields::<8>::parse(tcp)?.get(tcp::STATE).unwrap_or_default();
    Ok(state.first().copied().unwrap_or(0))
}

//! Conntrack flows through ctnetlink: deletes flows to removed targets, and counts open flows.
//!
//! A changed map element affects only new connections, because conntrack translates the later packets of a flow. A
//! client of a dead target would hang until its own timeout. After its flow is deleted, its next packet starts a new
//! flow to the new target, which answers with a RST.
//!
//! Delete flows only after the commit is read back: if the old element still exists, the next packet creates the flow
//! to the old target again.

mod flow;

use std::collections::BTreeMap;
use std::io;

use nix::libc;
use rules::AddrPort;
use rules::flows::Translated;

use super::attribute::Malformed;
use super::message::{Answer, Messages, os_error};
use super::request::{AnswerEnd, RequestError};
use super::socket::{Bus, Socket};
use super::uapi::flow_message as kind;
use flow::Flow;

/// The number of deletions per batch: about 256 acknowledgements overflow the receive buffer of an unprivileged socket.
const AT_ONCE: usize = 64;

/// The target with the most open connections, and their number.
pub fn busiest(counts: &BTreeMap<(AddrPort, AddrPort), Flows>) -> Option<(AddrPort, u64)> {
    let mut by_target: BTreeMap<AddrPort, u64> = BTreeMap::new();
    for ((_, target), flows) in counts {
        *by_target.entry(*target).or_default() += flows.open;
    }
    by_target.into_iter().max_by_key(|&(target, open)| (open, std::cmp::Reverse(target)))
}

/// Which flows are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those with a translated destination.
    Translated,
    /// Also those to a server's own address, as through a tunnel; listener and target are the same.
    All,
}

/// The open flows from a listener to a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flows {
    /// The number of open flows.
    pub open: u64,
    /// The bytes they carried; `None` if conntrack accounting is off (`net.netfilter.nf_conntrack_acct`).
    pub bytes: Option<Bytes>,
}

/// The bytes that flows carried, including headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// From clients to the node.
    pub sent: u64,
    /// From the node to clients.
    pub received: u64,
}

impl Flows {
    /// Adds `other` to these flows.
    pub fn add(&mut self, other: Self) {
        self.open = self.open.saturating_add(other.open);
        if let Some(Bytes { sent, received }) = other.bytes {
            let bytes = self.bytes.get_or_insert_default();
            bytes.sent = bytes.sent.saturating_add(sent);
            bytes.received = bytes.received.saturating_add(received);
        }
    }
}

/// Why flows could not be listed or deleted; the ruleset is not affected.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// The kernel was built without ctnetlink, or its module cannot be loaded.
    #[error(
        "this kernel cannot list connections (CONFIG_NF_CT_NETLINK, module nf_conntrack_netlink): connections to \
        removed targets end only when their clients time out"
    )]
    Unsupported(#[source] io::Error),
    /// `EPERM`
    #[error("listing and closing connections needs CAP_NET_ADMIN: run as root, or grant it")]
    Denied(#[source] io::Error),
    /// `EBUSY`: a flow is in a flowtable. Fixed by commit 9b7c68b3911a in Linux 6.4, and in the stable kernels of June
    /// 2023.
    #[error(
        "this kernel cannot close connections that are in a flowtable (before Linux 6.4, 6.1.32, 5.15.115): update \
        it, or remove gateway.flowtable from the configuration"
    )]
    Offloaded(#[source] io::Error),
    /// The kernel's answer violates the netlink protocol.
    #[error("the kernel's answer to {request} is malformed: {fault}")]
    Malformed {
        /// What was asked for, such as `list connections`.
        request: &'static str,
        /// The problem with the answer.
        fault: &'static str,
    },
    /// The request was refused, or the socket failed.
    #[error("{request}")]
    Io {
        /// What was asked for, such as `list connections`.
        request: &'static str,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

const OPEN: &str = "open a netlink socket";
const LIST: &str = "list connections";
const DELETE: &str = "close connections";

fn failed(request: &'static str, source: io::Error) -> ConntrackError {
    match source.raw_os_error() {
        Some(libc::EPERM) => ConntrackError::Denied(source),
        Some(libc::EBUSY) if request == DELETE => ConntrackError::Offloaded(source),
        Some(libc::EPROTONOSUPPORT) if request == OPEN => ConntrackError::Unsupported(source),
        // nfnetlink answers EINVAL for a subsystem that is missing and cannot be loaded (`nfnetlink_rcv_msg`,
        // net/netfilter/nfnetlink.c).
        Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOENT | libc::ECONNREFUSED) if request == LIST => {
            ConntrackError::Unsupported(source)
        }
        _ => ConntrackError::Io { request, source },
    }
}

fn malformed(request: &'static str, Malformed(fault): Malformed) -> ConntrackError {
    ConntrackError::Malformed { request, fault }
}

/// The conntrack table of the network namespace in which it was opened, in the default zone.
pub struct Conntrack {
    socket: Socket,
    sequence: u32,
}

impl Conntrack {
    /// Opens a netlink socket; needs no privilege.
    ///
    /// # Errors
    ///
    /// [`ConntrackError::Unsupported`] without netfilter netlink, [`ConntrackError::Io`].
    pub fn open() -> Result<Self, ConntrackError> {
        let socket = Socket::open(Bus::Netfilter).map_err(|error| failed(OPEN, error))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Deletes the flows for which `is_stale` returns true, and returns their number.
    ///
    /// Calls `is_stale` for every such TCP flow of the default zone, whichever program's rule translated it.
    ///
    /// # Errors
    ///
    /// See [`ConntrackError`]; some of the flows may have been deleted.
    pub fn cut(
        &mut self,
        which: Which,
        mut is_stale: impl FnMut(&Translated) -> bool,
    ) -> Result<usize, ConntrackError> {
        let mut flows = Vec::new();
        self.list(which, |flow| {
            if is_stale(&flow.translated()) {
                flows.push(flow.key());
            }
        })?;
        let mut deleted = 0;
        for flows in flows.chunks(AT_ONCE) {
            deleted += self.delete(flows)?;
        }
        Ok(deleted)
    }

    /// The open flows by listener and target; flows in state `TIME_WAIT` or `CLOSE` do not count. Includes flows that other
    /// programs' rules translated, under their own listeners.
    ///
    /// # Errors
    ///
    /// See [`ConntrackError`].
    pub fn count(&mut self, which: Which) -> Result<BTreeMap<(AddrPort, AddrPort), Flows>, ConntrackError> {
        let mut counts: BTreeMap<_, Flows> = BTreeMap::new();
        self.list(which, |flow| {
            if !flow.has_ended() {
                let one = Flows { open: 1, bytes: flow.bytes };
                counts.entry((flow.listen, flow.target)).or_default().add(one);
            }
        })?;
        Ok(counts)
    }

    /// Passes every such TCP flow to `take`.
    ///
    /// The kernel sends a dump as it is read, so no number of flows overflows the receive buffer. Flows are filtered in user
    /// space: the kernel's tuple filter (`CTA_FILTER`) matches an IPv6 flow if its address is *not* the requested one
    /// (`ctnetlink_filter_match_tuple`, `net/netfilter/nf_conntrack_netlink.c`, still so in Linux 6.18).
    fn list(&mut self, which: Which, mut take: impl FnMut(Flow<'_>)) -> Result<(), ConntrackError> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let end = self.socket.request(&flow::request(which, sequence), sequence, |message| {
            if let Answer::Object { kind: kind::NEW, family, attributes, .. } = message.answer()? {
                Flow::parse(which, family, attributes)?.into_iter().for_each(&mut take);
            }
            Ok(())
        });
        end.and_then(AnswerEnd::complete).map_err(|error| match error {
            RequestError::Io(error) => failed(LIST, error),
            RequestError::Malformed(fault) => malformed(LIST, fault),
        })
    }

    /// Deletes flows, and returns how many still existed.
    fn delete(&mut self, flows: &[flow::Key]) -> Result<usize, ConntrackError> {
        let first = self.sequence.wrapping_add(1);
        let messages: Vec<Vec<u8>> =
            (0..).zip(flows).map(|(at, flow)| flow.deletion(first.wrapping_add(at))).collect();
        self.sequence = self.sequence.wrapping_add(messages.len() as u32);
        let pieces: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        self.socket.send(&pieces).map_err(|error| failed(DELETE, error))?;

        let (mut deleted, mut awaited) = (0, messages.len());
        while awaited > 0 {
            let datagram = self.socket.receive().map_err(|error| failed(DELETE, error))?;
            for message in Messages(datagram) {
                let message = message.map_err(|fault| malformed(DELETE, fault))?;
                if message.sequence.wrapping_sub(first) as usize >= messages.len() {
                    continue;
                }
                match message.answer().map_err(|fault| malformed(DELETE, fault))? {
                    Answer::Verdict { errno: 0, .. } => deleted += 1,
                    // The flow has ended meanwhile, or another flow has its tuple.
                    Answer::Verdict { errno: libc::ENOENT, .. } => {}
                    Answer::Verdict { errno, .. } => return Err(failed(DELETE, os_error(errno))),
                    _ => continue,
                }
                awaited -= 1;
            }
        }
        Ok(deleted)
    }
}

#[cfg(test)]
mod tests;

//! The flows that conntrack holds by ctnetlink: those whose target is gone are cut, and those in force are counted.
//!
//! Conntrack owns a flow once its first packet has passed: a changed element redirects new connections only. To a
//! target that is dead the client of an old one hangs until its own timeout; with the flow deleted its next packet is
//! answered by a RST (the packet is taken for a new flow's, and led to the new target, which knows nothing of it).
//!
//! Cut after the commit is read back, never before: a flow that is deleted while the old element stands comes back to
//! the old target with its next packet, and stays.

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

/// How many deletions go out at once: each is acknowledged, and about 256 acknowledgements overflow the receive buffer
/// that an unprivileged socket gets.
const AT_ONCE: usize = 64;

/// The target with the most open connections, and how many they are.
pub fn busiest(counts: &BTreeMap<(AddrPort, AddrPort), Flows>) -> Option<(AddrPort, u64)> {
    let mut by_target: BTreeMap<AddrPort, u64> = BTreeMap::new();
    for ((_, target), flows) in counts {
        *by_target.entry(*target).or_default() += flows.open;
    }
    by_target.into_iter().max_by_key(|&(target, open)| (open, std::cmp::Reverse(target)))
}

/// The open flows of a listener to a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flows {
    /// How many there are.
    pub open: u64,
    /// What they have carried; `None` where the kernel does not account for it (`net.netfilter.nf_conntrack_acct`).
    pub bytes: Option<Bytes>,
}

/// What flows have carried, headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// From clients to the node.
    pub sent: u64,
    /// From the node to clients.
    pub received: u64,
}

impl Flows {
    /// Both together.
    pub fn add(&mut self, other: Self) {
        self.open = self.open.saturating_add(other.open);
        if let Some(Bytes { sent, received }) = other.bytes {
            let bytes = self.bytes.get_or_insert_default();
            bytes.sent = bytes.sent.saturating_add(sent);
            bytes.received = bytes.received.saturating_add(received);
        }
    }
}

/// Why flows could not be read or cut; the ruleset is not touched by it.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// The kernel was built without ctnetlink, or its module cannot be loaded.
    #[error(
        "this kernel cannot list connections (CONFIG_NF_CT_NETLINK, module nf_conntrack_netlink): those to a target \
         that is gone end by their clients' own timeouts"
    )]
    Unsupported(#[source] io::Error),
    /// `EPERM`
    #[error("listing and cutting connections needs CAP_NET_ADMIN: run as root, or grant it")]
    Denied(#[source] io::Error),
    /// `EBUSY`: a flow is in a flowtable. Commit 9b7c68b3911a ended that in Linux 6.4, and in June 2023 in the stable
    /// kernels of then.
    #[error(
        "this kernel does not delete connections that are in a flowtable (before Linux 6.4, 6.1.32, 5.15.115): update \
         it, or do without gateway.flowtable"
    )]
    Offloaded(#[source] io::Error),
    /// The kernel sent what netlink does not allow.
    #[error("the kernel's answer to {request} is malformed: {fault}")]
    Malformed {
        /// What was asked for, such as `list connections`.
        request: &'static str,
        /// What is wrong with the answer.
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
const CUT: &str = "cut connections";

fn failed(request: &'static str, source: io::Error) -> ConntrackError {
    match source.raw_os_error() {
        Some(libc::EPERM) => ConntrackError::Denied(source),
        Some(libc::EBUSY) if request == CUT => ConntrackError::Offloaded(source),
        Some(libc::EPROTONOSUPPORT) if request == OPEN => ConntrackError::Unsupported(source),
        // nfnetlink's word for a subsystem that is not there and cannot be loaded is EINVAL (`nfnetlink_rcv_msg`,
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

/// Conntrack of the network namespace in which it was opened, in its default zone.
pub struct Conntrack {
    socket: Socket,
    sequence: u32,
}

impl Conntrack {
    /// Opens a socket to the kernel, which needs no privilege yet.
    ///
    /// # Errors
    ///
    /// [`ConntrackError::Unsupported`] without netfilter netlink, [`ConntrackError::Io`].
    pub fn open() -> Result<Self, ConntrackError> {
        let socket = Socket::open(Bus::Netfilter).map_err(|error| failed(OPEN, error))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Cuts the flows that `is_to_go` wants gone, and no other, and tells how many they were.
    ///
    /// Each TCP flow of the default zone whose destination was translated is asked for, by whomever it was.
    ///
    /// # Errors
    ///
    /// See [`ConntrackError`]; some of the flows may have been cut.
    pub fn cut(&mut self, mut is_to_go: impl FnMut(&Translated) -> bool) -> Result<usize, ConntrackError> {
        let mut flows = Vec::new();
        self.list(|flow| {
            if is_to_go(&flow.translated()) {
                flows.push(flow.key());
            }
        })?;
        let mut cut = 0;
        for flows in flows.chunks(AT_ONCE) {
            cut += self.delete(flows)?;
        }
        Ok(cut)
    }

    /// The flows by listener and target, without those that have ended (`TIME_WAIT`, `CLOSE`). What others have
    /// translated is among them, under its own listener.
    ///
    /// # Errors
    ///
    /// See [`ConntrackError`].
    pub fn count(&mut self) -> Result<BTreeMap<(AddrPort, AddrPort), Flows>, ConntrackError> {
        let mut counts: BTreeMap<_, Flows> = BTreeMap::new();
        self.list(|flow| {
            if !flow.has_ended() {
                let one = Flows { open: 1, bytes: flow.bytes };
                counts.entry((flow.listen, flow.target)).or_default().add(one);
            }
        })?;
        Ok(counts)
    }

    /// Hands every TCP flow that was DNATed to `take`.
    ///
    /// A dump goes on as it is read, so no number of flows overflows the receive buffer. Which flow is meant is decided
    /// here: the kernel's filter by tuple (`CTA_FILTER`), for dumps as for deletions, matches an IPv6 flow when its
    /// address is *not* the one that is asked for (`ctnetlink_filter_match_tuple`,
    /// `net/netfilter/nf_conntrack_netlink.c`; so in Linux 6.18).
    fn list(&mut self, mut take: impl FnMut(Flow<'_>)) -> Result<(), ConntrackError> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let end = self.socket.request(&flow::request(sequence), sequence, |message| {
            if let Answer::Object { kind: kind::NEW, family, attributes, .. } = message.answer()? {
                Flow::parse(family, attributes)?.into_iter().for_each(&mut take);
            }
            Ok(())
        });
        end.and_then(AnswerEnd::complete).map_err(|error| match error {
            RequestError::Io(error) => failed(LIST, error),
            RequestError::Malformed(fault) => malformed(LIST, fault),
        })
    }

    /// Deletes flows and tells how many were still there.
    fn delete(&mut self, flows: &[flow::Key]) -> Result<usize, ConntrackError> {
        let first = self.sequence.wrapping_add(1);
        let messages: Vec<Vec<u8>> =
            (0..).zip(flows).map(|(at, flow)| flow.deletion(first.wrapping_add(at))).collect();
        self.sequence = self.sequence.wrapping_add(messages.len() as u32);
        let pieces: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        self.socket.send(&pieces).map_err(|error| failed(CUT, error))?;

        let (mut cut, mut awaited) = (0, messages.len());
        while awaited > 0 {
            let datagram = self.socket.receive().map_err(|error| failed(CUT, error))?;
            for message in Messages(datagram) {
                let message = message.map_err(|fault| malformed(CUT, fault))?;
                if message.sequence.wrapping_sub(first) as usize >= messages.len() {
                    continue;
                }
                match message.answer().map_err(|fault| malformed(CUT, fault))? {
                    Answer::Verdict { errno: 0, .. } => cut += 1,
                    // It ended by itself meanwhile, or another has taken its place.
                    Answer::Verdict { errno: libc::ENOENT, .. } => {}
                    Answer::Verdict { errno, .. } => return Err(failed(CUT, os_error(errno))),
                    _ => continue,
                }
                awaited -= 1;
            }
        }
        Ok(cut)
    }
}

#[cfg(test)]
mod tests;

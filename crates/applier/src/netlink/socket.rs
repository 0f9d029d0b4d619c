//! The netlink socket, with sufficient buffers and a timeout for every wait.

use std::fmt::{self, Display, Formatter};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce, ReceiveTimeout, SndBuf, SndBufForce};
use nix::sys::socket::{MsgFlags, NetlinkAddr, recv, sendmsg, setsockopt};

use tracing::trace;

use super::ffi::{MnlSocket, set_option};
use super::message::Messages;
pub(super) use mnl::Bus;

/// The receive timeout; the kernel normally answers during the call.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum size of a datagram; the kernel's dumps use at most 32 KiB (`netlink_dump`, `net/netlink/af_netlink.c`).
const DATAGRAM: usize = 64 * 1024;

/// The receive buffer, in bytes: enough for the verdicts on some thousand refused operations.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

/// A netlink socket; opening it needs no privilege.
pub(super) struct Socket {
    socket: MnlSocket,
    buffer: Vec<u8>,
    /// The current send buffer, in bytes; grows as needed.
    sendable: usize,
}

impl Socket {
    pub(super) fn open(bus: Bus) -> io::Result<Self> {
        let socket = MnlSocket::open(bus)?;
        let descriptor = socket.descriptor();
        let seconds = i64::try_from(TIMEOUT.as_secs()).unwrap_or(i64::MAX);
        setsockopt(&descriptor, ReceiveTimeout, &nix::sys::time::TimeVal::new(seconds, 0))?;
        // Without privilege, net.core.rmem_max limits the buffer.
        if setsockopt(&descriptor, RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&descriptor, RcvBuf, &RECEIVE_BUFFER)?;
        }
        // Verdicts without the original message, but with the offset of the error in it.
        set_option(descriptor, libc::NETLINK_CAP_ACK, 1)?;
        set_option(descriptor, libc::NETLINK_EXT_ACK, 1)?;
        Ok(Self { socket, buffer: vec![0; DATAGRAM], sendable: 0 })
    }

    /// The netlink port that the kernel assigned (netlink(7): `nl_pid`).
    pub(super) fn port(&self) -> u32 {
        self.socket.port()
    }

    /// Sends the pieces as one datagram: the kernel does not apply a batch that is split into several.
    pub(super) fn send(&mut self, pieces: &[&[u8]]) -> io::Result<()> {
        let length = pieces.iter().map(|piece| piece.len()).sum();
        self.make_room(length)?;
        let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let kernel = NetlinkAddr::new(0, 0);
        let sent =
            sendmsg(self.socket.descriptor().as_raw_fd(), &slices, &[], MsgFlags::empty(), Some(&kernel))?;
        trace!("netlink port {}: sent {length} bytes, {}", self.port(), Sent(pieces));
        if sent == length { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn make_room(&mut self, length: usize) -> io::Result<()> {
        if length > self.sendable {
            let descriptor = self.socket.descriptor();
            // The kernel doubles the value for its overhead, of which it needs only 32 bytes.
            if setsockopt(&descriptor, SndBufForce, &length).is_err() {
                setsockopt(&descriptor, SndBuf, &length)?;
            }
            self.sendable = length;
        }
        Ok(())
    }

    /// The next datagram; waits for it until the timeout.
    pub(super) fn receive(&mut self) -> io::Result<&[u8]> {
        match self.take(MsgFlags::empty()) {
            Ok(length) => Ok(self.buffer.get(..length).unwrap_or_default()),
            Err(Errno::EAGAIN) => Err(io::ErrorKind::TimedOut.into()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The next datagram, if one is queued.
    pub(super) fn receive_now(&mut self) -> io::Result<Option<&[u8]>> {
        match self.take(MsgFlags::MSG_DONTWAIT) {
            Ok(length) => Ok(self.buffer.get(..length)),
            Err(Errno::EAGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Discards all queued datagrams, until the end of a running dump.
    pub(super) fn drain(&mut self) {
        while !matches!(self.take(MsgFlags::MSG_DONTWAIT), Err(errno) if errno != Errno::ENOBUFS) {}
    }

    fn take(&mut self, flags: MsgFlags) -> nix::Result<usize> {
        loop {
            // With MSG_TRUNC, the kernel returns the full length of a truncated datagram.
            match recv(self.socket.descriptor().as_raw_fd(), &mut self.buffer, flags | MsgFlags::MSG_TRUNC) {
                Ok(length) if length > self.buffer.len() => return Err(Errno::ENOSPC),
                Err(Errno::EINTR) => {}
                other => return other,
            }
        }
    }
}

/// The type of a datagram's first message (netlink(7)), for the debug log.
struct Sent<'a>(&'a [&'a [u8]]);

/// `enum nf_tables_msg_types` (linux/netfilter/nf_tables.h).
const NF_TABLES: [&str; 25] = [
    "NEWTABLE",
    "GETTABLE",
    "DELTABLE",
    "NEWCHAIN",
    "GETCHAIN",
    "DELCHAIN",
    "NEWRULE",
    "GETRULE",
    "DELRULE",
    "NEWSET",
    "GETSET",
    "DELSET",
    "NEWSETELEM",
    "GETSETELEM",
    "DELSETELEM",
    "NEWGEN",
    "GETGEN",
    "TRACE",
    "NEWOBJ",
    "GETOBJ",
    "DELOBJ",
    "GETOBJ_RESET",
    "NEWFLOWTABLE",
    "GETFLOWTABLE",
    "DELFLOWTABLE",
];

impl Display for Sent<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut messages = Messages(self.0.first().copied().unwrap_or_default()).flatten();
        let kind = messages.next().map_or(0, |message| message.kind);
        let [subsystem, number] = kind.to_be_bytes();
        let of_nf_tables = i32::from(subsystem) == libc::NFNL_SUBSYS_NFTABLES;
        match NF_TABLES.get(usize::from(number)).filter(|_| of_nf_tables) {
            Some(name) => write!(f, "NFT_MSG_{name}"),
            None if i32::from(kind) == libc::NFNL_MSG_BATCH_BEGIN => f.write_str("a batch"),
            None => write!(f, "type {kind:#06x}"),
        }
    }
}

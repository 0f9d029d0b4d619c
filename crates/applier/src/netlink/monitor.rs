//! Receives nf_tables' notifications of commits (as `nft monitor` does), so that drift is repaired at once, without
//! polling.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
};
use rules::ruleset::TABLE;

use super::attribute::{Fields, Malformed, shown};
use super::ffi::set_option;
use super::message::{Answer, INET, Messages};
use super::uapi::{generation, message as kind, table};
use crate::kernel::Generation;

/// The receive buffer, in bytes: enough for a commit of about ten thousand elements. An overrun costs only a dump.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

/// The maximum size of a datagram; the kernel fills notifications up to `NLMSG_GOODSIZE`, a page or 8 KiB.
const DATAGRAM: usize = 64 * 1024;

/// The commits to nf_tables since the last call.
///
/// A dump at [`Noticed::generation`] or later, such as the one that [`crate::sync::sync`] makes after its own commits,
/// includes all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noticed {
    /// The latest reported generation; `None` if an overrun lost it.
    pub generation: Option<Generation>,
    /// The number of other processes' commits to our table.
    pub intrusions: u64,
    /// The generation of the last of these commits.
    pub last_intrusion: Option<Generation>,
    /// The processes that made them.
    pub who: BTreeSet<Committer>,
    /// Whether notifications were lost (`ENOBUFS`); only a dump shows what changed.
    pub overrun: bool,
}

impl Noticed {
    /// Whether it is certain that no other process changed our table.
    #[must_use]
    pub const fn is_untouched(&self) -> bool {
        self.intrusions == 0 && !self.overrun
    }
}

/// The netlink port of a socket; notifications contain the port of the socket that caused them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port(pub(super) u32);

/// The thread that made a commit, for messages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Committer {
    /// The thread id in the initial pid namespace, which for the main thread is the process id (`task_pid_nr` in
    /// `nf_tables_fill_gen_info`, `net/netfilter/nf_tables_api.c`).
    pub pid: u32,
    /// The thread's name (`/proc/PID/comm`), with control characters escaped.
    pub name: String,
}

/// Why the kernel's notifications could not be received.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The socket cannot be opened or subscribed.
    #[error("subscribe to the kernel's nf_tables notifications")]
    Open(#[source] io::Error),
    /// The socket failed.
    #[error("read the kernel's nf_tables notifications")]
    Read(#[source] io::Error),
    /// A notification violates the netlink protocol.
    #[error("a notification of the kernel is malformed: {fault}")]
    Malformed {
        /// The problem with it.
        fault: &'static str,
    },
}

/// A subscription to commits in the network namespace in which it was opened.
///
/// Its file descriptor is readable when [`drain`](Self::drain) has something to read.
pub struct Monitor {
    socket: OwnedFd,
    buffer: Vec<u8>,
    pending: Pending,
    own: Option<Port>,
}

impl Monitor {
    /// Subscribes to commits from now on. Commits by the socket with port `own` are not intrusions.
    ///
    /// # Errors
    ///
    /// [`MonitorError::Open`], with `EPERM` without `CAP_NET_ADMIN`.
    pub fn open(own: Option<Port>) -> Result<Self, MonitorError> {
        let mut monitor = Self::open_unsubscribed(own).map_err(MonitorError::Open)?;
        monitor.subscribe()?;
        Ok(monitor)
    }

    /// Opens a monitor that is not subscribed yet.
    pub(super) fn open_unsubscribed(own: Option<Port>) -> io::Result<Self> {
        let protocol = SockProtocol::NetlinkNetFilter;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        Ok(Self { socket, buffer: Vec::new(), pending: Pending::default(), own })
    }

    pub(super) fn subscribe(&mut self) -> Result<(), MonitorError> {
        // Without privilege, net.core.rmem_max limits the buffer.
        if setsockopt(&self.socket, RcvBufForce, &RECEIVE_BUFFER).is_err() {
            let set = setsockopt(&self.socket, RcvBuf, &RECEIVE_BUFFER);
            set.map_err(|errno| MonitorError::Open(errno.into()))?;
        }
        // Without a netlink port, the monitor could be mistaken for the committing socket. With one, closing it waits
        // until the kernel has freed deleted objects (`nft_rcv_nl_event`). So bind it only when it is needed.
        if self.buffer.is_empty() {
            bind(self.socket.as_raw_fd(), &NetlinkAddr::new(0, 0))
                .map_err(|errno| MonitorError::Open(errno.into()))?;
            self.buffer.resize(DATAGRAM, 0);
        }
        self.join(libc::NETLINK_ADD_MEMBERSHIP).map_err(MonitorError::Open)
    }

    /// Unsubscribes, and drops what was received.
    pub(super) fn unsubscribe(&mut self) -> Result<(), MonitorError> {
        self.join(libc::NETLINK_DROP_MEMBERSHIP).map_err(MonitorError::Read)?;
        self.drain()?;
        self.pending = Pending::default();
        Ok(())
    }

    fn join(&self, option: i32) -> io::Result<()> {
        set_option(self.socket.as_fd(), option, libc::NFNLGRP_NFTABLES as u32)
    }

    /// Blocks until there is a commit.
    ///
    /// # Errors
    ///
    /// As [`drain`](Self::drain).
    pub fn wait(&mut self) -> Result<Noticed, MonitorError> {
        loop {
            if let Some(noticed) = self.drain()? {
                return Ok(noticed);
            }
            self.is_readable(PollTimeout::NONE)?;
        }
    }

    /// Waits until there is something to read; `false` after a timeout or a signal.
    pub(super) fn is_readable(&self, limit: impl Into<PollTimeout>) -> Result<bool, MonitorError> {
        let mut readable = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut readable, limit) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(MonitorError::Read(errno.into())),
        }
    }

    /// Reads all queued notifications without blocking; `None` if they contain no complete commit.
    ///
    /// # Errors
    ///
    /// [`MonitorError::Read`], [`MonitorError::Malformed`].
    pub fn drain(&mut self) -> Result<Option<Noticed>, MonitorError> {
        let mut noticed = None;
        self.drain_into(&mut noticed)?;
        Ok(noticed)
    }

    /// Like [`drain`](Self::drain), but adds to `noticed`.
    pub(super) fn drain_into(&mut self, noticed: &mut Option<Noticed>) -> Result<(), MonitorError> {
        loop {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
            match recv(self.socket.as_raw_fd(), &mut self.buffer, flags) {
                Ok(length) => {
                    let datagram = self.buffer.get(..length);
                    let datagram = datagram.ok_or(MonitorError::Malformed { fault: "it is cut off" })?;
                    let parsed = self.pending.parse(datagram, self.own, noticed);
                    parsed.map_err(|Malformed(fault)| MonitorError::Malformed { fault })?;
                }
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => {
                    self.pending = Pending::default();
                    noticed.get_or_insert_default().overrun = true;
                }
                Err(errno) => return Err(MonitorError::Read(errno.into())),
            }
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A partially received commit: its objects come first, and NEWGEN ends it (`nf_tables_commit`).
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    touched_ours: bool,
}

impl Pending {
    fn parse(
        &mut self,
        datagram: &[u8],
        own: Option<Port>,
        noticed: &mut Option<Noticed>,
    ) -> Result<(), Malformed> {
        for message in Messages(datagram) {
            let message = message?;
            let Answer::Object { kind, family, attributes, .. } = message.answer()? else { continue };
            if kind == kind::NEWGEN {
                let commit = Fields::<4>::parse(attributes)?;
                let is_own = own == Some(Port(message.port));
                self.end(&commit, is_own, noticed.get_or_insert_default());
            } else if family == INET {
                // The table's name is the first attribute of every object.
                self.touched_ours |= Fields::<2>::parse(attributes)?.name(table::NAME) == TABLE.as_bytes();
            }
        }
        Ok(())
    }

    fn end(&mut self, commit: &Fields<'_, 4>, is_own: bool, noticed: &mut Noticed) {
        let generation = commit.be32(generation::ID).map(Generation);
        noticed.generation = generation.or(noticed.generation);
        if std::mem::take(self).touched_ours && !is_own {
            noticed.intrusions += 1;
            noticed.last_intrusion = generation.or(noticed.last_intrusion);
            noticed.who.extend(committer(commit));
        }
    }
}

fn committer(commit: &Fields<'_, 4>) -> Option<Committer> {
    let pid = commit.be32(generation::PROC_PID)?;
    Some(Committer { pid, name: shown(commit.name(generation::PROC_NAME)) })
}

#[cfg(test)]
mod tests;

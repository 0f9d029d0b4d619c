//! Who else commits: nf_tables tells each commit to those who listen (`nft monitor`), so that drift is repaired at
//! once and not by polling.

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

/// Room for the notifications of a commit of about ten thousand elements; more than fits is an overrun, which costs a
/// look at the kernel.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

/// The kernel fills a notification's datagram up to `NLMSG_GOODSIZE`, a page or 8 KiB.
const DATAGRAM: usize = 64 * 1024;

/// What happened to nf_tables since the last look.
///
/// What is at [`Noticed::generation`] was made by commits up to that one: whoever has read the table at it, as
/// [`crate::sync::sync`] does after its own commits, has seen all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noticed {
    /// The latest generation that was told; `None` after an overrun that took it along.
    pub generation: Option<Generation>,
    /// How many commits of others touched our table.
    pub intrusions: u64,
    /// The generation that the last of them made.
    pub last_intrusion: Option<Generation>,
    /// Who made them.
    pub who: BTreeSet<Committer>,
    /// Notifications were lost (`ENOBUFS`): only a dump tells what they were.
    pub overrun: bool,
}

impl Noticed {
    /// Whether it is certain that others left our table alone.
    #[must_use]
    pub const fn is_untouched(&self) -> bool {
        self.intrusions == 0 && !self.overrun
    }
}

/// The netlink port of a socket, which the kernel writes into all that the socket's requests bring about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port(pub(super) u32);

/// Who made a commit, for people to read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Committer {
    /// The id of the committing thread, which is the process's own for its first thread, in the initial pid namespace
    /// (`task_pid_nr` in `nf_tables_fill_gen_info`, `net/netfilter/nf_tables_api.c`).
    pub pid: u32,
    /// The name of that thread (`/proc/PID/comm`), with control characters escaped.
    pub name: String,
}

/// Why the kernel's notifications cannot be heard.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The socket cannot be opened, or subscribed.
    #[error("subscribe to the kernel's nf_tables notifications")]
    Open(#[source] io::Error),
    /// The socket failed.
    #[error("read the kernel's nf_tables notifications")]
    Read(#[source] io::Error),
    /// The kernel sent what netlink does not allow.
    #[error("a notification of the kernel is malformed: {fault}")]
    Malformed {
        /// What is wrong with it.
        fault: &'static str,
    },
}

/// A subscription to the commits in the network namespace in which it was opened.
///
/// Its descriptor is readable when there is something to [`drain`](Self::drain).
pub struct Monitor {
    socket: OwnedFd,
    buffer: Vec<u8>,
    pending: Pending,
    own: Option<Port>,
}

impl Monitor {
    /// Subscribes; what is committed from now on is noticed. What the socket of port `own` commits is no intrusion.
    ///
    /// # Errors
    ///
    /// [`MonitorError::Open`], with `EPERM` for want of `CAP_NET_ADMIN`.
    pub fn open(own: Option<Port>) -> Result<Self, MonitorError> {
        let mut monitor = Self::open_deaf(own).map_err(MonitorError::Open)?;
        monitor.subscribe()?;
        Ok(monitor)
    }

    /// A monitor that hears nothing yet.
    pub(super) fn open_deaf(own: Option<Port>) -> io::Result<Self> {
        let protocol = SockProtocol::NetlinkNetFilter;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        Ok(Self { socket, buffer: Vec::new(), pending: Pending::default(), own })
    }

    pub(super) fn subscribe(&mut self) -> Result<(), MonitorError> {
        // Without privilege the buffer is as large as net.core.rmem_max lets it be.
        if setsockopt(&self.socket, RcvBufForce, &RECEIVE_BUFFER).is_err() {
            let set = setsockopt(&self.socket, RcvBuf, &RECEIVE_BUFFER);
            set.map_err(|errno| MonitorError::Open(errno.into()))?;
        }
        // Without a port of its own it would be taken for the one who commits. With one its end has to wait until the
        // kernel has freed what others deleted (`nft_rcv_nl_event`), so it gets none before it is needed.
        if self.buffer.is_empty() {
            bind(self.socket.as_raw_fd(), &NetlinkAddr::new(0, 0))
                .map_err(|errno| MonitorError::Open(errno.into()))?;
            self.buffer.resize(DATAGRAM, 0);
        }
        self.join(libc::NETLINK_ADD_MEMBERSHIP).map_err(MonitorError::Open)
    }

    /// Hears no more; what has come is forgotten.
    pub(super) fn unsubscribe(&mut self) -> Result<(), MonitorError> {
        self.join(libc::NETLINK_DROP_MEMBERSHIP).map_err(MonitorError::Read)?;
        self.drain()?;
        self.pending = Pending::default();
        Ok(())
    }

    fn join(&self, option: i32) -> io::Result<()> {
        set_option(self.socket.as_fd(), option, libc::NFNLGRP_NFTABLES as u32)
    }

    /// Waits for a commit, for a thread that has nothing else to do.
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

    /// Waits until there is something to read; `false`: the time was over, or a signal came.
    pub(super) fn is_readable(&self, limit: impl Into<PollTimeout>) -> Result<bool, MonitorError> {
        let mut readable = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut readable, limit) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(MonitorError::Read(errno.into())),
        }
    }

    /// Takes all notifications that have come, without waiting; `None` if no commit was among them.
    ///
    /// # Errors
    ///
    /// [`MonitorError::Read`], [`MonitorError::Malformed`].
    pub fn drain(&mut self) -> Result<Option<Noticed>, MonitorError> {
        let mut noticed = None;
        self.drain_into(&mut noticed)?;
        Ok(noticed)
    }

    /// Like [`drain`](Self::drain), on top of what was noticed before.
    pub(super) fn drain_into(&mut self, noticed: &mut Option<Noticed>) -> Result<(), MonitorError> {
        loop {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
            match recv(self.socket.as_raw_fd(), &mut self.buffer, flags) {
                Ok(length) => {
                    let datagram = self.buffer.get(..length);
                    let datagram = datagram.ok_or(MonitorError::Malformed { fault: "it is cut off" })?;
                    let heard = self.pending.hear(datagram, self.own, noticed);
                    heard.map_err(|Malformed(fault)| MonitorError::Malformed { fault })?;
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

/// A commit of which not everything was heard: its objects come first, and NEWGEN ends it
/// (`nf_tables_commit`).
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    touched_ours: bool,
}

impl Pending {
    fn hear(
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

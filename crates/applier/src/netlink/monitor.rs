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
    /// Whether a commit touched our table.
    pub touched_ours: bool,
    /// Who touched our table.
    pub who: BTreeSet<Committer>,
    /// Notifications were lost (`ENOBUFS`): only a dump tells what they were.
    pub overrun: bool,
}

/// Who made a commit, for people to read: to tell one's own commits, compare generations.
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
}

impl Monitor {
    /// Subscribes; what is committed from now on is noticed.
    ///
    /// # Errors
    ///
    /// [`MonitorError::Open`], with `EPERM` for want of `CAP_NET_ADMIN`.
    pub fn open() -> Result<Self, MonitorError> {
        let socket = subscribe().map_err(|errno| MonitorError::Open(errno.into()))?;
        Ok(Self { socket, buffer: vec![0; DATAGRAM], pending: Pending::default() })
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
            let mut readable = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut readable, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(MonitorError::Read(errno.into())),
            }
        }
    }

    /// Takes all notifications that have come, without waiting; `None` if no commit was among them.
    ///
    /// # Errors
    ///
    /// [`MonitorError::Read`], [`MonitorError::Malformed`].
    pub fn drain(&mut self) -> Result<Option<Noticed>, MonitorError> {
        let mut noticed = None;
        loop {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
            match recv(self.socket.as_raw_fd(), &mut self.buffer, flags) {
                Ok(length) => {
                    let datagram = self.buffer.get(..length);
                    let datagram = datagram.ok_or(MonitorError::Malformed { fault: "it is cut off" })?;
                    let heard = self.pending.hear(datagram, &mut noticed);
                    heard.map_err(|Malformed(fault)| MonitorError::Malformed { fault })?;
                }
                Err(Errno::EAGAIN) => return Ok(noticed),
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

fn subscribe() -> nix::Result<OwnedFd> {
    let protocol = SockProtocol::NetlinkNetFilter;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    // Without privilege the buffer is as large as net.core.rmem_max lets it be.
    if setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER).is_err() {
        setsockopt(&socket, RcvBuf, &RECEIVE_BUFFER)?;
    }
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 1 << (libc::NFNLGRP_NFTABLES - 1)))?;
    Ok(socket)
}

/// A commit of which not everything was heard: its objects come first, and NEWGEN ends it
/// (`nf_tables_commit`).
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    touched_ours: bool,
}

impl Pending {
    fn hear(&mut self, datagram: &[u8], noticed: &mut Option<Noticed>) -> Result<(), Malformed> {
        for message in Messages(datagram) {
            let Answer::Object { kind, family, attributes, .. } = message?.answer()? else { continue };
            if kind == kind::NEWGEN {
                let commit = Fields::<4>::parse(attributes)?;
                self.end(&commit, noticed.get_or_insert_default());
            } else if family == INET {
                // The table's name is the first attribute of every object.
                self.touched_ours |= Fields::<2>::parse(attributes)?.name(table::NAME) == TABLE.as_bytes();
            }
        }
        Ok(())
    }

    fn end(&mut self, commit: &Fields<'_, 4>, noticed: &mut Noticed) {
        noticed.generation = commit.be32(generation::ID).map(Generation).or(noticed.generation);
        if std::mem::take(self).touched_ours {
            noticed.touched_ours = true;
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

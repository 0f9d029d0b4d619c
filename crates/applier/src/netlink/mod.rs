//! nf_tables through netlink: libmnl's socket, libnftnl's batch, and our own messages for what nftnl's safe interface
//! does not support: data and userdata of maps, 4-byte registers, many elements per message, the generation guard, dumps.

mod attribute;
pub mod conntrack;
mod decode;
mod element;
mod encode;
mod expression;
mod ffi;
mod foreign;
mod lower;
mod message;
pub mod monitor;
mod read;
mod request;
pub(crate) mod rtnetlink;
mod set;
pub(crate) mod sock_diag;
mod socket;
mod subscription;
mod uapi;
mod userdata;

use std::io;

use nix::libc;
use rules::Transaction;
use rules::ruleset::{Key, Set};

use crate::kernel::{CommitError, Dump, DumpError, Found, Generation, Netfilter};
use attribute::Malformed;
use encode::{Encoded, encode};
use message::{Answer, Messages, os_error};
use monitor::Port;
use socket::{Bus, Socket};
use subscription::Subscription;

/// nf_tables of the running kernel, in the network namespace in which it was opened.
pub struct Kernel {
    socket: Socket,
    sequence: u32,
    /// Whether another process committed during the last read or commit.
    is_crowded: bool,
    /// Follows other processes' commits between a dump and our commit; active only if other processes commit.
    subscription: Subscription,
}

/// How often to send a commit while other processes commit to other tables; each attempt takes as long as the kernel
/// needs to copy the transaction.
const COMMITS: usize = 1_000;

/// Why no netlink socket could be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no `NETLINK_NETFILTER`.
    #[error("this kernel has no netfilter netlink (CONFIG_NETFILTER_NETLINK, module nfnetlink)")]
    Unsupported(#[source] io::Error),
    /// The socket cannot be opened.
    #[error("open a netlink socket")]
    Io(#[source] io::Error),
}

impl Kernel {
    /// Opens a netlink socket; needs no privilege.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn open() -> Result<Self, OpenError> {
        match Socket::open(Bus::Netfilter) {
            Ok(socket) => {
                let subscription = Subscription::open(Port(socket.port())).map_err(OpenError::Io)?;
                Ok(Self { socket, sequence: 0, is_crowded: false, subscription })
            }
            Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => {
                Err(OpenError::Unsupported(error))
            }
            Err(error) => Err(OpenError::Io(error)),
        }
    }
}

impl Netfilter for Kernel {
    fn dump(&mut self) -> Result<Dump, DumpError> {
        self.steady_dump()
    }

    fn elements(&mut self, keys: &[(Set, Key)]) -> Result<Found, DumpError> {
        let found = self.read_elements(keys);
        if found.is_err() {
            self.socket.drain();
        }
        found
    }

    fn commit(
        &mut self,
        transaction: &Transaction,
        generation: Generation,
    ) -> Result<Generation, CommitError> {
        let mut batch = encode(transaction, generation, self.sequence);
        self.sequence = self.sequence.wrapping_add(batch.numbers());
        let mut tried = None;
        for _ in 0..COMMITS {
            // The kernel guards the generation of all tables, but only our table matters. So after a commit to another
            // table, send ours again at once with the new generation.
            let latest = self.subscription.latest(generation).unwrap_or(None);
            let Some(latest) = latest.filter(|&latest| tried != Some(latest)) else { break };
            tried = Some(latest);
            batch.guard(latest);
            self.send(&batch)?;
            match self.verdict(transaction, &batch) {
                Err(CommitError::Stale) => {}
                verdict => return verdict.map(|()| latest.next()),
            }
        }
        self.is_crowded = true;
        Err(CommitError::Stale)
    }

    fn rest(&mut self) {
        self.subscription.switch_off();
        self.is_crowded = false;
    }
}

impl Kernel {
    /// The netlink port that identifies its commits.
    pub fn port(&self) -> Port {
        Port(self.socket.port())
    }

    fn send(&mut self, batch: &Encoded) -> Result<(), CommitError> {
        let pieces = batch.pieces();
        self.socket.send(&pieces).map_err(|error| match error.raw_os_error() {
            Some(libc::EMSGSIZE) => {
                CommitError::TooLarge { bytes: pieces.iter().map(|piece| piece.len()).sum() }
            }
            Some(libc::EPERM | libc::EACCES) => CommitError::Denied(error),
            Some(libc::ECONNREFUSED) => CommitError::Unsupported(error),
            Some(libc::ENOBUFS | libc::EINTR) => CommitError::OutcomeUnknown(error),
            _ => CommitError::Io(error),
        })
    }

    /// Reads the kernel's verdict on a batch. The kernel processed it during the send, so the answers are already queued.
    fn verdict(&mut self, transaction: &Transaction, batch: &Encoded) -> Result<(), CommitError> {
        let mut acknowledged = false;
        let mut lost = None;
        let mut refused = None;
        loop {
            let datagram = match self.socket.receive_now() {
                Ok(Some(datagram)) => datagram,
                Ok(None) => break,
                // ENOBUFS: the buffer overflowed. Drain it, or later answers have no room.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    lost = Some(error);
                    continue;
                }
                Err(error) => return Err(CommitError::OutcomeUnknown(error)),
            };
            for message in Messages(datagram) {
                match message.and_then(|message| Ok((message.sequence, message.answer()?))) {
                    Ok((_, Answer::Verdict { errno: 0, .. })) => acknowledged = true,
                    // The kernel continues after the first error, which may cause the later ones.
                    Ok((sequence, Answer::Verdict { errno, offset })) if batch.contains(sequence) => {
                        refused.get_or_insert((sequence, errno, offset));
                    }
                    Ok(_) => {}
                    Err(Malformed(fault)) => lost = Some(io::Error::new(io::ErrorKind::InvalidData, fault)),
                }
            }
        }
        // One refusal proves that nothing was applied, even if other answers were lost.
        match (refused, lost) {
            (Some((sequence, errno, offset)), _) => Err(refusal(transaction, batch, sequence, errno, offset)),
            (None, Some(error)) => Err(CommitError::OutcomeUnknown(error)),
            (None, None) if acknowledged || !batch.is_acknowledged() => Ok(()),
            (None, None) => Err(CommitError::OutcomeUnknown(io::ErrorKind::TimedOut.into())),
        }
    }
}

fn refusal(
    transaction: &Transaction,
    batch: &Encoded,
    sequence: u32,
    errno: i32,
    offset: Option<u32>,
) -> CommitError {
    // If an operation needs a module, the kernel loads it and starts again (`nfnetlink_rcv_batch`); it then reports a
    // concurrent commit for that operation.
    if errno == libc::ERESTART {
        return CommitError::Stale;
    }
    let source = os_error(errno);
    let index = batch.operation(transaction, sequence, offset);
    match index.and_then(|index| Some((index, transaction.operations.get(index)?))) {
        Some((index, operation)) => CommitError::Refused {
            index,
            total: transaction.operations.len(),
            operation: Box::new(operation.clone()),
            source,
        },
        None => match errno {
            libc::EPERM => CommitError::Denied(source),
            libc::EOPNOTSUPP => CommitError::Unsupported(source),
            _ => CommitError::Io(source),
        },
    }
}

#[cfg(test)]
mod tests {
    use rules::Operation;
    use rules::ruleset::Chain;

    use super::*;
    use crate::kernel::Generation;

    #[test]
    fn erestart_means_stale_for_any_message() {
        let transaction =
            Transaction { operations: vec![Operation::AddTable, Operation::AddChain(Chain::Prerouting)] };
        let batch = encode(&transaction, Generation(7), 40);
        for sequence in 40..=42 {
            let error = refusal(&transaction, &batch, sequence, libc::ERESTART, None);
            assert!(matches!(error, CommitError::Stale), "{error}");
        }
        let error = refusal(&transaction, &batch, 42, libc::ENOENT, None);
        assert!(matches!(error, CommitError::Refused { index: 1, .. }), "{error}");
    }
}

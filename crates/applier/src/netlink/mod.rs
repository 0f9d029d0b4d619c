//! nf_tables by netlink: libmnl's socket, libnftnl's batch, and messages of our own where nftnl's safe interface
//! ends: data and userdata of maps, registers of 4 bytes, many elements in a message, the generation guard, dumps.

mod attribute;
pub mod conntrack;
mod decode;
mod element;
mod encode;
mod expression;
mod ffi;
mod lower;
mod message;
pub mod monitor;
mod set;
mod socket;
mod uapi;
mod userdata;

use std::collections::BTreeMap;
use std::io;

use nix::libc;
use rules::Transaction;

use crate::kernel::{CommitError, Dump, DumpError, Generation, Netfilter, Table};
use attribute::{Fields, Malformed, Writer};
use decode::{Decoder, Owner};
use encode::{Encoded, encode};
use message::{Answer, Messages, build, os_error};
use socket::Socket;
use uapi::message as kind;

/// How often a dump is tried while others change the ruleset.
const DUMP_ATTEMPTS: usize = 20;

/// The running kernel, in the network namespace in which it was opened.
pub struct Kernel {
    socket: Socket,
    sequence: u32,
}

/// Why the kernel cannot be spoken to.
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
    /// Opens a socket to the kernel, which needs no privilege yet.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn open() -> Result<Self, OpenError> {
        match Socket::open() {
            Ok(socket) => Ok(Self { socket, sequence: 0 }),
            Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => {
                Err(OpenError::Unsupported(error))
            }
            Err(error) => Err(OpenError::Io(error)),
        }
    }
}

/// Something that is asked of the kernel, and the type of the objects in its answer.
#[derive(Clone, Copy)]
struct Request {
    /// In nft's words, for errors.
    name: &'static str,
    kind: u8,
    answer: u8,
    flags: i32,
}

impl Request {
    const GENERATION: Self = Self::one("list the generation", kind::GETGEN, kind::NEWGEN);
    const TABLE: Self = Self::one("list table", kind::GETTABLE, kind::NEWTABLE);
    const CHAINS: Self = Self::all("list chains", kind::GETCHAIN, kind::NEWCHAIN);
    const SETS: Self = Self::all("list sets", kind::GETSET, kind::NEWSET);
    const ELEMENTS: Self = Self::all("list set elements", kind::GETSETELEM, kind::NEWSETELEM);
    const RULES: Self = Self::all("list rules", kind::GETRULE, kind::NEWRULE);
    const OBJECTS: Self = Self::all("list stateful objects", kind::GETOBJ, kind::NEWOBJ);
    const FLOWTABLES: Self = Self::all("list flowtables", kind::GETFLOWTABLE, kind::NEWFLOWTABLE);

    const fn one(name: &'static str, kind: u8, answer: u8) -> Self {
        Self { name, kind, answer, flags: libc::NLM_F_ACK }
    }

    const fn all(name: &'static str, kind: u8, answer: u8) -> Self {
        Self { name, kind, answer, flags: libc::NLM_F_DUMP }
    }

    fn malformed(self, Malformed(fault): Malformed) -> DumpError {
        DumpError::Malformed { request: self.name, fault }
    }

    fn failed(self, source: io::Error) -> DumpError {
        match source.raw_os_error() {
            Some(libc::EPERM) => DumpError::Denied(source),
            // nfnetlink's words for a subsystem that is not there and cannot be loaded.
            Some(libc::EOPNOTSUPP | libc::ECONNREFUSED) => DumpError::Unsupported(source),
            Some(libc::EINVAL) if self.kind == kind::GETGEN => DumpError::Unsupported(source),
            _ => DumpError::Io { request: self.name, source },
        }
    }
}

/// How the kernel ended its answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// All of it came.
    Complete,
    /// What was asked for is not there.
    Missing,
    /// The ruleset changed meanwhile.
    Changed,
}

impl Netfilter for Kernel {
    fn dump(&mut self) -> Result<Dump, DumpError> {
        for _ in 0..DUMP_ATTEMPTS {
            let generation = self.generation()?;
            if let Some(dump) = self.dump_at(generation)?
                && self.generation()? == generation
            {
                return Ok(dump);
            }
        }
        Err(DumpError::Restless { attempts: DUMP_ATTEMPTS })
    }

    fn commit(&mut self, transaction: &Transaction, generation: Generation) -> Result<(), CommitError> {
        let batch = encode(transaction, generation, self.sequence);
        self.sequence = self.sequence.wrapping_add(batch.numbers());
        self.send(&batch)?;
        self.verdict(transaction, &batch)
    }
}

impl Kernel {
    fn generation(&mut self) -> Result<Generation, DumpError> {
        let mut generation = None;
        self.ask(
            Request::GENERATION,
            None,
            |_| {},
            |attributes| {
                generation = Fields::<4>::parse(attributes)?.be32(uapi::generation::ID);
                Ok(())
            },
        )?;
        let without = Malformed("it has no generation");
        generation.map(Generation).ok_or_else(|| Request::GENERATION.malformed(without))
    }

    /// Reads everything; `None` if the ruleset was seen to change meanwhile, or was not read whole. A change that was
    /// not seen is one of the generation as well.
    fn dump_at(&mut self, generation: Generation) -> Result<Option<Dump>, DumpError> {
        let at = Some(generation);
        let mut decoder = Decoder::default();
        let mut owner = None;
        let end = self.ask(Request::TABLE, at, in_table, |attributes| {
            owner = Some(decoder.table(attributes)?);
            Ok(())
        })?;
        let table = match (end, owner) {
            (End::Changed, _) => return Ok(None),
            (End::Missing, _) | (End::Complete, None) => Table::Absent,
            (End::Complete, Some(Owner::Other { why })) => Table::Foreign { why },
            (End::Complete, Some(Owner::Us)) => {
                if !self.dump_contents(at, &mut decoder)? {
                    return Ok(None);
                }
                let whole = decoder.finish();
                return Ok(whole.map(|(actual, counters)| Dump {
                    generation,
                    table: Table::Ours(actual),
                    counters,
                }));
            }
        };
        Ok(Some(Dump { generation, table, counters: BTreeMap::new() }))
    }

    /// Reads what is in our table; `false` if it was seen to change meanwhile.
    fn dump_contents(&mut self, at: Option<Generation>, decoder: &mut Decoder) -> Result<bool, DumpError> {
        // The kernel lists the chains of all tables of the family.
        let mut ends = vec![self.ask(Request::CHAINS, at, |_| {}, |attributes| decoder.chain(attributes))?];
        ends.push(self.ask(Request::SETS, at, in_table, |attributes| decoder.set(attributes))?);
        for set in decoder.sets() {
            let of_set = |writer: &mut Writer| {
                in_table(writer);
                writer.name(uapi::elements::SET, set.name());
            };
            ends.push(
                self.ask(Request::ELEMENTS, at, of_set, |attributes| decoder.elements(set, attributes))?,
            );
        }
        ends.push(self.ask(Request::RULES, at, in_table, |attributes| decoder.rule(attributes))?);
        ends.push(self.ask(Request::OBJECTS, at, in_table, |attributes| decoder.object(attributes))?);
        ends.push(self.ask(Request::FLOWTABLES, at, in_table, |attributes| decoder.flowtable(attributes))?);
        Ok(ends.iter().all(|&end| end == End::Complete))
    }

    /// Sends a request and hands each object of the answer to `take`, to the end of the answer in any case: the socket
    /// is ready for the next request then.
    fn ask(
        &mut self,
        request: Request,
        at: Option<Generation>,
        fill: impl FnOnce(&mut Writer),
        mut take: impl FnMut(&[u8]) -> Result<(), Malformed>,
    ) -> Result<End, DumpError> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let message = build(request.kind, request.flags, sequence, fill);
        self.socket.send(&[&message]).map_err(|error| request.failed(error))?;
        let mut answer = Ok(End::Complete);
        loop {
            let datagram = self.socket.receive().map_err(|error| request.failed(error))?;
            for message in Messages(datagram) {
                let message = message.map_err(|fault| request.malformed(fault))?;
                if message.sequence != sequence {
                    continue;
                }
                if i32::from(message.flags) & libc::NLM_F_DUMP_INTR != 0 {
                    answer = Ok(End::Changed);
                }
                match message.answer().map_err(|fault| request.malformed(fault))? {
                    Answer::Object { kind, generation, attributes, .. } if kind == request.answer => {
                        if at.is_some_and(|at| at.0 & 0xffff != u32::from(generation)) {
                            answer = Ok(End::Changed);
                        } else if let Err(fault) = take(attributes) {
                            answer = Err(request.malformed(fault));
                        }
                    }
                    Answer::Done(0) | Answer::Verdict { errno: 0, .. } => return answer,
                    Answer::Done(libc::ENOENT) | Answer::Verdict { errno: libc::ENOENT, .. } => {
                        return Ok(End::Missing);
                    }
                    Answer::Done(libc::EINTR) => return Ok(End::Changed),
                    Answer::Done(errno) | Answer::Verdict { errno, .. } => {
                        return Err(request.failed(os_error(errno)));
                    }
                    Answer::Object { .. } | Answer::Other => {}
                }
            }
        }
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

    /// Reads the kernel's word on a batch. It was carried out within the send, so all that is to come has come.
    fn verdict(&mut self, transaction: &Transaction, batch: &Encoded) -> Result<(), CommitError> {
        let mut acknowledged = false;
        let mut lost = None;
        let mut refused = None;
        loop {
            let datagram = match self.socket.receive_now() {
                Ok(Some(datagram)) => datagram,
                Ok(None) => break,
                // ENOBUFS: the buffer was full at some time. What is in it must go, or no later answer has room.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    lost = Some(error);
                    continue;
                }
                Err(error) => return Err(CommitError::OutcomeUnknown(error)),
            };
            for message in Messages(datagram) {
                match message.and_then(|message| Ok((message.sequence, message.answer()?))) {
                    Ok((_, Answer::Verdict { errno: 0, .. })) => acknowledged = true,
                    // The kernel goes on after the first fault; what follows may follow from it.
                    Ok((sequence, Answer::Verdict { errno, offset })) if batch.contains(sequence) => {
                        refused.get_or_insert((sequence, errno, offset));
                    }
                    Ok(_) => {}
                    Err(Malformed(fault)) => lost = Some(io::Error::new(io::ErrorKind::InvalidData, fault)),
                }
            }
        }
        // One refusal is enough to know that nothing was carried out, whatever else was lost.
        match (refused, lost) {
            (Some((sequence, errno, offset)), _) => Err(refusal(transaction, batch, sequence, errno, offset)),
            (None, Some(error)) => Err(CommitError::OutcomeUnknown(error)),
            (None, None) if acknowledged || !batch.is_acknowledged() => Ok(()),
            (None, None) => Err(CommitError::OutcomeUnknown(io::ErrorKind::TimedOut.into())),
        }
    }
}

fn in_table(writer: &mut Writer) {
    writer.name(uapi::table::NAME, rules::ruleset::TABLE);
}

fn refusal(
    transaction: &Transaction,
    batch: &Encoded,
    sequence: u32,
    errno: i32,
    offset: Option<u32>,
) -> CommitError {
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
            libc::ERESTART => CommitError::Stale,
            libc::EPERM => CommitError::Denied(source),
            libc::EOPNOTSUPP => CommitError::Unsupported(source),
            _ => CommitError::Io(source),
        },
    }
}

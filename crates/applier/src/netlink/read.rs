//! Reading: the whole table, or some of its elements, all at one generation.

use std::collections::BTreeMap;
use std::io;

use nix::libc;
use rules::ruleset::{Key, Set};

use super::attribute::{Fields, Malformed, Writer};
use super::decode::{Decoder, Owner};
use super::message::{Answer, Messages, build, os_error};
use super::uapi::message as kind;
use super::{Kernel, element, uapi};
use crate::kernel::{Dump, DumpError, Generation, Reading, Table};

/// How often something is read while others change the ruleset.
const ATTEMPTS: usize = 20;

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
    const ELEMENT: Self = Self::one("get element", kind::GETSETELEM, kind::NEWSETELEM);
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

impl Kernel {
    /// Reads something that is all of one generation; `read` returns `None` where it saw the ruleset change.
    pub(super) fn at_one_generation<T>(
        &mut self,
        read: impl Fn(&mut Self, Generation) -> Result<Option<T>, DumpError>,
    ) -> Result<T, DumpError> {
        let mut lost = None;
        for _ in 0..ATTEMPTS {
            match self.read_once(&read) {
                Ok(Some(whole)) => return Ok(whole),
                Ok(None) => {}
                // A question changes nothing, so a lost answer is asked for again. What is left of it comes first: the
                // kernel refuses a second dump while one goes on (EBUSY, `__netlink_dump_start`).
                Err(error) if error.is_lost_answer() => {
                    self.socket.drain();
                    lost = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(lost.unwrap_or(DumpError::Restless { attempts: ATTEMPTS }))
    }

    fn read_once<T>(
        &mut self,
        read: impl Fn(&mut Self, Generation) -> Result<Option<T>, DumpError>,
    ) -> Result<Option<T>, DumpError> {
        let generation = self.generation()?;
        let whole = read(self, generation)?;
        Ok(if self.generation()? == generation { whole } else { None })
    }

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
    pub(super) fn dump_at(&mut self, generation: Generation) -> Result<Option<Dump>, DumpError> {
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
            let of_set = |writer: &mut Writer| of_set(writer, set);
            ends.push(
                self.ask(Request::ELEMENTS, at, of_set, |attributes| decoder.elements(set, attributes))?,
            );
        }
        ends.push(self.ask(Request::RULES, at, in_table, |attributes| decoder.rule(attributes))?);
        ends.push(self.ask(Request::OBJECTS, at, in_table, |attributes| decoder.object(attributes))?);
        ends.push(self.ask(Request::FLOWTABLES, at, in_table, |attributes| decoder.flowtable(attributes))?);
        Ok(ends.iter().all(|&end| end == End::Complete))
    }

    /// Reads the elements of these keys; `None` if the ruleset was seen to change meanwhile.
    pub(super) fn elements_at(
        &mut self,
        generation: Generation,
        keys: &[(Set, Key)],
    ) -> Result<Option<Reading>, DumpError> {
        let mut elements = Vec::new();
        for &(set, key) in keys {
            let mut found = None;
            let of_key = |writer: &mut Writer| {
                of_set(writer, set);
                writer.nest(uapi::elements::LIST, |writer| element::put(writer, &key, None));
            };
            let end = self.ask(Request::ELEMENT, Some(generation), of_key, |attributes| {
                found = Some(element::only(set, key, attributes)?);
                Ok(())
            })?;
            if end == End::Changed {
                return Ok(None);
            }
            elements.push((set, key, found));
        }
        Ok(Some(Reading { generation, elements }))
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
}

fn in_table(writer: &mut Writer) {
    writer.name(uapi::table::NAME, rules::ruleset::TABLE);
}

fn of_set(writer: &mut Writer, set: Set) {
    in_table(writer);
    writer.name(uapi::elements::SET, set.name());
}

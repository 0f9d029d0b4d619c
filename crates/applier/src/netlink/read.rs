//! Reads the table at one generation, or some of its elements.

use std::collections::BTreeMap;
use std::io;
use std::thread;
use std::time::Duration;

use nix::libc;
use rules::ruleset::{Key, Set};

use super::attribute::{Fields, Malformed, Writer, shown};
use super::decode::{Decoded, Decoder, Owner};
use super::message::{Answer, INET, build_for, os_error};
use super::monitor::MonitorError;
use super::request::RequestError;
use super::uapi::message as kind;
use super::{Kernel, element, uapi};
use crate::kernel::{Dump, DumpError, Found, Generation, Table};

/// How often to read the table while other processes change it.
const ATTEMPTS: usize = 20;

/// How long to wait while the kernel grows a set's hash table.
const GROWTH: Duration = Duration::from_millis(10);

/// A request to the kernel, and the type of the objects in its answer.
#[derive(Clone, Copy)]
pub(super) struct Request {
    /// The name of the request in nft's terms, for errors.
    name: &'static str,
    kind: u8,
    answer: u8,
    flags: i32,
}

impl Request {
    const GENERATION: Self = Self::one("list the generation", kind::GETGEN, kind::NEWGEN);
    const TABLE: Self = Self::one("list table", kind::GETTABLE, kind::NEWTABLE);
    pub(super) const CHAINS: Self = Self::all("list chains", kind::GETCHAIN, kind::NEWCHAIN);
    pub(super) const SETS: Self = Self::all("list sets", kind::GETSET, kind::NEWSET);
    pub(super) const ELEMENTS: Self = Self::all("list set elements", kind::GETSETELEM, kind::NEWSETELEM);
    const ELEMENT: Self = Self::one("get element", kind::GETSETELEM, kind::NEWSETELEM);
    pub(super) const RULES: Self = Self::all("list rules", kind::GETRULE, kind::NEWRULE);
    const OBJECTS: Self = Self::all("list stateful objects", kind::GETOBJ, kind::NEWOBJ);
    const FLOWTABLES: Self = Self::all("list flowtables", kind::GETFLOWTABLE, kind::NEWFLOWTABLE);

    /// Whether the kernel resumes the dump by counting objects of all tables, so that it may skip some of our objects if
    /// other tables change (`nf_tables_dump_chains`, `nf_tables_dump_obj`, `nf_tables_dump_flowtable`).
    const fn is_of_all(self) -> bool {
        matches!(self.kind, kind::GETCHAIN | kind::GETOBJ | kind::GETFLOWTABLE)
    }

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
            // nfnetlink's answers for a subsystem that is missing and cannot be loaded.
            Some(libc::EOPNOTSUPP | libc::ECONNREFUSED) => DumpError::Unsupported(source),
            Some(libc::EINVAL) if self.kind == kind::GETGEN => DumpError::Unsupported(source),
            _ => DumpError::Io { request: self.name, source },
        }
    }
}

/// How the kernel's answer ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The answer is complete.
    Complete,
    /// The requested object does not exist.
    Missing,
    /// The ruleset changed during the dump.
    Changed,
}

impl Kernel {
    /// Reads the table until it does not change during the dump.
    pub(super) fn steady_dump(&mut self) -> Result<Dump, DumpError> {
        let mut lost = None;
        for attempt in 1..=ATTEMPTS {
            if self.is_crowded {
                self.subscription.switch_on().map_err(monitor_failed)?;
            }
            match self.dump_once(attempt == ATTEMPTS) {
                Ok(Some(dump)) => return Ok(dump),
                Ok(None) => {}
                // A read changes nothing, so repeat it after a lost answer. Drain the rest of that answer first: the kernel
                // refuses a second dump while one is running (EBUSY, `__netlink_dump_start`).
                Err(error) if error.is_lost_answer() => {
                    self.socket.drain();
                    lost = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(lost.unwrap_or(DumpError::Restless { attempts: ATTEMPTS }))
    }

    /// The dump; `None` if the table may have changed meanwhile, or the dump is incomplete.
    fn dump_once(&mut self, is_last: bool) -> Result<Option<Dump>, DumpError> {
        self.subscription.begin().map_err(monitor_failed)?;
        let first = self.generation()?;
        let read = self.dump_at(first, is_last)?;
        let last = self.generation()?;
        let is_untouched = if self.subscription.is_on() {
            self.subscription.is_untouched(first, last).map_err(monitor_failed)?
        } else {
            self.is_crowded = last != first;
            last == first
        };
        Ok(read.filter(|_| is_untouched).map(|dump| Dump { generation: last, ..dump }))
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

    /// Reads everything; `None` if the ruleset changed meanwhile, or if the dump is incomplete and this is not the last
    /// attempt.
    fn dump_at(&mut self, generation: Generation, is_last: bool) -> Result<Option<Dump>, DumpError> {
        // With notifications, a dump may span several generations.
        let at = (!self.subscription.is_on()).then_some(generation);
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
            (End::Complete, Some(Owner::Process { port })) => Table::Owned { owner: process(port) },
            (End::Complete, Some(Owner::Us)) => {
                if !self.dump_contents(at, &mut decoder)? {
                    return Ok(None);
                }
                let Decoded { actual, counters, is_complete } = decoder.finish();
                if !is_complete && !is_last {
                    thread::sleep(GROWTH);
                    return Ok(None);
                }
                return Ok(Some(Dump { generation, table: Table::Ours(actual), counters }));
            }
        };
        Ok(Some(Dump { generation, table, counters: BTreeMap::new() }))
    }

    /// Reads the contents of our table; `false` if incomplete.
    fn dump_contents(&mut self, at: Option<Generation>, decoder: &mut Decoder) -> Result<bool, DumpError> {
        let mut ends = vec![self.ask_again(Request::CHAINS, at, |_| {}, |object| decoder.chain(object))?];
        ends.push(self.ask(Request::SETS, at, in_table, |object| decoder.set(object))?);
        for set in decoder.sets() {
            let of_set = |writer: &mut Writer| of_set(writer, set);
            ends.push(self.ask(Request::ELEMENTS, at, of_set, |object| decoder.elements(set, object))?);
        }
        ends.push(self.ask(Request::RULES, at, in_table, |object| decoder.rule(object))?);
        ends.push(self.ask_again(Request::OBJECTS, at, in_table, |object| decoder.object(object))?);
        ends.push(self.ask_again(Request::FLOWTABLES, at, in_table, |object| decoder.flowtable(object))?);
        Ok(ends.iter().all(|&end| end == End::Complete))
    }

    /// Reads the elements with these keys.
    pub(super) fn read_elements(&mut self, keys: &[(Set, Key)]) -> Result<Found, DumpError> {
        let mut elements = Vec::new();
        for &(set, key) in keys {
            let mut found = None;
            let of_key = |writer: &mut Writer| {
                of_set(writer, set);
                writer.nest(uapi::elements::LIST, |writer| element::put(writer, &key, None));
            };
            self.ask(Request::ELEMENT, None, of_key, |attributes| {
                found = element::only(set, key, attributes)?;
                Ok(())
            })?;
            elements.push((set, key, found));
        }
        Ok(elements)
    }

    /// Requests a list until it is of one generation, a few times; `take` may get objects repeatedly.
    fn ask_again(
        &mut self,
        request: Request,
        at: Option<Generation>,
        fill: impl Fn(&mut Writer),
        mut take: impl FnMut(&[u8]) -> Result<(), Malformed>,
    ) -> Result<End, DumpError> {
        for _ in 1..ATTEMPTS {
            let end = self.ask(request, at, &fill, &mut take)?;
            if end != End::Changed || at.is_some() {
                return Ok(end);
            }
        }
        self.ask(request, at, fill, take)
    }

    /// Sends a request and passes each object of the answer to `take`. Always reads the entire answer, so that the socket is
    /// ready for the next request.
    fn ask(
        &mut self,
        request: Request,
        at: Option<Generation>,
        fill: impl FnOnce(&mut Writer),
        mut take: impl FnMut(&[u8]) -> Result<(), Malformed>,
    ) -> Result<End, DumpError> {
        self.ask_family(request, INET, at, fill, |_, attributes| take(attributes))
    }

    /// Like [`ask`](Self::ask), for the tables of one family, or of all with `NFPROTO_UNSPEC`; `take` also gets the family.
    pub(super) fn ask_family(
        &mut self,
        request: Request,
        family: u8,
        at: Option<Generation>,
        fill: impl FnOnce(&mut Writer),
        mut take: impl FnMut(u8, &[u8]) -> Result<(), Malformed>,
    ) -> Result<End, DumpError> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let subsystem = libc::NFNL_SUBSYS_NFTABLES;
        let message = build_for(subsystem, family, request.kind, request.flags, sequence, fill);
        let mut has_changed = false;
        let end = self.socket.request_and(
            &message,
            sequence,
            || self.subscription.receive().map_err(Unread::Monitor),
            |message| match message.answer()? {
                Answer::Object { kind, family, generation, attributes } if kind == request.answer => {
                    if at.is_some_and(|at| at.0 & 0xffff != u32::from(generation)) {
                        has_changed = true;
                        return Ok(());
                    }
                    take(family, attributes)
                }
                _ => Ok(()),
            },
        );
        let end = end.map_err(|error| match error {
            Unread::Monitor(error) => monitor_failed(error),
            Unread::Request(RequestError::Io(error)) => request.failed(error),
            Unread::Request(RequestError::Malformed(fault)) => request.malformed(fault),
        })?;
        has_changed |= end.is_interrupted && (at.is_some() || request.is_of_all());
        match end.errno {
            0 if has_changed => Ok(End::Changed),
            0 => Ok(End::Complete),
            libc::ENOENT => Ok(End::Missing),
            libc::EINTR => Ok(End::Changed),
            errno => Err(request.failed(os_error(errno))),
        }
    }
}

/// Why an answer was not read completely.
enum Unread {
    Request(RequestError),
    /// Other processes' commits could not be followed meanwhile.
    Monitor(MonitorError),
}

impl From<RequestError> for Unread {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

/// Describes the process with this netlink port, which is its process id unless it has several sockets (netlink(7)).
fn process(port: u32) -> String {
    match std::fs::read(format!("/proc/{port}/comm")) {
        Ok(name) => format!("process {port} ({})", shown(name.trim_ascii_end())),
        Err(_) => format!("the process with netlink port {port}"),
    }
}

/// The error that other processes' commits could not be followed.
fn monitor_failed(error: MonitorError) -> DumpError {
    let source = match error {
        MonitorError::Open(source) | MonitorError::Read(source) => source,
        MonitorError::Malformed { fault } => io::Error::new(io::ErrorKind::InvalidData, fault),
    };
    DumpError::Io { request: "listen to nf_tables' notifications", source }
}

fn in_table(writer: &mut Writer) {
    writer.name(uapi::table::NAME, rules::ruleset::TABLE);
}

fn of_set(writer: &mut Writer, set: Set) {
    in_table(writer);
    writer.name(uapi::elements::SET, &set.name());
}

//! Sends a netlink request and reads its answer.

use std::io;

use nix::libc;

use super::attribute::Malformed;
use super::message::{Answer, Message, Messages, os_error};
use super::socket::Socket;

/// The end of a complete answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AnswerEnd {
    /// 0, or why the kernel refused the request or aborted the dump.
    pub(super) errno: i32,
    /// Whether the dumped objects changed during the dump (`NLM_F_DUMP_INTR`, netlink(7)).
    pub(super) is_interrupted: bool,
}

impl AnswerEnd {
    /// # Errors
    ///
    /// The kernel's errno.
    pub(super) fn complete(self) -> Result<(), RequestError> {
        if self.errno == 0 { Ok(()) } else { Err(RequestError::Io(os_error(self.errno))) }
    }
}

/// Why there is no valid answer.
#[derive(Debug)]
pub(super) enum RequestError {
    Io(io::Error),
    Malformed(Malformed),
}

impl From<Malformed> for RequestError {
    fn from(fault: Malformed) -> Self {
        Self::Malformed(fault)
    }
}

impl From<RequestError> for io::Error {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Io(error) => error,
            RequestError::Malformed(Malformed(fault)) => Self::new(io::ErrorKind::InvalidData, fault),
        }
    }
}

/// Reads the answer to one request.
#[derive(Debug)]
pub(super) struct AnswerReader {
    sequence: u32,
    is_interrupted: bool,
    /// The first malformed object.
    fault: Option<Malformed>,
}

impl AnswerReader {
    pub(super) fn of(sequence: u32) -> Self {
        Self { sequence, is_interrupted: false, fault: None }
    }

    /// Passes each object in a datagram to `take`, and returns the end of the answer if it is in this datagram.
    ///
    /// # Errors
    ///
    /// If the datagram is malformed, or at the end of an answer with a malformed object.
    pub(super) fn read(
        &mut self,
        datagram: &[u8],
        take: &mut impl FnMut(&Message<'_>) -> Result<(), Malformed>,
    ) -> Result<Option<AnswerEnd>, RequestError> {
        for message in Messages(datagram) {
            let message = message?;
            // An answer to an earlier, abandoned request.
            if message.sequence != self.sequence {
                continue;
            }
            self.is_interrupted |= i32::from(message.flags) & libc::NLM_F_DUMP_INTR != 0;
            match message.answer()? {
                Answer::Done(errno) | Answer::Verdict { errno, .. } => {
                    let end = AnswerEnd { errno, is_interrupted: self.is_interrupted };
                    return match self.fault.take() {
                        Some(fault) if errno == 0 => Err(fault.into()),
                        _ => Ok(Some(end)),
                    };
                }
                Answer::Object { .. } | Answer::Other => {
                    let fault = take(&message).err();
                    self.fault = self.fault.take().or(fault);
                }
            }
        }
        Ok(None)
    }
}

impl Socket {
    /// Sends a request and passes each object of the answer to `take`.
    ///
    /// An error from `take` is returned after the entire answer has been read, so the socket is ready for the next request.
    pub(super) fn request(
        &mut self,
        request: &[u8],
        sequence: u32,
        take: impl FnMut(&Message<'_>) -> Result<(), Malformed>,
    ) -> Result<AnswerEnd, RequestError> {
        self.request_and(request, sequence, || Ok(()), take)
    }

    /// Like [`request`](Self::request), and calls `meanwhile` after each datagram.
    pub(super) fn request_and<E: From<RequestError>>(
        &mut self,
        request: &[u8],
        sequence: u32,
        mut meanwhile: impl FnMut() -> Result<(), E>,
        mut take: impl FnMut(&Message<'_>) -> Result<(), Malformed>,
    ) -> Result<AnswerEnd, E> {
        self.send(&[request]).map_err(RequestError::Io)?;
        let mut reader = AnswerReader::of(sequence);
        loop {
            let datagram = self.receive().map_err(RequestError::Io)?;
            meanwhile()?;
            if let Some(end) = reader.read(datagram, &mut take)? {
                return Ok(end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::build_raw;
    use super::*;

    const OBJECT: u16 = 20;

    /// A message of an answer to request `sequence`, with the kernel's padding.
    fn message(kind: u16, flags: i32, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut message = build_raw(kind, flags, sequence, |writer| writer.0.extend_from_slice(body));
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    fn done(errno: i32) -> Vec<u8> {
        message(libc::NLMSG_DONE as u16, 0, 7, &(-errno).to_ne_bytes())
    }

    /// The end of the answer to request 7, and the bodies of its objects; an empty body is malformed.
    fn read(datagrams: &[Vec<u8>]) -> (Option<Result<AnswerEnd, String>>, Vec<Vec<u8>>) {
        let (mut reader, mut bodies) = (AnswerReader::of(7), Vec::new());
        for datagram in datagrams {
            let read = reader.read(datagram, &mut |message| {
                bodies.push(message.body.to_vec());
                if message.body.is_empty() { Err(Malformed("it is empty")) } else { Ok(()) }
            });
            match read {
                Ok(None) => {}
                Ok(Some(end)) => return (Some(Ok(end)), bodies),
                Err(error) => return (Some(Err(io::Error::from(error).to_string())), bodies),
            }
        }
        (None, bodies)
    }

    #[test]
    fn an_answer_spans_datagrams_and_skips_other_requests() {
        let (mine, other) = (message(OBJECT, 0, 7, &[1; 4]), message(OBJECT, 0, 6, &[2; 4]));
        let late = message(libc::NLMSG_DONE as u16, 0, 6, &[0; 4]);
        let (end, bodies) = read(&[[other, mine.clone()].concat(), late, mine, done(0)]);
        assert_eq!(end, Some(Ok(AnswerEnd { errno: 0, is_interrupted: false })));
        assert_eq!(bodies, [[1; 4], [1; 4]]);
        assert_eq!(read(&[message(OBJECT, 0, 7, &[1; 4])]).0, None, "it has not ended");
    }

    #[test]
    fn a_refusal_takes_precedence_over_a_fault() {
        let faulty = || message(OBJECT, 0, 7, &[]);
        let good = || message(OBJECT, 0, 7, &[1; 4]);
        let (end, bodies) = read(&[faulty(), good(), done(0)]);
        assert_eq!((end, bodies.len()), (Some(Err("it is empty".to_owned())), 2));
        let (end, _) = read(&[faulty(), done(libc::EINTR)]);
        assert_eq!(end.unwrap().unwrap().errno, libc::EINTR);
    }

    #[test]
    fn any_message_can_mark_a_dump_interrupted() {
        let good = |flags| message(OBJECT, flags, 7, &[1; 4]);
        let (end, _) = read(&[good(libc::NLM_F_DUMP_INTR), good(0), done(0)]);
        assert!(end.unwrap().unwrap().is_interrupted);
    }

    #[test]
    fn a_truncated_datagram_is_an_error() {
        let whole = message(OBJECT, 0, 7, &[1; 4]);
        for length in 1..whole.len() {
            let (end, bodies) = read(&[whole.get(..length).unwrap().to_vec()]);
            assert!(matches!(end, Some(Err(_))) && bodies.is_empty(), "{length}");
        }
    }
}

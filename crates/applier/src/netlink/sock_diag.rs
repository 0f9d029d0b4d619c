//! Lists listening sockets with sock_diag(7), which is faster than `/proc/net/tcp`: that also walks the table of all
//! connections, which on a large machine takes milliseconds even when empty.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::libc;

use super::attribute::Malformed;
use super::message::{Message, build_raw};
use super::request::AnswerEnd;
use super::socket::{Bus, Socket};
use crate::listening::ListeningSocket;

/// `SOCK_DIAG_BY_FAMILY`, `linux/sock_diag.h`
const BY_FAMILY: u16 = 20;

/// `1 << TCP_LISTEN`, `net/tcp_states.h`
const LISTENING: u32 = 1 << 10;

/// `sizeof(struct inet_diag_sockid)`
const SOCKET_ID: usize = 48;

/// The listening TCP sockets of the caller's network namespace, IPv4 first.
pub(crate) fn listeners() -> io::Result<Vec<ListeningSocket>> {
    let mut socket = Socket::open(Bus::SockDiag)?;
    let mut listeners = Vec::new();
    for (family, sequence) in [libc::AF_INET, libc::AF_INET6].into_iter().zip(1..) {
        let end =
            socket.request(&request(family, sequence), sequence, |message| take(message, &mut listeners));
        end.and_then(AnswerEnd::complete)?;
    }
    Ok(listeners)
}

/// `struct inet_diag_req_v2`: any address and any port.
fn request(family: i32, sequence: u32) -> Vec<u8> {
    build_raw(BY_FAMILY, libc::NLM_F_DUMP, sequence, |writer| {
        // No extensions; the last byte is padding.
        writer.0.extend_from_slice(&[family as u8, libc::IPPROTO_TCP as u8, 0, 0]);
        writer.0.extend_from_slice(&LISTENING.to_ne_bytes());
        writer.0.extend_from_slice(&[0; SOCKET_ID]);
    })
}

fn take(message: &Message<'_>, listeners: &mut Vec<ListeningSocket>) -> Result<(), Malformed> {
    if message.kind == BY_FAMILY {
        listeners.push(listener(message)?);
    }
    Ok(())
}

/// `struct inet_diag_msg`: 4 bytes, the local and remote ports, the local address (16 bytes), ..., and last the inode.
fn listener(message: &Message<'_>) -> Result<ListeningSocket, Malformed> {
    fn part<const N: usize>(message: &Message<'_>, at: usize) -> Result<[u8; N], Malformed> {
        let part = message.body.get(at..).and_then(|rest| rest.first_chunk());
        part.copied().ok_or(Malformed("a socket is cut off"))
    }
    let [family] = part(message, 0)?;
    let address = match i32::from(family) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::from(part::<4>(message, 8)?)),
        // A socket on ::ffff:10.0.0.55 accepts only IPv4 connections.
        libc::AF_INET6 => Ipv6Addr::from(part::<16>(message, 8)?).to_canonical(),
        _ => return Err(Malformed("a socket is of an unknown family")),
    };
    Ok(ListeningSocket {
        address,
        port: u16::from_be_bytes(part(message, 4)?),
        inode: u64::from(u32::from_ne_bytes(part(message, 68)?)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::request::{AnswerReader, RequestError};
    use super::*;

    /// The sockets in the answer `datagram` to request 1.
    fn read(datagram: &[u8]) -> Result<(Option<AnswerEnd>, Vec<ListeningSocket>), RequestError> {
        let mut listeners = Vec::new();
        let end = AnswerReader::of(1).read(datagram, &mut |message| take(message, &mut listeners))?;
        Ok((end, listeners))
    }

    proptest! {
        #[test]
        fn an_arbitrary_answer_terminates_without_panic(body: Vec<u8>, kind in 0..24_u16) {
            let message = build_raw(kind, 0, 1, |writer| writer.0.extend_from_slice(&body));
            prop_assert!(read(&message).map_or(0, |(_, listeners)| listeners.len()) <= 1);
        }
    }

    #[test]
    fn a_refusal_or_truncated_socket_is_an_error() {
        let errno = |errno: i32| {
            build_raw(libc::NLMSG_ERROR as u16, 0, 1, |writer| {
                writer.0.extend_from_slice(&(-errno).to_ne_bytes());
                writer.0.extend_from_slice(&[0; 16]);
            })
        };
        let (end, _) = read(&errno(libc::ENOENT)).unwrap();
        let refused: io::Error = end.unwrap().complete().unwrap_err().into();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOENT));
        let mut cut_off =
            build_raw(BY_FAMILY, 0, 1, |writer| writer.0.extend_from_slice(&[libc::AF_INET as u8; 71]));
        cut_off.push(0);
        cut_off.extend(errno(0));
        let fault: io::Error = read(&cut_off).unwrap_err().into();
        assert_eq!(fault.to_string(), "a socket is cut off");
    }
}

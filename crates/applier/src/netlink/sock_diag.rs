//! The sockets that listen, by sock_diag(7). The kernel walks these alone; to print `/proc/net/tcp` it walks the table of
//! all connections as well, which has room for half a million on a large machine and takes milliseconds when it is empty.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::libc;

use super::attribute::Malformed;
use super::message::{Answer, Message, Messages, build_raw, os_error};
use super::socket::{Bus, Socket};
use crate::listening::Listener;

/// `SOCK_DIAG_BY_FAMILY`, `linux/sock_diag.h`
const BY_FAMILY: u16 = 20;

/// `1 << TCP_LISTEN`, `net/tcp_states.h`
const LISTENING: u32 = 1 << 10;

/// `sizeof(struct inet_diag_sockid)`
const SOCKET_ID: usize = 48;

/// The TCP sockets that listen in the caller's network namespace, those of IPv4 first.
pub(crate) fn listeners() -> io::Result<Vec<Listener>> {
    let mut socket = Socket::open(Bus::SockDiag)?;
    let mut listeners = Vec::new();
    for (family, sequence) in [libc::AF_INET, libc::AF_INET6].into_iter().zip(1..) {
        socket.send(&[&request(family, sequence)])?;
        while !take(socket.receive()?, sequence, &mut listeners)? {}
    }
    Ok(listeners)
}

/// `struct inet_diag_req_v2`: any address and any port.
fn request(family: i32, sequence: u32) -> Vec<u8> {
    build_raw(BY_FAMILY, libc::NLM_F_DUMP, sequence, |writer| {
        // No further attributes are wanted, and the last byte is padding.
        writer.0.extend_from_slice(&[family as u8, libc::IPPROTO_TCP as u8, 0, 0]);
        writer.0.extend_from_slice(&LISTENING.to_ne_bytes());
        writer.0.extend_from_slice(&[0; SOCKET_ID]);
    })
}

/// Takes what is in a datagram, and tells whether it ends the answer.
fn take(datagram: &[u8], sequence: u32, listeners: &mut Vec<Listener>) -> io::Result<bool> {
    let malformed = |Malformed(fault)| io::Error::new(io::ErrorKind::InvalidData, fault);
    for message in Messages(datagram) {
        let message = message.map_err(malformed)?;
        if message.sequence != sequence {
            continue;
        }
        match message.answer().map_err(malformed)? {
            Answer::Done(0) => return Ok(true),
            Answer::Done(errno) | Answer::Verdict { errno, .. } => return Err(os_error(errno)),
            _ if message.kind == BY_FAMILY => listeners.push(listener(&message).map_err(malformed)?),
            _ => {}
        }
    }
    Ok(false)
}

/// `struct inet_diag_msg`: 4 bytes, the port and the peer's, 16 bytes for the address, ..., and last the inode.
fn listener(message: &Message<'_>) -> Result<Listener, Malformed> {
    fn part<const N: usize>(message: &Message<'_>, at: usize) -> Result<[u8; N], Malformed> {
        let part = message.body.get(at..).and_then(|rest| rest.first_chunk());
        part.copied().ok_or(Malformed("a socket is cut off"))
    }
    let [family] = part(message, 0)?;
    let address = match i32::from(family) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::from(part::<4>(message, 8)?)),
        // A socket on ::ffff:10.0.0.55 takes IPv4 connections only.
        libc::AF_INET6 => Ipv6Addr::from(part::<16>(message, 8)?).to_canonical(),
        _ => return Err(Malformed("a socket is of an unknown family")),
    };
    Ok(Listener {
        address,
        port: u16::from_be_bytes(part(message, 4)?),
        inode: u64::from(u32::from_ne_bytes(part(message, 68)?)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_answer_ends_and_never_panics(body: Vec<u8>, kind in 0..24_u16) {
            let message = build_raw(kind, 0, 1, |writer| writer.0.extend_from_slice(&body));
            let mut listeners = Vec::new();
            let _ = take(&message, 1, &mut listeners);
            prop_assert!(listeners.len() <= 1);
        }
    }

    #[test]
    fn a_refusal_is_an_error_and_a_socket_that_is_cut_off_as_well() {
        let errno = |errno: i32| {
            build_raw(libc::NLMSG_ERROR as u16, 0, 1, |writer| {
                writer.0.extend_from_slice(&(-errno).to_ne_bytes());
                writer.0.extend_from_slice(&[0; 16]);
            })
        };
        let refused = take(&errno(libc::ENOENT), 1, &mut Vec::new()).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOENT));
        let cut_off =
            build_raw(BY_FAMILY, 0, 1, |writer| writer.0.extend_from_slice(&[libc::AF_INET as u8; 71]));
        let fault = take(&cut_off, 1, &mut Vec::new()).unwrap_err();
        assert_eq!(fault.to_string(), "a socket is cut off");
    }
}

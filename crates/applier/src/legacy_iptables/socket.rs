//! `getsockopt` of structures, for which there is no safe wrapper.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use rules::Family;

/// `IPT_SO_GET_INFO`, `IPT_SO_GET_ENTRIES`, and `IP6T_SO_` likewise.
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;

/// `XT_TABLE_MAXNAMELEN`
const NAME: usize = 32;

/// `sizeof(struct ipt_getinfo)`, and the offset of the entries in `struct ipt_get_entries`.
const INFO: usize = 84;
const HEADER: usize = 40;

/// The offset of `size` in `struct ipt_getinfo`.
const SIZE: usize = 80;

/// How often to retry if the table changes between the two requests.
const ATTEMPTS: usize = 10;

pub(super) struct Socket {
    socket: OwnedFd,
    level: i32,
}

impl Socket {
    pub(super) fn open(family: Family) -> io::Result<Self> {
        let (domain, level) = match family {
            Family::Ipv4 => (AddressFamily::Inet, libc::IPPROTO_IP),
            Family::Ipv6 => (AddressFamily::Inet6, libc::IPPROTO_IPV6),
        };
        let socket = socket(domain, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
        Ok(Self { socket, level })
    }

    /// A table's `struct ipt_getinfo` and its entries.
    pub(super) fn table(&self, name: &str) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let mut asked = name.as_bytes().to_vec();
        asked.resize(NAME, 0);
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let mut info = asked.clone();
            info.resize(INFO, 0);
            self.get(GET_INFO, &mut info)?;
            let size =
                info.get(SIZE..SIZE + 4).and_then(|size| size.try_into().ok()).map_or(0, u32::from_ne_bytes);
            let mut entries = asked.clone();
            entries.extend_from_slice(&size.to_ne_bytes());
            entries.resize(HEADER + size as usize, 0);
            match self.get(GET_ENTRIES, &mut entries) {
                Ok(()) => return Ok((info, entries.split_off(HEADER))),
                // The table's size has changed.
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| io::ErrorKind::WouldBlock.into()))
    }

    /// Fills a structure that starts with the name of the table.
    fn get(&self, option: i32, structure: &mut [u8]) -> io::Result<()> {
        let mut length = libc::socklen_t::try_from(structure.len()).map_err(io::Error::other)?;
        // SAFETY: the kernel writes at most `length` bytes, which are `structure`'s own.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                self.level,
                option,
                structure.as_mut_ptr().cast::<c_void>(),
                &raw mut length,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

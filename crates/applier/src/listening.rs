//! Sockets that listen on this host, and whose they are.

use std::fs;
use std::net::IpAddr;

/// A TCP socket that listens on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListeningSocket {
    /// The address; unspecified (`0.0.0.0`, `::`) for all addresses.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    pub(crate) inode: u64,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its name (`/proc/PID/comm`), control characters escaped.
    pub name: String,
}

impl ListeningSocket {
    /// Whether the socket takes connections to `port` at `address`: at that address, at all addresses, or as an
    /// IPv6 socket for both families (`IPV6_V6ONLY`, ipv6(7), is off unless a program sets it).
    pub fn takes(&self, address: IpAddr, port: u16) -> bool {
        let covers = self.address == address
            || match (self.address, address) {
                (IpAddr::V4(listening), IpAddr::V4(_)) => listening.is_unspecified(),
                (IpAddr::V6(listening), _) => listening.is_unspecified(),
                (IpAddr::V4(_), IpAddr::V6(_)) => false,
            };
        covers && self.port == port
    }

    /// The process that listens; `None` if it is another user's and we are not root, or none is found.
    ///
    /// It walks all processes, so ask only for a socket that is to be named.
    pub fn process(&self) -> Option<Process> {
        let socket = format!("socket:[{}]", self.inode);
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let pid = pids.find(|pid| holds(*pid, &socket))?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(Process { pid, name: name.trim_end().escape_debug().to_string() })
    }
}

fn holds(pid: u32, socket: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors
        .flatten()
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == socket))
}

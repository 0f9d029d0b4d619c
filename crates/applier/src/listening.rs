//! Listening sockets of this host and their owners.

use std::fs;
use std::net::IpAddr;

/// A listening TCP socket of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListeningSocket {
    /// The local address; unspecified (`0.0.0.0`, `::`) for all addresses.
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
    /// Whether the socket accepts connections to `port` at `address`: it is bound to that address, to all addresses, or is
    /// an IPv6 socket for both families (`IPV6_V6ONLY`, ipv6(7), is off by default).
    pub fn accepts(&self, address: IpAddr, port: u16) -> bool {
        let covers = self.address == address
            || match (self.address, address) {
                (IpAddr::V4(listening), IpAddr::V4(_)) => listening.is_unspecified(),
                (IpAddr::V6(listening), _) => listening.is_unspecified(),
                (IpAddr::V4(_), IpAddr::V6(_)) => false,
            };
        covers && self.port == port
    }

    /// The listening process; `None` if it is not found, or belongs to another user and this process is not root.
    ///
    /// Searches all processes, so call it only for sockets that are reported.
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

//! Facts about this host that a plan needs: interfaces, addresses, routes and listening ports. All functions only read.

mod proc_net;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::PathBuf;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::SockaddrStorage;
use rules::{Family, IfName, NameError};

pub use crate::listening::{ListeningSocket, Process};
pub use crate::netlink::rtnetlink::{Link, Route};
use crate::netlink::{rtnetlink, sock_diag};

/// The minimum size of a read; a socket's line has 150 bytes.
const ONE_READ: usize = 8 * 1024;

/// An address of one of this host's interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface's name.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
}

/// Why a fact could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A file under `/proc` cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The interfaces' addresses cannot be listed.
    #[error("list the addresses of this host's interfaces")]
    Addresses(#[source] io::Error),
    /// The interfaces cannot be listed.
    #[error("list the interfaces of this host")]
    Links(#[source] io::Error),
    /// The routing table cannot be read.
    #[error("list the routes of this host")]
    Routes(#[source] io::Error),
    /// The default route's interface has a name that cannot be used in a rule.
    #[error("the default route's interface")]
    Interface(#[source] NameError),
}

/// The interface of the default route with the lowest metric; `None` without such a route.
///
/// Reads only the main routing table, like `ip route show default`.
///
/// # Errors
///
/// See [`HostError`].
pub fn default_interface(family: Family) -> Result<Option<IfName>, HostError> {
    let (table, default_route): (_, fn(&str) -> Option<&str>) = match family {
        Family::Ipv4 => (read("route")?, proc_net::default_route),
        // A kernel without IPv6 has neither this file nor IPv6 routes.
        Family::Ipv6 => (read_if_there("ipv6_route")?, proc_net::default_route6),
    };
    default_route(&table).map(|name| name.parse().map_err(HostError::Interface)).transpose()
}

/// The addresses of all interfaces, including loopback, in the kernel's order: an interface's primary IPv4 address comes
/// before its secondary ones.
///
/// # Errors
///
/// See [`HostError`].
pub fn addresses() -> Result<Vec<InterfaceAddress>, HostError> {
    let found = getifaddrs().map_err(|errno| HostError::Addresses(errno.into()))?;
    let with_address = found.filter_map(|interface| {
        let address = ip(&interface.address?)?;
        Some(InterfaceAddress { interface: interface.interface_name, address })
    });
    Ok(with_address.collect())
}

/// The interfaces of this host, in the kernel's order.
///
/// # Errors
///
/// See [`HostError`].
pub fn links() -> Result<Vec<Link>, HostError> {
    rtnetlink::links().map_err(HostError::Links)
}

/// The index of an interface; `None` if no interface has that name.
pub fn index(interface: &IfName) -> Option<u32> {
    if_nametoindex(interface.as_str()).ok()
}

/// The unicast routes of the main routing table, in the kernel's order.
///
/// Ignores rules that choose another table (`ip rule`), which rarely apply to forwarded packets of clients.
///
/// # Errors
///
/// See [`HostError`].
pub fn routes() -> Result<Vec<Route>, HostError> {
    rtnetlink::routes().map_err(HostError::Routes)
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let ipv4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    ipv4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

/// The addresses of `interface` in `family` that other hosts can reach, in the kernel's order: for IPv6 those that are
/// neither link-local nor loopback.
pub fn usable_addresses(
    addresses: &[InterfaceAddress],
    interface: &IfName,
    family: Family,
) -> impl Iterator<Item = IpAddr> {
    let usable = |address: &IpAddr| match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => !address.is_unicast_link_local() && !address.is_loopback(),
    };
    addresses
        .iter()
        .filter(move |found| found.interface == interface.as_str() && Family::of(found.address) == family)
        .map(|found| found.address)
        .filter(usable)
}

/// The running kernel's release, such as `6.1.0-56-amd64`; empty if `/proc` cannot be read.
pub fn kernel_release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().escape_debug().to_string()
}

/// The TCP sockets that listen on this host.
///
/// Uses sock_diag(7), or `/proc/net` if the kernel has no sock_diag or cannot load it (`CONFIG_INET_DIAG`).
///
/// # Errors
///
/// See [`HostError`].
pub fn listeners() -> Result<Vec<ListeningSocket>, HostError> {
    sock_diag::listeners().or_else(|_| listeners_in_proc())
}

fn listeners_in_proc() -> Result<Vec<ListeningSocket>, HostError> {
    let mut listeners = proc_net::listeners(&read("tcp")?);
    listeners.extend(proc_net::listeners(&read_if_there("tcp6")?));
    Ok(listeners)
}

fn path(file: &str) -> PathBuf {
    // `/proc/net` shows the main thread's network namespace; this path shows the caller's (proc_pid_net(5)).
    PathBuf::from("/proc/thread-self/net").join(file)
}

/// Reads a file with few large reads: the kernel walks the empty buckets of a socket table again for each read, and
/// `read_to_string` starts with 32 bytes because the file's size is 0.
fn read(file: &str) -> Result<String, HostError> {
    let mut text = String::with_capacity(ONE_READ);
    let read = File::open(path(file)).and_then(|mut file| file.read_to_string(&mut text));
    read.map(|_| text).map_err(|source| HostError::Read { path: path(file), source })
}

fn read_if_there(file: &str) -> Result<String, HostError> {
    match read(file) {
        Err(HostError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn at(interface: &str, address: &str) -> InterfaceAddress {
        InterfaceAddress { interface: interface.to_owned(), address: address.parse().unwrap() }
    }

    #[test]
    fn usable_addresses_are_reachable_from_other_hosts() {
        let addresses = [
            at("lo", "127.0.0.1"),
            at("eth0", "fe80::1"),
            at("eth0", "10.0.0.55"),
            at("eth0", "10.0.0.56"),
            at("eth0", "2001:db8::55"),
        ];
        let eth0 = "eth0".parse().unwrap();
        let usable = |family| {
            let usable = usable_addresses(&addresses, &eth0, family);
            usable.map(|address| address.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(usable(Family::Ipv4), ["10.0.0.55", "10.0.0.56"]);
        assert_eq!(usable(Family::Ipv6), ["2001:db8::55"]);
        assert_eq!(usable_addresses(&addresses, &"eth1".parse().unwrap(), Family::Ipv4).count(), 0);
    }

    #[test]
    fn both_methods_find_a_listening_sockets_owner() {
        for bound in ["127.0.0.1", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"] {
            let socket = TcpListener::bind((bound, 0)).unwrap();
            let port = socket.local_addr().unwrap().port();
            let address = bound.parse::<IpAddr>().unwrap().to_canonical();
            for found in [sock_diag::listeners().unwrap(), listeners_in_proc().unwrap()] {
                let ours = |listener: &&ListeningSocket| (listener.address, listener.port) == (address, port);
                assert_eq!(found.iter().find(ours).unwrap().process().unwrap().pid, std::process::id());
            }
        }
    }

    #[test]
    fn a_connection_is_not_a_listener() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = std::net::TcpStream::connect(socket.local_addr().unwrap()).unwrap();
        let port = connection.local_addr().unwrap().port();
        for found in [sock_diag::listeners().unwrap(), listeners_in_proc().unwrap()] {
            assert!(found.iter().all(|listener| listener.port != port));
        }
    }

    #[test]
    fn a_wildcard_socket_accepts_on_every_address() {
        let listener =
            |address: &str| ListeningSocket { address: address.parse().unwrap(), port: 22, inode: 1 };
        let accepts =
            |listening: &str, address: &str| listener(listening).accepts(address.parse().unwrap(), 22);
        assert!(accepts("0.0.0.0", "10.0.0.55"));
        assert!(accepts("::", "10.0.0.55"));
        assert!(accepts("::", "2001:db8::55"));
        assert!(!accepts("0.0.0.0", "2001:db8::55"));
        assert!(accepts("10.0.0.55", "10.0.0.55"));
        assert!(!accepts("10.0.0.56", "10.0.0.55"));
        assert!(!listener("0.0.0.0").accepts("10.0.0.55".parse().unwrap(), 23));
    }

    #[test]
    #[ignore = "needs a network namespace: scripts/test"]
    fn routes_report_virtual_interfaces() {
        let ip = |words: &str| {
            let status = std::process::Command::new("ip").args(words.split(' ')).status().unwrap();
            assert!(status.success(), "ip {words}");
        };
        ip("link add out type veth peer name far");
        ip("link set far up");
        ip("address add 172.17.0.1/16 dev out");
        ip("-6 address add fd12::1/64 dev out nodad");
        ip("link set out up");
        ip("route add 10.9.0.0/16 metric 7 nexthop via 172.17.0.2 nexthop via 172.17.0.3");
        ip("link property add dev out altname enp0s5");
        let link = links().unwrap().into_iter().find(|link| link.name == "out").unwrap();
        assert_eq!(
            (link.alternative_names.as_slice(), link.kind.as_deref()),
            (&["enp0s5".to_owned()][..], Some("veth"))
        );
        ip("route add blackhole 10.8.0.0/16");
        ip("route add 10.7.0.0/16 dev out table 99");
        let found = routes().unwrap();
        let line = |route: &Route| format!("{} {} {}", route.destination, route.interface, route.metric);
        let lines: Vec<String> = found.iter().map(line).collect();
        for wanted in ["172.17.0.0/16 out 0", "10.9.0.0/16 out 7", "fd12::/64 out 256"] {
            assert!(lines.contains(&wanted.to_owned()), "{lines:?}");
        }
        assert!(!lines.iter().any(|line| line.starts_with("10.8") || line.starts_with("10.7")), "{lines:?}");
        assert!(found.iter().all(|route| route.kind.as_deref() == Some("veth")));
    }

    #[test]
    fn loopback_is_among_the_addresses() {
        assert!(addresses().unwrap().contains(&at("lo", "127.0.0.1")));
    }
}

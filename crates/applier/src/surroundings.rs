//! What else on this host bears on forwarded packets, beside its nf_tables. Everything here only reads.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::{Path, PathBuf};

use rules::IfName;

/// How full conntrack's table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConntrackFill {
    /// `nf_conntrack_count`: the flows that it holds.
    pub count: u64,
    /// `nf_conntrack_max`: how many it may hold; the first packet of one more is dropped.
    pub max: u64,
}

/// What the next boot sets a kernel setting to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtBoot {
    /// The value.
    pub value: String,
    /// The file that has the last word.
    pub file: PathBuf,
}

/// The tables of legacy iptables (`filter`, `nat`) that have been loaded in this network namespace, for either family;
/// empty without it.
///
/// Only root may read them (`/proc/net/ip_tables_names`).
pub fn legacy_iptables() -> Vec<String> {
    let names = ["ip_tables_names", "ip6_tables_names"]
        .map(|file| fs::read_to_string(Path::new("/proc/thread-self/net").join(file)).unwrap_or_default());
    let mut names: Vec<String> =
        names.iter().flat_map(|names| names.lines()).map(|name| name.escape_debug().to_string()).collect();
    names.sort();
    names.dedup();
    names
}

/// How full conntrack's table is; `None` while nothing on this host tracks connections.
pub fn conntrack_fill() -> Option<ConntrackFill> {
    let read = |name: &str| setting(&format!("net/netfilter/nf_conntrack_{name}"))?.parse().ok();
    Some(ConntrackFill { count: read("count")?, max: read("max")? })
}

/// Whether packets are dropped that come in by `interface` from where the way back leads out by another: `rp_filter` is
/// 1, the larger of `all` and the interface's own (`Documentation/networking/ip-sysctl.rst`).
pub fn is_rp_filter_strict(interface: &IfName) -> bool {
    let of = |name: &str| setting(&format!("net/ipv4/conf/{name}/rp_filter"))?.parse::<u8>().ok();
    of("all").max(of(interface.as_str())) == Some(1)
}

/// A live kernel setting by its path below `/proc/sys`.
fn setting(path: &str) -> Option<String> {
    Some(fs::read_to_string(Path::new("/proc/sys").join(path)).ok()?.trim().to_owned())
}

/// The address that this host would send from to `address`; `None` without a route. Nothing is sent.
pub fn source_towards(address: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // A datagram socket's connect(2) looks the route up and does no more; 9 is the discard port.
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((address, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// What the next boot sets `key` (`net.ipv4.ip_forward`) to by the files of these directories; `None`: nothing.
///
/// Of files of one name the first directory's counts; of settings the last file's in the order of names (sysctl.d(5)).
pub fn at_boot(directories: &[&Path], key: &str) -> Option<AtBoot> {
    let mut files: BTreeMap<_, PathBuf> = BTreeMap::new();
    for directory in directories.iter().rev() {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let confs = entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "conf"));
        files.extend(confs.map(|entry| (entry.file_name(), entry.path())));
    }
    let mut last = None;
    for file in files.into_values() {
        let text = fs::read_to_string(&file).unwrap_or_default();
        if let Some(value) = value_in(&text, key) {
            last = Some(AtBoot { value: value.to_owned(), file });
        }
    }
    last
}

/// The last value of a key in a file of sysctl.d(5), where `net/ipv4/ip_forward` is a way to write it, and a leading `-`
/// forgives errors.
fn value_in<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let assignments = text.lines().rev().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    let mut values = assignments.filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        let name = name.trim().trim_start_matches('-').replace('/', ".");
        (name == key).then_some(value.trim())
    });
    values.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "net.ipv4.ip_forward";

    #[test]
    fn the_last_file_has_the_word_and_a_file_of_etc_hides_its_namesake() {
        let (etc, lib) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let value = || at_boot(&[etc.path(), lib.path()], KEY).map(|at_boot| at_boot.value);
        assert_eq!(value(), None);
        fs::write(lib.path().join("50-default.conf"), "net.ipv4.ip_forward = 0\n").unwrap();
        assert_eq!(value().as_deref(), Some("0"));
        fs::write(etc.path().join("50-default.conf"), "# net.ipv4.ip_forward = 0\n").unwrap();
        assert_eq!(value(), None);
        fs::write(etc.path().join("90-cachenat.conf"), "net.ipv4.ip_forward = 1\n").unwrap();
        assert_eq!(value().as_deref(), Some("1"));
        let later = etc.path().join("99-sysctl.conf");
        fs::write(&later, "-net/ipv4/ip_forward=0\n").unwrap();
        fs::write(etc.path().join("README"), "net.ipv4.ip_forward = 7\n").unwrap();
        let found = at_boot(&[etc.path(), lib.path()], KEY).unwrap();
        assert_eq!(found, AtBoot { value: "0".to_owned(), file: later });
    }

    #[test]
    fn loopback_is_left_for_from_loopback() {
        let loopback = "127.0.0.1".parse().unwrap();
        assert_eq!(source_towards(loopback), Some(loopback));
    }
}

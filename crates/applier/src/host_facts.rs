//! Facts about this host, besides nf_tables, that affect forwarded packets. All functions only read.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::{Path, PathBuf};

use rules::IfName;
use rules::flows::ConntrackFill;
use rules::sysctl::{AtBoot, Sysctl};

/// The number of entries in the conntrack table and their limit; `None` if connection tracking is not active.
pub fn conntrack_fill() -> Option<ConntrackFill> {
    let read = |name: &str| setting(&format!("net/netfilter/nf_conntrack_{name}"))?.parse().ok();
    Some(ConntrackFill { count: read("count")?, max: read("max")? })
}

/// Whether `interface` drops packets whose return route uses another interface: the larger of its own `rp_filter` and
/// that of `all` is 1 (`Documentation/networking/ip-sysctl.rst`).
pub fn is_rp_filter_strict(interface: &IfName) -> bool {
    let of = |name: &str| setting(&format!("net/ipv4/conf/{name}/rp_filter"))?.parse::<u8>().ok();
    of("all").max(of(interface.as_str())) == Some(1)
}

/// The live value of a sysctl, by its path below `/proc/sys`.
fn setting(path: &str) -> Option<String> {
    Some(fs::read_to_string(Path::new("/proc/sys").join(path)).ok()?.trim().to_owned())
}

/// The source address of packets from this host to `address`; `None` without a route. Sends nothing.
pub fn source_towards(address: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // On a datagram socket, connect(2) only looks up the route. Port 9 is discard.
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((address, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// How long conntrack keeps an idle TCP connection, in seconds; `None`: conntrack is not loaded.
pub fn idle_timeout() -> Option<u64> {
    let path = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established";
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The largest packet that an interface sends, in bytes; `None`: there is no such interface.
pub fn mtu(interface: &IfName) -> Option<u32> {
    fs::read_to_string(format!("/sys/class/net/{interface}/mtu")).ok()?.trim().parse().ok()
}

/// The line in these directories that sets `sysctl` at the next boot; `None` if no line does.
///
/// As in sysctl.d(5), a file hides files of the same name in later directories, the last line in the order of file names
/// wins, and an explicit name takes precedence over a pattern. IPv4 forwarding has several names: the one for all
/// interfaces sets each interface, and `ingress` are the interfaces that receive the packets. A line of one of those may be
/// applied again when the interface appears, so a line there that switches forwarding off always counts.
pub fn at_boot(directories: &[&Path], sysctl: &Sysctl, ingress: &[&IfName]) -> Option<AtBoot> {
    let own = ingress.iter().filter(|_| *sysctl == Sysctl::Ipv4Forward);
    let own = own.map(|&interface| Sysctl::Ipv4ForwardOf(interface.clone()));
    let mut all = vec![sysctl.path()];
    if *sysctl == Sysctl::Ipv4Forward {
        all.push("net/ipv4/conf/all/forwarding".to_owned());
    }
    let lines = lines_at_boot(directories);
    let mut of_own = own.filter_map(|own| last(&lines, &[own.path()], sysctl));
    let of_own = of_own.find(|line| line.is_amiss(sysctl));
    of_own.map(|line| AtBoot { is_of_interface: true, ..line }).or_else(|| last(&lines, &all, sysctl))
}

/// A line of a sysctl.d(5) file: `net/ipv4/conf/*/forwarding`, `1`, the line as written, and its file.
struct Assignment {
    path: String,
    value: String,
    line: String,
    file: PathBuf,
}

/// All lines, in the order in which they are applied.
fn lines_at_boot(directories: &[&Path]) -> Vec<Assignment> {
    let mut files: BTreeMap<_, PathBuf> = BTreeMap::new();
    for directory in directories.iter().rev() {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let confs = entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "conf"));
        files.extend(confs.map(|entry| (entry.file_name(), entry.path())));
    }
    let mut lines = Vec::new();
    for file in files.into_values() {
        let text = fs::read_to_string(&file).unwrap_or_default();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            if let Some((key, value)) = line.split_once('=') {
                let (value, line, file) = (value.trim().to_owned(), line.to_owned(), file.clone());
                lines.push(Assignment { path: path_of(key.trim()), value, line, file });
            }
        }
    }
    lines
}

/// The path of a key (sysctl.d(5)): if the first separator is a dot, dots and slashes are swapped. A leading `-`, which
/// ignores errors, is removed.
fn path_of(key: &str) -> String {
    let key = key.trim_start_matches('-');
    if key.find(['.', '/']).is_some_and(|at| key[at..].starts_with('/')) {
        return key.to_owned();
    }
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    key.chars().map(swap).collect()
}

/// The last line that sets one of these paths; patterns count only if no line names a path explicitly.
fn last(lines: &[Assignment], paths: &[String], sysctl: &Sysctl) -> Option<AtBoot> {
    let written_out = lines.iter().rfind(|line| paths.contains(&line.path));
    let meets = |line: &&Assignment| paths.iter().any(|path| meets(line.path.as_bytes(), path.as_bytes()));
    let Assignment { value, line, file, .. } = written_out.or_else(|| lines.iter().rfind(meets))?;
    let (line, value, file) = (line.clone(), sysctl.value(value).ok(), file.clone());
    Some(AtBoot { line, value, file, is_of_interface: false })
}

/// Whether a glob(7) pattern matches a path; `*` and `?` do not match a slash. Bracket lists are not supported.
fn meets(pattern: &[u8], path: &[u8]) -> bool {
    match (pattern, path) {
        ([b'*', rest @ ..], _) => {
            let end = path.iter().position(|&byte| byte == b'/').unwrap_or(path.len());
            (0..=end).any(|skipped| meets(rest, path.get(skipped..).unwrap_or_default()))
        }
        ([b'?', rest @ ..], [byte, path @ ..]) if *byte != b'/' => meets(rest, path),
        ([one, rest @ ..], [byte, path @ ..]) if one == byte => meets(rest, path),
        _ => pattern.is_empty() && path.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use rules::sysctl::Switch;

    use super::*;

    /// Whether these files leave IPv4 forwarding on for `ens5`, and the file that decides it.
    fn at_boot_of(files: &[(&str, &str)]) -> Option<(bool, String)> {
        let etc = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(etc.path().join(name), text).unwrap();
        }
        let ens5 = "ens5".parse().unwrap();
        let found = at_boot(&[etc.path()], &Sysctl::Ipv4Forward, &[&ens5])?;
        let file = found.file.file_name().unwrap().to_str().unwrap().to_owned();
        Some((!found.is_amiss(&Sysctl::Ipv4Forward), file))
    }

    const OURS: (&str, &str) = ("90-cachenat.conf", "net.ipv4.ip_forward = 1\n");

    #[test]
    fn the_last_file_wins_and_etc_overrides() {
        let (etc, lib) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let sysctl = Sysctl::Ipv4Forward;
        let value = || {
            let found = at_boot(&[etc.path(), lib.path()], &sysctl, &[])?;
            found.value.map(Switch::as_str)
        };
        assert_eq!(value(), None);
        fs::write(lib.path().join("50-default.conf"), "net.ipv4.ip_forward = 0\n").unwrap();
        assert_eq!(value(), Some("0"));
        fs::write(etc.path().join("50-default.conf"), "# net.ipv4.ip_forward = 0\n").unwrap();
        assert_eq!(value(), None);
        fs::write(etc.path().join(OURS.0), OURS.1).unwrap();
        assert_eq!(value(), Some("1"));
        let later = etc.path().join("99-sysctl.conf");
        fs::write(&later, "-net/ipv4/ip_forward=0\n").unwrap();
        fs::write(etc.path().join("README"), "net.ipv4.ip_forward = 7\n").unwrap();
        let found = at_boot(&[etc.path(), lib.path()], &sysctl, &[]).unwrap();
        let line = "-net/ipv4/ip_forward=0".to_owned();
        assert!(found.is_beyond_ours());
        assert_eq!(found, AtBoot { line, value: Some(Switch::Off), file: later, is_of_interface: false });
    }

    #[test]
    fn all_names_of_the_forwarding_switch_count() {
        let off = |file: &str| Some((false, file.to_owned()));
        for line in [
            "net.ipv4.conf.all.forwarding = 0",
            "net/ipv4/conf/all/forwarding = 0",
            "net.ipv4.conf.ens5.forwarding=0",
            "net.ipv4.conf.*.forwarding = 0",
            "net.ipv4.conf.ens?.forwarding = 0",
        ] {
            let found = at_boot_of(&[OURS, ("99-other.conf", line)]);
            // Patterns count only for names that no file sets explicitly; our file sets one of the names.
            assert_eq!(found, off("99-other.conf"), "{line}");
        }
        // The interface may appear after all files were read; its own line is then applied again.
        assert_eq!(at_boot_of(&[("10-a.conf", "net.ipv4.conf.ens5.forwarding = 0"), OURS]), off("10-a.conf"));
        let on = Some((true, OURS.0.to_owned()));
        assert_eq!(at_boot_of(&[("10-a.conf", "net.ipv4.conf.all.forwarding = 0"), OURS]), on);
        assert_eq!(at_boot_of(&[OURS, ("99-a.conf", "net.ipv4.conf.eth0.forwarding = 0")]), on);
        assert_eq!(at_boot_of(&[OURS, ("99-a.conf", "net.ipv4.conf.*.rp_filter = 0")]), on);
    }

    #[test]
    fn loopback_is_reached_from_loopback() {
        let loopback = "127.0.0.1".parse().unwrap();
        assert_eq!(source_towards(loopback), Some(loopback));
    }
}

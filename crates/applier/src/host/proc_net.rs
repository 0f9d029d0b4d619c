//! Parsers for the tables under `/proc/net` (proc_pid_net(5)); unparsable lines are skipped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::listening::ListeningSocket;

/// `RTF_UP` and `RTF_REJECT`, `linux/route.h`.
const UP: u32 = 0x1;
const REJECT: u32 = 0x200;

/// `TCP_LISTEN`, `net/tcp_states.h`.
const LISTEN: &str = "0A";

/// The interface of the default route with the lowest metric in `/proc/net/route`.
pub(super) fn default_route(table: &str) -> Option<&str> {
    // Iface Destination Gateway Flags RefCnt Use Metric Mask ...
    let routes = table.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[interface, destination, _, flags, _, _, metric, mask, ..] = words.as_slice() else {
            return None;
        };
        let default = hex(destination)? == 0 && hex(mask)? == 0 && usable(flags)?;
        default.then_some((metric.parse::<u32>().ok()?, interface))
    });
    routes.min_by_key(|&(metric, _)| metric).map(|(_, interface)| interface)
}

/// The interface of the default route with the lowest metric in `/proc/net/ipv6_route`.
pub(super) fn default_route6(table: &str) -> Option<&str> {
    // destination length source length next_hop metric references uses flags interface
    let routes = table.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[destination, length, _, _, _, metric, _, _, flags, interface] = words.as_slice() else {
            return None;
        };
        let default = destination.bytes().all(|digit| digit == b'0') && length == "00" && usable(flags)?;
        default.then_some((hex(metric)?, interface))
    });
    routes.min_by_key(|&(metric, _)| metric).map(|(_, interface)| interface)
}

fn usable(flags: &str) -> Option<bool> {
    Some(hex(flags)? & (UP | REJECT) == UP)
}

fn hex(word: &str) -> Option<u32> {
    u32::from_str_radix(word, 16).ok()
}

/// The listening sockets in `/proc/net/tcp` or `/proc/net/tcp6`.
pub(super) fn listeners(table: &str) -> Vec<ListeningSocket> {
    table.lines().skip(1).filter_map(listener).collect()
}

fn listener(line: &str) -> Option<ListeningSocket> {
    // sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode ...
    let mut words = line.split_whitespace().skip(1);
    let (address, port) = words.next()?.split_once(':')?;
    if words.nth(1)? != LISTEN {
        return None;
    }
    let inode = words.nth(5)?.parse().ok()?;
    Some(ListeningSocket { address: ip(address)?, port: u16::from_str_radix(port, 16).ok()?, inode })
}

/// The kernel prints every 4 bytes of an address, which are in network order, as a number in host order.
fn ip(word: &str) -> Option<IpAddr> {
    if !word.is_ascii() {
        return None;
    }
    let octets = |at: usize| Some(hex(word.get(at..at + 8)?)?.to_ne_bytes());
    match word.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(octets(0)?))),
        32 => {
            let groups = [octets(0)?, octets(8)?, octets(16)?, octets(24)?];
            let address = Ipv6Addr::from(<[u8; 16]>::try_from(groups.concat()).ok()?);
            // A socket on ::ffff:10.0.0.55 accepts only IPv4 connections.
            Some(address.to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROUTE: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth1\t00000000\t0100000A\t0003\t0\t0\t512\t00000000\t0\t0\t0
ens5\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0
lo\t00000000\t00000000\t0201\t0\t0\t0\t00000000\t0\t0\t0
";

    const ROUTE6: &str = "\
20010db8000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000003 00000000 00450003     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
";

    #[test]
    fn the_lowest_metric_default_route_wins() {
        assert_eq!(default_route(ROUTE), Some("ens5"));
        assert_eq!(default_route6(ROUTE6), Some("eth0"));
        assert_eq!(default_route(ROUTE.lines().next().unwrap()), None);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn only_listening_sockets_are_listed() {
        let tcp = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 21107 1 0000000000000000 100 0 0 10 0
   1: 3700000A:0016 1B6433C6:C350 01 00000000:00000000 02:000A8F2B 00000000     0        0 31999 2 0000000000000000 20 4 31 10 -1
";
        let address = "0.0.0.0".parse().unwrap();
        assert_eq!(listeners(tcp), [ListeningSocket { address, port: 22, inode: 21107 }]);
        let tcp6 = "header
   0: B80D0120000000000000000055000000:18EB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1 0 100 0 0 10 0
   1: 0000000000000000FFFF00003700000A:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 8 1 0 100 0 0 10 0
";
        let found: Vec<String> =
            listeners(tcp6).iter().map(|l| format!("{} {}", l.address, l.port)).collect();
        assert_eq!(found, ["2001:db8::55 6379", "10.0.0.55 80"]);
    }

    proptest! {
        #[test]
        fn the_parsers_never_panic(text in "(\\PC{0,12}[ \n:0-9A-F]{0,12}){0,12}") {
            let _ = (default_route(&text), default_route6(&text), listeners(&text));
        }
    }
}

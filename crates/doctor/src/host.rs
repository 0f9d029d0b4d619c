//! The kernel's settings and tables that forwarding hangs on.

use rules::flows::{ConntrackFill, PORTS};
use rules::sysctl::AtBoot;
use rules::{AddrPort, Family, IfName, Ruleset, Sysctl};

use crate::Finding;

/// Whether a setting has the value that forwarding needs, now and after the next boot.
pub fn sysctl(sysctl: &Sysctl, is_live: bool, at_boot: Option<&AtBoot>) -> Finding {
    let key = sysctl.key();
    if !is_live {
        let what = match sysctl {
            Sysctl::AcceptRa(_) => "would lose this host's own default route with IPv6 forwarding",
            _ => "is off: no packet is forwarded",
        };
        return Finding::fail(key, what, "'cachenat apply' sets it");
    }
    match at_boot {
        Some(at_boot) if !at_boot.is_amiss(sysctl) => Finding::ok(key, "is on, now and at the next boot"),
        Some(AtBoot { line, file, .. }) => {
            let value = line.rsplit('=').next().unwrap_or_default().trim();
            let file = file.display();
            let what = format!("is on, but {file} sets it to {value} at the next boot");
            // It has several names.
            let what = if line.contains(&key) { what } else { format!("{what} ({line})") };
            Finding::fail(key, what, "take that line out")
        }
        None => Finding::warn(
            key,
            "is on, but nothing sets it at the next boot",
            "'cachenat apply' writes a drop-in",
        ),
    }
}

/// Whether this host forwards for its neighbours only because cachenat has switched forwarding on. That is no fault: many a
/// gateway is meant to.
pub fn forward_others(configured: Option<bool>, has_switched_on: bool) -> Finding {
    let name = "other traffic";
    match configured {
        Some(false) => Finding::ok(name, "nothing is forwarded for others"),
        Some(true) => Finding::ok(name, "is forwarded, as the configuration says"),
        None if has_switched_on => Finding::ok(
            name,
            "is forwarded since cachenat switched forwarding on, so neighbours can use this host as their router; \
             gateway.forward_others: false drops it",
        ),
        None => Finding::ok(name, "is forwarded as it was before cachenat"),
    }
}

/// Whether the reverse path filter drops clients' packets; `elsewhere` are the clients that the way back to does not
/// lead out by the gateway's interface.
///
/// `is_further`: the interface is not the gateway's first.
pub fn rp_filter(interface: &IfName, is_further: bool, is_strict: bool, elsewhere: &[String]) -> Finding {
    match elsewhere {
        [client, ..] if is_further => Finding::fail(
            "rp_filter",
            no_way_back(interface, client),
            "associate the Elastic IP with the primary network interface or a secondary address of it, and take \
             this interface out of gateway.interface",
        ),
        [client, ..] if is_strict => Finding::fail(
            "rp_filter",
            format!(
                "is strict, and the way back to {client} does not lead out by {interface}: its packets are dropped"
            ),
            format!("sysctl -w net.ipv4.conf.{interface}.rp_filter=2, and in /etc/sysctl.d"),
        ),
        [client, ..] => Finding::warn(
            "rp_filter",
            format!("is loose, but the way back to {client} does not lead out by {interface}"),
            "check the routes, and gateway.interface",
        ),
        [] => Finding::ok("rp_filter", format!("the way back to the clients leads out by {interface}")),
    }
}

/// Why clients that come in by an interface get no answer.
pub fn no_way_back(interface: &IfName, client: &str) -> String {
    format!(
        "the way back to {client} does not lead out by {interface}: answers to what comes in there leave by another \
         interface, which AWS drops"
    )
}

/// Whether conntrack has room for new connections.
pub fn conntrack(fill: Option<ConntrackFill>) -> Finding {
    let Some(ConntrackFill { count, max }) = fill else {
        return Finding::ok("conntrack", "nothing is tracked yet");
    };
    let what = format!("{count} of {max} connections");
    let remedy = "raise net.netfilter.nf_conntrack_max, and in /etc/sysctl.d";
    match count.saturating_mul(100) {
        _ if count >= max => Finding::fail("conntrack", what + ": new ones are dropped", remedy),
        hundredfold if hundredfold > max.saturating_mul(80) => Finding::warn("conntrack", what, remedy),
        _ => Finding::ok("conntrack", what),
    }
}

/// For how long AWS's own tracker keeps an idle connection by default on instances of Nitro v6, in seconds ("Security group
/// connection tracking" of the Amazon EC2 user guide).
const AWS_IDLE: u64 = 350;

/// Whether idle connections last; `seconds` is `nf_conntrack_tcp_timeout_established`.
pub fn idle(seconds: Option<u64>) -> Finding {
    let name = "idle connections";
    match seconds {
        Some(seconds) if seconds < AWS_IDLE => Finding::warn(
            name,
            format!("this host forgets them after {seconds} s"),
            format!(
                "sysctl -w net.netfilter.nf_conntrack_tcp_timeout_established={AWS_IDLE} or more, and in /etc/sysctl.d"
            ),
        ),
        Some(seconds) => Finding::ok(
            name,
            format!(
                "this host forgets them after {seconds} s; AWS may after {AWS_IDLE} s, so clients should send keepalives"
            ),
        ),
        None => Finding::ok(name, "nothing is tracked yet"),
    }
}

/// Among how many addresses of the gateway the connections to a target are shared, to which packets leave by `output`; one
/// that keeps its clients' is one.
pub fn sources(in_force: &Ruleset, target: AddrPort, output: &IfName) -> u64 {
    in_force.sources(Family::of(target.address), output.as_str()).len().max(1) as u64
}

/// Whether the target with the most connections has room for more: from one address there are so many ports and no more.
///
/// `output` is the interface that packets to it leave by.
pub fn nat_ports(busiest: Option<(AddrPort, u64)>, in_force: &Ruleset, output: &IfName) -> Finding {
    let name = "NAT ports";
    let Some((target, open)) = busiest else { return Finding::ok(name, "no connection is open") };
    let sources = sources(in_force, target, output);
    let ports = PORTS * sources;
    let from =
        if sources == 1 { "one gateway address".to_owned() } else { format!("{sources} gateway addresses") };
    let what = format!("{open} of {ports} connections that {from} can have to {target}");
    let remedy = "give gateway.snat one more address of this host (snat: [10.0.0.55, 10.0.0.56]), or have clients keep fewer \
                  connections open: NAT has no more ports, and refuses the next ones in silence";
    match open.saturating_mul(100) {
        _ if open >= ports => Finding::fail(name, what, remedy),
        hundredfold if hundredfold >= ports * 80 => Finding::warn(name, what, remedy),
        _ => Finding::ok(name, what),
    }
}

#[cfg(test)]
mod tests {
    use rules::{AccessList, Gateway, Snat, render};

    use super::*;
    use crate::Level::{Fail, Ok, Warn};

    #[test]
    fn forwarding_that_is_off_or_goes_off_at_the_next_boot_is_found() {
        let at_boot = |value: &str| AtBoot {
            line: format!("net.ipv4.ip_forward = {value}"),
            value: Sysctl::Ipv4Forward.value(value).ok(),
            file: "/etc/sysctl.d/99-sysctl.conf".into(),
            is_of_interface: false,
        };
        let verdict = |live, at_boot: Option<&AtBoot>| sysctl(&Sysctl::Ipv4Forward, live, at_boot).verdict;
        assert_eq!(verdict(false, Some(&at_boot("1"))), Fail);
        assert_eq!(verdict(true, Some(&at_boot("1"))), Ok);
        assert_eq!(verdict(true, None), Warn);
        let off = sysctl(&Sysctl::Ipv4Forward, true, Some(&at_boot("0")));
        assert_eq!((off.verdict, off.what.contains("99-sysctl.conf sets it to 0")), (Fail, true));
    }

    #[test]
    fn a_strict_reverse_path_filter_is_a_fault_only_where_the_way_back_is_another() {
        let eth0: IfName = "eth0".parse().unwrap();
        let elsewhere = ["198.51.100.27/32".to_owned()];
        assert_eq!(rp_filter(&eth0, false, true, &[]).verdict, Ok);
        assert_eq!(rp_filter(&eth0, true, false, &elsewhere).verdict, Fail);
        assert_eq!(rp_filter(&eth0, false, true, &elsewhere).verdict, Fail);
        assert_eq!(rp_filter(&eth0, false, false, &elsewhere).verdict, Warn);
    }

    #[test]
    fn ports_of_nat_are_warned_of_from_four_fifths() {
        let of = |sources: &[&str]| {
            let snat = Snat::fixed(
                "eth0".parse().unwrap(),
                sources.iter().map(|source| source.parse().unwrap()).collect(),
            );
            let gateway = Gateway {
                ingress: vec!["eth0".parse().unwrap()],
                families: vec![Family::Ipv4],
                snat,
                tunnels: vec![],
                max_segment: None,
            };
            render(&[AccessList::new(&[], &[])], &gateway)
        };
        let (one, two) = (of(&["10.0.0.55"]), of(&["10.0.0.55", "10.0.0.56"]));
        let eth0 = "eth0".parse().unwrap();
        let verdict = |open, ruleset| {
            nat_ports(Some(("10.0.1.230:6379".parse().unwrap(), open)), ruleset, &eth0).verdict
        };
        assert_eq!([51_609, 51_610, 64_512].map(|open| verdict(open, &one)), [Ok, Warn, Fail]);
        assert_eq!([103_219, 103_220, 129_024].map(|open| verdict(open, &two)), [Ok, Warn, Fail]);
        assert_eq!(nat_ports(None, &one, &eth0).verdict, Ok);
    }

    #[test]
    fn conntrack_is_warned_of_above_four_fifths() {
        let verdict = |count, max| conntrack(Some(ConntrackFill { count, max })).verdict;
        assert_eq!([verdict(80, 100), verdict(81, 100), verdict(100, 100)], [Ok, Warn, Fail]);
        assert_eq!(conntrack(None).verdict, Ok);
    }
}

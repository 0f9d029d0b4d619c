//! The ruleset in iptables' words, for the reviewer who thinks in them.
//!
//! It says the same as AWS's hand-typed procedure, a rule per node; it is printed and never applied.

use std::net::IpAddr;

use ipnet::{Ipv4Subnets, Ipv6Subnets};

use crate::render::Forward;
use crate::ruleset::{AddrPort, Chain, Family, Key, Rule, Ruleset, SetKind, SnatTo, SpreadIndex};

/// The IPv4 rules for `iptables-restore --noflush`, and behind them, as comments, those for `ip6tables-restore`.
pub fn iptables_restore(ruleset: &Ruleset) -> String {
    let mut text = String::from("# for review: 'cachenat apply' writes nftables, not this\n");
    if ruleset.flowtable.is_some() {
        text.push_str("# iptables has no flowtables: gateway.flowtable is left out\n");
    }
    text.push_str(&tables(ruleset, Family::Ipv4));
    let ipv6 = ruleset.sets.keys().any(|set| set.family == Family::Ipv6);
    if ipv6 {
        text.push_str("# for ip6tables-restore:\n");
        for line in tables(ruleset, Family::Ipv6).lines() {
            text.extend(["# ", line, "\n"]);
        }
    }
    text
}

fn tables(ruleset: &Ruleset, family: Family) -> String {
    nat_table(ruleset, family) + &filter_table(ruleset, family)
}

fn filter_table(ruleset: &Ruleset, family: Family) -> String {
    let endpoints = |kind| {
        let keys = ruleset.elements(kind, family).map(|(key, _)| *key);
        keys.filter_map(|key| if let Key::AddrPort(endpoint) = key { Some(endpoint) } else { None })
    };
    let invalid = "-m conntrack --ctstate INVALID -j DROP";
    let mut lines: Vec<String> = Vec::new();
    for rule in ruleset.chains.values().flatten() {
        match rule {
            Rule::DropInvalidAnswers { family: of } if *of == family => {
                lines.extend(endpoints(SetKind::Backends).map(|AddrPort { address, port }| {
                    format!("-A INPUT -s {address} -p tcp -m tcp --sport {port} {invalid}")
                }));
            }
            Rule::DropInvalidRequests { family: of } if *of == family => {
                lines.extend(endpoints(SetKind::Listeners).map(|AddrPort { address, port }| {
                    format!("-A INPUT -d {address} -p tcp -m tcp --dport {port} {invalid}")
                }));
            }
            Rule::DropOthers { interface } => lines.push(format!(
                "-A FORWARD -i {interface} -m conntrack --ctstate INVALID,NEW,UNTRACKED -m conntrack ! --ctstate DNAT \
                 -j DROP"
            )),
            _ => {}
        }
    }
    if lines.is_empty() { String::new() } else { format!("*filter\n{}\nCOMMIT\n", lines.join("\n")) }
}

fn nat_table(ruleset: &Ruleset, family: Family) -> String {
    let mut lines = vec!["*nat".to_owned(), ":CACHENAT - [0:0]".to_owned()];
    for rule in ruleset.chains.get(&Chain::Prerouting).into_iter().flatten() {
        // All maps are asked by the same packets: one jump serves them.
        if let Rule::Forward { interface, family: of } = rule
            && *of == family
        {
            let clients = ruleset.elements(SetKind::Clients, family);
            lines.extend(
                clients
                    .flat_map(|(key, _)| networks(key))
                    .map(|client| format!("-A PREROUTING -i {interface} -s {client} -p tcp -j CACHENAT")),
            );
        }
    }
    // Rules are asked in turn, as those of nft are: each takes its share of what those before it left over.
    let places = SpreadIndex::all().rev().map(|place| (SetKind::Spread(place), place.number()));
    for (kind, place) in places.chain([(SetKind::Forward, 1)]) {
        let dice = dice(place);
        lines.extend(ruleset.elements(kind, family).filter_map(|(key, element)| {
            let (Key::AddrPort(listen), Some(target)) = (*key, element.data) else { return None };
            Some(dnat(listen, &dice, element.comment.as_deref(), target))
        }));
    }
    for rule in ruleset.chains.get(&Chain::Postrouting).into_iter().flatten() {
        if let Rule::Snat { interface, family: of, to, place } = rule
            && *of == family
        {
            let to = match to {
                SnatTo::Address(address) => format!("SNAT --to-source {address}"),
                SnatTo::Masquerade => "MASQUERADE".to_owned(),
            };
            let dice = dice(place.map_or(1, SpreadIndex::number));
            for Forward { listen, targets, .. } in ruleset.forwards() {
                let of_family = targets.iter().filter(|target| Family::of(target.address) == family);
                lines.extend(of_family.map(|target| {
                    format!(
                        "-A POSTROUTING -o {interface} -d {} -p tcp -m tcp --dport {} -m conntrack --ctstate DNAT \
                         --ctorigdst {} --ctorigdstport {}{dice} -j {to}",
                        target.address, target.port, listen.address, listen.port
                    )
                }));
            }
        }
    }
    lines.push("COMMIT".to_owned());
    lines.join("\n") + "\n"
}

/// What takes the share of a place of what those behind it have left over.
fn dice(place: u8) -> String {
    match place {
        1 => String::new(),
        place => format!(" -m statistic --mode random --probability {:.10}", 1.0 / f64::from(place)),
    }
}

fn dnat(listen: AddrPort, extra: &str, comment: Option<&str>, target: AddrPort) -> String {
    let comment = comment.map(|id| format!(" -m comment --comment \"{id}\"")).unwrap_or_default();
    let AddrPort { address, port } = listen;
    format!(
        "-A CACHENAT -d {address} -p tcp -m tcp --dport {port}{extra}{comment} -j DNAT --to-destination {target}"
    )
}

/// The networks that make up a key's range; iptables has no ranges in `-s`.
fn networks(key: &Key) -> Vec<String> {
    let Key::Addresses(range) = key else { return vec![] };
    match (range.first(), range.last()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            Ipv4Subnets::new(first, last, 0).map(|network| network.to_string()).collect()
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            Ipv6Subnets::new(first, last, 0).map(|network| network.to_string()).collect()
        }
        _ => vec![],
    }
}

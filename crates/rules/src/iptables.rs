//! The ruleset in iptables' words, for the reviewer who thinks in them.
//!
//! It says the same as AWS's hand-typed procedure, a rule per node; it is printed and never applied.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::render::Forward;
use crate::ruleset::{AddrPort, Chain, Family, Key, ListIndex, Rule, Ruleset, SetKind, SnatTo, SpreadIndex};

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
    let lists: BTreeSet<ListIndex> = ruleset.sets.keys().filter_map(|set| set.list()).collect();
    let mut lines = vec!["*nat".to_owned()];
    lines.extend(lists.iter().map(|&list| format!(":{} - [0:0]", chain(list))));
    for rule in ruleset.chains.get(&Chain::Prerouting).into_iter().flatten() {
        // All maps are asked by the same packets: one jump serves them.
        if let Rule::Forward { interface, family: of, list } = rule
            && *of == family
        {
            let clients = ruleset.elements(SetKind::Clients(*list), family);
            let chain = chain(*list);
            lines.extend(
                clients
                    .flat_map(|(key, _)| networks(key))
                    .map(|client| format!("-A PREROUTING -i {interface} -s {client} -p tcp -j {chain}")),
            );
        }
    }
    for &list in &lists {
        // Rules are asked in turn, as those of nft are: each takes its share of what those before it left over.
        let places = SpreadIndex::all().rev().map(|place| (SetKind::Spread(list, place), place.number()));
        for (kind, place) in places.chain([(SetKind::Forward(list), 1)]) {
            let dice = dice(place);
            lines.extend(ruleset.elements(kind, family).filter_map(|(key, element)| {
                let (Key::AddrPort(listen), Some(target)) = (*key, element.data) else { return None };
                Some(dnat(list, listen, &dice, element.comment.as_deref(), target))
            }));
        }
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
            let output = interface.as_ref().map(|interface| format!("-o {interface} ")).unwrap_or_default();
            for Forward { listen, targets, .. } in ruleset.forwards() {
                let of_family = targets.iter().filter(|target| Family::of(target.address) == family);
                lines.extend(of_family.map(|target| {
                    format!(
                        "-A POSTROUTING {output}-d {} -p tcp -m tcp --dport {} -m conntrack --ctstate DNAT \
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

/// The chain that has a list's listeners.
fn chain(list: ListIndex) -> String {
    match list.number() {
        1 => "CACHENAT".to_owned(),
        number => format!("CACHENAT_{number}"),
    }
}

fn dnat(list: ListIndex, listen: AddrPort, extra: &str, comment: Option<&str>, target: AddrPort) -> String {
    let comment = comment.map(|id| format!(" -m comment --comment \"{id}\"")).unwrap_or_default();
    let AddrPort { address, port } = listen;
    format!(
        "-A {} -d {address} -p tcp -m tcp --dport {port}{extra}{comment} -j DNAT --to-destination {target}",
        chain(list)
    )
}

/// The networks that make up a key's range; iptables has no ranges in `-s`.
fn networks(key: &Key) -> Vec<IpNet> {
    let Key::Addresses(range) = key else { return vec![] };
    range.networks()
}

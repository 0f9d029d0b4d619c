//! Others' chains that forwarded packets pass: an accept of ours does not overrule their drop.

use applier::netlink::{BaseChain, End, Hook, Taken};
use rules::ruleset::TABLE;
use rules::{Endpoint, IfName};

use super::Finding;

/// `NF_IP_PRI_NAT_DST`, `linux/netfilter_ipv4.h`: the priority `dstnat`, and legacy iptables' as well.
const DSTNAT: i32 = -100;

const LET_THROUGH: &str = "let packets of 'ct status dnat' to your nodes through there (Docker leaves its chain DOCKER-USER for that)";

fn is_ours(chain: &BaseChain) -> bool {
    chain.family == "inet" && chain.table == TABLE
}

/// Whether packets to some of these listeners, or on from there, pass the chain.
fn meets(chain: &BaseChain, interface: &IfName, listeners: &[Endpoint]) -> bool {
    let family = |listener: &Endpoint| match chain.family {
        "ip" => listener.address.is_ipv4(),
        "ip6" => listener.address.is_ipv6(),
        _ => true,
    };
    let device = |device: &String| device == interface.as_str();
    !is_ours(chain)
        && (chain.devices.is_empty() || chain.devices.iter().any(device))
        && listeners.iter().any(family)
}

/// Chains on a forwarded packet's way that refuse what they do not know.
pub(crate) fn forward(
    chains: &[BaseChain],
    legacy: &[String],
    interface: &IfName,
    listeners: &[Endpoint],
) -> Vec<Finding> {
    let name = "forward chains";
    let foreign =
        chains.iter().filter(|chain| chain.hook != Hook::Other && meets(chain, interface, listeners));
    let refusing = foreign.filter_map(|chain| {
        let how = match chain.end {
            End::Accepted => return None,
            End::DroppedByPolicy => "has policy drop",
            End::RefusedByRule => "ends in a rule that refuses all else",
        };
        let hook = chain.hook;
        let what = format!(
            "{chain} at {hook} {how}: it drops forwarded packets unless one of its rules accepts them"
        );
        Some(Finding::warn(name, what, LET_THROUGH))
    });
    let mut found: Vec<Finding> = refusing.collect();
    if legacy.iter().any(|table| table == "filter") {
        found.push(Finding::warn(
            name,
            "legacy iptables has a table filter, whose FORWARD chain may drop forwarded packets",
            "look with 'iptables-legacy -S FORWARD'",
        ));
    }
    if found.is_empty() {
        found.push(Finding::ok(name, "none but those that accept by default"));
    }
    found
}

/// Rules that lead packets to our listeners elsewhere: of several nat chains the first that translates a flow's first
/// packet has it.
pub(crate) fn nat(
    chains: &[BaseChain],
    legacy: &[String],
    interface: &IfName,
    listeners: &[Endpoint],
) -> Vec<Finding> {
    let name = "nat chains";
    let ours = chains.iter().position(is_ours).unwrap_or(chains.len());
    let foreign = chains.iter().enumerate().filter(|(_, chain)| {
        chain.kind == "nat" && chain.hook == Hook::Prerouting && meets(chain, interface, listeners)
    });
    let mut found: Vec<Finding> = Vec::new();
    for (at, chain) in foreign {
        let is_ahead = chain.priority < DSTNAT || (chain.priority == DSTNAT && at < ours);
        let clash = |certain: bool| {
            let takes = chain.takes.iter().filter(move |taken| taken.is_certain == certain);
            let mut clashes =
                takes.filter_map(|taken| Some((taken, first_taken(taken, interface, listeners)?)));
            clashes.next()
        };
        let remedy =
            format!("take that rule out: 'nft -a list table {} {}' shows it", chain.family, chain.table);
        if let Some((taken, listener)) = clash(true) {
            let (rule, taken) = (rule_of(taken), format!("{chain}"));
            found.push(match is_ahead {
                true => Finding::fail(
                    name,
                    format!("{taken} has {rule}, which leads {listener} elsewhere before cachenat sees it"),
                    remedy,
                ),
                false => Finding::warn(
                    name,
                    format!("{taken} has {rule} as well: clients that cachenat does not list reach {listener} by it"),
                    remedy,
                ),
            });
        } else if let Some((taken, listener)) = clash(false).filter(|_| is_ahead) {
            let rule = rule_of(taken);
            found.push(Finding::warn(
                name,
                format!("{chain} comes before cachenat and has {rule}, which may lead {listener} elsewhere"),
                format!("see whether it does: 'nft -a list table {} {}'", chain.family, chain.table),
            ));
        }
    }
    if legacy.iter().any(|table| table == "nat") {
        let what = "legacy iptables has a table nat, which may translate before cachenat does";
        found.push(Finding::warn(name, what, "look with 'iptables-legacy -t nat -S PREROUTING'"));
    }
    if found.is_empty() {
        found.push(Finding::ok(name, "no rule of others takes the forwarded ports"));
    }
    found
}

/// The first listener that a rule of others may take.
fn first_taken(taken: &Taken, interface: &IfName, listeners: &[Endpoint]) -> Option<Endpoint> {
    let takes =
        |listener: &&Endpoint| taken.may_take(interface.as_str(), listener.address, listener.port.get());
    listeners.iter().find(takes).copied()
}

fn rule_of(taken: &Taken) -> String {
    let (first, last) = (taken.ports.start(), taken.ports.end());
    match (first, last) {
        (0, &u16::MAX) => "a dnat rule without a port".to_owned(),
        _ if first == last => format!("a dnat rule for tcp port {first}"),
        _ => format!("a dnat rule for tcp ports {first}-{last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{Fail, Ok, Warn};
    use super::*;

    fn chain(
        family: &'static str,
        table: &str,
        kind: &str,
        hook: Hook,
        priority: i32,
        end: End,
    ) -> BaseChain {
        let (kind, name) = (kind.to_owned(), "c".to_owned());
        let (devices, takes) = (vec![], vec![]);
        BaseChain { family, table: table.to_owned(), name, kind, hook, priority, devices, end, takes }
    }

    fn ours() -> BaseChain {
        chain("inet", "cachenat", "nat", Hook::Prerouting, DSTNAT, End::Accepted)
    }

    fn eth0() -> IfName {
        "eth0".parse().unwrap()
    }

    fn listeners() -> Vec<Endpoint> {
        vec!["10.0.0.55:6379".parse().unwrap(), "10.0.0.55:6380".parse().unwrap()]
    }

    fn forward(chains: &[BaseChain], legacy: &[String]) -> Vec<Finding> {
        super::forward(chains, legacy, &eth0(), &listeners())
    }

    fn nat(chains: &[BaseChain], legacy: &[String]) -> Vec<Finding> {
        super::nat(chains, legacy, &eth0(), &listeners())
    }

    fn lines(findings: &[Finding]) -> Vec<(super::super::Verdict, &str)> {
        findings.iter().map(|finding| (finding.verdict, finding.what.split(':').next().unwrap())).collect()
    }

    #[test]
    fn a_chain_that_refuses_is_named_and_one_that_accepts_is_not() {
        let at = |table, end| chain("ip", table, "filter", Hook::Forward, 0, end);
        let on = |device: &str, table| BaseChain {
            devices: vec![device.to_owned()],
            ..chain("netdev", table, "filter", Hook::Ingress, 0, End::DroppedByPolicy)
        };
        let chains = [
            at("docker", End::DroppedByPolicy),
            at("firewalld", End::RefusedByRule),
            at("counting", End::Accepted),
            chain("ip", "input", "filter", Hook::Other, 0, End::DroppedByPolicy),
            chain("ip6", "docker", "filter", Hook::Forward, 0, End::DroppedByPolicy),
            on("eth0", "ddos"),
            on("docker0", "others"),
        ];
        assert_eq!(
            lines(&forward(&chains, &[])),
            [
                (Warn, "chain ip docker c at forward has policy drop"),
                (Warn, "chain ip firewalld c at forward ends in a rule that refuses all else"),
                (Warn, "chain netdev ddos c at ingress has policy drop"),
            ]
        );
        let six = ["[2001:db8::55]:6379".parse().unwrap()];
        let found = super::forward(&chains[4..5], &[], &eth0(), &six);
        assert_eq!(lines(&found), [(Warn, "chain ip6 docker c at forward has policy drop")]);
        assert_eq!(forward(&[ours()], &[])[0].verdict, Ok);
        assert_eq!(forward(&[], &["filter".to_owned()])[0].verdict, Warn);
        assert_eq!(forward(&[], &["nat".to_owned()])[0].verdict, Ok);
    }

    #[test]
    fn a_rule_on_a_forwarded_port_is_a_fault_ahead_of_ours_and_a_doubt_behind() {
        let taken = |ports, is_certain| Taken {
            chain: "c".to_owned(),
            ports,
            address: None,
            interface: None,
            is_certain,
        };
        let nat_chain = |table, priority, takes| BaseChain {
            takes: vec![takes],
            ..chain("ip", table, "nat", Hook::Prerouting, priority, End::Accepted)
        };
        let chains = [
            nat_chain("older", DSTNAT, taken(6379..=6379, true)),
            nat_chain("docker", DSTNAT, taken(8080..=8080, true)),
            nat_chain("later", DSTNAT + 1, taken(6300..=6400, true)),
            ours(),
            nat_chain("younger", DSTNAT, taken(0..=u16::MAX, false)),
            nat_chain("first", -150, taken(0..=u16::MAX, false)),
        ];
        let found: Vec<(super::super::Verdict, &str)> =
            nat(&chains, &[]).iter().map(|f| (f.verdict, f.what.clone().leak() as &str)).collect();
        let expected = [
            (
                Fail,
                "chain ip older c has a dnat rule for tcp port 6379, which leads 10.0.0.55:6379 elsewhere before \
                 cachenat sees it",
            ),
            (
                Warn,
                "chain ip later c has a dnat rule for tcp ports 6300-6400 as well: clients that cachenat does not \
                 list reach 10.0.0.55:6379 by it",
            ),
            (
                Warn,
                "chain ip first c comes before cachenat and has a dnat rule without a port, which may lead \
                 10.0.0.55:6379 elsewhere",
            ),
        ];
        assert_eq!(found, expected);
        assert_eq!(nat(&[ours()], &[])[0].verdict, Ok);
        assert_eq!(nat(&[], &["nat".to_owned()])[0].verdict, Warn);
    }
}

//! Others' chains that forwarded packets pass: an accept of ours does not overrule their drop.

use applier::netlink::{BaseChain, End, Hook};
use rules::ruleset::TABLE;

use super::Finding;

/// `NF_IP_PRI_NAT_DST`, `linux/netfilter_ipv4.h`: the priority `dstnat`, and legacy iptables' as well.
const DSTNAT: i32 = -100;

const LET_THROUGH: &str = "let packets of 'ct status dnat' to your nodes through there (Docker leaves its chain DOCKER-USER for that)";

fn is_ours(chain: &BaseChain) -> bool {
    chain.family == "inet" && chain.table == TABLE
}

/// Chains at the forward hook that refuse what they do not know.
pub(crate) fn forward(chains: &[BaseChain], legacy: &[String]) -> Vec<Finding> {
    let name = "forward chains";
    let foreign = chains.iter().filter(|chain| chain.hook == Hook::Forward && !is_ours(chain));
    let refusing = foreign.filter_map(|chain| {
        let how = match chain.end {
            End::Accepted => return None,
            End::DroppedByPolicy => "has policy drop",
            End::RefusedByRule => "ends in a rule that refuses all else",
        };
        let what = format!("{chain} {how}: it drops forwarded packets unless one of its rules accepts them");
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

/// Chains that may translate a client's first packet before ours does.
pub(crate) fn nat(chains: &[BaseChain], legacy: &[String]) -> Vec<Finding> {
    let name = "nat chains";
    let ours = chains.iter().position(is_ours).unwrap_or(chains.len());
    let ahead = chains.iter().enumerate().filter(|(at, chain)| {
        let first = chain.priority < DSTNAT || (chain.priority == DSTNAT && *at < ours);
        chain.kind == "nat" && chain.hook == Hook::Prerouting && !is_ours(chain) && first
    });
    let remedy = "make sure that none of its rules takes the gateway's forwarded ports";
    let mut found: Vec<Finding> = ahead
        .map(|(_, chain)| Finding::warn(name, format!("{chain} translates before cachenat does"), remedy))
        .collect();
    if legacy.iter().any(|table| table == "nat") {
        let what = "legacy iptables has a table nat, which may translate before cachenat does";
        found.push(Finding::warn(name, what, "look with 'iptables-legacy -t nat -S PREROUTING'"));
    }
    if found.is_empty() {
        found.push(Finding::ok(name, "none is ahead of cachenat's"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{Ok, Warn};
    use super::*;

    fn chain(
        family: &'static str,
        table: &str,
        kind: &str,
        hook: Hook,
        priority: i32,
        end: End,
    ) -> BaseChain {
        let kind = kind.to_owned();
        BaseChain { family, table: table.to_owned(), name: "c".to_owned(), kind, hook, priority, end }
    }

    fn ours() -> BaseChain {
        chain("inet", "cachenat", "nat", Hook::Prerouting, DSTNAT, End::Accepted)
    }

    fn lines(findings: &[Finding]) -> Vec<(super::super::Verdict, &str)> {
        findings.iter().map(|finding| (finding.verdict, finding.what.split(':').next().unwrap())).collect()
    }

    #[test]
    fn a_forward_chain_that_refuses_is_named_and_one_that_accepts_is_not() {
        let at = |table, end| chain("ip", table, "filter", Hook::Forward, 0, end);
        let chains = [
            at("docker", End::DroppedByPolicy),
            at("firewalld", End::RefusedByRule),
            at("counting", End::Accepted),
            chain("ip", "input", "filter", Hook::Other, 0, End::DroppedByPolicy),
        ];
        assert_eq!(
            lines(&forward(&chains, &[])),
            [
                (Warn, "chain ip docker c has policy drop"),
                (Warn, "chain ip firewalld c ends in a rule that refuses all else"),
            ]
        );
        assert_eq!(forward(&[ours()], &[])[0].verdict, Ok);
        assert_eq!(forward(&[], &["filter".to_owned()])[0].verdict, Warn);
        assert_eq!(forward(&[], &["nat".to_owned()])[0].verdict, Ok);
    }

    #[test]
    fn a_nat_chain_is_ahead_by_its_priority_or_its_age() {
        let nat = |table, priority| chain("ip", table, "nat", Hook::Prerouting, priority, End::Accepted);
        let chains = [
            nat("older", DSTNAT),
            nat("later", DSTNAT + 1),
            ours(),
            nat("younger", DSTNAT),
            nat("first", -150),
        ];
        assert_eq!(
            lines(&super::nat(&chains, &[])),
            [
                (Warn, "chain ip older c translates before cachenat does"),
                (Warn, "chain ip first c translates before cachenat does"),
            ]
        );
        assert_eq!(super::nat(&[ours()], &[])[0].verdict, Ok);
        assert_eq!(super::nat(&[], &["nat".to_owned()])[0].verdict, Warn);
    }
}

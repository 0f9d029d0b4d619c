//! Whether sources can be read, and nodes reached from here.

use std::io::ErrorKind;
use std::net::IpAddr;

use discovery::{Inventory, Outcome, SourceReport};
use ipnet::IpNet;
use rules::{Endpoint, ForwardId};

use super::{Finding, Verdict};
use crate::output::age;

/// A source that fails for longer than this is followed by nobody.
const STALE: u64 = 3600;

/// What became of a connection to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialled {
    Answers,
    /// No answer in time.
    Silent,
    Failed(ErrorKind),
}

/// How far a source could be read, and since when not.
pub(crate) fn source(report: &SourceReport, now: u64) -> Finding {
    let name = format!("source {}", report.source);
    let since = report.failing_since.map_or(0, |since| now.saturating_sub(since));
    let error = report.error.as_deref().unwrap_or("no reason was given");
    let what = match since {
        0 => error.to_owned(),
        since => format!("{error} (for {})", age(since)),
    };
    let remedy = "its forwards stay as they were; 'cachenat discover' asks again";
    match report.outcome {
        Outcome::Complete => Finding::ok(name, "is read whole"),
        Outcome::Partial if since < STALE => Finding::warn(name, what, remedy),
        Outcome::Partial | Outcome::Failed => Finding::fail(name, what, remedy),
    }
}

/// What a connection to each target says; those that answer make one line together.
pub(crate) fn reach(dialled: &[(ForwardId, Endpoint, Dialled)], gateway: &[IpAddr]) -> Vec<Finding> {
    let mut found: Vec<Finding> =
        dialled.iter().filter_map(|(id, target, how)| unreached(id, *target, *how, gateway)).collect();
    let answering = dialled.iter().filter(|(_, _, how)| *how == Dialled::Answers).count();
    if found.is_empty() || answering > 0 {
        found.insert(0, Finding::ok("nodes", format!("{answering} of {} answer on TCP", dialled.len())));
    }
    found
}

fn unreached(id: &ForwardId, target: Endpoint, how: Dialled, gateway: &[IpAddr]) -> Option<Finding> {
    let own = gateway.iter().find(|own| own.is_ipv4() == target.address.is_ipv4());
    let own = own.map_or_else(|| "this instance".to_owned(), ToString::to_string);
    let (what, remedy) = match how {
        Dialled::Answers => return None,
        Dialled::Silent => (
            format!("{target} does not answer"),
            format!("let the cache's security group admit {own} on TCP port {}", target.port),
        ),
        Dialled::Failed(ErrorKind::ConnectionRefused) => (
            format!("{target} refuses: nothing listens there"),
            "see whether the cache is available, and on this port".to_owned(),
        ),
        Dialled::Failed(ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable) => (
            format!("there is no way to {target}"),
            "see whether the cache is in this instance's VPC, and the subnet's routes".to_owned(),
        ),
        Dialled::Failed(kind) => {
            (format!("{target}: {kind}"), "see whether this host may connect to it".to_owned())
        }
    };
    Some(Finding::fail(format!("node {id}"), what, remedy))
}

/// Nodes outside of the instance's VPC, where the metadata tells its ranges.
pub(crate) fn outside(inventory: &Inventory, vpc: &[IpNet]) -> Option<Finding> {
    let is_outside = |address: &IpAddr| {
        let mut ranges = vpc.iter().filter(|range| range.addr().is_ipv4() == address.is_ipv4()).peekable();
        ranges.peek().is_some() && !ranges.any(|range| range.contains(address))
    };
    let found = inventory
        .nodes
        .iter()
        .find_map(|node| Some((node, node.addresses.iter().copied().find(is_outside)?)));
    if vpc.is_empty() {
        return None;
    }
    Some(match found {
        None => Finding::ok("VPC", "every node is in this instance's"),
        Some((node, address)) => Finding {
            verdict: Verdict::Warn,
            remedy: Some("run cachenat on an instance in the cache's VPC".to_owned()),
            ..Finding::ok("VPC", format!("{} at {address} is not in this instance's", node.id))
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{Fail, Ok, Warn};
    use super::*;

    fn dialled(hows: &[Dialled]) -> Vec<(ForwardId, Endpoint, Dialled)> {
        let target = Endpoint { address: "10.0.1.230".parse().unwrap(), port: 6379.try_into().unwrap() };
        hows.iter().map(|how| ("my-cluster-001".parse().unwrap(), target, *how)).collect()
    }

    #[test]
    fn silence_points_at_the_security_group_and_refusal_does_not() {
        let gateway = ["10.0.0.55".parse().unwrap()];
        let lines = |hows: &[Dialled]| super::super::text(&reach(&dialled(hows), &gateway));
        assert_eq!(
            lines(&[Dialled::Silent, Dialled::Answers]),
            "ok    nodes: 1 of 2 answer on TCP\n\
             fail  node my-cluster-001: 10.0.1.230:6379 does not answer; \
             let the cache's security group admit 10.0.0.55 on TCP port 6379\n"
        );
        assert_eq!(
            lines(&[Dialled::Failed(ErrorKind::ConnectionRefused)]),
            "fail  node my-cluster-001: 10.0.1.230:6379 refuses: nothing listens there; \
             see whether the cache is available, and on this port\n"
        );
        assert!(lines(&[Dialled::Failed(ErrorKind::HostUnreachable)]).contains("no way to"));
        assert_eq!(lines(&[]), "ok    nodes: 0 of 0 answer on TCP\n");
    }

    #[test]
    fn a_source_that_is_partial_for_an_hour_is_a_fault() {
        let name = || "static/local".parse().unwrap();
        let since = |report: SourceReport, since| SourceReport { failing_since: Some(since), ..report };
        assert_eq!(source(&SourceReport::complete(name()), 0).verdict, Ok);
        assert_eq!(source(&SourceReport::partial(name(), "half"), 0).verdict, Warn);
        assert_eq!(source(&since(SourceReport::partial(name(), "half"), 1), STALE).verdict, Warn);
        let stale = source(&since(SourceReport::partial(name(), "half"), 1), STALE + 1);
        assert_eq!((stale.verdict, stale.what.as_str()), (Fail, "half (for 1h)"));
        assert_eq!(source(&SourceReport::failed(name(), "no credentials"), 0).verdict, Fail);
    }

    #[test]
    fn a_node_outside_of_the_vpc_is_found() {
        let inventory = Inventory::from_json(
            r#"{"version":1,"nodes":[{"id":"a","source":"static/local","port":6379,"addresses":["10.0.1.230"]}],"sources":[]}"#,
        )
        .unwrap();
        let verdict = |vpc: &str| outside(&inventory, &[vpc.parse().unwrap()]).unwrap().verdict;
        assert_eq!(verdict("10.0.0.0/16"), Ok);
        assert_eq!(verdict("10.1.0.0/16"), Warn);
        assert_eq!(verdict("2001:db8::/56"), Ok, "it says nothing of IPv4");
        assert_eq!(outside(&inventory, &[]), None);
    }
}

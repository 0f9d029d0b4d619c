//! Whether sources can be read, and nodes reached from here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use discovery::{GreetError, Inventory, Outcome, ServerInfo, ServerProtocol, SourceReport, Timestamp};
use ipnet::IpNet;
use rules::{AddrPort, ForwardId};

use crate::finding::age;
use crate::{Finding, Level};

/// A source that fails for longer than this is a fault: changes of its nodes are being missed.
const STALE: Duration = Duration::from_secs(3600);

/// After a day without a complete answer every node may have been replaced.
const LOST: Duration = Duration::from_secs(24 * 3600);

/// What a node answered.
#[derive(Debug)]
pub struct Dialled {
    /// The node.
    pub id: ForwardId,
    /// Where it was asked.
    pub target: AddrPort,
    /// What it said, or why nothing was answer.
    pub answer: Result<ServerInfo, GreetError>,
}

/// How far a source could be read, and since when not.
pub fn source(report: &SourceReport, now: Timestamp) -> Finding {
    let name = format!("source {}", report.source);
    let since = report.failing_since.map_or(Duration::ZERO, |since| since.elapsed(now));
    let error = report.error.as_deref().unwrap_or("no reason was given");
    let what = if since.is_zero() { error.to_owned() } else { format!("{error} (for {})", age(since)) };
    let remedy = "its forwards stay as they were; 'cachenat discover' asks again";
    match report.outcome {
        Outcome::Complete if report.remarks.is_empty() => Finding::ok(name, "is read whole"),
        Outcome::Complete => Finding::ok(name, format!("is read whole; {}", report.remarks.join(", "))),
        Outcome::Partial if since < STALE => Finding::warn(name, what, remedy),
        Outcome::Partial | Outcome::Failed => Finding::fail(name, what, remedy),
    }
}

/// How old the last good answer is: the sources' word, by whichever run asked them last.
pub fn last_good(last_good: Option<&Inventory>, last_run: Option<Timestamp>, now: Timestamp) -> Finding {
    let name = "last good";
    let (Some(inventory), Some(last_run)) = (last_good, last_run) else {
        let what = "no run has left what it found here";
        return Finding::warn(name, what, "run 'cachenat apply'");
    };
    let failing = inventory.sources.iter().filter_map(|report| Some((report.failing_since?, &report.source)));
    let oldest = failing.min();
    let since = oldest.map_or(last_run, |(since, _)| since.min(last_run)).elapsed(now);
    let what = match oldest {
        Some((_, source)) => format!("{source} was read whole {} ago", age(since)),
        None => format!("every source was read whole {} ago, by the last run", age(since)),
    };
    let remedy =
        "nodes that were replaced since are not followed: see 'cachenat apply', and that something runs it";
    if since >= LOST {
        Finding::fail(name, what, remedy)
    } else if since >= STALE {
        Finding::warn(name, what, remedy)
    } else {
        Finding::ok(name, what)
    }
}

/// What each target answers; those that answer as they should make one line together.
pub fn reach(dialled: &[Dialled], gateway: &[IpAddr]) -> Vec<Finding> {
    let mut found = Vec::new();
    let (mut answering, mut words) = (0, BTreeMap::<String, usize>::new());
    for node in dialled {
        match (said(&node.answer), amiss(node, gateway)) {
            (_, Some(finding)) => found.push(finding),
            (said, None) => {
                answering += 1;
                *words.entry(said).or_default() += 1;
            }
        }
    }
    if found.is_empty() || answering > 0 {
        let words: Vec<String> = match words.len() {
            1 => words.into_keys().collect(),
            _ => words.into_iter().map(|(words, count)| format!("{count} {words}")).collect(),
        };
        let words = if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) };
        found.insert(0, Finding::ok("nodes", format!("{answering} of {} answer{words}", dialled.len())));
    }
    found
}

/// What a node says that answers: `Redis 7.1.0`.
fn said(answer: &Result<ServerInfo, GreetError>) -> String {
    let Ok(greeting) = answer else { return "TLS".to_owned() };
    let engine = match greeting.speaks {
        ServerProtocol::Redis => "Redis",
        ServerProtocol::Memcached => "Memcached",
        ServerProtocol::Other(_) => "something else",
    };
    match (&greeting.version, &greeting.reserve) {
        (Some(version), _) => format!("{engine} {version}"),
        (None, Some(_)) => format!("{engine} that wants a password"),
        (None, None) => engine.to_owned(),
    }
}

/// Why clients would not be served by a node; `None`: they would be.
fn amiss(node: &Dialled, gateway: &[IpAddr]) -> Option<Finding> {
    let Dialled { id, target, answer } = node;
    let own = gateway.iter().find(|own| own.is_ipv4() == target.address.is_ipv4());
    let own = own.map_or_else(|| "this instance".to_owned(), ToString::to_string);
    let name = format!("node {id}");
    Some(match answer {
        Ok(ServerInfo { speaks: ServerProtocol::Other(words), .. }) => Finding::warn(
            name,
            format!("{target} speaks neither Redis nor Memcached, but says {words:?}"),
            "see whether the address is still the cache's",
        ),
        // Whose certificates to believe is for clients to say, and it takes TLS to have one.
        Ok(_) | Err(GreetError::Certificate(_) | GreetError::Trust(_)) => return None,
        Err(GreetError::Silent) => Finding::fail(
            name,
            format!("{target} does not answer"),
            format!("let the cache's security group admit {own} on TCP port {}", target.port),
        ),
        Err(GreetError::Refused) => Finding::fail(
            name,
            format!("{target} refuses: nothing listens there"),
            "see whether the cache is available, and on this port",
        ),
        Err(GreetError::Unreachable(error)) => Finding::fail(
            name,
            format!("there is no way to {target} ({error})"),
            "see whether the cache is in this instance's VPC, and the subnet's routes",
        ),
        Err(error @ GreetError::NotTried(_)) => Finding::fail(
            name,
            format!("{target}: {error}"),
            "see whether a firewall of this host forbids it, and its limits of open files and free ports",
        ),
        Err(GreetError::NotTls) => Finding::warn(
            name,
            format!("{target} does not speak TLS, though AWS says so"),
            "see whether in-transit encryption is being changed",
        ),
        Err(error @ GreetError::WrongName { .. }) => Finding::warn(
            name,
            format!("{target}: {error}"),
            "see whether the address is still that node's: clients that verify refuse it",
        ),
        Err(error) => Finding::warn(
            name,
            format!("{target}: {error}"),
            "see whether the cache is overloaded, loading, or wants TLS",
        ),
    })
}

/// Nodes outside of the instance's VPC, where the metadata tells its ranges.
pub fn outside(inventory: &Inventory, vpc: &[IpNet]) -> Option<Finding> {
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
            verdict: Level::Warn,
            remedy: Some("run cachenat on an instance in the cache's VPC".to_owned()),
            ..Finding::ok("VPC", format!("{} at {address} is not in this instance's", node.id))
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level::{Fail, Warn};

    fn lines(answers: Vec<Result<ServerInfo, GreetError>>) -> String {
        let gateway = ["10.0.0.55".parse().unwrap()];
        let dialled = answers.into_iter().map(|answer| Dialled {
            id: "my-cluster-001".parse().unwrap(),
            target: "10.0.1.230:6379".parse().unwrap(),
            answer,
        });
        super::super::text(&reach(&dialled.collect::<Vec<_>>(), &gateway))
    }

    fn redis() -> Result<ServerInfo, GreetError> {
        Ok(ServerInfo { version: Some("7.1.0".to_owned()), ..ServerInfo::default() })
    }

    #[test]
    fn silence_points_at_the_security_group_and_refusal_does_not() {
        assert_eq!(
            lines(vec![Err(GreetError::Silent), redis()]),
            "ok    nodes: 1 of 2 answer (Redis 7.1.0)\n\
             fail  node my-cluster-001: 10.0.1.230:6379 does not answer; \
             let the cache's security group admit 10.0.0.55 on TCP port 6379\n"
        );
        assert_eq!(
            lines(vec![Err(GreetError::Refused)]),
            "fail  node my-cluster-001: 10.0.1.230:6379 refuses: nothing listens there; \
             see whether the cache is available, and on this port\n"
        );
        let unreachable = Err(GreetError::Unreachable(std::io::ErrorKind::HostUnreachable.into()));
        assert!(lines(vec![unreachable]).contains("no way to"));
        assert_eq!(lines(vec![]), "ok    nodes: 0 of 0 answer\n");
    }

    #[test]
    fn a_password_and_a_certificate_are_answers_and_silence_after_connecting_is_none() {
        let secret = ServerInfo { reserve: Some("NOAUTH".to_owned()), ..ServerInfo::default() };
        let unknown = GreetError::Certificate("unknown issuer".to_owned());
        assert_eq!(
            lines(vec![redis(), redis(), Ok(secret), Err(unknown)]),
            "ok    nodes: 4 of 4 answer (2 Redis 7.1.0, 1 Redis that wants a password, 1 TLS)\n"
        );
        for wrong in [GreetError::NoReply, GreetError::Closed, GreetError::NotTls] {
            assert!(lines(vec![Err(wrong)]).starts_with("warn  node my-cluster-001: 10.0.1.230:6379"));
        }
        let other =
            ServerInfo { speaks: ServerProtocol::Other("SSH-2.0".to_owned()), ..ServerInfo::default() };
        assert!(lines(vec![Ok(other)]).contains("speaks neither Redis nor Memcached, but says \"SSH-2.0\""));
    }

    #[test]
    fn the_last_good_answer_is_as_old_as_the_oldest_source_or_the_last_run() {
        let (now, name) = (Timestamp::from_secs(1_000_000), || "static/local".parse().unwrap());
        let with = |failing_since| Inventory {
            nodes: vec![],
            sources: vec![SourceReport { failing_since, ..SourceReport::complete(name()) }],
        };
        let verdict = |inventory: Option<&Inventory>, last_run| last_good(inventory, last_run, now).verdict;
        let ago = |age: Duration| Some(Timestamp::from_secs(now.as_secs() - age.as_secs()));
        assert_eq!(verdict(None, ago(Duration::ZERO)), Warn);
        assert_eq!(verdict(Some(&with(None)), None), Warn);
        assert_eq!(verdict(Some(&with(None)), ago(STALE - Duration::from_secs(1))), Level::Ok);
        assert_eq!(verdict(Some(&with(None)), ago(STALE)), Warn);
        assert_eq!(verdict(Some(&with(None)), ago(LOST)), Fail);
        assert_eq!(verdict(Some(&with(ago(STALE))), ago(Duration::ZERO)), Warn);
        let found = last_good(Some(&with(ago(LOST))), ago(Duration::ZERO), now);
        assert_eq!((found.verdict, found.what.as_str()), (Fail, "static/local was read whole 1d ago"));
    }

    #[test]
    fn a_source_that_is_partial_for_an_hour_is_a_fault() {
        let (start, name) = (Timestamp::default(), || "static/local".parse().unwrap());
        let failing = |report| SourceReport { failing_since: Some(start), ..report };
        let second = Duration::from_secs(1);
        assert_eq!(source(&SourceReport::complete(name()), start).verdict, Level::Ok);
        assert_eq!(source(&SourceReport::partial(name(), "half"), start).verdict, Warn);
        assert_eq!(
            source(&failing(SourceReport::partial(name(), "half")), start + (STALE - second)).verdict,
            Warn
        );
        let stale = source(&failing(SourceReport::partial(name(), "half")), start + STALE);
        assert_eq!((stale.verdict, stale.what.as_str()), (Fail, "half (for 1h)"));
        assert_eq!(source(&SourceReport::failed(name(), "no credentials"), start).verdict, Fail);
    }

    #[test]
    fn a_node_outside_of_the_vpc_is_found() {
        let inventory = Inventory::from_json(
            r#"{"version":1,"nodes":[{"id":"a","source":"static/local","port":6379,"addresses":["10.0.1.230"]}],"sources":[]}"#,
        )
        .unwrap();
        let verdict = |vpc: &str| outside(&inventory, &[vpc.parse().unwrap()]).unwrap().verdict;
        assert_eq!(verdict("10.0.0.0/16"), Level::Ok);
        assert_eq!(verdict("10.1.0.0/16"), Warn);
        assert_eq!(verdict("2001:db8::/56"), Level::Ok, "it says nothing of IPv4");
        assert_eq!(outside(&inventory, &[]), None);
    }
}

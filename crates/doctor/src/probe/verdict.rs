//! What an answer means, and what to do about it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use clients::{ClientEndpoint, Protocol};
use discovery::{GreetError, Role, ServerInfo, ServerProtocol};
use serde::Serialize;

use super::Target;

/// What is to be said of one port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProbeVerdict {
    /// In a word.
    pub result: ProbeResult,
    /// What was seen.
    pub detail: String,
    /// What to do; `None` where all is well.
    pub remedy: Option<String>,
}

/// The verdict in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeResult {
    /// The right node answers.
    Ok,
    /// Another node or program answers.
    WrongNode,
    /// The port is closed.
    Refused,
    /// Nothing comes back.
    Silent,
    /// There is no address, or no route to it.
    Unreachable,
    /// This host did not send anything.
    NotTried,
    /// The certificate is for another name.
    TlsName,
    /// TLS could not be agreed on, or the certificate is not trusted.
    Tls,
    /// It connects, and no cache answers.
    NoAnswer,
}

impl ProbeResult {
    /// `wrong node`
    pub fn text(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::WrongNode => "wrong node",
            Self::Refused => "refused",
            Self::Silent => "silent",
            Self::Unreachable => "unreachable",
            Self::NotTried => "not tried",
            Self::TlsName => "tls name",
            Self::Tls => "tls",
            Self::NoAnswer => "no answer",
        }
    }
}

/// A verdict for each target and its answer.
pub fn evaluate(targets: &[Target], answers: &[Result<ServerInfo, GreetError>]) -> Vec<ProbeVerdict> {
    let run_ids = run_ids(targets, answers);
    let judge_one = |(target, answer): (&Target, &Result<ServerInfo, GreetError>)| match answer {
        Err(error) => failed(error, target),
        Ok(greeting) => answered(greeting, target, targets, &run_ids),
    };
    targets.iter().zip(answers).map(judge_one).collect()
}

/// The first target behind which each server was found; ports that follow a role share a server with a node's.
fn run_ids<'a>(
    targets: &'a [Target],
    answers: &'a [Result<ServerInfo, GreetError>],
) -> BTreeMap<&'a str, &'a Target> {
    let mut first = BTreeMap::new();
    for (target, answer) in targets.iter().zip(answers) {
        let run_id = answer.as_ref().ok().and_then(|greeting| greeting.run_id.as_deref());
        if let Some(run_id) = run_id.filter(|_| !follows_a_role(target)) {
            first.entry(run_id).or_insert(target);
        }
    }
    first
}

fn follows_a_role(target: &Target) -> bool {
    target.node.as_ref().is_some_and(ClientEndpoint::follows_a_role)
}

fn failed(error: &GreetError, target: &Target) -> ProbeVerdict {
    let tls = target.node.as_ref().is_some_and(|node| node.tls);
    let (result, remedy) = match error {
        GreetError::NoAddress(_) => {
            (ProbeResult::Unreachable, "mend the name, or give the gateway's address")
        }
        GreetError::Unreachable(_) => {
            (ProbeResult::Unreachable, "there is no route from here: look at this machine's network")
        }
        GreetError::NotTried(_) => (
            ProbeResult::NotTried,
            "this machine let no packet out: look at its limit of open files (ulimit -n), its free ports and its own \
             firewall",
        ),
        GreetError::Refused => (
            ProbeResult::Refused,
            "the gateway forwards nothing for this client on this port: is its public address among 'clients' (the file's, or its source's own) in the \
             gateway's configuration, and is the port in 'cachenat status' there?",
        ),
        GreetError::Silent => (
            ProbeResult::Silent,
            "something drops the packets: the gateway's security group must let this client in on this port, the \
             cache's must let the gateway in, and the node must be there ('cachenat diff' on the gateway)",
        ),
        GreetError::NoReply | GreetError::Closed if tls => (
            ProbeResult::NoAnswer,
            "it may not speak TLS, or not with this client: look at the cache's in-transit encryption",
        ),
        GreetError::NoReply | GreetError::Closed => (ProbeResult::NoAnswer, "it may want TLS: try --tls"),
        GreetError::NotTls => {
            (ProbeResult::Tls, "the cache has no in-transit encryption: connect without TLS")
        }
        GreetError::WrongName { .. } => (
            ProbeResult::TlsName,
            "the node behind this port is not the one that was asked for, or its name is not known here: give the \
             file of 'cachenat endpoints --format json', made anew on the gateway",
        ),
        GreetError::Certificate(_) => (ProbeResult::Tls, "name the authority that signed it by --ca-file"),
        GreetError::Trust(_) => (ProbeResult::Tls, "mend --ca-file"),
        GreetError::Garbled(_) => (
            ProbeResult::NoAnswer,
            "something else than a cache answers there: 'cachenat status' on the gateway",
        ),
    };
    ProbeVerdict { result, detail: error.to_string(), remedy: Some(remedy.to_owned()) }
}

fn answered(
    greeting: &ServerInfo,
    target: &Target,
    targets: &[Target],
    run_ids: &BTreeMap<&str, &Target>,
) -> ProbeVerdict {
    let detail = describe(greeting);
    let wrong = |why: String, remedy: &str| ProbeVerdict {
        result: ProbeResult::WrongNode,
        detail: format!("{detail}; {why}"),
        remedy: Some(remedy.to_owned()),
    };
    const ANEW: &str = "if the node was replaced since, make the file anew: 'cachenat endpoints --format json' on the \
                        gateway; else run 'cachenat apply' there";
    const APPLY: &str = "run 'cachenat apply' on the gateway";
    if let ServerProtocol::Other(words) = &greeting.speaks {
        return wrong(format!("it says {words:?}"), APPLY);
    }
    let twin =
        greeting.run_id.as_deref().and_then(|run_id| run_ids.get(run_id)).filter(|_| !follows_a_role(target));
    if let Some(twin) = twin.filter(|twin| twin.address != target.address) {
        return wrong(format!("the same server as on {}", twin.address), APPLY);
    }
    let Some(node) = &target.node else { return well(detail) };
    let is_memcached = greeting.speaks == ServerProtocol::Memcached;
    if node.protocol.is_some_and(|protocol| (protocol == Protocol::Memcached) != is_memcached) {
        return wrong(format!("{} is of another kind", node.id), ANEW);
    }
    if let Some(at) = greeting.at.filter(|at| !is_of(node, *at) && !node.private_addresses.is_empty()) {
        let whose = targets.iter().filter_map(|other| other.node.as_ref()).find(|other| is_of(other, at));
        return wrong(
            match whose {
                Some(other) => format!("that is {}, not {}", other.id, node.id),
                None => format!("{} was at {}", node.id, addresses(node)),
            },
            ANEW,
        );
    }
    match (node.role, greeting.role) {
        (Some(Role::Primary), Some(Role::Replica)) if node.follows_a_role() => {
            wrong(format!("{} leads to a replica", node.id), APPLY)
        }
        (Some(expected), Some(now)) if expected != now && !node.follows_a_role() => {
            well(format!("{detail}; it was {expected} when the file was made"))
        }
        _ => well(detail),
    }
}

fn well(detail: String) -> ProbeVerdict {
    ProbeVerdict { result: ProbeResult::Ok, detail, remedy: None }
}

fn is_of(node: &ClientEndpoint, at: SocketAddr) -> bool {
    node.private_addresses.contains(&at.ip())
}

fn addresses(node: &ClientEndpoint) -> String {
    node.private_addresses.iter().map(ToString::to_string).collect::<Vec<String>>().join(" ")
}

/// `primary, Redis 7.0.15 at 10.0.1.230:6379`.
fn describe(greeting: &ServerInfo) -> String {
    let name = match &greeting.speaks {
        ServerProtocol::Redis => "Redis",
        ServerProtocol::Memcached => "Memcached",
        ServerProtocol::Other(_) => "no cache",
    };
    let mut text = match greeting.role {
        Some(role) => format!("{role}, {name}"),
        None => name.to_owned(),
    };
    greeting.version.iter().for_each(|version| text.push_str(&format!(" {version}")));
    greeting.at.iter().for_each(|at| text.push_str(&format!(" at {at}")));
    greeting
        .reserve
        .iter()
        .for_each(|reserve| text.push_str(&format!("; which node it is can't be asked: {reserve}")));
    text
}

#[cfg(test)]
mod tests;

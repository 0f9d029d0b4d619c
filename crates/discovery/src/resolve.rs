//! Names to addresses, side by side, with every kind of failure told apart.

use std::{
    borrow::Cow,
    cell::LazyCell,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use futures_util::{StreamExt, future::join, stream};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, RecordType},
    },
};
use thiserror::Error;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use crate::{
    Network, Node, Options, Scope,
    admission::{Admission, admit},
    text::plain,
};

/// Lookups under way at once. The VPC's resolver takes 1,024 packets a second from an instance.
const SIDE_BY_SIDE: usize = 64;

/// The most addresses of one name. A node has one, a serverless cache one per zone; an answer of 64 KiB holds 4,000.
const MAX_ADDRESSES: usize = 64;

/// Which name servers are asked, and how patiently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolverSettings {
    /// The name servers; none: those of /etc/resolv.conf.
    pub servers: Vec<SocketAddr>,
    /// How long one try waits.
    pub timeout: Duration,
    /// How many tries a name gets.
    pub attempts: usize,
    /// How long all names together may take.
    pub deadline: Duration,
}

impl Default for ResolverSettings {
    fn default() -> Self {
        let (timeout, deadline) = (Duration::from_secs(2), Duration::from_secs(6));
        Self { servers: Vec::new(), timeout, attempts: 2, deadline }
    }
}

/// Why a name has no addresses.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LookupError {
    /// NXDOMAIN.
    #[error("{name}: no such name (NXDOMAIN)")]
    NoSuchName {
        /// The name.
        name: String,
    },
    /// The name exists, but not with such a record.
    #[error("{name}: no {record} record")]
    NoRecord {
        /// The name.
        name: String,
        /// `A` or `AAAA`.
        record: &'static str,
    },
    /// More addresses than a name of a cache has.
    #[error("{name}: {found} addresses are too many for a node: at most {MAX_ADDRESSES} are believed")]
    TooMany {
        /// The name.
        name: String,
        /// How many there were.
        found: usize,
    },
    /// SERVFAIL, REFUSED, ...
    #[error("{name}: the name server answered {code}")]
    Refused {
        /// The name.
        name: String,
        /// The response code's word.
        code: String,
    },
    /// No answer.
    #[error("{name}: no name server answered in time")]
    Timeout {
        /// The name.
        name: String,
    },
    /// Not something that DNS can be asked for.
    #[error("{name}: not a domain name")]
    NotAName {
        /// The name.
        name: String,
    },
    /// An answer that makes no sense, or no way to a server.
    #[error("{name}: {reason}")]
    Other {
        /// The name.
        name: String,
        /// The resolver's words.
        reason: String,
    },
}

/// A resolver that is set up on first use.
pub(crate) struct Resolver {
    inner: Result<TokioResolver, String>,
    deadline: Instant,
    /// The shortest TTL among the answers so far, in seconds; `u32::MAX`: no answer had one.
    ttl: AtomicU32,
}

impl Resolver {
    pub(crate) fn new(settings: &ResolverSettings) -> Self {
        let inner = build(settings).map_err(|error| {
            let error = plain(&error.to_string());
            format!("{error}: name one in /etc/resolv.conf (a VPC's is 169.254.169.253)")
        });
        Self { inner, deadline: Instant::now() + settings.deadline, ttl: AtomicU32::new(u32::MAX) }
    }

    /// For how long the shortest-lived answer so far holds, if there was one.
    pub(crate) fn shortest_ttl(&self) -> Option<Duration> {
        let ttl = self.ttl.load(Ordering::Relaxed);
        (ttl != u32::MAX).then(|| Duration::from_secs(ttl.into()))
    }

    /// The addresses of a name (or the address that it is), sorted.
    ///
    /// Where the families are not known, one of them is enough.
    ///
    /// # Errors
    ///
    /// What is missing, beside the addresses that were found nevertheless.
    pub(crate) async fn lookup(
        &self,
        host: &str,
        network: Option<Network>,
    ) -> (Vec<IpAddr>, Option<LookupError>) {
        if let Ok(address) = host.parse::<IpAddr>() {
            return (vec![address.to_canonical()], None);
        }
        let answers = match network {
            Some(Network::Ipv4) => vec![self.records(host, RecordType::A).await],
            Some(Network::Ipv6) => vec![self.records(host, RecordType::AAAA).await],
            Some(Network::DualStack) | None => {
                let both = (self.records(host, RecordType::A), self.records(host, RecordType::AAAA));
                let (v4, v6) = join(both.0, both.1).await;
                vec![v4, v6]
            }
        };
        let (mut addresses, mut errors) = (Vec::new(), Vec::new());
        for answer in answers {
            match answer {
                Ok(found) => addresses.extend(found),
                Err(error) => errors.push(error),
            }
        }
        addresses.sort();
        addresses.dedup();
        // A family that has no record is no failure as long as the other one has.
        let tolerable = !addresses.is_empty()
            && (network.is_none()
                || errors.iter().all(|error| matches!(error, LookupError::NoRecord { .. })));
        (addresses, if tolerable { None } else { errors.into_iter().next() })
    }

    async fn records(&self, host: &str, record: RecordType) -> Result<Vec<IpAddr>, LookupError> {
        let begin = Instant::now();
        let answer = self.ask(host, record).await;
        let elapsed = begin.elapsed().as_millis();
        match &answer {
            Ok((addresses, ttl)) => {
                debug!("DNS {record} {host}: {addresses:?}, TTL {ttl} s, after {elapsed} ms");
            }
            Err(error) => debug!("DNS {record}: {error} after {elapsed} ms"),
        }
        answer.map(|(addresses, _)| addresses)
    }

    /// The addresses, and for how long they hold, in seconds.
    async fn ask(&self, host: &str, record: RecordType) -> Result<(Vec<IpAddr>, u32), LookupError> {
        let name = || plain(host);
        let resolver = self
            .inner
            .as_ref()
            .map_err(|reason| LookupError::Other { name: name(), reason: reason.clone() })?;
        let mut absolute = Name::from_ascii(host).map_err(|_| LookupError::NotAName { name: name() })?;
        // An absolute name is asked for as it stands, whatever `search` and `ndots` of resolv.conf say.
        absolute.set_fqdn(true);
        let answer = match timeout_at(self.deadline, resolver.lookup(absolute, record)).await {
            Err(_) => return Err(LookupError::Timeout { name: name() }),
            Ok(answer) => answer.map_err(|error| lookup_error(name(), record, &error))?,
        };
        let ttl = answer.answers().iter().map(|record| record.ttl).min().unwrap_or(u32::MAX);
        self.ttl.fetch_min(ttl, Ordering::Relaxed);
        let addresses: Vec<IpAddr> =
            answer.answers().iter().filter_map(|record| address(&record.data)).collect();
        match addresses.len() {
            0 => Err(LookupError::NoRecord { name: name(), record: word(record) }),
            1..=MAX_ADDRESSES => Ok((addresses, ttl)),
            found => Err(LookupError::TooMany { name: name(), found }),
        }
    }
}

fn build(settings: &ResolverSettings) -> Result<TokioResolver, NetError> {
    let mut builder = match settings.servers.as_slice() {
        [] => TokioResolver::builder_tokio()?,
        servers => {
            let servers = servers.iter().map(name_server).collect();
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    let options = builder.options_mut();
    options.timeout = settings.timeout;
    options.attempts = settings.attempts.saturating_sub(1);
    // Both lookups of a dual-stack name may go to one connection.
    options.max_active_requests = 2 * SIDE_BY_SIDE;
    options.cache_size = 0;
    builder.build()
}

fn name_server(server: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    NameServerConfig::new(server.ip(), true, connections.into())
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0).to_canonical()),
        _ => None,
    }
}

fn word(record: RecordType) -> &'static str {
    if record == RecordType::A { "A" } else { "AAAA" }
}

fn lookup_error(name: String, record: RecordType, error: &NetError) -> LookupError {
    match error {
        NetError::Timeout => LookupError::Timeout { name },
        NetError::Dns(DnsError::NoRecordsFound(none)) => code_error(name, record, none.response_code),
        NetError::Dns(DnsError::ResponseCode(code)) => code_error(name, record, *code),
        other => LookupError::Other { name, reason: plain(&other.to_string()) },
    }
}

fn code_error(name: String, record: RecordType, code: ResponseCode) -> LookupError {
    match code {
        ResponseCode::NXDomain => LookupError::NoSuchName { name },
        ResponseCode::NoError => LookupError::NoRecord { name, record: word(record) },
        ResponseCode::ServFail => LookupError::Refused { name, code: "SERVFAIL".into() },
        ResponseCode::Refused => LookupError::Refused { name, code: "REFUSED".into() },
        other => LookupError::Refused { name, code: plain(&other.to_string()) },
    }
}

type Question = (String, Option<Network>);
type Answers = BTreeMap<Question, (Vec<IpAddr>, Option<LookupError>)>;

/// Gives each node that has names its addresses, or the reason why it has none.
///
/// Returns for how long the shortest-lived answer holds, if any name server was asked.
pub(crate) async fn resolve_nodes(nodes: &mut [Node], options: &Options) -> Option<Duration> {
    let settings = &options.resolver;
    let mut questions: BTreeSet<Question> = nodes.iter().flat_map(questions_of).collect();
    if questions.is_empty() {
        return None;
    }
    // Where the VPC is not known, nodes that were announced are measured by the seed that announced them.
    let scopes = nodes.iter().filter_map(|node| scope_of(node, options));
    questions.extend(scopes.map(|scope| (scope.into_owned().seed, None)));
    // Reading resolv.conf and setting up sockets is not worth it for addresses.
    let needs_dns = questions.iter().any(|(host, _)| host.parse::<IpAddr>().is_err());
    let resolver = match needs_dns {
        true => Resolver::new(settings),
        false => Resolver {
            inner: Err("no resolver".into()),
            deadline: Instant::now(),
            ttl: AtomicU32::new(u32::MAX),
        },
    };
    let answers = stream::iter(questions)
        .map(|question| async {
            let answer = resolver.lookup(&question.0, question.1).await;
            (question, answer)
        })
        .buffer_unordered(SIDE_BY_SIDE)
        .collect();
    // At the same time: off EC2, instance metadata costs a second of waiting.
    let (answers, policy): (Answers, Admission) = join(answers, options.admission()).await;
    let hosts = LazyCell::new(|| std::fs::read_to_string("/etc/hosts").unwrap_or_default());
    for node in nodes.iter_mut().filter(|node| !node.names().is_empty()) {
        let is_of_hosts_file =
            |node: &Node, address| node.names().iter().any(|name| leads(&hosts, name, address));
        let scope = scope_of(node, options);
        (node.addresses, node.error) =
            addresses_of(node, &answers, &policy, scope.as_deref(), is_of_hosts_file);
    }
    resolver.shortest_ttl()
}

fn questions_of(node: &Node) -> impl Iterator<Item = Question> {
    node.names().iter().map(|name| (name.clone(), node.network))
}

/// What limits where the node may be beyond the policy: others announced it. The seed itself is the configuration's word.
fn scope_of<'a>(node: &Node, options: &'a Options) -> Option<Cow<'a, Scope>> {
    if !node.source.is_in_band() {
        return None;
    }
    let unknown = || Cow::Owned(Scope { seed: String::new(), hosts: Vec::new() });
    let scope = options.scopes.get(&node.source).map_or_else(unknown, Cow::Borrowed);
    (node.host != scope.seed).then_some(scope)
}

/// What the answers say about one node: the admitted addresses, and everything that is wrong.
fn addresses_of(
    node: &Node,
    answers: &Answers,
    policy: &Admission,
    scope: Option<&Scope>,
    is_of_hosts_file: impl Fn(&Node, IpAddr) -> bool,
) -> (Vec<IpAddr>, Option<String>) {
    let seed = scope.and_then(|scope| answers.get(&(scope.seed.clone(), None)));
    let seed = seed.map(|(found, _)| found.as_slice()).unwrap_or_default();
    let (mut addresses, mut wrong) = (BTreeSet::new(), Vec::new());
    for (found, error) in questions_of(node).filter_map(|question| answers.get(&question)) {
        wrong.extend(error.iter().map(ToString::to_string));
        for &address in found {
            let in_scope = || scope.map_or(Ok(()), |scope| scope.admit(address, seed, policy));
            match admit(address, policy).and_then(|()| in_scope()) {
                Ok(()) => {
                    addresses.insert(address);
                }
                Err(refusal) => {
                    let by = if is_of_hosts_file(node, address) { BY_HOSTS_FILE } else { "" };
                    wrong.push(format!("{}: refused: {refusal}{by}", plain(&node.host)));
                }
            }
        }
    }
    let error = if wrong.is_empty() { None } else { Some(wrong.join("; ")) };
    (addresses.into_iter().collect(), error)
}

/// What is said of an address that is refused and that this host's own file of names leads to: what is meant for clients was
/// put on the gateway.
const BY_HOSTS_FILE: &str =
    "; this host's /etc/hosts says so: take the line out, as it is one for clients ('cachenat endpoints')";

/// Whether a file of hosts(5) leads this name to this address.
fn leads(hosts: &str, name: &str, address: IpAddr) -> bool {
    hosts.lines().any(|line| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        words.next().is_some_and(|first| first.parse() == Ok(address))
            && words.any(|word| word.eq_ignore_ascii_case(name.trim_end_matches('.')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::node;

    #[test]
    fn a_line_for_clients_is_found_in_the_hosts_file() {
        let hosts =
            "127.0.0.1 localhost\n# 203.0.113.9 b.example\n203.0.113.73\tA.example  b.example # ours\n";
        let public = "203.0.113.73".parse().unwrap();
        assert!(leads(hosts, "a.example", public) && leads(hosts, "b.example.", public));
        assert!(
            !leads(hosts, "c.example", public) && !leads(hosts, "b.example", "203.0.113.9".parse().unwrap())
        );
    }

    fn resolve(mut nodes: Vec<Node>, policy: &Admission) -> Vec<Node> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let options = Options { admission: policy.clone(), imds: crate::Imds::off(), ..Options::default() };
        assert_eq!(runtime.block_on(resolve_nodes(&mut nodes, &options)), None);
        nodes
    }

    fn at(host: &str) -> Node {
        Node { host: host.into(), ..node("my-cluster-001", &[]) }
    }

    #[test]
    fn an_address_needs_no_dns() {
        let nodes =
            resolve(vec![at("10.0.1.230"), at("fd12::1"), at("::ffff:10.0.1.9")], &Admission::default());
        assert_eq!(nodes[2].addresses, ["10.0.1.9".parse::<IpAddr>().unwrap()]);
        assert_eq!(nodes[0].addresses, ["10.0.1.230".parse::<IpAddr>().unwrap()]);
        assert_eq!(nodes[1].addresses, ["fd12::1".parse::<IpAddr>().unwrap()]);
        assert_eq!(nodes[0].error, None);
    }

    #[test]
    fn a_refused_address_is_no_address() {
        let nodes = resolve(vec![at("169.254.169.254")], &Admission::default());
        assert_eq!(nodes[0].addresses, Vec::<IpAddr>::new());
        let error =
            "169.254.169.254: refused: 169.254.169.254 is an AWS instance service (metadata, DNS or time)";
        assert_eq!(nodes[0].error.as_deref(), Some(error));
    }

    #[test]
    fn an_announced_node_outside_the_vpc_is_no_target() {
        let announced = |host: &str| Node { source: "in_band/lab".parse().unwrap(), ..at(host) };
        let vpc = Admission { vpc: vec!["10.0.0.0/16".parse().unwrap()], ..Admission::default() };
        let nodes = resolve(vec![announced("10.0.1.230"), announced("172.17.0.1"), at("172.17.0.1")], &vpc);
        let error = "172.17.0.1: refused: 172.17.0.1 was announced in band and is outside the VPC; if it is right, add its \
                     range to also_hosts";
        let errors: Vec<Option<&str>> = nodes.iter().map(|node| node.error.as_deref()).collect();
        assert_eq!(errors, [None, Some(error), None]);
        // A source whose seed is not known announces nothing.
        assert_eq!(
            resolve(vec![announced("10.0.1.230")], &Admission::default())[0].addresses,
            Vec::<IpAddr>::new()
        );
    }

    #[test]
    fn a_node_without_endpoint_keeps_its_own_error() {
        let creating =
            Node { host: String::new(), error: Some("no endpoint yet (creating)".into()), ..at("") };
        let nodes = resolve(vec![creating.clone()], &Admission::default());
        assert_eq!(nodes, [creating]);
    }
}

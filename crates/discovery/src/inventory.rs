//! What discovery found: nodes, and how far each source could be read.

use std::{cmp::Ordering, collections::HashMap, fmt, net::IpAddr, num::NonZeroU16};

use serde::{Deserialize, Deserializer, Serialize};
use smol_str::{SmolStr, StrExt as _, ToSmolStr as _};

use crate::{NodeId, SourceName, Timestamp, text::plain};

/// The nodes of all sources, and one report per source.
///
/// Nodes are in the order of the sources, then by shard and id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Every node that some source names, usable or not; no id twice.
    pub nodes: Vec<Node>,
    /// One report per source, in the config's order.
    pub sources: Vec<SourceReport>,
}

/// One node of a cache, or a role of it (`my-cluster/primary`) that has an address of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The name that stays through replacement.
    pub id: NodeId,
    /// The cache that it belongs to: the replication group, Memcached cluster, serverless cache or the source's own name.
    #[serde(default)]
    pub cluster: SmolStr,
    /// The source that named it.
    pub source: SourceName,
    /// The node group, such as `0001`, where there are shards.
    #[serde(default)]
    pub shard: Option<SmolStr>,
    /// What it is for, where that is known. It changes at a failover.
    #[serde(default)]
    pub role: Option<Role>,
    /// What it speaks, where that is known.
    #[serde(default)]
    pub engine: Option<Engine>,
    /// Whether clients have to speak TLS to it.
    #[serde(default)]
    pub tls: bool,
    /// The API's word for its state, in lower case: `available`, `creating`, `modifying`, ... Unknown words are kept.
    #[serde(default)]
    pub status: SmolStr,
    /// The name (or address) that clients in the VPC use. Empty while the API gives it no endpoint.
    #[serde(default)]
    pub host: String,
    /// The port that the node listens on. While there is no endpoint: the engine's default port.
    pub port: NonZeroU16,
    /// Where it is: sorted, unique, admitted. Empty while that is not known.
    #[serde(default, deserialize_with = "sorted")]
    pub addresses: Vec<IpAddr>,
    /// Why it is not, or not wholly, usable now.
    #[serde(default)]
    pub error: Option<String>,
    /// The names whose addresses together are this node's, where that is not just `host`: a reader is its replicas.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resolves: Vec<String>,
    /// The cluster's configuration endpoint: the name by which clients find any one of its nodes to begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration_host: Option<String>,
    /// The address families that the cache is reached by, where the API tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
}

impl Node {
    /// The names that have to be looked up to know the addresses.
    pub fn names(&self) -> &[String] {
        match self.resolves.as_slice() {
            [] if self.host.is_empty() => &[],
            [] => std::slice::from_ref(&self.host),
            several => several,
        }
    }

    /// Whether the API says that the node is on its way out, or never came to be, so that having no endpoint is nothing to
    /// wait for.
    pub fn is_leaving(&self) -> bool {
        matches!(self.status.as_str(), "deleting" | "deleted") || has_failed(&self.status)
    }
}

/// Whether a cache of this status stays without nodes until somebody does something about it: an answer, and no doubt
/// (ElastiCache User Guide, cluster and replication group statuses).
pub(crate) fn has_failed(status: &str) -> bool {
    matches!(status, "create-failed" | "restore-failed") || status.starts_with("incompatible-")
}

/// How far one source could be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "RawSourceReport")]
pub struct SourceReport {
    /// The source.
    pub source: SourceName,
    /// The verdict for people and exit codes.
    pub outcome: Outcome,
    /// What is wrong, and the remedy where there is one.
    pub error: Option<String>,
    /// What a missing node means: the fact that decides what is kept.
    pub coverage: Coverage,
    /// Since when it could not be read completely; set where the answer is merged with the last good inventory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
    /// Nodes that the last whole answer did not name, and that one more such answer removes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<NodeId>,
    /// Of [`Coverage::Part`] the only caches whose nodes may be missing; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_doubt: Vec<SmolStr>,
    /// What there is to know of the source that is no fault of the answer's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

impl SourceReport {
    /// Whether nodes of this cache may be missing from the answer.
    pub fn doubts(&self, cluster: &str) -> bool {
        self.coverage == Coverage::Part
            && (self.in_doubt.is_empty() || self.in_doubt.iter().any(|cache| cache == cluster))
    }

    fn new(source: SourceName, outcome: Outcome, error: Option<String>, coverage: Coverage) -> Self {
        let error = error.as_deref().map(plain);
        Self {
            source,
            outcome,
            error,
            coverage,
            failing_since: None,
            held: Vec::new(),
            in_doubt: Vec::new(),
            remarks: Vec::new(),
        }
    }

    /// Everything that the source has was read.
    pub fn complete(source: SourceName) -> Self {
        Self::new(source, Outcome::Complete, None, Coverage::Whole)
    }

    /// Some nodes may be missing from the answer.
    pub fn partial(source: SourceName, error: impl fmt::Display) -> Self {
        Self::new(source, Outcome::Partial, Some(error.to_string()), Coverage::Part)
    }

    /// There is no answer.
    pub fn failed(source: SourceName, error: impl fmt::Display) -> Self {
        Self::new(source, Outcome::Failed, Some(error.to_string()), Coverage::Nothing)
    }

    /// The API's own word is that there is no such cache.
    pub fn absent(source: SourceName, error: impl fmt::Display) -> Self {
        Self::new(source, Outcome::Failed, Some(error.to_string()), Coverage::Absent)
    }

    /// The list of nodes is whole, but some node has no address: partial for people, nothing to keep beyond that node.
    pub fn lower_to_partial(&mut self, error: impl fmt::Display) {
        if self.outcome == Outcome::Complete {
            self.outcome = Outcome::Partial;
        }
        let error = match self.error.take() {
            Some(earlier) => format!("{earlier}; {error}"),
            None => error.to_string(),
        };
        self.error = Some(plain(&error));
    }
}

/// A source's verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every node is known and has an address.
    Complete,
    /// Some of it is not known; `error` says what.
    Partial,
    /// None of it is known; `error` says why.
    Failed,
}

/// What it means when a source's answer does not name a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coverage {
    /// The answer names every node: one that it does not name is gone.
    Whole,
    /// Nodes may be missing from the answer: absence says nothing.
    Part,
    /// The API's word is that the cache as such does not exist.
    Absent,
    /// There was no answer.
    Nothing,
}

/// What a node does in its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Takes the writes.
    Primary,
    /// Follows the primary.
    Replica,
    /// Not a node but all replicas together.
    Reader,
}

/// What a node speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SmolStr", into = "SmolStr")]
pub enum Engine {
    /// Redis OSS.
    Redis,
    /// Valkey, the same protocol.
    Valkey,
    /// Memcached.
    Memcached,
    /// A word that the API has learnt since.
    Other(SmolStr),
}

impl Engine {
    /// The port that ElastiCache gives the engine unless told otherwise.
    pub(crate) const fn default_port(&self) -> NonZeroU16 {
        const REDIS: NonZeroU16 = NonZeroU16::new(6379).expect("6379 is not zero");
        const MEMCACHED: NonZeroU16 = NonZeroU16::new(11211).expect("11211 is not zero");
        match self {
            Self::Memcached => MEMCACHED,
            Self::Redis | Self::Valkey | Self::Other(_) => REDIS,
        }
    }
}

/// The address families of a cache (`NetworkType` of the API).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// A records only.
    Ipv4,
    /// AAAA records only.
    Ipv6,
    /// Both.
    DualStack,
}

impl Inventory {
    /// Whether every source was read whole and every node that is not leaving has an address.
    pub fn is_complete(&self) -> bool {
        self.sources.iter().all(|report| report.outcome == Outcome::Complete)
            && self.nodes.iter().all(|node| node.error.is_none() || node.is_leaving())
    }

    /// The report of a source.
    pub fn report(&self, source: &SourceName) -> Option<&SourceReport> {
        self.sources.iter().find(|report| report.source == *source)
    }

    /// Puts nodes in order: by their source's place, then shard, then id.
    pub fn sort(&mut self) {
        let places: HashMap<&SourceName, usize> =
            self.sources.iter().enumerate().map(|(place, report)| (&report.source, place)).collect();
        let place = |node: &Node| places.get(&node.source).copied().unwrap_or(usize::MAX);
        // Most neighbours are of one source, whose place matters to neither.
        let by_place = |a: &Node, b: &Node| match a.source == b.source {
            true => Ordering::Equal,
            false => (place(a), &a.source).cmp(&(place(b), &b.source)),
        };
        self.nodes.sort_by(|a, b| by_place(a, b).then_with(|| (&a.shard, &a.id).cmp(&(&b.shard, &b.id))));
    }
}

impl From<&str> for Engine {
    fn from(word: &str) -> Self {
        match word.to_ascii_lowercase_smolstr().as_str() {
            "redis" => Self::Redis,
            "valkey" => Self::Valkey,
            "memcached" => Self::Memcached,
            other => Self::Other(plain(other).into()),
        }
    }
}

impl From<SmolStr> for Engine {
    fn from(word: SmolStr) -> Self {
        word.as_str().into()
    }
}

impl From<Engine> for SmolStr {
    fn from(engine: Engine) -> Self {
        engine.to_smolstr()
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Redis => "redis",
            Self::Valkey => "valkey",
            Self::Memcached => "memcached",
            Self::Other(word) => word,
        })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Reader => "reader",
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Complete => "complete",
            Self::Partial => "partial",
            Self::Failed => "failed",
        })
    }
}

/// A report as it may stand in a file: `coverage` came later than `outcome` and may be absent.
#[derive(Deserialize)]
struct RawSourceReport {
    source: SourceName,
    outcome: Outcome,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    coverage: Option<Coverage>,
    #[serde(default)]
    failing_since: Option<Timestamp>,
    #[serde(default)]
    held: Vec<NodeId>,
    #[serde(default)]
    in_doubt: Vec<SmolStr>,
    #[serde(default)]
    remarks: Vec<String>,
}

impl From<RawSourceReport> for SourceReport {
    fn from(raw: RawSourceReport) -> Self {
        let coverage = raw.coverage.unwrap_or(match raw.outcome {
            Outcome::Complete => Coverage::Whole,
            Outcome::Partial => Coverage::Part,
            Outcome::Failed => Coverage::Nothing,
        });
        let error = raw.error.as_deref().map(plain);
        let RawSourceReport { source, outcome, failing_since, held, in_doubt, .. } = raw;
        let remarks = raw.remarks.iter().map(|remark| plain(remark)).collect();
        Self { source, outcome, error, coverage, failing_since, held, in_doubt, remarks }
    }
}

fn sorted<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
    let mut addresses = Vec::deserialize(deserializer)?;
    addresses.iter_mut().for_each(|address: &mut IpAddr| *address = address.to_canonical());
    addresses.sort();
    addresses.dedup();
    // A list grows by fours, and most nodes have one address.
    addresses.shrink_to_fit();
    Ok(addresses)
}

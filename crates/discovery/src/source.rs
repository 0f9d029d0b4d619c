//! Where nodes come from, as the config says it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU16,
    path::PathBuf,
};

use crate::{
    NodeId, SourceName,
    announced::{Also, Scope},
};

/// One entry of the config's `sources`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A Redis or Valkey replication group, cluster mode disabled or enabled.
    ReplicationGroup {
        /// `ReplicationGroupId`.
        id: String,
        /// Which of its endpoints get a port.
        expose: Expose,
    },
    /// A Memcached cluster, or a standalone Redis or Valkey node.
    CacheCluster {
        /// `CacheClusterId`.
        id: String,
    },
    /// A serverless cache: both of its endpoints.
    ServerlessCache {
        /// `ServerlessCacheName`.
        name: String,
    },
    /// Every cache of the account and region that carries all of these tags.
    Tags {
        /// Key and value, both exact.
        tags: BTreeMap<String, String>,
        /// Which endpoints of the replication groups among them get a port.
        expose: Expose,
    },
    /// A running cache that is asked itself, without AWS credentials.
    InBand {
        /// The source's name, and the cluster's.
        name: String,
        /// Whom to ask.
        seed: Seed,
        /// Where its nodes may be besides the seed's port and the VPC.
        also: Also,
    },
    /// Nodes that the config spells out.
    Static {
        /// The source's name, and the cluster's.
        name: String,
        /// The nodes.
        nodes: Vec<StaticNode>,
    },
}

/// The node that an in-band source asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seed {
    /// `CLUSTER SHARDS`, or `CLUSTER SLOTS` of servers that do not know it.
    Redis(RedisSeed),
    /// `config get cluster`, as ElastiCache's Memcached answers it.
    Memcached(HostPort),
}

/// A Redis or Valkey node, and how to log in to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSeed {
    /// Where it is.
    pub address: HostPort,
    /// Present: speak TLS.
    pub tls: Option<TlsTrust>,
    /// The ACL user; none: the default user.
    pub username: Option<String>,
    /// Where the password is kept; none: no AUTH is sent.
    pub password: Option<Secret>,
}

/// Whose certificates are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsTrust {
    /// A PEM file of certificate authorities; none: the system's.
    pub ca_file: Option<PathBuf>,
    /// The name that the certificate must carry; none: the seed's host.
    pub server_name: Option<String>,
}

/// Where a password is read from. Never the command line, which every user of the host can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// An environment variable.
    Env(String),
    /// A file; one line break at its end is not part of the secret.
    File(PathBuf),
}

/// `host:port`, the host a name or an address (IPv6 in brackets).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: NonZeroU16,
}

/// A node that the config spells out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticNode {
    /// Its name.
    pub id: NodeId,
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: NonZeroU16,
}

/// One kind of endpoint of a replication group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExposedRole {
    /// Each node by itself.
    Nodes,
    /// `id/primary`: whichever node takes the writes now.
    Primary,
    /// `id/reader`: new connections are spread over the replicas.
    Reader,
}

/// Which endpoints of a replication group get a port; [`ExposedRole::Nodes`] unless told otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expose(BTreeSet<ExposedRole>);

impl Expose {
    /// Nodes, primary and reader.
    pub fn all() -> Self {
        [ExposedRole::Nodes, ExposedRole::Primary, ExposedRole::Reader].into_iter().collect()
    }

    /// Whether this kind is wanted.
    pub fn has(&self, endpoint: ExposedRole) -> bool {
        self.0.contains(&endpoint)
    }

    /// Reads the config's words: `nodes`, `primary`, `reader`, `all`. No words: the default.
    ///
    /// # Errors
    ///
    /// The first word that is none of them.
    pub fn from_words<S: AsRef<str>>(words: &[S]) -> Result<Self, String> {
        let mut expose = BTreeSet::new();
        for word in words {
            match word.as_ref() {
                "nodes" => expose.extend([ExposedRole::Nodes]),
                "primary" => expose.extend([ExposedRole::Primary]),
                "reader" => expose.extend([ExposedRole::Reader]),
                "all" => expose.extend(Self::all().0),
                other => return Err(other.to_owned()),
            }
        }
        Ok(if expose.is_empty() { Self::default() } else { Self(expose) })
    }
}

impl Default for Expose {
    fn default() -> Self {
        Self::from_iter([ExposedRole::Nodes])
    }
}

impl FromIterator<ExposedRole> for Expose {
    fn from_iter<I: IntoIterator<Item = ExposedRole>>(endpoints: I) -> Self {
        Self(endpoints.into_iter().collect())
    }
}

impl Seed {
    /// Where it is.
    pub fn address(&self) -> &HostPort {
        match self {
            Self::Redis(redis) => &redis.address,
            Self::Memcached(address) => address,
        }
    }

    /// Whether a password goes to it that others on the way can read; to this host itself there is no way.
    pub fn sends_clear_password(&self) -> bool {
        let is_here = self.address().host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        !is_here && matches!(self, Self::Redis(RedisSeed { password: Some(_), tls: None, .. }))
    }
}

impl Source {
    /// `kind/name`, the same in reports, inventories and leases.
    pub fn name(&self) -> SourceName {
        match self {
            Self::ReplicationGroup { id, .. } => SourceName::new("replication_group", id),
            Self::CacheCluster { id } => SourceName::new("cache_cluster", id),
            Self::ServerlessCache { name } => SourceName::new("serverless_cache", name),
            Self::Tags { tags, .. } => {
                let pairs: Vec<String> = tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
                SourceName::new("tags", &pairs.join(","))
            }
            Self::InBand { name, .. } => SourceName::new("in_band", name),
            Self::Static { name, .. } => SourceName::new("static", name),
        }
    }

    /// Where its nodes may be, if they are announced by one of them.
    pub(crate) fn scope(&self) -> Option<Scope> {
        match self {
            Self::InBand { seed, also, .. } => {
                Some(Scope { seed: seed.address().host.clone(), hosts: also.hosts.clone() })
            }
            _ => None,
        }
    }
}

impl std::str::FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        let wrong = || HostPortError(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
            Some(address) => address.ok_or_else(wrong)?,
            // An IPv6 address without brackets would lose its last group to the port.
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        if host.is_empty() || host.chars().any(|c| c.is_whitespace() || crate::text::is_unprintable(c)) {
            return Err(wrong());
        }
        Ok(Self { host: crate::text::canonical_host(host), port: port.parse().map_err(|_| wrong())? })
    }
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// The text is not `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not host:port, such as 10.0.1.230:6379 or [fd00::1]:6379")]
pub struct HostPortError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_named_in_one_order() {
        let tags = [("Team", "web"), ("Environment", "dev")].map(|(k, v)| (k.into(), v.into())).into();
        let source = Source::Tags { tags, expose: Expose::default() };
        assert_eq!(source.name().as_str(), "tags/Environment=dev,Team=web");
    }

    #[test]
    fn expose_knows_its_words() {
        assert_eq!(Expose::from_words::<&str>(&[]), Ok(Expose::default()));
        assert_eq!(Expose::from_words(&["all"]), Ok(Expose::all()));
        assert_eq!(Expose::from_words(&["reader"]), Ok(Expose::from_iter([ExposedRole::Reader])));
        assert_eq!(Expose::from_words(&["node"]), Err("node".into()));
    }

    #[test]
    fn host_and_port_are_told_apart() {
        assert_eq!("[::ffff:10.0.1.9]:1".parse::<HostPort>().unwrap().to_string(), "10.0.1.9:1");
        for text in ["10.0.1.230:6379", "[fd00::1]:6379", "cache.example:1"] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
        for text in
            ["10.0.1.230", ":6379", "fd00::1:6379", "a:0", "a:70000", "[fd00::1:6379", "a b:1", "a\u{1b}:1"]
        {
            assert!(text.parse::<HostPort>().is_err(), "{text:?}");
        }
    }
}

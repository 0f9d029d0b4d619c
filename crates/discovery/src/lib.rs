//! Finds the nodes of ElastiCache caches, and says how sure it is of them.
//!
//! [`discover`] turns sources into an [`Inventory`]. It does not fail as a whole: what could not be read stands in the
//! source's report or in the node's `error`, and the plan decides what is kept for it. Two halves make it:
//! [`list`] asks the API (seldom), [`resolve`] asks DNS (often).

#![forbid(unsafe_code)]

mod admission;
mod announced;
mod bounded;
mod client_names;
mod elasticache;
mod imds;
mod in_band;
mod inventory;
mod json;
mod names;
mod resolve;
mod source;
#[cfg(any(test, feature = "test-support"))]
pub mod test_support;
mod text;
mod timestamp;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use futures_util::future::{join, join_all};

pub use aws_credential_types::Credentials;

pub use admission::{Admission, Refusal, Route, admit};
pub use announced::{Also, Scope};
pub use client_names::{ClientAddresses, ClientNameError, MAX_CLIENT_ADDRESSES, client_addresses};
pub use elasticache::{Action, ApiError, CacheLocation, Cause, Survey, survey};
pub use imds::{Imds, InstanceFacts, instance_facts};
pub use in_band::{Dial, GreetError, InBandError, ServerInfo, ServerProtocol, greet_all};
pub use inventory::{Coverage, Engine, Inventory, Network, Node, Outcome, Role, SourceReport};
pub use json::InventoryError;
pub use names::{MAX_NAME, NameError, NodeId, SourceName};
pub use resolve::{LookupError, ResolverSettings};
pub use source::{
    Expose, ExposedRole, HostPort, HostPortError, RedisSeed, Secret, Seed, Source, StaticNode, TlsTrust,
};
pub use timestamp::Timestamp;

/// How discovery goes about it.
#[derive(Clone, Debug)]
pub struct Options {
    /// The region; none: the SDK's usual chain, then IMDS.
    pub region: Option<String>,
    /// The API's URL; none: the SDK's usual one, which `AWS_ENDPOINT_URL` moves.
    pub endpoint: Option<String>,
    /// Whose calls they are; none: the SDK's usual chain, instance role included.
    pub credentials: Option<Credentials>,
    /// Which addresses may be targets.
    pub admission: Admission,
    /// Where the nodes of in-band sources may be; see [`Options::with_scopes`].
    pub scopes: BTreeMap<SourceName, Scope>,
    /// Which name servers are asked.
    pub resolver: ResolverSettings,
    /// The metadata service, shared with whoever asked it already.
    pub imds: Imds,
    /// How long all calls of the API together may take.
    pub api_deadline: Duration,
    /// How long an in-band source may take.
    pub in_band_deadline: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            region: None,
            endpoint: None,
            credentials: None,
            admission: Admission::default(),
            scopes: BTreeMap::new(),
            resolver: ResolverSettings::default(),
            imds: Imds::default(),
            api_deadline: Duration::from_secs(13),
            in_band_deadline: Duration::from_secs(5),
        }
    }
}

impl Options {
    /// The same for nodes that these sources announce in band; without it such a node is no target.
    #[must_use]
    pub fn with_scopes<'a>(mut self, sources: impl IntoIterator<Item = &'a Source>) -> Self {
        self.scopes.extend(sources.into_iter().filter_map(|source| Some((source.name(), source.scope()?))));
        self
    }

    /// What may be a target: what is known, and what the instance knows of its VPC.
    pub async fn admission(&self) -> Admission {
        let mut policy = self.admission.clone();
        if let Some(facts) = self.imds.facts().await {
            policy.vpc.extend(&facts.vpc_cidrs);
            policy.own.extend(facts.own_addresses());
        }
        policy
    }
}

/// The nodes of all sources with their addresses.
///
/// Takes at most about 20 seconds, whatever hangs. Needs a tokio runtime with I/O and time; one thread is enough.
pub async fn discover(sources: &[Source], options: &Options) -> Inventory {
    let options = options.clone().with_scopes(sources);
    resolve(list(sources, &options).await, &options).await.0
}

/// The nodes of all sources without their addresses: what the API, the caches themselves and the config say.
pub async fn list(sources: &[Source], options: &Options) -> Inventory {
    gather(list_each(sources, options).await)
}

/// The same source by source, in their order; [`gather`] makes one inventory of it.
pub async fn list_each(sources: &[Source], options: &Options) -> Vec<Listed> {
    let in_band = join_all(sources.iter().map(|source| in_band::find(source, options)));
    let (account, mut in_band) = join(elasticache::list(sources, options), in_band).await;
    let found = sources.iter().zip(&mut in_band).map(|(source, in_band)| {
        let found = in_band.take().or_else(|| elasticache::find(source, &account));
        let (report, nodes) = found.unwrap_or_else(|| spelled_out(source));
        Listed { report, nodes }
    });
    found.collect()
}

/// What one source said, without addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    report: SourceReport,
    nodes: Vec<Node>,
}

impl Listed {
    /// What a source said.
    pub fn new(report: SourceReport, nodes: Vec<Node>) -> Self {
        Self { report, nodes }
    }

    /// How far the source was read.
    pub fn report(&self) -> &SourceReport {
        &self.report
    }
}

/// The same inventory with every name looked up anew, and for how long the shortest-lived answer holds, if there was one.
pub async fn resolve(listed: Inventory, options: &Options) -> (Inventory, Option<Duration>) {
    let mut inventory = listed;
    let ttl = resolve::resolve_nodes(&mut inventory.nodes, options).await;
    let mut wrong: HashMap<&SourceName, Vec<(&Node, &String)>> = HashMap::new();
    for node in inventory.nodes.iter().filter(|node| !node.is_leaving()) {
        if let Some(error) = &node.error {
            wrong.entry(&node.source).or_default().push((node, error));
        }
    }
    for report in &mut inventory.sources {
        let Some([(first, error), more @ ..]) = wrong.get(&report.source).map(Vec::as_slice) else {
            continue;
        };
        let words = match more.len() {
            0 => format!("{}: {error}", first.id),
            more => format!("{}: {error} (and {more} more)", first.id),
        };
        report.lower_to_partial(words);
    }
    inventory.make_plain();
    (inventory, ttl)
}

/// A static source's nodes.
fn spelled_out(source: &Source) -> (SourceReport, Vec<Node>) {
    let (name, cluster, nodes) = match source {
        Source::Static { name, nodes } => (source.name(), name, nodes.as_slice()),
        other => return (SourceReport::failed(other.name(), "the source was not asked"), Vec::new()),
    };
    let node = |node: &StaticNode| Node {
        id: node.id.clone(),
        cluster: text::plain(cluster).into(),
        source: name.clone(),
        shard: None,
        role: None,
        engine: None,
        tls: false,
        status: "static".into(),
        host: text::plain(node.host.trim_end_matches('.')),
        port: node.port,
        addresses: Vec::new(),
        error: None,
        resolves: Vec::new(),
        configuration_host: None,
        network: None,
    };
    (SourceReport::complete(name.clone()), nodes.iter().map(node).collect())
}

/// One inventory of what several sources said; of two nodes with one id the first source's counts.
pub fn gather(listed: impl IntoIterator<Item = Listed>) -> Inventory {
    let mut inventory = Inventory::default();
    let mut first: HashMap<NodeId, (SourceName, String)> = HashMap::new();
    for Listed { mut report, nodes } in listed {
        for node in nodes {
            match first.get(&node.id) {
                None => {
                    first.insert(node.id.clone(), (node.source.clone(), node.host.clone()));
                    inventory.nodes.push(node);
                }
                // One cache in two sources (by name and by tag) is no conflict.
                Some((_, host)) if *host == node.host => {}
                Some((source, _)) => {
                    report.lower_to_partial(format!("{}: the name is taken by {source}", node.id))
                }
            }
        }
        inventory.sources.push(report);
    }
    inventory.make_plain();
    inventory.sort();
    inventory
}

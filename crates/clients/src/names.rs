//! Which names may be a cache's.
//!
//! What a client is told of a name it believes: its hosts file leads it to the gateway, and a TLS client dials it with its
//! password. So a node that calls itself `github.com` has no name.

use std::net::IpAddr;

use discovery::{Inventory, Node, Seed, Source, SourceName};

/// Below what ElastiCache names its endpoints, in each partition (botocore's `partitions.json`, `dnsSuffix`).
const AWS: [&str; 8] = [
    ".amazonaws.com",
    ".amazonaws.com.cn",
    ".amazonaws.eu",
    ".c2s.ic.gov",
    ".sc2s.sgov.gov",
    ".cloud.adc-e.uk",
    ".csp.hci.ic.gov",
    ".api.aws",
];

/// The domains that names have to be in, by source.
struct Domains(Vec<(SourceName, Domain)>);

enum Domain {
    /// The operator has written the names down.
    Any,
    /// In band: the seed's own domain besides AWS's.
    Of(String),
}

/// Takes from the nodes every name that is not in its cache's own domain, and tells of each node that had one.
pub fn keep_own<'a>(inventory: &mut Inventory, sources: impl Iterator<Item = &'a Source>) -> Vec<String> {
    let domains = Domains(sources.filter_map(|source| Some((source.name(), domain(source)?))).collect());
    let mut lines = Vec::new();
    for node in &mut inventory.nodes {
        if let Some(name) = node.configuration_host.take_if(|name| !domains.have(&node.source, name)) {
            lines.push(foreign(node, &name));
        }
        if !domains.have(&node.source, &node.host) {
            lines.push(foreign(node, &node.host));
            node.host = node.addresses.first().map(ToString::to_string).unwrap_or_default();
        }
    }
    lines
}

fn foreign(node: &Node, name: &str) -> String {
    format!(
        "{}: {name:?} is not a name of ElastiCache's nor in the domain of its source's seed; clients are not told that name",
        node.id
    )
}

fn domain(source: &Source) -> Option<Domain> {
    match source {
        Source::Static { .. } => Some(Domain::Any),
        Source::InBand { seed, .. } => {
            let host = match seed {
                Seed::Redis(seed) => &seed.address.host,
                Seed::Memcached(address) => &address.host,
            };
            // Names of one label have no domain, and addresses no names.
            let (_, domain) = host.split_once('.').filter(|_| host.parse::<IpAddr>().is_err())?;
            domain.contains('.').then(|| Domain::Of(format!(".{}", domain.to_ascii_lowercase())))
        }
        _ => None,
    }
}

impl Domains {
    /// Whether a host is one that this source's cache may have; addresses and the empty one are.
    fn have(&self, source: &SourceName, host: &str) -> bool {
        let name = host.to_ascii_lowercase();
        let is_under = |domain: &str| name.len() > domain.len() && name.ends_with(domain);
        let is_aws =
            || AWS.iter().any(|suffix| is_under(suffix)) && name.split('.').any(|label| label == "cache");
        let own = self.0.iter().find(|(name, _)| name == source).map(|(_, domain)| domain);
        let is_own = match own {
            Some(Domain::Any) => true,
            Some(Domain::Of(domain)) => is_under(domain),
            None => false,
        };
        host.is_empty() || host.parse::<IpAddr>().is_ok() || is_own || is_aws()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVENTORY: &str = r#"{"version":1,"sources":[],"nodes":[
        {"id":"a","source":"SOURCE","port":6379,"host":"HOST","addresses":["10.0.1.230"],"configuration_host":"HOST"}]}"#;

    fn told(source: &str, host: &str, sources: &[Source]) -> (String, usize) {
        let text = INVENTORY.replace("SOURCE", source).replace("HOST", host);
        let mut inventory = Inventory::from_json(&text).unwrap();
        let lines = keep_own(&mut inventory, sources.iter()).len();
        assert_eq!(inventory.nodes[0].configuration_host.is_none(), lines > 0);
        (inventory.nodes[0].host.clone(), lines)
    }

    #[test]
    fn a_name_outside_of_its_caches_domain_is_none() {
        let own = "a-001.abc.0001.use2.cache.amazonaws.com";
        assert_eq!(told("replication_group/a", own, &[]), (own.to_owned(), 0));
        assert_eq!(told("replication_group/a", "10.0.1.230", &[]).1, 0);
        for foreign in ["localhost", "github.com", "cache.amazonaws.com.evil.example", "s3.amazonaws.com"] {
            assert_eq!(told("replication_group/a", foreign, &[]), ("10.0.1.230".to_owned(), 2), "{foreign}");
        }
        assert_eq!(told("static/a", "github.com", &[]).1, 2, "a file's source that is not configured");
    }

    #[test]
    fn in_band_the_seeds_own_domain_counts_and_in_a_static_source_any() {
        let seed = |host: &str| Source::InBand {
            name: "lab".into(),
            seed: Seed::Memcached(format!("{host}:11211").parse().unwrap()),
            also: discovery::Also::default(),
        };
        let of = |seed_host: &str, host: &str| told("in_band/lab", host, &[seed(seed_host)]).1;
        assert_eq!(of("c-1.lab.example", "c-2.lab.example"), 0);
        assert_eq!(of("c-1.lab.example", "c-2.other.example"), 2);
        assert_eq!(of("c-1.example", "github.example"), 2, "a top-level domain is nobody's own");
        assert_eq!(of("10.0.1.240", "c-2.lab.example"), 2);
        let nodes = Source::Static { name: "local".into(), nodes: vec![] };
        assert_eq!(told("static/local", "redis", &[nodes]).1, 0);
    }
}

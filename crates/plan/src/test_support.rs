//! Values that the unit tests share.

use discovery::{Engine, Node};

use crate::config::{PlanConfig, PlanSource};

/// The example's configuration: `my-cluster` with a pool that is its own, and `sessions`, which draws from `ports`.
pub(crate) fn config() -> PlanConfig {
    let source = |name: &str, ports| PlanSource { name: name.parse().unwrap(), ports, is_asked: true };
    PlanConfig {
        clients: vec!["198.51.100.27/32".parse().unwrap()],
        ports: 6379..=7378,
        sources: vec![
            source("replication_group/my-cluster", Some(6379..=6382)),
            source("cache_cluster/sessions", None),
        ],
        pins: Default::default(),
        max_removed_percent: 50,
        flowtable: false,
        forward_others: None,
    }
}

/// A node of the example cluster that has these addresses.
pub(crate) fn node(id: &str, addresses: &[&str]) -> Node {
    Node {
        id: id.parse().unwrap(),
        cluster: "my-cluster".into(),
        source: "replication_group/my-cluster".parse().unwrap(),
        shard: None,
        role: None,
        engine: Some(Engine::Redis),
        tls: false,
        status: "available".into(),
        host: format!("{id}.example"),
        port: 6379.try_into().unwrap(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        error: None,
        resolves: Vec::new(),
        configuration_host: None,
        network: None,
    }
}

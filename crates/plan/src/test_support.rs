//! Values that the unit tests share.

use crate::config::{PlanConfig, PlanSource};

/// The example's configuration: `my-cluster` with a pool that is its own, and `sessions`, which draws from `ports`.
pub(crate) fn config() -> PlanConfig {
    let source =
        |name: &str, ports| PlanSource { name: name.parse().unwrap(), ports, list: 0, is_asked: true };
    PlanConfig {
        clients: vec![vec!["198.51.100.27/32".parse().unwrap()]],
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

//! Values that the unit tests share.

use crate::{Engine, Node};

/// A node of the example cluster that has these addresses.
#[allow(clippy::unwrap_used, reason = "a test that is not as it should be fails")]
pub fn node(id: &str, addresses: &[&str]) -> Node {
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

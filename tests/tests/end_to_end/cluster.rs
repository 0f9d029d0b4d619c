//! A Redis Cluster, whose nodes tell clients of each other by their private addresses.

use std::collections::BTreeMap;

use cachenat_tests::lab::Lab;
use cachenat_tests::lab::shell::run_with_input;
use cachenat_tests::programs;

/// Reads from the map that stands in its stdin, and from every node that the cluster names.
const CLIENT: &str = r#"
import json, sys
from redis.cluster import RedisCluster

ports = json.load(sys.stdin)
remap = lambda address: ("203.0.113.73", ports["%s:%d" % address])
client = RedisCluster(host="203.0.113.73", port=6379, address_remap=remap, read_from_replicas=True, socket_timeout=3)
for number in range(200):
    client.set(f"key:{number}", number)
    client.wait(1, 1000, target_nodes=client.get_node_from_key(f"key:{number}"))
    assert client.get(f"key:{number}") == str(number).encode()
for node in client.get_nodes():
    print(client.info("server", target_nodes=node)["run_id"])
"#;

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_cluster_client_reaches_every_slot() {
    let mut lab = Lab::new();
    lab.add_cluster("shards", 3);
    let applied = lab.cachenat(&["apply", "--json"]).exits(0).json();

    let ports = private_to_public(&applied["changes"]);
    let mut python = lab.network.client.command(programs::python());
    let printed = run_with_input(python.args(["-c", CLIENT]), &serde_json::to_string(&ports).unwrap());

    let mut reached: Vec<&str> = printed.lines().collect();
    let mut nodes: Vec<String> = lab.nodes().map(|node| node.run_id()).collect();
    reached.sort_unstable();
    nodes.sort_unstable();
    assert_eq!(reached, nodes);
    assert_eq!(nodes.len(), 6);
}

/// What a client's address map holds: each node's private address and its port outside.
fn private_to_public(changes: &serde_json::Value) -> BTreeMap<String, u16> {
    let pair = |change: &serde_json::Value| {
        let listen = change["listen"].as_str()?.rsplit_once(':')?.1.parse().ok()?;
        Some((change["to"].as_str()?.to_owned(), listen))
    };
    changes.as_array().unwrap().iter().map(|change| pair(change).unwrap()).collect()
}

//! Tests of the lab itself.

use cachenat_tests::lab::Lab;
use cachenat_tests::lab::redis::Redis;
use cachenat_tests::lab::shell::run;
use cachenat_tests::lab::wait::wait_for;
use cachenat_tests::programs;

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn no_private_address_is_reachable_from_outside() {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 1);
    let node = lab.node("my-cluster-001");
    assert!(Redis::connect(&lab.network.nat, node.at).is_ok());
    assert!(Redis::connect(&lab.network.client, node.at).is_err());
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn concurrent_labs_are_isolated() {
    let mut labs = [Lab::new(), Lab::new()];
    for lab in &mut labs {
        lab.add_replication_group("my-cluster", 1);
    }
    let [one, other] = labs.each_ref().map(|lab| lab.node("my-cluster-001"));
    assert_eq!(one.at, other.at);
    assert_ne!(one.run_id(), other.run_id());
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_lab_cleans_up() {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 2);
    let dir = lab.dir().to_path_buf();
    let servers = || {
        let here = dir.to_string_lossy();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|process| std::fs::read_link(process.path().join("cwd")).ok());
        lines.filter(|cwd| cwd.to_string_lossy().starts_with(&*here)).count()
    };
    // A primary forks to give its replica all that it has.
    wait_for("both servers and no child of theirs", || (servers() == 2).then_some(()));
    drop(lab);
    assert_eq!(servers(), 0);
    assert!(!dir.exists());
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_stopped_host_is_silent() {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 2);
    let node = lab.node("my-cluster-002").at;
    let mut open = Redis::connect(&lab.network.nat, node).unwrap();
    lab.remove_node("my-cluster-002");
    let timeout = [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut];
    assert!(timeout.contains(&open.call(&["PING"]).unwrap_err().kind()));
    assert!(timeout.contains(&Redis::connect(&lab.network.nat, node).unwrap_err().kind()));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_redis_cluster_serves_all_slots() {
    let mut lab = Lab::new();
    lab.add_cluster("shards", 3);
    let ids: Vec<&str> = lab.nodes().map(|node| node.id.as_str()).collect();
    let expected = ["0001-001", "0001-002", "0002-001", "0002-002", "0003-001", "0003-002"];
    assert_eq!(ids, expected.map(|id| format!("shards-{id}")));
    for node in lab.nodes() {
        let info = node.redis().call(&["CLUSTER", "INFO"]).unwrap();
        assert!(info.contains("cluster_slots_assigned:16384"), "{info}");
        let role = if node.number == 1 { "master" } else { "slave" };
        assert_eq!(node.redis().info("role").unwrap(), role, "{}", node.id);
    }
}

/// Looks up every endpoint and its address as cachenat does, but with other programs.
const ENDPOINTS: &str = r#"
import boto3, socket
for cluster in boto3.client("elasticache", "us-east-2").describe_cache_clusters(ShowCacheNodeInfo=True)["CacheClusters"]:
    for node in cluster["CacheNodes"]:
        endpoint = node["Endpoint"]
        print("%s:%d" % (socket.gethostbyname(endpoint["Address"]), endpoint["Port"]))
"#;

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn api_and_dns_lead_to_every_node() {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 3);
    lab.add_memcached("sessions", 3);
    let endpoints = |lab: &Lab| run(lab.operator_command(programs::python()).args(["-c", ENDPOINTS]));
    let nodes = |lab: &Lab| lab.nodes().map(|node| format!("{}\n", node.at)).collect::<String>();
    assert_eq!(endpoints(&lab), nodes(&lab));

    lab.remove_node("my-cluster-002");
    lab.remove_node("sessions-0001");
    lab.replace_node("my-cluster-003");
    lab.add_node("sessions");
    assert_eq!(endpoints(&lab), nodes(&lab));
    assert_eq!(lab.nodes().count(), 5);
}

//! boto3 reads the same data from the fake as its scenario has, and as discovery reads.

use std::{path::Path, process::Command};

use cachenat_tests::{
    fake_aws::{
        Scenario,
        shapes::{self, Group},
    },
    programs,
};
use discovery::{Inventory, Source};
use serde_json::{Value, json};

use crate::setup::{Setup, block_on, cache_cluster, owned, replication_group, serverless_cache};

/// One of each kind, on several pages.
fn account() -> Scenario {
    let mut scenario = Scenario {
        cache_clusters: vec![shapes::memcached("sessions", 3), shapes::standalone("legacy")],
        serverless_caches: vec![shapes::serverless("carts")],
        imds: Some(owned(&[("placement/availability-zone/", "us-east-2a")])),
        page_size: Some(2),
        ..Scenario::default()
    };
    let tls = Group { tls: true, engine: "valkey".into(), ..Group::sharded("sharded", 2, 2) };
    let plain = Group { network: "dual_stack".into(), ..Group::new("my-cluster", 3) };
    for group in [&plain, &tls] {
        group.add_to(&mut scenario);
        scenario.tags.insert(group.arn(), owned(&[("Environment", "dev & <test>"), ("Team", "")]));
    }
    scenario
}

fn boto3_reads(url: &str) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("boto3_reads.py");
    let read = Command::new(programs::python()).arg(script).arg(url).output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    serde_json::from_slice(&read.stdout).unwrap()
}

#[test]
fn boto3_reads_the_fakes_scenario() {
    let told = account();
    let read = boto3_reads(&Setup::new(told.clone()).aws.url());
    assert_eq!(read["replication_groups"], json!(told.replication_groups));
    assert_eq!(read["cache_clusters"], json!(told.cache_clusters));
    assert_eq!(read["serverless_caches"], json!(told.serverless_caches));
    assert_eq!(read["tags"], json!(told.tags));
    assert_eq!(read["region"], json!("us-east-2"));
    let missing = [
        "ReplicationGroupNotFoundFault",
        "CacheClusterNotFound",
        "ServerlessCacheNotFoundFault",
        "CacheClusterNotFound",
    ];
    assert_eq!(read["missing"], json!(missing));
}

#[test]
fn boto3_and_discovery_agree() {
    let setup = Setup::new(account());
    let sources: [Source; 5] = [
        replication_group("my-cluster"),
        replication_group("sharded"),
        cache_cluster("sessions"),
        cache_cluster("legacy"),
        serverless_cache("carts"),
    ];
    let found: Inventory = block_on(discovery::list(&sources, &setup.options()));
    let written: Value = serde_json::from_str(&found.to_json()).unwrap();
    let keys = ["id", "cluster", "shard", "role", "engine", "tls", "host", "port"];
    let mut ours: Vec<Value> =
        written["nodes"].as_array().unwrap().iter().map(|node| only(node, &keys)).collect();
    ours.sort_by_key(|node| node["id"].as_str().unwrap().to_owned());
    assert_eq!(boto3_reads(&setup.aws.url())["nodes"], json!(ours));
    assert_eq!(ours.len(), 3 + 4 + 3 + 1 + 2);
}

fn only(node: &Value, keys: &[&str]) -> Value {
    keys.iter().map(|key| ((*key).to_owned(), node[*key].clone())).collect::<serde_json::Map<_, _>>().into()
}

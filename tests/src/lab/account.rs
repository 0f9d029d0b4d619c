//! The answers of the API and DNS about the lab's caches.

use std::net::IpAddr;

use serde_json::Value;

use super::cache::{Cache, Kind, Node};
use crate::fake_aws::{Scenario, shapes};
use crate::fake_dns::{Answer, FakeDns};

/// The account as the ElastiCache API describes it.
pub(super) fn describe(caches: &[Cache]) -> Scenario {
    let mut scenario = Scenario::default();
    for cache in caches {
        let last = cache.nodes.iter().map(|node| usize::from(node.number)).max().unwrap_or(0);
        let shards = cache.nodes.iter().map(|node| usize::from(node.shard)).max().unwrap_or(0);
        match cache.kind {
            Kind::ReplicationGroup => shapes::Group::new(&cache.name, last).add_to(&mut scenario),
            Kind::Cluster | Kind::TlsCluster => {
                let tls = cache.kind == Kind::TlsCluster;
                let group = shapes::Group::sharded(&cache.name, shards, last);
                shapes::Group { tls, ..group }.add_to(&mut scenario);
            }
            Kind::Memcached => scenario.cache_clusters.push(shapes::memcached(&cache.name, last)),
        }
    }
    leave_out_removed(&mut scenario, caches);
    scenario
}

/// The shapes number nodes without a gap; a removed node leaves one.
fn leave_out_removed(scenario: &mut Scenario, caches: &[Cache]) {
    let exists = |id: &str| caches.iter().flat_map(|cache| &cache.nodes).any(|node| node.id == id);
    let is = |value: &Value, key: &str| value[key].as_str().is_some_and(exists);
    for group in &mut scenario.replication_groups {
        retain(&mut group["MemberClusters"], |member| member.as_str().is_some_and(exists));
        for shard in group["NodeGroups"].as_array_mut().into_iter().flatten() {
            retain(&mut shard["NodeGroupMembers"], |member| is(member, "CacheClusterId"));
        }
    }
    let of_group = |cluster: &Value| cluster.get("ReplicationGroupId").is_some();
    scenario.cache_clusters.retain(|cluster| !of_group(cluster) || is(cluster, "CacheClusterId"));
    for cluster in scenario.cache_clusters.iter_mut().filter(|cluster| !of_group(cluster)) {
        let name = cluster["CacheClusterId"].as_str().unwrap_or_default().to_owned();
        let id = |node: &Value| format!("{name}-{}", node["CacheNodeId"].as_str().unwrap_or_default());
        retain(&mut cluster["CacheNodes"], |node| exists(&id(node)));
        cluster["NumCacheNodes"] = cluster["CacheNodes"].as_array().map_or(0, Vec::len).into();
    }
}

fn retain(list: &mut Value, keep: impl Fn(&Value) -> bool) {
    list.as_array_mut().expect("the shapes have a list here").retain(keep);
}

/// Points every name of the caches to its current address.
pub(super) fn name(caches: &[Cache], dns: &FakeDns) {
    for cache in caches {
        for node in &cache.nodes {
            dns.set(&node.dns_name, Answer::Addresses(vec![IpAddr::V4(*node.at.ip())]));
        }
        if let (Kind::ReplicationGroup, [primary, ..]) = (cache.kind, cache.nodes.as_slice()) {
            name_roles(cache, dns, &primary.id);
        }
    }
}

/// Points the names of the roles of a replication group at this primary and at all others.
pub(super) fn name_roles(cache: &Cache, dns: &FakeDns, primary: &str) {
    let group = shapes::Group::new(&cache.name, cache.nodes.len());
    let (primaries, replicas): (Vec<&Node>, Vec<&Node>) =
        cache.nodes.iter().partition(|node| node.id == primary);
    let addresses = |nodes: Vec<&Node>| nodes.iter().map(|node| IpAddr::V4(*node.at.ip())).collect();
    dns.set(&group.primary(), Answer::Addresses(addresses(primaries)));
    dns.set(&group.reader(), Answer::Addresses(addresses(replicas)));
}

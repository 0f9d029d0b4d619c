//! Caches as AWS describes them, with the names that AWS would give their endpoints.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Scenario;

const ZONE: &str = "use2.cache.amazonaws.com";
/// The subnet group of every cluster.
const SUBNET_GROUP: &str = "private";
const ACCOUNT: &str = "arn:aws:elasticache:us-east-2:123456789012";

/// A replication group and its member clusters.
#[derive(Clone, Debug)]
pub struct Group {
    /// `ReplicationGroupId`.
    pub id: String,
    /// Zero: cluster mode disabled, which has one node group all the same.
    pub shards: usize,
    /// Nodes per shard: the primary and its replicas.
    pub nodes: usize,
    /// `redis` or `valkey`.
    pub engine: String,
    /// In-transit encryption. It changes the names.
    pub tls: bool,
    /// `ipv4`, `ipv6` or `dual_stack`.
    pub network: String,
}

impl Group {
    /// Cluster mode disabled: a primary and replicas.
    pub fn new(id: &str, nodes: usize) -> Self {
        let (engine, network) = ("redis".to_owned(), "ipv4".to_owned());
        Self { id: id.to_owned(), shards: 0, nodes, engine, tls: false, network }
    }

    /// Cluster mode enabled.
    pub fn sharded(id: &str, shards: usize, nodes: usize) -> Self {
        Self { shards, ..Self::new(id, nodes) }
    }

    /// The member clusters' ids, shard by shard.
    pub fn members(&self) -> Vec<(String, String)> {
        let shards = 1..=self.shards.max(1);
        let member = |shard: usize, node: usize| match self.shards {
            0 => format!("{}-{node:03}", self.id),
            _ => format!("{}-{shard:04}-{node:03}", self.id),
        };
        shards
            .flat_map(|s| (1..=self.nodes).map(move |n| (s, n)))
            .map(|(s, n)| (format!("{s:04}"), member(s, n)))
            .collect()
    }

    /// A member's name.
    pub fn host(&self, member: &str) -> String {
        match self.tls && self.shards > 0 {
            true => format!("{member}.{}.abc123.{ZONE}", self.id),
            false => format!("{member}.abc123.0001.{ZONE}"),
        }
    }

    /// The primary's name.
    pub fn primary(&self) -> String {
        format!("{}.abc123.ng.0001.{ZONE}", self.id)
    }

    /// The reader's name.
    pub fn reader(&self) -> String {
        format!("{}-ro.abc123.ng.0001.{ZONE}", self.id)
    }

    /// The configuration endpoint's name, with shards.
    pub fn configuration(&self) -> String {
        format!("{}.abc123.clustercfg.{ZONE}", self.id)
    }

    /// `ARN`.
    pub fn arn(&self) -> String {
        format!("{ACCOUNT}:replicationgroup:{}", self.id)
    }

    /// Puts the group and its members into a scenario.
    pub fn add_to(&self, scenario: &mut Scenario) {
        scenario.replication_groups.push(self.describe());
        scenario.cache_clusters.extend(self.members().iter().map(|(_, member)| self.describe_member(member)));
    }

    fn describe(&self) -> Value {
        let members = self.members();
        let mut group = json!({
            "ReplicationGroupId": self.id,
            "Description": "an <example> & more",
            "Status": "available",
            "MemberClusters": members.iter().map(|(_, member)| member).collect::<Vec<_>>(),
            "NodeGroups": (1..=self.shards.max(1)).map(|shard| self.describe_shard(shard)).collect::<Vec<_>>(),
            "AutomaticFailover": "enabled",
            "ClusterEnabled": self.shards > 0,
            "ClusterMode": if self.shards > 0 { "enabled" } else { "disabled" },
            "TransitEncryptionEnabled": self.tls,
            "AtRestEncryptionEnabled": true,
            "ARN": self.arn(),
            "NetworkType": self.network,
            "Engine": self.engine,
        });
        if self.shards > 0 {
            group["ConfigurationEndpoint"] = endpoint(&self.configuration(), 6379);
        }
        group
    }

    fn describe_shard(&self, shard: usize) -> Value {
        let name = format!("{shard:04}");
        let members = self.members().into_iter().filter(|(of, _)| *of == name);
        let member = |(index, (_, id)): (usize, (String, String))| match self.shards {
            0 => json!({
                "CacheClusterId": id,
                "CacheNodeId": "0001",
                "ReadEndpoint": endpoint(&self.host(&id), 6379),
                "CurrentRole": if index == 0 { "primary" } else { "replica" },
            }),
            _ => json!({"CacheClusterId": id, "CacheNodeId": "0001"}),
        };
        let members: Vec<Value> = members.enumerate().map(member).collect();
        let mut group = json!({"NodeGroupId": name, "Status": "available", "NodeGroupMembers": members});
        match self.shards {
            0 => {
                group["PrimaryEndpoint"] = endpoint(&self.primary(), 6379);
                group["ReaderEndpoint"] = endpoint(&self.reader(), 6379);
            }
            shards => {
                let slot = |shard: usize| 16384 * shard / shards;
                group["Slots"] = json!(format!("{}-{}", slot(shard - 1), slot(shard) - 1));
            }
        }
        group
    }

    fn describe_member(&self, member: &str) -> Value {
        json!({
            "CacheClusterId": member,
            "ReplicationGroupId": self.id,
            "Engine": self.engine,
            "EngineVersion": "7.1.0",
            "CacheClusterStatus": "available",
            "CacheSubnetGroupName": SUBNET_GROUP,
            "NumCacheNodes": 1,
            "CacheNodes": [{
                "CacheNodeId": "0001",
                "CacheNodeStatus": "available",
                "Endpoint": endpoint(&self.host(member), 6379),
            }],
            "TransitEncryptionEnabled": self.tls,
            "ARN": format!("{ACCOUNT}:cluster:{member}"),
            "NetworkType": self.network,
        })
    }
}

/// A Memcached cluster.
pub fn memcached(id: &str, nodes: usize) -> Value {
    let node = |node: usize| {
        json!({
            "CacheNodeId": format!("{node:04}"),
            "CacheNodeStatus": "available",
            "Endpoint": endpoint(&memcached_host(id, node), 11211),
        })
    };
    json!({
        "CacheClusterId": id,
        "ConfigurationEndpoint": endpoint(&format!("{id}.abc123.cfg.{ZONE}"), 11211),
        "Engine": "memcached",
        "EngineVersion": "1.6.22",
        "CacheClusterStatus": "available",
        "CacheSubnetGroupName": SUBNET_GROUP,
        "NumCacheNodes": nodes,
        "CacheNodes": (1..=nodes).map(node).collect::<Vec<_>>(),
        "TransitEncryptionEnabled": false,
        "ARN": format!("{ACCOUNT}:cluster:{id}"),
        "NetworkType": "ipv4",
    })
}

/// The name of a Memcached node, from 1.
pub fn memcached_host(id: &str, node: usize) -> String {
    format!("{id}.abc123.{node:04}.{ZONE}")
}

/// A standalone Redis: one node, no group.
pub fn standalone(id: &str) -> Value {
    json!({
        "CacheClusterId": id,
        "Engine": "redis",
        "CacheClusterStatus": "available",
        "CacheSubnetGroupName": SUBNET_GROUP,
        "NumCacheNodes": 1,
        "CacheNodes": [{
            "CacheNodeId": "0001",
            "CacheNodeStatus": "available",
            "Endpoint": endpoint(&standalone_host(id), 6379),
        }],
        "TransitEncryptionEnabled": false,
        "ARN": format!("{ACCOUNT}:cluster:{id}"),
        "NetworkType": "ipv4",
    })
}

/// The subnet group that clusters are in.
pub fn subnet_group(vpc: &str, subnet: &str) -> Value {
    json!({
        "CacheSubnetGroupName": SUBNET_GROUP,
        "VpcId": vpc,
        "Subnets": [{"SubnetIdentifier": subnet}],
    })
}

/// The IMDS of the instance in AWS's example: 10.0.0.55 in `vpc-0example`, with its Elastic IP.
pub fn instance(subnet: &str) -> BTreeMap<String, String> {
    let mac = "02:00:00:00:00:01";
    let of_interface = [
        ("local-ipv4s", "10.0.0.55"),
        ("public-ipv4s", "203.0.113.73"),
        ("vpc-id", "vpc-0example"),
        ("subnet-id", subnet),
        ("vpc-ipv4-cidr-blocks", "10.0.0.0/16"),
    ];
    let of_interface =
        of_interface.map(|(leaf, fact)| (format!("network/interfaces/macs/{mac}/{leaf}"), fact.to_owned()));
    let facts = [("mac", mac), ("local-ipv4", "10.0.0.55"), ("public-ipv4", "203.0.113.73")];
    facts.map(|(path, fact)| (path.to_owned(), fact.to_owned())).into_iter().chain(of_interface).collect()
}

/// The name of a standalone node.
pub fn standalone_host(id: &str) -> String {
    format!("{id}.abc123.0001.{ZONE}")
}

/// A serverless cache, its status in capitals as that API has it.
pub fn serverless(name: &str) -> Value {
    json!({
        "ServerlessCacheName": name,
        "Status": "AVAILABLE",
        "Engine": "valkey",
        "MajorEngineVersion": "8",
        "Endpoint": endpoint(&serverless_host(name), 6379),
        "ReaderEndpoint": endpoint(&serverless_host(name), 6380),
        "ARN": format!("{ACCOUNT}:serverlesscache:{name}"),
        "SecurityGroupIds": ["sg-0example"],
        "SubnetIds": ["subnet-0example", "subnet-1example"],
    })
}

/// The name of a serverless cache; both endpoints have it.
pub fn serverless_host(name: &str) -> String {
    format!("{name}-abc123.serverless.{ZONE}")
}

/// An `Endpoint`.
pub fn endpoint(address: &str, port: u16) -> Value {
    json!({"Address": address, "Port": port})
}

//! Libraries that no registry within reach carries: the emitted text is compiled by the language's own compiler
//! against stubs of the library's interface, and its map is asked for every address.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use cachenat_tests::lab::shell::run;
use cachenat_tests::programs;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::compiled;

/// What the gateway knows of AWS's example and of a Redis Cluster of two shards: no node of theirs is there.
struct Known(TempDir);

impl Known {
    fn new(tls: bool) -> Self {
        let node = |id: String, cluster: &str, shard: &str, role: Option<&str>, at: u8, tls: bool| {
            json!({
                "id": id, "cluster": cluster, "source": format!("replication_group/{cluster}"), "shard": shard,
                "role": role, "host": format!("{id}.abc.use2.cache.amazonaws.com"), "port": 6379, "tls": tls,
                "addresses": [format!("10.0.1.{at}")],
            })
        };
        let nodes: Vec<Value> = vec![
            node("my-cluster-001".into(), "my-cluster", "0001", Some("primary"), 230, false),
            node("my-cluster-002".into(), "my-cluster", "0001", Some("replica"), 231, false),
            node("shards-0001-001".into(), "shards", "0001", None, 240, tls),
            node("shards-0001-002".into(), "shards", "0001", None, 241, tls),
            node("shards-0002-001".into(), "shards", "0002", None, 242, tls),
            node("shards-0002-002".into(), "shards", "0002", None, 243, tls),
        ];
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("inventory.json"), json!({"version": 1, "nodes": nodes}).to_string())
            .unwrap();
        let config = format!(
            "clients: [198.51.100.27/32]\n\
             gateway: {{interface: lo, addresses: [10.0.0.55], public_address: 203.0.113.73}}\n\
             state_dir: {}\nsources:\n  - replication_group: my-cluster\n  - replication_group: shards\n",
            dir.path().join("state").display()
        );
        fs::write(dir.path().join("config.yaml"), config).unwrap();
        Self(dir)
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }

    fn endpoints(&self, format: &str) -> String {
        let mut command = Command::new(programs::cachenat());
        command.current_dir(self.dir()).env("AWS_EC2_METADATA_DISABLED", "true");
        command.args(["--config", "config.yaml", "--inventory", "inventory.json"]);
        run(command.args(["endpoints", "--format", format]))
    }

    /// What the cluster calls its nodes, and where a client is to connect for each: by the node's name where the
    /// library verifies the name that it dials.
    fn shards(&self, by_name: bool) -> Vec<(String, u64, String)> {
        let json: Value = serde_json::from_str(&self.endpoints("json")).unwrap();
        let mut shards = Vec::new();
        for endpoint in json["endpoints"].as_array().unwrap().iter().filter(|one| one["cluster"] == "shards")
        {
            let text = |key: &str| endpoint[key].as_str().unwrap().to_owned();
            let to = if by_name && endpoint["tls"] == true { text("host") } else { text("public_host") };
            let outside = format!("{to} {}", endpoint["public_port"]);
            let address = endpoint["private_addresses"][0].as_str().unwrap().to_owned();
            let port = endpoint["port"].as_u64().unwrap();
            shards.extend([(address, port, outside.clone()), (text("host"), port, outside)]);
        }
        shards
    }

    /// Insists that `program` says the right address for each of the nodes' addresses and names, and for each of
    /// its seeds; and for the other cache the primary's and the replica's.
    fn connects_to_the_right_nodes(&self, program: &mut Command, by_name: bool) {
        let shards = self.shards(by_name);
        for (host, port, _) in &shards {
            program.args([host, &port.to_string()]);
        }
        let asked = shards.iter().map(|(.., outside)| outside.as_str());
        let is_name = |(host, ..): &&(String, u64, String)| host.parse::<IpAddr>().is_err();
        let seeds = shards.iter().filter(is_name).map(|(.., outside)| outside.as_str());
        let mut expected: Vec<&str> = asked.chain(seeds).collect();
        expected.extend(["203.0.113.73 6379", "203.0.113.73 6380"]);
        let printed = run(program);
        let mut printed: Vec<&str> = printed.lines().collect();
        // Java's sets have no order.
        expected[8..].sort_unstable();
        printed[8..].sort_unstable();
        assert_eq!(printed, expected);
    }
}

fn stubs(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/stubs").join(language)
}

fn java(format: &str, program: &str, by_name: bool) {
    for tls in [false, true] {
        let known = Known::new(tls);
        fs::write(known.dir().join("Caches.java"), known.endpoints(format)).unwrap();
        fs::write(known.dir().join("Main.java"), program).unwrap();
        let mut javac = Command::new("javac");
        javac.current_dir(known.dir()).args(["-Xlint:all", "-Werror", "-d", "classes", "-sourcepath"]);
        run(javac.arg(stubs("java").join(format)).args(["-implicit:class", "Caches.java", "Main.java"]));
        let mut java = Command::new("java");
        java.args(["-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", "classes", "Main"]);
        known.connects_to_the_right_nodes(java.current_dir(known.dir()), by_name);
    }
}

#[test]
fn jedis_code_compiles_and_maps_every_address() {
    java("jedis", include_str!("programs/Jedis.java"), true);
}

#[test]
fn lettuce_code_compiles_and_maps_every_address() {
    java("lettuce", include_str!("programs/Lettuce.java"), false);
}

#[test]
fn redisson_code_compiles_and_maps_every_address() {
    java("redisson", include_str!("programs/Redisson.java"), true);
}

#[test]
fn stackexchange_redis_code_compiles_and_maps_every_address() {
    for tls in [false, true] {
        let known = Known::new(tls);
        fs::write(known.dir().join("Caches.cs"), known.endpoints("stackexchange")).unwrap();
        fs::write(known.dir().join("Program.cs"), include_str!("programs/StackExchange.cs")).unwrap();
        let mut mcs = Command::new("mcs");
        mcs.current_dir(known.dir()).args(["-warnaserror", "-out:program.exe", "Caches.cs", "Program.cs"]);
        run(mcs.arg(stubs("csharp").join("StackExchangeRedis.cs")));
        let mut mono = Command::new("mono");
        known.connects_to_the_right_nodes(mono.current_dir(known.dir()).arg("program.exe"), false);
    }
}

/// The hiredis of Debian 12 has no TLS, so the text for it is only compiled.
#[test]
fn hiredis_tls_code_is_valid_c() {
    let known = Known::new(true);
    fs::write(known.dir().join("caches.c"), known.endpoints("hiredis")).unwrap();
    let mut cc = Command::new("cc");
    cc.current_dir(known.dir()).args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I"]);
    run(cc.arg(stubs("c")).arg("caches.c"));
}

/// The client's host is not there, so nothing is dialled; `cluster.rs` runs it.
#[test]
fn go_redis_code_for_several_caches_compiles() {
    let known = Known::new(true);
    compiled::go(known.dir(), &known.endpoints("go-redis"), include_str!("programs/go_redis.go"));
}

//! A gateway with an address for each node: clients need only the hosts file.

use std::net::Ipv4Addr;

use cachenat_tests::fake_aws::shapes;
use cachenat_tests::lab::shell::run_with_input;
use cachenat_tests::lab::{GATEWAY, Lab, PUBLIC, tls};

use crate::program::{Language, Library, Running, on_the_client};

/// As many as the cluster has nodes.
const ADDRESSES: u8 = 6;

/// An unmodified program, as it would run inside the VPC.
const STOCK: &str = r#"
import redis

shards_cache = redis.cluster.RedisCluster(host="HOST", port=6379, ssl=True, ssl_check_hostname=True)
"#;

const REDIS_PY: Library =
    Library { language: Language::Python, format: "stock", program: &[include_str!("programs/redis_py.py")] };

/// The NAT instance's addresses and their Elastic IPs.
fn addresses() -> impl Iterator<Item = (Ipv4Addr, Ipv4Addr)> {
    let next = |address: Ipv4Addr, at: u8| Ipv4Addr::from_bits(address.to_bits() + u32::from(at));
    (0..ADDRESSES).map(move |at| (next(GATEWAY, at), next(PUBLIC, at)))
}

/// A Redis Cluster with TLS and a Memcached cluster behind addresses of their own.
fn applied() -> Lab {
    let mut lab = Lab::new();
    lab.add_tls_cluster("shards", 3);
    lab.add_memcached("sessions", 2);
    addresses().skip(1).for_each(|(private, public)| lab.network.add_elastic_ip(private, public));
    let private: Vec<String> = addresses().map(|(private, _)| private.to_string()).collect();
    let each: Vec<String> = addresses().map(|(private, public)| format!("{private}: {public}")).collect();
    let gateway = format!("addresses: [{}], public_address: {{{}}}", private.join(", "), each.join(", "));
    lab.write_config(&lab.plain_config().replace(&format!("public_address: {PUBLIC}"), &gateway));
    lab.cachenat(&["apply"]).exits(0);
    lab
}

fn name(lab: &Lab, id: &str) -> String {
    lab.node(id).dns_name.trim_end_matches('.').to_owned()
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn every_node_keeps_its_port_on_its_address() {
    let mut lab = applied();
    let place = |lab: &Lab, id: &str| {
        let json = lab.cachenat(&["endpoints", "--format", "json"]).exits(0).json();
        let endpoints = json["endpoints"].as_array().unwrap().clone();
        let of = endpoints.into_iter().find(|endpoint| endpoint["id"] == id).unwrap();
        format!("{}:{}", of["public_host"].as_str().unwrap(), of["public_port"])
    };
    assert_eq!(place(&lab, "shards-0001-001"), "203.0.113.73:6379");
    assert_eq!(place(&lab, "shards-0003-002"), "203.0.113.78:6379");
    // Another port may be on the same address.
    assert_eq!(place(&lab, "sessions-0002"), "203.0.113.74:11211");

    lab.replace_cluster_node("shards-0002-001");
    let run = lab.cachenat(&["apply"]).exits(0);
    assert_eq!(run.stdout, "move shards-0002-001 10.0.0.57:6379 from 10.0.1.232:6379 to 10.0.1.238:6379\n");
    assert_eq!(place(&lab, "shards-0002-001"), "203.0.113.75:6379");
    let leases = lab.cachenat(&["leases"]).exits(0).stdout;
    assert!(leases.contains("10.0.0.57:6379"), "{leases}");
    let hosts = lab.cachenat(&["endpoints", "--format", "hosts"]).exits(0).stdout;
    assert!(hosts.contains(&format!("203.0.113.75 {}\n", name(&lab, "shards-0002-001"))), "{hosts}");
    assert!(!hosts.contains("needs its map"), "{hosts}");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn stock_redis_cli_follows_tls_cluster_names() {
    let lab = applied();
    let host = shapes::Group::sharded("shards", 3, 2).configuration();
    let authority = tls::authority(lab.dir());
    let say = |line: &dyn Fn(u16) -> String| {
        let mut command = on_the_client(&lab);
        command.args(["timeout", "60", "redis-cli", "-c", "--tls", "-h", &host, "--cacert"]).arg(&authority);
        run_with_input(&mut command, &(0..300).map(line).collect::<String>())
    };
    let written = say(&|key| format!("set key:{key} value:{key}\n"));
    assert_eq!(written.lines().filter(|line| *line == "OK").count(), 300, "{written}");
    let read = say(&|key| format!("get key:{key}\n"));
    assert_eq!(read.lines().filter(|line| line.contains("value:")).count(), 300, "{read}");
    for master in ["shards-0001-001", "shards-0002-001", "shards-0003-001"] {
        let asked = lab.node(master).redis().call(&["INFO", "commandstats"]).unwrap();
        assert!(asked.contains("cmdstat_set:"), "{master} was not written to");
    }
}

/// The library's own way of following a cluster, with every certificate verified by its node's name.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_stock_program_survives_failover_and_node_replacement() {
    let mut lab = applied();
    let host = shapes::Group::sharded("shards", 3, 2).configuration();
    let mut program = Running::start_from(&lab, &REDIS_PY, &STOCK.replace("HOST", &host), "running", 20);
    program.says("before");
    lab.replace_cluster_node("shards-0001-001");
    lab.cachenat(&["apply"]).exits(0);
    program.go_on();
    program.says("after");
    program.ends();
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn too_few_addresses_are_refused_with_a_remedy() {
    let mut lab = applied();
    let before = lab.network.nat.nft_list("table inet cachenat");
    lab.add_replication_group("my-cluster", 2);
    let config = std::fs::read_to_string(lab.config()).unwrap();
    let gateway = "addresses: [10.0.0.55, 10.0.0.56], \
                   public_address: {10.0.0.55: 203.0.113.73, 10.0.0.56: 203.0.113.74}";
    std::fs::write(lab.config(), config.replace(&format!("public_address: {PUBLIC}"), gateway)).unwrap();
    let run = lab.cachenat(&["apply"]).exits(2);
    let all = ["error: no free port for ", "port 6379 on the 2 gateway.addresses", "widen gateway.addresses"];
    assert!(all.iter().all(|words| run.stderr.contains(words)), "{}", run.stderr);
    assert_eq!(lab.network.nat.nft_list("table inet cachenat"), before);
}

/// Clients already use the service on the instance; a forward would make it unreachable.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_local_listener_excludes_only_its_node() {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 2);
    lab.network.add_elastic_ip([10, 0, 0, 56].into(), [203, 0, 113, 74].into());
    let gateway = "addresses: [10.0.0.55, 10.0.0.56]";
    lab.write_config(&lab.plain_config().replace(&format!("public_address: {PUBLIC}"), gateway));
    let _service = lab.network.nat.enter(|| std::net::TcpListener::bind("10.0.0.56:6379").unwrap());
    let run = lab.cachenat(&["apply"]).exits(3);
    let words = ["no free port for my-cluster-002", "other programs listen on 1", "it is not forwarded"];
    assert!(words.iter().all(|words| run.stderr.contains(words)), "{}", run.stderr);
    let table = lab.network.nat.nft_list("table inet cachenat");
    assert!(table.contains("10.0.0.55 . 6379") && !table.contains("10.0.0.56 . 6379"), "{table}");
}

//! Clients that come through an encrypted tunnel.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use cachenat_tests::lab::namespace::Namespace;
use cachenat_tests::lab::redis::Redis;
use cachenat_tests::lab::server::Elsewhere;
use cachenat_tests::lab::shell::run;
use cachenat_tests::lab::wireguard::{GATEWAY_IN_TUNNEL, Tunnels};
use cachenat_tests::lab::{GATEWAY, Lab};

use crate::common::{dial, in_force};

const PEER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const OTHER_PEER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 3);
const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 230);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 100);

/// A lab whose client and stranger are peers of the gateway; the client alone is listed.
fn with_tunnels(gateway: &str) -> (Lab, Tunnels) {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 2);
    let network = &lab.network;
    let peers = [(&network.client, PEER), (&network.stranger, OTHER_PEER)];
    let tunnels = Tunnels::start(&network.nat, lab.dir(), &peers);
    list(&lab, gateway, "10.99.0.2");
    (lab, tunnels)
}

fn list(lab: &Lab, gateway: &str, clients: &str) {
    let config = lab.plain_config().replace("clients: [198.51.100.27/32]", &format!("clients: [{clients}]"));
    lab.write_config(&config.replace("gateway: {", &format!("gateway: {{{gateway}, ")));
}

fn at(from: &Namespace, address: Ipv4Addr, port: u16) -> std::io::Result<Redis> {
    Redis::connect(from, SocketAddrV4::new(address, port))
}

#[track_caller]
fn node_of(from: &Namespace, address: Ipv4Addr, port: u16) -> String {
    at(from, address, port)
        .unwrap_or_else(|error| panic!("{address}:{port}: {error}"))
        .info("run_id")
        .unwrap()
}

const CONFINED: &str = "tunnels: [{interface: wg0}]";

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_peer_reaches_the_caches_and_nothing_else() {
    let (lab, _tunnels) = with_tunnels(CONFINED);
    let neighbour = Elsewhere::start(lab.network.private_host(NEIGHBOUR), lab.dir(), NEIGHBOUR);
    lab.cachenat(&["apply"]).exits(0);
    lab.cachenat(&["diff"]).exits(0);
    let (client, stranger) = (&lab.network.client, &lab.network.stranger);
    let nodes: Vec<String> = lab.nodes().map(|node| node.run_id()).collect();

    // By the gateway's private address, and by the nodes' own.
    assert_eq!(node_of(client, GATEWAY, 6379), nodes[0]);
    assert_eq!(node_of(client, GATEWAY, 6380), nodes[1]);
    assert_eq!(node_of(client, NODE, 6379), nodes[0]);
    let mut redis = at(client, NODE, 6379).unwrap();
    let large = "x".repeat(1_000_000);
    redis.call(&["SET", "large", &large]).unwrap();
    assert_eq!(redis.call(&["GET", "large"]).unwrap().len(), large.len());

    // Not another host of the VPC, another port of a node, or the gateway itself.
    assert!(at(client, NEIGHBOUR, 6379).is_err());
    assert!(at(client, NODE, 6380).is_err());
    assert!(at(client, GATEWAY_IN_TUNNEL, 6379).is_err());
    let mut ping = client.command("ping");
    assert!(!ping.args(["-c", "1", "-W", "1", "10.0.1.230"]).output().unwrap().status.success());
    // Not a peer that is not listed, nor the internet by the public address.
    assert!(at(stranger, NODE, 6379).is_err() && at(stranger, GATEWAY, 6379).is_err());
    assert!(dial(client, 6379).is_err(), "198.51.100.27 is not listed");
    // And nobody connects into the tunnel.
    let listener = client.enter(|| std::net::TcpListener::bind((PEER, 7000)).unwrap());
    neighbour.host.ip("route add 10.99.0.0/24 via 10.0.1.1");
    lab.network.vpc.ip("route add 10.99.0.0/24 via 10.0.0.55");
    assert!(neighbour.host.connect(SocketAddrV4::new(PEER, 7000)).is_err());
    drop(listener);

    // What the command prints is the example, and the lab's own client has it.
    let printed = lab.cachenat(&["endpoints", "--format", "wireguard"]).exits(0).stdout;
    assert_eq!(printed, include_str!("../../../examples/wireguard/client.conf"));

    let check = lab.cachenat(&["check"]).stdout;
    assert!(check.contains("the way back to the clients leads out by eth0"), "{check}");
    assert!(check.contains("tunnel wg0: tun; nothing but the caches is reached by it"), "{check}");
    let status = lab.cachenat(&["status", "--format", "json"]).exits(0).json();
    assert_eq!(status["listeners"][0]["routed"], 1, "{status}");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_stock_cluster_client_needs_no_map() {
    let mut lab = Lab::new();
    lab.add_cluster("shards", 3);
    let peers = [(&lab.network.client, PEER)];
    let _tunnels = Tunnels::start(&lab.network.nat, lab.dir(), &peers);
    list(&lab, CONFINED, "10.99.0.2");
    lab.cachenat(&["apply"]).exits(0);
    let mut masters = BTreeSet::new();
    for key in 0..30 {
        let mut redis_cli = lab.network.client.command("redis-cli");
        let key = format!("key-{key}");
        let said = run(redis_cli.args(["-c", "-h", "10.0.1.230", "set", &key, "x"]));
        assert_eq!(said.trim().lines().last(), Some("OK"), "{said}");
        let mut redis_cli = lab.network.client.command("redis-cli");
        masters.insert(
            run(redis_cli.args(["-h", "10.0.1.230", "cluster", "keyslot", &key]))
                .trim()
                .parse::<u16>()
                .unwrap()
                / 5462,
        );
    }
    assert_eq!(masters.len(), 3, "the keys are on all shards");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_firewall_that_passes_translated_packets_only_is_named() {
    let (lab, _tunnels) = with_tunnels(CONFINED);
    lab.network.nat.nft(
        "table inet filter {
            chain forward {
                type filter hook forward priority filter; policy drop;
                ct status dnat accept
            }
        }",
    );
    lab.cachenat(&["apply"]).exits(0);
    let client = &lab.network.client;
    assert!(at(client, GATEWAY, 6379).is_ok() && at(client, NODE, 6379).is_err());
    let check = lab.cachenat(&["check"]).exits(1).stdout;
    let words = "let packets of 'iifname wg0' and their answers pass there";
    assert!(
        check.contains("new connections from 10.99.0.2/32 to 10.0.1.230:6379") && check.contains(words),
        "{check}"
    );
    lab.network.nat.nft(
        "add rule inet filter forward iifname wg0 accept
         add rule inet filter forward ct state established,related accept",
    );
    assert!(at(client, NODE, 6379).is_ok());
    let check = lab.cachenat(&["check"]).stdout;
    assert!(check.contains("no chain of others stops what is forwarded"), "{check}");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_peer_that_is_no_longer_listed_is_cut() {
    let (lab, _tunnels) = with_tunnels(CONFINED);
    lab.cachenat(&["apply"]).exits(0);
    let client = &lab.network.client;
    let mut routed = at(client, NODE, 6379).unwrap();
    let mut translated = at(client, GATEWAY, 6380).unwrap();
    list(&lab, CONFINED, "10.99.0.3");
    let run = lab.cachenat(&["apply"]).exits(0);
    assert!(run.stderr.contains("cut 2 connections of clients that are no longer listed"), "{}", run.stderr);
    assert!(routed.call(&["PING"]).is_err() && translated.call(&["PING"]).is_err());
    assert!(at(&lab.network.stranger, NODE, 6379).is_ok());
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_unconfined_tunnel_is_warned_of() {
    let (lab, _tunnels) = with_tunnels("tunnels: [{interface: wg0, confine: false}]");
    let _neighbour = Elsewhere::start(lab.network.private_host(NEIGHBOUR), lab.dir(), NEIGHBOUR);
    lab.cachenat(&["apply"]).exits(0);
    assert!(at(&lab.network.client, NODE, 6379).is_ok());
    assert!(!in_force(&lab).contains("chain confine"));
    let check = lab.cachenat(&["check"]).exits(1).stdout;
    assert!(check.contains("confine is false: its peers reach every host and port"), "{check}");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn apply_does_not_confine_its_own_session() {
    let (lab, _tunnels) = with_tunnels(CONFINED);
    let mut command = lab.cachenat_command();
    command.env("SSH_CONNECTION", "10.99.0.2 50000 10.99.0.1 22");
    let run = cachenat_tests::lab::product::Run::from(command.arg("apply").output().unwrap()).exits(2);
    assert!(run.stderr.contains("your own SSH session comes in by wg0"), "{}", run.stderr);
    assert_eq!(in_force(&lab), "");
    let run = lab.cachenat(&["apply"]).exits(0);
    assert!(run.stdout.contains("add my-cluster-001") || run.stderr.contains("add my-cluster-001"));
    let mut command = lab.cachenat_command();
    command.env("SSH_CONNECTION", "10.99.0.2 50000 10.99.0.1 22");
    // What is confined already goes on.
    cachenat_tests::lab::product::Run::from(command.arg("apply").output().unwrap()).exits(0);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_tunnel_that_is_not_there_is_an_error() {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 1);
    list(&lab, CONFINED, "10.99.0.2");
    let run = lab.cachenat(&["apply"]).exits(2);
    let words = "gateway.tunnels: this host has no interface wg0";
    assert!(run.stderr.contains(words) && run.stderr.contains("bring it up first"), "{}", run.stderr);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_fixed_segment_size_survives_a_narrow_path() {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 1);
    // On the way to the client the path carries 1,400 bytes, and no ICMP says so.
    lab.network.igw.ip("link set internet mtu 1400");
    lab.network.igw.nft(
        "table ip narrow {
            chain silence {
                type filter hook output priority filter; policy accept;
                icmp type destination-unreachable drop
            }
        }",
    );
    let large = "x".repeat(200_000);
    let exchanged = |lab: &Lab| {
        let mut redis = dial(&lab.network.client, 6379).unwrap();
        redis.call(&["SET", "large", &large]).unwrap();
        redis.call(&["GET", "large"]).is_ok()
    };
    lab.cachenat(&["apply"]).exits(0);
    assert!(!exchanged(&lab), "the path is narrow");
    let config = lab.plain_config().replace("gateway: {", "gateway: {max_segment: 1360, ");
    lab.write_config(&config);
    lab.cachenat(&["apply"]).exits(0);
    lab.cachenat(&["diff"]).exits(0);
    assert!(exchanged(&lab));
}

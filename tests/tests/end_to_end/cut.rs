//! Open connections when the target of their port changes.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use cachenat_tests::fake_dns::Answer;
use cachenat_tests::lab::daemon::Daemon;
use cachenat_tests::lab::product::Run;
use cachenat_tests::lab::redis::Redis;
use cachenat_tests::lab::server::Elsewhere;
use cachenat_tests::lab::shell::run;
use cachenat_tests::lab::{CLIENT as ALLOWED, Lab};
use cachenat_tests::programs;

use crate::common::{applied, dial, open, reached, spell_out, static_config, target};
use crate::kill::killed_at;

/// Where `my-cluster-002` moves to while its former host lives on.
const MOVED: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 99);
/// A host on the internet.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 99);

/// Prints its server repeatedly. Its timeout is longer than any test, so a test can end only if its connection is closed.
const CLIENT: &str = r#"
import redis, time
from redis.backoff import NoBackoff
from redis.retry import Retry
client = redis.Redis(host="203.0.113.73", port=6380, socket_timeout=60, retry=Retry(NoBackoff(), 3))
while True:
    try:
        print(client.info("server")["run_id"], flush=True)
    except redis.ConnectionError as error:
        print("lost:", error, flush=True)
    time.sleep(0.05)
"#;

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_dead_nodes_connection_is_reset() {
    let lab = applied();
    let mut connection = open(&lab, 6380);
    connection.call(&["PING"]).unwrap();
    let moved = move_node(&lab);
    silence(&lab);
    let run = lab.cachenat(&["apply"]).exits(0);
    assert!(run.stderr.contains("cut 1 connections"), "{}", run.stderr);
    assert!(connection.call(&["PING"]).is_err(), "the old node is dead");
    assert_eq!(reached(&lab, 6380), moved.run_id());
}

/// The client's next packet gets the RST, and TCP backs off before each retry, so keep the outage short.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn redis_py_moves_to_the_new_node() {
    let lab = applied();
    let client = Daemon::start(lab.network.client.command(programs::python()).arg("-u").args(["-c", CLIENT]));
    client.says(&lab.node("my-cluster-002").run_id());
    let moved = move_node(&lab);
    let run_id = moved.run_id();
    silence(&lab);
    lab.cachenat(&["apply"]).exits(0);
    client.says(&run_id);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_moved_ports_connections_are_closed() {
    let (lab, _moved, mut connection) = moved("cut");
    assert!(connection.call(&["PING"]).is_err());
    assert_eq!(target(&lab, 6380).unwrap(), format!("{MOVED}:6379"));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn drain_keeps_existing_connections() {
    let former = |lab: &Lab| lab.node("my-cluster-002").run_id();
    let (lab, moved, mut connection) = moved("drain");
    assert_eq!(connection.info("run_id").unwrap(), former(&lab));
    assert_eq!(reached(&lab, 6380), moved.run_id(), "new connections go to the new node");
}

/// A flow belongs to a listener and a target: the old primary is still a node.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_failover_closes_only_primary_port_connections() {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 3);
    let exposed = "replication_group: my-cluster\n    expose: [nodes, primary]";
    lab.write_config(&lab.plain_config().replace("replication_group: my-cluster", exposed));
    let changes = lab.cachenat(&["apply", "--json"]).exits(0).json();
    let port = |id: &str| {
        let change = changes["changes"].as_array().unwrap().iter().find(|change| change["id"] == id).unwrap();
        change["listen"].as_str().unwrap().rsplit_once(':').unwrap().1.parse::<u16>().unwrap()
    };
    let primary = port("my-cluster/primary");
    let (mut to_primary, mut to_node) = (open(&lab, primary), open(&lab, port("my-cluster-001")));
    assert_eq!(to_primary.info("run_id").unwrap(), lab.node("my-cluster-001").run_id());
    to_node.call(&["PING"]).unwrap();
    let flow = flows(&lab, port("my-cluster-001"));

    lab.fail_over_to("my-cluster-002");
    lab.cachenat(&["apply"]).exits(0);
    assert!(to_primary.call(&["PING"]).is_err(), "a write would go to a replica");
    assert_eq!(to_node.info("run_id").unwrap(), lab.node("my-cluster-001").run_id());
    assert_eq!(flows(&lab, port("my-cluster-001")), flow);
    assert_eq!(reached(&lab, primary), lab.node("my-cluster-002").run_id());
}

/// Removing a client from the list ends its access, even with `on_move: drain`.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn only_a_delisted_clients_connections_are_closed() {
    for on_move in ["cut", "drain"] {
        let lab = applied();
        let config = |clients: &str| lab.plain_config().replace("198.51.100.27/32", clients);
        let other = lab.network.internet_host(OUTSIDE);
        lab.write_config(&config("198.51.100.27/32, 198.51.100.99/32"));
        lab.cachenat(&["apply"]).exits(0);
        let mut stays = open(&lab, 6379);
        let mut goes = dial(&other, 6379).unwrap();
        stays.call(&["PING"]).unwrap();
        goes.call(&["PING"]).unwrap();
        let flow = flows(&lab, 6379);

        lab.write_config(&format!("{}on_move: {on_move}\n", config("198.51.100.0/26")));
        let run = lab.cachenat(&["apply"]).exits(0);
        assert!(run.stderr.contains("cut 1 connections of clients"), "{}", run.stderr);
        assert!(goes.call(&["PING"]).is_err(), "{on_move}");
        stays.call(&["PING"]).unwrap();
        assert!(flows(&lab, 6379).is_subset(&flow), "the listed client's flow was made anew");
        assert_eq!(lab.cachenat(&["apply"]).exits(0).stderr, "");
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn remove_and_rollback_close_connections() {
    let lab = applied();
    let mut connection = open(&lab, 6379);
    connection.call(&["PING"]).unwrap();
    let run = lab.cachenat(&["remove"]).exits(0);
    assert!(run.stderr.contains("cut 1 connections"), "{}", run.stderr);
    assert!(connection.call(&["PING"]).is_err());

    let mut apply = Daemon::start(lab.cachenat_command().args(["apply", "--confirm", "5"]));
    apply.says("cachenat confirm");
    let mut connection = open(&lab, 6379);
    connection.call(&["PING"]).unwrap();
    assert_eq!(apply.end().code(), Some(2));
    assert!(connection.call(&["PING"]).is_err());
}

/// Wherever a run is killed, the next one closes the remaining connections.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn the_next_run_closes_a_killed_runs_connections() {
    let lab = spelled_out_server();
    let narrowed = static_config(NODES).replace("198.51.100.27/32", "198.51.100.28/32");
    let mut kills = 0;
    for when in 1..100 {
        spell_out(&lab, NODES);
        lab.cachenat(&["apply"]).exits(0);
        let mut connection = open(&lab, 6379);
        connection.call(&["PING"]).unwrap();
        lab.write_config(&narrowed);
        let was_killed = killed_at(&lab, "apply", "sendmsg", when);
        lab.cachenat(&["apply"]).exits(0);
        assert!(connection.call(&["PING"]).is_err(), "killed at message {when}");
        if !was_killed {
            break;
        }
        kills += 1;
    }
    assert!((5..99).contains(&kills), "{kills} kills: the calls have other names here");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_failed_close_exits_3_and_is_retried() {
    let lab = spelled_out_server();
    let narrowed = static_config(NODES).replace("198.51.100.27/32", "198.51.100.28/32");
    // The message that asks for the flows comes some time after the commit.
    let failed = |when: usize| {
        spell_out(&lab, NODES);
        lab.cachenat(&["apply"]).exits(0);
        let mut connection = open(&lab, 6379);
        connection.call(&["PING"]).unwrap();
        lab.write_config(&narrowed);
        let mut strace = lab.operator_command("strace");
        strace.args(["-qq", "-o", "/dev/null", "-e", "trace=sendmsg"]);
        strace.args(["-e", &format!("inject=sendmsg:error=EIO:when={when}")]);
        let run = Run::from(strace.arg(programs::cachenat()).arg("apply").output().unwrap());
        run.stderr.contains("were not cut").then_some((connection, run))
    };
    let (mut connection, run) = (1..100).find_map(failed).unwrap();
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert!(run.stderr.contains("the next run tries again"), "{}", run.stderr);

    let run = lab.cachenat(&["apply"]).exits(0);
    assert!(run.stderr.contains("cut 1 connections of clients"), "{}", run.stderr);
    assert!(connection.call(&["PING"]).is_err());
    assert_eq!(lab.cachenat(&["apply"]).exits(0).stderr, "");
}

const NODES: &[(u8, &str)] = &[(1, "10.0.1.230")];

/// A lab that spells out one node, which is there.
fn spelled_out_server() -> Lab {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 1);
    spell_out(&lab, NODES);
    lab
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn foreign_flows_to_a_removed_target_stay() {
    let lab = applied();
    lab.network.nat.nft(&format!(
        "table ip foreign {{
            chain in {{
                type nat hook prerouting priority dstnat;
                ip saddr {ALLOWED} tcp dport 7000 dnat to 10.0.1.231:6379
            }}
            chain out {{
                type nat hook postrouting priority srcnat;
                ip daddr 10.0.1.231 ct status dnat masquerade
            }}
        }}"
    ));
    let elsewhere = Elsewhere::start(lab.network.internet_host(OUTSIDE), lab.dir(), OUTSIDE);
    let mut foreign = open(&lab, 7000);
    foreign.call(&["PING"]).unwrap();
    let mut outbound = Redis::connect(&lab.node("my-cluster-002").host, elsewhere.at).unwrap();
    outbound.call(&["PING"]).unwrap();
    let mut other_port = open(&lab, 6379);
    other_port.call(&["PING"]).unwrap();

    let before: Vec<_> = [7000, 6379].map(|port| flows(&lab, port)).into();

    let moved = move_node(&lab);
    lab.cachenat(&["apply"]).exits(0);
    assert_eq!([7000, 6379].map(|port| flows(&lab, port)), before[..]);
    for connection in [&mut foreign, &mut outbound, &mut other_port] {
        assert_eq!(connection.call(&["PING"]).unwrap(), "PONG");
    }
    drop(moved);
}

/// A lab in which `my-cluster-002` has moved and its former host lives on, and a connection that led there before.
fn moved(on_move: &str) -> (Lab, Elsewhere, Redis) {
    let lab = applied();
    lab.write_config(&format!("{}on_move: {on_move}\n", lab.plain_config()));
    let mut connection = open(&lab, 6380);
    connection.call(&["PING"]).unwrap();
    let moved = move_node(&lab);
    lab.cachenat(&["apply"]).exits(0);
    (lab, moved, connection)
}

/// The ids of the flows to a port of the gateway, as conntrack(8) lists them. The next packet recreates a deleted flow
/// whose rule still exists; only its id differs.
fn flows(lab: &Lab, port: u16) -> BTreeSet<String> {
    let mut conntrack = lab.network.nat.command("conntrack");
    let list = run(conntrack.args(["-L", "-p", "tcp", "-o", "id", "--orig-port-dst", &port.to_string()]));
    let ids = list.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with("id=")));
    let ids: BTreeSet<String> = ids.map(str::to_owned).collect();
    assert!(!ids.is_empty(), "no flow to port {port}: {list}");
    ids
}

/// The former host dies silently.
fn silence(lab: &Lab) {
    lab.node("my-cluster-002").host.ip("link set eth0 down");
}

/// Another server takes the name of `my-cluster-002` over.
fn move_node(lab: &Lab) -> Elsewhere {
    let moved = Elsewhere::start(lab.network.private_host(MOVED), lab.dir(), MOVED);
    lab.answer_for("my-cluster-002", Answer::Addresses(vec![IpAddr::V4(MOVED)]));
    moved
}

//! Which clients reach which nodes.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4};

use cachenat_tests::lab::daemon::Daemon;
use cachenat_tests::lab::namespace::Namespace;
use cachenat_tests::lab::redis::Redis;
use cachenat_tests::lab::server::Elsewhere;
use cachenat_tests::lab::shell::run;
use cachenat_tests::lab::{Lab, PUBLIC};
use cachenat_tests::programs;
use nix::sys::signal::Signal;

use crate::common::{applied, dial, open, reached};

const APP: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 100);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 99);

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn each_port_reaches_only_its_node() {
    let lab = applied();
    let servers: Vec<String> = (6379..=6381).map(|port| reached(&lab, port)).collect();
    let nodes: Vec<String> = lab.nodes().map(|node| node.run_id()).collect();
    assert_eq!(servers, nodes);
    assert_eq!(BTreeSet::from_iter(&nodes).len(), 3);
    assert!(dial(&lab.network.client, 6382).is_err(), "no node has this port");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn memcached_ports_follow_the_previous_sources() {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 1);
    lab.add_memcached("sessions", 2);
    lab.cachenat(&["apply"]).exits(0);
    for (id, port) in [("sessions-0001", 6380), ("sessions-0002", 6381)] {
        let node = lab.node(id);
        let outside = memcached_pid(&lab.network.client, SocketAddrV4::new(PUBLIC, port));
        assert_eq!(outside, memcached_pid(&node.host, node.at), "{id}");
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_unlisted_client_reaches_no_port() {
    let lab = applied();
    for port in 6379..=6381 {
        assert!(dial(&lab.network.stranger, port).is_err(), "port {port}");
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_node_sees_the_gateway_as_the_source() {
    let lab = applied();
    for port in 6379..=6381 {
        assert_eq!(source(&mut open(&lab, port)), "10.0.0.55");
    }
}

/// From one address NAT has only so many ports to one node.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn several_snat_addresses_share_connections() {
    let lab = applied();
    lab.network.nat.ip("address add 10.0.0.56/24 dev eth0");
    lab.write_config(&lab.plain_config().replace("gateway: {", "gateway: {snat: [10.0.0.55, 10.0.0.56], "));
    lab.cachenat(&["apply"]).exits(0);
    // Forty tosses of a coin that are all alike come once in 5 * 10^11 times.
    let sources: BTreeSet<String> = (0..40).map(|_| source(&mut open(&lab, 6379))).collect();
    assert_eq!(sources, BTreeSet::from(["10.0.0.55".to_owned(), "10.0.0.56".to_owned()]));
    let _open = open(&lab, 6379);
    let check = lab.cachenat(&["check"]).stdout;
    assert!(check.contains("of 129024 connections that 2 gateway addresses can have to"), "{check}");
    lab.network.nat.ip("address del 10.0.0.56/24 dev eth0");
    let refused = lab.cachenat(&["apply"]).exits(2).stderr;
    assert!(refused.contains("gateway.snat: no interface of this host has 10.0.0.56"), "{refused}");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn transit_to_another_cache_is_not_redirected() {
    let (lab, app, elsewhere) = transit();
    // The allow-list has the app's subnet, so that nothing but the destination tells its traffic from a client's.
    let config = lab.plain_config().replace("clients: [", "clients: [10.0.1.0/24, ");
    lab.write_config(&config);
    lab.cachenat(&["apply"]).exits(0);
    let mut connection = Redis::connect(&app, elsewhere.at).unwrap();
    assert_eq!(connection.info("run_id").unwrap(), elsewhere.run_id());
    assert_eq!(source(&mut connection), PUBLIC.to_string(), "it went through the NAT instance");
}

/// If cachenat switches forwarding on, the host need not become a router for its neighbours.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn other_forwarded_traffic_can_be_dropped() {
    let (lab, app, elsewhere) = transit();
    let config = |others: &str| {
        let config = lab.plain_config();
        config.replace("gateway: {", &format!("gateway: {{forward_others: {others}, "))
    };
    let set = |others: &str| {
        lab.write_config(&config(others));
        lab.cachenat(&["apply"]).exits(0);
    };
    let said = |others: &str| {
        set(others);
        let check = lab.cachenat(&["check"]);
        let line = check.stdout.lines().find(|line| line.contains("other traffic"));
        line.unwrap_or_default().to_owned()
    };
    lab.cachenat(&["apply"]).exits(0);
    let check = lab.cachenat(&["check"]).stdout;
    assert!(check.contains("gateway.forward_others: false drops it"), "{check}");
    assert!(said("true").contains("as the configuration says"));
    let mut open_before = Redis::connect(&app, elsewhere.at).unwrap();
    open_before.call(&["PING"]).unwrap();

    assert!(said("false").contains("nothing is forwarded for others"));
    open_before.call(&["PING"]).unwrap();
    assert!(Redis::connect(&app, elsewhere.at).is_err(), "a neighbour's new connection");
    open(&lab, 6379).call(&["PING"]).unwrap();
    // What another table translates is that table's business.
    lab.network.nat.nft(
        "table ip other {
            chain in { type nat hook prerouting priority dstnat - 5; tcp dport 7000 dnat to 10.0.1.230:6379; }
            chain out { type nat hook postrouting priority srcnat - 5; ct status dnat masquerade; }
        }",
    );
    open(&lab, 7000).call(&["PING"]).unwrap();
    lab.cachenat(&["diff"]).exits(0);
    lab.network.nat.nft("delete table inet cachenat");
    lab.cachenat(&["restore"]).exits(0);
    assert!(Redis::connect(&app, elsewhere.at).is_err(), "after a boot");

    set("true");
    Redis::connect(&app, elsewhere.at).unwrap().call(&["PING"]).unwrap();
}

/// The control of the test above: without a match on the destination, the lab's traffic is hijacked.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn the_hand_typed_rules_redirect_transit() {
    let (lab, app, elsewhere) = transit();
    lab.network.nat.set_sysctl("net/ipv4/ip_forward", "1");
    lab.network.nat.nft(
        "table ip byhand {
            chain PREROUTING { type nat hook prerouting priority dstnat;
                iifname eth0 tcp dport 6379 dnat to 10.0.1.230:6379
            }
            chain POSTROUTING { type nat hook postrouting priority srcnat;
                oifname eth0 snat to 10.0.0.55
            }
        }",
    );
    let hijacked = Redis::connect(&app, elsewhere.at).unwrap().info("run_id").unwrap();
    assert_eq!(hijacked, lab.node("my-cluster-001").run_id());
}

/// A lab with an app in the private subnet, whose way to the internet is the NAT instance, and a Redis out there.
fn transit() -> (Lab, Namespace, Elsewhere) {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 1);
    let app = lab.network.private_host(APP);
    let elsewhere = Elsewhere::start(lab.network.internet_host(ELSEWHERE), lab.dir(), ELSEWHERE);
    (lab, app, elsewhere)
}

/// Sends a segment of a connection that is far outside of its window, from `from` to `to` on the gateway's wire: conntrack
/// calls it invalid, and translates it no more. `speak` has both sides say something before, so that the segment's other
/// numbers are right: a reset in answer to it is believed.
fn stray_segment(lab: &Lab, from: &str, to: &str, speak: impl FnOnce()) {
    let program = r#"
import signal, socket, struct, sys
spoken = []
signal.signal(signal.SIGUSR1, lambda *_: spoken.append(True))
(source, sport), (target, dport) = ((host, int(port)) for host, port in (end.split(":") for end in sys.argv[1:]))
ends = socket.inet_aton(source) + socket.inet_aton(target)
wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
wire.settimeout(0.3)
print("listening", flush=True)
last, quiet = None, 0
# When all is said, what is still to come is acknowledgements, which may be held back for 40 ms.
while quiet < 2:
    try:
        packet = wire.recv(65535)
    except TimeoutError:
        quiet += len(spoken)
        continue
    head = (packet[0] & 15) * 4
    if packet[9] == 6 and packet[12:20] == ends and struct.unpack_from("!HH", packet, head) == (sport, dport):
        sequence, acknowledged, offset = struct.unpack_from("!IIB", packet, head + 4)
        last = sequence + struct.unpack_from("!H", packet, 2)[0] - head - (offset >> 4) * 4, acknowledged
sequence, acknowledged = last
sequence = (sequence + (1 << 30)) & 0xFFFFFFFF
tcp = struct.pack("!HHIIBBHHH", sport, dport, sequence, acknowledged, 5 << 4, 0x18, 1024, 0, 0) + b"stray!"
pseudo = ends + struct.pack("!BBH", 0, 6, len(tcp)) + tcp
total = sum(struct.unpack("!%dH" % (len(pseudo) // 2), pseudo))
while total >> 16:
    total = (total & 0xFFFF) + (total >> 16)
tcp = tcp[:16] + struct.pack("!H", ~total & 0xFFFF) + tcp[18:]
ip = struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0, 64, 6, 0) + ends
socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).sendto(ip + tcp, (target, 0))
"#;
    let mut command = lab.network.vpc.command(programs::python());
    let mut sender = Daemon::start(command.arg("-u").args(["-c", program, from, to]));
    sender.says("listening");
    speak();
    sender.signal(Signal::SIGUSR1);
    assert!(sender.end().success(), "{:?}", sender.said());
}

/// The port that a client's only connection comes from, as conntrack(8) has it.
fn client_port(lab: &Lab, port: u16) -> String {
    let mut conntrack = lab.network.nat.command("conntrack");
    let list = run(conntrack.args([
        "-L",
        "-p",
        "tcp",
        "--orig-port-dst",
        &port.to_string(),
        "--state",
        "ESTABLISHED",
    ]));
    let sport = list.split_whitespace().find_map(|word| word.strip_prefix("sport="));
    sport.unwrap_or_else(|| panic!("{list}")).to_owned()
}

/// Of a packet that conntrack does not recognise the gateway's own TCP would say that there is no such connection.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_stray_segment_resets_no_connection() {
    let lab = applied();
    for is_guarded in [true, false] {
        if !is_guarded {
            // The control: the segments do reset it.
            lab.network.nat.nft("flush chain inet cachenat input");
        }
        for from_node in [true, false] {
            let mut connection = open(&lab, 6380);
            connection.call(&["PING"]).unwrap();
            let client = client_port(&lab, 6380);
            let (from, to) = match from_node {
                true => ("10.0.1.231:6379".to_owned(), format!("10.0.0.55:{client}")),
                false => (format!("198.51.100.27:{client}"), "10.0.0.55:6380".to_owned()),
            };
            stray_segment(&lab, &from, &to, || drop(connection.call(&["PING"]).unwrap()));
            let answer = connection.call(&["PING"]);
            assert_eq!(
                answer.is_ok(),
                is_guarded,
                "guarded: {is_guarded}, from the node: {from_node}: {answer:?}"
            );
            // The next one's port is found by itself.
            let _ = lab.network.nat.command("conntrack").arg("-F").output().unwrap();
        }
    }
}

/// Where the server sees a connection come from.
fn source(connection: &mut Redis) -> String {
    let id = format!("id={}", connection.call(&["CLIENT", "ID"]).unwrap());
    let clients = connection.call(&["CLIENT", "LIST"]).unwrap();
    let me = clients.lines().find(|line| line.split(' ').any(|field| field == id)).unwrap();
    let address = me.split(' ').find_map(|field| field.strip_prefix("addr=")).unwrap();
    address.parse::<SocketAddrV4>().unwrap().ip().to_string()
}

/// What tells one memcached from another.
fn memcached_pid(from: &Namespace, at: SocketAddrV4) -> String {
    let mut stream = from.connect(at).unwrap();
    stream.write_all(b"stats\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    lines.find(|line| line.starts_with("STAT pid ")).unwrap()
}

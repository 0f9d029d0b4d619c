//! Which interfaces packets come and go by, and who may reach what.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;

use cachenat_tests::fake_dns::Answer;
use cachenat_tests::lab::Lab;
use cachenat_tests::lab::daemon::Daemon;
use cachenat_tests::lab::redis::Redis;
use cachenat_tests::lab::shell::run;
use cachenat_tests::lab::wait::wait_for;
use hickory_resolver::proto::op::ResponseCode;

use crate::common::{applied, dial, in_force, open, reached};

const LEG: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 55);

/// Where a node sees a connection come from.
fn source(redis: &mut Redis) -> String {
    let info = redis.call(&["CLIENT", "INFO"]).unwrap();
    let address = info.split_whitespace().find_map(|field| field.strip_prefix("addr=")).unwrap();
    address.rsplit_once(':').unwrap().0.to_owned()
}

/// A lab whose NAT instance has a leg in the nodes' own subnet, with AWS's check of sources.
fn with_leg() -> Lab {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 3);
    lab.network.attach("eth1", "private", LEG);
    lab.network.nat.set_sysctl("net/ipv4/conf/all/rp_filter", "1");
    lab
}

fn with_gateway(lab: &Lab, keys: &str) {
    let config = lab.plain_config();
    assert!(config.contains("gateway: {"));
    lab.write_config(&config.replace("gateway: {", &format!("gateway: {{{keys}, ")));
}

/// How many packets AWS's check of sources and destinations would have dropped.
fn dropped(lab: &Lab) -> u64 {
    let listed = run(lab.network.vpc.command("nft").args(["list", "table", "bridge", "sdc"]));
    let counts =
        listed.split("packets ").skip(1).map(|rest| rest.split(' ').next().unwrap().parse::<u64>().unwrap());
    counts.sum()
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn nodes_behind_a_second_interface_are_reached() {
    let lab = with_leg();
    lab.network.check_sources(&[("eth1", "10.0.1.55")]);
    lab.cachenat(&["apply"]).exits(0);
    for (port, node) in (6379..=6381).zip(lab.nodes()) {
        assert_eq!(reached(&lab, port), node.run_id());
    }
    assert_eq!(source(&mut open(&lab, 6379)), LEG.to_string());
    assert_eq!(dropped(&lab), 0);
    let check = lab.cachenat(&["check"]).stdout;
    assert!(!check.contains("leaves by eth1"), "{check}");
    assert!(check.contains("no chain of others stops what is forwarded"), "{check}");
    lab.cachenat(&["diff"]).exits(0);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn each_interface_can_have_its_own_source() {
    let lab = with_leg();
    lab.network.nat.ip("address add 10.0.1.56/24 dev eth1");
    with_gateway(&lab, "snat: {eth0: 10.0.0.55, eth1: 10.0.1.56}");
    lab.cachenat(&["apply"]).exits(0);
    assert_eq!(source(&mut open(&lab, 6379)), "10.0.1.56");
    with_gateway(&lab, "snat: {eth0: 10.0.0.55}");
    let run = lab.cachenat(&["apply"]).exits(3);
    let words =
        "my-cluster-001 and 2 more: the route to it leaves by eth1, for which gateway.snat has no address";
    assert!(run.stderr.contains(words), "{}", run.stderr);
    assert!(lab.cachenat(&["check"]).exits(1).stdout.contains(words));
    with_gateway(&lab, "snat: {eth0: 10.0.0.55, eth1: 10.0.0.55}");
    let run = lab.cachenat(&["apply"]).exits(2);
    assert!(run.stderr.contains("gateway.snat: eth1 does not have 10.0.0.55"), "{}", run.stderr);
    with_gateway(&lab, "snat: {eth7: 10.0.0.55}");
    let run = lab.cachenat(&["apply"]).exits(2);
    assert!(run.stderr.contains("gateway.snat: this host has no interface eth7"), "{}", run.stderr);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn clients_come_in_by_each_interface_that_is_named() {
    let lab = with_leg();
    // A host of the VPC as client: by the leg in its own subnet it dials the gateway's address there.
    let neighbour = lab.network.private_host(Ipv4Addr::new(10, 0, 1, 100));
    let config = lab.plain_config().replace("clients: [", "clients: [10.0.1.100, ");
    lab.write_config(&config.replace("gateway: {", "gateway: {interface: [eth0, eth1], "));
    // The answers to clients on the internet do not leave by eth1, which is said.
    let run = lab.cachenat(&["apply"]).exits(3);
    let words = "gateway.interface: the way back to 198.51.100.27/32 does not lead out by eth1";
    assert!(run.stderr.contains(words), "{}", run.stderr);
    let check = lab.cachenat(&["check"]).exits(1).stdout;
    assert!(check.contains("associate the Elastic IP with the primary network interface"), "{check}");

    neighbour.ip("route add 10.0.0.55 via 10.0.1.55");
    let at = std::net::SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 55), 6379);
    let node = lab.nodes().next().unwrap().run_id();
    assert_eq!(Redis::connect(&neighbour, at).unwrap().info("run_id").unwrap(), node);
    assert_eq!(reached(&lab, 6379), node);
    lab.write_config(&config);
    lab.cachenat(&["apply"]).exits(0);
    assert!(Redis::connect(&neighbour, at).is_err(), "eth1 is no ingress any more");
    assert_eq!(reached(&lab, 6379), node);
}

/// `my-cluster` for the client, and `sessions`, on port 6380 and up, for the stranger.
fn with_lists() -> Lab {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 1);
    lab.add_replication_group("sessions", 2);
    lists(&lab, "[198.51.100.28]");
    lab
}

fn lists(lab: &Lab, sessions: &str) {
    let source = "replication_group: sessions";
    let config = lab.plain_config().replace(source, &format!("{source}\n    clients: {sessions}"));
    lab.write_config(&config);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn each_cache_is_reached_by_its_own_clients_only() {
    let lab = with_lists();
    lab.cachenat(&["apply"]).exits(0);
    let (client, stranger) = (&lab.network.client, &lab.network.stranger);
    let reach = |port| [client, stranger].map(|from| dial(from, port).is_ok());
    assert_eq!([6379, 6380, 6381].map(reach), [[true, false], [false, true], [false, true]]);
    lab.cachenat(&["diff"]).exits(0);
    assert!(in_force(&lab).contains("@clients4_2 dnat ip to ip daddr . tcp dport map @forward4_2"));

    let rules = lab.cachenat(&["render", "--format", "iptables-restore"]).exits(0).stdout;
    let words = [
        "-s 198.51.100.28/32 -p tcp -j CACHENAT_2",
        "-A CACHENAT_2 -d 10.0.0.55/32",
        "-A CACHENAT_2 -d 10.0.0.55 ",
    ];
    assert!(rules.contains(words[0]) && words[1..].iter().any(|words| rules.contains(words)), "{rules}");

    // What is saved keeps the lists apart, as the boot does.
    lab.network.nat.nft("delete table inet cachenat");
    lab.cachenat(&["restore"]).exits(0);
    assert_eq!([6379, 6380, 6381].map(reach), [[true, false], [false, true], [false, true]]);
    lab.cachenat(&["diff"]).exits(0);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_client_that_one_cache_no_longer_lists_is_cut_from_it_alone() {
    let lab = with_lists();
    lists(&lab, "[198.51.100.27, 198.51.100.28]");
    lab.cachenat(&["apply"]).exits(0);
    let (mut own, mut shared) = (open(&lab, 6379), open(&lab, 6380));
    let mut strangers = dial(&lab.network.stranger, 6380).unwrap();
    lists(&lab, "[198.51.100.28]");
    let diff = lab.cachenat(&["diff"]).exits(1).stdout;
    assert!(diff.contains("198.51.100.27"), "{diff}");
    lab.cachenat(&["apply"]).exits(0);
    assert!(own.call(&["PING"]).is_ok(), "my-cluster still lists the client");
    assert!(strangers.call(&["PING"]).is_ok(), "sessions still lists the other client");
    assert!(shared.call(&["PING"]).is_err(), "sessions no longer lists the client");
    assert!(dial(&lab.network.client, 6380).is_err());

    // The list that everything shares takes over again, and with it the other client loses the cache.
    lab.write_config(&lab.plain_config());
    lab.cachenat(&["apply"]).exits(0);
    assert!(strangers.call(&["PING"]).is_err());
    assert!(open(&lab, 6380).call(&["PING"]).is_ok());
    assert!(own.call(&["PING"]).is_ok());
    assert!(!in_force(&lab).contains("forward4_2"));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_table_of_the_former_release_is_rewritten_in_place() {
    let lab = applied();
    let mut held = open(&lab, 6379);
    let rule = |text: &str| {
        let list = run(lab.network.nat.command("nft").args([
            "-a",
            "list",
            "chain",
            "inet",
            "cachenat",
            "postrouting",
        ]));
        let line = list.lines().find(|line| line.contains(text)).map(str::to_owned);
        line.and_then(|line| line.rsplit_once("# handle ").map(|(_, handle)| handle.trim().to_owned()))
    };
    // Before, what left by another interface had no way back.
    let handle = rule("masquerade").expect("snat: auto masquerades on other interfaces");
    lab.network.nat.nft(&format!("delete rule inet cachenat postrouting handle {handle}"));
    lab.cachenat(&["diff"]).exits(1);
    lab.cachenat(&["apply"]).exits(0);
    assert!(rule("masquerade").is_some());
    assert!(held.call(&["PING"]).is_ok());
}

const HOME: &str = "home.example.net";

/// A lab whose clients are those of a name, which leads to the client, and of a file, which is not there yet.
fn with_moving_clients(clients: &str) -> Lab {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 1);
    let config = lab.plain_config().replace("clients: [198.51.100.27/32]", &format!("clients: [{clients}]"));
    lab.write_config(&config);
    lead_home(&lab, "198.51.100.27");
    lab
}

fn lead_home(lab: &Lab, address: &str) {
    lab.dns().set(HOME, Answer::Addresses(vec![address.parse().unwrap()]));
}

fn reach(lab: &Lab) -> [bool; 2] {
    [&lab.network.client, &lab.network.stranger].map(|from| dial(from, 6379).is_ok())
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_client_is_followed_by_its_name() {
    let mut lab = with_moving_clients("{dns: home.example.net}");
    lab.cachenat(&["apply"]).exits(0);
    assert_eq!(reach(&lab), [true, false]);
    let mut held = open(&lab, 6379);
    assert!(lab.cachenat(&["check"]).stdout.contains("client dns home.example.net: 198.51.100.27/32"));

    // The former address is a stranger's at once, and so is its connection.
    lead_home(&lab, "198.51.100.28");
    lab.cachenat(&["diff"]).exits(1);
    lab.cachenat(&["apply"]).exits(0);
    assert_eq!(reach(&lab), [false, true]);
    assert!(held.call(&["PING"]).is_err());

    // Without an answer the last one stays, loudly.
    lab.dns().set(HOME, Answer::Code(ResponseCode::ServFail));
    let run = lab.cachenat(&["apply"]).exits(3);
    let words = "clients: dns home.example.net: home.example.net: the name server answered SERVFAIL; keeping the 1 networks";
    assert!(run.stderr.contains(words), "{}", run.stderr);
    assert_eq!(reach(&lab), [false, true]);
    let check = lab.cachenat(&["check"]).exits(1).stdout;
    assert!(check.contains("SERVFAIL"), "{check}");

    // The boot has no name server, and waits for none.
    lab.stop_dns();
    lab.network.nat.nft("delete table inet cachenat");
    lab.cachenat(&["restore"]).exits(0);
    assert_eq!(reach(&lab), [false, true]);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_name_that_no_client_has_is_refused() {
    let lab = with_moving_clients("198.51.100.27, {dns: home.example.net}");
    for (address, words) in [
        ("10.0.0.9", "10.0.0.9 is private, and no client's on the internet"),
        ("127.0.0.1", "127.0.0.1 is a loopback address"),
    ] {
        lead_home(&lab, address);
        let run = lab.cachenat(&["apply"]).exits(3);
        assert!(run.stderr.contains(words) && run.stderr.contains("it admits no one"), "{}", run.stderr);
        assert_eq!(reach(&lab), [true, false]);
    }
    let many = (1..=17).map(|last| format!("203.0.113.{last}").parse().unwrap()).collect();
    lab.dns().set(HOME, Answer::Addresses(many));
    let run = lab.cachenat(&["apply"]).exits(3);
    assert!(run.stderr.contains("17 addresses are too many for a client"), "{}", run.stderr);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_file_of_clients_is_read_line_by_line() {
    let lab = with_moving_clients("{file: /FILE}");
    let path = lab.dir().join("clients.txt");
    let file = path.display().to_string();
    fs::write(lab.config(), fs::read_to_string(lab.config()).unwrap().replace("/FILE", &file)).unwrap();
    let run = lab.cachenat(&["apply"]).exits(3);
    assert!(run.stderr.contains(&format!("clients: file {file}: No such file")), "{}", run.stderr);
    assert_eq!(reach(&lab), [false, false]);

    fs::write(&path, "# CI\n198.51.100.27\n198.51.100.28/32  # second\n2001:db8::/64\n").unwrap();
    lab.cachenat(&["apply"]).exits(0);
    assert_eq!(reach(&lab), [true, true]);
    let mut held = open(&lab, 6379);

    // A bad line makes nothing of the file count, and is named.
    fs::write(&path, "198.51.100.27\n198.51.100.0/33\n").unwrap();
    let run = lab.cachenat(&["apply"]).exits(3);
    assert!(run.stderr.contains("line 2: \"198.51.100.0/33\" is no address or network"), "{}", run.stderr);
    assert_eq!(reach(&lab), [true, true]);
    fs::write(&path, "198.51.100.27/24\n").unwrap();
    let run = lab.cachenat(&["apply"]).exits(3);
    assert!(run.stderr.contains("line 1: 198.51.100.27/24 has bits behind its prefix"), "{}", run.stderr);

    // A file that lost more than half of its lines may be one that is being written.
    fs::write(&path, "198.51.100.28\n").unwrap();
    let run = lab.cachenat(&["apply"]).exits(3);
    assert!(run.stderr.contains("2 of 3 networks disappeared at once"), "{}", run.stderr);
    assert!(held.call(&["PING"]).is_ok());
    lab.cachenat(&["apply"]).exits(0);
    assert_eq!(reach(&lab), [false, true]);
    assert!(held.call(&["PING"]).is_err());

    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let run = lab.cachenat(&["apply"]).exits(3);
    assert!(run.stderr.contains("can be written by everybody on this host: chmod o-w"), "{}", run.stderr);
    assert_eq!(reach(&lab), [false, true]);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn watch_follows_files_at_once_and_names_soon() {
    let lab = with_moving_clients("{dns: home.example.net}, {file: /FILE}");
    let file = lab.dir().join("clients.txt");
    let config = fs::read_to_string(lab.config()).unwrap();
    fs::write(lab.config(), config.replace("/FILE", &file.display().to_string())).unwrap();
    fs::write(&file, "").unwrap();
    let mut command = lab.cachenat_command();
    let watch = Daemon::start(command.args(["watch", "--interval", "600s", "--dns-interval", "1s"]));
    watch.says("add my-cluster-001");
    assert_eq!(reach(&lab), [true, false]);
    fs::write(&file, "198.51.100.28\n").unwrap();
    wait_for("the file's client", || (reach(&lab) == [true, true]).then_some(()));
    let mut held = open(&lab, 6379);
    lead_home(&lab, "203.0.113.99");
    wait_for("the name's client to go", || (reach(&lab) == [false, true]).then_some(()));
    wait_for("its connection to end", || held.call(&["PING"]).is_err().then_some(()));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn drained_clients_keep_their_connections() {
    let lab = applied();
    let config = lab.plain_config();
    let mut held = open(&lab, 6379);
    lab.write_config(&format!(
        "{}on_client_gone: drain\n",
        config.replace("198.51.100.27/32", "198.51.100.28/32")
    ));
    lab.cachenat(&["apply"]).exits(0);
    assert!(held.call(&["PING"]).is_ok());
    assert_eq!(reach(&lab), [false, true]);
}

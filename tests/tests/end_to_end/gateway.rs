//! Detection of the gateway's address on hosts with unusual networks.

use std::fs;

use cachenat_tests::fake_aws::shapes;
use cachenat_tests::lab::Lab;
use cachenat_tests::lab::daemon::Daemon;
use cachenat_tests::lab::product::Run;
use cachenat_tests::lab::shell::run;
use cachenat_tests::lab::wait::wait_for;
use cachenat_tests::programs;

use crate::common::{applied, in_force, reached, spelled_out};

/// The addresses in the order in which the kernel lists them after a reboot of Amazon Linux 2023: a secondary one
/// first, and the primary one in the default route.
fn reordered(lab: &Lab) {
    lab.network.nat.ip("address flush dev eth0");
    lab.network.nat.ip("address add 10.0.0.56/32 dev eth0");
    lab.network.nat.ip("address add 10.0.0.55/24 dev eth0");
    lab.network.nat.ip("route add default via 10.0.0.1 src 10.0.0.55");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn the_default_routes_source_is_the_gateway_address() {
    let lab = spelled_out(&[(1, "10.0.1.230")]);
    reordered(&lab);
    lab.cachenat(&["apply"]).exits(0);
    let table = in_force(&lab);
    assert!(table.contains("10.0.0.55 . 6379") && table.contains("snat ip to 10.0.0.55"), "{table}");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn metadata_decides_between_two_addresses() {
    let lab = spelled_out(&[(1, "10.0.1.230")]);
    lab.api().change(|scenario| scenario.imds = Some(shapes::instance("subnet-0public")));
    lab.network.nat.ip("address flush dev eth0");
    lab.network.nat.ip("address add 10.0.0.56/24 dev eth0");
    lab.network.nat.ip("address add 10.0.0.55/24 dev eth0");
    lab.network.nat.ip("route add default via 10.0.0.1");
    let mut command = lab.cachenat_command();
    command.env("AWS_EC2_METADATA_DISABLED", "false");
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", lab.api().url());
    Run::from(command.arg("apply").output().unwrap()).exits(0);
    assert!(in_force(&lab).contains("10.0.0.55 . 6379"), "{}", in_force(&lab));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_address_in_use_is_kept() {
    let lab = applied();
    let before = in_force(&lab);
    lab.network.nat.ip("address flush dev eth0");
    lab.network.nat.ip("address add 10.0.0.56/24 dev eth0");
    lab.network.nat.ip("address add 10.0.0.55/24 dev eth0");
    lab.network.nat.ip("route add default via 10.0.0.1");
    let run = lab.cachenat(&["apply"]).exits(3);
    let words =
        "gateway.addresses: auto now reads 10.0.0.56 off eth0, which still has 10.0.0.55: the forwards stay";
    assert!(run.stderr.contains(words), "{}", run.stderr);
    assert_eq!(in_force(&lab), before);
    assert_eq!(reached(&lab, 6379), lab.nodes().next().unwrap().run_id());

    // Once the address has gone, staying is of no use.
    lab.network.nat.ip("address del 10.0.0.55/24 dev eth0");
    lab.cachenat(&["apply"]).exits(0);
    assert!(in_force(&lab).contains("10.0.0.56 . 6379"), "{}", in_force(&lab));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_second_ipv6_address_moves_no_forward() {
    let lab = spelled_out(&[(1, "fd12::1:230")]);
    lab.network.nat.ip("address add fd12::55/64 dev eth0 nodad");
    lab.cachenat(&["apply"]).exits(0);
    assert!(in_force(&lab).contains("fd12::55 . 6379"), "{}", in_force(&lab));
    lab.network.nat.ip("address add fd12::99/64 dev eth0 nodad");
    let run = lab.cachenat(&["apply"]);
    assert!(in_force(&lab).contains("fd12::55 . 6379"), "{}\n{}", in_force(&lab), run.stderr);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn configured_host_facts_are_checked() {
    let lab = spelled_out(&[(1, "10.0.1.230")]);
    let config = fs::read_to_string(lab.config()).unwrap();
    for (gateway, words) in [
        ("{interface: ens5}", "gateway.interface: this host has no interface ens5 (it has eth0"),
        ("{snat: 192.0.2.200}", "gateway.snat: no interface of this host has 192.0.2.200"),
    ] {
        fs::write(lab.config(), format!("{config}gateway: {gateway}\n")).unwrap();
        let run = lab.cachenat(&["apply"]).exits(2);
        assert!(run.stderr.contains(words), "{}", run.stderr);
        assert_eq!(in_force(&lab), "");
        let run = lab.cachenat(&["check"]).exits(1);
        assert!(run.stdout.contains(words), "{}", run.stdout);
    }
    lab.network.nat.ip("address add fd12::55/64 dev eth0 nodad");
    fs::write(lab.config(), format!("{config}gateway: {{snat: 10.0.0.55}}\n")).unwrap();
    let run = lab.cachenat(&["apply"]).exits(2);
    assert!(run.stderr.contains("10.0.0.55 is no way back for IPv6"), "{}", run.stderr);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_alternative_interface_name_works() {
    let lab = spelled_out(&[(1, "10.0.1.230")]);
    lab.network.nat.ip("link property add dev eth0 altname device-number-0");
    let config = fs::read_to_string(lab.config()).unwrap();
    fs::write(lab.config(), format!("{config}gateway: {{interface: device-number-0}}\n")).unwrap();
    lab.cachenat(&["apply"]).exits(0);
    assert!(in_force(&lab).contains("iifname \"eth0\""), "{}", in_force(&lab));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_node_behind_another_interface_is_named() {
    let lab = spelled_out(&[(1, "10.0.1.230"), (2, "10.0.3.9")]);
    lab.network.nat.ip("link add eth1 type veth peer name far1");
    lab.network.nat.ip("address add 10.0.3.55/24 dev eth1");
    lab.network.nat.ip("link set eth1 up");
    lab.cachenat(&["apply"]).exits(0);
    let config = fs::read_to_string(lab.config()).unwrap();
    fs::write(lab.config(), format!("{config}gateway: {{snat: 10.0.0.55}}\n")).unwrap();
    let run = lab.cachenat(&["apply"]).exits(3);
    let words = "local-002: the route to it leaves by eth1, for which gateway.snat has no address";
    assert!(run.stderr.contains(words), "{}", run.stderr);
    assert!(lab.cachenat(&["check"]).exits(1).stdout.contains(words));
}

/// Has a router on the gateway's segment advertise itself, and waits until the gateway has its default route from it.
fn advertise(lab: &Lab) {
    let advertisement = r#"
import socket, struct, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
# RFC 4861 section 4.2: a router for half an hour.
s.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0), ("ff02::1", 0, 0, socket.if_nametoindex(sys.argv[1])))
"#;
    wait_for("the advertised route", || {
        let mut python = lab.network.vpc.command(programs::python());
        // Until its own address is known to be no one else's, it can't send.
        let _ = python.args(["-c", advertisement, "public"]).output().unwrap();
        advertised(lab).then_some(())
    });
}

/// Whether the gateway has a default route that was advertised.
fn advertised(lab: &Lab) -> bool {
    run(lab.network.nat.command("ip").args(["-6", "route", "show", "default"])).contains("proto ra")
}

/// The operator's own session may come by it.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn ipv6_forwarding_keeps_the_hosts_default_route() {
    let lab = dual_stack();
    advertise(&lab);
    let diff = lab.cachenat(&["diff"]).exits(1).stdout;
    assert!(diff.contains("+ sysctl net.ipv6.conf.eth0.accept_ra = 2"), "{diff}");
    lab.cachenat(&["apply"]).exits(0);
    assert!(advertised(&lab));
    assert_eq!(lab.network.nat.sysctl("net/ipv6/conf/all/forwarding"), "1");
    lab.cachenat(&["diff"]).exits(0);
    lab.cachenat(&["remove"]).exits(0);
    assert_eq!(lab.network.nat.sysctl("net/ipv6/conf/eth0/accept_ra"), "1");
    assert!(advertised(&lab));
}

/// A gateway of both families, and a node of each.
fn dual_stack() -> Lab {
    let lab = Lab::new();
    lab.network.nat.ip("address add 2001:db8::55/64 dev eth0 nodad");
    lab.write_config(
        "clients: [198.51.100.27/32, 2001:db8:c::27/128]\n\
         gateway: {addresses: [10.0.0.55, 2001:db8::55]}\n\
         sources:\n\
         \x20 - static:\n\
         \x20     name: local\n\
         \x20     nodes: [{id: a, host: 10.0.1.230, port: 6379}, {id: b, host: 'fd00:1::99', port: 6379}]\n",
    );
    lab
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn forwarding_is_checked_on_the_ingress_interface() {
    let lab = spelled_out(&[(1, "10.0.1.230")]);
    lab.cachenat(&["apply"]).exits(0);
    lab.network.nat.set_sysctl("net/ipv4/conf/eth0/forwarding", "0");
    let diff = lab.cachenat(&["diff"]).exits(1).stdout;
    assert!(diff.contains("+ sysctl net.ipv4.conf.eth0.forwarding = 1"), "{diff}");
    let status = lab.cachenat(&["status", "--format", "json"]).exits(0).json();
    assert!(status["drift"].to_string().contains("net.ipv4.conf.eth0.forwarding"), "{status}");
    let check = lab.cachenat(&["check"]).exits(1).stdout;
    assert!(check.contains("net.ipv4.conf.eth0.forwarding: is off"), "{check}");
    lab.cachenat(&["apply"]).exits(0);
    assert_eq!(lab.network.nat.sysctl("net/ipv4/conf/eth0/forwarding"), "1");
    lab.cachenat(&["diff"]).exits(0);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_file_that_disables_forwarding_is_named() {
    let lab = spelled_out(&[(1, "10.0.1.230")]);
    let file = lab.dir().join("sysctl.d/99-hardening.conf");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    for line in [
        "net.ipv4.conf.all.forwarding = 0",
        "net/ipv4/conf/*/forwarding = 0",
        "net.ipv4.conf.eth0.forwarding=0",
    ] {
        fs::write(&file, format!("{line}\n")).unwrap();
        for command in ["diff", "apply"] {
            let run = lab.cachenat(&[command]);
            assert!(
                run.stderr.contains(&format!("99-hardening.conf says {line:?}")),
                "{command}: {}",
                run.stderr
            );
        }
        let check = lab.cachenat(&["check"]).exits(1).stdout;
        assert!(check.contains("99-hardening.conf sets it to 0 at the next boot"), "{check}");
    }
    fs::remove_file(&file).unwrap();
    // The interface's own line counts wherever it stands, also where a pattern stands for it.
    let early = lab.dir().join("sysctl.d/10-hardening.conf");
    fs::write(&early, "net.ipv4.conf.*.forwarding = 0\n").unwrap();
    let run = lab.cachenat(&["apply"]).exits(0);
    assert!(run.stderr.contains("10-hardening.conf says"), "{}", run.stderr);
    fs::remove_file(&early).unwrap();
    assert_eq!(lab.cachenat(&["apply"]).exits(0).stderr, "");
}

/// As before DHCP has come: neither an address nor a route.
fn without_network(lab: &Lab) {
    lab.network.nat.ip("address flush dev eth0");
}

fn with_network(lab: &Lab) {
    lab.network.nat.ip("address add 10.0.0.55/24 dev eth0");
    lab.network.nat.ip("route add default via 10.0.0.1");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_late_route_and_address_are_awaited() {
    let lab = spelled_out(&[(1, "10.0.1.230")]);
    without_network(&lab);
    let run = lab.cachenat(&["apply", "--wait", "1s"]).exits(2);
    assert!(run.stderr.contains("no default route"), "{}", run.stderr);
    let mut watch = Daemon::start(lab.cachenat_command().arg("watch"));
    watch.says("this host has no default route");
    let mut apply = Daemon::start(lab.cachenat_command().args(["apply", "--wait", "60s"]));
    with_network(&lab);
    assert_eq!(apply.end().code(), Some(0), "{:?}", apply.said());
    lab.network.nat.nft("flush ruleset");
    wait_for("watch to repair", || in_force(&lab).contains("10.0.1.230").then_some(()));
    watch.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(watch.end().code(), Some(0));
}

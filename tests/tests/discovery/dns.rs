//! Failures and unusual answers of DNS.

use std::net::IpAddr;

use cachenat_tests::{
    fake_aws::{Scenario, shapes::Group},
    fake_dns::Answer,
};
use discovery::{Coverage, Source, StaticNode};
use hickory_resolver::proto::op::ResponseCode;

use crate::setup::{Setup, replication_group, show};

fn addresses(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

/// What is found of a static node whose name has this answer.
fn found_for(answer: Option<Answer>) -> String {
    let setup = Setup::new(Scenario::default());
    if let Some(answer) = answer {
        setup.dns.set("cache.example", answer);
    }
    show(&setup.discover(&[static_node("cache.example")]))
}

fn static_node(host: &str) -> Source {
    let node =
        StaticNode { id: "local-001".parse().unwrap(), host: host.into(), port: 6379.try_into().unwrap() };
    Source::Static { name: "local".into(), nodes: vec![node] }
}

fn failed(error: &str) -> String {
    format!("local-001 - - - static []:6379 ! {error}\nstatic/local partial: local-001: {error}\n")
}

fn usable(addresses: &str) -> String {
    format!("local-001 - - - static [{addresses}]:6379\nstatic/local complete\n")
}

#[test]
fn dns_failures_are_distinguished() {
    let code = |code| Some(Answer::Code(code));
    assert_eq!(found_for(None), failed("cache.example: no such name (NXDOMAIN)"));
    assert_eq!(
        found_for(code(ResponseCode::ServFail)),
        failed("cache.example: the name server answered SERVFAIL")
    );
    assert_eq!(
        found_for(code(ResponseCode::Refused)),
        failed("cache.example: the name server answered REFUSED")
    );
    assert_eq!(found_for(Some(Answer::Addresses(vec![]))), failed("cache.example: no A record"));
    assert_eq!(found_for(Some(Answer::Silence)), failed("cache.example: no name server answered in time"));
}

#[test]
fn a_name_with_hundreds_of_addresses_is_refused() {
    let many = (0..300_u16).map(|n| [10, 9, n.to_be_bytes()[0], n.to_be_bytes()[1]].into()).collect();
    let error = "cache.example: 300 addresses are too many for a node: at most 64 are believed";
    assert_eq!(found_for(Some(Answer::Truncated(many))), failed(error));
}

#[test]
fn a_mapped_address_becomes_ipv4() {
    let mapped = Answer::Addresses(addresses(&["::ffff:10.0.1.9"]));
    assert_eq!(found_for(Some(mapped)), usable("10.0.1.9"));
}

#[test]
fn a_long_answer_falls_back_to_tcp() {
    let many: Vec<IpAddr> = (1..=40).map(|n| format!("10.0.1.{n}").parse().unwrap()).collect();
    let setup = Setup::new(Scenario::default());
    setup.dns.set("cache.example", Answer::Truncated(many.clone()));
    let found = setup.discover(&[static_node("cache.example")]);
    assert_eq!(found.nodes[0].addresses, many);
}

#[test]
fn a_chain_of_aliases_is_followed() {
    let setup = Setup::new(Scenario::default());
    setup.dns.set("cache.example", Answer::Cname("a.example".into()));
    setup.dns.set("a.example", Answer::Cname("b.example".into()));
    setup.dns.point("b.example", "10.0.1.230");
    assert_eq!(show(&setup.discover(&[static_node("cache.example")])), usable("10.0.1.230"));
}

#[test]
fn a_dangling_alias_has_no_address() {
    let found = found_for(Some(Answer::Cname("gone.example".into())));
    assert_eq!(found, failed("cache.example: no such name (NXDOMAIN)"));
}

#[test]
fn either_address_family_is_enough() {
    assert_eq!(found_for(Some(Answer::Addresses(addresses(&["fd12::230"])))), usable("fd12::230"));
    assert_eq!(found_for(Some(Answer::Addresses(addresses(&["10.0.1.230"])))), usable("10.0.1.230"));
}

#[test]
fn a_forbidden_address_is_refused_by_name() {
    for (address, reason) in [
        ("169.254.169.254", "an AWS instance service (metadata, DNS or time)"),
        ("127.0.0.1", "a loopback address"),
        ("198.51.100.9", "outside the VPC and not private"),
    ] {
        let found = found_for(Some(Answer::Addresses(addresses(&[address]))));
        assert_eq!(found, failed(&format!("cache.example: refused: {address} is {reason}")));
    }
}

#[test]
fn the_permitted_address_is_used() {
    let found = found_for(Some(Answer::Addresses(addresses(&["10.0.1.230", "127.0.0.1"]))));
    assert!(
        found.starts_with("local-001 - - - static [10.0.1.230]:6379 ! cache.example: refused: 127.0.0.1"),
        "{found}"
    );
}

#[test]
fn names_are_looked_up_unchanged() {
    let setup = Setup::new(Scenario::default());
    setup.dns.point("cache.example", "10.0.1.230");
    assert_eq!(show(&setup.discover(&[static_node("cache.example.")])), usable("10.0.1.230"));
    let mut asked: Vec<String> = setup.dns.queries().into_iter().map(|(name, _)| name).collect();
    asked.dedup();
    assert_eq!(asked, ["cache.example"]);
}

#[test]
fn an_invalid_host_name_is_reported() {
    let setup = Setup::new(Scenario::default());
    let long = format!("{}.example", "x".repeat(64));
    let found = show(&setup.discover(&[static_node(&long)]));
    assert_eq!(found, failed(&format!("{long}: not a domain name")));
}

#[test]
fn an_unresolved_node_stays_listed() {
    let group = Group::new("my-cluster", 2);
    let setup = Setup::with_group(&group);
    setup.dns.set(&group.host("my-cluster-002"), Answer::Code(ResponseCode::ServFail));
    let found = setup.discover(&[replication_group("my-cluster")]);
    assert_eq!(found.sources[0].coverage, Coverage::Whole);
    let error = format!("{}: the name server answered SERVFAIL", group.host("my-cluster-002"));
    let expected = format!(
        "\
my-cluster-001 0001 primary redis available [10.0.1.230]:6379
my-cluster-002 0001 replica redis available []:6379 ! {error}
replication_group/my-cluster partial: my-cluster-002: {error}
"
    );
    assert_eq!(show(&found), expected);
}

#[test]
fn silent_names_time_out_in_parallel() {
    let setup = Setup::new(Scenario::default());
    let node = |n: usize| {
        let host = format!("cache-{n}.example");
        setup.dns.set(&host, Answer::Silence);
        StaticNode { id: host.parse().unwrap(), host, port: 6379.try_into().unwrap() }
    };
    let source = Source::Static { name: "local".into(), nodes: (0..1_000).map(node).collect() };
    let began = std::time::Instant::now();
    let found = setup.discover(&[source]);
    // One after the other they would take ten minutes.
    assert!(began.elapsed() < std::time::Duration::from_secs(60), "{:?}", began.elapsed());
    assert!(found.nodes.iter().all(|node| node.error.as_ref().unwrap().contains("in time")));
}

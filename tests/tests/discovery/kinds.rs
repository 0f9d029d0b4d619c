//! Each kind of cache, each with the right nodes.

use cachenat_tests::{
    fake_aws::{
        Scenario,
        shapes::{self, Group},
    },
    fake_dns::Answer,
};
use discovery::{Expose, ExposedRole, Source};
use serde_json::json;

use crate::setup::{Setup, cache_cluster, replication_group, serverless_cache, show, tags};

#[test]
fn an_unsharded_group_has_roles_and_addresses() {
    let setup = Setup::with_group(&Group::new("my-cluster", 3));
    let expected = "\
my-cluster-001 0001 primary redis available [10.0.1.230]:6379
my-cluster-002 0001 replica redis available [10.0.1.231]:6379
my-cluster-003 0001 replica redis available [10.0.1.232]:6379
replication_group/my-cluster complete
";
    assert_eq!(show(&setup.discover(&[replication_group("my-cluster")])), expected);
}

#[test]
fn the_reader_endpoint_is_all_replicas() {
    let setup = Setup::with_group(&Group::new("my-cluster", 3));
    let source = Source::ReplicationGroup { id: "my-cluster".into(), expose: Expose::all() };
    let expected = "\
my-cluster/primary - primary redis available [10.0.1.230]:6379
my-cluster/reader - reader redis available [10.0.1.231 10.0.1.232]:6379
my-cluster-001 0001 primary redis available [10.0.1.230]:6379
my-cluster-002 0001 replica redis available [10.0.1.231]:6379
my-cluster-003 0001 replica redis available [10.0.1.232]:6379
replication_group/my-cluster complete
";
    let found = setup.discover(&[source]);
    let mut lines: Vec<String> = show(&found).lines().map(str::to_owned).collect();
    lines.sort_by_key(|line| (line.starts_with("repl"), !line.contains('/')));
    assert_eq!(lines.join("\n") + "\n", expected);
    let asked: Vec<String> = setup.dns.queries().into_iter().map(|(name, _)| name).collect();
    assert!(
        !asked.iter().any(|name| name.contains("-ro.")),
        "the rotating reader name was asked for: {asked:?}"
    );
}

#[test]
fn a_reader_without_replicas_is_the_primary() {
    let setup = Setup::with_group(&Group::new("my-cluster", 1));
    let expose = Expose::from_iter([ExposedRole::Reader]);
    let found = setup.discover(&[Source::ReplicationGroup { id: "my-cluster".into(), expose }]);
    let expected = "\
my-cluster/reader - reader redis available [10.0.1.230]:6379
replication_group/my-cluster complete
";
    assert_eq!(show(&found), expected);
}

#[test]
fn a_sharded_group_uses_the_cluster_listing() {
    let group = Group { tls: true, engine: "valkey".into(), ..Group::sharded("my-cluster", 2, 2) };
    let setup = Setup::with_group(&group);
    let expected = "\
my-cluster-0001-001 0001 - valkey+tls available [10.0.1.230]:6379
my-cluster-0001-002 0001 - valkey+tls available [10.0.1.231]:6379
my-cluster-0002-001 0002 - valkey+tls available [10.0.1.232]:6379
my-cluster-0002-002 0002 - valkey+tls available [10.0.1.233]:6379
replication_group/my-cluster complete
";
    assert_eq!(show(&setup.discover(&[replication_group("my-cluster")])), expected);
}

#[test]
fn a_sharded_groups_primary_is_refused() {
    let setup = Setup::with_group(&Group::sharded("my-cluster", 2, 2));
    let expose = Expose::from_iter([ExposedRole::Primary]);
    let found = setup.discover(&[Source::ReplicationGroup { id: "my-cluster".into(), expose }]);
    let expected = "replication_group/my-cluster partial: my-cluster has cluster mode enabled, so it has no primary \
                    and reader of its own: expose its nodes\n";
    assert_eq!(show(&found), expected);
}

#[test]
fn memcached_nodes_use_their_numbered_names() {
    for count in [1, 3, 60] {
        let cache_clusters = vec![shapes::memcached("sessions", count)];
        let setup = Setup::new(Scenario { cache_clusters, ..Scenario::default() });
        for node in 1..=count {
            setup.dns.point(&shapes::memcached_host("sessions", node), &format!("10.0.2.{node}"));
        }
        let found = setup.discover(&[cache_cluster("sessions")]);
        let expected: String = (1..=count)
            .map(|n| format!("sessions-{n:04} - - memcached available [10.0.2.{n}]:11211\n"))
            .collect();
        assert_eq!(show(&found), expected + "cache_cluster/sessions complete\n");
        assert_eq!(setup.dns.queries().len(), count);
    }
}

#[test]
fn a_standalone_node_has_its_clusters_name() {
    let setup =
        Setup::new(Scenario { cache_clusters: vec![shapes::standalone("legacy")], ..Scenario::default() });
    setup.dns.point(&shapes::standalone_host("legacy"), "10.0.1.240");
    let expected = "legacy - - redis available [10.0.1.240]:6379\ncache_cluster/legacy complete\n";
    assert_eq!(show(&setup.discover(&[cache_cluster("legacy")])), expected);
}

#[test]
fn a_serverless_cache_has_two_endpoints() {
    let setup =
        Setup::new(Scenario { serverless_caches: vec![shapes::serverless("carts")], ..Scenario::default() });
    let addresses = ["10.0.1.12", "10.0.1.10", "10.0.1.11"].map(|address| address.parse().unwrap());
    setup.dns.set(&shapes::serverless_host("carts"), Answer::Addresses(addresses.into()));
    let expected = "\
carts - - valkey+tls available [10.0.1.10 10.0.1.11 10.0.1.12]:6379
carts/reader - reader valkey+tls available [10.0.1.10 10.0.1.11 10.0.1.12]:6380
serverless_cache/carts complete
";
    assert_eq!(show(&setup.discover(&[serverless_cache("carts")])), expected);
}

#[test]
fn a_public_serverless_cache_needs_no_gateway() {
    let mut cache = shapes::serverless("carts");
    cache["ConnectionType"] = json!("public");
    let setup = Setup::new(Scenario { serverless_caches: vec![cache], ..Scenario::default() });
    let expected =
        "serverless_cache/carts failed: carts has a public endpoint: clients reach it without a gateway\n";
    assert_eq!(show(&setup.discover(&[serverless_cache("carts")])), expected);
}

#[test]
fn a_global_datastore_member_is_an_ordinary_group() {
    let group = Group::new("my-cluster", 2);
    let setup = Setup::with_group(&group);
    setup.aws.change(|scenario| {
        let info = json!({"GlobalReplicationGroupId": "ldgnf-global", "GlobalReplicationGroupMemberRole": "SECONDARY"});
        scenario.replication_groups[0]["GlobalReplicationGroupInfo"] = info;
        // The secondary's first node only follows.
        scenario.replication_groups[0]["NodeGroups"][0]["NodeGroupMembers"][0]["CurrentRole"] = json!("replica");
    });
    let expected = "\
my-cluster-001 0001 replica redis available [10.0.1.230]:6379
my-cluster-002 0001 replica redis available [10.0.1.231]:6379
replication_group/my-cluster complete
";
    assert_eq!(show(&setup.discover(&[replication_group("my-cluster")])), expected);
}

#[test]
fn only_the_caches_address_families_are_queried() {
    for (network, expected) in
        [("ipv4", "10.0.1.230"), ("ipv6", "fd12::230"), ("dual_stack", "10.0.1.230 fd12::230")]
    {
        let group = Group { network: network.into(), ..Group::new("my-cluster", 1) };
        let setup = Setup::with_group(&group);
        let both = ["10.0.1.230", "fd12::230"].map(|address| address.parse().unwrap());
        setup.dns.set(&group.host("my-cluster-001"), Answer::Addresses(both.into()));
        let found = show(&setup.discover(&[replication_group("my-cluster")]));
        assert!(found.contains(&format!("[{expected}]:6379\n")), "{network}: {found}");
    }
}

#[test]
fn tags_select_caches_that_carry_all_of_them() {
    let (dev, live) = (Group::new("dev-group", 1), Group::new("live-group", 1));
    let mut scenario = Scenario {
        cache_clusters: vec![shapes::memcached("dev-sessions", 1)],
        serverless_caches: vec![shapes::serverless("dev-carts")],
        ..Scenario::default()
    };
    dev.add_to(&mut scenario);
    live.add_to(&mut scenario);
    let of =
        |environment: &str, team: &str| crate::setup::owned(&[("Environment", environment), ("Team", team)]);
    let arn = |value: &serde_json::Value| value["ARN"].as_str().unwrap().to_owned();
    scenario.tags = [
        (dev.arn(), of("dev", "web")),
        (live.arn(), of("live", "web")),
        (arn(&scenario.cache_clusters[0]), of("dev", "web")),
        (arn(&scenario.serverless_caches[0]), of("dev", "shop")),
    ]
    .into();
    let setup = Setup::new(scenario);
    for (host, address) in [
        (dev.host("dev-group-001"), "10.0.1.230"),
        (live.host("live-group-001"), "10.0.1.231"),
        (shapes::memcached_host("dev-sessions", 1), "10.0.1.232"),
        (shapes::serverless_host("dev-carts"), "10.0.1.233"),
    ] {
        setup.dns.point(&host, address);
    }
    let names = |source| {
        let found = setup.discover(&[source]);
        found.nodes.iter().map(|node| node.id.to_string()).collect::<Vec<_>>()
    };
    let of_dev = ["dev-carts", "dev-carts/reader", "dev-sessions-0001", "dev-group-001"];
    assert_eq!(names(tags(&[("Environment", "dev")])), of_dev);
    assert_eq!(names(tags(&[("Environment", "dev"), ("Team", "shop")])), ["dev-carts", "dev-carts/reader"]);
    assert_eq!(names(tags(&[("Environment", "test")])), Vec::<String>::new());
}

#[test]
fn a_cache_in_two_sources_belongs_to_the_first() {
    let group = Group::new("my-cluster", 2);
    let setup = Setup::with_group(&group);
    setup.aws.change(|scenario| {
        scenario.tags.insert(group.arn(), crate::setup::owned(&[("Environment", "dev")]));
    });
    let found = setup.discover(&[replication_group("my-cluster"), tags(&[("Environment", "dev")])]);
    let expected = "\
my-cluster-001 0001 primary redis available [10.0.1.230]:6379
my-cluster-002 0001 replica redis available [10.0.1.231]:6379
replication_group/my-cluster complete
tags/Environment=dev complete
";
    assert_eq!(show(&found), expected);
}

#[test]
fn an_unknown_name_lists_similar_ones() {
    let setup = Setup::with_group(&Group::new("my-cluster", 1));
    setup.aws.change(|scenario| scenario.cache_clusters.push(shapes::memcached("sessions", 1)));
    let found = setup.discover(&[
        replication_group("my-clutser"),
        cache_cluster("session"),
        replication_group("sessions"),
    ]);
    let expected = "\
replication_group/my-clutser failed: no replication group \"my-clutser\" in us-east-2 (near: my-cluster)
cache_cluster/session failed: no cache cluster \"session\" in us-east-2 (near: sessions)
replication_group/sessions failed: no replication group \"sessions\" in us-east-2 (there is a cache_cluster of this name)
";
    assert_eq!(show(&found), expected);
}

#[test]
fn independent_calls_run_in_parallel() {
    let setup = Setup::with_group(&Group::new("my-cluster", 1));
    setup.aws.change(|scenario| {
        scenario.serverless_caches.push(shapes::serverless("carts"));
        scenario.delay_ms = 200;
    });
    setup.discover(&[replication_group("my-cluster"), serverless_cache("carts")]);
    assert_eq!((setup.aws.calls().len(), setup.aws.most_at_once()), (3, 3));
}

#[test]
fn only_needed_calls_are_made() {
    let setup =
        Setup::new(Scenario { cache_clusters: vec![shapes::standalone("legacy")], ..Scenario::default() });
    setup.discover(&[cache_cluster("legacy")]);
    let calls: Vec<String> =
        setup.aws.calls().into_iter().map(|call| call.action + " " + &call.region).collect();
    assert_eq!(calls, ["DescribeCacheClusters us-east-2"]);
}

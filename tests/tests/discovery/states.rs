//! Caches that are being created, changed and deleted, and inconsistent answers.

use cachenat_tests::fake_aws::{
    Fault, How, Scenario,
    shapes::{self, Group},
};
use discovery::{Coverage, Expose, Source};
use serde_json::{Value, json};

use crate::setup::{Setup, cache_cluster, replication_group, serverless_cache, show, tags};

fn set_status(scenario: &mut Scenario, status: &str) {
    scenario.replication_groups.iter_mut().for_each(|group| group["Status"] = json!(status));
    for cluster in &mut scenario.cache_clusters {
        cluster["CacheClusterStatus"] = json!(status);
        cluster["CacheNodes"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .for_each(|node| node["CacheNodeStatus"] = json!(status));
    }
}

/// As the API shows a cache that has no endpoints.
fn drop_endpoints(scenario: &mut Scenario) {
    let without = |value: &mut Value, key: &str| value.as_object_mut().unwrap().remove(key);
    for group in &mut scenario.replication_groups {
        without(group, "ConfigurationEndpoint");
        for shard in group["NodeGroups"].as_array_mut().unwrap() {
            without(shard, "PrimaryEndpoint");
            without(shard, "ReaderEndpoint");
            shard["NodeGroupMembers"].as_array_mut().unwrap().iter_mut().for_each(|member| {
                without(member, "ReadEndpoint");
            });
        }
    }
    for cluster in &mut scenario.cache_clusters {
        without(cluster, "CacheNodes");
    }
}

#[test]
fn a_modifying_cache_is_usable() {
    for status in ["modifying", "snapshotting", "rebooting cluster nodes", "create-failed?", "UNHEARD-OF"] {
        let setup = Setup::with_group(&Group::new("my-cluster", 1));
        setup.aws.change(|scenario| set_status(scenario, status));
        let expected = format!(
            "my-cluster-001 0001 primary redis {} [10.0.1.230]:6379\nreplication_group/my-cluster complete\n",
            status.to_lowercase()
        );
        assert_eq!(show(&setup.discover(&[replication_group("my-cluster")])), expected);
    }
}

#[test]
fn a_creating_cache_is_incomplete() {
    let setup = Setup::with_group(&Group::new("my-cluster", 2));
    setup.aws.change(|scenario| {
        set_status(scenario, "creating");
        drop_endpoints(scenario);
    });
    let source = Source::ReplicationGroup { id: "my-cluster".into(), expose: Expose::all() };
    let found = setup.discover(&[source]);
    let expected = "\
my-cluster/primary - primary redis creating []:6379 ! no endpoint yet (creating)
my-cluster/reader - reader redis creating []:6379 ! no endpoint yet (creating)
my-cluster-001 0001 primary redis creating []:6379 ! no endpoint yet (creating)
my-cluster-002 0001 replica redis creating []:6379 ! no endpoint yet (creating)
replication_group/my-cluster partial: my-cluster/primary: no endpoint yet (creating) (and 3 more)
";
    assert_eq!(show(&found), expected);
    assert!(!found.is_complete());
}

#[test]
fn a_new_group_without_members_is_not_empty() {
    let setup = Setup::with_group(&Group::new("my-cluster", 1));
    setup.aws.change(|scenario| {
        scenario.cache_clusters.clear();
        scenario.replication_groups[0] =
            json!({"ReplicationGroupId": "my-cluster", "Status": "creating", "ClusterEnabled": false});
    });
    let found = setup.discover(&[replication_group("my-cluster")]);
    assert_eq!(show(&found), "replication_group/my-cluster partial: my-cluster names no nodes (creating)\n");
    assert_eq!(found.sources[0].coverage, Coverage::Part);
}

#[test]
fn a_new_memcached_cluster_is_not_empty() {
    let setup = Setup::new(Scenario {
        cache_clusters: vec![shapes::memcached("sessions", 0)],
        ..Scenario::default()
    });
    setup.aws.change(|scenario| scenario.cache_clusters[0]["CacheClusterStatus"] = json!("creating"));
    let found = setup.discover(&[cache_cluster("sessions")]);
    assert_eq!(show(&found), "cache_cluster/sessions partial: sessions names no nodes (creating)\n");
    assert_eq!(found.sources[0].coverage, Coverage::Part);
}

#[test]
fn a_deleting_node_is_not_awaited() {
    let setup = Setup::with_group(&Group::new("my-cluster", 1));
    setup.aws.change(|scenario| {
        set_status(scenario, "deleting");
        drop_endpoints(scenario);
    });
    let found = setup.discover(&[replication_group("my-cluster")]);
    let expected = "\
my-cluster-001 0001 primary redis deleting []:6379 ! no endpoint yet (deleting)
replication_group/my-cluster complete
";
    assert_eq!(show(&found), expected);
    assert!(found.is_complete());
}

#[test]
fn serverless_states_are_lower_case() {
    let cache = json!({"ServerlessCacheName": "carts", "Status": "CREATING", "Engine": "redis"});
    let setup = Setup::new(Scenario { serverless_caches: vec![cache], ..Scenario::default() });
    let expected = "\
carts - - redis+tls creating []:6379 ! no endpoint yet (creating)
serverless_cache/carts partial: carts: no endpoint yet (creating)
";
    assert_eq!(show(&setup.discover(&[serverless_cache("carts")])), expected);
}

#[test]
fn an_unlisted_member_makes_the_answer_partial() {
    let setup = Setup::with_group(&Group::sharded("my-cluster", 1, 2));
    setup.aws.change(|scenario| {
        scenario.cache_clusters.remove(1);
    });
    let found = setup.discover(&[replication_group("my-cluster")]);
    assert_eq!(found.sources[0].coverage, Coverage::Part);
    let error = found.sources[0].error.clone().unwrap();
    let expected = "my-cluster-0001-002 is named by the group, but not by DescribeCacheClusters";
    assert!(error.starts_with(expected), "{error}");
    assert_eq!(found.nodes.len(), 2);
}

#[test]
fn a_member_missing_from_the_group_is_listed() {
    let group = Group::new("my-cluster", 3);
    let setup = Setup::with_group(&group);
    setup.aws.change(|scenario| {
        scenario.replication_groups[0]["NodeGroups"][0]["NodeGroupMembers"].as_array_mut().unwrap().pop();
        scenario.replication_groups[0]["MemberClusters"].as_array_mut().unwrap().pop();
    });
    let expected = "\
my-cluster-001 0001 primary redis available [10.0.1.230]:6379
my-cluster-002 0001 replica redis available [10.0.1.231]:6379
my-cluster-003 0001 - redis available [10.0.1.232]:6379
replication_group/my-cluster complete
";
    assert_eq!(show(&setup.discover(&[replication_group("my-cluster")])), expected);
}

/// 100 groups of one node, of which the last is the one that is asked for.
fn crowd(page_size: usize) -> Setup {
    let mut scenario = Scenario { page_size: Some(page_size), ..Scenario::default() };
    let groups: Vec<Group> = (0..100).map(|n| Group::new(&format!("cluster-{n:03}"), 1)).collect();
    groups.iter().for_each(|group| group.add_to(&mut scenario));
    let setup = Setup::new(scenario);
    for (n, group) in groups.iter().enumerate() {
        setup.dns.point(&group.host(&format!("{}-001", group.id)), &format!("10.0.3.{n}"));
    }
    setup
}

#[test]
fn a_hundred_caches_span_several_pages() {
    let setup = crowd(30);
    let sources: Vec<Source> = (0..100).map(|n| replication_group(&format!("cluster-{n:03}"))).collect();
    let found = setup.discover(&sources);
    let addresses: Vec<String> = found.nodes.iter().map(|node| node.addresses[0].to_string()).collect();
    assert_eq!(addresses, (0..100).map(|n| format!("10.0.3.{n}")).collect::<Vec<_>>());
    assert!(found.is_complete());
    assert_eq!(setup.aws.count("DescribeCacheClusters"), 4);
}

#[test]
fn a_cache_between_pages_is_not_deleted() {
    // The first groups are deleted between page 1 and page 2, so that what would open page 2 is never listed.
    let setup = crowd(30);
    let mut later = Scenario { page_size: Some(30), ..Scenario::default() };
    (1..100).for_each(|n| Group::new(&format!("cluster-{n:03}"), 1).add_to(&mut later));
    let fault = |action| Fault::of(action, How::Becomes(Box::new(later.clone()))).on_page(2).times(1);
    setup.aws.change(|scenario| {
        scenario.faults = vec![fault("DescribeReplicationGroups"), fault("DescribeCacheClusters")];
    });
    let found = setup.discover(&[replication_group("cluster-030")]);
    let expected = "\
cluster-030-001 0001 primary redis available [10.0.3.30]:6379
replication_group/cluster-030 complete
";
    assert_eq!(show(&found), expected);
}

/// Groups from `first` on, each time with one group less while page 2 is read; cluster-030 has the tag.
///
/// The list of clusters does not shrink: it is read at the same time, so how many of its readings saw a change would be
/// chance.
fn shrinking(first: usize, times: usize) -> Scenario {
    let mut scenario = Scenario { page_size: Some(30), ..Scenario::default() };
    for n in 0..100 {
        let group = Group::new(&format!("cluster-{n:03}"), 1);
        if n == 30 {
            scenario.tags.insert(group.arn(), [("Environment".to_owned(), "dev".to_owned())].into());
        }
        group.add_to(&mut scenario);
    }
    scenario.replication_groups.drain(..first);
    if times > 0 {
        let later = How::Becomes(Box::new(shrinking(first + 1, times - 1)));
        scenario.faults = vec![Fault::of("DescribeReplicationGroups", later).on_page(2).times(1)];
    }
    scenario
}

#[test]
fn a_tagged_cache_between_pages_is_found() {
    for (times, readings) in [(0, 2), (1, 3), (2, 4)] {
        let setup = crowd(30);
        setup.aws.set(shrinking(0, times));
        // The group that opens page 2 slips to page 1, which was read already.
        setup.aws.change(|scenario| scenario.tags = shrinking(0, 0).tags);
        let found = setup.discover(&[tags(&[("Environment", "dev")])]);
        let expected = "\
cluster-030-001 0001 primary redis available [10.0.3.30]:6379
tags/Environment=dev complete
";
        assert_eq!(show(&found), expected, "{times}");
        let pages = setup.aws.count("DescribeReplicationGroups");
        assert_eq!(pages.div_ceil(4), readings, "{times}: {pages} pages");
    }
}

#[test]
fn an_unstable_list_is_incomplete() {
    let setup = crowd(30);
    setup.aws.set(shrinking(0, 9));
    let found = setup.discover(&[tags(&[("Environment", "dev")])]);
    assert_eq!(found.sources[0].coverage, Coverage::Part, "{}", show(&found));
    let expected = "DescribeReplicationGroups: the list changed during each of 4 readings";
    assert!(found.sources[0].error.as_ref().unwrap().contains(expected), "{}", show(&found));
}

#[test]
fn endless_pages_are_an_error() {
    let setup = crowd(1);
    setup.aws.change(|scenario| scenario.loop_pages = true);
    let found = setup.discover(&[replication_group("cluster-099")]);
    let expected =
        "replication_group/cluster-099 failed: DescribeReplicationGroups, page 2: the pages do not end\n";
    assert_eq!(show(&found), expected);
}

#[test]
fn a_cache_with_unreadable_tags_is_incomplete() {
    let group = Group::new("my-cluster", 1);
    let setup = Setup::with_group(&group);
    setup.aws.change(|scenario| set_status(scenario, "modifying"));
    let found = setup.discover(&[tags(&[("Environment", "dev")])]);
    assert_eq!(found.sources[0].coverage, Coverage::Part);
    let error = found.sources[0].error.clone().unwrap();
    assert!(
        error.contains("replicationgroup:my-cluster: ListTagsForResource: InvalidReplicationGroupState"),
        "{error}"
    );
}

#[test]
fn api_nonsense_is_kept_out_of_names() {
    let setup = Setup::with_group(&Group::sharded("my-cluster", 1, 4));
    setup.aws.change(|scenario| {
        let clusters = &mut scenario.cache_clusters;
        clusters[0]["CacheClusterStatus"] = json!("\u{1b}[2Jgone");
        clusters[1]["CacheNodes"][0]["Endpoint"] = json!({"Address": "a b\u{7}.example", "Port": 6379});
        clusters[2]["CacheNodes"][0]["Endpoint"] = json!({"Address": "c.example", "Port": 0});
        clusters[3]["CacheClusterId"] = json!("evil\" } flush ruleset");
    });
    let found = show(&setup.discover(&[replication_group("my-cluster")]));
    assert!(!found.chars().any(|c| c.is_control() && c != '\n'), "{found:?}");
    let expected = [
        "my-cluster-0001-001 0001 - redis ?[2jgone [10.0.1.230]:6379\n",
        "my-cluster-0001-002 0001 - redis available []:6379 ! the endpoint \"a b?.example\" is no name (available)\n",
        "my-cluster-0001-003 0001 - redis available []:6379 ! the endpoint c.example has no port (available)\n",
        "cannot stand in a name",
    ];
    for line in expected {
        assert!(found.contains(line), "{line} is not in\n{found}");
    }
    assert!(!found.lines().any(|line| line.starts_with("evil")), "{found}");
}

/// Two caches with a tag, the one as it should be and the other of this status, which names no nodes.
fn tagged_with(status: &str) -> Setup {
    let setup = Setup::with_group(&Group::new("good", 2));
    setup.aws.change(|scenario| {
        scenario.replication_groups.push(json!({
            "ReplicationGroupId": "bad", "Status": status, "ClusterEnabled": false,
            "ARN": "arn:aws:elasticache:us-east-2:123456789012:replicationgroup:bad",
        }));
        let arns: Vec<String> = scenario
            .replication_groups
            .iter()
            .map(|group| group["ARN"].as_str().unwrap().to_owned())
            .collect();
        for arn in arns {
            scenario.tags.insert(arn, [("Environment".to_owned(), "dev".to_owned())].into());
        }
    });
    setup
}

/// Such a cache may stay so for months.
#[test]
fn a_failed_cache_is_a_complete_answer() {
    for status in ["create-failed", "incompatible-network", "incompatible-parameters", "restore-failed"] {
        let setup = tagged_with(status);
        let found = setup.discover(&[tags(&[("Environment", "dev")])]);
        assert!(found.is_complete(), "{}", show(&found));
        assert_eq!(found.sources[0].remarks, [format!("bad is {status}, and its tags are not told")]);
        assert_eq!(found.nodes.len(), 2);
        let found = setup.discover(&[replication_group("bad")]);
        assert!(found.is_complete(), "{}", show(&found));
        assert_eq!(found.sources[0].remarks, [format!("bad names no nodes ({status})")]);
    }
}

#[test]
fn one_incomplete_cache_does_not_affect_others() {
    let found = tagged_with("creating").discover(&[tags(&[("Environment", "dev")])]);
    let report = &found.sources[0];
    assert_eq!((report.coverage, &report.in_doubt[..]), (Coverage::Part, &["bad".into()][..]));
    assert!(report.doubts("bad") && !report.doubts("good"));
}

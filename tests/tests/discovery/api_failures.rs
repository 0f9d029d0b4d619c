//! Failures of the API.

use std::time::{Duration, Instant};

use cachenat_tests::fake_aws::{
    Fault, How, Scenario,
    shapes::{self, Group},
};
use discovery::{Coverage, Inventory, Options, Outcome};

use crate::setup::{Setup, cache_cluster, replication_group, serverless_cache, show, tags};

/// The group with this fault in its way, and what discovery then says about the source.
fn with_fault(fault: Fault) -> (Setup, Inventory) {
    let setup = Setup::with_group(&Group::new("my-cluster", 2));
    setup.aws.change(|scenario| scenario.faults = vec![fault]);
    let found = setup.discover(&[replication_group("my-cluster")]);
    (setup, found)
}

fn groups_error(how: How) -> String {
    let (_setup, found) = with_fault(Fault::of("DescribeReplicationGroups", how));
    assert_eq!((found.nodes.len(), found.sources[0].coverage), (0, Coverage::Nothing), "{}", show(&found));
    found.sources[0].error.clone().unwrap()
}

#[test]
fn a_brief_throttle_is_retried() {
    for code in ["Throttling", "ThrottlingException", "RequestLimitExceeded"] {
        let fault = Fault::of("DescribeReplicationGroups", How::error(code, "Rate exceeded")).times(2);
        let (setup, found) = with_fault(fault);
        assert!(found.is_complete(), "{code}: {}", show(&found));
        assert_eq!(setup.aws.count("DescribeReplicationGroups"), 3);
    }
}

#[test]
fn a_lasting_throttle_is_reported_with_its_code() {
    for code in ["Throttling", "ThrottlingException", "RequestLimitExceeded"] {
        let expected = format!("DescribeReplicationGroups: throttled by AWS ({code}), also after retries");
        assert_eq!(groups_error(How::error(code, "Rate exceeded")), expected);
    }
}

#[test]
fn a_throttled_second_page_keeps_the_first() {
    let mut scenario = Scenario { page_size: Some(2), ..Scenario::default() };
    let groups: Vec<Group> = (1..=3).map(|n| Group::sharded(&format!("cluster-{n}"), 1, 2)).collect();
    groups.iter().for_each(|group| group.add_to(&mut scenario));
    let throttle = How::error("Throttling", "Rate exceeded");
    scenario.faults = vec![Fault::of("DescribeCacheClusters", throttle).on_page(2)];
    let setup = Setup::new(scenario);
    setup.point_members(&groups[0]);
    let found = setup.discover(&[replication_group("cluster-1"), replication_group("cluster-2")]);
    let error = "DescribeCacheClusters, page 2: throttled by AWS (Throttling), also after retries";
    let expected = format!(
        "\
cluster-1-0001-001 0001 - redis available [10.0.1.230]:6379
cluster-1-0001-002 0001 - redis available [10.0.1.231]:6379
cluster-2-0001-001 0001 - redis available []:6379 ! no endpoint yet (available)
cluster-2-0001-002 0001 - redis available []:6379 ! no endpoint yet (available)
replication_group/cluster-1 partial: {error}
replication_group/cluster-2 partial: {error}; cluster-2-0001-001: no endpoint yet (available) (and 1 more)
"
    );
    assert_eq!(show(&found), expected);
    assert_eq!(found.sources[0].coverage, Coverage::Part);
}

#[test]
fn a_denied_call_names_the_iam_action() {
    let setup = Setup::with_group(&Group::new("my-cluster", 2));
    setup.aws.change(|scenario| scenario.serverless_caches.push(shapes::serverless("carts")));
    let message = "User: arn:aws:sts::123456789012:assumed-role/nat/i-0 is not authorized";
    let cases = [
        ("DescribeReplicationGroups", 0, Outcome::Failed),
        ("DescribeCacheClusters", 0, Outcome::Partial),
        ("DescribeServerlessCaches", 1, Outcome::Failed),
    ];
    for (action, source, outcome) in cases {
        let fault = Fault::of(action, How::error("AccessDenied", message));
        setup.aws.change(|scenario| scenario.faults = vec![fault]);
        let found = setup.discover(&[replication_group("my-cluster"), serverless_cache("carts")]);
        assert_eq!(found.sources[source].outcome, outcome, "{}", show(&found));
        let error = found.sources[source].error.clone().unwrap();
        let expected = format!(
            "{action}: not allowed: add elasticache:{action} to the IAM policy of this role ({message})"
        );
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn an_unsharded_group_needs_no_cluster_listing() {
    let fault = Fault::of("DescribeCacheClusters", How::error("AccessDenied", "no"));
    let (_setup, found) = with_fault(fault);
    assert_eq!(found.nodes.iter().filter(|node| !node.addresses.is_empty()).count(), 2);
}

#[test]
fn denied_tags_are_reported_and_keep_known_caches() {
    let setup = Setup::with_group(&Group::new("my-cluster", 1));
    let fault = Fault::of("ListTagsForResource", How::error("AccessDenied", "no"));
    setup.aws.change(|scenario| scenario.faults = vec![fault]);
    let found = setup.discover(&[tags(&[("Environment", "dev")])]);
    assert_eq!(found.sources[0].coverage, Coverage::Part);
    let error = found.sources[0].error.clone().unwrap();
    assert!(error.contains("add elasticache:ListTagsForResource to the IAM policy"), "{error}");
}

#[test]
fn expired_and_unknown_credentials_are_distinguished() {
    let expired =
        groups_error(How::error("ExpiredToken", "The security token included in the request is expired"));
    assert!(expired.contains("the AWS credentials are expired"), "{expired}");
    let unknown = groups_error(How::error("InvalidClientTokenId", "The security token is invalid"));
    assert!(unknown.contains("AWS does not accept the credentials (InvalidClientTokenId"), "{unknown}");
}

#[test]
fn an_html_page_is_not_an_answer() {
    let expected = "DescribeReplicationGroups: the answer makes no sense (HTTP 500): <html><body><h1>500</h1>&nbsp;</body>";
    assert_eq!(groups_error(How::Html), expected);
}

#[test]
fn a_truncated_xml_body_is_not_an_answer() {
    let expected = "DescribeReplicationGroups: the answer makes no sense (HTTP 200): the XML breaks off";
    assert_eq!(groups_error(How::HalfXml), expected);
}

#[test]
fn a_broken_off_answer_is_refused() {
    let error = groups_error(How::HalfBody);
    assert!(
        error.starts_with("DescribeReplicationGroups: the answer makes no sense (HTTP 200): "),
        "{error}"
    );
    let (_setup, found) = with_fault(Fault::of("DescribeReplicationGroups", How::HalfBody).times(1));
    assert!(found.is_complete(), "one broken answer is tried again: {}", show(&found));
}

#[test]
fn a_reset_connection_is_reported() {
    let expected = "DescribeReplicationGroups: no connection: Connection reset by peer (os error 104)";
    assert_eq!(groups_error(How::Reset), expected);
}

#[test]
fn an_unreachable_api_is_reported() {
    let setup = Setup::new(Scenario::default());
    // Port 9 of loopback: nothing listens there.
    let options = Options { endpoint: Some("http://127.0.0.1:9".into()), ..setup.options() };
    let found = setup.discover_with(&[cache_cluster("sessions")], &options);
    let error = found.sources[0].error.clone().unwrap();
    assert!(error.starts_with("DescribeCacheClusters: no connection: "), "{error}");
    assert!(error.contains("refused"), "{error}");
}

#[test]
fn a_hanging_api_times_out() {
    let began = Instant::now();
    let error = groups_error(How::Hang);
    assert!(error.starts_with("DescribeReplicationGroups: no answer in time"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

#[test]
fn clock_skew_is_corrected_from_the_services_date() {
    for seconds in [3600, -3600] {
        let setup = Setup::with_group(&Group::new("my-cluster", 1));
        setup.aws.change(|scenario| scenario.clock_ahead_s = seconds);
        let found = setup.discover(&[replication_group("my-cluster")]);
        assert!(found.is_complete(), "{}", show(&found));
    }
}

#[test]
fn a_lasting_clock_error_names_the_clock() {
    let error = groups_error(How::error("RequestExpired", "Request has expired."));
    assert!(error.contains("set this host's clock"), "{error}");
}

#[test]
fn a_failed_source_does_not_affect_others() {
    let group = Group::new("my-cluster", 1);
    let mut scenario = Scenario { cache_clusters: vec![shapes::standalone("legacy")], ..Scenario::default() };
    group.add_to(&mut scenario);
    scenario.faults = vec![Fault::of("DescribeReplicationGroups", How::error("InternalFailure", "oops"))];
    let setup = Setup::new(scenario);
    setup.dns.point(&shapes::standalone_host("legacy"), "10.0.1.240");
    let found = setup.discover(&[replication_group("my-cluster"), cache_cluster("legacy")]);
    let expected = "\
legacy - - redis available [10.0.1.240]:6379
replication_group/my-cluster failed: DescribeReplicationGroups: InternalFailure: oops
cache_cluster/legacy complete
";
    assert_eq!(show(&found), expected);
}

const GROUPS: &str = "<DescribeReplicationGroupsResponse><DescribeReplicationGroupsResult>";

/// An answer that begins as it should, and then repeats a piece without end.
fn flood(piece: &str) -> How {
    How::Flood { begin: format!("{GROUPS}<ReplicationGroups>"), piece: piece.to_owned() }
}

#[test]
fn an_endless_answer_is_refused() {
    let words = "x".repeat(1 << 16);
    for (piece, bound) in [
        (words.as_str(), "67108864 bytes"),
        ("<a>", "150000 elements"),
        ("<ReplicationGroup/>", "150000 elements"),
    ] {
        let error = groups_error(flood(piece));
        let expected = format!(
            "DescribeReplicationGroups: the answer makes no sense (HTTP 200): it has more than {bound}"
        );
        assert_eq!(error, expected);
    }
}

#[test]
fn a_slow_drip_hits_the_deadline() {
    let setup = Setup::with_group(&Group::new("my-cluster", 2));
    let drip = How::Drip { piece: "<a>".to_owned() };
    setup.aws.change(|scenario| scenario.faults = vec![Fault::of("DescribeReplicationGroups", drip)]);
    let options = Options { api_deadline: Duration::from_secs(1), ..setup.options() };
    let found = setup.discover_with(&[replication_group("my-cluster")], &options);
    let error = found.sources[0].error.clone().unwrap();
    assert_eq!(error, "DescribeReplicationGroups: no answer in time (the time for all calls together is up)");
}

/// Elements inside elements, as deep as fits: reading them must not overflow the stack.
#[test]
fn deep_nesting_is_refused() {
    let deep = "<a>".repeat(60_000) + &"</a>".repeat(60_000);
    let body =
        format!("{GROUPS}{deep}</DescribeReplicationGroupsResult></DescribeReplicationGroupsResponse>");
    let (_setup, found) = with_fault(Fault::of("DescribeReplicationGroups", How::Body { body }));
    assert_eq!(found.nodes.len(), 0, "{}", show(&found));
}

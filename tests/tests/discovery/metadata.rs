//! Instance metadata.

use std::{sync::Arc, time::Duration};

use cachenat_tests::fake_aws::{Fault, How, Scenario, shapes};
use discovery::{Imds, InstanceFacts, Options};

use crate::setup::{Setup, block_on, cache_cluster, owned, show};

const MAC: &str = "network/interfaces/macs/02:00:00:00:00:01";

fn instance() -> Setup {
    let mut imds = owned(&[
        ("mac", "02:00:00:00:00:01"),
        ("local-ipv4", "10.0.0.55"),
        ("public-ipv4", "203.0.113.73"),
        ("placement/region", "us-east-2"),
    ]);
    for (leaf, value) in [
        ("local-ipv4s", "10.0.0.55\n10.0.0.56"),
        ("public-ipv4s", "203.0.113.73\n203.0.113.74"),
        ("ipv4-associations/203.0.113.73", "10.0.0.55"),
        ("ipv4-associations/203.0.113.74", "10.0.0.56"),
        ("vpc-id", "vpc-0example"),
        ("subnet-id", "subnet-0example"),
        ("vpc-ipv4-cidr-blocks", "10.0.0.0/16\n100.64.0.0/16"),
        ("vpc-ipv6-cidr-blocks", "2001:db8::/56"),
    ] {
        imds.insert(format!("{MAC}/{leaf}"), value.to_owned());
    }
    Setup::new(Scenario { imds: Some(imds), ..Scenario::default() })
}

fn facts(setup: &Setup) -> Option<InstanceFacts> {
    block_on(async { Imds::at(setup.aws.url()).facts().await.map(Arc::unwrap_or_clone) })
}

#[test]
fn addresses_ranges_and_region_come_from_imdsv2() {
    let expected = InstanceFacts {
        region: Some("us-east-2".into()),
        mac: Some("02:00:00:00:00:01".into()),
        local_ipv4: Some([10, 0, 0, 55].into()),
        public_ipv4: Some([203, 0, 113, 73].into()),
        local_ipv4s: vec![[10, 0, 0, 55].into(), [10, 0, 0, 56].into()],
        public_ipv4s: vec![[203, 0, 113, 73].into(), [203, 0, 113, 74].into()],
        associations: [
            ([10, 0, 0, 55].into(), [203, 0, 113, 73].into()),
            ([10, 0, 0, 56].into(), [203, 0, 113, 74].into()),
        ]
        .into(),
        ipv6s: vec![],
        vpc_id: Some("vpc-0example".into()),
        subnet_id: Some("subnet-0example".into()),
        vpc_cidrs: ["10.0.0.0/16", "100.64.0.0/16", "2001:db8::/56"]
            .map(|range| range.parse().unwrap())
            .into(),
    };
    assert_eq!(facts(&instance()), Some(expected));
}

#[test]
fn an_instance_can_have_no_public_address() {
    let setup = instance();
    setup.aws.change(|scenario| {
        scenario.imds.as_mut().unwrap().remove("public-ipv4");
    });
    let facts = facts(&setup).unwrap();
    assert_eq!((facts.public_ipv4, facts.local_ipv4), (None, Some([10, 0, 0, 55].into())));
}

#[test]
fn nonsense_metadata_is_ignored() {
    let setup = instance();
    setup.aws.change(|scenario| {
        let imds = scenario.imds.as_mut().unwrap();
        imds.insert("local-ipv4".into(), "<html>".into());
        imds.insert("placement/region".into(), "us-east-2\u{1b}[2J".into());
        imds.insert(format!("{MAC}/vpc-ipv4-cidr-blocks"), "everything\n10.0.0.0/16".into());
    });
    let facts = facts(&setup).unwrap();
    assert_eq!((facts.local_ipv4, facts.region, facts.vpc_cidrs.len()), (None, None, 2));
}

/// A watch that starts just before the service answers must still get its answers later.
#[test]
fn metadata_recovers_after_a_silent_start() {
    let setup = instance();
    let imds = setup.aws.scenario().imds;
    setup.aws.change(|scenario| scenario.imds = None);
    let service = Imds::at(setup.aws.url()).asked_again_after(Duration::ZERO);
    block_on(async {
        assert_eq!(service.facts().await, None);
        // The token first, which another answer of the service's would have brought.
        setup.aws.change(|scenario| scenario.imds = imds);
        let facts = service.facts().await.unwrap();
        assert_eq!(facts.region.as_deref(), Some("us-east-2"));
        setup.aws.change(|scenario| scenario.imds = None);
        assert_eq!(service.facts().await, Some(facts), "what was answered stays");
    });
}

#[test]
fn a_failed_region_lookup_is_retried() {
    let setup = instance();
    let broken = Fault::of("IMDS /latest/meta-data/placement/region", How::Reset).times(1);
    setup.aws.change(|scenario| scenario.faults = vec![broken]);
    let imds = Imds::at(setup.aws.url()).asked_again_after(Duration::ZERO);
    block_on(async {
        let facts = imds.facts().await.unwrap();
        assert_eq!((facts.region.clone(), facts.vpc_cidrs.len()), (None, 3));
        assert_eq!(imds.facts().await.unwrap().region.as_deref(), Some("us-east-2"));
    });
}

#[test]
fn a_target_in_an_implausible_vpc_is_refused() {
    let setup = instance();
    setup.aws.change(|scenario| {
        let imds = scenario.imds.as_mut().unwrap();
        imds.insert(format!("{MAC}/vpc-ipv4-cidr-blocks"), "0.0.0.0/0".into());
        scenario.cache_clusters = vec![shapes::standalone("legacy")];
    });
    setup.dns.point(&shapes::standalone_host("legacy"), "198.51.100.9");
    let options = Options { imds: Imds::at(setup.aws.url()), ..setup.options() };
    let found = show(&setup.discover_with(&[cache_cluster("legacy")], &options));
    assert!(found.contains("0.0.0.0/0 is the VPC, which is larger than AWS allows"), "{found}");
}

#[test]
fn the_vpc_resolver_is_not_a_target() {
    let setup = instance();
    setup.aws.change(|scenario| scenario.cache_clusters = vec![shapes::standalone("legacy")]);
    setup.dns.point(&shapes::standalone_host("legacy"), "10.0.0.2");
    let options = Options { imds: Imds::at(setup.aws.url()), ..setup.options() };
    let found = show(&setup.discover_with(&[cache_cluster("legacy")], &options));
    assert!(found.contains("refused: 10.0.0.2 is reserved by AWS"), "{found}");
}

#[test]
fn endless_metadata_is_refused() {
    let setup = instance();
    let flood = How::Flood { begin: "vpc-".to_owned(), piece: "0".to_owned() };
    for endless in [flood, How::Drip { piece: "0".to_owned() }] {
        let path = format!("IMDS /latest/meta-data/{MAC}/vpc-id");
        setup.aws.change(|scenario| scenario.faults = vec![Fault::of(&path, endless)]);
        let facts = facts(&setup).unwrap();
        assert_eq!((facts.vpc_id, facts.region.as_deref()), (None, Some("us-east-2")));
    }
}

#[test]
fn metadata_is_queried_once() {
    let setup = instance();
    let imds = Imds::at(setup.aws.url());
    block_on(async {
        imds.facts().await;
        imds.clone().facts().await;
    });
    assert_eq!(setup.aws.count("IMDS /latest/meta-data/mac"), 1);
    assert_eq!(setup.aws.count("IMDS /latest/api/token"), 1);
}

#[test]
fn missing_metadata_is_awaited_only_once() {
    for fault in [Some(Fault::of("IMDS", How::Hang)), None] {
        let setup = Setup::new(Scenario { faults: fault.into_iter().collect(), ..Scenario::default() });
        let imds = Imds::at(setup.aws.url());
        let asked = || setup.aws.count("IMDS /latest/api/token");
        assert_eq!(block_on(imds.facts()), None);
        let once = asked();
        assert_eq!(block_on(imds.facts()), None);
        assert_eq!(asked(), once, "the absence is remembered");
    }
}

#[test]
fn the_region_falls_back_to_the_instance() {
    let setup = instance();
    setup.aws.change(|scenario| scenario.cache_clusters = vec![shapes::standalone("legacy")]);
    setup.dns.point(&shapes::standalone_host("legacy"), "10.0.1.240");
    let options = Options { region: None, imds: Imds::at(setup.aws.url()), ..setup.options() };
    let found = setup.discover_with(&[cache_cluster("legacy")], &options);
    assert!(found.is_complete(), "{}", show(&found));
    let regions: Vec<String> =
        setup.aws.calls().into_iter().map(|call| call.region).filter(|r| !r.is_empty()).collect();
    assert_eq!(regions, ["us-east-2"]);
}

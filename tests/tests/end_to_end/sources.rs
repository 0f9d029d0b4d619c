//! `watch` and its sources: how often it polls each, and what it keeps for silent ones.

use cachenat_tests::fake_aws::{Fault, How, shapes};
use cachenat_tests::lab::Lab;
use cachenat_tests::lab::daemon::Daemon;
use cachenat_tests::lab::wait::wait_for;

use crate::common::{applied, target};

/// What the metadata service tells of an instance's role.
const ROLE: &str = r#"{"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": "not-a-secret",
    "Token": "token", "Expiration": "2099-01-01T00:00:00Z"}"#;

fn watch(lab: &Lab, interval: &str) -> Daemon {
    Daemon::start(lab.cachenat_command().args(["watch", "--interval", interval]))
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_deleted_group_does_not_slow_others() {
    let lab = applied();
    lab.write_config(&format!("{}  - serverless_cache: deleted\n", lab.plain_config()));
    let daemon = watch(&lab, "1s");
    daemon.says("no serverless cache \"deleted\"");
    // Were the healthy source asked as seldom as the other, eight rounds would take half a minute.
    let rounds = || lab.api().count("DescribeReplicationGroups");
    let begin = rounds();
    wait_for("eight rounds", || (rounds() >= begin + 8).then_some(()));
    let deleted = lab.api().count("DescribeServerlessCaches");
    assert!(deleted < rounds() / 2, "{deleted} of {} rounds", rounds());
}

/// An instance's role or region may be a moment late when it boots.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn initially_silent_metadata_is_read_later() {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 1);
    let mut command = lab.cachenat_command();
    command.env("AWS_EC2_METADATA_DISABLED", "false");
    for given in ["AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        command.env_remove(given);
    }
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", lab.api().url());
    let daemon = Daemon::start(command.args(["watch", "--interval", "1s"]));
    daemon.says("no source could be read");
    lab.api().change(|scenario| {
        let mut facts = shapes::instance("subnet-0public");
        let of_role = ("iam/security-credentials/nat", ROLE);
        for (path, fact) in [("placement/region", "us-east-2"), ("iam/security-credentials/", "nat"), of_role]
        {
            facts.insert(path.to_owned(), fact.to_owned());
        }
        scenario.imds = Some(facts);
    });
    wait_for("the forward", || {
        lab.network.nat.nft_list("tables").contains("cachenat").then(|| target(&lab, 6379))
    });
}

/// AWS's own words of a denied call are longer than what is worth printing.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_long_error_causes_no_extra_requests() {
    let lab = applied();
    let message =
        "User: arn:aws:sts::123456789012:assumed-role/nat/i-0 is not authorized to perform it ".repeat(9);
    let denied = Fault::of("DescribeServerlessCaches", How::error("AccessDenied", &message));
    lab.api().change(|scenario| scenario.faults.push(denied));
    lab.write_config(&format!("{}  - serverless_cache: carts\n", lab.plain_config()));
    let daemon = watch(&lab, "1h");
    daemon.says("not allowed: add elasticache:DescribeServerlessCaches");
    let asked = || lab.api().count("DescribeServerlessCaches");
    let before = asked();
    for _ in 0..3 {
        lab.network.nat.nft("flush ruleset");
        wait_for("the table to be back", || {
            lab.network.nat.nft_list("tables").contains("cachenat").then_some(())
        });
    }
    assert_eq!(asked(), before);
}

//! Concurrent runs: the lock is held briefly, the later answer wins, and an old configuration never widens access.

use std::fs;

use cachenat_tests::fake_aws::{Fault, How};
use cachenat_tests::lab::Lab;
use cachenat_tests::lab::daemon::Daemon;
use cachenat_tests::lab::wait::wait_for;

use crate::common::{applied, in_force, target};

/// An `apply --wait` whose sources fail until [`answering`].
pub(crate) fn waiting(lab: &Lab) -> Daemon {
    let fault = Fault { action: None, page: None, times: None, how: How::error("AccessDenied", "not yet") };
    lab.api().change(|scenario| scenario.faults.push(fault));
    let asked = lab.api().count("DescribeReplicationGroups");
    let apply = Daemon::start(lab.cachenat_command().args(["apply", "--wait", "10m"]));
    wait_for("the API to be asked", || (lab.api().count("DescribeReplicationGroups") > asked).then_some(()));
    apply
}

/// The sources answer again.
pub(crate) fn answering(lab: &Lab) {
    lab.api().change(|scenario| scenario.faults.clear());
}

fn clients(lab: &Lab) -> String {
    lab.network.nat.nft_list("set inet cachenat clients4")
}

/// The plain config with one more client.
fn wide(lab: &Lab) -> String {
    lab.plain_config().replace("clients: [", "clients: [192.0.2.9/32, ")
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_run_waiting_for_sources_blocks_none() {
    let lab = applied();
    let inventory = lab.dir().join("inventory.json");
    fs::write(&inventory, lab.cachenat(&["discover", "--json"]).exits(0).stdout).unwrap();
    let watch = Daemon::start(lab.cachenat_command().args(["watch", "--interval", "1h"]));
    let mut apply = waiting(&lab);
    lab.cachenat(&["apply", "--inventory", inventory.to_str().unwrap()]).exits(0);
    lab.network.nat.nft("flush ruleset");
    wait_for("the repair", || in_force(&lab).contains("my-cluster-001").then_some(()));
    answering(&lab);
    assert_eq!(apply.end().code(), Some(0), "{:?}", apply.said());
    drop(watch);
}

/// The run that waits has an answer that is older than the rules of the other.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_older_answer_does_not_replace_a_newer() {
    let mut lab = applied();
    // One answer of before the change, which then takes its time.
    lab.api().change(|scenario| scenario.delay_ms = 3000);
    let asked = lab.api().count("DescribeReplicationGroups");
    let mut early = Daemon::start(lab.cachenat_command().arg("apply"));
    wait_for("the API to be asked", || (lab.api().count("DescribeReplicationGroups") > asked).then_some(()));
    lab.api().change(|scenario| scenario.delay_ms = 0);
    let id = lab.add_node("my-cluster");
    lab.cachenat(&["apply"]).exits(0);
    assert!(in_force(&lab).contains(&id));
    assert_eq!(early.end().code(), Some(0), "{:?}", early.said());
    assert!(in_force(&lab).contains(&id), "{:?}", early.said());
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_planted_timestamp_blocks_no_run() {
    let lab = applied();
    for memo in [
        "asked 18446744073709551615 saved 0",
        "asked 9999999999999999999 unsaved 1",
        "asked -1 saved 0",
        "\0",
    ] {
        fs::write(lab.dir().join("cachenat.lock"), format!("{memo}\n1 1 planted\n")).unwrap();
        lab.network.nat.nft("flush ruleset");
        let asked = lab.api().count("DescribeReplicationGroups");
        lab.cachenat(&["apply"]).exits(0);
        assert_eq!(lab.api().count("DescribeReplicationGroups"), asked + 1, "{memo}");
        assert!(in_force(&lab).contains("my-cluster-001"), "{memo}");
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn watch_does_not_undo_a_narrowed_configuration() {
    let lab = applied();
    lab.write_config(&wide(&lab));
    let watch = Daemon::start(lab.cachenat_command().args(["watch", "--interval", "1h"]));
    wait_for("the wide rules", || clients(&lab).contains("192.0.2.9").then_some(()));
    lab.write_config(&lab.plain_config());
    lab.cachenat(&["apply"]).exits(0);
    watch.says("the configuration has changed and was read again");
    for _ in 0..3 {
        lab.network.nat.nft("delete element inet cachenat forward4 { 10.0.0.55 . 6380 }");
        wait_for("the repair", || target(&lab, 6380));
        assert!(!clients(&lab).contains("192.0.2.9"), "{:?}", watch.said());
    }
    assert!(!watch.said().iter().any(|line| line.contains("192.0.2.9")), "{:?}", watch.said());
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_unreadable_configuration_keeps_the_newer_rules() {
    let lab = applied();
    lab.write_config(&wide(&lab));
    let watch = Daemon::start(lab.cachenat_command().args(["watch", "--interval", "1h"]));
    wait_for("the wide rules", || clients(&lab).contains("192.0.2.9").then_some(()));
    // It waits for the lock, which must not be held when the daemon is stopped.
    lab.cachenat(&["apply"]).exits(0);
    // Stopped, so that it does not see the narrow configuration.
    watch.signal(nix::sys::signal::Signal::SIGSTOP);
    lab.write_config(&lab.plain_config());
    lab.cachenat(&["apply"]).exits(0);
    lab.write_config("clients: [not an address]\n");
    watch.signal(nix::sys::signal::Signal::SIGCONT);
    watch.says("what is in force is kept as it is");
    assert!(!clients(&lab).contains("192.0.2.9"), "{:?}", watch.said());
    // With a good one it goes on.
    lab.write_config(&lab.plain_config());
    lab.network.nat.nft("flush ruleset");
    wait_for("the repair", || in_force(&lab).contains("my-cluster-001").then_some(()));
    assert!(!clients(&lab).contains("192.0.2.9"), "{:?}", watch.said());
    let said = watch.said();
    assert_eq!(said.iter().filter(|line| line.contains("kept as it is")).count(), 1, "{said:?}");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_confirmed_configuration_reaches_watch_without_a_signal() {
    let lab = applied();
    lab.write_config(&wide(&lab));
    lab.cachenat(&["apply"]).exits(0);
    let watch = Daemon::start(lab.cachenat_command().args(["watch", "--interval", "1h"]));
    lab.network.nat.nft("delete element inet cachenat forward4 { 10.0.0.55 . 6380 }");
    wait_for("it to watch", || target(&lab, 6380));
    lab.write_config(&lab.plain_config());
    let mut apply = Daemon::start(lab.cachenat_command().args(["apply", "--confirm", "600"]));
    apply.says("the new rules are in force");
    lab.cachenat(&["confirm"]).exits(0);
    assert_eq!(apply.end().code(), Some(0), "{:?}", apply.said());
    watch.says("the configuration has changed and was read again");
    lab.network.nat.nft("flush ruleset");
    wait_for("the repair", || in_force(&lab).contains("my-cluster-001").then_some(()));
    assert!(!clients(&lab).contains("192.0.2.9"), "{:?}", watch.said());
}

/// Nothing but the old configuration is to be had, and what is in force was planned with it.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_broken_configuration_does_not_stop_watch() {
    let lab = applied();
    let watch = Daemon::start(lab.cachenat_command().args(["watch", "--interval", "1h"]));
    lab.network.nat.nft("flush ruleset");
    wait_for("it to watch", || in_force(&lab).contains("my-cluster-001").then_some(()));
    lab.write_config("clients: [not an address]\n");
    lab.network.nat.nft("flush ruleset");
    wait_for("the repair", || in_force(&lab).contains("my-cluster-001").then_some(()));
    watch.says("the old configuration stays in force");
}

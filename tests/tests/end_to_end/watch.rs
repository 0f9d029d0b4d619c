//! `watch` follows every change, and is silent and idle without one.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cachenat_tests::fake_aws::{Fault, How};
use cachenat_tests::lab::Lab;
use cachenat_tests::lab::daemon::Daemon;
use cachenat_tests::lab::wait::wait_for;
use nix::sys::signal::Signal;

use crate::common::{applied, generation, reached, table, target};

/// `cachenat watch` on a lab, once it says that it is ready.
fn watching(lab: &Lab, args: &[&str]) -> Daemon {
    let (systemd, path) = systemd(lab);
    let daemon = Daemon::start(lab.cachenat_command().env("NOTIFY_SOCKET", path).arg("watch").args(args));
    hear_until(&systemd, &daemon, "READY=1", 1);
    daemon
}

/// What systemd gives a service of `Type=notify`: a socket, and its path (sd_notify(3)).
fn systemd(lab: &Lab) -> (UnixDatagram, PathBuf) {
    let path = lab.dir().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    (socket, path)
}

/// Waits until the words were said so many times.
fn hear_until(systemd: &UnixDatagram, daemon: &Daemon, words: &str, times: usize) {
    let mut heard = String::new();
    while heard.matches(words).count() < times {
        let mut buffer = [0; 4096];
        let length = match systemd.recv(&mut buffer) {
            // With a time limit a receive is not restarted after a signal (signal(7)).
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            length => length,
        };
        let length = length.unwrap_or_else(|error| panic!("{words}: {error}: {heard}{:?}", daemon.said()));
        heard.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        heard.push('\n');
    }
}

/// Waits for a condition, for less than the API's interval: how soon it holds is for the benchmarks to say.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn dns_detects_a_replacement_before_the_api() {
    let mut lab = applied();
    let daemon = watching(&lab, &["--interval", "1h"]);
    lab.replace_node("my-cluster-002");
    until("port 6380 to lead to the new node", || target(&lab, 6380).as_deref() == Some("10.0.1.233:6379"));
    assert_eq!(reached(&lab, 6380), lab.node("my-cluster-002").run_id());
    let line = daemon.says("my-cluster-002");
    assert!(line.contains("10.0.1.231:6379") && line.contains("10.0.1.233:6379"), "{line}");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn added_and_removed_nodes_are_followed() {
    let mut lab = applied();
    let _daemon = watching(&lab, &["--interval", "2s"]);
    let id = lab.add_node("my-cluster");
    until("the new node's port", || target(&lab, 6382).is_some());
    assert_eq!(reached(&lab, 6382), lab.node(&id).run_id());
    lab.remove_node(&id);
    until("the removed node's port to be closed", || target(&lab, 6382).is_none());
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn deleted_rules_are_repaired() {
    let lab = applied();
    let daemon = watching(&lab, &["--interval", "1h", "--dns-interval", "1h"]);
    for taken in [
        "delete element inet cachenat forward4 { 10.0.0.55 . 6380 }",
        "delete table inet cachenat",
        "flush ruleset",
        "add element inet cachenat clients4 { 198.51.100.28 }",
        "add rule inet cachenat prerouting counter",
    ] {
        lab.network.nat.nft(taken);
        until(taken, || lab.cachenat(&["diff"]).code == 0);
        assert_eq!(target(&lab, 6380).as_deref(), Some("10.0.1.231:6379"), "{taken}");
    }
    daemon.says("our table was changed by nft");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn foreign_commits_trigger_no_action() {
    let lab = applied();
    let daemon = watching(&lab, &["--interval", "1s", "--dns-interval", "1s"]);
    let (before, commits) = (table(&lab), generation(&lab));
    let (listings, queries) = (lab.api().count("DescribeCacheClusters"), lab.dns().queries().len());
    for number in 0..20 {
        lab.network.nat.nft(&format!("add table inet foreign{number}"));
    }
    wait_for("three more rounds", || {
        let listed = lab.api().count("DescribeCacheClusters") >= listings + 3;
        (listed && lab.dns().queries().len() >= queries + 18).then_some(())
    });
    assert_eq!(generation(&lab), commits + 20);
    assert_eq!(table(&lab), before);
    assert_eq!(daemon.said(), Vec::<String>::new());
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn sigterm_exits_0_and_keeps_the_rules() {
    let lab = applied();
    let before = table(&lab);
    let mut daemon = watching(&lab, &[]);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.end().code(), Some(0), "{:?}", daemon.said());
    assert_eq!(table(&lab), before);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn sighup_loads_only_a_valid_configuration() {
    let mut lab = applied();
    let daemon = watching(&lab, &[]);
    lab.write_config("clients: [not an address]\n");
    daemon.signal(Signal::SIGHUP);
    daemon.says("the old configuration stays in force");
    lab.replace_node("my-cluster-003");
    until("changes to be followed as before", || target(&lab, 6381).as_deref() == Some("10.0.1.233:6379"));

    lab.write_config(&lab.plain_config().replace("clients: [", "clients: [192.0.2.9/32, "));
    daemon.signal(Signal::SIGHUP);
    until("the new client", || lab.network.nat.nft_list("set inet cachenat clients4").contains("192.0.2.9"));
}

/// `CACHENAT_RELOADS=2000` makes a soak of it: five minutes.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn reloads_leak_nothing() {
    let reloads = std::env::var("CACHENAT_RELOADS").map_or(100, |number| number.parse().unwrap());
    let pause = Duration::from_millis(if reloads > 100 { 120 } else { 0 });
    let lab = applied();
    let daemon = watching(&lab, &[]);
    let of_process = |name: &str| PathBuf::from(format!("/proc/{}/{name}", daemon.pid()));
    let descriptors = || std::fs::read_dir(of_process("fd")).unwrap().count();
    let resident = || -> u64 {
        let status = std::fs::read_to_string(of_process("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim_end_matches("kB").trim().parse().unwrap()
    };
    let reload = |number: usize| {
        // Two configurations take turns, so that each is another one.
        let ports = if number.is_multiple_of(2) { "" } else { "ports: 6379-7377\n" };
        lab.write_config(&(lab.plain_config() + ports));
        daemon.signal(Signal::SIGHUP);
        let read = || daemon.said().iter().filter(|line| line.contains("read again")).count();
        wait_for("the reload", || (read() > number).then_some(()));
        std::thread::sleep(pause);
    };
    let warm = reloads / 5;
    (0..warm).for_each(reload);
    let before = (descriptors(), resident());
    (warm..reloads).for_each(reload);
    wait_for("the last answers", || (descriptors() <= before.0).then_some(()));
    let after = (descriptors(), resident());
    println!("{reloads} reloads: descriptors and KiB {before:?} before, {after:?} after");
    assert!(after.1 < before.1 + before.1 / 5, "{before:?} {after:?}");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn systemd_gets_ready_status_and_watchdog() {
    let lab = applied();
    let (systemd, path) = systemd(&lab);
    let mut command = lab.cachenat_command();
    command.env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", "400000").arg("watch");
    let mut daemon = Daemon::start(&mut command);
    hear_until(&systemd, &daemon, "STATUS=3 nodes forwarded\nREADY=1", 1);
    hear_until(&systemd, &daemon, "WATCHDOG=1", 3);
    // Slow answers hold up no watchdog.
    lab.api().change(|scenario| scenario.faults.push(hang()));
    daemon.signal(Signal::SIGHUP);
    hear_until(&systemd, &daemon, "WATCHDOG=1", 8);
    daemon.signal(Signal::SIGTERM);
    hear_until(&systemd, &daemon, "STOPPING=1", 1);
    assert_eq!(daemon.end().code(), Some(0));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_api_outage_costs_no_forward() {
    let mut lab = applied();
    let daemon = watching(&lab, &["--interval", "1s"]);
    lab.stop_api();
    daemon.says("replication_group/my-cluster");
    lab.network.nat.nft("flush ruleset");
    until("the table to be back", || lab.network.nat.nft_list("tables").contains("cachenat"));
    lab.start_api();
    lab.api().change(|scenario| scenario.faults.push(hang()));
    let asked = lab.api().count("DescribeCacheClusters");
    wait_for("a question that hangs", || (lab.api().count("DescribeCacheClusters") > asked).then_some(()));
    // What the API is silent about, DNS still tells.
    lab.stop_api();
    lab.replace_node("my-cluster-002");
    until("port 6380 to follow DNS alone", || target(&lab, 6380).as_deref() == Some("10.0.1.233:6379"));
    for port in 6379..=6381 {
        assert!(target(&lab, port).is_some(), "port {port}");
    }
    lab.start_api();
    lab.add_node("my-cluster");
    wait_for("the API to be heard again", || target(&lab, 6382));
}

/// The daemon's last answer is older than that of the concurrent run, and must not undo it.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_concurrent_apply_is_not_undone() {
    let mut lab = applied();
    let daemon = watching(&lab, &["--interval", "1h"]);
    let id = lab.add_node("my-cluster");
    lab.cachenat(&["apply"]).exits(0);
    let listings = lab.api().count("DescribeCacheClusters");
    wait_for("the daemon to ask the API", || {
        (lab.api().count("DescribeCacheClusters") > listings).then_some(())
    });
    assert_eq!(reached(&lab, 6382), lab.node(&id).run_id());
    let handles = table(&lab);
    lab.network.nat.nft("add table inet foreign");
    lab.cachenat(&["diff"]).exits(0);
    assert_eq!(table(&lab), handles);
    assert!(!daemon.said().iter().any(|line| line.starts_with("remove")), "{:?}", daemon.said());
}

/// More than half of the nodes are missing from one answer; reading the same answer twice does not confirm it.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn mass_removals_need_a_second_answer() {
    let mut lab = applied();
    let daemon = watching(&lab, &["--interval", "4s"]);
    lab.api().change(|scenario| {
        for group in &mut scenario.replication_groups {
            group["MemberClusters"].as_array_mut().unwrap().truncate(1);
            for shard in group["NodeGroups"].as_array_mut().unwrap() {
                shard["NodeGroupMembers"].as_array_mut().unwrap().truncate(1);
            }
        }
        scenario.cache_clusters.truncate(1);
    });
    daemon.says("2 of its 3 nodes disappeared at once");
    lab.network.nat.nft("flush ruleset");
    until("the table to be back", || lab.network.nat.nft_list("tables").contains("cachenat"));
    assert_eq!(target(&lab, 6381).as_deref(), Some("10.0.1.232:6379"));
    wait_for("the second answer", || target(&lab, 6381).is_none().then_some(()));
    assert!(target(&lab, 6379).is_some());
    lab.stop_api();
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn repairs_are_rate_limited() {
    let lab = applied();
    let daemon = watching(&lab, &["--interval", "1h"]);
    let undo =
        "while :; do nft 'delete element inet cachenat forward4 { 10.0.0.55 . 6380 }' 2>/dev/null; done";
    let (begin, _other) = (Instant::now(), Daemon::start(lab.network.nat.command("sh").args(["-c", undo])));
    // Repairs, not commits: one that is undone before it was read back is made again at once, a few times.
    let repairs = || daemon.said().iter().filter(|line| line.starts_with("add ")).count();
    wait_for("four repairs", || (repairs() >= 4).then_some(()));
    assert!(begin.elapsed() > Duration::from_secs(1), "{:?}", begin.elapsed());
}

fn hang() -> Fault {
    Fault { action: None, page: None, times: None, how: How::Hang }
}

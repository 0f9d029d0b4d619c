//! The state directory: losing it or being unable to write it costs no forward and moves no port.

use std::fs;
use std::path::PathBuf;

use cachenat_tests::lab::Lab;
use cachenat_tests::lab::product::Run;
use cachenat_tests::programs;

use crate::common::{in_force, spell_out, spelled_out, target};

/// The first node is already removed, so that a new assignment would give other ports.
fn settled() -> Lab {
    let lab = spelled_out(&[(1, "10.0.1.230"), (2, "10.0.1.231"), (3, "10.0.1.232")]);
    lab.cachenat(&["apply"]).exits(0);
    spell_out(&lab, &[(2, "10.0.1.231"), (3, "10.0.1.232")]);
    lab.cachenat(&["apply"]).exits(0);
    lab
}

fn file(lab: &Lab, name: &str) -> PathBuf {
    lab.dir().join("state").join(name)
}

/// Runs cachenat where `mounts`, a line of shell, was done to the state directory `$0`.
fn where_mounted(lab: &Lab, mounts: &str, args: &[&str]) -> Run {
    let mut command = lab.operator_command("sh");
    command.args(["-c", &format!("{mounts} && exec \"$@\"")]).arg(lab.dir().join("state"));
    command.arg(programs::cachenat()).args(args);
    command.output().unwrap().into()
}

const READ_ONLY: &str = r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0""#;
/// Empty but for a file that fills it; dd's complaint is what is wanted.
const FULL: &str = r#"mount -t tmpfs -o size=16k,nr_inodes=3 none "$0" && { dd if=/dev/zero of="$0/fill" bs=1k 2>/dev/null; true; }"#;

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_damaged_file_is_replaced_from_the_kernel() {
    for name in ["leases.json", "inventory.json"] {
        let lab = settled();
        let (path, before) = (file(&lab, name), in_force(&lab));
        let good = fs::read_to_string(&path).unwrap();
        let damages = [
            "\0\0\0\0".to_owned(),
            String::new(),
            good[..good.len() / 2].to_owned(),
            good.replacen("\"version\":1", "\"version\":99", 1).replacen(
                "\"version\": 1",
                "\"version\": 99",
                1,
            ),
        ];
        for damaged in damages {
            assert_ne!(damaged, good);
            fs::write(&path, &damaged).unwrap();
            let run = lab.cachenat(&["apply"]).exits(0);
            assert!(run.stderr.contains(name), "{}", run.stderr);
            assert_eq!(in_force(&lab), before, "{name}: {damaged:?}");
            assert_eq!(fs::read_to_string(path.with_extension("json.damaged")).unwrap(), damaged);
            assert_eq!(lab.cachenat(&["apply"]).exits(0).stderr, "", "it is whole again");
        }
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn unwritable_state_exits_3_after_applying() {
    for mounts in [READ_ONLY, FULL] {
        let lab = settled();
        spell_out(&lab, &[(2, "10.0.1.241"), (3, "10.0.1.232"), (4, "10.0.1.233")]);
        let run = where_mounted(&lab, mounts, &["apply"]).exits(3);
        assert!(
            run.stderr.contains("the rules are in force, but the state could not be saved"),
            "{}",
            run.stderr
        );
        assert_eq!(target(&lab, 6380).as_deref(), Some("10.0.1.241:6379"), "{mounts}");
        assert!(in_force(&lab).contains("local-004"), "{mounts}");
    }
}

/// The files know nothing of the fourth node, and the first would come before it.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_unsaved_port_stays_its_nodes() {
    let lab = settled();
    spell_out(&lab, &[(2, "10.0.1.231"), (5, "10.0.1.235")]);
    where_mounted(&lab, READ_ONLY, &["apply"]).exits(3);
    let port = (6379..6390).find(|&port| target(&lab, port).as_deref() == Some("10.0.1.235:6379")).unwrap();
    spell_out(&lab, &[(2, "10.0.1.231"), (4, "10.0.1.234"), (5, "10.0.1.235")]);
    lab.cachenat(&["apply"]).exits(0);
    assert_eq!(target(&lab, port).as_deref(), Some("10.0.1.235:6379"));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_reserved_port_can_be_released() {
    let lab = settled();
    let list = lab.cachenat(&["leases"]).exits(0).stdout;
    let row = |port: &str| {
        list.lines().find(|line| line.starts_with(port)).unwrap().split_whitespace().collect::<Vec<_>>()
    };
    assert_eq!(row("6379")[..3], ["6379", "local-001", "rests"]);
    assert_eq!(row("6380")[..3], ["6380", "local-002", "held"]);
    assert_eq!(lab.cachenat(&["leases", "list"]).exits(0).stdout, list);

    let held = lab.cachenat(&["leases", "release", "local-002"]).exits(2);
    assert!(held.stderr.contains("holds its port"), "{}", held.stderr);
    let unknown = lab.cachenat(&["leases", "release", "nobody"]).exits(2);
    assert!(unknown.stderr.contains("nobody has no port"), "{}", unknown.stderr);

    lab.cachenat(&["leases", "release", "local-001"]).exits(0);
    spell_out(&lab, &[(2, "10.0.1.231"), (3, "10.0.1.232"), (4, "10.0.1.233")]);
    lab.cachenat(&["apply"]).exits(0);
    assert_eq!(target(&lab, 6379).as_deref(), Some("10.0.1.233:6379"));
}

/// The state directory is the service's user's, who could write so many.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn planted_reservations_block_no_forward() {
    let lab = spelled_out(&[(1, "10.0.1.230"), (2, "10.0.1.231")]);
    let planted = |ports: std::ops::RangeInclusive<u16>| {
        let lease =
            |port| format!(r#"{{"port":{port},"id":"gone-{port}","since":1,"released":{}}}"#, u64::MAX);
        let leases: Vec<String> = ports.map(lease).collect();
        let text = format!(r#"{{"version":1,"leases":[{}]}}"#, leases.join(","));
        fs::create_dir_all(lab.dir().join("state")).unwrap();
        fs::write(file(&lab, "leases.json"), text).unwrap();
    };
    planted(6379..=7378);
    lab.cachenat(&["apply"]).exits(0);
    assert!(in_force(&lab).contains("10.0.1.231"));

    // In a pool of few ports it takes the operator's word, once.
    lab.cachenat(&["remove"]).exits(0);
    planted(6379..=6384);
    let config = fs::read_to_string(lab.config()).unwrap();
    fs::write(lab.config(), format!("{config}ports: 6379-6384\n")).unwrap();
    let run = lab.cachenat(&["apply"]).exits(2);
    assert!(run.stderr.contains("--resting"), "{}", run.stderr);
    let run = lab.cachenat(&["leases", "release", "--resting"]).exits(0);
    assert!(run.stderr.contains("6 ports"), "{}", run.stderr);
    lab.cachenat(&["apply"]).exits(0);
    assert!(in_force(&lab).contains("10.0.1.231"));
}

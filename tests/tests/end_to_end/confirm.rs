//! `apply --confirm`: a change stays only if it is confirmed.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::Stdio;

use cachenat_tests::lab::Lab;
use cachenat_tests::lab::daemon::Daemon;
use cachenat_tests::lab::product::Run;
use cachenat_tests::lab::wait::wait_for;
use cachenat_tests::programs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{in_force, spell_out, spelled_out, target};

const BEFORE: &[(u8, &str)] = &[(1, "10.0.1.230"), (2, "10.0.1.231")];
const AFTER: &[(u8, &str)] = &[(1, "10.0.1.240"), (3, "10.0.1.232")];

/// Longer than any test needs; no test waits for it.
const LONG: &str = "600";
/// Short, so that tests can wait for it.
const SHORT: &str = "2";

/// A lab whose active rules differ from its config, and these rules.
fn changed() -> (Lab, String) {
    let lab = spelled_out(BEFORE);
    lab.cachenat(&["apply"]).exits(0);
    spell_out(&lab, AFTER);
    let before = in_force(&lab);
    (lab, before)
}

/// `apply --confirm`, once the new rules are in force.
fn on_probation(lab: &Lab, seconds: &str) -> Daemon {
    let apply = Daemon::start(lab.cachenat_command().args(["apply", "--confirm", seconds]));
    apply.says("the new rules are in force");
    assert_eq!(target(lab, 6379).as_deref(), Some("10.0.1.240:6379"));
    apply
}

fn state(lab: &Lab, file: &str) -> Option<String> {
    std::fs::read_to_string(lab.dir().join("state").join(file)).ok()
}

/// The path of the pending change, which the owner of the state directory cannot write.
fn pending(lab: &Lab) -> PathBuf {
    lab.dir().join("cachenat/pending.json")
}

fn is_pending(lab: &Lab) -> bool {
    pending(lab).exists()
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_change_is_saved_only_when_confirmed() {
    let (lab, _) = changed();
    let leases = state(&lab, "leases.json");
    let mut apply = on_probation(&lab, LONG);
    let after = in_force(&lab);
    assert_eq!(state(&lab, "leases.json"), leases);
    lab.cachenat(&["confirm"]).exits(0);
    assert_eq!(apply.end().code(), Some(0), "{:?}", apply.said());
    assert_eq!(in_force(&lab), after);
    assert!(state(&lab, "leases.json").unwrap().contains("local-003"));
    assert!(!is_pending(&lab));
    lab.cachenat(&["diff"]).exits(0);
    let nothing = lab.cachenat(&["confirm"]).exits(2);
    assert!(nothing.stderr.contains("no change waits"), "{}", nothing.stderr);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn yes_at_the_terminal_keeps_the_change() {
    let (lab, before) = changed();
    let mut command = terminal(&lab, LONG);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    wait_for("the change", || is_pending(&lab).then_some(()));
    child.stdin.as_mut().unwrap().write_all(b"no\nyes\n").unwrap();
    wait_for("the confirmation", || child.try_wait().unwrap());
    assert_ne!(in_force(&lab), before);
    assert!(!is_pending(&lab));
    assert!(state(&lab, "leases.json").unwrap().contains("local-003"));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_unconfirmed_change_is_rolled_back() {
    let lab = spelled_out(AFTER);
    let mut apply = on_probation(&lab, SHORT);
    assert_eq!(lab.network.nat.sysctl("net/ipv4/ip_forward"), "1");
    assert_eq!(apply.end().code(), Some(2), "{:?}", apply.said());
    apply.says("not confirmed");
    assert_eq!(in_force(&lab), "");
    assert_eq!(lab.network.nat.sysctl("net/ipv4/ip_forward"), "0");
    assert!(!lab.dir().join("sysctl.d/90-cachenat.conf").exists());
    assert_eq!((state(&lab, "leases.json"), is_pending(&lab)), (None, false));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn killing_apply_rolls_the_change_back() {
    let (lab, before) = changed();
    on_probation(&lab, SHORT).signal(Signal::SIGKILL);
    wait_for("the former rules", || (in_force(&lab) == before).then_some(()));
    wait_for("the end of the probation", || (!is_pending(&lab)).then_some(()));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn closing_the_terminal_rolls_the_change_back() {
    let (lab, before) = changed();
    let terminal = Daemon::start(terminal(&lab, SHORT).stdin(Stdio::piped()));
    terminal.says("type yes");
    assert_ne!(in_force(&lab), before);
    // script(1) owns the terminal; when it ends, the kernel sends SIGHUP to all processes on it.
    terminal.signal(Signal::SIGKILL);
    wait_for("the former rules", || (in_force(&lab) == before).then_some(()));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn other_runs_are_refused_during_a_pending_change() {
    let (lab, _) = changed();
    let mut apply = on_probation(&lab, LONG);
    let after = in_force(&lab);
    for command in [&["apply"][..], &["apply", "--confirm", "5"], &["restore"]] {
        let refused = lab.cachenat(command).exits(2);
        assert!(refused.stderr.contains("'cachenat confirm' keeps it"), "{}", refused.stderr);
        assert_eq!(in_force(&lab), after, "{command:?}");
    }
    lab.cachenat(&["confirm"]).exits(0);
    assert_eq!(apply.end().code(), Some(0));
}

/// As after a power cut: neither apply nor the guard is left to roll the change back.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn the_next_run_rolls_an_orphaned_change_back() {
    let (lab, before) = changed();
    let apply = on_probation(&lab, LONG);
    let guard = child_of(apply.pid());
    apply.signal(Signal::SIGKILL);
    kill(guard, Signal::SIGKILL).unwrap();
    spell_out(&lab, BEFORE);
    let run = wait_for("the lock of the dead to go", || {
        let run = lab.cachenat(&["apply"]);
        (run.code == 0).then_some(run)
    });
    assert!(run.stderr.contains("never confirmed"), "{}", run.stderr);
    assert_eq!(in_force(&lab), before);
    assert!(!is_pending(&lab));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_killed_guard_rolls_back_at_once() {
    let (lab, before) = changed();
    let mut apply = on_probation(&lab, LONG);
    kill(child_of(apply.pid()), Signal::SIGKILL).unwrap();
    assert_eq!(apply.end().code(), Some(2), "{:?}", apply.said());
    assert_eq!(in_force(&lab), before);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_damaged_pending_change_blocks_no_run() {
    let (lab, _) = changed();
    std::fs::DirBuilder::new().mode(0o700).create(lab.dir().join("cachenat")).unwrap();
    std::fs::write(pending(&lab), "{\"version\":").unwrap();
    let run = lab.cachenat(&["apply"]).exits(0);
    assert!(run.stderr.contains("moved aside"), "{}", run.stderr);
    assert!(pending(&lab).with_extension("json.damaged").exists());
    lab.cachenat(&["diff"]).exits(0);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn unreadable_former_rules_block_no_run() {
    let (lab, _) = changed();
    on_probation(&lab, LONG).signal(Signal::SIGKILL);
    let file = pending(&lab);
    let pending = std::fs::read_to_string(&file).unwrap();
    // A file of its own, as the guard holds a lock on the other.
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, pending.replace("local-002", "bob laptop")).unwrap();
    let run = lab.cachenat(&["apply"]).exits(0);
    assert!(run.stderr.contains("bob laptop") && run.stderr.contains("moved aside"), "{}", run.stderr);
    lab.cachenat(&["diff"]).exits(0);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_unsaved_confirmed_change_exits_with_3() {
    let (lab, _) = changed();
    let mut apply = on_probation(&lab, LONG);
    // What is mounted can't be replaced: EBUSY.
    let mounted = r#"mount --bind "$0" "$0" && exec "$@""#;
    let mut confirm = lab.operator_command("sh");
    confirm.args(["-c", mounted]).arg(lab.dir().join("state/ruleset.json"));
    let confirm = Run::from(confirm.arg(programs::cachenat()).arg("confirm").output().unwrap()).exits(3);
    assert!(confirm.stderr.contains("the state could not be saved"), "{}", confirm.stderr);
    assert_eq!(apply.end().code(), Some(3), "{:?}", apply.said());
    assert_eq!(target(&lab, 6379).as_deref(), Some("10.0.1.240:6379"));
}

/// A file that the owner of the state directory could plant: an earlier version kept a pending change there.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_planted_pending_change_does_nothing() {
    let (lab, before) = changed();
    let after = r#"{"version":1,"seconds":1,"config":0,"before":null,"sysctls":[{"sysctl":"net.ipv4.ip_forward","place":"boot","from":"1\nkernel.core_pattern = |/tmp/x","to":"1"}],"leases":[],"inventory":"{}","after":"{}"}"#;
    std::fs::write(lab.dir().join("state/pending.json"), after).unwrap();
    lab.cachenat(&["apply"]).exits(0);
    assert_ne!(in_force(&lab), before);
    let drop_in = std::fs::read_to_string(lab.dir().join("sysctl.d/90-cachenat.conf")).unwrap();
    assert!(!drop_in.contains("core_pattern"), "{drop_in}");
    // Where a change belongs, it has to be one: a value is 0 or 1.
    std::fs::DirBuilder::new().mode(0o700).create(lab.dir().join("cachenat")).unwrap();
    std::fs::write(pending(&lab), after).unwrap();
    assert!(lab.cachenat(&["apply"]).exits(0).stderr.contains("moved aside"));
    assert_eq!(std::fs::read_to_string(lab.dir().join("sysctl.d/90-cachenat.conf")).unwrap(), drop_in);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn deleting_a_change_does_not_confirm_it() {
    let (lab, before) = changed();
    let mut apply = on_probation(&lab, SHORT);
    std::fs::remove_file(pending(&lab)).unwrap();
    assert_eq!(apply.end().code(), Some(2), "{:?}", apply.said());
    assert_eq!(in_force(&lab), before);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_unconfirmed_change_is_not_restored_at_boot() {
    let lab = spelled_out(AFTER);
    let mut apply = on_probation(&lab, LONG);
    let drop_in = lab.dir().join("sysctl.d/90-cachenat.conf");
    assert!(!drop_in.exists() && state(&lab, "ruleset.json").is_none());
    lab.cachenat(&["confirm"]).exits(0);
    assert_eq!(apply.end().code(), Some(0), "{:?}", apply.said());
    assert!(drop_in.exists() && state(&lab, "ruleset.json").is_some());
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_timer_does_not_reapply_a_rollback() {
    let (lab, before) = changed();
    let config = std::fs::read_to_string(lab.config()).unwrap();
    on_probation(&lab, SHORT).end();
    assert_eq!(in_force(&lab), before);
    for command in ["apply", "watch"] {
        let refused = lab.cachenat(&[command]).exits(2);
        assert!(refused.stderr.contains("run 'cachenat confirm --accept'"), "{}", refused.stderr);
        assert_eq!(in_force(&lab), before, "{command}");
    }
    // Another configuration is another matter.
    std::fs::write(lab.config(), format!("{config}# changed\n")).unwrap();
    lab.cachenat(&["apply"]).exits(0);
    assert_ne!(in_force(&lab), before);

    let (lab, before) = changed();
    on_probation(&lab, SHORT).end();
    lab.cachenat(&["confirm", "--accept"]).exits(0);
    lab.cachenat(&["apply"]).exits(0);
    assert_ne!(in_force(&lab), before);

    // A person at a terminal knows.
    let (lab, before) = changed();
    on_probation(&lab, SHORT).end();
    let mut command = lab.operator_command("script");
    let apply = format!("{} apply", programs::cachenat().display());
    command.args(["--quiet", "--return", "--command", &apply, "/dev/null"]);
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
    assert_ne!(in_force(&lab), before);
    lab.cachenat(&["apply"]).exits(0);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn another_users_pending_file_blocks_no_run() {
    let (lab, before) = changed();
    on_probation(&lab, SHORT).end();
    let mark = lab.dir().join("state/rejected");
    std::os::unix::fs::chown(&mark, Some(4711), None).unwrap();
    std::os::unix::fs::chown(lab.dir().join("state"), Some(4711), None).unwrap();
    lab.cachenat(&["apply"]).exits(0);
    assert_ne!(in_force(&lab), before);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn remove_works_while_a_change_is_pending() {
    let (lab, _) = changed();
    let mut apply = on_probation(&lab, LONG);
    lab.cachenat(&["remove"]).exits(0);
    assert_eq!(in_force(&lab), "");
    assert_eq!(apply.end().code(), Some(2), "{:?}", apply.said());
    assert_eq!(in_force(&lab), "", "the guard brings nothing back");

    let (lab, _) = changed();
    let dir = lab.dir().join("cachenat");
    std::fs::write(&dir, "in the way").unwrap();
    assert!(lab.cachenat(&["apply"]).exits(2).stderr.contains("is not a directory: delete it"));
    assert!(lab.cachenat(&["remove"]).exits(3).stderr.contains("is not a directory: delete it"));
    assert_eq!(in_force(&lab), "");

    let (lab, _) = changed();
    std::fs::create_dir(lab.dir().join("cachenat")).unwrap();
    std::fs::set_permissions(lab.dir().join("cachenat"), std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(lab.cachenat(&["apply"]).exits(2).stderr.contains("can be written by others: delete it"));
    lab.cachenat(&["remove"]).exits(3);
    assert_eq!(in_force(&lab), "");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn apply_in_step_needs_no_confirmation() {
    let lab = spelled_out(BEFORE);
    lab.cachenat(&["apply"]).exits(0);
    lab.cachenat(&["apply", "--confirm", LONG]).exits(0);
    assert!(!is_pending(&lab));
}

/// `apply --confirm` on its own terminal (script(1)).
fn terminal(lab: &Lab, seconds: &str) -> std::process::Command {
    let mut command = lab.operator_command("script");
    let apply = format!("{} apply --confirm {seconds}", programs::cachenat().display());
    command.args(["--quiet", "--command", &apply, "/dev/null"]);
    command
}

fn child_of(parent: Pid) -> Pid {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    Pid::from_raw(children.trim().parse().unwrap())
}

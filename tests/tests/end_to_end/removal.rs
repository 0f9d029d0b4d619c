//! `remove`: its rules stay removed, whatever else fails.

use std::fs;
use std::path::PathBuf;

use cachenat_tests::lab::Lab;
use cachenat_tests::lab::daemon::Daemon;
use cachenat_tests::lab::product::Run;
use cachenat_tests::lab::wait::wait_for;
use cachenat_tests::programs;

use crate::common::{generation, in_force, spell_out, spelled_out, target};
use crate::kill::{EFFECTS, killed_at};
use crate::turns::{answering, waiting};

const NODES: &[(u8, &str)] = &[(1, "10.0.1.230"), (2, "10.0.1.231")];

/// A lab with rules in force.
fn forwarding() -> Lab {
    let lab = spelled_out(NODES);
    lab.cachenat(&["apply"]).exits(0);
    lab
}

fn state(lab: &Lab, name: &str) -> PathBuf {
    lab.dir().join("state").join(name)
}

/// Runs cachenat where a line of shell was run before, with the lab's directory as `$0`, in a mount namespace of its own.
fn after(lab: &Lab, shell: &str, args: &[&str]) -> Run {
    let mut command = lab.operator_command("sh");
    command.args(["-c", &format!("{shell} && exec \"$@\"")]).arg(lab.dir());
    command.arg(programs::cachenat()).args(args).output().unwrap().into()
}

#[track_caller]
fn stays_removed(lab: &Lab) {
    assert_eq!(in_force(lab), "");
    assert!(!state(lab, "ruleset.json").exists());
    let restore = lab.cachenat(&["restore"]).exits(2);
    assert!(restore.stderr.contains("'cachenat apply' forwards again"), "{}", restore.stderr);
    assert_eq!(in_force(lab), "");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_undeletable_drop_in_does_not_stop_remove() {
    let lab = forwarding();
    // What is mounted can't be unlinked: EBUSY.
    let mounted = r#"mount --bind "$0/sysctl.d/90-cachenat.conf" "$0/sysctl.d/90-cachenat.conf""#;
    let run = after(&lab, mounted, &["remove"]).exits(3);
    assert!(run.stderr.contains("90-cachenat.conf") && run.stderr.contains("delete"), "{}", run.stderr);
    assert_eq!(lab.network.nat.sysctl("net/ipv4/ip_forward"), "0");
    stays_removed(&lab);
    lab.cachenat(&["remove"]).exits(0);
    assert!(!lab.dir().join("sysctl.d/90-cachenat.conf").exists());
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_foreign_drop_in_does_not_stop_remove() {
    let lab = forwarding();
    fs::write(lab.dir().join("sysctl.d/90-cachenat.conf"), "net.ipv4.ip_forward = 1\n").unwrap();
    let run = lab.cachenat(&["remove"]).exits(3);
    assert!(run.stderr.contains("was not written by cachenat"), "{}", run.stderr);
    stays_removed(&lab);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_unwritable_state_directory_does_not_stop_remove() {
    let read_only = r#"mount --bind "$0/state" "$0/state" && mount -o remount,bind,ro "$0/state""#;
    let full = r#"mount -t tmpfs -o size=16k,nr_inodes=3 none "$0/state" \
        && { dd if=/dev/zero of="$0/state/ruleset.json" bs=1k 2>/dev/null; touch "$0/state/other"; true; }"#;
    for (mounts, is_left) in [(read_only, true), (full, false)] {
        let lab = forwarding();
        let run = after(&lab, mounts, &["remove"]).exits(3);
        assert_eq!(in_force(&lab), "", "{mounts}");
        for words in ["the removal is not written down", "cachenat watch"] {
            assert!(run.stderr.contains(words), "{words}: {}", run.stderr);
        }
        assert_eq!(run.stderr.contains("the last ruleset is left"), is_left, "{}", run.stderr);
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_invalid_configuration_does_not_stop_remove() {
    let lab = forwarding();
    lab.write_config("clients: nobody\nsources: 7\n");
    lab.cachenat(&["remove"]).exits(0);
    assert_eq!(in_force(&lab), "");
    assert!(!state(&lab, "ruleset.json").exists());
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_running_watch_respects_remove() {
    let lab = forwarding();
    let watch = Daemon::start(lab.cachenat_command().args(["watch", "--interval", "1s"]));
    lab.network.nat.nft("flush ruleset");
    wait_for("the repair", || in_force(&lab).contains("10.0.1.231").then_some(()));
    lab.cachenat(&["remove"]).exits(0);
    watch.says("nothing is forwarded until the next 'cachenat apply'");
    assert_eq!(in_force(&lab), "");
    spell_out(&lab, &[(1, "10.0.1.230"), (2, "10.0.1.241")]);
    let commits = generation(&lab);
    lab.network.nat.nft("add table inet foreign");
    watch.signal(nix::sys::signal::Signal::SIGHUP);
    watch.says("configuration read again");
    assert_eq!(generation(&lab), commits + 1);
    assert_eq!(in_force(&lab), "");

    lab.cachenat(&["apply"]).exits(0);
    assert!(!state(&lab, "removed").exists());
    lab.network.nat.nft("flush ruleset");
    wait_for("the repair after the apply", || (in_force(&lab).contains("10.0.1.241")).then_some(()));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_watch_started_later_respects_remove() {
    let lab = forwarding();
    lab.cachenat(&["remove"]).exits(0);
    let watch = Daemon::start(lab.cachenat_command().arg("watch"));
    watch.says("nothing is forwarded until the next 'cachenat apply'");
    assert_eq!(in_force(&lab), "");
    lab.cachenat(&["apply"]).exits(0);
    lab.network.nat.nft("flush ruleset");
    wait_for("the repair", || in_force(&lab).contains("10.0.1.231").then_some(()));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn remove_discards_an_unconfirmed_change() {
    let lab = forwarding();
    spell_out(&lab, &[(1, "10.0.1.230"), (2, "10.0.1.241")]);
    let mut apply = Daemon::start(lab.cachenat_command().args(["apply", "--confirm", "600"]));
    apply.says("the new rules are in force");
    lab.cachenat(&["remove"]).exits(0);
    assert_eq!(apply.end().code(), Some(2), "{:?}", apply.said());
    apply.says("'cachenat remove' was run before the change was confirmed");
    assert!(!state(&lab, "pending.json").exists());
    stays_removed(&lab);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_earlier_apply_does_not_undo_remove() {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 2);
    lab.cachenat(&["apply"]).exits(0);
    let mut apply = waiting(&lab);
    lab.cachenat(&["remove"]).exits(0);
    answering(&lab);
    assert_eq!(apply.end().code(), Some(2), "{:?}", apply.said());
    apply.says("'cachenat remove' was run meanwhile");
    assert_eq!(in_force(&lab), "");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_killed_remove_stays_removed() {
    let lab = forwarding();
    let (mut kills, mut gone) = (0, 0);
    for (calls, first) in EFFECTS {
        for when in first + 1.. {
            lab.cachenat(&["apply"]).exits(0);
            let was_killed = killed_at(&lab, "remove", calls, when);
            if in_force(&lab).is_empty() {
                gone += 1;
                lab.cachenat(&["restore"]).exits(2);
                assert_eq!(in_force(&lab), "", "{calls} number {when}");
            }
            lab.cachenat(&["remove"]).exits(0);
            stays_removed(&lab);
            assert!(!lab.dir().join("sysctl.d/90-cachenat.conf").exists(), "{calls} number {when}");
            kills += 1;
            if !was_killed {
                break;
            }
        }
    }
    assert!(kills > 30 && gone > 10 && gone < kills, "{gone} of {kills}");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn remove_names_what_reapplies_the_rules() {
    let lab = forwarding();
    let scheduled = "mount -t tmpfs none /etc/cron.d && mount -t tmpfs none /etc/systemd/system \
         && echo '* * * * * root cachenat apply' > /etc/cron.d/cachenat \
         && mkdir /etc/systemd/system/timers.target.wants \
         && ln -s /usr/lib/systemd/system/cachenat.timer /etc/systemd/system/timers.target.wants/";
    let run = after(&lab, scheduled, &["remove"]).exits(0);
    for words in ["cachenat.timer", "systemctl disable --now cachenat.timer", "/etc/cron.d/cachenat"] {
        assert!(run.stderr.contains(words), "{words}: {}", run.stderr);
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_remove_without_effect_exits_with_2() {
    let lab = forwarding();
    let before = in_force(&lab);
    let read_only = r#"for dir in state sysctl.d; do mount --bind "$0/$dir" "$0/$dir" \
        && mount -o remount,bind,ro "$0/$dir"; done && mount -o remount,bind,ro /proc/sys 2>/dev/null; \
        exec setpriv --bounding-set -net_admin --inh-caps -net_admin "$@""#;
    let run = after(&lab, read_only, &["remove"]).exits(2);
    assert!(run.stderr.contains("error:"), "{}", run.stderr);
    assert_eq!(in_force(&lab), before);
    assert!(target(&lab, 6379).is_some());
}

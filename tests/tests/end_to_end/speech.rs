//! Output problems neither block nor fail a change.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};

use cachenat_tests::lab::Lab;
use cachenat_tests::lab::product::Run;
use cachenat_tests::lab::wait::wait_for;
use cachenat_tests::programs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{in_force, spell_out, spelled_out, static_config, target};

const BEFORE: &[(u8, &str)] = &[(1, "10.0.1.230"), (2, "10.0.1.231")];
const AFTER: &[(u8, &str)] = &[(1, "10.0.1.230"), (2, "10.0.1.241")];

/// Runs cachenat with its streams led elsewhere, in a shell's words.
fn redirected(lab: &Lab, redirection: &str, args: &[&str]) -> Run {
    let mut command = lab.operator_command("sh");
    command.args(["-c", &format!("exec \"$0\" \"$@\" {redirection}")]);
    command.arg(programs::cachenat()).args(args).output().unwrap().into()
}

fn is_saved(lab: &Lab, words: &str) -> bool {
    let saved = |name: &str| std::fs::read_to_string(lab.dir().join("state").join(name)).unwrap_or_default();
    saved("ruleset.json").contains(words) && saved("inventory.json").contains(words)
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn failed_output_does_not_fail_the_change() {
    for redirection in [">/dev/full", ">&-", "2>&-", ">&- 2>&-", ">/dev/full 2>/dev/full"] {
        let lab = spelled_out(BEFORE);
        redirected(&lab, redirection, &["apply"]).exits(0);
        assert_eq!(target(&lab, 6380).as_deref(), Some("10.0.1.231:6379"), "{redirection}");
        assert!(is_saved(&lab, "10.0.1.231"), "{redirection}");
        spell_out(&lab, AFTER);
        redirected(&lab, redirection, &["apply", "--json"]).exits(0);
        assert_eq!(target(&lab, 6380).as_deref(), Some("10.0.1.241:6379"), "{redirection}");

        lab.network.nat.nft("flush ruleset");
        redirected(&lab, redirection, &["restore"]).exits(0);
        assert_eq!(target(&lab, 6380).as_deref(), Some("10.0.1.241:6379"), "{redirection}");
        redirected(&lab, redirection, &["remove"]).exits(0);
        assert_eq!(in_force(&lab), "", "{redirection}");
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_unprintable_report_is_a_warning() {
    let lab = spelled_out(BEFORE);
    let run = redirected(&lab, ">/dev/full", &["apply"]).exits(0);
    assert!(run.stderr.contains("the changes are made all the same"), "{}", run.stderr);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_printing_command_fails_without_output() {
    let lab = spelled_out(BEFORE);
    for args in [&["discover"][..], &["render"], &["diff"], &["leases"]] {
        let run = redirected(&lab, ">/dev/full", args).exits(2);
        assert!(run.stderr.contains("No space left"), "{args:?}: {}", run.stderr);
    }
}

/// A daemon whose stdout and stderr are full and not read.
struct Unread {
    child: Child,
    _reader: UnixStream,
}

impl Unread {
    fn start(lab: &Lab, args: &[&str]) -> Self {
        let (mut writer, reader) = UnixStream::pair().unwrap();
        // It is the description that does not block, which the child shares: it is set back.
        writer.set_nonblocking(true).unwrap();
        while writer.write(&[b'\n'; 1024]).is_ok() {}
        writer.set_nonblocking(false).unwrap();
        let stream = || Stdio::from(OwnedFd::from(writer.try_clone().unwrap()));
        let child = lab.cachenat_command().args(args).stdout(stream()).stderr(stream()).spawn().unwrap();
        Self { child, _reader: reader }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn watch_survives_a_closed_output() {
    let lab = spelled_out(BEFORE);
    let mut watch = Unread::start(&lab, &["watch", "--interval", "1s"]);
    wait_for("the first rules to be saved", || is_saved(&lab, "10.0.1.231").then_some(()));
    spell_out(&lab, AFTER);
    kill(watch.pid(), Signal::SIGHUP).unwrap();
    wait_for("the node to be followed", || {
        (target(&lab, 6380).as_deref() == Some("10.0.1.241:6379")).then_some(())
    });
    wait_for("that to be saved", || is_saved(&lab, "10.0.1.241").then_some(()));
    for _ in 0..3 {
        lab.network.nat.nft("flush ruleset");
        wait_for("the repair", || in_force(&lab).contains("10.0.1.241").then_some(()));
    }
    lab.cachenat(&["apply"]).exits(0);
    kill(watch.pid(), Signal::SIGTERM).unwrap();
    let status = wait_for("its end", || watch.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn apply_saves_and_unlocks_before_printing() {
    let lab = spelled_out(BEFORE);
    let _apply = Unread::start(&lab, &["apply"]);
    wait_for("the rules to be saved", || is_saved(&lab, "10.0.1.231").then_some(()));
    lab.write_config(&static_config(AFTER));
    lab.cachenat(&["apply"]).exits(0);
    assert_eq!(target(&lab, 6380).as_deref(), Some("10.0.1.241:6379"));
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_closed_output_does_not_stop_rollback() {
    let lab = spelled_out(BEFORE);
    lab.cachenat(&["apply"]).exits(0);
    let before = in_force(&lab);
    spell_out(&lab, AFTER);
    let _apply = Unread::start(&lab, &["apply", "--confirm", "1"]);
    wait_for("the change", || in_force(&lab).contains("10.0.1.241").then_some(()));
    wait_for("the former rules", || (in_force(&lab) == before).then_some(()));
}

//! System calls that fail one at a time, as when the kernel is out of memory or buffer space.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use cachenat_tests::lab::Lab;
use cachenat_tests::lab::daemon::Daemon;
use cachenat_tests::lab::product::Run;
use cachenat_tests::lab::wait::wait_for;
use cachenat_tests::programs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{in_force, spell_out, spelled_out, target};

const BEFORE: &[(u8, &str)] = &[(1, "10.0.1.230")];
const AFTER: &[(u8, &str)] = &[(1, "10.0.1.240")];

/// What strace(1) calls the messages that matter.
const COMMIT: &str = "NFNL_MSG_BATCH_BEGIN";
const FLOWS: &str = "IPCTNL_MSG_CT_GET";

/// A lab where a node has moved and nothing was applied since.
struct Moved {
    lab: Lab,
    before: String,
}

impl Moved {
    fn new() -> Self {
        let lab = spelled_out(BEFORE);
        lab.cachenat(&["apply"]).exits(0);
        let before = in_force(&lab);
        spell_out(&lab, AFTER);
        Self { lab, before }
    }

    /// `apply` where its main thread, which commits, meets a fault: `sendmsg:error=ENOMEM:when=3`.
    fn apply(&self, fault: &str) -> Run {
        self.strace(&[], fault).output().unwrap().into()
    }

    fn strace(&self, options: &[&str], fault: &str) -> Command {
        let calls = fault.split(':').next().unwrap();
        let mut strace = self.lab.operator_command("strace");
        strace.args(options).args(["-qq", "-o"]).arg(self.trace());
        strace.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={fault}")]);
        strace.arg(programs::cachenat()).arg("apply");
        strace
    }

    fn trace(&self) -> PathBuf {
        self.lab.dir().join("trace")
    }

    /// Which `sendmsg` of the main thread sends such a message, as a run shows that changes as much.
    fn number_of(&self, words: &str) -> usize {
        spell_out(&self.lab, &[(1, "10.0.1.250")]);
        self.apply("sendmsg:delay_enter=1").exits(0);
        let trace = fs::read_to_string(self.trace()).unwrap();
        spell_out(&self.lab, BEFORE);
        self.lab.cachenat(&["apply"]).exits(0);
        spell_out(&self.lab, AFTER);
        // Whoever waits for the next one's words must not read these.
        fs::remove_file(self.trace()).unwrap();
        let place = trace.lines().position(|line| line.contains(words));
        place.unwrap_or_else(|| panic!("the main thread sends no {words}: {trace}")) + 1
    }

    #[track_caller]
    fn is_done(&self) {
        assert_eq!(target(&self.lab, 6379).as_deref(), Some("10.0.1.240:6379"));
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_refused_commit_changes_nothing() {
    let moved = Moved::new();
    let commit = moved.number_of(COMMIT);
    for error in ["ENOMEM", "EPERM", "ENOSPC", "EIO"] {
        let run = moved.apply(&format!("sendmsg:error={error}:when={commit}")).exits(2);
        assert!(run.stderr.starts_with("error: "), "{}", run.stderr);
        assert_eq!(in_force(&moved.lab), moved.before, "{error}");
    }
    moved.lab.cachenat(&["apply"]).exits(0);
    moved.is_done();
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_lost_commit_is_read_back_and_retried() {
    for error in ["ENOBUFS", "EINTR"] {
        let moved = Moved::new();
        let commit = moved.number_of(COMMIT);
        moved.apply(&format!("sendmsg:error={error}:when={commit}")).exits(0);
        moved.is_done();
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn an_unverified_commit_exits_with_3() {
    let moved = Moved::new();
    let after = moved.number_of(COMMIT) + 1;
    let run = moved.apply(&format!("sendmsg:error=ENOMEM:when={after}+")).exits(3);
    assert!(run.stderr.contains("committed, but not verified"), "{}", run.stderr);
    moved.is_done();
    moved.lab.cachenat(&["apply"]).exits(0);
}

/// The kernel drops answers when the socket's buffer is full; the receive after the commit finds that out.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_lost_answer_is_atomic() {
    let moved = Moved::new();
    for (when, nodes) in (1..100).zip([AFTER, BEFORE].into_iter().cycle()) {
        let old = in_force(&moved.lab);
        spell_out(&moved.lab, nodes);
        let fault = format!("recvfrom:error=ENOBUFS:when={when}");
        let run = Run::from(moved.strace(&["-f"], &fault).output().unwrap());
        let left = in_force(&moved.lab);
        let next = moved.lab.cachenat(&["apply"]);
        assert_eq!(next.code, 0, "{}", next.stderr);
        let new = in_force(&moved.lab);
        match run.code {
            2 => assert_eq!(left, old, "receive {when}: {}", run.stderr),
            // 3: connections could not be listed.
            0 | 3 => assert_eq!(left, new, "receive {when}: {}", run.stderr),
            code => panic!("receive {when}: {code}: {}", run.stderr),
        }
        let trace = fs::read_to_string(moved.trace()).unwrap();
        if !trace.contains("INJECTED") {
            assert!(when > 20, "the calls have other names here");
            return;
        }
    }
    panic!("there is no end to it");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn missing_ctnetlink_is_a_warning() {
    let moved = Moved::new();
    let list = moved.number_of(FLOWS);
    let run = moved.apply(&format!("sendmsg:error=EINVAL:when={list}")).exits(0);
    assert!(run.stderr.contains("CONFIG_NF_CT_NETLINK"), "{}", run.stderr);
    moved.is_done();
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_failed_fsync_exits_with_3() {
    for fault in ["fsync:error=EIO", "rename,renameat:error=EROFS"] {
        let moved = Moved::new();
        let run = moved.apply(fault).exits(3);
        assert!(run.stderr.contains("the state could not be saved"), "{}", run.stderr);
        moved.is_done();
        assert_eq!(moved.lab.cachenat(&["apply"]).exits(0).stderr, "");
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_flush_before_commit_is_repaired() {
    let moved = Moved::new();
    let commit = moved.number_of(COMMIT);
    // strace writes a call down as it enters it, and holds this one for as long as strace lives.
    let hold = format!("sendmsg:delay_enter=1000000000:when={commit}");
    let mut apply = Daemon::start(&mut moved.strace(&["-D"], &hold));
    wait_for("the commit", || fs::read_to_string(moved.trace()).ok()?.contains(COMMIT).then_some(()));
    moved.lab.network.nat.nft("flush ruleset");
    assert_eq!(in_force(&moved.lab), "", "the commit is still to come");
    kill(tracer(apply.pid()), Signal::SIGKILL).unwrap();
    assert_eq!(apply.end().code(), Some(0), "{:?}", apply.said());
    moved.is_done();
    moved.lab.cachenat(&["diff"]).exits(0);
}

/// Who traces a process (proc_pid_status(5)).
fn tracer(pid: Pid) -> Pid {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:")).unwrap();
    Pid::from_raw(tracer.trim().parse().unwrap())
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_read_only_proc_matters_only_when_wrong() {
    let lab = spelled_out(BEFORE);
    let read_only = |lab: &Lab, args: &[&str]| {
        let mut command = lab.operator_command("sh");
        let mounts = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec \"$@\"";
        command.args(["-c", mounts, "sh"]).arg(programs::cachenat()).args(args);
        Run::from(command.output().unwrap())
    };
    let run = read_only(&lab, &["apply"]).exits(2);
    assert!(run.stderr.contains("sysctl -w net.ipv4.ip_forward=1"), "{}", run.stderr);
    assert_eq!(in_force(&lab), "");
    assert!(!lab.dir().join("sysctl.d/90-cachenat.conf").exists());

    lab.network.nat.set_sysctl("net/ipv4/ip_forward", "1");
    read_only(&lab, &["apply"]).exits(0);
    assert_eq!(target(&lab, 6379).as_deref(), Some("10.0.1.230:6379"));
}

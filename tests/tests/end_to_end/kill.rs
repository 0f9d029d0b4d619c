//! An `apply` that is killed at any of its system calls leaves the old rules or the new ones.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;

use cachenat_tests::lab::Lab;
use cachenat_tests::programs;

use crate::common::{foreign_tables, in_force, spell_out, spelled_out, target};
use crate::rules::FOREIGN;

/// The system calls by which a run does anything, with how many of the first belong to the loader.
pub(crate) const EFFECTS: [(&str, usize); 10] = [
    ("flock", 0),
    ("ftruncate", 0),
    ("sendmsg", 0),
    ("recvfrom", 0),
    ("write", 0),
    ("fsync", 0),
    ("rename,renameat", 0),
    ("mkdir", 0),
    ("unlink", 0),
    ("openat", 14),
];

/// Two configs between which a node moves, one goes, one comes and one stays.
const CONFIGS: [&[(u8, &str)]; 2] = [
    &[(1, "10.0.1.230"), (2, "10.0.1.231"), (3, "10.0.1.232")],
    &[(1, "10.0.1.240"), (3, "10.0.1.232"), (4, "10.0.1.233")],
];

/// The permanent ports of the nodes.
const PORTS: [(u8, u16); 4] = [(1, 6379), (2, 6380), (3, 6381), (4, 6382)];

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_kill_at_any_syscall_is_atomic() {
    let lab = spelled_out(CONFIGS[1]);
    lab.network.nat.nft(FOREIGN);
    // In the order of the ports, so that both configs have had all their nodes.
    for config in [CONFIGS[0], CONFIGS[1]] {
        spell_out(&lab, config);
        lab.cachenat(&["apply"]).exits(0);
    }
    let foreign = foreign_tables(&lab);
    let mut kills = 0;
    for (calls, first) in EFFECTS {
        for when in first + 1.. {
            let config = CONFIGS[kills % 2];
            let old = in_force(&lab);
            spell_out(&lab, config);
            let was_killed = killed_at(&lab, "apply", calls, when);
            let left = in_force(&lab);

            let place = format!("{calls} number {when}");
            let next = lab.cachenat(&["apply"]).exits(0);
            let new = in_force(&lab);
            assert!(left == old || left == new, "{place}: {left}");
            assert_ne!(old, new);
            assert!(!next.stderr.contains("warning"), "{place}: {}", next.stderr);
            assert_eq!(foreign_tables(&lab), foreign, "{place}");
            for (number, host) in config {
                let port = PORTS.iter().find(|(of, _)| of == number).unwrap().1;
                assert_eq!(target(&lab, port), Some(format!("{host}:6379")), "{place}");
            }
            kills += 1;
            if !was_killed {
                break;
            }
        }
    }
    assert!(kills > 60, "{kills} kills: the calls have other names here");
    // Nothing piles up, however often.
    let files = fs::read_dir(lab.dir().join("state")).unwrap();
    let files: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
    assert!(files.len() <= 7, "{files:?}");
}

/// Whether a run was killed as it entered this system call for the nth time (strace(1), syscall tampering).
pub(crate) fn killed_at(lab: &Lab, command: &str, calls: &str, when: usize) -> bool {
    let mut strace = lab.operator_command("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
    strace.args(["-e", &format!("inject={calls}:signal=KILL:when={when}")]);
    strace.arg(programs::cachenat()).arg(command);
    let output = strace.output().unwrap();
    assert!(output.status.success() || output.status.signal() == Some(9), "{output:?}");
    !output.status.success()
}

//! Other processes commit concurrently.

use std::io::Write as _;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cachenat_tests::lab::Lab;

use crate::common::{generation, in_force, spell_out, spelled_out, target};

const CONFIGS: [&[(u8, &str)]; 2] =
    [&[(1, "10.0.1.230"), (2, "10.0.1.231")], &[(1, "10.0.1.240"), (2, "10.0.1.231"), (3, "10.0.1.232")]];

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn applies_succeed_next_to_a_busy_nft() {
    let lab = with_a_foreign_set();
    let before = generation(&lab);
    let nft = |text: &str| lab.network.nat.nft(text);
    beside(
        || {
            nft("add element inet foreign s { 192.0.2.1 }");
            nft("delete element inet foreign s { 192.0.2.1 }");
        },
        || {
            for number in 0..200 {
                spell_out(&lab, CONFIGS[number % 2]);
                lab.cachenat(&["apply"]).exits(0);
                assert_eq!(target(&lab, 6379).as_deref(), Some(target_of(number)), "apply {number}");
            }
        },
    );
    let foreign = generation(&lab).wrapping_sub(before) - 200;
    assert!(foreign > 400, "the other writer was slow: {foreign} commits");
    lab.cachenat(&["diff"]).exits(0);
}

/// Thousands of commits a second leave no room for a dump of one generation, and none is needed.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn changes_succeed_next_to_a_continuous_writer() {
    let lab = with_a_foreign_set();
    let change = |number: usize| {
        spell_out(&lab, CONFIGS[number % 2]);
        let begin = Instant::now();
        lab.cachenat(&["apply"]).exits(0);
        let took = begin.elapsed();
        assert_eq!(target(&lab, 6379).as_deref(), Some(target_of(number)), "apply {number}");
        took
    };
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    let quiet = median((0..10).map(change).collect());
    let before = generation(&lab);
    let mut nft = lab.network.nat.command("nft");
    let mut nft = nft.arg("--interactive").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = nft.stdin.take().unwrap();
    beside(
        // The pipe takes no more than nft(8) has carried out.
        || {
            lines.write_all(b"add element inet foreign s { 192.0.2.1 }\n").unwrap();
            lines.write_all(b"delete element inet foreign s { 192.0.2.1 }\n").unwrap();
        },
        || {
            let busy = median((0..30).map(change).collect());
            assert!(busy < quiet * 5, "{busy:?} instead of {quiet:?}");
            lab.cachenat(&["diff"]).exits(0);
        },
    );
    let commits = generation(&lab).wrapping_sub(before);
    assert!(commits > 30 * 10, "the other writer was slow: {commits} commits in all");
    drop(lines);
    nft.wait().unwrap();
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn ten_concurrent_applies_make_one_commit() {
    let lab = spelled_out(CONFIGS[1]);
    let before = generation(&lab);
    let start = |_| {
        let mut command = lab.cachenat_command();
        command.arg("apply").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let runs: Vec<_> = (0..10).map(start).collect();
    for run in runs {
        let output = run.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(generation(&lab), before + 1);
    assert!(in_force(&lab).contains("local-003"));
}

fn with_a_foreign_set() -> Lab {
    let lab = spelled_out(CONFIGS[1]);
    lab.cachenat(&["apply"]).exits(0);
    lab.network.nat.nft("add table inet foreign\nadd set inet foreign s { type ipv4_addr; }");
    lab
}

/// Where the first node is after an apply of this number.
fn target_of(number: usize) -> &'static str {
    if number.is_multiple_of(2) { "10.0.1.230:6379" } else { "10.0.1.240:6379" }
}

/// Does something again and again on another thread while `work` goes on.
fn beside(mut again: impl FnMut() + Send, work: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                again();
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        is_over.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

//! Processes that are timed.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

use crate::stats::Samples;

/// Measurements of one thing, in milliseconds.
pub(crate) type Times = Samples;

/// `10,000`
pub(crate) fn grouped(number: u16) -> String {
    match number / 1_000 {
        0 => number.to_string(),
        thousands => format!("{thousands},{:03}", number % 1_000),
    }
}

pub(crate) fn timed(act: impl FnOnce()) -> Duration {
    let start = Instant::now();
    act();
    start.elapsed()
}

/// What processes took from start to end.
#[derive(Clone, Default)]
pub(crate) struct Runs {
    pub(crate) wall: Times,
    /// User and system time.
    pub(crate) cpu: Times,
}

impl Runs {
    pub(crate) fn push(&mut self, command: &mut Command) {
        let before = cpu_of_children();
        self.wall.push(timed(|| run(command)));
        self.cpu.push(cpu_of_children() - before);
    }
}

fn cpu_of_children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let times = [usage.user_time(), usage.system_time()];
    let microseconds: i64 = times.iter().map(|time| time.tv_sec() * 1_000_000 + time.tv_usec()).sum();
    Duration::from_micros(u64::try_from(microseconds).unwrap())
}

/// Runs a program that must succeed; its stderr is shown.
pub(crate) fn run(command: &mut Command) {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

/// The word by which this program is told to run another and to print its peak memory.
pub(crate) const PEAK: &str = "peak-of";

/// The peak memory of a process, in MiB.
///
/// The kernel counts to a new process what its parent had at that moment (`exec_mmap`, `fs/exec.c`), and this one has
/// much; so a small one in between starts it.
pub(crate) fn peak(command: &Command) -> f64 {
    let mut between = Command::new(std::env::current_exe().unwrap());
    between.arg(PEAK).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        between.env(name, value.unwrap());
    }
    let output = between.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", output.status);
    let kib: f64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    kib / 1024.0
}

pub(crate) fn print_peak(command: &[&str]) {
    run(Command::new(command[0]).args(&command[1..]));
    println!("{}", getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss());
}

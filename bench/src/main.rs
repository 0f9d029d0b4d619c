//! Measures cachenat and its peers, and writes docs/BENCHMARKS.md; `scripts/bench` runs it in private namespaces.
//!
//! Machines are shared and noisy, so compared things are measured in turns within one run; the results are medians with
//! their quartiles.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

mod data;
mod discovery;
mod following;
mod growth;
mod library;
mod measure;
mod page;
mod plot;
mod processes;
mod section;
mod stats;
mod traffic;

use std::fs;
use std::process::Command;
use std::time::Duration;

use cachenat_tests::lab::shell::run;
use section::{Progress, Section};

/// How much is measured.
#[derive(Clone, Copy)]
struct Plan {
    /// The number of rounds for measurements that take a tenth of a second.
    rounds: usize,
    /// The number of rounds for measurements that take a second.
    long_rounds: usize,
    quick: bool,
}

/// A part of the run, in a process of its own.
struct Part {
    name: &'static str,
    measure: fn(Plan, &mut Progress) -> Section,
    /// The approximate duration in seconds, complete and quick; it is aborted after four times that.
    seconds: [u64; 2],
}

const PARTS: [Part; 4] = [
    Part { name: "data path", measure: traffic::measure, seconds: [480, 65] },
    Part { name: "following", measure: following::measure, seconds: [180, 40] },
    Part { name: "control path", measure: control_path, seconds: [150, 40] },
    Part { name: "growth", measure: growth::measure, seconds: [120, 25] },
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [measure::PEAK, command @ ..] => measure::print_peak(command),
        [section::SECTION, name, after, options @ ..] => {
            let part = PARTS.iter().find(|part| part.name == *name).expect("a part of this program");
            let mut progress = Progress::new(Duration::from_secs(after.parse().unwrap()));
            let found = (part.measure)(plan(options), &mut progress);
            println!("{}", serde_json::to_string(&found).unwrap());
        }
        options => whole(plan(options), options),
    }
}

fn plan(options: &[&str]) -> Plan {
    match options {
        [] => Plan { rounds: 31, long_rounds: 11, quick: false },
        ["--quick"] => Plan { rounds: 7, long_rounds: 3, quick: true },
        _ => panic!("usage: scripts/bench [--quick]"),
    }
}

fn whole(plan: Plan, options: &[&str]) {
    // The address of the gateway that the configuration names.
    run(Command::new("ip").args("address add 10.0.0.55/32 dev lo".split(' ')));
    let busy = stats::busy_percent(Duration::from_secs(3));
    let seconds = |part: &Part| part.seconds[usize::from(plan.quick)];
    let mut chapters = Vec::new();
    for (place, part) in PARTS.iter().enumerate() {
        let after = Duration::from_secs(PARTS[place + 1..].iter().map(seconds).sum());
        let limit = Duration::from_secs(4 * seconds(part));
        let found = section::run(part.name, options, after, limit);
        if let Err(why) = &found {
            eprintln!("{} failed: {why}", part.name);
        }
        chapters.push((part.name, found));
    }
    let (page, plots) = page::compose(plan, busy, &chapters);
    for (name, svg) in plots {
        fs::write(format!("docs/{name}"), svg).unwrap();
    }
    print!("{page}");
    fs::write("docs/BENCHMARKS.md", page).unwrap();
    if chapters.iter().any(|(_, found)| found.is_err()) {
        std::process::exit(1);
    }
}

fn control_path(plan: Plan, progress: &mut Progress) -> Section {
    progress.step("control path");
    let (processes, targets) = processes::measure(plan);
    let text = [processes, library::measure(plan), discovery::measure(plan)].concat();
    Section { text, targets, ..Section::default() }
}

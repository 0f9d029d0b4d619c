//! Measures the control path beside its peers and writes docs/BENCHMARKS.md; `scripts/bench` runs it in namespaces of
//! its own.
//!
//! Machines are shared and noisy, so what is compared is measured in turns within one run; medians are shown, with the
//! range of the middle half.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

mod data;
mod discovery;
mod library;
mod measure;
mod processes;

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use cachenat_tests::lab::shell::run;

/// How much is measured.
#[derive(Clone, Copy)]
struct Plan {
    /// How often each thing is measured that takes a tenth of a second.
    rounds: usize,
    /// The same for things that take a second.
    long_rounds: usize,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let plan = match words.as_slice() {
        [measure::PEAK, command @ ..] => return measure::print_peak(command),
        [] => Plan { rounds: 31, long_rounds: 11 },
        ["--quick"] => Plan { rounds: 7, long_rounds: 3 },
        _ => panic!("usage: scripts/bench [--quick]"),
    };
    // The address of the gateway that the configuration names.
    run(Command::new("ip").args("address add 10.0.0.55/32 dev lo".split(' ')));

    let load = fs::read_to_string("/proc/loadavg").unwrap();
    let load = load.split(' ').next().unwrap_or_default();
    let mut page = format!("{HEAD}{}, load average {load} as it began; {}.\n\n", machine(), rounds(plan));
    page.push_str(&processes::measure(plan));
    page.push_str(&library::measure(plan));
    page.push_str(&discovery::measure(plan));
    print!("{page}");
    fs::write("docs/BENCHMARKS.md", page).unwrap();
}

const HEAD: &str = "# Benchmarks

What the control path costs: the time from a node's move to new rules, and what cron pays when nothing has changed. The
data path is one hash lookup for the first packet of a connection, at any number of forwards.

```sh
scripts/bench            # two minutes; writes this page
scripts/bench --quick    # the same with fewer rounds
```

Figures are medians, with the middle half of the measurements in brackets. What stands in one table was measured in turns
in one run, at a raised priority; compare within a table, and trust ratios more than times. ";

fn rounds(plan: Plan) -> String {
    format!("{} rounds, {} where one takes a second", plan.rounds, plan.long_rounds)
}

fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let info = fs::read_to_string("/proc/cpuinfo").unwrap();
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let mut machine = String::from("Measured on ");
    write!(machine, "{cores} cores of {}", model.trim_start_matches(['\t', ':', ' '])).unwrap();
    let nft = run(Command::new("nft").arg("--version"));
    let nft = nft.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    write!(machine, ", Linux {}, {nft}", kernel.trim()).unwrap();
    machine
}

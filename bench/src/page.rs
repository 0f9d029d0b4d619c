//! The page: the goals first, then each chapter.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use cachenat_tests::lab::shell::run;

use crate::Plan;
use crate::plot::{Curve, Plot, Scale};
use crate::section::{Growth, Section, Target};
use crate::stats::{exponent, number};

/// Above this, something grows more than in proportion; what is below may be the noise of measuring and the caches of
/// the processor.
const LINEAR: f64 = 1.1;

/// A chapter, or what became of it.
pub(crate) type Chapter = (&'static str, Result<Section, String>);

/// The whole page, and the pictures that go with it.
pub(crate) fn compose(plan: Plan, busy: f64, chapters: &[Chapter]) -> (String, Vec<(String, String)>) {
    let sections = || chapters.iter().filter_map(|(_, chapter)| chapter.as_ref().ok());
    let growth: Vec<&Growth> = sections().flat_map(|section| &section.growth).collect();
    let targets: Vec<&Target> = sections().flat_map(|section| &section.targets).collect();
    let mut page = format!("{HEAD}{}, {busy:.0} % busy as it began.{}\n\n", machine(), caution(plan, busy));
    page.push_str(&summary(&targets, &growth, chapters));
    for (name, chapter) in chapters {
        match chapter {
            Ok(section) => page.push_str(&section.text),
            Err(why) => {
                writeln!(page, "## Not measured: {name}\n\nThis part of the run failed: {}\n", one_line(why))
                    .unwrap();
            }
        }
    }
    page.push_str(&growth_chapter(&growth));
    page.push_str(include_str!("tried.md"));
    let mut plots: Vec<(String, String)> = sections().flat_map(|section| section.plots.clone()).collect();
    if !growth.is_empty() {
        plots.push(("bench-growth.svg".to_owned(), growth_plot(&growth)));
    }
    (page.trim_end().to_owned() + "\n", plots)
}

const HEAD: &str = "# Benchmarks

What cachenat costs a packet, how soon it follows a node that is replaced, and what it takes to run: beside the peers that one
might use instead. One command measures all of it, in network namespaces, and writes this page:

```sh
scripts/bench            # about a quarter of an hour, as root, on a machine that does nothing else
scripts/bench --quick    # within three minutes: fewer rounds, the same page
```

Figures are medians, with the middle half of the measurements in brackets. What stands in one table was measured in turns in one
run, at a raised priority; compare within a table, and trust ratios more than times. ";

fn caution(plan: Plan, busy: f64) -> &'static str {
    if busy > 20.0 {
        " **The machine had other work to do: its figures are not to be trusted.**"
    } else if plan.quick {
        " **A `--quick` run: its figures are rough.**"
    } else {
        ""
    }
}

fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let info = fs::read_to_string("/proc/cpuinfo").unwrap();
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let nft = run(Command::new("nft").arg("--version"));
    let nft = nft.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let model = model.trim_start_matches(['\t', ':', ' ']);
    format!("Measured on {cores} cores of {model}, Linux {}, {nft}", kernel.trim())
}

/// The table of goals, which fits one screen.
fn summary(targets: &[&Target], growth: &[&Growth], chapters: &[Chapter]) -> String {
    let mut text =
        String::from("## At a glance\n\n| what | wanted | measured | reached |\n|---|---|---|---|\n");
    for target in targets {
        let reached = if target.reached { "yes" } else { "**no**" };
        let note = if target.note.is_empty() { String::new() } else { format!(" ({})", target.note) };
        writeln!(text, "| {} | {} | {}{note} | {reached} |", target.what, target.wanted, target.measured)
            .unwrap();
    }
    if !growth.is_empty() {
        let defects: Vec<String> = growth
            .iter()
            .filter(|growth| growth.is_a_defect())
            .map(|growth| format!("{} with {}: {:.2}", growth.what, growth.with, growth.steepest()))
            .collect();
        let (measured, reached) = match defects.as_slice() {
            [] => (format!("all {} that were measured", growth.len()), "yes"),
            _ => (format!("all but {}", defects.join("; ")), "**no**"),
        };
        writeln!(
            text,
            "| growth with nodes, clients and clusters | at most linear | {measured} | {reached} |"
        )
        .unwrap();
    }
    for (name, _) in chapters.iter().filter(|(_, chapter)| chapter.is_err()) {
        writeln!(text, "| {name} | | not measured: it failed, see below | **no** |").unwrap();
    }
    text + "\n"
}

impl Growth {
    fn exponent(&self) -> f64 {
        exponent(&self.points)
    }

    /// The greatest exponent between one point and the next: what is always there hides less of it than over the whole range.
    fn steepest(&self) -> f64 {
        self.points.windows(2).map(exponent).fold(f64::NEG_INFINITY, f64::max)
    }

    /// Whether it grows more than in proportion anywhere. Peers are no defect of ours.
    fn is_a_defect(&self) -> bool {
        self.steepest() > LINEAR && !self.what.contains("iptables")
    }
}

fn growth_chapter(growth: &[&Growth]) -> String {
    if growth.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "## How it grows\n\nThe power law `cost = a n^b` that lies closest to the medians (least squares on their logarithms). With \
         `b` = 1 twice as much costs twice as much, with 0 it costs the same. What is always there flattens the whole, so the steepest \
         step from one size to the next stands beside it; above {LINEAR} it is called a **defect**. Of \
         commands it is the CPU time, user and system; of the dump, the time.\n\n\
         | what | grows with | range | from | to | b | steepest | |\n|---|---|--:|--:|--:|--:|--:|---|\n"
    );
    for growth in growth {
        let (Some(first), Some(last)) = (growth.points.first(), growth.points.last()) else { continue };
        let verdict = if growth.is_a_defect() { "**defect**" } else { "" };
        let note = [verdict, growth.note.as_str()].join(" ");
        writeln!(
            text,
            "| {} | {} | {}-{} | {} {unit} | {} {unit} | {:.2} | {:.2} | {} |",
            growth.what,
            growth.with,
            number(first.0),
            number(last.0),
            number(first.1),
            number(last.1),
            growth.exponent(),
            growth.steepest(),
            note.trim(),
            unit = growth.unit,
        )
        .unwrap();
    }
    text + "\n![Growth with the number of nodes](bench-growth.svg)\n\n"
}

fn growth_plot(growth: &[&Growth]) -> String {
    let times = growth.iter().filter(|growth| growth.with == "nodes" && growth.unit == "ms");
    let curves =
        times.map(|growth| Curve { name: growth.what.replace('`', ""), points: growth.points.clone() });
    Plot {
        title: "CPU time of each command, by number of nodes",
        x: ("nodes", Scale::Log),
        y: ("milliseconds", Scale::Log),
        curves: curves.collect(),
    }
    .svg()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

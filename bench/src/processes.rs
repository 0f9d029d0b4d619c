//! Measures complete processes from start to end, as cron runs them, and their peers.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use cachenat_tests::lab::namespace::Namespace;
use cachenat_tests::programs;

use crate::Plan;
use crate::data::{FIRST_PORT, Nodes};
use crate::measure::{Runs, grouped, peak, run};
use crate::section::Target;

const MANY: Nodes = Nodes { size: 10_000, moved: false };
const FEW: Nodes = Nodes { size: 100, moved: false };
const MOST: Nodes = Nodes { size: 60_000, moved: false };

/// Writes a chapter, and adds what was to be reached.
type Part = fn(&Bench, Plan, &mut Vec<Target>) -> String;

/// The chapters, and what was to be reached.
pub(crate) fn measure(plan: Plan) -> (String, Vec<Target>) {
    let bench = Bench::new();
    let mut targets = Vec::new();
    let parts: [Part; 6] = [starts, one_moves, one_of_most_moves, in_step, anew, memory];
    let text = parts.map(|part| part(&bench, plan, &mut targets)).concat();
    (text, targets)
}

fn target(what: &str, wanted: &str, measured: String, reached: bool) -> Target {
    Target { what: what.to_owned(), wanted: wanted.to_owned(), measured, reached, note: String::new() }
}

fn starts(bench: &Bench, plan: Plan, targets: &mut Vec<Target>) -> String {
    bench.start_with(FEW);
    let commands: [&[&str]; 9] = [
        &["--version"],
        &["completions", "bash"],
        &["leases"],
        &["endpoints"],
        &["render"],
        &["diff"],
        &["status"],
        &["restore"],
        &["apply"],
    ];
    let inventory = bench.inventory(FEW);
    let start = &|command: &[&str]| {
        let mut cachenat = bench.cachenat(command[0]);
        cachenat.args(&command[1..]);
        if ["render", "diff", "apply"].contains(&command[0]) {
            cachenat.arg("--inventory").arg(&inventory);
        }
        cachenat
    };
    let names = commands.map(|command| format!("`cachenat {}`", command.join(" ")));
    let mut starts = commands.map(|command| move || start(command));
    let mut contenders: Vec<Contender<'_>> = Vec::new();
    for (name, start) in names.iter().zip(&mut starts) {
        contenders.push((name, start));
    }
    let runs = in_turns("cold starts", plan.rounds, &mut contenders, || {});
    let start = runs[0].wall.median();
    targets.push(target("start (`--version`)", "under 5 ms", format!("{start:.1} ms"), start < 5.0));
    let size = fs::metadata(programs::cachenat()).unwrap().len() as f64 / f64::from(1 << 20);
    format!(
        "## Starting, with 100 nodes in step\n\nThe binary has {size:.1} MiB, stripped and with link-time optimisation.\n\n{}\n",
        table(&contenders, &runs, 0)
    )
}

fn one_of_most_moves(bench: &Bench, plan: Plan, targets: &mut Vec<Target>) -> String {
    bench.start_with(MOST);
    let mut apply = || bench.apply(MOST.moved());
    let mut delta = || {
        let mut script = Command::new("sh");
        script.args(["-c", "nft list table inet cachenat > /dev/null && exec nft -f \"$0\""]);
        script.arg(bench.file("delta-most.nft"));
        script
    };
    let mut contenders: [Contender<'_>; 2] = [
        ("`cachenat apply --inventory`", &mut apply),
        ("`nft list table`, then `nft -f` with the same two elements deleted and added", &mut delta),
    ];
    let runs = in_turns("one of 60,000 nodes moves", plan.long_rounds, &mut contenders, || {
        run(&mut bench.apply(MOST));
    });
    let ratio = ratio(&runs[0], &runs[1]);
    let what = "one change at 60,000 nodes, to `nft`'s list and change";
    targets.push(target(what, "under 0.50", format!("{ratio:.2}"), ratio < 0.5));
    format!("## One of 60,000 nodes moves\n\n{}\n", table(&contenders, &runs, 1))
}

fn one_moves(bench: &Bench, plan: Plan, _: &mut Vec<Target>) -> String {
    bench.start_with(MANY);
    let others = Namespace::new();
    let mut apply = || bench.apply(MANY.moved());
    let mut delta = || bench.nft("delta.nft");
    let mut whole = || bench.iptables(&others);
    let mut contenders: [Contender<'_>; 3] = [
        ("`cachenat apply --inventory`", &mut apply),
        ("`nft -f` with the same two elements deleted and added", &mut delta),
        ("`iptables-nft-restore` with the whole table, which is all it can do", &mut whole),
    ];
    let runs = in_turns("one of 10,000 nodes moves", plan.rounds, &mut contenders, || {
        run(&mut bench.apply(MANY));
    });
    let [apply, nft, iptables] = &runs[..] else { unreachable!("three contenders ran") };
    format!(
        "## One of 10,000 nodes moves\n\n{}\n`apply` takes {:.1} times as long as the bare delta and {:.2} of a whole \
         `iptables-nft-restore`. It reads what `nft -f` is told: the inventory, the last good one, the leases and the kernel's \
         table; and it reads back what it wrote, cuts the flows to the old address and keeps its state on disk. Most of \
         nft's time is not work but the closing of its socket, which waits until no packet can see the deleted elements.\n\n",
        table(&contenders, &runs, 1),
        ratio(apply, nft),
        ratio(apply, iptables),
    )
}

fn in_step(bench: &Bench, plan: Plan, targets: &mut Vec<Target>) -> String {
    let mut page = String::from("## Nothing has changed\n\nWhat cron pays each minute.\n");
    let mut few_cpu = 0.0;
    for nodes in [FEW, MANY] {
        bench.start_with(nodes);
        let mut apply = || bench.apply(nodes);
        let mut list = || bench.list();
        let name = format!("`cachenat apply --inventory`, {} nodes", grouped(nodes.size));
        let mut contenders: [Contender<'_>; 2] =
            [(&name, &mut apply), ("`nft list table inet cachenat` of the same", &mut list)];
        let what = format!("{} nodes in step", grouped(nodes.size));
        let runs = in_turns(&what, plan.rounds, &mut contenders, || {});
        if nodes.size == FEW.size {
            few_cpu = runs[0].cpu.median();
        }
        if nodes.size == MANY.size {
            let ratio = ratio(&runs[0], &runs[1]);
            let what = "`apply` in step at 10,000 nodes, to `nft list table`";
            targets.push(target(what, "under 1.00", format!("{ratio:.2}"), ratio < 1.0));
        }
        page.push_str(&format!("\n{}", table(&contenders, &runs, 1)));
    }
    page + &format!(
        "\nA run in step sends nothing to the kernel, and with 100 nodes it costs {few_cpu:.1} ms of CPU.\n\n"
    )
}

fn anew(bench: &Bench, plan: Plan, _: &mut Vec<Target>) -> String {
    bench.start_with(MANY);
    let (for_nft, for_iptables) = (Namespace::new(), Namespace::new());
    let mut apply = || bench.apply(MANY);
    let mut nft = || {
        let mut nft = for_nft.command("nft");
        nft.arg("-f").arg(bench.file("whole.nft"));
        nft
    };
    let mut iptables = || bench.iptables(&for_iptables);
    let mut contenders: [Contender<'_>; 3] = [
        ("`cachenat apply --inventory`, after a boot: state, but no table", &mut apply),
        ("`nft -f` with the table that `cachenat render` prints", &mut nft),
        ("`iptables-nft-restore` with AWS's form of it", &mut iptables),
    ];
    let runs = in_turns("10,000 forwards anew", plan.long_rounds, &mut contenders, || {
        run(Command::new("nft").arg("add table inet cachenat; delete table inet cachenat"));
    });
    let [apply, nft, iptables] = &runs[..] else { unreachable!("three contenders ran") };
    format!(
        "## 10,000 forwards from nothing\n\n{}\nA first `apply` takes {:.2} of the time of `nft -f` and {:.2} of that of \
         `iptables-nft-restore`.\n\n",
        table(&contenders, &runs, 1),
        ratio(apply, nft),
        ratio(apply, iptables),
    )
}

fn memory(bench: &Bench, _: Plan, targets: &mut Vec<Target>) -> String {
    let mut page = String::from(
        "## Memory\n\nPeak resident memory of `cachenat apply --inventory`, in MiB.\n\n| nodes | first | one moved | in \
         step |\n|--:|--:|--:|--:|\n",
    );
    let mut peaks = Vec::new();
    for nodes in [FEW, MANY, MOST] {
        eprintln!("memory with {} nodes", grouped(nodes.size));
        bench.forget();
        let [first, moved, idle] =
            [nodes, nodes.moved(), nodes.moved()].map(|nodes| peak(&bench.apply(nodes)));
        writeln!(page, "| {} | {first:.1} | {moved:.1} | {idle:.1} |", grouped(nodes.size)).unwrap();
        peaks.push(first.max(moved).max(idle));
    }
    bench.forget();
    let most = peaks[2] * f64::from(1 << 20) / 1e6;
    let what = "peak memory at 60,000 nodes";
    targets.push(target(what, "under 100 MB", format!("{most:.0} MB"), most < 100.0));
    let each = (peaks[2] - peaks[0]) * 1024.0 / f64::from(MOST.size - FEW.size);
    page + &format!("\nEach node takes {each:.1} KiB.\n\n")
}

/// What is run, and how.
type Contender<'a> = (&'a str, &'a mut dyn FnMut() -> Command);

/// Runs each contender once a round, after `reset`; the first round is for warming up.
fn in_turns(
    what: &str,
    rounds: usize,
    contenders: &mut [Contender<'_>],
    mut reset: impl FnMut(),
) -> Vec<Runs> {
    let mut runs = vec![Runs::default(); contenders.len()];
    for round in 0..=rounds {
        if round % 10 == 1 {
            eprintln!("{what}: round {round} of {rounds}");
        }
        for ((_, command), runs) in contenders.iter_mut().zip(&mut runs) {
            reset();
            let mut ignored = Runs::default();
            let runs = if round == 0 { &mut ignored } else { runs };
            runs.push(&mut command());
        }
    }
    runs
}

/// A table with the contenders' times, and their ratios to contender number `base`.
fn table(contenders: &[Contender<'_>], runs: &[Runs], base: usize) -> String {
    let mut page = String::from("| what | wall ms | CPU ms | ratio |\n|---|--:|--:|--:|\n");
    for ((name, _), run) in contenders.iter().zip(runs) {
        let ratio = ratio(run, &runs[base]);
        writeln!(page, "| {name} | {} | {} | {ratio:.2} |", run.wall, run.cpu).unwrap();
    }
    page
}

fn ratio(run: &Runs, base: &Runs) -> f64 {
    run.wall.median() / base.wall.median()
}

/// What moves one of the nodes, for `nft -f`.
fn delta(nodes: Nodes) -> String {
    let actual = rules::Actual { ruleset: nodes.ruleset(), strangers: vec![] };
    rules::diff(Some(&actual), Some(&nodes.moved().ruleset())).transaction().to_string()
}

/// The files that the processes read.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap() };
        let root = bench.dir.path().display();
        let config = format!(
            "clients: [198.51.100.27]\ngateway: {{interface: lo, addresses: [10.0.0.55]}}\nports: {FIRST_PORT}-65535\n\
             sources: []\nstate_dir: {root}/state\nsysctl_dir: {root}/sysctl.d\nlock_file: {root}/lock\n"
        );
        fs::write(bench.file("config.yaml"), config).unwrap();
        for nodes in [FEW, MANY, MOST] {
            for nodes in [nodes, nodes.moved()] {
                fs::write(bench.inventory(nodes), nodes.inventory()).unwrap();
            }
        }
        let (from, to) = (MANY.ruleset(), MANY.moved().ruleset());
        fs::write(bench.file("whole.nft"), from.script()).unwrap();
        fs::write(bench.file("whole.iptables"), rules::iptables::iptables_restore(&to)).unwrap();
        fs::write(bench.file("delta.nft"), delta(MANY)).unwrap();
        fs::write(bench.file("delta-most.nft"), delta(MOST)).unwrap();
        bench
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn inventory(&self, nodes: Nodes) -> PathBuf {
        self.file(&format!("inventory-{}{}.json", nodes.size, if nodes.moved { "-moved" } else { "" }))
    }

    /// Neither rules nor state.
    fn forget(&self) {
        run(&mut self.cachenat("remove"));
        fs::remove_dir_all(self.file("state")).ok();
    }

    /// Rules and state for these nodes and no others.
    fn start_with(&self, nodes: Nodes) {
        self.forget();
        run(&mut self.apply(nodes));
    }

    fn cachenat(&self, command: &str) -> Command {
        let mut cachenat = Command::new(programs::cachenat());
        cachenat.env("AWS_EC2_METADATA_DISABLED", "true");
        cachenat.arg("--quiet").arg("--config").arg(self.file("config.yaml")).arg(command);
        cachenat
    }

    fn apply(&self, nodes: Nodes) -> Command {
        let mut apply = self.cachenat("apply");
        apply.arg("--inventory").arg(self.inventory(nodes));
        apply
    }

    fn nft(&self, file: &str) -> Command {
        let mut nft = Command::new("nft");
        nft.arg("-f").arg(self.file(file));
        nft
    }

    fn iptables(&self, namespace: &Namespace) -> Command {
        let mut restore = namespace.command("iptables-nft-restore");
        restore.arg(self.file("whole.iptables"));
        restore
    }

    fn list(&self) -> Command {
        let mut nft = Command::new("nft");
        nft.args(["list", "table", "inet", "cachenat"]);
        nft
    }
}

//! Measures the control path and writes docs/BENCHMARKS.md; `scripts/bench` runs it in namespaces of its own.
//!
//! Machines are shared and noisy: what is compared is measured in turns within one run, and medians are shown.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use applier::kernel::Netfilter;
use applier::netlink::Kernel;
use applier::sync::{difference, sync};
use cachenat_tests::programs;
use nix::sys::resource::{UsageWho, getrusage};
use rules::{Endpoint, Family, Forward, Gateway, Ruleset, Snat, render};

const SIZES: [u32; 4] = [10, 1_000, 10_000, 60_000];
const ROUNDS: usize = 11;

fn main() {
    let mut page = String::from(HEAD);
    writeln!(page, "Kernel {}, {}.\n", kernel_release(), cpu()).unwrap();
    page.push_str(&in_process());
    page.push_str(&whole_process());
    print!("{page}");
    fs::write("docs/BENCHMARKS.md", page).unwrap();
}

const HEAD: &str = "# Benchmarks

Written by `scripts/bench`. Figures are medians of interleaved rounds on a shared machine: compare within a table, and
trust ratios more than times.

";

/// The address of node `number`, all different, all private; `moved` is where it goes when it is replaced.
fn node(number: u32, moved: bool) -> Endpoint {
    let base = if moved { 0x0a80_0000 } else { 0x0a10_0000 };
    Endpoint { address: IpAddr::V4(Ipv4Addr::from_bits(base + number)), port: NonZeroU16::new(6379).unwrap() }
}

fn ruleset(size: u32, moved: Option<u32>) -> Ruleset {
    let forward = |number: u32| Forward {
        id: format!("bench-{number:05}").parse().unwrap(),
        listen: Endpoint {
            address: Ipv4Addr::new(10, 0, 0, 55).into(),
            port: NonZeroU16::new(u16::try_from(FIRST_PORT + number).unwrap()).unwrap(),
        },
        targets: vec![node(number, moved == Some(number))],
    };
    let forwards: Vec<Forward> = (0..size).map(forward).collect();
    let snat = Snat::Addresses(vec![Ipv4Addr::new(10, 0, 0, 55).into()]);
    let gateway = Gateway { interface: "lo".parse().unwrap(), families: vec![Family::Ipv4], snat };
    render(&forwards, &["198.51.100.27/32".parse().unwrap()], &gateway)
}

const FIRST_PORT: u32 = 1000;

/// Commit, one change and dump at each size, through the library.
fn in_process() -> String {
    let mut page = String::from(
        "## In process\n\nThe applier against the kernel, milliseconds of wall time. A commit is dump, diff, one \
         transaction and read-back; one change moves one node.\n\n\
         | forwards | first commit | one change | of it the transaction | dump | in step |\n|--:|--:|--:|--:|--:|--:|\n",
    );
    let mut kernel = Kernel::open().unwrap();
    let mut samples: Vec<[Vec<Duration>; 5]> = vec![Default::default(); SIZES.len()];
    for round in 0..ROUNDS {
        for (size, sample) in SIZES.iter().zip(&mut samples) {
            eprintln!("in process: round {} of {ROUNDS}, {size} forwards", round + 1);
            let (before, after) = (ruleset(*size, None), ruleset(*size, Some(size / 2)));
            sample[0].push(timed(|| drop(sync(&mut kernel, Some(&before)).unwrap())));
            sample[1].push(timed(|| drop(sync(&mut kernel, Some(&after)).unwrap())));
            let dump = kernel.dump().unwrap();
            let back = difference(&dump, Some(&before)).unwrap().transaction();
            sample[2].push(timed(|| kernel.commit(&back, dump.generation).unwrap()));
            sample[3].push(timed(|| drop(kernel.dump().unwrap())));
            sample[4].push(timed(|| drop(sync(&mut kernel, Some(&before)).unwrap())));
            sync(&mut kernel, None).unwrap();
        }
    }
    for (size, sample) in SIZES.iter().zip(samples) {
        let [create, change, transaction, dump, idle] = sample.map(|times| milliseconds(median(times)));
        writeln!(page, "| {size} | {create} | {change} | {transaction} | {dump} | {idle} |").unwrap();
    }
    page + "\n"
}

/// What whole processes take for the same work.
fn whole_process() -> String {
    let bench = Bench::new();
    let mut page = String::from(
        "## Whole processes\n\nFrom start to end, as cron would run them. CPU is user and system time.\n\n\
         | what | wall ms | CPU ms | to the first |\n|---|--:|--:|--:|\n",
    );
    bench.load(10_000);
    let contenders: [(&str, &dyn Fn(bool) -> Command); 4] = [
        ("`cachenat apply --inventory`, one of 10,000 moved", &|moved| bench.apply(10_000, moved)),
        ("`nft -f`, the same elements deleted and added", &|moved| bench.nft(10_000, moved)),
        ("`iptables-nft-restore`, the whole table of 10,000", &|moved| bench.iptables(10_000, moved)),
        ("`nft list table inet cachenat` of 10,000", &|_| bench.list()),
    ];
    page.push_str(&rows(&bench, 10_000, &contenders));
    page.push_str("\n| what | wall ms | CPU ms | to the first |\n|---|--:|--:|--:|\n");
    for size in [100, 10_000] {
        bench.load(size);
        let name = format!("`cachenat apply --inventory`, {size} nodes in step");
        let apply: (&str, &dyn Fn(bool) -> Command) = (&name, &|_| bench.apply(size, false));
        let list: (&str, &dyn Fn(bool) -> Command) =
            ("`nft list table inet cachenat` of the same", &|_| bench.list());
        page.push_str(&rows(&bench, size, &[apply, list]));
    }
    page + "\n"
}

/// Runs each contender once a round, each round from the state that the last one left: moved, moved back, ...
fn rows(bench: &Bench, size: u32, contenders: &[(&str, &dyn Fn(bool) -> Command)]) -> String {
    let mut samples: Vec<(Vec<Duration>, Vec<Duration>)> = vec![Default::default(); contenders.len()];
    for round in 0..ROUNDS {
        eprintln!("whole process: round {} of {ROUNDS}, {size} nodes", round + 1);
        for ((_, command), (wall, cpu)) in contenders.iter().zip(&mut samples) {
            bench.reset(size);
            let before = cpu_of_children();
            wall.push(timed(|| run(command(true))));
            cpu.push(cpu_of_children() - before);
        }
    }
    let medians: Vec<(Duration, Duration)> =
        samples.into_iter().map(|(wall, cpu)| (median(wall), median(cpu))).collect();
    let mut page = String::new();
    for ((name, _), (wall, cpu)) in contenders.iter().zip(&medians) {
        let ratio = wall.as_secs_f64() / medians[0].0.as_secs_f64();
        writeln!(page, "| {name} | {} | {} | {ratio:.2} |", milliseconds(*wall), milliseconds(*cpu)).unwrap();
    }
    page
}

/// The files that whole processes read.
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
        for size in [100, 10_000] {
            for moved in [false, true] {
                fs::write(bench.inventory(size, moved), inventory(size, moved)).unwrap();
            }
            let (from, to) = (ruleset(size, None), ruleset(size, Some(size / 2)));
            let actual = rules::Actual { ruleset: from, strangers: vec![] };
            let delta = rules::diff(Some(&actual), Some(&to)).transaction().to_string();
            fs::write(bench.file(&format!("delta-{size}.nft")), delta).unwrap();
            let whole = rules::iptables::iptables_restore(&to);
            fs::write(bench.file(&format!("whole-{size}.iptables")), whole).unwrap();
        }
        bench
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn inventory(&self, size: u32, moved: bool) -> PathBuf {
        self.file(&format!("inventory-{size}-{moved}.json"))
    }

    /// From nothing to `size` forwards.
    fn load(&self, size: u32) {
        run(self.cachenat("remove"));
        fs::remove_dir_all(self.file("state")).ok();
        run(self.apply(size, false));
    }

    /// Brings the moved node back.
    fn reset(&self, size: u32) {
        run(self.apply(size, false));
    }

    fn cachenat(&self, command: &str) -> Command {
        let mut cachenat = Command::new(programs::cachenat());
        cachenat.arg("--quiet").arg("--config").arg(self.file("config.yaml")).arg(command);
        cachenat
    }

    fn apply(&self, size: u32, moved: bool) -> Command {
        let mut apply = self.cachenat("apply");
        apply.arg("--inventory").arg(self.inventory(size, moved));
        apply
    }

    fn nft(&self, size: u32, _moved: bool) -> Command {
        let mut nft = Command::new("nft");
        nft.arg("-f").arg(self.file(&format!("delta-{size}.nft")));
        nft
    }

    fn iptables(&self, size: u32, _moved: bool) -> Command {
        let mut restore = Command::new("iptables-nft-restore");
        restore.arg(self.file(&format!("whole-{size}.iptables")));
        restore
    }

    fn list(&self) -> Command {
        let mut nft = Command::new("nft");
        nft.args(["list", "table", "inet", "cachenat"]);
        nft
    }
}

fn inventory(size: u32, moved: bool) -> String {
    let node = |number: u32| {
        let address = node(number, moved && number == size / 2).address;
        serde_json::json!({"id": format!("bench-{number:05}"), "cluster": "bench", "source": "static/bench",
            "status": "available", "host": address, "port": 6379, "addresses": [address]})
    };
    let nodes: Vec<serde_json::Value> = (0..size).map(node).collect();
    let sources = [serde_json::json!({"source": "static/bench", "outcome": "complete", "error": null})];
    serde_json::json!({"version": 1, "nodes": nodes, "sources": sources}).to_string()
}

fn run(mut command: Command) {
    let status = command.stdout(Stdio::null()).stderr(Stdio::inherit()).status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

fn timed(act: impl FnOnce()) -> Duration {
    let start = Instant::now();
    act();
    start.elapsed()
}

fn cpu_of_children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let times = [usage.user_time(), usage.system_time()];
    let microseconds: i64 = times.iter().map(|time| time.tv_sec() * 1_000_000 + time.tv_usec()).sum();
    Duration::from_micros(u64::try_from(microseconds).unwrap())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1000.0)
}

fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim().to_owned()
}

fn cpu() -> String {
    let info = fs::read_to_string(Path::new("/proc/cpuinfo")).unwrap();
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    format!("{cores} cores of {}", model.trim_start_matches(['\t', ':', ' ']))
}

//! How the control path grows with nodes, clients and clusters.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use applier::kernel::Netfilter as _;
use applier::netlink::Kernel;
use cachenat_tests::lab::namespace::Namespace;
use cachenat_tests::programs;
use serde_json::{Value, json};

use crate::Plan;
use crate::data::{FIRST_PORT, Nodes};
use crate::discovery::Account;
use crate::measure::{Runs, peak, run, timed};
use crate::section::{Growth, Progress, Section};
use crate::stats::{Samples, number};

/// Below a thousand nodes, what a process costs at all hides what a node costs.
const NODES: [u16; 4] = [1_000, 4_000, 16_000, 60_000];
const CLIENTS: [u32; 4] = [10, 100, 1_000, 10_000];
const CLUSTERS: [u16; 4] = [3, 30, 300, 3_000];
/// How many nodes there are while clients or clusters grow in number.
const FIXED: u16 = 3_000;
/// Replication groups of three nodes, discovered by way of the API.
const GROUPS: [usize; 4] = [10, 30, 100, 300];

pub(crate) fn measure(plan: Plan, progress: &mut Progress) -> Section {
    let rounds = if plan.quick { 1 } else { 5 };
    let nodes = some(plan, NODES).into_iter().map(|nodes| Size { nodes, clients: 1, clusters: 1 });
    let clients = some(plan, CLIENTS).into_iter().map(|clients| Size { nodes: FIXED, clients, clusters: 1 });
    let clusters =
        some(plan, CLUSTERS).into_iter().map(|clusters| Size { nodes: FIXED, clients: 1, clusters });
    progress.begin(nodes.len() + clients.len() + clusters.len() + some(plan, GROUPS).len());
    let mut growth = commands("nodes", nodes, |size| size.nodes.into(), rounds, progress);
    growth.extend(commands("clients", clients, |size| size.clients.into(), rounds, progress));
    growth.extend(commands("clusters", clusters, |size| size.clusters.into(), rounds, progress));
    growth.push(discovery(some(plan, GROUPS), rounds, progress));
    Section { growth, ..Section::default() }
}

/// A quick run looks at the last step only, where what grows stands out from what is always there.
fn some<T>(plan: Plan, sizes: [T; 4]) -> Vec<T> {
    let [least, few, many, most] = sizes;
    if plan.quick { vec![many, most] } else { vec![least, few, many, most] }
}

#[derive(Clone, Copy)]
struct Size {
    nodes: u16,
    clients: u32,
    clusters: u16,
}

/// What each command takes at one size.
#[derive(Default)]
struct Costs {
    first: Runs,
    in_step: Runs,
    change: Runs,
    render: Runs,
    dump: Samples,
    memory: Samples,
}

/// Measures every command at each size.
fn commands(
    with: &str,
    sizes: impl Iterator<Item = Size>,
    count: fn(&Size) -> f64,
    rounds: usize,
    progress: &mut Progress,
) -> Vec<Growth> {
    let mut all = Vec::new();
    for size in sizes {
        progress.step(&format!("growth: {} {with}", number(count(&size))));
        let bench = Bench::new(size);
        let mut costs = Costs::default();
        for _ in 0..rounds {
            bench.round(&mut costs);
        }
        all.push((count(&size), costs));
    }
    let of = |what: &str, unit: &str, figure: fn(&Costs) -> f64| Growth {
        what: what.to_owned(),
        with: with.to_owned(),
        unit: unit.to_owned(),
        points: all.iter().map(|(count, costs)| (*count, figure(costs))).collect(),
        note: String::new(),
    };
    let dump = Growth {
        note: "the kernel begins its walk through a set anew for each of the messages that it fills; `nft list` meets \
               the same"
            .to_owned(),
        ..of("the kernel's dump", "ms", |costs| costs.dump.median())
    };
    let mut growth = vec![
        of("first `apply`", "ms", |costs| costs.first.cpu.median()),
        of("`apply` in step", "ms", |costs| costs.in_step.cpu.median()),
        of("`apply` of one change", "ms", |costs| costs.change.cpu.median()),
        of("`render`", "ms", |costs| costs.render.cpu.median()),
        dump,
        of("peak memory", "MiB", |costs| costs.memory.median()),
    ];
    if with == "nodes" {
        // Each reads the table whole once: before its commit, or after it where there was none.
        growth.extend([
            of("first `apply` but for the dump", "ms", |costs| {
                costs.first.cpu.median() - costs.dump.median()
            }),
            of("`apply` in step but for the dump", "ms", |costs| {
                costs.in_step.cpu.median() - costs.dump.median()
            }),
            of("`apply` of one change but for the dump", "ms", |costs| {
                costs.change.cpu.median() - costs.dump.median()
            }),
        ]);
    }
    growth
}

/// A configuration and inventories of one size, and a namespace to apply them in.
struct Bench {
    size: Size,
    dir: tempfile::TempDir,
    gateway: Namespace,
}

impl Bench {
    fn new(size: Size) -> Self {
        let bench = Self { size, dir: tempfile::tempdir().unwrap(), gateway: Namespace::new() };
        bench.gateway.ip("address add 10.0.0.55/32 dev lo");
        fs::write(bench.file("config.yaml"), bench.config()).unwrap();
        let nodes = Nodes::new(size.nodes);
        for (name, nodes) in [("before.json", nodes), ("after.json", nodes.moved())] {
            fs::write(bench.file(name), bench.inventory(nodes)).unwrap();
        }
        bench
    }

    fn config(&self) -> String {
        // Every other address, so that none merge.
        let client = |number: u32| std::net::Ipv4Addr::from_bits(0xc633_0000 + 2 * number).to_string();
        let clients: Vec<String> = (0..self.size.clients).map(client).collect();
        let sources: Vec<String> =
            (0..self.size.clusters).map(|number| format!("{{replication_group: c-{number}}}")).collect();
        let root = self.dir.path().display();
        format!(
            "clients: [{}]\ngateway: {{interface: lo, addresses: [10.0.0.55]}}\nports: {FIRST_PORT}-65535\nsources: [{}]\n\
             state_dir: {root}/state\nsysctl_dir: {root}/sysctl.d\nlock_file: {root}/lock\n",
            clients.join(", "),
            sources.join(", "),
        )
    }

    /// The nodes, dealt out to the clusters.
    fn inventory(&self, nodes: Nodes) -> String {
        let mut inventory: Value = serde_json::from_str(&nodes.inventory()).unwrap();
        let cluster = |number: usize| {
            format!("c-{}", number * usize::from(self.size.clusters) / usize::from(self.size.nodes))
        };
        for (number, node) in inventory["nodes"].as_array_mut().unwrap().iter_mut().enumerate() {
            node["cluster"] = cluster(number).into();
            node["source"] = format!("replication_group/{}", cluster(number)).into();
        }
        let source = |number: u16| json!({"source": format!("replication_group/c-{number}"), "outcome": "complete", "error": null});
        inventory["sources"] = (0..self.size.clusters).map(source).collect();
        inventory.to_string()
    }

    fn round(&self, costs: &mut Costs) {
        self.forget();
        costs.first.push(&mut self.apply("before.json"));
        costs.in_step.push(&mut self.apply("before.json"));
        costs.change.push(&mut self.apply("after.json"));
        costs.render.push(self.cachenat("render").arg("--inventory").arg(self.file("before.json")));
        let mut kernel = self.gateway.enter(|| Kernel::open().unwrap());
        costs.dump.push(timed(|| drop(kernel.dump().unwrap())));
        costs.memory.add(peak(&self.apply("before.json")));
    }

    /// Neither rules nor state.
    fn forget(&self) {
        run(&mut self.cachenat("remove"));
        fs::remove_dir_all(self.file("state")).ok();
    }

    fn apply(&self, inventory: &str) -> Command {
        let mut apply = self.cachenat("apply");
        apply.arg("--inventory").arg(self.file(inventory));
        apply
    }

    fn cachenat(&self, command: &str) -> Command {
        let mut cachenat = self.gateway.command(programs::cachenat());
        cachenat.env("AWS_EC2_METADATA_DISABLED", "true");
        cachenat.arg("--quiet").arg("--config").arg(self.file("config.yaml")).arg(command);
        cachenat
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Discovery's own time, without that of the API and the network.
fn discovery(sizes: Vec<usize>, rounds: usize, progress: &mut Progress) -> Growth {
    let mut points = Vec::new();
    for groups in sizes {
        progress.step(&format!("growth: discovery of {groups} clusters"));
        // Each with a loopback of its own, where its fakes listen.
        let gateway = Namespace::new();
        let runs = gateway.enter(|| {
            let account = Account::start(groups, Duration::ZERO);
            let mut runs = Runs::default();
            for _ in 0..rounds {
                runs.push(&mut account.discover());
            }
            runs
        });
        points.push((groups as f64, runs.cpu.median()));
    }
    Growth {
        what: "`discover` (CPU)".to_owned(),
        with: "clusters".to_owned(),
        unit: "ms".to_owned(),
        points,
        note: "of three nodes each, by way of the API and DNS".to_owned(),
    }
}

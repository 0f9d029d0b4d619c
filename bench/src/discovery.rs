//! Discovery of a large account against the fakes of AWS and DNS.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use cachenat_tests::fake_aws::{FakeAws, Scenario, shapes::Group};
use cachenat_tests::fake_dns::FakeDns;
use cachenat_tests::programs;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::Plan;
use crate::measure::{Runs, peak};

const GROUPS: usize = 300;
/// Nodes of each group.
const EACH: usize = 3;
const NODES: usize = EACH * GROUPS;
const CALL: Duration = Duration::from_millis(50);
/// DescribeCacheClusters of the members, 100 an answer: each page names the next.
const PAGES: u32 = 9;
/// Some ten rounds of API and DNS: what grows has grown by then.
const WATCHED: Duration = Duration::from_secs(15);

pub(crate) fn measure(plan: Plan) -> String {
    let account = Account::start(GROUPS, CALL);
    let mut runs = Runs::default();
    for round in 1..=plan.long_rounds {
        eprintln!("discovery of {NODES} nodes: round {round} of {}", plan.long_rounds);
        runs.push(&mut account.discover());
    }
    let peak = peak(&account.discover());
    let watch = account.watch();
    let chain = (CALL * PAGES).as_secs_f64() * 1000.0;
    format!(
        "## Discovery of {GROUPS} replication groups with {NODES} nodes\n\nThe API answers each call after {} ms, and the \
         longest chain of pages that name each other has {PAGES}: {chain:.0} ms that nothing can shorten.\n\n\
         | what | wall ms | CPU ms | peak MiB |\n|---|--:|--:|--:|\n| `cachenat discover --json` | {} | {} | {peak:.1} |\n\n\
         All else, {NODES} DNS answers included, adds {:.0} ms to the chain.\n\n\
         `cachenat watch` with these nodes, API and DNS asked every second, holds {watch:.1} MiB of resident \
         memory after {} s.\n",
        CALL.as_millis(),
        runs.wall,
        runs.cpu,
        runs.wall.median() - chain,
        WATCHED.as_secs(),
    )
}

/// Both fakes on this namespace's loopback, where the program finds them as it would find the real ones.
pub(crate) struct Account {
    aws: FakeAws,
    _dns: FakeDns,
    dir: tempfile::TempDir,
}

impl Account {
    /// An account of so many replication groups, whose API answers each call after a while.
    pub(crate) fn start(groups: usize, call: Duration) -> Self {
        let at = |port: u16| ([127, 0, 0, 1], port).into();
        let (aws, dns) = (FakeAws::start(at(0)), FakeDns::start(at(53)));
        let delay_ms = u64::try_from(call.as_millis()).unwrap();
        let mut scenario = Scenario { delay_ms, ..Scenario::default() };
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display();
        let mut config = format!(
            "clients: [198.51.100.27/32]\ngateway: {{interface: lo, addresses: [10.255.0.55]}}\nstate_dir: {root}\n\
             sysctl_dir: {root}\nlock_file: {root}/lock\nsources:\n"
        );
        for n in 0..groups {
            let group = Group::new(&format!("cluster-{n:03}"), EACH);
            group.add_to(&mut scenario);
            config.push_str(&format!("  - replication_group: {}\n", group.id));
            for (m, (_, member)) in group.members().iter().enumerate() {
                dns.point(&group.host(member), &format!("10.{m}.{}.{}", n / 200, n % 200));
            }
        }
        aws.set(scenario);

        fs::write(dir.path().join("config.yaml"), config).unwrap();
        let resolv_conf = dir.path().join("resolv.conf");
        fs::write(&resolv_conf, "nameserver 127.0.0.1\n").unwrap();
        // The mount namespace is this benchmark's own.
        let none: Option<&str> = None;
        mount(Some(&resolv_conf), "/etc/resolv.conf", none, MsFlags::MS_BIND, none).unwrap();
        Self { aws, _dns: dns, dir }
    }

    pub(crate) fn discover(&self) -> Command {
        self.cachenat(&["discover", "--json"])
    }

    /// The resident memory of a watch that has gone on for a while, in MiB.
    fn watch(&self) -> f64 {
        let mut watch = self.cachenat(&["watch", "--interval", "1s", "--dns-interval", "1s"]);
        let mut watch = watch.stdout(Stdio::null()).spawn().unwrap();
        thread::sleep(WATCHED);
        let status = fs::read_to_string(format!("/proc/{}/status", watch.id())).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: f64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
        assert_eq!(watch.try_wait().unwrap(), None, "the watch ended");
        watch.kill().unwrap();
        watch.wait().unwrap();
        kib / 1024.0
    }

    fn cachenat(&self, arguments: &[&str]) -> Command {
        let mut cachenat = Command::new(programs::cachenat());
        cachenat.args(arguments).arg("--config").arg(self.dir.path().join("config.yaml"));
        cachenat
            .env("AWS_ENDPOINT_URL", self.aws.url())
            .env("AWS_REGION", "us-east-2")
            .env("HOME", self.dir.path())
            .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .env("AWS_EC2_METADATA_DISABLED", "true");
        cachenat
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // The next one's file can't be mounted on this one's once it is deleted.
        umount2("/etc/resolv.conf", MntFlags::MNT_DETACH).unwrap();
    }
}

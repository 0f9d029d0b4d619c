//! Measures how soon `cachenat watch`, cron and HAProxy with its own DNS resolver follow a replaced node.
//!
//! All of them follow the same nodes of one lab at the same time, so they see the same replacements.

mod clients;
mod haproxy;

use std::fmt::Write as _;
use std::net::SocketAddrV4;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use applier::monitor::Monitor;
use cachenat_tests::lab::daemon::Daemon;
use cachenat_tests::lab::{Lab, PUBLIC};
use cachenat_tests::programs;

use crate::Plan;
use crate::plot::{Curve, Plot, Scale};
use crate::section::{Progress, Section};
use crate::stats::Samples;
use clients::Client;
use haproxy::Haproxy;

/// Who is replaced again and again; a replica, for a primary would have to fail over first.
const NODE: &str = "my-cluster-002";
const PORT: u16 = 6380;

/// How often `watch` and HAProxy ask DNS.
const ASK: &str = "1s";

/// The time limit for following a replacement.
const PATIENCE: Duration = Duration::from_secs(30);

/// The clients: one that soon loses patience, as many that serve requests do, and one that waits as long as Jedis does
/// unless told otherwise (`redis.clients.jedis.Protocol.DEFAULT_TIMEOUT`).
const CLIENTS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];

/// Milliseconds from the change of the DNS answer.
#[derive(Default)]
struct Followed {
    /// Until new connections lead to the new node.
    changed: Samples,
    /// Until each of [`CLIENTS`] has an answer again.
    recovered: [Samples; CLIENTS.len()],
}

impl Followed {
    fn all(&self) -> [&Samples; 3] {
        let [soon, late] = &self.recovered;
        [&self.changed, soon, late]
    }
}

pub(crate) fn measure(plan: Plan, progress: &mut Progress) -> Section {
    let (replacements, applies) = if plan.quick { (10, 1) } else { (50, 9) };
    progress.step("following: building the lab");
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 2);
    lab.cachenat(&["apply"]).exits(0);
    let haproxy = Haproxy::start(&lab, &lab.node(NODE).dns_name);
    let watch = watch(&lab);
    let (mut watched, mut proxied) = (Followed::default(), Followed::default());
    let mut ours = clients(&lab, PORT);
    let mut theirs = haproxy.as_ref().map(|_| clients(&lab, haproxy::PORT)).unwrap_or_default();
    let commits = commits(&lab);

    progress.begin(replacements + applies);
    for round in 1..=replacements {
        progress.step(&format!("following, replacement {round} of {replacements}"));
        // At a random time relative to the next DNS queries.
        thread::sleep(Duration::from_millis(fastrand::u64(0..1000)));
        while commits.try_recv().is_ok() {}
        lab.replace_node(NODE);
        let changed = Instant::now();
        if let Ok(haproxy) = &haproxy {
            let to = *lab.node(NODE).at.ip();
            proxied.changed.extend(haproxy.follows(to, PATIENCE).map(|at| at - changed));
        }
        // A commit that came before HAProxy's change has been waiting in the channel, with its time.
        watched.changed.extend(commits.recv_timeout(PATIENCE).ok().map(|at| at - changed));
        for (clients, followed) in [(&mut ours, &mut watched), (&mut theirs, &mut proxied)] {
            for (client, recovered) in clients.iter_mut().zip(&mut followed.recovered) {
                recovered.extend(client.answered_after(changed, PATIENCE).map(|at| at - changed));
            }
        }
    }
    drop((watch, ours, theirs));

    let mut apply = Samples::default();
    for round in 1..=applies {
        progress.step(&format!("following, apply {round} of {applies}"));
        lab.replace_node(NODE);
        let begin = Instant::now();
        lab.cachenat(&["apply"]).exits(0);
        apply.push(begin.elapsed());
    }
    report(replacements, &watched, haproxy.err().as_deref(), &proxied, &apply)
}

fn watch(lab: &Lab) -> Daemon {
    let mut command = lab.operator_command("setpriv");
    // It ends together with this process.
    command.args(["--pdeathsig", "KILL"]).arg(programs::cachenat());
    Daemon::start(command.args(["watch", "--interval", "1h", "--dns-interval", ASK]))
}

fn clients(lab: &Lab, port: u16) -> Vec<Client> {
    CLIENTS
        .iter()
        .map(|patience| Client::start(&lab.network.client, SocketAddrV4::new(PUBLIC, port), *patience))
        .collect()
}

/// The time of each commit to our table.
fn commits(lab: &Lab) -> mpsc::Receiver<Instant> {
    let (sender, receiver) = mpsc::channel();
    let mut monitor = lab.network.nat.enter(|| Monitor::open(None).unwrap());
    thread::spawn(move || {
        while let Ok(noticed) = monitor.wait() {
            if noticed.intrusions > 0 && sender.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    receiver
}

fn report(
    replacements: usize,
    watched: &Followed,
    no_haproxy: Option<&str>,
    proxied: &Followed,
    apply: &Samples,
) -> Section {
    // A change is found by the next run: after anything up to a minute, each as likely as the other.
    let minute: Samples =
        (0..1000).map(|n| 60_000.0 * (f64::from(n) + 0.5) / 1000.0 + apply.median()).collect();
    let mut text = format!(
        "## Following a replaced node\n\nThe time in seconds from the moment when DNS has the new address, over {replacements} \
         replacements: until new connections lead to the new node, and until a client that was connected has an answer again. The \
         old node has fallen silent shortly before, as a failed host does. One client gives an answer {:.1} s before it dials anew, \
         the other {:.0} s. `watch` and HAProxy follow the same replacements at once.\n\n\
         | who | new connections: median | p99 | client of {0:.1} s: median | p99 | client of {1:.0} s: median | p99 |\n\
         |---|--:|--:|--:|--:|--:|--:|\n",
        CLIENTS[0].as_secs_f64(),
        CLIENTS[1].as_secs_f64(),
    );
    let mut row = |name: &str, samples: [&Samples; 3]| {
        let cells = samples.map(|samples| {
            let [median, p99] = [0.5, 0.99].map(|share| samples.quantile(share) / 1000.0);
            if samples.is_empty() { "- | -".to_owned() } else { format!("{median:.2} | {p99:.2}") }
        });
        writeln!(text, "| {name} | {} |", cells.join(" | ")).unwrap();
    };
    row(&format!("`cachenat watch --dns-interval {ASK}`"), watched.all());
    match no_haproxy {
        None => row(&format!("HAProxy with `resolvers`, `hold valid {ASK}`"), proxied.all()),
        Some(why) => row(&format!("HAProxy: not measured: {why}"), [&Samples::default(); 3]),
    }
    // A client is back as soon after the change as with `watch`.
    let [soon, late] = watched.recovered.each_ref().map(|recovered| {
        let lag = recovered.median() - watched.changed.median();
        minute.sorted().into_iter().map(|time| time + lag).collect::<Samples>()
    });
    row("`cachenat apply` by cron, each minute (modelled)", [&minute, &soon, &late]);
    writeln!(
        text,
        "\nBy default `watch` asks every 2 s, which adds half a second to the medians and one to the worst. What is shown for \
         cron is not waited for but reckoned: one `apply` that finds a moved node takes {apply} ms here, discovery included, and the next minute is \
         anything up to 60 s away, each as likely. HAProxy has no health check, which would only hold up its return, and `timeout connect 1s`. \
         Where the old connection still stands, `cachenat` cuts it after the commit, so that the patient client's next packet is \
         refused and it dials anew; through HAProxy it waits for its own timeout.\n\n\
         ![How soon a client has an answer again](bench-following.svg)\n"
    )
    .unwrap();
    let curve = |name: &str, samples: &Samples| {
        let sorted = samples.sorted();
        let share = |place: usize| 100.0 * (place as f64 + 1.0) / sorted.len() as f64;
        let points = sorted.iter().enumerate().map(|(place, time)| (time / 1000.0, share(place)));
        Curve { name: name.to_owned(), points: points.collect() }
    };
    let plot = Plot {
        title: "Replacements that are followed, by time since DNS has the new address",
        x: ("seconds", Scale::Log),
        y: ("% of replacements", Scale::Linear),
        curves: vec![
            curve("watch: new connections", &watched.changed),
            curve("watch: patient client", &watched.recovered[1]),
            curve("HAProxy: new connections", &proxied.changed),
            curve("HAProxy: patient client", &proxied.recovered[1]),
            curve("cron (modelled)", &minute),
        ],
    };
    Section {
        text: text + "\n",
        plots: vec![("bench-following.svg".to_owned(), plot.svg())],
        ..Section::default()
    }
}

//! The data path: cachenat and its peers, each on a gateway of its own, all in place at once and measured in turns.

mod load;
mod peers;
mod report;
mod wires;

use std::process::{Command, Stdio};
use std::time::Duration;

use cachenat_tests::lab::namespace::Namespace;

use crate::Plan;
use crate::data::FIRST_PORT;
use crate::section::{Progress, Section};
use crate::stats::number;
use load::{Connections, First, Listeners, Requests};
use peers::{Peer, Proxy};
use wires::{Gateway, Wires};

/// How much is measured.
struct Amount {
    rounds: usize,
    /// For how long new connections are made.
    connecting: Duration,
    /// How many short turns each of [`CLOSE`] has.
    turns: usize,
    /// How many first packets are timed.
    first: usize,
    /// How many requests are made, one at a time and pipelined.
    requests: [usize; 2],
}

impl Amount {
    fn of(plan: Plan) -> Self {
        if plan.quick {
            let connecting = Duration::from_millis(200);
            return Self { rounds: 2, connecting, turns: 6, first: 60, requests: [6_000, 40_000] };
        }
        let connecting = Duration::from_millis(1000);
        Self { rounds: 7, connecting, turns: 80, first: 300, requests: [40_000, 200_000] }
    }
}

/// What is measured, in the page's order. A proxy needs a socket for each forward, and socat a process.
const CELLS: [(Peer, u16); 21] = [
    (Peer::Routing, 1),
    (Peer::Conntrack, 1),
    (Peer::NatInstance, 1),
    (Peer::Cachenat, 3),
    (Peer::Cachenat, 1_000),
    (Peer::Cachenat, 10_000),
    (Peer::Cachenat, 50_000),
    (Peer::CachenatManyClients, 3),
    (Peer::IptablesLegacy, 3),
    (Peer::IptablesLegacy, 1_000),
    (Peer::IptablesLegacy, 10_000),
    (Peer::IptablesLegacy, 50_000),
    (Peer::IptablesNft, 3),
    (Peer::IptablesNft, 1_000),
    (Peer::IptablesNft, 10_000),
    (Peer::IptablesNft, 50_000),
    (Peer::Haproxy, 3),
    (Peer::Haproxy, 1_000),
    (Peer::Nginx, 3),
    (Peer::Nginx, 1_000),
    (Peer::Socat, 3),
];

/// Those whose new connections are compared closely. They are measured in short turns one right after the other, so that
/// what else the machine does falls on all of them alike: the differences are smaller than what it does in a minute.
const CLOSE: [(Peer, u16); 5] = [
    (Peer::Conntrack, 1),
    (Peer::NatInstance, 1),
    (Peer::Cachenat, 3),
    (Peer::Cachenat, 50_000),
    (Peer::IptablesNft, 3),
];

/// How long such a turn is.
const TURN: Duration = Duration::from_millis(250);

/// How many requests are pipelined on a connection.
const PIPELINES: [usize; 2] = [1, 16];

/// A peer with so many forwards, and each round's measurements.
struct Cell {
    peer: Peer,
    forwards: u16,
    gateway: Gateway,
    _proxy: Option<Proxy>,
    /// Why it is not measured, or no longer.
    failed: Option<String>,
    rounds: Vec<Option<Round>>,
    /// Of each of the short turns, if it is one of [`CLOSE`].
    turns: Vec<Option<Connections>>,
}

struct Round {
    connections: Connections,
    first: First,
    /// For each of [`PIPELINES`]. Not at every size: an open connection meets neither map nor rules.
    requests: Option<[Requests; 2]>,
}

pub(crate) fn measure(plan: Plan, progress: &mut Progress) -> Section {
    let amount = Amount::of(plan);
    progress.step("data path: setting up gateways");
    let mut wires = Wires::new();
    let mut cells: Vec<Cell> =
        CELLS.iter().map(|&(peer, forwards)| set_up(&mut wires, peer, forwards)).collect();
    progress.begin(amount.rounds * cells.len() + 1);
    for round in 1..=amount.rounds {
        // In a different order each time, so that no peer always follows the same one.
        let mut order: Vec<usize> = (0..cells.len()).collect();
        fastrand::shuffle(&mut order);
        for place in order {
            let cell = &mut cells[place];
            progress.step(&format!("data path, round {round} of {}: {}", amount.rounds, cell.title()));
            let measured = cell.measure(&wires.network.client, &amount);
            cell.rounds.push(measured);
        }
    }
    progress.step("data path, new connections in short turns");
    compare_closely(&mut cells, &wires.network.client, amount.turns);
    report::section(&cells, &amount)
}

fn compare_closely(cells: &mut [Cell], client: &Namespace, turns: usize) {
    let is_close = |cell: &Cell| CLOSE.contains(&(cell.peer, cell.forwards)) && cell.failed.is_none();
    let mut order: Vec<usize> = (0..cells.len()).filter(|&place| is_close(&cells[place])).collect();
    for _ in 0..turns {
        fastrand::shuffle(&mut order);
        for &place in &order {
            let cell = &mut cells[place];
            let measured = load::connections(client, cell.listeners(), TURN, || cell.forget());
            cell.turns.push(measured.ok());
        }
    }
}

fn set_up(wires: &mut Wires, peer: Peer, forwards: u16) -> Cell {
    let gateway = wires.gateway();
    let (proxy, failed) = match peer.set_up(wires, &gateway, forwards) {
        Ok(proxy) => (proxy, None),
        Err(why) => (None, Some(why)),
    };
    let mut cell =
        Cell { peer, forwards, gateway, _proxy: proxy, failed, rounds: Vec::new(), turns: Vec::new() };
    // Report a peer that does not forward now, and resolve the addresses once.
    if cell.failed.is_none()
        && let Err(error) = load::first(&wires.network.client, cell.listeners(), 5)
    {
        cell.failed = Some(format!("the client gets no answer through it: {error}"));
    }
    if let Some(why) = &cell.failed {
        eprintln!("{} is left out: {why}", cell.title());
    }
    cell
}

impl Cell {
    fn title(&self) -> String {
        if self.peer.routes() {
            return self.peer.name().to_owned();
        }
        format!("{} with {} forwards", self.peer.name(), number(self.forwards.into()))
    }

    fn listeners(&self) -> Listeners {
        let first_port = if self.peer.routes() { 6379 } else { FIRST_PORT };
        Listeners { address: self.gateway.public, first_port, count: self.forwards }
    }

    /// Whether this is the peer's least or greatest number of forwards.
    fn is_an_extreme(&self) -> bool {
        let sizes = || CELLS.iter().filter(|(peer, _)| *peer == self.peer).map(|(_, forwards)| *forwards);
        sizes().min() == Some(self.forwards) || sizes().max() == Some(self.forwards)
    }

    fn measure(&mut self, client: &Namespace, amount: &Amount) -> Option<Round> {
        if self.failed.is_some() {
            return None;
        }
        match self.round(client, amount) {
            Ok(round) => Some(round),
            Err(why) => {
                eprintln!("{} is left out from now on: {why}", self.title());
                self.failed = Some(why);
                None
            }
        }
    }

    fn round(&self, client: &Namespace, amount: &Amount) -> Result<Round, String> {
        let to = self.listeners();
        let first =
            load::first(client, to, amount.first).map_err(|error| format!("a first packet: {error}"))?;
        let connections = load::connections(client, to, amount.connecting, || self.forget())
            .map_err(|error| format!("new connections: {error}"))?;
        let requests = if self.is_an_extreme() {
            let [one, many] = [0, 1].map(|n| load::requests(client, to, amount.requests[n], PIPELINES[n]));
            Some([one?, many?])
        } else {
            None
        };
        self.forget();
        Ok(Round { connections, first, requests })
    }

    /// Deletes the gateway's flows, which the kernel would otherwise do during another peer's turn.
    fn forget(&self) {
        let mut conntrack = self.gateway.host.command("conntrack");
        // Without flows it says so and fails.
        let _ = conntrack.arg("-F").stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// The peer that the figures belong to.
fn versions() -> String {
    let ask = |program: &str, argument: &str, line: usize| {
        let output = Command::new(program).arg(argument).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        Some(text.lines().nth(line)?.trim().to_owned())
    };
    let said = [
        ask("iptables", "-V", 0),
        ask("haproxy", "-v", 0).map(|line| line.split(" - ").next().unwrap_or_default().to_owned()),
        ask("nginx", "-v", 0),
        ask("socat", "-V", 1).map(|line| line.split(" on ").next().unwrap_or_default().to_owned()),
        ask("redis-server", "-v", 0).map(|line| line.split(" sha").next().unwrap_or_default().to_owned()),
        ask("redis-benchmark", "-v", 0),
    ];
    said.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

//! The results for the data path, for the page.

use std::fmt::Write as _;

use super::load::ASKING;
use super::load::Connections;
use super::peers::Peer;
use super::{Amount, CLOSE, Cell, Round, TURN, versions};
use crate::plot::{Bar, Bars, Curve, Plot, Scale};
use crate::section::{Growth, Section, Target};
use crate::stats::{Samples, number};

/// What a cell's rounds say of one thing.
type Figure = fn(&Round) -> Option<f64>;

const PER_SECOND: Figure = |round| Some(round.connections.per_second);
const CPU: Figure = |round| Some(round.connections.cpu);
const CONNECT: Figure = |round| Some(round.first.connect.median());
/// The twentieth part that nothing disturbed: what the packets' way itself takes, even on a machine that has other work.
const CONNECT_5: Figure = |round| Some(round.first.connect.quantile(0.05));
const ANSWER: Figure = |round| Some(round.first.answer.median());
const ANSWER_99: Figure = |round| Some(round.first.answer.quantile(0.99));
const RATE: [Figure; 2] = [
    |round| Some(round.requests.as_ref()?[0].per_second),
    |round| Some(round.requests.as_ref()?[1].per_second),
];
const P50: [Figure; 2] =
    [|round| Some(round.requests.as_ref()?[0].p50), |round| Some(round.requests.as_ref()?[1].p50)];
const P99: [Figure; 2] =
    [|round| Some(round.requests.as_ref()?[0].p99), |round| Some(round.requests.as_ref()?[1].p99)];

/// The columns, and whether more is better.
const COLUMNS: [(&str, Figure, bool); 11] = [
    ("requests/s", RATE[0], true),
    ("p50", P50[0], false),
    ("p99", P99[0], false),
    ("pipelined requests/s", RATE[1], true),
    ("pipelined p50", P50[1], false),
    ("pipelined p99", P99[1], false),
    ("new connections/s", PER_SECOND, true),
    ("CPU per new connection", CPU, false),
    ("connect()", CONNECT, false),
    ("first answer", ANSWER, false),
    ("first answer p99", ANSWER_99, false),
];

pub(super) fn section(cells: &[Cell], amount: &Amount) -> Section {
    let report = Report { cells };
    Section {
        text: [
            report.head(amount.rounds),
            report.open_connections(),
            report.new_connections(),
            report.closely(amount.turns),
            report.how(),
        ]
        .concat(),
        targets: report.targets(),
        growth: report.growth(),
        plots: report.plots(),
    }
}

struct Report<'a> {
    cells: &'a [Cell],
}

impl Report<'_> {
    fn cell(&self, peer: Peer, forwards: u16) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.peer == peer && cell.forwards == forwards)
    }

    /// A cell's figure, round by round.
    fn samples(&self, cell: &Cell, figure: Figure) -> Samples {
        cell.rounds.iter().flatten().filter_map(figure).collect()
    }

    /// A cell's figure to another's of the same round.
    fn ratios(&self, cell: &Cell, to: Option<&Cell>, figure: Figure) -> Samples {
        ratios(&cell.rounds, to.map_or(&[], |to| &to.rounds), figure)
    }

    fn to_baseline(&self, cell: &Cell, figure: Figure) -> Samples {
        self.ratios(cell, self.cell(Peer::Conntrack, 1), figure)
    }

    fn head(&self, rounds: usize) -> String {
        format!(
            "## The data path\n\nA client, an internet gateway, the VPC's router, one gateway for each row, and a Redis \
             node, in network namespaces. All gateways are in place at once; each of {rounds} rounds takes them in another \
             order. The *ratio* is to *routing with conntrack* in the same round: the least that any NAT can cost. In \
             brackets: the middle half of the rounds.\n\n{}.\n\n",
            versions(),
        )
    }

    fn open_connections(&self) -> String {
        let mut text = format!(
            "### Requests on open connections\n\n{ASKING} connections that `GET`, one request at a time and 16 pipelined. \
             Latencies are in milliseconds, and of a machine that is kept busy.\n\n\
             | gateway | forwards | requests/s | ratio | p50 | p99 | pipelined requests/s | ratio | p50 | p99 |\n\
             |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
        );
        for cell in self.cells.iter().filter(|cell| cell.is_an_extreme()) {
            let mut row = cell.row_head();
            if let Some(why) = &cell.failed {
                row += &format!(" not measured: {} | | | | | | | |", why.replace('|', "/"));
            } else {
                for n in [0, 1] {
                    let rate = self.samples(cell, RATE[n]).median();
                    let ratio = self.to_baseline(cell, RATE[n]);
                    let [p50, p99] = [P50[n], P99[n]].map(|figure| self.samples(cell, figure).median());
                    write!(row, " {} | {ratio} | {p50:.2} | {p99:.2} |", number(rate)).unwrap();
                }
            }
            writeln!(text, "{row}").unwrap();
        }
        text + "\n![Requests per second](bench-requests.svg)\n\n"
    }

    fn new_connections(&self) -> String {
        let mut text = String::from(
            "### New connections\n\nEach one is connect, `PING`, `PONG` and reset, to a random one of the forwards, as many as four \
             threads can make. CPU is what all processors did meanwhile, for client, gateway and node together, until \
             the gateway has forgotten the flow. The latencies are those of one connection at a time on an idle machine: `connect()` \
             alone, which a proxy answers itself without asking the node, with its fastest twentieth (p5); and all up to the node's first \
             answer.\n\n\
             | gateway | forwards | new connections/s | ratio | CPU us each | ratio | connect() us: p5 | p50 | first answer us: p50 | p99 |\n\
             |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        );
        for cell in self.cells {
            let mut row = cell.row_head();
            if let Some(why) = &cell.failed {
                row += &format!(" not measured: {} | | | | | | | |", why.replace('|', "/"));
            } else {
                for figure in [PER_SECOND, CPU] {
                    let value = number(self.samples(cell, figure).median());
                    write!(row, " {value} | {} |", self.to_baseline(cell, figure)).unwrap();
                }
                for figure in [CONNECT_5, CONNECT, ANSWER, ANSWER_99] {
                    write!(row, " {} |", number(self.samples(cell, figure).median())).unwrap();
                }
            }
            writeln!(text, "{row}").unwrap();
        }
        text + "\n![New connections by forwards](bench-connections.svg)\n\n![CPU per new connection](bench-cpu.svg)\n\n\
                ![First answer by forwards](bench-first-answer.svg)\n\n"
    }

    /// One cell's short turns to another's.
    fn turn_ratios(&self, cell: &Cell, to: Option<&Cell>, figure: fn(&Connections) -> f64) -> Samples {
        ratios(&cell.turns, to.map_or(&[], |to| &to.turns), |turn| Some(figure(turn)))
    }

    fn closely(&self, turns: usize) -> String {
        let baseline = self.cell(Peer::Conntrack, 1);
        let mut text = format!(
            "The few that differ by less than a machine does from one minute to the next, once more: {turns} turns of {} ms each, one \
             right after the other, in another order each time, and the ratios within a turn.\n\n\
             | gateway | forwards | new connections/s, ratio | CPU each, ratio |\n|---|--:|--:|--:|\n",
            TURN.as_millis()
        );
        for cell in CLOSE.iter().filter_map(|&(peer, forwards)| self.cell(peer, forwards)) {
            let rate = self.turn_ratios(cell, baseline, |connections| connections.per_second);
            let cpu = self.turn_ratios(cell, baseline, |connections| connections.cpu);
            writeln!(text, "{} {rate} | {cpu} |", cell.row_head()).unwrap();
        }
        text + "\n"
    }

    fn how(&self) -> String {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        format!(
            "*Routing without conntrack* forwards by address alone; *with conntrack*, one filter rule asks for the flow's state; \
             *through a NAT instance*, there is the masquerading rule that every NAT instance has. The iptables rows hold AWS's rules, \
             a `-j DNAT` for each node and one `-j SNAT`. HAProxy runs in `mode tcp` and nginx with `worker_processes auto`, a \
             listener for each forward; socat with `fork`, a process for each. Forwards lead to as many addresses, all of one \
             Redis. ICMP redirects are off on every gateway. Requests are made by `redis-benchmark -t get -c {ASKING} -P \
             1|16`. CPU is {cpus} x elapsed - idle, by `/proc/stat`.\n\n"
        )
    }

    fn targets(&self) -> Vec<Target> {
        let mut targets = Vec::new();
        let (few, most) = (self.cell(Peer::Cachenat, 3), self.cell(Peer::Cachenat, 50_000));
        if let (Some(few), Some(most)) = (few, most) {
            let baseline = self.cell(Peer::Conntrack, 1);
            let [ratio, ratio_most] =
                [few, most].map(|cell| self.turn_ratios(cell, baseline, |connections| connections.cpu));
            let [plain, nat] = [self.cell(Peer::Conntrack, 1), Some(few)]
                .map(|cell| cell.map_or(f64::NAN, |cell| self.samples(cell, CONNECT_5).median()));
            targets.push(Target {
                what: "CPU per new connection, to routing with conntrack".to_owned(),
                wanted: "at most 1.05".to_owned(),
                measured: format!(
                    "{:.2} at 3 forwards, {:.2} at 50,000",
                    ratio.median(),
                    ratio_most.median()
                ),
                reached: ratio.median() <= 1.05 && ratio_most.median() <= 1.05,
                note: format!("undisturbed, connect() takes {nat:.1} us, and {plain:.1} us with routing"),
            });
            let kept = self.turn_ratios(most, Some(few), |connections| connections.per_second);
            targets.push(Target {
                what: "new connections/s at 50,000 forwards, to those at 3".to_owned(),
                wanted: "at least 0.95".to_owned(),
                measured: format!("{kept}"),
                reached: kept.median() >= 0.95,
                note: String::new(),
            });
            targets.push(self.beats_haproxy(few));
        }
        targets
    }

    /// Better in every column, at 3 forwards each.
    fn beats_haproxy(&self, ours: &Cell) -> Target {
        let theirs = self.cell(Peer::Haproxy, 3);
        let mut worse = Vec::new();
        let mut unknown = theirs.is_none();
        for (name, figure, more_is_better) in COLUMNS {
            let ratio = self.ratios(ours, theirs, figure).median();
            unknown |= ratio.is_nan();
            if (more_is_better && ratio <= 1.0) || (!more_is_better && ratio >= 1.0) {
                worse.push(format!("{name} {ratio:.2}"));
            }
        }
        let [rate, connections, cpu] =
            [RATE[0], PER_SECOND, CPU].map(|figure| self.ratios(ours, theirs, figure).median());
        let better = COLUMNS.len() - worse.len();
        Target {
            what: "better than HAProxy".to_owned(),
            wanted: "in every column".to_owned(),
            measured: format!(
                "in {better} of {}: {rate:.2} times the requests/s, {connections:.2} times the new connections/s, {cpu:.2} of the CPU",
                COLUMNS.len()
            ),
            reached: worse.is_empty() && !unknown,
            note: match worse.as_slice() {
                [] => String::new(),
                [only] if only.starts_with("connect()") => {
                    format!("not better: {only}, as a proxy accepts before it has asked the node")
                }
                worse => format!("not better: {}", worse.join(", ")),
            },
        }
    }

    fn growth(&self) -> Vec<Growth> {
        let mut growth: Vec<Growth> = [Peer::Cachenat, Peer::IptablesLegacy, Peer::IptablesNft]
            .into_iter()
            .map(|peer| Growth {
                what: format!("first answer, {}", peer.name()),
                with: "forwards".to_owned(),
                unit: "us".to_owned(),
                points: self.by_forwards(peer, ANSWER),
                note: String::new(),
            })
            .collect();
        let by_clients = [(1, Peer::Cachenat), (super::peers::MANY_CLIENTS, Peer::CachenatManyClients)];
        growth.push(Growth {
            what: "first answer, cachenat".to_owned(),
            with: "clients".to_owned(),
            unit: "us".to_owned(),
            points: by_clients
                .into_iter()
                .filter_map(|(clients, peer)| {
                    let first = self.samples(self.cell(peer, 3)?, ANSWER).median();
                    first.is_finite().then_some((f64::from(clients), first))
                })
                .collect(),
            note: String::new(),
        });
        growth
    }

    /// The medians of a peer's figure by its number of forwards.
    fn by_forwards(&self, peer: Peer, figure: Figure) -> Vec<(f64, f64)> {
        let cells = self.cells.iter().filter(|cell| cell.peer == peer);
        let point = |cell: &Cell| (f64::from(cell.forwards), self.samples(cell, figure).median());
        cells.map(point).filter(|(_, value)| value.is_finite()).collect()
    }

    fn plots(&self) -> Vec<(String, String)> {
        let curves = |figure| {
            let mut curves: Vec<Curve> = [
                Peer::Cachenat,
                Peer::IptablesLegacy,
                Peer::IptablesNft,
                Peer::Haproxy,
                Peer::Nginx,
                Peer::Socat,
            ]
            .into_iter()
            .map(|peer| Curve { name: peer.name().to_owned(), points: self.by_forwards(peer, figure) })
            .collect();
            if let Some(&(_, level)) = self.by_forwards(Peer::Conntrack, figure).first() {
                curves.push(Curve {
                    name: Peer::Conntrack.name().to_owned(),
                    points: vec![(3.0, level), (50_000.0, level)],
                });
            }
            curves
        };
        let connections = Plot {
            title: "New connections per second, by number of forwards",
            x: ("forwards", Scale::Log),
            y: ("new connections per second", Scale::Log),
            curves: curves(PER_SECOND),
        };
        let answer = Plot {
            title: "Time to the first answer on a new connection, by number of forwards",
            x: ("forwards", Scale::Log),
            y: ("microseconds", Scale::Log),
            curves: curves(ANSWER),
        };
        let bars = |title, unit, figure| {
            let few = self.cells.iter().filter(|cell| cell.forwards <= 3 && cell.failed.is_none());
            let bars = few.map(|cell| Bar {
                name: cell.peer.name().to_owned(),
                value: self.to_baseline(cell, figure).median(),
            });
            Bars { title, unit, bars: bars.filter(|bar| bar.value.is_finite()).collect(), mark: 1.0 }.svg()
        };
        let to_baseline = "routing with conntrack = 1";
        vec![
            ("bench-connections.svg".to_owned(), connections.svg()),
            ("bench-first-answer.svg".to_owned(), answer.svg()),
            ("bench-cpu.svg".to_owned(), bars("CPU per new connection (less is better)", to_baseline, CPU)),
            (
                "bench-requests.svg".to_owned(),
                bars("Requests per second on open connections (more is better)", to_baseline, RATE[0]),
            ),
        ]
    }
}

/// A figure of the one to that of the other, pair by pair where both were measured.
fn ratios<T>(one: &[Option<T>], other: &[Option<T>], figure: impl Fn(&T) -> Option<f64>) -> Samples {
    let pairs = one.iter().zip(other);
    pairs.filter_map(|(one, other)| Some(figure(one.as_ref()?)? / figure(other.as_ref()?)?)).collect()
}

impl Cell {
    fn row_head(&self) -> String {
        let forwards = if self.peer.routes() { String::new() } else { number(self.forwards.into()) };
        format!("| {} | {forwards} |", self.peer.name())
    }
}

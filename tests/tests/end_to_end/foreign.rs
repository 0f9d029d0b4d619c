//! Compares what `check` predicts about other programs' rules with what the kernel does.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use applier::netlink::Kernel;
use applier::{host, legacy_iptables};
use cachenat_tests::lab::firewalls::{Ban, Docker, Firewall, Firewalld, ForwardPolicy, Iptables, Nftables};
use cachenat_tests::lab::namespace::Namespace;
use cachenat_tests::lab::shell::run_with_input;
use cachenat_tests::lab::{Lab, PUBLIC};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use rules::foreign::{Answer, Flow, Flows, Foreign, Interface, Message, ReplyTo};

use crate::common::applied;

/// Chains of nft that forwarded packets pass, each with what only it may hold.
const HOOKS: [(&str, &[&str]); 9] = [
    ("prerouting priority raw", &["notrack", "ip daddr 10.0.0.55 notrack", "tcp sport 6379 notrack"]),
    ("prerouting priority -200", &["ct state invalid drop"]),
    ("prerouting priority mangle", &["ct status dnat drop", "ip daddr 10.0.0.55 ct state new drop"]),
    ("prerouting priority filter", &["ip daddr 10.0.0.55 drop", "fib saddr . iif oif missing drop"]),
    ("forward priority filter", &["oifname \"eth0\" drop", "ct state new ip daddr 10.0.1.230 drop"]),
    ("forward priority filter; policy drop", &["ct status dnat accept", "ct state established accept"]),
    ("postrouting priority mangle", &["ip saddr 10.0.1.230 drop", "ip saddr 10.0.0.55 drop"]),
    ("postrouting priority 150", &["ip saddr 10.0.0.55 drop", "ip saddr 10.0.1.230 drop"]),
    ("ingress device \"eth0\" priority 0", &["ip daddr 10.0.0.55 tcp sport 6379 drop"]),
];

/// Conditions of nft: most are of what is known of the packets, some of what is not.
const CONDITIONS: [&str; 54] = [
    "",
    "iifname \"eth0\"",
    "iifname \"lo\"",
    "iifname != \"eth0\"",
    "iifname \"eth*\"",
    "iif \"eth0\"",
    "tcp dport 6379",
    "tcp dport != 22",
    "tcp dport 6000-6378",
    "tcp dport 6000-7000",
    "tcp dport { 22, 6379 }",
    "tcp dport { 22, 6300-6400 }",
    "tcp dport != { 22, 80 }",
    "tcp sport 6379",
    "tcp sport 6379 tcp dport != 22",
    "th dport 6379",
    "ip saddr 198.51.100.27",
    "ip saddr 198.51.100.0/24",
    "ip saddr != 198.51.100.0/24",
    "ip saddr 198.51.100.20-198.51.100.30",
    "ip saddr @hosts",
    "ip daddr @hosts",
    "ip saddr . tcp sport @pairs",
    "ip daddr . tcp dport @pairs",
    "ip daddr . tcp dport { 10.0.0.0/8 . 6000-7000 }",
    "ip daddr 10.0.1.0/24",
    "ip daddr 10.0.0.55",
    "ip protocol tcp",
    "ip version 4",
    "ip frag-off & 0x1fff != 0",
    "ip ttl < 5",
    "meta l4proto udp",
    "meta l4proto { tcp, udp }",
    "meta nfproto ipv4",
    "meta nfproto ipv6",
    "meta protocol ip",
    "meta mark 1",
    "meta mark & 3 == 1",
    "meta mark 0",
    "meta pkttype host",
    "meta pkttype { broadcast, multicast }",
    "meta length < 20",
    "meta skuid 0",
    "tcp flags syn",
    "tcp flags & (fin|syn|rst|ack) == syn",
    "tcp flags & (fin|syn|rst|ack) != syn",
    "limit rate 1000/second",
    "fib daddr type local",
    "fib saddr type local",
    "ip dscp 0",
    "tcp dport 6379 tcp option maxseg size 1-100",
    "tcp option timestamp exists tcp dport 6379",
    "meta cpu 999",
    "rt classid 7",
];

/// Conditions that conntrack has to have seen the packet for; a chain that is before it never meets some of them.
const OF_FLOWS: [&str; 13] = [
    "ct state new",
    "ct state established,related",
    "ct state invalid",
    "ct state vmap { established : accept, related : accept, invalid : drop }",
    "ct status dnat",
    "ct status snat",
    "ct status seen-reply",
    "ct direction reply",
    "ct direction original",
    "ct original proto-dst 6379",
    "ct original ip daddr 10.0.0.55",
    "ct reply ip saddr 10.0.1.230",
    "ct mark 0",
];

const VERDICTS: [&str; 13] = [
    "accept",
    "drop",
    "drop",
    "return",
    "continue",
    "counter",
    "jump inner",
    "goto inner",
    "jump inmost",
    "meta mark set 1",
    "meta mark set mark | 2",
    "tcp dport vmap { 22 : accept, 6379 : drop }",
    "tcp sport vmap { 1-1000 : drop, 6379 : jump inmost }",
];

/// The rules of a chain, one a line.
fn nft_rules(verdicts: &'static [&'static str]) -> impl Strategy<Value = String> {
    let condition = prop_oneof![select(&CONDITIONS[..]), select(&OF_FLOWS[..])];
    let rule = (vec(condition, 0..3), select(verdicts)).prop_map(|(mut conditions, verdict)| {
        // A map of verdicts is one, and ends the rule.
        match conditions.iter().position(|condition| condition.contains("vmap")) {
            Some(at) => conditions.swap_remove(at).to_owned(),
            None => format!("{} {verdict}", conditions.join(" ")),
        }
    });
    vec(rule, 0..4).prop_map(|rules| rules.join("\n"))
}

/// A table of nft; the chains that are jumped to do not jump back.
fn nft_table() -> impl Strategy<Value = String> {
    let hook = select(&HOOKS[..]);
    let own = hook.prop_flat_map(|(hook, own)| (Just(hook), select(own), any::<bool>()));
    let flat = &VERDICTS[..6];
    (own, nft_rules(&VERDICTS), nft_rules(flat), nft_rules(flat)).prop_map(
        |((hook, own, has_own), base, inner, inmost)| {
            let (family, own) = (if hook.starts_with("ingress") { "netdev" } else { "inet" }, if has_own { own } else { "" });
            format!(
                "table {family} other {{
                set hosts {{ type ipv4_addr; flags interval; elements = {{ 198.51.100.16/28, 10.0.1.230 }} }}
                set pairs {{ type ipv4_addr . inet_service; elements = {{ 10.0.1.230 . 6379, 10.0.0.55 . 6379 }} }}
                chain inmost {{\n{inmost}\n}}
                chain inner {{\n{inner}\njump inmost\n}}
                chain base {{ type filter hook {hook};\n{base}\n{own}\n}}
                }}"
            )
        },
    )
}

/// Conditions of iptables, those first that need the protocol named.
const MATCHES: [&str; 35] = [
    "-p tcp --dport 6379",
    "-p tcp --sport 6379",
    "-p tcp ! --dport 22",
    "-p tcp --dport 1:6000",
    "-p tcp -m multiport --dports 22,6000:7000",
    "-p tcp -m multiport --sports 6379,80",
    "-p tcp -m multiport ! --dports 22,80",
    "-p tcp --syn",
    "-p tcp ! --syn",
    "-p tcp --tcp-flags ALL ACK,PSH",
    "-p udp",
    "! -p udp",
    "",
    "-i eth0",
    "! -i eth0",
    "-i eth+",
    "-i lo",
    "-s 198.51.100.27",
    "-s 198.51.100.0/24",
    "! -s 198.51.100.0/24",
    "-d 10.0.1.0/24",
    "-m conntrack --ctstate NEW",
    "-m conntrack --ctstate RELATED,ESTABLISHED",
    "-m conntrack --ctstate DNAT",
    "-m conntrack ! --ctstate DNAT,SNAT",
    "-m conntrack --ctstate INVALID",
    "-m conntrack --ctstatus SEEN_REPLY",
    "-m state --state NEW",
    "-m comment --comment other",
    "-m addrtype --dst-type LOCAL",
    "-m addrtype ! --src-type UNICAST",
    "-m mark --mark 1/3",
    "-m iprange --src-range 198.51.100.20-198.51.100.30",
    "-m limit --limit 1000/second",
    "-m rpfilter --invert",
];

const TARGETS: [&str; 9] = [
    "ACCEPT",
    "DROP",
    "DROP",
    "RETURN",
    "REJECT",
    "inner",
    "MARK --set-xmark 1/1",
    "LOG",
    "CONNMARK --save-mark",
];

/// Where iptables has a chain that forwarded packets pass.
const TABLES: [(&str, &str); 5] = [
    ("raw", "PREROUTING"),
    ("mangle", "PREROUTING"),
    ("mangle", "FORWARD"),
    ("mangle", "POSTROUTING"),
    ("filter", "FORWARD"),
];

/// What iptables-restore(8) loads.
fn iptables_table() -> impl Strategy<Value = String> {
    let rule = || (select(&MATCHES[..]), select(&MATCHES[12..]), select(&TARGETS[..]), any::<bool>());
    (select(&TABLES[..]), any::<bool>(), vec(rule(), 0..5), vec(rule(), 0..3)).prop_map(
        |((table, chain), drops, base, inner)| {
            let mut text = format!("*{table}\n");
            let policy = if drops { "DROP" } else { "ACCEPT" };
            let _ = writeln!(text, ":{chain} {policy} [0:0]\n:inner - [0:0]");
            for (of, rules) in [(chain, base), ("inner", inner)] {
                for (one, two, target, is_goto) in rules {
                    // Each says once of what it is: the interface, the source.
                    let two = if one.split(' ').any(|word| word.starts_with('-') && two.contains(word)) {
                        ""
                    } else {
                        two
                    };
                    let how = if is_goto && target == "inner" { "-g" } else { "-j" };
                    match (of, target, table) {
                        ("inner", "inner", _) | (_, "REJECT", "raw" | "mangle") => {}
                        _ => writeln!(text, "-A {of} {one} {two} {how} {target}").unwrap(),
                    }
                }
            }
            text + "COMMIT\n"
        },
    )
}

/// The prediction for the client's connections to the first node; empty if they pass.
fn judged(nat: &Namespace) -> (bool, Vec<String>) {
    let (foreign, index) = nat.enter(|| {
        let mut foreign = Kernel::open().unwrap().foreign().unwrap();
        foreign.chains.extend(legacy_iptables::chains().unwrap());
        (foreign, host::index(&"eth0".parse().unwrap()))
    });
    let flow = Flow {
        input: Interface { name: "eth0".parse().unwrap(), index },
        output: Interface { name: "eth0".parse().unwrap(), index },
        client: "198.51.100.27/32".parse().unwrap(),
        listener: "10.0.0.55:6379".parse().unwrap(),
        target: "10.0.1.230:6379".parse().unwrap(),
        reply_to: ReplyTo::Gateway("10.0.0.55".parse().unwrap()),
    };
    judge(&foreign, &Flows::new(vec![flow]))
}

fn judge(foreign: &Foreign, flows: &Flows) -> (bool, Vec<String>) {
    let (mut is_unclear, mut stopped) = (false, Vec::new());
    for chain in foreign.chains.iter().filter(|chain| chain.table.name != "cachenat") {
        for message in Message::ALL {
            match foreign.judge(chain, flows, message).0 {
                Answer::Passes => {}
                Answer::Stopped(fate, place) => stopped.push(format!("{message:?} {fate:?} {place}")),
                Answer::Unclear(_) => is_unclear = true,
            }
        }
    }
    (is_unclear, stopped)
}

/// Whether the client gets an answer of the first node; what is dropped is waited for this long.
fn is_answered(lab: &Lab, patience: Duration) -> bool {
    let at = SocketAddr::V4(SocketAddrV4::new(PUBLIC, 6379));
    let Ok(mut stream) = lab.network.client.enter(|| TcpStream::connect_timeout(&at, patience)) else {
        return false;
    };
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.write_all(b"PING\r\n").is_ok() && stream.read(&mut [0; 7]).is_ok_and(|read| read > 0)
}

/// Loads rules, unless the kernel refuses what they put together (`ct` where nothing is tracked).
fn load(command: &mut Command, rules: &str) -> Result<(), TestCaseError> {
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let refusal = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(TestCaseError::reject(refusal)) }
}

/// How often the prediction was pass, blocked or unclear.
type Counts = Cell<[u32; 3]>;

/// Asserts that the prediction is correct.
fn is_so(lab: &Lab, counts: &Counts) -> Result<(), TestCaseError> {
    let (is_unclear, stopped) = judged(&lab.network.nat);
    let count = |at: usize| counts.set(std::array::from_fn(|of| counts.get()[of] + u32::from(of == at)));
    match (is_unclear, stopped.is_empty()) {
        // It takes as long as it takes.
        (false, true) => {
            count(0);
            prop_assert!(is_answered(lab, Duration::from_secs(20)), "said to pass");
        }
        (_, false) => {
            count(1);
            prop_assert!(!is_answered(lab, Duration::from_millis(100)), "said to be stopped: {stopped:?}");
        }
        (true, true) => count(2),
    }
    Ok(())
}

/// Each kind of prediction must occur at least a few times.
fn each_came(counts: [u32; 3], least: u32) {
    println!("{} passed, {} were stopped, of {} nothing was told", counts[0], counts[1], counts[2]);
    assert!(counts[0] >= least && counts[1] >= least && counts[2] * 2 < counts[0] + counts[1], "{counts:?}");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn predictions_for_nft_rules_match_the_kernel() {
    let lab = applied();
    let counts = Counts::default();
    let mut runner =
        TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) });
    let outcome = runner.run(&nft_table(), |table| {
        load(lab.network.nat.command("nft").args(["-f", "-"]), &table)?;
        let family = if table.starts_with("table inet") { "inet" } else { "netdev" };
        let so = is_so(&lab, &counts);
        lab.network.nat.nft(&format!("delete table {family} other"));
        so
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    each_came(counts.get(), 10);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn predictions_for_iptables_rules_match_the_kernel() {
    for program in ["iptables-nft-restore", "iptables-legacy-restore"] {
        let lab = applied();
        let command = || {
            let mut command = lab.network.nat.command(program);
            // All namespaces share the lock that is the default's.
            command.env("XTABLES_LOCKFILE", lab.dir().join("xtables.lock"));
            command
        };
        let counts = Counts::default();
        let mut runner =
            TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) });
        let outcome = runner.run(&iptables_table(), |table| {
            load(&mut command(), &table)?;
            let so = is_so(&lab, &counts);
            for (table, chain) in TABLES {
                run_with_input(&mut command(), &format!("*{table}\n:{chain} ACCEPT [0:0]\nCOMMIT\n"));
            }
            so
        });
        outcome.unwrap_or_else(|error| panic!("{program}: {error}"));
        each_came(counts.get(), 10);
    }
}

/// What a firewall is told to do with the client's connections: nothing, or to stop them by this chain; and the rules that let
/// them pass then, of nft or of iptables.
fn told_of(firewall: Firewall) -> Option<(&'static str, Remedy)> {
    use Iptables::{Legacy, Nft};
    let accept = |chain| Some((chain, Remedy::Nft(chain)));
    let of = |iptables, nft: &'static str, legacy: &'static str, chain: &'static str| {
        let told = match iptables {
            Nft => nft,
            Legacy => legacy,
        };
        Some((told, Remedy::Iptables(iptables, chain)))
    };
    let (forward, legacy) = ("chain ip filter FORWARD", "chain FORWARD in table filter of iptables-legacy");
    match firewall {
        Firewall::Firewalld(Firewalld::OfDistribution | Firewalld::AnyForwardPorts) => None,
        Firewall::Firewalld(Firewalld::StrictForwardPorts) => Some((
            "chain inet firewalld filter_FORWARD_dnat",
            Remedy::Nft("chain inet firewalld filter_FORWARD"),
        )),
        Firewall::Ufw(iptables, ForwardPolicy::Drop) => of(iptables, forward, legacy, "ufw-before-forward"),
        Firewall::Ufw(_, ForwardPolicy::Accept) => None,
        Firewall::Fail2ban(
            Ban::NftablesMultiport
            | Ban::NftablesAllports
            | Ban::NftablesForward
            | Ban::IptablesMultiport
            | Ban::IptablesForward,
        ) => None,
        Firewall::Docker(Docker::V27(iptables) | Docker::V28_0(iptables) | Docker::V28_5(iptables)) => {
            of(iptables, forward, legacy, "DOCKER-USER")
        }
        // It has no policy for what is not its own.
        Firewall::Docker(Docker::V29Nftables) => None,
        Firewall::KubeProxy(_) | Firewall::NatInstance(_) => None,
        Firewall::IptablesServices(iptables) => of(iptables, forward, legacy, "FORWARD"),
        // The home router lets all pass that comes from its own network, by eth0.
        Firewall::Nftables(
            Nftables::Debian | Nftables::DebianWorkstation | Nftables::DnatRouter | Nftables::HomeRouter,
        ) => None,
        Firewall::Nftables(Nftables::Arch) => accept("chain inet filter forward"),
    }
}

/// Where packets of `ct status dnat` are let through.
#[derive(Debug)]
enum Remedy {
    Nft(&'static str),
    Iptables(Iptables, &'static str),
}

impl Remedy {
    fn apply(&self, nat: &Namespace) {
        match self {
            Self::Nft(chain) => {
                nat.nft(&format!("insert rule {} ct status dnat accept", chain.trim_start_matches("chain ")));
            }
            Self::Iptables(iptables, chain) => {
                iptables.run(nat, &format!("-I {chain} -m conntrack --ctstate DNAT -j ACCEPT"));
            }
        }
    }
}

/// The prediction is correct for each firewall, and the suggested fix works and ends the finding.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn predictions_for_real_firewalls_match_the_kernel() {
    for firewall in Firewall::all() {
        println!("{firewall:?}");
        let lab = applied();
        let nat = &lab.network.nat;
        firewall.load(nat);
        // Some nftables.conf take all others' tables away first.
        lab.cachenat(&["apply"]).exits(0);
        let (is_unclear, stopped) = judged(nat);
        assert!(!is_unclear, "{firewall:?}: nothing is told");
        let Some((chain, remedy)) = told_of(firewall) else {
            assert!(stopped.is_empty(), "{firewall:?}: {stopped:?}");
            assert!(is_answered(&lab, Duration::from_secs(20)), "{firewall:?}");
            continue;
        };
        assert!(stopped.iter().any(|told| told.ends_with(chain)), "{firewall:?}: {stopped:?}");
        assert!(!is_answered(&lab, Duration::from_millis(100)), "{firewall:?}");
        remedy.apply(nat);
        assert_eq!(judged(nat), (false, vec![]), "{firewall:?} after {remedy:?}");
        assert!(is_answered(&lab, Duration::from_secs(20)), "{firewall:?} after {remedy:?}");
    }
}

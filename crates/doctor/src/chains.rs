//! Others' chains that forwarded packets pass: an accept of ours does not overrule their drop.

use std::net::IpAddr;

use ipnet::IpNet;
use rules::foreign::{
    Answer, Backend, Base, Chain, Doubt, Fate, Flow, Flows, Foreign, Hook, Interface, Message, ReplyTo,
    RuleOrPolicy, Table, TableFamily,
};
use rules::{AccessList, Family, Forward, Ruleset, SnatTo};

use crate::Finding;

/// `NF_IP_PRI_NAT_DST`, `linux/netfilter_ipv4.h`: the priority `dstnat`, legacy iptables' as well.
const DSTNAT: i32 = -100;

/// The connections that a ruleset forwards: each client's to each of its listeners by each of the `ingress` interfaces, on to
/// each of the listener's targets.
///
/// A client to whom the way leads by one of the `tunnels` comes by that alone, and also connects to the targets' own addresses.
/// `output` says by which interface packets to an address leave.
pub fn flows(
    ruleset: &Ruleset,
    ingress: &[Interface],
    tunnels: &[Interface],
    output: impl Fn(IpAddr) -> Interface,
) -> Flows {
    let reply_to = |family, output: &Interface| match ruleset.sources(family, output.name.as_str())[..] {
        [] => ReplyTo::Client,
        [SnatTo::Address(address)] => ReplyTo::Gateway(address),
        _ => ReplyTo::SomeOfGateway,
    };
    let mut found = Vec::new();
    for AccessList { clients, forwards } in ruleset.access_lists().values() {
        let tunnel_of = |client: &IpNet| {
            let towards = (!tunnels.is_empty()).then(|| output(client.addr()))?;
            tunnels.iter().find(|tunnel| tunnel.name == towards.name)
        };
        let clients: Vec<(&IpNet, Option<&Interface>)> =
            clients.iter().map(|client| (client, tunnel_of(client))).collect();
        for Forward { listen, targets, .. } in forwards {
            for &target in targets {
                let output = output(target.address);
                let reply_to = reply_to(Family::of(target.address), &output);
                let flow = |input: &Interface, client: &IpNet, listener| Flow {
                    input: input.clone(),
                    output: output.clone(),
                    client: *client,
                    listener,
                    target,
                    reply_to,
                };
                let of_family = |client: &IpNet| client.addr().is_ipv4() == listen.address.is_ipv4();
                for &(client, tunnel) in clients.iter().filter(|(client, _)| of_family(client)) {
                    match tunnel {
                        Some(tunnel) => {
                            found.extend([*listen, target].map(|listener| flow(tunnel, client, listener)));
                        }
                        None => found.extend(ingress.iter().map(|input| flow(input, client, *listen))),
                    }
                }
            }
        }
    }
    Flows::new(found)
}

/// Chains on a forwarded packet's way that stop it, or may.
pub fn forward(foreign: &Foreign, flows: &Flows) -> Vec<Finding> {
    let mut found: Vec<Finding> =
        base_chains(foreign).filter_map(|(chain, base)| stopped(foreign, chain, base, flows)).collect();
    if found.is_empty() {
        found.push(Finding::ok("forward chains", "no chain of others stops what is forwarded"));
    }
    found
}

/// What of a connection's packets a chain stops first, else which it may.
fn stopped(foreign: &Foreign, chain: &Chain, base: &Base, flows: &Flows) -> Option<Finding> {
    let name = "forward chains";
    let mut unclear = None;
    for message in Message::ALL {
        match foreign.judge(chain, flows, message) {
            // That is said of nat chains, which come before or behind ours.
            (Answer::Stopped(Fate::LedElsewhere, _), _) if base.is_nat => {}
            (Answer::Unclear(Doubt { fate: Some(Fate::LedElsewhere), .. }), _) if base.is_nat => {}
            (Answer::Stopped(fate, place), Some(flow)) => {
                let (does, end) = match fate {
                    Fate::Dropped => ("drops", ""),
                    Fate::Untracked => ("keeps", " from conntrack, so that nothing is translated"),
                    Fate::LedElsewhere => ("leads", " elsewhere"),
                    Fate::Queued => ("hands", " to a program"),
                };
                let what = format!("{place} at {} {does} {}{end}", base.hook, packets(message, flow));
                let remedy = match fate {
                    // Nothing is translated yet.
                    Fate::Dropped if !base.is_tracked() => {
                        format!(
                            "except your clients, your nodes and their ports from it ({} shows it)",
                            command(place)
                        )
                    }
                    Fate::Dropped if !flow.is_translated() => {
                        let (input, show) = (&flow.input.name, command(place));
                        format!(
                            "let packets of 'iifname {input}' and their answers pass there ({show} shows it): they are confined already"
                        )
                    }
                    fate => remedy(fate, place),
                };
                return Some(Finding::fail(name, what, remedy));
            }
            (Answer::Unclear(doubt), Some(flow)) if unclear.is_none() => {
                unclear = Some(doubtful(&doubt, chain, base, &packets(message, flow)));
            }
            _ => {}
        }
    }
    unclear
}

fn doubtful(doubt: &Doubt<'_>, chain: &Chain, base: &Base, packets: &str) -> Finding {
    let (place, hook) = (doubt.place, base.hook);
    let why = reason(doubt.what);
    let what = match doubt.fate {
        None => {
            format!("{chain} at {hook} drops {packets} unless {place} lets them pass: that depends on {why}")
        }
        Some(Fate::Queued) => {
            format!("{place} at {hook} hands {packets} to a program, which decides (queue)")
        }
        Some(_) => format!("{place} at {hook} may stop {packets}: that depends on {why}"),
    };
    Finding::warn("forward chains", what, format!("see whether it does: {}", command(place)))
}

/// Why it can't be told whether a rule is about a packet.
fn reason(what: Option<&str>) -> String {
    match what {
        Some(what) => format!("'{what}', which cachenat can't judge"),
        None => "which of the clients it is, or on what they send".to_owned(),
    }
}

/// The packets in a reader's words.
fn packets(message: Message, flow: &Flow) -> String {
    let Flow { client, listener, target, .. } = flow;
    match message {
        Message::New if !flow.is_translated() => format!("new connections from {client} to {target}"),
        Message::New => format!("new connections from {client} to {listener}, which lead on to {target}"),
        Message::Established => format!("what {client} sends to {listener} once it is connected"),
        Message::Reply => format!("what {target} answers to {client}"),
    }
}

fn remedy(fate: Fate, place: RuleOrPolicy<'_>) -> String {
    let show = command(place);
    match fate {
        Fate::Dropped if is_of_iptables(place.chain) => format!(
            "let packets of '-m conntrack --ctstate DNAT' pass there, with Docker in its chain DOCKER-USER ({show} shows it)"
        ),
        Fate::Dropped => format!("let packets of 'ct status dnat' pass there ({show} shows it)"),
        Fate::Untracked => {
            format!("except the ports of the pool, and your nodes', from it ({show} shows it)")
        }
        Fate::LedElsewhere | Fate::Queued => format!("take that rule out: {show} shows it"),
    }
}

/// Whether iptables made it, whose tables nft(8) should not touch.
fn is_of_iptables(chain: &Chain) -> bool {
    const TABLES: [&str; 5] = ["raw", "mangle", "nat", "filter", "security"];
    let Table { backend, family, name } = &chain.table;
    let is_shared = matches!(family, TableFamily::Ip | TableFamily::Ip6) && TABLES.contains(&name.as_str());
    // Its base chains are written in capitals, and one like that has no other maker.
    *backend == Backend::LegacyIptables || (is_shared && chain.name.chars().any(|c| c.is_ascii_uppercase()))
}

/// The command that shows a rule.
fn command(place: RuleOrPolicy<'_>) -> String {
    let Chain { table, name, .. } = place.chain;
    match (table.backend, table.family) {
        (Backend::NfTables, _) => format!("'nft -a list chain {table} {name}'"),
        (Backend::LegacyIptables, family) => {
            let program = if family == TableFamily::Ip6 { "ip6tables-legacy" } else { "iptables-legacy" };
            format!("'{program} -t {} -nvL {name} --line-numbers'", table.name)
        }
    }
}

/// The base chains of others.
fn base_chains(foreign: &Foreign) -> impl Iterator<Item = (&Chain, &Base)> {
    let foreign = foreign.chains.iter().filter(|chain| !chain.table.is_ours());
    foreign.filter_map(|chain| Some((chain, chain.base.as_ref()?)))
}

/// Rules that lead packets to our listeners elsewhere: of several nat chains the first that translates a flow's first
/// packet has it.
pub fn nat(foreign: &Foreign, flows: &Flows) -> Vec<Finding> {
    let is_of_nat = |base: &Base| base.is_nat && base.hook == Hook::Prerouting;
    let is_our_nat = |chain: &Chain| chain.table.is_ours() && chain.base.as_ref().is_some_and(is_of_nat);
    let ours = foreign.chains.iter().position(is_our_nat).unwrap_or(foreign.chains.len());
    // Whoever is not on the list of clients, too.
    let anybody = flows.of_anybody();
    let mut found = Vec::new();
    for (at, chain) in foreign.chains.iter().enumerate() {
        let Some(base) = chain.base.as_ref().filter(|base| is_of_nat(base) && !chain.table.is_ours()) else {
            continue;
        };
        // Which of two came first is known only of tables of one kind.
        let is_ahead = match chain.table.backend {
            Backend::NfTables => base.priority < DSTNAT || (base.priority == DSTNAT && at < ours),
            Backend::LegacyIptables => true,
        };
        found.extend(if is_ahead { ahead(foreign, chain, flows) } else { behind(foreign, chain, &anybody) });
    }
    if found.is_empty() {
        found.push(Finding::ok("nat chains", "no rule of others takes the forwarded ports"));
    }
    found
}

/// A chain that packets meet before ours, as far as it leads them elsewhere.
fn ahead(foreign: &Foreign, chain: &Chain, flows: &Flows) -> Option<Finding> {
    let name = "nat chains";
    match foreign.judge(chain, flows, Message::New) {
        (Answer::Stopped(Fate::LedElsewhere, place), Some(flow)) => {
            let (listener, remedy) = (flow.listener, remedy(Fate::LedElsewhere, place));
            let when = match chain.table.backend {
                Backend::NfTables => " before cachenat sees it",
                Backend::LegacyIptables => ", before cachenat sees it or as well",
            };
            Some(Finding::fail(name, format!("{place} leads {listener} elsewhere{when}"), remedy))
        }
        (Answer::Unclear(Doubt { place, what, fate: Some(Fate::LedElsewhere) }), Some(flow)) => {
            let why = reason(what);
            let what = format!(
                "{place} may lead {} elsewhere before cachenat sees it: that depends on {why}",
                flow.listener
            );
            Some(Finding::warn(name, what, format!("see whether it does: {}", command(place))))
        }
        _ => None,
    }
}

/// A chain that has only what ours leaves alone.
fn behind(foreign: &Foreign, chain: &Chain, anybody: &Flows) -> Option<Finding> {
    match foreign.judge(chain, anybody, Message::New) {
        (Answer::Stopped(Fate::LedElsewhere, place), Some(flow)) => {
            let listener = flow.listener;
            let what = format!(
                "{place} leads {listener} on as well: clients that cachenat does not list reach it by that"
            );
            Some(Finding::warn("nat chains", what, remedy(Fate::LedElsewhere, place)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rules::foreign::{Expression, Field, Relation, Rule, Verdict};
    use rules::ruleset::TABLE;

    use super::*;
    use crate::Level::{Fail, Ok, Warn};

    fn chain(backend: Backend, hook: Hook, expressions: Vec<Expression>) -> Foreign {
        let name = if backend == Backend::NfTables { "fw" } else { "filter" };
        let table = Table { backend, family: TableFamily::Ip, name: name.to_owned() };
        let base = Base { is_nat: false, hook, priority: -300, devices: vec![], drops_by_policy: false };
        let rules = vec![Rule { number: 4, expressions }];
        let chains = vec![Chain { table, name: "FORWARD".to_owned(), base: Some(base), rules }];
        Foreign { chains, ..Foreign::default() }
    }

    fn told(foreign: &Foreign) -> (crate::Level, String) {
        let flow = Flow {
            input: Interface { name: "eth0".parse().unwrap(), index: None },
            output: Interface { name: "eth0".parse().unwrap(), index: None },
            client: "198.51.100.0/24".parse().unwrap(),
            listener: "10.0.0.55:6379".parse().unwrap(),
            target: "10.0.1.230:6379".parse().unwrap(),
            reply_to: ReplyTo::SomeOfGateway,
        };
        let found = forward(foreign, &Flows::new(vec![flow])).remove(0);
        (found.verdict, format!("{}; {}", found.what, found.remedy.unwrap_or_default()))
    }

    #[test]
    fn what_stops_packets_is_told_with_what_helps() {
        let connections =
            "new connections from 198.51.100.0/24 to 10.0.0.55:6379, which lead on to 10.0.1.230:6379";
        let rule = "rule handle 4 of chain ip fw FORWARD";
        let show = "'nft -a list chain ip fw FORWARD'";
        let verdict = |verdict| vec![Expression::Verdict(verdict)];
        let unclear =
            |name: &str, verdict| vec![Expression::Unclear(name.to_owned()), Expression::Verdict(verdict)];
        let from_one = vec![
            Expression::Load { field: Field::Network(12), to: 0, length: 4 },
            Expression::Compare { from: 0, relation: Relation::Equal, value: vec![198, 51, 100, 9] },
            Expression::Verdict(Verdict::Drop),
        ];
        for (hook, expressions, expected) in [
            (
                Hook::Forward,
                verdict(Verdict::Drop),
                (
                    Fail,
                    format!(
                        "{rule} at forward drops {connections}; let packets of 'ct status dnat' pass there ({show} shows it)"
                    ),
                ),
            ),
            (
                Hook::Prerouting,
                verdict(Verdict::Drop),
                (
                    Fail,
                    format!(
                        "{rule} at prerouting drops {connections}; except your clients, your nodes and their ports from it ({show} shows it)"
                    ),
                ),
            ),
            (
                Hook::Prerouting,
                verdict(Verdict::Untrack),
                (
                    Fail,
                    format!(
                        "{rule} at prerouting keeps {connections} from conntrack, so that nothing is translated; except the ports of the pool, and your nodes', from it ({show} shows it)"
                    ),
                ),
            ),
            (
                Hook::Forward,
                from_one,
                (
                    Warn,
                    format!(
                        "{rule} at forward may stop {connections}: that depends on which of the clients it is, or on what they send; see whether it does: {show}"
                    ),
                ),
            ),
            (
                Hook::Forward,
                unclear("recent", Verdict::Drop),
                (
                    Warn,
                    format!(
                        "{rule} at forward may stop {connections}: that depends on 'recent', which cachenat can't judge; see whether it does: {show}"
                    ),
                ),
            ),
            (
                Hook::Forward,
                verdict(Verdict::Queue),
                (
                    Warn,
                    format!(
                        "{rule} at forward hands {connections} to a program, which decides (queue); see whether it does: {show}"
                    ),
                ),
            ),
            (
                Hook::Forward,
                verdict(Verdict::Accept),
                (Ok, "no chain of others stops what is forwarded; ".to_owned()),
            ),
        ] {
            assert_eq!(told(&chain(Backend::NfTables, hook, expressions)), expected);
        }
        let (_, legacy) = told(&chain(Backend::LegacyIptables, Hook::Forward, verdict(Verdict::Drop)));
        let command = "'iptables-legacy -t filter -nvL FORWARD --line-numbers'";
        assert!(
            legacy
                .starts_with("rule 4 of chain FORWARD in table filter of iptables-legacy at forward drops ")
        );
        assert!(legacy.ends_with(&format!("in its chain DOCKER-USER ({command} shows it)")), "{legacy}");
        let mut ours = chain(Backend::NfTables, Hook::Forward, verdict(Verdict::Drop));
        ours.chains[0].table =
            Table { family: TableFamily::Inet, name: TABLE.to_owned(), ..ours.chains[0].table.clone() };
        assert_eq!(told(&ours).0, Ok);
    }
}

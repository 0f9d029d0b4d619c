use proptest::prelude::*;
use rules::Sysctl;

use super::*;
use crate::addresses::Addresses;
use crate::test_support::config;

/// The same with one pool for all.
fn without_own_pool() -> PlanConfig {
    let mut config = config();
    config.sources[0].ports = None;
    config
}

fn gateway(addresses: &[&str]) -> Gateway {
    Gateway {
        interface: "eth0".parse().unwrap(),
        ingress: vec!["eth0".parse().unwrap()],
        addresses: Addresses::new(addresses.iter().map(|address| address.parse().unwrap()).collect()),
        snat: rules::Snat::Masquerade,
        tunnels: vec![],
        max_segment: None,
    }
}

/// An inventory of nodes `id address[,address]`, all on port 6379, and of sources `name outcome`.
fn inventory(nodes: &[&str], sources: &[&str]) -> Inventory {
    let node = |line: &&str| {
        let (id, addresses) = line.split_once(' ').unwrap();
        let source = if id.starts_with("sessions") {
            "cache_cluster/sessions"
        } else {
            "replication_group/my-cluster"
        };
        let cluster = source.split_once('/').unwrap().1;
        let addresses: Vec<&str> = addresses.split(',').filter(|address| !address.is_empty()).collect();
        let error = addresses.is_empty().then_some("SERVFAIL");
        serde_json::json!({"id": id, "cluster": cluster, "source": source, "status": "available",
            "host": format!("{id}.example"), "port": 6379, "addresses": addresses, "error": error})
    };
    let report = |line: &&str| {
        let (source, outcome) = line.split_once(' ').unwrap();
        let error = (outcome != "complete").then_some("throttled");
        serde_json::json!({"source": source, "outcome": outcome, "error": error})
    };
    let json = serde_json::json!({"version": 1, "nodes": nodes.iter().map(node).collect::<Vec<_>>(),
        "sources": sources.iter().map(report).collect::<Vec<_>>()});
    Inventory::from_json(&json.to_string()).unwrap()
}

const BOTH: [&str; 2] = ["replication_group/my-cluster complete", "cache_cluster/sessions complete"];

struct World {
    config: PlanConfig,
    gateway: Gateway,
    host: Host,
    last_good: Option<Inventory>,
    leases: Option<Leases>,
    actual: Ruleset,
    kept: Vec<String>,
}

impl World {
    fn new() -> Self {
        Self {
            config: config(),
            gateway: gateway(&["10.0.0.55"]),
            host: Host::default(),
            last_good: None,
            leases: None,
            actual: Ruleset::default(),
            kept: vec![],
        }
    }

    /// Plans from `fresh`, as `apply` would, and takes the plan as done.
    fn run(&mut self, fresh: &Inventory) -> Vec<String> {
        self.try_run(fresh).unwrap()
    }

    fn try_run(&mut self, fresh: &Inventory) -> Result<Vec<String>, PlanError> {
        let inputs = PlanInputs {
            last_good: self.last_good.clone(),
            emptied: OnEmptyAnswer::Keep,
            leases: self.leases.clone(),
            actual: &self.actual,
            now: Timestamp::from_secs(1_000_000),
        };
        let desired = plan(&self.config, &self.gateway, &self.host, fresh.clone(), inputs)?;
        self.last_good = Some(desired.inventory);
        self.leases = Some(desired.leases);
        self.actual = desired.wanted.ruleset.clone();
        self.kept = desired.kept;
        let line = |Forward { id, listen, targets }: Forward| {
            format!("{id} {listen} {}", rules::diff::targets(&targets))
        };
        Ok(self.actual.forwards().into_iter().map(line).collect())
    }

    fn lose_state(&mut self) {
        self.last_good = None;
        self.leases = None;
    }
}

#[test]
fn the_aws_example_comes_out_in_order_and_a_source_takes_its_own_pool() {
    let mut world = World::new();
    let nodes = [
        "my-cluster-001 10.0.1.230",
        "my-cluster-002 10.0.1.231",
        "sessions-0001 10.0.1.240",
        "my-cluster-003 10.0.1.232",
    ];
    let listeners = world.run(&inventory(&nodes, &BOTH));
    assert_eq!(
        listeners,
        [
            "my-cluster-001 10.0.0.55:6379 10.0.1.230:6379",
            "my-cluster-002 10.0.0.55:6380 10.0.1.231:6379",
            "my-cluster-003 10.0.0.55:6381 10.0.1.232:6379",
            "sessions-0001 10.0.0.55:6382 10.0.1.240:6379",
        ]
    );
    assert!(world.kept.is_empty());
}

#[test]
fn a_replaced_node_keeps_its_port_and_a_removed_one_goes() {
    let mut world = World::new();
    world.run(&inventory(&["my-cluster-001 10.0.1.230", "my-cluster-002 10.0.1.231"], &BOTH));
    assert_eq!(
        world.run(&inventory(&["my-cluster-002 10.0.1.240"], &BOTH)),
        ["my-cluster-002 10.0.0.55:6380 10.0.1.240:6379"]
    );
}

#[test]
fn a_node_that_does_not_resolve_keeps_its_forward_with_and_without_the_state_directory() {
    let mut world = World::new();
    let before = world.run(&inventory(&["my-cluster-001 10.0.1.230"], &BOTH));
    let unresolved = inventory(&["my-cluster-001 "], &BOTH);
    assert_eq!(world.run(&unresolved), before);
    assert!(world.kept[0].starts_with("my-cluster-001"), "{:?}", world.kept);
    world.lose_state();
    assert_eq!(world.run(&unresolved), before);
    assert_eq!(world.kept, ["my-cluster-001: SERVFAIL; keeping its forward to 10.0.1.230:6379"]);
}

#[test]
fn a_source_that_fails_keeps_all_it_had_with_and_without_the_state_directory() {
    let mut world = World::new();
    let before = world.run(&inventory(&["my-cluster-001 10.0.1.230", "my-cluster-002 10.0.1.231"], &BOTH));
    let failed = inventory(&[], &["replication_group/my-cluster failed", BOTH[1]]);
    assert_eq!(world.run(&failed), before);
    world.lose_state();
    assert_eq!(world.run(&failed), before);
    assert_eq!(world.kept.len(), 2);
    let partial =
        inventory(&["my-cluster-001 10.0.1.250"], &["replication_group/my-cluster partial", BOTH[1]]);
    let after = world.run(&partial);
    assert_eq!(after[0], "my-cluster-001 10.0.0.55:6379 10.0.1.250:6379");
    assert_eq!(after[1], before[1]);
}

#[test]
fn a_node_that_one_source_removes_goes_although_another_source_fails() {
    let mut world = World::new();
    let nodes = ["my-cluster-001 10.0.1.230", "sessions-0001 10.0.1.240", "sessions-0002 10.0.1.241"];
    world.run(&inventory(&nodes, &BOTH));
    let fresh = inventory(&["sessions-0001 10.0.1.240"], &["replication_group/my-cluster failed", BOTH[1]]);
    assert_eq!(
        world.run(&fresh),
        ["my-cluster-001 10.0.0.55:6379 10.0.1.230:6379", "sessions-0001 10.0.0.55:6380 10.0.1.240:6379"]
    );
}

#[test]
fn a_source_that_only_a_file_names_is_taken_as_it_is_and_a_configured_one_is_guarded() {
    let nodes = ["my-cluster-001 10.0.1.230", "my-cluster-002 10.0.1.231", "my-cluster-003 10.0.1.232"];
    let mut world = World::new();
    world.run(&inventory(&nodes, &BOTH));
    assert_eq!(world.run(&inventory(&nodes[..1], &BOTH)).len(), 3, "held for one more answer");
    assert_eq!(world.run(&inventory(&nodes[..1], &BOTH)).len(), 1);

    let mut world = World { config: PlanConfig { sources: vec![], ..config() }, ..World::new() };
    world.run(&inventory(&nodes, &BOTH));
    assert_eq!(world.run(&inventory(&nodes[..1], &BOTH)).len(), 1);
}

#[test]
fn an_empty_answer_is_not_believed_unless_allowed() {
    let mut world = World::new();
    let before = world.run(&inventory(&["my-cluster-001 10.0.1.230"], &BOTH));
    assert_eq!(world.run(&inventory(&[], &BOTH)), before);
    assert_eq!(world.kept.len(), 1);
}

#[test]
fn ports_come_back_from_the_kernels_comments_when_the_state_directory_is_lost() {
    let mut world = World::new();
    world.run(&inventory(&["my-cluster-001 10.0.1.230", "my-cluster-002 10.0.1.231"], &BOTH));
    let before = world.run(&inventory(&["my-cluster-002 10.0.1.231"], &BOTH));
    world.lose_state();
    assert_eq!(world.run(&inventory(&["my-cluster-002 10.0.1.231"], &BOTH)), before);
}

/// A run that was killed after its commit has written neither leases nor inventory.
#[test]
fn what_only_the_kernel_knows_keeps_its_port_and_outlives_a_failing_source() {
    let mut world = World::new();
    world.run(&inventory(&["my-cluster-003 10.0.1.232"], &BOTH));
    let (last_good, leases) = (world.last_good.clone(), world.leases.clone());
    let before = world.run(&inventory(&["my-cluster-003 10.0.1.232", "my-cluster-004 10.0.1.233"], &BOTH));
    (world.last_good, world.leases) = (last_good, leases);

    let failed = inventory(&[], &["replication_group/my-cluster failed", BOTH[1]]);
    assert_eq!(world.run(&failed), before);
    let earlier = ["my-cluster-001 10.0.1.230", "my-cluster-003 10.0.1.232", "my-cluster-004 10.0.1.233"];
    let after = world.run(&inventory(&earlier, &BOTH));
    assert_eq!(after[..2], before[..]);
    assert_eq!(after[2], "my-cluster-001 10.0.0.55:6381 10.0.1.230:6379");
}

#[test]
fn of_two_nodes_on_one_address_the_one_that_had_it_keeps_it() {
    let mut world = World::new();
    world.run(&inventory(&["my-cluster-001 10.0.1.230", "my-cluster-002 10.0.1.231"], &BOTH));
    let after = world.run(&inventory(&["my-cluster-001 10.0.1.231", "my-cluster-002 10.0.1.231"], &BOTH));
    assert_eq!(
        after,
        ["my-cluster-001 10.0.0.55:6379 10.0.1.230:6379", "my-cluster-002 10.0.0.55:6380 10.0.1.231:6379"]
    );
    assert_eq!(
        world.kept,
        [
            "my-cluster-001: 10.0.1.231:6379 is also claimed by my-cluster-002; keeping its forward to 10.0.1.230:6379"
        ]
    );
}

#[test]
fn of_two_new_nodes_on_one_address_only_the_first_is_forwarded() {
    let mut world = World::new();
    let after = world.run(&inventory(&["my-cluster-001 10.0.1.230", "my-cluster-002 10.0.1.230"], &BOTH));
    assert_eq!(after, ["my-cluster-001 10.0.0.55:6379 10.0.1.230:6379"]);
    assert_eq!(world.kept.len(), 1);
    let roles = ["my-cluster-001 10.0.1.230", "my-cluster/primary 10.0.1.230"];
    assert_eq!(world.run(&inventory(&roles, &BOTH)).len(), 2, "a role may share its node's address");
}

#[test]
fn a_full_pool_is_an_error_that_names_the_key() {
    let nodes: Vec<String> = (1..=5).map(|n| format!("my-cluster-00{n} 10.0.1.23{n}")).collect();
    let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
    let error = World::new().try_run(&inventory(&nodes, &BOTH)).unwrap_err();
    assert!(error.to_string().contains("widen sources[0].ports"), "{error}");
}

#[test]
fn an_address_family_is_forwarded_where_gateway_and_node_both_have_it() {
    let mut world = World::new();
    let nodes = inventory(&["my-cluster-001 10.0.1.230,fd00:1::9", "my-cluster-002 fd00:1::10"], &BOTH);
    assert_eq!(world.run(&nodes), ["my-cluster-001 10.0.0.55:6379 10.0.1.230:6379"]);
    assert_eq!(
        world.kept,
        [
            "my-cluster-002: it has only IPv6 addresses (fd00:1::10) and the gateway has none, so it is not forwarded; give \
             the gateway an IPv6 address, or the cache the gateway's family"
        ]
    );
    let leases = world.leases.as_ref().unwrap();
    assert_eq!(leases.holders().len(), 1, "and it takes no port");
    world.gateway = gateway(&["10.0.0.55", "fd00::55"]);
    assert_eq!(
        world.run(&nodes),
        [
            "my-cluster-001 10.0.0.55:6379 10.0.1.230:6379",
            "my-cluster-001 [fd00::55]:6379 [fd00:1::9]:6379",
            "my-cluster-002 [fd00::55]:6380 [fd00:1::10]:6379",
        ]
    );
    assert_eq!(Sysctl::needed_by(&world.actual), [Sysctl::Ipv4Forward, Sysctl::Ipv6Forward]);
    assert!(world.kept.is_empty());
}

#[test]
fn with_several_addresses_each_node_keeps_its_port_and_a_source_s_own_pool_is_on_the_first() {
    let mut world = World { config: without_own_pool(), ..World::new() };
    let nodes = ["my-cluster-001 10.0.1.230", "my-cluster-002 10.0.1.231,fd00:1::9"];
    assert_eq!(world.run(&inventory(&nodes, &BOTH))[1], "my-cluster-002 10.0.0.55:6380 10.0.1.231:6379");

    world.gateway = gateway(&["10.0.0.55", "10.0.0.56", "fd00::55", "fd00::56"]);
    let own = [
        "my-cluster-001 10.0.0.55:6379 10.0.1.230:6379",
        "my-cluster-002 10.0.0.56:6379 10.0.1.231:6379",
        "my-cluster-002 [fd00::56]:6379 [fd00:1::9]:6379",
    ];
    assert_eq!(world.run(&inventory(&nodes, &BOTH)), own);
    world.lose_state();
    let after = world.run(&inventory(&nodes[1..], &BOTH));
    assert_eq!(after[1..], own[1..], "the kernel tells whose address it is");

    world.config = config();
    assert_eq!(
        world.run(&inventory(&nodes, &BOTH)),
        [
            "my-cluster-001 10.0.0.55:6379 10.0.1.230:6379",
            "my-cluster-002 10.0.0.55:6380 10.0.1.231:6379",
            "my-cluster-002 [fd00::55]:6380 [fd00:1::9]:6379"
        ]
    );
}

#[test]
fn too_few_addresses_are_an_error_that_says_what_to_add() {
    let mut world = World { config: without_own_pool(), ..World::new() };
    world.gateway = gateway(&["10.0.0.55", "10.0.0.56"]);
    let nodes = ["my-cluster-001 10.0.1.230", "my-cluster-002 10.0.1.231", "my-cluster-003 10.0.1.232"];
    let error = world.try_run(&inventory(&nodes, &BOTH)).unwrap_err().to_string();
    assert!(error.starts_with("no free port for my-cluster-003: port 6379 on the 2"), "{error}");
    assert!(error.ends_with("widen gateway.addresses"), "{error}");
}

#[test]
fn a_former_address_that_another_node_claims_leads_nobody_astray() {
    let mut world = World::new();
    let at = |a: u8, b: u8, c: u8| {
        let lines =
            [("001", a), ("002", b), ("003", c)].map(|(id, last)| format!("my-cluster-{id} 10.0.1.{last}"));
        inventory(&lines.each_ref().map(String::as_str), &BOTH)
    };
    let before = world.run(&at(1, 2, 3));
    assert_eq!(world.run(&at(2, 2, 1)), before);
    assert_eq!(
        world.kept,
        [
            "my-cluster-001: 10.0.1.2:6379 is also claimed by my-cluster-002; keeping its forward to 10.0.1.1:6379",
            "my-cluster-003: 10.0.1.1:6379 is also claimed by my-cluster-001; keeping its forward to 10.0.1.3:6379",
        ]
    );
    assert_eq!(world.run(&at(2, 3, 1)).len(), 3, "who only change places do so");
    assert!(world.kept.is_empty(), "{:?}", world.kept);
}

#[test]
fn a_target_that_the_gate_refuses_is_not_forwarded_wherever_it_comes_from() {
    let private = "my-cluster-001 10.0.1.230";
    for (address, why) in [
        ("169.254.169.254", "is an AWS instance service"),
        ("127.0.0.1", "is a loopback address"),
        ("203.0.113.9", "is outside the VPC and not private"),
        ("172.17.0.1", "is the gateway's own address"),
    ] {
        let hostile = inventory(&[private, &format!("my-cluster-002 {address}")], &BOTH);
        let failed = inventory(&[], &["replication_group/my-cluster failed", BOTH[1]]);
        let mut world = World::new();
        world.host.admission.own = vec!["10.0.0.55".parse().unwrap(), "172.17.0.1".parse().unwrap()];
        let refused = |world: &World| {
            let is_named =
                world.kept.iter().any(|line| line.starts_with("my-cluster-002: ") && line.contains(why));
            assert!(is_named, "{address}: {:?}", world.kept);
        };
        assert_eq!(world.run(&hostile).len(), 1, "{address}");
        refused(&world);
        // From the last good inventory, whose source fails.
        assert_eq!(world.run(&failed).len(), 1, "{address}");
        refused(&world);
        // From the kernel, with the state lost.
        let planted = Forward {
            id: "my-cluster-002".parse().unwrap(),
            listen: "10.0.0.55:6380".parse().unwrap(),
            targets: vec![AddrPort { address: address.parse().unwrap(), port: 80.try_into().unwrap() }],
        };
        let frame = rules::Gateway {
            ingress: vec!["eth0".parse().unwrap()],
            families: vec![Family::Ipv4],
            snat: rules::Snat::Masquerade,
            tunnels: vec![],
            max_segment: None,
        };
        world.actual = rules::render(&[AccessList::new(&world.config.clients[0], &[planted])], &frame);
        world.lose_state();
        assert!(world.run(&failed).is_empty(), "{address}");
        refused(&world);
    }
}

#[test]
fn a_public_target_of_a_vpc_stays_while_the_metadata_are_silent() {
    let mut world = World::new();
    world.host.admission.vpc = vec!["203.0.113.0/24".parse().unwrap()];
    let before = world.run(&inventory(&["my-cluster-001 203.0.113.9"], &BOTH));
    assert_eq!(before, ["my-cluster-001 10.0.0.55:6379 203.0.113.9:6379"]);
    world.host.admission.vpc = vec![];
    let failed = inventory(&[], &["replication_group/my-cluster failed", BOTH[1]]);
    assert_eq!(world.run(&failed), before);
    world.host.admission.vpc = vec!["10.0.0.0/16".parse().unwrap()];
    assert!(world.run(&failed).is_empty(), "it is known to be outside");
}

#[test]
fn a_port_that_a_program_listens_on_is_left_out_and_stops_nothing() {
    let mut world = World::new();
    let on = |port: u16| ListenPort { address: None, port: port.try_into().unwrap() };
    world.host.listening.insert(on(6379), "0.0.0.0".parse().unwrap());
    let one = inventory(&["my-cluster-001 10.0.1.230"], &BOTH);
    let before = world.run(&one);
    assert_eq!(before, ["my-cluster-001 10.0.0.55:6380 10.0.1.230:6379"]);
    assert!(world.kept.is_empty(), "{:?}", world.kept);

    world.host.listening.insert(on(6380), "10.0.0.55".parse().unwrap());
    assert_eq!(world.run(&one), before, "who holds it keeps it");
    assert_eq!(
        world.kept,
        ["my-cluster-001: its port 6380 is also listened on by a program of this host, on 10.0.0.55 \
             ('ss -ltnp sport = :6380' names it); clients reach the node there and not the program: move that program"]
    );

    world.host.listening.extend((6381..=6382).map(|port| (on(port), "0.0.0.0".parse().unwrap())));
    let more = inventory(
        &["my-cluster-001 10.0.1.230", "my-cluster-002 10.0.1.231", "sessions-0001 10.0.1.9"],
        &BOTH,
    );
    assert_eq!(world.run(&more), [before[0].as_str(), "sessions-0001 10.0.0.55:6383 10.0.1.9:6379"]);
    let left_out =
        world.kept.iter().find(|line| line.starts_with("no free port for my-cluster-002")).unwrap();
    assert!(left_out.ends_with("widen sources[0].ports; it is not forwarded"), "{left_out}");
}

/// What a source says at one moment: how it answers, and where it believes each of its nodes to be.
#[derive(Clone, Debug)]
struct Said {
    outcome: &'static str,
    /// By node: not named, without an address, or at an address.
    nodes: Vec<Option<Option<u8>>>,
}

fn said() -> impl Strategy<Value = Said> {
    let outcome = prop_oneof![3 => Just("complete"), 1 => Just("partial"), 1 => Just("failed")];
    let node =
        prop_oneof![1 => Just(None), 1 => Just(Some(None)), 6 => (1..6_u8).prop_map(|last| Some(Some(last)))];
    (outcome, proptest::collection::vec(node, 4)).prop_map(|(outcome, nodes)| Said { outcome, nodes })
}

proptest! {
    /// Two caches whose answers are of any age, roles included; runs that are killed before they save, and lost state.
    #[test]
    fn no_history_leads_two_ids_to_one_address(
        history in proptest::collection::vec((said(), said(), 0..8_u8), 1..12),
    ) {
        let mut world = World::new();
        world.config.sources[0].ports = Some(6379..=6399);
        for (of_group, of_sessions, mishap) in history {
            let sources = ["replication_group/my-cluster", "cache_cluster/sessions"];
            let ids = [
                ["my-cluster-001", "my-cluster-002", "my-cluster-003", "my-cluster/primary"],
                ["sessions-0001", "sessions-0002", "sessions-0003", "sessions/primary"],
            ];
            let all = [of_group, of_sessions];
            let nodes: Vec<String> = ids.iter().zip(&all).filter(|(_, said)| said.outcome != "failed")
                .flat_map(|(ids, said)| ids.iter().zip(&said.nodes))
                .filter_map(|(id, node)| {
                    let address = (*node)?.map(|last| format!("10.0.1.{last}")).unwrap_or_default();
                    Some(format!("{id} {address}"))
                })
                .collect();
            let reports: Vec<String> =
                sources.iter().zip(&all).map(|(source, said)| format!("{source} {}", said.outcome)).collect();
            let fresh = inventory(
                &nodes.iter().map(String::as_str).collect::<Vec<_>>(),
                &reports.iter().map(String::as_str).collect::<Vec<_>>(),
            );
            let saved = (world.last_good.clone(), world.leases.clone());
            if mishap == 1 {
                world.lose_state();
            }
            world.run(&fresh);
            if mishap == 2 {
                (world.last_good, world.leases) = saved;
            }
            let forwards = world.actual.forwards();
            for (at, one) in forwards.iter().enumerate() {
                for other in &forwards[at + 1..] {
                    let shared = one.targets.iter().any(|target| other.targets.contains(target));
                    let may = crate::conflicts::may_share_by_name(&one.id, &other.id);
                    prop_assert!(!shared || may, "{} and {} at one address", one.id, other.id);
                }
            }
            for (source, ids) in sources.iter().zip(ids) {
                // Whoever a complete answer places and is not there is named.
                for (id, node) in ids.iter().zip(&all[usize::from(*source == sources[1])].nodes) {
                    let Some(Some(last)) = node else { continue };
                    if all[usize::from(*source == sources[1])].outcome == "failed" { continue }
                    let target = format!("10.0.1.{last}:6379").parse().unwrap();
                    let is_there = forwards.iter().any(|to| to.id.as_str() == *id && to.targets.contains(&target));
                    let is_named = world.kept.iter().any(|line| line.starts_with(&format!("{id}: ")));
                    prop_assert!(is_there || is_named, "{id} is not at {target}, and nothing says so");
                }
            }
        }
    }
}

#[test]
fn targets_beyond_the_limit_are_named() {
    let mut world = World::new();
    let addresses: Vec<String> = (1..=20).map(|host| format!("10.0.1.{host}")).collect();
    let forwards = world.run(&inventory(&[&format!("my-cluster-001 {}", addresses.join(","))], &BOTH));
    assert!(forwards[0].ends_with(" 10.0.1.15:6379, 10.0.1.16:6379"), "{forwards:?}");
    let words =
        "my-cluster-001: 10.0.0.55:6379 has 20 targets and can lead to 16; only the first 16 are used";
    assert_eq!(world.kept, [words]);
    world.run(&inventory(&[&format!("my-cluster-001 {}", addresses[..16].join(","))], &BOTH));
    assert_eq!(world.kept, [""; 0]);
}

//! What holds for all inputs of the pure core.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

use ipnet::IpNet;
use proptest::prelude::*;
use rules::json::DesiredState;
use rules::model::carry_out;
use rules::trace::{Packet, trace};
use rules::{
    AccessList, Actual, AddrPort, Family, Flowtable, Forward, ForwardId, Gateway, IfName, Ruleset, Snat,
    Sysctl, Tunnel, diff, render,
};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 55);

fn endpoint(address: impl Into<IpAddr>, port: u16) -> AddrPort {
    AddrPort { address: address.into(), port: NonZeroU16::new(port).unwrap() }
}

fn id(number: u8) -> ForwardId {
    format!("node-{number:03}").parse().unwrap()
}

/// Listeners on ports 1 to 40, each with 1 to 4 targets.
fn forwards() -> impl Strategy<Value = Vec<Forward>> {
    let target = (1u8..20, 6379u16..6381).prop_map(|(host, port)| endpoint([10, 0, 1, host], port));
    let targets = proptest::collection::btree_set(target, 1..5);
    proptest::collection::btree_map(1u16..40, (0u8..60, targets), 0..12).prop_map(|listeners| {
        let forward = |(port, (number, targets)): (u16, (u8, BTreeSet<AddrPort>))| Forward {
            id: id(number),
            listen: endpoint(GATEWAY, port),
            targets: targets.into_iter().collect(),
        };
        listeners.into_iter().map(forward).collect()
    })
}

fn clients() -> impl Strategy<Value = Vec<IpNet>> {
    let network = (0u8..4, 0u8..255, 24u8..=32)
        .prop_map(|(third, fourth, length)| IpNet::new([198, 51, third, fourth].into(), length).unwrap());
    proptest::collection::vec(network, 0..5)
}

/// One to three lists; no two listeners are the same.
fn lists() -> impl Strategy<Value = Vec<AccessList>> {
    let of =
        (forwards(), proptest::collection::vec(clients(), 1..4), proptest::collection::vec(0usize..3, 12));
    of.prop_map(|(forwards, clients, whose)| {
        let mut lists: Vec<AccessList> =
            clients.into_iter().map(|clients| AccessList { clients, forwards: vec![] }).collect();
        for (forward, list) in forwards.into_iter().zip(whose) {
            let list = list % lists.len();
            lists.get_mut(list).unwrap().forwards.push(forward);
        }
        lists
    })
}

fn interfaces() -> impl Strategy<Value = Vec<IfName>> {
    let names = |names: &[&str]| Just(names.iter().map(|name| name.parse().unwrap()).collect());
    prop_oneof![names(&["eth0"]), names(&["eth0", "eth2"])]
}

fn tunnels() -> impl Strategy<Value = Vec<Tunnel>> {
    proptest::collection::btree_map(prop_oneof![Just("wg0"), Just("wg1")], any::<bool>(), 0..3).prop_map(
        |tunnels| {
            let tunnel = |(name, confine): (&str, bool)| Tunnel { interface: name.parse().unwrap(), confine };
            tunnels.into_iter().map(tunnel).collect()
        },
    )
}

fn snat() -> impl Strategy<Value = Snat> {
    let addresses = |last: &[u8]| last.iter().map(|&last| IpAddr::from([10, 0, 0, last])).collect::<Vec<_>>();
    let fixed = move |interfaces: &[(&str, &[u8])], masquerade_elsewhere| {
        let addresses =
            interfaces.iter().map(|(name, last)| (name.parse().unwrap(), addresses(last))).collect();
        Just(Snat::Fixed { addresses, masquerade_elsewhere })
    };
    prop_oneof![
        Just(Snat::Off),
        Just(Snat::Masquerade),
        fixed(&[("eth0", &[55])], true),
        fixed(&[("eth0", &[55, 56, 57])], false),
        fixed(&[("eth0", &[55]), ("eth1", &[66, 67])], false),
    ]
}

prop_compose! {
    fn rulesets()(
        lists in lists(),
        ingress in interfaces(),
        snat in snat(),
        v6 in any::<bool>(),
        offload in proptest::option::of((prop_oneof![Just("eth0"), Just("eth1")], any::<bool>())),
        drops_others in any::<bool>(),
        tunnels in tunnels(),
        max_segment in proptest::option::of(536u16..1460),
    ) -> Ruleset {
        let families = if v6 { vec![Family::Ipv4, Family::Ipv6] } else { vec![Family::Ipv4] };
        let gateway = Gateway { ingress, families, snat, tunnels, max_segment };
        let mut ruleset = render(&lists, &gateway);
        if let Some((interface, same_device)) = offload {
            ruleset.offload(&interface.parse().unwrap());
            if !same_device {
                ruleset.flowtable = Some(Flowtable { interface: "eth2".parse().unwrap() });
            }
        }
        if drops_others {
            ruleset.drop_others(&"eth0".parse().unwrap());
        }
        ruleset
    }
}

fn actual(ruleset: &Ruleset) -> Actual {
    Actual { ruleset: ruleset.clone(), strangers: vec![] }
}

proptest! {
    #[test]
    fn the_difference_to_itself_is_nothing(ruleset in rulesets()) {
        let changes = diff(Some(&actual(&ruleset)), Some(&ruleset));
        prop_assert!(changes.is_empty());
        prop_assert!(changes.transaction().is_empty());
        prop_assert_eq!(changes.to_string(), "");
    }

    #[test]
    fn carrying_out_the_difference_makes_the_one_the_other(
        before in proptest::option::of(rulesets()),
        after in proptest::option::of(rulesets()),
    ) {
        let changes = diff(before.as_ref().map(actual).as_ref(), after.as_ref());
        let now = carry_out(before.as_ref(), &changes.transaction());
        prop_assert_eq!(now.as_ref().map(Option::as_ref), Ok(after.as_ref()));
    }

    #[test]
    fn strangers_in_the_table_have_it_rebuilt_whole(before in rulesets(), after in rulesets()) {
        let strange = Actual { ruleset: before.clone(), strangers: vec!["chain forward".to_owned()] };
        let changes = diff(Some(&strange), Some(&after));
        prop_assert!(!changes.is_empty());
        prop_assert_eq!(carry_out(Some(&before), &changes.transaction()), Ok(Some(after)));
    }

    #[test]
    fn a_rendered_document_reads_back(ruleset in rulesets()) {
        let wanted = DesiredState { ruleset, sysctls: vec![Sysctl::Ipv4Forward] };
        prop_assert_eq!(&DesiredState::from_json(&wanted.to_json_pieces().collect::<String>()).unwrap(), &wanted);
        prop_assert_eq!(DesiredState::from_json(&wanted.to_json()).unwrap(), wanted);
    }

    #[test]
    fn the_order_of_the_input_does_not_show(lists in lists(), snat in snat(), ingress in interfaces()) {
        let gateway = Gateway { ingress, families: vec![Family::Ipv4], snat, tunnels: vec![], max_segment: None };
        let mut backwards = lists.clone();
        for list in &mut backwards {
            list.clients.reverse();
            list.forwards.reverse();
        }
        prop_assert_eq!(render(&lists, &gateway), render(&backwards, &gateway));
    }

    #[test]
    fn the_lists_read_back(lists in lists(), snat in snat()) {
        let gateway = Gateway { ingress: vec!["eth0".parse().unwrap()], families: vec![Family::Ipv4], snat, tunnels: vec![], max_segment: None };
        let ruleset = render(&lists, &gateway);
        let again: Vec<AccessList> = ruleset.access_lists().into_values().collect();
        prop_assert_eq!(render(&again, &gateway), ruleset);
    }

    #[test]
    fn a_packet_to_a_listener_reaches_its_own_node_and_no_other_packet_is_changed(
        lists in lists(),
        from in (0u8..4, 0u8..255),
        to in prop_oneof![Just(GATEWAY), Just(Ipv4Addr::new(203, 0, 113, 9)), Just(Ipv4Addr::new(10, 0, 1, 3))],
        port in 1u16..45,
        tcp in prop::bool::weighted(0.9),
        ingress in interfaces(),
        input in prop_oneof![8 => Just("eth0"), 1 => Just("eth1"), 1 => Just("eth2")],
        output in prop_oneof![Just("eth0"), Just("eth1")],
        hits in 0u32..1 << 17,
        offload: bool,
    ) {
        let snat = Snat::Fixed {
            addresses: [("eth0".parse().unwrap(), vec![GATEWAY.into()])].into(),
            masquerade_elsewhere: true,
        };
        let gateway = Gateway { ingress, families: vec![Family::Ipv4], snat, tunnels: vec![], max_segment: None };
        let source = IpAddr::from([198, 51, from.0, from.1]);
        let packet = Packet {
            input: input.parse().unwrap(),
            output: output.parse().unwrap(),
            tcp,
            source,
            destination: endpoint(to, port),
        };
        let mut ruleset = render(&lists, &gateway);
        if offload {
            ruleset.offload(&"eth0".parse().unwrap());
        }
        let (new_source, destination) = trace(&ruleset, &packet, |place| hits & 1 << place != 0);

        let comes_in = tcp && gateway.ingress.contains(&packet.input);
        let reaches = |list: &&AccessList| comes_in && list.clients.iter().any(|client| client.contains(&source));
        let mut forwards = lists.iter().filter(reaches).flat_map(|list| &list.forwards);
        match forwards.find(|forward| forward.listen == packet.destination) {
            Some(forward) => {
                prop_assert!(forward.targets.contains(&destination));
                prop_assert_eq!(new_source, (output == "eth0").then_some(GATEWAY.into()));
            }
            None => prop_assert_eq!((new_source, destination), (Some(source), packet.destination)),
        }
    }
}

use super::*;
use crate::trace::{Packet, trace};
use expect_test::expect;

fn forward(id: &str, listen: &str, targets: &[&str]) -> Forward {
    Forward {
        id: id.parse().unwrap(),
        listen: listen.parse().unwrap(),
        targets: targets.iter().map(|target| target.parse().unwrap()).collect(),
    }
}

fn gateway(families: &[Family], snat: Snat) -> Gateway {
    Gateway {
        ingress: vec!["eth0".parse().unwrap()],
        families: families.to_vec(),
        snat,
        tunnels: vec![],
        max_segment: None,
    }
}

#[test]
fn the_example_of_the_aws_procedure_renders_as_one_map_lookup() {
    let forwards = [
        forward("my-cluster-001", "10.0.0.55:6379", &["10.0.1.230:6379"]),
        forward("my-cluster-002", "10.0.0.55:6380", &["10.0.1.231:6379"]),
        forward("my-cluster-003", "10.0.0.55:6381", &["10.0.1.232:6379"]),
    ];
    let clients = ["198.51.100.27/32".parse().unwrap()];
    let snat = Snat::fixed("eth0".parse().unwrap(), vec!["10.0.0.55".parse().unwrap()]);
    let ruleset = render(&[AccessList::new(&clients, &forwards)], &gateway(&[Family::Ipv4], snat));
    expect![[r#"
        add table inet cachenat
        delete table inet cachenat
        table inet cachenat {
        	comment "managed by cachenat; manual changes will be reverted"

        	set clients4 {
        		type ipv4_addr
        		flags interval
        		elements = { 198.51.100.27 }
        	}

        	map forward4 {
        		type ipv4_addr . inet_service : ipv4_addr . inet_service
        		counter
        		elements = { 10.0.0.55 . 6379 comment "my-cluster-001" : 10.0.1.230 . 6379,
        			     10.0.0.55 . 6380 comment "my-cluster-002" : 10.0.1.231 . 6379,
        			     10.0.0.55 . 6381 comment "my-cluster-003" : 10.0.1.232 . 6379 }
        	}

        	set backends4 {
        		type ipv4_addr . inet_service
        		elements = { 10.0.1.230 . 6379,
        			     10.0.1.231 . 6379,
        			     10.0.1.232 . 6379 }
        	}

        	set listeners4 {
        		type ipv4_addr . inet_service
        		elements = { 10.0.0.55 . 6379,
        			     10.0.0.55 . 6380,
        			     10.0.0.55 . 6381 }
        	}

        	chain prerouting {
        		type nat hook prerouting priority dstnat; policy accept;
        		iifname "eth0" ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4
        	}

        	chain input {
        		type filter hook input priority filter; policy accept;
        		ct state invalid ip saddr . tcp sport @backends4 drop
        		ct state invalid ip daddr . tcp dport @listeners4 drop
        	}

        	chain postrouting {
        		type nat hook postrouting priority srcnat; policy accept;
        		oifname "eth0" ct status dnat ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4 snat ip to 10.0.0.55
        	}
        }
    "#]]
    .assert_eq(&ruleset.script());
}

#[test]
fn a_reader_and_ipv6_add_a_spread_map_and_the_ip6_twins() {
    let forwards = [
        forward("c/reader", "10.0.0.55:6390", &["10.0.1.231:6379", "10.0.1.232:6379"]),
        forward("d-001", "[fd00::55]:6391", &["[fd00:1::9]:6379"]),
    ];
    let clients = ["10.9.0.0/25".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    let ruleset = render(
        &[AccessList::new(&clients, &forwards)],
        &gateway(&[Family::Ipv4, Family::Ipv6], Snat::Masquerade),
    );
    expect![[r#"
        table inet cachenat {
        	comment "managed by cachenat; manual changes will be reverted"

        	set clients4 {
        		type ipv4_addr
        		flags interval
        		elements = { 10.9.0.0/25 }
        	}

        	set clients6 {
        		type ipv6_addr
        		flags interval
        		elements = { 2001:db8::/32 }
        	}

        	map forward4 {
        		type ipv4_addr . inet_service : ipv4_addr . inet_service
        		counter
        		elements = { 10.0.0.55 . 6390 comment "c/reader" : 10.0.1.231 . 6379 }
        	}

        	map forward6 {
        		type ipv6_addr . inet_service : ipv6_addr . inet_service
        		counter
        		elements = { fd00::55 . 6391 comment "d-001" : fd00:1::9 . 6379 }
        	}

        	map spread4_2 {
        		type ipv4_addr . inet_service : ipv4_addr . inet_service
        		counter
        		elements = { 10.0.0.55 . 6390 comment "c/reader" : 10.0.1.232 . 6379 }
        	}

        	set backends4 {
        		type ipv4_addr . inet_service
        		elements = { 10.0.1.231 . 6379,
        			     10.0.1.232 . 6379 }
        	}

        	set backends6 {
        		type ipv6_addr . inet_service
        		elements = { fd00:1::9 . 6379 }
        	}

        	set listeners4 {
        		type ipv4_addr . inet_service
        		elements = { 10.0.0.55 . 6390 }
        	}

        	set listeners6 {
        		type ipv6_addr . inet_service
        		elements = { fd00::55 . 6391 }
        	}

        	chain prerouting {
        		type nat hook prerouting priority dstnat; policy accept;
        		iifname "eth0" numgen random mod 2 0 ip saddr @clients4 dnat ip to ip daddr . tcp dport map @spread4_2
        		iifname "eth0" ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4
        		iifname "eth0" ip6 saddr @clients6 dnat ip6 to ip6 daddr . tcp dport map @forward6
        	}

        	chain input {
        		type filter hook input priority filter; policy accept;
        		ct state invalid ip saddr . tcp sport @backends4 drop
        		ct state invalid ip daddr . tcp dport @listeners4 drop
        		ct state invalid ip6 saddr . tcp sport @backends6 drop
        		ct state invalid ip6 daddr . tcp dport @listeners6 drop
        	}

        	chain postrouting {
        		type nat hook postrouting priority srcnat; policy accept;
        		ct status dnat ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4 masquerade
        		ct status dnat ip6 daddr . tcp dport @backends6 ct original ip6 daddr . ct original proto-dst @listeners6 masquerade
        	}
        }
    "#]]
    .assert_eq(&ruleset.to_string());
}

#[test]
fn several_lists_and_interfaces_have_a_rule_each() {
    let lists = [
        AccessList {
            clients: vec!["198.51.100.27/32".parse().unwrap()],
            forwards: vec![forward("a-001", "10.0.0.55:6379", &["10.0.1.230:6379"])],
        },
        AccessList {
            clients: vec!["198.51.100.28/32".parse().unwrap()],
            forwards: vec![forward("b/reader", "10.0.0.55:6390", &["10.0.3.240:6379", "10.0.3.241:6379"])],
        },
    ];
    let snat = Snat::Fixed {
        addresses: [("eth0".parse().unwrap(), vec!["10.0.0.55".parse().unwrap()])].into(),
        masquerade_elsewhere: true,
    };
    let ingress = ["eth0", "eth2"].map(|name| name.parse().unwrap()).into();
    let ruleset = render(
        &lists,
        &Gateway { ingress, families: vec![Family::Ipv4], snat, tunnels: vec![], max_segment: None },
    );
    expect![[r#"
        table inet cachenat {
        	comment "managed by cachenat; manual changes will be reverted"

        	set clients4 {
        		type ipv4_addr
        		flags interval
        		elements = { 198.51.100.27 }
        	}

        	set clients4_2 {
        		type ipv4_addr
        		flags interval
        		elements = { 198.51.100.28 }
        	}

        	map forward4 {
        		type ipv4_addr . inet_service : ipv4_addr . inet_service
        		counter
        		elements = { 10.0.0.55 . 6379 comment "a-001" : 10.0.1.230 . 6379 }
        	}

        	map forward4_2 {
        		type ipv4_addr . inet_service : ipv4_addr . inet_service
        		counter
        		elements = { 10.0.0.55 . 6390 comment "b/reader" : 10.0.3.240 . 6379 }
        	}

        	map spread4_2_2 {
        		type ipv4_addr . inet_service : ipv4_addr . inet_service
        		counter
        		elements = { 10.0.0.55 . 6390 comment "b/reader" : 10.0.3.241 . 6379 }
        	}

        	set backends4 {
        		type ipv4_addr . inet_service
        		elements = { 10.0.1.230 . 6379,
        			     10.0.3.240 . 6379,
        			     10.0.3.241 . 6379 }
        	}

        	set listeners4 {
        		type ipv4_addr . inet_service
        		elements = { 10.0.0.55 . 6379,
        			     10.0.0.55 . 6390 }
        	}

        	chain prerouting {
        		type nat hook prerouting priority dstnat; policy accept;
        		iifname "eth0" ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4
        		iifname "eth2" ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4
        		iifname "eth0" numgen random mod 2 0 ip saddr @clients4_2 dnat ip to ip daddr . tcp dport map @spread4_2_2
        		iifname "eth2" numgen random mod 2 0 ip saddr @clients4_2 dnat ip to ip daddr . tcp dport map @spread4_2_2
        		iifname "eth0" ip saddr @clients4_2 dnat ip to ip daddr . tcp dport map @forward4_2
        		iifname "eth2" ip saddr @clients4_2 dnat ip to ip daddr . tcp dport map @forward4_2
        	}

        	chain input {
        		type filter hook input priority filter; policy accept;
        		ct state invalid ip saddr . tcp sport @backends4 drop
        		ct state invalid ip daddr . tcp dport @listeners4 drop
        	}

        	chain postrouting {
        		type nat hook postrouting priority srcnat; policy accept;
        		oifname "eth0" ct status dnat ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4 snat ip to 10.0.0.55
        		ct status dnat ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4 masquerade
        	}
        }
    "#]]
    .assert_eq(&ruleset.to_string());
    for set in ruleset.sets.keys() {
        assert_eq!(Set::from_name(&set.name()), Some(*set));
    }
    for name in [
        "forward4_1",
        "forward4_02",
        "forward4_17",
        "forward5",
        "spread4",
        "spread4_1",
        "spread4_2_1",
        "backends4_2",
    ] {
        assert_eq!(Set::from_name(name), None, "{name}");
    }
    let read = ruleset.access_lists();
    assert_eq!(read.into_values().collect::<Vec<_>>(), lists);
}

#[test]
fn offload_adds_a_flowtable_and_a_chain_that_fills_it() {
    let forwards = [
        forward("c-001", "10.0.0.55:6379", &["10.0.1.230:6379"]),
        forward("d-001", "[fd00::55]:6379", &["[fd00:1::9]:6379"]),
    ];
    let mut ruleset =
        render(&[AccessList::new(&[], &forwards)], &gateway(&[Family::Ipv4, Family::Ipv6], Snat::Off));
    let before = ruleset.to_string();
    ruleset.offload(&"eth0".parse().unwrap());
    let after = ruleset.to_string();
    let added = after.lines().filter(|line| !before.lines().any(|old| old == *line));
    let added: String = added.map(|line| format!("{}\n", line.trim())).collect();
    expect![[r#"
        flowtable fastpath {
        hook ingress priority filter
        devices = { "eth0" }
        chain forward {
        type filter hook forward priority filter; policy accept;
        oifname "eth0" ct state established ct status dnat ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4 flow add @fastpath
        oifname "eth0" ct state established ct status dnat ip6 daddr . tcp dport @backends6 ct original ip6 daddr . ct original proto-dst @listeners6 flow add @fastpath
    "#]].assert_eq(&added);
    ruleset.drop_others(&"eth0".parse().unwrap());
    let rule = "iifname \"eth0\" ct state invalid,new,untracked ct status ! dnat drop\n\t}";
    assert!(ruleset.to_string().contains(rule), "{ruleset}");
}

#[test]
fn clients_become_the_fewest_ranges() {
    let clients: Vec<IpNet> = ["10.0.0.0/25", "10.0.0.128/25", "10.0.0.7/32", "10.0.1.0/32", "192.0.2.9/32"]
        .iter()
        .map(|client| client.parse().unwrap())
        .collect();
    let shown: Vec<String> = client_ranges(&clients, Family::Ipv4).keys().map(Key::to_string).collect();
    assert_eq!(shown, ["10.0.0.0-10.0.1.0", "192.0.2.9"]);
    let everyone = ["0.0.0.0/0".parse().unwrap(), "10.0.0.1/32".parse().unwrap()];
    let shown: Vec<String> = client_ranges(&everyone, Family::Ipv4).keys().map(Key::to_string).collect();
    assert_eq!(shown, ["0.0.0.0/0"]);
}

/// Every draw of the rules' numbers is as likely as any other, so the draws that lead to a target are its share.
#[test]
fn each_of_several_targets_gets_the_same_share_of_new_connections() {
    for count in 1..=6_usize {
        let targets: Vec<String> = (1..=count).map(|host| format!("10.0.1.{host}:6379")).collect();
        let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
        // Beside a listener with more, whose maps the others are not in.
        let more: Vec<String> = (1..=7).map(|host| format!("10.0.2.{host}:6379")).collect();
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let forwards = [forward("r", "10.0.0.55:1", &targets), forward("s", "10.0.0.55:2", &more)];
        let clients = ["198.51.100.27/32".parse().unwrap()];
        let ruleset =
            render(&[AccessList::new(&clients, &forwards)], &gateway(&[Family::Ipv4], Snat::Masquerade));
        let packet = Packet {
            input: "eth0".parse().unwrap(),
            output: "eth0".parse().unwrap(),
            tcp: true,
            source: "198.51.100.27".parse().unwrap(),
            destination: "10.0.0.55:1".parse().unwrap(),
        };
        let draws: usize = (2..=count).product();
        let mut shares = BTreeMap::<AddrPort, usize>::new();
        for draw in 0..draws {
            // One number for each place up to the last: the draw in a number system of factorials.
            let hits = |place: u8| {
                let below: usize = (2..usize::from(place)).product();
                (draw / below).is_multiple_of(place.into())
            };
            *shares.entry(trace(&ruleset, &packet, hits).1).or_default() += 1;
        }
        let expected: BTreeMap<AddrPort, usize> =
            targets.iter().map(|target| (target.parse().unwrap(), draws / count)).collect();
        assert_eq!(shares, expected);
    }
}

#[test]
fn of_more_targets_than_there_are_places_the_first_serve() {
    let targets: Vec<String> = (1..=20).map(|host| format!("10.0.1.{host}:6379")).collect();
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    let ruleset = render(
        &[AccessList::new(&[], &[forward("r", "10.0.0.55:1", &targets)])],
        &gateway(&[Family::Ipv4], Snat::Masquerade),
    );
    assert_eq!(ruleset.elements(SetKind::Backends, Family::Ipv4).count(), usize::from(TARGETS));
    assert_eq!(ruleset.forwards()[0].targets.len(), usize::from(TARGETS));
    assert_eq!(ruleset.chains[&Chain::Prerouting].len(), usize::from(TARGETS));
}

#[test]
fn a_forward_that_goes_takes_what_is_its_alone() {
    let forwards = [
        forward("a-001", "10.0.0.55:6379", &["10.0.1.230:6379"]),
        forward("a/reader", "10.0.0.55:6380", &["10.0.1.230:6379", "10.0.1.231:6379"]),
    ];
    let of = |forwards: &[Forward]| {
        render(&[AccessList::new(&[], forwards)], &gateway(&[Family::Ipv4], Snat::Masquerade))
    };
    let mut without = of(&forwards);
    without.retain_forwards(|id| id.as_str() == "a-001");
    let spread = Set::new(SetKind::Spread(ListIndex::FIRST, SpreadIndex::new(2).unwrap()), Family::Ipv4);
    assert_eq!(without.sets.remove(&spread), Some(Elements::new()));
    assert_eq!(without.sets, of(&forwards[..1]).sets);
}

//! `gateway.flowtable`: established flows on the kernel's fast path. Which of the two modules can run is up to the
//! running kernel: `scripts/test` leaves the other out, and `scripts/test-kernel-6.1` runs the first.

use cachenat_tests::lab::Lab;

use crate::common::static_config;

/// Writes a config that spells these nodes out and asks for the fast path, or does not.
fn configure(lab: &Lab, nodes: &[(u8, &str)], flowtable: bool) {
    lab.write_config(&format!("gateway: {{flowtable: {flowtable}}}\n{}", static_config(nodes)));
}

mod on_a_kernel_with_flowtables {
    use std::net::Ipv4Addr;

    use cachenat_tests::lab::Lab;
    use cachenat_tests::lab::redis::Redis;
    use cachenat_tests::lab::server::Elsewhere;
    use cachenat_tests::lab::shell::run;
    use serde_json::Value;

    use super::configure;
    use crate::common::{generation, open, reached};

    /// Two servers, at the ports 6379 and 6380.
    const NODES: [(u8, &str); 2] = [(1, "10.0.1.11"), (2, "10.0.1.12")];
    /// The second one has moved.
    const MOVED: [(u8, &str); 2] = [(1, "10.0.1.11"), (2, "10.0.1.13")];

    fn serve(lab: &Lab, address: &str) -> Elsewhere {
        let address: Ipv4Addr = address.parse().unwrap();
        Elsewhere::start(lab.network.private_host(address), lab.dir(), address)
    }

    /// A lab with [`NODES`] in force.
    fn applied(flowtable: bool) -> (Lab, [Elsewhere; 2]) {
        let lab = Lab::new();
        let servers = NODES.map(|(_, address)| serve(&lab, address));
        configure(&lab, &NODES, flowtable);
        lab.cachenat(&["apply"]).exits(0);
        (lab, servers)
    }

    /// The second node dies silently, another replaces it, and `apply` follows; returns its messages.
    fn replace(lab: &Lab, dead: &Elsewhere, flowtable: bool) -> (Elsewhere, String) {
        let moved = serve(lab, MOVED[1].1);
        dead.host.ip("link set eth0 down");
        configure(lab, &MOVED, flowtable);
        (moved, lab.cachenat(&["apply"]).exits(0).stderr)
    }

    /// Whether each flow to a port of the gateway is offloaded, as conntrack(8) tells; there is at least one.
    fn offloaded(lab: &Lab, port: u16) -> Vec<bool> {
        let mut conntrack = lab.network.nat.command("conntrack");
        let list = run(conntrack.args(["-L", "-p", "tcp", "--orig-port-dst", &port.to_string()]));
        let flows: Vec<&str> = list.lines().filter(|line| !line.contains("TIME_WAIT")).collect();
        assert!(!flows.is_empty(), "no flow to port {port}");
        flows.into_iter().map(|flow| flow.contains("[OFFLOAD]")).collect()
    }

    /// Counts the packets that pass the gateway's forward hook.
    fn watch_forward_hook(lab: &Lab) {
        let chain = "chain forward { type filter hook forward priority 10\ncounter\n}";
        lab.network.nat.nft(&format!("table inet witness {{\n{chain}\n}}\n"));
    }

    fn seen_at_forward_hook(lab: &Lab) -> u64 {
        let list = run(lab.network.nat.command("nft").args(["-j", "list", "table", "inet", "witness"]));
        let list: Value = serde_json::from_str(&list).unwrap();
        let mut rules = list["nftables"].as_array().unwrap().iter().filter_map(|object| object.get("rule"));
        rules.next().unwrap()["expr"][0]["counter"]["packets"].as_u64().unwrap()
    }

    fn ping(connection: &mut Redis, times: usize) {
        for _ in 0..times {
            assert_eq!(connection.call(&["PING"]).unwrap(), "PONG");
        }
    }

    #[test]
    #[ignore = "needs a network namespace, and a kernel with flowtables: scripts/test-kernel-6.1"]
    fn an_offloaded_flow_bypasses_every_chain() {
        let (lab, servers) = applied(true);
        let mut connection = open(&lab, 6380);
        ping(&mut connection, 1);
        assert_eq!(offloaded(&lab, 6380), [true]);
        watch_forward_hook(&lab);
        ping(&mut connection, 100);
        assert_eq!(seen_at_forward_hook(&lab), 0);
        assert_eq!(connection.info("run_id").unwrap(), servers[1].run_id());

        let before = generation(&lab);
        lab.cachenat(&["apply"]).exits(0);
        assert_eq!(generation(&lab), before, "in step means that nothing is sent");

        configure(&lab, &NODES, false);
        lab.cachenat(&["apply"]).exits(0);
        ping(&mut connection, 10);
        assert!(seen_at_forward_hook(&lab) >= 20, "without a flowtable it passes the chains again");
    }

    #[test]
    #[ignore = "needs a network namespace, and a kernel with flowtables: scripts/test-kernel-6.1"]
    fn only_a_replaced_nodes_offloaded_flow_is_closed() {
        let (lab, servers) = applied(true);
        let (mut connection, mut other) = (open(&lab, 6380), open(&lab, 6379));
        ping(&mut connection, 1);
        ping(&mut other, 1);
        let (moved, said) = replace(&lab, &servers[1], true);
        assert!(said.contains("cut 1 connections"), "{said}");
        // The kernel takes the flow out of the flowtable within a second; until then the old node would be asked.
        assert!(connection.call(&["PING"]).is_err(), "the old node is dead");
        assert_eq!(reached(&lab, 6380), moved.run_id());
        ping(&mut other, 2);
        assert_eq!(offloaded(&lab, 6379), [true]);
        lab.cachenat(&["diff"]).exits(0);
    }

    #[test]
    #[ignore = "needs a network namespace, and a kernel with flowtables: scripts/test-kernel-6.1"]
    fn a_flow_in_a_foreign_flowtable_is_closed() {
        let (lab, servers) = applied(false);
        let flowtable = "flowtable f { hook ingress priority filter\ndevices = { eth0 }\n}";
        let chain = "chain forward { type filter hook forward priority 0\nct status dnat flow add @f\n}";
        lab.network.nat.nft(&format!("table inet other {{\n{flowtable}\n{chain}\n}}\n"));
        let mut connection = open(&lab, 6380);
        ping(&mut connection, 1);
        assert_eq!(offloaded(&lab, 6380), [true]);
        let (moved, said) = replace(&lab, &servers[1], false);
        assert!(said.contains("cut 1 connections"), "{said}");
        assert!(connection.call(&["PING"]).is_err(), "the old node is dead");
        assert_eq!(reached(&lab, 6380), moved.run_id());
    }
}

mod on_a_kernel_without_flowtables {
    use std::fs;

    use cachenat_tests::lab::Lab;

    use super::configure;
    use crate::common::{in_force, spelled_out, static_config};

    const NODES: [(u8, &str); 1] = [(1, "10.0.1.11")];

    #[test]
    #[ignore = "needs a network namespace, and a kernel without flowtables: scripts/test"]
    fn an_unsupported_flowtable_is_refused() {
        let lab = spelled_out(&NODES);
        for before in ["without a table", "with one"] {
            configure(&lab, &NODES, true);
            let (table, forwarding) = (in_force(&lab), lab.network.nat.sysctl("net/ipv4/ip_forward"));
            let run = lab.cachenat(&["apply"]).exits(2);
            assert_eq!(run.stdout, "", "{before}");
            let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
            let refusal = format!(
                "error: {}:1: gateway.flowtable: this kernel (Linux {}) has no flowtables; load the modules \
                 nf_flow_table_inet and nft_flow_offload (CONFIG_NF_FLOW_TABLE_INET, CONFIG_NFT_FLOW_OFFLOAD), or \
                 write false\n",
                lab.config().display(),
                release.trim()
            );
            assert!(run.stderr.starts_with(&refusal), "{before}: {}", run.stderr);
            assert!(run.stderr.contains("add flowtable inet cachenat fastpath"), "{before}: {}", run.stderr);
            assert_eq!(in_force(&lab), table, "{before}");
            assert_eq!(lab.network.nat.sysctl("net/ipv4/ip_forward"), forwarding, "{before}");

            configure(&lab, &NODES, false);
            lab.cachenat(&["apply"]).exits(0);
        }
    }

    /// At boot the interface may not exist yet; the kernel's error is the same as without flowtable support.
    #[test]
    #[ignore = "needs a network namespace, and a kernel without flowtables: scripts/test"]
    fn restore_works_without_the_flowtable() {
        let lab = spelled_out(&NODES);
        lab.cachenat(&["apply"]).exits(0);
        let before = in_force(&lab);
        configure(&lab, &NODES, true);
        let wanted = lab.cachenat(&["render", "--format", "json"]).exits(0).stdout;
        assert!(wanted.contains("flowtable"), "{wanted}");
        fs::write(lab.dir().join("state/ruleset.json"), wanted).unwrap();
        lab.network.nat.nft("flush ruleset\n");
        let run = lab.cachenat(&["restore"]).exits(0);
        assert!(run.stderr.contains("gateway.flowtable is left to the next apply"), "{}", run.stderr);
        assert_eq!(in_force(&lab), before);
    }

    #[test]
    #[ignore = "needs a network namespace, and a kernel without flowtables: scripts/test"]
    fn a_flowtable_on_a_missing_interface_is_refused() {
        let lab = Lab::new();
        let gateway = "gateway: {interface: eth9, addresses: [10.0.0.55], flowtable: true}\n";
        lab.write_config(&(gateway.to_owned() + &static_config(&NODES)));
        let run = lab.cachenat(&["apply"]).exits(2);
        let refusal =
            ":1: gateway.interface: this host has no interface eth9 (it has eth0); name one of them";
        assert!(run.stderr.contains(refusal), "{}", run.stderr);
    }
}

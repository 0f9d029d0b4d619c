//! The data for measurements: a number of nodes, one of which may have moved.

use std::net::Ipv4Addr;
use std::num::NonZeroU16;

use rules::{AccessList, AddrPort, Family, Forward, Gateway, Ruleset, Snat, render};
use serde_json::json;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 55);

/// With ports from here on there is room for 60,000 forwards.
pub(crate) const FIRST_PORT: u16 = 1000;

/// `size` nodes; in [`Nodes::moved`] the one in the middle has another address.
#[derive(Clone, Copy)]
pub(crate) struct Nodes {
    pub(crate) size: u16,
    pub(crate) moved: bool,
}

impl Nodes {
    pub(crate) fn new(size: u16) -> Self {
        Self { size, moved: false }
    }

    pub(crate) fn moved(self) -> Self {
        Self { moved: true, ..self }
    }

    /// The address of a node: all different, all private.
    pub(crate) fn address(self, number: u16) -> Ipv4Addr {
        let network = if self.moved && number == self.size / 2 { 0x0a80_0000 } else { 0x0a10_0000 };
        Ipv4Addr::from_bits(network + u32::from(number))
    }

    pub(crate) fn ruleset(self) -> Ruleset {
        let endpoint = |address: Ipv4Addr, port| AddrPort {
            address: address.into(),
            port: NonZeroU16::new(port).unwrap(),
        };
        let forward = |number: u16| Forward {
            id: format!("bench-{number:05}").parse().unwrap(),
            listen: endpoint(GATEWAY, FIRST_PORT + number),
            targets: vec![endpoint(self.address(number), 6379)],
        };
        let forwards: Vec<Forward> = (0..self.size).map(forward).collect();
        let snat = Snat::fixed("eth0".parse().unwrap(), vec![GATEWAY.into()]);
        let gateway = Gateway {
            ingress: vec!["lo".parse().unwrap()],
            families: vec![Family::Ipv4],
            snat,
            tunnels: vec![],
            max_segment: None,
        };
        render(&[AccessList::new(&["198.51.100.27/32".parse().unwrap()], &forwards)], &gateway)
    }

    /// What `cachenat discover --json` prints of them.
    pub(crate) fn inventory(self) -> String {
        let node = |number: u16| {
            let address = self.address(number);
            json!({"id": format!("bench-{number:05}"), "cluster": "bench", "source": "static/bench",
                "shard": null, "role": null, "engine": "redis", "tls": false, "status": "available",
                "host": address, "port": 6379, "addresses": [address], "error": null})
        };
        let nodes: Vec<serde_json::Value> = (0..self.size).map(node).collect();
        let sources = json!([{"source": "static/bench", "outcome": "complete", "error": null}]);
        serde_json::to_string_pretty(&json!({"version": 1, "nodes": nodes, "sources": sources})).unwrap()
    }
}

//! The lab as traffic crosses it: one client, one node that has 50,000 addresses, and any number of gateways side by side,
//! each with an Elastic IP.

use std::net::{Ipv4Addr, SocketAddrV4};

use cachenat_tests::lab::namespace::Namespace;
use cachenat_tests::lab::network::Network;
use cachenat_tests::lab::server::Server;

/// Where packets pass from the client to the node.
pub(crate) struct Gateway {
    pub(crate) host: Namespace,
    /// Its own address, in the public subnet.
    pub(crate) address: Ipv4Addr,
    /// What the client dials.
    pub(crate) public: Ipv4Addr,
}

pub(crate) struct Wires {
    pub(crate) network: Network,
    pub(crate) dir: tempfile::TempDir,
    gateways: u8,
    node: Namespace,
    _server: Server,
}

/// The node's own address.
const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 230);

impl Wires {
    pub(crate) fn new() -> Self {
        let network = Network::new();
        network.client.set_sysctl("net/ipv4/ip_local_port_range", "1024\t65535");
        // What the internet gateway does for one Elastic IP it does for these: between its own two chains.
        network.igw.nft(
            "table ip bench {
                map inward { type ipv4_addr : ipv4_addr; }
                map outward { type ipv4_addr : ipv4_addr; }
                chain in {
                    type filter hook prerouting priority -299; policy accept;
                    iifname internet ip daddr set ip daddr map @inward
                }
                chain out {
                    type filter hook postrouting priority 299; policy accept;
                    oifname internet ip saddr set ip saddr map @outward
                }
            }",
        );
        let node = network.private_host(NODE);
        // Every address of crate::data is this host's (AnyIP), so that 50,000 forwards lead to 50,000 targets.
        node.ip("route add local 10.16.0.0/16 dev lo");
        network.vpc.ip(&format!("route add 10.16.0.0/16 via {NODE}"));
        let dir = tempfile::Builder::new().prefix("cachenat-bench-").tempdir().unwrap();
        let everywhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 6379);
        let server = Server::redis(&node, dir.path(), everywhere, &["--tcp-backlog", "4096"]);
        Self { network, dir, gateways: 0, node, _server: server }
    }

    /// A gateway on which nothing has been set up yet.
    pub(crate) fn gateway(&mut self) -> Gateway {
        self.gateways += 1;
        let number = 100 + self.gateways;
        let address = Ipv4Addr::new(10, 0, 0, number);
        let public = Ipv4Addr::new(203, 0, 113, number);
        let host = self.network.public_host(address);
        // Packets leave by the interface that they came in by, and each would be taken for a detour worth telling of.
        for interface in ["all", "eth0"] {
            host.set_sysctl(&format!("net/ipv4/conf/{interface}/send_redirects"), "0");
        }
        self.translate(public, address);
        Gateway { host, address, public }
    }

    /// Leads what the client sends to the gateway's public address through the gateway to the node itself, and back.
    pub(crate) fn route_through(&self, gateway: &Gateway) {
        let [.., number] = gateway.address.octets();
        let target = Ipv4Addr::new(10, 0, 1, number);
        self.node.ip(&format!("address add {target}/24 dev eth0"));
        self.network.vpc.ip(&format!(
            "route add default via {} table {number}\n\
             rule add iif igw to {target} lookup {number}\n\
             rule add iif private from {target} lookup {number}",
            gateway.address,
        ));
        gateway.host.set_sysctl("net/ipv4/ip_forward", "1");
        self.network.igw.nft(&format!(
            "delete element ip bench inward {{ {public} }}
             delete element ip bench outward {{ {own} }}",
            public = gateway.public,
            own = gateway.address,
        ));
        self.translate(gateway.public, target);
    }

    fn translate(&self, public: Ipv4Addr, private: Ipv4Addr) {
        self.network.igw.nft(&format!(
            "add element ip bench inward {{ {public} : {private} }}
             add element ip bench outward {{ {private} : {public} }}"
        ));
    }
}

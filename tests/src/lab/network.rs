//! The wires: the internet, the internet gateway, the VPC's router and its two subnets.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use super::namespace::Namespace;

/// The client on the allow-list, as in AWS's example.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 27);
/// A client that is not on the allow-list.
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 28);
/// The Elastic IP that clients dial.
pub const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 73);
/// The NAT instance's one address; packets for [`PUBLIC`] arrive with it as destination.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 55);

/// The namespaces between a client and the nodes, wired.
#[derive(Debug)]
pub struct Network {
    /// The allowed client, [`CLIENT`].
    pub client: Namespace,
    /// The other client, [`STRANGER`].
    pub stranger: Namespace,
    /// The internet and the VPC's internet gateway.
    pub igw: Namespace,
    /// The VPC's router, with the bridges `public` and `private`.
    pub vpc: Namespace,
    /// The NAT instance: one interface, `eth0`, as after a boot (`ip_forward` is 0).
    pub nat: Namespace,
    /// The number of the next interface on the bridges; a replaced host's interface may still exist for a moment.
    ports: AtomicU32,
}

impl Network {
    /// Builds the namespaces and wires them.
    pub fn new() -> Self {
        let igw = internet_gateway();
        let vpc = router(&igw);
        let ports = AtomicU32::new(0);
        let (client, stranger, nat) = (Namespace::new(), Namespace::new(), Namespace::new());
        let network = Self { client, stranger, igw, vpc, nat, ports };
        network.wire(&network.igw, "internet", &network.client, CLIENT);
        network.wire(&network.igw, "internet", &network.stranger, STRANGER);
        network.wire(&network.vpc, "public", &network.nat, GATEWAY);
        network.nat.nft(OUTBOUND_NAT);
        network
    }

    /// Gives the NAT instance one more private address, and an Elastic IP that leads to it.
    pub fn add_elastic_ip(&self, private: Ipv4Addr, public: Ipv4Addr) {
        self.nat.ip(&format!("address add {private}/24 dev eth0"));
        self.igw.nft(&format!(
            "add rule ip igw in iifname internet ip daddr {public} ip daddr set {private}
             insert rule ip igw out oifname internet ip saddr {private} ip saddr set {public}"
        ));
    }

    /// Gives the NAT instance one more network interface, on the bridge `public` or `private`, with an address there.
    pub fn attach(&self, interface: &str, bridge: &str, address: Ipv4Addr) {
        let port = format!("port{}", self.ports.fetch_add(1, Ordering::Relaxed));
        self.vpc.ip(&format!(
            "link add {port} type veth peer name {interface} netns {host}\n\
             link set {port} master {bridge} up",
            host = self.nat.path(),
        ));
        self.nat.ip(&format!("address add {address}/24 dev {interface}\nlink set {interface} up"));
        // A VPC has no ARP flux: each network interface answers for its own addresses only.
        self.nat.set_sysctl("net/ipv4/conf/all/arp_ignore", "1");
    }

    /// Has the VPC check sources and destinations of the NAT instance's interfaces, `(interface, own addresses)`, as AWS does
    /// unless told otherwise. The counters of the table `bridge sdc` say how many packets that stopped.
    pub fn check_sources(&self, own: &[(&str, &str)]) {
        let links = self.nat.command("ip").args(["-o", "link"]).output().expect("ip is installed").stdout;
        let links = String::from_utf8_lossy(&links).into_owned();
        let (mut from, mut to) = (String::new(), String::new());
        for (interface, addresses) in own {
            // `7: eth0@if12: ...`: the other end is the port on the bridge.
            let line = links.lines().find(|line| line.contains(&format!(" {interface}@if")));
            let index = line.and_then(|line| line.split("@if").nth(1)?.split(':').next());
            let index = index.expect("the interface is one end of a veth");
            from.push_str(&format!("iif {index} ip saddr != {{ {addresses} }} counter drop\n"));
            to.push_str(&format!("oif {index} ip daddr != {{ {addresses} }} counter drop\n"));
        }
        self.vpc.nft(&format!(
            "table bridge sdc {{
                chain from {{
                    type filter hook prerouting priority filter; policy accept;
                    {from}
                }}
                chain to {{
                    type filter hook postrouting priority filter; policy accept;
                    {to}
                }}
            }}"
        ));
    }

    /// A new host on the internet.
    pub fn internet_host(&self, address: Ipv4Addr) -> Namespace {
        let host = Namespace::new();
        self.wire(&self.igw, "internet", &host, address);
        host
    }

    /// A new host in the VPC's private subnet, 10.0.1.0/24.
    pub fn private_host(&self, address: Ipv4Addr) -> Namespace {
        let host = Namespace::new();
        self.wire(&self.vpc, "private", &host, address);
        host
    }

    /// A new host in the VPC's public subnet, 10.0.0.0/24, where NAT instances are.
    pub fn public_host(&self, address: Ipv4Addr) -> Namespace {
        let host = Namespace::new();
        self.wire(&self.vpc, "public", &host, address);
        host
    }

    /// Gives `host` an `eth0` on a bridge of `router`, whose own address is the subnet's first.
    fn wire(&self, router: &Namespace, bridge: &str, host: &Namespace, address: Ipv4Addr) {
        let port = format!("port{}", self.ports.fetch_add(1, Ordering::Relaxed));
        let [a, b, c, _] = address.octets();
        router.ip(&format!(
            "link add {port} type veth peer name eth0 netns {host}\n\
             link set {port} master {bridge} up",
            host = host.path(),
        ));
        host.ip(&format!(
            "address add {address}/24 dev eth0\n\
             link set eth0 up\n\
             route add default via {a}.{b}.{c}.1",
        ));
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

/// The rules of any NAT instance without cachenat: masquerading for the private subnet, in a foreign table.
const OUTBOUND_NAT: &str = "
table ip nat {
    chain POSTROUTING {
        type nat hook postrouting priority srcnat; policy accept;
        oifname \"eth0\" ip saddr 10.0.1.0/24 ip daddr != 10.0.0.0/16 masquerade
    }
}";

/// AWS's internet gateway swaps the addresses of an Elastic IP one for one, without state, and lets no private
/// address in or out.
fn internet_gateway() -> Namespace {
    let igw = Namespace::new();
    igw.ip("link add internet type bridge\n\
         address add 198.51.100.1/24 dev internet\n\
         link set internet up");
    igw.set_sysctl("net/ipv4/ip_forward", "1");
    igw.nft(&format!(
        "table ip igw {{
            chain in {{
                type filter hook prerouting priority raw; policy accept;
                iifname internet ip daddr 10.0.0.0/8 drop
                iifname internet ip daddr {PUBLIC} ip daddr set {GATEWAY}
            }}
            chain out {{
                type filter hook postrouting priority 300; policy accept;
                oifname internet ip saddr {GATEWAY} ip saddr set {PUBLIC}
                oifname internet ip saddr 10.0.0.0/8 drop
            }}
        }}"
    ));
    igw
}

/// The VPC's router. It routes traffic from the private subnet to the internet through the NAT instance and, like AWS,
/// never reports a dead host.
fn router(igw: &Namespace) -> Namespace {
    let vpc = Namespace::new();
    igw.ip(&format!(
        "link add vpc type veth peer name igw netns {vpc}\n\
         address add 192.0.2.1/30 dev vpc\n\
         link set vpc up\n\
         route add 10.0.0.0/16 via 192.0.2.2",
        vpc = vpc.path(),
    ));
    vpc.ip(&format!(
        "address add 192.0.2.2/30 dev igw\n\
         link set igw up\n\
         route add default via 192.0.2.1\n\
         link add public type bridge\n\
         link add private type bridge\n\
         address add 10.0.0.1/24 dev public\n\
         address add 10.0.1.1/24 dev private\n\
         link set public up\n\
         link set private up\n\
         route add 10.0.0.0/24 dev public table 100\n\
         route add 10.0.1.0/24 dev private table 100\n\
         route add default via {GATEWAY} table 100\n\
         rule add iif private lookup 100",
    ));
    vpc.set_sysctl("net/ipv4/ip_forward", "1");
    // Where br_netfilter is loaded, bridged frames would pass these hooks a second time.
    if Path::new("/proc/sys/net/bridge").exists() {
        vpc.set_sysctl("net/bridge/bridge-nf-call-iptables", "0");
    }
    vpc.nft(
        "table ip vpc {
            chain silence {
                type filter hook output priority filter; policy accept;
                icmp type { destination-unreachable, redirect } drop
            }
        }",
    );
    vpc
}

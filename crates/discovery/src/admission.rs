//! Which addresses may become a target. DNS, the API and files are not trusted with this.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use thiserror::Error;

/// What is known about where targets may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// The VPC's ranges, where they are known (IMDS, config). They matter for ranges that are not private, such as a VPC's IPv6 block.
    pub vpc: Vec<IpNet>,
    /// All addresses of all interfaces of the gateway: services that listen there are not meant for clients, and a
    /// forward to a listener would loop.
    pub own: Vec<IpAddr>,
    /// The gateway's routes, in any order; none where they are not known.
    pub routes: Vec<Route>,
}

/// A route of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads; of several that contain an address the longest prefix counts.
    pub destination: IpNet,
    /// Of several to one destination the lowest counts.
    pub metric: u32,
    /// The interface that packets leave by.
    pub interface: String,
    /// Whether it leads to caches, which a container bridge or a tunnel does not.
    pub leads_to_caches: bool,
}

impl Admission {
    /// The route that packets to the address take, if one is known; of two next hops the one that leads to no caches.
    pub fn route(&self, address: IpAddr) -> Option<&Route> {
        let routes = self.routes.iter().filter(|route| route.destination.contains(&address));
        routes.max_by_key(|route| {
            (route.destination.prefix_len(), Reverse(route.metric), !route.leads_to_caches)
        })
    }
}

/// Why an address may not be a target.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// 0.0.0.0/8, ::.
    #[error("{0} is unspecified")]
    Unspecified(IpAddr),
    /// 127.0.0.0/8, ::1: services of the gateway itself.
    #[error("{0} is a loopback address")]
    Loopback(IpAddr),
    /// The instance metadata service, which hands out the gateway's credentials.
    #[error("{0} is an AWS instance service (metadata, DNS or time)")]
    InstanceService(IpAddr),
    /// 169.254.0.0/16, fe80::/10.
    #[error("{0} is link-local")]
    LinkLocal(IpAddr),
    /// 224.0.0.0/4, ff00::/8.
    #[error("{0} is multicast")]
    Multicast(IpAddr),
    /// 240.0.0.0/4 with 255.255.255.255.
    #[error("{0} is reserved or broadcast")]
    Reserved(IpAddr),
    /// The first four addresses and the last one of a range of the VPC: network, router, resolver, reserved, broadcast.
    #[error("{0} is reserved by AWS: network, router, DNS or broadcast address of the VPC")]
    VpcReserved(IpAddr),
    /// One of [`Admission::own`].
    #[error("{0} is the gateway's own address")]
    Own(IpAddr),
    /// Not [`Route::leads_to_caches`].
    #[error("{0} is reached by {1}, an interface of the gateway that does not lead to caches")]
    Elsewhere(IpAddr, String),
    /// Neither in the VPC nor private.
    #[error("{0} is outside the VPC and not private")]
    Outside(IpAddr),
    /// The same, but instance metadata gives the VPC a range that AWS would not.
    #[error(
        "{address} is outside the VPC and not private; instance metadata says that {range} is the VPC, which is larger \
         than AWS allows (/16, IPv6 /44), and is not believed"
    )]
    Incredible {
        /// The address.
        address: IpAddr,
        /// The range that is not believed.
        range: IpNet,
    },
    /// A node that is asked in band named it.
    #[error(
        "{address} was announced in band and is outside {network}; if it is right, add its range to also_hosts"
    )]
    Announced {
        /// The address.
        address: IpAddr,
        /// Where it should be.
        network: &'static str,
    },
}

/// Whether the address may be a target: inside the VPC's ranges or private, and nothing special.
///
/// Private are RFC 1918, RFC 6598's 100.64.0.0/10 (which VPCs use as secondary range) and RFC 4193's fc00::/7.
///
/// # Errors
///
/// The rule that forbids it.
pub fn admit(address: IpAddr, policy: &Admission) -> Result<(), Refusal> {
    // ::ffff:169.254.169.254 is 169.254.169.254 to the kernel.
    let address = address.to_canonical();
    match address {
        IpAddr::V4(v4) => refuse_special_v4(v4)?,
        IpAddr::V6(v6) => refuse_special_v6(v6)?,
    }
    if policy.own.iter().any(|own| own.to_canonical() == address) {
        return Err(Refusal::Own(address));
    }
    if let Some(route) = policy.route(address).filter(|route| !route.leads_to_caches) {
        return Err(Refusal::Elsewhere(address, route.interface.clone()));
    }
    let private = match address {
        IpAddr::V4(v4) => v4.is_private() || is_shared(v4),
        IpAddr::V6(v6) => v6.is_unique_local(),
    };
    let (vpc, incredible): (Vec<&IpNet>, Vec<&IpNet>) =
        policy.vpc.iter().partition(|range| is_credible(range));
    if vpc.iter().any(|range| is_reserved(address, range)) {
        return Err(Refusal::VpcReserved(address));
    }
    match incredible.into_iter().find(|range| range.contains(&address)) {
        _ if private || vpc.iter().any(|range| range.contains(&address)) => Ok(()),
        Some(&range) => Err(Refusal::Incredible { address, range }),
        None => Err(Refusal::Outside(address)),
    }
}

/// Whether a VPC can have the range: at most a /16, or an IPv6 /44 ("VPC CIDR blocks" of the Amazon VPC user guide).
pub(crate) fn is_credible(range: &IpNet) -> bool {
    match range {
        IpNet::V4(range) => range.prefix_len() >= 16,
        IpNet::V6(range) => range.prefix_len() >= 44,
    }
}

/// Whether AWS keeps the address for itself: the first four and the last one of each subnet ("Subnet CIDR blocks" of the
/// Amazon VPC user guide). Of a VPC's range they belong to its first and its last subnet, if to any; the third is the
/// VPC's resolver ("Amazon DNS server").
fn is_reserved(address: IpAddr, range: &IpNet) -> bool {
    let from_start = match (address, range.network()) {
        (IpAddr::V4(address), IpAddr::V4(start)) => {
            u32::from(address).checked_sub(start.into()).map(u128::from)
        }
        (IpAddr::V6(address), IpAddr::V6(start)) => u128::from(address).checked_sub(start.into()),
        _ => None,
    };
    matches!(from_start, Some(0..=3)) || address == range.broadcast()
}

fn refuse_special_v4(address: Ipv4Addr) -> Result<(), Refusal> {
    let any = IpAddr::V4(address);
    match address.octets() {
        [0, ..] => Err(Refusal::Unspecified(any)),
        [127, ..] => Err(Refusal::Loopback(any)),
        // .254 metadata, .253 DNS, .123 time
        [169, 254, 169, 254 | 253 | 123] => Err(Refusal::InstanceService(any)),
        [169, 254, ..] => Err(Refusal::LinkLocal(any)),
        [224..=239, ..] => Err(Refusal::Multicast(any)),
        [240..=255, ..] => Err(Refusal::Reserved(any)),
        _ => Ok(()),
    }
}

fn refuse_special_v6(address: Ipv6Addr) -> Result<(), Refusal> {
    let any = IpAddr::V6(address);
    match address {
        Ipv6Addr::UNSPECIFIED => Err(Refusal::Unspecified(any)),
        Ipv6Addr::LOCALHOST => Err(Refusal::Loopback(any)),
        _ if address.is_multicast() => Err(Refusal::Multicast(any)),
        _ if address.is_unicast_link_local() => Err(Refusal::LinkLocal(any)),
        // fd00:ec2::254 is the metadata service, ::253 DNS, ::123 time; they lie inside fc00::/7.
        _ if address.segments().starts_with(&[0xfd00, 0x0ec2]) => Err(Refusal::InstanceService(any)),
        _ => Ok(()),
    }
}

/// Why an address that a client's name leads to is no client's on the internet; `vpc` are the VPC's ranges, as far as they are
/// known.
pub(crate) fn refuse_as_client(address: IpAddr, vpc: &[IpNet]) -> Option<String> {
    let address = address.to_canonical();
    let special = match address {
        IpAddr::V4(address) => refuse_special_v4(address),
        IpAddr::V6(address) => refuse_special_v6(address),
    };
    let is_private = match address {
        IpAddr::V4(address) => address.is_private() || is_shared(address),
        IpAddr::V6(address) => address.is_unique_local(),
    };
    match special {
        Err(refusal) => Some(refusal.to_string()),
        Ok(()) if is_private => Some(format!("{address} is private, and no client's on the internet")),
        Ok(()) if vpc.iter().any(|range| range.contains(&address)) => {
            Some(format!("{address} is the VPC's, and no client's on the internet"))
        }
        Ok(()) => None,
    }
}

/// RFC 6598, 100.64.0.0/10.
fn is_shared(address: Ipv4Addr) -> bool {
    matches!(address.octets(), [100, 64..=127, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(address: &str, policy: &Admission) -> Option<String> {
        admit(address.parse().unwrap(), policy).err().map(|refusal| refusal.to_string())
    }

    #[test]
    fn private_addresses_are_admitted_without_knowing_the_vpc() {
        for address in
            ["10.0.1.230", "172.31.0.9", "192.168.1.1", "100.64.0.7", "fd12::1", "::ffff:10.0.1.230"]
        {
            assert_eq!(refusal(address, &Admission::default()), None, "{address}");
        }
    }

    #[test]
    fn forbidden_addresses_are_refused_by_name_even_inside_the_vpc() {
        let everything = Admission {
            vpc: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
            ..Admission::default()
        };
        let cases = [
            ("169.254.169.254", "instance service"),
            ("::ffff:169.254.169.254", "instance service"),
            ("fd00:ec2::254", "instance service"),
            ("169.254.1.1", "link-local"),
            ("fe80::1", "link-local"),
            ("127.0.0.1", "loopback"),
            ("127.9.9.9", "loopback"),
            ("::1", "loopback"),
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("::", "unspecified"),
            ("224.0.0.1", "multicast"),
            ("ff02::1", "multicast"),
            ("255.255.255.255", "reserved"),
            ("240.0.0.1", "reserved"),
        ];
        for (address, word) in cases {
            let refusal = refusal(address, &everything).unwrap_or_else(|| panic!("{address} was admitted"));
            assert!(refusal.contains(word), "{address}: {refusal}");
        }
    }

    #[test]
    fn a_public_address_is_admitted_only_inside_the_vpc() {
        let vpc = Admission {
            vpc: vec!["203.0.113.0/24".parse().unwrap(), "2001:db8::/56".parse().unwrap()],
            ..Admission::default()
        };
        assert_eq!(refusal("203.0.113.9", &vpc), None);
        assert_eq!(refusal("2001:db8::9", &vpc), None);
        assert_eq!(refusal("198.51.100.9", &vpc).unwrap(), "198.51.100.9 is outside the VPC and not private");
        assert_eq!(
            refusal("203.0.113.9", &Admission::default()).unwrap(),
            "203.0.113.9 is outside the VPC and not private"
        );
    }

    #[test]
    fn the_vpcs_resolver_and_reserved_addresses_are_refused() {
        let vpc = ["10.0.0.0/16", "100.64.0.0/20", "2001:db8::/56"].map(|range| range.parse().unwrap());
        let policy = Admission { vpc: vpc.into(), ..Admission::default() };
        for address in [
            "10.0.0.0",
            "10.0.0.1",
            "10.0.0.2",
            "10.0.0.3",
            "10.0.255.255",
            "100.64.0.2",
            "100.64.15.255",
            "2001:db8::2",
            "::ffff:10.0.0.2",
        ] {
            let refusal = refusal(address, &policy).unwrap_or_else(|| panic!("{address} was admitted"));
            assert!(refusal.contains("is reserved by AWS"), "{refusal}");
        }
        for address in ["10.0.0.4", "10.0.255.254", "10.1.0.2", "2001:db8::4", "192.168.0.2"] {
            assert_eq!(refusal(address, &policy), None, "{address}");
        }
    }

    #[test]
    fn a_range_too_large_for_a_vpc_is_not_believed() {
        for range in ["0.0.0.0/0", "203.0.0.0/15", "203.0.0.0/8"] {
            let policy = Admission { vpc: vec![range.parse().unwrap()], ..Admission::default() };
            let expected = format!(
                "203.0.113.9 is outside the VPC and not private; instance metadata says that {range} is the VPC, which is \
                 larger than AWS allows (/16, IPv6 /44), and is not believed"
            );
            assert_eq!(refusal("203.0.113.9", &policy), Some(expected));
            assert_eq!(refusal("10.0.0.2", &policy), None, "its resolver is no one's");
        }
        let v6 = |range: &str| Admission { vpc: vec![range.parse().unwrap()], ..Admission::default() };
        assert!(refusal("2001:db8::9", &v6("::/0")).is_some());
        assert!(refusal("2001:db8::9", &v6("2001:db8::/43")).is_some());
        assert_eq!(refusal("2001:db8::9", &v6("2001:db8::/44")), None);
    }

    #[test]
    fn the_gateway_is_no_target_of_itself() {
        let policy = Admission { own: vec!["10.0.0.55".parse().unwrap()], ..Admission::default() };
        assert_eq!(refusal("10.0.0.55", &policy).unwrap(), "10.0.0.55 is the gateway's own address");
        assert_eq!(refusal("::ffff:10.0.0.55", &policy).unwrap(), "10.0.0.55 is the gateway's own address");
    }

    #[test]
    fn a_neighbour_behind_a_container_bridge_is_refused() {
        let route = |destination: &str, metric, interface: &str| Route {
            destination: destination.parse().unwrap(),
            metric,
            interface: interface.to_owned(),
            leads_to_caches: interface.starts_with("eth"),
        };
        let routes = vec![
            route("0.0.0.0/0", 100, "eth0"),
            route("0.0.0.0/0", 600, "tun0"),
            route("172.16.0.0/12", 0, "eth1"),
            route("172.17.0.0/16", 0, "docker0"),
            // Two next hops: a packet may leave by either.
            route("10.9.0.0/16", 0, "eth0"),
            route("10.9.0.0/16", 0, "wg0"),
        ];
        let policy = Admission { routes, ..Admission::default() };
        assert_eq!(refusal("172.18.0.2", &policy), None);
        assert_eq!(refusal("10.0.1.230", &policy), None);
        let words =
            "172.17.0.2 is reached by docker0, an interface of the gateway that does not lead to caches";
        assert_eq!(refusal("172.17.0.2", &policy).unwrap(), words);
        assert!(refusal("10.9.0.1", &policy).unwrap().contains("wg0"));
    }
}

//! What a node that is asked in band is believed about others: it may be lying, or be another than it was.

use std::{net::IpAddr, num::NonZeroU16, ops::RangeInclusive};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::admission::{Admission, Refusal, is_credible};

/// Where announced nodes may be besides the seed's own port and the VPC's ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Also {
    /// Ports, first and last included.
    pub ports: Vec<RangeInclusive<NonZeroU16>>,
    /// Ranges of addresses. They have to be private or the VPC's all the same.
    pub hosts: Vec<IpNet>,
}

impl Also {
    /// Whether a node may listen on the port.
    pub(crate) fn admits_port(&self, port: NonZeroU16, seed: NonZeroU16) -> bool {
        port == seed || self.ports.iter().any(|ports| ports.contains(&port))
    }
}

/// Where the nodes of one in-band source may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The host that is asked; the configuration spells it out.
    pub seed: String,
    /// Ranges of addresses besides the VPC's.
    pub hosts: Vec<IpNet>,
}

impl Scope {
    /// Whether an address that was announced may be a target: in the VPC or in [`Scope::hosts`]. Where no range of the VPC
    /// is known, the seed's private network is used instead.
    ///
    /// Comes after [`admit`](crate::admit), which refuses what may be a target for no source.
    ///
    /// # Errors
    ///
    /// [`Refusal::Announced`].
    pub(crate) fn admit(&self, address: IpAddr, seed: &[IpAddr], policy: &Admission) -> Result<(), Refusal> {
        let mut vpc = policy
            .vpc
            .iter()
            .filter(|range| is_credible(range) && range.network().is_ipv4() == address.is_ipv4())
            .peekable();
        let (is_inside, network) = match vpc.peek() {
            Some(_) => (vpc.any(|range| range.contains(&address)), "the VPC"),
            None => (seed.iter().any(|seed| is_near(*seed, address)), "the seed's private network"),
        };
        match is_inside || self.hosts.iter().any(|range| range.contains(&address)) {
            true => Ok(()),
            false => Err(Refusal::Announced { address, network }),
        }
    }
}

/// Whether the private network that the seed is in has the address as well.
fn is_near(seed: IpAddr, address: IpAddr) -> bool {
    const BLOCKS: [(u8, u8, u8); 4] = [(10, 0, 8), (172, 16, 12), (192, 168, 16), (100, 64, 10)];
    match seed {
        // The local end of a tunnel: what is behind it can't be known.
        _ if seed.is_loopback() => true,
        IpAddr::V4(_) => BLOCKS.iter().any(|&(first, second, length)| {
            let block = Ipv4Net::new_assert([first, second, 0, 0].into(), length);
            IpNet::V4(block).contains(&seed) && IpNet::V4(block).contains(&address)
        }),
        // A site's unique local addresses share 48 bits (RFC 4193).
        IpAddr::V6(seed) => IpNet::V6(Ipv6Net::new_assert(seed, 48)).contains(&address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(address: &str, hosts: &[&str], seed: &str, vpc: &[&str]) -> bool {
        let ranges = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let policy = Admission { vpc: ranges(vpc), ..Admission::default() };
        let scope = Scope { seed: seed.to_owned(), hosts: ranges(hosts) };
        scope.admit(address.parse().unwrap(), &[seed.parse().unwrap()], &policy).is_ok()
    }

    #[test]
    fn announced_hosts_are_in_the_vpc_or_named() {
        let vpc = ["10.0.0.0/16", "fd12::/56"];
        assert!(admitted("10.0.1.231", &[], "10.0.1.230", &vpc));
        assert!(admitted("fd12::9", &[], "10.0.1.230", &vpc));
        for outside in ["172.17.0.1", "10.1.0.1", "fd13::1"] {
            assert!(!admitted(outside, &[], "10.0.1.230", &vpc), "{outside}");
        }
        assert!(admitted("10.1.0.1", &["10.1.0.0/16"], "10.0.1.230", &vpc));
        // A range that is no VPC's is ignored, so the seed's network counts.
        assert!(!admitted("172.17.0.1", &[], "10.0.1.230", &["0.0.0.0/0"]));
    }

    #[test]
    fn without_a_vpc_the_seeds_network_counts() {
        for (seed, near, far) in [
            ("10.0.1.230", "10.9.0.1", "172.17.0.1"),
            ("172.16.0.9", "172.31.0.1", "10.0.0.1"),
            ("192.168.1.9", "192.168.9.1", "172.17.0.1"),
            ("100.64.0.9", "100.127.0.1", "10.0.0.1"),
            ("fd12::9", "fd12::1", "fd13::1"),
        ] {
            assert!(admitted(near, &[], seed, &[]), "{seed} {near}");
            assert!(!admitted(far, &[], seed, &[]), "{seed} {far}");
        }
        assert!(admitted("172.17.0.1", &[], "127.0.0.1", &[]), "a tunnel's end says nothing");
    }

    #[test]
    fn only_the_seeds_port_or_a_named_one_is_admitted() {
        let port = |port: u16| NonZeroU16::new(port).unwrap();
        let also = Also { ports: vec![port(7000)..=port(7005)], hosts: vec![] };
        let admitted = [6379, 6380, 7000, 7005, 7006].map(|p| also.admits_port(port(p), port(6379)));
        assert_eq!(admitted, [true, false, true, true, false]);
    }
}

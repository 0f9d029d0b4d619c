//! The gateway's addresses, and which of them a node's listener is on.

use std::net::IpAddr;
use std::ops::Deref;

use rules::{AddrPort, Family};

use crate::leases::ListenPort;

/// The gateway's private addresses: one of a family, with a port for each node; or several, with an address for each.
///
/// With several IPv4 and several IPv6 addresses there are as many of both, and the first goes with the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses(Vec<IpAddr>);

impl Addresses {
    /// These, in this order.
    pub fn new(addresses: Vec<IpAddr>) -> Self {
        Self(addresses)
    }

    /// Whether a family has several, so that each node has one of its own.
    pub fn are_several(&self) -> bool {
        self.leased().nth(1).is_some()
    }

    /// Those that leases name where there are several: the IPv4 ones, or the IPv6 ones if there is no other.
    pub fn leased(&self) -> impl Iterator<Item = IpAddr> {
        let family = if self.iter().any(IpAddr::is_ipv4) { Family::Ipv4 } else { Family::Ipv6 };
        self.of(family)
    }

    fn of(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        self.iter().copied().filter(move |&address| Family::of(address) == family)
    }

    /// Where a leased listener is in a family.
    pub fn endpoint(&self, listener: ListenPort, family: Family) -> Option<AddrPort> {
        let place = match listener.address {
            Some(leased) => self.leased().position(|address| address == leased)?,
            None => 0,
        };
        Some(AddrPort { address: self.of(family).nth(place)?, port: listener.port })
    }

    /// The listener as it is leased; the opposite of [`Addresses::endpoint`].
    pub fn listener(&self, AddrPort { address, port }: AddrPort) -> ListenPort {
        let place = self.of(Family::of(address)).position(|own| own == address);
        let leased = place.and_then(|place| self.leased().nth(place));
        // One that is no longer the gateway's is still not free to be given to another.
        ListenPort { address: self.are_several().then(|| leased.unwrap_or(address)), port }
    }
}

impl Deref for Addresses {
    type Target = [IpAddr];

    fn deref(&self) -> &[IpAddr] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Addresses {
        Addresses::new(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    /// Where a listener is in IPv4 and in IPv6; each has to be leased as that listener.
    fn endpoints(addresses: &Addresses, listener: &str) -> [Option<String>; 2] {
        let listener = listener.parse().unwrap();
        [Family::Ipv4, Family::Ipv6].map(|family| {
            let endpoint = addresses.endpoint(listener, family)?;
            assert_eq!(addresses.listener(endpoint), listener);
            Some(endpoint.to_string())
        })
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_only_address_of_a_family_has_every_port() {
        let both = addresses(&["fd00::55", "10.0.0.55"]);
        assert!(!both.are_several());
        assert_eq!(endpoints(&both, "6380"), [some("10.0.0.55:6380"), some("[fd00::55]:6380")]);
        assert_eq!(endpoints(&addresses(&["10.0.0.55"]), "6380"), [some("10.0.0.55:6380"), None]);
    }

    #[test]
    fn of_several_addresses_the_first_ipv4_goes_with_the_first_ipv6() {
        let both = addresses(&["fd00::55", "fd00::56", "10.0.0.55", "10.0.0.56"]);
        assert!(both.are_several());
        assert_eq!(endpoints(&both, "10.0.0.56:6379"), [some("10.0.0.56:6379"), some("[fd00::56]:6379")]);
        let v6 = addresses(&["fd00::55", "fd00::56"]);
        assert_eq!(endpoints(&v6, "[fd00::56]:6379"), [None, some("[fd00::56]:6379")]);
    }

    #[test]
    fn an_address_that_the_gateway_no_longer_has_is_none_of_its_own() {
        let before: AddrPort = "10.0.0.57:6379".parse().unwrap();
        let several = addresses(&["10.0.0.55", "10.0.0.56"]);
        assert_eq!(several.listener(before).to_string(), "10.0.0.57:6379");
        assert_eq!(several.endpoint(several.listener(before), Family::Ipv4), None);
        // A gateway that was replaced by one with another address goes on with its ports.
        assert_eq!(addresses(&["10.0.0.99"]).listener(before).to_string(), "6379");
    }
}

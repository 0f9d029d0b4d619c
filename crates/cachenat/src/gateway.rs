//! The gateway: what the configuration leaves to `auto` is read off this host.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use applier::host::{self, HostError, InterfaceAddress};
use rules::{Family, ForwardId, IfName, Leases, Listener};

use crate::addresses::Addresses;
use crate::config::{Auto, Config, ConfigError, SSH, Snat};

/// The gateway with its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gateway {
    pub(crate) interface: IfName,
    pub(crate) addresses: Addresses,
    pub(crate) snat: rules::Snat,
}

/// Why it is not clear what the gateway is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GatewayError {
    #[error("gateway.interface is auto, but this host has no default route; name the interface in {file}")]
    NoInterface { file: String },
    #[error(
        "gateway.addresses is auto, but {interface} has no address; name the gateway's address in {file}"
    )]
    NoAddress { interface: IfName, file: String },
    #[error(
        "{id} keeps its port on {listener}, where this host itself is reached: {who} listens there; move that service, \
         or give the source ports of its own"
    )]
    OwnPort { id: ForwardId, listener: Listener, who: String },
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Listening(#[from] ConfigError),
}

impl Gateway {
    /// Reads what is `auto` off this host: the default route's interface and its primary addresses.
    pub(crate) fn resolve(config: &Config) -> Result<Self, GatewayError> {
        let file = || config.file.display().to_string();
        let interface = match &config.gateway.interface {
            Auto::Set(interface) => interface.clone(),
            Auto::Auto => match host::default_interface(Family::Ipv4)? {
                Some(interface) => interface,
                None => host::default_interface(Family::Ipv6)?
                    .ok_or_else(|| GatewayError::NoInterface { file: file() })?,
            },
        };
        let addresses = match &config.gateway.addresses {
            Auto::Set(addresses) => addresses.clone(),
            Auto::Auto => Addresses::new(primary_addresses(&host::addresses()?, &interface)),
        };
        if addresses.is_empty() {
            return Err(GatewayError::NoAddress { interface, file: file() });
        }
        let snat = match config.gateway.snat {
            Snat::Auto => rules::Snat::Addresses(addresses.to_vec()),
            Snat::Address(address) => rules::Snat::Addresses(vec![address]),
            Snat::Masquerade => rules::Snat::Masquerade,
            Snat::Off => rules::Snat::Off,
        };
        Ok(Self { interface, addresses, snat })
    }

    /// Checks that nothing on this host listens where clients are to be forwarded from.
    ///
    /// A forward would take the service's port away from everybody on the client list.
    pub(crate) fn check_listening(&self, config: &Config) -> Result<(), GatewayError> {
        let mut listening: BTreeMap<NonZeroU16, String> = BTreeMap::new();
        for listener in host::listeners()? {
            let Some(port) = NonZeroU16::new(listener.port) else { continue };
            if config.uses(port)
                && self.addresses.iter().any(|&address| listener.takes(address, listener.port))
            {
                listening.entry(port).or_insert_with(|| who(&listener));
            }
        }
        Ok(config.check_listening(&listening)?)
    }

    /// The same for nodes that keep their own port on one of several addresses, which only discovery tells.
    pub(crate) fn check_own_ports(&self, leases: &Leases) -> Result<(), GatewayError> {
        if !self.addresses.are_several() {
            return Ok(());
        }
        let listening = host::listeners()?;
        for (id, listener) in leases.holders() {
            let families = [Family::Ipv4, Family::Ipv6];
            let own = families.into_iter().filter_map(|family| self.addresses.endpoint(listener, family));
            let takes =
                |other: &&host::Listener| own.clone().any(|own| other.takes(own.address, own.port.get()));
            if let Some(other) = listening.iter().find(takes) {
                return Err(GatewayError::OwnPort { id: id.clone(), listener, who: who(other) });
            } else if listener.port == SSH {
                let who = "SSH, the way into this host,".to_owned();
                return Err(GatewayError::OwnPort { id: id.clone(), listener, who });
            }
        }
        Ok(())
    }

    /// The addresses that no interface of this host has; packets to them don't come this way unless routed here.
    pub(crate) fn absent_addresses(&self) -> Result<Vec<IpAddr>, GatewayError> {
        let local = host::addresses()?;
        let here = |address: &IpAddr| local.iter().any(|other| other.address == *address);
        Ok(self.addresses.iter().filter(|address| !here(address)).copied().collect())
    }
}

/// `redis-server (pid 7) on 0.0.0.0`
fn who(listener: &host::Listener) -> String {
    let process = listener.process().map(|process| format!("{} (pid {})", process.name, process.pid));
    format!("{} on {}", process.unwrap_or_else(|| "a process".to_owned()), listener.address)
}

fn primary_addresses(local: &[InterfaceAddress], interface: &IfName) -> Vec<IpAddr> {
    let primary = |family| host::primary_address(local, interface, family);
    [Family::Ipv4, Family::Ipv6].into_iter().filter_map(primary).collect()
}

//! The gateway and its host as values.

use std::collections::BTreeMap;
use std::net::IpAddr;

use discovery::Admission;
use rules::{IfName, Tunnel};

use crate::addresses::Addresses;
use crate::leases::ListenPort;

/// The gateway with its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// The interface of its addresses.
    pub interface: IfName,
    /// The interfaces that clients come in by.
    pub ingress: Vec<IfName>,
    /// Its private addresses.
    pub addresses: Addresses,
    /// What the nodes see as the source.
    pub snat: rules::Snat,
    /// Interfaces by which clients also reach the nodes' own addresses.
    pub tunnels: Vec<Tunnel>,
    /// The most bytes of a TCP segment of what is forwarded; `None`: the ends agree on it.
    pub max_segment: Option<u16>,
}

/// What of a host a plan goes by, asked for each plan.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Which addresses may be targets.
    pub admission: Admission,
    /// Where programs listen on the gateway's addresses, and the address that they named (`0.0.0.0` for all).
    pub listening: BTreeMap<ListenPort, IpAddr>,
}

impl Gateway {
    /// The interface that packets to an address leave by, as far as the routes tell; else the gateway's own.
    pub fn output(&self, routes: &Admission, address: IpAddr) -> IfName {
        let route = routes.route(address).and_then(|route| route.interface.parse().ok());
        route.unwrap_or_else(|| self.interface.clone())
    }

    /// What of another host than the gateway a plan goes by: nothing but the gateway's addresses.
    ///
    /// `vpc` are the VPC's ranges, as far as they are known.
    pub fn elsewhere(&self, vpc: Vec<ipnet::IpNet>) -> Host {
        let admission = Admission { vpc, own: self.addresses.to_vec(), routes: vec![] };
        Host { admission, listening: BTreeMap::new() }
    }
}

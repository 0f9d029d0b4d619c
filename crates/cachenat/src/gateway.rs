//! The gateway: what the configuration leaves to `auto` is read off this host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

use applier::host::{self, HostError, InterfaceAddress};
use applier::host_facts::source_towards;
use discovery::{Admission, InstanceFacts, Refusal, Route, admit};
use ipnet::IpNet;
use plan::{Addresses, Gateway, Host, ListenPort, SSH};
use rules::{Family, IfName, Ruleset, Tunnel};

use crate::config::{Auto, Config, ConfigError, SnatConfig};

/// Why it is not clear what the gateway is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GatewayError {
    #[error("gateway.interface is auto, but this host has no default route; name the interface in {file}")]
    NoInterface { file: String },
    #[error(
        "gateway.addresses is auto, but {interface} has no address; name the gateway's address in {file}"
    )]
    NoAddress { interface: IfName, file: String },
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Listening(#[from] ConfigError),
}

impl GatewayError {
    /// Whether it may be only that this host has just booted: DHCP takes its time.
    pub(crate) fn may_come(&self) -> bool {
        matches!(self, Self::NoInterface { .. } | Self::NoAddress { .. })
    }
}

/// Reads what is `auto` off this host: the default route's interface, and the address that it sends from.
///
/// `instance` is asked where an interface has several addresses of a family: the instance metadata tell which is the
/// primary one.
pub(crate) fn resolve(
    config: &Config,
    instance: impl FnOnce() -> Option<InstanceFacts>,
) -> Result<Gateway, GatewayError> {
    let file = || config.file.display().to_string();
    let no_interface = || GatewayError::NoInterface { file: file() };
    let ingress = match &config.gateway.interface {
        Auto::Set(names) => names.iter().map(real_name).collect::<Result<Vec<_>, _>>()?,
        Auto::Auto => match host::default_interface(Family::Ipv4)? {
            Some(interface) => vec![interface],
            None => vec![host::default_interface(Family::Ipv6)?.ok_or_else(no_interface)?],
        },
    };
    let interface = ingress.first().cloned().ok_or_else(no_interface)?;
    let addresses = match &config.gateway.addresses {
        Auto::Set(addresses) => addresses.clone(),
        Auto::Auto => Addresses::new(read_off(&host::addresses()?, &interface, instance)),
    };
    if addresses.is_empty() {
        check_interfaces(config, &ingress, "interface")?;
        return Err(GatewayError::NoAddress { interface, file: file() });
    }
    Ok(gateway_of(config, interface, ingress, addresses))
}

/// The gateway on the addresses that the rules in force are on, where `auto` reads another one off the interface
/// although it still has those; each such family is named.
///
/// The kernel's order of addresses changes with a reboot or a second address, and clients would be cut off for it.
pub(crate) fn as_in_force(
    gateway: &Gateway,
    config: &Config,
    in_force: &Ruleset,
) -> Result<(Gateway, Vec<String>), GatewayError> {
    let mut gateway = gateway.clone();
    let Auto::Auto = config.gateway.addresses else { return Ok((gateway, vec![])) };
    let listen: BTreeSet<IpAddr> =
        in_force.forwards().into_iter().map(|forward| forward.listen.address).collect();
    if listen.iter().all(|address| gateway.addresses.contains(address)) {
        return Ok((gateway, vec![]));
    }
    let local = host::addresses()?;
    let still_has = |address: &&IpAddr| {
        local.iter().any(|here| here.address == **address && here.interface == gateway.interface.as_str())
    };
    let mut kept = Vec::new();
    let addresses = gateway.addresses.iter().map(|&read| {
        let mut of_family = listen.iter().filter(|listen| listen.is_ipv4() == read.is_ipv4());
        match of_family.find(still_has) {
            Some(&stays) if !listen.contains(&read) => {
                kept.push(format!(
                    "gateway.addresses: auto now reads {read} off {}, which still has {stays}: the forwards stay on \
                     {stays}; write the address that is meant into {}",
                    gateway.interface,
                    config.file.display()
                ));
                stays
            }
            _ => read,
        }
    });
    gateway.addresses = Addresses::new(addresses.collect());
    gateway.snat = snat(config, &gateway.interface, &gateway.addresses);
    Ok((gateway, kept))
}

/// Checks what the configuration says of this host: the interface is there, and the way back is an address of it.
///
/// # Errors
///
/// The mistake, with its key and line.
pub(crate) fn check_configured(gateway: &Gateway, config: &Config) -> Result<(), GatewayError> {
    check_interfaces(config, &gateway.ingress, "interface")?;
    let tunnels: Vec<IfName> = gateway.tunnels.iter().map(|tunnel| tunnel.interface.clone()).collect();
    check_interfaces(config, &tunnels, "tunnels")?;
    let local = host::addresses()?;
    match &config.gateway.snat {
        SnatConfig::Addresses(sources) => {
            let is_here = |source: &&IpAddr| local.iter().any(|local| local.address == **source);
            if let Some(source) = sources.iter().find(|source| !is_here(source)) {
                let what =
                    format!("no interface of this host has {source}, so no answer would come back to it");
                return Err(config
                    .gateway_mistake("snat", what, "write auto, or an address of this host")
                    .into());
            }
            check_snat_families(gateway, config, sources)
        }
        SnatConfig::ByInterface(by_interface) => {
            let names: Vec<IfName> = by_interface.keys().cloned().collect();
            check_interfaces(config, &names, "snat")?;
            for (name, sources) in by_interface {
                let has = |source: &&IpAddr| {
                    local.iter().any(|here| here.address == **source && here.interface == name.as_str())
                };
                if let Some(source) = sources.iter().find(|source| !has(source)) {
                    let what = format!("{name} does not have {source}, so no answer would come back to it");
                    return Err(config
                        .gateway_mistake("snat", what, "write an address of that interface")
                        .into());
                }
            }
            let sources: Vec<IpAddr> = by_interface.values().flatten().copied().collect();
            check_snat_families(gateway, config, &sources)
        }
        SnatConfig::Auto | SnatConfig::Masquerade | SnatConfig::Off => Ok(()),
    }
}

/// Checks that there is a way back for each family in which the gateway has an address.
fn check_snat_families(gateway: &Gateway, config: &Config, sources: &[IpAddr]) -> Result<(), GatewayError> {
    let has_source = |address: &&IpAddr| sources.iter().any(|source| source.is_ipv4() == address.is_ipv4());
    let Some(without) = gateway.addresses.iter().find(|address| !has_source(address)) else { return Ok(()) };
    let family = if without.is_ipv4() { "IPv4" } else { "IPv6" };
    let sources = sources.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let what = format!("{sources} is no way back for {family}, in which the gateway also has {without}");
    let remedy = "write auto or masquerade, or leave that family out of gateway.addresses";
    Err(config.gateway_mistake("snat", what, remedy).into())
}

/// The gateway of a ruleset that is put in force again, for what the configuration leaves to `auto`: at boot there may
/// be no address and no route to read off yet.
///
/// An address counts if an interface has it, or if the gateway's interface has none of its family yet.
///
/// # Errors
///
/// If neither the configuration nor the ruleset names an interface, or this host's addresses can't be listed.
pub(crate) fn of_saved(config: &Config, saved: &Ruleset) -> Result<Gateway, GatewayError> {
    let ingress = match &config.gateway.interface {
        Auto::Set(names) => names.clone(),
        Auto::Auto => {
            let is_tunnel =
                |name: &&IfName| config.gateway.tunnels.iter().any(|tunnel| tunnel.interface == **name);
            saved.ingress().into_iter().filter(|name| !is_tunnel(name)).cloned().collect()
        }
    };
    let no_interface = || GatewayError::NoInterface { file: config.file.display().to_string() };
    let interface = ingress.first().cloned().ok_or_else(no_interface)?;
    let addresses = match &config.gateway.addresses {
        Auto::Set(addresses) => addresses.clone(),
        Auto::Auto => {
            let local = host::addresses()?;
            let may_come = |address: &IpAddr| {
                let is_here = local.iter().any(|other| other.address == *address);
                let family = Family::of(*address);
                let is_awaited = host::usable_addresses(&local, &interface, family).next().is_none();
                let of_others = admit(*address, &Admission::default());
                is_here || (is_awaited && matches!(of_others, Ok(()) | Err(Refusal::Outside(_))))
            };
            let listen = saved.forwards().into_iter().map(|forward| forward.listen.address);
            let listen: BTreeSet<IpAddr> = listen.filter(may_come).collect();
            Addresses::new(listen.into_iter().collect())
        }
    };
    Ok(gateway_of(config, interface, ingress, addresses))
}

/// Checks that no pin takes a port that something on this host listens on.
///
/// A forward would take the service's port away from everybody on the client list.
pub(crate) fn check_pins(gateway: &Gateway, config: &Config) -> Result<(), GatewayError> {
    if config.pins.is_empty() {
        return Ok(());
    }
    let mut listening: BTreeMap<NonZeroU16, String> = BTreeMap::new();
    for listener in host::listeners()? {
        let Some(port) = NonZeroU16::new(listener.port) else { continue };
        if config.is_pinned(port)
            && gateway.addresses.iter().any(|&address| listener.accepts(address, listener.port))
        {
            listening.entry(port).or_insert_with(|| who(&listener));
        }
    }
    Ok(config.check_pins(&listening)?)
}

/// What of this host a plan goes by; `vpc` are the VPC's ranges, as far as they are known.
pub(crate) fn host(gateway: &Gateway, vpc: Vec<IpNet>) -> Result<Host, GatewayError> {
    let local = host::addresses()?;
    let own = local.iter().map(|local| local.address).chain(gateway.addresses.iter().copied());
    let own: BTreeSet<IpAddr> = own.collect();
    let routes = host::routes()?.into_iter().map(|route| Route {
        destination: route.destination,
        metric: route.metric,
        leads_to_caches: leads_to_caches(gateway, &route, &local),
        interface: route.interface,
    });
    let admission = Admission { vpc, own: own.into_iter().collect(), routes: routes.collect() };
    Ok(Host { admission, listening: listening(gateway)? })
}

/// Whether caches may be behind a route: it leaves by the gateway's interface, by a network card, or by what is one to a
/// container, a veth with an address of its own.
fn leads_to_caches(gateway: &Gateway, route: &host::Route, local: &[InterfaceAddress]) -> bool {
    let has_address = || {
        let name = route.interface.parse().ok();
        let of_family =
            |family| name.as_ref().and_then(|name| host::usable_addresses(local, name, family).next());
        [Family::Ipv4, Family::Ipv6].into_iter().find_map(of_family).is_some()
    };
    match route.kind.as_deref() {
        _ if route.interface == gateway.interface.as_str() => true,
        None => true,
        Some("veth") => has_address(),
        Some(_) => false,
    }
}

fn listening(gateway: &Gateway) -> Result<BTreeMap<ListenPort, IpAddr>, GatewayError> {
    let mut listening = BTreeMap::new();
    let leased = |address| gateway.addresses.are_several().then_some(address);
    for socket in host::listeners()? {
        let Some(port) = NonZeroU16::new(socket.port) else { continue };
        for address in gateway.addresses.leased().filter(|&address| socket.accepts(address, socket.port)) {
            listening.insert(ListenPort { address: leased(address), port }, socket.address);
        }
    }
    // The way into this host is none of the nodes', also while nothing listens there.
    for address in gateway.addresses.leased() {
        listening.entry(ListenPort { address: leased(address), port: SSH }).or_insert(address);
    }
    Ok(listening)
}

/// The addresses that no interface of this host has; packets to them don't come this way unless routed here.
pub(crate) fn absent_addresses(gateway: &Gateway) -> Result<Vec<IpAddr>, GatewayError> {
    let local = host::addresses()?;
    let here = |address: &IpAddr| local.iter().any(|other| other.address == *address);
    Ok(gateway.addresses.iter().filter(|address| !here(address)).copied().collect())
}

fn gateway_of(config: &Config, interface: IfName, ingress: Vec<IfName>, addresses: Addresses) -> Gateway {
    let snat = snat(config, &interface, &addresses);
    let (tunnels, max_segment) = (config.gateway.tunnels.clone(), config.gateway.max_segment);
    Gateway { interface, ingress, addresses, snat, tunnels, max_segment }
}

fn snat(config: &Config, interface: &IfName, addresses: &Addresses) -> rules::Snat {
    match config.gateway.snat {
        SnatConfig::Auto => {
            let first = |is_ipv4| addresses.iter().find(|address| address.is_ipv4() == is_ipv4).copied();
            let first = [true, false].into_iter().filter_map(first).collect();
            rules::Snat::Fixed { addresses: [(interface.clone(), first)].into(), masquerade_elsewhere: true }
        }
        SnatConfig::Addresses(ref addresses) => rules::Snat::fixed(interface.clone(), addresses.clone()),
        SnatConfig::ByInterface(ref addresses) => {
            rules::Snat::Fixed { addresses: addresses.clone(), masquerade_elsewhere: false }
        }
        SnatConfig::Masquerade => rules::Snat::Masquerade,
        SnatConfig::Off => rules::Snat::Off,
    }
}

/// `redis-server (pid 7) on 0.0.0.0`
fn who(listener: &host::ListeningSocket) -> String {
    let process = listener.process().map(|process| format!("{} (pid {})", process.name, process.pid));
    format!("{} on {}", process.unwrap_or_else(|| "a process".to_owned()), listener.address)
}

/// The name that rules know an interface by, of that or an alternative one (ip-link(8)).
fn real_name(name: &IfName) -> Result<IfName, GatewayError> {
    let links = host::links()?;
    let has_it = |link: &&host::Link| link.alternative_names.iter().any(|other| other == name.as_str());
    let link = links.iter().find(has_it).and_then(|link| link.name.parse().ok());
    Ok(link.unwrap_or_else(|| name.clone()))
}

fn check_interfaces(config: &Config, names: &[IfName], key: &str) -> Result<(), GatewayError> {
    let links = host::links()?;
    let is_there = |name: &&IfName| links.iter().any(|link| link.name == name.as_str());
    let Some(missing) = names.iter().find(|name| !is_there(name)) else { return Ok(()) };
    let others = links.iter().filter(|link| link.name != "lo").map(|link| link.name.as_str());
    let others = others.collect::<Vec<_>>().join(", ");
    let what = format!("this host has no interface {missing} (it has {others})");
    Err(config
        .gateway_mistake(
            key,
            what,
            if key == "tunnels" {
                "bring it up first (wg-quick, networkd), or name one of them"
            } else {
                "name one of them, or write auto"
            },
        )
        .into())
}

/// An address that no host has (RFC 5737), to ask for the way to the internet.
const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// The IPv4 clients to which the way back leads out neither by this interface nor by a tunnel, by which they came then; of each
/// range one stands for all.
pub(crate) fn answered_elsewhere(clients: &[IpNet], interface: &IfName, tunnels: &[Tunnel]) -> Vec<String> {
    let Ok(addresses) = host::addresses() else { return vec![] };
    let interfaces: BTreeMap<IpAddr, String> =
        addresses.into_iter().map(|local| (local.address, local.interface)).collect();
    let leaves_by = |client: &IpNet| {
        let source = source_towards(client.hosts().next()?)?;
        interfaces.get(&source).map(String::as_str)
    };
    let ipv4 = clients.iter().filter(|client| client.addr().is_ipv4());
    let is_answered = |client: &IpNet| {
        let mut names = tunnels.iter().map(|tunnel| &tunnel.interface).chain([interface]);
        leaves_by(client).is_some_and(|output| names.any(|name| name.as_str() == output))
    };
    ipv4.filter(|client| !is_answered(client)).map(ToString::to_string).collect()
}

/// The interface's address of each family.
///
/// Of several, the primary one that the metadata name; else for IPv4 the one that the host itself sends from to the
/// internet, which is the default route's preferred source; else the first.
fn read_off(
    local: &[InterfaceAddress],
    interface: &IfName,
    instance: impl FnOnce() -> Option<InstanceFacts>,
) -> Vec<IpAddr> {
    let usable = |family| host::usable_addresses(local, interface, family).collect::<Vec<_>>();
    let families = [usable(Family::Ipv4), usable(Family::Ipv6)];
    let are_several = families.iter().any(|addresses| addresses.len() > 1);
    let instance = if are_several { instance().unwrap_or_default() } else { InstanceFacts::default() };
    let primary = |addresses: &Vec<IpAddr>| {
        let of_instance = instance.local_ipv4.map(IpAddr::V4).into_iter();
        let named = of_instance.chain(instance.ipv6s.first().copied().map(IpAddr::V6));
        let sends_from = if addresses.len() > 1 { source_towards(FAR) } else { None };
        let mut preferred = named.chain(sends_from);
        preferred.find(|address| addresses.contains(address)).or_else(|| addresses.first().copied())
    };
    families.iter().filter_map(primary).collect()
}

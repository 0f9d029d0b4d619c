//! The gate: what may be in force, whatever it came from.
//!
//! A plan, the state directory's last ruleset, a change that is rolled back and the kernel's own memory all pass here
//! right before they are committed, and nothing is committed but what the gate has made. It is pure:
//! what it has to know of this host is asked before, for each plan.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::ops::Deref;

use discovery::{Admission, Refusal, admit};
use ipnet::IpNet;
use rules::json::DesiredState;
use rules::ruleset::TARGETS;
use rules::{AccessList, AddrPort, Family, Forward, ForwardId, Ruleset, Sysctl, render};
use thiserror::Error;

use crate::config::PlanConfig;
use crate::conflicts::may_share_by_name;
use crate::gateway::Gateway;

/// The way into this host: no lease, pin or forward takes this TCP port.
pub const SSH: NonZeroU16 = NonZeroU16::new(22).expect("22 is not 0");

/// What may be in force. Only [`Gate`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted(DesiredState);

impl Deref for Admitted {
    type Target = DesiredState;

    fn deref(&self) -> &DesiredState {
        &self.0
    }
}

#[cfg(any(test, feature = "test-support"))]
impl From<DesiredState> for Admitted {
    fn from(wanted: DesiredState) -> Self {
        Self(wanted)
    }
}

/// A forward, or a target of it, that may not be in force.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{id}: {why}")]
pub struct Refused {
    /// The node or role that it was for.
    pub id: ForwardId,
    /// Why.
    pub why: Reason,
}

/// Why a forward may not be in force.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Reason {
    /// The target may be nobody's.
    #[error("{0}; it is not forwarded")]
    Target(Refusal),
    /// The listener is on none of the gateway's addresses, which are named.
    #[error("{0} is not an address of the gateway ({1}); it is not forwarded")]
    Address(AddrPort, String),
    /// The listener would take the operator's way in.
    #[error("{0} is the way into this host (SSH); it is not forwarded")]
    Ssh(AddrPort),
    /// The configuration gives no node the listener's port.
    #[error("port {} is in no pool of the configuration (keys ports and pins); it is not forwarded", .0.port)]
    Port(AddrPort),
    /// The listener and the target can't be translated into one another.
    #[error("{0} and {1} are of two address families; it is not forwarded")]
    Family(AddrPort, AddrPort),
    /// Two nodes have one address: the target, and the node that has it already.
    #[error("{0} is also claimed by {1}; it is not forwarded")]
    Twin(AddrPort, ForwardId),
    /// Which list of clients it is for is not known: its source is not in the configuration, or its state was lost.
    #[error(
        "its source is not known, and the sources have different clients; it is not forwarded until its source is read"
    )]
    Clients,
    /// The listener has more targets, so many, than rules can spread connections over.
    #[error("{0} has {1} targets and can lead to {TARGETS}; only the first {TARGETS} are used")]
    Surplus(AddrPort, usize),
}

/// What the gate goes by.
#[derive(Clone, Copy, Debug)]
pub struct Gate<'a> {
    /// Which ports and clients the configuration allows.
    pub config: &'a PlanConfig,
    /// On which addresses listeners may be.
    pub gateway: &'a Gateway,
    /// Which addresses may be targets on this host now.
    pub admission: &'a Admission,
    /// Whether a flowtable may be had, where the configuration wants one.
    pub offloads: bool,
}

impl Gate<'_> {
    /// Renders those of `forwards` that may be in force; the others are named.
    ///
    /// `list_of` tells which of the configuration's lists of clients a forward is for. `stays` tells of a target outside the
    /// private ranges, while the VPC's ranges are not known, whether it is in force already and still where its source
    /// says.
    pub fn admit(
        &self,
        forwards: Vec<Forward>,
        list_of: impl Fn(&ForwardId) -> Option<usize>,
        stays: impl Fn(&ForwardId, AddrPort) -> bool,
    ) -> (Admitted, Vec<Refused>) {
        let (forwards, mut refused) = self.filtered(forwards, stays);
        let lists = self.lists(forwards, list_of, &mut refused);
        (Admitted(self.rendered(&lists)), refused)
    }

    /// The same for what an earlier run left in the state directory: of its clients those that the configuration still
    /// lists, and nothing of its rules but the forwards.
    pub fn admit_saved(
        &self,
        saved: &Ruleset,
        list_of: impl Fn(&ForwardId) -> Option<usize>,
    ) -> (Admitted, Vec<Refused>) {
        let (forwards, mut refused) = self.filtered(saved.forwards(), |_, _| false);
        let mut lists = self.lists(forwards, list_of, &mut refused);
        let before = saved.access_lists();
        for list in &mut lists {
            let listeners: BTreeSet<AddrPort> = list.forwards.iter().map(|forward| forward.listen).collect();
            let had =
                |access: &&AccessList| access.forwards.iter().any(|old| listeners.contains(&old.listen));
            let saved: Vec<IpNet> =
                before.values().filter(had).flat_map(|access| access.clients.iter().copied()).collect();
            list.clients = in_both(&list.clients, &saved);
        }
        (Admitted(self.rendered(&lists)), refused)
    }

    /// The configuration's lists with the forwards of each.
    fn lists(
        &self,
        forwards: Vec<Forward>,
        list_of: impl Fn(&ForwardId) -> Option<usize>,
        refused: &mut Vec<Refused>,
    ) -> Vec<AccessList> {
        let of_clients = |clients: &Vec<IpNet>| AccessList { clients: clients.clone(), forwards: vec![] };
        let mut lists: Vec<AccessList> = self.config.clients.iter().map(of_clients).collect();
        for forward in forwards {
            match list_of(&forward.id).and_then(|list| lists.get_mut(list)) {
                Some(list) => list.forwards.push(forward),
                None => refused.push(Refused { id: forward.id, why: Reason::Clients }),
            }
        }
        lists
    }

    fn rendered(&self, lists: &[AccessList]) -> DesiredState {
        let mut ruleset = render(lists, &as_seen_by_rules(self.gateway, lists));
        if self.config.flowtable && self.offloads {
            ruleset.offload(&self.gateway.interface);
        }
        if self.config.forward_others == Some(false) {
            self.gateway.ingress.iter().for_each(|interface| ruleset.drop_others(interface));
        }
        let sysctls = Sysctl::needed_by(&ruleset);
        DesiredState { ruleset, sysctls }
    }

    fn filtered(
        &self,
        forwards: Vec<Forward>,
        stays: impl Fn(&ForwardId, AddrPort) -> bool,
    ) -> (Vec<Forward>, Vec<Refused>) {
        let mut refused = Vec::new();
        let mut owners: BTreeMap<AddrPort, Vec<ForwardId>> = BTreeMap::new();
        let mut admitted = Vec::with_capacity(forwards.len());
        for mut forward in forwards {
            if let Err(why) = self.check_listener(&forward) {
                refused.push(Refused { id: forward.id, why });
                continue;
            }
            forward.targets.retain(|&target| {
                let checked = check_target(self.admission, &forward.id, forward.listen, target, &stays);
                let owners = owners.entry(target).or_default();
                let twin = owners.iter().find(|owner| !may_share_by_name(owner, &forward.id)).cloned();
                let checked = checked.and(match twin {
                    Some(owner) => Err(Reason::Twin(target, owner)),
                    None => Ok(()),
                });
                if checked.is_ok() && owners.last() != Some(&forward.id) {
                    owners.push(forward.id.clone());
                }
                checked.map_err(|why| refused.push(Refused { id: forward.id.clone(), why })).is_ok()
            });
            if forward.targets.len() > usize::from(TARGETS) {
                let why = Reason::Surplus(forward.listen, forward.targets.len());
                refused.push(Refused { id: forward.id.clone(), why });
                forward.targets.truncate(TARGETS.into());
            }
            if !forward.targets.is_empty() {
                admitted.push(forward);
            }
        }
        (admitted, refused)
    }

    fn check_listener(&self, &Forward { listen, ref targets, .. }: &Forward) -> Result<(), Reason> {
        let addresses = &self.gateway.addresses;
        if !addresses.contains(&listen.address) {
            let gateway = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(Reason::Address(listen, gateway));
        }
        if listen.port == SSH {
            return Err(Reason::Ssh(listen));
        }
        // One of several addresses is a node's own, and so it keeps its port.
        let is_own = addresses.are_several() && targets.iter().any(|target| target.port == listen.port);
        if !is_own && !self.config.uses(listen.port) {
            return Err(Reason::Port(listen));
        }
        Ok(())
    }
}

fn check_target(
    admission: &Admission,
    id: &ForwardId,
    listen: AddrPort,
    target: AddrPort,
    stays: impl Fn(&ForwardId, AddrPort) -> bool,
) -> Result<(), Reason> {
    if Family::of(listen.address) != Family::of(target.address) {
        return Err(Reason::Family(listen, target));
    }
    match admit(target.address, admission) {
        Ok(()) => Ok(()),
        Err(Refusal::Outside(_)) if admission.vpc.is_empty() && stays(id, target) => Ok(()),
        Err(refusal) => Err(Reason::Target(refusal)),
    }
}

/// What of the rules before a change may be in force again. They were, so their clients and their way back may; their
/// targets are looked at as any others.
pub fn admit_former(mut before: Ruleset, admission: &Admission) -> (Admitted, Vec<Refused>) {
    let mut refused: Vec<Refused> = Vec::new();
    for Forward { id, listen, targets } in before.forwards() {
        let ssh = (listen.port == SSH).then_some(Reason::Ssh(listen));
        let checked = targets.iter().map(|&target| check_target(admission, &id, listen, target, |_, _| true));
        let reasons = ssh.into_iter().chain(checked.filter_map(Result::err));
        refused.extend(reasons.map(|why| Refused { id: id.clone(), why }));
    }
    before.retain_forwards(|id| refused.iter().all(|other| other.id != *id));
    let sysctls = Sysctl::needed_by(&before);
    (Admitted(DesiredState { ruleset: before, sysctls }), refused)
}

/// A family without a single forward would only be empty sets to read; IPv4 stands even so, as the table's frame.
fn as_seen_by_rules(gateway: &Gateway, lists: &[AccessList]) -> rules::Gateway {
    let mut forwards = lists.iter().flat_map(|list| &list.forwards);
    let has_ipv6 = forwards.any(|forward| forward.listen.address.is_ipv6());
    let families: BTreeSet<Family> = gateway.addresses.iter().map(|&address| Family::of(address)).collect();
    let families = families.into_iter().filter(|&family| family == Family::Ipv4 || has_ipv6).collect();
    rules::Gateway {
        ingress: gateway.ingress.clone(),
        families,
        snat: gateway.snat.clone(),
        tunnels: gateway.tunnels.clone(),
        max_segment: gateway.max_segment,
    }
}

/// The networks that two lists have in common: of two that overlap the narrower.
fn in_both(ones: &[IpNet], others: &[IpNet]) -> Vec<IpNet> {
    let common = |one: &IpNet, other: &IpNet| match (one.contains(other), other.contains(one)) {
        (true, _) => Some(*other),
        (_, true) => Some(*one),
        _ => None,
    };
    ones.iter().flat_map(|one| others.iter().filter_map(move |other| common(one, other))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;
    use rules::{AddressRange, Key, ListIndex, SetKind, Snat};

    use super::*;
    use crate::addresses::Addresses;
    use crate::test_support::config;

    const ADDRESSES: [&str; 10] = [
        "10.0.1.230",
        "10.0.1.231",
        "10.0.0.55",
        "172.17.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "203.0.113.9",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
    ];

    fn endpoint() -> impl Strategy<Value = AddrPort> {
        (select(&ADDRESSES[..]), select(&[22_u16, 80, 6379, 6380, 7378, 7379][..])).prop_map(
            |(address, port)| AddrPort { address: address.parse().unwrap(), port: port.try_into().unwrap() },
        )
    }

    fn forward() -> impl Strategy<Value = Forward> {
        let id = select(&["a-001", "a-002", "a/primary", "b-001", "b/reader"][..]);
        (id, endpoint(), proptest::collection::btree_set(endpoint(), 1..4)).prop_map(
            |(id, listen, targets)| Forward {
                id: id.parse().unwrap(),
                listen,
                targets: targets.into_iter().collect(),
            },
        )
    }

    proptest! {
        /// Nothing of a planted ruleset is in force that the configuration and this host don't allow.
        #[test]
        fn whatever_was_saved_only_what_is_allowed_passes(
            forwards in proptest::collection::vec(forward(), 0..6),
            clients in proptest::collection::vec((any::<u32>(), 0..=32_u8), 0..4),
            interface in select(&["eth0", "lo", "docker0"][..]),
        ) {
            let clients: Vec<IpNet> = clients
                .into_iter()
                .map(|(bits, length)| IpNet::new(std::net::Ipv4Addr::from(bits).into(), length).unwrap())
                .chain(["198.51.0.0/17".parse().unwrap()])
                .collect();
            let frame = rules::Gateway {
                ingress: vec![interface.parse().unwrap()],
                families: vec![Family::Ipv4],
                snat: Snat::fixed("eth0".parse().unwrap(), vec!["198.51.100.1".parse().unwrap()]),
                tunnels: vec![],
                max_segment: None,
            };
            let unique: BTreeMap<AddrPort, Forward> =
                forwards.into_iter().map(|forward| (forward.listen, forward)).collect();
            let saved = render(&[AccessList::new(&clients, &unique.into_values().collect::<Vec<_>>())], &frame);

            let clients = vec!["198.51.100.0/24".parse().unwrap()];
            let config = PlanConfig { clients: vec![clients], ..config() };
            let gateway = Gateway {
                interface: "eth0".parse().unwrap(),
                ingress: vec!["eth0".parse().unwrap()],
                addresses: Addresses::new(vec!["10.0.0.55".parse().unwrap()]),
                snat: Snat::Masquerade,
                tunnels: vec![],
                max_segment: None,
            };
            let own = ["10.0.0.55", "172.17.0.1"].map(|address| address.parse().unwrap()).to_vec();
            let admission = Admission { own, ..Admission::default() };
            let gate = Gate { config: &config, gateway: &gateway, admission: &admission, offloads: false };
            let (admitted, refused) = gate.admit_saved(&saved, |_| Some(0));

            let passed = admitted.ruleset.forwards();
            for Forward { listen, targets, .. } in &passed {
                prop_assert_eq!(listen.address.to_string(), "10.0.0.55");
                prop_assert!((6379..=7378).contains(&listen.port.get()), "{}", listen);
                for target in targets {
                    prop_assert!(["10.0.1.230", "10.0.1.231"].contains(&&*target.address.to_string()), "{}", target);
                }
            }
            for (at, one) in passed.iter().enumerate() {
                for other in &passed[at + 1..] {
                    let shared = one.targets.iter().any(|target| other.targets.contains(target));
                    prop_assert!(!shared || may_share_by_name(&one.id, &other.id));
                }
            }
            let configured = AddressRange::new("198.51.100.0".parse().unwrap(), "198.51.100.255".parse().unwrap());
            for (key, _) in admitted.ruleset.elements(SetKind::Clients(ListIndex::FIRST), Family::Ipv4) {
                let Key::Addresses(range) = key else { panic!("{key}") };
                prop_assert!(configured.unwrap().contains(range.first()) && configured.unwrap().contains(range.last()));
            }
            let text = admitted.ruleset.to_string();
            prop_assert!(!text.contains("\"lo\"") && !text.contains("docker0") && !text.contains("198.51.100.1\n"));
            let lost = saved.forwards().iter().map(|forward| forward.targets.len()).sum::<usize>()
                - passed.iter().map(|forward| forward.targets.len()).sum::<usize>();
            prop_assert!(refused.is_empty() == (lost == 0), "{} lost, {:?}", lost, refused);
        }
    }
}

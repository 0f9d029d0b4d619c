//! The gate: what may be in force, whatever it came from.
//!
//! A plan, the state directory's last ruleset, a change that is rolled back and the kernel's own memory all pass here
//! right before they are committed; [`converge`](crate::converge) takes nothing but what the gate has made. It is pure:
//! what it has to know of this host is asked before, for each plan.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use discovery::{Admission, Refusal, admit};
use ipnet::IpNet;
use rules::json::Wanted;
use rules::ruleset::TARGETS;
use rules::{
    AddressRange, Element, Endpoint, Family, Forward, ForwardId, Key, Ruleset, SetKind, Sysctl, render,
};

use crate::claims::may_share_by_name;
use crate::config::{Config, SSH};
use crate::gateway::Gateway;

/// What may be in force. Only [`Gate`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Admitted(Wanted);

impl Deref for Admitted {
    type Target = Wanted;

    fn deref(&self) -> &Wanted {
        &self.0
    }
}

#[cfg(test)]
impl From<Wanted> for Admitted {
    fn from(wanted: Wanted) -> Self {
        Self(wanted)
    }
}

/// Why a forward may not be in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The target is none for anybody.
    #[error("{id}: {refusal}; it is not forwarded")]
    Target { id: ForwardId, refusal: Refusal },
    #[error("{id}: {listen} is not an address of the gateway ({gateway}); it is not forwarded")]
    Address { id: ForwardId, listen: Endpoint, gateway: String },
    #[error("{id}: {listen} is the way into this host (SSH); it is not forwarded")]
    Ssh { id: ForwardId, listen: Endpoint },
    #[error("{id}: port {} is in no pool of the configuration (keys ports and pins); it is not forwarded", listen.port)]
    Port { id: ForwardId, listen: Endpoint },
    #[error("{id}: {listen} and {target} are of two address families; it is not forwarded")]
    Family { id: ForwardId, listen: Endpoint, target: Endpoint },
    #[error("{id}: {target} is the address of {owner} as well; it is not forwarded")]
    Twin { id: ForwardId, target: Endpoint, owner: ForwardId },
    #[error(
        "{id}: {listen} has {targets} targets and can lead to {TARGETS}; only the first {TARGETS} are used"
    )]
    Surplus { id: ForwardId, listen: Endpoint, targets: usize },
}

/// What the gate goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gate<'a> {
    pub(crate) config: &'a Config,
    pub(crate) gateway: &'a Gateway,
    /// Which addresses may be targets on this host now.
    pub(crate) admission: &'a Admission,
    /// Whether a flowtable may be had, where the configuration wants one.
    pub(crate) offloads: bool,
}

impl Gate<'_> {
    /// Renders those of `forwards` that may be in force, for the configuration's clients; the others are named.
    ///
    /// `stays` tells of a target outside the private ranges, while the VPC's ranges are not known, whether it is in force
    /// already and still where its source says.
    pub(crate) fn admit(
        &self,
        forwards: Vec<Forward>,
        stays: impl Fn(&ForwardId, Endpoint) -> bool,
    ) -> (Admitted, Vec<Refused>) {
        let (forwards, refused) = self.filtered(forwards, stays);
        (Admitted(self.rendered(&forwards, &self.config.clients)), refused)
    }

    /// The same for what a run of earlier left in the state directory: of its clients those that the configuration still
    /// lists, and nothing of its rules but the forwards.
    pub(crate) fn admit_saved(&self, saved: &Ruleset) -> (Admitted, Vec<Refused>) {
        let (forwards, refused) = self.filtered(saved.forwards(), |_, _| false);
        let mut wanted = self.rendered(&forwards, &self.config.clients);
        for (set, elements) in &mut wanted.ruleset.sets {
            if set.kind == SetKind::Clients {
                let saved = saved.sets.get(set).into_iter().flatten().map(|(key, _)| key);
                *elements = in_both(elements.keys(), saved);
            }
        }
        (Admitted(wanted), refused)
    }

    fn rendered(&self, forwards: &[Forward], clients: &[IpNet]) -> Wanted {
        let mut ruleset = render(forwards, clients, &as_seen_by_rules(self.gateway, forwards));
        if self.config.gateway.flowtable && self.offloads {
            ruleset.offload(&self.gateway.interface);
        }
        if self.config.gateway.forward_others == Some(false) {
            ruleset.drop_others(&self.gateway.interface);
        }
        let sysctls = Sysctl::needed_by(&ruleset);
        Wanted { ruleset, sysctls }
    }

    fn filtered(
        &self,
        forwards: Vec<Forward>,
        stays: impl Fn(&ForwardId, Endpoint) -> bool,
    ) -> (Vec<Forward>, Vec<Refused>) {
        let mut refused = Vec::new();
        let mut owners: BTreeMap<Endpoint, Vec<ForwardId>> = BTreeMap::new();
        let mut admitted = Vec::with_capacity(forwards.len());
        for mut forward in forwards {
            if let Err(why) = self.check_listener(&forward) {
                refused.push(why);
                continue;
            }
            forward.targets.retain(|&target| {
                let checked = check_target(self.admission, &forward.id, forward.listen, target, &stays);
                let owners = owners.entry(target).or_default();
                let twin = owners.iter().find(|owner| !may_share_by_name(owner, &forward.id)).cloned();
                let checked = checked.and_then(|()| match twin {
                    Some(owner) => Err(Refused::Twin { id: forward.id.clone(), target, owner }),
                    None => Ok(()),
                });
                if checked.is_ok() && owners.last() != Some(&forward.id) {
                    owners.push(forward.id.clone());
                }
                checked.map_err(|why| refused.push(why)).is_ok()
            });
            if forward.targets.len() > usize::from(TARGETS) {
                let (id, listen, targets) = (forward.id.clone(), forward.listen, forward.targets.len());
                refused.push(Refused::Surplus { id, listen, targets });
                forward.targets.truncate(TARGETS.into());
            }
            if !forward.targets.is_empty() {
                admitted.push(forward);
            }
        }
        (admitted, refused)
    }

    fn check_listener(&self, Forward { id, listen, targets }: &Forward) -> Result<(), Refused> {
        let (id, listen) = (id.clone(), *listen);
        let addresses = &self.gateway.addresses;
        if !addresses.contains(&listen.address) {
            let gateway = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(Refused::Address { id, listen, gateway });
        }
        if listen.port == SSH {
            return Err(Refused::Ssh { id, listen });
        }
        // One of several addresses is a node's own, and so it keeps its port.
        let is_own = addresses.are_several() && targets.iter().any(|target| target.port == listen.port);
        if !is_own && !self.config.uses(listen.port) {
            return Err(Refused::Port { id, listen });
        }
        Ok(())
    }
}

fn check_target(
    admission: &Admission,
    id: &ForwardId,
    listen: Endpoint,
    target: Endpoint,
    stays: impl Fn(&ForwardId, Endpoint) -> bool,
) -> Result<(), Refused> {
    if Family::of(listen.address) != Family::of(target.address) {
        return Err(Refused::Family { id: id.clone(), listen, target });
    }
    match admit(target.address, admission) {
        Ok(()) => Ok(()),
        Err(Refusal::Outside(_)) if admission.vpc.is_empty() && stays(id, target) => Ok(()),
        Err(refusal) => Err(Refused::Target { id: id.clone(), refusal }),
    }
}

/// What of the rules before a change may be in force again. They were, so their clients and their way back may; their
/// targets are looked at as any others.
pub(crate) fn admit_former(mut before: Ruleset, admission: &Admission) -> (Admitted, Vec<Refused>) {
    let mut refused = Vec::new();
    for Forward { id, listen, targets } in before.forwards() {
        if listen.port == SSH {
            refused.push((id.clone(), Refused::Ssh { id: id.clone(), listen }));
        }
        let checked = targets.iter().filter_map(|&target| {
            let checked = check_target(admission, &id, listen, target, |_, _| true);
            Some((id.clone(), checked.err()?))
        });
        refused.extend(checked);
    }
    before.retain_forwards(|id| refused.iter().all(|(other, _)| other != id));
    let sysctls = Sysctl::needed_by(&before);
    (Admitted(Wanted { ruleset: before, sysctls }), refused.into_iter().map(|(_, why)| why).collect())
}

/// A family without a single forward would only be empty sets to read; IPv4 stands even so, as the table's frame.
fn as_seen_by_rules(gateway: &Gateway, forwards: &[Forward]) -> rules::Gateway {
    let has = |family| forwards.iter().any(|forward| Family::of(forward.listen.address) == family);
    let families: BTreeSet<Family> = gateway.addresses.iter().map(|&address| Family::of(address)).collect();
    let families = families.into_iter().filter(|&family| family == Family::Ipv4 || has(family)).collect();
    rules::Gateway { interface: gateway.interface.clone(), families, snat: gateway.snat.clone() }
}

/// The addresses that two lists of ranges have in common. No two ranges of one list overlap.
fn in_both<'a>(
    ones: impl Iterator<Item = &'a Key>,
    others: impl Iterator<Item = &'a Key> + Clone,
) -> BTreeMap<Key, Element> {
    let mut common = BTreeMap::new();
    for one in ones {
        for other in others.clone() {
            if let (Key::Addresses(one), Key::Addresses(other)) = (one, other)
                && let Some(range) =
                    AddressRange::new(one.first().max(other.first()), one.last().min(other.last()))
            {
                common.insert(Key::Addresses(range), Element::default());
            }
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use proptest::sample::select;
    use rules::Snat;

    use super::*;
    use crate::addresses::Addresses;

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

    fn endpoint() -> impl Strategy<Value = Endpoint> {
        (select(&ADDRESSES[..]), select(&[22_u16, 80, 6379, 6380, 7378, 7379][..])).prop_map(
            |(address, port)| Endpoint { address: address.parse().unwrap(), port: port.try_into().unwrap() },
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
                interface: interface.parse().unwrap(),
                families: vec![Family::Ipv4],
                snat: Snat::Addresses(vec!["198.51.100.1".parse().unwrap()]),
            };
            let unique: BTreeMap<Endpoint, Forward> =
                forwards.into_iter().map(|forward| (forward.listen, forward)).collect();
            let saved = render(&unique.into_values().collect::<Vec<_>>(), &clients, &frame);

            let text = "clients: [198.51.100.0/24]\nsources: [{cache_cluster: b}]\n".to_owned();
            let config = Config::parse(Path::new("config.yaml"), text).unwrap();
            let gateway = Gateway {
                interface: "eth0".parse().unwrap(),
                addresses: Addresses::new(vec!["10.0.0.55".parse().unwrap()]),
                snat: Snat::Masquerade,
            };
            let own = ["10.0.0.55", "172.17.0.1"].map(|address| address.parse().unwrap()).to_vec();
            let admission = Admission { own, ..Admission::default() };
            let gate = Gate { config: &config, gateway: &gateway, admission: &admission, offloads: false };
            let (admitted, refused) = gate.admit_saved(&saved);

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
            for (key, _) in admitted.ruleset.elements(SetKind::Clients, Family::Ipv4) {
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

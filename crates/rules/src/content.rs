//! What a ruleset says: the opposite of [`render`](crate::render()).

use std::collections::{BTreeMap, BTreeSet};

use crate::name::{ForwardId, IfName};
use crate::render::{AccessList, Forward};
use crate::ruleset::{
    AddrPort, AddressRange, Chain, Family, Key, ListIndex, Rule, Ruleset, Set, SetKind, SnatTo,
};

impl Ruleset {
    /// The interfaces that clients' packets come in by, in the order of the rules.
    pub fn ingress(&self) -> Vec<&IfName> {
        let mut named = Vec::new();
        for rule in self.chains.get(&Chain::Prerouting).into_iter().flatten() {
            if let Rule::Forward { interface, .. } = rule
                && !named.contains(&interface)
            {
                named.push(interface);
            }
        }
        named
    }

    /// The tunnels by which nothing but the caches is reached.
    pub fn confined(&self) -> Vec<&IfName> {
        let rules = self.chains.get(&Chain::Confine).into_iter().flatten();
        let named = rules
            .filter_map(|rule| if let Rule::PassOthers { tunnels } = rule { Some(tunnels) } else { None });
        named.flatten().collect()
    }

    /// What the source of packets becomes that leave by an interface: one of these; empty: it stays.
    pub fn sources(&self, family: Family, output: &str) -> Vec<SnatTo> {
        let rules = self.chains.get(&Chain::Postrouting).into_iter().flatten();
        let of_family: Vec<(Option<&IfName>, SnatTo)> = rules
            .filter_map(|rule| match rule {
                Rule::Snat { interface, family: of, to, .. } if *of == family => {
                    Some((interface.as_ref(), *to))
                }
                _ => None,
            })
            .collect();
        let fixed: Vec<SnatTo> = of_family
            .iter()
            .filter(|(name, _)| name.is_some_and(|name| name.as_str() == output))
            .map(|&(_, to)| to)
            .collect();
        let elsewhere = || of_family.iter().filter(|(name, _)| name.is_none()).map(|&(_, to)| to).collect();
        if fixed.is_empty() { elsewhere() } else { fixed }
    }

    /// The forwards that the maps hold, by listener and id.
    ///
    /// Elements whose comment is no id are none of ours, and left out.
    pub fn forwards(&self) -> Vec<Forward> {
        self.forwards_of(|_| true)
    }

    /// The lists of clients with the forwards of each, by their numbers; the opposite of [`render`](crate::render()).
    pub fn access_lists(&self) -> BTreeMap<ListIndex, AccessList> {
        let lists: BTreeSet<ListIndex> = self.sets.keys().filter_map(|set| set.list()).collect();
        let access = |list| {
            let clients = [Family::Ipv4, Family::Ipv6]
                .into_iter()
                .flat_map(|family| self.elements(SetKind::Clients(list), family))
                .filter_map(|(key, _)| if let Key::Addresses(range) = key { Some(*range) } else { None })
                .flat_map(AddressRange::networks)
                .collect();
            AccessList { clients, forwards: self.forwards_of(|set| set.list() == Some(list)) }
        };
        lists.into_iter().map(|list| (list, access(list))).collect()
    }

    /// Whether anything is forwarded in a family.
    pub fn has_forwards(&self, family: Family) -> bool {
        self.elements(SetKind::Listeners, family).next().is_some()
    }

    fn forwards_of(&self, counts: impl Fn(&Set) -> bool) -> Vec<Forward> {
        let mut found: BTreeMap<(AddrPort, ForwardId), Vec<AddrPort>> = BTreeMap::new();
        let maps = self.sets.iter().filter(|(set, _)| set.is_map() && counts(set));
        for (key, element) in maps.flat_map(|(_, elements)| elements) {
            let Key::AddrPort(listen) = *key else { continue };
            let id = element.comment.clone().and_then(|comment| comment.try_into().ok());
            if let (Some(id), Some(target)) = (id, element.data) {
                found.entry((listen, id)).or_default().push(target);
            }
        }
        let forward = |((listen, id), targets)| Forward { id, listen, targets };
        found.into_iter().map(forward).collect()
    }
}

//! Who may have which address: no two ids are ever led to one address and port.
//!
//! Answers are of different ages, so two nodes may seem to be at one address. A client that is led to the wrong one
//! reads another cache's keys without noticing, which is worse than no answer.

use std::collections::{BTreeMap, BTreeSet};

use rules::{AddrPort, ForwardId};

/// An id and the targets that it claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claimant<'a> {
    pub(crate) id: ForwardId,
    /// The cache that it belongs to, where that is known.
    pub(crate) cluster: Option<&'a str>,
    /// Whether it is a role, behind which a node of the same cache is no surprise.
    pub(crate) is_role: bool,
    /// Where the inventory says that it is; in order, each once.
    pub(crate) targets: Vec<AddrPort>,
}

/// Why an id is not led to where the inventory says that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denied {
    pub(crate) id: ForwardId,
    /// The target that another id keeps.
    pub(crate) target: AddrPort,
    pub(crate) owner: ForwardId,
}

/// Settles the claims: afterwards no target is claimed by two that may not share it.
///
/// Of several the one that is led there already (`in_force`) keeps it, else the first. The others stay where they are
/// in force; who has no such place, or whose place is another's by the same rule, loses the target. Whoever stays
/// may thereby deny a third its new address, so this goes on until nothing is disputed: each id goes back to its
/// former targets at most once, and after that only loses some.
pub(crate) fn resolve_conflicts<'a>(
    claimants: &mut [Claimant<'_>],
    in_force: impl Fn(&ForwardId) -> Option<&'a BTreeSet<AddrPort>>,
) -> Vec<Denied> {
    let mut denied: BTreeMap<usize, Denied> = BTreeMap::new();
    loop {
        let disputed = disputed(claimants, &in_force);
        if disputed.is_empty() {
            return denied.into_values().collect();
        }
        for Dispute { target, owner, loser } in disputed {
            let Some(owner) = claimants.get(owner).map(|owner| owner.id.clone()) else { continue };
            let Some(claimant) = claimants.get_mut(loser) else { continue };
            // It may have gone back already, for another of its targets.
            if !claimant.targets.contains(&target) {
                continue;
            }
            let former = in_force(&claimant.id).filter(|former| !former.contains(&target));
            match former {
                Some(former) if !denied.contains_key(&loser) => {
                    claimant.targets = former.iter().copied().collect();
                }
                _ => claimant.targets.retain(|other| *other != target),
            }
            denied.entry(loser).or_insert_with(|| Denied { id: claimant.id.clone(), target, owner });
        }
    }
}

/// A target that two claim, by their places in the list.
struct Dispute {
    target: AddrPort,
    owner: usize,
    loser: usize,
}

fn disputed<'a>(
    claimants: &[Claimant<'_>],
    in_force: impl Fn(&ForwardId) -> Option<&'a BTreeSet<AddrPort>>,
) -> Vec<Dispute> {
    let claims = claimants.iter().enumerate();
    let mut claims: Vec<(AddrPort, usize)> =
        claims.flat_map(|(at, claimant)| claimant.targets.iter().map(move |&target| (target, at))).collect();
    claims.sort_unstable();
    let mut disputed = Vec::new();
    for same in claims.chunk_by(|(one, _), (other, _)| one == other).filter(|same| same.len() > 1) {
        let mut rivals: Vec<(usize, &Claimant<'_>)> =
            same.iter().filter_map(|&(_, at)| Some((at, claimants.get(at)?))).collect();
        let Some(&(target, _)) = same.first() else { continue };
        rivals.sort_by_key(|(_, rival)| in_force(&rival.id).is_none_or(|former| !former.contains(&target)));
        let mut keepers: Vec<(usize, &Claimant<'_>)> = Vec::new();
        for (at, rival) in rivals {
            match keepers.iter().find(|(_, keeper)| !may_share(keeper, rival)) {
                Some(&(owner, _)) => disputed.push(Dispute { target, owner, loser: at }),
                None => keepers.push((at, rival)),
            }
        }
    }
    disputed
}

/// A role of a cache is at the address of one of its nodes, and two roles may be at one.
fn may_share(one: &Claimant<'_>, other: &Claimant<'_>) -> bool {
    let of_one_cache = match (one.cluster, other.cluster) {
        (Some(one), Some(other)) => one == other,
        _ => are_of_one_cache(&one.id, &other.id),
    };
    one.id == other.id || ((one.is_role || other.is_role) && of_one_cache)
}

/// Whether two ids may share a target, as far as ids alone tell: one is a role of the cache that the other belongs to.
pub(crate) fn may_share_by_name(one: &ForwardId, other: &ForwardId) -> bool {
    one == other || ((role_of(one).is_some() || role_of(other).is_some()) && are_of_one_cache(one, other))
}

/// The cache whose role it is: `my-cluster` of `my-cluster/primary`.
pub(crate) fn role_of(id: &ForwardId) -> Option<&str> {
    let (cluster, role) = id.as_str().rsplit_once('/')?;
    matches!(role, "primary" | "reader").then_some(cluster)
}

/// Ids of nodes begin with the cache's: `my-cluster-001`, `sessions-0001`; that of a serverless cache is its own.
fn are_of_one_cache(one: &ForwardId, other: &ForwardId) -> bool {
    let belongs = |id: &ForwardId, cluster: &str| {
        let rest = role_of(id).unwrap_or(id.as_str()).strip_prefix(cluster);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    match (role_of(one), role_of(other)) {
        (Some(one), Some(other)) => one == other,
        (Some(cluster), None) => belongs(other, cluster),
        (None, Some(cluster)) => belongs(one, cluster),
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    type InForce = HashMap<ForwardId, BTreeSet<AddrPort>>;

    fn at(last: u8) -> AddrPort {
        format!("10.0.1.{last}:6379").parse().unwrap()
    }

    fn claimant(id: &str, targets: &[u8]) -> Claimant<'static> {
        let id: ForwardId = id.parse().unwrap();
        let is_role = role_of(&id).is_some();
        Claimant { id, cluster: None, is_role, targets: targets.iter().map(|&last| at(last)).collect() }
    }

    fn in_force(list: &[(&str, u8)]) -> InForce {
        let mut found = InForce::new();
        for &(id, last) in list {
            found.entry(id.parse().unwrap()).or_default().insert(at(last));
        }
        found
    }

    /// The claimants' targets after all is settled, and who was denied what.
    fn settled(mut claimants: Vec<Claimant<'static>>, in_force: &InForce) -> (Vec<String>, Vec<String>) {
        let denied = resolve_conflicts(&mut claimants, |id| in_force.get(id));
        let line = |claimant: &Claimant<'_>| {
            let last = claimant.targets.iter().map(|target| target.address.to_string());
            let last: Vec<String> =
                last.map(|address| address.rsplit('.').next().unwrap().to_owned()).collect();
            format!("{} {}", claimant.id, last.join(","))
        };
        let owner = |denied: &Denied| format!("{}: {}", denied.id, denied.owner);
        (claimants.iter().map(line).collect(), denied.iter().map(owner).collect())
    }

    #[test]
    fn a_former_address_that_a_third_claims_stays_with_who_had_it() {
        let before = in_force(&[("a", 1), ("b", 2), ("c", 3)]);
        let answer = vec![claimant("a", &[2]), claimant("b", &[2]), claimant("c", &[1])];
        let (after, denied) = settled(answer, &before);
        assert_eq!(after, ["a 1", "b 2", "c 3"]);
        assert_eq!(denied, ["a: b", "c: a"]);
    }

    #[test]
    fn nodes_that_change_places_do_so_at_once() {
        let before = in_force(&[("a", 1), ("b", 2), ("c", 3)]);
        let answer = vec![claimant("a", &[2]), claimant("b", &[3]), claimant("c", &[1])];
        assert_eq!(settled(answer, &before), (vec!["a 2".into(), "b 3".into(), "c 1".into()], vec![]));
    }

    #[test]
    fn a_role_shares_with_its_own_cache_and_no_other() {
        let before = in_force(&[("my-cluster-001", 1), ("other-001", 2)]);
        let answer = vec![
            claimant("my-cluster-001", &[1]),
            claimant("my-cluster/primary", &[1]),
            claimant("my-cluster/reader", &[1, 2]),
            claimant("other-001", &[2]),
            claimant("other/primary", &[1]),
        ];
        let (after, denied) = settled(answer, &before);
        assert_eq!(
            after,
            [
                "my-cluster-001 1",
                "my-cluster/primary 1",
                "my-cluster/reader 1",
                "other-001 2",
                "other/primary "
            ]
        );
        assert_eq!(denied, ["my-cluster/reader: other-001", "other/primary: my-cluster-001"]);
    }

    #[test]
    fn names_tell_whose_role_it_is() {
        let share =
            |one: &str, other: &str| may_share_by_name(&one.parse().unwrap(), &other.parse().unwrap());
        assert!(share("my-cluster/primary", "my-cluster-001") && share("carts", "carts/reader"));
        assert!(share("my-cluster/primary", "my-cluster/reader"));
        assert!(!share("my-cluster-001", "my-cluster-002") && !share("a/primary", "b/primary"));
        assert!(!share("shop/primary", "shopping-001"));
    }

    proptest! {
        /// Whatever was in force (also what can't have come from here) and whatever is answered.
        #[test]
        fn no_two_ids_are_led_to_one_target(
            before in proptest::collection::vec((0..6_u8, 0..6_u8), 0..9),
            answers in proptest::collection::vec(proptest::collection::btree_set(0..6_u8, 0..3), 6),
        ) {
            let name = |number: u8| ["a-001", "a-002", "a/primary", "a/reader", "b-001", "b/primary"][usize::from(number)];
            let before: Vec<(&str, u8)> = before.into_iter().map(|(id, last)| (name(id), last)).collect();
            let before = in_force(&before);
            let mut claimants: Vec<Claimant<'static>> = (0..6)
                .zip(&answers)
                .map(|(number, to)| claimant(name(number), &to.iter().copied().collect::<Vec<_>>()))
                .collect();
            let asked = claimants.clone();
            let denied = resolve_conflicts(&mut claimants, |id| before.get(id));
            for (at, one) in claimants.iter().enumerate() {
                let wanted = &asked[at].targets;
                let former = before.get(&one.id);
                let is_known = |target| wanted.contains(target) || former.is_some_and(|former| former.contains(target));
                prop_assert!(one.targets.iter().all(is_known), "{} was led astray", one.id);
                if one.targets != *wanted {
                    prop_assert!(denied.iter().any(|denied| denied.id == one.id), "{} moved without a word", one.id);
                }
                for other in &claimants[at + 1..] {
                    let shared = one.targets.iter().any(|target| other.targets.contains(target));
                    prop_assert!(!shared || may_share(one, other), "{} and {}", one.id, other.id);
                }
            }
        }
    }
}

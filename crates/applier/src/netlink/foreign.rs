//! Reads the tables of other programs.

mod expression;

use std::collections::BTreeMap;

use nix::libc;
use rules::foreign::{
    Backend, Base, Chain, Data, Element, Expression, Foreign, Hook, Rule, Set, Table, TableFamily,
};

use super::Kernel;
use super::attribute::{Attributes, Fields, Malformed, Writer, shown};
use super::read::{End, Request};
use super::uapi::{DATA_VALUE, chain, element, elements, rule, set, table};
use crate::kernel::DumpError;

const NETDEV: u8 = libc::NFPROTO_NETDEV as u8;

/// The families whose chains routed packets pass.
const FAMILIES: [(u8, TableFamily); 4] = [
    (libc::NFPROTO_INET as u8, TableFamily::Inet),
    (libc::NFPROTO_IPV4 as u8, TableFamily::Ip),
    (NETDEV, TableFamily::Netdev),
    (libc::NFPROTO_IPV6 as u8, TableFamily::Ip6),
];

impl Kernel {
    /// The tables of all families whose chains routed packets traverse. Of our table, only the chains, for their order among
    /// the others.
    ///
    /// If the ruleset changes meanwhile, the result mixes old and new state.
    ///
    /// # Errors
    ///
    /// See [`DumpError`].
    pub fn foreign(&mut self) -> Result<Foreign, DumpError> {
        let mut chains: Vec<Chain> = Vec::new();
        self.ask_all(Request::CHAINS, |family, attributes| {
            chains.extend(parse_chain(family, attributes)?);
            Ok(())
        })?;
        let names =
            chains.iter().enumerate().map(|(at, chain)| ((chain.table.clone(), chain.name.clone()), at));
        let places: BTreeMap<Key, usize> = names.collect();
        self.ask_all(Request::RULES, |family, attributes| {
            let fields = Fields::<16>::parse(attributes)?;
            let Some(table) = table_of(family, fields.name(rule::TABLE)).filter(|table| !table.is_ours())
            else {
                return Ok(());
            };
            let list = fields.get(rule::EXPRESSIONS).unwrap_or_default();
            let expressions = expression::parse_list(list, table.family)?;
            let place = places.get(&(table, shown(fields.name(rule::CHAIN))));
            // Ignore the rules of a chain that was added since the list of chains.
            if let Some(chain) = place.and_then(|&at| chains.get_mut(at)) {
                chain.rules.push(Rule { number: fields.be64(rule::HANDLE).unwrap_or(0), expressions });
            }
            Ok(())
        })?;
        let mut declared = BTreeMap::new();
        self.ask_all(Request::SETS, |family, attributes| {
            if let Some((key, set)) = Declared::parse(family, attributes)? {
                declared.insert(key, set);
            }
            Ok(())
        })?;
        let mut foreign = Foreign { chains, sets: BTreeMap::new() };
        for key in looked_up(&foreign.chains) {
            // Omit a set that was deleted meanwhile; its lookups then count as unclear.
            if let Some(declared) = declared.remove(&key)
                && let Some(set) = self.elements_of(declared)?
            {
                foreign.sets.insert(key, set);
            }
        }
        Ok(foreign)
    }

    /// Requests the objects of all families.
    fn ask_all(
        &mut self,
        request: Request,
        take: impl FnMut(u8, &[u8]) -> Result<(), Malformed>,
    ) -> Result<(), DumpError> {
        self.ask_family(request, libc::NFPROTO_UNSPEC as u8, None, |_| {}, take).map(drop)
    }

    /// A set with its elements; `None` if it was deleted.
    fn elements_of(&mut self, declared: Declared) -> Result<Option<Set>, DumpError> {
        let Declared { family, table, name, is_interval, mut set } = declared;
        let mut bounds = Vec::new();
        let of_set = |writer: &mut Writer| {
            writer.put(table::NAME, &[&table[..], &[0]].concat());
            writer.put(elements::SET, &[&name[..], &[0]].concat());
        };
        let end = self.ask_family(Request::ELEMENTS, family, None, of_set, |_, attributes| {
            let list = Fields::<4>::parse(attributes)?.get(elements::LIST).unwrap_or_default();
            for one in Attributes(list) {
                parse_element(one?.value, &mut set, &mut bounds)?;
            }
            Ok(())
        })?;
        set.elements = match is_interval {
            true => intervals(bounds),
            false => bounds.into_iter().map(Bound::alone).collect(),
        };
        set.elements.sort_by(|one, other| one.first.cmp(&other.first));
        Ok((end != End::Missing).then_some(set))
    }
}

/// The table and name of a chain or set, with control characters escaped.
type Key = (Table, String);

/// The declaration of a set, with the raw names that request its elements.
struct Declared {
    family: u8,
    table: Vec<u8>,
    name: Vec<u8>,
    is_interval: bool,
    /// Without elements yet.
    set: Set,
}

impl Declared {
    /// Parses `NFT_MSG_NEWSET`; `None` for families that routed packets do not traverse.
    fn parse(family: u8, attributes: &[u8]) -> Result<Option<(Key, Self)>, Malformed> {
        let fields = Fields::<24>::parse(attributes)?;
        let (table, name) = (fields.name(set::TABLE), fields.name(set::NAME));
        let Some(of) = table_of(family, table) else { return Ok(None) };
        let flags = fields.be32(set::FLAGS).unwrap_or(0).cast_signed();
        let declared = Self {
            family,
            table: table.to_vec(),
            name: name.to_vec(),
            is_interval: flags & libc::NFT_SET_INTERVAL != 0,
            set: Set { fields: field_lengths(&fields)?, ..Set::default() },
        };
        Ok(Some(((of, shown(name)), declared)))
    }
}

/// The table of this name, if routed packets traverse chains of its family.
fn table_of(family: u8, name: &[u8]) -> Option<Table> {
    let (_, family) = FAMILIES.into_iter().find(|(number, _)| *number == family)?;
    Some(Table { backend: Backend::NfTables, family, name: shown(name) })
}

/// The sets that rules use.
fn looked_up(chains: &[Chain]) -> Vec<Key> {
    let mut found: Vec<Key> = Vec::new();
    for chain in chains {
        for expression in chain.rules.iter().flat_map(|rule| &rule.expressions) {
            if let Expression::Lookup { set, .. } = expression {
                found.push((chain.table.clone(), set.clone()));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Parses `NFT_MSG_NEWCHAIN`; `None` for families that routed packets do not traverse.
fn parse_chain(family: u8, attributes: &[u8]) -> Result<Option<Chain>, Malformed> {
    let fields = Fields::<16>::parse(attributes)?;
    let Some(table) = table_of(family, fields.name(chain::TABLE)) else { return Ok(None) };
    let base = match fields.get(chain::HOOK) {
        Some(hook) => base(family, &fields, &Fields::<8>::parse(hook)?)?,
        None => None,
    };
    Ok(Some(Chain { table, name: shown(fields.name(chain::NAME)), base, rules: Vec::new() }))
}

/// The base of a chain; `None` if forwarded packets do not pass its hook.
fn base(family: u8, fields: &Fields<'_, 16>, hook: &Fields<'_, 8>) -> Result<Option<Base>, Malformed> {
    let at = match (family, hook.be32(chain::HOOK_NUMBER).map(u32::cast_signed)) {
        (NETDEV, Some(chain::NETDEV_INGRESS)) | (_, Some(libc::NF_INET_INGRESS)) => Hook::Ingress,
        (NETDEV, Some(chain::NETDEV_EGRESS)) => Hook::Egress,
        (_, Some(libc::NF_INET_PRE_ROUTING)) => Hook::Prerouting,
        (_, Some(libc::NF_INET_FORWARD)) => Hook::Forward,
        (_, Some(libc::NF_INET_POST_ROUTING)) => Hook::Postrouting,
        _ => return Ok(None),
    };
    Ok(Some(Base {
        is_nat: fields.name(chain::TYPE) == b"nat",
        hook: at,
        priority: hook.be32(chain::HOOK_PRIORITY).map_or(0, u32::cast_signed),
        devices: devices(hook)?,
        drops_by_policy: fields.be32(chain::POLICY) == Some(libc::NF_DROP as u32),
    }))
}

/// `NFTA_HOOK_DEV`, or several in `NFTA_HOOK_DEVS`.
fn devices(hook: &Fields<'_, 8>) -> Result<Vec<String>, Malformed> {
    if hook.get(chain::HOOK_DEVICE).is_some() {
        return Ok(vec![shown(hook.name(chain::HOOK_DEVICE))]);
    }
    let several = Attributes(hook.get(chain::HOOK_DEVICES).unwrap_or_default());
    several
        .map(|device| Ok(shown(device?.value.split(|&byte| byte == 0).next().unwrap_or_default())))
        .collect()
}

/// The lengths of a key's fields: those in the description of a concatenation, or the length of a simple key.
fn field_lengths(fields: &Fields<'_, 24>) -> Result<Vec<usize>, Malformed> {
    let description = Fields::<4>::parse(fields.get(set::DESC).unwrap_or_default())?;
    let parts = Attributes(description.get(set::DESC_CONCAT).unwrap_or_default());
    let parts: Vec<usize> = parts
        .map(|part| Ok(Fields::<2>::parse(part?.value)?.be32(set::FIELD_LEN).unwrap_or(0) as usize))
        .collect::<Result<_, Malformed>>()?;
    let whole = fields.be32(set::KEY_LEN).unwrap_or(0) as usize;
    Ok(if parts.is_empty() { vec![whole] } else { parts })
}

/// An element from the kernel; in an interval set it may be one end of an interval.
struct Bound {
    key: Vec<u8>,
    /// The last key, if the element has both ends.
    last: Option<Vec<u8>>,
    /// Whether an interval ends before this key (`NFT_SET_ELEM_INTERVAL_END`).
    is_end: bool,
    data: Option<Data>,
}

impl Bound {
    fn alone(self) -> Element {
        Element { last: self.last.unwrap_or_else(|| self.key.clone()), first: self.key, data: self.data }
    }
}

/// `NFTA_LIST_ELEM`
fn parse_element(bytes: &[u8], set: &mut Set, bounds: &mut Vec<Bound>) -> Result<(), Malformed> {
    let fields = Fields::<16>::parse(bytes)?;
    let flags = fields.be32(element::FLAGS).unwrap_or(0);
    let data = match fields.get(element::DATA) {
        Some(data) => Some(expression::data(data)?),
        None => None,
    };
    if flags & element::CATCH_ALL != 0 {
        set.catch_all = Some(data);
        return Ok(());
    }
    let key = |kind| -> Result<Option<Vec<u8>>, Malformed> {
        let Some(key) = fields.get(kind) else { return Ok(None) };
        Ok(Fields::<2>::parse(key)?.get(DATA_VALUE).map(<[u8]>::to_vec))
    };
    let is_end = flags & libc::NFT_SET_ELEM_INTERVAL_END as u32 != 0;
    if let Some(first) = key(element::KEY)? {
        bounds.push(Bound { key: first, last: key(element::KEY_END)?, is_end, data });
    }
    Ok(())
}

/// Builds intervals from bounds: each extends from its start to just before the next bound, or to the highest key.
fn intervals(mut bounds: Vec<Bound>) -> Vec<Element> {
    // At the same key, an end sorts before a start.
    bounds.sort_by(|one, other| (&one.key, !one.is_end).cmp(&(&other.key, !other.is_end)));
    let mut found: Vec<Element> = Vec::new();
    let mut open: Option<Bound> = None;
    for bound in bounds {
        if let Some(start) = open.take() {
            let last = start.last.clone().unwrap_or_else(|| before(&bound.key));
            found.push(Element { first: start.key, last, data: start.data });
        }
        if !bound.is_end {
            open = Some(bound);
        }
    }
    if let Some(start) = open {
        let last = start.last.clone().unwrap_or_else(|| vec![0xff; start.key.len()]);
        found.push(Element { first: start.key, last, data: start.data });
    }
    found
}

/// The key before `key`, which must not be the lowest.
fn before(key: &[u8]) -> Vec<u8> {
    let mut key = key.to_vec();
    for byte in key.iter_mut().rev() {
        let (lower, borrows) = byte.overflowing_sub(1);
        *byte = lower;
        if !borrows {
            break;
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_terminate_without_panic(family in 0..12_u8, bytes: Vec<u8>) {
            let _ = parse_chain(family, &bytes);
            let _ = Declared::parse(family, &bytes);
            let _ = parse_element(&bytes, &mut Set::default(), &mut vec![]);
            let _ = expression::parse_list(&bytes, TableFamily::Inet);
        }
    }

    #[test]
    fn an_interval_ends_before_the_next_bound() {
        let bound = |key: &[u8], is_end| Bound { key: key.to_vec(), last: None, is_end, data: None };
        // In the kernel's order: backwards, with an end at the lowest key.
        let bounds = vec![
            bound(&[200, 0], false),
            bound(&[2, 0], true),
            bound(&[1, 5], false),
            bound(&[1, 5], true),
            bound(&[1, 0], false),
            bound(&[0, 0], true),
        ];
        let found: Vec<(Vec<u8>, Vec<u8>)> =
            intervals(bounds).into_iter().map(|element| (element.first, element.last)).collect();
        let expected = [([1, 0], [1, 4]), ([1, 5], [1, 255]), ([200, 0], [255, 255])]
            .map(|(a, b)| (a.to_vec(), b.to_vec()));
        assert_eq!(found, expected);
    }
}

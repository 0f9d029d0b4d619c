//! Parses the entries of a table: a sequence of `struct ipt_entry` or `struct ip6t_entry`, each followed by its matches
//! and its target.

use std::collections::BTreeMap;

use rules::Family;
use rules::foreign::{Base, Chain, Expression, Field, Hook, Rule, Table, TableFamily, Verdict};

use crate::xtables::{self, equality, masked};

/// The offsets of fields in an entry of a family.
struct Layout {
    /// The length of an address; an entry starts with source, destination and their masks.
    address: usize,
    /// The protocol, 2 bytes.
    protocol: usize,
    flags: usize,
    inverted: usize,
    /// The offsets of the target and of the next entry, 2 bytes each.
    target: usize,
    /// The length of the entry's header, which its matches follow.
    matches: usize,
    /// The offsets of source and destination in the network header.
    source: usize,
    destination: usize,
}

const IPV4: Layout = Layout {
    address: 4,
    protocol: 80,
    flags: 82,
    inverted: 83,
    target: 88,
    matches: 112,
    source: 12,
    destination: 16,
};
const IPV6: Layout = Layout {
    address: 16,
    protocol: 128,
    flags: 131,
    inverted: 132,
    target: 140,
    matches: 168,
    source: 8,
    destination: 24,
};

/// `IFNAMSIZ`
const INTERFACE: usize = 16;

/// `sizeof(struct xt_entry_match)` and of a target: 2 bytes of length, 29 of name, one of revision.
const EXTENSION: usize = 32;
const EXTENSION_NAME: usize = 29;

/// `IPT_F_FRAG`, `IPT_F_GOTO`, `IP6T_F_GOTO` and `IP6T_F_TOS`.
const FRAGMENT: u8 = 1;
const GOTO: u8 = 2;
const GOTO_6: u8 = 4;
const TOS_6: u8 = 2;

/// `IPT_INV_VIA_IN`, `_VIA_OUT`, `_SRCIP`, `_DSTIP` and `_PROTO`, with the same numbers in IPv6.
const INVERTED_INPUT: u8 = 1;
const INVERTED_OUTPUT: u8 = 2;
const INVERTED_SOURCE: u8 = 8;
const INVERTED_DESTINATION: u8 = 16;
const INVERTED_PROTOCOL: u8 = 64;

/// The built-in chains, indexed by hook number (`enum nf_inet_hooks`); forwarded packets traverse three of them.
const HOOKS: [(&str, Option<Hook>); 5] = [
    ("PREROUTING", Some(Hook::Prerouting)),
    ("INPUT", None),
    ("FORWARD", Some(Hook::Forward)),
    ("OUTPUT", None),
    ("POSTROUTING", Some(Hook::Postrouting)),
];

/// Offsets in `struct ipt_getinfo`: a bitmap of valid hooks, the offsets of their chains, and those of their policies.
const VALID_HOOKS: usize = 32;
const HOOK_ENTRIES: usize = 36;
const UNDERFLOWS: usize = 56;

/// The chains of a table; `None` if its layout is unknown.
pub(super) fn chains(table: &Table, family: Family, info: &[u8], entries: &[u8]) -> Option<Vec<Chain>> {
    let layout = if family == Family::Ipv4 { &IPV4 } else { &IPV6 };
    let (mut starts, policies) = built_in(&table.name, info)?;
    let all = Entries { bytes: entries, layout };
    // A user-defined chain follows an entry with its name; one named ERROR ends the table.
    for (at, entry) in all.iter() {
        let (at, entry) = (at, entry?);
        if let Some(name) = entry.error_name() {
            starts.insert(at + entry.bytes.len(), (name, None));
        }
    }
    let mut chains: Vec<Chain> = Vec::new();
    for (at, entry) in all.iter() {
        let entry = entry?;
        if let Some((name, base)) = starts.get(&at) {
            chains.push(Chain {
                table: table.clone(),
                name: name.clone(),
                base: base.clone(),
                rules: vec![],
            });
        }
        if entry.error_name().is_some() {
            continue;
        }
        let chain = chains.last_mut()?;
        let expressions = entry.expressions(table.family, &starts, at)?;
        if policies.contains(&at) {
            let drops = expressions.contains(&Expression::Verdict(Verdict::Drop));
            chain.base = chain.base.take().map(|base| Base { drops_by_policy: drops, ..base });
        } else {
            chain.rules.push(Rule { number: chain.rules.len() as u64 + 1, expressions });
        }
    }
    Some(chains)
}

/// Chains by the offset of their first entry.
type Starts = BTreeMap<usize, (String, Option<Base>)>;

/// The built-in chains, and the offsets of their policies.
fn built_in(table: &str, info: &[u8]) -> Option<(Starts, Vec<usize>)> {
    let word = |at: usize| info.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let valid = word(VALID_HOOKS)?;
    let mut starts = Starts::new();
    let mut policies = Vec::new();
    for (number, (name, hook)) in HOOKS.into_iter().enumerate() {
        if valid & (1 << number) == 0 {
            continue;
        }
        // enum nf_ip_hook_priorities, linux/netfilter_ipv4.h
        let priority = match (table, hook) {
            ("raw", _) => -300,
            ("mangle", _) => -150,
            ("nat", Some(Hook::Postrouting)) => 100,
            ("nat", _) => -100,
            ("security", _) => 50,
            _ => 0,
        };
        let base = hook.map(|hook| Base {
            is_nat: table == "nat",
            hook,
            priority,
            devices: vec![],
            drops_by_policy: false,
        });
        starts.insert(word(HOOK_ENTRIES + 4 * number)? as usize, (name.to_owned(), base));
        policies.push(word(UNDERFLOWS + 4 * number)? as usize);
    }
    Some((starts, policies))
}

/// All entries of a table.
struct Entries<'a> {
    bytes: &'a [u8],
    layout: &'a Layout,
}

/// One entry.
struct Entry<'a> {
    bytes: &'a [u8],
    layout: &'a Layout,
}

impl<'a> Entries<'a> {
    /// The entries with their offsets; ends with `None` after an entry with an invalid length.
    fn iter(&self) -> impl Iterator<Item = (usize, Option<Entry<'a>>)> {
        let (bytes, layout) = (self.bytes, self.layout);
        let mut next = Some(0);
        std::iter::from_fn(move || {
            let at = next.filter(|at| *at < bytes.len())?;
            let entry = Entry::first(bytes.get(at..)?, layout);
            next = entry.as_ref().map(|entry| at + entry.bytes.len());
            Some((at, entry))
        })
    }
}

impl<'a> Entry<'a> {
    fn first(bytes: &'a [u8], layout: &'a Layout) -> Option<Self> {
        let next = usize::from(u16_at(bytes, layout.target + 2)?);
        let entry = Self { bytes: bytes.get(..next)?, layout };
        let is_whole = next >= layout.matches + EXTENSION && entry.target()?.len() >= EXTENSION;
        is_whole.then_some(entry)
    }

    fn target(&self) -> Option<&'a [u8]> {
        self.bytes.get(usize::from(u16_at(self.bytes, self.layout.target)?)..)
    }

    /// The name of the chain that follows this entry.
    fn error_name(&self) -> Option<String> {
        let target = self.target()?;
        (extension_name(target) == "ERROR").then(|| text(target.get(EXTENSION..).unwrap_or_default()))
    }

    /// The rule's expressions; `None` if its layout is unknown.
    fn expressions(&self, family: TableFamily, starts: &Starts, at: usize) -> Option<Vec<Expression>> {
        let mut found = self.conditions()?;
        let end = usize::from(u16_at(self.bytes, self.layout.target)?);
        let mut from = self.layout.matches;
        while from < end {
            let length = usize::from(u16_at(self.bytes, from)?);
            let extension = self.bytes.get(from..from + length).filter(|_| length >= EXTENSION)?;
            let revision = u32::from(*extension.get(EXTENSION - 1)?);
            let info = extension.get(EXTENSION..).unwrap_or_default();
            found.extend(xtables::condition(&extension_name(extension), revision, info, family));
            from += length;
        }
        let target = self.target()?;
        let (name, info) = (extension_name(target), target.get(EXTENSION..).unwrap_or_default());
        if !name.is_empty() {
            found.extend(xtables::target(&name, u32::from(*target.get(EXTENSION - 1)?), info));
            return Some(found);
        }
        // XT_STANDARD_TARGET: -1 minus a verdict, or the offset of the next entry to evaluate.
        let verdict = info.get(..4)?.try_into().ok().map(i32::from_ne_bytes)?;
        let goto = if family == TableFamily::Ip6 { GOTO_6 } else { GOTO };
        let is_goto = self.bytes.get(self.layout.flags)? & goto != 0;
        found.push(Expression::Verdict(match (verdict, usize::try_from(verdict)) {
            (-1, _) => Verdict::Drop,
            (-2, _) => Verdict::Accept,
            (-4, _) => Verdict::Queue,
            (-5, _) => Verdict::Return,
            (_, Ok(to)) if to == at + self.bytes.len() => Verdict::Continue,
            (_, Ok(to)) => {
                let (name, _) = starts.get(&to)?;
                if is_goto { Verdict::Goto(name.clone()) } else { Verdict::Jump(name.clone()) }
            }
            _ => return None,
        }));
        Some(found)
    }

    /// The conditions on addresses, interfaces and the protocol (`struct ipt_ip`, `struct ip6t_ip6`).
    fn conditions(&self) -> Option<Vec<Expression>> {
        let Layout { address, protocol, flags, inverted, source, destination, .. } = *self.layout;
        let (flags, inverted) = (*self.bytes.get(flags)?, *self.bytes.get(inverted)?);
        let is_inverted = |bit: u8| inverted & bit != 0;
        let bytes = |at: usize, length: usize| self.bytes.get(at..at + length).map(<[u8]>::to_vec);
        let mut found = Vec::new();
        let interfaces = 4 * address;
        let masks = interfaces + 2 * INTERFACE;
        for (value, mask, field, is_not) in [
            (0, 2 * address, Field::Network(source), is_inverted(INVERTED_SOURCE)),
            (address, 3 * address, Field::Network(destination), is_inverted(INVERTED_DESTINATION)),
        ] {
            found.extend(compared(field, bytes(value, address)?, bytes(mask, address)?, is_not));
        }
        for (at, field, is_not) in [
            (0, Field::InputName, is_inverted(INVERTED_INPUT)),
            (INTERFACE, Field::OutputName, is_inverted(INVERTED_OUTPUT)),
        ] {
            let (name, mask) = (bytes(interfaces + at, INTERFACE)?, bytes(masks + at, INTERFACE)?);
            found.extend(compared(field, name, mask, is_not));
        }
        let protocol = u16_at(self.bytes, protocol)?;
        if protocol != 0 {
            let value = vec![protocol.to_le_bytes()[0]];
            found.extend(compared(Field::Protocol, value, vec![0xff], is_inverted(INVERTED_PROTOCOL)));
        }
        let is_ipv6 = address == 16;
        if (!is_ipv6 && flags & FRAGMENT != 0) || (is_ipv6 && flags & TOS_6 != 0) {
            found.push(Expression::Unclear(if is_ipv6 { "tos" } else { "fragment" }.to_owned()));
        }
        Some(found)
    }
}

/// Compares the masked bits of a field with a value; empty if the mask is empty.
fn compared(field: Field, value: Vec<u8>, mask: Vec<u8>, is_inverted: bool) -> Vec<Expression> {
    if mask.iter().all(|&byte| byte == 0) {
        return vec![];
    }
    let value = value.iter().zip(&mask).map(|(value, mask)| value & mask).collect();
    masked(field, mask, equality(is_inverted), value)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn extension_name(extension: &[u8]) -> String {
    text(extension.get(2..2 + EXTENSION_NAME).unwrap_or_default())
}

/// A string up to its NUL, control characters escaped.
fn text(bytes: &[u8]) -> String {
    let name = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rules::foreign::Backend;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_terminate_without_panic(info: [u8; 32], info_rest: [u8; 32], entries: Vec<u8>, lengths: [u8; 3]) {
            let table = Table { backend: Backend::LegacyIptables, family: TableFamily::Ip, name: "filter".to_owned() };
            let info = [info, info_rest, [0; 32]].concat();
            let _ = chains(&table, Family::Ipv4, &info, &entries);
            // An entry of sufficient length, with arbitrary offsets.
            let mut whole = vec![0; 300];
            whole.iter_mut().zip(&entries).for_each(|(to, from)| *to = *from);
            whole[88] = lengths[0];
            whole[90] = lengths[1];
            whole[112] = lengths[2];
            let _ = chains(&table, Family::Ipv4, &[0; 96], &whole);
        }
    }
}

//! Decodes the kernel's objects into our ruleset; objects that cachenat never writes become strangers.

use std::collections::BTreeMap;

use nix::libc;
use rules::ruleset::{
    Chain, Element, Elements, FORMER_TABLE_COMMENT, Flowtable, Key, Set, TABLE, TABLE_COMMENT,
};
use rules::{Actual, ForwardId};

use super::attribute::{Attributes, Fields, Malformed, shown};
use super::element::{self, Bound, Found};
use super::encode::priority;
use super::expression::Expression;
use super::lower::{interface, recognise};
use super::set::is_declared;
use super::uapi::{
    chain as chain_attr, elements, flowtable as flowtable_attr, object, rule as rule_attr, set as set_attr,
    table as table_attr,
};
use super::userdata;
use crate::kernel::{Counter, Counters};

/// The maximum number of strangers to list.
const STRANGERS: usize = 100;

/// The owner of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Us,
    Other {
        why: String,
    },
    /// The process with this netlink port.
    Process {
        port: u32,
    },
}

/// Our decoded table.
pub(super) struct Decoded {
    pub(super) actual: Actual,
    pub(super) counters: Counters,
    /// Whether no element is duplicate, and their number matches the kernel's count.
    pub(super) is_complete: bool,
}

/// Assembles our table from the kernel's messages.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    actual: Actual,
    elements: BTreeMap<Set, Vec<(Key, Element, Counter)>>,
    bounds: BTreeMap<Set, Vec<Bound>>,
    /// For each hash set, the kernel's element count minus the elements read.
    missing: BTreeMap<Set, i64>,
}

impl Decoder {
    /// `NFT_MSG_NEWTABLE`
    pub(super) fn table(&mut self, attributes: &[u8]) -> Result<Owner, Malformed> {
        let fields = Fields::<8>::parse(attributes)?;
        if let Some(port) = fields.be32(table_attr::OWNER) {
            return Ok(Owner::Process { port });
        }
        let comment = fields.get(table_attr::USERDATA).and_then(userdata::comment);
        if !comment.as_deref().is_some_and(|comment| [TABLE_COMMENT, FORMER_TABLE_COMMENT].contains(&comment))
        {
            let why = match comment {
                Some(other) => format!("its comment is \"{}\"", shown(other.as_bytes())),
                None => "it has no comment".to_owned(),
            };
            return Ok(Owner::Other { why });
        }
        match fields.be32(table_attr::FLAGS).unwrap_or(0) {
            0 => {}
            table_attr::DORMANT => self.stranger("flags dormant".to_owned()),
            flags => self.stranger(format!("table flags {flags:#x}")),
        }
        Ok(Owner::Us)
    }

    /// `NFT_MSG_NEWCHAIN`, of any table.
    pub(super) fn chain(&mut self, attributes: &[u8]) -> Result<(), Malformed> {
        let fields = Fields::<16>::parse(attributes)?;
        if fields.name(chain_attr::TABLE) != TABLE.as_bytes() {
            return Ok(());
        }
        let name = fields.name(chain_attr::NAME);
        let hook = Fields::<8>::parse(fields.get(chain_attr::HOOK).unwrap_or_default())?;
        let hook_number = hook.be32(chain_attr::HOOK_NUMBER);
        let hook_priority = hook.be32(chain_attr::HOOK_PRIORITY).map(u32::cast_signed);
        let policy = fields.be32(chain_attr::POLICY);
        let is_plain = hook.get(chain_attr::HOOK_DEVICE).is_none()
            && hook.get(chain_attr::HOOK_DEVICES).is_none()
            && fields.get(chain_attr::COUNTERS).is_none()
            && fields.get(chain_attr::USERDATA).is_none()
            && fields.be32(chain_attr::FLAGS).unwrap_or(0) & !chain_attr::BASE == 0;
        let ours = std::str::from_utf8(name).ok().and_then(Chain::from_name);
        match ours {
            Some(chain)
                if fields.name(chain_attr::TYPE) == kind_of(chain)
                    && hook_number == Some(hook_of(chain))
                    && hook_priority == Some(priority(chain))
                    && policy == Some(libc::NF_ACCEPT as u32)
                    && is_plain =>
            {
                self.actual.ruleset.chains.entry(chain).or_default();
            }
            Some(chain) => {
                self.stranger(format!("chain {chain} with another type, hook, priority, policy or comment"))
            }
            None => self.stranger(format!("chain {}", shown(name))),
        }
        Ok(())
    }

    /// `NFT_MSG_NEWSET`
    pub(super) fn set(&mut self, attributes: &[u8]) -> Result<(), Malformed> {
        let fields = Fields::<24>::parse(attributes)?;
        let flags = fields.be32(set_attr::FLAGS).unwrap_or(0);
        // An anonymous set belongs to its rule, which is a stranger itself.
        if fields.name(set_attr::TABLE) != TABLE.as_bytes() || flags & libc::NFT_SET_ANONYMOUS as u32 != 0 {
            return Ok(());
        }
        let name = fields.name(set_attr::NAME);
        match std::str::from_utf8(name).ok().and_then(Set::from_name) {
            Some(set) if is_declared(set, &fields)? => {
                self.actual.ruleset.sets.insert(set, BTreeMap::new());
                // Interval sets, which are not hashes, count ranges or bounds, depending on the backend.
                let count = fields.be32(set_attr::COUNT).filter(|_| !set.is_interval());
                self.missing.extend(count.map(|count| (set, i64::from(count))));
            }
            Some(set) => self.stranger(format!("{} {set} with another type or other flags", set.keyword())),
            None if flags & libc::NFT_SET_MAP as u32 != 0 => self.stranger(format!("map {}", shown(name))),
            None => self.stranger(format!("set {}", shown(name))),
        }
        Ok(())
    }

    /// The sets whose declaration matches ours, and whose elements must be read.
    pub(super) fn sets(&self) -> Vec<Set> {
        self.actual.ruleset.sets.keys().copied().collect()
    }

    /// `NFT_MSG_NEWSETELEM`, of `set`.
    pub(super) fn elements(&mut self, set: Set, attributes: &[u8]) -> Result<(), Malformed> {
        let list = Fields::<4>::parse(attributes)?.get(elements::LIST).unwrap_or_default();
        for element in Attributes(list) {
            let found = element::parse(set, element?.value)?;
            if let Some(missing) = self.missing.get_mut(&set).filter(|_| found != Found::CatchAll) {
                *missing -= 1;
            }
            match found {
                Found::Element(key, element, counter) => {
                    self.elements.entry(set).or_default().push((key, element, counter));
                }
                Found::Bound(bound) => self.bounds.entry(set).or_default().push(bound),
                Found::CatchAll => self.stranger(format!("element * in {} {set}", set.keyword())),
                Found::Stranger => {
                    self.stranger(format!("an element of another kind in {} {set}", set.keyword()))
                }
            }
        }
        Ok(())
    }

    /// `NFT_MSG_NEWRULE`
    pub(super) fn rule(&mut self, attributes: &[u8]) -> Result<(), Malformed> {
        let fields = Fields::<16>::parse(attributes)?;
        if fields.name(rule_attr::TABLE) != TABLE.as_bytes() {
            return Ok(());
        }
        let name = fields.name(rule_attr::CHAIN);
        let chain = std::str::from_utf8(name).ok().and_then(Chain::from_name);
        // A rule in a foreign chain is removed together with the chain.
        let Some(rules) = chain.and_then(|chain| self.actual.ruleset.chains.get_mut(&chain)) else {
            return Ok(());
        };
        let expressions = Expression::parse_list(fields.get(rule_attr::EXPRESSIONS).unwrap_or_default())?;
        let bare = fields.get(rule_attr::USERDATA).is_none() && fields.get(rule_attr::COMPAT).is_none();
        match expressions.filter(|_| bare).and_then(|expressions| recognise(&expressions)) {
            Some(rule) => rules.push(rule),
            None => {
                let handle = fields.be64(rule_attr::HANDLE).unwrap_or(0);
                self.stranger(format!("rule handle {handle} in chain {}", shown(name)));
            }
        }
        Ok(())
    }

    /// `NFT_MSG_NEWOBJ`
    pub(super) fn object(&mut self, attributes: &[u8]) -> Result<(), Malformed> {
        let fields = Fields::<8>::parse(attributes)?;
        // The keywords of nft(8).
        let kind = match fields.be32(object::TYPE) {
            Some(object::COUNTER) => "counter",
            Some(object::QUOTA) => "quota",
            Some(object::CT_HELPER) => "ct helper",
            Some(object::LIMIT) => "limit",
            Some(object::CT_TIMEOUT) => "ct timeout",
            Some(object::SECMARK) => "secmark",
            Some(object::CT_EXPECT) => "ct expectation",
            Some(object::SYNPROXY) => "synproxy",
            _ => "object",
        };
        self.named_stranger(kind, &fields);
        Ok(())
    }

    /// `NFT_MSG_NEWFLOWTABLE`
    pub(super) fn flowtable(&mut self, attributes: &[u8]) -> Result<(), Malformed> {
        let fields = Fields::<8>::parse(attributes)?;
        let hook = Fields::<4>::parse(fields.get(flowtable_attr::HOOK).unwrap_or_default())?;
        let mut devices = Attributes(hook.get(flowtable_attr::HOOK_DEVICES).unwrap_or_default());
        // A flowtable whose device was removed has no devices.
        let device = devices.next().transpose()?.filter(|device| device.kind == flowtable_attr::DEVICE_NAME);
        let ours = fields.name(flowtable_attr::TABLE) == TABLE.as_bytes()
            && fields.name(flowtable_attr::NAME) == Flowtable::NAME.as_bytes()
            && fields.be32(flowtable_attr::FLAGS).unwrap_or(0) == 0
            && hook.be32(flowtable_attr::HOOK_NUMBER) == Some(flowtable_attr::INGRESS)
            && hook.be32(flowtable_attr::HOOK_PRIORITY) == Some(flowtable_attr::FILTER);
        let interface = device.and_then(|device| interface(device.value));
        match interface.filter(|_| ours && devices.next().is_none()) {
            Some(interface) => self.actual.ruleset.flowtable = Some(Flowtable { interface }),
            None => self.named_stranger("flowtable", &fields),
        }
        Ok(())
    }

    fn named_stranger(&mut self, kind: &str, fields: &Fields<'_, 8>) {
        if fields.name(object::TABLE) == TABLE.as_bytes() {
            self.stranger(format!("{kind} {}", shown(fields.name(object::NAME))));
        }
    }

    fn stranger(&mut self, what: String) {
        let strangers = &mut self.actual.strangers;
        // List each kind of stranger once, and no more than a screenful.
        if strangers.len() < STRANGERS && !strangers.contains(&what) {
            strangers.push(what);
        }
    }

    /// The table, after the last message.
    ///
    /// After many insertions a hash table grows in the background, within one generation. Meanwhile a dump may contain some
    /// elements twice and others not at all (`rhashtable_walk_next` returns `EAGAIN`, and `nft_rhash_walk` continues,
    /// `net/netfilter/nft_set_hash.c`). On kernels that do not report the count, this can go undetected.
    pub(super) fn finish(mut self) -> Decoded {
        let mut is_complete = true;
        for (set, missing) in std::mem::take(&mut self.missing) {
            if missing != 0 {
                is_complete = false;
                self.stranger(format!("elements that the kernel does not list in {} {set}", set.keyword()));
            }
        }
        for (set, bounds) in std::mem::take(&mut self.bounds) {
            match element::ranges(set.family, bounds) {
                Some(mut ranges) => {
                    ranges.retain(|key, element| self.is_nameable(set, key, element));
                    self.actual.ruleset.sets.insert(set, ranges);
                }
                None => self.stranger(format!("set {set} with intervals that do not pair up")),
            }
        }
        // Collect first: extending a BTreeMap inserts one by one, which leaves its nodes half empty.
        let mut counters = Vec::new();
        for (set, mut read) in std::mem::take(&mut self.elements) {
            // Building a BTreeMap is fastest from sorted keys; the kernel's order is that of its hash.
            read.sort_unstable_by_key(|&(key, ..)| key);
            let count = read.len();
            read.dedup_by_key(|&mut (key, ..)| key);
            is_complete &= read.len() == count;
            read.retain(|(key, element, _)| self.is_nameable(set, key, element));
            if set.is_map() {
                counters.extend(read.iter().map(|&(key, _, counter)| ((set, key), counter)));
            }
            let elements: Elements = read.into_iter().map(|(key, element, _)| (key, element)).collect();
            self.actual.ruleset.sets.insert(set, elements);
        }
        Decoded { actual: self.actual, counters: counters.into_iter().collect(), is_complete }
    }

    /// Whether cachenat could have written the element's comment; otherwise the element is a stranger.
    fn is_nameable(&mut self, set: Set, key: &Key, element: &Element) -> bool {
        let Some(comment) = element.comment.as_deref().filter(|comment| !ForwardId::is_valid(comment)) else {
            return true;
        };
        let comment = shown(comment.as_bytes());
        self.stranger(format!("element {key} comment \"{comment}\" in {} {set}", set.keyword()));
        false
    }
}

const fn kind_of(chain: Chain) -> &'static [u8] {
    match chain {
        Chain::Prerouting | Chain::Postrouting => b"nat",
        Chain::Confine | Chain::Input | Chain::Forward => b"filter",
    }
}

const fn hook_of(chain: Chain) -> u32 {
    match chain {
        Chain::Prerouting | Chain::Confine => libc::NF_INET_PRE_ROUTING as u32,
        Chain::Input => libc::NF_INET_LOCAL_IN as u32,
        Chain::Forward => libc::NF_INET_FORWARD as u32,
        Chain::Postrouting => libc::NF_INET_POST_ROUTING as u32,
    }
}

#[cfg(test)]
mod tests;

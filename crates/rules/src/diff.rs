//! What separates the ruleset in the kernel from the one that is wanted.
//!
//! [`RulesetDiff`] is the one value that `diff` prints and `apply` carries out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};

use smol_str::SmolStr;

use crate::ruleset::{
    AddrPort, Chain, Element, Elements, Flowtable, Key, Rule, Ruleset, Set, SetKind, TABLE,
};
use crate::text::ElementText;
use crate::transaction::{Operation, Transaction};

/// The table as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actual {
    /// What of it is in our vocabulary.
    pub ruleset: Ruleset,
    /// Everything else that somebody put into our table, each in nft's words (`chain forward`, `rule handle 7 in
    /// chain prerouting`); while there is any, only replacing the table as a whole gets it right.
    pub strangers: Vec<String>,
}

/// What is to happen to the table itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TableChange {
    /// It stays, and what is in it is changed piece by piece; untouched elements keep counters and handles.
    #[default]
    Keep,
    /// It is not there yet.
    Create,
    /// It is built anew in one transaction, because there are strangers in it.
    Replace {
        /// What somebody else put there.
        strangers: Vec<String>,
        /// What is built.
        whole: Ruleset,
    },
    /// It goes.
    Delete,
}

/// The elements that leave a set and those that enter it; an element that changes is in both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetChange {
    /// In the kernel, and not wanted so.
    pub removed: Elements,
    /// Wanted, and not in the kernel so.
    pub added: Elements,
}

/// The rules of a chain before and after; in an nft chain order matters, so they change as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainChange {
    /// The rules in the kernel.
    pub removed: Vec<Rule>,
    /// The rules that are wanted.
    pub added: Vec<Rule>,
}

/// The difference between two rulesets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RulesetDiff {
    /// What happens to the table.
    pub table: TableChange,
    /// Sets that appear.
    pub new_sets: BTreeSet<Set>,
    /// Sets that go.
    pub old_sets: BTreeSet<Set>,
    /// The flowtable that appears.
    pub new_flowtable: Option<Flowtable>,
    /// The flowtable that goes; one that gets another device is in both.
    pub old_flowtable: Option<Flowtable>,
    /// Chains that appear.
    pub new_chains: BTreeSet<Chain>,
    /// Chains that go.
    pub old_chains: BTreeSet<Chain>,
    /// The sets with other elements than before.
    pub sets: BTreeMap<Set, SetChange>,
    /// Of listeners with several targets, of which one changes: the others, for those who want to see where they lead.
    pub staying: Vec<(Key, Element)>,
    /// The chains with other rules than before.
    pub chains: BTreeMap<Chain, ChainChange>,
}

/// Compares the kernel's table (`None`: there is none) with the one that is wanted (`None`: it shall go).
pub fn diff(actual: Option<&Actual>, desired: Option<&Ruleset>) -> RulesetDiff {
    let nothing = Ruleset::default();
    let before = actual.map_or(&nothing, |actual| &actual.ruleset);
    let after = desired.unwrap_or(&nothing);
    let other_flowtable = before.flowtable != after.flowtable;
    let table = match (actual, desired) {
        (None, None) => TableChange::Keep,
        (None, Some(_)) => TableChange::Create,
        (Some(_), None) => TableChange::Delete,
        (Some(actual), Some(_)) if actual.strangers.is_empty() => TableChange::Keep,
        (Some(Actual { strangers, .. }), Some(whole)) => {
            TableChange::Replace { strangers: strangers.clone(), whole: whole.clone() }
        }
    };
    let sets = changed_sets(before, after);
    RulesetDiff {
        table,
        new_sets: after.sets.keys().filter(|set| !before.sets.contains_key(set)).copied().collect(),
        old_sets: before.sets.keys().filter(|set| !after.sets.contains_key(set)).copied().collect(),
        new_flowtable: after.flowtable.clone().filter(|_| other_flowtable),
        old_flowtable: before.flowtable.clone().filter(|_| other_flowtable),
        new_chains: after.chains.keys().filter(|chain| !before.chains.contains_key(chain)).copied().collect(),
        old_chains: before.chains.keys().filter(|chain| !after.chains.contains_key(chain)).copied().collect(),
        staying: staying(before, after, &sets),
        sets,
        chains: changed_chains(before, after, other_flowtable),
    }
}

fn changed_sets(before: &Ruleset, after: &Ruleset) -> BTreeMap<Set, SetChange> {
    let none = Elements::new();
    let names: BTreeSet<Set> = before.sets.keys().chain(after.sets.keys()).copied().collect();
    let change = |set: Set| {
        let (old, new) = (before.sets.get(&set).unwrap_or(&none), after.sets.get(&set).unwrap_or(&none));
        let change = SetChange { removed: lacking(old, new), added: lacking(new, old) };
        (change != SetChange::default()).then_some((set, change))
    };
    names.into_iter().filter_map(change).collect()
}

/// The elements that stay of listeners of which another changes: those have several targets before or after.
fn staying(before: &Ruleset, after: &Ruleset, changed: &BTreeMap<Set, SetChange>) -> Vec<(Key, Element)> {
    let spreads = |set: &Set| matches!(set.kind, SetKind::Spread(..));
    if !before.sets.keys().chain(after.sets.keys()).any(spreads) {
        return vec![];
    }
    let changed = changed.iter().filter(|(set, _)| set.is_map()).map(|(_, change)| change);
    let listeners: BTreeSet<&Key> =
        changed.flat_map(|change| change.removed.keys().chain(change.added.keys())).collect();
    let maps = before.sets.iter().filter(|(set, _)| set.is_map());
    maps.filter_map(|(set, old)| Some((old, after.sets.get(set)?)))
        .flat_map(|(old, new)| {
            listeners.iter().filter_map(move |&key| Some((key, old.get(key)?, new.get(key)?)))
        })
        .filter(|(_, old, new)| old == new)
        .map(|(&key, element, _)| (key, element.clone()))
        .collect()
}

/// The elements that `these` have and `those` have not, or not so. Both are in order, so one walk along them finds out.
pub(crate) fn lacking(these: &Elements, those: &Elements) -> Elements {
    let mut those = those.iter().peekable();
    let lacks = |(key, element): &(&Key, &Element)| {
        while those.next_if(|(other, _)| other < key).is_some() {}
        those.next_if(|(other, _)| other == key).is_none_or(|(_, other)| other != *element)
    };
    these.iter().filter(lacks).map(|(&key, element)| (key, element.clone())).collect()
}

/// A rule that adds flows to a flowtable is made anew with it, also where it reads the same.
fn changed_chains(before: &Ruleset, after: &Ruleset, other_flowtable: bool) -> BTreeMap<Chain, ChainChange> {
    let names: BTreeSet<Chain> = before.chains.keys().chain(after.chains.keys()).copied().collect();
    let rules = |ruleset: &Ruleset, chain| ruleset.chains.get(&chain).cloned().unwrap_or_default();
    names
        .into_iter()
        .map(|chain| (chain, ChainChange { removed: rules(before, chain), added: rules(after, chain) }))
        .filter(|(_, ChainChange { removed, added })| {
            removed != added || (other_flowtable && removed.iter().any(Rule::offloads))
        })
        .collect()
}

impl RulesetDiff {
    /// Whether the two rulesets are the same.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The operations that turn the one ruleset into the other.
    pub fn transaction(&self) -> Transaction {
        let mut operations = Vec::new();
        match &self.table {
            TableChange::Keep => self.piecewise(&mut operations),
            TableChange::Create => {
                operations.push(Operation::AddTable);
                self.piecewise(&mut operations);
            }
            TableChange::Delete => operations.push(Operation::DeleteTable),
            TableChange::Replace { whole, .. } => {
                operations.extend([Operation::DeleteTable, Operation::AddTable]);
                diff(Some(&Actual::default()), Some(whole)).piecewise(&mut operations);
            }
        }
        Transaction { operations }
    }

    fn piecewise(&self, operations: &mut Vec<Operation>) {
        // Rules hold on to their sets and their flowtable (EBUSY), so old rules go before those, and those come before
        // new rules.
        operations.extend(
            self.chains.iter().filter(|(_, c)| !c.removed.is_empty()).map(|(&c, _)| Operation::FlushChain(c)),
        );
        operations.extend(self.old_chains.iter().map(|&chain| Operation::DeleteChain(chain)));
        operations.extend(self.old_sets.iter().map(|&set| Operation::DeleteSet(set)));
        operations.extend(self.old_flowtable.iter().map(|_| Operation::DeleteFlowtable));
        operations.extend(self.new_flowtable.iter().cloned().map(Operation::AddFlowtable));
        operations.extend(self.new_sets.iter().map(|&set| Operation::AddSet(set)));
        for (&set, change) in self.sets.iter().filter(|(set, _)| !self.old_sets.contains(set)) {
            operations.extend(change.removed.keys().map(|&key| Operation::DeleteElement(set, key)));
            operations.extend(
                change.added.iter().map(|(&k, element)| Operation::AddElement(set, k, element.clone())),
            );
        }
        operations.extend(self.new_chains.iter().map(|&chain| Operation::AddChain(chain)));
        for (&chain, change) in &self.chains {
            operations.extend(change.added.iter().map(|rule| Operation::AddRule(chain, rule.clone())));
        }
    }

    /// What the changes mean for clients, by listener.
    pub fn forwards(&self) -> Vec<ForwardChange> {
        let maps = self.sets.iter().filter(|(set, _)| set.is_map()).map(|(_, change)| change);
        let sides = maps.flat_map(|change| [(&change.removed, false), (&change.added, true)]);
        let changed = sides.flat_map(|(elements, is_new)| elements.iter().map(move |one| (one, is_new)));
        let staying = self
            .staying
            .iter()
            .flat_map(|(key, element)| [false, true].map(|is_new| ((key, element), is_new)));
        let mut map_entries: Vec<MapEntry<'_>> =
            changed.chain(staying).filter_map(|(element, is_new)| MapEntry::of(element, is_new)).collect();
        map_entries.sort_by_key(|entry| (entry.listen, entry.is_new));
        let listeners = map_entries.chunk_by(|one, other| one.listen == other.listen);
        listeners
            .flat_map(|map_entries| {
                let (from, to) = map_entries.split_at(map_entries.partition_point(|entry| !entry.is_new));
                ForwardChange::between(from, to)
            })
            .collect()
    }
}

/// One element of a map: a listener, what it is called and where it leads.
struct MapEntry<'a> {
    listen: AddrPort,
    id: Option<&'a SmolStr>,
    target: AddrPort,
    /// Whether it is added, or else removed.
    is_new: bool,
}

impl<'a> MapEntry<'a> {
    fn of((key, element): (&'a Key, &'a Element), is_new: bool) -> Option<Self> {
        let Key::AddrPort(listen) = *key else { return None };
        Some(Self { listen, id: element.comment.as_ref(), target: element.data?, is_new })
    }
}

/// What happens to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It appears.
    Add,
    /// It goes.
    Remove,
    /// It leads elsewhere.
    Move,
    /// It leads where it led; something else about it changes.
    Update,
}

/// What the changes mean for one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardChange {
    /// What happens to it.
    pub action: Action,
    /// The id of what it leads to.
    pub id: SmolStr,
    /// The address and port that clients connect to.
    pub listen: AddrPort,
    /// Where it led; empty if it is new.
    pub from: Vec<AddrPort>,
    /// Where it will lead; empty if it goes.
    pub to: Vec<AddrPort>,
}

impl ForwardChange {
    /// What happens to one listener.
    fn between(from: &[MapEntry<'_>], to: &[MapEntry<'_>]) -> Vec<Self> {
        let targets = |map_entries: &[MapEntry<'_>]| {
            let mut targets: Vec<AddrPort> = map_entries.iter().map(|entry| entry.target).collect();
            targets.sort_unstable();
            targets.dedup();
            targets
        };
        let change = |action, entry: &MapEntry<'_>, from, to| {
            let id = entry.id.cloned().unwrap_or_default();
            Self { action, id, listen: entry.listen, from, to }
        };
        match (from.first(), to.first()) {
            (None, None) => vec![],
            (None, Some(new)) => vec![change(Action::Add, new, vec![], targets(to))],
            (Some(old), None) => vec![change(Action::Remove, old, targets(from), vec![])],
            // A port that passes from one node to another is two events for those who use it.
            (Some(old), Some(new)) if old.id != new.id => vec![
                change(Action::Remove, old, targets(from), vec![]),
                change(Action::Add, new, vec![], targets(to)),
            ],
            (Some(_), Some(new)) => {
                let (from, to) = (targets(from), targets(to));
                let action = if from == to { Action::Update } else { Action::Move };
                vec![change(action, new, from, to)]
            }
        }
    }
}

/// Targets as one text: `10.0.1.230:6379`, several joined by `, `.
pub fn targets(endpoints: &[AddrPort]) -> String {
    endpoints.iter().map(AddrPort::to_string).collect::<Vec<_>>().join(", ")
}

/// `move my-cluster-001 10.0.0.55:6379 from 10.0.1.230:6379 to 10.0.1.240:6379`
impl Display for ForwardChange {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { id, listen, .. } = self;
        let (from, to) = (targets(&self.from), targets(&self.to));
        match self.action {
            Action::Add => write!(f, "add {id} {listen} to {to}"),
            Action::Remove => write!(f, "remove {id} {listen}, which led to {from}"),
            Action::Move => write!(f, "move {id} {listen} from {from} to {to}"),
            Action::Update => write!(f, "update {id} {listen} to {to}"),
        }
    }
}

/// The changes in nft syntax, each line behind `-`, `+` or a blank.
impl Display for RulesetDiff {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return Ok(());
        }
        match &self.table {
            TableChange::Keep => writeln!(f, "  table inet {TABLE}")?,
            TableChange::Create => writeln!(f, "+ table inet {TABLE}")?,
            TableChange::Delete => writeln!(f, "- table inet {TABLE}")?,
            TableChange::Replace { strangers, .. } => {
                writeln!(f, "  table inet {TABLE}")?;
                for stranger in strangers {
                    writeln!(f, "-     {stranger}")?;
                }
            }
        }
        let names: BTreeSet<Set> =
            self.sets.keys().chain(&self.new_sets).chain(&self.old_sets).copied().collect();
        for set in names {
            let sign = sign(self.new_sets.contains(&set), self.old_sets.contains(&set));
            writeln!(f, "{sign}     {} {set}", set.keyword())?;
            if let Some(change) = self.sets.get(&set) {
                write_elements(f, change)?;
            }
        }
        for (sign, flowtable) in [('-', &self.old_flowtable), ('+', &self.new_flowtable)] {
            if let Some(flowtable) = flowtable {
                writeln!(f, "{sign}     flowtable {}", Flowtable::NAME)?;
                for line in flowtable.declaration() {
                    writeln!(f, "{sign}         {line}")?;
                }
            }
        }
        let names: BTreeSet<Chain> =
            self.chains.keys().chain(&self.new_chains).chain(&self.old_chains).copied().collect();
        for chain in names {
            let sign = sign(self.new_chains.contains(&chain), self.old_chains.contains(&chain));
            writeln!(f, "{sign}     chain {chain}")?;
            if let Some(ChainChange { removed, added }) = self.chains.get(&chain) {
                // Rules that stay would only hide the ones that change; if it is their order that changes, all show.
                let reordered =
                    removed.iter().all(|rule| added.contains(rule)) && removed.len() == added.len();
                for rule in removed.iter().filter(|rule| reordered || !added.contains(rule)) {
                    writeln!(f, "-         {rule}")?;
                }
                for rule in added.iter().filter(|rule| reordered || !removed.contains(rule)) {
                    writeln!(f, "+         {rule}")?;
                }
            }
        }
        Ok(())
    }
}

const fn sign(new: bool, old: bool) -> char {
    match (new, old) {
        (true, _) => '+',
        (_, true) => '-',
        _ => ' ',
    }
}

fn write_elements(f: &mut Formatter<'_>, change: &SetChange) -> fmt::Result {
    let keys: BTreeSet<&Key> = change.removed.keys().chain(change.added.keys()).collect();
    for key in keys {
        if let Some(element) = change.removed.get(key) {
            writeln!(f, "-         {}", ElementText(key, element))?;
        }
        if let Some(element) = change.added.get(key) {
            writeln!(f, "+         {}", ElementText(key, element))?;
        }
    }
    Ok(())
}

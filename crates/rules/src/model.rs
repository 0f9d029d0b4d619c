//! What the kernel makes of a transaction, without a kernel.

use crate::ruleset::{Element, Key, Rule, Ruleset, Set};
use crate::transaction::{Operation, Transaction};

/// How an operation fails on a given state; the words of the kernel's errno (errno(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `ENOENT`: what the operation speaks of is not there.
    #[error("no such object (ENOENT)")]
    Missing,
    /// `EEXIST`: it is there already, with other content.
    #[error("object exists (EEXIST)")]
    Exists,
    /// `EBUSY`: a rule or a chain still holds it.
    #[error("object is in use (EBUSY)")]
    Busy,
    /// `EINVAL`: an element that does not fit its set.
    #[error("invalid element (EINVAL)")]
    Invalid,
}

/// Carries `transaction` out on a ruleset as the kernel would: all of it, or nothing and the index of the operation
/// that is refused.
///
/// `None` stands for "no table". Kernel side: `nf_tables_newsetelem` and its siblings, `net/netfilter/nf_tables_api.c`.
///
/// # Errors
///
/// The index of the refused operation, and why it is refused.
pub fn carry_out(
    before: Option<&Ruleset>,
    transaction: &Transaction,
) -> Result<Option<Ruleset>, (usize, Refusal)> {
    let mut state = before.cloned();
    for (index, operation) in transaction.operations.iter().enumerate() {
        step(&mut state, operation).map_err(|refusal| (index, refusal))?;
    }
    Ok(state)
}

fn step(state: &mut Option<Ruleset>, operation: &Operation) -> Result<(), Refusal> {
    use Refusal::{Busy, Exists, Invalid, Missing};
    if matches!(operation, Operation::AddTable) {
        state.get_or_insert_default();
        return Ok(());
    }
    if matches!(operation, Operation::DeleteTable) {
        return state.take().map(drop).ok_or(Missing);
    }
    let table = state.as_mut().ok_or(Missing)?;
    match operation {
        Operation::AddTable | Operation::DeleteTable => {}
        Operation::AddSet(set) => drop(table.sets.entry(*set).or_default()),
        Operation::DeleteSet(set) => {
            if table.chains.values().flatten().any(|rule| rule.sets().contains(set)) {
                return Err(Busy);
            }
            table.sets.remove(set).ok_or(Missing)?;
        }
        Operation::AddElement(set, key, element) => {
            if !fits(*set, key, element) {
                return Err(Invalid);
            }
            let elements = table.sets.get_mut(set).ok_or(Missing)?;
            match elements.get(key) {
                Some(there) if there.data != element.data => return Err(Exists),
                Some(_) => {}
                None if set.is_interval() && elements.keys().any(|other| overlap(other, key)) => {
                    return Err(Exists);
                }
                None => drop(elements.insert(*key, element.clone())),
            }
        }
        Operation::DeleteElement(set, key) => {
            table.sets.get_mut(set).ok_or(Missing)?.remove(key).ok_or(Missing)?;
        }
        // To one that is there the kernel would add another device; no diff asks for that.
        Operation::AddFlowtable(_) if table.flowtable.is_some() => return Err(Exists),
        Operation::AddFlowtable(flowtable) => table.flowtable = Some(flowtable.clone()),
        Operation::DeleteFlowtable => {
            if table.chains.values().flatten().any(Rule::offloads) {
                return Err(Busy);
            }
            table.flowtable.take().ok_or(Missing)?;
        }
        Operation::AddChain(chain) => drop(table.chains.entry(*chain).or_default()),
        Operation::DeleteChain(chain) => match table.chains.get(chain) {
            None => return Err(Missing),
            Some(rules) if !rules.is_empty() => return Err(Busy),
            Some(_) => drop(table.chains.remove(chain)),
        },
        Operation::FlushChain(chain) => table.chains.get_mut(chain).ok_or(Missing)?.clear(),
        Operation::AddRule(chain, rule) => {
            let lacks_set = rule.sets().iter().any(|set| !table.sets.contains_key(set));
            if lacks_set || (rule.offloads() && table.flowtable.is_none()) {
                return Err(Missing);
            }
            table.chains.get_mut(chain).ok_or(Missing)?.push(rule.clone());
        }
    }
    Ok(())
}

fn fits(set: Set, key: &Key, element: &Element) -> bool {
    let is_of_addresses = matches!(key, Key::Addresses(_));
    is_of_addresses == set.is_interval() && element.data.is_some() == set.is_map()
}

/// Whether two different keys cover a common value, which an interval set refuses.
fn overlap(one: &Key, other: &Key) -> bool {
    match (one, other) {
        (Key::Addresses(one), Key::Addresses(other)) => {
            one.contains(other.first()) || other.contains(one.first())
        }
        _ => false,
    }
}

//! Encodes a transaction as one batch of messages.

use std::ffi::CString;

use nftnl::{Batch, ChainType, FinalizedBatch, Hook, MsgType, Policy, ProtoFamily};
use nix::libc;
use rules::ruleset::{Chain, Flowtable, Rule, Set, TABLE, TABLE_COMMENT};
use rules::{Operation, Transaction};

use super::attribute::Writer;
use super::ffi::{Quiet, Raw};
use super::lower::lower;
use super::message::{build, build_in_table};
use super::uapi::{
    batch, chain as chain_attr, elements, flowtable as flowtable_attr, message, set as set_attr, table,
};
use super::{element, set, userdata};
use crate::kernel::Generation;

/// The size at which a list of elements is full, in bytes: an attribute's length has 16 bits, and an element is smaller
/// than 400 bytes.
const LIST_LIMIT: usize = 60_000;

/// A batch to send, and the operations in its messages.
pub(super) struct Encoded {
    /// BEGIN with the expected generation.
    begin: Vec<u8>,
    batch: FinalizedBatch,
    /// For each message after BEGIN, the index of its first operation.
    firsts: Vec<usize>,
    /// The sequence number of BEGIN; later messages count up from it.
    sequence: u32,
}

/// Encodes `transaction`, which the kernel applies only at `generation`; sequence numbers start at `sequence`.
pub(super) fn encode(transaction: &Transaction, generation: Generation, sequence: u32) -> Encoded {
    let mut batch = Batch::new();
    let mut firsts = Vec::new();
    let mut rest = transaction.operations.as_slice();
    while let Some(operation) = rest.first() {
        firsts.push(transaction.operations.len() - rest.len());
        let number = sequence.wrapping_add(u32::try_from(firsts.len()).unwrap_or(u32::MAX));
        let done = match operation {
            Operation::AddElement(..) | Operation::DeleteElement(..) => {
                let Packed { message, ends } = pack(rest, number);
                batch.add(&Raw::new(&message), MsgType::Add);
                ends.len()
            }
            operation => {
                add(&mut batch, operation, number);
                1
            }
        };
        rest = rest.get(done..).unwrap_or_default();
    }
    Encoded { begin: begin(generation, sequence), batch: batch.finalize(), firsts, sequence }
}

impl Encoded {
    /// The bytes to send, in pieces. Replaces nftnl's BEGIN, which has no generation.
    pub(super) fn pieces(&self) -> Vec<&[u8]> {
        let mut pages = self.batch.iter();
        let first = pages.next().and_then(|page| page.get(super::message::BATCH..)).unwrap_or_default();
        [self.begin.as_slice(), first].into_iter().chain(pages).collect()
    }

    /// Changes the expected generation.
    pub(super) fn guard(&mut self, generation: Generation) {
        self.begin = begin(generation, self.sequence);
    }

    /// The number of sequence numbers used.
    pub(super) fn numbers(&self) -> u32 {
        u32::try_from(self.firsts.len()).unwrap_or(u32::MAX).saturating_add(2)
    }

    /// Whether `sequence` belongs to BEGIN or a message after it.
    pub(super) fn contains(&self, sequence: u32) -> bool {
        sequence.wrapping_sub(self.sequence) as usize <= self.firsts.len()
    }

    /// Whether END requests an acknowledgement, which the kernel supports since Linux 6.10.
    pub(super) fn is_acknowledged(&self) -> bool {
        // nftnl numbers BEGIN and END only if it requests one.
        self.batch.sequence_numbers().len() == self.firsts.len() + 2
    }

    /// The index of the operation that the kernel's verdict on message `sequence` refers to; `None` if it refers to the
    /// entire batch.
    ///
    /// `offset` is the position of the error in the message. Without it, the result for a message with several elements is
    /// the first.
    pub(super) fn operation(
        &self,
        transaction: &Transaction,
        sequence: u32,
        offset: Option<u32>,
    ) -> Option<usize> {
        let message = sequence.wrapping_sub(self.sequence).checked_sub(1)? as usize;
        let first = *self.firsts.get(message)?;
        let operations = transaction.operations.get(first..)?;
        let within = match (operations.first()?, offset) {
            (Operation::AddElement(..) | Operation::DeleteElement(..), Some(offset)) => {
                pack(operations, sequence).ends.partition_point(|&end| end <= offset as usize)
            }
            _ => 0,
        };
        Some(first + within)
    }
}

/// Builds BEGIN with `NFNL_BATCH_GENID`: at any other generation the kernel answers `ERESTART` and applies nothing.
fn begin(generation: Generation, sequence: u32) -> Vec<u8> {
    let mut message = build(0, 0, sequence, |writer| writer.be32(batch::GENID, generation.0));
    // BEGIN has a type of its own, and its `struct nfgenmsg` has the subsystem instead of a family.
    if let Some(slot) = message.get_mut(4..6) {
        slot.copy_from_slice(&(libc::NFNL_MSG_BATCH_BEGIN as u16).to_ne_bytes());
    }
    if let Some(slot) = message.get_mut(16..20) {
        slot.copy_from_slice(&[0, 0, 0, libc::NFNL_SUBSYS_NFTABLES as u8]);
    }
    message
}

/// A message with several operations on one set.
struct Packed {
    message: Vec<u8>,
    /// For each operation, the offset where its elements end.
    ends: Vec<usize>,
}

/// Packs the first of `operations`, which must be on an element, and the following ones of the same kind on the same
/// set.
fn pack(operations: &[Operation], sequence: u32) -> Packed {
    let mut ends = Vec::new();
    let Some((kind, flags, set)) = operations.first().and_then(on_element) else {
        return Packed { message: Vec::new(), ends };
    };
    let message = build_in_table(kind, flags, sequence, |writer| {
        writer.name(elements::SET, &set.name());
        writer.nest(elements::LIST, |writer| {
            let start = writer.0.len();
            for operation in operations {
                if on_element(operation) != Some((kind, flags, set)) || writer.0.len() - start > LIST_LIMIT {
                    break;
                }
                put_element(writer, operation);
                ends.push(writer.0.len());
            }
        });
    });
    Packed { message, ends }
}

fn on_element(operation: &Operation) -> Option<(u8, i32, Set)> {
    match operation {
        Operation::AddElement(set, ..) => Some((message::NEWSETELEM, libc::NLM_F_CREATE, *set)),
        Operation::DeleteElement(set, ..) => Some((message::DELSETELEM, 0, *set)),
        _ => None,
    }
}

fn put_element(writer: &mut Writer, operation: &Operation) {
    match operation {
        Operation::AddElement(_, key, element) => element::put(writer, key, Some(element)),
        Operation::DeleteElement(_, key) => element::put(writer, key, None),
        _ => {}
    }
}

/// Adds the message for an operation on any object except an element.
fn add(batch: &mut Batch, operation: &Operation, sequence: u32) {
    let table = our_table();
    match operation {
        Operation::AddTable => add_raw(batch, &add_table(sequence)),
        Operation::DeleteTable => batch.add(&Quiet { message: &table, sequence }, MsgType::Del),
        Operation::AddSet(set) => add_raw(batch, &add_set(*set, sequence)),
        Operation::DeleteSet(set) => add_raw(batch, &delete_set(*set, sequence)),
        Operation::AddFlowtable(flowtable) => add_raw(batch, &add_flowtable(flowtable, sequence)),
        Operation::DeleteFlowtable => add_raw(batch, &delete_flowtable(sequence)),
        Operation::AddChain(chain) => {
            batch.add(&Quiet { message: &declared(*chain, &table), sequence }, MsgType::Add);
        }
        Operation::DeleteChain(chain) => add_raw(batch, &delete_chain(*chain, sequence)),
        Operation::FlushChain(chain) => {
            // Deleting a rule without handle and expressions deletes all rules of its chain.
            let chain = named(*chain, &table);
            batch.add(&Quiet { message: &nftnl::Rule::new(&chain), sequence }, MsgType::Del);
        }
        Operation::AddRule(chain, rule) => {
            let chain = named(*chain, &table);
            batch.add(&Quiet { message: &lowered(rule, &chain), sequence }, MsgType::Add);
        }
        Operation::AddElement(..) | Operation::DeleteElement(..) => {
            add_raw(batch, &pack(std::slice::from_ref(operation), sequence).message);
        }
    }
}

fn add_raw(batch: &mut Batch, message: &[u8]) {
    batch.add(&Raw::new(message), MsgType::Add);
}

fn our_table() -> nftnl::Table {
    nftnl::Table::new(c_string(TABLE), ProtoFamily::Inet)
}

/// `add table inet cachenat { comment "..."; }`; nftnl does not support userdata of tables.
fn add_table(sequence: u32) -> Vec<u8> {
    build_in_table(message::NEWTABLE, libc::NLM_F_CREATE, sequence, |writer| {
        writer.be32(table::FLAGS, 0);
        writer.put(table::USERDATA, &userdata::table(TABLE_COMMENT));
    })
}

/// nftnl does not support map data, fields, expressions and userdata of sets.
fn add_set(set: Set, sequence: u32) -> Vec<u8> {
    build_in_table(message::NEWSET, libc::NLM_F_CREATE, sequence, |writer| set::declare(set, writer))
}

fn delete_set(set: Set, sequence: u32) -> Vec<u8> {
    build_in_table(message::DELSET, 0, sequence, |writer| writer.name(set_attr::NAME, &set.name()))
}

/// nftnl does not support flowtables.
fn add_flowtable(flowtable: &Flowtable, sequence: u32) -> Vec<u8> {
    build_in_table(message::NEWFLOWTABLE, libc::NLM_F_CREATE, sequence, |writer| {
        writer.name(flowtable_attr::NAME, Flowtable::NAME);
        writer.nest(flowtable_attr::HOOK, |writer| {
            writer.be32(flowtable_attr::HOOK_NUMBER, flowtable_attr::INGRESS);
            writer.be32(flowtable_attr::HOOK_PRIORITY, flowtable_attr::FILTER);
            writer.nest(flowtable_attr::HOOK_DEVICES, |writer| {
                writer.name(flowtable_attr::DEVICE_NAME, flowtable.interface.as_str());
            });
        });
    })
}

fn delete_flowtable(sequence: u32) -> Vec<u8> {
    build_in_table(message::DELFLOWTABLE, 0, sequence, |writer| {
        writer.name(flowtable_attr::NAME, Flowtable::NAME);
    })
}

/// Without `NLM_F_NONREC` the kernel would also delete the chain's rules; nftnl does not support flags of chains.
fn delete_chain(chain: Chain, sequence: u32) -> Vec<u8> {
    build_in_table(message::DELCHAIN, libc::NLM_F_NONREC, sequence, |writer| {
        writer.name(chain_attr::NAME, chain.name());
    })
}

fn named(chain: Chain, table: &nftnl::Table) -> nftnl::Chain<'_> {
    nftnl::Chain::new(c_string(chain.name()), table)
}

fn declared(chain: Chain, table: &nftnl::Table) -> nftnl::Chain<'_> {
    let hook = match chain {
        Chain::Prerouting | Chain::Confine => Hook::PreRouting,
        Chain::Input => Hook::In,
        Chain::Forward => Hook::Forward,
        Chain::Postrouting => Hook::PostRouting,
    };
    let kind = match chain {
        Chain::Prerouting | Chain::Postrouting => ChainType::Nat,
        Chain::Confine | Chain::Input | Chain::Forward => ChainType::Filter,
    };
    let mut message = named(chain, table);
    message.set_hook(hook, priority(chain));
    message.set_type(kind);
    message.set_policy(Policy::Accept);
    message
}

/// `dstnat`, `filter` and `srcnat` (`linux/netfilter_ipv4.h`).
pub(super) const fn priority(chain: Chain) -> i32 {
    match chain {
        Chain::Prerouting => libc::NF_IP_PRI_NAT_DST,
        Chain::Confine => libc::NF_IP_PRI_NAT_DST + 10,
        Chain::Input | Chain::Forward => libc::NF_IP_PRI_FILTER,
        Chain::Postrouting => libc::NF_IP_PRI_NAT_SRC,
    }
}

fn lowered<'a>(rule: &Rule, chain: &'a nftnl::Chain<'_>) -> nftnl::Rule<'a> {
    let mut message = nftnl::Rule::new(chain);
    for expression in lower(rule) {
        message.add_expr(&expression);
    }
    message
}

fn c_string(name: &str) -> CString {
    CString::new(name).expect("the names of our objects have no NUL")
}

#[cfg(test)]
mod tests;

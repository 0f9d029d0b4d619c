//! A transaction: the list of operations that the kernel carries out as one, or not at all.

use std::fmt::{self, Display, Formatter};

use crate::ruleset::{Chain, Element, Flowtable, Key, Rule, Set, TABLE};
use crate::text::ElementText;

/// One operation on the table; its `Display` is the nft command that does the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `add table inet cachenat`, with our comment.
    AddTable,
    /// `delete table inet cachenat`, with all that is in it.
    DeleteTable,
    /// `add set inet cachenat clients4 { ... }`; for a map `add map`.
    AddSet(Set),
    /// `delete set inet cachenat clients4`
    DeleteSet(Set),
    /// `add element inet cachenat forward4 { ... }`; an element with that key must not be there.
    AddElement(Set, Key, Element),
    /// `delete element inet cachenat forward4 { ... }`; an element with that key must be there.
    DeleteElement(Set, Key),
    /// `add flowtable inet cachenat fastpath { ... }`; there must be none.
    AddFlowtable(Flowtable),
    /// `delete flowtable inet cachenat fastpath`: the packets of its flows pass the chains again.
    DeleteFlowtable,
    /// `add chain inet cachenat prerouting { ... }`
    AddChain(Chain),
    /// `delete chain inet cachenat prerouting`; it must have no rules.
    DeleteChain(Chain),
    /// `flush chain inet cachenat prerouting`: all its rules go.
    FlushChain(Chain),
    /// `add rule inet cachenat prerouting ...`, behind the others.
    AddRule(Chain, Rule),
}

impl Display for Operation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ours = format_args!("inet {TABLE}").to_string();
        match self {
            Self::AddTable => write!(f, "add table {ours}"),
            Self::DeleteTable => write!(f, "delete table {ours}"),
            Self::AddSet(set) => {
                let declaration = set.declaration().join("; ");
                write!(f, "add {} {ours} {set} {{ {declaration}; }}", set.keyword())
            }
            Self::DeleteSet(set) => write!(f, "delete {} {ours} {set}", set.keyword()),
            Self::AddElement(set, key, element) => {
                write!(f, "add element {ours} {set} {{ {} }}", ElementText(key, element))
            }
            Self::DeleteElement(set, key) => write!(f, "delete element {ours} {set} {{ {key} }}"),
            Self::AddFlowtable(flowtable) => {
                let [hook, devices] = flowtable.declaration();
                write!(f, "add flowtable {ours} {} {{ {hook}; {devices}; }}", Flowtable::NAME)
            }
            Self::DeleteFlowtable => write!(f, "delete flowtable {ours} {}", Flowtable::NAME),
            Self::AddChain(chain) => write!(f, "add chain {ours} {chain} {{ {} }}", chain.declaration()),
            Self::DeleteChain(chain) => write!(f, "delete chain {ours} {chain}"),
            Self::FlushChain(chain) => write!(f, "flush chain {ours} {chain}"),
            Self::AddRule(chain, rule) => write!(f, "add rule {ours} {chain} {rule}"),
        }
    }
}

/// Operations that are committed together; an empty one is never sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The operations, in the order in which the kernel takes them.
    pub operations: Vec<Operation>,
}

impl Transaction {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }
}

/// The script that `nft -f` would take, an operation a line.
impl Display for Transaction {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.operations.iter().try_for_each(|operation| writeln!(f, "{operation}"))
    }
}

//! The tables of others as values, and what they do to the packets that ours forward.
//!
//! Rules are kept in nf_tables' own expressions (`include/uapi/linux/netfilter/nf_tables.h`), which also iptables' rules are
//! put into; [`Foreign::judge`] carries them out for a packet of which some bits are unknown.

mod bits;
mod flow;
mod lookup;
mod walk;

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use bits::{Bits, Truth};
pub use flow::{Flow, Flows, Interface, Message, ReplyTo};
pub use walk::{Answer, Doubt, Fate, RuleOrPolicy};

use crate::ruleset::{Family, TABLE};

/// `NF_IP_PRI_CONNTRACK`, `linux/netfilter_ipv4.h`.
const CONNTRACK: i32 = -200;

/// Everything that others have in the kernel's packet filters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Foreign {
    /// All chains, those of one table in a row, tables in the order in which they were made.
    pub chains: Vec<Chain>,
    /// The sets and maps that rules look packets up in, by table and name.
    pub sets: BTreeMap<(Table, String), Set>,
}

/// A table; prints as `ip filter`, `legacy iptables' filter`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Table {
    /// What carries it out.
    pub backend: Backend,
    /// The packets that it sees.
    pub family: TableFamily,
    /// Its name, control characters escaped.
    pub name: String,
}

/// What carries a table out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// `nf_tables`, as nft(8) and iptables-nft(8) use it.
    NfTables,
    /// `ip_tables` and `ip6_tables`, as iptables-legacy(8) uses them.
    LegacyIptables,
}

/// The families whose chains a routed packet passes; a chain of the family `bridge` sees bridged frames, and one of `arp` no
/// packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableFamily {
    /// `inet`: IPv4 and IPv6.
    Inet,
    /// `ip`
    Ip,
    /// `ip6`
    Ip6,
    /// `netdev`: all packets of a device.
    Netdev,
}

/// A chain of rules; prints as `chain ip filter FORWARD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The table that it is in.
    pub table: Table,
    /// Its own name, control characters escaped.
    pub name: String,
    /// Where packets meet it; `None`: where a rule jumps to it.
    pub base: Option<Base>,
    /// Its rules in order.
    pub rules: Vec<Rule>,
}

/// What makes a chain a base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Whether only the first packet of each flow meets it (`type nat`).
    pub is_nat: bool,
    /// Where packets meet it.
    pub hook: Hook,
    /// Lower comes first.
    pub priority: i32,
    /// The interfaces whose packets it sees; empty: all.
    pub devices: Vec<String>,
    /// Whether a packet that none of its rules has decided on is dropped.
    pub drops_by_policy: bool,
}

/// `enum nf_inet_hooks` and `enum nf_dev_hooks`, of which forwarded packets pass these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// `NF_NETDEV_INGRESS`, `NF_INET_INGRESS`
    Ingress,
    /// `NF_INET_PRE_ROUTING`
    Prerouting,
    /// `NF_INET_FORWARD`
    Forward,
    /// `NF_INET_POST_ROUTING`
    Postrouting,
    /// `NF_NETDEV_EGRESS`
    Egress,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// nf_tables' handle (`nft -a`), or for legacy iptables its number from 1 (`iptables-legacy -L --line-numbers`).
    pub number: u64,
    /// What it does, in order; the first condition that does not hold ends it.
    pub expressions: Vec<Expression>,
}

/// Where a value stands in the registers: the offset in bytes, below 64.
pub type Register = usize;

/// One step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Puts a field of the packet, or of what is known of it, into a register.
    Load {
        /// What.
        field: Field,
        /// Where to.
        to: Register,
        /// How many bytes.
        length: usize,
    },
    /// Puts a constant into a register.
    Constant {
        /// The bytes.
        value: Vec<u8>,
        /// Where to.
        to: Register,
    },
    /// `(value & mask) ^ xor`
    Mask {
        /// Where from.
        from: Register,
        /// Where to.
        to: Register,
        /// The mask, as long as the value.
        mask: Vec<u8>,
        /// What is toggled, as long.
        xor: Vec<u8>,
    },
    /// A condition: how a register compares with a constant, byte by byte from the first (memcmp(3)).
    Compare {
        /// Which register.
        from: Register,
        /// How.
        relation: Relation,
        /// With what.
        value: Vec<u8>,
    },
    /// A condition: whether a register lies in one of some ranges, both ends included.
    Within {
        /// Which register.
        from: Register,
        /// The ranges.
        ranges: Vec<(Vec<u8>, Vec<u8>)>,
        /// Whether it has to lie outside.
        negated: bool,
    },
    /// A condition: whether a set has an element for a register; a map's value is put into another, or is the verdict.
    Lookup {
        /// Which register.
        from: Register,
        /// The set's name in the rule's table.
        set: String,
        /// Where the value of a map of values goes.
        to: Option<Register>,
        /// Whether the set must not have it.
        negated: bool,
    },
    /// The end of the rule.
    Verdict(Verdict),
    /// `meta mark set`, from a register.
    SetMark(Register),
    /// `ct mark set`; to what is not followed.
    SetFlowMark,
    /// A condition, or something that may end the packet's way, that is not understood here; its name.
    Unclear(String),
}

/// How two values compare, `enum nft_cmp_ops`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
}

/// What becomes of a packet that a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It leaves the base chain and goes on. What translates its source does the same.
    Accept,
    /// It is dropped, or refused with an answer.
    Drop,
    /// The next rule has it.
    Continue,
    /// The chain that jumped here goes on.
    Return,
    /// A chain of the same table, and back.
    Jump(String),
    /// A chain of the same table, and not back.
    Goto(String),
    /// It is led elsewhere: `dnat`, `redirect`, `tproxy`, `fwd`.
    LeadElsewhere,
    /// A program decides: `queue`.
    Queue,
    /// conntrack does not look at it, if it has not yet: `notrack`.
    Untrack,
}

/// What a rule can look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// The network header from this byte on.
    Network(usize),
    /// The transport header from this byte on.
    Transport(usize),
    /// `meta iif`: the interface's index, in the host's byte order.
    Input,
    /// `meta iifname`: 16 bytes, padded with NUL.
    InputName,
    /// `meta oif`
    Output,
    /// `meta oifname`
    OutputName,
    /// `meta nfproto`: 2 or 10, one byte.
    Family,
    /// `meta protocol`: the Ethertype, in network byte order.
    EtherType,
    /// `meta l4proto`: one byte.
    Protocol,
    /// `meta mark`, in the host's byte order.
    Mark,
    /// `meta pkttype`: one byte.
    PacketType,
    /// `ct state`, in the host's byte order (`NF_CT_STATE_BIT`).
    FlowState,
    /// The 16 bits of what `-m conntrack --ctstate` compares, `linux/netfilter/xt_conntrack.h`.
    XtState,
    /// `ct status`, in the host's byte order (`enum ip_conntrack_status`).
    FlowStatus,
    /// `ct mark`, in the host's byte order.
    FlowMark,
    /// `ct direction`: 0 original, 1 reply, one byte.
    FlowDirection,
    /// `ct original ip saddr` and its siblings.
    Tuple {
        /// Whether it is the reply's tuple.
        is_reply: bool,
        /// Which of its four.
        part: TuplePart,
    },
    /// `fib saddr type`, `fib daddr type`: `RTN_UNICAST` or `RTN_LOCAL`, in the host's byte order.
    AddressType {
        /// Whether the source's, else the destination's.
        of_source: bool,
    },
    /// `fib saddr . iif oif`: the interface that the way back leads out by, if it is the one that the packet came in by.
    ReversePath {
        /// Whether it is asked only if there is one (`NFTA_FIB_F_PRESENT`).
        is_presence: bool,
    },
    /// What a forwarded packet does not have: the rule does not match (`NFT_BREAK`).
    Absent,
    /// What is not known of the packet, and what it is called.
    Unknown(String),
}

/// Part of a flow's tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TuplePart {
    /// The source address.
    Source,
    /// The destination address.
    Destination,
    /// The source port, in network byte order.
    SourcePort,
    /// The destination port, in network byte order.
    DestinationPort,
}

/// A set or map that rules look packets up in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// The lengths of the fields of a concatenated key, each padded to 4 bytes; of any other key the one length.
    pub fields: Vec<usize>,
    /// The elements; where the key has one field, in the order of their keys.
    pub elements: Vec<Element>,
    /// What stands for every key that has no element (`*`); of a set `Some(None)`.
    pub catch_all: Option<Option<Data>>,
}

/// An element: of a set without intervals `first` and `last` are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// The lowest key, field by field.
    pub first: Vec<u8>,
    /// The highest, field by field.
    pub last: Vec<u8>,
    /// A map's value.
    pub data: Option<Data>,
}

/// A map's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// Bytes.
    Value(Vec<u8>),
    /// A verdict.
    Verdict(Verdict),
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match (self.backend, self.family) {
            (Backend::NfTables, family) => write!(f, "{family} {name}"),
            (Backend::LegacyIptables, TableFamily::Ip6) => write!(f, "{name} of ip6tables-legacy"),
            (Backend::LegacyIptables, _) => write!(f, "{name} of iptables-legacy"),
        }
    }
}

impl Table {
    /// Whether it is cachenat's own, or somebody else's of its name.
    pub fn is_ours(&self) -> bool {
        self.backend == Backend::NfTables && self.family == TableFamily::Inet && self.name == TABLE
    }
}

impl Base {
    /// Whether conntrack has seen the packets that come here: it looks at them at prerouting.
    pub fn is_tracked(&self) -> bool {
        match self.hook {
            Hook::Ingress => false,
            Hook::Prerouting => self.is_nat || self.priority > CONNTRACK,
            Hook::Forward | Hook::Postrouting | Hook::Egress => true,
        }
    }
}

impl TableFamily {
    /// Whether its chains see packets of a family.
    fn sees(self, family: Family) -> bool {
        match self {
            Self::Ip => family == Family::Ipv4,
            Self::Ip6 => family == Family::Ipv6,
            Self::Inet | Self::Netdev => true,
        }
    }
}

impl Display for TableFamily {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Netdev => "netdev",
        })
    }
}

impl Display for Chain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.table.backend {
            Backend::NfTables => write!(f, "chain {} {}", self.table, self.name),
            Backend::LegacyIptables => write!(f, "chain {} in table {}", self.name, self.table),
        }
    }
}

impl Display for Hook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Prerouting => "prerouting",
            Self::Forward => "forward",
            Self::Postrouting => "postrouting",
            Self::Egress => "egress",
        })
    }
}

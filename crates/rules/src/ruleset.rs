//! The ruleset as data: one table, `inet cachenat`, its sets and maps with their elements, its chains and rules.
//!
//! The shape of the table never changes with the number of nodes: nodes are elements, so a packet costs one lookup
//! and a changed node costs one element. Each type bears the name of its nftables object and its `Display` is nft
//! syntax (nft(8)).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use smol_str::{SmolStr, format_smolstr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use serde::{Deserialize, Serialize};

use crate::name::IfName;

/// The name of the one table that is ours; its family is `inet`.
pub const TABLE: &str = "cachenat";

/// The comment that marks the table as ours, and tells it from another program's table of the same name.
pub const TABLE_COMMENT: &str = "managed by cachenat; manual changes will be reverted";

/// The comment of tables that earlier versions made. A comment can't be changed, so such a table keeps it.
pub const FORMER_TABLE_COMMENT: &str = "made by cachenat: changes are undone by its next run";

/// How many targets a listener can have, and how many sources forwarded packets: each but the first takes a rule. A shard of
/// ElastiCache has at most 5 replicas.
pub const TARGETS: u8 = 16;

/// The address family of a set or rule within the `inet` table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// `ip`
    #[serde(rename = "ip")]
    Ipv4,
    /// `ip6`
    #[serde(rename = "ip6")]
    Ipv6,
}

impl Family {
    /// The family of `address`.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }
}

/// An address and a TCP port: where clients connect to, or where a node listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddrPort {
    /// The address.
    pub address: IpAddr,
    /// The TCP port.
    pub port: NonZeroU16,
}

/// A closed, never empty range of addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    /// The range from `first` to `last`, both included; `None` if they are of two families or out of order.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        (first.is_ipv4() == last.is_ipv4() && first <= last).then_some(Self { first, last })
    }

    /// The range from its first address to the last there is.
    pub(crate) fn to_the_end(self) -> Self {
        let last = match self.first {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::BROADCAST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
        };
        Self { first: self.first, last }
    }

    /// The lowest address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The highest address.
    pub fn last(&self) -> IpAddr {
        self.last
    }

    /// The fewest networks that make up the range.
    pub fn networks(self) -> Vec<IpNet> {
        match (self.first, self.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect()
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect()
            }
            _ => vec![],
        }
    }

    /// Whether `address` lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && self.first <= address && address <= self.last
    }
}

/// What a set is for; with a [`Family`] it names the set and fixes its type and flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetKind {
    /// `set clients4 { type ipv4_addr; flags interval; }`: who may connect to the listeners of a list.
    Clients(ListIndex),
    /// `map forward4 { type ipv4_addr . inet_service : ipv4_addr . inet_service; counter; }`: listener to target, of a list.
    Forward(ListIndex),
    /// `map spread4_2 { type ipv4_addr . inet_service : ipv4_addr . inet_service; counter; }`: listener to its second target, and
    /// so on; the first is in [`SetKind::Forward`].
    Spread(ListIndex, SpreadIndex),
    /// `set backends4 { type ipv4_addr . inet_service; }`: the targets, whose packets need the way back.
    Backends,
    /// `set routed4 { type ipv4_addr . inet_service; }`: the targets that a list's clients reach through a tunnel by their own
    /// addresses.
    Routed(ListIndex),
    /// `set listeners4 { type ipv4_addr . inet_service; }`: where clients connect to, which tells the flows that we
    /// translated from those of others to the same target.
    Listeners,
}

/// Which of a listener's targets, or of the sources of forwarded packets: from 2 to [`TARGETS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub struct SpreadIndex(u8);

impl From<SpreadIndex> for u8 {
    fn from(place: SpreadIndex) -> Self {
        place.0
    }
}

impl TryFrom<u8> for SpreadIndex {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        Self::new(number.into()).ok_or_else(|| format!("there is no place {number}"))
    }
}

impl SpreadIndex {
    /// Every place but the first, in order.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (2..=TARGETS).map(Self)
    }

    /// The place of that number; `None`: there is no such place, or it is the first.
    pub fn new(number: usize) -> Option<Self> {
        Self::all().find(|place| usize::from(place.0) == number)
    }

    /// Its number, from 2.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// A list of clients with what they may reach, by its number from 1 to [`ListIndex::MAX`].
///
/// The sets of the first are `clients4` and `forward4`, those of the second `clients4_2` and `forward4_2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub struct ListIndex(u8);

impl Default for ListIndex {
    fn default() -> Self {
        Self::FIRST
    }
}

impl From<ListIndex> for u8 {
    fn from(list: ListIndex) -> Self {
        list.0
    }
}

impl TryFrom<u8> for ListIndex {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        Self::new(number.into()).ok_or_else(|| format!("there is no list {number}"))
    }
}

impl ListIndex {
    /// The most lists: each adds about 0.25 us to a new connection that none before it admits.
    pub const MAX: u8 = 16;

    /// The first list, and the only one where all sources have the same clients.
    pub const FIRST: Self = Self(1);

    /// Every list, in order.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (1..=Self::MAX).map(Self)
    }

    /// The list of that number, from 1; `None`: there is no such list.
    pub fn new(number: usize) -> Option<Self> {
        Self::all().find(|list| usize::from(list.0) == number)
    }

    /// Whether it is the first.
    pub fn is_first(&self) -> bool {
        *self == Self::FIRST
    }

    /// Its number, from 1.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// A set or map of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Set {
    /// What it is for.
    pub kind: SetKind,
    /// The family of its addresses.
    pub family: Family,
}

impl Set {
    /// Every set that one of our rulesets can have.
    pub fn all() -> impl Iterator<Item = Self> {
        let of_list = |list| {
            let spread = SpreadIndex::all().map(move |place| SetKind::Spread(list, place));
            [SetKind::Clients(list), SetKind::Forward(list), SetKind::Routed(list)].into_iter().chain(spread)
        };
        let kinds = ListIndex::all().flat_map(of_list).chain([SetKind::Backends, SetKind::Listeners]);
        kinds.flat_map(|kind| [Self::new(kind, Family::Ipv4), Self::new(kind, Family::Ipv6)])
    }

    /// The set of that kind and family.
    pub const fn new(kind: SetKind, family: Family) -> Self {
        Self { kind, family }
    }

    /// The name in the kernel, such as `forward4`; at most 13 bytes.
    pub fn name(self) -> SmolStr {
        let family = match self.family {
            Family::Ipv4 => 4,
            Family::Ipv6 => 6,
        };
        let of_list = |name: SmolStr, list: ListIndex| match list.0 {
            1 => name,
            number => format_smolstr!("{name}_{number}"),
        };
        match self.kind {
            SetKind::Clients(list) => of_list(format_smolstr!("clients{family}"), list),
            SetKind::Forward(list) => of_list(format_smolstr!("forward{family}"), list),
            SetKind::Spread(list, place) => of_list(format_smolstr!("spread{family}_{}", place.0), list),
            SetKind::Routed(list) => of_list(format_smolstr!("routed{family}"), list),
            SetKind::Backends => format_smolstr!("backends{family}"),
            SetKind::Listeners => format_smolstr!("listeners{family}"),
        }
    }

    /// The set of that name, if it is one of ours.
    pub fn from_name(name: &str) -> Option<Self> {
        let digit = name.find(|character: char| character.is_ascii_digit())?;
        let (word, rest) = name.split_at(digit);
        let mut numbers = rest.split('_').map(|number| number.parse::<usize>().ok());
        let family = match numbers.next()?? {
            4 => Family::Ipv4,
            6 => Family::Ipv6,
            _ => return None,
        };
        let mut next = || numbers.next().flatten();
        let list = |number: Option<usize>| number.map_or(Some(ListIndex::FIRST), ListIndex::new);
        let kind = match word {
            "clients" => SetKind::Clients(list(next())?),
            "forward" => SetKind::Forward(list(next())?),
            "spread" => {
                let place = SpreadIndex::new(next()?)?;
                SetKind::Spread(list(next())?, place)
            }
            "routed" => SetKind::Routed(list(next())?),
            "backends" => SetKind::Backends,
            "listeners" => SetKind::Listeners,
            _ => return None,
        };
        // `forward4_02` and `forward4_1` are read, but are no names that we give.
        Some(Self::new(kind, family)).filter(|set| set.name() == name)
    }

    /// The list that the set belongs to; `None`: it serves them all.
    pub const fn list(self) -> Option<ListIndex> {
        match self.kind {
            SetKind::Clients(list)
            | SetKind::Forward(list)
            | SetKind::Spread(list, _)
            | SetKind::Routed(list) => Some(list),
            SetKind::Backends | SetKind::Listeners => None,
        }
    }

    /// Whether an element maps to a target, and counts the connections made through it.
    pub const fn is_map(self) -> bool {
        matches!(self.kind, SetKind::Forward(_) | SetKind::Spread(..))
    }

    /// Whether an element's key may be a range.
    pub const fn is_interval(self) -> bool {
        matches!(self.kind, SetKind::Clients(_))
    }
}

/// The key of a set's element; the variant follows from the set's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// `198.51.100.0/25`, of [`SetKind::Clients`].
    Addresses(AddressRange),
    /// `10.0.0.55 . 6379`, of all others.
    AddrPort(AddrPort),
}

/// What stands beside an element's key; counters are no part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// The target, in a map.
    pub data: Option<AddrPort>,
    /// The comment: in a map the id of what the element leads to.
    pub comment: Option<SmolStr>,
}

/// The elements of one set, by key.
pub type Elements = BTreeMap<Key, Element>;

/// A base chain of the table; its name fixes its hook and priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chain {
    /// `chain prerouting { type nat hook prerouting priority dstnat; policy accept; }`
    Prerouting,
    /// `chain confine { type filter hook prerouting priority dstnat + 10; policy accept; }`: behind our translation, and before
    /// routing, so that it sees both what is forwarded and what is for this host.
    Confine,
    /// `chain input { type filter hook input priority filter; policy accept; }`
    Input,
    /// `chain forward { type filter hook forward priority filter; policy accept; }`
    Forward,
    /// `chain postrouting { type nat hook postrouting priority srcnat; policy accept; }`
    Postrouting,
}

impl Chain {
    /// Every chain that a ruleset of ours can have.
    pub const ALL: [Self; 5] =
        [Self::Prerouting, Self::Confine, Self::Input, Self::Forward, Self::Postrouting];

    /// The name in the kernel; of all but [`Self::Confine`] the hook's too.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Confine => "confine",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Postrouting => "postrouting",
        }
    }

    /// The chain of that name, if it is one of ours.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|chain| chain.name() == name)
    }
}

/// The flowtable `fastpath`: once a flow is added to it, its packets go from where the device receives them straight to
/// where they leave, past all chains (`Documentation/networking/nf_flowtable.rst`).
///
/// `flowtable fastpath { hook ingress priority filter; devices = { "eth0" }; }`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flowtable {
    /// Its one device, by which packets of both directions come in.
    pub interface: IfName,
}

impl Flowtable {
    /// The name in the kernel.
    pub const NAME: &str = "fastpath";
}

/// What a forwarded packet's source becomes, so that the node's answer comes back through the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnatTo {
    /// `masquerade`: the primary address of the interface that the packet leaves by.
    Masquerade,
    /// `snat ip to 10.0.0.55`
    #[serde(untagged)]
    Address(IpAddr),
}

/// A rule. Those over clients are there once for each interface, family and list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case")]
pub enum Rule {
    /// `iifname "eth0" ip saddr @clients4 dnat ip to ip daddr . tcp dport map @forward4`
    Forward {
        /// The interface that clients' packets come in by.
        interface: IfName,
        /// The family of the packets.
        family: Family,
        /// Whose clients, and what they may reach.
        #[serde(default, skip_serializing_if = "ListIndex::is_first")]
        list: ListIndex,
    },
    /// `iifname "eth0" numgen random mod 3 0 ip saddr @clients4 dnat ip to ip daddr . tcp dport map @spread4_3`
    ///
    /// From the last place on each takes its share of what those before it left over: the third a third, the second half of
    /// the rest, and [`Self::Forward`] what remains. A listener with fewer targets is in none of the first maps.
    Spread {
        /// The interface that clients' packets come in by.
        interface: IfName,
        /// The family of the packets.
        family: Family,
        /// Whose clients, and what they may reach.
        #[serde(default, skip_serializing_if = "ListIndex::is_first")]
        list: ListIndex,
        /// Whose turn it is.
        place: SpreadIndex,
    },
    /// `oifname "eth0" ct status dnat ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4
    /// snat ip to 10.0.0.55`, behind `oifname "eth0" numgen random mod 2 0` where there are several
    Snat {
        /// The interface that packets leave by towards the nodes; `None`: any, and there is no `oifname` then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        interface: Option<IfName>,
        /// The family of the packets.
        family: Family,
        /// The new source.
        to: SnatTo,
        /// Of several sources whose turn it is, as with [`Self::Spread`]; the first takes what remains, and has none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        place: Option<SpreadIndex>,
    },
    /// `oifname "eth0" ct state established ct status dnat ip daddr . tcp dport @backends4 ct original ip daddr . ct original
    /// proto-dst @listeners4 flow add @fastpath`
    Offload {
        /// The interface that packets leave by towards the nodes, and the flowtable's device.
        interface: IfName,
        /// The family of the packets.
        family: Family,
    },
    /// `ct state invalid ip saddr . tcp sport @backends4 drop`: an answer of a node that conntrack does not recognise is not
    /// translated back, and so is this host's own. Its TCP knows of no such connection and would reset the client's.
    DropInvalidAnswers {
        /// The family of the packets.
        family: Family,
    },
    /// `ct state invalid ip daddr . tcp dport @listeners4 drop`: the same from a client, whose connection the node keeps.
    DropInvalidRequests {
        /// The family of the packets.
        family: Family,
    },
    /// `iifname "eth0" ct state invalid,new,untracked ct status ! dnat drop`: this host is no router for its neighbours.
    DropOthers {
        /// The interface that the neighbours' packets come in by.
        interface: IfName,
    },
    /// `iifname != "wg0" accept`, with one such match for each tunnel: the rules behind it are about tunnels alone.
    PassOthers {
        /// The interfaces of the tunnels.
        tunnels: Vec<IfName>,
    },
    /// `ct state established,related accept`
    PassEstablished,
    /// `ct state new ip saddr @clients4 ip daddr . tcp dport @routed4 accept`: by a listener or by a node's own address.
    PassRouted {
        /// The family of the packets.
        family: Family,
        /// Whose clients, and what they may reach.
        #[serde(default, skip_serializing_if = "ListIndex::is_first")]
        list: ListIndex,
    },
    /// `drop`: what else comes in by a tunnel.
    DropRest,
    /// `oifname "wg0" ct state invalid,new,untracked drop`: no connection is made into the tunnel.
    DropInto {
        /// The tunnel.
        interface: IfName,
    },
    /// `iifname "wg0" tcp flags syn tcp option maxseg size set rt mtu`: the segments fit both sides of the tunnel.
    ClampToRoute {
        /// The tunnel.
        interface: IfName,
        /// Whether the packets come in by it or leave by it.
        direction: Direction,
    },
    /// `ct status dnat tcp flags syn ip daddr . tcp dport @backends4 ct original ip daddr . ct original proto-dst @listeners4
    /// tcp option maxseg size set 1360`, or `ip saddr . tcp sport` for answers: where no ICMP says that a path is narrow.
    Clamp {
        /// The family of the packets.
        family: Family,
        /// Whether the packets are the client's ([`Direction::In`]) or the node's.
        direction: Direction,
        /// The most bytes of a segment.
        size: u16,
    },
    /// `iifname "wg0" ip daddr . tcp dport @backends4 masquerade`
    SnatRouted {
        /// The tunnel.
        interface: IfName,
        /// The family of the packets.
        family: Family,
    },
}

/// The direction of packets, seen from the nodes' side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Towards the nodes.
    In,
    /// From the nodes.
    Out,
}

/// The whole table: its `Display` is what `nft list table inet cachenat` would show, without counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// The sets and maps with their elements.
    pub sets: BTreeMap<Set, Elements>,
    /// The flowtable, if established flows are to take the fast path.
    pub flowtable: Option<Flowtable>,
    /// The chains with their rules, in order.
    pub chains: BTreeMap<Chain, Vec<Rule>>,
}

impl Ruleset {
    /// The elements of a set; none if the set is not there.
    pub fn elements(&self, kind: SetKind, family: Family) -> impl Iterator<Item = (&Key, &Element)> {
        self.sets.get(&Set::new(kind, family)).into_iter().flatten()
    }
}

impl Rule {
    /// Whether the rule adds flows to the flowtable; the kernel keeps that while the rule stands.
    pub const fn offloads(&self) -> bool {
        matches!(self, Self::Offload { .. })
    }

    /// The sets that the rule looks up; the kernel keeps them while the rule stands.
    pub fn sets(&self) -> Vec<Set> {
        match *self {
            Self::Forward { family, list, .. } => {
                vec![Set::new(SetKind::Clients(list), family), Set::new(SetKind::Forward(list), family)]
            }
            Self::Spread { family, list, place, .. } => {
                vec![Set::new(SetKind::Clients(list), family), Set::new(SetKind::Spread(list, place), family)]
            }
            Self::Snat { family, .. } | Self::Offload { family, .. } => {
                vec![Set::new(SetKind::Backends, family), Set::new(SetKind::Listeners, family)]
            }
            Self::DropInvalidAnswers { family } => vec![Set::new(SetKind::Backends, family)],
            Self::DropInvalidRequests { family } => vec![Set::new(SetKind::Listeners, family)],
            Self::PassRouted { family, list } => {
                vec![Set::new(SetKind::Clients(list), family), Set::new(SetKind::Routed(list), family)]
            }
            Self::Clamp { family, .. } => {
                vec![Set::new(SetKind::Backends, family), Set::new(SetKind::Listeners, family)]
            }
            Self::SnatRouted { family, .. } => vec![Set::new(SetKind::Backends, family)],
            Self::DropOthers { .. }
            | Self::PassOthers { .. }
            | Self::PassEstablished
            | Self::DropRest
            | Self::DropInto { .. }
            | Self::ClampToRoute { .. } => vec![],
        }
    }
}

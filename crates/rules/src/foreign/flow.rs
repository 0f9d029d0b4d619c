//! The packets of a forwarded connection, as far as they are known, wherever a chain meets them.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Base, Bits, Field, Hook, TuplePart};
use crate::name::IfName;
use crate::ruleset::{AddrPort, Family};

/// `NF_IP_PRI_NAT_DST` and `NF_IP_PRI_NAT_SRC`, `linux/netfilter_ipv4.h`.
const DSTNAT: i32 = -100;
const SRCNAT: i32 = 100;

/// `IPS_EXPECTED`, `IPS_SEEN_REPLY`, `IPS_SRC_NAT` and `IPS_DST_NAT`, `enum ip_conntrack_status`.
const EXPECTED: u32 = 1;
const SEEN_REPLY: u32 = 1 << 1;
const SRC_NAT: u32 = 1 << 4;
const DST_NAT: u32 = 1 << 5;

/// `NF_CT_STATE_INVALID_BIT` and `NF_CT_STATE_BIT` of `IP_CT_ESTABLISHED` and `IP_CT_NEW`.
const INVALID: u32 = 1;
const ESTABLISHED: u32 = 1 << 1;
const NEW: u32 = 1 << 3;

/// `IPPROTO_TCP`
const TCP: u8 = 6;

/// `IFNAMSIZ`
const NAME: usize = 16;

/// Connections that a forward is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Where they come in from the client.
    pub input: Interface,
    /// Where they leave to the node.
    pub output: Interface,
    /// Who makes them.
    pub client: IpNet,
    /// Where they are made to.
    pub listener: AddrPort,
    /// Where they are led.
    pub target: AddrPort,
    /// Where the node answers to.
    pub reply_to: ReplyTo,
}

impl Flow {
    /// Whether its destination is translated; else the client connects to the target's own address.
    pub fn is_translated(&self) -> bool {
        self.listener != self.target
    }
}

/// Connections, and beside each what all of a family have in common.
#[derive(Clone, Debug)]
pub struct Flows {
    each: Vec<Flow>,
    /// One of each family and pair of interfaces that there are any of.
    as_one: Vec<Course>,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: IfName,
    /// Its index; `None`: unknown.
    pub index: Option<u32>,
}

/// Where a node answers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyTo {
    /// The client itself.
    Client,
    /// This address of the gateway.
    Gateway(IpAddr),
    /// An address of the gateway that the kernel chooses.
    SomeOfGateway,
}

/// A kind of packet that a connection needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// The first packet, from the client.
    New,
    /// Any other from the client.
    Established,
    /// Any from the node.
    Reply,
}

impl Message {
    /// All that have to pass.
    pub const ALL: [Self; 3] = [Self::New, Self::Established, Self::Reply];
}

/// A packet where a chain meets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    family: Family,
    network: Bits,
    transport: Bits,
    input: Side,
    output: Side,
    is_source_local: bool,
    is_destination_local: bool,
    /// `None`: conntrack has not seen it yet.
    tracked: Option<Tracked>,
    pub(super) mark: Bits,
    pub(super) flow_mark: Bits,
}

/// An interface as `meta` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Side {
    index: Bits,
    name: Bits,
}

/// What conntrack knows of a packet's flow.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tracked {
    /// One bit, as `ct state` has it.
    state: u32,
    /// The bits of `ct status`, and which of them are known.
    status: u32,
    known_status: u32,
    is_reply: bool,
    original: Tuple,
    reply: Tuple,
}

/// One direction of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tuple {
    source: Bits,
    destination: Bits,
    source_port: Bits,
    destination_port: Bits,
}

impl Flows {
    /// All of these, whichever they are.
    pub fn new(each: Vec<Flow>) -> Self {
        let mut as_one: Vec<Course> = Vec::new();
        for course in each.iter().map(Course::of) {
            match as_one.iter_mut().find(|all| all.takes_the_way_of(&course)) {
                Some(all) => *all = all.join(&course),
                None => as_one.push(course),
            }
        }
        Self { each, as_one }
    }

    /// The same from anybody to each listener, once.
    pub fn of_anybody(&self) -> Self {
        let anybody = |flow: &Flow| match flow.client {
            IpNet::V4(_) => IpNet::V4(Ipv4Net::default()),
            IpNet::V6(_) => IpNet::V6(Ipv6Net::default()),
        };
        let mut each: Vec<Flow> =
            self.each.iter().map(|flow| Flow { client: anybody(flow), ..flow.clone() }).collect();
        each.dedup_by_key(|flow| flow.listener);
        Self::new(each)
    }

    /// Each by itself, with its course.
    pub(super) fn each(&self) -> impl Iterator<Item = (&Flow, Course)> {
        self.each.iter().map(|flow| (flow, Course::of(flow)))
    }

    /// For each family and pair of interfaces one course of which only that is known that all have in common.
    pub(super) fn as_one(&self) -> &[Course] {
        &self.as_one
    }
}

/// The ends of a connection, as far as they are known.
#[derive(Clone, Debug)]
pub(super) struct Course {
    pub(super) family: Family,
    input: Interface,
    output: Interface,
    client: Peer,
    listener: Peer,
    target: Peer,
    /// Where the node answers to.
    gateway: Peer,
    /// Whether that is an address of the gateway, else the client's.
    answers_gateway: bool,
    /// Whether the destination is translated.
    is_translated: bool,
}

impl Course {
    fn of(flow: &Flow) -> Self {
        let client = Peer::client(&flow.client);
        // Its port is the client's own where no other flow has that.
        let gateway = match flow.reply_to {
            ReplyTo::Client => client.clone(),
            ReplyTo::Gateway(address) => Peer { address: address_bits(address), port: Bits::unknown(2) },
            ReplyTo::SomeOfGateway => Peer::unknown(client.length()),
        };
        Self {
            family: Family::of(flow.target.address),
            input: flow.input.clone(),
            output: flow.output.clone(),
            client,
            listener: Peer::at(flow.listener),
            target: Peer::at(flow.target),
            gateway,
            answers_gateway: flow.reply_to != ReplyTo::Client,
            is_translated: flow.is_translated(),
        }
    }

    /// Whether both are of one family and pass the same interfaces.
    fn takes_the_way_of(&self, other: &Self) -> bool {
        let way = |course: &Self| {
            (course.family, course.input.clone(), course.output.clone(), course.is_translated)
        };
        way(self) == way(other)
    }

    /// What is known whichever of the two it is, of those that take the same way.
    fn join(&self, other: &Self) -> Self {
        Self {
            client: self.client.join(&other.client),
            listener: self.listener.join(&other.listener),
            target: self.target.join(&other.target),
            gateway: self.gateway.join(&other.gateway),
            ..self.clone()
        }
    }

    /// The packet as a base chain meets it; `None` if it does not.
    pub(super) fn packet(&self, message: Message, base: &Base) -> Option<Packet> {
        let (input, output) = match message {
            Message::New | Message::Established => (&self.input, &self.output),
            Message::Reply => (&self.output, &self.input),
        };
        let passed = if base.hook == Hook::Egress { output } else { input };
        let listens = |device: &String| *device == passed.name.as_str();
        let is_first = message == Message::New;
        if (base.is_nat && !is_first) || !(base.devices.is_empty() || base.devices.iter().any(listens)) {
            return None;
        }
        let (hook, priority) = (base.hook, base.priority);
        let is_before_routing = matches!(hook, Hook::Ingress | Hook::Prerouting);
        // nf_tables' nat chains are all called at this one priority, ours among them (`nf_nat_register_fn`).
        let is_given_destination = match hook {
            Hook::Ingress => false,
            Hook::Prerouting => priority > DSTNAT && !base.is_nat,
            Hook::Forward | Hook::Postrouting | Hook::Egress => true,
        };
        let is_given_source =
            hook == Hook::Egress || (hook == Hook::Postrouting && priority > SRCNAT && !base.is_nat);

        let Self { client, listener, target, gateway, answers_gateway, .. } = self;
        let (source, destination) = match message {
            Message::New | Message::Established => (
                if is_given_source { gateway } else { client },
                if is_given_destination { target } else { listener },
            ),
            Message::Reply => (
                if is_given_source { listener } else { target },
                if is_given_destination { client } else { gateway },
            ),
        };
        let is_reply = message == Message::Reply;
        let answers_gateway = *answers_gateway;
        let translated = if self.is_translated { DST_NAT } else { 0 };
        let tracked = base.is_tracked().then(|| Tracked {
            state: if is_first { NEW } else { ESTABLISHED },
            status: match is_first {
                true if is_given_destination || is_given_source => translated,
                true => 0,
                false => SEEN_REPLY | translated | if answers_gateway { SRC_NAT } else { 0 },
            },
            known_status: EXPECTED | SEEN_REPLY | DST_NAT | if is_first { 0 } else { SRC_NAT },
            is_reply,
            original: Tuple::new(client, listener),
            reply: match is_first && !is_given_source {
                // It is what it becomes only when both ends are translated.
                true => Tuple::new(&Peer::unknown(client.length()), &Peer::unknown(client.length())),
                false => Tuple::new(target, gateway),
            },
        });
        let none = Side { index: Bits::known(&[0; 4]), name: Bits::known(&[0; NAME]) };
        let unknown = Side { index: Bits::unknown(4), name: Bits::unknown(NAME) };
        let is_at_gateway = is_before_routing && !is_given_destination && (self.is_translated || is_reply);
        Some(Packet {
            family: self.family,
            network: network_header(&source.address, &destination.address),
            transport: transport_header(&source.port, &destination.port, message),
            // Older kernels do not say behind routing where a packet came in.
            input: match hook {
                Hook::Postrouting | Hook::Egress => unknown,
                _ => input.side(),
            },
            output: if is_before_routing { none } else { output.side() },
            is_source_local: is_given_source && (is_reply || answers_gateway),
            is_destination_local: is_at_gateway && (!is_reply || answers_gateway),
            tracked,
            mark: Bits::known(&[0; 4]),
            flow_mark: Bits::known(&[0; 4]),
        })
    }
}

/// An address and a TCP port, as far as they are known.
#[derive(Clone, Debug)]
struct Peer {
    address: Bits,
    port: Bits,
}

impl Peer {
    fn at(endpoint: AddrPort) -> Self {
        Self {
            address: address_bits(endpoint.address),
            port: Bits::known(&endpoint.port.get().to_be_bytes()),
        }
    }

    fn client(network: &IpNet) -> Self {
        let address = match network {
            IpNet::V4(network) => Bits::masked(&network.addr().octets(), &network.netmask().octets()),
            IpNet::V6(network) => Bits::masked(&network.addr().octets(), &network.netmask().octets()),
        };
        Self { address, port: Bits::unknown(2) }
    }

    fn unknown(length: usize) -> Self {
        Self { address: Bits::unknown(length), port: Bits::unknown(2) }
    }

    fn join(&self, other: &Self) -> Self {
        Self { address: self.address.join(&other.address), port: self.port.join(&other.port) }
    }

    fn length(&self) -> usize {
        self.address.len()
    }
}

impl Tuple {
    fn new(source: &Peer, destination: &Peer) -> Self {
        let (source, destination) = (source.clone(), destination.clone());
        Self {
            source: source.address,
            destination: destination.address,
            source_port: source.port,
            destination_port: destination.port,
        }
    }
}

impl Interface {
    fn side(&self) -> Side {
        let index = self.index.map_or(Bits::unknown(4), |index| Bits::known(&index.to_ne_bytes()));
        Side { index, name: Bits::known(self.name.as_str().as_bytes()).padded(NAME) }
    }
}

fn address_bits(address: IpAddr) -> Bits {
    match address {
        IpAddr::V4(address) => Bits::known(&address.octets()),
        IpAddr::V6(address) => Bits::known(&address.octets()),
    }
}

/// RFC 791 without options, or RFC 8200 without extension headers.
fn network_header(source: &Bits, destination: &Bits) -> Bits {
    if source.len() == 4 {
        let mut header = Bits::unknown(20);
        header.put(0, &Bits::known(&[0x45]));
        // No fragment: neither more of them (bit 13) nor an offset; whether it may become one is unknown.
        header.put(6, &Bits::masked(&[0, 0], &[0xbf, 0xff]));
        header.put(9, &Bits::known(&[TCP]));
        header.put(12, source);
        header.put(16, destination);
        return header;
    }
    let mut header = Bits::unknown(40);
    header.put(0, &Bits::masked(&[0x60], &[0xf0]));
    header.put(6, &Bits::known(&[TCP]));
    header.put(8, source);
    header.put(24, destination);
    header
}

/// RFC 9293, section 3.1. The first packet has SYN and none of FIN, RST, PSH, ACK and URG; of any other from the client ACK is
/// known.
fn transport_header(source: &Bits, destination: &Bits, message: Message) -> Bits {
    let mut header = Bits::unknown(20);
    header.put(0, source);
    header.put(2, destination);
    let (flags, known) = match message {
        Message::New => (0x02, 0x3f),
        Message::Established => (0x10, 0x12),
        Message::Reply => (0x10, 0x10),
    };
    header.put(13, &Bits::masked(&[flags], &[known]));
    header
}

impl Packet {
    /// Whether conntrack has seen it.
    pub(super) fn is_tracked(&self) -> bool {
        self.tracked.is_some()
    }

    /// What a register is loaded with; `None`: the packet has no such thing, and the rule does not match.
    pub(super) fn load(&self, field: &Field, length: usize) -> Option<Bits> {
        let tracked = self.tracked.as_ref();
        let word = |value: u32| Bits::known(&value.to_ne_bytes());
        Some(match field {
            Field::Network(at) => self.network.part(*at, length),
            Field::Transport(at) => self.transport.part(*at, length),
            Field::Input => self.input.index.clone(),
            Field::InputName => self.input.name.clone(),
            Field::Output => self.output.index.clone(),
            Field::OutputName => self.output.name.clone(),
            // NFPROTO_IPV4, NFPROTO_IPV6
            Field::Family => Bits::known(&[if self.family == Family::Ipv4 { 2 } else { 10 }]),
            // ETH_P_IP, ETH_P_IPV6
            Field::EtherType => {
                let number: u16 = if self.family == Family::Ipv4 { 0x0800 } else { 0x86dd };
                Bits::known(&number.to_be_bytes())
            }
            Field::Protocol => Bits::known(&[TCP]),
            Field::Mark => self.mark.clone(),
            // PACKET_HOST
            Field::PacketType => Bits::known(&[0]),
            Field::FlowState => word(tracked.map_or(INVALID, |flow| flow.state)),
            Field::XtState => tracked.map_or(word(INVALID), |flow| {
                // The two bits of the status stand two places further on in it.
                let moved = |status: u32| (status & (SRC_NAT | DST_NAT)) << 2;
                let known = !moved(u32::MAX) | moved(flow.known_status);
                Bits::masked(&(flow.state | moved(flow.status)).to_ne_bytes(), &known.to_ne_bytes())
            }),
            Field::FlowStatus => {
                let flow = tracked?;
                Bits::masked(&flow.status.to_ne_bytes(), &flow.known_status.to_ne_bytes())
            }
            Field::FlowMark => tracked.map(|_| self.flow_mark.clone())?,
            Field::FlowDirection => Bits::known(&[u8::from(tracked?.is_reply)]),
            Field::Tuple { is_reply, part } => {
                let tuple = tracked.map(|flow| if *is_reply { &flow.reply } else { &flow.original })?;
                match part {
                    TuplePart::Source => tuple.source.clone(),
                    TuplePart::Destination => tuple.destination.clone(),
                    TuplePart::SourcePort => tuple.source_port.clone(),
                    TuplePart::DestinationPort => tuple.destination_port.clone(),
                }
            }
            Field::AddressType { of_source } => {
                let is_local = if *of_source { self.is_source_local } else { self.is_destination_local };
                // RTN_LOCAL, RTN_UNICAST
                word(if is_local { 2 } else { 1 })
            }
            Field::ReversePath { is_presence: true } => word(1),
            Field::ReversePath { is_presence: false } => self.input.index.clone(),
            Field::Absent => return None,
            Field::Unknown(_) => Bits::unknown(length),
        })
    }
}

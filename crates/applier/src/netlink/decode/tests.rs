use proptest::prelude::*;
use rules::ruleset::{AddrPort, ListIndex, Ruleset, SetKind};
use rules::{AccessList, Family, Forward, Gateway, Snat, Tunnel, diff, render};

use super::*;
use crate::kernel::Generation;
use crate::netlink::attribute::Writer;
use crate::netlink::encode::encode;
use crate::netlink::message::{Answer, Messages};
use crate::netlink::uapi::message as kind;

fn everything(snat: Snat) -> Ruleset {
    let at = |text: &str| -> AddrPort { text.parse().unwrap() };
    let forward = |id: &str, listen: &str, targets: &[&str]| Forward {
        id: id.parse().unwrap(),
        listen: at(listen),
        targets: targets.iter().map(|target| at(target)).collect(),
    };
    let forwards = [
        forward("my-cluster-001", "10.0.0.55:6379", &["10.0.1.230:6379"]),
        forward("my-cluster/reader", "10.0.0.55:6390", &["10.0.1.231:6379", "10.0.1.232:6379"]),
        forward("six-001", "[2001:db8::55]:6379", &["[2001:db8:1::230]:6379"]),
        forward("six/reader", "[2001:db8::55]:6390", &["[2001:db8:1::230]:6379", "[2001:db8:1::231]:6379"]),
    ];
    let clients = ["198.51.100.27/32", "0.0.0.0/8", "255.255.255.0/24", "2001:db8::/32"];
    let families = vec![Family::Ipv4, Family::Ipv6];
    let gateway = Gateway {
        ingress: vec!["eth0".parse().unwrap()],
        families,
        snat,
        tunnels: ["wg0", "wg1"]
            .map(|name| Tunnel { interface: name.parse().unwrap(), confine: name == "wg0" })
            .into(),
        max_segment: Some(1360),
    };
    let clients = clients.map(|client| client.parse().unwrap());
    let (first, second) = forwards.split_at(3);
    render(&[AccessList::new(&clients, first), AccessList::new(&clients[..1], second)], &gateway)
}

/// The messages that build `ruleset`: type within the subsystem, and attributes.
fn built(ruleset: &Ruleset) -> Vec<(u8, Vec<u8>)> {
    let encoded = encode(&diff(None, Some(ruleset)).transaction(), Generation(1), 1);
    let bytes = encoded.pieces().concat();
    let objects = Messages(&bytes).filter_map(|message| match message.unwrap().answer().unwrap() {
        Answer::Object { kind, attributes, .. } => Some((kind, attributes.to_vec())),
        _ => None,
    });
    objects.collect()
}

/// Decodes a message as if the kernel had sent it; it has the same attributes.
fn take(decoder: &mut Decoder, message: u8, attributes: &[u8]) -> Result<(), Malformed> {
    match message {
        kind::NEWTABLE => decoder.table(attributes).map(drop),
        kind::NEWCHAIN => decoder.chain(attributes),
        kind::NEWSET => decoder.set(attributes),
        kind::NEWSETELEM => {
            let name = Fields::<4>::parse(attributes)?.name(2);
            let set = std::str::from_utf8(name).ok().and_then(Set::from_name);
            decoder.elements(
                set.unwrap_or(Set::new(SetKind::Clients(ListIndex::FIRST), Family::Ipv4)),
                attributes,
            )
        }
        kind::NEWRULE => decoder.rule(attributes),
        kind::NEWOBJ => decoder.object(attributes),
        _ => decoder.flowtable(attributes),
    }
}

#[test]
fn an_encoded_ruleset_decodes_unchanged() {
    let addresses =
        ["10.0.0.55", "10.0.0.56", "10.0.0.57", "2001:db8::55"].map(|address| address.parse().unwrap());
    let addresses = Snat::fixed("eth0".parse().unwrap(), addresses.to_vec());
    for snat in [addresses, Snat::Masquerade, Snat::Off] {
        let mut ruleset = everything(snat);
        if ruleset.chains.contains_key(&Chain::Postrouting) {
            ruleset.offload(&"eth0".parse().unwrap());
        }
        let mut decoder = Decoder::default();
        for (message, attributes) in built(&ruleset) {
            take(&mut decoder, message, &attributes).unwrap();
        }
        let Decoded { actual, counters, is_complete } = decoder.finish();
        assert!(is_complete);
        assert_eq!(actual, Actual { ruleset, strangers: vec![] });
        assert!(counters.values().all(|counter| *counter == Counter::default()));
    }
}

#[test]
fn a_different_flowtable_is_a_stranger() {
    let mut ruleset = everything(Snat::Off);
    ruleset.offload(&"eth0".parse().unwrap());
    let (_, ours) = built(&ruleset).into_iter().find(|(message, _)| *message == kind::NEWFLOWTABLE).unwrap();
    let strangers = |attributes: &[u8]| {
        let mut decoder = Decoder::default();
        decoder.flowtable(attributes).unwrap();
        let Decoded { actual, .. } = decoder.finish();
        assert_eq!(actual.ruleset.flowtable.is_some(), actual.strangers.is_empty());
        actual.strangers
    };
    let flowtable = |name: &str, priority: u32, devices: &[&str], flags: Option<u32>| {
        let mut writer = Writer::default();
        writer.name(flowtable_attr::TABLE, TABLE);
        writer.name(flowtable_attr::NAME, name);
        writer.nest(flowtable_attr::HOOK, |writer| {
            writer.be32(flowtable_attr::HOOK_NUMBER, 0);
            writer.be32(flowtable_attr::HOOK_PRIORITY, priority);
            writer.nest(flowtable_attr::HOOK_DEVICES, |writer| {
                devices.iter().for_each(|device| writer.name(flowtable_attr::DEVICE_NAME, device));
            });
        });
        flags.iter().for_each(|flags| writer.be32(flowtable_attr::FLAGS, *flags));
        writer.0
    };
    assert!(strangers(&ours).is_empty());
    // The kernel always sends the flags.
    assert!(strangers(&flowtable("fastpath", 0, &["eth0"], Some(0))).is_empty());
    for (name, other) in [
        ("flowtable fastpath", flowtable("fastpath", 0, &[], None)),
        ("flowtable fastpath", flowtable("fastpath", 0, &["eth0", "eth1"], None)),
        ("flowtable fastpath", flowtable("fastpath", 5, &["eth0"], None)),
        ("flowtable fastpath", flowtable("fastpath", 0, &["eth0"], Some(1))),
        ("flowtable mine", flowtable("mine", 0, &["eth0"], None)),
    ] {
        assert_eq!(strangers(&other), [name]);
    }
}

#[test]
fn duplicate_or_missing_elements_make_a_dump_incomplete() {
    let messages = built(&everything(Snat::Off));
    let forward4 = |(message, attributes): &&(u8, Vec<u8>)| {
        *message == kind::NEWSETELEM && Fields::<4>::parse(attributes).unwrap().name(2) == b"forward4"
    };
    let elements = messages.iter().find(forward4).unwrap();
    let read = |count: u32, times: usize| {
        let mut decoder = Decoder::default();
        decoder.missing.insert(Set::new(SetKind::Forward(ListIndex::FIRST), Family::Ipv4), count.into());
        for (message, attributes) in messages.iter().chain(std::iter::repeat_n(elements, times)) {
            take(&mut decoder, *message, attributes).unwrap();
        }
        decoder.finish().is_complete
    };
    assert!(read(2, 0));
    assert!(!read(3, 0), "one is missing");
    assert!(!read(3, 1), "one came twice, so another is missing");
}

#[test]
fn a_catch_all_element_is_an_uncounted_stranger() {
    for set in Set::all() {
        let mut decoder = Decoder::default();
        decoder.missing.insert(set, 0);
        let mut writer = Writer::default();
        writer.nest(elements::LIST, |writer| writer.nest(1, |writer| writer.be32(3, 2)));
        decoder.elements(set, &writer.0).unwrap();
        let Decoded { actual, is_complete, .. } = decoder.finish();
        assert_eq!(
            (actual.strangers, is_complete),
            (vec![format!("element * in {} {set}", set.keyword())], true)
        );
    }
}

#[test]
fn an_invalid_comment_makes_a_stranger() {
    let backends4 = Set::new(SetKind::Backends, Family::Ipv4);
    let with = |comment: &[u8]| {
        let comment = [&[0, u8::try_from(comment.len()).unwrap()], comment].concat();
        let mut decoder = Decoder::default();
        let mut writer = Writer::default();
        writer.nest(elements::LIST, |writer| {
            writer.nest(1, |writer| {
                writer.nest(1, |writer| writer.put(1, &[10, 0, 1, 230, 0x18, 0xeb, 0, 0]));
                writer.put(6, &comment);
            });
        });
        decoder.elements(backends4, &writer.0).unwrap();
        let Decoded { actual, .. } = decoder.finish();
        assert_eq!(actual.ruleset.sets[&backends4].len() + actual.strangers.len(), 1);
        actual.strangers.join(" ")
    };
    assert_eq!(with(b"my-cluster/reader\0"), "");
    let stranger = |comment| format!("element 10.0.1.230 . 6379 comment \"{comment}\" in set backends4");
    assert_eq!(with(b"bob laptop\0"), stranger("bob laptop"));
    assert_eq!(with(b"\0"), stranger(""));
    assert_eq!(with(b"\x1b[2J\0"), stranger("\\u{1b}[2J"));
    assert_eq!(with(b"\xff"), stranger("\u{fffd}"));
}

#[test]
fn unpaired_ranges_are_strangers() {
    let clients4 = Set::new(SetKind::Clients(ListIndex::FIRST), Family::Ipv4);
    let strangers = |bounds: &[(u8, bool)]| {
        let mut decoder = Decoder::default();
        decoder.actual.ruleset.sets.insert(clients4, BTreeMap::new());
        let mut writer = Writer::default();
        writer.nest(elements::LIST, |writer| {
            for &(address, end) in bounds {
                writer.nest(1, |writer| {
                    writer.be32(3, end.into());
                    writer.nest(1, |writer| writer.put(1, &[10, 0, 0, address]));
                });
            }
        });
        decoder.elements(clients4, &writer.0).unwrap();
        let Decoded { actual, .. } = decoder.finish();
        let ranges = actual.ruleset.sets[&clients4].keys().map(Key::to_string).collect::<Vec<_>>().join(" ");
        (ranges, actual.strangers.len())
    };
    // In any order, touching or not, and up to the highest address.
    assert_eq!(
        strangers(&[(9, true), (1, false), (9, false), (20, true)]),
        ("10.0.0.1-10.0.0.8 10.0.0.9-10.0.0.19".into(), 0)
    );
    assert_eq!(strangers(&[(200, false)]), ("10.0.0.200-255.255.255.255".into(), 0));
    assert_eq!(strangers(&[(1, false), (2, false), (9, true)]).1, 1);
    assert_eq!(strangers(&[(1, true)]).1, 1);
    assert_eq!(strangers(&[(1, false), (2, true), (9, true)]).1, 1);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(message in 0..24u8, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut decoder = Decoder::default();
        let _ = take(&mut decoder, message, &bytes);
        let _ = decoder.finish();
        for message in Messages(&bytes) {
            let _ = message.and_then(|message| message.answer().map(drop));
        }
    }

    #[test]
    fn corrupted_messages_never_panic(
        at in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        byte: u8,
        cut: bool,
    ) {
        let messages = built(&everything(Snat::Masquerade));
        let broken = at.index(messages.len());
        let mut decoder = Decoder::default();
        for (number, (message, attributes)) in messages.iter().enumerate() {
            let mut attributes = attributes.clone();
            if number == broken {
                let place = place.index(attributes.len());
                if cut { attributes.truncate(place) } else { attributes[place] = byte }
            }
            let _ = take(&mut decoder, *message, &attributes);
        }
        let _ = decoder.finish();
    }
}

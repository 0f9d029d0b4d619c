use proptest::prelude::*;

use super::super::attribute::Writer;
use super::super::message::build_for;
use super::*;

/// NFT_MSG_DELTABLE
const DELTABLE: u8 = 2;
const IP: u8 = libc::NFPROTO_IPV4 as u8;

/// The ports of our own socket and of another.
const OWN: Port = Port(1000);
const OTHER: Port = Port(2000);

fn notification(family: u8, kind: u8, fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    build_for(libc::NFNL_SUBSYS_NFTABLES, family, kind, 0, 0, fill)
}

fn object(family: u8, kind: u8, table: &str) -> Vec<u8> {
    notification(family, kind, |writer| writer.name(table::NAME, table))
}

fn end(generation: u32, pid: u32, name: &str) -> Vec<u8> {
    end_by(OTHER, generation, pid, name)
}

fn end_by(Port(port): Port, generation: u32, pid: u32, name: &str) -> Vec<u8> {
    let mut message = notification(0, kind::NEWGEN, |writer| {
        writer.be32(generation::ID, generation);
        writer.be32(generation::PROC_PID, pid);
        writer.name(generation::PROC_NAME, name);
    });
    message[12..16].copy_from_slice(&port.to_ne_bytes());
    message
}

fn receive(pending: &mut Pending, datagrams: &[Vec<u8>]) -> Option<Noticed> {
    let mut noticed = None;
    datagrams.iter().for_each(|datagram| pending.parse(datagram, Some(OWN), &mut noticed).unwrap());
    noticed
}

fn who(noticed: &Noticed) -> Vec<(u32, &str)> {
    noticed.who.iter().map(|by| (by.pid, by.name.as_str())).collect()
}

#[test]
fn only_our_tables_objects_count_as_ours() {
    for message in [DELTABLE, kind::NEWSETELEM, kind::DELSETELEM, kind::DELCHAIN, kind::NEWRULE, kind::DELSET]
    {
        let ours = [object(INET, message, "cachenat"), end(7, 41, "nft")];
        let noticed = receive(&mut Pending::default(), &ours).unwrap();
        assert_eq!((noticed.generation, noticed.intrusions), (Some(Generation(7)), 1));
        assert_eq!(who(&noticed), [(41, "nft")]);
        for foreign in [object(IP, message, "cachenat"), object(INET, message, "cachenat2")] {
            let noticed = receive(&mut Pending::default(), &[foreign, end(7, 41, "nft")]).unwrap();
            assert_eq!((noticed.is_untouched(), noticed.who.len()), (true, 0));
        }
    }
}

#[test]
fn an_unfinished_commit_is_not_reported() {
    let mut pending = Pending::default();
    assert_eq!(receive(&mut pending, &[object(INET, DELTABLE, "cachenat")]), None);
    assert!(!receive(&mut pending, &[end(7, 41, "nft")]).unwrap().is_untouched());
    assert!(receive(&mut pending, &[end(8, 41, "nft")]).unwrap().is_untouched());
}

#[test]
fn writers_to_our_table_are_named() {
    let ours = object(INET, kind::NEWRULE, "cachenat");
    let other = object(INET, kind::NEWRULE, "other");
    let datagrams = [
        [ours.clone(), end(7, 41, "nft")].concat(),
        [ours, end(8, 42, "fire\x1b[2Jwalld")].concat(),
        [other, end(9, 43, "docker")].concat(),
    ];
    let noticed = receive(&mut Pending::default(), &datagrams).unwrap();
    assert_eq!((noticed.generation, noticed.intrusions), (Some(Generation(9)), 2));
    assert_eq!(noticed.last_intrusion, Some(Generation(8)));
    assert_eq!(who(&noticed), [(41, "nft"), (42, "fire\\u{1b}[2Jwalld")]);
}

#[test]
fn our_commits_are_not_intrusions() {
    let ours = || object(INET, kind::NEWRULE, "cachenat");
    let own = |generation| [ours(), end_by(OWN, generation, 40, "cachenat")].concat();
    let nft = |generation| [ours(), end(generation, 41, "nft")].concat();
    let docker = |generation| [object(INET, kind::NEWRULE, "other"), end(generation, 42, "docker")].concat();
    // Our commit next to another process's commit to its own table, or to ours, in either order.
    for (datagrams, intrusions, last) in [
        ([own(7), docker(8)], 0, None),
        ([docker(7), own(8)], 0, None),
        ([nft(7), own(8)], 1, Some(Generation(7))),
        ([own(7), nft(8)], 1, Some(Generation(8))),
    ] {
        let noticed = receive(&mut Pending::default(), &datagrams).unwrap();
        assert_eq!((noticed.intrusions, noticed.last_intrusion), (intrusions, last));
        assert_eq!(noticed.generation, Some(Generation(8)));
        let nft = if intrusions > 0 { vec![(41, "nft")] } else { vec![] };
        assert_eq!(who(&noticed), nft);
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Pending::default().parse(&bytes, None, &mut None);
    }

    #[test]
    fn corrupted_messages_never_panic(
        place in any::<prop::sample::Index>(),
        byte: u8,
        cut: bool,
    ) {
        let mut datagrams = [object(INET, DELTABLE, "cachenat"), end(7, 41, "nft")].concat();
        let place = place.index(datagrams.len());
        if cut { datagrams.truncate(place) } else { datagrams[place] = byte }
        let _ = Pending::default().parse(&datagrams, None, &mut None);
    }
}

use proptest::prelude::*;

use super::super::attribute::Writer;
use super::super::message::build_for;
use super::*;

/// NFT_MSG_DELTABLE
const DELTABLE: u8 = 2;
const IP: u8 = libc::NFPROTO_IPV4 as u8;

fn notification(family: u8, kind: u8, fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    build_for(libc::NFNL_SUBSYS_NFTABLES, family, kind, 0, 0, fill)
}

fn object(family: u8, kind: u8, table: &str) -> Vec<u8> {
    notification(family, kind, |writer| writer.name(table::NAME, table))
}

fn end(generation: u32, pid: u32, name: &str) -> Vec<u8> {
    notification(0, kind::NEWGEN, |writer| {
        writer.be32(generation::ID, generation);
        writer.be32(generation::PROC_PID, pid);
        writer.name(generation::PROC_NAME, name);
    })
}

fn hear(pending: &mut Pending, datagrams: &[Vec<u8>]) -> Option<Noticed> {
    let mut noticed = None;
    datagrams.iter().for_each(|datagram| pending.hear(datagram, &mut noticed).unwrap());
    noticed
}

fn who(noticed: &Noticed) -> Vec<(u32, &str)> {
    noticed.who.iter().map(|by| (by.pid, by.name.as_str())).collect()
}

#[test]
fn what_any_object_of_our_table_suffers_is_ours_and_an_equal_name_elsewhere_is_not() {
    for message in [DELTABLE, kind::NEWSETELEM, kind::DELSETELEM, kind::DELCHAIN, kind::NEWRULE, kind::DELSET]
    {
        let ours = [object(INET, message, "cachenat"), end(7, 41, "nft")];
        let noticed = hear(&mut Pending::default(), &ours).unwrap();
        assert_eq!((noticed.generation, noticed.touched_ours), (Some(Generation(7)), true));
        assert_eq!(who(&noticed), [(41, "nft")]);
        for foreign in [object(IP, message, "cachenat"), object(INET, message, "cachenat2")] {
            let noticed = hear(&mut Pending::default(), &[foreign, end(7, 41, "nft")]).unwrap();
            assert_eq!((noticed.touched_ours, noticed.who.len()), (false, 0));
        }
    }
}

#[test]
fn a_commit_is_noticed_when_it_is_heard_to_its_end() {
    let mut pending = Pending::default();
    assert_eq!(hear(&mut pending, &[object(INET, DELTABLE, "cachenat")]), None);
    assert!(hear(&mut pending, &[end(7, 41, "nft")]).unwrap().touched_ours);
    assert!(!hear(&mut pending, &[end(8, 41, "nft")]).unwrap().touched_ours);
}

#[test]
fn of_several_commits_those_who_touched_our_table_are_named_and_the_last_generation() {
    let ours = object(INET, kind::NEWRULE, "cachenat");
    let other = object(INET, kind::NEWRULE, "other");
    let heard = [
        [ours.clone(), end(7, 41, "nft")].concat(),
        [ours, end(8, 42, "fire\x1b[2Jwalld")].concat(),
        [other, end(9, 43, "docker")].concat(),
    ];
    let noticed = hear(&mut Pending::default(), &heard).unwrap();
    assert_eq!((noticed.generation, noticed.touched_ours), (Some(Generation(9)), true));
    assert_eq!(who(&noticed), [(41, "nft"), (42, "fire\\u{1b}[2Jwalld")]);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Pending::default().hear(&bytes, &mut None);
    }

    #[test]
    fn real_messages_with_a_byte_changed_or_the_end_cut_off_never_panic(
        place in any::<prop::sample::Index>(),
        byte: u8,
        cut: bool,
    ) {
        let mut heard = [object(INET, DELTABLE, "cachenat"), end(7, 41, "nft")].concat();
        let place = place.index(heard.len());
        if cut { heard.truncate(place) } else { heard[place] = byte }
        let _ = Pending::default().hear(&heard, &mut None);
    }
}

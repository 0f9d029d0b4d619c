//! The messages are as Linux 6.18 sent them for the line of `conntrack -L` above each.

use proptest::prelude::*;
use rules::flows::Pair;

use super::*;

/// tcp 6 3599 ESTABLISHED src=198.51.100.27 dst=10.0.0.55 sport=40000 dport=6379
/// src=10.0.1.230 dst=198.51.100.27 sport=6379 dport=40000 [ASSURED]
const TCP: &str = "
    34000180 14000180 08000100 c633641b 08000200 0a000037 1c000280 05000100 06000000 06000200 9c400000 06000300
    18eb0000 34000280 14000180 08000100 0a0001e6 08000200 c633641b 1c000280 05000100 06000000 06000200 18eb0000
    06000300 9c400000 08000300 000001ae 08000800 00000000 08000c00 a7d87441 08000b00 00000001 08000700 00000e0f
    30000480 2c000180 05000100 03000000 05000200 00000000 05000300 00000000 06000400 0a000000 06000500 0a000000
    1c001880 08000100 00000000 08000200 00000000 08000300 00000000";

/// tcp 6 3599 TIME_WAIT src=2001:db8::27 dst=2001:db8::55 sport=40000 dport=6379
/// src=2001:db8:1::230 dst=2001:db8::27 sport=6379 dport=40000 [ASSURED]
const TCP6: &str = "
    4c000180 2c000180 14000300 20010db8 00000000 00000000 00000027 14000400 20010db8 00000000 00000000 00000055
    1c000280 05000100 06000000 06000200 9c400000 06000300 18eb0000 4c000280 2c000180 14000300 20010db8 00010000
    00000000 00000230 14000400 20010db8 00000000 00000000 00000027 1c000280 05000100 06000000 06000200 18eb0000
    06000300 9c400000 08000300 000001ae 08000800 00000000 08000c00 0b9d9304 08000b00 00000001 08000700 00000e0f
    30000480 2c000180 05000100 07000000 05000200 00000000 05000300 00000000 06000400 0e000000 06000500 0e000000
    1c001880 08000100 00000000 08000200 00000000 08000300 00000000";

/// udp 17 3599 src=198.51.100.27 dst=10.0.0.55 sport=40000 dport=6379
/// src=10.0.1.230 dst=198.51.100.27 sport=6379 dport=40000 [ASSURED]
const UDP: &str = "
    34000180 14000180 08000100 c633641b 08000200 0a000037 1c000280 05000100 11000000 06000200 9c400000 06000300
    18eb0000 34000280 14000180 08000100 0a0001e6 08000200 c633641b 1c000280 05000100 11000000 06000200 18eb0000
    06000300 9c400000 08000300 000001ae 08000800 00000000 08000c00 83e63ed8 08000b00 00000001 08000700 00000e0f
    1c001880 08000100 00000000 08000200 00000000 08000300 00000000";

/// CTA_ZONE 5, as a flow of a zone has it.
const ZONE: &str = "06001200 00050000";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn at(text: &str) -> AddrPort {
    text.parse().unwrap()
}

fn translated(client: &str, listen: &str, target: &str) -> Translated {
    let pair = Pair { listen: at(listen), target: at(target) };
    Translated { client: client.parse().unwrap(), pair }
}

const INET4: u8 = libc::AF_INET as u8;
const INET6: u8 = libc::AF_INET6 as u8;

#[test]
fn a_flow_has_its_dialled_address_and_target() {
    let message = bytes(TCP);
    let flow = Flow::parse(Which::Translated, INET4, &message).unwrap().unwrap();
    assert_eq!(flow.translated(), translated("198.51.100.27", "10.0.0.55:6379", "10.0.1.230:6379"));
    assert!(!flow.has_ended());
    let message = bytes(TCP6);
    let flow = Flow::parse(Which::Translated, INET6, &message).unwrap().unwrap();
    assert_eq!(
        flow.translated(),
        translated("2001:db8::27", "[2001:db8::55]:6379", "[2001:db8:1::230]:6379")
    );
    assert!(flow.has_ended());
}

#[test]
fn other_protocols_zones_and_plain_flows_are_ignored() {
    let untranslated = TCP.replace("08000300 000001ae", "08000300 0000018e");
    let zoned_tuple =
        TCP.replacen("34000180", "3c000180", 1).replacen("18eb0000", "18eb0000 06000300 00050000", 1);
    for foreign in [UDP, &untranslated, &format!("{TCP} {ZONE}"), &zoned_tuple] {
        assert_eq!(Flow::parse(Which::Translated, INET4, &bytes(foreign)), Ok(None), "{foreign}");
    }
}

#[test]
fn a_deletion_sends_the_original_tuple_and_id() {
    let message = bytes(TCP);
    let deletion = Flow::parse(Which::Translated, INET4, &message).unwrap().unwrap().key().deletion(7);
    // IPCTNL_MSG_CT_DELETE, NLM_F_REQUEST | NLM_F_ACK, number 7; AF_INET; CTA_TUPLE_ORIG, CTA_ID
    let header = "50000000 02010500 07000000 00000000 02000000";
    let tuple = "34000180 14000180 08000100 c633641b 08000200 0a000037
                 1c000280 05000100 06000000 06000200 9c400000 06000300 18eb0000";
    assert_eq!(deletion, bytes(&format!("{header} {tuple} 08000c00 a7d87441")));
}

#[test]
fn only_missing_ctnetlink_is_unsupported() {
    for errno in [libc::EINVAL, libc::EOPNOTSUPP, libc::ENOENT] {
        assert!(matches!(failed(LIST, os_error(errno)), ConntrackError::Unsupported(_)));
        assert!(matches!(failed(DELETE, os_error(errno)), ConntrackError::Io { request: DELETE, .. }));
    }
    assert!(matches!(failed(OPEN, os_error(libc::EPROTONOSUPPORT)), ConntrackError::Unsupported(_)));
    assert!(matches!(failed(LIST, os_error(libc::EPERM)), ConntrackError::Denied(_)));
    assert!(matches!(failed(DELETE, os_error(libc::EBUSY)), ConntrackError::Offloaded(_)));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(family: u8, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Flow::parse(Which::Translated, family, &bytes);
    }

    #[test]
    fn a_corrupted_flow_never_panics(
        place in any::<prop::sample::Index>(),
        byte: u8,
        cut: bool,
        six: bool,
    ) {
        let mut message = bytes(if six { TCP6 } else { TCP });
        let place = place.index(message.len());
        if cut { message.truncate(place) } else { message[place] = byte }
        if let Ok(Some(flow)) = Flow::parse(Which::Translated, INET4, &message) {
            let bare = 20 + 8;
            prop_assert!(flow.key().deletion(1).len() > bare, "a deletion without a tuple flushes the table");
        }
    }
}

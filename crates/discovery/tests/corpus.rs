//! Inventory files as they may be found on a disk: whole, damaged, of another time.
//!
//! `corpus/good-*` are read, `corpus/bad-*` are refused, and every one of them is damaged further at random.

#![allow(clippy::unwrap_used, reason = "a test that is not as it should be fails")]

#[path = "../../../tests/damage.rs"]
mod damage;

use discovery::Inventory;
use proptest::prelude::*;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");

#[test]
fn the_good_are_read_and_the_bad_are_refused() {
    damage::assert_good_and_bad(CORPUS, |text| Inventory::from_json(text).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_read_of_a_damaged_file_is_whole(text in damage::damaged_file(CORPUS)) {
        let Ok(inventory) = Inventory::from_json(&text) else { return Ok(()) };
        prop_assert_eq!(&Inventory::from_json(&inventory.to_json()).unwrap(), &inventory);
        prop_assert!(!inventory.to_json().chars().any(|c| c.is_control() && c != '\n'));
    }
}

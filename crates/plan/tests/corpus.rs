//! Leases and inventories as they may be found on a disk: whole, damaged, of another time.
//!
//! `corpus/good-*` are leases that are read, `corpus/bad-*` are refused, and every one of them is damaged further at random.

#![allow(clippy::unwrap_used, reason = "a test that is not as it should be fails")]

#[path = "../../../tests/damage.rs"]
mod damage;

use discovery::Inventory;
use plan::{Leases, OnEmptyAnswer, Policy, merge_with_last_good};
use proptest::prelude::*;

const LEASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
const INVENTORIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../discovery/tests/corpus");

#[test]
fn the_good_are_read_and_the_bad_are_refused() {
    damage::assert_good_and_bad(LEASES, |text| serde_json::from_str::<Leases>(text).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_read_of_damaged_leases_is_whole(text in damage::damaged_file(LEASES)) {
        let Ok(leases) = serde_json::from_str::<Leases>(&text) else { return Ok(()) };
        let again: Leases = serde_json::from_str(&serde_json::to_string(&leases).unwrap()).unwrap();
        prop_assert_eq!(&again, &leases);
        prop_assert_eq!(leases.holders().len(), leases.iter().filter(|lease| lease.released.is_none()).count());
    }

    #[test]
    fn a_damaged_last_good_inventory_can_be_merged_with(text in damage::damaged_file(INVENTORIES)) {
        let Ok(inventory) = Inventory::from_json(&text) else { return Ok(()) };
        let policy = Policy {
            emptied: OnEmptyAnswer::Keep,
            max_removed_percent: 50,
            guarded_sources: &[],
            now: plan::Timestamp::default(),
        };
        let merged = merge_with_last_good(Inventory::default(), Some(&inventory), policy);
        prop_assert!(merged.inventory.nodes.len() <= inventory.nodes.len());
    }
}

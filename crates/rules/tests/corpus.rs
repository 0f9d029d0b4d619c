//! Rendered rulesets as they may be found on a disk: whole, damaged, of another time.
//!
//! `corpus/good-*` are read, `corpus/bad-*` are refused, and every one of them is damaged further at random.

#![allow(clippy::unwrap_used, reason = "a test that is not as it should be fails")]

#[path = "../../../tests/damage.rs"]
mod damage;

use proptest::prelude::*;
use rules::json::DesiredState;
use rules::{Sysctl, diff};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");

#[test]
fn the_good_are_read_and_the_bad_are_refused() {
    damage::assert_good_and_bad(CORPUS, |text| DesiredState::from_json(text).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_read_of_a_damaged_ruleset_is_whole_and_can_be_worked_with(text in damage::damaged_file(CORPUS)) {
        let Ok(wanted) = DesiredState::from_json(&text) else { return Ok(()) };
        prop_assert_eq!(&DesiredState::from_json(&wanted.to_json()).unwrap(), &wanted);
        let changes = diff(None, Some(&wanted.ruleset));
        prop_assert!(!changes.is_empty());
        let _ = (changes.to_string(), changes.transaction(), Sysctl::needed_by(&wanted.ruleset));
    }
}

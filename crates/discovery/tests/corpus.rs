//! Inventory files as they may be found on a disk: whole, damaged, of another time.
//!
//! `corpus/good-*` are read, `corpus/bad-*` are refused, and every one of them is damaged further at random.

#![allow(clippy::unwrap_used, reason = "a test that is not as it should be fails")]

use std::fs;
use std::path::PathBuf;

use discovery::{Inventory, over_last_good};
use proptest::prelude::*;

fn corpus() -> Vec<(String, String)> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let text = |path: &PathBuf| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    files.iter().map(|path| (name(path), text(path))).collect()
}

#[test]
fn the_good_are_read_and_the_bad_are_refused() {
    let corpus = corpus();
    assert!(corpus.iter().any(|(name, _)| name.starts_with("bad-")));
    for (name, text) in corpus {
        assert_eq!(Inventory::from_json(&text).is_ok(), name.starts_with("good-"), "{name}");
    }
}

/// A file of the corpus with a few of its bytes replaced, taken away or doubled.
fn damaged() -> impl Strategy<Value = String> {
    let texts: Vec<String> = corpus().into_iter().map(|(_, text)| text).collect();
    let damage = prop::collection::vec((any::<prop::sample::Index>(), 0..40_usize, any::<u8>(), 0..3), 1..6);
    (prop::sample::select(texts), damage).prop_map(|(text, damages)| {
        let mut bytes = text.into_bytes();
        for (place, length, byte, how) in damages {
            let start = place.index(bytes.len() + 1);
            let range = start..(start + length).min(bytes.len());
            match how {
                0 => drop(bytes.splice(range, [byte])),
                1 => drop(bytes.drain(range)),
                _ => {
                    let again: Vec<u8> = bytes.get(range).unwrap().to_vec();
                    drop(bytes.splice(start..start, again));
                }
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_read_of_a_damaged_file_is_whole_and_can_be_worked_with(text in damaged()) {
        let Ok(inventory) = Inventory::from_json(&text) else { return Ok(()) };
        prop_assert_eq!(&Inventory::from_json(&inventory.to_json()).unwrap(), &inventory);
        prop_assert!(!inventory.to_json().chars().any(|c| c.is_control() && c != '\n'));
        let policy = discovery::Policy { emptied: discovery::Emptied::Keep, at_once: 50, asked: &[], now: 0 };
        let merged = over_last_good(Inventory::default(), Some(&inventory), policy);
        prop_assert!(merged.inventory.nodes.len() <= inventory.nodes.len());
    }
}

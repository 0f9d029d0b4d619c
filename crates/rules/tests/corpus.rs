//! Rendered rulesets and leases as they may be found on a disk: whole, damaged, of another time.
//!
//! `corpus/*-good-*` are read, `corpus/*-bad-*` are refused, and every one of them is damaged further at random.

#![allow(clippy::unwrap_used, reason = "a test that is not as it should be fails")]

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use rules::json::Wanted;
use rules::{Leases, Sysctl, diff};

fn corpus(kind: &str) -> Vec<(String, String)> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let text = |path: &PathBuf| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    let files = files.iter().map(|path| (name(path), text(path)));
    files.filter(|(name, _)| name.starts_with(kind)).collect()
}

#[test]
fn the_good_are_read_and_the_bad_are_refused() {
    let (rulesets, leases) = (corpus("ruleset-"), corpus("leases-"));
    assert!(rulesets.len() > 3 && leases.len() > 3);
    for (name, text) in rulesets {
        assert_eq!(Wanted::from_json(&text).is_ok(), name.contains("-good-"), "{name}");
    }
    for (name, text) in leases {
        assert_eq!(serde_json::from_str::<Leases>(&text).is_ok(), name.contains("-good-"), "{name}");
    }
}

/// A file of the corpus with a few of its bytes replaced, taken away or doubled.
fn damaged(kind: &str) -> impl Strategy<Value = String> {
    let texts: Vec<String> = corpus(kind).into_iter().map(|(_, text)| text).collect();
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
    fn what_is_read_of_a_damaged_ruleset_is_whole_and_can_be_worked_with(text in damaged("ruleset-")) {
        let Ok(wanted) = Wanted::from_json(&text) else { return Ok(()) };
        prop_assert_eq!(&Wanted::from_json(&wanted.to_json()).unwrap(), &wanted);
        let changes = diff(None, Some(&wanted.ruleset));
        prop_assert!(!changes.is_empty());
        let _ = (changes.to_string(), changes.transaction(), Sysctl::needed_by(&wanted.ruleset));
    }

    #[test]
    fn what_is_read_of_damaged_leases_is_whole(text in damaged("leases-")) {
        let Ok(leases) = serde_json::from_str::<Leases>(&text) else { return Ok(()) };
        let again: Leases = serde_json::from_str(&serde_json::to_string(&leases).unwrap()).unwrap();
        prop_assert_eq!(&again, &leases);
        prop_assert_eq!(leases.holders().len(), leases.iter().filter(|lease| lease.released.is_none()).count());
    }
}

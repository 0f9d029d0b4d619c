//! Files as they may be found on a disk: whole, damaged, of another time.
//!
//! `corpus/config/good-*` are read, `corpus/config/bad-*` are refused, and every one of them is damaged further at random;
//! so are the files of a state directory.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use crate::config::Config;
use crate::state::State;

fn configs() -> Vec<(String, String)> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus/config");
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let text = |path: &PathBuf| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    files.iter().map(|path| (name(path), text(path))).collect()
}

fn read(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("config.yaml"), text.to_owned()).map_err(|error| error.to_string())
}

#[test]
fn the_good_are_read_and_the_bad_are_refused_by_name() {
    let configs = configs();
    assert!(configs.iter().any(|(name, _)| name.starts_with("bad-")));
    for (name, text) in configs {
        let read = read(&text);
        assert_eq!(read.is_ok(), name.starts_with("good-"), "{name}: {read:?}");
        assert!(read.err().is_none_or(|error| error.contains("config.yaml:")), "{name}");
    }
}

/// The text with a few of its bytes replaced, taken away or doubled.
fn damaged(text: String) -> impl Strategy<Value = String> {
    let damage = prop::collection::vec((any::<prop::sample::Index>(), 0..40_usize, any::<u8>(), 0..3), 1..6);
    damage.prop_map(move |damages| {
        let mut bytes = text.clone().into_bytes();
        for (place, length, byte, how) in damages {
            let start = place.index(bytes.len() + 1);
            let range = start..(start + length).min(bytes.len());
            match how {
                0 => drop(bytes.splice(range, [byte])),
                1 => drop(bytes.drain(range)),
                _ => {
                    let again: Vec<u8> = bytes[range].to_vec();
                    drop(bytes.splice(start..start, again));
                }
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn damaged_config() -> impl Strategy<Value = String> {
    let texts: Vec<String> = configs().into_iter().map(|(_, text)| text).collect();
    prop::sample::select(texts).prop_flat_map(damaged)
}

const LEASES: &str = r#"{"version":1,"leases":[{"port":6379,"id":"my-cluster-001","since":1800000000},
{"port":6380,"id":"my-cluster-002","since":1800000000,"released":1800000500}]}"#;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_damaged_configuration_is_read_or_told_with_its_line(text in damaged_config()) {
        match read(&text) {
            Ok(config) => prop_assert!(!config.clients.is_empty()),
            Err(error) => {
                prop_assert!(error.contains("config.yaml:"), "{}", error);
                prop_assert!(!error.chars().any(|c| c.is_control() && c != '\n'), "{:?}", error);
            }
        }
    }

    #[test]
    fn a_damaged_state_file_is_read_whole_or_counts_as_absent(text in damaged(LEASES.to_owned())) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("leases.json"), &text).unwrap();
        let state = State::open(dir.path());
        prop_assert_eq!(state.leases.is_none(), state.damaged.len() == 1);
        for error in &state.damaged {
            prop_assert!(error.to_string().contains("leases.json"));
        }
    }
}

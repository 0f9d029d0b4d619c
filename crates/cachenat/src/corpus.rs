//! Files as they may be found on a disk: whole, damaged, of another time.
//!
//! `corpus/config/good-*` are read, `corpus/config/bad-*` are refused, and every one of them is damaged further at random;
//! so are the files of a state directory.

#[path = "../../../tests/damage.rs"]
mod damage;

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use crate::config::Config;
use crate::state::State;

const CONFIGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/config");

fn read(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("config.yaml"), text.to_owned()).map_err(|error| error.to_string())
}

#[test]
fn the_good_are_read_and_the_bad_are_refused_by_name() {
    damage::assert_good_and_bad(CONFIGS, |text| {
        let read = read(text);
        assert!(read.as_ref().err().is_none_or(|error| error.contains("config.yaml:")), "{read:?}");
        read.is_ok()
    });
}

const LEASES: &str = r#"{"version":1,"leases":[{"port":6379,"id":"my-cluster-001","since":1800000000},
{"port":6380,"id":"my-cluster-002","since":1800000000,"released":1800000500}]}"#;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_damaged_configuration_is_read_or_told_with_its_line(text in damage::damaged_file(CONFIGS)) {
        match read(&text) {
            Ok(config) => prop_assert!(!config.clients.is_empty()),
            Err(error) => {
                prop_assert!(error.contains("config.yaml:"), "{}", error);
                prop_assert!(!error.chars().any(|c| c.is_control() && c != '\n'), "{:?}", error);
            }
        }
    }

    #[test]
    fn a_damaged_state_file_is_read_whole_or_counts_as_absent(text in damage::damaged(vec![LEASES.to_owned()])) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("leases.json"), &text).unwrap();
        let state = State::open(dir.path());
        prop_assert_eq!(state.leases.is_none(), state.damaged.len() == 1);
        for error in &state.damaged {
            prop_assert!(error.to_string().contains("leases.json"));
        }
    }
}

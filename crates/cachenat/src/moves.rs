//! When each listener was led elsewhere last: `moves.json` in the state directory.
//!
//! Kept for people alone: nothing is decided by it, and what can't be read or written costs that memory.

use std::collections::BTreeMap;
use std::path::Path;

use applier::plain_file;
use plan::Timestamp;
use rules::AddrPort;
use rules::diff::{Action, ForwardChange};
use serde::{Deserialize, Serialize};

use crate::state::{StateError, write};

const FILE: &str = "moves.json";

/// By listener; those that were never moved are not in it.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moves {
    version: u32,
    moved: BTreeMap<String, Timestamp>,
}

impl Moves {
    /// Reads the file; one that is missing or damaged knows nothing.
    pub(crate) fn read(dir: &Path) -> Self {
        let text = plain_file::read(&dir.join(FILE), plain_file::LIMIT).unwrap_or_default();
        let read: Option<Self> = serde_json::from_str(&text).ok();
        read.filter(|moves| moves.version == 1).unwrap_or(Self { version: 1, moved: BTreeMap::new() })
    }

    /// When this listener was moved last.
    pub(crate) fn of(&self, listen: AddrPort) -> Option<Timestamp> {
        self.moved.get(&listen.to_string()).copied()
    }

    /// Takes note of what was changed now.
    ///
    /// # Errors
    ///
    /// [`StateError::Io`]; the file is then as it was.
    pub(crate) fn note(dir: &Path, changes: &[ForwardChange], now: Timestamp) -> Result<(), StateError> {
        let mut moves = Self::read(dir);
        let before = moves.moved.clone();
        for change in changes {
            let listen = change.listen.to_string();
            match change.action {
                Action::Move => drop(moves.moved.insert(listen, now)),
                Action::Add | Action::Remove => drop(moves.moved.remove(&listen)),
                Action::Update => {}
            }
        }
        if moves.moved == before {
            return Ok(());
        }
        let file = dir.join(FILE);
        match serde_json::to_string(&moves) {
            Ok(text) => write(&file, [text, "\n".to_owned()]),
            Err(source) => Err(StateError::Io { file, source: source.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SEVEN: Timestamp = Timestamp::from_secs(7);
    const EIGHT: Timestamp = Timestamp::from_secs(8);
    const NINE: Timestamp = Timestamp::from_secs(9);

    fn change(action: Action, listen: &str) -> ForwardChange {
        ForwardChange { action, id: "a".into(), listen: listen.parse().unwrap(), from: vec![], to: vec![] }
    }

    #[test]
    fn only_what_was_moved_has_a_time_and_a_listener_that_goes_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = ("10.0.0.55:6379", "10.0.0.55:6380");
        let of = |listen: &str| Moves::read(dir.path()).of(listen.parse().unwrap());
        Moves::note(dir.path(), &[change(Action::Add, one), change(Action::Add, two)], SEVEN).unwrap();
        assert!(!dir.path().join(FILE).exists(), "nothing was moved");
        Moves::note(dir.path(), &[change(Action::Move, one), change(Action::Update, two)], EIGHT).unwrap();
        assert_eq!((of(one), of(two)), (Some(EIGHT), None));
        Moves::note(dir.path(), &[change(Action::Remove, one)], NINE).unwrap();
        assert_eq!(of(one), None);
    }

    #[test]
    fn a_damaged_file_knows_nothing_and_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["{", r#"{"version":2,"moved":{"10.0.0.55:6379":1}}"#] {
            fs::write(dir.path().join(FILE), text).unwrap();
            assert_eq!(Moves::read(dir.path()).of("10.0.0.55:6379".parse().unwrap()), None);
            Moves::note(dir.path(), &[change(Action::Move, "10.0.0.55:6379")], EIGHT).unwrap();
            assert_eq!(Moves::read(dir.path()).of("10.0.0.55:6379".parse().unwrap()), Some(EIGHT));
        }
    }
}

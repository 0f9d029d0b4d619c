//! Files as they may be found on a disk, for the tests of whatever reads them; each crate includes this by its path.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

/// The files of a directory: name and text, in order.
pub(crate) fn corpus(dir: impl AsRef<Path>) -> Vec<(String, String)> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let text = |path: &PathBuf| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    files.iter().map(|path| (name(path), text(path))).collect()
}

/// Reads each file of a directory: `good-*` must be read, and `bad-*`, of which there are some, refused.
pub(crate) fn assert_good_and_bad(dir: impl AsRef<Path>, is_read: impl Fn(&str) -> bool) {
    let corpus = corpus(dir);
    assert!(corpus.len() > 3);
    assert!(corpus.iter().any(|(name, _)| name.starts_with("bad-")));
    for (name, text) in corpus {
        assert_eq!(is_read(&text), name.starts_with("good-"), "{name}");
    }
}

/// One of the texts with a few of its bytes replaced, taken away or doubled.
pub(crate) fn damaged(texts: Vec<String>) -> impl Strategy<Value = String> {
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

/// One of a directory's files, damaged.
pub(crate) fn damaged_file(dir: impl AsRef<Path>) -> impl Strategy<Value = String> {
    damaged(corpus(dir).into_iter().map(|(_, text)| text).collect())
}

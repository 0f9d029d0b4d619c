//! The state directory: leases, the last good inventory and the ruleset made from it.
//!
//! A file is replaced by rename, so a reader finds the old or the new one, whole. The directory is the service's user's
//! and root reads it too, so it is believed no more than the network: [`plain_file`] opens each file.

use std::borrow::Cow;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use applier::plain_file::{self, Durability, clear};
use discovery::{Inventory, InventoryError};
use plan::{Leases, Plan, Timestamp};
use rules::Ruleset;
use rules::json::{DesiredState, JsonError};
use serde::{Deserialize, Serialize};

use crate::output::{Output, with_cause};

const VERSION: u32 = 1;

/// The file whose presence says that everything was removed.
const REMOVED: &str = "removed";

/// The file with the digest of a configuration that was rolled back.
const REJECTED: &str = "rejected";

/// The directory and what it held when it was opened.
#[derive(Debug)]
pub(crate) struct State {
    dir: PathBuf,
    /// The leases; `None` if there was no file, or none that could be read.
    pub(crate) leases: Option<Leases>,
    /// The last good inventory, under the same terms.
    pub(crate) last_good: Option<Inventory>,
    /// Files that were there and could not be read.
    pub(crate) damaged: Vec<StateError>,
    /// Whether `last_good` is another than the file's.
    is_ahead: bool,
}

/// Why a state file can't be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("state file {}", file.display())]
    Io {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("state file {} is not a list of leases", file.display())]
    Leases {
        file: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("state file {} is no inventory", file.display())]
    Inventory {
        file: PathBuf,
        #[source]
        source: InventoryError,
    },
    #[error("state file {} is no ruleset", file.display())]
    Ruleset {
        file: PathBuf,
        #[source]
        source: JsonError,
    },
    #[error("state file {} has version {found}, this cachenat reads version {VERSION}", file.display())]
    Version { file: PathBuf, found: u32 },
}

impl StateError {
    fn file(&self) -> &Path {
        match self {
            Self::Io { file, .. }
            | Self::Leases { file, .. }
            | Self::Inventory { file, .. }
            | Self::Ruleset { file, .. }
            | Self::Version { file, .. } => file,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct LeaseFile<'a> {
    version: u32,
    leases: Cow<'a, Leases>,
}

impl State {
    /// Reads the directory; what is missing or damaged is absent, and [`State::damaged`] says which.
    pub(crate) fn open(dir: &Path) -> Self {
        let mut damaged = Vec::new();
        let leases = read(&dir.join("leases.json"), parse_leases, &mut damaged);
        let last_good = read(&dir.join("inventory.json"), parse_inventory, &mut damaged);
        Self { dir: dir.to_owned(), leases, last_good, damaged, is_ahead: false }
    }

    /// What was asked of the kernel last; `None` if that was never.
    ///
    /// # Errors
    ///
    /// [`StateError`], if the file is there and can't be read.
    pub(crate) fn ruleset(dir: &Path) -> Result<Option<DesiredState>, StateError> {
        let mut damaged = Vec::new();
        let wanted = read(&dir.join("ruleset.json"), parse_ruleset, &mut damaged);
        damaged.pop().map_or(Ok(wanted), Err)
    }

    /// Forgets what was asked of the kernel last, so that nothing brings it back.
    ///
    /// # Errors
    ///
    /// [`StateError::Io`], if the file is there and can't be deleted.
    pub(crate) fn forget_ruleset(dir: &Path) -> Result<(), StateError> {
        delete(&dir.join("ruleset.json"))
    }

    /// Writes down that everything is to be removed, and to stay so until the next save.
    ///
    /// # Errors
    ///
    /// [`StateError::Io`].
    pub(crate) fn intend_removal(dir: &Path) -> Result<(), StateError> {
        write(&dir.join(REMOVED), ["'cachenat remove' was run; 'cachenat apply' forwards again\n"])
    }

    /// Writes down that a configuration was rolled back, by its digest.
    ///
    /// # Errors
    ///
    /// [`StateError::Io`].
    pub(crate) fn reject(dir: &Path, digest: u64) -> Result<(), StateError> {
        write(&dir.join(REJECTED), [format!("{digest:016x}\n")])
    }

    /// The configuration that was rolled back last and neither changed nor accepted since. Only root or this user can have
    /// said so: another's word would keep runs from their work.
    pub(crate) fn rejected(dir: &Path) -> Option<u64> {
        let mut file = plain_file::open(&dir.join(REJECTED), 64).ok()?;
        let of = file.metadata().ok()?.uid();
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        let is_believed = of == 0 || of == nix::unistd::geteuid().as_raw();
        u64::from_str_radix(text.trim_end(), 16).ok().filter(|_| is_believed)
    }

    /// Forgets it.
    ///
    /// # Errors
    ///
    /// [`StateError::Io`].
    pub(crate) fn forget_rejected(dir: &Path) -> Result<(), StateError> {
        delete(&dir.join(REJECTED))
    }

    /// Whether everything was removed, or is about to be, and nothing but an `apply` may bring it back.
    pub(crate) fn is_removed(dir: &Path) -> bool {
        fs::symlink_metadata(dir.join(REMOVED)).is_ok()
    }

    /// When what is asked of the kernel last changed; `None` if that is not known.
    pub(crate) fn last_change(dir: &Path) -> Option<Timestamp> {
        let modified =
            fs::symlink_metadata(dir.join("ruleset.json")).and_then(|file| file.modified()).ok()?;
        Timestamp::from_system_time(modified)
    }

    /// The rules that were in force last, as far as they can be read.
    pub(crate) fn last_ruleset(dir: &Path) -> Option<Ruleset> {
        Self::ruleset(dir).ok().flatten().map(|wanted| wanted.ruleset)
    }

    /// The directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Puts what could not be written earlier in place of what the files hold.
    #[must_use]
    pub(crate) fn ahead(self, leases: Leases, last_good: Inventory) -> Self {
        Self { leases: Some(leases), last_good: Some(last_good), is_ahead: true, ..self }
    }

    /// Forgets which removals are held, for an answer that was heard before and is no second word on them.
    pub(crate) fn forget_held(&mut self) {
        for report in self.last_good.iter_mut().flat_map(|inventory| &mut inventory.sources) {
            report.held.clear();
        }
    }

    /// Writes what differs from what is there.
    ///
    /// Damaged files are kept aside under another name.
    ///
    /// # Errors
    ///
    /// [`StateError::Io`]; a file is then as it was.
    pub(crate) fn save(&self, desired: &Plan) -> Result<(), StateError> {
        for file in self.damaged.iter().map(StateError::file) {
            set_aside(file).map_err(|source| StateError::Io { file: file.to_owned(), source })?;
        }
        // It is no longer removed, and whatever is in force now is wanted.
        delete(&self.dir.join(REMOVED))?;
        delete(&self.dir.join(REJECTED))?;
        // The rules first: no file may know more than what `restore` puts in force.
        keep(&self.dir.join("ruleset.json"), || desired.wanted.to_json_pieces())?;
        self.save_leases(&desired.leases)?;
        // To make its text takes as long as to read the kernel's table, so the plan has compared it.
        if self.is_ahead || desired.is_news {
            write(&self.dir.join("inventory.json"), desired.inventory.to_json_pieces())?;
        }
        Ok(())
    }

    /// Writes the leases, if the file holds others.
    ///
    /// # Errors
    ///
    /// [`StateError::Io`]; the file is then as it was.
    pub(crate) fn save_leases(&self, leases: &Leases) -> Result<(), StateError> {
        let file = self.dir.join("leases.json");
        let form = LeaseFile { version: VERSION, leases: Cow::Borrowed(leases) };
        match serde_json::to_string(&form) {
            Ok(text) => keep(&file, || [text.as_str(), "\n"].into_iter()),
            Err(source) => Err(StateError::Leases { file, source }),
        }
    }
}

pub(crate) fn delete(file: &Path) -> Result<(), StateError> {
    match fs::remove_file(file) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(StateError::Io { file: file.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// What the file holds; `None` if it is not there or can't be read, and then `damaged` knows.
fn read<T>(
    file: &Path,
    parse: fn(&Path, &str) -> Result<T, StateError>,
    damaged: &mut Vec<StateError>,
) -> Option<T> {
    let parsed = match plain_file::read(file, plain_file::LIMIT) {
        Ok(text) => parse(file, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(source) => Err(StateError::Io { file: file.to_owned(), source }),
    };
    parsed.map_err(|error| damaged.push(error)).ok()
}

fn parse_leases(file: &Path, text: &str) -> Result<Leases, StateError> {
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    let wrong = |source| StateError::Leases { file: file.to_owned(), source };
    let parsed = serde_json::from_str(text);
    if let Ok(LeaseFile { version: VERSION, leases }) = parsed {
        return Ok(leases.into_owned());
    }
    // Of another version the shape may be another as well.
    match serde_json::from_str(text).map_err(wrong)? {
        Head { version: VERSION } => parsed.map(|file| file.leases.into_owned()).map_err(wrong),
        Head { version } => Err(StateError::Version { file: file.to_owned(), found: version }),
    }
}

fn parse_inventory(file: &Path, text: &str) -> Result<Inventory, StateError> {
    Inventory::from_json(text).map_err(|source| StateError::Inventory { file: file.to_owned(), source })
}

fn parse_ruleset(file: &Path, text: &str) -> Result<DesiredState, StateError> {
    DesiredState::from_json(text).map_err(|source| StateError::Ruleset { file: file.to_owned(), source })
}

/// Writes the file, unless it holds this text already. What it holds is read and not remembered: a run that was ended
/// halfway has written some of the files, and another may have been there since.
fn keep<I: Iterator<Item: AsRef<[u8]>>>(file: &Path, pieces: impl Fn() -> I) -> Result<(), StateError> {
    if holds(file, pieces()).unwrap_or(false) { Ok(()) } else { write(file, pieces()) }
}

/// Whether the file holds this text and no more, read along with it: of 60,000 nodes the text is 8 MB.
fn holds(file: &Path, pieces: impl Iterator<Item: AsRef<[u8]>>) -> io::Result<bool> {
    let mut there = BufReader::new(plain_file::open(file, plain_file::LIMIT)?);
    let mut found = Vec::new();
    for piece in pieces {
        let piece = piece.as_ref();
        found.resize(piece.len(), 0);
        there.read_exact(&mut found)?;
        if found != piece {
            return Ok(false);
        }
    }
    Ok(there.fill_buf()?.is_empty())
}

/// Replaces the file by one with this text, or leaves it as it was.
pub(crate) fn write(file: &Path, pieces: impl IntoIterator<Item: AsRef<[u8]>>) -> Result<(), StateError> {
    replace(file, pieces, Durability::Crash)
}

/// Like [`write()`], for what the end of this boot makes worthless: the disk is not waited for.
pub(crate) fn write_for_this_boot(
    file: &Path,
    pieces: impl IntoIterator<Item: AsRef<[u8]>>,
) -> Result<(), StateError> {
    replace(file, pieces, Durability::Process)
}

fn replace(
    file: &Path,
    pieces: impl IntoIterator<Item: AsRef<[u8]>>,
    durability: Durability,
) -> Result<(), StateError> {
    // A file replaces whatever is not a directory.
    let room =
        if fs::symlink_metadata(file).is_ok_and(|found| found.is_dir()) { set_aside(file) } else { Ok(()) };
    let replaced = room.and_then(|()| plain_file::replace(file, None, pieces, durability));
    replaced.map_err(|source| StateError::Io { file: file.to_owned(), source })
}

/// Renames what is no file of ours to `FILE.damaged`, in place of an earlier one.
fn set_aside(file: &Path) -> io::Result<()> {
    let aside = file.with_extension("json.damaged");
    clear(&aside)?;
    fs::rename(file, aside)
}

/// Tells of state that could not be written.
pub(crate) fn remembered(saved: Result<(), StateError>, output: Output) -> bool {
    if let Err(error) = &saved {
        let error = with_cause(error);
        output.warn(&format!("{error}; the rules are in force, but the state could not be saved"));
    }
    saved.is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn leases() -> Leases {
        serde_json::from_str(r#"[{"port":6379,"id":"my-cluster-001","since":7}]"#).unwrap()
    }

    fn desired() -> Plan {
        let wanted = DesiredState { ruleset: Ruleset::default(), sysctls: vec![rules::Sysctl::Ipv4Forward] };
        Plan {
            wanted: wanted.into(),
            leases: leases(),
            inventory: Inventory::default(),
            is_news: true,
            kept: vec![],
            remarks: vec![],
        }
    }

    #[test]
    fn what_was_saved_is_read_back_and_an_unchanged_file_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        State::open(dir.path()).save(&desired()).unwrap();
        let state = State::open(dir.path());
        let (leases, last_good) = (state.leases.clone(), state.last_good.clone());
        assert_eq!((leases, last_good), (Some(desired().leases), Some(desired().inventory)));

        let files = ["leases.json", "inventory.json", "ruleset.json"];
        let inodes = || {
            let inode = |name| fs::metadata(dir.path().join(name)).unwrap().ino();
            files.map(inode)
        };
        let before = inodes();
        state.save(&Plan { is_news: false, ..desired() }).unwrap();
        assert_eq!(inodes(), before);
        state.save(&Plan { leases: Leases::default(), ..desired() }).unwrap();
        let is_new: Vec<bool> = before.iter().zip(&inodes()).map(|(before, after)| before != after).collect();
        assert_eq!(is_new, [true, true, false]);
    }

    #[test]
    fn a_removal_lasts_until_the_next_save() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!State::is_removed(dir.path()));
        State::intend_removal(dir.path()).unwrap();
        State::open(dir.path()).save_leases(&leases()).unwrap();
        assert!(State::is_removed(dir.path()));
        State::open(dir.path()).save(&desired()).unwrap();
        assert!(!State::is_removed(dir.path()));
    }

    #[test]
    fn what_could_not_be_written_is_written_later_though_nothing_is_new_then() {
        let dir = tempfile::tempdir().unwrap();
        State::open(dir.path()).save(&Plan { leases: Leases::default(), ..desired() }).unwrap();
        fs::remove_file(dir.path().join("inventory.json")).unwrap();
        let ahead = State::open(dir.path()).ahead(leases(), Inventory::default());
        ahead.save(&Plan { is_news: false, ..desired() }).unwrap();
        let state = State::open(dir.path());
        assert_eq!((state.leases, state.last_good), (Some(leases()), Some(Inventory::default())));
    }

    #[test]
    fn a_link_that_lies_where_the_new_file_goes_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, "untouched").unwrap();
        std::os::unix::fs::symlink(&elsewhere, dir.path().join("leases.json.new")).unwrap();
        State::open(dir.path()).save_leases(&leases()).unwrap();
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "untouched");
        assert_eq!(State::open(dir.path()).leases, Some(leases()));
    }

    #[test]
    fn a_damaged_file_counts_as_absent_and_is_kept_aside() {
        for text in ["", "{", r#"{"version":2,"leases":[]}"#, r#"{"version":1,"leases":[{"port":0}]}"#] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("leases.json"), text).unwrap();
            let state = State::open(dir.path());
            assert_eq!((state.leases.is_none(), state.damaged.len()), (true, 1), "{text}");
            state.save(&desired()).unwrap();
            assert_eq!(fs::read_to_string(dir.path().join("leases.json.damaged")).unwrap(), text);
            assert_eq!(State::open(dir.path()).leases, Some(leases()));
        }
    }
}

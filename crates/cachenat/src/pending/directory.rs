//! Where a change on probation is kept: a directory that only its user can write to or look into.
//!
//! The state directory is the service's user's, who must neither plant a change for root to roll back, nor end a
//! probation by deleting a file. What ends it is a positive act: the file gets another name.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use applier::plain_file;

use crate::config::Config;
use crate::state;

/// How far a probation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nobody has said anything yet.
    Waiting,
    /// The change is to stay. The guard, or the next run, remembers what goes with it, and clears up.
    Confirmed,
    /// Everything was removed, the change with it.
    Removed,
}

impl Stage {
    const ALL: [Self; 3] = [Self::Waiting, Self::Confirmed, Self::Removed];

    const fn file(self) -> &'static str {
        match self {
            Self::Waiting => "pending.json",
            Self::Confirmed => "confirmed.json",
            Self::Removed => "removed.json",
        }
    }
}

/// The directory.
#[derive(Clone, Debug)]
pub(super) struct PendingDir(PathBuf);

/// A change that is there.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) stage: Stage,
    pub(super) file: File,
}

impl PendingDir {
    pub(super) fn of(config: &Config) -> Self {
        Self(config.run_dir())
    }

    pub(super) fn path(&self, stage: Stage) -> PathBuf {
        self.0.join(stage.file())
    }

    /// The change that is there, if there is one; a directory that was left empty is taken away.
    ///
    /// # Errors
    ///
    /// If the directory is another user's, or something in it can't be opened.
    pub(super) fn find(&self) -> anyhow::Result<Option<Found>> {
        if !self.is_ours()? {
            return Ok(None);
        }
        for stage in Stage::ALL {
            let path = self.path(stage);
            match plain_file::open(&path, plain_file::LIMIT) {
                Ok(file) => return Ok(Some(Found { stage, file })),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| named(&path)),
            }
        }
        self.leave();
        Ok(None)
    }

    /// Whether the directory is there and this user's alone.
    fn is_ours(&self) -> anyhow::Result<bool> {
        let found = match fs::symlink_metadata(&self.0) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error).with_context(|| named(&self.0)),
        };
        let (us, dir) = (nix::unistd::geteuid().as_raw(), self.0.display());
        match found.uid() {
            _ if !found.is_dir() => anyhow::bail!("{dir} is not a directory: delete it, or set lock_file"),
            uid if uid == us && found.mode() & 0o022 == 0 => Ok(true),
            uid if uid == us => anyhow::bail!("{dir} can be written by others: delete it"),
            0 => anyhow::bail!(
                "a change that root made awaits its confirmation: run 'cachenat confirm' as root to keep it, or it is \
                 rolled back in time ('cachenat apply' as root does so if its guard was killed)"
            ),
            uid => anyhow::bail!("{dir} belongs to user {uid}: delete it, or set lock_file"),
        }
    }

    /// Puts a change there, to wait.
    pub(super) fn put(&self, text: String) -> anyhow::Result<File> {
        match DirBuilder::new().mode(0o700).create(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.with_context(|| named(&self.0))?,
        }
        self.is_ours()?;
        let path = self.path(Stage::Waiting);
        state::write(&path, [text])?;
        plain_file::open(&path, plain_file::LIMIT).with_context(|| named(&path))
    }

    /// Takes a probation that waits to another stage; the one act that ends it.
    pub(super) fn advance(&self, to: Stage) -> anyhow::Result<()> {
        let path = self.path(Stage::Waiting);
        fs::rename(&path, self.path(to)).with_context(|| named(&path))
    }

    /// At what stage the change in this open file is; `None`: it is under none of our names, so nobody has ended it.
    pub(super) fn stage_of(&self, file: &File) -> Option<Stage> {
        let own = file.metadata().ok()?;
        let is_it = |path: &Path| {
            let found = fs::symlink_metadata(path);
            found.is_ok_and(|found| (found.dev(), found.ino()) == (own.dev(), own.ino()))
        };
        Stage::ALL.into_iter().find(|&stage| is_it(&self.path(stage)))
    }

    /// Puts aside what can't be read.
    pub(super) fn put_aside(&self, stage: Stage) -> anyhow::Result<()> {
        let path = self.path(stage);
        fs::rename(&path, path.with_extension("json.damaged")).with_context(|| named(&path))
    }

    /// Takes the change away, whatever stage it is at.
    pub(super) fn clear(&self) -> anyhow::Result<()> {
        for path in Stage::ALL.map(|stage| self.path(stage)) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| named(&path));
                }
                _ => {}
            }
        }
        self.leave();
        Ok(())
    }

    /// The directory stands only while there is a change: another user can't look inside. What was put aside keeps it.
    fn leave(&self) {
        let _ = fs::remove_dir(&self.0);
    }
}

impl Found {
    /// Whether the guard lives: it holds a lock on the file.
    pub(super) fn is_guarded(&self) -> anyhow::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error).context("the lock of the pending change"),
        }
    }
}

fn named(path: &Path) -> String {
    format!("pending change {}", path.display())
}

//! Files that another user may have put there: the state directory is the service's user's, and root reads it too.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::geteuid;

/// The most bytes that a file of the state directory may have: three times what 60,000 nodes take.
pub const LIMIT: u64 = 64 * 1024 * 1024;

/// Opens a file to read, if it is a plain one that root, this process's user or the owner of its directory owns and that
/// has at most `limit` bytes.
///
/// No symbolic link is followed, and nothing blocks: opening a FIFO would wait for somebody who writes (open(2)).
///
/// # Errors
///
/// The system's, or [`io::ErrorKind::InvalidData`] with the reason why the file is none of ours.
pub fn open(path: &Path, limit: u64) -> io::Result<File> {
    let refuse = |why: String| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        // ELOOP says no more than that; a socket is ENXIO.
        Err(_) if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) => {
            return refuse("it is not a plain file".to_owned());
        }
        opened => opened?,
    };
    let found = file.metadata()?;
    if !found.is_file() {
        return refuse("it is not a plain file".to_owned());
    }
    let own = [0, geteuid().as_raw()];
    let is_of_directory = |uid| fs::metadata(path.parent()?).ok().map(|directory| directory.uid() == uid);
    if !own.contains(&found.uid()) && is_of_directory(found.uid()) != Some(true) {
        return refuse(format!("it belongs to user {}, who does not own its directory", found.uid()));
    }
    if found.len() > limit {
        return refuse(format!("it has {} bytes, and {limit} are the most", found.len()));
    }
    Ok(file)
}

/// Reads such a file. It may grow meanwhile, and is read to the limit alone.
///
/// # Errors
///
/// Like [`open`]; also if it is not UTF-8.
pub fn read(path: &Path, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    open(path, limit)?.take(limit).read_to_string(&mut text)?;
    Ok(text)
}

/// What a file that was replaced outlives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A crash of the host: the disk is waited for.
    Crash,
    /// This process, for what the end of this boot makes worthless.
    Process,
}

/// Replaces a file by one with this text, or leaves it as it was; a reader finds the old one or the new one, whole.
///
/// Without `mode` the new file has what the umask leaves (umask(2)). The caller holds a lock, so the new file has a fixed name,
/// `FILE.new`: what a killed run leaves, the next one deletes. It is made anew and never written through, for another user may
/// own the directory and root works in it too: a symbolic link must not lead root elsewhere, and a file of root's must not be
/// in the way.
///
/// # Errors
///
/// The system's; also if a directory stands where the file is to be.
pub fn replace(
    file: &Path,
    mode: Option<u32>,
    pieces: impl IntoIterator<Item: AsRef<[u8]>>,
    durability: Durability,
) -> io::Result<()> {
    let sync = |file: &File| match durability {
        Durability::Crash => file.sync_all(),
        Durability::Process => Ok(()),
    };
    let (Some(directory), Some(name)) = (file.parent(), file.file_name()) else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    fs::create_dir_all(directory)?;
    let mut new = name.to_owned();
    new.push(".new");
    let new = directory.join(new);
    clear(&new)?;
    let written = File::create_new(&new).map(BufWriter::new).and_then(|mut file| {
        pieces.into_iter().try_for_each(|piece| file.write_all(piece.as_ref()))?;
        let file = file.into_inner()?;
        mode.map_or(Ok(()), |mode| file.set_permissions(Permissions::from_mode(mode)))?;
        sync(&file)
    });
    if let Err(error) = written {
        // On a full disk half a file is in the way.
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    fs::rename(&new, file)?;
    // The rename itself is durable only once the directory is.
    sync(&File::open(directory)?)
}

/// Deletes whatever has a name that is ours alone; nothing is followed out of it.
///
/// # Errors
///
/// The system's; that there is nothing is none.
pub fn clear(path: &Path) -> io::Result<()> {
    let cleared = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    cleared.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    fn refusal(path: &Path) -> String {
        read(path, 16).unwrap_err().to_string()
    }

    #[test]
    fn only_small_regular_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("good"), "text").unwrap();
        assert_eq!(read(&at("good"), 16).unwrap(), "text");
        fs::write(at("large"), [b'x'; 17]).unwrap();
        assert_eq!(refusal(&at("large")), "it has 17 bytes, and 16 are the most");
        mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
        symlink("/dev/zero", at("zero")).unwrap();
        symlink(at("good"), at("link")).unwrap();
        symlink("/nowhere", at("dangling")).unwrap();
        fs::create_dir(at("dir")).unwrap();
        for name in ["fifo", "zero", "link", "dangling", "dir"] {
            assert_eq!(refusal(&at(name)), "it is not a plain file", "{name}");
        }
        assert_eq!(read(&at("missing"), 16).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    #[ignore = "needs root to give files away: scripts/test"]
    fn a_third_users_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "text").unwrap();
        std::os::unix::fs::chown(&path, Some(4711), None).unwrap();
        assert_eq!(refusal(&path), "it belongs to user 4711, who does not own its directory");
        std::os::unix::fs::chown(dir.path(), Some(4711), None).unwrap();
        assert_eq!(read(&path, 16).unwrap(), "text");
    }
}

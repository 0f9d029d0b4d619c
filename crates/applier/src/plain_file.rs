//! Safe access to files that another user may have created: root also reads the state directory, which belongs to the
//! service's user.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::geteuid;

/// The maximum size of a file in the state directory, in bytes: three times that of 60,000 nodes.
pub const LIMIT: u64 = 64 * 1024 * 1024;

/// Opens a regular file of at most `limit` bytes that belongs to root, to this process's user or to the owner of its
/// directory.
///
/// Follows no symbolic link, and never blocks: opening a FIFO would wait for a writer (open(2)).
///
/// # Errors
///
/// The system's error, or [`io::ErrorKind::InvalidData`] with the reason why the file is refused.
pub fn open(path: &Path, limit: u64) -> io::Result<File> {
    let refuse = |why: String| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        // ELOOP means a symbolic link, ENXIO a socket.
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

/// Reads a file that [`open`] accepts. If it grows meanwhile, only `limit` bytes are read.
///
/// # Errors
///
/// As [`open`], and if the file is not UTF-8.
pub fn read(path: &Path, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    open(path, limit)?.take(limit).read_to_string(&mut text)?;
    Ok(text)
}

/// Whether any user of this host can write to a file.
pub fn is_writable_by_all(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o002 != 0)
}

/// What a replaced file must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A crash of the host: waits for the disk.
    Crash,
    /// Only the end of this process: the contents are useless after a reboot.
    Process,
}

/// Replaces a file atomically: readers see either the complete old file or the complete new one.
///
/// Without `mode`, the umask decides the new file's permissions (umask(2)). The caller holds a lock, so the temporary
/// file has a fixed name, `FILE.new`, and the next run deletes what a killed run left. It is always created, never
/// opened: another user may own the directory, and a symbolic link there must not redirect root's writes.
///
/// # Errors
///
/// The system's error, also if the path is a directory.
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
        // After a full disk, remove the incomplete file.
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    fs::rename(&new, file)?;
    // The rename is durable only once the directory is synced.
    sync(&File::open(directory)?)
}

/// Deletes the file or directory at a path that only cachenat uses; follows no symbolic link.
///
/// # Errors
///
/// The system's error; a missing path is not an error.
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

//! The lock that prevents concurrent runs, for example by cron and by user-data.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

/// The default time that [`acquire`] waits.
pub const WAIT: Duration = Duration::from_secs(30);

/// The time between two attempts: flock(2) has no timeout.
const POLL: Duration = Duration::from_millis(50);

/// The limit for reading the lock file, in bytes, in case another program wrote it.
const NOTE_LIMIT: u64 = 512;

/// The maximum length of a memo, in characters.
const MEMO_LIMIT: usize = 64;

/// The held lock; released when it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    file: Flock<File>,
    memo: String,
}

/// The process that holds the lock, as it recorded itself in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// How long it has held the lock.
    pub held: Duration,
    /// Its command line; control characters are escaped.
    pub command: String,
}

/// Why the lock was not acquired.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("{} is locked by {}; gave up after {} s", path.display(), who(holder.as_ref()), waited.as_secs())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The process that holds it; `None` if it did not record itself.
        holder: Option<Holder>,
        /// How long this process waited.
        waited: Duration,
    },
    /// The lock file cannot be opened, locked or written.
    #[error("lock file {}; its path is lock_file in the configuration", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

fn who(holder: Option<&Holder>) -> String {
    match holder {
        Some(Holder { pid, held, command }) => {
            format!("process {pid} ({command}) for {} s", held.as_secs())
        }
        None => "another process".to_owned(),
    }
}

/// Locks the file at `path`, and waits up to `wait` while another process holds the lock.
///
/// Creates the file and its directory if needed. The file is never deleted: that would let two processes lock two
/// files of the same name. Only its owner may open it, because reading is enough to lock it. A symbolic link is
/// refused: root writes into the file, which may belong to another user.
///
/// # Errors
///
/// See [`LockError`].
pub fn acquire(path: &Path, wait: Duration) -> Result<Lock, LockError> {
    let failed = |source| LockError::Io { path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    // Reading a FIFO would never end.
    options.custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
    let mut file = options.open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    let start = Instant::now();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                let memo = memo_of(&read_note(&mut file).unwrap_or_default());
                sign(&mut file, &memo).map_err(failed)?;
                return Ok(Lock { file, memo });
            }
            Err((mut back, Errno::EWOULDBLOCK)) if start.elapsed() >= wait => {
                let holder = read_holder(&mut back);
                return Err(LockError::Held { path: path.to_owned(), holder, waited: start.elapsed() });
            }
            Err((back, Errno::EWOULDBLOCK | Errno::EINTR)) => file = back,
            Err((_, errno)) => return Err(failed(errno.into())),
        }
        thread::sleep(POLL.min(wait.saturating_sub(start.elapsed())));
    }
}

/// When the lock in the file at `path` was last acquired or released; `None` if never or unknown.
pub fn last_held(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|file| file.modified()).ok()
}

impl Lock {
    /// The line that an earlier holder left for the next one. Untrusted: any process that can write the file can write it.
    pub fn memo(&self) -> &str {
        &self.memo
    }

    /// Leaves a line for the next holder; newlines in it become spaces.
    pub fn leave_memo(&mut self, memo: &str) {
        self.memo = in_one_line(memo);
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A stale holder would mislead. If it cannot be cleared here, the next holder overwrites it.
        let _ = replace(&mut self.file, "", &self.memo);
    }
}

/// `4711 1700000000 cachenat apply`: the holder's process id, start time and command.
fn sign(file: &mut File, memo: &str) -> io::Result<()> {
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let holder = format!("{} {} {}", std::process::id(), now().as_secs(), words.join(" "));
    replace(file, &in_one_line(&holder), memo)
}

/// Writes the file's two lines: the holder and the memo.
fn replace(file: &mut File, holder: &str, memo: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    if holder.is_empty() && memo.is_empty() {
        return Ok(());
    }
    // In one write, because another process may be reading. The memo comes first, because a command line may be longer
    // than the read limit.
    file.write_all(format!("{memo}\n{holder}\n").as_bytes())
}

fn in_one_line(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join(" ")
}

fn read_note(file: &mut File) -> io::Result<String> {
    let mut note = Vec::new();
    file.rewind()?;
    file.take(NOTE_LIMIT).read_to_end(&mut note)?;
    Ok(String::from_utf8_lossy(&note).into_owned())
}

fn memo_of(note: &str) -> String {
    note.lines().next().unwrap_or_default().chars().take(MEMO_LIMIT).collect()
}

fn read_holder(file: &mut File) -> Option<Holder> {
    parse_holder(read_note(file).ok()?.lines().nth(1)?, now())
}

fn parse_holder(note: &str, now: Duration) -> Option<Holder> {
    let mut words = note.trim_end().splitn(3, ' ');
    let pid = words.next()?.parse().ok()?;
    let since = Duration::from_secs(words.next()?.parse().ok()?);
    let command = words.next()?.escape_debug().to_string();
    Some(Holder { pid, held: now.saturating_sub(since), command })
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_held_lock_names_its_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/cachenat.lock");
        let _held = acquire(&path, Duration::ZERO).unwrap();
        let error = acquire(&path, Duration::from_millis(60)).unwrap_err();
        let LockError::Held { holder: Some(holder), waited, .. } = &error else { panic!("{error}") };
        assert_eq!(holder.pid, std::process::id());
        assert!(*waited >= Duration::from_millis(60));
        let program = std::env::args().next().unwrap();
        assert!(error.to_string().contains(&program), "{error}");
    }

    #[test]
    fn a_dropped_lock_goes_to_the_waiter() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cachenat.lock");
        let held = acquire(&path, Duration::ZERO).unwrap();
        let (sender, waiter) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| sender.send(acquire(&path, Duration::from_secs(60))).unwrap());
            assert!(waiter.recv_timeout(Duration::from_millis(120)).is_err(), "two hold the lock");
            drop(held);
            waiter.recv().unwrap().unwrap();
        });
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn a_memo_reaches_the_next_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cachenat.lock");
        let mut lock = acquire(&path, Duration::ZERO).unwrap();
        lock.leave_memo("asked 7\n1 1 forged");
        drop(lock);
        let next = acquire(&path, Duration::ZERO).unwrap();
        assert_eq!(next.memo(), "asked 7 1 1 forged");
        let error = acquire(&path, Duration::ZERO).unwrap_err();
        let LockError::Held { holder: Some(holder), .. } = error else { panic!("{error}") };
        assert_eq!(holder.pid, std::process::id());
        drop(next);
        fs::write(&path, [0xff; 4096]).unwrap();
        assert_eq!(acquire(&path, Duration::ZERO).unwrap().memo().chars().count(), MEMO_LIMIT);
    }

    #[test]
    fn a_fifo_is_refused_without_blocking() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cachenat.lock");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        acquire(&path, Duration::ZERO).unwrap_err();
    }

    #[test]
    fn a_symlink_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (directory.path().join("cachenat.lock"), directory.path().join("elsewhere"));
        fs::write(&elsewhere, "untouched").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        acquire(&path, Duration::ZERO).unwrap_err();
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "untouched");
    }

    #[test]
    fn holder_notes_are_escaped_and_invalid_ones_ignored() {
        let now = Duration::from_secs(1_700_000_012);
        let holder = parse_holder("4711 1700000000 cachenat \u{1b}[2J\n", now).unwrap();
        assert_eq!(who(Some(&holder)), "process 4711 (cachenat \\u{1b}[2J) for 12 s");
        for note in ["", "x", "4711", "4711 soon cachenat", "-1 1 cachenat", "4711 1"] {
            assert_eq!(parse_holder(note, now), None, "{note}");
        }
    }

    #[test]
    fn an_impossible_lock_path_is_named() {
        let error = acquire(Path::new("/proc/nowhere/cachenat.lock"), Duration::ZERO).unwrap_err();
        assert!(error.to_string().starts_with("lock file /proc/nowhere/cachenat.lock"), "{error}");
    }
}

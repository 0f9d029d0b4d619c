//! A network namespace that exists exactly as long as its value.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};

use super::shell::{run, run_with_input};

/// How long a connect or an answer may take; a gateway that drops packets costs a test this much.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A network namespace, held open by a file descriptor of this process.
///
/// It has no name in `/run/netns`, so parallel labs cannot conflict, and nothing is left if the process is killed: the
/// kernel deletes a namespace with its last descriptor and process (network_namespaces(7)). Inspect it with
/// `nsenter --net=PATH`, see [`Namespace::path`].
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// Makes an empty namespace with its loopback up.
    ///
    /// # Panics
    ///
    /// Without CAP_SYS_ADMIN, which `scripts/test` sees to.
    pub fn new() -> Self {
        // unshare(2) affects only the calling thread, so call it on a new thread.
        let file =
            thread::scope(|scope| scope.spawn(Self::unshared).join()).expect("the thread has not panicked");
        let namespace = Self { file };
        namespace.ip("link set lo up");
        namespace
    }

    fn unshared() -> File {
        unshare(CloneFlags::CLONE_NEWNET)
            .unwrap_or_else(|error| panic!("a new network namespace: {error}; run scripts/test, or as root"));
        File::open("/proc/thread-self/ns/net").expect("proc is mounted")
    }

    /// Where other processes find the namespace: `nsenter --net=PATH`, `ip link set DEV netns PATH`.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// A command that will run `program` inside; its process is the program itself (nsenter(1) execs).
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg("--").arg(program);
        command
    }

    /// Runs a closure on a thread inside: sockets that it opens, and threads and processes that it starts, stay in the
    /// namespace.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET).expect("the descriptor is a network namespace");
            work()
        };
        let result = thread::scope(|scope| scope.spawn(inside).join());
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Opens a TCP connection from inside.
    ///
    /// # Errors
    ///
    /// Refused, unreachable, or no answer within 2 seconds; reads and writes have as long.
    pub fn connect(&self, to: SocketAddrV4) -> io::Result<TcpStream> {
        let stream = self.enter(|| TcpStream::connect_timeout(&SocketAddr::V4(to), TIMEOUT))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(stream)
    }

    /// Runs ip(8) commands, one per line, without the word `ip`.
    pub fn ip(&self, batch: &str) {
        run_with_input(self.command("ip").args(["-batch", "-"]), batch);
    }

    /// Loads rules in nft(8)'s language.
    pub fn nft(&self, ruleset: &str) {
        run_with_input(self.command("nft").args(["-f", "-"]), ruleset);
    }

    /// What nft(8) lists: `what` is as in `nft list WHAT`.
    pub fn nft_list(&self, what: &str) -> String {
        run(self.command("nft").arg("list").args(what.split(' ')))
    }

    /// Reads a sysctl by its path below `/proc/sys`.
    pub fn sysctl(&self, path: &str) -> String {
        let path = format!("/proc/sys/{path}");
        self.enter(|| {
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}")).trim().to_owned()
        })
    }

    /// Sets a sysctl by its path below `/proc/sys`.
    pub fn set_sysctl(&self, path: &str, value: &str) {
        let path = format!("/proc/sys/{path}");
        self.enter(|| fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}")));
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

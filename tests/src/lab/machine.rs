//! The NAT instance as a complete machine: a booted Debian with a real systemd.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::Lab;
use super::namespace::Namespace;
use super::product::Run;
use super::shell::run;
use super::wait::wait_for;
use crate::programs;

/// A machine on the NAT instance's network; dropping it stops the machine and deletes its files.
#[derive(Debug)]
pub struct Machine {
    outside: Child,
    orders: ChildStdin,
    said: BufReader<ChildStdout>,
    /// The process id of its init; `None` while it is off.
    init: Option<String>,
    network: String,
    cgroup: PathBuf,
}

impl Lab {
    /// Boots the system that `scripts/setup` has made, in place of the NAT instance.
    ///
    /// # Panics
    ///
    /// If the test does not run as root, which is needed for file systems and users.
    pub fn boot(&self) -> Machine {
        assert!(nix::unistd::Uid::effective().is_root(), "a machine takes root: sudo scripts/test");
        Machine::boot(&self.network.nat, &self.dir().join("machine"))
    }
}

impl Machine {
    fn boot(network: &Namespace, dir: &Path) -> Self {
        let cgroup = cgroup(dir);
        let mut outside = network.command("setpriv");
        outside.args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "sh",
            "-c",
            include_str!("boot.sh"),
            "boot",
        ]);
        outside.arg(programs::system()).arg(dir).arg(&cgroup);
        let mut outside =
            outside.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("util-linux is there");
        let orders = outside.stdin.take().expect("stdin was asked to be piped");
        let said = BufReader::new(outside.stdout.take().expect("stdout was asked to be piped"));
        let mut machine = Self { outside, orders, said, init: None, network: network.path(), cgroup };
        machine.switch_on();
        machine
    }

    /// Boots it, and waits until all its units have started.
    ///
    /// # Panics
    ///
    /// If one of its units has failed.
    pub fn switch_on(&mut self) {
        writeln!(self.orders, "on").expect("boot.sh waits");
        self.init = Some(self.hear());
        let socket = self.path("/run/systemd/private");
        wait_for("systemd", || socket.exists().then_some(()));
        let state = self.runs(&["systemctl", "is-system-running", "--wait"]);
        assert_eq!(
            state.stdout,
            "running\n",
            "{}",
            self.runs(&["systemctl", "--failed", "--no-pager"]).stdout
        );
    }

    /// Shuts it down cleanly.
    pub fn switch_off(&mut self) {
        // The shutdown may cut off the answer.
        self.runs(&["systemctl", "poweroff"]);
        assert_eq!(self.hear(), "off");
        self.init = None;
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("boot.sh says UTF-8");
        line.trim_end().to_owned()
    }

    fn init(&self) -> &str {
        self.init.as_deref().expect("the machine is on")
    }

    /// A path on the machine, as seen by this process.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init()))
    }

    /// Reads a file.
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Writes a file.
    pub fn write(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// A program on the machine, run by root.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", self.init(), "--mount", "--pid", "--ipc", "--uts", "--cgroup"]);
        command.arg(format!("--net={}", self.network)).args(["--root", "--wd", "--"]).arg(program);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/sbin:/usr/bin").env("LC_ALL", "C");
        command
    }

    /// Runs a program to its end, whether or not it succeeds.
    pub fn runs(&self, words: &[&str]) -> Run {
        self.command(words[0]).args(&words[1..]).output().expect("nsenter is part of util-linux").into()
    }

    /// Runs a program that must not fail, and returns what it printed.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> String {
        run(self.command(words[0]).args(&words[1..]))
    }

    /// Starts a unit.
    ///
    /// # Panics
    ///
    /// If it does not start; the message holds what it has logged.
    #[track_caller]
    pub fn start(&self, unit: &str) {
        let run = self.runs(&["systemctl", "start", unit]);
        assert_eq!(run.code, 0, "{}{}", run.stderr, self.journal(unit));
    }

    /// A property of a unit, as systemctl(1) shows it.
    pub fn unit(&self, unit: &str, property: &str) -> String {
        self.run(&["systemctl", "show", "--value", "--property", property, unit]).trim().to_owned()
    }

    /// What a unit has logged.
    pub fn journal(&self, unit: &str) -> String {
        self.run(&["journalctl", "--no-pager", "--output=cat", "--unit", unit])
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // These fail only if there is nothing left to do.
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        let _ = self.outside.kill();
        let _ = self.outside.wait();
        if self.cgroup.exists() {
            wait_for("the machine's cgroups to be empty", || remove_cgroup(&self.cgroup).then_some(()));
        }
    }
}

/// A cgroup for the machine's processes, in which systemd creates its own.
fn cgroup(dir: &Path) -> PathBuf {
    let read = |file: &str| fs::read_to_string(file).expect("proc is mounted");
    let mounts = read("/proc/self/mounts");
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = mounts.find(|mount| mount[2] == "cgroup2").expect("there is a cgroup2 file system");
    let groups = read("/proc/self/cgroup");
    let group =
        groups.lines().find_map(|line| line.strip_prefix("0::/")).expect("every process is in a cgroup");
    let name = dir.parent().and_then(Path::file_name).expect("the lab's directory has a name");
    Path::new(mount[1]).join(group).join(name)
}

fn remove_cgroup(cgroup: &Path) -> bool {
    let below = fs::read_dir(cgroup).into_iter().flatten().flatten().map(|entry| entry.path());
    let emptied = below.filter(|path| path.is_dir()).all(|path| remove_cgroup(&path));
    emptied && fs::remove_dir(cgroup).is_ok()
}

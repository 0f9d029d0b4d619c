//! A cachenat that goes on: it is waited for, listened to, signalled, and ends with its value.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait::wait_for;

/// A running process and every line that it has said, on stdout and stderr.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    /// Starts it.
    pub fn start(command: &mut Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let said = Arc::default();
        if let Some(stdout) = child.stdout.take() {
            collect(stdout, Arc::clone(&said));
        }
        if let Some(stderr) = child.stderr.take() {
            collect(stderr, Arc::clone(&said));
        }
        Self { child, said }
    }

    /// Its process id: every program on the way to it execs the next.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid is an i32"))
    }

    /// What it has said until now.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it says a line with these words.
    ///
    /// # Panics
    ///
    /// When it does not for 20 seconds.
    pub fn says(&self, words: &str) -> String {
        let line = || self.said().into_iter().find(|line| line.contains(words));
        wait_for(&format!("{words:?}"), || {
            line().or_else(|| {
                assert!(!self.has_ended(), "it ended without {words:?}: {:?}", self.said());
                None
            })
        })
    }

    fn has_ended(&self) -> bool {
        // A process that has ended and was not waited for yet is a zombie.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        stat.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with('Z'))
    }

    /// Sends it a signal.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it runs, or waits for its parent");
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// When it does not end for 20 seconds.
    pub fn end(&mut self) -> ExitStatus {
        let said = self.said();
        wait_for(&format!("it to end: {said:?}"), || self.child.try_wait().expect("it is our child"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only when the process is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(stream: impl Read + Send + 'static, said: Arc<Mutex<Vec<String>>>) {
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            said.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
}

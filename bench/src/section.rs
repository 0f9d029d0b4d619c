//! A part of the benchmark: its results, and the process that it runs in.
//!
//! Each part is a separate process, so that a failure or hang costs only its own chapter.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The results of a part.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Section {
    /// Its chapters, as they go into the page.
    pub(crate) text: String,
    pub(crate) targets: Vec<Target>,
    pub(crate) growth: Vec<Growth>,
    /// File names in `docs`, and what goes into them.
    pub(crate) plots: Vec<(String, String)>,
}

/// A goal.
#[derive(Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) wanted: String,
    pub(crate) measured: String,
    pub(crate) reached: bool,
    /// What there is to say to it, above all if it is not reached.
    pub(crate) note: String,
}

/// How something grows with something else.
#[derive(Serialize, Deserialize)]
pub(crate) struct Growth {
    pub(crate) what: String,
    pub(crate) with: String,
    pub(crate) unit: String,
    /// So many of the one, so much of the other.
    pub(crate) points: Vec<(f64, f64)>,
    /// Why, where it is known.
    pub(crate) note: String,
}

/// Says on stderr what is done and how long it will go on.
pub(crate) struct Progress {
    begin: Instant,
    done: usize,
    steps: usize,
    /// The parts that come after this one.
    after: Duration,
}

impl Progress {
    pub(crate) fn new(after: Duration) -> Self {
        Self { begin: Instant::now(), done: 0, steps: 1, after }
    }

    /// From now on so many steps of about one length.
    pub(crate) fn begin(&mut self, steps: usize) {
        *self = Self { begin: Instant::now(), done: 0, steps, ..*self };
    }

    /// Begins a step.
    pub(crate) fn step(&mut self, what: &str) {
        if self.done == 0 {
            eprintln!("{what}");
        } else {
            let each = self.begin.elapsed().as_secs_f64() / self.done as f64;
            let left = each * self.steps.saturating_sub(self.done) as f64 + self.after.as_secs_f64();
            eprintln!("{what}: about {} min {:02} s left", left as u64 / 60, left as u64 % 60);
        }
        self.done += 1;
    }
}

/// The word by which this program is told to be one part.
pub(crate) const SECTION: &str = "section";

/// Runs a part in a process of its own, for no longer than `limit`; if that fails, says why.
pub(crate) fn run(
    name: &str,
    arguments: &[&str],
    after: Duration,
    limit: Duration,
) -> Result<Section, String> {
    let mut part = Command::new("setpriv");
    part.args(["--pdeathsig", "KILL"]).arg(std::env::current_exe().map_err(|error| error.to_string())?);
    part.args([SECTION, name, &after.as_secs().to_string()]).args(arguments);
    part.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut part = part.spawn().map_err(|error| format!("setpriv: {error}"))?;
    let (found, said) = (part.stdout.take(), part.stderr.take());
    let said = thread::spawn(move || said.map(pass_on).unwrap_or_default());
    let found = thread::spawn(move || {
        let mut text = String::new();
        found.map(|mut pipe| pipe.read_to_string(&mut text));
        text
    });
    let ended = wait(&mut part, limit);
    let (found, said) = (found.join().unwrap_or_default(), said.join().unwrap_or_default());
    match ended {
        None => Err(format!("it was ended after {} s; at last it said: {said}", limit.as_secs())),
        Some(true) => serde_json::from_str(&found).map_err(|error| format!("{error}: {found}")),
        Some(false) => Err(said),
    }
}

/// Whether it ended well; `None` if its time was up.
fn wait(part: &mut Child, limit: Duration) -> Option<bool> {
    let begin = Instant::now();
    while begin.elapsed() < limit {
        if let Ok(Some(status)) = part.try_wait() {
            return Some(status.success());
        }
        thread::sleep(Duration::from_millis(50));
    }
    // Its processes end with it (PR_SET_PDEATHSIG), and so do its namespaces.
    let _ = part.kill();
    let _ = part.wait();
    None
}

/// Shows what a part says, and returns the end of it.
fn pass_on(pipe: impl std::io::Read) -> String {
    let mut last = Vec::new();
    for line in BufReader::new(pipe).lines().map_while(Result::ok) {
        eprintln!("{line}");
        last.push(line);
    }
    last.split_off(last.len().saturating_sub(3)).join(" ")
}

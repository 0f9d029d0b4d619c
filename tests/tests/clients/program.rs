//! A program made of the emitted text and what is to be done with it, run on the client's host.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use cachenat_tests::lab::Lab;
use cachenat_tests::programs;

/// A client library: the format that is for it, and a program that goes on from there.
pub(crate) struct Library {
    /// As in `--format`.
    pub(crate) format: &'static str,
    /// What follows the emitted text.
    pub(crate) program: &'static [&'static str],
}

impl Library {
    fn is_node(&self) -> bool {
        self.program.iter().any(|part| part.contains("await tell("))
    }

    /// What cachenat prints for it now, and the program.
    fn source(&self, lab: &Lab) -> String {
        lab.cachenat(&["endpoints", "--format", self.format]).exits(0).stdout + &self.program.concat()
    }
}

/// A running program.
pub(crate) struct Running {
    format: &'static str,
    child: Child,
    errors: PathBuf,
}

impl Running {
    /// Starts it with what cachenat prints now. `keys` sets its keys apart from those of others.
    pub(crate) fn start(lab: &Lab, library: &Library, keys: &str) -> Self {
        let extension = if library.is_node() { "mjs" } else { "py" };
        let file = lab.dir().join(format!("{}-{keys}.{extension}", library.format));
        fs::write(&file, library.source(lab)).unwrap();
        // A program that waits for a node that is not there must not keep the test waiting too.
        let mut command = lab.network.client.command("timeout");
        command.arg("90");
        if library.is_node() {
            let modules = lab.dir().join("node_modules");
            if !modules.exists() {
                symlink(programs::node_modules(), modules).unwrap();
            }
            command.arg("node");
        } else {
            command.arg(programs::python());
        }
        let errors = file.with_extension("stderr");
        command.arg(&file).arg(format!("{}-{keys}", library.format));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(fs::File::create(&errors).unwrap());
        Self { format: library.format, child: command.spawn().unwrap(), errors }
    }

    /// Waits until it says that it has come so far; some libraries log to stdout as well.
    pub(crate) fn says(&mut self, word: &str) {
        // A buffer of one byte takes nothing that `ends` is to read.
        let stdout = BufReader::with_capacity(1, self.child.stdout.as_mut().unwrap());
        let said = stdout.lines().map_while(Result::ok).any(|line| line.trim() == word);
        assert!(said, "{}: {}", self.format, fs::read_to_string(&self.errors).unwrap());
    }

    /// Lets it go on.
    pub(crate) fn go_on(&mut self) {
        writeln!(self.child.stdin.as_mut().unwrap()).unwrap();
    }

    /// Waits for its end, which must be a good one, and returns what else it printed.
    pub(crate) fn ends(mut self) -> String {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.child.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
        let status = self.child.wait().unwrap();
        let errors = fs::read_to_string(&self.errors).unwrap();
        assert!(status.success(), "{}: {status}: {errors}", self.format);
        rest
    }
}

/// Runs a program that is not Node's, Python's or waiting for anything.
pub(crate) fn client(lab: &Lab, line: &str) -> Command {
    let mut command = lab.network.client.command("sh");
    command.args(["-c", line]);
    command
}

//! A program made of the emitted text and what is to be done with it, run on the client's host.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use cachenat_tests::lab::{Lab, tls};
use cachenat_tests::programs;

use crate::compiled;

/// What runs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Python,
    Node,
    Php,
    Rust,
    C,
}

/// A client library: the format that is for it, and a program that goes on from there.
pub(crate) struct Library {
    /// What runs it.
    pub(crate) language: Language,
    /// As in `--format`.
    pub(crate) format: &'static str,
    /// What follows the emitted text.
    pub(crate) program: &'static [&'static str],
}

impl Library {
    /// What cachenat prints for it now.
    pub(crate) fn printed(&self, lab: &Lab) -> String {
        lab.cachenat(&["endpoints", "--format", self.format]).exits(0).stdout
    }

    /// What runs it, going on from `printed`.
    fn command(&self, lab: &Lab, printed: &str, keys: &str) -> Vec<PathBuf> {
        let script = |extension: &str| {
            let file = lab.dir().join(format!("{}-{keys}.{extension}", self.format));
            fs::write(&file, printed.to_owned() + &self.program.concat()).unwrap();
            file
        };
        match self.language {
            Language::Python => vec![programs::python(), script("py")],
            Language::Php => {
                // What Composer does for Predis; phpredis is an extension.
                let prepend = "auto_prepend_file=/usr/share/php/Predis/autoload.php";
                vec!["php".into(), "-d".into(), prepend.into(), script("php")]
            }
            Language::Node => {
                let modules = lab.dir().join("node_modules");
                if !modules.exists() {
                    symlink(programs::node_modules(), modules).unwrap();
                }
                vec!["node".into(), script("mjs")]
            }
            Language::C => {
                let source = printed.to_owned() + &self.program.concat();
                vec![compiled::c(lab.dir(), &format!("{}-{keys}", self.format), &source, &["-lhiredis"])]
            }
            Language::Rust => vec![compiled::rust(self.format, printed, &self.program.concat())],
        }
    }
}

/// A running program.
pub(crate) struct Running {
    format: &'static str,
    child: Child,
    errors: PathBuf,
}

impl Running {
    /// Starts it with what cachenat prints now. `keys` sets its keys apart from those of others; a command that fails
    /// is tried again for `patience` seconds.
    pub(crate) fn start(lab: &Lab, library: &Library, keys: &str, patience: u8) -> Self {
        Self::start_from(lab, library, &library.printed(lab), keys, patience)
    }

    /// Starts what goes on from another text than cachenat's.
    pub(crate) fn start_from(lab: &Lab, library: &Library, text: &str, keys: &str, patience: u8) -> Self {
        let mut command = on_the_client(lab);
        // A program that waits for a node that is not there must not keep the test waiting too.
        command.args(["timeout", "180"]).args(library.command(lab, text, keys));
        let errors = lab.dir().join(format!("{}-{keys}.stderr", library.format));
        command.args([format!("{}-{keys}", library.format), patience.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(fs::File::create(&errors).unwrap());
        Self { format: library.format, child: command.spawn().unwrap(), errors }
    }

    /// Waits until it says that it has come so far; some libraries log to stdout as well.
    pub(crate) fn says(&mut self, word: &str) {
        // A buffer of one byte takes nothing that `ends` is to read.
        let stdout = BufReader::with_capacity(1, self.child.stdout.as_mut().unwrap());
        let said = stdout.lines().map_while(Result::ok).any(|line| line.trim() == word);
        if !said {
            let errors = fs::read_to_string(&self.errors).unwrap();
            panic!("{} never said {word}: {}: {errors}", self.format, self.child.wait().unwrap());
        }
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

/// A command on the client's host, whose hosts file is what cachenat prints, and which believes the lab's authority.
pub(crate) fn on_the_client(lab: &Lab) -> Command {
    let hosts = lab.cachenat(&["endpoints", "--format", "hosts"]).exits(0).stdout;
    let file = lab.dir().join("hosts");
    fs::write(&file, format!("127.0.0.1 localhost\n{hosts}")).unwrap();
    // A mount namespace gives this one process another /etc/hosts.
    let mut command = lab.network.client.command("unshare");
    command.args(["--mount", "--", "sh", "-c", r#"mount --bind "$0" /etc/hosts && exec "$@""#]).arg(file);
    let authority = tls::authority(lab.dir());
    if authority.exists() {
        // OpenSSL's and rustls-native-certs' variable, and Node's.
        command.env("SSL_CERT_FILE", &authority).env("NODE_EXTRA_CA_CERTS", &authority);
    }
    command
}

/// A line of shell on the client's host.
pub(crate) fn client(lab: &Lab, line: &str) -> Command {
    let mut command = lab.network.client.command("sh");
    command.args(["-c", line]);
    command
}

//! What goes to stdout, which is data, and to stderr, which is for people.

pub(crate) mod debug;
mod event;
mod voice;

use std::error::Error;
use std::io::{self, IsTerminal};

pub(crate) use clients::columns;

use crate::args::{Global, LogFormat};
use crate::clock::now;
use event::{Level, line, printable};
pub(crate) use voice::{Hush, finish, in_background};
use voice::{Stream, Words, is_hushed, speak, to_stdout};

/// How a command ends; the contract's exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done, or in step.
    Done = 0,
    /// `diff` found something.
    Found = 1,
    /// Nothing was changed.
    Error = 2,
    /// Part of the sources could not be read; the rest is done.
    Partial = 3,
}

impl Exit {
    /// [`Exit::Done`] for a whole answer, else [`Exit::Partial`].
    pub(crate) fn of(complete: bool) -> Self {
        if complete { Self::Done } else { Self::Partial }
    }
}

/// The two streams, as the global flags want them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    quiet: bool,
    verbose: bool,
    log: LogFormat,
}

impl Output {
    pub(crate) fn new(global: &Global) -> Self {
        Self { quiet: global.quiet, verbose: global.verbose > 0, log: global.log_format }
    }

    /// Prints data, which is all that the command is for. A reader that has seen enough (`| head`) is no error.
    pub(crate) fn data(self, text: &str) -> io::Result<()> {
        self.raw(&printable(text))
    }

    fn raw(self, text: &str) -> io::Result<()> {
        debug_assert!(!is_hushed(), "printed while the lock is held");
        to_stdout(text)
    }

    /// Prints what was changed, an event each, after the fact: that it can't be printed is only warned of.
    pub(crate) fn changes(self, lines: &str) {
        match self.log {
            LogFormat::Text => self.report(lines),
            LogFormat::Json => {
                let events = lines.lines().map(|message| line(self.log, Level::Info, message, now()));
                self.report(&events.collect::<String>());
            }
        }
    }

    /// Prints a report on what was changed, likewise.
    pub(crate) fn report(self, text: &str) {
        if !text.is_empty() {
            speak(Words { stream: Stream::Out, text: printable(text).into_owned(), log: self.log });
        }
    }

    /// Prints a diff, coloured on a terminal.
    pub(crate) fn diff(self, text: &str) -> io::Result<()> {
        let colour =
            io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if !colour {
            return self.data(text);
        }
        let paint = |line: &str| match line.chars().next() {
            Some('+') => format!("\x1b[32m{line}\x1b[0m\n"),
            Some('-') => format!("\x1b[31m{line}\x1b[0m\n"),
            _ => format!("{line}\n"),
        };
        self.raw(&printable(text).lines().map(paint).collect::<String>())
    }

    /// Says something that needs looking at; it is never silenced.
    pub(crate) fn warn(self, text: &str) {
        self.event(Level::Warning, text);
    }

    /// Says why nothing was done: the error, its causes, and a remedy that none of them can know.
    pub(crate) fn error(self, error: &anyhow::Error, hint: Option<&str>) {
        match self.log {
            LogFormat::Text => {
                self.event(Level::Error, &error.to_string());
                error.chain().skip(1).for_each(|cause| say(&format!("  caused by: {cause}")));
                hint.iter().for_each(|hint| say(&format!("\nhint: {hint}")));
            }
            LogFormat::Json => {
                let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
                self.event(Level::Error, &format!("{error:#}{hint}"));
            }
        }
    }

    /// Says what was done.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet {
            self.event(Level::Info, text);
        }
    }

    /// Says what there was no need to do: to a person, but not to cron.
    pub(crate) fn idle(self, text: &str) {
        if self.verbose || (!self.quiet && io::stderr().is_terminal()) {
            self.event(Level::Info, text);
        }
    }

    fn event(self, level: Level, text: &str) {
        speak(Words { stream: Stream::Err, text: line(self.log, level, text, now()), log: self.log });
    }
}

/// Tells whoever sits at the terminal.
pub(crate) fn say(text: &str) {
    speak(Words { stream: Stream::Err, text: printable(text).into_owned() + "\n", log: LogFormat::Text });
}

/// An error and its cause on one line, for warnings.
pub(crate) fn with_cause(error: &dyn Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// A number of bytes as people say it: `512`, `3.4M`.
pub(crate) fn size(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["", "k", "M", "G", "T"] {
        if size < 1000.0 {
            return if unit.is_empty() { bytes.to_string() } else { format!("{size:.1}{unit}") };
        }
        size /= 1000.0;
    }
    format!("{size:.1}P")
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_three_digits_and_a_unit() {
        let sizes = [0, 999, 1000, 3_400_000, 12_345_678_901].map(size);
        assert_eq!(sizes, ["0", "999", "1.0k", "3.4M", "12.3G"]);
    }
}

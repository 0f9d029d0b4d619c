//! Runs programs that must succeed.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// Runs `command` to its end and returns what it printed to stdout.
///
/// # Panics
///
/// If the program cannot be started or does not exit with 0; the message holds the command line and its stderr.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{}: {error}", line(command)));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {}: {stderr}", line(command), output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Like [`run`], with `input` on the program's stdin.
///
/// # Panics
///
/// As [`run`]; the message also shows the input.
pub fn run_with_input(command: &mut Command, input: &str) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", line(command)));
    let mut stdin = child.stdin.take().expect("stdin was asked to be piped");
    // If the program stops reading, its stderr explains why better than this error.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().unwrap_or_else(|error| panic!("{}: {error}", line(command)));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {}: {stderr}\n{input}", line(command), output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The command as a person would type it, for messages.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

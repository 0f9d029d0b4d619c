//! Tells the program what it was built from and for: `0.1.0 (e0e6e14, x86_64-unknown-linux-gnu)`.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let known = [commit(), env::var("TARGET").ok()];
    let known: Vec<String> = known.into_iter().flatten().collect();
    println!("cargo:rustc-env=CACHENAT_BUILD={}", known.join(", "));
}

/// The commit; `None` in a tarball, or where git is not there or not trusted with the directory.
fn commit() -> Option<String> {
    // A worktree's `.git` is a file that tells where the directory is.
    if !Path::new("../../.git").exists() {
        return None;
    }
    // Each commit and each checkout adds a line to the log; a file that is not there would build anew each time.
    for name in ["HEAD", "logs/HEAD"] {
        let file = git(&["rev-parse", "--git-path", name])?;
        if Path::new(&file).exists() {
            println!("cargo:rerun-if-changed={file}");
        }
    }
    git(&["rev-parse", "--short", "HEAD"])
}

/// What git answers, if it has an answer.
fn git(words: &[&str]) -> Option<String> {
    let output = Command::new("git").args(words).output().ok()?;
    let answer = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !answer.is_empty()).then_some(answer)
}

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
    let git = Path::new("../../.git");
    if !git.exists() {
        return None;
    }
    // Each commit and each checkout adds a line to it; a file that is not there would build anew each time.
    for file in ["HEAD", "logs/HEAD"].map(|file| git.join(file)).iter().filter(|file| file.exists()) {
        println!("cargo:rerun-if-changed={}", file.display());
    }
    let output = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output().ok()?;
    let commit = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !commit.is_empty()).then_some(commit)
}

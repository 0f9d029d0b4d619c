//! Where the programs are that the tests run and cargo does not hand them.

use std::path::{Path, PathBuf};

/// The `cachenat` that cargo built beside this test.
///
/// # Panics
///
/// If it has not been built; cargo builds a binary only for tests of its own package.
pub fn cachenat() -> PathBuf {
    present(profile_dir().join("cachenat"), "cargo build --package cachenat")
}

/// The Python that has the packages of `tests/requirements.txt`.
///
/// # Panics
///
/// If `scripts/setup` has not installed it.
pub fn python() -> PathBuf {
    present(target_dir().join("venv/bin/python3"), "scripts/setup")
}

/// The Node packages of `tests/package.json`.
///
/// # Panics
///
/// If `scripts/setup` has not installed them.
pub fn node_modules() -> PathBuf {
    present(target_dir().join("node/node_modules"), "scripts/setup")
}

/// The root of a small system of this machine's own distribution.
///
/// # Panics
///
/// If `scripts/setup` has not made it.
pub fn system() -> PathBuf {
    present(target_dir().join("system"), "scripts/setup")
}

fn target_dir() -> PathBuf {
    profile_dir().parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Where the projects of `tests/rust-clients` are built; their dependencies have been.
///
/// # Panics
///
/// If `scripts/setup` has not built them.
pub fn rust_clients() -> PathBuf {
    let target = profile_dir().parent().map(Path::to_path_buf).unwrap_or_default();
    present(target.join("rust-clients"), "scripts/setup")
}

/// `target/debug`: this program is in it, or as a test in its `deps`.
fn profile_dir() -> PathBuf {
    let mut dir = std::env::current_exe().expect("proc is mounted");
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    dir
}

fn present(program: PathBuf, remedy: &str) -> PathBuf {
    assert!(program.exists(), "{} is not there: run {remedy}", program.display());
    program
}

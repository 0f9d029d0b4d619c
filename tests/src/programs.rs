//! The paths of programs that the tests run and cargo does not provide.

use std::fs;
use std::path::{Path, PathBuf};

/// The `cachenat` binary that cargo built next to this test.
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

/// The words that run the nft of a Debian release (`bullseye`) with its own libraries.
///
/// # Panics
///
/// If `scripts/setup` has not unpacked it.
pub fn nft_of(release: &str) -> Vec<PathBuf> {
    let root = present(target_dir().join("nft").join(release), "scripts/setup");
    // Which of the two a package's libraries are in differs from release to release.
    let places = ["lib", "usr/lib"].map(|place| root.join(place)).into_iter().flat_map(entries);
    let libraries: Vec<PathBuf> = places.filter(|place| name_of(place).ends_with("-linux-gnu")).collect();
    let files = libraries.iter().cloned().flat_map(entries);
    let loader = files.into_iter().find(|file| name_of(file).starts_with("ld-linux"));
    let libraries = libraries.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(":");
    vec![
        loader.expect("the C library has it"),
        "--library-path".into(),
        libraries.into(),
        root.join("usr/sbin/nft"),
    ]
}

fn entries(directory: PathBuf) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// Where the packages of firewalls are unpacked, each release's in a directory.
///
/// # Panics
///
/// If `scripts/setup` has not unpacked them.
pub fn firewalls() -> PathBuf {
    present(target_dir().join("tools/firewalls"), "scripts/setup")
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

//! Programs that have to be compiled before they run.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use cachenat_tests::lab::shell::run;
use cachenat_tests::programs;

/// A project of a user of Rust: `printed` is its module `caches`, `program` its `main.rs`. What was built already is
/// not built again.
pub(crate) fn rust(format: &str, printed: &str, program: &str) -> PathBuf {
    let target = programs::rust_clients();
    let mut hasher = DefaultHasher::new();
    (printed, program).hash(&mut hasher);
    let name = format!("{format}-{:016x}", hasher.finish());
    let project = target.join("projects").join(&name);
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("rust-clients");
    fs::create_dir_all(project.join("src")).unwrap();
    for file in ["Cargo.toml", "Cargo.lock"] {
        let text = fs::read_to_string(model.join(file)).unwrap();
        fs::write(project.join(file), text.replace("\"rust-client\"", &format!("\"{name}\""))).unwrap();
    }
    fs::write(project.join("src/caches.rs"), printed).unwrap();
    fs::write(project.join("src/main.rs"), program).unwrap();
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--offline", "--locked", "--target-dir"]).arg(&target);
    cargo.arg("--manifest-path").arg(project.join("Cargo.toml"));
    run(&mut cargo);
    target.join("debug").join(name)
}

/// A program in Go: `printed` is its package `caches`, and go-redis a stub of its interface.
pub(crate) fn go(dir: &Path, printed: &str, program: &str) -> PathBuf {
    let project = dir.join("go");
    let stub = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/stubs/go/redis");
    let module = format!(
        "module client\n\ngo 1.18\n\nrequire github.com/redis/go-redis/v9 v9.0.0\n\n\
         replace github.com/redis/go-redis/v9 => {}\n",
        stub.display()
    );
    fs::create_dir_all(project.join("caches")).unwrap();
    fs::write(project.join("go.mod"), module).unwrap();
    fs::write(project.join("caches/caches.go"), printed).unwrap();
    fs::write(project.join("main.go"), program).unwrap();
    let go = |args: &[&str]| {
        let mut go = Command::new("go");
        go.current_dir(&project).args(args).env("GOFLAGS", "-mod=mod").env("GOPROXY", "off");
        go.env("GOTOOLCHAIN", "local").env("GOCACHE", programs::rust_clients().with_file_name("go-cache"));
        run(&mut go);
    };
    go(&["vet", "./..."]);
    go(&["build", "-o", "client"]);
    project.join("client")
}

/// A program in C, of `source`.
pub(crate) fn c(dir: &Path, name: &str, source: &str, libraries: &[&str]) -> PathBuf {
    let (file, program) = (dir.join(name).with_extension("c"), dir.join(name));
    fs::write(&file, source).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&program).arg(file);
    run(cc.args(libraries));
    program
}

//! A state directory that an attacker writes: nothing in it hangs a command, makes it panic, or opens a forward.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use cachenat_tests::fake_dns::Answer;
use cachenat_tests::lab::Lab;
use cachenat_tests::lab::product::Run;
use cachenat_tests::programs;
use hickory_resolver::proto::op::ResponseCode;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

use crate::common::{in_force, spell_out, spelled_out};

const FILES: [&str; 6] =
    ["leases.json", "inventory.json", "ruleset.json", "moves.json", "uncut.json", "clients.json"];

/// `remove` comes last, because it deletes the rules that the others read.
const COMMANDS: [&[&str]; 8] =
    [&["status"], &["diff"], &["endpoints"], &["leases"], &["render"], &["apply"], &["restore"], &["remove"]];

/// Which of them put something in force.
const WRITING: [&str; 2] = ["apply", "restore"];

/// Targets that no forward may have.
const FORBIDDEN: [&str; 5] = ["169.254.169.254", "127.0.0.1", "203.0.113.200", "10.0.0.55", "0.0.0.0"];

/// An applied lab whose state directory has every file, and the directory as it was.
struct Victim {
    lab: Lab,
    good: Vec<(PathBuf, String)>,
}

impl Victim {
    fn new() -> Self {
        let lab = spelled_out(&[(1, "10.0.1.230"), (2, "10.0.1.231")]);
        lab.cachenat(&["apply"]).exits(0);
        // A moved node, so that there are moves.
        spell_out(&lab, &[(1, "10.0.1.240"), (2, "10.0.1.231")]);
        // A client by name, whose last good address is all that is known of it from then on.
        let config = fs::read_to_string(lab.config()).unwrap();
        let named = "clients: [198.51.100.27/32, {dns: home.example.net}]";
        fs::write(lab.config(), config.replace("clients: [198.51.100.27/32]", named)).unwrap();
        lab.dns().set("home.example.net", Answer::Addresses(vec!["198.51.100.27".parse().unwrap()]));
        lab.cachenat(&["apply"]).exits(0);
        let path = |name: &str| lab.dir().join("state").join(name);
        // What a run that could not cut leaves.
        let uncut = r#"{"version":1,"legs":[["10.0.0.55:6379","10.0.1.230:6379"]],"clients":[["198.51.100.28","198.51.100.29"]]}"#;
        fs::write(path("uncut.json"), uncut).unwrap();
        let good = FILES.iter().map(|name| (path(name), fs::read_to_string(path(name)).unwrap())).collect();
        Self { lab, good }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.lab.dir().join("state").join(name)
    }

    fn text(&self, name: &str) -> &str {
        &self.good.iter().find(|(path, _)| path.ends_with(name)).unwrap().1
    }

    /// The directory as it was, whatever a run made of it.
    fn reset(&self) {
        fs::remove_dir_all(self.lab.dir().join("state")).unwrap();
        fs::create_dir(self.lab.dir().join("state")).unwrap();
        self.good.iter().for_each(|(path, text)| fs::write(path, text).unwrap());
    }

    /// Runs a command, which has to end by itself and to leave nothing in force that may not be.
    fn survives(&self, args: &[&str], what: &str) -> Run {
        let mut command = self.lab.operator_command("timeout");
        command.args(["--signal=KILL", "30"]).arg(programs::cachenat()).args(args);
        let run = Run::from_lossy(command.output().unwrap());
        assert!((0..=3).contains(&run.code), "{what}, {args:?}: exit {}\n{}", run.code, run.stderr);
        assert!(!run.stderr.contains("panicked"), "{what}, {args:?}: {}", run.stderr);
        if !WRITING.contains(&args[0]) {
            return run;
        }
        let table = in_force(&self.lab);
        for forbidden in FORBIDDEN {
            assert!(!table.contains(&format!(": {forbidden} ")), "{what}, {args:?}: {table}");
        }
        let clients = table.split("set clients4").nth(1).and_then(|rest| rest.split('}').next());
        let is_narrow =
            clients.is_none_or(|set| !set.contains("elements") || set.contains("{ 198.51.100.27 "));
        assert!(is_narrow, "{what}, {args:?}: {table}");
        run
    }
}

/// Every value in a document that is another than it was at one place.
fn mutations(document: &Value) -> Vec<(String, Value)> {
    let hostile = [
        json!(null),
        json!(-1),
        json!(1e300),
        json!(u64::MAX),
        json!([]),
        json!({}),
        json!(""),
        json!("a\"; } \n flush ruleset"),
        json!("169.254.169.254"),
        json!("127.0.0.1 . 22"),
        json!("169.254.169.254 . 80"),
        json!("203.0.113.200 . 6379"),
        json!("203.0.113.200:6379"),
        json!("0.0.0.0/0"),
        json!("x".repeat(70_000)),
    ];
    let mut found = Vec::new();
    let mut places = vec![String::new()];
    while let Some(place) = places.pop() {
        let value = document.pointer(&place).unwrap();
        match value {
            Value::Object(fields) => places.extend(
                fields.keys().map(|key| format!("{place}/{}", key.replace('~', "~0").replace('/', "~1"))),
            ),
            Value::Array(items) => places.extend((0..items.len().min(2)).map(|at| format!("{place}/{at}"))),
            _ => {}
        }
        for other in hostile.iter().filter(|other| *other != value) {
            let mut mutated = document.clone();
            *mutated.pointer_mut(&place).unwrap() = other.clone();
            let shown: String = other.to_string().chars().take(40).collect();
            found.push((format!("{place} = {shown}"), mutated));
        }
        if let Some((parent, key)) = place.rsplit_once('/')
            && let Some(Value::Object(fields)) = document.clone().pointer_mut(parent)
        {
            fields.remove(&key.replace("~1", "/").replace("~0", "~"));
            let mut mutated = document.clone();
            *mutated.pointer_mut(parent).unwrap() = Value::Object(fields.clone());
            found.push((format!("{place} is missing"), mutated));
        }
    }
    found
}

/// Each mutation of a file meets each command.
fn every_mutation_meets_every_command(name: &str) {
    let victim = Victim::new();
    if name == "clients.json" {
        // Only without an answer is the file believed.
        victim.lab.dns().set("home.example.net", Answer::Code(ResponseCode::ServFail));
    }
    let document: Value = serde_json::from_str(victim.text(name)).unwrap();
    let mutations = mutations(&document);
    // Of many alike every so many, and all of a short list.
    let step = mutations.len().div_ceil(220);
    let mut met = 0;
    for (what, mutated) in mutations.iter().step_by(step) {
        let (what, text) = (format!("{name}: {what}"), mutated.to_string());
        for command in COMMANDS {
            victim.reset();
            fs::write(victim.path(name), &text).unwrap();
            victim.survives(command, &what);
        }
        assert_eq!(in_force(&victim.lab), "", "{what}");
        victim.reset();
        let run = victim.survives(&["apply"], &what);
        assert!(matches!(run.code, 0 | 3), "{what}: {}", run.stderr);
        met += 1;
    }
    assert!(met > 40, "{name}: {met}");
    println!("{name}: {met} mutations");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn mutated_leases_neither_hang_nor_pass() {
    every_mutation_meets_every_command("leases.json");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn mutated_inventories_neither_hang_nor_pass() {
    every_mutation_meets_every_command("inventory.json");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn mutated_rulesets_neither_hang_nor_pass() {
    every_mutation_meets_every_command("ruleset.json");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn mutated_moves_neither_hang_nor_pass() {
    every_mutation_meets_every_command("moves.json");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn mutated_uncut_lists_neither_hang_nor_pass() {
    every_mutation_meets_every_command("uncut.json");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn mutated_clients_neither_hang_nor_pass() {
    every_mutation_meets_every_command("clients.json");
}

type Plant = fn(&Path);

/// What is no plain file of ours.
const PLANTS: [(&str, Plant); 8] = [
    ("a FIFO", |path| mkfifo(path, Mode::S_IRWXU).unwrap()),
    ("a link to /dev/zero", |path| symlink("/dev/zero", path).unwrap()),
    ("a link to nowhere", |path| symlink("/nowhere/at/all", path).unwrap()),
    ("a link to a good file", |path| {
        let elsewhere = path.with_extension("elsewhere");
        fs::write(&elsewhere, r#"{"version":1,"leases":[]}"#).unwrap();
        symlink(elsewhere, path).unwrap();
    }),
    ("a directory with a file", |path| {
        fs::create_dir(path).unwrap();
        fs::write(path.join("x"), "x").unwrap();
    }),
    ("a file of a third user", |path| {
        fs::write(path, r#"{"version":1,"leases":[]}"#).unwrap();
        std::os::unix::fs::chown(path, Some(4711), None).unwrap();
    }),
    ("a file of a gigabyte", |path| fs::File::create(path).unwrap().set_len(1 << 30).unwrap()),
    ("a million brackets", |path| fs::write(path, "[".repeat(1_000_000)).unwrap()),
];

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn irregular_state_files_hang_no_command() {
    let victim = Victim::new();
    for name in FILES {
        for (what, plant) in PLANTS {
            for command in COMMANDS {
                victim.reset();
                fs::remove_file(victim.path(name)).unwrap();
                plant(&victim.path(name));
                let what = format!("{what} for {name}");
                victim.survives(command, &what);
                if *command == ["remove"] {
                    assert_eq!(in_force(&victim.lab), "", "{what}");
                    // And the next run makes all good again.
                    let run = victim.survives(&["apply"], &what);
                    assert_eq!(run.code, 0, "{what}: {}", run.stderr);
                    for name in ["leases.json", "inventory.json", "ruleset.json"] {
                        assert!(fs::symlink_metadata(victim.path(name)).unwrap().is_file(), "{what}: {name}");
                    }
                }
            }
        }
    }
}

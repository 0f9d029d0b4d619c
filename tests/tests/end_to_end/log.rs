//! Messages: one line per event, as text or JSON.

use std::fs;

use cachenat_tests::lab::Lab;
use serde_json::Value;

use crate::common::{applied, spelled_out};

fn events(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn json_log_lines_are_events() {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 2);
    let run = lab.cachenat(&["apply", "--log-format", "json"]).exits(0);
    let changes = events(&run.stdout);
    assert_eq!(changes[0]["message"], "add my-cluster-001 10.0.0.55:6379 to 10.0.1.230:6379");
    assert!(
        changes.iter().all(|event| event["level"] == "info" && event["time"].as_u64() > Some(1_700_000_000))
    );
    assert_eq!(events(&run.stderr)[0]["message"], "applied: 2 added, 2 settings");

    lab.stop_api();
    let run = lab.cachenat(&["--log-format", "json", "apply"]).exits(3);
    let warnings = events(&run.stderr);
    assert_eq!((&warnings[0]["level"], run.stdout.as_str()), (&"warning".into(), ""), "{warnings:?}");

    lab.write_config("clients: 7\nports: 7\n");
    let run = lab.cachenat(&["--log-format", "json", "apply"]).exits(2);
    let errors = events(&run.stderr);
    assert!(matches!(&errors[..], [error] if error["level"] == "error"), "{errors:?}");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn control_characters_never_reach_the_terminal() {
    let lab = spelled_out(&[(1, "10.0.1.230")]);
    let run = lab.cachenat(&["--config", "\u{1b}[2J\u{7}.yaml", "apply"]).exits(2);
    assert!(run.stderr.starts_with("error: configuration \\u001b[2J\\u0007.yaml"), "{:?}", run.stderr);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn passwords_are_never_printed_or_written() {
    let lab = applied();
    let node = lab.node("my-cluster-001");
    node.redis().call(&["CONFIG", "SET", "requirepass", "hunter2hunter2"]).unwrap();
    let password = lab.dir().join("password");
    lab.write_config(&format!(
        "clients: [198.51.100.27/32]\n\
         sources:\n\
         \x20 - in_band: {{name: lab, redis: \"{}\", password_file: {}}}\n",
        node.at,
        password.display()
    ));
    for (text, code) in [("hunter2hunter2\n", 0), ("hunter2wrong\n", 3)] {
        fs::write(&password, text).unwrap();
        let run = lab.cachenat(&["apply", "-vv"]).exits(code);
        assert!(run.stderr.contains("debug: ") && !run.stderr.contains("hunter2"), "{run:?}");
        for args in [
            &["discover", "--json"][..],
            &["diff", "-vv", "--log-format", "json"],
            &["check", "--json"],
            &["status", "--format", "json"],
            &["status", "--format", "prometheus"],
            &["endpoints", "--format", "json"],
            &["apply", "--json", "--log-format", "json"],
        ] {
            let run = lab.cachenat(args);
            assert!(!format!("{run:?}").contains("hunter2"), "{args:?}: {run:?}");
        }
    }
    for file in fs::read_dir(lab.dir().join("state")).unwrap() {
        let file = file.unwrap().path();
        assert!(!fs::read_to_string(&file).unwrap().contains("hunter2"), "{}", file.display());
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn the_debug_log_records_requests_answers_and_decisions() {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 1);
    let run = lab.cachenat(&["apply"]).exits(0);
    assert!(!run.stderr.contains("debug: "), "{}", run.stderr);
    lab.cachenat(&["remove"]).exits(0);

    fs::remove_file(lab.dir().join("state/leases.json")).unwrap();
    let run = lab.cachenat(&["apply", "-v"]).exits(0);
    let has = |text: &str| run.stderr.lines().any(|line| line.starts_with("debug: ") && line.contains(text));
    assert!(has("elasticache:DescribeReplicationGroups") && has("answered after"), "{}", run.stderr);
    assert!(has("DNS A my-cluster-001") && has("[10.0.1.230], TTL"), "{}", run.stderr);
    assert!(has("lease: my-cluster-001 gets 6379: it is the first that nobody had"), "{}", run.stderr);
    assert!(!has("netlink"), "{}", run.stderr);

    let run = lab.cachenat(&["-vv", "diff", "--log-format", "json"]).exits(0);
    let events = events(&run.stderr);
    let has = |text: &str| {
        let mut of_debug = events.iter().filter(|event| event["level"] == "debug");
        of_debug.any(|event| event["message"].as_str().unwrap().contains(text))
    };
    assert!(has("sent 36 bytes, NFT_MSG_GETTABLE") && has("errno 0"), "{events:?}");

    lab.stop_api();
    let run = lab.cachenat(&["apply", "-v"]).exits(3);
    assert!(run.stderr.contains("debug: elasticache:DescribeReplicationGroups: "), "{}", run.stderr);
}

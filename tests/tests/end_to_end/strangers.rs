//! Foreign objects in our table, and how commands report them.

use cachenat_tests::lab::Lab;
use serde_json::Value;

use crate::common::{in_force, spell_out, spelled_out, target};

const BEFORE: &[(u8, &str)] = &[(1, "10.0.1.230")];
const AFTER: &[(u8, &str)] = &[(1, "10.0.1.240")];

/// Foreign objects, and their names in messages.
const STRANGERS: [(&str, &str); 4] = [
    ("add element inet cachenat backends4 { * }", "element * in set backends4"),
    (
        "add element inet cachenat clients4 { 203.0.113.9 comment \"bob laptop\" }",
        "element 203.0.113.9 comment \"bob laptop\" in set clients4",
    ),
    ("add rule inet cachenat prerouting tcp dport 22 accept", "in chain prerouting"),
    ("add counter inet cachenat mine", "counter mine"),
];

fn applied() -> Lab {
    let lab = spelled_out(BEFORE);
    lab.cachenat(&["apply"]).exits(0);
    lab
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn strangers_are_named_and_removed() {
    let lab = applied();
    let before = in_force(&lab);
    for (command, name) in STRANGERS {
        lab.network.nat.nft(command);
        let diff = lab.cachenat(&["diff"]).exits(1);
        assert!(diff.stdout.contains(name), "{}", diff.stdout);
        let status = lab.cachenat(&["status", "--format", "json"]).exits(0);
        let status: Value = serde_json::from_str(&status.stdout).unwrap();
        let drift = status["drift"].as_array().unwrap();
        assert!(drift.iter().any(|line| line.as_str().unwrap().contains(name)), "{drift:?}");
        lab.cachenat(&["apply"]).exits(0);
        assert_eq!(in_force(&lab), before, "{command}");
        lab.network.nat.nft(command);
        lab.cachenat(&["remove"]).exits(0);
        assert_eq!(in_force(&lab), "", "{command}");
        lab.cachenat(&["apply"]).exits(0);
    }
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_confirmed_commit_is_refused_with_strangers() {
    let lab = applied();
    spell_out(&lab, AFTER);
    for (command, name) in STRANGERS {
        lab.network.nat.nft(command);
        let before = lab.network.nat.nft_list("ruleset");
        let refused = lab.cachenat(&["apply", "--confirm", "2"]).exits(2);
        assert!(refused.stderr.contains(name), "{}", refused.stderr);
        assert!(refused.stderr.contains("without --confirm"), "{}", refused.stderr);
        assert_eq!(lab.network.nat.nft_list("ruleset"), before, "{command}");
        assert!(!lab.dir().join("state/pending.json").exists());
        lab.cachenat(&["apply"]).exits(0);
    }
    assert_eq!(target(&lab, 6379).as_deref(), Some("10.0.1.240:6379"));
}

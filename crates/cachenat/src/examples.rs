//! Every file in `examples/` must be one that this program takes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;

use crate::args::Cli;
use crate::config::Config;

fn examples() -> Vec<(PathBuf, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    // Those of WireGuard are what the tests' tunnels are made of.
    let files = files.filter(|file| file.is_file());
    let mut examples: Vec<_> = files.map(|file| (file.clone(), fs::read_to_string(file).unwrap())).collect();
    examples.sort();
    examples
}

fn extension(file: &Path) -> &str {
    file.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
}

#[test]
fn every_kind_of_example_is_checked_here() {
    let kinds: BTreeSet<String> = examples().iter().map(|(file, _)| extension(file).to_owned()).collect();
    assert_eq!(
        kinds.into_iter().collect::<Vec<_>>(),
        ["cron", "json", "service", "sh", "timer", "yaml", "yml"]
    );
}

#[test]
fn every_configuration_is_read() {
    for (file, text) in examples().into_iter().filter(|(file, _)| extension(file) == "yaml") {
        Config::parse(&file, text).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn the_configuration_inside_the_user_data_is_read() {
    let (file, text) = examples().into_iter().find(|(file, _)| extension(file) == "sh").unwrap();
    let config = text.split("<<'CONFIG'\n").nth(1).unwrap().split("CONFIG\n").next().unwrap();
    Config::parse(&file, config.to_owned()).unwrap();
}

/// The command lines of units, crontab and script.
fn command_lines(text: &str) -> Vec<Vec<String>> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let start = words.iter().position(|word| word.ends_with("bin/cachenat") || *word == "cachenat")?;
        let words = words.get(start..)?.iter().take_while(|word| !matches!(**word, "||" | "&&" | "|" | ">"));
        Some(words.map(|word| (*word).to_owned()).collect())
    };
    let code = text.lines().filter(|line| !line.starts_with('#') && !line.starts_with("Description"));
    code.map(|line| line.replace("ExecStart=", "")).filter_map(|text| line(&text)).collect()
}

#[test]
fn every_command_line_is_one_of_ours() {
    let mut found = 0;
    for (file, text) in examples()
        .into_iter()
        .filter(|(file, _)| matches!(extension(file), "cron" | "service" | "sh" | "yml"))
    {
        for words in command_lines(&text) {
            Cli::try_parse_from(&words).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            found += 1;
        }
    }
    assert!(found >= 5, "{found}");
}

#[test]
fn the_policy_names_every_action_that_discovery_calls_and_no_other() {
    let (_, text) = examples().into_iter().find(|(file, _)| file.ends_with("iam-policy.json")).unwrap();
    let policy: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut actions: Vec<&str> = policy["Statement"][0]["Action"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|action| action.as_str())
        .collect();
    actions.sort_unstable();
    assert_eq!(
        actions,
        [
            "elasticache:DescribeCacheClusters",
            "elasticache:DescribeReplicationGroups",
            "elasticache:DescribeServerlessCaches",
            "elasticache:ListTagsForResource",
        ]
    );
    assert_eq!(
        policy["Statement"][1]["Action"], "elasticache:DescribeCacheSubnetGroups",
        "for 'check' alone"
    );
}

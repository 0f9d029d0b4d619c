//! The workflows for GitHub Actions: this repository's own, and the example.

use std::process::Command;

use cachenat_tests::lab::shell::run;
use cachenat_tests::programs;
use serde_json::Value;

use crate::common::repository;

fn workflow(file: &str) -> Value {
    let read = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let mut python = Command::new(programs::python());
    serde_json::from_str(&run(python.args(["-c", read]).arg(repository().join(file)))).unwrap()
}

/// An attacker who controls the action can move a tag to another commit.
#[test]
#[ignore = "needs what scripts/setup installs: scripts/test"]
fn actions_are_pinned_and_secrets_scoped() {
    for file in [".github/workflows/release.yml", "examples/github-review.yml"] {
        let workflow = workflow(file);
        let mut actions = 0;
        for job in workflow["jobs"].as_object().unwrap().values() {
            assert_eq!(job["env"], Value::Null, "{file}");
            for action in job["steps"].as_array().unwrap().iter().filter_map(|step| step["uses"].as_str()) {
                let commit = action.split_once('@').unwrap().1;
                assert!(
                    commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()),
                    "{action}"
                );
                actions += 1;
            }
        }
        assert!(actions > 1 && !workflow["env"].to_string().contains("token"), "{file}");
    }
}

#[test]
#[ignore = "needs what scripts/setup installs: scripts/test"]
fn every_workflow_step_passes_shellcheck() {
    for file in [".github/workflows/release.yml", "examples/github-review.yml"] {
        for job in workflow(file)["jobs"].as_object().unwrap().values() {
            for lines in job["steps"].as_array().unwrap().iter().filter_map(|step| step["run"].as_str()) {
                // GitHub's own expressions are filled in before the shell sees them.
                let lines = lines.replace("${{ github.event.number }}", "1");
                assert!(
                    !lines.contains("${{"),
                    "what others write is handed over in the environment: {lines}"
                );
                cachenat_tests::lab::shell::run_with_input(
                    Command::new("shellcheck").args(["--shell=bash", "-"]),
                    &lines,
                );
            }
        }
    }
}

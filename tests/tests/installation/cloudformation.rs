//! The CloudFormation template: valid, and made of the other examples.

use std::path::PathBuf;
use std::process::Command;

use cachenat_tests::lab::shell::{run, run_with_input};
use cachenat_tests::programs;
use serde_json::Value;

use crate::common::{example, repository};

fn file() -> PathBuf {
    repository().join("examples/cloudformation.yml")
}

fn template() -> Value {
    let read = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    serde_json::from_str(&run(Command::new(programs::python()).args(["-c", read]).arg(file()))).unwrap()
}

/// The two parts of the user-data: what the template fills in, and what is as in `user-data.sh`.
fn user_data() -> (String, String) {
    let join = &template()["Resources"]["LaunchTemplate"]["Properties"]["LaunchTemplateData"]["UserData"];
    let parts = &join["Fn::Base64"]["Fn::Join"][1];
    (parts[0]["Fn::Sub"].as_str().unwrap().to_owned(), parts[1].as_str().unwrap().to_owned())
}

#[test]
#[ignore = "needs what scripts/setup installs: scripts/test"]
fn the_template_passes_cfn_lint() {
    let lint = programs::python().with_file_name("cfn-lint");
    assert_eq!(run(Command::new(lint).arg(file())), "");
}

#[test]
#[ignore = "needs what scripts/setup installs: scripts/test"]
fn the_role_matches_the_iam_policy() {
    let policy: Value = serde_json::from_str(&example("iam-policy.json")).unwrap();
    let policies = &template()["Resources"]["Role"]["Properties"]["Policies"];
    assert_eq!(policies[0]["PolicyDocument"], policy);
    let statements = policies[1]["PolicyDocument"]["Statement"].as_array().unwrap();
    assert_eq!((statements.len(), &statements[0]["Action"]), (1, &"ec2:AssociateAddress".into()));
}

#[test]
#[ignore = "needs what scripts/setup installs: scripts/test"]
fn the_user_data_matches_the_example() {
    let (head, rest) = user_data();
    let marker = "# Nothing below here needs to be edited.\n";
    assert_eq!(rest, marker.to_owned() + example("user-data.sh").split(marker).nth(1).unwrap());

    let filled = [
        ("Packages", "https://example.com/packages"),
        ("Version", "0.1.0"),
        ("Sha256", &"0".repeat(64)),
        ("Client", "198.51.100.27/32"),
        ("ElasticIp.PublicIp", "203.0.113.73"),
        ("ElasticIp.AllocationId", "eipalloc-0123456789abcdef0"),
        ("FirstPort", "6379"),
        ("LastPort", "6398"),
        ("ReplicationGroup", "my-cluster"),
        ("AWS::Region", "us-east-2"),
    ];
    let head = filled.iter().fold(head, |head, (name, value)| head.replace(&format!("${{{name}}}"), value));
    assert!(!head.contains("${"), "{head}");
    run_with_input(Command::new("shellcheck").args(["--shell=bash", "-"]), &(head.clone() + &rest));

    let dir = tempfile::tempdir().unwrap();
    let config = run(Command::new("bash")
        .arg("-c")
        .arg(head.split("metadata=").next().unwrap().to_owned() + "config"));
    let (file, state) = (dir.path().join("config.yaml"), dir.path().display());
    std::fs::write(&file, format!("{config}state_dir: {state}\n")).unwrap();
    run(Command::new(programs::cachenat()).arg("--config").arg(&file).arg("leases"));
}

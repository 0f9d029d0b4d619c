//! The sources of region, credentials and endpoint: runs the program in separate environments.

use std::process::{Command, Output};

use cachenat_tests::{fake_aws::Scenario, programs};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::setup::{Machine, Setup, owned, show};

/// A source that does not exist: its error proves that the API was asked, and no name has to be looked up.
const CONFIG: &str = "clients: [198.51.100.27/32]\nsources: [{replication_group: nowhere}]\n";

/// `cachenat discover --json` with these variables and none else.
fn run(variables: &[(&str, &str)]) -> (i32, String) {
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("config.yaml");
    std::fs::write(&config, CONFIG).unwrap();
    let mut command = Command::new(programs::cachenat());
    command.args(["discover", "--json", "--config"]).arg(&config).env_clear().envs(variables.iter().copied());
    // Whatever a test forgets to say, the real service is not asked.
    if !variables.iter().any(|(name, _)| *name == "AWS_EC2_METADATA_SERVICE_ENDPOINT") {
        command.env("AWS_EC2_METADATA_DISABLED", "true");
    }
    command.env("HOME", dir.path());
    error_of(&command.output().unwrap())
}

/// The exit code and the one source's error.
fn error_of(output: &Output) -> (i32, String) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let inventory: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    let error = inventory["sources"][0]["error"].as_str().unwrap_or_default().to_owned();
    (output.status.code().unwrap(), error)
}

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "secret")];

#[test]
fn endpoint_region_and_keys_come_from_the_environment() {
    let setup = Setup::new(Scenario::default());
    let url = setup.aws.url();
    let variables = [KEYS[0], KEYS[1], ("AWS_REGION", "eu-west-3"), ("AWS_ENDPOINT_URL", url.as_str())];
    let expected = (3, "no replication group \"nowhere\" in eu-west-3 (there are none)".to_owned());
    assert_eq!(run(&variables), expected);
    assert_eq!(setup.aws.calls()[0].region, "eu-west-3");
}

#[test]
fn a_missing_region_is_reported_with_a_remedy() {
    let setup = Setup::new(Scenario::default());
    let url = setup.aws.url();
    let (code, error) = run(&[KEYS[0], KEYS[1], ("AWS_ENDPOINT_URL", url.as_str())]);
    let expected =
        "DescribeReplicationGroups: no AWS region: set `aws: {region: ...}` in the config, or AWS_REGION";
    assert_eq!((code, error.as_str()), (3, expected));
    assert_eq!(setup.aws.calls(), []);
}

#[test]
fn missing_credentials_are_reported_with_a_remedy() {
    let setup = Setup::new(Scenario::default());
    let url = setup.aws.url();
    let (code, error) = run(&[("AWS_REGION", "us-east-2"), ("AWS_ENDPOINT_URL", url.as_str())]);
    assert_eq!(code, 3);
    let remedy = "no AWS credentials: give the instance a role, or set AWS_PROFILE or AWS_ACCESS_KEY_ID (";
    assert!(error.starts_with(&format!("DescribeReplicationGroups: {remedy}")), "{error}");
}

#[test]
fn region_and_credentials_come_from_the_instance() {
    let role = json!({
        "Code": "Success",
        "Type": "AWS-HMAC",
        "AccessKeyId": "ASIAEXAMPLE",
        "SecretAccessKey": "secret",
        "Token": "token",
        "Expiration": "2099-01-01T00:00:00Z",
    });
    let imds = owned(&[
        ("mac", "02:00:00:00:00:01"),
        ("placement/region", "us-east-2"),
        ("iam/security-credentials/", "nat"),
        ("iam/security-credentials/nat", &role.to_string()),
    ]);
    let setup = Setup::new(Scenario { imds: Some(imds), ..Scenario::default() });
    let url = setup.aws.url();
    let variables = [("AWS_ENDPOINT_URL", url.as_str()), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str())];
    let expected = (3, "no replication group \"nowhere\" in us-east-2 (there are none)".to_owned());
    assert_eq!(run(&variables), expected);
}

#[test]
fn the_resolv_conf_search_list_is_ignored() {
    let machine =
        Machine::new(Scenario::default(), "nameserver 127.0.0.1\nsearch wrong.example\noptions ndots:5\n");
    machine.dns.point("cache.wrong.example", "10.0.1.240");
    machine.dns.point("cache.example", "10.0.1.230");
    let found = machine.discover(
        "  - static: {name: local, nodes: [{id: a, host: cache.example, port: 6379}, {id: b, host: cache, port: 6379}]}\n",
    );
    let expected = "\
a - - - static [10.0.1.230]:6379
b - - - static []:6379 ! cache: no such name (NXDOMAIN)
static/local partial: b: cache: no such name (NXDOMAIN)
";
    assert_eq!(show(&found), expected);
}

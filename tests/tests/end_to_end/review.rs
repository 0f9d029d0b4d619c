//! `diff --against`: reviews a configuration change without a gateway.

use std::fs;
use std::path::Path;

use cachenat_tests::lab::Lab;
use cachenat_tests::lab::shell::run;
use cachenat_tests::programs;

use crate::common::in_force;

/// The shell lines of a step of the example workflow.
fn step(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/github-review.yml");
    let workflow = fs::read_to_string(file).unwrap();
    let block = workflow.split(&format!("- name: {name}\n        run: |\n")).nth(1).unwrap();
    block.lines().map_while(|line| line.strip_prefix("          ")).map(|line| format!("{line}\n")).collect()
}

/// Runs the steps of the example workflow in a lab that has `before.yaml` and `config.yaml`; the comment.
fn reviewed(lab: &Lab) -> String {
    let steps = step("Discover") + &step("Compare");
    let compare = format!("set -eo pipefail\ncd \"$0\"\nPATH=\"$1:$PATH\"\n{steps}");
    let mut unprivileged = lab.operator_command("setpriv");
    unprivileged.args(["--bounding-set=-all", "bash", "-c", &compare]).env("SECRET", "not for you");
    run(unprivileged.arg(lab.dir()).arg(programs::cachenat().parent().unwrap()));
    fs::read_to_string(lab.dir().join("comment.md")).unwrap()
}

/// The author of a pull request controls the host names in it.
#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn a_pull_request_gets_no_connection_or_secret() {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 2);
    let spelled = "gateway: {interface: ens5, addresses: [10.0.0.99], ";
    let before = lab.plain_config().replace("gateway: {", spelled);
    lab.write_config(&before);
    fs::rename(lab.config(), lab.dir().join("before.yaml")).unwrap();
    let host = lab.network.private_host(std::net::Ipv4Addr::new(10, 0, 1, 66));
    let trap = host.enter(|| std::net::TcpListener::bind("10.0.1.66:6379").unwrap());
    trap.set_nonblocking(true).unwrap();
    let stolen = "  - in_band: {name: mine, redis: '10.0.1.66:6379', password_env: SECRET}\n";
    lab.write_config(&format!("{before}{stolen}pins: {{my-cluster-002: 6400}}\n"));
    let comment = reviewed(&lab);
    assert!(comment.contains("`10.0.0.99:6400`"), "{comment}");
    assert_eq!(trap.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn the_example_workflow_comments_on_pull_requests() {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 2);
    let plain = lab.plain_config();
    let (spelled, pin) =
        ("gateway: {interface: ens5, addresses: [10.0.0.99], ", "pins: {my-cluster-002: 6400}\n");
    lab.write_config(&plain.replace("gateway: {", spelled));
    fs::rename(lab.config(), lab.dir().join("before.yaml")).unwrap();
    lab.write_config(&(plain.replace("gateway: {", spelled) + pin));

    let comment = reviewed(&lab);
    assert!(comment.starts_with("**cachenat** would change this: 1 added, 1 removed\n"), "{comment}");
    for row in [
        "| remove | `my-cluster-002` | `10.0.0.99:6380` | `10.0.1.231:6379` |  |\n",
        "| add | `my-cluster-002` | `10.0.0.99:6400` |  | `10.0.1.231:6379` |\n",
    ] {
        assert!(comment.contains(row), "{comment}");
    }
    assert_eq!(in_force(&lab), "");
}

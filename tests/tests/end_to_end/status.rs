//! `status`: what is in force, for people and for Prometheus.

use cachenat_tests::lab::Lab;
use cachenat_tests::lab::shell::run_with_input;
use cachenat_tests::programs;
use serde_json::Value;

use crate::common::{applied, open};

/// Prints the samples as Prometheus' own library for Python reads them.
const READ: &str = "
import json, sys
from prometheus_client.parser import text_string_to_metric_families as families
print(json.dumps([[family.type, family.documentation, sample.name, sample.labels, sample.value]
                  for family in families(sys.stdin.read()) for sample in family.samples]))
";

fn samples(lab: &Lab) -> Vec<Value> {
    let text = lab.cachenat(&["status", "--format", "prometheus"]).exits(0).stdout;
    let mut python = lab.network.nat.command(programs::python());
    let samples: Value = serde_json::from_str(&run_with_input(python.args(["-c", READ]), &text)).unwrap();
    samples.as_array().unwrap().clone()
}

fn value(samples: &[Value], name: &str, id: &str) -> f64 {
    sample(samples, name, id)[4].as_f64().unwrap()
}

fn sample<'a>(samples: &'a [Value], name: &str, id: &str) -> &'a Value {
    let is = |sample: &&Value| sample[2] == name && (id.is_empty() || sample[3]["id"] == id);
    samples.iter().find(is).unwrap_or_else(|| panic!("no {name} of {id:?} in {samples:?}"))
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn connections_made_and_connections_open_are_told_apart() {
    let lab = applied();
    drop(open(&lab, 6380));
    let _open = [open(&lab, 6379), open(&lab, 6379)];
    let status = lab.cachenat(&["status", "--format", "json"]).exits(0).json();
    let of = |key: &str| -> Vec<u64> {
        status["listeners"].as_array().unwrap().iter().filter_map(|listener| listener[key].as_u64()).collect()
    };
    assert_eq!(of("connections"), [2, 1, 0]);
    assert_eq!(of("flows")[0], 2, "{status:#}");
    assert_eq!(of("flows")[2], 0, "{status:#}");
    assert!(status["last_change"].as_u64().unwrap() > 0);

    let text = lab.cachenat(&["status"]).exits(0).stdout;
    let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        row[..6],
        ["my-cluster-001", "primary", "10.0.0.55:6379", "10.0.1.230:6379", "2", "2"],
        "{text}"
    );
    assert!(text.lines().last().unwrap().starts_with("last change "), "{text}");
}

#[test]
#[ignore = "needs a network namespace: scripts/test"]
fn prometheus_reads_the_metrics() {
    let mut lab = applied();
    let _open = open(&lab, 6379);
    let found = samples(&lab);
    assert!(found.iter().all(|sample| sample[0] != "unknown" && sample[1] != ""), "{found:?}");
    let made = sample(&found, "cachenat_listener_connections_total", "my-cluster-001");
    assert_eq!((&made[0], &made[3]["target"]), (&"counter".into(), &"10.0.1.230:6379".into()));
    assert_eq!(value(&found, "cachenat_listener_connections_total", "my-cluster-001"), 1.0);
    assert_eq!(value(&found, "cachenat_listener_flows", "my-cluster-001"), 1.0);
    assert_eq!(value(&found, "cachenat_in_step", ""), 1.0);
    assert_eq!(value(&found, "cachenat_source_failing_seconds", ""), 0.0);

    lab.network.nat.nft("flush ruleset");
    lab.stop_api();
    let found = samples(&lab);
    assert_eq!(value(&found, "cachenat_in_step", ""), 0.0);
    assert_eq!(value(&found, "cachenat_installed", ""), 0.0);
}

//! The status as metrics, for node_exporter's textfile collector.
//!
//! Source: Prometheus' text exposition format, version 0.0.4.

use std::fmt::{Display, Write};

use super::Status;

/// The metrics; those of which nothing is known are left out.
pub(super) fn text(status: &Status) -> String {
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, samples: Vec<String>| {
        if !samples.is_empty() {
            // Writing to a string can't fail.
            let _ = writeln!(text, "# HELP cachenat_{name} {help}\n# TYPE cachenat_{name} {kind}");
            samples.iter().for_each(|sample| text.extend(["cachenat_", name, sample, "\n"]));
        }
    };
    let listeners = || status.listeners.iter().map(|listener| (listener, listener_labels(listener)));

    metric(
        "info",
        "gauge",
        "The version that wrote this.",
        vec![sample(&[("version", env!("CARGO_PKG_VERSION").to_owned())], 1)],
    );
    metric(
        "installed",
        "gauge",
        "Whether the table inet cachenat is there.",
        vec![sample(&[], u8::from(status.installed))],
    );
    metric(
        "in_step",
        "gauge",
        "Whether what is in force is what was last known to be wanted.",
        vec![sample(&[], u8::from(status.in_step))],
    );
    let change = status.last_change.map(|at| sample(&[], at));
    metric(
        "last_change_timestamp_seconds",
        "gauge",
        "When what is wanted of the kernel last changed.",
        change.into_iter().collect(),
    );
    let connections = listeners().map(|(listener, labels)| sample(&labels, listener.connections));
    metric(
        "listener_connections_total",
        "counter",
        "Connections made through the listener since its target was set.",
        connections.collect(),
    );
    let flows = listeners().filter_map(|(listener, labels)| Some(sample(&labels, listener.flows?)));
    metric("listener_flows", "gauge", "Connections through the listener that are open now.", flows.collect());
    let ages = listeners().filter_map(|(listener, labels)| Some(sample(&labels, listener.age?)));
    metric("lease_age_seconds", "gauge", "For how long the node has had its port.", ages.collect());
    let failing = status.sources.iter();
    let failing = failing
        .map(|source| sample(&[("source", source.source.clone())], source.failing_for.unwrap_or_default()));
    metric(
        "source_failing_seconds",
        "gauge",
        "For how long the source could not be read whole; 0: it can.",
        failing.collect(),
    );
    text
}

fn listener_labels(listener: &super::Listener) -> Vec<(&'static str, String)> {
    vec![
        ("id", listener.id.clone()),
        ("cluster", listener.cluster.clone().unwrap_or_default()),
        ("listen", listener.listen.clone()),
        ("target", listener.targets.join(",")),
    ]
}

/// A sample without its name: `{id="my-cluster-001"} 7`.
fn sample(labels: &[(&str, String)], value: impl Display) -> String {
    let labels: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    if labels.is_empty() { format!(" {value}") } else { format!("{{{}}} {value}", labels.join(",")) }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use expect_test::expect;

    use super::super::{Listener, SourceStatus};
    use super::*;

    fn status(flows: Option<u64>) -> Status {
        let listener = Listener {
            id: "my-cluster-001".to_owned(),
            cluster: Some("a\\b\"c\nd".to_owned()),
            role: None,
            listen: "10.0.0.55:6379".to_owned(),
            targets: vec!["10.0.1.230:6379".to_owned(), "10.0.1.231:6379".to_owned()],
            connections: 12,
            flows,
            since: Some(1_000),
            age: Some(60),
        };
        let source =
            SourceStatus { source: "replication_group/my-cluster".to_owned(), failing_for: Some(90) };
        Status {
            version: 1,
            installed: true,
            in_step: false,
            last_change: Some(1_700_000_000),
            listeners: vec![listener],
            sources: vec![source],
            drift: vec![],
        }
    }

    #[test]
    fn each_metric_has_its_help_and_type_and_labels_are_escaped() {
        let text = text(&status(Some(3)));
        let text = text.replace(env!("CARGO_PKG_VERSION"), "VERSION");
        expect![[r##"
            # HELP cachenat_info The version that wrote this.
            # TYPE cachenat_info gauge
            cachenat_info{version="VERSION"} 1
            # HELP cachenat_installed Whether the table inet cachenat is there.
            # TYPE cachenat_installed gauge
            cachenat_installed 1
            # HELP cachenat_in_step Whether what is in force is what was last known to be wanted.
            # TYPE cachenat_in_step gauge
            cachenat_in_step 0
            # HELP cachenat_last_change_timestamp_seconds When what is wanted of the kernel last changed.
            # TYPE cachenat_last_change_timestamp_seconds gauge
            cachenat_last_change_timestamp_seconds 1700000000
            # HELP cachenat_listener_connections_total Connections made through the listener since its target was set.
            # TYPE cachenat_listener_connections_total counter
            cachenat_listener_connections_total{id="my-cluster-001",cluster="a\\b\"c\nd",listen="10.0.0.55:6379",target="10.0.1.230:6379,10.0.1.231:6379"} 12
            # HELP cachenat_listener_flows Connections through the listener that are open now.
            # TYPE cachenat_listener_flows gauge
            cachenat_listener_flows{id="my-cluster-001",cluster="a\\b\"c\nd",listen="10.0.0.55:6379",target="10.0.1.230:6379,10.0.1.231:6379"} 3
            # HELP cachenat_lease_age_seconds For how long the node has had its port.
            # TYPE cachenat_lease_age_seconds gauge
            cachenat_lease_age_seconds{id="my-cluster-001",cluster="a\\b\"c\nd",listen="10.0.0.55:6379",target="10.0.1.230:6379,10.0.1.231:6379"} 60
            # HELP cachenat_source_failing_seconds For how long the source could not be read whole; 0: it can.
            # TYPE cachenat_source_failing_seconds gauge
            cachenat_source_failing_seconds{source="replication_group/my-cluster"} 90
        "##]]
        .assert_eq(&text);
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let mut unknown = status(None);
        unknown.last_change = None;
        let text = text(&unknown);
        assert!(!text.contains("cachenat_listener_flows") && !text.contains("last_change"), "{text}");
        assert!(text.contains("cachenat_listener_connections_total{"), "{text}");
    }

    /// The names in a text that are ours.
    fn metrics(text: &str) -> BTreeSet<&str> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| word.starts_with("cachenat_")).collect()
    }

    #[test]
    fn dashboard_and_alerts_ask_for_metrics_that_there_are_and_the_dashboard_for_all() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        let read = |name| fs::read_to_string(examples.join(name)).unwrap();
        let (dashboard, alerts) = (read("grafana-dashboard.json"), read("prometheus-alerts.yml"));
        let text = text(&status(Some(3)));
        let mut ours = metrics(&text);
        assert!(metrics(&alerts).is_subset(&ours), "{:?}", metrics(&alerts));
        ours.remove("cachenat_info");
        assert_eq!(metrics(&dashboard), ours);
        serde_json::from_str::<serde_json::Value>(&dashboard).unwrap();
        serde_yaml::from_str::<serde_yaml::Value>(&alerts).unwrap();
    }
}

//! The status as metrics, for node_exporter's textfile collector and for `watch --metrics`.

use plan::Timestamp;

use super::{ListenerStatus, Status};
use crate::metrics::{Exposition, Kind, sample};

/// The metrics alone.
pub(super) fn text(status: &Status) -> String {
    let mut exposition = Exposition::default();
    write(&mut exposition, status);
    exposition.into_text()
}

/// Adds the metrics; those of which nothing is known are left out.
pub(in crate::commands) fn write(to: &mut Exposition, status: &Status) {
    let (version, build) = (env!("CARGO_PKG_VERSION"), env!("CACHENAT_BUILD"));
    to.metric(
        "info",
        Kind::Gauge,
        "The version that wrote this, and the commit and target that it was built from and for.",
        [sample(&[("version", version), ("build", build)], 1)],
    );
    to.metric(
        "installed",
        Kind::Gauge,
        "Whether the table inet cachenat is there.",
        [sample(&[], u8::from(status.installed))],
    );
    to.metric(
        "in_step",
        Kind::Gauge,
        "Whether what is in force is what was last known to be wanted.",
        [sample(&[], u8::from(status.in_step))],
    );
    to.metric(
        "last_change_timestamp_seconds",
        Kind::Gauge,
        "When what is wanted of the kernel last changed.",
        status.last_change.map(|at| sample(&[], at)),
    );
    to.metric(
        "last_run_timestamp_seconds",
        Kind::Gauge,
        "When a run of any kind worked here last.",
        status.last_run.map(|at| sample(&[], at)),
    );
    listeners(to, status);
    let failing = status.sources.iter();
    to.metric(
        "source_failing_seconds",
        Kind::Gauge,
        "For how long the source could not be read whole; 0: it can.",
        failing.map(|source| {
            sample(&[("source", source.source.as_str())], source.failing_for.unwrap_or_default().as_secs())
        }),
    );
    to.metric(
        "conntrack_entries",
        Kind::Gauge,
        "The connections that the kernel tracks, ours and others'.",
        status.conntrack.map(|fill| sample(&[], fill.count)),
    );
    to.metric(
        "conntrack_entries_limit",
        Kind::Gauge,
        "How many it may track; the first packet of one more is dropped.",
        status.conntrack.map(|fill| sample(&[], fill.max)),
    );
    to.metric(
        "target_connections_max",
        Kind::Gauge,
        "The open connections to the target that has the most, for each address of gateway.snat; one can have 64512.",
        status.busiest.map(|open| sample(&[], open)),
    );
}

fn listeners(to: &mut Exposition, status: &Status) {
    let each = |value: fn(&ListenerStatus) -> Option<u64>| {
        status.listeners.iter().filter_map(move |listener| Some(labelled(listener, None, value(listener)?)))
    };
    to.metric(
        "listener_connections_total",
        Kind::Counter,
        "Connections made through the listener since its target was set.",
        each(|listener| Some(listener.connections)),
    );
    to.metric(
        "listener_flows",
        Kind::Gauge,
        "Connections through the listener that are open now.",
        each(|listener| listener.flows),
    );
    let bytes = status.listeners.iter().flat_map(|listener| {
        let directions = [("sent", listener.bytes_sent), ("received", listener.bytes_received)];
        directions.into_iter().filter_map(|(way, bytes)| Some(labelled(listener, Some(way), bytes?)))
    });
    to.metric(
        "listener_flow_bytes",
        Kind::Gauge,
        "What the open connections have carried, sent by clients and received by them.",
        bytes,
    );
    to.metric(
        "listener_in_step",
        Kind::Gauge,
        "Whether the listener is in force and leads where it should.",
        each(|listener| Some(u64::from(listener.drift.is_none()))),
    );
    to.metric(
        "listener_last_change_timestamp_seconds",
        Kind::Gauge,
        "When the listener was led to its target.",
        each(|listener| listener.changed.map(Timestamp::as_secs)),
    );
    to.metric(
        "lease_age_seconds",
        Kind::Gauge,
        "For how long the node has had its port.",
        each(|listener| listener.age.map(|age| age.as_secs())),
    );
}

fn labelled(listener: &ListenerStatus, direction: Option<&str>, value: u64) -> String {
    let target = listener.targets.join(",");
    let mut labels = vec![
        ("id", listener.id.as_str()),
        ("cluster", listener.cluster.as_deref().unwrap_or_default()),
        ("listen", listener.listen.as_str()),
        ("target", target.as_str()),
    ];
    labels.extend(direction.map(|direction| ("direction", direction)));
    sample(&labels, value)
}

#[cfg(test)]
pub(in crate::commands) mod tests {
    use std::time::Duration;

    use expect_test::expect;

    use rules::flows::ConntrackFill;

    use super::super::{ListenerStatus, SourceStatus};
    use super::*;

    pub(in crate::commands) fn status(flows: Option<u64>) -> Status {
        let listener = ListenerStatus {
            id: "my-cluster-001".to_owned(),
            cluster: Some("a\\b\"c\nd".to_owned()),
            role: None,
            public: None,
            listen: "10.0.0.55:6379".to_owned(),
            list: None,
            routed: None,
            targets: vec!["10.0.1.230:6379".to_owned(), "10.0.1.231:6379".to_owned()],
            connections: 12,
            flows,
            bytes_sent: flows.map(|_| 700),
            bytes_received: flows.map(|_| 800),
            changed: Some(Timestamp::from_secs(2_000)),
            since: Some(Timestamp::from_secs(1_000)),
            age: Some(Duration::from_secs(60)),
            drift: Some(rules::diff::Action::Move),
        };
        let source = SourceStatus {
            source: "replication_group/my-cluster".to_owned(),
            failing_for: Some(Duration::from_secs(90)),
        };
        Status {
            version: 1,
            installed: true,
            in_step: false,
            last_change: Some(Timestamp::from_secs(1_700_000_000)),
            last_run: Some(Timestamp::from_secs(1_700_000_001)),
            listeners: vec![listener],
            sources: vec![source],
            clients: vec![],
            drift: vec![],
            conntrack: Some(ConntrackFill { count: 5, max: 100 }),
            busiest: Some(4),
            summary: String::new(),
        }
    }

    #[test]
    fn each_metric_has_its_help_and_type_and_labels_are_escaped() {
        let text = text(&status(Some(3)));
        let text =
            text.replace(env!("CACHENAT_BUILD"), "BUILD").replace(env!("CARGO_PKG_VERSION"), "VERSION");
        expect![[r##"
            # HELP cachenat_info The version that wrote this, and the commit and target that it was built from and for.
            # TYPE cachenat_info gauge
            cachenat_info{version="VERSION",build="BUILD"} 1
            # HELP cachenat_installed Whether the table inet cachenat is there.
            # TYPE cachenat_installed gauge
            cachenat_installed 1
            # HELP cachenat_in_step Whether what is in force is what was last known to be wanted.
            # TYPE cachenat_in_step gauge
            cachenat_in_step 0
            # HELP cachenat_last_change_timestamp_seconds When what is wanted of the kernel last changed.
            # TYPE cachenat_last_change_timestamp_seconds gauge
            cachenat_last_change_timestamp_seconds 1700000000
            # HELP cachenat_last_run_timestamp_seconds When a run of any kind worked here last.
            # TYPE cachenat_last_run_timestamp_seconds gauge
            cachenat_last_run_timestamp_seconds 1700000001
            # HELP cachenat_listener_connections_total Connections made through the listener since its target was set.
            # TYPE cachenat_listener_connections_total counter
            cachenat_listener_connections_total{id="my-cluster-001",cluster="a\\b\"c\nd",listen="10.0.0.55:6379",target="10.0.1.230:6379,10.0.1.231:6379"} 12
            # HELP cachenat_listener_flows Connections through the listener that are open now.
            # TYPE cachenat_listener_flows gauge
            cachenat_listener_flows{id="my-cluster-001",cluster="a\\b\"c\nd",listen="10.0.0.55:6379",target="10.0.1.230:6379,10.0.1.231:6379"} 3
            # HELP cachenat_listener_flow_bytes What the open connections have carried, sent by clients and received by them.
            # TYPE cachenat_listener_flow_bytes gauge
            cachenat_listener_flow_bytes{id="my-cluster-001",cluster="a\\b\"c\nd",listen="10.0.0.55:6379",target="10.0.1.230:6379,10.0.1.231:6379",direction="sent"} 700
            cachenat_listener_flow_bytes{id="my-cluster-001",cluster="a\\b\"c\nd",listen="10.0.0.55:6379",target="10.0.1.230:6379,10.0.1.231:6379",direction="received"} 800
            # HELP cachenat_listener_in_step Whether the listener is in force and leads where it should.
            # TYPE cachenat_listener_in_step gauge
            cachenat_listener_in_step{id="my-cluster-001",cluster="a\\b\"c\nd",listen="10.0.0.55:6379",target="10.0.1.230:6379,10.0.1.231:6379"} 0
            # HELP cachenat_listener_last_change_timestamp_seconds When the listener was led to its target.
            # TYPE cachenat_listener_last_change_timestamp_seconds gauge
            cachenat_listener_last_change_timestamp_seconds{id="my-cluster-001",cluster="a\\b\"c\nd",listen="10.0.0.55:6379",target="10.0.1.230:6379,10.0.1.231:6379"} 2000
            # HELP cachenat_lease_age_seconds For how long the node has had its port.
            # TYPE cachenat_lease_age_seconds gauge
            cachenat_lease_age_seconds{id="my-cluster-001",cluster="a\\b\"c\nd",listen="10.0.0.55:6379",target="10.0.1.230:6379,10.0.1.231:6379"} 60
            # HELP cachenat_source_failing_seconds For how long the source could not be read whole; 0: it can.
            # TYPE cachenat_source_failing_seconds gauge
            cachenat_source_failing_seconds{source="replication_group/my-cluster"} 90
            # HELP cachenat_conntrack_entries The connections that the kernel tracks, ours and others'.
            # TYPE cachenat_conntrack_entries gauge
            cachenat_conntrack_entries 5
            # HELP cachenat_conntrack_entries_limit How many it may track; the first packet of one more is dropped.
            # TYPE cachenat_conntrack_entries_limit gauge
            cachenat_conntrack_entries_limit 100
            # HELP cachenat_target_connections_max The open connections to the target that has the most, for each address of gateway.snat; one can have 64512.
            # TYPE cachenat_target_connections_max gauge
            cachenat_target_connections_max 4
        "##]]
        .assert_eq(&text);
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let mut unknown = status(None);
        unknown.last_change = None;
        let text = text(&unknown);
        assert!(!text.contains("cachenat_listener_flow"), "{text}");
        assert!(!text.contains("cachenat_last_change"), "{text}");
        assert!(text.contains("cachenat_listener_connections_total{"), "{text}");
    }
}

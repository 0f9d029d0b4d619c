//! What was found now, over what was good before: only a whole answer removes a node.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
};

use crate::{Coverage, Inventory, Node, NodeId, Role, SourceName, SourceReport};

/// What to do when a whole answer has no node left for a source that had some.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Emptied {
    /// Keep the nodes: it is more often a mistake than a wish.
    #[default]
    Keep,
    /// Believe it (`--allow-empty`).
    Remove,
}

/// The inventory to act on, and what in it is not fresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Fresh nodes, and those that were kept.
    pub inventory: Inventory,
    /// One warning for each node or source that was kept.
    pub kept: Vec<Warning>,
}

/// Something that was kept as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// The source gave no answer: all its nodes stay.
    SourceUnread {
        /// The source.
        source: SourceName,
        /// How many nodes stay.
        nodes: usize,
        /// Why.
        error: String,
    },
    /// A whole answer without any node: all nodes stay.
    SourceEmptied {
        /// The source.
        source: SourceName,
        /// How many nodes stay.
        nodes: usize,
    },
    /// Half an answer does not name the node: it stays.
    NodeNotNamed {
        /// The node.
        node: NodeId,
        /// Its source.
        source: SourceName,
        /// Why the answer is half.
        error: String,
    },
    /// The node has no address now: its last one stays.
    AddressKept {
        /// The node.
        node: NodeId,
        /// Why it has none.
        error: String,
    },
}

/// Lays a fresh inventory over the last good one.
///
/// - A source that could not be read keeps its nodes.
/// - Half an answer keeps the nodes that it does not name.
/// - A node without an address keeps its last one; a reader whose replicas are not all known keeps theirs too.
/// - A whole answer removes the nodes that it does not name, and a config without the source removes the source's.
/// - A whole answer without any node, or the API's word that there is no such cache, removes only with [`Emptied::Remove`].
pub fn over_last_good(fresh: Inventory, last_good: Option<&Inventory>, emptied: Emptied) -> Merged {
    let mut merged = Merged { inventory: fresh, kept: Vec::new() };
    let Some(last_good) = last_good else { return merged };

    let before: HashMap<&NodeId, &Node> = last_good.nodes.iter().map(|node| (&node.id, node)).collect();
    for node in &mut merged.inventory.nodes {
        merged.kept.extend(before.get(&node.id).and_then(|before| keep_addresses(node, before)));
    }

    let named: HashSet<&NodeId> = merged.inventory.nodes.iter().map(|node| &node.id).collect();
    let mut unnamed: BTreeMap<&SourceName, Vec<&Node>> = BTreeMap::new();
    for node in last_good.nodes.iter().filter(|node| !named.contains(&node.id)) {
        unnamed.entry(&node.source).or_default().push(node);
    }
    let filled: HashSet<SourceName> = merged.inventory.nodes.iter().map(|node| node.source.clone()).collect();
    for report in &merged.inventory.sources {
        let unnamed = unnamed.remove(&report.source).unwrap_or_default();
        if let Some(warnings) = keep_unnamed(report, &unnamed, filled.contains(&report.source), emptied) {
            merged.kept.extend(warnings);
            merged.inventory.nodes.extend(unnamed.into_iter().cloned());
        }
    }
    merged.inventory.sort();
    merged
}

/// Gives the node its last addresses if it has to have them, and says so.
fn keep_addresses(node: &mut Node, before: &Node) -> Option<Warning> {
    let error = node.error.clone()?;
    let incomplete_reader = node.role == Some(Role::Reader);
    if before.addresses.is_empty() || !(node.addresses.is_empty() || incomplete_reader) {
        return None;
    }
    if node.host.is_empty() {
        (node.host, node.port) = (before.host.clone(), before.port);
        node.resolves = before.resolves.clone();
    }
    node.addresses.extend(&before.addresses);
    node.addresses.sort();
    node.addresses.dedup();
    Some(Warning::AddressKept { node: node.id.clone(), error })
}

/// The warnings under which nodes that the answer does not name stay; none: they are gone.
fn keep_unnamed(
    report: &SourceReport,
    unnamed: &[&Node],
    has_nodes: bool,
    emptied: Emptied,
) -> Option<Vec<Warning>> {
    let (source, nodes) = (report.source.clone(), unnamed.len());
    let error = report.error.clone().unwrap_or_else(|| "no reason was given".into());
    match (report.coverage, emptied) {
        _ if unnamed.is_empty() => None,
        (Coverage::Nothing, _) => Some(vec![Warning::SourceUnread { source, nodes, error }]),
        (Coverage::Absent, Emptied::Keep) => Some(vec![Warning::SourceUnread { source, nodes, error }]),
        (Coverage::Whole, Emptied::Keep) if !has_nodes => {
            Some(vec![Warning::SourceEmptied { source, nodes }])
        }
        (Coverage::Part, _) => Some(
            unnamed
                .iter()
                .map(|node| Warning::NodeNotNamed {
                    node: node.id.clone(),
                    source: report.source.clone(),
                    error: error.clone(),
                })
                .collect(),
        ),
        (Coverage::Whole | Coverage::Absent, Emptied::Keep | Emptied::Remove) => None,
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SourceUnread { source, nodes, error } => {
                write!(f, "{source}: {error}; its nodes stay as they were ({nodes})")
            }
            Self::SourceEmptied { source, nodes } => write!(
                f,
                "{source}: the answer has no nodes; they stay as they were ({nodes}), --allow-empty removes them"
            ),
            Self::NodeNotNamed { node, source, error } => {
                write!(
                    f,
                    "{node}: not named by {source}, which was read in part ({error}); it stays as it was"
                )
            }
            Self::AddressKept { node, error } => write!(f, "{node}: {error}; its last good address stays"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::node;

    fn source() -> SourceName {
        "replication_group/my-cluster".parse().unwrap()
    }

    fn last_good() -> Inventory {
        Inventory {
            nodes: vec![node("my-cluster-001", &["10.0.1.230"]), node("my-cluster-002", &["10.0.1.231"])],
            sources: vec![SourceReport::complete(source())],
        }
    }

    fn unresolved(id: &str) -> Node {
        Node { error: Some("no such name".into()), ..node(id, &[]) }
    }

    fn ids(merged: &Merged) -> Vec<&str> {
        merged.inventory.nodes.iter().map(|node| node.id.as_str()).collect()
    }

    fn merge(nodes: Vec<Node>, report: SourceReport, emptied: Emptied) -> Merged {
        over_last_good(Inventory { nodes, sources: vec![report] }, Some(&last_good()), emptied)
    }

    #[test]
    fn a_failed_source_keeps_its_nodes() {
        let merged = merge(vec![], SourceReport::failed(source(), "throttled"), Emptied::Remove);
        assert_eq!(ids(&merged), ["my-cluster-001", "my-cluster-002"]);
        let warning = "replication_group/my-cluster: throttled; its nodes stay as they were (2)";
        assert_eq!(merged.kept[0].to_string(), warning);
    }

    #[test]
    fn half_an_answer_keeps_the_nodes_that_it_does_not_name() {
        let fresh = vec![node("my-cluster-001", &["10.0.1.240"])];
        let merged = merge(fresh, SourceReport::partial(source(), "page 2 was not read"), Emptied::Remove);
        assert_eq!(ids(&merged), ["my-cluster-001", "my-cluster-002"]);
        assert_eq!(merged.inventory.nodes[0].addresses, ["10.0.1.240".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!(merged.kept.len(), 1);
    }

    #[test]
    fn a_whole_answer_removes_what_it_does_not_name() {
        let fresh = vec![node("my-cluster-002", &["10.0.1.231"])];
        let merged = merge(fresh, SourceReport::complete(source()), Emptied::Keep);
        assert_eq!(ids(&merged), ["my-cluster-002"]);
        assert_eq!(merged.kept, []);
    }

    #[test]
    fn a_node_that_is_gone_goes_though_another_has_no_address() {
        let mut report = SourceReport::complete(source());
        report.lower_to_partial("1 node has no address");
        let merged = merge(vec![unresolved("my-cluster-001")], report, Emptied::Keep);
        assert_eq!(ids(&merged), ["my-cluster-001"]);
        assert_eq!(merged.inventory.nodes[0].addresses.len(), 1);
    }

    #[test]
    fn an_unresolved_node_keeps_its_last_address() {
        let fresh = vec![unresolved("my-cluster-001"), node("my-cluster-002", &["10.0.1.231"])];
        let merged = merge(fresh, SourceReport::complete(source()), Emptied::Keep);
        assert_eq!(merged.inventory.nodes[0].addresses, last_good().nodes[0].addresses);
        assert_eq!(merged.kept[0].to_string(), "my-cluster-001: no such name; its last good address stays");
    }

    #[test]
    fn a_node_that_loses_its_endpoint_keeps_host_and_port() {
        let creating =
            Node { host: String::new(), port: 1.try_into().unwrap(), ..unresolved("my-cluster-001") };
        let merged = merge(vec![creating], SourceReport::complete(source()), Emptied::Keep);
        let kept = &merged.inventory.nodes[0];
        assert_eq!((kept.host.as_str(), kept.port.get()), ("my-cluster-001.example", 6379));
    }

    #[test]
    fn a_reader_with_a_lost_replica_keeps_all_its_addresses_and_gains_the_new() {
        let reader =
            |addresses: &[&str]| Node { role: Some(Role::Reader), ..node("my-cluster/reader", addresses) };
        let before = Inventory { nodes: vec![reader(&["10.0.1.231", "10.0.1.232"])], sources: vec![] };
        let now = Node { error: Some("SERVFAIL".into()), ..reader(&["10.0.1.241"]) };
        let fresh = Inventory { nodes: vec![now], sources: vec![SourceReport::complete(source())] };
        let merged = over_last_good(fresh, Some(&before), Emptied::Keep);
        let addresses: Vec<String> =
            merged.inventory.nodes[0].addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.1.231", "10.0.1.232", "10.0.1.241"]);
    }

    #[test]
    fn an_answer_without_nodes_removes_only_when_that_is_allowed() {
        for report in [SourceReport::complete(source()), SourceReport::absent(source(), "no such group")] {
            let kept = merge(vec![], report.clone(), Emptied::Keep);
            assert_eq!((ids(&kept).len(), kept.kept.len()), (2, 1), "{report:?}");
            let removed = merge(vec![], report, Emptied::Remove);
            assert_eq!((ids(&removed).len(), removed.kept.len()), (0, 0));
        }
    }

    #[test]
    fn a_source_that_the_config_drops_takes_its_nodes_with_it() {
        let fresh = Inventory {
            nodes: vec![],
            sources: vec![SourceReport::complete("static/local".parse().unwrap())],
        };
        let merged = over_last_good(fresh, Some(&last_good()), Emptied::Keep);
        assert_eq!((ids(&merged).len(), merged.kept.len()), (0, 0));
    }

    #[test]
    fn an_inventory_that_is_silent_about_a_source_keeps_its_nodes() {
        let fresh = Inventory::default().speaking_of([&source()]);
        let merged = over_last_good(fresh, Some(&last_good()), Emptied::Remove);
        assert_eq!(ids(&merged).len(), 2);
    }

    #[test]
    fn without_a_last_good_inventory_everything_is_as_found() {
        let fresh = Inventory { nodes: vec![unresolved("a")], sources: vec![] };
        assert_eq!(
            over_last_good(fresh.clone(), None, Emptied::Keep),
            Merged { inventory: fresh, kept: vec![] }
        );
    }
}

//! What was found now, over what was good before: only a whole answer removes a node.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
};

use discovery::{Coverage, Inventory, Node, NodeId, Outcome, Role, SourceName, SourceReport, Timestamp};

/// What to do when a whole answer has no node left for a source that had some.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnEmptyAnswer {
    /// Keep the nodes: it is more often a mistake than a wish.
    #[default]
    Keep,
    /// Believe it (`--allow-empty`).
    Remove,
}

/// How far a fresh inventory is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy<'a> {
    /// What to do with a source that has no node left.
    pub emptied: OnEmptyAnswer,
    /// How many percent of a source's nodes one answer may remove; if more vanish, one more answer has to say so.
    pub max_removed_percent: u8,
    /// The sources of which that is required: those that are asked, and so can answer wrongly. What the configuration or
    /// a file spells out needs no second word.
    pub guarded_sources: &'a [SourceName],
    /// The time of this run.
    pub now: Timestamp,
}

/// The inventory to act on, and what in it is not fresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Fresh nodes, and those that were kept.
    pub inventory: Inventory,
    /// The nodes that were not found now: no fresh address is known, or no answer names them.
    pub unseen: HashSet<NodeId>,
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
    /// A whole answer from which many nodes are missing: they stay until one more says the same.
    RemovalHeld {
        /// The source.
        source: SourceName,
        /// How many nodes are missing.
        missing: usize,
        /// How many it had.
        of: usize,
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
/// - Half an answer keeps the nodes that it does not name, of the caches that are in doubt.
/// - A node without an address keeps its last one; a reader whose replicas are not all known keeps theirs too.
/// - A whole answer removes the nodes that it does not name, and a config without the source removes the source's.
/// - A whole answer that misses more than [`Policy::max_removed_percent`] percent of the nodes removes them when it comes twice.
/// - A whole answer without any node, or the API's word that there is no such cache, removes only with [`OnEmptyAnswer::Remove`].
pub fn merge_with_last_good(fresh: Inventory, last_good: Option<&Inventory>, policy: Policy<'_>) -> Merged {
    let unseen = fresh.nodes.iter().filter(|node| node.addresses.is_empty()).map(|node| node.id.clone());
    let mut merged = Merged { unseen: unseen.collect(), inventory: fresh, kept: Vec::new() };
    let reports: HashMap<&SourceName, &SourceReport> =
        last_good.iter().flat_map(|before| &before.sources).map(|report| (&report.source, report)).collect();
    for report in merged.inventory.sources.iter_mut().filter(|report| report.outcome != Outcome::Complete) {
        let before = reports.get(&report.source).and_then(|before| before.failing_since);
        report.failing_since = before.or(Some(policy.now));
    }
    let Some(last_good) = last_good else { return merged };

    let mut before: HashMap<&NodeId, &Node> = last_good.nodes.iter().map(|node| (&node.id, node)).collect();
    for node in &mut merged.inventory.nodes {
        let before = before.remove(&node.id);
        merged.kept.extend(before.and_then(|before| keep_addresses(node, before)));
    }
    let mut unnamed: BTreeMap<&SourceName, Vec<&Node>> = BTreeMap::new();
    for node in last_good.nodes.iter().filter(|node| before.contains_key(&node.id)) {
        unnamed.entry(&node.source).or_default().push(node);
    }
    if unnamed.is_empty() {
        merged.inventory.sort();
        return merged;
    }
    let filled: HashSet<&SourceName> = merged.inventory.nodes.iter().map(|node| &node.source).collect();
    let mut stay: Vec<Node> = Vec::new();
    let mut had: HashMap<&SourceName, usize> = HashMap::new();
    for node in &last_good.nodes {
        *had.entry(&node.source).or_default() += 1;
    }
    for report in &mut merged.inventory.sources {
        let missing = unnamed.remove(&report.source).unwrap_or_default();
        // Of a cache that is in doubt nothing is removed, and the others' nodes need not stay for it.
        let (doubted, rest): (Vec<&Node>, _) =
            missing.into_iter().partition(|node| report.doubts(&node.cluster));
        let beyond_doubt = if report.coverage == Coverage::Part { Coverage::Whole } else { report.coverage };
        for (nodes, coverage) in [(doubted, Coverage::Part), (rest, beyond_doubt)] {
            let missing = Missing {
                nodes,
                coverage,
                of: had.get(&report.source).copied().unwrap_or_default(),
                has_nodes: filled.contains(&report.source),
                held: reports.get(&report.source).map(|before| before.held.as_slice()).unwrap_or_default(),
            };
            let Some(warnings) = missing.kept(report, policy) else { continue };
            if warnings.iter().any(|warning| matches!(warning, Warning::RemovalHeld { .. })) {
                report.held = missing.nodes.iter().map(|node| node.id.clone()).collect();
            }
            merged.kept.extend(warnings);
            stay.extend(missing.nodes.into_iter().cloned());
        }
    }
    merged.unseen.extend(stay.iter().map(|node| node.id.clone()));
    merged.inventory.nodes.extend(stay);
    merged.inventory.sort();
    merged
}

/// A listing, with the nodes that its unread sources had: their names stay the same when a node is replaced, so DNS alone
/// tells where they are now.
///
/// Goes between [`list`](discovery::list) and [`resolve`](discovery::resolve).
#[must_use]
pub fn readd_unread_nodes(mut listed: Inventory, last_good: Option<&Inventory>) -> Inventory {
    let reports: HashMap<&SourceName, &SourceReport> =
        listed.sources.iter().map(|report| (&report.source, report)).collect();
    let named: HashSet<&NodeId> = listed.nodes.iter().map(|node| &node.id).collect();
    let is_open = |node: &&Node| {
        let report = reports.get(&node.source);
        report.is_some_and(|report| report.coverage == Coverage::Nothing || report.doubts(&node.cluster))
    };
    let had = last_good.iter().flat_map(|before| &before.nodes);
    let open: Vec<Node> = had.filter(|node| is_open(node) && !named.contains(&node.id)).cloned().collect();
    listed.nodes.extend(open);
    listed.sort();
    listed
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

/// The nodes of a source that its answer does not name.
struct Missing<'a> {
    nodes: Vec<&'a Node>,
    /// What it means that they are missing.
    coverage: Coverage,
    /// How many nodes the source had.
    of: usize,
    /// Whether the answer names any node.
    has_nodes: bool,
    /// The nodes that were missing from the answer before already.
    held: &'a [NodeId],
}

impl Missing<'_> {
    /// The warnings under which they stay; none: they are gone.
    fn kept(&self, report: &SourceReport, policy: Policy<'_>) -> Option<Vec<Warning>> {
        let (source, nodes) = (report.source.clone(), self.nodes.len());
        let error = report.error.clone().unwrap_or_else(|| "no reason was given".into());
        match (self.coverage, policy.emptied) {
            _ if self.nodes.is_empty() => None,
            (Coverage::Nothing, _) | (Coverage::Absent, OnEmptyAnswer::Keep) => {
                Some(vec![Warning::SourceUnread { source, nodes, error }])
            }
            (Coverage::Whole, OnEmptyAnswer::Keep) if !self.has_nodes => {
                Some(vec![Warning::SourceEmptied { source, nodes }])
            }
            (Coverage::Whole, OnEmptyAnswer::Keep) if self.is_suspicious(&source, policy) => {
                Some(vec![Warning::RemovalHeld { source, missing: nodes, of: self.of }])
            }
            // Of a cache that has failed there is nothing to wait for, and nothing to say again and again.
            (Coverage::Part, _) if report.outcome == Outcome::Complete => Some(vec![]),
            (Coverage::Part, _) => Some(self.nodes.iter().map(|node| not_named(node, &error)).collect()),
            (Coverage::Whole | Coverage::Absent, OnEmptyAnswer::Keep | OnEmptyAnswer::Remove) => None,
        }
    }

    /// Whether too many are missing at once for one answer.
    fn is_suspicious(&self, source: &SourceName, policy: Policy<'_>) -> bool {
        let many = self.nodes.len() * 100 > self.of * usize::from(policy.max_removed_percent);
        let said_before = self.nodes.iter().all(|node| self.held.contains(&node.id));
        many && !said_before && policy.guarded_sources.contains(source)
    }
}

fn not_named(node: &Node, error: &str) -> Warning {
    Warning::NodeNotNamed { node: node.id.clone(), source: node.source.clone(), error: error.to_owned() }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SourceUnread { source, nodes, error } => {
                write!(f, "{source}: {error}; keeping its {nodes} nodes")
            }
            Self::SourceEmptied { source, nodes } => write!(
                f,
                "{source}: the answer has no nodes; keeping its {nodes} nodes, which --allow-empty removes"
            ),
            Self::RemovalHeld { source, missing, of } => write!(
                f,
                "{source}: {missing} of its {of} nodes disappeared at once; keeping them until a second answer confirms it"
            ),
            Self::NodeNotNamed { node, source, error } => {
                write!(f, "{node}: not in the incomplete answer of {source} ({error}); keeping it")
            }
            Self::AddressKept { node, error } => write!(f, "{node}: {error}; keeping its last good address"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use discovery::test_support::node;

    use super::*;

    fn source() -> SourceName {
        "replication_group/my-cluster".parse().unwrap()
    }

    fn last_good() -> Inventory {
        Inventory {
            nodes: vec![node("my-cluster-001", &["10.0.1.230"]), node("my-cluster-002", &["10.0.1.231"])],
            sources: vec![SourceReport::complete(source())],
        }
    }

    fn policy(emptied: OnEmptyAnswer) -> Policy<'static> {
        static GUARDED: LazyLock<[SourceName; 1]> = LazyLock::new(|| [source()]);
        Policy {
            emptied,
            max_removed_percent: 50,
            guarded_sources: &*GUARDED,
            now: Timestamp::from_secs(1_000),
        }
    }

    fn unresolved(id: &str) -> Node {
        Node { error: Some("no such name".into()), ..node(id, &[]) }
    }

    fn ids(merged: &Merged) -> Vec<&str> {
        merged.inventory.nodes.iter().map(|node| node.id.as_str()).collect()
    }

    fn merge(nodes: Vec<Node>, report: SourceReport, emptied: OnEmptyAnswer) -> Merged {
        merge_with_last_good(Inventory { nodes, sources: vec![report] }, Some(&last_good()), policy(emptied))
    }

    #[test]
    fn a_failed_source_keeps_its_nodes() {
        let merged = merge(vec![], SourceReport::failed(source(), "throttled"), OnEmptyAnswer::Remove);
        assert_eq!(ids(&merged), ["my-cluster-001", "my-cluster-002"]);
        let warning = "replication_group/my-cluster: throttled; keeping its 2 nodes";
        assert_eq!(merged.kept[0].to_string(), warning);
    }

    #[test]
    fn the_names_of_an_unread_source_are_recalled_and_those_of_a_whole_answer_are_not() {
        let recalled = |report| {
            let listed = Inventory { nodes: vec![node("my-cluster-001", &[])], sources: vec![report] };
            let recalled = readd_unread_nodes(listed, Some(&last_good())).nodes;
            recalled.iter().map(|node| node.id.to_string()).collect::<Vec<_>>()
        };
        let both = ["my-cluster-001", "my-cluster-002"];
        assert_eq!(recalled(SourceReport::failed(source(), "throttled")), both);
        assert_eq!(recalled(SourceReport::partial(source(), "page 2 was not read")), both);
        assert_eq!(recalled(SourceReport::complete(source())), ["my-cluster-001"]);
        assert_eq!(recalled(SourceReport::absent(source(), "no such group")), ["my-cluster-001"]);
    }

    #[test]
    fn half_an_answer_keeps_the_nodes_that_it_does_not_name() {
        let fresh = vec![node("my-cluster-001", &["10.0.1.240"])];
        let merged =
            merge(fresh, SourceReport::partial(source(), "page 2 was not read"), OnEmptyAnswer::Remove);
        assert_eq!(ids(&merged), ["my-cluster-001", "my-cluster-002"]);
        assert_eq!(merged.inventory.nodes[0].addresses, ["10.0.1.240".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!(merged.kept.len(), 1);
    }

    #[test]
    fn a_cache_in_doubt_keeps_its_own_nodes_and_no_others() {
        let of = |cluster: &str, id| Node { cluster: cluster.into(), ..node(id, &["10.0.1.230"]) };
        let before = Inventory {
            nodes: vec![of("good", "good-001"), of("good", "good-002"), of("bad", "bad-001")],
            sources: vec![SourceReport::complete(source())],
        };
        let merged = |report: SourceReport| {
            let fresh = Inventory { nodes: vec![of("good", "good-001")], sources: vec![report] };
            merge_with_last_good(fresh, Some(&before), policy(OnEmptyAnswer::Keep))
        };
        let in_doubt =
            SourceReport { in_doubt: vec!["bad".into()], ..SourceReport::partial(source(), "bad is odd") };
        let doubted = merged(in_doubt.clone());
        assert_eq!((ids(&doubted), doubted.kept.len()), (vec!["bad-001", "good-001"], 1));
        // Where the cache has failed there is nothing to warn of, again and again.
        let failed = merged(SourceReport { outcome: Outcome::Complete, error: None, ..in_doubt.clone() });
        assert_eq!((ids(&failed), failed.kept.len()), (vec!["bad-001", "good-001"], 0));
        let any = merged(SourceReport { in_doubt: vec![], ..in_doubt });
        assert_eq!(ids(&any), ["bad-001", "good-001", "good-002"]);
    }

    #[test]
    fn a_whole_answer_removes_what_it_does_not_name() {
        let fresh = vec![node("my-cluster-002", &["10.0.1.231"])];
        let merged = merge(fresh, SourceReport::complete(source()), OnEmptyAnswer::Keep);
        assert_eq!(ids(&merged), ["my-cluster-002"]);
        assert_eq!(merged.kept, []);
    }

    #[test]
    fn a_node_that_is_gone_goes_though_another_has_no_address() {
        let mut report = SourceReport::complete(source());
        report.lower_to_partial("1 node has no address");
        let merged = merge(vec![unresolved("my-cluster-001")], report, OnEmptyAnswer::Keep);
        assert_eq!(ids(&merged), ["my-cluster-001"]);
        assert_eq!(merged.inventory.nodes[0].addresses.len(), 1);
    }

    #[test]
    fn an_unresolved_node_keeps_its_last_address() {
        let fresh = vec![unresolved("my-cluster-001"), node("my-cluster-002", &["10.0.1.231"])];
        let merged = merge(fresh, SourceReport::complete(source()), OnEmptyAnswer::Keep);
        assert_eq!(merged.inventory.nodes[0].addresses, last_good().nodes[0].addresses);
        assert_eq!(merged.kept[0].to_string(), "my-cluster-001: no such name; keeping its last good address");
    }

    #[test]
    fn a_node_that_loses_its_endpoint_keeps_host_and_port() {
        let creating =
            Node { host: String::new(), port: 1.try_into().unwrap(), ..unresolved("my-cluster-001") };
        let merged = merge(vec![creating], SourceReport::complete(source()), OnEmptyAnswer::Keep);
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
        let merged = merge_with_last_good(fresh, Some(&before), policy(OnEmptyAnswer::Keep));
        let addresses: Vec<String> =
            merged.inventory.nodes[0].addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.1.231", "10.0.1.232", "10.0.1.241"]);
    }

    #[test]
    fn an_answer_without_nodes_removes_only_when_that_is_allowed() {
        for report in [SourceReport::complete(source()), SourceReport::absent(source(), "no such group")] {
            let kept = merge(vec![], report.clone(), OnEmptyAnswer::Keep);
            assert_eq!((ids(&kept).len(), kept.kept.len()), (2, 1), "{report:?}");
            let removed = merge(vec![], report, OnEmptyAnswer::Remove);
            assert_eq!((ids(&removed).len(), removed.kept.len()), (0, 0));
        }
    }

    #[test]
    fn a_source_that_the_config_drops_takes_its_nodes_with_it() {
        let fresh = Inventory {
            nodes: vec![],
            sources: vec![SourceReport::complete("static/local".parse().unwrap())],
        };
        let merged = merge_with_last_good(fresh, Some(&last_good()), policy(OnEmptyAnswer::Keep));
        assert_eq!((ids(&merged).len(), merged.kept.len()), (0, 0));
    }

    #[test]
    fn an_inventory_that_is_silent_about_a_source_keeps_its_nodes() {
        let report = SourceReport::failed(source(), "the inventory file does not speak of it");
        let fresh = Inventory { nodes: vec![], sources: vec![report] };
        let merged = merge_with_last_good(fresh, Some(&last_good()), policy(OnEmptyAnswer::Remove));
        assert_eq!(ids(&merged).len(), 2);
    }

    #[test]
    fn a_node_is_unseen_if_it_has_no_address_now_or_no_answer_names_it() {
        let nodes = vec![node("my-cluster-001", &["10.0.1.9"]), unresolved("my-cluster-003")];
        let fresh = Inventory { nodes, sources: vec![SourceReport::partial(source(), "half")] };
        let merged = merge_with_last_good(fresh, Some(&last_good()), policy(OnEmptyAnswer::Keep));
        assert_eq!(ids(&merged).len(), 3);
        let unseen = ["my-cluster-002", "my-cluster-003"].map(|id| id.parse().unwrap());
        assert_eq!(merged.unseen, HashSet::from(unseen));
    }

    #[test]
    fn without_a_last_good_inventory_everything_is_as_found() {
        let fresh = Inventory { nodes: vec![unresolved("a")], sources: vec![] };
        assert_eq!(
            merge_with_last_good(fresh.clone(), None, policy(OnEmptyAnswer::Keep)),
            Merged { inventory: fresh, unseen: HashSet::from(["a".parse().unwrap()]), kept: vec![] }
        );
    }

    #[test]
    fn more_than_half_of_the_nodes_go_only_when_two_answers_say_so() {
        let nodes =
            ["my-cluster-001", "my-cluster-002", "my-cluster-003"].map(|id| node(id, &["10.0.1.230"]));
        let before = Inventory { nodes: nodes.to_vec(), sources: vec![SourceReport::complete(source())] };
        let fresh =
            || Inventory { nodes: nodes[..1].to_vec(), sources: vec![SourceReport::complete(source())] };
        let first = merge_with_last_good(fresh(), Some(&before), policy(OnEmptyAnswer::Keep));
        assert_eq!(ids(&first), ["my-cluster-001", "my-cluster-002", "my-cluster-003"]);
        assert_eq!(
            first.kept[0].to_string(),
            "replication_group/my-cluster: 2 of its 3 nodes disappeared at once; keeping them until a second answer confirms it"
        );
        let remembered = Inventory::from_json(&first.inventory.to_json()).unwrap();
        let second = merge_with_last_good(fresh(), Some(&remembered), policy(OnEmptyAnswer::Keep));
        assert_eq!((ids(&second), second.kept.len()), (vec!["my-cluster-001"], 0));

        let allowed = merge_with_last_good(fresh(), Some(&before), policy(OnEmptyAnswer::Remove));
        assert_eq!(ids(&allowed), ["my-cluster-001"]);
        let unguarded = Policy { max_removed_percent: 100, ..policy(OnEmptyAnswer::Keep) };
        assert_eq!(ids(&merge_with_last_good(fresh(), Some(&before), unguarded)), ["my-cluster-001"]);
        let spelled_out = Policy { guarded_sources: &[], ..policy(OnEmptyAnswer::Keep) };
        assert_eq!(ids(&merge_with_last_good(fresh(), Some(&before), spelled_out)), ["my-cluster-001"]);
    }

    #[test]
    fn a_failure_remembers_since_when_until_the_source_is_read_again() {
        let failed =
            merge(vec![], SourceReport::failed(source(), "throttled"), OnEmptyAnswer::Keep).inventory;
        assert_eq!(failed.sources[0].failing_since, Some(Timestamp::from_secs(1_000)));
        let later = Policy { now: Timestamp::from_secs(5_000), ..policy(OnEmptyAnswer::Keep) };
        let report = || SourceReport::failed(source(), "throttled");
        let again = Inventory { nodes: vec![], sources: vec![report()] };
        let again = merge_with_last_good(again, Some(&failed), later).inventory;
        assert_eq!(again.sources[0].failing_since, Some(Timestamp::from_secs(1_000)));
        let whole = Inventory { nodes: again.nodes.clone(), sources: vec![SourceReport::complete(source())] };
        assert_eq!(merge_with_last_good(whole, Some(&again), later).inventory.sources[0].failing_since, None);
    }
}

//! The inventory as JSON: the contract of `discover --json` and of the files that hold an inventory.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::{
    Inventory, Node, NodeId, SourceReport,
    text::{canonical_host, make_plain, plain},
};

/// The version that is written, and the only one that is read. It grows by addition only.
const VERSION: u32 = 1;

/// What is wrong with an inventory's JSON, and where.
///
/// Lines count from 1. The name of the file is the caller's to add.
#[derive(Debug, Error)]
pub enum InventoryError {
    /// Not JSON, or not an inventory's outline.
    #[error("line {line}, column {column}: {reason}")]
    Syntax {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
        /// The parser's words.
        reason: String,
    },
    /// Written by a version that this program does not know.
    #[error("version {found} of the inventory is not known: this program reads version {VERSION}")]
    Version {
        /// The version found.
        found: u32,
    },
    /// A node that does not make sense.
    #[error("line {line}: node {node}: {reason}")]
    Node {
        /// The line at which it goes wrong.
        line: usize,
        /// The node's id, or its place in the list.
        node: String,
        /// What is wrong.
        reason: String,
    },
    /// Two nodes of one name.
    #[error("line {line}: node {node}: the name is taken by the node at line {first}")]
    Duplicate {
        /// The line of the second one.
        line: usize,
        /// Their name.
        node: NodeId,
        /// The line of the first one.
        first: usize,
    },
    /// A source's report that does not make sense.
    #[error("line {line}: source {source_name}: {reason}")]
    Source {
        /// The line at which it goes wrong.
        line: usize,
        /// The source's name, or its place in the list.
        source_name: String,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    nodes: &'a [Node],
    sources: &'a [SourceReport],
}

/// An inventory without a mistake, read in one go.
#[derive(Deserialize)]
struct Whole {
    version: u32,
    #[serde(deserialize_with = "one_by_one")]
    nodes: Vec<Node>,
    #[serde(default)]
    sources: Vec<SourceReport>,
}

/// The outline; each entry is read on its own, so that an error can name it.
#[derive(Deserialize)]
struct Outline<'a> {
    version: u32,
    #[serde(borrow)]
    nodes: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    sources: Vec<&'a RawValue>,
}

impl Inventory {
    /// Makes all text from outside plain, so that the inventory that is written is the one that is read back.
    pub(crate) fn make_plain(&mut self) {
        self.nodes.iter_mut().for_each(make_node_plain);
        self.sources.iter_mut().filter_map(|report| report.error.as_mut()).for_each(make_plain);
    }

    /// The inventory as pretty JSON, with a line break at its end.
    pub fn to_json(&self) -> String {
        let written = Written { version: VERSION, nodes: &self.nodes, sources: &self.sources };
        let mut json =
            serde_json::to_string_pretty(&written).expect("strings, numbers and lists always serialise");
        json.push('\n');
        json
    }

    /// The inventory as JSON in pieces, with each node and each source on a line of its own: half as long, and quick to
    /// write and read.
    pub fn to_json_pieces(&self) -> impl Iterator<Item = String> + '_ {
        let head = format!("{{\"version\":{VERSION},\"nodes\":[");
        [head]
            .into_iter()
            .chain(lines(&self.nodes))
            .chain(["],\"sources\":[".to_owned()])
            .chain(lines(&self.sources))
            .chain(["]}\n".to_owned()])
    }

    /// Reads what [`to_json`](Self::to_json) or [`to_json_pieces`](Self::to_json_pieces) wrote, now or in an earlier or later version; unknown fields are passed over.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with its line and the node or source that it is about.
    pub fn from_json(text: &str) -> Result<Self, InventoryError> {
        match serde_json::from_str(text) {
            Ok(Whole { version: VERSION, nodes, sources }) if have_names_of_their_own(&nodes) => {
                Ok(Self { nodes, sources })
            }
            Ok(_) | Err(_) => Self::from_json_with_lines(text),
        }
    }

    /// Reads entry by entry, to say what is wrong where.
    fn from_json_with_lines(text: &str) -> Result<Self, InventoryError> {
        let outline: Outline<'_> = serde_json::from_str(text).map_err(|error| InventoryError::Syntax {
            line: error.line(),
            column: error.column(),
            reason: reason(&error),
        })?;
        if outline.version != VERSION {
            return Err(InventoryError::Version { found: outline.version });
        }

        let mut lines = Lines { text, offset: 0, line: 1 };
        let mut taken: BTreeMap<NodeId, usize> = BTreeMap::new();
        let mut nodes = Vec::with_capacity(outline.nodes.len());
        for (index, raw) in outline.nodes.into_iter().enumerate() {
            let line = lines.of(raw);
            let node = read_node(raw, line, index)?;
            if let Some(first) = taken.insert(node.id.clone(), line) {
                return Err(InventoryError::Duplicate { line, node: node.id, first });
            }
            nodes.push(node);
        }
        let mut lines = Lines { text, offset: 0, line: 1 };
        let mut sources = Vec::with_capacity(outline.sources.len());
        for (index, raw) in outline.sources.into_iter().enumerate() {
            sources.push(read_source(raw, lines.of(raw), index)?);
        }
        Ok(Self { nodes, sources })
    }
}

fn lines<T: Serialize>(entries: &[T]) -> impl Iterator<Item = String> + '_ {
    let separators = std::iter::once("\n").chain(std::iter::repeat(",\n"));
    entries.iter().zip(separators).map(|(entry, before)| {
        let mut line = Vec::with_capacity(256);
        line.extend_from_slice(before.as_bytes());
        serde_json::to_writer(&mut line, entry).expect("strings, numbers and lists always serialise");
        String::from_utf8(line).expect("JSON is UTF-8")
    })
}

fn read_node(raw: &RawValue, line: usize, index: usize) -> Result<Node, InventoryError> {
    let mut node: Node = serde_json::from_str(raw.get()).map_err(|error| InventoryError::Node {
        line: line + error.line().saturating_sub(1),
        node: name_of(raw, "id", index),
        reason: reason(&error),
    })?;
    make_node_plain(&mut node);
    Ok(node)
}

/// A file's texts are as foreign as the API's.
fn make_node_plain(node: &mut Node) {
    let Node { cluster, status, shard, host, error, resolves, configuration_host, .. } = node;
    [cluster, status].into_iter().chain(shard).for_each(make_plain);
    [&mut *host].into_iter().chain(error).chain(resolves).chain(configuration_host).for_each(make_plain);
    // Only an address of IPv6 has other spellings.
    if host.contains(':') {
        *host = canonical_host(host);
    }
}

/// Reads nodes so that neighbours share the text that they have in common; in a large file that is most of it.
fn one_by_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Node>, D::Error> {
    struct Nodes;
    impl<'de> Visitor<'de> for Nodes {
        type Value = Vec<Node>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of nodes")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Node>, A::Error> {
            let mut nodes: Vec<Node> = Vec::new();
            while let Some(mut node) = list.next_element()? {
                make_node_plain(&mut node);
                if let Some(before) = nodes.last() {
                    share(&mut node.cluster, &before.cluster);
                    share(&mut node.source, &before.source);
                    share(&mut node.shard, &before.shard);
                }
                nodes.push(node);
            }
            nodes.shrink_to_fit();
            Ok(nodes)
        }
    }
    deserializer.deserialize_seq(Nodes)
}

fn share<T: Clone + PartialEq>(text: &mut T, other: &T) {
    if text == other {
        text.clone_from(other);
    }
}

fn have_names_of_their_own(nodes: &[Node]) -> bool {
    let mut taken = HashSet::with_capacity(nodes.len());
    nodes.iter().all(|node| taken.insert(&node.id))
}

fn read_source(raw: &RawValue, line: usize, index: usize) -> Result<SourceReport, InventoryError> {
    serde_json::from_str(raw.get()).map_err(|error| InventoryError::Source {
        line: line + error.line().saturating_sub(1),
        source_name: name_of(raw, "source", index),
        reason: reason(&error),
    })
}

/// The entry's own name, if it has one, else its place in the list.
fn name_of(raw: &RawValue, key: &str, index: usize) -> String {
    let entry: Option<serde_json::Value> = serde_json::from_str(raw.get()).ok();
    match entry.as_ref().and_then(|entry| entry.get(key)).and_then(serde_json::Value::as_str) {
        Some(name) => plain(name),
        None => format!("number {}", index + 1),
    }
}

/// Counts lines through a text, once, for entries in their order.
struct Lines<'a> {
    text: &'a str,
    offset: usize,
    line: usize,
}

impl Lines<'_> {
    /// The line on which an entry begins. The entry is a slice of the text, so its place is the difference of addresses.
    fn of(&mut self, entry: &RawValue) -> usize {
        let offset = (entry.get().as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let between = self.text.as_bytes().get(self.offset..offset).unwrap_or_default();
        self.line += between.iter().filter(|byte| **byte == b'\n').count();
        self.offset = offset.max(self.offset);
        self.line
    }
}

/// The parser's words without its own line and column, which count from the entry's begin.
fn reason(error: &serde_json::Error) -> String {
    let words = error.to_string();
    plain(words.rsplit_once(" at line ").map_or(words.as_str(), |(reason, _)| reason))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Outcome, test_support::node};

    /// Text as a hostile service would send it, of every length.
    fn hostile() -> impl Strategy<Value = String> {
        "[a-z …\\t\\n\u{1b}\u{7}\u{85}\u{202e}\u{2028}é\"]{0,30}"
            .prop_flat_map(|text| (0..40_usize).prop_map(move |times| text.repeat(times)))
    }

    proptest! {
        #[test]
        fn an_inventory_that_is_written_is_read_unchanged(
            texts in prop::collection::vec(hostile(), 8), address: std::net::IpAddr,
        ) {
            let [host, status, cluster, shard, error, reason, more, resolves] = texts.try_into().unwrap();
            let mut node = node("my-cluster-001", &[]);
            (node.host, node.status, node.cluster) = (host, status.into(), cluster.into());
            (node.shard, node.error, node.resolves) = (Some(shard.into()), Some(error), vec![resolves]);
            node.addresses = vec![address.to_canonical()];
            node.configuration_host = Some(address.to_string());
            let source = node.source.clone();
            let mut inventory = Inventory { nodes: vec![node], sources: vec![SourceReport::failed(source, reason)] };
            inventory.sources[0].lower_to_partial(more);
            inventory.make_plain();
            for json in [inventory.to_json(), inventory.to_json_pieces().collect()] {
                prop_assert_eq!(&Inventory::from_json(&json).unwrap(), &inventory);
                prop_assert!(!json.chars().any(|c| c != '\n' && crate::text::is_unprintable(c)));
            }
        }
    }

    #[test]
    fn a_long_error_survives_being_written() {
        let source: crate::SourceName = "static/local".parse().unwrap();
        let mut report = SourceReport::failed(source.clone(), "AccessDenied ".repeat(90));
        report.lower_to_partial("more ".repeat(90));
        assert_eq!(report.outcome, Outcome::Failed);
        let inventory = Inventory { nodes: vec![], sources: vec![report] };
        assert_eq!(Inventory::from_json(&inventory.to_json()).unwrap(), inventory);
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_address() {
        let json = r#"{"version": 1, "nodes": [{"id": "a", "source": "static/local", "port": 1,
            "host": "::FFFF:10.0.1.9", "addresses": ["::ffff:10.0.1.9", "10.0.1.9"]}]}"#;
        let node = Inventory::from_json(json).unwrap().nodes.remove(0);
        assert_eq!((node.host.as_str(), node.addresses), ("10.0.1.9", vec!["10.0.1.9".parse().unwrap()]));
    }

    fn error(json: &str) -> String {
        Inventory::from_json(json).unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_is_read_back_unchanged() {
        let mut reader = node("my-cluster/reader", &["10.0.1.231", "10.0.1.232"]);
        reader.resolves = vec!["a.example".into(), "b.example".into()];
        let inventory = Inventory {
            nodes: vec![node("my-cluster-001", &["10.0.1.230"]), reader],
            sources: vec![SourceReport::absent("static/local".parse().unwrap(), "gone")],
        };
        for json in [inventory.to_json(), inventory.to_json_pieces().collect()] {
            assert_eq!(Inventory::from_json(&json).unwrap(), inventory);
            assert_eq!(Inventory::from_json_with_lines(&json).unwrap(), inventory);
        }
        assert_eq!(
            Inventory::default(),
            Inventory::from_json(&Inventory::default().to_json_pieces().collect::<String>()).unwrap()
        );
    }

    #[test]
    fn a_line_of_a_state_file_is_a_node() {
        let inventory = Inventory {
            nodes: vec![node("a", &["10.0.1.230"]), node("b", &["10.0.1.231"])],
            sources: vec![SourceReport::complete("replication_group/my-cluster".parse().unwrap())],
        };
        let lines: String = inventory.to_json_pieces().collect();
        let starts: Vec<&str> = lines.lines().map(|line| &line[..10]).collect();
        assert_eq!(starts, [r#"{"version""#, r#"{"id":"a","#, r#"{"id":"b","#, r#"{"source":"#]);
    }

    #[test]
    fn the_contract_is_these_keys() {
        let inventory = Inventory {
            nodes: vec![node("my-cluster-001", &["10.0.1.230"])],
            sources: vec![SourceReport::complete("replication_group/my-cluster".parse().unwrap())],
        };
        let expected = r#"{
  "version": 1,
  "nodes": [
    {
      "id": "my-cluster-001",
      "cluster": "my-cluster",
      "source": "replication_group/my-cluster",
      "shard": null,
      "role": null,
      "engine": "redis",
      "tls": false,
      "status": "available",
      "host": "my-cluster-001.example",
      "port": 6379,
      "addresses": [
        "10.0.1.230"
      ],
      "error": null
    }
  ],
  "sources": [
    {
      "source": "replication_group/my-cluster",
      "outcome": "complete",
      "error": null,
      "coverage": "whole"
    }
  ]
}
"#;
        assert_eq!(inventory.to_json(), expected);
    }

    #[test]
    fn unknown_fields_and_left_out_ones_are_no_error() {
        let json = r#"{"version": 1, "later": {}, "nodes": [{"id": "a", "source": "static/local", "port": 1, "later": 2,
            "addresses": ["10.0.1.9", "10.0.1.8", "10.0.1.9"]}]}"#;
        let inventory = Inventory::from_json(json).unwrap();
        let addresses: Vec<String> = inventory.nodes[0].addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.1.8", "10.0.1.9"]);
    }

    #[test]
    fn an_error_names_the_line_and_the_node() {
        let json = "{\"version\": 1, \"nodes\": [\n  {\"id\": \"a\", \"source\": \"static/l\", \"port\": 1},\n  \
                    {\"id\": \"b\",\n   \"source\": \"static/l\",\n   \"port\": 0}\n]}";
        let expected = "line 5: node b: invalid value: integer `0`, expected a nonzero u16";
        assert_eq!(error(json), expected);
    }

    #[test]
    fn a_bad_id_a_bad_address_and_a_missing_port_are_told() {
        let with = |entry: &str| error(&format!("{{\"version\": 1, \"nodes\": [\n{entry}]}}"));
        assert!(
            with(r#"{"id": "a b", "source": "static/l", "port": 1}"#)
                .contains("line 2: node a b: ' ' cannot stand")
        );
        assert!(
            with(r#"{"id": "a", "source": "static/l", "port": 1, "addresses": ["10.0.0"]}"#)
                .contains("line 2: node a: invalid IP address")
        );
        assert_eq!(with(r#"{"source": "static/l", "port": 1}"#), "line 2: node number 1: missing field `id`");
        assert_eq!(with(r#"{"id": "a", "source": "static/l"}"#), "line 2: node a: missing field `port`");
    }

    #[test]
    fn a_name_twice_is_refused_with_both_lines() {
        let entry = r#"{"id": "a", "source": "static/l", "port": 1}"#;
        let json = format!("{{\"version\": 1, \"nodes\": [\n{entry},\n{entry}]}}");
        assert_eq!(error(&json), "line 3: node a: the name is taken by the node at line 2");
    }

    #[test]
    fn half_a_file_and_a_later_version_are_refused() {
        assert!(error("{\"version\": 1, \"nodes\": [").starts_with("line 1, column 25: EOF"));
        assert!(error(r#"{"nodes": []}"#).contains("missing field `version`"));
        assert!(
            error(r#"{"version": 2, "nodes": []}"#).starts_with("version 2 of the inventory is not known")
        );
    }

    #[test]
    fn control_characters_of_a_file_do_not_reach_the_terminal() {
        let json = r#"{"version": 1, "nodes": [{"id": "a", "source": "static/l", "port": 1, "status": "\u001b[2J", "host": "x\u0007"}]}"#;
        let inventory = Inventory::from_json(json).unwrap();
        assert_eq!((inventory.nodes[0].status.as_str(), inventory.nodes[0].host.as_str()), ("?[2J", "x?"));
    }
}

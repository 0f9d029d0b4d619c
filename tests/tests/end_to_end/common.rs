//! Helpers for all end-to-end tests.

use std::io;
use std::net::SocketAddrV4;

use applier::kernel::Netfilter as _;
use applier::netlink::Kernel;
use cachenat_tests::lab::namespace::Namespace;
use cachenat_tests::lab::redis::Redis;
use cachenat_tests::lab::shell::{run, run_with_input};
use cachenat_tests::lab::{Lab, PUBLIC};
use cachenat_tests::programs;
use serde_json::Value;

/// A lab with AWS's example, `my-cluster` of three nodes at 10.0.1.230 to .232, and cachenat applied to it: they
/// are on the ports 6379 to 6381.
pub(crate) fn applied() -> Lab {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 3);
    lab.cachenat(&["apply"]).exits(0);
    lab
}

/// A lab without caches: its config spells these nodes out, `(number, address)`; nothing is applied.
pub(crate) fn spelled_out(nodes: &[(u8, &str)]) -> Lab {
    let lab = Lab::new();
    spell_out(&lab, nodes);
    lab
}

/// Writes another such config.
pub(crate) fn spell_out(lab: &Lab, nodes: &[(u8, &str)]) {
    lab.write_config(&static_config(nodes));
}

/// A config that spells these nodes out, without the lab's paths.
pub(crate) fn static_config(nodes: &[(u8, &str)]) -> String {
    let nodes: String = nodes
        .iter()
        .map(|(number, host)| format!("        - {{id: local-{number:03}, host: {host}, port: 6379}}\n"))
        .collect();
    format!(
        "clients: [198.51.100.27/32]\n\
         sources:\n\
         \x20 - static:\n\
         \x20     name: local\n\
         \x20     nodes:\n{nodes}"
    )
}

/// The active table, without handles and counters; empty without our table.
pub(crate) fn in_force(lab: &Lab) -> String {
    let tables = lab.network.nat.nft_list("tables");
    if !tables.contains("inet cachenat") {
        return String::new();
    }
    run(lab.network.nat.command("nft").args(["-s", "list", "table", "inet", "cachenat"]))
}

/// Connects to a port of the gateway's public address.
pub(crate) fn dial(from: &Namespace, port: u16) -> io::Result<Redis> {
    Redis::connect(from, SocketAddrV4::new(PUBLIC, port))
}

/// The client's connection to a port, which must be open to it.
#[track_caller]
pub(crate) fn open(lab: &Lab, port: u16) -> Redis {
    dial(&lab.network.client, port).unwrap_or_else(|error| panic!("the client at port {port}: {error}"))
}

/// The node whose server the client reaches on a port.
#[track_caller]
pub(crate) fn reached(lab: &Lab, port: u16) -> String {
    open(lab, port).info("run_id").unwrap()
}

/// cachenat's table as `nft -j -a` has it: with every handle and counter.
pub(crate) fn table(lab: &Lab) -> Value {
    let mut nft = lab.network.nat.command("nft");
    serde_json::from_str(&run(nft.args(["-j", "-a", "list", "table", "inet", "cachenat"]))).unwrap()
}

/// The target of a port, as nft(8) lists it; `None` without one.
pub(crate) fn target(lab: &Lab, port: u16) -> Option<String> {
    let list = run(lab.network.nat.command("nft").args(["list", "map", "inet", "cachenat", "forward4"]));
    let listener = format!("10.0.0.55 . {port} ");
    let element = list.split(',').find(|element| element.contains(&listener))?;
    let target = element.rsplit_once(" : ")?.1.split_whitespace();
    Some(target.take_while(|word| *word != "}").collect::<Vec<_>>().join(" ").replace(" . ", ":"))
}

/// The generation of the kernel's ruleset.
pub(crate) fn generation(lab: &Lab) -> u32 {
    lab.network.nat.enter(|| Kernel::open().unwrap().dump().unwrap().generation.0)
}

/// A table less the elements that name one of the addresses or listeners' ports, so that the rest can be compared.
pub(crate) fn without(mut table: Value, ends: &[&str]) -> Value {
    let names = |element: &Value| {
        let text = element.to_string();
        ends.iter().any(|end| text.contains(&format!("\"{end}\"")) || text.contains(&format!(",{end}]")))
    };
    for object in table["nftables"].as_array_mut().unwrap() {
        for body in object.as_object_mut().unwrap().values_mut() {
            if let Some(elements) = body.get_mut("elem").and_then(Value::as_array_mut) {
                elements.retain(|element| !names(element));
            }
        }
    }
    table
}

/// Every table but ours, with handles and counters.
pub(crate) fn foreign_tables(lab: &Lab) -> String {
    let tables = lab.network.nat.nft_list("tables");
    let foreign = tables.lines().filter(|table| *table != "table inet cachenat");
    foreign
        .map(|table| run(lab.network.nat.command("nft").args(["-a", "list"]).args(table.split(' '))))
        .collect()
}

/// Prints the samples as Prometheus' own library for Python reads them.
const READ: &str = "
import json, sys
from prometheus_client.parser import text_string_to_metric_families as families
print(json.dumps([[family.type, family.documentation, sample.name, sample.labels, sample.value]
                  for family in families(sys.stdin.read()) for sample in family.samples]))
";

/// The samples of a text of metrics, as Prometheus' own library for Python reads them: type, help, name, labels, value.
pub(crate) fn read_metrics(lab: &Lab, text: &str) -> Vec<Value> {
    let mut python = lab.network.nat.command(programs::python());
    let samples: Value = serde_json::from_str(&run_with_input(python.args(["-c", READ]), text)).unwrap();
    samples.as_array().unwrap().clone()
}

/// The value of a metric; of the node `id` unless that is empty.
#[track_caller]
pub(crate) fn value(samples: &[Value], name: &str, id: &str) -> f64 {
    sample(samples, name, id)[4].as_f64().unwrap()
}

/// The sample of a metric, likewise.
#[track_caller]
pub(crate) fn sample<'a>(samples: &'a [Value], name: &str, id: &str) -> &'a Value {
    let is = |sample: &&Value| sample[2] == name && (id.is_empty() || sample[3]["id"] == id);
    samples.iter().find(is).unwrap_or_else(|| panic!("no {name} of {id:?} in {samples:?}"))
}

//! `discover`: prints the inventory.

use std::time::Duration;

use discovery::{Admission, Imds, Inventory, Node};
use plan::is_whole;

use plan::Clients;

use crate::args::Global;
use crate::config::Config;
use crate::gateway;
use crate::inventory;
use crate::output::{Exit, Output, columns};
use crate::run_context::{RunContext, ask};

pub(super) fn run(global: &Global, json: bool) -> anyhow::Result<Exit> {
    let output = Output::new(global);
    let config = Config::read(&global.config)?;
    inventory::clear_text_passwords(&config).for_each(|warning| output.warn(&warning));
    // Discovery works off the gateway too; only there are addresses known that can be no target.
    let imds = Imds::default();
    let options = match gateway::resolve(&config, || ask(&imds)) {
        Ok(gateway) => {
            RunContext::new(config.clone(), Clients::default(), gateway, imds, output).options()?
        }
        Err(_) => inventory::options(&config, Admission::default(), &imds),
    };
    let inventory = inventory::take(&config, &options, inventory::given(global)?, None, Duration::ZERO)?;
    for report in &inventory.sources {
        if let Some(error) = &report.error {
            output.warn(&format!("{}: {error}", report.source));
        }
    }
    output.data(&if json { inventory.to_json() } else { table(&inventory) })?;
    Ok(Exit::of(is_whole(&inventory)))
}

fn table(inventory: &Inventory) -> String {
    let header = ["CLUSTER", "SHARD", "ROLE", "NODE", "ENDPOINT", "ADDRESSES", "STATUS", "TLS", "NOTE"];
    columns(header, inventory.nodes.iter().map(row))
}

fn row(node: &Node) -> [String; 9] {
    let word = |text: Option<&str>| text.filter(|text| !text.is_empty()).unwrap_or("-").to_owned();
    let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
    let endpoint = (!node.host.is_empty()).then(|| format!("{}:{}", node.host, node.port));
    [
        word(Some(&node.cluster)),
        word(node.shard.as_deref()),
        word(node.role.map(|role| format!("{role:?}").to_lowercase()).as_deref()),
        node.id.to_string(),
        word(endpoint.as_deref()),
        word(Some(&addresses.join(" "))),
        word(Some(&node.status)),
        if node.tls { "yes" } else { "no" }.to_owned(),
        word(node.error.as_deref()),
    ]
}

//! The endpoints as they are: a table for people, JSON for programs.

use comfy_table::{Table, presets};

use crate::cache::joined;
use crate::{ClientEndpoint, Document};

/// The contract's JSON.
pub(crate) fn json(endpoints: &[ClientEndpoint]) -> String {
    let document = Document { version: 1, endpoints: endpoints.to_vec() };
    serde_json::to_string_pretty(&document).expect("text and numbers are always JSON") + "\n"
}

/// A row for each endpoint.
pub(crate) fn table(endpoints: &[ClientEndpoint]) -> String {
    let header = ["CLUSTER", "NODE", "ROLE", "OUTSIDE", "INSIDE", "NAME", "TLS"];
    columns(header, endpoints.iter().map(row))
}

/// Rows under a header, in columns, without blanks at the ends of the lines.
pub fn columns<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header).add_rows(rows);
    table.lines().map(|line| line.trim().to_owned() + "\n").collect()
}

fn row(endpoint: &ClientEndpoint) -> [String; 7] {
    let inside: Vec<String> = endpoint
        .private_addresses
        .iter()
        .map(|address| joined(&address.to_string(), endpoint.port))
        .collect();
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    [
        endpoint.cluster.clone(),
        endpoint.id.clone(),
        endpoint.role.map_or_else(|| "-".to_owned(), |role| role.to_string()),
        joined(&endpoint.public_host, endpoint.public_port),
        or_dash(inside.join(" ")),
        or_dash(endpoint.host.clone()),
        if endpoint.tls { "yes" } else { "no" }.to_owned(),
    ]
}

//! The endpoints as they are: a table for people, JSON for programs.

use super::cache::joined;
use super::{Document, Endpoint};
use crate::output::columns;

/// The contract's JSON.
pub(super) fn json(endpoints: &[Endpoint]) -> String {
    let document = Document { version: 1, endpoints: endpoints.to_vec() };
    serde_json::to_string_pretty(&document).expect("text and numbers are always JSON") + "\n"
}

/// A row for each endpoint.
pub(super) fn table(endpoints: &[Endpoint]) -> String {
    let header = ["CLUSTER", "NODE", "ROLE", "OUTSIDE", "INSIDE", "NAME", "TLS"];
    columns(header, endpoints.iter().map(row))
}

fn row(endpoint: &Endpoint) -> [String; 7] {
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

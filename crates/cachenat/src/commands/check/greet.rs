//! Greeting the nodes as a client would.

use std::collections::HashMap;
use std::time::Duration;

use discovery::{Dial, HostPort, Node, Seed, Source, TlsTrust, greet_all};
use doctor::nodes::Dialled;
use plan::Plan;
use rules::{AddrPort, Forward, ForwardId};

use crate::commands::probe::at_once;
use crate::config::Config;

/// How long a node may take for each answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Greets each target as a client would; nothing is asked that changes anything.
pub(super) async fn greet(config: &Config, desired: &Plan) -> Vec<Dialled> {
    let nodes: HashMap<&str, &Node> =
        desired.inventory.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let of_forward =
        |Forward { id, targets, .. }: Forward| targets.into_iter().map(move |to| (id.clone(), to));
    let targets: Vec<(ForwardId, AddrPort)> =
        desired.wanted.ruleset.forwards().into_iter().flat_map(of_forward).collect();
    let dial = |(id, target): &(ForwardId, AddrPort)| {
        let node = nodes.get(id.as_str());
        let tls = node.filter(|node| node.tls).map(|node| trust(config, node));
        Dial { address: HostPort { host: target.address.to_string(), port: target.port }, tls }
    };
    let dials: Vec<Dial> = targets.iter().map(dial).collect();
    let answer = greet_all(&dials, PATIENCE, at_once()).await;
    let mut dialled: Vec<Dialled> = targets
        .into_iter()
        .zip(answer)
        .map(|((id, target), answer)| Dialled { id, target, answer })
        .collect();
    dialled.sort_by(|one, other| (&one.id, one.target).cmp(&(&other.id, other.target)));
    dialled
}

/// Whose certificate a node has to show: as its in-band source says, else the system's authorities and its own name.
fn trust(config: &Config, node: &Node) -> TlsTrust {
    let own = config.asked().find(|source| source.name() == node.source).and_then(|source| match source {
        Source::InBand { seed: Seed::Redis(seed), .. } => seed.tls.clone(),
        _ => None,
    });
    TlsTrust { server_name: Some(node.host.clone()), ..own.unwrap_or_default() }
}

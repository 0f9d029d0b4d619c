//! `endpoints`: prints what clients need to reach the nodes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use clients::{ClientEndpoint, Format, Public, keep_own};
use plan::{OnEmptyAnswer, Plan};

use super::render::remembered;
use crate::args::Global;
use crate::client_lists::Ask;
use crate::inventory;
use crate::output::Exit;
use crate::run_context::{Effect, RunContext, ask};

pub(super) fn run(global: &Global, format: Format, cluster: Option<&str>) -> anyhow::Result<Exit> {
    let context = RunContext::read(global, Ask::Files)?;
    let desired = known(&context, global)?;
    let mut inventory = desired.inventory;
    let foreign = keep_own(&mut inventory, context.config.asked());
    foreign.iter().for_each(|line| context.output.warn(line));
    let mut endpoints = clients::endpoints(&inventory, &desired.leases, &public(&context)?);
    // A node whose target the gate refuses has a port, and nothing behind it.
    let forwarded: BTreeSet<String> =
        desired.wanted.ruleset.forwards().into_iter().map(|forward| forward.id.to_string()).collect();
    endpoints.retain(|endpoint| forwarded.contains(&endpoint.id));
    if endpoints.is_empty() {
        anyhow::bail!("no node is forwarded yet; 'cachenat discover' shows what there is");
    }
    if let Some(name) = cluster {
        endpoints = clients::of_cluster(endpoints, name)?;
    }
    let text = match format {
        Format::Wireguard => wireguard(&context, &endpoints),
        format => clients::text(format, &endpoints)?,
    };
    context.output.data(&text)?;
    Ok(Exit::Done)
}

/// A client's end of the tunnel.
fn wireguard(context: &RunContext, endpoints: &[ClientEndpoint]) -> String {
    if context.gateway.tunnels.is_empty() {
        context.output.warn(
            "gateway.tunnels names no tunnel, so the gateway takes no client by WireGuard; \
             examples/wireguard/gateway.conf is its end",
        );
    }
    let vpc = ask(&context.imds).map(|facts| facts.vpc_cidrs).unwrap_or_default();
    clients::wireguard(endpoints, &context.gateway.addresses, &vpc)
}

/// The nodes as they were last known, or as the file has them, and their ports.
fn known(context: &RunContext, global: &Global) -> anyhow::Result<Plan> {
    let given = inventory::given(global)?;
    let mut state = context.state();
    let fresh = match (given, &state.last_good) {
        (Some(given), last_good) => inventory::take(
            &context.config,
            &context.options()?,
            Some(given),
            last_good.as_ref(),
            Duration::ZERO,
        )?,
        (None, Some(last_good)) => last_good.clone(),
        (None, None) => anyhow::bail!(
            "{} has no inventory of an earlier run: run 'cachenat apply', or give one by --inventory",
            context.config.state_dir.display()
        ),
    };
    let actual = remembered(&state);
    context.desired(Effect::Shown, fresh, &mut state, &actual, OnEmptyAnswer::Keep)
}

/// What clients dial.
fn public(context: &RunContext) -> anyhow::Result<Public> {
    let gateway = context.gateway.addresses.clone();
    let dialled = context.public_addresses()?;
    // IPv6 addresses are public ones themselves.
    let lacks = |address: &&IpAddr| address.is_ipv4() && !dialled.contains_key(address);
    for lacking in gateway.iter().filter(lacks) {
        context.output.warn(&format!(
            "neither gateway.public_address nor the instance metadata name a public address for {lacking}; \
             clients are told {lacking} itself"
        ));
    }
    Ok(Public { gateway, dialled })
}

//! `check`: looks at everything that a client's packet needs on its way to a node.

mod greet;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use applier::conntrack::{self, Conntrack, Which};
use applier::host_facts;
use applier::kernel::{Dump, Netfilter};
use applier::legacy_iptables;
use applier::netlink::Kernel;
use applier::sync::{difference, ours};
use applier::sysctl::{Applied, Sysctls};
use applier::{host, lock};
use discovery::{Imds, InstanceFacts, Inventory, Source, Survey};
use doctor::{Finding, access, aws, chains, host as kernel_settings, nodes, schedule};
use plan::{Client, Clients, OnEmptyAnswer, Plan, Timestamp};
use rules::foreign::{Foreign, Interface};
use rules::json::DesiredState;
use rules::sysctl::SysctlTarget;
use rules::{IfName, Ruleset, Tunnel};
use tokio::runtime::{Builder, Runtime};

use crate::args::Global;
use crate::client_lists::{self, Ask};
use crate::clock::now;
use crate::config::{Config, SnatConfig};
use crate::gateway;
use crate::inventory;
use crate::output::{Exit, Output};
use crate::report::Report;
use crate::run_context::{Effect, RunContext, ask};
use crate::runners::runners;
use crate::state::State;
use crate::sysctls;

pub(super) fn run(global: &Global, json: bool) -> anyhow::Result<Exit> {
    let output = Output::new(global);
    let findings = findings(global, output)?;
    output.data(&if json { doctor::json(&findings)? } else { doctor::text(&findings) })?;
    match doctor::summary(&findings) {
        Some(summary) => {
            output.note(&summary);
            Ok(Exit::Found)
        }
        None => Ok(Exit::Done),
    }
}

/// All findings; a fault that hides what lies behind it is the last one.
fn findings(global: &Global, output: Output) -> anyhow::Result<Vec<Finding>> {
    let mut found = Vec::new();
    let config = match Config::read(&global.config) {
        Ok(config) => config,
        Err(error) => return Ok(vec![Finding::error("configuration", &error)]),
    };
    found.push(Finding::ok("configuration", config.file.display().to_string()));
    let imds = Imds::default();
    let clients = client_lists::read(&config, &imds, Ask::All);
    found.extend(clients.lists.iter().map(|clients| access::clients(clients)));
    found.extend(of_clients(&config, &clients));
    let gateway = match gateway::resolve(&config, || ask(&imds)) {
        Ok(gateway) => gateway,
        Err(error) => {
            found.push(Finding::error("gateway", &error));
            return Ok(found);
        }
    };
    let context = RunContext::new(config, clients, gateway, imds, output);
    found.extend(of_gateway(&context)?);
    found.extend(of_tunnels(&context));
    let runtime = Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    let instance = runtime.block_on(context.imds.facts());
    let instance = instance.as_deref();
    found.push(access::public_address(
        &context.config.gateway.public_addresses(),
        &context.gateway.addresses,
        instance,
        &context.clients.lists.concat(),
    ));
    // A file stands in for AWS as a whole.
    let survey = match global.inventory {
        Some(_) => None,
        None => survey(&context, instance, &runtime)?,
    };
    if let Some(survey) = &survey {
        found.extend(aws::calls(survey));
        found.extend(aws::clock(survey));
    }

    let given = inventory::given(global);
    let mut state = context.state();
    let last_run = lock::last_held(&context.config.lock_file).and_then(Timestamp::from_system_time);
    found.push(nodes::last_good(state.last_good.as_ref(), last_run, now()));
    let (options, last_good) = (context.options()?, state.last_good.as_ref());
    let fresh =
        given.and_then(|given| inventory::take(&context.config, &options, given, last_good, Duration::ZERO));
    let fresh = fresh.unwrap_or_else(|error| {
        found.push(Finding::error("sources", error.as_ref()));
        last_good.cloned().unwrap_or_default()
    });
    let kernel = of_kernel(&mut found);
    let dump = kernel.as_ref().map(|(dump, _)| dump);
    let desired = plan(&context, &mut state, fresh, dump, &mut found);
    if let Some((dump, foreign)) = &kernel {
        found.extend(of_chains(&context, dump, foreign, desired.as_ref()));
    }
    let Some(desired) = desired else { return Ok(found) };
    found.extend(of_inventory(&context, &desired.inventory, instance, survey.as_ref()));
    found.extend(
        desired
            .kept
            .iter()
            .map(|line| Finding::warn("inventory", line.clone(), "see what the sources say of it")),
    );
    let dialled = runtime.block_on(greet::greet(&context.config, &desired));
    found.extend(nodes::reach(&dialled, &context.gateway.addresses));
    found.extend(of_host(&context, &desired.wanted));
    if let Some(dump) = dump {
        found.push(of_rules(dump, &desired));
    }
    found.push(schedule::schedule(&runners(Path::new("/"))));
    Ok(found)
}

/// Asks AWS what it lets us do; `None` where no source needs it.
fn survey(
    context: &RunContext,
    instance: Option<&InstanceFacts>,
    runtime: &Runtime,
) -> anyhow::Result<Option<Survey>> {
    let sources: Vec<Source> = context.config.asked().cloned().collect();
    let options = context.options()?;
    // Without the instance's own place there is nothing to compare the caches' with.
    let with_places = instance.is_some_and(|facts| facts.vpc_id.is_some() || facts.subnet_id.is_some());
    Ok(runtime.block_on(discovery::survey(&sources, &options, with_places)))
}

fn of_gateway(context: &RunContext) -> anyhow::Result<Vec<Finding>> {
    let gateway = &context.gateway;
    let addresses: Vec<String> = gateway.addresses.iter().map(ToString::to_string).collect();
    let absent = gateway::absent_addresses(gateway)?;
    let listening = match gateway::check_pins(gateway, &context.config) {
        Ok(()) => of_pool(context)?,
        Err(error) => Finding::error("listening", &error),
    };
    if let Err(error) = gateway::check_configured(gateway, &context.config) {
        return Ok(vec![Finding::error("gateway", &error), listening]);
    }
    let address = match absent.first() {
        None => Finding::ok("gateway", format!("{} on {}", addresses.join(", "), gateway.interface)),
        Some(absent) => Finding::warn(
            "gateway",
            format!("no interface of this host has {absent}"),
            "put gateway.addresses right, unless packets to it are routed here",
        ),
    };
    Ok(vec![address, listening])
}

/// The ports of the pool that the nodes can't have.
fn of_pool(context: &RunContext) -> anyhow::Result<Finding> {
    let host = context.host(&context.gateway, Effect::Shown)?;
    let config = context.plan_config();
    let in_pool = |listener: &&plan::ListenPort| config.uses(listener.port);
    let taken: Vec<String> = host.listening.keys().filter(in_pool).map(ToString::to_string).collect();
    Ok(if taken.is_empty() {
        Finding::ok("listening", "nothing on this host listens on the ports of the pool")
    } else {
        Finding::warn(
            "listening",
            format!("programs of this host listen on {} of the pool: no node gets it", taken.join(", ")),
            "'ss -ltnp' names them; move them, or widen the pool",
        )
    })
}

/// What is in force, and what others have beside it.
fn of_kernel(found: &mut Vec<Finding>) -> Option<(Dump, Foreign)> {
    let mut kernel = Kernel::open().map_err(|error| found.push(Finding::error("kernel", &error))).ok()?;
    let read = kernel.dump().and_then(|dump| Ok((dump, kernel.foreign()?)));
    let (dump, mut foreign) = read.map_err(|error| found.push(Finding::error("kernel", &error))).ok()?;
    match legacy_iptables::chains() {
        Ok(chains) => foreign.chains.extend(chains),
        Err(error) => found.push(Finding::error("legacy iptables", &error)),
    }
    Some((dump, foreign))
}

/// What others' chains do to packets for our listeners: the wanted ones, or without a plan those in force.
fn of_chains(context: &RunContext, dump: &Dump, foreign: &Foreign, desired: Option<&Plan>) -> Vec<Finding> {
    let in_force = ours(dump).ok().flatten().map(|actual| &actual.ruleset);
    let ruleset = desired.map(|desired| &desired.wanted.ruleset).or(in_force);
    let nothing = Ruleset::default();
    let routes = context.host(&context.gateway, Effect::Shown).map(|host| host.admission).unwrap_or_default();
    let output = |target: IpAddr| interface(&context.gateway.output(&routes, target));
    let ingress: Vec<Interface> = context.gateway.ingress.iter().map(interface).collect();
    let tunnels = context.gateway.tunnels.iter().map(|tunnel| interface(&tunnel.interface));
    let flows = chains::flows(ruleset.unwrap_or(&nothing), &ingress, &tunnels.collect::<Vec<_>>(), output);
    let mut found = chains::forward(foreign, &flows);
    found.extend(chains::nat(foreign, &flows));
    found
}

fn interface(name: &IfName) -> Interface {
    Interface { name: name.clone(), index: host::index(name) }
}

/// What each name and file of clients stands for, or why it does not.
fn of_clients(config: &Config, clients: &Clients) -> Vec<Finding> {
    let entries: BTreeSet<&Client> = config.clients.iter().flatten().collect();
    let finding = |entry: &&Client| {
        let name = format!("client {entry}");
        match (clients.kept.get(entry), clients.known.get(entry)) {
            (Some(why), _) => Some(Finding::warn(
                name,
                why.clone(),
                "put the name or file right, or take the entry out of the configuration",
            )),
            (None, Some(known)) if !matches!(entry, Client::Network(_)) => {
                let networks: Vec<String> = known.networks.iter().take(4).map(ToString::to_string).collect();
                let more = known.networks.len().saturating_sub(4);
                let more = if more == 0 { String::new() } else { format!(" and {more} more") };
                Some(Finding::ok(name, format!("{}{more}", networks.join(", "))))
            }
            _ => None,
        }
    };
    entries.iter().filter_map(finding).collect()
}

/// The tunnels that clients come by.
fn of_tunnels(context: &RunContext) -> Vec<Finding> {
    let links = host::links().unwrap_or_default();
    let finding = |Tunnel { interface, confine }: &Tunnel| {
        let kind = links.iter().find(|link| link.name == interface.as_str()).map(|link| link.kind.as_deref());
        access::tunnel(interface, *confine, kind, host_facts::mtu(interface))
    };
    context.gateway.tunnels.iter().map(finding).collect()
}

/// What is wanted; `None`, with a finding, if there can be no plan.
fn plan(
    context: &RunContext,
    state: &mut State,
    fresh: Inventory,
    dump: Option<&Dump>,
    found: &mut Vec<Finding>,
) -> Option<Plan> {
    let nothing = Ruleset::default();
    let actual = match dump.map(ours).transpose() {
        Ok(actual) => actual.flatten().map_or(&nothing, |actual| &actual.ruleset),
        Err(error) => {
            found.push(Finding::error("rules", &error));
            &nothing
        }
    };
    match context.desired(Effect::Shown, fresh, state, actual, OnEmptyAnswer::Keep) {
        Ok(desired) => Some(desired),
        Err(error) => {
            found.push(Finding::error("ports", error.as_ref()));
            None
        }
    }
}

fn of_inventory(
    context: &RunContext,
    inventory: &Inventory,
    instance: Option<&InstanceFacts>,
    survey: Option<&Survey>,
) -> Vec<Finding> {
    let mut found: Vec<Finding> =
        inventory.sources.iter().map(|report| nodes::source(report, now())).collect();
    if let Some(facts) = instance {
        found.extend(aws::incredible_vpc(facts));
        let places = survey.map(|survey| survey.places.as_slice()).unwrap_or_default();
        let places = aws::places(places, facts.vpc_id.as_deref(), facts.subnet_id.as_deref());
        // Where no cache tells its VPC, the nodes' addresses do.
        if !places.iter().any(|finding| finding.name == "VPC") {
            found.extend(nodes::outside(inventory, &facts.vpc_cidrs));
        }
        found.extend(places);
    }
    found.push(access::encryption(inventory, &context.clients.lists.concat()));
    found
}

/// The kernel's settings, and conntrack.
fn of_host(context: &RunContext, wanted: &DesiredState) -> Vec<Finding> {
    let needed = &wanted.sysctls;
    let planned = sysctls::of_host(&context.config, wanted).and_then(|settings| Ok(settings.plan(needed)?));
    let mut found = Vec::new();
    match planned {
        Ok(Applied { changes, skipped_drop_in: left }) => {
            found.extend(left.iter().map(|left| Finding::error("settings", left)));
            let ingress = wanted.ruleset.ingress();
            // Of the others there is something to say only where they are amiss.
            let others = changes.iter().map(|change| &change.sysctl).filter(|other| !needed.contains(other));
            for sysctl in needed.iter().chain(others.collect::<BTreeSet<_>>()) {
                let is_off = changes
                    .iter()
                    .any(|change| change.sysctl == *sysctl && change.place == SysctlTarget::Live);
                let at_boot = sysctls::at_boot(&context.config, sysctl, &ingress);
                found.push(kernel_settings::sysctl(sysctl, !is_off, at_boot.as_ref()));
            }
        }
        Err(error) => found.push(Finding::error("settings", error.as_ref())),
    }
    let settings = Sysctls::new(&context.config.sysctl_dir);
    let has_switched_on = needed.iter().any(|sysctl| settings.has_switched_on(sysctl).unwrap_or(false));
    found.push(kernel_settings::forward_others(context.config.gateway.forward_others, has_switched_on));
    let clients = context.clients.lists.concat();
    for interface in &context.gateway.ingress {
        let elsewhere = gateway::answered_elsewhere(&clients, interface, &context.gateway.tunnels);
        let is_strict = host_facts::is_rp_filter_strict(interface);
        let is_further = *interface != context.gateway.interface;
        found.push(kernel_settings::rp_filter(interface, is_further, is_strict, &elsewhere));
    }
    found.push(kernel_settings::conntrack(host_facts::conntrack_fill()));
    found.push(kernel_settings::idle(host_facts::idle_timeout()));
    if context.config.gateway.snat != SnatConfig::Off
        && let Ok(counts) = Conntrack::open().and_then(|mut conntrack| conntrack.count(Which::Translated))
    {
        let busiest = conntrack::busiest(&counts);
        let output = context.output_towards(busiest.map(|(target, _)| target.address));
        found.push(kernel_settings::nat_ports(busiest, &wanted.ruleset, &output));
    }
    found
}

fn of_rules(dump: &Dump, desired: &Plan) -> Finding {
    let changes = match difference(dump, Some(&desired.wanted.ruleset)) {
        Ok(changes) => changes,
        Err(error) => return Finding::error("rules", &error),
    };
    let report = Report::new(changes, vec![], vec![]);
    match ours(dump) {
        Ok(Some(_)) if report.is_empty() => Finding::ok("rules", "what is wanted is in force"),
        Ok(Some(_)) => Finding::warn(
            "rules",
            format!("out of step ({})", report.summary()),
            "'cachenat diff' shows what differs, 'cachenat apply' mends it",
        ),
        _ => Finding::fail(
            "rules",
            "there is no table inet cachenat: nothing is forwarded",
            "'cachenat apply' makes it",
        ),
    }
}

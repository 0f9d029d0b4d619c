//! `endpoints`: prints what clients need to reach the nodes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use discovery::{Emptied, Inventory, instance_facts};
use rules::Leases;

use super::render::remembered;
use crate::args::Global;
use crate::config::{Auto, PublicAddress};
use crate::endpoints::{self, Format, Public};
use crate::inventory;
use crate::output::Exit;
use crate::setting::Setting;

pub(super) fn run(global: &Global, format: Format, cluster: Option<&str>) -> anyhow::Result<Exit> {
    let setting = Setting::read(global)?;
    let (inventory, leases) = known(&setting, global)?;
    let mut endpoints = endpoints::endpoints(&inventory, &leases, &public(&setting)?);
    if endpoints.is_empty() {
        anyhow::bail!("no node has a port yet; 'cachenat discover' shows what there is");
    }
    if let Some(name) = cluster {
        endpoints = endpoints::of_cluster(endpoints, name)?;
    }
    setting.output.data(&endpoints::text(format, &endpoints)?)?;
    Ok(Exit::Done)
}

/// The nodes as they were last known, or as the file has them, and their ports.
fn known(setting: &Setting, global: &Global) -> anyhow::Result<(Inventory, Leases)> {
    let state = setting.state();
    let fresh = match (&global.inventory, &state.last_good) {
        (Some(file), last_good) => {
            let own = &setting.gateway.addresses;
            inventory::take(&setting.config, own, Some(file), last_good.as_ref(), Duration::ZERO)?
        }
        (None, Some(last_good)) => last_good.clone(),
        (None, None) => anyhow::bail!(
            "{} has no inventory of an earlier run: run 'cachenat apply', or give one by --inventory",
            setting.config.state_dir.display()
        ),
    };
    let desired = setting.desired(&fresh, &state, &remembered(&state), Emptied::Keep)?;
    Ok((desired.inventory, desired.leases))
}

/// What clients dial.
fn public(setting: &Setting) -> anyhow::Result<Public> {
    let gateway = setting.gateway.addresses.clone();
    let dialled = match &setting.config.gateway.public_address {
        Auto::Set(PublicAddress::Each(each)) => each.clone(),
        Auto::Set(PublicAddress::Only(public)) => {
            let private = gateway.iter().find(|address| address.is_ipv4() == public.is_ipv4());
            private.map(|private| (*private, *public)).into_iter().collect()
        }
        Auto::Auto => elastic_ips(setting)?,
    };
    Ok(Public { gateway, dialled })
}

/// The public addresses that belong to the gateway's, by IMDS; IPv6 addresses are public ones themselves.
fn elastic_ips(setting: &Setting) -> anyhow::Result<BTreeMap<IpAddr, IpAddr>> {
    let private: Vec<IpAddr> = setting.gateway.addresses.iter().copied().filter(IpAddr::is_ipv4).collect();
    if private.is_empty() {
        return Ok(BTreeMap::new());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let facts = runtime.block_on(instance_facts()).unwrap_or_default();
    let public = |private: &IpAddr| match private {
        IpAddr::V4(address) => facts.public_address_of(*address).map(IpAddr::V4),
        IpAddr::V6(_) => None,
    };
    for lacking in private.iter().filter(|private| public(private).is_none()) {
        setting.output.warn(&format!(
            "gateway.public_address is auto, and the instance metadata name no public address for {lacking}; \
             clients are told {lacking} itself"
        ));
    }
    Ok(private.iter().filter_map(|private| Some((*private, public(private)?))).collect())
}

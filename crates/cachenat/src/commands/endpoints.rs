//! `endpoints`: prints what clients need to reach the nodes.

use std::net::IpAddr;
use std::time::Duration;

use discovery::{Emptied, Imds, Inventory};
use rules::Leases;

use super::render::remembered;
use crate::args::Global;
use crate::config::Auto;
use crate::endpoints::{self, Format, Public};
use crate::inventory;
use crate::output::Exit;
use crate::setting::Setting;

pub(super) fn run(global: &Global, format: Format, cluster: Option<&str>) -> anyhow::Result<Exit> {
    let setting = Setting::read(global)?;
    let (inventory, leases) = known(&setting, global)?;
    let mut endpoints = endpoints::endpoints(&inventory, &leases, public(&setting)?);
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
    let own = |v4: bool| setting.gateway.addresses.iter().copied().find(|address| address.is_ipv4() == v4);
    let (ipv4, ipv6) = (own(true), own(false));
    match (&setting.config.gateway.public_address, ipv4) {
        (Auto::Set(address @ IpAddr::V4(_)), _) => Ok(Public { ipv4: Some(*address), ipv6 }),
        (Auto::Set(address @ IpAddr::V6(_)), _) => Ok(Public { ipv4, ipv6: Some(*address) }),
        (Auto::Auto, None) => Ok(Public { ipv4: None, ipv6 }),
        (Auto::Auto, Some(private)) => {
            let elastic = elastic_ip(private)?;
            if elastic.is_none() {
                setting.output.warn(&format!(
                    "gateway.public_address is auto, and the instance metadata name no public address for {private}; \
                     clients are told {private} itself"
                ));
            }
            Ok(Public { ipv4: elastic.or(ipv4), ipv6 })
        }
    }
}

/// The public address that belongs to the gateway's, by IMDS.
fn elastic_ip(private: IpAddr) -> anyhow::Result<Option<IpAddr>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let imds = Imds::default();
    let facts = runtime.block_on(imds.facts());
    // `public-ipv4` goes with `local-ipv4`; which of several others goes with which is not said there.
    let facts = facts.filter(|facts| facts.local_ipv4.map(IpAddr::V4) == Some(private));
    Ok(facts.and_then(|facts| facts.public_ipv4).map(IpAddr::V4))
}

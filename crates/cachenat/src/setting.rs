//! What a command has read before it plans: configuration, gateway, state.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use discovery::{Emptied, Inventory, Outcome, instance_facts};
use rules::Ruleset;

use crate::args::Global;
use crate::config::{Auto, Config, PublicAddress};
use crate::desired::{Desired, Known, desired};
use crate::gateway::Gateway;
use crate::inventory;
use crate::output::{Output, with_cause};
use crate::state::State;

/// What every command that plans has read before it looks at the kernel.
pub(crate) struct Setting {
    pub(crate) config: Config,
    pub(crate) gateway: Gateway,
    pub(crate) output: Output,
}

impl Setting {
    pub(crate) fn read(global: &Global) -> anyhow::Result<Self> {
        let output = Output::new(global);
        let config = Config::read(&global.config)?;
        let gateway = Gateway::resolve(&config)?;
        for client in config.clients.iter().filter(|client| client.prefix_len() == 0) {
            output.warn(&format!("clients: {client} lets everybody connect; the caches have no other guard"));
        }
        inventory::clear_text_passwords(&config).for_each(|warning| output.warn(&warning));
        Ok(Self { config, gateway, output })
    }

    /// Checks what only matters where the rules take effect: on this host.
    pub(crate) fn check_host(&self) -> anyhow::Result<()> {
        self.gateway.check_listening(&self.config)?;
        for address in self.gateway.absent_addresses()? {
            self.output.warn(&format!("gateway.addresses: no interface of this host has {address}"));
        }
        Ok(())
    }

    /// What clients dial for each of the gateway's addresses, as far as the configuration or the instance metadata tell.
    pub(crate) fn public_addresses(&self) -> anyhow::Result<BTreeMap<IpAddr, IpAddr>> {
        let own = &self.gateway.addresses;
        match &self.config.gateway.public_address {
            Auto::Set(PublicAddress::Each(each)) => Ok(each.clone()),
            Auto::Set(PublicAddress::Only(public)) => {
                let private = own.iter().find(|address| address.is_ipv4() == public.is_ipv4());
                Ok(private.map(|private| (*private, *public)).into_iter().collect())
            }
            Auto::Auto => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let facts = runtime.block_on(instance_facts()).unwrap_or_default();
                let public = |address: &IpAddr| match address {
                    IpAddr::V4(private) => facts.public_address_of(*private).map(IpAddr::V4),
                    IpAddr::V6(_) => None,
                };
                Ok(own.iter().filter_map(|address| Some((*address, public(address)?))).collect())
            }
        }
    }

    /// The state directory; what is damaged in it is told.
    pub(crate) fn state(&self) -> State {
        let state = State::open(&self.config.state_dir);
        for error in &state.damaged {
            let error = with_cause(error);
            self.output.warn(&format!("{error}; what the kernel tells stands in for it"));
        }
        state
    }

    /// The state and the inventory of now, for a command that only shows what it plans.
    pub(crate) fn state_and_inventory(&self, global: &Global) -> anyhow::Result<(State, Inventory)> {
        let given = inventory::given(global)?;
        let state = self.state();
        let (own, last_good) = (&self.gateway.addresses, state.last_good.as_ref());
        let fresh = inventory::take(&self.config, own, given, last_good, Duration::ZERO)?;
        Ok((state, fresh))
    }

    /// Plans, and uses up what the state knows; [`Desired::warnings`] says what is kept although the sources leave it open.
    pub(crate) fn desired(
        &self,
        fresh: Inventory,
        state: &mut State,
        actual: &Ruleset,
        emptied: Emptied,
    ) -> anyhow::Result<Desired> {
        let (last_good, leases) = (state.last_good.take(), state.leases.take());
        let known = Known { last_good, emptied, leases, actual, now: now() };
        Ok(desired(&self.config, &self.gateway, fresh, known)?)
    }
}

/// Seconds since 1970, the one place where the clock is read.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Whether every source was read whole, and every node that is not leaving has its addresses.
pub(crate) fn is_whole(inventory: &Inventory) -> bool {
    inventory.sources.iter().all(|report| report.outcome == Outcome::Complete)
}

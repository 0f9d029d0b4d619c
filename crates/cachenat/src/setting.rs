//! What a command has read before it plans: configuration, gateway, state.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use discovery::{Emptied, Imds, Inventory, Options, Outcome};
use ipnet::IpNet;
use rules::Ruleset;

use crate::args::Global;
use crate::config::{Auto, Config, PublicAddress};
use crate::desired::{Desired, Known, desired};
use crate::gateway::{Gateway, Host};
use crate::inventory;
use crate::output::{Output, with_cause};
use crate::state::State;

/// What every command that plans has read before it looks at the kernel.
pub(crate) struct Setting {
    pub(crate) config: Config,
    pub(crate) gateway: Gateway,
    /// The instance metadata service, asked once by all parts of a run.
    pub(crate) imds: Imds,
    pub(crate) output: Output,
}

impl Setting {
    pub(crate) fn new(config: Config, gateway: Gateway, output: Output) -> Self {
        Self { config, gateway, imds: Imds::default(), output }
    }

    pub(crate) fn read(global: &Global) -> anyhow::Result<Self> {
        let output = Output::new(global);
        let config = Config::read(&global.config)?;
        let gateway = Gateway::resolve(&config)?;
        for client in config.clients.iter().filter(|client| client.prefix_len() == 0) {
            output.warn(&format!("clients: {client} lets everybody connect; the caches have no other guard"));
        }
        Ok(Self::new(config, gateway, output))
    }

    /// Checks what only matters where the rules take effect: on this host.
    pub(crate) fn check_host(&self) -> anyhow::Result<()> {
        self.gateway.check_pins(&self.config)?;
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
                let facts = runtime.block_on(self.imds.facts()).cloned().unwrap_or_default();
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
        let fresh =
            inventory::take(&self.config, &self.options()?, given, state.last_good.as_ref(), Duration::ZERO)?;
        Ok((state, fresh))
    }

    /// How discovery goes about it on this gateway as it is now.
    pub(crate) fn options(&self) -> anyhow::Result<Options> {
        Ok(inventory::options(&self.config, self.host()?.admission, &self.imds))
    }

    /// Plans, and uses up what the state knows; [`Desired::warnings`] says what is kept although the sources leave it open.
    ///
    /// `host` is the gateway itself, or another host that only shows what the gateway would do.
    pub(crate) fn desired(
        &self,
        host: &Host,
        fresh: Inventory,
        state: &mut State,
        actual: &Ruleset,
        emptied: Emptied,
    ) -> anyhow::Result<Desired> {
        let (last_good, leases) = (state.last_good.take(), state.leases.take());
        let known = Known { last_good, emptied, leases, actual, now: now() };
        Ok(desired(&self.config, &self.gateway, host, fresh, known)?)
    }

    /// What of this host a plan goes by, asked for each plan; of a host that has none of the gateway's addresses nothing.
    pub(crate) fn host(&self) -> anyhow::Result<Host> {
        let is_gateway = self.gateway.absent_addresses()?.len() < self.gateway.addresses.len();
        if is_gateway { self.this_host() } else { Ok(self.gateway.elsewhere(self.vpc())) }
    }

    /// The same for a plan that takes effect here, whatever addresses this host has.
    pub(crate) fn this_host(&self) -> anyhow::Result<Host> {
        Ok(self.gateway.host(self.vpc())?)
    }

    /// The VPC's ranges, if somebody has asked for them.
    fn vpc(&self) -> Vec<IpNet> {
        self.imds.known().map(|facts| facts.vpc_cidrs.clone()).unwrap_or_default()
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

//! What a command has read before it plans: configuration, gateway, state.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use discovery::{Imds, InstanceFacts, Inventory, Options};
use doctor::access::everybody;
use doctor::host::no_way_back;
use ipnet::IpNet;
use plan::{Clients, Gateway, Host, OnEmptyAnswer, Plan, PlanConfig, PlanInputs, plan};
use rules::{IfName, Ruleset};
use tokio::runtime::Builder;

use crate::args::Global;
use crate::client_lists::{self, Ask};
use crate::clock::now;
use crate::config::{Auto, Config, PublicAddress};
use crate::gateway::{self, GatewayError};
use crate::inventory;
use crate::output::{Output, with_cause};
use crate::state::State;

/// How often a host that has just booted is looked at again.
const PAUSE: Duration = Duration::from_millis(500);

/// Where a plan takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// On this host, whatever addresses it has.
    Here,
    /// Nowhere: it is shown, perhaps on a host that is not the gateway, of which nothing counts then.
    Shown,
}

/// What every command that plans has read before it looks at the kernel.
#[derive(Clone, Debug)]
pub(crate) struct RunContext {
    pub(crate) config: Config,
    /// Who the configuration's lists of clients stand for now.
    pub(crate) clients: Clients,
    pub(crate) gateway: Gateway,
    /// The instance metadata service, asked once by all parts of a run.
    pub(crate) imds: Imds,
    pub(crate) output: Output,
}

impl RunContext {
    pub(crate) fn new(
        config: Config,
        clients: Clients,
        gateway: Gateway,
        imds: Imds,
        output: Output,
    ) -> Self {
        Self { config, clients, gateway, imds, output }
    }

    /// Reads the configuration, what this host is, and who the clients are now.
    pub(crate) fn read(global: &Global, which: Ask) -> anyhow::Result<Self> {
        let output = Output::new(global);
        let config = Config::read(&global.config)?;
        let imds = Imds::default();
        let gateway = gateway::resolve(&config, || ask(&imds))?;
        let clients = client_lists::read(&config, &imds, which);
        for client in clients.lists.iter().flat_map(|clients| everybody(clients)) {
            output.warn(&format!(
                "clients: {client} allows any source address; nothing else protects the caches"
            ));
        }
        config.writable_by_all().for_each(|file| {
            output.warn(&format!(
                "{0} can be written by everybody on this host: chmod o-w {0}",
                file.display()
            ));
        });
        inventory::clear_text_passwords(&config).for_each(|warning| output.warn(&warning));
        Ok(Self::new(config, clients, gateway, imds, output))
    }

    /// Like [`Self::read`], but waits for what a host that has just booted may lack yet: a default route, and an address.
    ///
    /// # Errors
    ///
    /// The same; of what is waited for, once `deadline` (`None`: never) is over. `told` hears of it first.
    pub(crate) fn awaited(
        global: &Global,
        deadline: Option<Instant>,
        mut told: impl FnMut(&anyhow::Error),
    ) -> anyhow::Result<Self> {
        loop {
            let error = match Self::read(global, Ask::All) {
                Err(error) if error.downcast_ref().is_some_and(GatewayError::may_come) => error,
                read => return read,
            };
            if deadline.is_some_and(|deadline| Instant::now() + PAUSE > deadline) {
                return Err(error);
            }
            told(&error);
            thread::sleep(PAUSE);
        }
    }

    /// What of the configuration a plan goes by.
    pub(crate) fn plan_config(&self) -> PlanConfig {
        self.config.plan(&self.clients.lists)
    }

    /// Checks what only matters where the rules take effect: on this host.
    pub(crate) fn check_host(&self) -> anyhow::Result<()> {
        gateway::check_configured(&self.gateway, &self.config)?;
        gateway::check_pins(&self.gateway, &self.config)?;
        for address in gateway::absent_addresses(&self.gateway)? {
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
                let facts = ask(&self.imds).unwrap_or_default();
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
        Ok(inventory::options(&self.config, self.host(&self.gateway, Effect::Shown)?.admission, &self.imds))
    }

    /// Plans, and uses up what the state knows; [`Plan::warnings`] says what is kept although the sources leave it open.
    ///
    pub(crate) fn desired(
        &self,
        effect: Effect,
        fresh: Inventory,
        state: &mut State,
        actual: &Ruleset,
        emptied: OnEmptyAnswer,
    ) -> anyhow::Result<Plan> {
        let (last_good, leases) = (state.last_good.take(), state.leases.take());
        let inputs = PlanInputs { last_good, emptied, leases, actual, now: now() };
        let (gateway, kept) = gateway::as_in_force(&self.gateway, &self.config, actual)?;
        let host = self.host(&gateway, effect)?;
        let mut desired = plan(&self.plan_config(), &gateway, &host, fresh, inputs)?;
        desired.kept.extend(kept);
        desired.kept.extend(self.clients.kept.values().cloned());
        desired.kept.extend(self.ingress_without_return());
        // Before the commit: what is in force now is never older than what the next run falls back to.
        if effect == Effect::Here
            && let Err(error) = client_lists::save(&self.config, &self.clients)
        {
            desired
                .kept
                .push(format!("{}; without it, a name that can't be read admits no one", with_cause(&error)));
        }
        Ok(desired)
    }

    /// Further interfaces from which clients get no answer.
    fn ingress_without_return(&self) -> impl Iterator<Item = String> {
        let further = self.gateway.ingress.iter().filter(|name| **name != self.gateway.interface);
        let clients = self.clients.lists.concat();
        further.filter_map(move |name| {
            let client =
                gateway::answered_elsewhere(&clients, name, &self.gateway.tunnels).into_iter().next()?;
            Some(format!("gateway.interface: {}", no_way_back(name, &client)))
        })
    }

    /// What of this host a plan goes by, asked for each plan.
    pub(crate) fn host(&self, gateway: &Gateway, effect: Effect) -> anyhow::Result<Host> {
        let is_gateway = gateway::absent_addresses(gateway)?.len() < gateway.addresses.len();
        let counts = is_gateway || effect == Effect::Here;
        Ok(if counts { gateway::host(gateway, self.vpc())? } else { gateway.elsewhere(self.vpc()) })
    }

    /// The interface that packets to an address leave by; the gateway's own where there is no address to ask for.
    pub(crate) fn output_towards(&self, address: Option<IpAddr>) -> IfName {
        let towards = |address| {
            let host = self.host(&self.gateway, Effect::Shown).ok()?;
            Some(self.gateway.output(&host.admission, address))
        };
        address.and_then(towards).unwrap_or_else(|| self.gateway.interface.clone())
    }

    /// The VPC's ranges, if somebody has asked for them.
    fn vpc(&self) -> Vec<IpNet> {
        self.imds.known().map(|facts| facts.vpc_cidrs.clone()).unwrap_or_default()
    }
}

/// Asks the instance metadata service, unless somebody has; also where an asynchronous task is what calls.
pub(crate) fn ask(imds: &Imds) -> Option<InstanceFacts> {
    let ask = || {
        let runtime = Builder::new_current_thread().enable_all().build().ok()?;
        runtime.block_on(imds.facts()).as_deref().cloned()
    };
    thread::scope(|scope| scope.spawn(ask).join().ok().flatten())
}

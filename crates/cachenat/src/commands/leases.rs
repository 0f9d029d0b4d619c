//! `leases`: who holds which port, and whose port rests.

use applier::lock::WAIT;
use doctor::age;
use plan::ListenPort;
use plan::leases::{Lease, QUARANTINE};
use rules::ForwardId;

use crate::args::{Global, LeasesAction};
use crate::clock::now;
use crate::config::Config;
use crate::output::{Exit, Output, columns};
use crate::state::State;
use crate::turn::Turn;

pub(super) fn run(global: &Global, action: Option<&LeasesAction>) -> anyhow::Result<Exit> {
    let output = Output::new(global);
    let config = Config::read(&global.config)?;
    match action {
        None | Some(LeasesAction::List) => {
            let state = State::open(&config.state_dir);
            state.damaged.iter().for_each(|error| output.warn(&error.to_string()));
            output.data(&table(&state))?;
        }
        Some(LeasesAction::Release { id: Some(id), .. }) => {
            let _turn = Turn::take(&config, WAIT)?;
            let port = release(&State::open(&config.state_dir), id)?;
            output.note(&format!("port {port} of {id} may be given to another node now"));
        }
        Some(LeasesAction::Release { id: None, .. }) => {
            let _turn = Turn::take(&config, WAIT)?;
            let state = State::open(&config.state_dir);
            let mut leases = state.leases.clone().unwrap_or_default();
            let ports = leases.forget_resting();
            state.save_leases(&leases)?;
            output.note(&format!("{ports} ports whose nodes are gone may be given to other nodes now"));
        }
    }
    Ok(Exit::Done)
}

fn release(state: &State, id: &ForwardId) -> anyhow::Result<ListenPort> {
    let mut leases = state.leases.clone().unwrap_or_default();
    if leases.holders().contains_key(id) {
        anyhow::bail!(
            "{id} holds its port: its clients know it by that; to give it another, use pins in the configuration"
        );
    }
    let Some(listener) = leases.forget(id) else {
        anyhow::bail!("{id} has no port; 'cachenat leases' lists who has");
    };
    state.save_leases(&leases)?;
    Ok(listener)
}

fn table(state: &State) -> String {
    let now = now();
    let row = |lease: &Lease| {
        let (word, since) = match lease.released {
            None => ("held", lease.since),
            Some(released) if released.elapsed(now) < QUARANTINE => ("rests", released),
            Some(released) => ("free", released),
        };
        [lease.listener().to_string(), lease.id.to_string(), word.to_owned(), age(since.elapsed(now))]
    };
    let leases = state.leases.iter().flat_map(|leases| leases.iter());
    columns(["PORT", "NODE", "STATE", "FOR"], leases.map(row))
}

//! What `watch` knows beyond the state directory's files.

use discovery::Inventory;
use rules::Leases;

use crate::desired::Desired;
use crate::state::State;

/// What a run left in the state directory, and what it could not write there.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    left: Option<Inventory>,
    unsaved: Option<(Leases, Inventory)>,
}

impl Memory {
    /// The state, with what could not be written.
    pub(crate) fn complete(&self, state: State) -> State {
        match self.unsaved.clone() {
            Some((leases, last_good)) => state.ahead(leases, last_good),
            None => state,
        }
    }

    /// The inventory of another run that has asked the sources since; it knows more than an answer of ours.
    pub(crate) fn overtaken(&self, state: &State) -> Option<Inventory> {
        let left = self.left.as_ref()?;
        state.last_good.clone().filter(|found| found != left)
    }

    /// Takes note of what was written, or should have been.
    pub(crate) fn note(&mut self, desired: Desired, is_saved: bool) {
        self.left = Some(desired.inventory.clone());
        self.unsaved = (!is_saved).then_some((desired.leases, desired.inventory));
    }
}

//! What `watch` knows beyond the state directory's files.

use discovery::Inventory;
use plan::{Leases, Plan};

use crate::state::State;

/// What could not be written into the state directory.
#[derive(Debug, Default)]
pub(crate) struct UnsavedState {
    unsaved: Option<(Leases, Inventory)>,
}

impl UnsavedState {
    /// The state, with what could not be written.
    pub(crate) fn complete(&self, state: State) -> State {
        match self.unsaved.clone() {
            Some((leases, last_good)) => state.ahead(leases, last_good),
            None => state,
        }
    }

    /// Takes note of what was written, or should have been.
    pub(crate) fn note(&mut self, desired: Plan, is_saved: bool) {
        self.unsaved = (!is_saved).then_some((desired.leases, desired.inventory));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use discovery::SourceReport;
    use rules::json::DesiredState;

    fn desired(inventory: Inventory) -> Plan {
        let wanted = DesiredState { ruleset: rules::Ruleset::default(), sysctls: vec![] };
        Plan {
            wanted: wanted.into(),
            leases: Leases::default(),
            inventory,
            is_news: true,
            kept: vec![],
            remarks: vec![],
        }
    }

    fn another() -> Inventory {
        let source = "static/local".parse().unwrap();
        Inventory { nodes: vec![], sources: vec![SourceReport::complete(source)] }
    }

    #[test]
    fn what_could_not_be_written_stands_in_for_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut memory = UnsavedState::default();
        memory.note(desired(another()), false);
        let state = memory.complete(State::open(dir.path()));
        assert_eq!(state.last_good, Some(another()));
    }
}

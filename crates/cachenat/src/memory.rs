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
        state.last_good.as_ref().filter(|found| *found != left).cloned()
    }

    /// Takes note of what was written, or should have been.
    pub(crate) fn note(&mut self, desired: Desired, is_saved: bool) {
        self.left = Some(desired.inventory.clone());
        self.unsaved = (!is_saved).then_some((desired.leases, desired.inventory));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use discovery::SourceReport;
    use rules::json::Wanted;

    fn desired(inventory: Inventory) -> Desired {
        let wanted = Wanted { ruleset: rules::Ruleset::default(), sysctls: vec![] };
        Desired { wanted, leases: Leases::default(), inventory, is_news: true, kept: vec![] }
    }

    fn another() -> Inventory {
        let source = "static/local".parse().unwrap();
        Inventory { nodes: vec![], sources: vec![SourceReport::complete(source)] }
    }

    #[test]
    fn only_what_another_run_wrote_overtakes_us() {
        let dir = tempfile::tempdir().unwrap();
        let (mut memory, ours) = (Memory::default(), desired(Inventory::default()));
        State::open(dir.path()).save(&ours).unwrap();
        assert_eq!(memory.overtaken(&State::open(dir.path())), None, "nothing is known yet");
        memory.note(ours, true);
        assert_eq!(memory.overtaken(&State::open(dir.path())), None);
        State::open(dir.path()).save(&desired(another())).unwrap();
        assert_eq!(memory.overtaken(&State::open(dir.path())), Some(another()));
    }

    #[test]
    fn a_long_error_is_still_our_own() {
        let dir = tempfile::tempdir().unwrap();
        let source = "replication_group/my-cluster".parse().unwrap();
        let denied =
            "User: arn:aws:sts::123456789012:assumed-role/nat/i-0 is not authorized\u{1b}[2J ".repeat(9);
        let ours = desired(Inventory { nodes: vec![], sources: vec![SourceReport::failed(source, denied)] });
        State::open(dir.path()).save(&ours).unwrap();
        let mut memory = Memory::default();
        memory.note(ours, true);
        assert_eq!(memory.overtaken(&State::open(dir.path())), None);
    }

    #[test]
    fn what_could_not_be_written_stands_in_for_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut memory = Memory::default();
        memory.note(desired(another()), false);
        let state = memory.complete(State::open(dir.path()));
        assert_eq!((state.last_good.clone(), memory.overtaken(&state)), (Some(another()), None));
    }
}

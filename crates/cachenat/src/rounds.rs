//! Which sources `watch` asks in a round: a healthy one in every round, one that fails ever more seldom.

use std::collections::BTreeMap;

use discovery::{Inventory, Listed, Outcome, Source, SourceName, gather};

/// A source that fails is asked in every eighth round at least.
const LONGEST: u32 = 8;

/// What each source said last, and when it is asked again.
#[derive(Debug, Default)]
pub(crate) struct Rounds(BTreeMap<SourceName, Paced>);

#[derive(Debug)]
struct Paced {
    said: Listed,
    /// How often in a row it was not read completely.
    failures: u32,
    /// How many rounds go by without it.
    rest: u32,
}

impl Rounds {
    /// The sources to ask now.
    pub(crate) fn due(&self, sources: &[Source]) -> Vec<Source> {
        let rests = |source: &&Source| self.0.get(&source.name()).is_some_and(|paced| paced.rest > 0);
        sources.iter().filter(|source| !rests(source)).cloned().collect()
    }

    /// Takes note of a round's answers; what the sources say together, those included that were not asked.
    pub(crate) fn heard(&mut self, sources: &[Source], answers: Vec<Listed>) -> Inventory {
        self.0.values_mut().for_each(|paced| paced.rest = paced.rest.saturating_sub(1));
        for said in answers {
            let source = said.report().source.clone();
            let before = self.0.get(&source).map_or(0, |paced| paced.failures);
            let failures = if said.report().outcome == Outcome::Complete { 0 } else { before + 1 };
            // The first failure may have passed by the next round.
            let rest = 2_u32.saturating_pow(failures.saturating_sub(1)).min(LONGEST) - 1;
            self.0.insert(source, Paced { said, failures, rest });
        }
        gather(sources.iter().filter_map(|source| Some(self.0.get(&source.name())?.said.clone())))
    }

    /// Has every source asked in the next round.
    pub(crate) fn restart(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use discovery::{Expose, Node, SourceReport};
    use proptest::prelude::*;

    use super::*;

    fn source(id: &str) -> Source {
        Source::ReplicationGroup { id: id.to_owned(), expose: Expose::default() }
    }

    fn answer(source: &Source, is_whole: bool, nodes: &[&str]) -> Listed {
        let name = source.name();
        let report = match is_whole {
            true => SourceReport::complete(name.clone()),
            false => SourceReport::partial(name.clone(), "no such group"),
        };
        let node = |id: &&str| -> Node {
            let json =
                format!(r#"{{"id": "{id}", "source": "{name}", "port": 6379, "host": "{id}.example"}}"#);
            Inventory::from_json(&format!(r#"{{"version": 1, "nodes": [{json}]}}"#)).unwrap().nodes.remove(0)
        };
        Listed::new(report, nodes.iter().map(node).collect())
    }

    /// In which of the first 20 rounds each source is asked, if `is_whole` says how it answers in a round.
    fn asked(sources: &[Source], is_whole: impl Fn(&Source, usize) -> bool) -> Vec<Vec<usize>> {
        let (mut rounds, mut asked) = (Rounds::default(), vec![Vec::new(); sources.len()]);
        for round in 0..20 {
            let due = rounds.due(sources);
            for (source, rounds) in sources.iter().zip(&mut asked) {
                rounds.extend(due.contains(source).then_some(round));
            }
            let answers = due.iter().map(|source| answer(source, is_whole(source, round), &[]));
            rounds.heard(sources, answers.collect());
        }
        asked
    }

    #[test]
    fn a_failing_source_slows_no_other() {
        let sources = [source("deleted"), source("my-cluster")];
        let asked = asked(&sources, |source, _| *source == sources[1]);
        assert_eq!(asked[0], [0, 1, 3, 7, 15]);
        assert_eq!(asked[1], (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn a_source_that_recovers_is_asked_in_every_round() {
        let asked = asked(&[source("my-cluster")], |_, round| round >= 7);
        assert_eq!(asked[0], [&[0, 1, 3][..], &(7..20).collect::<Vec<_>>()].concat());
    }

    #[test]
    fn what_a_resting_source_said_stays() {
        let sources = [source("a"), source("b")];
        let mut rounds = Rounds::default();
        for _ in 0..2 {
            let answers = vec![answer(&sources[0], false, &["a-001"]), answer(&sources[1], true, &["b-001"])];
            rounds.heard(&sources, answers);
        }
        assert_eq!(rounds.due(&sources), [sources[1].clone()]);
        let together = rounds.heard(&sources, vec![answer(&sources[1], true, &["b-001", "a-001", "b-002"])]);
        let nodes: Vec<String> =
            together.nodes.iter().map(|node| format!("{} of {}", node.id, node.source.short())).collect();
        // The first source's claim to a node counts, whether or not it was asked now.
        assert_eq!(nodes, ["a-001 of a", "b-001 of b", "b-002 of b"]);
        assert_eq!(together.sources.len(), 2);
        // A source that the configuration no longer has says nothing.
        assert_eq!(rounds.heard(&sources[1..], vec![]).sources.len(), 1);
        rounds.restart();
        assert_eq!(rounds.due(&sources).len(), 2);
    }

    proptest! {
        #[test]
        fn no_source_rests_longer_than_eight_rounds(answers in prop::collection::vec(any::<bool>(), 20)) {
            let asked = asked(&[source("a")], |_, round| answers[round]).remove(0);
            for (at, next) in asked.iter().zip(asked.iter().skip(1)) {
                prop_assert!(next - at <= 8);
                prop_assert!(!answers[*at] || next - at == 1);
            }
        }
    }
}

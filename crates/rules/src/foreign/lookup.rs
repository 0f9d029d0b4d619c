//! What a set or map has for a key of which some bits are unknown.

use super::{Bits, Data, Element, Set, Truth, Verdict};

/// What a set has for a key.
pub(super) struct Found<'a> {
    /// Whether it has anything.
    pub(super) truth: Truth,
    /// The values that it may have.
    values: Vec<&'a Data>,
}

impl<'a> Found<'a> {
    /// The verdicts that it may have, and for each whether the packet gets it, as far as the rule is about it.
    pub(super) fn verdicts(&self, truth: Truth) -> Vec<(Truth, &'a Verdict)> {
        let is_one = self.values.len() == 1 && self.truth == Truth::Yes;
        let truth = if is_one { truth } else { truth.and(Truth::Maybe) };
        let verdict = |data: &&'a Data| match data {
            Data::Verdict(verdict) => Some((truth, verdict)),
            Data::Value(_) => None,
        };
        self.values.iter().filter_map(verdict).collect()
    }

    /// What is known of the value, whichever it is.
    pub(super) fn value(&self) -> Bits {
        let value = |data: &&Data| match data {
            Data::Value(bytes) => Some(Bits::known(bytes).padded(bytes.len().next_multiple_of(4))),
            Data::Verdict(_) => None,
        };
        self.values.iter().filter_map(value).reduce(|all, one| all.join(&one)).unwrap_or(Bits::unknown(4))
    }
}

impl Set {
    /// Fields of a concatenation are padded to 4 bytes each.
    pub(super) fn key_length(&self) -> usize {
        match self.fields[..] {
            [length] => length,
            ref several => several.iter().map(|length| length.next_multiple_of(4)).sum(),
        }
    }

    /// The elements that a key may have: of a key of one field those between its bounds, as elements are in order.
    fn candidates(&self, key: &Bits) -> &[Element] {
        if self.fields.len() != 1 {
            return &self.elements;
        }
        let first = self.elements.partition_point(|element| element.last.iter().copied().lt(key.smallest()));
        let rest = self.elements.get(first..).unwrap_or_default();
        let count = rest.partition_point(|element| element.first.iter().copied().le(key.greatest()));
        rest.get(..count).unwrap_or_default()
    }

    pub(super) fn found(&self, key: &Bits) -> Found<'_> {
        let mut found = Found { truth: Truth::No, values: vec![] };
        for element in self.candidates(key) {
            let truth = self.has(element, key);
            if truth == Truth::No {
                continue;
            }
            if truth == Truth::Yes {
                found.values.clear();
            }
            found.values.extend(&element.data);
            found.truth = found.truth.or(truth);
            if truth == Truth::Yes {
                return found;
            }
        }
        if let Some(data) = &self.catch_all {
            found.values.extend(data);
            found.truth = Truth::Yes;
        }
        found
    }

    /// Whether an element is the key's, each field within its own bounds.
    fn has(&self, element: &Element, key: &Bits) -> Truth {
        let mut at = 0;
        let mut truth = Truth::Yes;
        for &length in &self.fields {
            let (Some(first), Some(last)) =
                (element.first.get(at..at + length), element.last.get(at..at + length))
            else {
                return Truth::Maybe;
            };
            truth = truth.and(key.part(at, length).is_within(first, last));
            at += length.next_multiple_of(4);
        }
        truth
    }
}

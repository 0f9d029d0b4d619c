//! Hash slots of a Redis Cluster, as the numbers that they have to be.

use super::resp::Value;

/// How many hash slots a cluster has (Redis cluster specification).
pub(super) const SLOTS: u16 = 16_384;

/// The first and the last of some slots in a row: `first <= last < 16,384`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SlotRange {
    first: u16,
    last: u16,
}

impl SlotRange {
    /// Reads two integers of an answer; `None` if they are no such range.
    pub(super) fn read(first: &Value, last: &Value) -> Option<Self> {
        let slot = |value: &Value| u16::try_from(value.integer()?).ok().filter(|slot| *slot < SLOTS);
        let (first, last) = (slot(first)?, slot(last)?);
        (first <= last).then_some(Self { first, last })
    }
}

/// How many slots the ranges are; `None` if one slot is in two of them.
///
/// A node knows one owner for each slot, so an answer in which two claim the same is not to be believed about the rest.
pub(super) fn covered(ranges: impl IntoIterator<Item = SlotRange>) -> Option<u16> {
    let mut ranges: Vec<SlotRange> = ranges.into_iter().collect();
    ranges.sort();
    let are_apart = ranges.is_sorted_by(|one, next| one.last < next.first);
    are_apart.then(|| ranges.iter().map(|range| range.last - range.first + 1).sum())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(first: i64, last: i64) -> Option<SlotRange> {
        SlotRange::read(&Value::Integer(first), &Value::Integer(last))
    }

    #[test]
    fn only_slots_in_order_are_a_range() {
        for (first, last) in [(0, 0), (0, 16_383), (16_383, 16_383)] {
            assert!(range(first, last).is_some(), "{first}-{last}");
        }
        for (first, last) in [(1, 0), (0, 16_384), (-1, 5), (i64::MIN, i64::MAX), (65_536, 65_537)] {
            assert_eq!(range(first, last), None, "{first}-{last}");
        }
        assert_eq!(SlotRange::read(&Value::Text("0".into()), &Value::Integer(1)), None);
    }

    #[test]
    fn a_slot_with_two_owners_is_nonsense() {
        let covered = |ranges: &[(i64, i64)]| covered(ranges.iter().map(|&(a, b)| range(a, b).unwrap()));
        assert_eq!(covered(&[]), Some(0));
        assert_eq!(covered(&[(8_192, 16_383), (0, 8_191)]), Some(16_384));
        assert_eq!(covered(&[(0, 10), (10, 20)]), None);
        assert_eq!(covered(&[(0, 16_383), (5, 5)]), None);
    }

    proptest! {
        #[test]
        fn no_more_slots_are_covered_than_exist(pairs in prop::collection::vec(any::<(i16, i16)>(), 0..20)) {
            let ranges: Vec<SlotRange> =
                pairs.iter().filter_map(|&(first, last)| range(first.into(), last.into())).collect();
            prop_assert!(covered(ranges).is_none_or(|covered| covered <= SLOTS));
        }
    }
}

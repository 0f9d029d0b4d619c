//! Bytes of which some bits are unknown.

use std::cmp::Ordering;
use std::ops::Not;

use super::Relation;

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    /// It does, whatever the unknown bits are.
    Yes,
    /// It does not, whatever they are.
    No,
    /// That depends on them.
    Maybe,
}

impl Truth {
    /// Whether both hold.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Maybe,
        }
    }

    /// Whether one of the two holds.
    pub(super) fn or(self, other: Self) -> Self {
        !(!self).and(!other)
    }

    /// The opposite, if it is asked for.
    pub(super) fn negated(self, is_negated: bool) -> Self {
        if is_negated { !self } else { self }
    }
}

impl Not for Truth {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Maybe => Self::Maybe,
        }
    }
}

/// Bytes of which some bits are unknown, as in the tnum of the kernel's BPF verifier (`kernel/bpf/tnum.c`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bits(Vec<Byte>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Byte {
    /// The bits; those that are unknown are 0.
    value: u8,
    /// Which of them are known.
    known: u8,
}

impl Byte {
    const UNKNOWN: Self = Self { value: 0, known: 0 };

    fn new(value: u8, known: u8) -> Self {
        Self { value: value & known, known }
    }
}

impl Bits {
    /// All known.
    pub(super) fn known(bytes: &[u8]) -> Self {
        Self(bytes.iter().map(|&byte| Byte::new(byte, 0xff)).collect())
    }

    /// None known.
    pub(super) fn unknown(length: usize) -> Self {
        Self(vec![Byte::UNKNOWN; length])
    }

    /// Those known that the mask has.
    pub(super) fn masked(bytes: &[u8], mask: &[u8]) -> Self {
        Self(bytes.iter().zip(mask).map(|(&byte, &known)| Byte::new(byte, known)).collect())
    }

    /// How many bytes.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Some of the bytes; what lies outside is unknown.
    pub(super) fn part(&self, from: usize, length: usize) -> Self {
        let byte = |at| self.0.get(at).copied().unwrap_or(Byte::UNKNOWN);
        Self((from..from.saturating_add(length)).map(byte).collect())
    }

    /// Puts bytes over those from an offset on; what lies outside is lost.
    pub(super) fn put(&mut self, at: usize, bytes: &Self) {
        for (to, from) in self.0.iter_mut().skip(at).zip(&bytes.0) {
            *to = *from;
        }
    }

    /// The bytes, and behind them zeros up to a length.
    pub(super) fn padded(mut self, length: usize) -> Self {
        self.0.resize(length.max(self.0.len()), Byte::new(0, 0xff));
        self
    }

    /// `(bytes & mask) ^ xor`
    pub(super) fn mask(&self, mask: &[u8], xor: &[u8]) -> Self {
        let bytes = self.0.iter().zip(mask.iter().zip(xor));
        // A bit that the mask takes away is known to be the other operand's.
        Self(
            bytes
                .map(|(byte, (&mask, &xor))| Byte::new((byte.value & mask) ^ xor, byte.known | !mask))
                .collect(),
        )
    }

    /// What is known whichever of the two it is.
    pub(super) fn join(&self, other: &Self) -> Self {
        let both = self.0.iter().zip(&other.0);
        let joined = |(one, two): (&Byte, &Byte)| {
            Byte::new(one.value, one.known & two.known & !(one.value ^ two.value))
        };
        Self(both.map(joined).collect())
    }

    /// How the bytes compare with others of the same length.
    pub(super) fn compare(&self, relation: Relation, with: &[u8]) -> Truth {
        match relation {
            Relation::Equal => self.equals(with),
            Relation::NotEqual => !self.equals(with),
            Relation::Less => self.is_below(with, Ordering::Less),
            Relation::AtMost => self.is_below(with, Ordering::Equal),
            Relation::Greater => !self.is_below(with, Ordering::Equal),
            Relation::AtLeast => !self.is_below(with, Ordering::Less),
        }
    }

    /// Whether they lie between two of the same length, both included.
    pub(super) fn is_within(&self, first: &[u8], last: &[u8]) -> Truth {
        if first == last {
            return self.equals(first);
        }
        self.compare(Relation::AtLeast, first).and(self.compare(Relation::AtMost, last))
    }

    /// The first of all values that they may have, in the order of memcmp(3).
    pub(super) fn smallest(&self) -> impl Iterator<Item = u8> {
        self.0.iter().map(|byte| byte.value)
    }

    /// The last of them.
    pub(super) fn greatest(&self) -> impl Iterator<Item = u8> {
        self.0.iter().map(|byte| byte.value | !byte.known)
    }

    fn equals(&self, with: &[u8]) -> Truth {
        if self.0.len() != with.len() {
            return Truth::Maybe;
        }
        let mut pairs = self.0.iter().zip(with);
        if pairs.any(|(byte, with)| (byte.value ^ with) & byte.known != 0) {
            Truth::No
        } else if self.0.iter().all(|byte| byte.known == 0xff) {
            Truth::Yes
        } else {
            Truth::Maybe
        }
    }

    /// Whether they are less than others, or equal to them where `most` is that.
    fn is_below(&self, with: &[u8], most: Ordering) -> Truth {
        if self.0.len() != with.len() {
            return Truth::Maybe;
        }
        if self.greatest().cmp(with.iter().copied()) <= most {
            Truth::Yes
        } else if self.smallest().cmp(with.iter().copied()) > most {
            Truth::No
        } else {
            Truth::Maybe
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RELATIONS: [Relation; 6] = [
        Relation::Equal,
        Relation::NotEqual,
        Relation::Less,
        Relation::AtMost,
        Relation::Greater,
        Relation::AtLeast,
    ];

    fn holds(relation: Relation, one: &[u8], two: &[u8]) -> bool {
        match relation {
            Relation::Equal => one == two,
            Relation::NotEqual => one != two,
            Relation::Less => one < two,
            Relation::AtMost => one <= two,
            Relation::Greater => one > two,
            Relation::AtLeast => one >= two,
        }
    }

    proptest! {
        /// Whatever the unknown bits are, the answer is not belied; and with none unknown it is one.
        #[test]
        fn an_answer_holds_for_every_value_of_the_unknown_bits(
            bytes: [u8; 3], known: [u8; 3], noise: [u8; 3], mask: [u8; 3], xor: [u8; 3], with: [u8; 3],
        ) {
            let bits = Bits::masked(&bytes, &known);
            let mut concrete = bytes;
            for at in 0..3 {
                concrete[at] = (bytes[at] & known[at]) | (noise[at] & !known[at]);
            }
            let masked: Vec<u8> = (0..3).map(|at| (concrete[at] & mask[at]) ^ xor[at]).collect();
            for relation in RELATIONS {
                for (bits, value) in [(bits.clone(), concrete.to_vec()), (bits.mask(&mask, &xor), masked.clone())] {
                    match bits.compare(relation, &with) {
                        Truth::Yes => prop_assert!(holds(relation, &value, &with)),
                        Truth::No => prop_assert!(!holds(relation, &value, &with)),
                        Truth::Maybe => prop_assert!(bits != Bits::known(&value)),
                    }
                    let joined = bits.join(&Bits::known(&with));
                    prop_assert!(joined.equals(&value) != Truth::No && joined.equals(&with) != Truth::No);
                }
            }
        }
    }
}

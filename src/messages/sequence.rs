//! The numbers of messages.

use std::{fmt, num::NonZeroU64};

/// The number of a message in a log: 1 or more, strictly increasing over all topics, with gaps, never reused.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Sequence(NonZeroU64);

impl Sequence {
    /// The first sequence of a log.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// A sequence; `None` for 0, which the wire and the disk use for "none".
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// The number: 1 or more.
    pub fn get(self) -> u64 {
        self.0.get()
    }

    /// A sequence that the log has given to a message.
    #[expect(clippy::expect_used, reason = "the log gives sequences from 1 on")]
    pub(super) fn of_message(number: u64) -> Self {
        Self::new(number).expect("a message has a sequence of 1 or more")
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Tests write sequences as numbers.
#[cfg(test)]
impl PartialEq<u64> for Sequence {
    fn eq(&self, other: &u64) -> bool {
        self.get() == *other
    }
}

/// Sequences from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SequenceRange {
    /// The lowest sequence.
    pub first: Sequence,
    /// The highest sequence: not below `first`.
    pub last: Sequence,
}

impl SequenceRange {
    /// The range between two sequences that the log has given.
    pub(super) fn of_messages(first: u64, last: u64) -> Self {
        debug_assert!(first <= last, "{first} to {last}");
        Self { first: Sequence::of_message(first), last: Sequence::of_message(last) }
    }
}

//! Selection of messages by their publish times.
//!
//! Time selects and does not position: messages come in the order of their sequences, and their times may go back where
//! the wall clock was set back.

use super::query::Since;

/// Which messages a subscription wants, by time. In nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Selection {
    /// Where a start time applies.
    pub since: Option<Since>,
    /// Only messages with this time or an earlier one.
    pub until: Option<u64>,
}

impl Selection {
    /// Whether a message is wanted.
    pub fn has(&self, sequence: u64, time: u64) -> bool {
        let is_early = self.since.is_some_and(|since| sequence <= since.head && time < since.time);
        !is_early && self.until.is_none_or(|until| time <= until)
    }

    /// Whether no message is wanted of those up to the sequence `last`, with times from `min` to `max`.
    pub fn has_none(&self, last: u64, min: u64, max: u64) -> bool {
        let are_early = self.since.is_some_and(|since| last <= since.head && max < since.time);
        are_early || self.until.is_some_and(|until| min > until)
    }

    /// Whether all messages are wanted that have a sequence from `first` on, and a time from `min` to `max`.
    pub fn has_all(&self, first: u64, min: u64, max: u64) -> bool {
        let is_none_early = self.since.is_none_or(|since| first > since.head || min >= since.time);
        is_none_early && self.until.is_none_or(|until| max <= until)
    }

    /// Whether all messages are wanted that have a higher sequence than `after`.
    pub fn has_all_after(&self, after: u64) -> bool {
        self.has_all(after.saturating_add(1), 0, u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_holds_for_many_messages_holds_for_each(
            since in proptest::option::of((0..9_u64, 0..9_u64)), until in proptest::option::of(0..9_u64),
            first in 1..9_u64, count in 0..4_u64, min in 0..9_u64, more in 0..4_u64,
        ) {
            let selection = Selection { since: since.map(|(time, head)| Since { time, head }), until };
            let (last, max) = (first + count, min + more);
            for (sequence, time) in (first..=last).flat_map(|sequence| (min..=max).map(move |time| (sequence, time))) {
                let is_early = since.is_some_and(|(since, head)| sequence <= head && time < since);
                let is_late = until.is_some_and(|until| time > until);
                prop_assert_eq!(selection.has(sequence, time), !is_early && !is_late);
                if selection.has_none(last, min, max) {
                    prop_assert!(!selection.has(sequence, time));
                }
                if selection.has_all(first, min, max) || selection.has_all_after(first - 1) {
                    prop_assert!(selection.has(sequence, time));
                }
            }
            if first == last && min == max {
                prop_assert_eq!(selection.has_none(last, min, max), !selection.has(first, min));
                prop_assert_eq!(selection.has_all(first, min, max), selection.has(first, min));
            }
        }
    }
}

//! Which messages are older than a rule of retention allows.
//!
//! Their times may go back where the wall clock was set back, so each message is judged by its own age: a young message in
//! front of old ones, or an old one in front of young ones, takes no other message along.

use std::io;

use crate::messages::embedded::{
    Shared,
    age::Moment,
    index::{block_run::blocks_of, segment::Segment},
};

/// Ranges of sequences whose messages are all due, in order. There are few ranges, because times fall only where the clock
/// was set back.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Due {
    ranges: Vec<(u64, u64)>,
    /// The first message that is there is due.
    is_from_first: bool,
}

impl Due {
    /// Whether all messages with sequences from `first` to `last` are due.
    pub fn has_all(&self, first: u64, last: u64) -> bool {
        let after = self.ranges.partition_point(|(start, _)| *start <= first);
        after.checked_sub(1).and_then(|place| self.ranges.get(place)).is_some_and(|(_, end)| last <= *end)
    }

    /// All messages up to this sequence are due, those that are lost included: a message is older than the next one that is
    /// there. 0 for none.
    pub fn up_to(&self) -> u64 {
        self.ranges.first().filter(|_| self.is_from_first).map_or(0, |(_, last)| *last)
    }

    /// Adds messages after those that it has. All before them that are not due are known.
    fn add(&mut self, first: u64, last: u64, follows: bool) {
        match self.ranges.last_mut() {
            Some((_, end)) if follows => *end = last,
            _ => self.ranges.push((first, last)),
        }
    }
}

/// Collects ranges in the order of their sequences.
#[derive(Default)]
struct Collector {
    due: Due,
    /// No message that is not due came after the last range.
    is_open: bool,
    has_begun: bool,
}

impl Collector {
    fn add(&mut self, first: u64, last: u64, is_due: bool) {
        if is_due {
            self.due.add(first, last, self.is_open);
        }
        self.due.is_from_first |= is_due && !self.has_begun;
        (self.is_open, self.has_begun) = (is_due, true);
    }
}

impl Shared {
    /// The messages up to `head` that are older than `limit`, in nanoseconds.
    pub fn due(&self, limit: u64, head: u64, moment: &Moment) -> io::Result<Due> {
        let mut collector = Collector::default();
        let segments = self.state().segments.clone();
        for segment in segments.iter().take_while(|segment| segment.first_sequence <= head) {
            let summary = segment.summary();
            if summary.messages == 0 {
                continue;
            }
            let (first, last) = (summary.first_sequence, summary.last_sequence.min(head));
            let ages = moment.ages(first..=last, summary.min_time, summary.max_time);
            match judge(&ages, limit) {
                Some(is_due) => collector.add(first, last, is_due),
                None => judge_runs(segment, limit, head, moment, &mut collector)?,
            }
        }
        Ok(collector.due)
    }
}

/// Whether messages with these ages are all due, or all not; `None` if that depends.
fn judge(ages: &std::ops::RangeInclusive<u64>, limit: u64) -> Option<bool> {
    match (*ages.start() > limit, *ages.end() > limit) {
        (true, _) => Some(true),
        (_, false) => Some(false),
        _ => None,
    }
}

fn judge_runs(
    segment: &Segment,
    limit: u64,
    head: u64,
    moment: &Moment,
    collector: &mut Collector,
) -> io::Result<()> {
    for place in 0..segment.run_count() {
        let Some(run) = segment.run(place).filter(|run| run.entry.first_sequence <= head) else { break };
        let (first, last) = (run.entry.first_sequence, run.entry.last_sequence.min(head));
        let ages = moment.ages(first..=last, run.entry.min_time, run.entry.max_time);
        if let Some(is_due) = judge(&ages, limit) {
            collector.add(first, last, is_due);
            continue;
        }
        let (blocks, _) = blocks_of(&segment.read(run.start, run.end)?, &run, segment.salt());
        for block in blocks.iter().filter(|block| block.first_sequence <= head) {
            let (first, last) = (block.first_sequence, block.last_sequence.min(head));
            let ages = moment.ages(first..=last, block.time, block.time);
            // A block is older or younger as a whole, unless a step of the clock was recorded after a part of it.
            collector.add(first, last, *ages.start() > limit);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_range_by_range() {
        let mut collector = Collector::default();
        for (first, last, is_due) in
            [(1, 5, true), (7, 9, true), (10, 12, false), (20, 20, true), (21, 30, true)]
        {
            collector.add(first, last, is_due);
        }
        let due = collector.due;
        assert_eq!((&due.ranges[..], due.up_to()), (&[(1, 9), (20, 30)][..], 9));
        for (first, last, expected) in [
            (1, 9, true),
            (6, 6, true),
            (1, 10, false),
            (10, 10, false),
            (9, 20, false),
            (22, 30, true),
            (30, 31, false),
        ] {
            assert_eq!(due.has_all(first, last), expected, "{first} to {last}");
        }
        assert!(!Due::default().has_all(1, 1) && Due::default().up_to() == 0);
    }

    #[test]
    fn lost_messages_are_due_only_if_the_next_one_that_is_there_is() {
        let mut collector = Collector::default();
        collector.add(10, 12, false);
        collector.add(13, 20, true);
        assert_eq!(collector.due.up_to(), 0);
    }
}

//! Batches of messages: slices of the bytes of blocks, and the limits of a batch.

use std::{ops::Range, sync::Arc};

use crate::messages::{
    Event, SequenceRange,
    batch::ReadBatch,
    embedded::{
        age::Moment,
        format::{
            block::{Block, Entry, Salt},
            erased::Erased,
        },
        index::topics::Topics,
    },
    selection::Selection,
    topic::Pattern,
};

/// The limits of a batch.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// The most messages.
    pub max_items: usize,
    /// The size at which no further message is added.
    pub max_bytes: usize,
    /// The last sequence.
    pub last: u64,
    /// Only messages with these times.
    pub selection: Selection,
    /// The moment now: expired messages are left out.
    pub moment: Moment,
}

impl Bounds {
    /// Ends a reading after a sequence before damage. If the damage comes first, returns the batch that reports it.
    pub fn end_before(&mut self, after: u64, damage: Option<(u64, u64)>) -> Option<ReadBatch> {
        let (from, to) = damage.filter(|(from, _)| *from <= self.last)?;
        if from > after + 1 {
            self.last = from - 1;
            return None;
        }
        let event = Some(Event::Damaged(SequenceRange::of_messages(from, to)));
        Some(ReadBatch { event, ..ReadBatch::empty(to.min(self.last)) })
    }
}

/// How far blocks were read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Taken {
    /// To the end.
    All,
    /// Until the batch was full.
    Full,
    /// Up to this sequence, whose bytes are damaged.
    Damaged(u64),
}

impl ReadBatch {
    /// Whether there is no room for another message.
    pub fn is_full(&self, bounds: &Bounds) -> bool {
        self.count >= bounds.max_items || self.bytes >= bounds.max_bytes
    }

    /// Adds the messages of blocks that match and are not removed, after those that it has. The bytes of the blocks are
    /// those that were written, unless `salt` says that they are from the disk.
    pub fn take(
        &mut self,
        blocks: &[Arc<Block>],
        patterns: &[Pattern],
        topics: &Topics,
        bounds: &Bounds,
        salt: Option<Salt>,
    ) -> Taken {
        let after = self.delivered_up_to;
        for block in blocks.iter().filter(|block| block.last_sequence > after) {
            if block.first_sequence > bounds.last {
                break;
            }
            if bounds.selection.has_none(block.last_sequence, block.time, block.time) {
                self.delivered_up_to = self.delivered_up_to.max(block.last_sequence.min(bounds.last));
                continue;
            }
            let wanted = wanted(block, patterns, topics);
            match self.take_from(block, &wanted, bounds, salt) {
                Taken::All => {}
                taken => return taken,
            }
        }
        Taken::All
    }

    fn take_from(
        &mut self,
        block: &Block,
        wanted: &[Option<u64>],
        bounds: &Bounds,
        salt: Option<Salt>,
    ) -> Taken {
        let mut erased = salt.map(|salt| Erased::of(block, salt));
        let mut run = 0..0;
        let mut taken = Taken::All;
        let after = self.delivered_up_to;
        for entry in block.entries.iter().filter(|entry| entry.sequence > after) {
            if entry.sequence > bounds.last {
                break;
            }
            let is_wanted = is_wanted(block, entry, wanted, &bounds.moment)
                && bounds.selection.has(entry.sequence, block.time);
            self.expires |= entry.expires != 0;
            if is_wanted {
                if self.is_full(bounds) {
                    taken = Taken::Full;
                    break;
                }
                if let Some(erased) = &mut erased
                    && !block.is_intact(entry)
                {
                    if erased.has(entry) {
                        // It had expired when it was erased, by a clock that was ahead.
                        self.delivered_up_to = entry.sequence;
                        continue;
                    }
                    taken = Taken::Damaged(entry.sequence);
                    break;
                }
                let range = entry.range();
                if run.end != range.start {
                    self.push(block, &run);
                    run.start = range.start;
                }
                run.end = range.end;
                self.count += 1;
                self.bytes += range.len();
            }
            self.delivered_up_to = entry.sequence;
        }
        self.push(block, &run);
        taken
    }

    /// Adds adjacent messages as one slice.
    pub(super) fn push(&mut self, block: &Block, run: &Range<usize>) {
        if !run.is_empty() {
            self.items.push(block.body.slice(run.clone()));
        }
    }
}

/// For each topic of a block that matches, the first sequence that is kept; `None` for the others.
fn wanted(block: &Block, patterns: &[Pattern], topics: &Topics) -> Vec<Option<u64>> {
    let first_kept = |topic: &str| {
        let may_be_removed = topic.starts_with('$') || block.first_sequence < topics.max_first_kept();
        if may_be_removed { topics.first_kept(topic) } else { 0 }
    };
    let wanted =
        |topic: &Arc<str>| patterns.iter().any(|pattern| pattern.matches(topic)).then(|| first_kept(topic));
    block.topics.iter().map(wanted).collect()
}

fn is_wanted(block: &Block, entry: &Entry, wanted: &[Option<u64>], moment: &Moment) -> bool {
    let first_kept = wanted.get(entry.topic as usize).copied().flatten();
    first_kept.is_some_and(|first_kept| entry.sequence >= first_kept)
        && !moment.has_expired(entry.sequence, block.time, entry.expires)
}

/// The sequences of the messages of a block that match, and are neither removed nor expired.
pub fn matching(block: &Block, patterns: &[Pattern], topics: &Topics, moment: &Moment) -> Vec<u64> {
    let wanted = wanted(block, patterns, topics);
    let matching = block.entries.iter().filter(|entry| is_wanted(block, entry, &wanted, moment));
    matching.map(|entry| entry.sequence).collect()
}

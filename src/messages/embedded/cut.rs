//! Batches cut from blocks: slices of their bytes.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::{
    block::{Block, Entry},
    topics::Topics,
};
use crate::messages::{Event, topic::Pattern};

/// How many batches are kept for others: as many as there are groups of followers that are not equally far.
const MAX_CUTS: usize = 16;

/// A batch of more slices is joined before it is shared.
const MAX_SLICES: usize = 4;

/// How far a batch may be filled.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// At most so many messages.
    pub max_items: usize,
    /// No further message when there are so many bytes.
    pub max_bytes: usize,
    /// No message behind this sequence.
    pub last: u64,
    /// No message of a later time: in nanoseconds since 1970.
    pub until: Option<u64>,
    /// The time now, in milliseconds since 1970: what has expired is left out.
    pub now: u64,
}

/// Messages, and how far they reach.
#[derive(Clone, Debug, Default)]
pub struct Cut {
    /// Slices of encoded messages.
    pub items: Vec<Bytes>,
    /// How many messages.
    pub count: usize,
    /// Every sequence up to this one was delivered, did not match, or is told in `event`.
    pub through: u64,
    /// What happened, if there are no items.
    pub event: Option<Event>,
    /// The next message is of a later time than was asked for.
    pub is_past_time: bool,
    /// How many bytes of messages.
    pub bytes: usize,
    /// Messages that it was cut from expire: it is not the same at another time.
    pub expires: bool,
}

/// Batches that were cut lately: many followers of the same topics stand at the same place, and share one.
#[derive(Debug, Default)]
pub struct Cuts(Mutex<VecDeque<(Place, Cut)>>);

/// What makes a batch the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Behind this sequence.
    pub after: u64,
    /// Changes when something is removed.
    pub removals: u64,
    /// At most so many messages, so many bytes, and none behind this sequence.
    pub limits: (usize, usize, u64),
    /// Of these topics.
    pub patterns: Arc<[Pattern]>,
}

impl Cuts {
    fn cuts(&self) -> MutexGuard<'_, VecDeque<(Place, Cut)>> {
        // Every change is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The batch at a place.
    pub fn find(&self, place: &Place) -> Option<Cut> {
        self.cuts().iter().rev().find(|(of, _)| of == place).map(|(_, cut)| cut.clone())
    }

    /// Keeps the batch at a place, if time does not change it.
    pub fn keep(&self, place: Place, cut: &mut Cut) {
        if cut.expires {
            return;
        }
        if cut.items.len() > MAX_SLICES {
            // Joined once, and not by each connection.
            cut.items = vec![Bytes::from(cut.items.concat())];
        }
        let mut cuts = self.cuts();
        cuts.push_back((place, cut.clone()));
        if cuts.len() > MAX_CUTS {
            cuts.pop_front();
        }
    }
}

/// How far blocks were taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Taken {
    /// All of them.
    All,
    /// Until there was enough.
    Full,
    /// Until this sequence, whose bytes are damaged.
    Damaged(u64),
}

impl Cut {
    /// Nothing up to a sequence.
    pub fn nothing(through: u64) -> Self {
        Self { through, ..Self::default() }
    }

    /// There is no room for another message.
    pub fn is_full(&self, bounds: &Bounds) -> bool {
        self.count >= bounds.max_items || self.bytes >= bounds.max_bytes
    }

    /// Takes what matches and is not removed from blocks, behind what was taken before.
    pub fn take(
        &mut self,
        blocks: &[Arc<Block>],
        patterns: &[Pattern],
        topics: &Topics,
        bounds: &Bounds,
        is_checked: bool,
    ) -> Taken {
        let after = self.through;
        for block in blocks.iter().filter(|block| block.last_sequence > after) {
            if block.first_sequence > bounds.last {
                break;
            }
            if bounds.until.is_some_and(|until| block.time > until) {
                self.is_past_time = true;
                return Taken::Full;
            }
            let wanted = wanted(block, patterns, topics);
            match self.take_from(block, &wanted, bounds, is_checked) {
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
        is_checked: bool,
    ) -> Taken {
        let mut run = 0..0;
        let mut taken = Taken::All;
        let after = self.through;
        for entry in block.entries.iter().filter(|entry| entry.sequence > after) {
            if entry.sequence > bounds.last {
                break;
            }
            let is_wanted = is_wanted(entry, wanted, bounds.now);
            self.expires |= entry.expires != 0;
            if is_wanted {
                if self.is_full(bounds) {
                    taken = Taken::Full;
                    break;
                }
                if !is_checked && !block.is_intact(entry) {
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
            self.through = entry.sequence;
        }
        self.push(block, &run);
        taken
    }

    /// Neighbours leave as one slice.
    fn push(&mut self, block: &Block, run: &Range<usize>) {
        if !run.is_empty() {
            self.items.push(block.body.slice(run.clone()));
        }
    }
}

/// For each topic of a block that matches, the sequence from which on it is not removed.
fn wanted(block: &Block, patterns: &[Pattern], topics: &Topics) -> Vec<Option<u64>> {
    let floor = |topic: &str| {
        let may_be_removed = topic.starts_with('$') || block.first_sequence < topics.max_floor();
        if may_be_removed { topics.floor(topic) } else { 0 }
    };
    let wanted =
        |topic: &Arc<str>| patterns.iter().any(|pattern| pattern.matches(topic)).then(|| floor(topic));
    block.topics.iter().map(wanted).collect()
}

fn is_wanted(entry: &Entry, wanted: &[Option<u64>], now: u64) -> bool {
    let floor = wanted.get(entry.topic as usize).copied().flatten();
    floor.is_some_and(|floor| entry.sequence >= floor) && !entry.has_expired(now)
}

/// The sequences of the messages of a block that match, and are neither removed nor expired.
pub fn matching(block: &Block, patterns: &[Pattern], topics: &Topics, now: u64) -> Vec<u64> {
    let wanted = wanted(block, patterns, topics);
    let matching = block.entries.iter().filter(|entry| is_wanted(entry, &wanted, now));
    matching.map(|entry| entry.sequence).collect()
}

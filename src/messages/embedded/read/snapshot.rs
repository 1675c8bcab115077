//! The last message of each topic, for subscriptions that start with them.
//!
//! A snapshot is the sequences of these messages, in order, and is found by going through the topics once, in slices. It is
//! then read run by run, as the log is, and each message is checked: a topic may have a newer message by then, which the
//! subscription reads after the snapshot.
//!
//! A snapshot of a few messages belongs to its subscription. One of many is that of all topics, which the log keeps once
//! for all subscriptions while any of them uses it: 8 bytes a topic. A snapshot taken at a head is good for every
//! subscription that began at this head or before, so a slow one holds none, and takes the newest each time it reads on.

use std::{
    collections::HashMap,
    io,
    ops::{ControlFlow, Range},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{batch::Bounds, fetch::retrying, find::last_live};
use crate::blocking::give_way;
use crate::messages::{
    Event, SequenceRange,
    batch::ReadBatch,
    embedded::{
        Shared,
        age::Moment,
        format::{
            block::{Block, Entry},
            erased::Erased,
            footer::At,
        },
        index::{
            block_run::{blocks_of, publish_time},
            segment::Segment,
            topic::Topic,
        },
    },
    topic::Pattern,
};

/// A snapshot of up to this many messages belongs to its subscription: 128 KiB.
const FEW: usize = 16 * 1024;

/// The number of runs that are read for one batch; after that, the subscription can report how far it has come.
const MAX_RUNS: usize = 64;

/// A batch of more slices is joined.
const MAX_SLICES: usize = 8;

/// The snapshot of all topics is dropped when no subscription has used it for this long.
const UNUSED: Duration = Duration::from_secs(60);

/// The last messages of topics.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Every subscription that began at this head or before can read it.
    head: u64,
    /// The sequences of the messages, in order.
    sequences: Vec<u64>,
    /// The last message that has not expired, of topics whose last message has.
    earlier: HashMap<Arc<str>, u64>,
    /// From this time on, by the clock that cannot be set, a new snapshot may have other messages, because some have
    /// expired.
    fresh_until: u64,
    /// The head and the removal epoch of the log, if they did not change while the snapshot was made.
    as_of: Option<(u64, u64)>,
}

/// Which message of a topic is wanted, of those whose sequences are in a snapshot.
#[derive(Clone, Copy)]
enum Wanted {
    /// The topic does not match.
    None,
    /// Nothing has changed since the snapshot was made.
    Any,
    /// The one with this sequence.
    Message(u64),
}

/// The snapshot that subscriptions share.
#[derive(Debug, Default)]
pub struct SharedSnapshot {
    current: Mutex<Option<(Arc<Snapshot>, Instant)>>,
    /// Held while a snapshot is made, so that many subscriptions make one.
    making: Mutex<()>,
}

/// The snapshot of a subscription.
#[derive(Clone, Debug)]
pub enum Source {
    /// Few messages.
    Own(Arc<Snapshot>),
    /// Those of all topics, of which the subscription reads the ones that match.
    Shared,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one assignment, so a panic elsewhere leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SharedSnapshot {
    /// Drops the snapshot if no subscription uses it any more.
    pub fn sweep(&self) {
        let mut current = lock(&self.current);
        if current.as_ref().is_some_and(|(_, used)| used.elapsed() >= UNUSED) {
            *current = None;
        }
    }

    fn find(&self, is_good: impl Fn(&Snapshot) -> bool) -> Option<Arc<Snapshot>> {
        let mut current = lock(&self.current);
        let (snapshot, used) = current.as_mut().filter(|(snapshot, _)| is_good(snapshot))?;
        *used = Instant::now();
        Some(snapshot.clone())
    }
}

/// Which topics a snapshot has.
struct Search<'a> {
    patterns: Option<&'a [Pattern]>,
    snapshot: Snapshot,
    /// Topics whose last message has expired.
    expired: Vec<(Arc<str>, Topic)>,
    moment: Moment,
    /// The same moment by the clock that cannot be set.
    boot: u64,
}

impl Search<'_> {
    fn expires_in(&mut self, left: u64) {
        self.snapshot.fresh_until = self.snapshot.fresh_until.min(self.boot.saturating_add(left));
    }

    fn matches(&self, name: &str) -> bool {
        self.patterns.is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(name)))
    }

    fn add(&mut self, name: &Arc<str>, topic: &Topic) {
        let held = &topic.held;
        let At { sequence, time } = held.last;
        // Expired messages after the first one may have left the disk, and do not count any more.
        let has_earlier = held.first.sequence < sequence;
        if held.last_expires == 0 {
            self.snapshot.sequences.push(sequence);
        } else if !self.moment.has_expired(sequence, time, held.last_expires) {
            self.snapshot.sequences.push(sequence);
            if has_earlier {
                self.expires_in(self.moment.until_expiry(sequence, time, held.last_expires));
            }
        } else if has_earlier {
            self.expired.push((name.clone(), topic.clone()));
        }
    }
}

impl Shared {
    /// Finds the last messages of the topics that match, for a subscription that began at `head`.
    pub fn snapshot(&self, patterns: &[Pattern], head: u64) -> io::Result<Source> {
        let is_all = patterns.iter().any(Pattern::matches_all);
        if !is_all || self.state().topics.count() <= FEW {
            let snapshot = self.search(Some(patterns), FEW)?;
            if let Some(snapshot) = snapshot {
                return Ok(Source::Own(Arc::new(snapshot)));
            }
        }
        let now = self.timeline.boot();
        self.of_all(head, |snapshot| snapshot.fresh_until > now)?;
        Ok(Source::Shared)
    }

    /// The snapshot of all topics.
    fn of_all(&self, head: u64, is_good: impl Fn(&Snapshot) -> bool) -> io::Result<Arc<Snapshot>> {
        let is_good = |snapshot: &Snapshot| snapshot.head >= head && is_good(snapshot);
        if let Some(snapshot) = self.snapshots.find(is_good) {
            return Ok(snapshot);
        }
        let _making = lock(&self.snapshots.making);
        if let Some(snapshot) = self.snapshots.find(is_good) {
            return Ok(snapshot);
        }
        let head = *self.head.borrow();
        let found = self.search(None, usize::MAX)?.unwrap_or_default();
        let snapshot = Arc::new(Snapshot { head, ..found });
        *lock(&self.snapshots.current) = Some((snapshot.clone(), Instant::now()));
        Ok(snapshot)
    }

    /// Goes through the topics once. `None` if more than `most` match.
    fn search(&self, patterns: Option<&[Pattern]>, most: usize) -> io::Result<Option<Snapshot>> {
        let snapshot = Snapshot { fresh_until: u64::MAX, ..Snapshot::default() };
        let (boot, moment) = (self.timeline.boot(), self.moment());
        let mut search = Search { patterns, snapshot, expired: Vec::new(), moment, boot };
        let as_of = self.as_of();
        let literal = patterns.filter(|patterns| patterns.iter().all(|it| it.literal().is_some()));
        if let Some(patterns) = literal {
            let state = self.state();
            for name in patterns.iter().filter_map(Pattern::literal) {
                if let Some((name, topic)) = state.topics.key_value(name) {
                    search.add(name, topic);
                }
            }
        } else {
            let mut is_too_many = false;
            self.try_for_each_topic(patterns, None, |_, name, topic| {
                if search.matches(name) {
                    search.add(name, topic);
                }
                is_too_many = search.snapshot.sequences.len() + search.expired.len() > most;
                if is_too_many { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            if is_too_many {
                return Ok(None);
            }
        }
        self.add_earlier(&mut search)?;
        let mut snapshot = search.snapshot;
        snapshot.as_of = Some(as_of).filter(|as_of| *as_of == self.as_of());
        snapshot.sequences.sort_unstable();
        // A pattern may be given twice.
        snapshot.sequences.dedup();
        Ok(Some(snapshot))
    }

    /// The head and the removal epoch.
    fn as_of(&self) -> (u64, u64) {
        let head = *self.head.borrow();
        (head, self.state().topics.removal_epoch())
    }

    /// Of topics whose last message has expired, finds the last one that has not.
    fn add_earlier(&self, search: &mut Search<'_>) -> io::Result<()> {
        if search.expired.is_empty() {
            return Ok(());
        }
        let segments = self.state().segments.clone();
        for (name, topic) in std::mem::take(&mut search.expired) {
            let last = retrying(|| last_live(self, &segments, &name, &topic, &search.moment))?;
            let Some((segment, posting)) = last else { continue };
            search.snapshot.sequences.push(posting.sequence);
            if posting.expires != 0 {
                let time = publish_time(&segment, &posting)?;
                search.expires_in(search.moment.until_expiry(posting.sequence, time, posting.expires));
            }
            search.snapshot.earlier.insert(name, posting.sequence);
        }
        Ok(())
    }

    /// Reads messages of a snapshot after a sequence. `head` is where the subscription began. The batch ends at
    /// `bounds.last` if nothing is left.
    pub fn read_snapshot(
        &self,
        source: &Source,
        patterns: &[Pattern],
        after: u64,
        head: u64,
        bounds: &Bounds,
    ) -> io::Result<ReadBatch> {
        let _reading = self.reading();
        let mut bounds = self.after_sweep(bounds);
        // It may have had the last messages of topics.
        if let Some(damage) = bounds.end_before(after, self.state().unknown_damage_after(after)) {
            return Ok(damage);
        }
        let snapshot = match source {
            Source::Own(snapshot) => snapshot.clone(),
            Source::Shared => self.of_all(head, |_| true)?,
        };
        let mut batch = ReadBatch::empty(after);
        for _ in 0..MAX_RUNS {
            let start = snapshot.sequences.partition_point(|sequence| *sequence <= batch.delivered_up_to);
            let wanted = snapshot.sequences.get(start..).unwrap_or_default();
            let Some(first) = wanted.first().filter(|first| **first <= bounds.last) else {
                batch.delivered_up_to = batch.delivered_up_to.max(bounds.last);
                break;
            };
            if !self.read_run(&snapshot, *first, wanted, patterns, &bounds, &mut batch)? {
                break;
            }
        }
        batch.join();
        Ok(batch)
    }

    /// Reads the messages that are wanted of the run that has the first of them. False if the batch is to leave.
    fn read_run(
        &self,
        snapshot: &Snapshot,
        first: u64,
        wanted: &[u64],
        patterns: &[Pattern],
        bounds: &Bounds,
        batch: &mut ReadBatch,
    ) -> io::Result<bool> {
        let (segment, end) = {
            let state = self.state();
            let after = state.segments.partition_point(|segment| segment.first_sequence <= first);
            let end = state.segments.get(after).map_or(u64::MAX, |next| next.first_sequence - 1);
            (after.checked_sub(1).and_then(|place| state.segments.get(place)).cloned(), end)
        };
        let run = segment.as_ref().and_then(|segment| segment.run_from_sequence(first));
        let Some((segment, run)) = segment.zip(run) else {
            // They were removed with their segment.
            batch.delivered_up_to = end.min(bounds.last);
            return Ok(true);
        };
        let end = run.entry.last_sequence.min(bounds.last);
        let (blocks, missing) = blocks_of(&segment.read(run.start, run.end)?, &run, segment.salt());
        let wanted = wanted.iter().take_while(|sequence| **sequence <= end);
        let lost = wanted.clone().find_map(|sequence| {
            missing.iter().find(|(from, to)| (from..=to).contains(&sequence)).map(|(from, to)| (*from, *to))
        });
        let mut wanted = wanted.copied().take_while(|sequence| lost.is_none_or(|(from, _)| *sequence < from));
        let mut next = wanted.next();
        for block in &blocks {
            give_way();
            let wanted_of = self.wanted_of(snapshot, block, patterns);
            while let Some(sequence) = next.filter(|sequence| *sequence <= block.last_sequence) {
                next = wanted.next();
                give_way();
                let place = block.entries.binary_search_by_key(&sequence, |entry| entry.sequence);
                let Some(entry) = place.ok().and_then(|place| block.entries.get(place)) else { continue };
                let is_wanted = match wanted_of.get(entry.topic as usize) {
                    Some(Wanted::Any) => true,
                    Some(Wanted::Message(of_topic)) => *of_topic == sequence,
                    Some(Wanted::None) | None => false,
                };
                let has_expired = bounds.moment.has_expired(sequence, block.time, entry.expires);
                if is_wanted && bounds.selection.has(sequence, block.time) && !has_expired {
                    if batch.is_full(bounds) {
                        return Ok(false);
                    }
                    if block.is_intact(entry) {
                        batch.push_one(block, entry);
                    } else if !Erased::of(block, segment.salt()).has(entry) {
                        return self.lose(&segment, batch, (sequence, sequence), bounds.last);
                    }
                }
                batch.delivered_up_to = sequence;
            }
        }
        if let Some(lost) = lost {
            return self.lose(&segment, batch, lost, bounds.last);
        }
        batch.delivered_up_to = batch.delivered_up_to.max(end);
        Ok(true)
    }

    /// For each topic of a block, which message of the snapshot is wanted.
    fn wanted_of(&self, snapshot: &Snapshot, block: &Block, patterns: &[Pattern]) -> Vec<Wanted> {
        let matches = |name: &Arc<str>| {
            give_way();
            patterns.iter().any(|pattern| pattern.matches(name))
        };
        let matching = block.topics.iter().map(matches).collect::<Vec<_>>();
        // Not while the state is locked: the committer takes both locks, too.
        let head = *self.head.borrow();
        let state = self.state();
        let is_as_it_was = snapshot.as_of == Some((head, state.topics.removal_epoch()));
        let wanted = |(name, is_matching): (&Arc<str>, bool)| {
            if !is_matching {
                return Wanted::None;
            }
            if is_as_it_was {
                return Wanted::Any;
            }
            let Some(topic) = state.topics.get(name) else { return Wanted::None };
            let earlier = snapshot.earlier.get(name).copied();
            let earlier = earlier.filter(|sequence| *sequence >= topic.trim_point.first_kept);
            Wanted::Message(earlier.unwrap_or(topic.held.last.sequence))
        };
        block.topics.iter().zip(matching).map(wanted).collect()
    }

    /// Reports messages that are damaged, once the messages before them have left. Always false.
    fn lose(
        &self,
        segment: &Segment,
        batch: &mut ReadBatch,
        (from, to): (u64, u64),
        last: u64,
    ) -> io::Result<bool> {
        if !self.state().damaged.contains_key(&from) {
            self.note_damage(segment, from, to)?;
        }
        if batch.count == 0 {
            batch.event = Some(Event::Damaged(SequenceRange::of_messages(from, to)));
            batch.delivered_up_to = to.min(last);
        }
        Ok(false)
    }
}

impl ReadBatch {
    /// Adds one message of a block, as part of the slice before it if they are adjacent.
    fn push_one(&mut self, block: &Block, entry: &Entry) {
        let Range { start, end } = entry.range();
        let body = block.body.as_ptr().addr();
        // Between the bodies of two blocks there is a table, so adjacent bytes are of one body.
        let before = self.items.last_mut().filter(|before| before.as_ptr_range().end.addr() == body + start);
        match before {
            Some(before) => *before = block.body.slice(before.as_ptr().addr() - body..end),
            None => self.push(block, &(start..end)),
        }
        self.count += 1;
        self.bytes += end - start;
    }

    /// Joins many small slices into one, so that a response is not made of thousands.
    fn join(&mut self) {
        if self.items.len() > MAX_SLICES {
            self.items = vec![Bytes::from(self.items.concat())];
        }
    }
}

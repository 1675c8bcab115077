//! Erases removed messages in place, so that their bytes leave the disk whatever lives beside them.
//!
//! - Purged messages are erased in rounds. A round takes all topics that were purged since the last one, and goes through the
//!   segments, one at a step, so that other work comes between. The file of trim points records what is still owed, so a
//!   restart continues it.
//! - Messages that expired, were superseded, or were removed by retention are erased by a sweep, at the operator's interval.
//!
//! Each byte is erased once, so the work is at most what was published. It takes no room on the disk. A round waits until
//! every reading that began before the removal has ended: no reader sees a message half erased.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    io,
    ops::Range,
    sync::{Arc, PoisonError},
};

use bytes::Bytes;

use crate::messages::embedded::{
    Shared,
    age::Moment,
    disk::bad_sectors::is_bad_sector,
    format::{
        block::{Block, Entry},
        erased::{self, Stretch},
        scan::Scan,
    },
    index::{
        block_run::{BlockTimes, blocks_of},
        segment::{BlockRun, Segment},
    },
    read::fetch::retrying,
};

/// The work that is left to erase.
#[derive(Debug, Default)]
pub struct Eraser {
    /// Topics to erase in the next round, and the last purged sequence of each.
    owed: BTreeMap<Arc<str>, u64>,
    /// A sync has failed, or its outcome is unknown: what looks erased may not be so on the disk.
    is_unsure: bool,
    round: Option<Round>,
    sweep: Option<Sweep>,
    /// What was dead in a segment at its last sweep, by the id of the segment.
    swept: HashMap<u64, u64>,
}

/// A round of purged topics.
#[derive(Debug)]
struct Round {
    topics: BTreeMap<Arc<str>, u64>,
    /// Segments from this sequence on are left.
    next: u64,
    /// Also what looks erased is written again.
    is_unsure: bool,
    has_failed: bool,
}

/// A sweep through all segments.
#[derive(Debug)]
struct Sweep {
    /// Messages that have expired at this moment are erased.
    moment: Moment,
    /// Also what looks erased is written again.
    is_unsure: bool,
    /// Segments from this sequence on are left.
    next: u64,
}

/// The offset up to which the segment that is written may be changed; `None` if it is unknown.
pub type Limit<'a> = &'a dyn Fn() -> Option<u64>;

impl Eraser {
    /// Continues what an earlier run of the server owed.
    pub fn new(owed: Vec<(Arc<str>, u64)>) -> Self {
        Self { is_unsure: !owed.is_empty(), owed: owed.into_iter().collect(), ..Self::default() }
    }

    /// Erases a topic in the next round.
    pub fn owe(&mut self, topic: &str, up_to: u64) {
        let known = self.owed.entry(topic.into()).or_default();
        *known = up_to.max(*known);
    }

    /// Begins a round if something is owed and no round is under way.
    pub fn begin_round(&mut self, shared: &Shared) {
        if self.round.is_none() && !self.owed.is_empty() {
            shared.await_readings();
            let (topics, is_unsure) = (std::mem::take(&mut self.owed), std::mem::take(&mut self.is_unsure));
            self.round = Some(Round { topics, next: 0, is_unsure, has_failed: false });
        }
    }

    /// Begins a sweep if none is under way.
    pub fn begin_sweep(&mut self, shared: &Shared, moment: Moment) {
        if self.sweep.is_none() {
            // From now on, no reader delivers what the sweep takes for expired.
            shared.timeline.set_swept(&moment);
            shared.await_readings();
            let is_unsure = std::mem::take(&mut self.is_unsure);
            self.sweep = Some(Sweep { moment, is_unsure, next: 0 });
        }
    }

    /// Whether a round or a sweep is under way.
    pub fn is_busy(&self) -> bool {
        self.round.is_some() || self.sweep.is_some()
    }

    /// The number of topics whose purged messages may still be on disk.
    pub fn owed(&self) -> usize {
        self.owed.len() + self.round.as_ref().map_or(0, |round| round.topics.len())
    }

    /// Goes through one segment. True if a round has ended, and the trim points are to be written.
    pub fn step(&mut self, shared: &Shared, limit: Limit<'_>) -> bool {
        if self.round.is_some() {
            self.step_of_round(shared, limit)
        } else {
            self.step_of_sweep(shared, limit)
        }
    }

    fn step_of_round(&mut self, shared: &Shared, limit: Limit<'_>) -> bool {
        let Some(round) = &mut self.round else { return false };
        if let Some((segment, is_active)) = next_segment(shared, round.next) {
            round.next = segment.first_sequence + 1;
            let what = What::Purged(&round.topics);
            let how = How { limit: is_active.then_some(limit), is_unsure: round.is_unsure, what };
            let erased = erase_topics(shared, &segment, &round.topics, how);
            if let Err(error) = erased {
                round.has_failed = true;
                let path = segment.path.display();
                tracing::warn!(%error, %path, "purged messages cannot be erased now: this is tried again");
            }
            return false;
        }
        let Some(Round { topics, has_failed, .. }) = self.round.take() else { return false };
        // The messages are in files that are still to be removed, too.
        if has_failed || !shared.leftovers().is_empty() {
            self.is_unsure = true;
            for (topic, up_to) in &topics {
                self.owe(topic, *up_to);
            }
            return false;
        }
        let mut state = shared.state_mut();
        for (topic, up_to) in &topics {
            state.topics.erased(topic, *up_to);
        }
        true
    }

    fn step_of_sweep(&mut self, shared: &Shared, limit: Limit<'_>) -> bool {
        let Some(Sweep { moment, is_unsure, next }) = &mut self.sweep else { return false };
        let Some((segment, is_active)) = next_segment(shared, *next) else {
            self.sweep = None;
            let state = shared.state();
            self.swept.retain(|id, _| state.segments.iter().any(|segment| segment.id == *id));
            return false;
        };
        *next = segment.first_sequence + 1;
        let known = self.swept.get(&segment.id).copied().unwrap_or(0);
        let what = What::Dead(moment);
        let how = How { limit: is_active.then_some(limit), is_unsure: *is_unsure, what };
        match sweep(shared, &segment, known, moment, how) {
            Ok(dead) => _ = self.swept.insert(segment.id, dead),
            Err(error) => {
                self.is_unsure = true;
                let path = segment.path.display();
                tracing::warn!(%error, %path, "removed messages cannot be erased now: this is tried again");
            }
        }
        false
    }
}

impl Shared {
    /// Waits until every reading from the disk that has begun has ended.
    fn await_readings(&self) {
        drop(self.readings.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The first segment from a sequence on, and whether it is being written.
fn next_segment(shared: &Shared, from: u64) -> Option<(Arc<Segment>, bool)> {
    let state = shared.state();
    let place = state.segments.partition_point(|segment| segment.first_sequence < from);
    let segment = state.segments.get(place)?;
    Some((segment.clone(), place + 1 == state.segments.len()))
}

/// How a segment is erased.
#[derive(Clone, Copy)]
struct How<'a> {
    /// `None` for a segment that is not written any more.
    limit: Option<Limit<'a>>,
    is_unsure: bool,
    what: What<'a>,
}

/// Which messages are erased.
#[derive(Clone, Copy)]
enum What<'a> {
    /// Those of these topics, up to the last purged sequence of each. What else was removed leaves the disk in a sweep, which
    /// may have to wait.
    Purged(&'a BTreeMap<Arc<str>, u64>),
    /// Those that were removed for any reason, and those that have expired at this moment.
    Dead(&'a Moment),
}

impl What<'_> {
    /// Messages of a topic are erased below this sequence, whether they expire or not.
    fn end_of(self, topic: &Arc<str>, first_kept: u64) -> u64 {
        match self {
            Self::Purged(topics) => {
                topics.get(topic).map_or(0, |up_to| first_kept.min(up_to.saturating_add(1)))
            }
            Self::Dead(_) => first_kept,
        }
    }

    fn has_expired(self, entry: &Entry, time: u64) -> bool {
        match self {
            Self::Purged(_) => false,
            Self::Dead(moment) => moment.has_expired(entry.sequence, time, entry.expires),
        }
    }
}

impl How<'_> {
    /// The offset in the segment up to which bytes may be changed.
    fn end(&self) -> io::Result<u64> {
        match self.limit {
            None => Ok(u64::MAX),
            Some(limit) => limit().ok_or_else(|| io::Error::other("the log is closing")),
        }
    }
}

/// Erases the purged messages of topics in a segment.
fn erase_topics(
    shared: &Shared,
    segment: &Arc<Segment>,
    topics: &BTreeMap<Arc<str>, u64>,
    how: How<'_>,
) -> io::Result<()> {
    let mut runs = BTreeMap::new();
    for (topic, up_to) in topics {
        let erased = shared.state().topics.trim_point(topic).erased_up_to;
        let found =
            || segment.postings_from(&shared.cache, topic, erased + 1, |posting| posting.sequence <= *up_to);
        let postings = retrying(|| shared.sound(found(), segment))?;
        for posting in &postings {
            if let Some(run) = segment.run_at_offset(posting.offset) {
                runs.insert(run.start, run);
            }
        }
    }
    let mut stamped = Stamped::new(segment, how);
    if !runs.is_empty() {
        let end = how.end()?;
        for run in runs.values() {
            stamped.stamp(shared, run, end, how)?;
        }
    }
    stamped.is_changed |= erase_damage(shared, segment, topics)?;
    stamped.finish()
}

/// Erases everything that is dead in a segment. `known`: those of the last sweep. Returns those of this one.
fn sweep(
    shared: &Shared,
    segment: &Arc<Segment>,
    known: u64,
    moment: &Moment,
    how: How<'_>,
) -> io::Result<u64> {
    let dead = retrying(|| dead_in(shared, segment, moment))?;
    if dead == 0 || dead == known {
        return Ok(dead);
    }
    let (end, mut stamped, mut place) = (how.end()?, Stamped::new(segment, how), 0);
    while let Some(run) = segment.run(place) {
        place += 1;
        stamped.stamp(shared, &run, end, how)?;
    }
    stamped.finish()?;
    Ok(dead)
}

/// A number that changes with the dead messages of a segment; 0 if there are none.
fn dead_in(shared: &Shared, segment: &Arc<Segment>, moment: &Moment) -> io::Result<u64> {
    let (mut dead, mut has_dead) = (DefaultHasher::new(), false);
    let mut expiring = Vec::<Arc<str>>::new();
    let mut place = 0;
    while let Some(slice) = shared.sound(segment.slice(&shared.cache, place), segment)? {
        place += 1;
        // Held for a slice alone: commits wait for it. What is removed meanwhile is found by the next sweep.
        let state = shared.state();
        slice.for_each(|name, held| {
            let first_kept = state.topics.erasable_below(name).min(held.last.sequence + 1);
            if first_kept > held.first.sequence {
                has_dead = true;
                (name, first_kept).hash(&mut dead);
            }
            if held.expiring_bytes > 0 {
                expiring.push(name.into());
            }
        });
    }
    for name in expiring {
        let postings = shared.sound(segment.postings(&shared.cache, &name), segment)?;
        let (mut expired, mut times) = (0_usize, BlockTimes::default());
        for posting in postings.iter() {
            expired += usize::from(times.has_expired(segment, posting, moment)?);
        }
        has_dead |= expired > 0;
        (name, expired).hash(&mut dead);
    }
    Ok(if has_dead { dead.finish().max(1) } else { 0 })
}

/// A segment in which messages are being erased. All stamps are on disk before other bytes are overwritten: after a power cut
/// between the two, a message that is not removed, but expired by a wrong clock, would look damaged otherwise.
struct Stamped<'a> {
    segment: &'a Segment,
    /// The ranges to overwrite once the stamps are on disk.
    holes: Vec<Range<u64>>,
    /// Bytes were changed that are not on disk yet.
    is_changed: bool,
    /// The messages are purged.
    is_purge: bool,
}

impl<'a> Stamped<'a> {
    fn new(segment: &'a Segment, how: How<'_>) -> Self {
        let is_purge = matches!(how.what, What::Purged(_));
        Self { segment, holes: Vec::new(), is_changed: false, is_purge }
    }

    /// Overwrites a range of the file. In a page that the disk cannot read, this needs to overwrite the whole page. It does so
    /// for purged messages alone: a sweep leaves the page, because the disk may read the other messages in it another time.
    fn overwrite(&self, range: Range<u64>, write: impl Fn() -> io::Result<()>) -> io::Result<()> {
        if self.is_purge {
            return self.segment.file.write_over_bad_sectors(range, write);
        }
        match write() {
            Err(error) if is_bad_sector(&error) && self.segment.file.has_bad_sector(&range) => Ok(()),
            result => result,
        }
    }

    /// Writes the stamps of the dead messages in a run of blocks, up to an offset.
    fn stamp(&mut self, shared: &Shared, run: &BlockRun, end: u64, how: How<'_>) -> io::Result<()> {
        let bytes = self.segment.read(run.start, run.end)?;
        let (blocks, missing) = blocks_of(&bytes, run, self.segment.salt());
        // What cannot be read is erased as damage.
        for (from, to) in missing {
            shared.note_damage(self.segment, from, to)?;
        }
        for block in blocks {
            let body = run.start + offset_in(&bytes, &block);
            let ends = {
                let state = shared.state();
                let end_of = |topic| how.what.end_of(topic, state.topics.erasable_below(topic));
                block.topics.iter().map(end_of).collect::<Vec<_>>()
            };
            let stretches = erased::to_erase(&block, self.segment.salt(), |entry| {
                let end = ends.get(entry.topic as usize).copied().unwrap_or(0);
                entry.sequence < end || how.what.has_expired(entry, block.time)
            });
            for Stretch { bytes, stamp, is_erased } in stretches {
                if is_erased && !how.is_unsure {
                    continue;
                }
                if body + bytes.end as u64 > end {
                    return Err(io::Error::other("the last commit cannot be marked now"));
                }
                let (start, end) = (body + bytes.start as u64, body + bytes.end as u64);
                let stamped = start..start + stamp.len() as u64;
                self.overwrite(stamped, || self.segment.file.write_all_at(&stamp, start))?;
                self.holes.push(start + stamp.len() as u64..end);
                self.is_changed = true;
            }
        }
        Ok(())
    }

    /// Overwrites the rest.
    fn finish(mut self) -> io::Result<()> {
        if self.is_changed {
            self.segment.file.sync()?;
        }
        let holes =
            std::mem::take(&mut self.holes).into_iter().filter(|hole| !hole.is_empty()).collect::<Vec<_>>();
        if holes.is_empty() {
            return Ok(());
        }
        for hole in holes {
            self.overwrite(hole.clone(), || self.segment.file.erase(hole.clone()))?;
        }
        self.segment.file.sync()
    }
}

/// The offset of the body of a block in the bytes that it is a slice of.
fn offset_in(bytes: &Bytes, block: &Block) -> u64 {
    block.body.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr()) as u64
}

/// Erases bytes of a segment that are no record: they may be of a purged message. True if bytes were changed.
fn erase_damage(shared: &Shared, segment: &Segment, topics: &BTreeMap<Arc<str>, u64>) -> io::Result<bool> {
    let last_purged = topics.values().max().copied().unwrap_or(0);
    let is_damaged = {
        let state = shared.state();
        let next = state.segments.iter().find(|next| next.first_sequence > segment.first_sequence);
        let end = next.map_or(u64::MAX, |next| next.first_sequence).min(last_purged.saturating_add(1));
        let mut damaged = state.damaged.range(..end);
        damaged.any(|(_, to)| *to >= segment.first_sequence)
    };
    if !is_damaged {
        return Ok(false);
    }
    let bytes = segment.read(0, segment.blocks_end())?;
    let scan = Scan::new(&bytes, segment.first_sequence, segment.salt());
    let damage = scan.damage.iter().filter(|damage| damage.sequences.0 <= last_purged);
    let mut is_changed = false;
    for range in damage.map(|damage| damage.bytes.clone()).chain([scan.tail.clone()]) {
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        let seen = bytes.get(at(range.start)..at(range.end)).unwrap_or_default();
        if seen.iter().any(|byte| *byte != 0) {
            let erase = || segment.file.erase(range.clone());
            segment.file.write_over_bad_sectors(range.clone(), erase)?;
            is_changed = true;
        }
    }
    Ok(is_changed)
}

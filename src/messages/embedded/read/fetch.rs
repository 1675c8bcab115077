//! Reads messages in the order of their sequence: the newest from memory, the others from disk.
//!
//! From disk they are read run by run, or one by one by the index if few messages of a segment match. Reading from disk runs
//! on a thread that may block.

use std::{
    io, slice,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::{Bytes, BytesMut};

use super::{
    batch::{Bounds, Taken},
    find::last_live,
    snapshot::Source,
};
use crate::blocking::{Pool, Running, give_way};
use crate::messages::{
    batch::{BatchKey, ReadBatch},
    embedded::{
        Embedded, Shared, State,
        format::{
            block::Block,
            erased::Erased,
            footer::{Found, Posting, SparseEntry},
        },
        index::{
            block_run::{BlockTimes, blocks_of, publish_time},
            cache::Plan,
            segment::Segment,
        },
        time_of,
    },
    topic::{self, Pattern},
};

/// The number of runs that are read for one batch; after that, the subscription can report how far it has come.
const MAX_RUNS: usize = 64;

/// A reading that finds nothing ends after this time, so that the subscription can send a heartbeat.
const MAX_READ: Duration = Duration::from_millis(50);

/// The number of times that a reading is repeated because an index was damaged; after that, memory must be damaged.
const MAX_RETRIES: usize = 100;

/// The most messages that are read one by one for a batch.
const MAX_POSTINGS: usize = 1024;

impl Embedded {
    /// A batch after a sequence that another subscription has read, if it is known. The limits are the most messages, the
    /// size, and the last sequence.
    pub fn read_again(
        &self,
        after: u64,
        patterns: &Arc<[Pattern]>,
        limits: (usize, usize, u64),
    ) -> Option<ReadBatch> {
        let state = self.shared.state();
        if state.damage_after(after).is_some_and(|(from, _)| from <= limits.2) {
            return None;
        }
        let removal_epoch = state.topics.removal_epoch();
        self.shared.batch_cache.find(&BatchKey { after, removal_epoch, limits, patterns: patterns.clone() })
    }

    /// Reads a batch after a sequence.
    pub async fn read(
        &self,
        after: u64,
        patterns: &Arc<[Pattern]>,
        mut bounds: Bounds,
    ) -> io::Result<ReadBatch> {
        {
            let state = self.shared.state();
            if let Some(damage) = bounds.end_before(after, state.damage_after(after)) {
                return Ok(damage);
            }
            let limits = (bounds.max_items, bounds.max_bytes, bounds.last);
            let key = BatchKey {
                after,
                removal_epoch: state.topics.removal_epoch(),
                limits,
                patterns: patterns.clone(),
            };
            let is_shared = bounds.selection.has_all_after(after);
            if let Some(blocks) = state.recent.from(after + 1, bounds.max_bytes) {
                let mut batch = ReadBatch::empty(after);
                if batch.take(&blocks, patterns, &state.topics, &bounds, None) == Taken::All {
                    let last =
                        blocks.last().map_or(bounds.last, |block| block.last_sequence.min(bounds.last));
                    batch.delivered_up_to = batch.delivered_up_to.max(last);
                }
                if is_shared {
                    self.shared.batch_cache.keep(key, &mut batch);
                }
                return Ok(batch);
            }
        }
        let (shared, patterns) = (self.shared.clone(), patterns.clone());
        blocking(self.pool(), move || shared.read(after, &patterns, &bounds)).await
    }

    /// Where the log is read.
    pub fn pool(&self) -> &Pool {
        &self.shared.config.pool
    }

    /// Finds the last messages of the topics that match, for a subscription that began at `head`.
    pub fn find_snapshot(&self, patterns: &Arc<[Pattern]>, head: u64) -> Running<io::Result<Source>> {
        let (shared, patterns) = (self.shared.clone(), patterns.clone());
        self.pool().run(move || retrying(|| shared.snapshot(&patterns, head)))
    }

    /// Reads messages of a snapshot after a sequence, for a subscription that began at `head`.
    pub async fn read_snapshot(
        &self,
        source: Source,
        patterns: &Arc<[Pattern]>,
        after: u64,
        head: u64,
        bounds: Bounds,
    ) -> io::Result<ReadBatch> {
        let (shared, patterns) = (self.shared.clone(), patterns.clone());
        blocking(self.pool(), move || shared.read_snapshot(&source, &patterns, after, head, &bounds)).await
    }

    /// The last message of a topic that has not expired: its sequence, its time, and its bytes unless they are damaged.
    pub async fn read_last(&self, topic: String) -> io::Result<Option<(u64, SystemTime, Option<Bytes>)>> {
        let shared = self.shared.clone();
        blocking(self.pool(), move || {
            let _reading = shared.reading();
            let (known, segments) = {
                let state = shared.state();
                (state.topics.get(&topic).cloned(), state.segments.clone())
            };
            let Some(known) = known else { return Ok(None) };
            let last = last_live(&shared, &segments, &topic, &known, &shared.moment())?;
            let Some((segment, posting)) = last else { return Ok(None) };
            let time = time_of(publish_time(&segment, &posting)?);
            let bytes = segment.file.read_soundly(posting.offset.into(), posting.length as usize)?;
            let is_intact = crc32c::crc32c(&bytes) == posting.checksum;
            // No subscription reads a topic of the server's own: what is damaged there is no gap.
            if !is_intact && !topic::is_reserved(&topic) {
                shared.note_damage(&segment, posting.sequence, posting.sequence)?;
            }
            Ok(Some((posting.sequence, time, is_intact.then(|| bytes.into()))))
        })
        .await
    }

    /// The sequence before the last `count` messages that match.
    pub async fn start_of_last(&self, count: u64, patterns: &Arc<[Pattern]>, head: u64) -> io::Result<u64> {
        let (shared, patterns) = (self.shared.clone(), patterns.clone());
        blocking(self.pool(), move || shared.start_of_last(count, &patterns, head)).await
    }

    /// The sequence before the first message with a time, in nanoseconds since 1970, or a later one; at most `head`.
    pub async fn before_time(&self, time: u64, head: u64) -> io::Result<u64> {
        let shared = self.shared.clone();
        blocking(self.pool(), move || Ok(shared.before_time(time)?.min(head))).await
    }
}

impl State {
    /// The first damaged range that ends after a sequence.
    pub(super) fn damage_after(&self, after: u64) -> Option<(u64, u64)> {
        self.damaged.iter().find(|(_, to)| **to > after).map(|(from, to)| (*from, *to))
    }

    /// The first damaged range that ends after a sequence, and of which no index has the times and the topics of its
    /// messages.
    pub(super) fn unknown_damage_after(&self, after: u64) -> Option<(u64, u64)> {
        let is_in_index = |from: u64, to: u64| {
            let next = self.segments.partition_point(|segment| segment.first_sequence <= from);
            let segment = next.checked_sub(1).and_then(|place| self.segments.get(place));
            // A compacted segment may have replaced others with a lost one between them.
            let whole = segment.filter(|segment| segment.is_sealed() && segment.replaces_up_to == 0);
            whole.is_some_and(|segment| {
                let summary = segment.summary();
                summary.first_sequence <= from && to <= summary.last_sequence
            })
        };
        let damaged = self.damaged.iter().map(|(from, to)| (*from, *to));
        { damaged }.find(|(from, to)| *to > after && !is_in_index(*from, *to))
    }
}

impl Shared {
    /// The segments that may hold messages from a sequence on.
    pub(super) fn segments_from(&self, sequence: u64) -> Vec<Arc<Segment>> {
        let state = self.state();
        let start = state.segments.partition_point(|segment| segment.first_sequence <= sequence);
        state.segments.iter().skip(start.saturating_sub(1)).cloned().collect()
    }

    /// The bounds of a reading that has begun. Messages that a sweep has erased since `bounds` were made have expired, and
    /// are not taken for damaged.
    pub(super) fn after_sweep(&self, bounds: &Bounds) -> Bounds {
        Bounds { moment: bounds.moment.clone().after_sweep(self.timeline.swept()), ..bounds.clone() }
    }

    fn read(&self, after: u64, patterns: &[Pattern], bounds: &Bounds) -> io::Result<ReadBatch> {
        let _reading = self.reading();
        let mut bounds = self.after_sweep(bounds);
        let start = Instant::now();
        // Again: an index that was built again may have shown more.
        if let Some(damage) = bounds.end_before(after, self.state().damage_after(after)) {
            return Ok(damage);
        }
        let mut batch = ReadBatch::empty(after);
        let segments = self.segments_from(after + 1);
        for (place, segment) in segments.iter().enumerate() {
            let summary = segment.summary();
            if summary.last_sequence <= batch.delivered_up_to {
                continue;
            }
            if segment.first_sequence > bounds.last {
                break;
            }
            if bounds.selection.has_none(summary.last_sequence, summary.min_time, summary.max_time) {
                batch.delivered_up_to = summary.last_sequence.min(bounds.last);
                continue;
            }
            // Messages before the next segment are in this one or in none.
            let end = segments.get(place + 1).map_or(u64::MAX, |next| next.first_sequence.saturating_sub(1));
            let bounds = Bounds { last: bounds.last.min(end), ..bounds.clone() };
            let is_done = match self.sound(segment.plan(&self.cache, patterns), segment)?.as_ref() {
                Plan::Runs => self.read_runs(segment, patterns, &bounds, &mut batch)?,
                Plan::Topics(topics) => self.read_topics(segment, topics, &bounds, &mut batch)?,
            };
            if !is_done {
                return Ok(batch);
            }
            batch.delivered_up_to =
                batch.delivered_up_to.max(bounds.last.min(segment.summary().last_sequence));
            if start.elapsed() >= MAX_READ {
                return Ok(batch);
            }
        }
        batch.delivered_up_to = batch.delivered_up_to.max(bounds.last);
        Ok(batch)
    }

    /// Reads a part of a segment by runs. True if nothing is left to read in it.
    fn read_runs(
        &self,
        segment: &Segment,
        patterns: &[Pattern],
        bounds: &Bounds,
        batch: &mut ReadBatch,
    ) -> io::Result<bool> {
        let mut count = 0;
        while count < MAX_RUNS {
            let Some(run) = segment.run_from_sequence(batch.delivered_up_to + 1) else { return Ok(true) };
            if run.entry.first_sequence > bounds.last {
                return Ok(true);
            }
            let SparseEntry { last_sequence, min_time, max_time, .. } = run.entry;
            if bounds.selection.has_none(last_sequence, min_time, max_time) && last_sequence <= bounds.last {
                batch.delivered_up_to = last_sequence;
                continue;
            }
            count += 1;
            let (blocks, missing) = blocks_of(&segment.read(run.start, run.end)?, &run, segment.salt());
            let mut bounds = bounds.clone();
            if let Some((from, to)) = missing.into_iter().find(|(_, to)| *to > batch.delivered_up_to) {
                self.note_damage(segment, from, to)?;
                // The next read reports it.
                bounds.last = bounds.last.min(from.saturating_sub(1));
            }
            // The state is locked for one block at a time: one with many topics takes a while.
            let take = |block: &Arc<Block>| {
                give_way();
                let (block, state) = (slice::from_ref(block), self.state());
                batch.take(block, patterns, &state.topics, &bounds, Some(segment.salt()))
            };
            match blocks.iter().map(take).find(|taken| *taken != Taken::All).unwrap_or(Taken::All) {
                Taken::All => {}
                Taken::Full => return Ok(false),
                Taken::Damaged(sequence) => {
                    self.note_damage(segment, sequence, sequence)?;
                    return Ok(false);
                }
            }
            if bounds.last < run.entry.last_sequence {
                batch.delivered_up_to = batch.delivered_up_to.max(bounds.last);
                return Ok(false);
            }
            batch.delivered_up_to = batch.delivered_up_to.max(run.entry.last_sequence);
        }
        Ok(false)
    }

    /// Reads a part of a segment topic by topic. True if nothing is left to read in it.
    fn read_topics(
        &self,
        segment: &Arc<Segment>,
        topics: &[Arc<str>],
        bounds: &Bounds,
        batch: &mut ReadBatch,
    ) -> io::Result<bool> {
        let next = batch.delivered_up_to + 1;
        let (mut postings, mut horizon) = (Vec::new(), bounds.last);
        for topic in topics {
            let first_kept = self.state().topics.first_kept(topic);
            // One at least, and no more than fill the batch.
            let (mut count, mut bytes, mut last) = (0, batch.bytes, None);
            let takes = |posting: &Posting| {
                if let Some(last) = last.filter(|_| count == MAX_POSTINGS || bytes >= bounds.max_bytes) {
                    horizon = horizon.min(last);
                }
                (count, bytes, last) = (count + 1, bytes + posting.length as usize, Some(posting.sequence));
                posting.sequence <= horizon
            };
            let found = segment.postings_from(&self.cache, topic, next.max(first_kept), takes);
            postings.extend(self.sound(found, segment)?);
        }
        if topics.len() > 1 {
            postings.sort_unstable_by_key(|posting| posting.sequence);
        }
        let mut times = BlockTimes::default();
        let mut wanted = Vec::with_capacity(postings.len());
        for posting in postings.into_iter().take_while(|posting| posting.sequence <= horizon) {
            if times.is_selected(segment, &posting, &bounds.selection)?
                && !times.has_expired(segment, &posting, &bounds.moment)?
            {
                wanted.push(posting);
            }
        }
        if !self.read_postings(segment, &wanted, bounds, batch)? {
            return Ok(false);
        }
        batch.delivered_up_to = batch.delivered_up_to.max(horizon.min(segment.summary().last_sequence));
        Ok(horizon == bounds.last)
    }

    /// Reads messages one by one. True if all were read.
    fn read_postings(
        &self,
        segment: &Segment,
        postings: &[Posting],
        bounds: &Bounds,
        batch: &mut ReadBatch,
    ) -> io::Result<bool> {
        let most = postings.iter().map(|posting| posting.length as usize).sum::<usize>();
        let mut out = BytesMut::with_capacity(most.min(bounds.max_bytes.saturating_sub(batch.bytes)));
        let mut is_done = true;
        for posting in postings {
            if batch.is_full(bounds) {
                is_done = false;
                break;
            }
            let start = out.len();
            out.resize(start + posting.length as usize, 0);
            let bytes = out.get_mut(start..).unwrap_or_default();
            segment.file.fill_soundly(bytes, posting.offset.into())?;
            if crc32c::crc32c(bytes) != posting.checksum {
                out.truncate(start);
                if is_erased(segment, posting)? {
                    continue;
                }
                self.note_damage(segment, posting.sequence, posting.sequence)?;
                is_done = false;
                break;
            }
            batch.count += 1;
            batch.bytes += posting.length as usize;
            batch.delivered_up_to = posting.sequence;
        }
        if !out.is_empty() {
            batch.items.push(out.freeze());
        }
        Ok(is_done)
    }

    /// Unwraps what was read from an index. If the footer is damaged, this builds the index again from the blocks, and the
    /// error [`io::ErrorKind::Interrupted`] makes [`retrying`] repeat the reading.
    pub fn sound<T>(&self, found: Found<T>, segment: &Segment) -> io::Result<T> {
        if let Ok(found) = found? {
            return Ok(found);
        }
        tracing::error!(path = %segment.path.display(), "the index of a segment is damaged: it is built again from the messages");
        self.rebuild(segment)?;
        Err(io::ErrorKind::Interrupted.into())
    }

    /// Records that messages of a segment are damaged on disk.
    ///
    /// If the segment was deleted or replaced meanwhile, its messages are removed, or another file has them: then this
    /// records nothing, and the error [`io::ErrorKind::Interrupted`] makes [`retrying`] repeat the reading without it.
    pub fn note_damage(&self, segment: &Segment, from: u64, to: u64) -> io::Result<()> {
        let mut state = self.state_mut();
        let place =
            state.segments.binary_search_by_key(&segment.first_sequence, |other| other.first_sequence);
        let current = place.ok().and_then(|place| state.segments.get(place));
        // Not by its id: its index may have been written or built again.
        if current.is_none_or(|current| !Arc::ptr_eq(&current.file, &segment.file)) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        tracing::error!(from, to, "messages are damaged on disk and are not served");
        let known = state.damaged.entry(from).or_insert(to);
        *known = to.max(*known);
        Ok(())
    }
}

/// Whether a message is erased whose bytes are not those that were written.
fn is_erased(segment: &Segment, posting: &Posting) -> io::Result<bool> {
    let Some(run) = segment.run_at_offset(posting.offset) else { return Ok(false) };
    let (blocks, _) = blocks_of(&segment.read(run.start, run.end)?, &run, segment.salt());
    let has = |block: &Arc<Block>| {
        let place = block.entries.binary_search_by_key(&posting.sequence, |entry| entry.sequence);
        let entry = place.ok().and_then(|place| block.entries.get(place));
        entry.is_some_and(|entry| Erased::of(block, segment.salt()).has(entry))
    };
    Ok(blocks.iter().any(has))
}

/// Runs work on a thread that may block, and repeats it while indexes are built again.
async fn blocking<T: Send + 'static>(
    pool: &Pool,
    work: impl Fn() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    pool.run(move || retrying(work)).await?
}

/// Repeats work until no index had to be built again.
pub fn retrying<T>(work: impl Fn() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..MAX_RETRIES {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
    work()
}

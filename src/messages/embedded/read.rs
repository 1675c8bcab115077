//! Reads messages in the order of their sequence: from memory where they are recent, else from disk.
//!
//! From disk they are read page by page, or, where few of a segment match, one by one by its index. What blocks a
//! thread is done on a thread that may block.

use std::{io, sync::Arc, time::SystemTime};

use bytes::{Bytes, BytesMut};
use memchr::memmem;

use super::{
    Embedded, Shared,
    block::{self, BLOCK_MAGIC, Block, Header, MARK_BYTES},
    cut::{self, Bounds, Cut, Taken},
    footer::Posting,
    millis, nanos,
    segment::{Extent, Found, Plan, Segment},
    time_of,
    topics::Topic,
};
use crate::messages::{Event, topic::Pattern};

/// How many pages are looked at for one batch: then the reader may be told how far it has come.
const MAX_PAGES: usize = 64;

/// How often a reading begins again because an index was damaged: more often than that, memory is.
const MAX_RETRIES: usize = 100;

/// How many messages are read one by one for a batch, at the most.
const MAX_POSTINGS: usize = 1024;

impl Embedded {
    /// Reads a batch behind the sequence `after`.
    pub async fn read(&self, after: u64, patterns: &Arc<[Pattern]>, mut bounds: Bounds) -> io::Result<Cut> {
        {
            let state = self.shared.state();
            let damaged = state.damaged.iter().find(|(_, to)| **to > after).map(|(from, to)| (*from, *to));
            if let Some((from, to)) = damaged.filter(|(from, _)| *from <= bounds.last) {
                if from <= after + 1 {
                    let event = Some(Event::Damaged { from, to });
                    return Ok(Cut { through: to.min(bounds.last), event, ..Cut::default() });
                }
                bounds.last = from - 1;
            }
            if let Some(blocks) = state.recent.from(after + 1, bounds.max_bytes) {
                let mut cut = Cut::nothing(after);
                if cut.take(&blocks, patterns, &state.topics, &bounds, true) == Taken::All {
                    let last =
                        blocks.last().map_or(bounds.last, |block| block.last_sequence.min(bounds.last));
                    cut.through = cut.through.max(last);
                }
                return Ok(cut);
            }
        }
        let (shared, patterns) = (self.shared.clone(), patterns.clone());
        blocking(move || shared.read(after, &patterns, bounds)).await
    }

    /// Reads these messages, of which each is the last of its topic, in the order of their sequence.
    pub async fn read_each(&self, messages: Vec<(u64, Arc<str>)>, bounds: Bounds) -> io::Result<Cut> {
        let shared = self.shared.clone();
        blocking(move || shared.read_each(&messages, bounds)).await
    }

    /// The last message of each topic that matches, of those behind `after` and not behind `through`, by sequence: at
    /// most so many.
    pub async fn lasts(
        &self,
        patterns: &Arc<[Pattern]>,
        after: u64,
        through: u64,
        most: usize,
        now: u64,
    ) -> io::Result<Vec<(u64, Arc<str>)>> {
        let (shared, patterns) = (self.shared.clone(), patterns.clone());
        blocking(move || shared.lasts(&patterns, after, through, most, now)).await
    }

    /// The last message of a topic that has not expired: its sequence, its time, and its bytes, if they are not damaged.
    pub async fn read_last(&self, topic: String) -> io::Result<Option<(u64, SystemTime, Option<Bytes>)>> {
        let shared = self.shared.clone();
        blocking(move || {
            let (known, segments) = {
                let state = shared.state();
                (state.topics.get(&topic).cloned(), state.segments.clone())
            };
            let Some(known) = known else { return Ok(None) };
            let last = last_live(&shared, &segments, &topic, &known, millis(shared.now()))?;
            let Some((segment, posting)) = last else { return Ok(None) };
            let time = time_of(shared.time_at(&segment, posting.offset)?);
            let bytes = segment.file.read(posting.offset.into(), posting.length as usize)?;
            let is_intact = crc32c::crc32c(&bytes) == posting.checksum;
            if !is_intact {
                shared.note_damage(posting.sequence, posting.sequence);
            }
            Ok(Some((posting.sequence, time, is_intact.then(|| bytes.into()))))
        })
        .await
    }

    /// The sequence behind which the last `count` messages that match are.
    pub async fn before_last(
        &self,
        count: u64,
        patterns: &Arc<[Pattern]>,
        head: u64,
        now: u64,
    ) -> io::Result<u64> {
        let (shared, patterns) = (self.shared.clone(), patterns.clone());
        blocking(move || shared.before_last(count, &patterns, head, now)).await
    }

    /// The sequence behind which the messages published at a time or later are.
    pub async fn before_time(&self, time: SystemTime, head: u64) -> io::Result<u64> {
        let shared = self.shared.clone();
        blocking(move || Ok(shared.before_time(nanos(time))?.min(head))).await
    }
}

impl Shared {
    /// The segments that may hold messages from a sequence on.
    fn segments_from(&self, sequence: u64) -> Vec<Arc<Segment>> {
        let state = self.state();
        let start = state.segments.partition_point(|segment| segment.first_sequence <= sequence);
        state.segments.iter().skip(start.saturating_sub(1)).cloned().collect()
    }

    fn read(&self, after: u64, patterns: &[Pattern], bounds: Bounds) -> io::Result<Cut> {
        let mut cut = Cut::nothing(after);
        let segments = self.segments_from(after + 1);
        for (place, segment) in segments.iter().enumerate() {
            if segment.summary().last_sequence <= cut.through {
                continue;
            }
            if segment.first_sequence > bounds.last {
                break;
            }
            // What the next segment does not hold, this one or none does.
            let end = segments.get(place + 1).map_or(u64::MAX, |next| next.first_sequence.saturating_sub(1));
            let bounds = Bounds { last: bounds.last.min(end), ..bounds };
            let is_done = match self.sound(segment.plan(&self.cache, patterns), segment)? {
                Plan::Pages => self.read_pages(segment, patterns, &bounds, &mut cut)?,
                Plan::Topics(topics) => self.read_topics(segment, &topics, &bounds, &mut cut)?,
            };
            if !is_done {
                return Ok(cut);
            }
            cut.through = cut.through.max(bounds.last.min(segment.summary().last_sequence));
        }
        cut.through = cut.through.max(bounds.last);
        Ok(cut)
    }

    /// True if nothing more of the segment is to be read.
    fn read_pages(
        &self,
        segment: &Segment,
        patterns: &[Pattern],
        bounds: &Bounds,
        cut: &mut Cut,
    ) -> io::Result<bool> {
        for _ in 0..MAX_PAGES {
            let Some(extent) = segment.page_of(cut.through + 1) else { return Ok(true) };
            if extent.page.first_sequence > bounds.last {
                return Ok(true);
            }
            let (blocks, missing) = blocks_of(&segment.read(extent.start, extent.end)?, &extent);
            let mut bounds = *bounds;
            if let Some((from, to)) = missing.into_iter().find(|(_, to)| *to > cut.through) {
                self.note_damage(from, to);
                // The next read tells.
                bounds.last = bounds.last.min(from.saturating_sub(1));
            }
            let taken = cut.take(&blocks, patterns, &self.state().topics, &bounds, false);
            match taken {
                Taken::All => {}
                Taken::Full => return Ok(false),
                Taken::Damaged(sequence) => {
                    self.note_damage(sequence, sequence);
                    return Ok(false);
                }
            }
            if bounds.last < extent.page.last_sequence {
                cut.through = cut.through.max(bounds.last);
                return Ok(false);
            }
            cut.through = cut.through.max(extent.page.last_sequence);
        }
        Ok(false)
    }

    /// True if nothing more of the segment is to be read.
    fn read_topics(
        &self,
        segment: &Arc<Segment>,
        topics: &[Arc<str>],
        bounds: &Bounds,
        cut: &mut Cut,
    ) -> io::Result<bool> {
        let next = cut.through + 1;
        let (mut postings, mut horizon) = (Vec::new(), bounds.last);
        for topic in topics {
            let floor = self.state().topics.floor(topic);
            let found = segment.postings_from(&self.cache, topic, next.max(floor), MAX_POSTINGS);
            let found = self.sound(found, segment)?;
            if found.len() == MAX_POSTINGS
                && let Some(last) = found.last()
            {
                horizon = horizon.min(last.sequence);
            }
            postings.extend(found);
        }
        postings.retain(|posting| posting.sequence <= horizon && !posting.has_expired(bounds.now));
        postings.sort_unstable_by_key(|posting| posting.sequence);
        if let Some(until) = bounds.until {
            let past = postings.iter().position(|posting| {
                segment.summary().last_time > until
                    && self.time_at(segment, posting.offset).is_ok_and(|time| time > until)
            });
            if let Some(past) = past {
                postings.truncate(past);
                let is_done = self.read_postings(segment, &postings, bounds, cut)?;
                cut.is_past_time = is_done;
                return Ok(false);
            }
        }
        if !self.read_postings(segment, &postings, bounds, cut)? {
            return Ok(false);
        }
        cut.through = cut.through.max(horizon.min(segment.summary().last_sequence));
        Ok(horizon == bounds.last)
    }

    /// True if all of them were read.
    fn read_postings(
        &self,
        segment: &Segment,
        postings: &[Posting],
        bounds: &Bounds,
        cut: &mut Cut,
    ) -> io::Result<bool> {
        let mut out = BytesMut::new();
        let mut is_done = true;
        for posting in postings {
            if cut.is_full(bounds) {
                is_done = false;
                break;
            }
            let start = out.len();
            out.resize(start + posting.length as usize, 0);
            let bytes = out.get_mut(start..).unwrap_or_default();
            segment.file.read_exact_at(bytes, posting.offset.into())?;
            if crc32c::crc32c(bytes) != posting.checksum {
                out.truncate(start);
                self.note_damage(posting.sequence, posting.sequence);
                is_done = false;
                break;
            }
            cut.count += 1;
            cut.bytes += posting.length as usize;
            cut.through = posting.sequence;
        }
        if !out.is_empty() {
            cut.items.push(out.freeze());
        }
        Ok(is_done)
    }

    fn read_each(&self, messages: &[(u64, Arc<str>)], bounds: Bounds) -> io::Result<Cut> {
        let mut cut = Cut::default();
        for (sequence, topic) in messages {
            if cut.is_full(&bounds) {
                return Ok(cut);
            }
            let segments = self.segments_from(*sequence);
            let Some(segment) = segments.first() else { continue };
            let found = segment.postings_from(&self.cache, topic, *sequence, 1);
            let postings = self.sound(found, segment)?;
            // It may have been removed, or have expired, since it was found.
            let is_it = *sequence >= self.state().topics.floor(topic)
                && postings.iter().all(|it| it.sequence == *sequence && !it.has_expired(bounds.now));
            if is_it && !self.read_postings(segment, &postings, &bounds, &mut cut)? {
                let event = Some(Event::Damaged { from: *sequence, to: *sequence });
                if cut.count == 0 {
                    return Ok(Cut { through: *sequence, event, ..cut });
                }
                return Ok(cut);
            }
            cut.through = *sequence;
        }
        Ok(cut)
    }

    fn lasts(
        &self,
        patterns: &[Pattern],
        after: u64,
        through: u64,
        most: usize,
        now: u64,
    ) -> io::Result<Vec<(u64, Arc<str>)>> {
        let (mut lasts, mut expired, segments) = {
            let state = self.state();
            let mut lasts = Vec::new();
            let mut expired = Vec::new();
            for (name, topic) in state.topics.matching(patterns) {
                if topic.held.last_expires != 0 && topic.held.last_expires <= now {
                    expired.push((name.clone(), topic.clone()));
                } else if (after + 1..=through).contains(&topic.held.last.0) {
                    lasts.push((topic.held.last.0, name.clone()));
                }
            }
            (lasts, expired, state.segments.clone())
        };
        for (name, topic) in expired.drain(..) {
            let last = last_live(self, &segments, &name, &topic, now)?;
            let sequence = last.map_or(0, |(_, posting)| posting.sequence);
            if (after + 1..=through).contains(&sequence) {
                lasts.push((sequence, name));
            }
        }
        if lasts.len() > most {
            lasts.select_nth_unstable_by_key(most, |(sequence, _)| *sequence);
            lasts.truncate(most);
        }
        lasts.sort_unstable_by_key(|(sequence, _)| *sequence);
        Ok(lasts)
    }

    fn before_last(&self, count: u64, patterns: &[Pattern], head: u64, now: u64) -> io::Result<u64> {
        let mut left = usize::try_from(count).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(head);
        }
        for segment in self.segments_from(0).iter().rev() {
            let mut sequences = match self.sound(segment.plan(&self.cache, patterns), segment)? {
                Plan::Pages => {
                    let mut place = segment.page_count();
                    while let Some(before) = place.checked_sub(1) {
                        place = before;
                        let Some(extent) = segment.page(place) else { break };
                        let (blocks, _) = blocks_of(&segment.read(extent.start, extent.end)?, &extent);
                        let state = self.state();
                        let found = blocks
                            .iter()
                            .flat_map(|block| cut::matching(block, patterns, &state.topics, now));
                        let found = found.filter(|sequence| *sequence <= head).collect::<Vec<_>>();
                        match found.len().checked_sub(left) {
                            Some(over) => return Ok(found.get(over).map_or(head, |sequence| sequence - 1)),
                            None => left -= found.len(),
                        }
                    }
                    continue;
                }
                Plan::Topics(topics) => {
                    let mut sequences = Vec::new();
                    for topic in &topics {
                        let floor = self.state().topics.floor(topic);
                        let postings = self.sound(segment.postings(&self.cache, topic), segment)?;
                        let live = postings.iter().filter(|p| p.sequence >= floor && !p.has_expired(now));
                        sequences.extend(live.map(|posting| posting.sequence));
                    }
                    sequences
                }
            };
            sequences.retain(|sequence| *sequence <= head);
            sequences.sort_unstable();
            match sequences.len().checked_sub(left) {
                Some(over) => return Ok(sequences.get(over).map_or(head, |sequence| sequence - 1)),
                None => left -= sequences.len(),
            }
        }
        Ok(0)
    }

    /// The sequence before the first message of a time, in nanoseconds since 1970, or of a later one.
    pub fn before_time(&self, time: u64) -> io::Result<u64> {
        for segment in self.segments_from(0) {
            if segment.summary().last_time < time || segment.summary().messages == 0 {
                continue;
            }
            for place in segment.page_at(time)..segment.page_count() {
                let Some(extent) = segment.page(place) else { break };
                let (blocks, _) = blocks_of(&segment.read(extent.start, extent.end)?, &extent);
                if let Some(block) = blocks.iter().find(|block| block.time >= time) {
                    return Ok(block.first_sequence - 1);
                }
            }
        }
        Ok(u64::MAX)
    }

    /// The time of the message at an offset of a segment.
    pub fn time_at(&self, segment: &Segment, offset: u32) -> io::Result<u64> {
        let Some(extent) = segment.page_with(offset) else { return Ok(0) };
        let bytes = segment.read(extent.start, extent.end)?;
        let (blocks, _) = blocks_of(&bytes, &extent);
        let place = usize::try_from(u64::from(offset) - extent.start).unwrap_or(usize::MAX);
        let is_in = |block: &&Arc<Block>| {
            // Both are slices of the page.
            let start = block.body.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr());
            (start..start + block.body.len()).contains(&place)
        };
        Ok(blocks.iter().find(is_in).map_or(extent.page.time, |block| block.time))
    }

    /// What an index says. Where the footer is damaged, it is made anew from the blocks, and
    /// [`io::ErrorKind::Interrupted`] says that the reading has to begin again.
    pub fn sound<T>(&self, found: Found<T>, segment: &Segment) -> io::Result<T> {
        if let Ok(found) = found? {
            return Ok(found);
        }
        tracing::error!(path = %segment.path.display(), "the index of a segment is damaged: it is made anew");
        self.rebuild(segment)?;
        Err(io::ErrorKind::Interrupted.into())
    }

    /// Takes note of messages that are damaged on disk.
    pub fn note_damage(&self, from: u64, to: u64) {
        tracing::error!(from, to, "messages are damaged on disk and are not served");
        self.state_mut().damaged.insert(from, to);
    }
}

/// The last message of a topic that has not expired, and its segment.
pub fn last_live(
    shared: &Shared,
    segments: &[Arc<Segment>],
    name: &str,
    topic: &Topic,
    now: u64,
) -> io::Result<Option<(Arc<Segment>, Posting)>> {
    let holding = segments.iter().rev().filter(|segment| segment.first_sequence <= topic.held.last.0);
    for segment in holding.take_while(|segment| segment.summary().last_sequence >= topic.held.first.0) {
        let postings = shared.sound(segment.postings(&shared.cache, name), segment)?;
        let mut live = postings.iter().rev();
        let live = live.find(|posting| posting.sequence >= topic.removed.floor && !posting.has_expired(now));
        if let Some(posting) = live {
            return Ok(Some((segment.clone(), *posting)));
        }
    }
    Ok(None)
}

/// The blocks of a page, and the sequences that it should hold and that are in no block of it: first and last.
pub fn blocks_of(page: &Bytes, extent: &Extent) -> (Vec<Arc<Block>>, Vec<(u64, u64)>) {
    let (mut blocks, mut missing) = (Vec::<Arc<Block>>::new(), Vec::new());
    let mut expected = extent.page.first_sequence;
    let (mut at, mut is_damaged) = (0, false);
    while let Some(rest) = page.get(at..).filter(|rest| !rest.is_empty()) {
        // At a mark of a clean end nothing is missing.
        if block::read_mark(rest).is_ok() {
            at += MARK_BYTES;
            continue;
        }
        if let Some(block) = Block::read(&page.slice(at..)).ok().filter(|block| !block.body.is_empty()) {
            at += Header::read(rest).map_or(rest.len(), |header| header.block_bytes());
            if is_damaged && block.first_sequence > expected {
                missing.push((expected, block.first_sequence - 1));
            }
            is_damaged = false;
            expected = block.last_sequence + 1;
            blocks.push(Arc::new(block));
            continue;
        }
        is_damaged = true;
        match memmem::find(rest.get(1..).unwrap_or_default(), &BLOCK_MAGIC) {
            Some(next) => at += 1 + next,
            None => break,
        }
    }
    if expected <= extent.page.last_sequence {
        missing.push((expected, extent.page.last_sequence));
    }
    (blocks, missing)
}

/// Does something on a thread that may block, anew where an index was made anew.
async fn blocking<T: Send + 'static>(work: impl Fn() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let work = move || retrying(work);
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Does something until no index had to be made anew.
pub fn retrying<T>(work: impl Fn() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..MAX_RETRIES {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
    work()
}

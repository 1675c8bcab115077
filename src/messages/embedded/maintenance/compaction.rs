//! Frees the room of removed messages: deletes segments, or writes the rest of them into new ones.
//!
//! Adjacent segments that hold little become one, so that many years of a log that keeps only last messages are a few files.
//! A segment with message ids of the dedupe window is left alone, and so is a damaged one, because only its bytes show the
//! damage.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::messages::{
    clock::whole,
    embedded::{
        Shared,
        age::Moment,
        disk::{File, is_full},
        format::{
            block::{Block, Entry, Salt, place_of},
            erased::Erased,
            footer::{Footer, Held, Posting},
            scan::Scan,
            segment_header::{SegmentHeader, SegmentId},
            trim_points::TrimPoint,
        },
        index::{builder::IndexBuilder, live::Live, segment::Segment},
        maintenance::room,
        read::fetch::retrying,
    },
    topic,
};

/// A segment below this fraction of the nominal size is small, and is joined with its neighbours.
const SMALL: u64 = 8;

/// The number of small segments in a row that become one.
const MANY: usize = 8;

/// How long room is freed before other work is done.
const FREEING: Duration = Duration::from_secs(1);

/// The number of trim points that are dropped under one lock.
const FORGOTTEN_AT_ONCE: usize = 512;

/// How long segments are measured in one run of retention: a tenth of the usual pause between two runs.
const MEASURING: Duration = Duration::from_secs(2);

/// Deletes segments that hold nothing any more, and compacts those that hold little.
///
/// `moment` is the one at which expired messages were removed from the oldest end of topics. Messages that have expired
/// since then stay, so that no topic loses its last message here.
///
/// `goes_on` does other work, and is called before each segment is measured; false ends that. True is returned if there is
/// more to do after other work.
pub fn reclaim(shared: &Shared, moment: &Moment, goes_on: &dyn Fn() -> bool) -> io::Result<bool> {
    let removed = remove_leftovers(shared);
    if shared.leftovers().iter().any(|leftover| leftover.unlisted.is_some()) {
        // Another compacted segment may replace one that is not listed yet.
        return removed.map(|()| false);
    }
    measure(shared, moment, goes_on);
    let oldest = oldest_kept(shared);
    // From here on, only this thread replaces segments.
    let mut segments = shared.state().segments.clone();
    // The last one is being written.
    segments.pop();
    let (window, moment_of_ids) = (whole(shared.config.dedupe_window), shared.timeline.moment_of_ids());
    let (mut group, mut result) = (Group::new(moment.clone()), removed);
    // If the previous segment has no index, only the next one shows whether its end is missing.
    let mut has_open_end = false;
    let (start, before) = (Instant::now(), segments.len());
    for segment in segments {
        if start.elapsed() > FREEING && shared.state().segments.len() <= before {
            return result.map(|()| true);
        }
        let has_open_end = std::mem::replace(&mut has_open_end, !segment.is_sealed());
        let summary = segment.summary();
        let is_purged = segment.live.get().is_some_and(|measured| measured.is_purged);
        let is_held = summary.ids > 0 && summary.youngest(&moment_of_ids) <= window && !is_purged;
        let is_removed = segment.is_sealed() && summary.last_sequence < oldest;
        let (live, all) = match segment.live.get() {
            _ if is_held => (1, 1),
            _ if is_removed => (0, 1),
            Some(measured) => (measured.left, measured.all),
            None => (1, 1),
        };
        if live == 0 && !has_open_end {
            result = group.finish(shared).and(delete(shared, &segment)).and(result);
            continue;
        }
        if !segment.is_sealed() {
            // Without room for its index, it is read at the next start.
            let sealed =
                shared.seal(&segment).or_else(|error| if is_full(&error) { Ok(()) } else { Err(error) });
            result = sealed.and(result);
        }
        let is_thin = live < all / 2;
        let is_small = segment.blocks_end() <= shared.segment_bytes() / SMALL;
        if is_held || live == 0 || !segment.is_sealed() || !is_thin && !is_small {
            result = group.finish(shared).and(result);
            continue;
        }
        if group.live + live > shared.segment_bytes() || group.ends_before_damage(shared, &segment) {
            result = group.finish(shared).and(result);
        }
        group.live += live;
        group.is_thin |= is_thin;
        group.segments.push(segment);
    }
    group.finish(shared).and(result).map(|()| false)
}

/// Adjacent segments that could become one.
struct Group {
    segments: Vec<Arc<Segment>>,
    live: u64,
    is_thin: bool,
    moment: Moment,
}

impl Group {
    fn new(moment: Moment) -> Self {
        Self { segments: Vec::new(), live: 0, is_thin: false, moment }
    }

    /// Whether messages are damaged or lost between the group and a segment. A segment that replaced both would seem to
    /// have replaced the lost one, too.
    fn ends_before_damage(&self, shared: &Shared, segment: &Segment) -> bool {
        let Some(last) = self.segments.last() else { return false };
        let state = shared.state();
        let mut damaged = state.damaged.range(..segment.first_sequence);
        damaged.any(|(_, to)| *to >= last.first_sequence)
    }

    fn finish(&mut self, shared: &Shared) -> io::Result<()> {
        let Self { segments, is_thin, moment, .. } = std::mem::replace(self, Self::new(self.moment.clone()));
        if is_thin || segments.len() >= MANY { compact(shared, &segments, &moment) } else { Ok(()) }
    }
}

/// Messages, by topic, that have expired after the first kept one of their topic, and leave the disk.
type Expired = BTreeMap<Arc<str>, Held>;

/// The size of the messages of a segment that are neither removed nor expired, and the size of all. The first is an estimate:
/// if a topic is removed in part, it goes by the sequences.
pub fn live_bytes(shared: &Shared, segment: &Segment, moment: &Moment) -> io::Result<(u64, u64)> {
    let measured = measure_one(shared, segment, moment)?;
    Ok((measured.left, measured.all))
}

fn measure_one(shared: &Shared, segment: &Segment, moment: &Moment) -> io::Result<Live> {
    let boot = shared.timeline.boot();
    let epoch = shared.state().topics.removal_epoch();
    let (mut live, mut all, mut next_expiry, mut is_purged) = (0, 0, u64::MAX, true);
    let mut place = 0;
    while let Some(slice) = shared.sound(segment.slice(&shared.cache, place), segment)? {
        place += 1;
        let state = shared.state();
        slice.for_each(|name, held| {
            let TrimPoint { first_kept, purged_up_to, .. } = state.topics.trim_point(name);
            // The records of consumers have no message ids, and a purge does not remove them.
            is_purged &= topic::is_of_consumer(name) || purged_up_to >= held.last.sequence;
            let sequences = held.first.sequence..=held.last.sequence;
            // In doubt, all messages count as alive; but where nothing expires, a later look finds nothing new.
            let has_expired = moment.have_all_expired(sequences.clone(), held.all_expired);
            if !has_expired && held.all_expired != 0 {
                let left = moment.until_all_expired(sequences, held.all_expired);
                next_expiry = next_expiry.min(boot.saturating_add(left));
            }
            let bytes = if has_expired { held.bytes - held.expiring_bytes } else { held.bytes };
            all += held.bytes;
            live += if first_kept > held.last.sequence {
                0
            } else if first_kept <= held.first.sequence {
                bytes
            } else {
                let (left, all) =
                    (held.last.sequence - first_kept + 1, held.last.sequence - held.first.sequence + 1);
                (u128::from(bytes) * u128::from(left) / u128::from(all)).max(1).try_into().unwrap_or(bytes)
            };
        });
    }
    Ok(Live { left: live, all, epoch, next_expiry, is_purged })
}

/// No topic holds a message with a lower sequence.
fn oldest_kept(shared: &Shared) -> u64 {
    // A topic that begins meanwhile begins with a higher sequence.
    let mut oldest = shared.head.borrow().saturating_add(1);
    shared.for_each_topic(|_, _, topic| oldest = oldest.min(topic.held.first.sequence));
    oldest
}

/// Measures segments of which messages were removed or have expired since they were measured, the ones first that were not
/// measured for longest. With many topics and segments, this takes several runs.
fn measure(shared: &Shared, moment: &Moment, goes_on: &dyn Fn() -> bool) {
    let mut segments = shared.state().segments.clone();
    segments.pop();
    let (epoch, now) = (shared.state().topics.removal_epoch(), shared.timeline.boot());
    let is_due = |segment: &&Arc<Segment>| {
        segment.live.get().is_none_or(|live| live.epoch != epoch || now >= live.next_expiry)
    };
    let mut due = segments.iter().filter(is_due).collect::<Vec<_>>();
    due.sort_by_key(|segment| segment.live.get().map(|live| live.epoch));
    let start = Instant::now();
    for segment in due {
        if start.elapsed() > MEASURING || !goes_on() {
            return;
        }
        match retrying(|| measure_one(shared, segment, moment)) {
            Ok(live) => segment.live.set(live),
            // A failure with one segment does not stop the others.
            Err(error) => {
                tracing::error!(%error, path = %segment.path.display(), "a segment cannot be measured");
            }
        }
    }
}

/// Drops the oldest trim points of topics that hold no message, if there are too many. No segment has a message with a
/// sequence below `oldest`.
pub fn forget(shared: &Shared, oldest: u64) {
    let excess = shared.state().topics.excess();
    if excess == 0 {
        return;
    }
    let mut points = Vec::new();
    shared.for_each_gone(|_, trim_point| points.push(trim_point.first_kept));
    let Some(last) = excess.min(points.len()).checked_sub(1) else { return };
    let limit = oldest.min(*points.select_nth_unstable(last).1);
    // Without their trim points, their messages would be served again from memory.
    shared.state_mut().recent.drop_below(oldest);
    let mut names = Vec::new();
    shared.for_each_gone(|name, trim_point| {
        if trim_point.first_kept <= limit {
            names.push(name.clone());
        }
    });
    for some in names.chunks(FORGOTTEN_AT_ONCE) {
        shared.state_mut().topics.forget(some, limit);
    }
}

/// Deletes a segment in which everything is removed or has expired.
fn delete(shared: &Shared, segment: &Segment) -> io::Result<()> {
    let mut expired = Expired::new();
    let mut place = 0;
    // Messages of a segment without messages that are kept were removed, or have expired.
    while let Some(slice) = shared.sound(segment.slice(&shared.cache, place), segment)? {
        place += 1;
        let state = shared.state();
        slice.for_each(|name, held| {
            if held.all_expired != 0 && state.topics.first_kept(name) <= held.last.sequence {
                expired.insert(name.into(), *held);
            }
        });
    }
    let kept_from = lose_damage(shared, segment)?;
    shared.manifest.unlist(segment.first_sequence)?;
    shared.config.disk.remove(&segment.path)?;
    // Not before that: what cannot be removed yet must stay known, so that purged messages are erased there.
    {
        let mut state = shared.state_mut();
        state.topics.forget_expired(&expired);
        // Not by its id: its index may have been written or built again.
        state.segments.retain(|other| other.first_sequence != segment.first_sequence);
        state.damaged.retain(|_, to| *to >= kept_from);
    }
    shared.config.disk.sync_directory(&shared.directory)
}

/// With the oldest segment, the damage and the lost files before the next one, present or lost, become messages that were
/// removed, for which a reader that comes back gets a gap. Returns the first sequence from which damage stays known.
fn lose_damage(shared: &Shared, segment: &Segment) -> io::Result<u64> {
    let first = {
        let mut state = shared.state_mut();
        let mut others = state.segments.iter().map(|other| other.first_sequence);
        let oldest = others.find(|first| *first != segment.first_sequence);
        let Some(first) = oldest.filter(|first| *first > segment.first_sequence) else { return Ok(0) };
        let first = first.min(shared.manifest.first_lost_after(segment.first_sequence));
        let Some(last) = state.damaged.values().copied().filter(|to| *to < first).max() else {
            return Ok(first);
        };
        state.topics.lose_up_to(last);
        first
    };
    shared.write_trim_points_to_free()?;
    Ok(first)
}

/// Files whose messages are in others, and that are still to be removed.
#[derive(Debug)]
pub struct Leftover {
    /// The compacted segment that is not listed yet, and the first sequences of those that it replaces.
    unlisted: Option<(SegmentId, Vec<u64>)>,
    files: Vec<PathBuf>,
}

impl Leftover {
    /// Removes the files, after the compacted segment is listed.
    fn remove(&mut self, shared: &Shared) -> io::Result<()> {
        let disk = &shared.config.disk;
        disk.sync_directory(&shared.directory)?;
        if let Some((id, replaced)) = &self.unlisted {
            shared.manifest.list_compacted(*id, replaced)?;
            self.unlisted = None;
        }
        // If this is interrupted, the header of the new segment identifies those that are left.
        while let Some(path) = self.files.last() {
            match disk.remove(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
            self.files.pop();
        }
        disk.sync_directory(&shared.directory)
    }
}

/// Removes files, or keeps them for the next time.
fn remove(shared: &Shared, mut leftover: Leftover) -> io::Result<()> {
    let removed = leftover.remove(shared);
    if removed.is_err() {
        shared.leftovers().push(leftover);
    }
    removed
}

/// Removes the files that could not be removed before.
fn remove_leftovers(shared: &Shared) -> io::Result<()> {
    let leftovers = std::mem::take(&mut *shared.leftovers());
    let mut result = Ok(());
    for leftover in leftovers {
        result = result.and(remove(shared, leftover));
    }
    result
}

/// Writes the rest of some segments into one, which replaces them.
fn compact(shared: &Shared, segments: &[Arc<Segment>], moment: &Moment) -> io::Result<()> {
    let (Some(first), Some(last)) = (segments.first(), segments.last()) else { return Ok(()) };
    let disk = &shared.config.disk;
    let new = first.path.with_extension("new");
    let link = shared.manifest.link_of_compacted(first.first_sequence);
    let header = SegmentHeader {
        log: shared.identity,
        first_sequence: first.first_sequence,
        replaces_up_to: last.first_sequence,
        link: Some(link),
    };
    let header = SegmentHeader {
        replaces_up_to: header.replaces_up_to.max(first.replaces_up_to).max(last.replaces_up_to),
        ..header
    };
    let written = write(shared, segments, &new, header, moment).and_then(|written| {
        let Some((file, expired)) = written else { return Ok(None) };
        let SegmentHeader { log, first_sequence, replaces_up_to, .. } = header;
        let made = sealed_at(first.path.clone(), Arc::new(file), first_sequence, replaces_up_to, log.salt)?;
        disk.rename(&new, &first.path)?;
        Ok(Some((made, expired)))
    });
    let (made, expired) = match written {
        Ok(Some(written)) => written,
        not_written => {
            let removed = remove(shared, Leftover { unlisted: None, files: vec![new] });
            return match not_written {
                // What is removed can be erased in place without further room.
                Err(error) if is_full(&error) => {
                    tracing::debug!(%error, "there is no room to compact segments");
                    removed
                }
                result => result.and(removed),
            };
        }
    };
    // On disk, the header of the new file now says that it replaces the others. So it must here, whatever fails below.
    replace_all(shared, segments, made, &expired);
    let replaced = segments.iter().map(|segment| segment.first_sequence).collect::<Vec<_>>();
    let files = segments.iter().skip(1).rev().map(|segment| segment.path.clone()).collect();
    remove(shared, Leftover { unlisted: Some((link.id, replaced)), files })
}

/// Makes readers use one segment instead of those that it was made from.
fn replace_all(shared: &Shared, segments: &[Arc<Segment>], made: Segment, expired: &Expired) {
    // Not by their ids: a reader may have built the index of one of them again.
    let is_one = |other: &Segment| segments.iter().any(|one| one.first_sequence == other.first_sequence);
    let mut state = shared.state_mut();
    let place = state.segments.iter().position(|other| is_one(other));
    state.segments.retain(|other| !is_one(other));
    state.segments.insert(place.unwrap_or(0), Arc::new(made));
    state.topics.forget_expired(expired);
}

/// Writes the rest of some segments into a file. Returns the file, and the messages that have expired; `None` if a
/// segment is damaged.
fn write(
    shared: &Shared,
    segments: &[Arc<Segment>],
    new: &Path,
    header: SegmentHeader,
    moment: &Moment,
) -> io::Result<Option<(File, Expired)>> {
    let file = room::create(&shared.config.disk, &shared.directory, new)?;
    let mut buffer = header.to_bytes();
    let mut index = IndexBuilder::new(shared.identity.salt, header.bytes());
    let mut written = 0_u64;
    let mut expired = Expired::new();
    for segment in segments {
        let bytes = segment.read(0, segment.blocks_end())?;
        let scan = Scan::new(&bytes, segment.first_sequence, segment.salt());
        let mut is_sound = scan.damage.is_empty() && scan.tail.is_empty();
        for found in &scan.blocks {
            if let Some(block) = living(shared, &found.block, segment.salt(), moment, &mut expired) {
                is_sound &= block.entries.iter().all(|entry| block.is_intact(entry));
                let start = written + buffer.len() as u64;
                let body = block.put(&mut buffer, 0, shared.identity.salt);
                let at = |place: usize| written + place as u64;
                index.add(&block, start, at(body.start), at(body.end));
            }
        }
        if !is_sound {
            tracing::error!(path = %segment.path.display(), "a segment is damaged: its room is not freed");
            return Ok(None);
        }
        file.write_all_at(&buffer, written)?;
        written += buffer.len() as u64;
        buffer.clear();
    }
    let footer = index.to_footer();
    file.write_all_at(&footer, written)?;
    if file.len()? > written + footer.len() as u64 {
        // It was a spare file.
        file.set_len(written + footer.len() as u64)?;
    }
    file.sync()?;
    Ok(Some((file, expired)))
}

/// The rest of a block; `None` if it has none.
fn living(
    shared: &Shared,
    block: &Block,
    salt: Salt,
    moment: &Moment,
    expired: &mut Expired,
) -> Option<Block> {
    let floors = {
        let state = shared.state();
        block.topics.iter().map(|topic| state.topics.first_kept(topic)).collect::<Vec<_>>()
    };
    let mut left = Block { time: block.time, topics: block.topics.clone(), ..Block::default() };
    let (mut body, mut ids) = (Vec::new(), block.ids.iter().peekable());
    let mut erased = Erased::of(block, salt);
    for (place, entry) in (0_u32..).zip(&block.entries) {
        let id = ids.next_if(|(of, _)| *of == place);
        let first_kept = floors.get(entry.topic as usize).copied().unwrap_or(0);
        if entry.sequence < first_kept {
            continue;
        }
        if moment.has_expired(entry.sequence, block.time, entry.expires) || erased.has(entry) {
            let Some(topic) = block.topic(entry) else { continue };
            expired.entry(topic.clone()).or_default().add(&Posting::without_offset(entry, block.time));
            continue;
        }
        let start = place_of(body.len());
        body.extend_from_slice(block.body.get(entry.range()).unwrap_or_default());
        if let Some((_, id)) = id {
            left.ids.push((place_of(left.entries.len()), id.clone()));
        }
        left.entries.push(Entry { start, end: place_of(body.len()), ..*entry });
    }
    left.first_sequence = left.entries.first()?.sequence;
    left.last_sequence = left.entries.last()?.sequence;
    left.body = Bytes::from(body);
    left.compact();
    Some(left)
}

/// Opens a segment whose footer was written just now.
pub fn sealed(segment: &Segment) -> io::Result<Segment> {
    let (path, file) = (segment.path.clone(), segment.file.clone());
    sealed_at(path, file, segment.first_sequence, segment.replaces_up_to, segment.salt())
}

fn sealed_at(
    path: PathBuf,
    file: Arc<File>,
    first_sequence: u64,
    replaces_up_to: u64,
    salt: Salt,
) -> io::Result<Segment> {
    let unreadable = || io::Error::other("the index of a segment cannot be read back");
    let footer = Footer::read(&file, salt)?.ok_or_else(unreadable)?;
    Segment::sealed(path, file, first_sequence, replaces_up_to, footer)?.map_err(|_| unreadable())
}

//! Frees the room of removed messages: deletes segments, or writes what is left of them into new ones.
//!
//! Adjacent segments that hold little become one, so that many years of a log that keeps only last messages are a few files.
//! A segment with message ids of the dedupe window is left alone, and so is a damaged one, because only its bytes show the
//! damage.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;

use crate::messages::embedded::{
    Shared,
    disk::File,
    format::{
        block::{Block, Entry, Salt, place_of},
        footer::{Footer, Held, Posting},
        scan::Scan,
        segment_header::SegmentHeader,
    },
    index::segment::{IndexBuilder, Segment},
    millis, nanos,
};

/// A segment below this fraction of the nominal size is small, and is joined with its neighbours.
const SMALL: u64 = 8;

/// The number of small segments in a row that become one.
const MANY: usize = 8;

/// Deletes segments that hold nothing any more, and compacts those that hold little.
///
/// `now` is the time for which expired messages were removed from the oldest end of topics. Messages that have expired
/// since then stay, so that no topic loses its last message here.
pub fn reclaim(shared: &Shared, now: SystemTime) -> io::Result<()> {
    let mut segments = shared.state().segments.clone();
    // The last one is being written.
    segments.pop();
    let oldest_id =
        nanos(now).saturating_sub(u64::try_from(shared.config.dedupe_window.as_nanos()).unwrap_or(u64::MAX));
    let now = millis(now);
    let (mut group, mut result) = (Group::new(now), Ok(()));
    // If the previous segment has no index, only the next one shows whether its end is missing.
    let mut has_open_end = false;
    for segment in segments {
        let has_open_end = std::mem::replace(&mut has_open_end, !segment.is_sealed());
        let summary = segment.summary();
        let is_held = summary.ids > 0 && summary.last_time >= oldest_id;
        let live = if is_held { Ok((1, 1)) } else { live_bytes(shared, &segment, now) };
        // A failure with one segment does not stop the others.
        let (live, all) = live.unwrap_or_else(|error| {
            result = Err(error);
            (1, 1)
        });
        if live == 0 && !has_open_end {
            result = group.finish(shared).and(delete(shared, &segment)).and(result);
            continue;
        }
        if !segment.is_sealed() {
            result = shared.seal(&segment).and(result);
        }
        let is_thin = live < all / 2;
        let is_small = segment.blocks_end() <= shared.segment_bytes() / SMALL;
        if is_held || live == 0 || !segment.is_sealed() || !is_thin && !is_small {
            result = group.finish(shared).and(result);
            continue;
        }
        if group.live + live > shared.segment_bytes() {
            result = group.finish(shared).and(result);
        }
        group.live += live;
        group.is_thin |= is_thin;
        group.segments.push(segment);
    }
    group.finish(shared).and(result)
}

/// Adjacent segments that could become one.
struct Group {
    segments: Vec<Arc<Segment>>,
    live: u64,
    is_thin: bool,
    /// In milliseconds since 1970.
    now: u64,
}

impl Group {
    fn new(now: u64) -> Self {
        Self { segments: Vec::new(), live: 0, is_thin: false, now }
    }

    fn finish(&mut self, shared: &Shared) -> io::Result<()> {
        let Self { segments, is_thin, now, .. } = std::mem::replace(self, Self::new(self.now));
        if is_thin || segments.len() >= MANY { compact(shared, &segments, now) } else { Ok(()) }
    }
}

/// Messages, by topic, that have expired after the first kept one of their topic, and leave the disk.
type Expired = BTreeMap<Arc<str>, Held>;

/// The size of the messages of a segment that are neither removed nor expired, and the size of all. The first is an estimate:
/// if a topic is removed in part, it goes by the sequences.
pub fn live_bytes(shared: &Shared, segment: &Segment, now: u64) -> io::Result<(u64, u64)> {
    let (mut live, mut all) = (0, 0);
    let state = shared.state();
    let read = segment.for_each_topic(&shared.cache, |name, held| {
        let first_kept = state.topics.first_kept(name);
        let bytes = if now >= held.all_expired { held.bytes - held.expiring_bytes } else { held.bytes };
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
    drop(state);
    shared.sound(read, segment)?;
    Ok((live, all))
}

/// Deletes a segment in which everything is removed or has expired.
fn delete(shared: &Shared, segment: &Segment) -> io::Result<()> {
    let mut expired = Expired::new();
    let read = segment.for_each_topic(&shared.cache, |name, held| _ = expired.insert(name.into(), *held));
    shared.sound(read, segment)?;
    {
        let mut state = shared.state_mut();
        expired.retain(|name, held| state.topics.first_kept(name) <= held.last.sequence);
        state.topics.forget_expired(&expired);
        state.segments.retain(|other| other.id != segment.id);
        // Damage in removed messages is of no interest.
        let first = state.segments.first().map_or(0, |first| first.first_sequence);
        state.damaged.retain(|_, to| *to >= first);
    }
    shared.manifest.unlist(segment.first_sequence)?;
    shared.config.disk.remove(&segment.path)?;
    shared.config.disk.sync_directory(&shared.directory)
}

/// Writes what is left of some segments into one, which replaces them.
fn compact(shared: &Shared, segments: &[Arc<Segment>], now: u64) -> io::Result<()> {
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
    let written = write(shared, segments, &new, header, now).and_then(|written| {
        let Some((file, expired)) = written else { return Ok(None) };
        let SegmentHeader { log, first_sequence, replaces_up_to, .. } = header;
        let made = sealed_at(first.path.clone(), Arc::new(file), first_sequence, replaces_up_to, log.salt)?;
        disk.rename(&new, &first.path)?;
        Ok(Some((made, expired)))
    });
    let Ok(Some((made, expired))) = written else {
        // It would take room until the next start.
        let _ = disk.remove(&new);
        return written.map(|_| ());
    };
    // On disk, the header of the new file now says that it replaces the others. So it must here, whatever fails below.
    replace_all(shared, segments, made, &expired);
    disk.sync_directory(&shared.directory)?;
    let replaced = segments.iter().map(|segment| segment.first_sequence).collect::<Vec<_>>();
    shared.manifest.list_compacted(link.id, &replaced)?;
    // If this is interrupted, the header of the new segment identifies those that are left.
    for segment in segments.iter().skip(1) {
        disk.remove(&segment.path)?;
    }
    disk.sync_directory(&shared.directory)
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

/// Writes what is left of some segments into a file. Returns the file, and the messages that have expired; `None` if a
/// segment is damaged.
fn write(
    shared: &Shared,
    segments: &[Arc<Segment>],
    new: &Path,
    header: SegmentHeader,
    now: u64,
) -> io::Result<Option<(File, Expired)>> {
    let file = shared.config.disk.create(new)?;
    let mut buffer = header.to_bytes();
    let mut index = IndexBuilder::new(shared.identity.salt, header.bytes());
    let mut written = 0_u64;
    let mut expired = Expired::new();
    for segment in segments {
        let bytes = segment.read(0, segment.blocks_end())?;
        let scan = Scan::new(&bytes, segment.first_sequence, segment.salt());
        let is_sound =
            scan.damage.is_empty() && scan.tail.is_empty() && scan.blocks.iter().all(|found| found.is_intact);
        if !is_sound {
            tracing::error!(path = %segment.path.display(), "a segment is damaged: its room is not freed");
            return Ok(None);
        }
        for found in &scan.blocks {
            if let Some(block) = living(shared, &found.block, now, &mut expired) {
                let start = written + buffer.len() as u64;
                let body = block.put(&mut buffer, 0, shared.identity.salt);
                let at = |place: usize| written + place as u64;
                index.add(&block, start, at(body.start), at(body.end));
            }
        }
        file.write_all_at(&buffer, written)?;
        written += buffer.len() as u64;
        buffer.clear();
    }
    file.write_all_at(&index.to_footer(), written)?;
    file.sync()?;
    Ok(Some((file, expired)))
}

/// What is left of a block; `None` if nothing is.
fn living(shared: &Shared, block: &Block, now: u64, expired: &mut Expired) -> Option<Block> {
    let floors = {
        let state = shared.state();
        block.topics.iter().map(|topic| state.topics.first_kept(topic)).collect::<Vec<_>>()
    };
    let mut left = Block { time: block.time, topics: block.topics.clone(), ..Block::default() };
    let (mut body, mut ids) = (Vec::new(), block.ids.iter().peekable());
    for (place, entry) in (0_u32..).zip(&block.entries) {
        let id = ids.next_if(|(of, _)| *of == place);
        let first_kept = floors.get(entry.topic as usize).copied().unwrap_or(0);
        if entry.sequence < first_kept {
            continue;
        }
        if entry.has_expired(now) {
            let Some(topic) = block.topic(entry) else { continue };
            expired.entry(topic.clone()).or_default().add(&Posting::from(entry), block.time);
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

//! Frees the room of what is removed: deletes segments, or writes them anew without it.
//!
//! Segments that follow one another and of which little is left become one, so that many years of a log of which only
//! the last messages are kept are a few files. A segment that holds ids within the window in which they are known stays
//! as it is, and so does one that is damaged: its loss is found in its bytes.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;

use super::{
    Shared,
    block::{Block, Entry, Salt, SegmentHeader},
    disk::File,
    footer::{Footer, Held, Posting},
    millis, nanos,
    scan::Scan,
    segment::{Building, Segment},
};

/// A segment is small, and joined to its neighbours, if it has less than this part of a whole one.
const SMALL: u64 = 8;

/// So many small segments in a row become one.
const MANY: usize = 8;

/// Deletes segments of which nothing is left, and writes those anew of which little is.
///
/// `now` is the time at which what has expired was removed from the head of topics: what has expired since stays, so that
/// no topic loses its last message here.
pub fn reclaim(shared: &Shared, now: SystemTime) -> io::Result<()> {
    let mut segments = shared.state().segments.clone();
    // The last one is being written.
    segments.pop();
    let oldest_id =
        nanos(now).saturating_sub(u64::try_from(shared.options.dedupe_window.as_nanos()).unwrap_or(u64::MAX));
    let now = millis(now);
    let (mut group, mut result) = (Group::new(now), Ok(()));
    // Where the segment before has no index, what follows its blocks tells whether they are all there.
    let mut has_open_end = false;
    for segment in segments {
        let has_open_end = std::mem::replace(&mut has_open_end, !segment.is_sealed());
        let summary = segment.summary();
        let is_held = summary.ids > 0 && summary.last_time >= oldest_id;
        let live = if is_held { Ok((1, 1)) } else { live_bytes(shared, &segment, now) };
        // What cannot be done with one keeps no other from being done.
        let (live, all) = live.unwrap_or_else(|error| {
            result = Err(error);
            (1, 1)
        });
        if live == 0 && !has_open_end {
            result = group.close(shared).and(delete(shared, &segment)).and(result);
            continue;
        }
        if !segment.is_sealed() {
            result = shared.seal(&segment).and(result);
        }
        let is_thin = live < all / 2;
        let is_small = segment.blocks_end() <= shared.segment_bytes() / SMALL;
        if is_held || live == 0 || !segment.is_sealed() || !is_thin && !is_small {
            result = group.close(shared).and(result);
            continue;
        }
        if group.live + live > shared.segment_bytes() {
            result = group.close(shared).and(result);
        }
        group.live += live;
        group.is_thin |= is_thin;
        group.segments.push(segment);
    }
    group.close(shared).and(result)
}

/// Segments that follow one another and could be one.
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

    fn close(&mut self, shared: &Shared) -> io::Result<()> {
        let Self { segments, is_thin, now, .. } = std::mem::replace(self, Self::new(self.now));
        if is_thin || segments.len() >= MANY { rewrite(shared, &segments, now) } else { Ok(()) }
    }
}

/// What has expired behind the head of topics, and leaves the disk: a topic then holds less.
type Expired = BTreeMap<Arc<str>, Held>;

/// How many bytes of messages a segment has that are neither removed nor expired, about: where a part of a topic is
/// removed, it is reckoned by its sequences; and how many it has in all.
pub fn live_bytes(shared: &Shared, segment: &Segment, now: u64) -> io::Result<(u64, u64)> {
    let (mut live, mut all) = (0, 0);
    let state = shared.state();
    let read = segment.for_each_topic(&shared.cache, |name, held| {
        let floor = state.topics.floor(name);
        let bytes = if now >= held.all_expired { held.bytes - held.expiring_bytes } else { held.bytes };
        all += held.bytes;
        live += if floor > held.last.0 {
            0
        } else if floor <= held.first.0 {
            bytes
        } else {
            let (left, all) = (held.last.0 - floor + 1, held.last.0 - held.first.0 + 1);
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
        expired.retain(|name, held| state.topics.floor(name) <= held.last.0);
        state.topics.forget_expired(&expired);
        state.segments.retain(|other| other.id != segment.id);
        // What is damaged is of no interest once it is removed.
        let first = state.segments.first().map_or(0, |first| first.first_sequence);
        state.damaged.retain(|_, to| *to >= first);
    }
    shared.options.disk.remove(&segment.path)?;
    shared.options.disk.sync_directory(&shared.directory)
}

fn rewrite(shared: &Shared, segments: &[Arc<Segment>], now: u64) -> io::Result<()> {
    let (Some(first), Some(last)) = (segments.first(), segments.last()) else { return Ok(()) };
    let disk = &shared.options.disk;
    let new = first.path.with_extension("new");
    let header = SegmentHeader {
        log: shared.identity,
        first_sequence: first.first_sequence,
        through: last.first_sequence,
    };
    let header = SegmentHeader { through: header.through.max(first.through).max(last.through), ..header };
    let written = write(shared, segments, &new, header, now).and_then(|written| {
        let Some((file, expired)) = written else { return Ok(None) };
        let sequences = (header.first_sequence, header.through);
        let made = sealed_at(first.path.clone(), Arc::new(file), sequences, header.log.salt)?;
        disk.rename(&new, &first.path)?;
        Ok(Some((made, expired)))
    });
    let Ok(Some((made, expired))) = written else {
        // It would take the room of others until the next start.
        let _ = disk.remove(&new);
        return written.map(|_| ());
    };
    // From here on its header tells that it stands for all of them: so it does here, whatever goes wrong.
    put_in_place_of(shared, segments, made, &expired);
    disk.sync_directory(&shared.directory)?;
    // They are known by the new one's header, should this not come to its end.
    for segment in segments.iter().skip(1) {
        disk.remove(&segment.path)?;
    }
    disk.sync_directory(&shared.directory)
}

/// Has readers read one segment instead of those that it was made of.
fn put_in_place_of(shared: &Shared, segments: &[Arc<Segment>], made: Segment, expired: &Expired) {
    // Not by their ids: a reader may have made the index of one of them anew.
    let is_one = |other: &Segment| segments.iter().any(|one| one.first_sequence == other.first_sequence);
    let mut state = shared.state_mut();
    let place = state.segments.iter().position(|other| is_one(other));
    state.segments.retain(|other| !is_one(other));
    state.segments.insert(place.unwrap_or(0), Arc::new(made));
    state.topics.forget_expired(expired);
}

/// Writes what is left of segments into a file, and tells what of them has expired. None if one is damaged.
fn write(
    shared: &Shared,
    segments: &[Arc<Segment>],
    new: &Path,
    header: SegmentHeader,
    now: u64,
) -> io::Result<Option<(File, Expired)>> {
    let file = shared.options.disk.create(new)?;
    let mut buffer = header.to_bytes();
    let mut building = Building::new(shared.identity.salt);
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
                building.add(&block, start, at(body.start), at(body.end));
            }
        }
        file.write_all_at(&buffer, written)?;
        written += buffer.len() as u64;
        buffer.clear();
    }
    file.write_all_at(&building.to_footer(), written)?;
    file.sync()?;
    Ok(Some((file, expired)))
}

/// What is left of a block.
fn living(shared: &Shared, block: &Block, now: u64, expired: &mut Expired) -> Option<Block> {
    let floors = {
        let state = shared.state();
        block.topics.iter().map(|topic| state.topics.floor(topic)).collect::<Vec<_>>()
    };
    let mut left = Block { time: block.time, topics: block.topics.clone(), ..Block::default() };
    let (mut body, mut ids) = (Vec::new(), block.ids.iter().peekable());
    for (place, entry) in (0_u32..).zip(&block.entries) {
        let id = ids.next_if(|(of, _)| *of == place);
        let floor = floors.get(entry.topic as usize).copied().unwrap_or(0);
        if entry.sequence < floor {
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

fn place_of(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// A segment whose footer was written just now.
pub fn sealed(segment: &Segment) -> io::Result<Segment> {
    let (path, file) = (segment.path.clone(), segment.file.clone());
    sealed_at(path, file, (segment.first_sequence, segment.through), segment.salt())
}

fn sealed_at(path: PathBuf, file: Arc<File>, sequences: (u64, u64), salt: Salt) -> io::Result<Segment> {
    let unreadable = || io::Error::other("the index of a segment cannot be read back");
    let footer = Footer::read(&file, salt)?.ok_or_else(unreadable)?;
    Segment::sealed(path, file, sequences, footer)?.map_err(|_| unreadable())
}

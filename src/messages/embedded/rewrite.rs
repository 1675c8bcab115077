//! Frees the room of what is removed: deletes segments, or writes them anew without it.
//!
//! Segments that follow one another and of which little is left become one, so that many years of a log of which only
//! the last messages are kept are a few files. A segment that holds ids within the window in which they are known stays
//! as it is, and so does one that is damaged: its loss is found in its bytes.

use std::{io, sync::Arc};

use bytes::Bytes;

use super::{
    Shared,
    block::{Block, Entry, SegmentHeader},
    disk::File,
    footer::Footer,
    millis, nanos,
    scan::Scan,
    segment::{Building, Segment},
};

/// A segment is small, and joined to its neighbours, if it has less than this part of a whole one.
const SMALL: u64 = 8;

/// So many small segments in a row become one.
const MANY: usize = 8;

/// Deletes segments of which nothing is left, and writes those anew of which little is.
pub fn reclaim(shared: &Shared) -> io::Result<()> {
    let now = shared.now();
    let mut segments = shared.state().segments.clone();
    // The last one is being written.
    segments.pop();
    let oldest_id =
        nanos(now).saturating_sub(u64::try_from(shared.options.dedupe_window.as_nanos()).unwrap_or(u64::MAX));
    let mut group = Group::default();
    for segment in segments {
        let summary = segment.summary();
        let is_held = summary.ids > 0 && summary.last_time >= oldest_id;
        let live = if is_held { 1 } else { live_bytes(shared, &segment, millis(now))? };
        if live == 0 {
            group.close(shared)?;
            delete(shared, &segment)?;
            continue;
        }
        if is_held || !segment.is_sealed() {
            group.close(shared)?;
            continue;
        }
        let bytes = segment.file.len()?;
        let is_thin = live < bytes / 2;
        if !is_thin && bytes > shared.segment_bytes() / SMALL {
            group.close(shared)?;
            continue;
        }
        if group.live + live > shared.segment_bytes() {
            group.close(shared)?;
        }
        group.live += live;
        group.is_thin |= is_thin;
        group.segments.push(segment);
    }
    group.close(shared)
}

/// Segments that follow one another and could be one.
#[derive(Default)]
struct Group {
    segments: Vec<Arc<Segment>>,
    live: u64,
    is_thin: bool,
}

impl Group {
    fn close(&mut self, shared: &Shared) -> io::Result<()> {
        let Self { segments, is_thin, .. } = std::mem::take(self);
        if is_thin || segments.len() >= MANY { rewrite(shared, &segments) } else { Ok(()) }
    }
}

/// How many bytes of a segment are neither removed nor expired, about: where a part of a topic is removed, it is
/// reckoned by its sequences.
pub fn live_bytes(shared: &Shared, segment: &Segment, now: u64) -> io::Result<u64> {
    let mut live = 0;
    let state = shared.state();
    let read = segment.for_each_topic(&shared.cache, |name, held| {
        let floor = state.topics.floor(name);
        let bytes = if now >= held.all_expired { held.bytes - held.expiring_bytes } else { held.bytes };
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
    Ok(live)
}

fn delete(shared: &Shared, segment: &Segment) -> io::Result<()> {
    {
        let mut state = shared.state_mut();
        state.segments.retain(|other| other.id != segment.id);
        // What is damaged is of no interest once it is removed.
        let first = state.segments.first().map_or(0, |first| first.first_sequence);
        state.damaged.retain(|_, to| *to >= first);
    }
    shared.options.disk.remove(&segment.path)?;
    shared.options.disk.sync_directory(&shared.directory)
}

fn rewrite(shared: &Shared, segments: &[Arc<Segment>]) -> io::Result<()> {
    let (Some(first), Some(last)) = (segments.first(), segments.last()) else { return Ok(()) };
    let disk = &shared.options.disk;
    let new = first.path.with_extension("new");
    let file = disk.create(&new)?;
    let header =
        SegmentHeader { log: shared.id, first_sequence: first.first_sequence, through: last.first_sequence };
    let header = SegmentHeader { through: header.through.max(first.through).max(last.through), ..header };
    let mut buffer = header.to_bytes();
    let mut building = Building::new();
    let mut written = 0_u64;
    for segment in segments {
        let bytes = segment.read(0, segment.blocks_end())?;
        let scan = Scan::new(&bytes, segment.first_sequence);
        let is_sound =
            scan.damage.is_empty() && scan.tail.is_empty() && scan.blocks.iter().all(|found| found.is_intact);
        if !is_sound {
            tracing::error!(path = %segment.path.display(), "a segment is damaged: its room is not freed");
            return disk.remove(&new);
        }
        for found in &scan.blocks {
            if let Some(block) = living(shared, &found.block) {
                let start = written + buffer.len() as u64;
                let body = block.put(&mut buffer, 0);
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
    let path = first.path.clone();
    disk.rename(&new, &path)?;
    disk.sync_directory(&shared.directory)?;
    let made = sealed_at(path, Arc::new(file), header)?;
    let ids = segments.iter().map(|segment| segment.id).collect::<Vec<_>>();
    let mut state = shared.state_mut();
    if let Some(place) = state.segments.iter_mut().find(|segment| segment.id == first.id) {
        *place = Arc::new(made);
    }
    state.segments.retain(|segment| !ids.contains(&segment.id));
    drop(state);
    // They are known by the new one's header, should this not come to its end.
    for segment in segments.iter().skip(1) {
        disk.remove(&segment.path)?;
    }
    disk.sync_directory(&shared.directory)
}

/// What is left of a block.
fn living(shared: &Shared, block: &Block) -> Option<Block> {
    let floors = {
        let state = shared.state();
        block.topics.iter().map(|topic| state.topics.floor(topic)).collect::<Vec<_>>()
    };
    let now = millis(shared.now());
    let mut left = Block { time: block.time, topics: block.topics.clone(), ..Block::default() };
    let (mut body, mut ids) = (Vec::new(), block.ids.iter().peekable());
    for (place, entry) in (0_u32..).zip(&block.entries) {
        let id = ids.next_if(|(of, _)| *of == place);
        let floor = floors.get(entry.topic as usize).copied().unwrap_or(0);
        if entry.sequence < floor || entry.has_expired(now) {
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
    let header =
        SegmentHeader { log: [0; 16], first_sequence: segment.first_sequence, through: segment.through };
    sealed_at(segment.path.clone(), segment.file.clone(), header)
}

fn sealed_at(path: std::path::PathBuf, file: Arc<File>, header: SegmentHeader) -> io::Result<Segment> {
    let unreadable = || io::Error::other("the index of a segment cannot be read back");
    let footer = Footer::read(&file)?.ok_or_else(unreadable)?;
    Segment::sealed(path, file, (header.first_sequence, header.through), footer)?.map_err(|_| unreadable())
}

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

use super::{
    deletion::delete,
    leftover::{Leftover, remove, remove_leftovers},
    measuring::{measure, oldest_kept},
    room,
};
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
            segment_header::SegmentHeader,
        },
        index::{builder::IndexBuilder, segment::Segment},
    },
};

/// A segment below this fraction of the nominal size is small, and is joined with its neighbours.
const SMALL: u64 = 8;

/// The number of small segments in a row that become one.
const MANY: usize = 8;

/// How long room is freed before other work is done.
const FREEING: Duration = Duration::from_secs(1);

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
pub type Expired = BTreeMap<Arc<str>, Held>;

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

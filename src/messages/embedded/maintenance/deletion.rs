//! Deletes segments of which every message is removed or has expired, and forgets what is known only about messages that
//! are gone: trim points of topics without messages, and losses that retention would have removed by now.
//!
//! A damaged or lost range stays known when the segments around it are deleted, because nothing says which messages it had:
//! a reader from the start still gets a gap. It is forgotten when a limit removes everything up to its end, of every topic.

use std::io;

use super::compaction::Expired;
use crate::messages::embedded::{
    Shared, State,
    index::{block_run::blocks_of, segment::Segment},
};

/// The number of trim points that are dropped under one lock.
const FORGOTTEN_AT_ONCE: usize = 512;

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
pub fn delete(shared: &Shared, segment: &Segment) -> io::Result<()> {
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
    shared.manifest.unlist(segment.first_sequence, &unknown_damage(shared, segment)?)?;
    shared.config.disk.remove(&segment.path)?;
    let lost = shared.manifest.lost_ranges();
    // Not before that: what cannot be removed yet must stay known, so that purged messages are erased there.
    {
        let mut state = shared.state_mut();
        state.topics.forget_expired(&expired);
        // Not by its id: its index may have been written or built again.
        state.segments.retain(|other| other.first_sequence != segment.first_sequence);
        let end = end_of(&state, segment);
        state.damaged.retain(|from, to| {
            let is_here = (segment.first_sequence..end).contains(from);
            !is_here || lost.iter().any(|lost| lost.contains(from) && *to < lost.end)
        });
    }
    shared.config.disk.sync_directory(&shared.directory)
}

/// The first sequence of the next segment; the highest number if there is none.
fn end_of(state: &State, segment: &Segment) -> u64 {
    let mut firsts = state.segments.iter().map(|other| other.first_sequence);
    firsts.find(|first| *first > segment.first_sequence).unwrap_or(u64::MAX)
}

/// The damaged ranges in a segment, or between it and the next one, of which nothing says that their messages are removed.
fn unknown_damage(shared: &Shared, segment: &Segment) -> io::Result<Vec<(u64, u64)>> {
    let damaged = {
        let state = shared.state();
        let damaged = state.damaged.range(segment.first_sequence..end_of(&state, segment));
        damaged.map(|(from, to)| (*from, *to)).collect::<Vec<_>>()
    };
    let lost = shared.manifest.lost_ranges();
    let is_listed = |from, to| lost.iter().any(|lost| lost.contains(&from) && to < lost.end);
    let mut unknown = Vec::new();
    for (from, to) in damaged {
        if !is_listed(from, to) && !is_in_index(segment, from, to)? {
            unknown.push((from, to));
        }
    }
    Ok(unknown)
}

/// Whether the index of a segment has the messages in a damaged range: then their topics are known, and they are removed
/// like all others of the segment.
fn is_in_index(segment: &Segment, from: u64, to: u64) -> io::Result<bool> {
    let summary = segment.summary();
    if summary.messages == 0 || from < summary.first_sequence || to > summary.last_sequence {
        return Ok(false);
    }
    if segment.is_sealed() {
        return Ok(true);
    }
    // Without a footer, the index has the messages of the blocks that could be read.
    let Some(run) = segment.run_from_sequence(from).filter(|_| from == to) else { return Ok(false) };
    let (blocks, _) = blocks_of(&segment.read(run.start, run.end)?, &run, segment.salt());
    Ok(blocks.iter().any(|block| block.entries.iter().any(|entry| entry.sequence == from)))
}

/// Turns damage and lost files before the oldest segment into messages that were removed, for which a reader that comes back
/// gets a gap, if a limit removes all messages up to `due_up_to`, whatever their topic.
pub fn forget_losses(shared: &Shared, due_up_to: u64) -> io::Result<()> {
    let end = {
        let mut state = shared.state_mut();
        let oldest = state.segments.first().map_or(0, |oldest| oldest.first_sequence);
        let end = oldest.min(due_up_to.saturating_add(1));
        let Some(last) = state.damaged.values().copied().filter(|to| *to < end).max() else { return Ok(()) };
        state.topics.lose_up_to(last);
        end
    };
    shared.write_trim_points_to_free()?;
    shared.manifest.forget_lost(end)?;
    shared.state_mut().damaged.retain(|_, to| *to >= end);
    Ok(())
}

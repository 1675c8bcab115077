//! Reads runs of blocks.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    ops::{Range, RangeInclusive},
    sync::Arc,
};

use bytes::Bytes;
use memchr::memmem;

use super::segment::{BlockRun, Segment};
use crate::{
    blocking::give_way,
    messages::{
        embedded::{
            age::Moment,
            format::{
                block::{self, BLOCK_MAGIC, Block, Header, Salt},
                erased,
                footer::Posting,
            },
        },
        selection::Selection,
    },
};

/// The blocks of a run, and the ranges of sequences, first and last, that it should hold and does not.
pub fn blocks_of(bytes: &Bytes, run: &BlockRun, salt: Salt) -> (Vec<Arc<Block>>, Vec<(u64, u64)>) {
    let (mut blocks, mut missing) = (Vec::<Arc<Block>>::new(), Vec::new());
    let mut expected = run.entry.first_sequence;
    let (mut at, mut is_damaged) = (0, false);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        give_way();
        // Nothing is missing at a mark of a clean end, or at the beginning of an incarnation.
        if let Some(bytes) = block::mark_bytes(rest, salt) {
            at += bytes;
            continue;
        }
        // After damage, an intact header may be a stray copy, and its length cannot be trusted.
        let is_next = |block: &Block| {
            let is_intact = !is_damaged || erased::broken(block, salt).is_empty();
            is_intact && block.first_sequence >= expected && !block.body.is_empty()
        };
        if let Some(block) = Block::read(&bytes.slice(at..), salt).ok().filter(is_next) {
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
    if expected <= run.entry.last_sequence {
        missing.push((expected, run.entry.last_sequence));
    }
    (blocks, missing)
}

/// The time of a message.
pub fn publish_time(segment: &Segment, posting: &Posting) -> io::Result<u64> {
    BlockTimes::default().publish_time(segment, posting)
}

/// The times of blocks of a segment whose postings do not have them: each run is read once for all messages in it.
#[derive(Debug, Default)]
pub struct BlockTimes {
    /// By the offset of a run: where the body of each block is, and its time.
    runs: HashMap<u64, Vec<(Range<u64>, u64)>>,
}

impl BlockTimes {
    /// The time of a message of the segment; the latest possible one if that is damaged.
    pub fn publish_time(&mut self, segment: &Segment, posting: &Posting) -> io::Result<u64> {
        Ok(*self.times(segment, posting)?.end())
    }

    /// The earliest and the latest time that a message of the segment may have: the same unless its block is damaged.
    fn times(&mut self, segment: &Segment, posting: &Posting) -> io::Result<RangeInclusive<u64>> {
        if segment.has_times() {
            return Ok(posting.time..=posting.time);
        }
        let Some(run) = segment.run_at_offset(posting.offset) else { return Ok(0..=0) };
        let of_run = run.entry.min_time..=run.entry.max_time;
        if of_run.start() == of_run.end() {
            return Ok(of_run);
        }
        let blocks = match self.runs.entry(run.start) {
            Entry::Occupied(blocks) => blocks.into_mut(),
            Entry::Vacant(blocks) => blocks.insert(times_of(segment, &run)?),
        };
        let block = blocks.iter().find(|(body, _)| body.contains(&posting.offset.into()));
        Ok(block.map_or(of_run, |(_, time)| *time..=*time))
    }

    /// Whether a message of the segment has expired. Its time is read only if the answer depends on it.
    pub fn has_expired(&mut self, segment: &Segment, posting: &Posting, moment: &Moment) -> io::Result<bool> {
        if let Some(has_expired) = moment.has_expired_at_any_time(posting.sequence, posting.expires) {
            return Ok(has_expired);
        }
        let time = self.publish_time(segment, posting)?;
        Ok(moment.has_expired(posting.sequence, time, posting.expires))
    }

    /// Whether a message of the segment is wanted by its time, which is read only if that of its run does not decide.
    pub fn is_selected(
        &mut self,
        segment: &Segment,
        posting: &Posting,
        selection: &Selection,
    ) -> io::Result<bool> {
        if selection.has_all_after(posting.sequence.saturating_sub(1)) {
            return Ok(true);
        }
        if let Some(BlockRun { entry, .. }) = segment.run_at_offset(posting.offset) {
            if selection.has_all(posting.sequence, entry.min_time, entry.max_time) {
                return Ok(true);
            }
            if selection.has_none(posting.sequence, entry.min_time, entry.max_time) {
                return Ok(false);
            }
        }
        let times = self.times(segment, posting)?;
        Ok(!selection.has_none(posting.sequence, *times.start(), *times.end()))
    }
}

/// Where the body of each block of a run is, and its time.
fn times_of(segment: &Segment, run: &BlockRun) -> io::Result<Vec<(Range<u64>, u64)>> {
    let bytes = segment.read(run.start, run.end)?;
    let (blocks, _) = blocks_of(&bytes, run, segment.salt());
    let time = |block: &Arc<Block>| {
        // Its body is a slice of the bytes of the run.
        let start = run.start + block.body.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr()) as u64;
        (start..start + block.body.len() as u64, block.time)
    };
    Ok(blocks.iter().map(time).collect())
}

//! Reads runs of blocks.

use std::{io, sync::Arc};

use bytes::Bytes;
use memchr::memmem;

use super::segment::{BlockRun, Segment};
use crate::messages::embedded::format::block::{self, BLOCK_MAGIC, Block, Header, Salt};

/// The blocks of a run, and the ranges of sequences, first and last, that it should hold and does not.
pub fn blocks_of(bytes: &Bytes, run: &BlockRun, salt: Salt) -> (Vec<Arc<Block>>, Vec<(u64, u64)>) {
    let (mut blocks, mut missing) = (Vec::<Arc<Block>>::new(), Vec::new());
    let mut expected = run.entry.first_sequence;
    let (mut at, mut is_damaged) = (0, false);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        // Nothing is missing at a mark of a clean end, or at the beginning of an incarnation.
        if let Some(bytes) = block::mark_bytes(rest, salt) {
            at += bytes;
            continue;
        }
        // After damage, an intact header may be a stray copy, and its length cannot be trusted.
        let is_next = |block: &Block| {
            let is_intact = !is_damaged || block.entries.iter().all(|entry| block.is_intact(entry));
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

/// The time of the message at an offset of a segment.
pub fn time_at(segment: &Segment, offset: u32) -> io::Result<u64> {
    let Some(run) = segment.run_at_offset(offset) else { return Ok(0) };
    let bytes = segment.read(run.start, run.end)?;
    let (blocks, _) = blocks_of(&bytes, &run, segment.salt());
    let place = usize::try_from(u64::from(offset) - run.start).unwrap_or(usize::MAX);
    let is_in = |block: &&Arc<Block>| {
        // Both are slices of the bytes of the run.
        let start = block.body.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr());
        (start..start + block.body.len()).contains(&place)
    };
    Ok(blocks.iter().find(is_in).map_or(run.entry.time, |block| block.time))
}

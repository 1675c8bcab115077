//! Pages: runs of blocks that are read as a whole.

use std::{io, sync::Arc};

use bytes::Bytes;
use memchr::memmem;

use super::{
    block::{self, BLOCK_MAGIC, Block, Header, MARK_BYTES, Salt},
    segment::{Extent, Segment},
};

/// The blocks of a page, and the sequences that it should hold and that are in no block of it: first and last.
pub fn blocks_of(page: &Bytes, extent: &Extent, salt: Salt) -> (Vec<Arc<Block>>, Vec<(u64, u64)>) {
    let (mut blocks, mut missing) = (Vec::<Arc<Block>>::new(), Vec::new());
    let mut expected = extent.page.first_sequence;
    let (mut at, mut is_damaged) = (0, false);
    while let Some(rest) = page.get(at..).filter(|rest| !rest.is_empty()) {
        // At a mark of a clean end nothing is missing.
        if block::read_mark(rest, salt).is_ok() {
            at += MARK_BYTES;
            continue;
        }
        // Another one may have been put there by the disk: what follows it is not behind its end.
        let is_next = |block: &Block| {
            let is_intact = !is_damaged || block.entries.iter().all(|entry| block.is_intact(entry));
            is_intact && block.first_sequence >= expected && !block.body.is_empty()
        };
        if let Some(block) = Block::read(&page.slice(at..), salt).ok().filter(is_next) {
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

/// The time of the message at an offset of a segment.
pub fn time_at(segment: &Segment, offset: u32) -> io::Result<u64> {
    let Some(extent) = segment.page_with(offset) else { return Ok(0) };
    let bytes = segment.read(extent.start, extent.end)?;
    let (blocks, _) = blocks_of(&bytes, &extent, segment.salt());
    let place = usize::try_from(u64::from(offset) - extent.start).unwrap_or(usize::MAX);
    let is_in = |block: &&Arc<Block>| {
        // Both are slices of the page.
        let start = block.body.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr());
        (start..start + block.body.len()).contains(&place)
    };
    Ok(blocks.iter().find(is_in).map_or(extent.page.time, |block| block.time))
}

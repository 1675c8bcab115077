//! The blocks committed lately, in memory: live readers share their bytes, and read no disk.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use super::block::Block;

/// How many bytes of messages are kept: seconds of a fast feed, which is as far as a live reader is ever behind.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// How many messages are kept: a small one takes more memory than its bytes.
const MAX_ENTRIES: usize = 128 * 1024;

/// How many blocks are kept, likewise.
const MAX_BLOCKS: usize = 16 * 1024;

/// Blocks, oldest first, without a gap.
#[derive(Debug, Default)]
pub struct Recent {
    blocks: VecDeque<Arc<Block>>,
    bytes: usize,
    entries: usize,
}

impl Recent {
    /// Adds a block that is on disk.
    pub fn push(&mut self, block: Block) {
        self.bytes += block.body.len();
        self.entries += block.entries.len();
        self.blocks.push_back(Arc::new(block));
        while self.bytes > MAX_BYTES || self.entries > MAX_ENTRIES || self.blocks.len() > MAX_BLOCKS {
            let Some(oldest) = self.blocks.pop_front() else { return };
            self.bytes -= oldest.body.len();
            self.entries -= oldest.entries.len();
        }
    }

    /// The blocks from the one that holds a sequence on, of so many bytes or a little more. None if they, or what is
    /// before them, are no longer here.
    pub fn from(&self, sequence: u64, bytes: usize) -> Option<Vec<Arc<Block>>> {
        if self.blocks.front()?.first_sequence > sequence {
            return None;
        }
        let mut sum = 0;
        let enough = |block: &&Arc<Block>| {
            let is_wanted = sum <= bytes;
            sum += block.body.len();
            is_wanted
        };
        Some(self.blocks.range(self.place(sequence)..).take_while(enough).cloned().collect())
    }

    /// The topics of the messages behind a sequence; none if not all of them are here.
    pub fn topics_behind(&self, sequence: u64) -> Option<HashSet<Arc<str>>> {
        if self.blocks.front()?.first_sequence > sequence + 1 {
            return None;
        }
        let blocks = self.blocks.range(self.place(sequence + 1)..);
        Some(blocks.flat_map(|block| block.topics.iter().cloned()).collect())
    }

    fn place(&self, sequence: u64) -> usize {
        self.blocks.partition_point(|block| block.last_sequence < sequence)
    }
}

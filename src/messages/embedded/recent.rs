//! The blocks committed lately, in memory: live readers share their bytes, and read no disk.

use std::{collections::VecDeque, sync::Arc};

use super::block::Block;

/// How many bytes of messages are kept: seconds of a fast feed, which is as far as a live reader is ever behind.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// How many blocks are kept: a block of one small message costs more than its bytes.
const MAX_BLOCKS: usize = 16 * 1024;

/// Blocks, oldest first, without a gap.
#[derive(Debug, Default)]
pub struct Recent {
    blocks: VecDeque<Arc<Block>>,
    bytes: usize,
}

impl Recent {
    /// Adds a block that is on disk.
    pub fn push(&mut self, block: Block) {
        self.bytes += block.body.len();
        self.blocks.push_back(Arc::new(block));
        while self.bytes > MAX_BYTES || self.blocks.len() > MAX_BLOCKS {
            let Some(oldest) = self.blocks.pop_front() else { return };
            self.bytes -= oldest.body.len();
        }
    }

    /// The blocks from the one that holds a sequence on, of so many bytes or a little more. None if they, or what is
    /// before them, are no longer here.
    pub fn from(&self, sequence: u64, bytes: usize) -> Option<Vec<Arc<Block>>> {
        if self.blocks.front()?.first_sequence > sequence {
            return None;
        }
        let start = self.blocks.partition_point(|block| block.last_sequence() < sequence);
        let mut sum = 0;
        let enough = |block: &&Arc<Block>| {
            let is_wanted = sum <= bytes;
            sum += block.body.len();
            is_wanted
        };
        Some(self.blocks.range(start..).take_while(enough).cloned().collect())
    }
}

//! The newest blocks, in memory: live subscriptions share their bytes and do not read the disk.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use crate::messages::embedded::format::block::{Block, Entry};

/// The size of the messages that are kept: seconds of a fast feed, and a live subscription lags less than that.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The number of messages that are kept: a small one takes more memory than its bytes.
const MAX_ENTRIES: usize = 128 * 1024;

/// The number of blocks that are kept, for the same reason.
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
            self.drop_oldest();
        }
    }

    /// The bytes of memory that the blocks hold.
    pub fn memory(&self) -> usize {
        self.bytes + self.entries * size_of::<Entry>() + self.blocks.len() * size_of::<Block>()
    }

    /// Drops the blocks below a sequence, which are no longer on disk.
    pub fn drop_below(&mut self, sequence: u64) {
        while self.blocks.front().is_some_and(|oldest| oldest.last_sequence < sequence) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.blocks.pop_front() {
            self.bytes -= oldest.body.len();
            self.entries -= oldest.entries.len();
        }
    }

    /// The blocks from the one that holds a sequence on, of about this many bytes. `None` if that block is no longer here.
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

    /// The topics of the messages after a sequence. `None` if some of these messages are no longer here.
    pub fn topics_after(&self, sequence: u64) -> Option<HashSet<Arc<str>>> {
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

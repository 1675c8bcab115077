//! Erased messages: their bytes in a block are overwritten in place, so that they leave the disk whatever lives beside them.
//!
//! Consecutive messages of a block that are erased are one stamp, and zeros after it. The header and the table of the block
//! stay, so sequences, indexes and their checksums stay valid. A stamp cannot be taken for a message, which begins with a tag,
//! and has a checksum that begins with the log's salt. So lost bytes are never taken for erased ones.

use std::ops::Range;

use bytes::{Buf, BufMut};

use super::block::{Block, Entry, Salt};

/// The first bytes of a stamp.
const MAGIC: [u8; 4] = *b"\0ERA";

/// magic, sequence of the last message, checksum.
pub const STAMP_BYTES: usize = 4 + 8 + 4;

/// The stamp for the messages from one sequence to another.
pub fn stamp(first: u64, last: u64, salt: Salt) -> [u8; STAMP_BYTES] {
    let mut out = [0; STAMP_BYTES];
    let mut rest = out.as_mut_slice();
    rest.put_slice(&MAGIC);
    rest.put_u64_le(last);
    rest.put_u32_le(checksum(first, last, salt));
    out
}

fn checksum(first: u64, last: u64, salt: Salt) -> u32 {
    let mut bytes = MAGIC.to_vec();
    bytes.put_u64_le(first);
    bytes.put_u64_le(last);
    crc32c::crc32c_append(salt, &bytes)
}

/// The last sequence that a stamp at the place of a message erases; `None` if there is no stamp.
fn erased_up_to(bytes: &[u8], first: u64, salt: Salt) -> Option<u64> {
    let mut rest = bytes.get(..STAMP_BYTES)?.strip_prefix(&MAGIC)?;
    let last = rest.get_u64_le();
    (last >= first && rest.get_u32_le() == checksum(first, last, salt)).then_some(last)
}

/// The messages of a block whose bytes are neither those that were written nor erased.
pub fn broken(block: &Block, salt: Salt) -> Vec<Entry> {
    let mut erased = 0;
    let mut broken = Vec::new();
    for entry in block.entries.iter().filter(|entry| !block.is_intact(entry)) {
        let bytes = block.body.get(entry.start as usize..).unwrap_or_default();
        erased = erased.max(erased_up_to(bytes, entry.sequence, salt).unwrap_or(0));
        if entry.sequence > erased {
            broken.push(*entry);
        }
    }
    broken
}

/// Distinguishes the erased messages of a block from damaged ones. It reads the block only when `has` is called.
#[derive(Debug)]
pub struct Erased<'a> {
    block: &'a Block,
    salt: Salt,
    /// The sequences of damaged messages, once they are known.
    broken: Option<Vec<u64>>,
}

impl<'a> Erased<'a> {
    /// The erased messages of a block.
    pub fn of(block: &'a Block, salt: Salt) -> Self {
        Self { block, salt, broken: None }
    }

    /// Whether the bytes of a message are erased.
    pub fn has(&mut self, entry: &Entry) -> bool {
        if self.block.is_intact(entry) {
            return false;
        }
        let Self { block, salt, broken } = self;
        let broken = broken
            .get_or_insert_with(|| self::broken(block, *salt).iter().map(|entry| entry.sequence).collect());
        broken.binary_search(&entry.sequence).is_err()
    }
}

/// Consecutive messages of a block to erase.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stretch {
    /// The bytes in the body of the block.
    pub bytes: Range<usize>,
    /// Their stamp, as long as it fits.
    pub stamp: Vec<u8>,
    /// The bytes are as they are to be.
    pub is_erased: bool,
}

/// The stretches of messages that `is_dead` names, with the messages beside them that were erased before: a wrong clock may
/// have taken those for dead, and without their stamp they would look damaged.
pub fn to_erase(block: &Block, salt: Salt, is_dead: impl Fn(&Entry) -> bool) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    if !block.entries.iter().any(&is_dead) {
        return stretches;
    }
    let mut erased = Erased::of(block, salt);
    let mut with_erased = |entry| (entry, is_dead(entry) || erased.has(entry));
    let entries = block.entries.iter().map(&mut with_erased).collect::<Vec<_>>();
    for run in entries.chunk_by(|(_, one), (_, next)| *one && *next) {
        let (Some((first, true)), Some((last, _))) = (run.first(), run.last()) else { continue };
        let bytes = first.start as usize..last.end as usize;
        let mut stamp = stamp(first.sequence, last.sequence, salt).to_vec();
        stamp.truncate(bytes.len());
        let seen = block.body.get(bytes.clone()).unwrap_or_default();
        let is_erased =
            seen.strip_prefix(stamp.as_slice()).is_some_and(|rest| rest.iter().all(|byte| *byte == 0));
        stretches.push(Stretch { bytes, stamp, is_erased });
    }
    stretches
}

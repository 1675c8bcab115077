//! Reads the records of a segment without its footer: which are whole, which are damaged, and what was torn.
//!
//! A commit is one write, and the next commit is written only when it is on disk. So damage before the last commit is rot:
//! those bytes were right once. Damage within the last commit or after it may be a write that a power cut tore, which was
//! never acknowledged. A mark of a clean end says that nothing before it was torn.

use std::ops::Range;

use bytes::Bytes;
use memchr::memmem;

use super::{
    block::{
        self, BLOCK_HEADER_BYTES, BLOCK_MAGIC, Block, Header, INCARNATION_BYTES, INCARNATION_MAGIC,
        MARK_BYTES, MARK_MAGIC, Salt,
    },
    erased,
    segment_header::records_start,
};
use crate::messages::incarnation::Incarnation;

/// The records of a segment.
#[derive(Debug)]
pub struct Scan {
    /// The blocks, in order.
    pub blocks: Vec<Found>,
    /// The offsets of beginnings of incarnations, and these.
    pub incarnations: Vec<(u64, Incarnation)>,
    /// Bytes between records that are not a record.
    pub damage: Vec<Damage>,
    /// The offset after the last record.
    pub end: u64,
    /// Bytes after the last record that are not a record, without trailing zeros.
    pub tail: Range<u64>,
    pub next_sequence: u64,
    /// The offset of the last commit, which may not be complete.
    pub last_commit: u64,
    /// The offset of the first record.
    start: u64,
    salt: Salt,
}

/// A block and its place.
#[derive(Debug)]
pub struct Found {
    /// The offset of its first byte.
    pub start: u64,
    /// The offset of its body.
    pub body: u64,
    /// The offset after its last byte.
    pub end: u64,
    pub block: Block,
    /// The offset of its commit.
    pub commit: u64,
    /// Whether the bytes of every entry are those that were written, or erased.
    pub is_intact: bool,
    /// Whether the bytes of every entry are those that were written.
    pub is_whole: bool,
}

/// Bytes that are not a record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Damage {
    /// Their place in the segment.
    pub bytes: Range<u64>,
    /// The first and the last sequence that may be missing; none is if the last is below the first.
    pub sequences: (u64, u64),
}

enum Record {
    Block(Box<Found>),
    Incarnation(Incarnation),
    Mark(u64),
}

impl Scan {
    /// Reads the records of a segment in which no sequence is below `first_sequence`.
    pub fn new(bytes: &Bytes, first_sequence: u64, salt: Salt) -> Self {
        let start = records_start(bytes) as u64;
        let mut scan = Self {
            blocks: Vec::new(),
            incarnations: Vec::new(),
            damage: Vec::new(),
            end: start,
            tail: start..start,
            next_sequence: first_sequence,
            last_commit: start,
            start,
            salt,
        };
        let used = used(bytes);
        while let Some((start, end, record)) = scan.next(bytes, used) {
            if start > scan.end {
                let expected = scan.next_sequence;
                let found = match &record {
                    Record::Block(found) => found.block.first_sequence,
                    Record::Incarnation(incarnation) => incarnation.first_sequence,
                    Record::Mark(next_sequence) => *next_sequence,
                };
                let sequences = (expected, found.saturating_sub(1));
                scan.damage.push(Damage { bytes: scan.end..start, sequences });
            }
            scan.end = end;
            match record {
                Record::Mark(next_sequence) => {
                    scan.next_sequence = next_sequence;
                    scan.last_commit = end;
                }
                Record::Incarnation(incarnation) => {
                    scan.next_sequence = incarnation.first_sequence;
                    scan.last_commit = start;
                    scan.incarnations.push((start, incarnation));
                }
                Record::Block(found) => {
                    scan.last_commit = found.commit;
                    scan.next_sequence = found.block.last_sequence + 1;
                    scan.blocks.push(*found);
                }
            }
        }
        scan.tail = scan.end..scan.end.max(used as u64);
        scan
    }

    /// The next record: its first byte, the offset after it, and the record. Records begin with a byte that is not zero,
    /// so there is none after `used`.
    fn next(&self, bytes: &Bytes, used: usize) -> Option<(u64, u64, Record)> {
        let mut offset = at(self.end);
        loop {
            let is_found = |record: &Record| match record {
                // After damage, an intact header may be a stray copy, and its length cannot be trusted.
                Record::Block(found) => found.is_intact || offset == at(self.end),
                Record::Mark(_) | Record::Incarnation(_) => true,
            };
            if let Some((end, record)) = self.record(bytes, offset).filter(|(_, record)| is_found(record)) {
                return Some((offset as u64, end, record));
            }
            let rest = bytes.get(offset + 1..used)?;
            let magics = [BLOCK_MAGIC, MARK_MAGIC, INCARNATION_MAGIC];
            offset += 1 + magics.iter().filter_map(|magic| memmem::find(rest, magic)).min()?;
        }
    }

    /// The record at an offset, if it is complete.
    fn record(&self, bytes: &Bytes, offset: usize) -> Option<(u64, Record)> {
        let rest = bytes.get(offset..)?;
        if let Ok(next_sequence) = block::read_mark(rest, self.salt) {
            let is_next = next_sequence >= self.next_sequence;
            return is_next.then_some(((offset + MARK_BYTES) as u64, Record::Mark(next_sequence)));
        }
        if let Ok(incarnation) = block::read_incarnation(rest, self.salt) {
            let is_next = incarnation.first_sequence >= self.next_sequence;
            let end = (offset + INCARNATION_BYTES) as u64;
            return is_next.then_some((end, Record::Incarnation(incarnation)));
        }
        let header = Header::read(rest).ok()?;
        let end = offset.checked_add(header.block_bytes()).filter(|end| *end <= bytes.len())?;
        if header.first_sequence < self.next_sequence {
            return None;
        }
        let block = Block::read(&bytes.slice(offset..end), self.salt).ok()?;
        let is_whole = block.entries.iter().all(|entry| block.is_intact(entry));
        let is_intact = is_whole || erased::broken(&block, self.salt).is_empty();
        let body = (offset + BLOCK_HEADER_BYTES + header.table_bytes) as u64;
        let (start, end) = (offset as u64, end as u64);
        let commit = start.saturating_sub(header.back.into());
        Some((end, Record::Block(Box::new(Found { start, body, end, block, commit, is_intact, is_whole }))))
    }

    /// The salt of the records.
    pub fn salt(&self) -> Salt {
        self.salt
    }

    /// In the segment that was written last: the offset from which on a write may have been torn.
    pub fn torn(&self) -> Option<u64> {
        let damage = self.damage.iter().filter(|damage| damage.bytes.end > self.last_commit);
        let damage = damage.map(|damage| damage.bytes.start.max(self.last_commit));
        let broken = self.blocks.iter().filter(|found| !found.is_intact && found.start >= self.last_commit);
        let tail = (!self.tail.is_empty()).then_some(self.tail.start);
        let torn = damage.chain(broken.map(|found| found.start)).chain(tail).min();
        // The beginning of an incarnation is written with its first block.
        let Some((start, _)) = self.incarnations.last() else { return torn };
        let (is_last, end) = (*start == self.last_commit, start + INCARNATION_BYTES as u64);
        if is_last && torn.unwrap_or(self.end) == end { Some(*start) } else { torn }
    }

    /// The offset from which on the bytes may be in the page cache only: the last commit, and a mark after it, whose sync
    /// may have failed.
    pub fn unsure(&self) -> u64 {
        let commit = self.blocks.last().map_or(self.start, |found| found.commit);
        commit.min(self.end)
    }

    /// Forgets everything from an offset on.
    pub fn truncate(&mut self, offset: u64) {
        self.blocks.retain(|found| found.start < offset);
        self.incarnations.retain(|(start, _)| *start < offset);
        self.damage.retain(|damage| damage.bytes.start < offset);
        self.end = self.end.min(offset);
        self.tail = self.end..self.end;
    }
}

/// The number of bytes before the trailing zeros: most of a new segment is preallocated room.
fn used(bytes: &[u8]) -> usize {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut left = bytes;
    while let Some((rest, last)) = left.split_last_chunk::<{ ZEROS.len() }>() {
        if *last != ZEROS {
            break;
        }
        left = rest;
    }
    left.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

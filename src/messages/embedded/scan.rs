//! Reads a segment's records from its bytes, without its footer: what is whole, what is damaged, what was torn.
//!
//! A commit is written at once, and the next one only when it is on disk. So whatever is wrong before the last commit
//! was right once, and is rot; what is wrong within the last commit, or behind it, may have been torn by a power cut,
//! and was then never acknowledged. A mark of a clean end says that nothing before it was torn.

use std::ops::Range;

use bytes::Bytes;
use memchr::memmem;

use super::block::{
    self, BLOCK_HEADER_BYTES, BLOCK_MAGIC, Block, Header, MARK_BYTES, MARK_MAGIC, SEGMENT_HEADER_BYTES, Salt,
};

/// What the bytes of a segment hold.
#[derive(Debug)]
pub struct Scan {
    /// The blocks, in order.
    pub blocks: Vec<Found>,
    /// What is no record between records.
    pub damage: Vec<Damage>,
    /// Behind the last record.
    pub end: u64,
    /// What follows it and is no record; without the zeros that follow that.
    pub tail: Range<u64>,
    /// The sequence that would have followed.
    pub next_sequence: u64,
    /// Where a commit began that may not have come to its end.
    pub last_commit: u64,
    salt: Salt,
}

/// A block, and where it is.
#[derive(Debug)]
pub struct Found {
    /// Its first byte.
    pub start: u64,
    /// Where its body begins.
    pub body: u64,
    /// Behind its last byte.
    pub end: u64,
    /// The block.
    pub block: Block,
    /// Where its commit begins.
    pub commit: u64,
    /// The bytes of every entry are what was written.
    pub is_intact: bool,
}

/// Bytes that are no record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Damage {
    /// Where.
    pub bytes: Range<u64>,
    /// The sequences that may have been there: first and last.
    pub sequences: (u64, u64),
}

enum Record {
    Block(Box<Found>),
    Mark(u64),
}

impl Scan {
    /// Reads all records of a segment in which no sequence is below `first_sequence`.
    pub fn new(bytes: &Bytes, first_sequence: u64, salt: Salt) -> Self {
        let start = SEGMENT_HEADER_BYTES as u64;
        let mut scan = Self {
            blocks: Vec::new(),
            damage: Vec::new(),
            end: start,
            tail: start..start,
            next_sequence: first_sequence,
            last_commit: start,
            salt,
        };
        let used = used(bytes);
        while let Some((start, end, record)) = scan.next(bytes, used) {
            if start > scan.end {
                let expected = scan.next_sequence;
                let found = match &record {
                    Record::Block(found) => found.block.first_sequence,
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

    /// The next record, and where it is. There is none behind what is `used`: all of them begin with what is no zero.
    fn next(&self, bytes: &Bytes, used: usize) -> Option<(u64, u64, Record)> {
        let mut offset = at(self.end);
        loop {
            let is_found = |record: &Record| match record {
                // Behind damage it may be one that the disk has put there, and its length nothing that can be believed.
                Record::Block(found) => found.is_intact || offset == at(self.end),
                Record::Mark(_) => true,
            };
            if let Some((end, record)) = self.record(bytes, offset).filter(|(_, record)| is_found(record)) {
                return Some((offset as u64, end, record));
            }
            let rest = bytes.get(offset + 1..used)?;
            let [block, mark] = [&BLOCK_MAGIC, &MARK_MAGIC].map(|magic| memmem::find(rest, magic));
            offset += 1 + block.into_iter().chain(mark).min()?;
        }
    }

    /// The record at an offset, if there is a whole one.
    fn record(&self, bytes: &Bytes, offset: usize) -> Option<(u64, Record)> {
        let rest = bytes.get(offset..)?;
        if let Ok(next_sequence) = block::read_mark(rest, self.salt) {
            let is_next = next_sequence >= self.next_sequence;
            return is_next.then_some(((offset + MARK_BYTES) as u64, Record::Mark(next_sequence)));
        }
        let header = Header::read(rest).ok()?;
        let end = offset.checked_add(header.block_bytes()).filter(|end| *end <= bytes.len())?;
        if header.first_sequence < self.next_sequence {
            return None;
        }
        let block = Block::read(&bytes.slice(offset..end), self.salt).ok()?;
        let is_intact = block.entries.iter().all(|entry| block.is_intact(entry));
        let body = (offset + BLOCK_HEADER_BYTES + header.table_bytes) as u64;
        let (start, end) = (offset as u64, end as u64);
        let commit = start.saturating_sub(header.back.into());
        Some((end, Record::Block(Box::new(Found { start, body, end, block, commit, is_intact }))))
    }

    /// Of its records.
    pub fn salt(&self) -> Salt {
        self.salt
    }

    /// Where what may have been torn begins, in the segment that was written last; none if nothing was.
    pub fn torn(&self) -> Option<u64> {
        let damage = self.damage.iter().filter(|damage| damage.bytes.end > self.last_commit);
        let damage = damage.map(|damage| damage.bytes.start.max(self.last_commit));
        let broken = self.blocks.iter().filter(|found| !found.is_intact && found.start >= self.last_commit);
        let tail = (!self.tail.is_empty()).then_some(self.tail.start);
        damage.chain(broken.map(|found| found.start)).chain(tail).min()
    }

    /// From where on the bytes may be in the page cache alone: those of the last commit, and a mark behind it, whose
    /// own sync may have failed.
    pub fn unsure(&self) -> u64 {
        let commit = self.blocks.last().map_or(SEGMENT_HEADER_BYTES as u64, |found| found.commit);
        commit.min(self.end)
    }

    /// Takes away all from an offset on.
    pub fn cut(&mut self, offset: u64) {
        self.blocks.retain(|found| found.start < offset);
        self.damage.retain(|damage| damage.bytes.start < offset);
        self.end = self.end.min(offset);
        self.tail = self.end..self.end;
    }
}

/// How many bytes there are before the zeros at the end: most of a segment that was begun lately is room.
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

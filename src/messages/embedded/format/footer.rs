//! The footer of a full segment: its index, after the last block.
//!
//! It says where runs of blocks begin, which topics the segment holds, and where each message of a topic is. So a log is
//! opened without reading its blocks, and one topic of a thousand is read without the others. Each part has a checksum of
//! its own; a damaged index can be built again from the blocks.
//!
//! ```text
//! sparse entries | records, by name | names | postings, topic by topic | trailer
//! ```

use std::{collections::BTreeMap, io, sync::Arc};

use bytes::{Buf, BufMut, Bytes};

use super::block::{Entry, Salt, place_of};
use crate::{
    messages::embedded::disk::File,
    wire::{put_varint, take_varint},
};

/// The first bytes of the trailer.
const MAGIC: [u8; 8] = *b"PRNLFOOT";

/// offset, first sequence, last sequence, time.
const ENTRY_BYTES: usize = 4 + 3 * 8;

/// name: offset, length; postings: offset, length, checksum; bytes of the last message; then [`Held::numbers`].
const RECORD_BYTES: usize = 2 * 4 + 3 * 4 + 4 + 10 * 8;

/// magic; offset, length and checksum of sparse entries, records, names; offset of the postings; first and last sequence,
/// last time, messages, ids; checksum.
pub const TRAILER_BYTES: usize = 8 + 3 * 16 + 8 + 5 * 8 + 4;

/// An entry of the sparse index: a run of blocks that is read as a whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SparseEntry {
    /// The offset of its first byte; the run ends where the next one begins.
    pub offset: u32,
    /// No message in it has a lower sequence.
    pub first_sequence: u64,
    /// No message in it has a higher one.
    pub last_sequence: u64,
    /// The time of its first block, in nanoseconds since 1970.
    pub time: u64,
}

/// The place of a message in its segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Posting {
    /// The sequence of the message.
    pub sequence: u64,
    /// When it expires, in milliseconds since 1970; 0 for never.
    pub expires: u64,
    /// The offset of its first byte in the segment.
    pub offset: u32,
    /// Its size in bytes.
    pub length: u32,
    /// The checksum of its bytes.
    pub checksum: u32,
}

/// For a message whose offset in the segment does not matter.
impl From<&Entry> for Posting {
    fn from(entry: &Entry) -> Self {
        let &Entry { sequence, expires, start, end, checksum, .. } = entry;
        Self { sequence, expires, offset: 0, length: end - start, checksum }
    }
}

impl Posting {
    /// Whether it has expired at a time in milliseconds since 1970.
    pub fn has_expired(&self, now_millis: u64) -> bool {
        self.expires != 0 && self.expires <= now_millis
    }
}

/// The sequence and the time, in nanoseconds since 1970, of a message.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct At {
    /// The sequence of the message.
    pub sequence: u64,
    /// Its time, in nanoseconds since 1970.
    pub time: u64,
}

/// What a segment, or the log, holds of a topic. Expiry is in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Held {
    /// The number of messages.
    pub messages: u64,
    /// The size of the messages.
    pub bytes: u64,
    /// The first message.
    pub first: At,
    /// The last message.
    pub last: At,
    /// When the first message expires; 0 for never.
    pub first_expires: u64,
    /// When the last message expires; 0 for never.
    pub last_expires: u64,
    /// The size of the messages that expire.
    pub expiring_bytes: u64,
    /// When the last of those expires.
    pub all_expired: u64,
    /// The size of the last message.
    pub last_bytes: u32,
}

impl Held {
    /// Adds the next message.
    pub fn add(&mut self, posting: &Posting, time: u64) {
        let Posting { sequence, expires, length, .. } = *posting;
        if self.messages == 0 {
            (self.first, self.first_expires) = (At { sequence, time }, expires);
        }
        (self.last, self.last_expires, self.last_bytes) = (At { sequence, time }, expires, length);
        self.messages += 1;
        self.bytes += u64::from(length);
        if expires != 0 {
            self.expiring_bytes += u64::from(length);
            self.all_expired = self.all_expired.max(expires);
        }
    }

    fn numbers(&self) -> [u64; 10] {
        let &Self { messages, bytes, first, last, first_expires, last_expires, .. } = self;
        let (expiring_bytes, all_expired) = (self.expiring_bytes, self.all_expired);
        [
            messages,
            bytes,
            first.sequence,
            first.time,
            last.sequence,
            last.time,
            first_expires,
            last_expires,
            expiring_bytes,
            all_expired,
        ]
    }
}

/// The messages of a topic in a segment.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// Their summary.
    pub held: Held,
    /// Their places, in order.
    pub postings: Vec<Posting>,
}

/// A summary of a segment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Summary {
    /// No message has a lower sequence; 0 if there are no messages.
    pub first_sequence: u64,
    /// No message has a higher one.
    pub last_sequence: u64,
    /// The time of the last block, in nanoseconds since 1970.
    pub last_time: u64,
    /// The number of messages.
    pub messages: u64,
    /// The number of messages with an id.
    pub ids: u64,
}

/// The footer, as it is on disk, of a segment whose blocks end at `offset`.
pub fn to_bytes(
    offset: u64,
    runs: &[SparseEntry],
    lists: &BTreeMap<Arc<str>, List>,
    summary: &Summary,
    salt: Salt,
) -> Vec<u8> {
    let (mut entry_bytes, mut records, mut names, mut postings) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for entry in runs {
        entry_bytes.put_u32_le(entry.offset);
        for number in [entry.first_sequence, entry.last_sequence, entry.time] {
            entry_bytes.put_u64_le(number);
        }
    }
    for (name, List { held, postings: of_topic }) in lists {
        let start = postings.len();
        put_postings(&mut postings, of_topic);
        let list = postings.get(start..).unwrap_or_default();
        for number in [names.len(), name.len(), start, list.len()] {
            put_u32(&mut records, number);
        }
        records.put_u32_le(crc32c::crc32c(list));
        records.put_u32_le(held.last_bytes);
        held.numbers().into_iter().for_each(|number| records.put_u64_le(number));
        names.extend_from_slice(name.as_bytes());
    }
    let mut trailer = MAGIC.to_vec();
    let mut at = offset;
    for part in [&entry_bytes, &records, &names] {
        trailer.put_u64_le(at);
        put_u32(&mut trailer, part.len());
        trailer.put_u32_le(crc32c::crc32c(part));
        at += part.len() as u64;
    }
    trailer.put_u64_le(at);
    let Summary { first_sequence, last_sequence, last_time, messages, ids } = *summary;
    for number in [first_sequence, last_sequence, last_time, messages, ids] {
        trailer.put_u64_le(number);
    }
    trailer.put_u32_le(crc32c::crc32c_append(salt, &trailer));
    [entry_bytes, records, names, postings, trailer].concat()
}

fn put_u32(out: &mut Vec<u8>, number: usize) {
    out.put_u32_le(place_of(number));
}

fn put_postings(out: &mut Vec<u8>, postings: &[Posting]) {
    let (mut sequence, mut offset) = (0, 0);
    for posting in postings {
        put_varint(out, posting.sequence - sequence);
        put_varint(out, u64::from(posting.offset - offset));
        put_varint(out, posting.length.into());
        out.put_u32_le(posting.checksum);
        put_varint(out, posting.expires);
        (sequence, offset) = (posting.sequence, posting.offset);
    }
}

fn take_postings(mut bytes: &[u8]) -> Option<Vec<Posting>> {
    let mut postings = Vec::new();
    let (mut sequence, mut offset) = (0_u64, 0_u32);
    while !bytes.is_empty() {
        sequence = sequence.checked_add(take_varint(&mut bytes)?)?;
        offset = offset.checked_add(u32::try_from(take_varint(&mut bytes)?).ok()?)?;
        let length = u32::try_from(take_varint(&mut bytes)?).ok()?;
        let checksum = bytes.try_get_u32_le().ok()?;
        let expires = take_varint(&mut bytes)?;
        postings.push(Posting { sequence, expires, offset, length, checksum });
    }
    Some(postings)
}

/// The trailer of a footer.
#[derive(Clone, Copy, Debug)]
pub struct Footer {
    parts: [Part; 3],
    postings: u64,
    /// The summary of the segment.
    pub summary: Summary,
    /// The salt of the log.
    pub salt: Salt,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    offset: u64,
    length: usize,
    checksum: u32,
}

/// A part of a footer is not as it was written.
#[derive(Clone, Copy, Debug)]
pub struct Damaged;

impl Footer {
    /// Reads the trailer of a file, if it has one.
    pub fn read(file: &File, salt: Salt) -> io::Result<Option<Self>> {
        let length = file.len()?;
        let Some(at) = length.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
        let bytes = file.read(at, TRAILER_BYTES)?;
        Ok(Self::parse(&bytes, salt).filter(|footer| footer.parts.iter().all(|part| part.end() <= at)))
    }

    fn parse(bytes: &[u8], salt: Salt) -> Option<Self> {
        let (body, mut checksum) = bytes.split_at_checked(TRAILER_BYTES - 4)?;
        let mut fields = body.strip_prefix(&MAGIC)?;
        if crc32c::crc32c_append(salt, body) != checksum.get_u32_le() {
            return None;
        }
        let parts = std::array::from_fn(|_| Part {
            offset: fields.get_u64_le(),
            length: fields.get_u32_le() as usize,
            checksum: fields.get_u32_le(),
        });
        let postings = fields.get_u64_le();
        let summary = Summary {
            first_sequence: fields.get_u64_le(),
            last_sequence: fields.get_u64_le(),
            last_time: fields.get_u64_le(),
            messages: fields.get_u64_le(),
            ids: fields.get_u64_le(),
        };
        Some(Self { parts, postings, summary, salt })
    }

    /// The offset after the last block.
    pub fn blocks_end(&self) -> u64 {
        self.parts[0].offset
    }

    /// The name of the part at an offset.
    pub fn part_at(&self, offset: u64) -> &'static str {
        let names = ["the sparse index", "topics", "names of topics"];
        let part = self.parts.iter().zip(names).find(|(part, _)| offset < part.end());
        part.map_or("places of messages, or the summary", |(_, name)| name)
    }

    /// Whether everything but the postings is sound.
    pub fn is_whole(&self, file: &File) -> io::Result<bool> {
        for part in &self.parts {
            if part.read(file)?.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads the sparse index. An outer error is I/O, an inner one damage.
    pub fn runs(&self, file: &File) -> io::Result<Result<Vec<SparseEntry>, Damaged>> {
        let bytes = self.parts[0].read(file)?;
        let entry = |mut bytes: &[u8]| SparseEntry {
            offset: bytes.get_u32_le(),
            first_sequence: bytes.get_u64_le(),
            last_sequence: bytes.get_u64_le(),
            time: bytes.get_u64_le(),
        };
        Ok(bytes.map(|bytes| bytes.chunks_exact(ENTRY_BYTES).map(entry).collect()))
    }

    /// Reads the topics. An outer error is I/O, an inner one damage.
    pub fn directory(&self, file: &File) -> io::Result<Result<Directory, Damaged>> {
        let [_, records, names] = &self.parts;
        let (records, names) = (records.read(file)?, names.read(file)?);
        Ok(records.and_then(|records| Ok(Directory { records, names: names?, postings: self.postings })))
    }
}

impl Part {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.length as u64)
    }

    fn read(&self, file: &File) -> io::Result<Result<Bytes, Damaged>> {
        let bytes = file.read(self.offset, self.length)?;
        Ok(if crc32c::crc32c(&bytes) == self.checksum { Ok(bytes.into()) } else { Err(Damaged) })
    }
}

/// The topics of a full segment.
#[derive(Clone, Debug)]
pub struct Directory {
    records: Bytes,
    names: Bytes,
    postings: u64,
}

/// A topic of a full segment.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The name of the topic.
    pub name: &'a str,
    /// What the segment holds of it.
    pub held: Held,
    postings: Part,
}

impl Directory {
    /// The topics, by name.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.records.chunks_exact(RECORD_BYTES).filter_map(|record| self.record(record))
    }

    /// The record of a topic.
    pub fn find(&self, name: &str) -> Option<Record<'_>> {
        let (mut low, mut high) = (0, self.records.len() / RECORD_BYTES);
        while low < high {
            let middle = low.midpoint(high);
            let start = middle * RECORD_BYTES;
            let record = self.record(self.records.get(start..start + RECORD_BYTES)?)?;
            match record.name.cmp(name) {
                std::cmp::Ordering::Equal => return Some(record),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// The memory that it takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.records.len() + self.names.len()
    }

    fn record(&self, mut bytes: &[u8]) -> Option<Record<'_>> {
        let (offset, length) = (bytes.get_u32_le() as usize, bytes.get_u32_le() as usize);
        let name = std::str::from_utf8(self.names.get(offset..offset.checked_add(length)?)?).ok()?;
        let postings = Part {
            offset: self.postings + u64::from(bytes.get_u32_le()),
            length: bytes.get_u32_le() as usize,
            checksum: bytes.get_u32_le(),
        };
        let last_bytes = bytes.get_u32_le();
        let mut number = || bytes.get_u64_le();
        let held = Held {
            messages: number(),
            bytes: number(),
            first: At { sequence: number(), time: number() },
            last: At { sequence: number(), time: number() },
            first_expires: number(),
            last_expires: number(),
            expiring_bytes: number(),
            all_expired: number(),
            last_bytes,
        };
        Some(Record { name, held, postings })
    }
}

impl Record<'_> {
    /// Reads the places of the topic's messages. An outer error is I/O, an inner one damage.
    pub fn postings(&self, file: &File) -> io::Result<Result<Vec<Posting>, Damaged>> {
        let bytes = self.postings.read(file)?;
        Ok(bytes.and_then(|bytes| take_postings(&bytes).ok_or(Damaged)))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn a_footer_is_read_as_it_was_written_and_no_byte_of_it_can_change() {
        let runs = [
            SparseEntry { offset: 48, first_sequence: 3, last_sequence: 9, time: 5 },
            SparseEntry { offset: 70_000, first_sequence: 10, last_sequence: 12, time: 6 },
        ];
        let mut lists = BTreeMap::<Arc<str>, List>::new();
        for (n, name) in (1_u32..).zip(["a", "b.c", "b.d", "z"]) {
            let mut list = List::default();
            for sequence in [3, 4, 11] {
                let expires = u64::from(n % 2) * 1_000_000_000_000;
                let offset = u32::try_from(sequence).unwrap() * 100 + n;
                let posting = Posting { sequence, expires, offset, length: n, checksum: 7 };
                list.held.add(&posting, 5);
                list.postings.push(posting);
            }
            lists.insert(name.into(), list);
        }
        let summary = Summary { first_sequence: 3, last_sequence: 12, last_time: 6, messages: 12, ids: 2 };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("segment");
        let bytes = [vec![1; 100], to_bytes(100, &runs, &lists, &summary, 3)].concat();
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let file = File::Real(std::fs::File::open(&path).unwrap());
            let footer = Footer::read(&file, 3).unwrap()?;
            let read_runs = footer.runs(&file).unwrap().ok()?;
            let directory = footer.directory(&file).unwrap().ok()?;
            let mut read = BTreeMap::new();
            for record in directory.records() {
                let postings = record.postings(&file).unwrap().ok()?;
                let found = directory.find(record.name).unwrap();
                assert_eq!(found.held, record.held);
                read.insert(record.name.to_owned(), (record.held, postings));
            }
            Some((read_runs, read, footer.summary, footer.blocks_end()))
        };
        let (read_runs, read_lists, read_summary, end) = read(&bytes).unwrap();
        assert_eq!((read_runs.as_slice(), read_summary, end), (&runs[..], summary, 100));
        for (name, list) in &lists {
            assert_eq!(read_lists[name.as_ref()], (list.held, list.postings.clone()));
        }
        for at in 100..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(read(&flipped).is_none(), "byte {at}");
        }
    }
}

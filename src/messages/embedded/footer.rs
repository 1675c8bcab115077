//! The index of a segment that is full: its footer, behind the last block.
//!
//! It tells where pages of blocks begin, which topics there are, and where each message of a topic is, so that a log is
//! opened without reading its blocks, and one topic of a thousand is read without the others. Its parts have checksums
//! of their own; where one does not hold, the blocks tell the same.
//!
//! ```text
//! pages | records, by name | names | postings, topic by topic | trailer
//! ```

use std::{collections::BTreeMap, io, sync::Arc};

use bytes::{Buf, BufMut, Bytes};

use super::{
    block::{Entry, Salt},
    disk::File,
};
use crate::wire::{put_varint, take_varint};

/// Begins the trailer.
const MAGIC: [u8; 8] = *b"PRNLFOOT";

/// offset, first sequence, last sequence, time.
const PAGE_BYTES: usize = 4 + 3 * 8;

/// name: offset, length; postings: offset, length, checksum; bytes of the last message; then [`Held::numbers`].
const RECORD_BYTES: usize = 2 * 4 + 3 * 4 + 4 + 10 * 8;

/// magic; offset, length and checksum of pages, records, names; offset of the postings; first and last sequence, last
/// time, messages, ids; checksum.
pub const TRAILER_BYTES: usize = 8 + 3 * 16 + 8 + 5 * 8 + 4;

/// A run of blocks that is read as a whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Page {
    /// Where it begins; it ends where the next one begins.
    pub offset: u32,
    /// No message in it has a lower sequence.
    pub first_sequence: u64,
    /// No message in it has a higher one.
    pub last_sequence: u64,
    /// Of its first block: in nanoseconds since 1970.
    pub time: u64,
}

/// Where a message is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Posting {
    /// Its place in the log.
    pub sequence: u64,
    /// When it expires, in milliseconds since 1970; 0: never.
    pub expires: u64,
    /// Its first byte in the segment.
    pub offset: u32,
    /// How many bytes.
    pub length: u32,
    /// Of its bytes.
    pub checksum: u32,
}

/// Of a message whose place in the segment does not matter.
impl From<&Entry> for Posting {
    fn from(entry: &Entry) -> Self {
        let &Entry { sequence, expires, start, end, checksum, .. } = entry;
        Self { sequence, expires, offset: 0, length: end - start, checksum }
    }
}

impl Posting {
    /// It is not to be delivered any more, at a time in milliseconds since 1970.
    pub fn has_expired(&self, now: u64) -> bool {
        self.expires != 0 && self.expires <= now
    }
}

/// What a segment holds of a topic. Times are in nanoseconds since 1970, those of expiry in milliseconds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Held {
    /// How many messages.
    pub messages: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Sequence and time of the first.
    pub first: (u64, u64),
    /// Sequence and time of the last.
    pub last: (u64, u64),
    /// When the first one expires; 0: never.
    pub first_expires: u64,
    /// When the last one expires; 0: never.
    pub last_expires: u64,
    /// How many bytes those have that expire.
    pub expiring_bytes: u64,
    /// When the last of them has expired.
    pub all_expired: u64,
    /// How many bytes the last one has.
    pub last_bytes: u32,
}

impl Held {
    /// Takes note of one more message, of a time.
    pub fn add(&mut self, posting: &Posting, time: u64) {
        let Posting { sequence, expires, length, .. } = *posting;
        if self.messages == 0 {
            (self.first, self.first_expires) = ((sequence, time), expires);
        }
        (self.last, self.last_expires, self.last_bytes) = ((sequence, time), expires, length);
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
            first.0,
            first.1,
            last.0,
            last.1,
            first_expires,
            last_expires,
            expiring_bytes,
            all_expired,
        ]
    }
}

/// All that a segment holds of a topic.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// In short.
    pub held: Held,
    /// In order.
    pub postings: Vec<Posting>,
}

/// What is known of a whole segment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Summary {
    /// No message has a lower sequence; 0 if there are no messages.
    pub first_sequence: u64,
    /// No message has a higher one.
    pub last_sequence: u64,
    /// Of the last block, in nanoseconds since 1970.
    pub last_time: u64,
    /// How many messages.
    pub messages: u64,
    /// How many of them have an id.
    pub ids: u64,
}

/// The footer of a segment whose blocks end at `offset`, as it is on disk.
pub fn to_bytes(
    offset: u64,
    pages: &[Page],
    lists: &BTreeMap<Arc<str>, List>,
    summary: &Summary,
    salt: Salt,
) -> Vec<u8> {
    let (mut page_bytes, mut records, mut names, mut postings) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for page in pages {
        page_bytes.put_u32_le(page.offset);
        for number in [page.first_sequence, page.last_sequence, page.time] {
            page_bytes.put_u64_le(number);
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
    for part in [&page_bytes, &records, &names] {
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
    [page_bytes, records, names, postings, trailer].concat()
}

fn put_u32(out: &mut Vec<u8>, number: usize) {
    out.put_u32_le(u32::try_from(number).unwrap_or(u32::MAX));
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

/// A footer that was found: its trailer.
#[derive(Clone, Copy, Debug)]
pub struct Footer {
    parts: [Part; 3],
    postings: u64,
    /// Of the segment.
    pub summary: Summary,
    /// Of the segment's log.
    pub salt: Salt,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    offset: u64,
    length: usize,
    checksum: u32,
}

/// A footer, or a part of it, is not what was written.
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

    /// Where the blocks end.
    pub fn blocks_end(&self) -> u64 {
        self.parts[0].offset
    }

    /// What stands at an offset.
    pub fn part_at(&self, offset: u64) -> &'static str {
        let names = ["pages", "topics", "names of topics"];
        let part = self.parts.iter().zip(names).find(|(part, _)| offset < part.end());
        part.map_or("where messages of topics are, or how many there are", |(_, name)| name)
    }

    /// Nothing of it is damaged but, perhaps, where the messages of a topic are.
    pub fn is_whole(&self, file: &File) -> io::Result<bool> {
        for part in &self.parts {
            if part.read(file)?.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads the pages.
    pub fn pages(&self, file: &File) -> io::Result<Result<Vec<Page>, Damaged>> {
        let bytes = self.parts[0].read(file)?;
        let page = |mut bytes: &[u8]| Page {
            offset: bytes.get_u32_le(),
            first_sequence: bytes.get_u64_le(),
            last_sequence: bytes.get_u64_le(),
            time: bytes.get_u64_le(),
        };
        Ok(bytes.map(|bytes| bytes.chunks_exact(PAGE_BYTES).map(page).collect()))
    }

    /// Reads what topics there are.
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

/// The topics of a segment that is full.
#[derive(Clone, Debug)]
pub struct Directory {
    records: Bytes,
    names: Bytes,
    postings: u64,
}

/// A topic in a directory.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its name.
    pub name: &'a str,
    /// What is there of it.
    pub held: Held,
    postings: Part,
}

impl Directory {
    /// The topics, by name.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.records.chunks_exact(RECORD_BYTES).filter_map(|record| self.record(record))
    }

    /// One topic.
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

    /// How many bytes of memory it takes.
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
            first: (number(), number()),
            last: (number(), number()),
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
    /// Reads where the topic's messages are.
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
        let pages = [
            Page { offset: 48, first_sequence: 3, last_sequence: 9, time: 5 },
            Page { offset: 70_000, first_sequence: 10, last_sequence: 12, time: 6 },
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
        let bytes = [vec![1; 100], to_bytes(100, &pages, &lists, &summary, 3)].concat();
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let file = File::Real(std::fs::File::open(&path).unwrap());
            let footer = Footer::read(&file, 3).unwrap()?;
            let read_pages = footer.pages(&file).unwrap().ok()?;
            let directory = footer.directory(&file).unwrap().ok()?;
            let mut read = BTreeMap::new();
            for record in directory.records() {
                let postings = record.postings(&file).unwrap().ok()?;
                let found = directory.find(record.name).unwrap();
                assert_eq!(found.held, record.held);
                read.insert(record.name.to_owned(), (record.held, postings));
            }
            Some((read_pages, read, footer.summary, footer.blocks_end()))
        };
        let (read_pages, read_lists, read_summary, end) = read(&bytes).unwrap();
        assert_eq!((read_pages.as_slice(), read_summary, end), (&pages[..], summary, 100));
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

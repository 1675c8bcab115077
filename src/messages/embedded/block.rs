//! The records of a segment: its header, commit blocks, and the mark of a clean end. `docs/log-format.md` describes
//! them. Pure, on memory alone.
//!
//! Nothing here trusts what it reads: a length is checked before it is used, a header by its checksum, an entry by
//! its own.

use std::{ops::Range, sync::Arc};

use bytes::{Buf, BufMut, Bytes};
use uuid::Uuid;

use crate::wire::{put_varint, take_varint};

/// The version of the format. A log of a newer one is refused.
pub const VERSION: u32 = 2;

/// The only version whose header is shorter. Those of all others have this one's length and checksum, so that a newer
/// version is told from a damaged one.
const SHORT_VERSION: u32 = 1;

/// Begins every segment.
const SEGMENT_MAGIC: [u8; 8] = *b"PRNLSEG\n";

/// Begins every block.
pub const BLOCK_MAGIC: [u8; 4] = *b"PBLK";

/// Begins the mark of a clean end.
pub const MARK_MAGIC: [u8; 4] = *b"PEND";

/// The checksum is the last field of everything that has one.
const CHECKSUM_BYTES: usize = 4;

/// magic, version, log, salt, first sequence, sequence through which it was rewritten, checksum.
pub const SEGMENT_HEADER_BYTES: usize = 8 + 4 + 16 + 4 + 8 + 8 + CHECKSUM_BYTES;

/// magic, table bytes, body bytes, entries, topics, bytes since the commit began, first and last sequence, time,
/// checksum. The checksum covers all before it, and the table.
pub const BLOCK_HEADER_BYTES: usize = 6 * 4 + 3 * 8 + CHECKSUM_BYTES;

/// magic, next sequence, checksum.
pub const MARK_BYTES: usize = 4 + 8 + CHECKSUM_BYTES;

/// The largest table or body that is believed: a commit is far smaller.
const MAX_PART_BYTES: usize = 256 * 1024 * 1024;

/// Which log a segment belongs to: a UUID of version 7, made with the log, so that it tells when that was.
pub type LogId = [u8; 16];

/// Where the checksums of a log's records begin: random, made with the log, and known to its files alone. A message may
/// hold what looks like a record; but for this, it would be taken for one where the record that it is in is torn.
pub type Salt = u32;

/// Which log it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Identity {
    /// In every cursor.
    pub id: LogId,
    /// Told to nobody.
    pub salt: Salt,
}

impl Identity {
    /// Of a new log.
    pub fn new() -> Self {
        Self { id: *Uuid::now_v7().as_bytes(), salt: Self::new_salt() }
    }

    /// Of a log that had none.
    pub fn new_salt() -> Salt {
        Uuid::new_v4().as_fields().0
    }
}

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Cut off, or not what the checksum says.
    Damaged,
    /// Of another version of the format.
    Version(u32),
}

/// What begins a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SegmentHeader {
    /// The log.
    pub log: Identity,
    /// No message here has a lower sequence.
    pub first_sequence: u64,
    /// It was made of older segments, and stands for all that begin up to this sequence; 0 if it was not.
    pub through: u64,
}

impl SegmentHeader {
    /// As it is on disk.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        out.put_slice(&SEGMENT_MAGIC);
        out.put_u32_le(VERSION);
        out.put_slice(&self.log.id);
        out.put_u32_le(self.log.salt);
        out.put_u64_le(self.first_sequence);
        out.put_u64_le(self.through);
        out.put_u32_le(crc32c::crc32c(&out));
        out
    }

    /// Reads it.
    pub fn read(bytes: &[u8]) -> Result<Self, Fault> {
        let damaged = |_| Fault::Damaged;
        let version =
            bytes.strip_prefix(&SEGMENT_MAGIC).ok_or(Fault::Damaged)?.try_get_u32_le().map_err(damaged)?;
        if version == SHORT_VERSION {
            return Err(Fault::Version(version));
        }
        let bytes = bytes.get(..SEGMENT_HEADER_BYTES).ok_or(Fault::Damaged)?;
        let (mut body, mut checksum) = bytes.split_at(SEGMENT_HEADER_BYTES - CHECKSUM_BYTES);
        if crc32c::crc32c(body) != checksum.get_u32_le() {
            return Err(Fault::Damaged);
        }
        if version != VERSION {
            return Err(Fault::Version(version));
        }
        body.advance(SEGMENT_MAGIC.len() + 4);
        let mut id = LogId::default();
        body.copy_to_slice(&mut id);
        let log = Identity { id, salt: body.get_u32_le() };
        Ok(Self { log, first_sequence: body.get_u64_le(), through: body.get_u64_le() })
    }
}

/// One message of a block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Its place in the log.
    pub sequence: u64,
    /// Its topic, in the block's list.
    pub topic: u32,
    /// Where it begins in the body.
    pub start: u32,
    /// Behind its last byte.
    pub end: u32,
    /// Of its bytes in the body.
    pub checksum: u32,
    /// When it expires, in milliseconds since 1970; 0: never.
    pub expires: u64,
}

impl Entry {
    /// Where it is in the body.
    pub fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// It is not to be delivered any more, at a time in milliseconds since 1970.
    pub fn has_expired(&self, now: u64) -> bool {
        self.expires != 0 && self.expires <= now
    }
}

/// Messages that were committed together.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// No entry has a lower sequence.
    pub first_sequence: u64,
    /// No entry has a higher one.
    pub last_sequence: u64,
    /// When they were committed: in nanoseconds since 1970.
    pub time: u64,
    /// Each topic of the block, once.
    pub topics: Vec<Arc<str>>,
    /// In the order of the sequence.
    pub entries: Vec<Entry>,
    /// The ids that entries were published with: which entry, and the id; in order.
    pub ids: Vec<(u32, Box<str>)>,
    /// The entries as a response has them, back to back. Empty where only the table was read.
    pub body: Bytes,
}

/// A block's header.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Behind the header.
    pub table_bytes: usize,
    /// Behind the table.
    pub body_bytes: usize,
    entries: usize,
    topics: usize,
    /// How many bytes of the same commit stand before the block.
    pub back: u32,
    /// No entry has a lower sequence.
    pub first_sequence: u64,
    /// No entry has a higher one.
    pub last_sequence: u64,
    /// When it was committed.
    pub time: u64,
}

impl Header {
    /// Reads the fixed part. Its checksum, which covers the table too, is checked by [`Block::read`].
    pub fn read(mut bytes: &[u8]) -> Result<Self, Fault> {
        if bytes.len() < BLOCK_HEADER_BYTES || !bytes.starts_with(&BLOCK_MAGIC) {
            return Err(Fault::Damaged);
        }
        bytes.advance(BLOCK_MAGIC.len());
        let mut size = || usize::try_from(bytes.get_u32_le()).unwrap_or(usize::MAX);
        let (table_bytes, body_bytes, entries, topics) = (size(), size(), size(), size());
        let back = bytes.get_u32_le();
        let (first_sequence, last_sequence, time) =
            (bytes.get_u64_le(), bytes.get_u64_le(), bytes.get_u64_le());
        let is_large = table_bytes > MAX_PART_BYTES || body_bytes > MAX_PART_BYTES;
        if is_large || entries == 0 || topics > entries || first_sequence > last_sequence {
            return Err(Fault::Damaged);
        }
        Ok(Self { table_bytes, body_bytes, entries, topics, back, first_sequence, last_sequence, time })
    }

    /// The whole block.
    pub fn block_bytes(&self) -> usize {
        BLOCK_HEADER_BYTES + self.table_bytes + self.body_bytes
    }
}

impl Block {
    /// Appends the block as it is on disk. `back` bytes of the same commit stand before it. Where its body is then.
    pub fn put(&self, out: &mut Vec<u8>, back: u32, salt: Salt) -> Range<usize> {
        let mut table = Vec::with_capacity(self.topics.len() * 16 + self.entries.len() * 12);
        for topic in &self.topics {
            put_text(&mut table, topic);
        }
        let mut ids = self.ids.iter().peekable();
        let mut before = self.first_sequence;
        for (place, entry) in (0_u32..).zip(&self.entries) {
            put_varint(&mut table, entry.topic.into());
            put_varint(&mut table, entry.sequence - before);
            before = entry.sequence;
            put_varint(&mut table, u64::from(entry.end - entry.start));
            table.put_u32_le(entry.checksum);
            put_varint(&mut table, entry.expires);
            let id = ids.next_if(|(of, _)| *of == place).map_or("", |(_, id)| id);
            put_text(&mut table, id);
        }
        let start = out.len();
        out.reserve(BLOCK_HEADER_BYTES + table.len() + self.body.len());
        out.put_slice(&BLOCK_MAGIC);
        for size in [table.len(), self.body.len(), self.entries.len(), self.topics.len()] {
            out.put_u32_le(u32::try_from(size).unwrap_or(u32::MAX));
        }
        out.put_u32_le(back);
        for number in [self.first_sequence, self.last_sequence, self.time] {
            out.put_u64_le(number);
        }
        let fixed = crc32c::crc32c_append(salt, out.get(start..).unwrap_or_default());
        out.put_u32_le(crc32c::crc32c_append(fixed, &table));
        out.put_slice(&table);
        let body = out.len();
        out.put_slice(&self.body);
        body..out.len()
    }

    /// Reads a block; without its body, if that is not there whole.
    pub fn read(bytes: &Bytes, salt: Salt) -> Result<Self, Fault> {
        let header = Header::read(bytes)?;
        let table_end = BLOCK_HEADER_BYTES + header.table_bytes;
        let fixed = bytes.get(..BLOCK_HEADER_BYTES - CHECKSUM_BYTES).ok_or(Fault::Damaged)?;
        let mut checksum = bytes.get(fixed.len()..BLOCK_HEADER_BYTES).ok_or(Fault::Damaged)?;
        let table = bytes.get(BLOCK_HEADER_BYTES..table_end).ok_or(Fault::Damaged)?;
        if crc32c::crc32c_append(crc32c::crc32c_append(salt, fixed), table) != checksum.get_u32_le() {
            return Err(Fault::Damaged);
        }
        let body = match bytes.len().checked_sub(table_end) {
            Some(rest) if rest >= header.body_bytes => bytes.slice(table_end..table_end + header.body_bytes),
            _ => Bytes::new(),
        };
        read_table(table, &header, body).ok_or(Fault::Damaged)
    }

    /// The name of an entry's topic.
    pub fn topic(&self, entry: &Entry) -> Option<&Arc<str>> {
        self.topics.get(entry.topic as usize)
    }

    /// Leaves out topics of which it has no message.
    pub fn compact(&mut self) {
        let mut places = vec![None; self.topics.len()];
        let mut topics = Vec::new();
        for entry in &mut self.entries {
            let Some(place) = places.get_mut(entry.topic as usize) else { continue };
            let place = *place.get_or_insert_with(|| {
                topics.extend(self.topics.get(entry.topic as usize).cloned());
                u32::try_from(topics.len() - 1).unwrap_or(u32::MAX)
            });
            entry.topic = place;
        }
        self.topics = topics;
    }

    /// The bytes of an entry are what was written.
    pub fn is_intact(&self, entry: &Entry) -> bool {
        self.body.get(entry.range()).is_some_and(|bytes| crc32c::crc32c(bytes) == entry.checksum)
    }
}

/// A checksum that holds makes the table trustworthy; it is read with care all the same.
fn read_table(mut table: &[u8], header: &Header, body: Bytes) -> Option<Block> {
    let &Header { first_sequence, last_sequence, time, .. } = header;
    let mut topics = Vec::with_capacity(header.topics);
    for _ in 0..header.topics {
        topics.push(take_text(&mut table)?.into());
    }
    let (mut entries, mut ids) = (Vec::with_capacity(header.entries), Vec::new());
    let (mut start, mut sequence) = (0_u32, first_sequence);
    for place in 0..u32::try_from(header.entries).ok()? {
        let topic = u32::try_from(take_varint(&mut table)?).ok()?;
        sequence = sequence.checked_add(take_varint(&mut table)?)?;
        let bytes = u32::try_from(take_varint(&mut table)?).ok()?;
        let checksum = table.try_get_u32_le().ok()?;
        let expires = take_varint(&mut table)?;
        let id = take_text(&mut table)?;
        if !id.is_empty() {
            ids.push((place, id.into()));
        }
        let end = start.checked_add(bytes).filter(|end| *end as usize <= header.body_bytes)?;
        entries.push(Entry { sequence, topic, start, end, checksum, expires });
        start = end;
    }
    let is_whole = table.is_empty() && sequence <= last_sequence && start as usize == header.body_bytes;
    is_whole.then_some(Block { first_sequence, last_sequence, time, topics, entries, ids, body })
}

/// The mark of a clean end: all before it is on disk, and no sequence below `next_sequence` is still to come.
pub fn mark(next_sequence: u64, salt: Salt) -> Vec<u8> {
    let mut out = Vec::with_capacity(MARK_BYTES);
    out.put_slice(&MARK_MAGIC);
    out.put_u64_le(next_sequence);
    out.put_u32_le(crc32c::crc32c_append(salt, &out));
    out
}

/// Reads the mark of a clean end: the next sequence.
pub fn read_mark(bytes: &[u8], salt: Salt) -> Result<u64, Fault> {
    let bytes =
        bytes.get(..MARK_BYTES).filter(|bytes| bytes.starts_with(&MARK_MAGIC)).ok_or(Fault::Damaged)?;
    let (mut body, mut checksum) = bytes.split_at(MARK_BYTES - CHECKSUM_BYTES);
    if crc32c::crc32c_append(salt, body) != checksum.get_u32_le() {
        return Err(Fault::Damaged);
    }
    body.advance(MARK_MAGIC.len());
    Ok(body.get_u64_le())
}

/// A topic or an id, both shorter than 256 bytes.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_u8(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.put_slice(text.as_bytes());
}

/// Reads what [`put_text`] wrote.
pub fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::from(bytes.try_get_u8().ok()?);
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(entries: &[(u32, u64, Vec<u8>, u64, String)]) -> Block {
        let mut block = Block { first_sequence: 7, time: 9, ..Block::default() };
        block.topics = vec!["a".into(), "b.c".into()];
        let (mut body, mut sequence) = (Vec::new(), 7);
        for (place, (topic, gap, bytes, expires, id)) in (0_u32..).zip(entries) {
            sequence += gap + u64::from(place > 0);
            let start = u32::try_from(body.len()).unwrap();
            body.extend(bytes);
            let end = u32::try_from(body.len()).unwrap();
            let checksum = crc32c::crc32c(bytes);
            block.entries.push(Entry { sequence, topic: *topic, start, end, checksum, expires: *expires });
            if !id.is_empty() {
                block.ids.push((place, id.as_str().into()));
            }
        }
        block.last_sequence = sequence;
        block.body = body.into();
        block
    }

    proptest! {
        #[test]
        fn a_block_is_read_as_it_was_written_and_no_byte_of_it_can_change(
            entries in proptest::collection::vec(
                (0_u32..2, 0_u64..300, proptest::collection::vec(any::<u8>(), 1..40), 0_u64..1 << 45, "[a-z]{0,9}"),
                2..20,
            ),
            at: prop::sample::Index,
            bit in 0..8,
        ) {
            let block = sample(&entries);
            let mut bytes = b"before".to_vec();
            let body = block.put(&mut bytes, 3, 9);
            let bytes = bytes.split_off(6);
            prop_assert_eq!(&bytes[body.start - 6..body.end - 6], &block.body[..]);
            let read = Block::read(&Bytes::from(bytes.clone()), 9).unwrap();
            prop_assert!(Block::read(&Bytes::from(bytes.clone()), 8).is_err(), "of another log");
            prop_assert_eq!((&read.topics, &read.entries, &read.ids), (&block.topics, &block.entries, &block.ids));
            prop_assert_eq!((read.last_sequence, read.time, &read.body), (block.last_sequence, 9, &block.body));

            let mut flipped = bytes.clone();
            flipped[at.index(bytes.len())] ^= 1_u8 << bit;
            let is_noticed = match Block::read(&Bytes::from(flipped), 9) {
                Err(_) => true,
                Ok(read) => !read.entries.iter().all(|entry| read.is_intact(entry)),
            };
            prop_assert!(is_noticed);
            for end in 0..bytes.len() - 1 {
                let cut = Block::read(&Bytes::copy_from_slice(&bytes[..end]), 9);
                prop_assert!(cut.is_err() || cut.unwrap().body.is_empty());
            }
        }

        #[test]
        fn a_header_and_a_mark_are_read_as_they_were_written(id: [u8; 16], salt: u32, first_sequence: u64, through: u64) {
            let log = Identity { id, salt };
            let header = SegmentHeader { log, first_sequence, through };
            prop_assert_eq!(SegmentHeader::read(&header.to_bytes()), Ok(header));
            prop_assert_eq!(read_mark(&mark(through, salt), salt), Ok(through));
            prop_assert!(read_mark(&mark(through, salt), !salt).is_err());
        }
    }
}

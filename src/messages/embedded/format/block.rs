//! The records of a segment: commit blocks, the beginning of an incarnation, and the mark of a clean end. Works on memory
//! alone.
//!
//! Nothing here trusts the bytes that it reads: a length is checked before it is used, a header by its checksum, and an
//! entry by a checksum of its own.

use std::{ops::Range, sync::Arc};

use bytes::{Buf, BufMut, Bytes};
use uuid::Uuid;

use crate::{
    blocking::give_way,
    messages::incarnation::{Incarnation, IncarnationId},
    wire::{put_varint, take_varint},
};

/// The first bytes of every block.
pub const BLOCK_MAGIC: [u8; 4] = *b"PBLK";

/// The first bytes of a mark of a clean end.
pub const MARK_MAGIC: [u8; 4] = *b"PEND";

/// The first bytes of the beginning of an incarnation.
pub const INCARNATION_MAGIC: [u8; 4] = *b"PINC";

/// A checksum is the last field of its record.
const CHECKSUM_BYTES: usize = 4;

/// magic, table bytes, body bytes, entries, topics, bytes since the commit began, first and last sequence, time,
/// checksum. The checksum covers the fields before it, and the table.
pub const BLOCK_HEADER_BYTES: usize = 6 * 4 + 3 * 8 + CHECKSUM_BYTES;

/// The thread can give way after so many topics or entries: reading them takes some 50 µs.
const AT_ONCE: usize = 512;

/// magic, next sequence, checksum.
pub const MARK_BYTES: usize = 4 + 8 + CHECKSUM_BYTES;

/// magic, id, first sequence, checksum.
pub const INCARNATION_BYTES: usize = 4 + 8 + 8 + CHECKSUM_BYTES;

/// The largest table or body that is accepted: a commit is far smaller.
const MAX_PART_BYTES: usize = 256 * 1024 * 1024;

/// The identity of a log: a UUID of version 7, which contains the time when the log was created.
pub type LogId = [u8; 16];

/// The initial value of the checksums of a log's records: random, created with the log, and known to its files alone.
/// Without it, a message that contains the bytes of a record could be taken for one when the record around it is torn.
pub type Salt = u32;

/// The identity and the salt of a log.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Identity {
    /// The identity, which every cursor contains.
    pub id: LogId,
    /// The salt, which leaves the server in no response.
    pub salt: Salt,
}

impl Identity {
    /// The identity of a new log.
    pub fn new() -> Self {
        Self { id: *Uuid::now_v7().as_bytes(), salt: Self::new_salt() }
    }

    /// A salt for a log that has none.
    pub fn new_salt() -> Salt {
        Uuid::new_v4().as_fields().0
    }
}

/// Bytes are not a valid record: they are cut off, or not as the checksum says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fault;

/// One message of a block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The sequence of the message.
    pub sequence: u64,
    /// The index of its topic in the block's list.
    pub topic: u32,
    /// The offset of its first byte in the body.
    pub start: u32,
    /// The offset after its last byte in the body.
    pub end: u32,
    /// The checksum of its bytes in the body.
    pub checksum: u32,
    /// When it expires, in milliseconds since 1970; 0 for never.
    pub expires: u64,
}

impl Entry {
    /// The place of its bytes in the body.
    pub fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Messages that were committed together, or a part of them.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// No entry has a lower sequence.
    pub first_sequence: u64,
    /// No entry has a higher one.
    pub last_sequence: u64,
    /// When they were committed, in nanoseconds since 1970.
    pub time: u64,
    /// The topics of the block, each once.
    pub topics: Vec<Arc<str>>,
    /// The messages, in the order of their sequence.
    pub entries: Vec<Entry>,
    /// The message ids: the index of the entry, and its id; in order.
    pub ids: Vec<(u32, Box<str>)>,
    /// The messages, encoded as in a response, back to back. Empty if only the table was read.
    pub body: Bytes,
}

/// The header of a block.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// The size of the table, which follows the header.
    pub table_bytes: usize,
    /// The size of the body, which follows the table.
    pub body_bytes: usize,
    entries: usize,
    topics: usize,
    /// The number of bytes of the same commit before the block.
    pub back: u32,
    /// No entry has a lower sequence.
    pub first_sequence: u64,
    /// No entry has a higher one.
    pub last_sequence: u64,
    /// When it was committed, in nanoseconds since 1970.
    pub time: u64,
}

impl Header {
    /// Reads the fixed part. [`Block::read`] checks the checksum, which also covers the table.
    pub fn read(mut bytes: &[u8]) -> Result<Self, Fault> {
        if bytes.len() < BLOCK_HEADER_BYTES || !bytes.starts_with(&BLOCK_MAGIC) {
            return Err(Fault);
        }
        bytes.advance(BLOCK_MAGIC.len());
        let mut size = || usize::try_from(bytes.get_u32_le()).unwrap_or(usize::MAX);
        let (table_bytes, body_bytes, entries, topics) = (size(), size(), size(), size());
        let back = bytes.get_u32_le();
        let (first_sequence, last_sequence, time) =
            (bytes.get_u64_le(), bytes.get_u64_le(), bytes.get_u64_le());
        let is_large = table_bytes > MAX_PART_BYTES || body_bytes > MAX_PART_BYTES;
        if is_large || entries == 0 || topics > entries || first_sequence > last_sequence {
            return Err(Fault);
        }
        Ok(Self { table_bytes, body_bytes, entries, topics, back, first_sequence, last_sequence, time })
    }

    /// The size of the whole block.
    pub fn block_bytes(&self) -> usize {
        BLOCK_HEADER_BYTES + self.table_bytes + self.body_bytes
    }
}

impl Block {
    /// Appends the block as it is on disk, after `back` bytes of the same commit. Returns where its body is in `out`.
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
            out.put_u32_le(place_of(size));
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

    /// Reads a block. The body is left empty if it is not complete.
    pub fn read(bytes: &Bytes, salt: Salt) -> Result<Self, Fault> {
        let header = Header::read(bytes)?;
        let table_end = BLOCK_HEADER_BYTES + header.table_bytes;
        let fixed = bytes.get(..BLOCK_HEADER_BYTES - CHECKSUM_BYTES).ok_or(Fault)?;
        let mut checksum = bytes.get(fixed.len()..BLOCK_HEADER_BYTES).ok_or(Fault)?;
        let table = bytes.get(BLOCK_HEADER_BYTES..table_end).ok_or(Fault)?;
        if crc32c::crc32c_append(crc32c::crc32c_append(salt, fixed), table) != checksum.get_u32_le() {
            return Err(Fault);
        }
        let body = match bytes.len().checked_sub(table_end) {
            Some(rest) if rest >= header.body_bytes => bytes.slice(table_end..table_end + header.body_bytes),
            _ => Bytes::new(),
        };
        read_table(table, &header, body).ok_or(Fault)
    }

    /// The name of an entry's topic.
    pub fn topic(&self, entry: &Entry) -> Option<&Arc<str>> {
        self.topics.get(entry.topic as usize)
    }

    /// Drops the topics of which the block has no message.
    pub fn compact(&mut self) {
        let mut places = vec![None; self.topics.len()];
        let mut topics = Vec::new();
        for entry in &mut self.entries {
            let Some(place) = places.get_mut(entry.topic as usize) else { continue };
            let place = *place.get_or_insert_with(|| {
                topics.extend(self.topics.get(entry.topic as usize).cloned());
                place_of(topics.len() - 1)
            });
            entry.topic = place;
        }
        self.topics = topics;
    }

    /// Whether the bytes of an entry are those that were written.
    pub fn is_intact(&self, entry: &Entry) -> bool {
        self.body.get(entry.range()).is_some_and(|bytes| crc32c::crc32c(bytes) == entry.checksum)
    }
}

/// The checksum has proved the table; lengths are checked all the same.
fn read_table(mut table: &[u8], header: &Header, body: Bytes) -> Option<Block> {
    let &Header { first_sequence, last_sequence, time, .. } = header;
    let mut topics = Vec::with_capacity(header.topics);
    for place in 0..header.topics {
        if place.is_multiple_of(AT_ONCE) {
            give_way();
        }
        topics.push(take_text(&mut table)?.into());
    }
    let (mut entries, mut ids) = (Vec::with_capacity(header.entries), Vec::new());
    let (mut start, mut sequence) = (0_u32, first_sequence);
    for place in 0..u32::try_from(header.entries).ok()? {
        if (place as usize).is_multiple_of(AT_ONCE) {
            give_way();
        }
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

/// The mark of a clean end: everything before it is on disk, and no later message has a sequence below `next_sequence`.
pub fn mark(next_sequence: u64, salt: Salt) -> Vec<u8> {
    let mut out = Vec::with_capacity(MARK_BYTES);
    out.put_slice(&MARK_MAGIC);
    out.put_u64_le(next_sequence);
    out.put_u32_le(crc32c::crc32c_append(salt, &out));
    out
}

/// Reads the mark of a clean end. Returns the next sequence.
pub fn read_mark(bytes: &[u8], salt: Salt) -> Result<u64, Fault> {
    let bytes = bytes.get(..MARK_BYTES).filter(|bytes| bytes.starts_with(&MARK_MAGIC)).ok_or(Fault)?;
    let (mut body, mut checksum) = bytes.split_at(MARK_BYTES - CHECKSUM_BYTES);
    if crc32c::crc32c_append(salt, body) != checksum.get_u32_le() {
        return Err(Fault);
    }
    body.advance(MARK_MAGIC.len());
    Ok(body.get_u64_le())
}

/// The beginning of an incarnation: in front of its first block, in the same commit.
pub fn put_incarnation(out: &mut Vec<u8>, incarnation: Incarnation, salt: Salt) {
    let start = out.len();
    out.put_slice(&INCARNATION_MAGIC);
    out.put_slice(&incarnation.id);
    out.put_u64_le(incarnation.first_sequence);
    out.put_u32_le(crc32c::crc32c_append(salt, out.get(start..).unwrap_or_default()));
}

/// Reads the beginning of an incarnation.
pub fn read_incarnation(bytes: &[u8], salt: Salt) -> Result<Incarnation, Fault> {
    let bytes = bytes.get(..INCARNATION_BYTES).filter(|bytes| bytes.starts_with(&INCARNATION_MAGIC));
    let (mut body, mut checksum) = bytes.ok_or(Fault)?.split_at(INCARNATION_BYTES - CHECKSUM_BYTES);
    if crc32c::crc32c_append(salt, body) != checksum.get_u32_le() {
        return Err(Fault);
    }
    body.advance(INCARNATION_MAGIC.len());
    let mut id = IncarnationId::default();
    body.copy_to_slice(&mut id);
    Ok(Incarnation { id, first_sequence: body.get_u64_le() })
}

/// The size of a record other than a block at the beginning of some bytes, if it is whole.
pub fn mark_bytes(bytes: &[u8], salt: Salt) -> Option<usize> {
    if read_mark(bytes, salt).is_ok() {
        return Some(MARK_BYTES);
    }
    read_incarnation(bytes, salt).ok().map(|_| INCARNATION_BYTES)
}

/// Whether bytes begin as a record does.
pub fn is_record(bytes: &[u8]) -> bool {
    [BLOCK_MAGIC, MARK_MAGIC, INCARNATION_MAGIC].iter().any(|magic| bytes.starts_with(magic))
}

/// An offset or a size within a block or a commit.
#[expect(clippy::expect_used, reason = "the largest message bounds a commit far below 4 GiB")]
pub fn place_of(place: usize) -> u32 {
    u32::try_from(place).expect("a commit is smaller than 4 GiB")
}

/// Appends a topic or a message id, both shorter than 256 bytes.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_u8(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.put_slice(text.as_bytes());
}

/// Reads a text that [`put_text`] wrote.
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
            prop_assert!(Block::read(&Bytes::from(bytes.clone()), 8).is_err(), "with the salt of another log");
            prop_assert_eq!((&read.topics, &read.entries, &read.ids), (&block.topics, &block.entries, &block.ids));
            prop_assert_eq!((read.last_sequence, read.time, &read.body), (block.last_sequence, 9, &block.body));

            let mut flipped = bytes.clone();
            flipped[at.index(bytes.len())] ^= 1_u8 << bit;
            let is_detected = match Block::read(&Bytes::from(flipped), 9) {
                Err(_) => true,
                Ok(read) => !read.entries.iter().all(|entry| read.is_intact(entry)),
            };
            prop_assert!(is_detected);
            for end in 0..bytes.len() - 1 {
                let cut = Block::read(&Bytes::copy_from_slice(&bytes[..end]), 9);
                prop_assert!(cut.is_err() || cut.unwrap().body.is_empty());
            }
        }

        #[test]
        fn a_mark_and_an_incarnation_are_read_as_they_were_written(salt: u32, id: [u8; 8], sequence: u64) {
            prop_assert_eq!(read_mark(&mark(sequence, salt), salt), Ok(sequence));
            prop_assert!(read_mark(&mark(sequence, salt), !salt).is_err());
            let incarnation = Incarnation { id, first_sequence: sequence };
            let mut bytes = Vec::new();
            put_incarnation(&mut bytes, incarnation, salt);
            prop_assert_eq!(read_incarnation(&bytes, salt), Ok(incarnation));
            prop_assert_eq!(mark_bytes(&bytes, salt), Some(bytes.len()));
            prop_assert!(read_incarnation(&bytes, !salt).is_err());
        }
    }
}

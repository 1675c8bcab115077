//! The bytes on disk: segment headers and commit blocks. `docs/log-format.md` describes them. Pure, on memory alone.
//!
//! Nothing here trusts what it reads: a length is checked before it is used, a header by its checksum, an entry by
//! its own.

use std::{ops::Range, sync::Arc};

use bytes::{Buf, BufMut, Bytes};

/// The version of the format. A log of a newer one is refused.
pub const VERSION: u32 = 1;

/// Begins every segment.
const SEGMENT_MAGIC: [u8; 8] = *b"PRNLSEG\n";

/// Begins every block.
pub const BLOCK_MAGIC: [u8; 4] = *b"PBLK";

/// magic, version, log, first sequence, checksum.
pub const SEGMENT_HEADER_BYTES: usize = 8 + 4 + 16 + 8 + 4;

/// magic, table bytes, body bytes, entries, topics, first sequence, time, checksum.
pub const BLOCK_HEADER_BYTES: usize = 4 + 4 + 4 + 4 + 4 + 8 + 8 + 4;

/// The checksum is the last field of a header, and covers all before it, and a block's table.
const CHECKSUM_BYTES: usize = 4;

/// The largest table or body that is believed: a commit is far smaller.
const MAX_PART_BYTES: usize = 64 * 1024 * 1024;

/// Which log a segment belongs to: random, made with the log.
pub type LogId = [u8; 16];

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Cut off, or not what the checksum says.
    Damaged,
    /// Of a newer format.
    Version(u32),
}

/// Begins a segment.
pub fn segment_header(log: LogId, first_sequence: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES);
    out.put_slice(&SEGMENT_MAGIC);
    out.put_u32_le(VERSION);
    out.put_slice(&log);
    out.put_u64_le(first_sequence);
    out.put_u32_le(crc32c::crc32c(&out));
    out
}

/// Reads what begins a segment: the log, and the first sequence.
pub fn read_segment_header(bytes: &[u8]) -> Result<(LogId, u64), Fault> {
    let bytes = bytes.get(..SEGMENT_HEADER_BYTES).ok_or(Fault::Damaged)?;
    let (mut body, mut checksum) = bytes.split_at(SEGMENT_HEADER_BYTES - CHECKSUM_BYTES);
    if !body.starts_with(&SEGMENT_MAGIC) || crc32c::crc32c(body) != checksum.get_u32_le() {
        return Err(Fault::Damaged);
    }
    body.advance(SEGMENT_MAGIC.len());
    let version = body.get_u32_le();
    if version != VERSION {
        return Err(Fault::Version(version));
    }
    let mut log = LogId::default();
    body.copy_to_slice(&mut log);
    Ok((log, body.get_u64_le()))
}

/// One message of a block.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Its topic, in the block's list.
    pub topic: usize,
    /// Where it is in the body.
    pub range: Range<usize>,
    /// Of its bytes in the body.
    pub checksum: u32,
    /// The id it was published with.
    pub message_id: Option<Box<str>>,
}

/// Messages that were committed together; sequences follow one another.
#[derive(Clone, Debug)]
pub struct Block {
    /// Of the first message.
    pub first_sequence: u64,
    /// When they were committed: in nanoseconds since 1970.
    pub time: u64,
    /// Each topic of the block, once.
    pub topics: Vec<Arc<str>>,
    /// In the order of the sequence.
    pub entries: Vec<Entry>,
    /// The entries as a response has them, back to back. Empty where only the header was read.
    pub body: Bytes,
}

/// A block's header, as far as it tells how much to read.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Behind the header.
    pub table_bytes: usize,
    /// Behind the table.
    pub body_bytes: usize,
    entries: usize,
    topics: usize,
    first_sequence: u64,
    time: u64,
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
        if table_bytes > MAX_PART_BYTES || body_bytes > MAX_PART_BYTES || entries == 0 || topics > entries {
            return Err(Fault::Damaged);
        }
        let (first_sequence, time) = (bytes.get_u64_le(), bytes.get_u64_le());
        Ok(Self { table_bytes, body_bytes, entries, topics, first_sequence, time })
    }

    /// The whole block.
    pub fn block_bytes(&self) -> usize {
        BLOCK_HEADER_BYTES + self.table_bytes + self.body_bytes
    }
}

impl Block {
    /// Of the last message.
    pub fn last_sequence(&self) -> u64 {
        self.first_sequence + self.entries.len() as u64 - 1
    }

    /// The block as it is on disk.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut table = Vec::new();
        for topic in &self.topics {
            put_text(&mut table, topic);
        }
        for entry in &self.entries {
            put_u32(&mut table, entry.topic);
            put_u32(&mut table, entry.range.len());
            table.put_u32_le(entry.checksum);
            put_text(&mut table, entry.message_id.as_deref().unwrap_or_default());
        }
        let mut out = Vec::with_capacity(BLOCK_HEADER_BYTES + table.len() + self.body.len());
        out.put_slice(&BLOCK_MAGIC);
        put_u32(&mut out, table.len());
        put_u32(&mut out, self.body.len());
        put_u32(&mut out, self.entries.len());
        put_u32(&mut out, self.topics.len());
        out.put_u64_le(self.first_sequence);
        out.put_u64_le(self.time);
        out.put_u32_le(crc32c::crc32c_append(crc32c::crc32c(&out), &table));
        out.put_slice(&table);
        out.put_slice(&self.body);
        out
    }

    /// Reads a block's header and table; its body, too, if it is there.
    pub fn read(bytes: &Bytes) -> Result<Self, Fault> {
        let header = Header::read(bytes)?;
        let table_end = BLOCK_HEADER_BYTES + header.table_bytes;
        let fixed = bytes.get(..BLOCK_HEADER_BYTES - CHECKSUM_BYTES).ok_or(Fault::Damaged)?;
        let mut checksum = bytes.get(fixed.len()..BLOCK_HEADER_BYTES).ok_or(Fault::Damaged)?;
        let table = bytes.get(BLOCK_HEADER_BYTES..table_end).ok_or(Fault::Damaged)?;
        if crc32c::crc32c_append(crc32c::crc32c(fixed), table) != checksum.get_u32_le() {
            return Err(Fault::Damaged);
        }
        let body = match bytes.len().checked_sub(table_end) {
            Some(rest) if rest >= header.body_bytes => bytes.slice(table_end..table_end + header.body_bytes),
            _ => Bytes::new(),
        };
        let (topics, entries) = read_table(table, &header).ok_or(Fault::Damaged)?;
        Ok(Self { first_sequence: header.first_sequence, time: header.time, topics, entries, body })
    }

    /// The bytes of an entry are what was written.
    pub fn is_intact(&self, entry: &Entry) -> bool {
        self.body.get(entry.range.clone()).is_some_and(|bytes| crc32c::crc32c(bytes) == entry.checksum)
    }
}

/// A checksum that holds makes the table trustworthy; it is read with care all the same.
fn read_table(mut table: &[u8], header: &Header) -> Option<(Vec<Arc<str>>, Vec<Entry>)> {
    let mut topics = Vec::with_capacity(header.topics);
    for _ in 0..header.topics {
        topics.push(take_text(&mut table)?.into());
    }
    let mut entries = Vec::with_capacity(header.entries);
    let mut start = 0_usize;
    for _ in 0..header.entries {
        let topic = usize::try_from(table.try_get_u32_le().ok()?).ok()?;
        let bytes = usize::try_from(table.try_get_u32_le().ok()?).ok()?;
        let checksum = table.try_get_u32_le().ok()?;
        let message_id = take_text(&mut table)?;
        let end = start.checked_add(bytes).filter(|end| *end <= header.body_bytes)?;
        let message_id = (!message_id.is_empty()).then(|| message_id.into());
        entries.push(Entry { topic, range: start..end, checksum, message_id });
        start = end;
        topics.get(topic)?;
    }
    header.first_sequence.checked_add(header.entries as u64)?;
    (start == header.body_bytes && header.first_sequence > 0).then_some((topics, entries))
}

/// What a length takes: topics and ids are at most 255 bytes.
fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_u8(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.put_slice(text.as_bytes());
}

fn take_text<'a>(table: &mut &'a [u8]) -> Option<&'a str> {
    let bytes = usize::from(table.try_get_u8().ok()?);
    let (text, rest) = table.split_at_checked(bytes)?;
    *table = rest;
    std::str::from_utf8(text).ok()
}

/// Sizes of one commit: far below 4 GiB.
fn put_u32(out: &mut Vec<u8>, value: usize) {
    out.put_u32_le(u32::try_from(value).unwrap_or(u32::MAX));
}

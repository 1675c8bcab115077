//! The footer of version 2 of the format, which has one checksum for all records, and no times of messages within a topic.
//! It is read where it is; new footers are of version 3.

use bytes::{Buf, Bytes};

use super::{
    held::{At, Held, Record, SparseEntry, Summary},
    part::Part,
};
use crate::messages::embedded::format::block::Salt;

/// The first bytes of the trailer.
const MAGIC: [u8; 8] = *b"PRNLFOOT";

/// offset, first sequence, last sequence, time.
const ENTRY_BYTES: usize = 4 + 3 * 8;

/// name: offset, length; postings: offset, length, checksum; bytes of the last message; then ten numbers.
pub const RECORD_BYTES: usize = 2 * 4 + 3 * 4 + 4 + 10 * 8;

/// magic; offset, length and checksum of sparse entries, records, names; offset of the postings; first and last sequence,
/// last time, messages, ids; checksum.
pub const TRAILER_BYTES: usize = 8 + 3 * 16 + 8 + 5 * 8 + 4;

/// Where the parts of a footer are.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    pub runs: Part,
    pub records: Part,
    pub names: Part,
    pub postings: u64,
}

/// Reads a trailer, which ends at `end`, from its bytes.
pub fn parse(bytes: &[u8], salt: Salt) -> Option<(Parts, Summary)> {
    let (body, mut checksum) = bytes.split_at_checked(TRAILER_BYTES - 4)?;
    let mut fields = body.strip_prefix(&MAGIC)?;
    if crc32c::crc32c_append(salt, body) != checksum.get_u32_le() {
        return None;
    }
    let (runs, records, names) = (Part::take(&mut fields), Part::take(&mut fields), Part::take(&mut fields));
    let postings = fields.get_u64_le();
    let mut number = || fields.get_u64_le();
    let (first_sequence, last_sequence, last_time) = (number(), number(), number());
    let (messages, ids) = (number(), number());
    let topics = (records.length / RECORD_BYTES) as u64;
    // The earliest time is that of the first run; no time is later than the last.
    let summary = Summary {
        first_sequence,
        last_sequence,
        last_time,
        min_time: 0,
        max_time: last_time,
        messages,
        ids,
        topics,
    };
    Some((Parts { runs, records, names, postings }, summary))
}

/// The sparse index. Times do not fall in version 2, so a run ends before the time of the next one.
pub fn runs(bytes: &[u8], last_time: u64) -> Vec<SparseEntry> {
    let entry = |mut bytes: &[u8]| {
        let offset = bytes.get_u32_le();
        let (first_sequence, last_sequence) = (bytes.get_u64_le(), bytes.get_u64_le());
        SparseEntry { offset, first_sequence, last_sequence, min_time: bytes.get_u64_le(), max_time: 0 }
    };
    let mut entries = bytes.chunks_exact(ENTRY_BYTES).map(entry).collect::<Vec<_>>();
    let mut max_time = last_time;
    for entry in entries.iter_mut().rev() {
        entry.max_time = max_time.max(entry.min_time);
        max_time = entry.min_time;
    }
    entries
}

/// The offset and the length of a record's name.
pub fn name_of(mut record: &[u8]) -> (u32, u32) {
    (record.get_u32_le(), record.get_u32_le())
}

/// Reads a record whose name is in `names`, which begin at an offset in all names.
pub fn record<'a>(mut bytes: &[u8], names: &'a Bytes, first: u32, postings: u64) -> Option<Record<'a>> {
    let (offset, length) = name_of(bytes);
    bytes.advance(8);
    let start = offset.checked_sub(first)? as usize;
    let name = std::str::from_utf8(names.get(start..start.checked_add(length as usize)?)?).ok()?;
    let postings = Part {
        offset: postings.saturating_add(bytes.get_u32_le().into()),
        length: bytes.get_u32_le() as usize,
        checksum: bytes.get_u32_le(),
    };
    let last_bytes = bytes.get_u32_le();
    let mut number = || bytes.get_u64_le();
    let mut held = Held {
        messages: number(),
        bytes: number(),
        first: At { sequence: number(), time: number() },
        last: At { sequence: number(), time: number() },
        first_expires: number(),
        last_expires: number(),
        expiring_bytes: number(),
        all_expired: number(),
        last_bytes,
        ..Held::default()
    };
    // Times do not fall in version 2.
    (held.min_time, held.max_time) = (held.first.time, held.last.time);
    Some(Record { name, held, postings })
}

/// Writes a footer of version 2: for the tools, which compare it with the one on disk, and for tests.
pub use writing::to_bytes;

mod writing {
    use bytes::BufMut;

    use super::{
        super::held::{List, Posting},
        MAGIC, Salt, SparseEntry, Summary,
    };
    use crate::{messages::embedded::format::block::place_of, wire::put_varint};

    /// The footer, as it is on disk, of a segment whose blocks end at `offset`. `runs` have the time of their first block.
    pub fn to_bytes<'a>(
        offset: u64,
        runs: &[SparseEntry],
        topics: impl Iterator<Item = (&'a str, &'a List)>,
        summary: &Summary,
        salt: Salt,
    ) -> Vec<u8> {
        let (mut entry_bytes, mut records, mut names, mut postings) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for entry in runs {
            entry_bytes.put_u32_le(entry.offset);
            for number in [entry.first_sequence, entry.last_sequence, entry.min_time] {
                entry_bytes.put_u64_le(number);
            }
        }
        for (name, List { held, postings: of_topic }) in topics {
            let start = postings.len();
            put_postings(&mut postings, of_topic);
            let list = postings.get(start..).unwrap_or_default();
            for number in [names.len(), name.len(), start, list.len()] {
                records.put_u32_le(place_of(number));
            }
            records.put_u32_le(crc32c::crc32c(list));
            records.put_u32_le(held.last_bytes);
            let (first, last) = (held.first, held.last);
            for number in [held.messages, held.bytes, first.sequence, first.time, last.sequence, last.time] {
                records.put_u64_le(number);
            }
            for number in [held.first_expires, held.last_expires, held.expiring_bytes, held.all_expired] {
                records.put_u64_le(number);
            }
            names.extend_from_slice(name.as_bytes());
        }
        let mut trailer = MAGIC.to_vec();
        let mut at = offset;
        for part in [&entry_bytes, &records, &names] {
            trailer.put_u64_le(at);
            trailer.put_u32_le(place_of(part.len()));
            trailer.put_u32_le(crc32c::crc32c(part));
            at += part.len() as u64;
        }
        trailer.put_u64_le(at);
        let Summary { first_sequence, last_sequence, last_time, messages, ids, .. } = *summary;
        for number in [first_sequence, last_sequence, last_time, messages, ids] {
            trailer.put_u64_le(number);
        }
        trailer.put_u32_le(crc32c::crc32c_append(salt, &trailer));
        [entry_bytes, records, names, postings, trailer].concat()
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
}

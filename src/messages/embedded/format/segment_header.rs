//! The header of a segment: which log it belongs to, and its place in the log.
//!
//! All versions after the first begin with the same 52 bytes and their checksum, so a newer version is not taken for a
//! damaged header. Segments of version 2 end their header there, and are read as they are; new ones are of version 3,
//! which also names the segment, the one before it, and the incarnations of the log.

use bytes::{Buf, BufMut};
use uuid::Uuid;

use super::block::{Identity, LogId, is_record};
use crate::messages::incarnation::{Incarnation, Lineage, MAX_LINEAGE};

/// The version of segments that are written. A log in a newer version is refused.
pub const VERSION: u32 = 3;

/// The version whose segments have only the first part of the header.
const WITHOUT_LINK: u32 = 2;

/// The only version with another first part.
const SHORT_VERSION: u32 = 1;

/// The first bytes of every segment.
const MAGIC: [u8; 8] = *b"PRNLSEG\n";

/// A checksum is the last field of each part.
const CHECKSUM_BYTES: usize = 4;

/// magic, version, log, salt, first sequence, replaces up to, checksum.
const FIRST_PART_BYTES: usize = 8 + 4 + 16 + 4 + 8 + 8 + CHECKSUM_BYTES;

/// The first part; id; predecessor: id, first sequence, end; count and list of incarnations; zeros; checksum.
pub const SEGMENT_HEADER_BYTES: usize = 256;

/// The identity of a segment: random, and never 0. Segments of version 2 have none.
pub type SegmentId = u64;

/// The header of a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SegmentHeader {
    /// The log that the segment belongs to.
    pub log: Identity,
    /// No message of the segment has a lower sequence.
    pub first_sequence: u64,
    /// A compacted segment replaces all older segments whose first sequence is at most this one; 0 for a segment that
    /// was not compacted.
    pub replaces_up_to: u64,
    /// `None` in version 2.
    pub link: Option<Link>,
}

/// The place of a segment in the history of its log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Link {
    /// The identity of the segment.
    pub id: SegmentId,
    /// The segment before it; `None` for the first segment of a log.
    pub predecessor: Option<Predecessor>,
    /// The last incarnations that began before the segment.
    pub lineage: Lineage,
}

/// The segment before another one, as it was when that one was begun.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Predecessor {
    /// `None` for a segment of version 2.
    pub id: Option<SegmentId>,
    /// The first sequence in its header.
    pub first_sequence: u64,
    /// No message in it has this sequence or a higher one.
    pub end: u64,
}

/// Why bytes are not a header of this version.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HeaderFault {
    /// Cut off, or not as the checksum says.
    Damaged,
    /// In another version of the format.
    Version(u32),
}

impl Link {
    /// The link of a new segment.
    pub fn new(predecessor: Option<Predecessor>, lineage: Lineage) -> Self {
        Self { id: new_id(), predecessor, lineage }
    }
}

/// A new identity of a segment.
pub fn new_id() -> SegmentId {
    // Bits 62 and 63 of a random UUID are fixed, so this is never 0.
    Uuid::new_v4().as_u64_pair().1
}

impl SegmentHeader {
    /// The number of bytes that it takes on disk.
    pub fn bytes(&self) -> usize {
        if self.link.is_some() { SEGMENT_HEADER_BYTES } else { FIRST_PART_BYTES }
    }

    /// The identity of the segment.
    pub fn id(&self) -> Option<SegmentId> {
        self.link.map(|link| link.id)
    }

    /// The header as it is on disk.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        out.put_slice(&MAGIC);
        out.put_u32_le(if self.link.is_some() { VERSION } else { WITHOUT_LINK });
        out.put_slice(&self.log.id);
        out.put_u32_le(self.log.salt);
        out.put_u64_le(self.first_sequence);
        out.put_u64_le(self.replaces_up_to);
        out.put_u32_le(crc32c::crc32c(&out));
        let Some(Link { id, predecessor, lineage }) = self.link else { return out };
        let start = out.len();
        out.put_u64_le(id);
        let before =
            predecessor.map_or([0; 3], |before| [before.id.unwrap_or(0), before.first_sequence, before.end]);
        for number in before {
            out.put_u64_le(number);
        }
        let incarnations = lineage.as_slice();
        out.put_u32_le(u32::try_from(incarnations.len()).unwrap_or_default());
        for Incarnation { id, first_sequence } in incarnations {
            out.put_slice(id);
            out.put_u64_le(*first_sequence);
        }
        out.resize(SEGMENT_HEADER_BYTES - CHECKSUM_BYTES, 0);
        out.put_u32_le(crc32c::crc32c(out.get(start..).unwrap_or_default()));
        out
    }

    /// Reads a header.
    pub fn read(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let damaged = |_| HeaderFault::Damaged;
        let version =
            bytes.strip_prefix(&MAGIC).ok_or(HeaderFault::Damaged)?.try_get_u32_le().map_err(damaged)?;
        if version == SHORT_VERSION {
            return Err(HeaderFault::Version(version));
        }
        let mut body = checked(bytes.get(..FIRST_PART_BYTES)).ok_or(HeaderFault::Damaged)?;
        if version != VERSION && version != WITHOUT_LINK {
            return Err(HeaderFault::Version(version));
        }
        body.advance(MAGIC.len() + 4);
        let mut id = LogId::default();
        body.copy_to_slice(&mut id);
        let log = Identity { id, salt: body.get_u32_le() };
        let (first_sequence, replaces_up_to) = (body.get_u64_le(), body.get_u64_le());
        let link = if version == WITHOUT_LINK {
            None
        } else {
            let rest = checked(bytes.get(FIRST_PART_BYTES..SEGMENT_HEADER_BYTES));
            Some(rest.and_then(read_link).ok_or(HeaderFault::Damaged)?)
        };
        Ok(Self { log, first_sequence, replaces_up_to, link })
    }
}

/// Bytes without the checksum at their end, if it is right.
fn checked(bytes: Option<&[u8]>) -> Option<&[u8]> {
    let (body, mut checksum) =
        bytes?.split_last_chunk::<CHECKSUM_BYTES>().map(|(body, sum)| (body, &sum[..]))?;
    (crc32c::crc32c(body) == checksum.get_u32_le()).then_some(body)
}

/// The checksum has proved the bytes; lengths are checked all the same.
fn read_link(mut bytes: &[u8]) -> Option<Link> {
    let id = bytes.try_get_u64_le().ok()?;
    let (before, first_sequence) = (bytes.try_get_u64_le().ok()?, bytes.try_get_u64_le().ok()?);
    let end = bytes.try_get_u64_le().ok()?;
    let count = usize::try_from(bytes.try_get_u32_le().ok()?).ok().filter(|count| *count <= MAX_LINEAGE)?;
    let mut incarnations = Vec::with_capacity(count);
    for _ in 0..count {
        let (id, rest) = bytes.split_first_chunk::<8>()?;
        bytes = rest;
        incarnations.push(Incarnation { id: *id, first_sequence: bytes.try_get_u64_le().ok()? });
    }
    let id_of_before = Some(before).filter(|id| *id != 0);
    let predecessor = (end != 0).then_some(Predecessor { id: id_of_before, first_sequence, end });
    Some(Link { id, predecessor, lineage: Lineage::checked(&incarnations)? })
}

/// The offset of the first record of a segment. Where the header is damaged, the records show its length.
pub fn records_start(bytes: &[u8]) -> usize {
    if let Ok(header) = SegmentHeader::read(bytes) {
        return header.bytes();
    }
    let has_record = |at: usize| bytes.get(at..).is_some_and(is_record);
    let is_long = !has_record(FIRST_PART_BYTES) && has_record(SEGMENT_HEADER_BYTES);
    if is_long { SEGMENT_HEADER_BYTES } else { FIRST_PART_BYTES }
}

/// Whether nothing but zeros follows the header: no message was ever written.
pub fn is_empty(bytes: &[u8]) -> bool {
    // Where the header is damaged, a short one may be followed by a message.
    let start = SegmentHeader::read(bytes).map_or(FIRST_PART_BYTES, |header| header.bytes());
    bytes.iter().skip(start).all(|byte| *byte == 0)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(id: LogId, salt: u32, numbers: [u64; 5], count: usize) -> SegmentHeader {
        let [first_sequence, replaces_up_to, before, first, end] = numbers;
        let list = (1..=count as u64).map(|n| Incarnation { id: n.to_le_bytes(), first_sequence: n * 7 });
        let list = list.collect::<Vec<_>>();
        let predecessor = Predecessor { id: Some(before).filter(|id| *id > 0), first_sequence: first, end };
        let predecessor = (end > 0).then_some(predecessor);
        let link = (count > 0).then(|| Link::new(predecessor, Lineage::last_of(&list)));
        SegmentHeader { log: Identity { id, salt }, first_sequence, replaces_up_to, link }
    }

    proptest! {
        #[test]
        fn a_header_is_read_as_it_was_written_and_no_byte_of_it_can_change(
            id: LogId, salt: u32, numbers: [u64; 5], count in 0..=MAX_LINEAGE, at: prop::sample::Index, bit in 0..8,
        ) {
            let header = header(id, salt, numbers, count);
            let bytes = header.to_bytes();
            prop_assert_eq!(bytes.len(), header.bytes());
            prop_assert_eq!(SegmentHeader::read(&bytes), Ok(header));
            prop_assert_eq!(records_start(&bytes), header.bytes());
            let mut flipped = bytes.clone();
            flipped[at.index(bytes.len())] ^= 1_u8 << bit;
            prop_assert!(SegmentHeader::read(&flipped).is_err());
            for end in 0..bytes.len() {
                prop_assert!(SegmentHeader::read(&bytes[..end]).is_err());
            }
        }
    }

    #[test]
    fn a_newer_version_is_reported_by_its_number_and_not_called_damaged() {
        let mut bytes = header([1; 16], 2, [3, 0, 0, 1, 3], 2).to_bytes();
        bytes[8] = 4;
        let checksum = crc32c::crc32c(&bytes[..48]).to_le_bytes();
        bytes[48..52].copy_from_slice(&checksum);
        assert_eq!(SegmentHeader::read(&bytes), Err(HeaderFault::Version(4)));
        bytes[20] ^= 1;
        assert_eq!(SegmentHeader::read(&bytes), Err(HeaderFault::Damaged));
    }

    #[test]
    fn an_empty_segment_has_a_header_at_most() {
        let bytes = header([1; 16], 2, [3, 0, 0, 1, 3], 2).to_bytes();
        assert!(is_empty(&bytes) && is_empty(&[bytes.clone(), vec![0; 100]].concat()));
        assert!(!is_empty(&[bytes, vec![0, 1]].concat()));
        let short = header([1; 16], 2, [3, 0, 0, 1, 3], 0).to_bytes();
        assert!(!is_empty(&[short, vec![0, 1]].concat()));
    }
}

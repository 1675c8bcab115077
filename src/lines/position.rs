//! A position in a stream of lines: what a cursor of `ReadLines` holds.
//!
//! It names a file by its inode and its birth, and proves how far the file was read by fingerprints of its content. It is
//! untrusted: a forged one leads at most to another place in a file that the rules of the root admit.

use serde::{Deserialize, Serialize};

use super::{
    content::{
        checkpoint::{Checkpoint, FINGERPRINT_BYTES, HEAD_BYTES, clamp},
        position::LinePosition,
    },
    identity::Identity,
};
use crate::cursor;

mod first;

/// A position in a stream of lines: which file, how far it was read, and the bytes that prove it. At most 600 bytes when
/// serialised.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Position {
    /// A checksum of the path.
    pub(super) path: u32,
    /// A checksum of the identity of the directory at the path: another one means that the files may be copies. `None` in
    /// a cursor of the first version, and where the directory was not found.
    pub(super) directory: Option<u32>,
    pub(super) identity: Identity,
    pub(super) checkpoint: Checkpoint,
    /// The size of the file when it was last read: what lay beyond the checkpoint then, and is gone, is missing.
    pub(super) size: u64,
    /// The file is compressed: the checkpoint counts bytes of its content.
    pub(super) compressed: Option<Compressed>,
    /// Lines before this number are not delivered.
    pub(super) skip_to: Option<u64>,
    /// All of the file was delivered and it is gone; the next file at the path comes next.
    pub(super) deleted: bool,
    /// While late lines of an older file are read: where the newer file is read on.
    pub(super) resume_at: Option<(Identity, Checkpoint)>,
    /// The file before, which was left not long ago, and how far it was read: lines may have been written to it since.
    pub(super) late: Option<(Identity, Checkpoint)>,
    /// Only some of the lines are delivered.
    pub(super) filter: Option<Filter>,
    /// Several lines are delivered as one record.
    pub(super) record: Option<Record>,
    /// The time of the last write to the file that the reader saw, in nanoseconds since 1970: a copy that has the bytes that
    /// were read is no older. `None` in a cursor of an older version.
    pub(super) written: Option<u64>,
    /// The file is a copy of the one at the path, which was truncated after it was copied.
    pub(super) is_copy: bool,
}

/// Where a compressed file can be read from, so that it need not be decompressed from its start. This build decompresses
/// it from there, and sets both to 0.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Compressed {
    /// The offset in the file at which a member, a frame or a checkpoint starts.
    pub stored_offset: u64,
    /// The offset in the content at which it starts.
    pub content_offset: u64,
}

/// The state of filters between two lines.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Filter {
    /// A hash of the filters: with others, the context that is owed has no meaning.
    pub hash: u64,
    /// How many lines of context are still to be delivered after the last line that matched.
    pub owed: u32,
    /// How many bytes before the checkpoint the lines begin that may be context of the next line that matches.
    pub context_bytes: u64,
}

/// The state of record grouping between two lines.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Record {
    /// A hash of the rules that group lines.
    pub hash: u64,
    /// How many bytes of the record in hand were delivered, before the checkpoint; 0 between two records.
    pub delivered_bytes: u64,
}

impl cursor::Position for Position {
    const KIND: cursor::Kind = cursor::Kind::Lines;
    const DECODERS: &'static [cursor::Decoder<Self>] = &[first::decode, decode_second, cursor::decode_fields];
}

/// Version 2 has neither of the last two fields, which are 0 in a cursor that does not set them.
fn decode_second(bytes: &[u8]) -> Option<Position> {
    cursor::decode_fields(&[bytes, &[0; 2]].concat())
}

impl Position {
    /// Whether a reader could have made this position, which may be forged.
    pub(super) fn is_sound(&self) -> bool {
        // An offset is signed in the system's interface; a line has at least one byte, its newline.
        let is_sound = |Checkpoint { line, before, head, holes }: &Checkpoint| {
            let LinePosition { offset, number, .. } = *line;
            i64::try_from(offset).is_ok()
                && number.is_none_or(|number| (1..=offset + 1).contains(&number))
                && usize::from(before.bytes) <= clamp(offset, FINGERPRINT_BYTES)
                && usize::from(head.bytes) <= clamp(offset, HEAD_BYTES)
                && holes
                    .iter()
                    .all(|hole| hole.offset.checked_add(hole.bytes).is_some_and(|end| end <= offset))
        };
        // This build makes no position with filters or with records.
        let is_of_lines = self.filter.is_none() && self.record.is_none();
        is_of_lines
            && is_sound(&self.checkpoint)
            && self.resume_at.iter().chain(&self.late).all(|(_, checkpoint)| is_sound(checkpoint))
            && self.skip_to.is_none_or(|number| i64::try_from(number).is_ok())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;
    use crate::lines::content::{
        checkpoint::Fingerprint,
        hole::{Hole, Holes},
        position::Within,
    };

    /// The largest one.
    fn largest() -> Position {
        let identity = Identity::largest();
        let line = LinePosition { offset: u64::MAX, number: Some(u64::MAX), within: Within::Dropped };
        let fingerprint = Fingerprint::of(&[1; FINGERPRINT_BYTES]);
        let hole = Hole { offset: u64::MAX, bytes: u64::MAX };
        let holes = Holes::from(vec![hole; 9]);
        let checkpoint = Checkpoint { line, before: fingerprint, head: fingerprint, holes };
        Position {
            path: u32::MAX,
            directory: Some(u32::MAX),
            identity,
            checkpoint,
            size: u64::MAX,
            compressed: Some(Compressed { stored_offset: u64::MAX, content_offset: u64::MAX }),
            skip_to: Some(u64::MAX),
            deleted: true,
            resume_at: Some((identity, checkpoint)),
            late: Some((identity, checkpoint)),
            filter: Some(Filter { hash: u64::MAX, owed: u32::MAX, context_bytes: u64::MAX }),
            record: Some(Record { hash: u64::MAX, delivered_bytes: u64::MAX }),
            written: Some(u64::MAX),
            is_copy: true,
        }
    }

    #[test]
    fn the_largest_position_fits_a_cursor_and_is_decoded_as_it_was() {
        let text = cursor::encode(&largest());
        assert!(text.len() < cursor::MAX_BYTES * 3 / 4, "{}", text.len());
        assert_eq!(cursor::decode(&text), Ok(largest()));
    }

    #[test]
    fn a_cursor_of_version_2_is_decoded_without_the_fields_that_it_lacks() {
        let fields = postcard::to_allocvec(&largest()).unwrap();
        // A `u64::MAX` in an option has eleven bytes.
        let second = fields.get(..fields.len() - 12).unwrap();
        let known = Position { written: None, is_copy: false, ..largest() };
        assert_eq!(decode_second(second), Some(known));
        assert_eq!(decode_second(&fields), None);
    }

    #[test]
    fn a_fingerprint_or_a_hole_of_more_bytes_than_the_offset_has_before_it_is_refused() {
        let made = Position {
            checkpoint: Checkpoint::start(),
            compressed: None,
            skip_to: None,
            resume_at: None,
            late: None,
            filter: None,
            record: None,
            ..largest()
        };
        assert!(made.is_sound());
        let forged = Checkpoint { before: Fingerprint::of(&[0]), ..made.checkpoint };
        assert!(!Position { checkpoint: forged, ..made.clone() }.is_sound());
        let forged = Checkpoint { head: Fingerprint::of(&[0]), ..made.checkpoint };
        assert!(!Position { resume_at: Some((made.identity, forged)), ..made.clone() }.is_sound());
        let forged = made.checkpoint.after(Hole { offset: 0, bytes: 1 });
        assert!(!Position { checkpoint: forged, ..made }.is_sound());
    }
}

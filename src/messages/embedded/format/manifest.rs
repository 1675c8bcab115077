//! The manifest: the files that must be in the directory of a log, and its history.
//!
//! It is kept twice, in two files. Each change is written to the older copy, in place, and synced; so while one copy is
//! written, the other one is whole. A change is on disk before the log does what it announces: before a message is
//! written to a new segment, and before the file of a segment is removed. In place, a change takes no further room and no
//! inode, so a full disk does not prevent it.

use bytes::{Buf, BufMut};

use super::{
    block::{Identity, LogId},
    segment_header::SegmentId,
};
use crate::{
    messages::incarnation::{Incarnation, IncarnationId, Incarnations},
    wire::{put_varint, take_varint},
};

/// The names of the two copies.
pub const NAMES: [&str; 2] = ["manifest.0", "manifest.1"];

/// The first bytes of a copy.
const MAGIC: [u8; 8] = *b"PRNLMAN\n";

/// The version of its format.
const VERSION: u32 = 1;

/// magic, version, length.
const PREFIX_BYTES: usize = 8 + 4 + 4;

const CHECKSUM_BYTES: usize = 4;

/// The most lost ranges that are listed one by one. More come only from a disk that fails again and again.
pub const MAX_LOST: usize = 1000;

/// The content of a manifest.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Manifest {
    /// The log that it belongs to.
    pub log: Identity,
    /// Higher in the newer copy.
    pub generation: u64,
    /// When the manifest was written, the next message had this sequence or a higher one.
    pub next_sequence: u64,
    /// The segments that must exist, in the order of their first sequences.
    pub segments: Vec<Listed>,
    /// Segments that should exist and were not found, likewise, and ranges that were damaged in segments that are deleted.
    pub lost: Vec<Listed>,
    /// The runs that published.
    pub incarnations: Incarnations,
    /// The known facts about the wall clock; empty if there are none.
    pub clock: Vec<u8>,
}

/// A segment that must exist.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Listed {
    /// `None` for a segment of version 2: its first sequence identifies it.
    pub id: Option<SegmentId>,
    /// The first sequence in its header.
    pub first_sequence: u64,
    /// No message in it has this sequence or a higher one; `None` while it is written.
    pub end: Option<u64>,
}

impl Listed {
    /// A lost range of sequences, of no file.
    pub fn lost(first_sequence: u64, end: u64) -> Self {
        Self { id: None, first_sequence, end: Some(end) }
    }
}

/// Why bytes are not a manifest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unreadable {
    /// Cut off, or not as the checksum says.
    Damaged,
    /// In a newer version.
    Version(u32),
}

impl Manifest {
    /// The manifest of a log without segments.
    pub fn new(log: Identity) -> Self {
        Self { log, next_sequence: 1, ..Self::default() }
    }

    /// Joins the oldest lost ranges between which there is no segment, if there are too many. Those of a file stay by
    /// themselves: it may come back, and there are no more of them than there were files.
    pub fn join_lost(&mut self) {
        let Self { segments, lost, .. } = self;
        let mut excess = lost.len().saturating_sub(MAX_LOST);
        lost.dedup_by(|next, before| {
            let (Some(end), Some(next_end)) = (before.end, next.end) else { return false };
            let between = before.first_sequence..next.first_sequence;
            let has_segment = || segments.iter().any(|segment| between.contains(&segment.first_sequence));
            if excess == 0 || before.id.is_some() || next.id.is_some() || has_segment() {
                return false;
            }
            excess -= 1;
            *before = Listed::lost(before.first_sequence, end.max(next_end));
            true
        });
    }

    /// A copy, as it is on disk.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.put_u32_le(VERSION);
        out.put_u32_le(0);
        out.put_slice(&self.log.id);
        out.put_u32_le(self.log.salt);
        out.put_u64_le(self.generation);
        out.put_u64_le(self.next_sequence);
        for list in [&self.segments, &self.lost] {
            put_count(&mut out, list.len());
            for Listed { id, first_sequence, end } in list {
                out.put_u64_le(id.unwrap_or(0));
                put_varint(&mut out, *first_sequence);
                put_varint(&mut out, end.unwrap_or(0));
            }
        }
        put_varint(&mut out, self.incarnations.merged_below);
        put_count(&mut out, self.incarnations.as_slice().len());
        for Incarnation { id, first_sequence } in self.incarnations.as_slice() {
            out.put_slice(id);
            put_varint(&mut out, *first_sequence);
        }
        put_count(&mut out, self.clock.len());
        out.put_slice(&self.clock);
        let length = u32::try_from(out.len() + CHECKSUM_BYTES).unwrap_or(u32::MAX);
        if let Some(field) = out.get_mut(PREFIX_BYTES - 4..PREFIX_BYTES) {
            field.copy_from_slice(&length.to_le_bytes());
        }
        out.put_u32_le(crc32c::crc32c(&out));
        out
    }

    /// Reads a copy. Bytes after it are left from a longer one, or reserved.
    pub fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut prefix = bytes.strip_prefix(&MAGIC).ok_or(Unreadable::Damaged)?;
        let damaged = |_| Unreadable::Damaged;
        let version = prefix.try_get_u32_le().map_err(damaged)?;
        let length = usize::try_from(prefix.try_get_u32_le().map_err(damaged)?).unwrap_or(usize::MAX);
        let whole = bytes.get(..length).filter(|whole| whole.len() >= PREFIX_BYTES + CHECKSUM_BYTES);
        let (body, mut checksum) = whole
            .and_then(|whole| whole.split_at_checked(whole.len() - CHECKSUM_BYTES))
            .ok_or(Unreadable::Damaged)?;
        if crc32c::crc32c(body) != checksum.get_u32_le() {
            return Err(Unreadable::Damaged);
        }
        if version != VERSION {
            return Err(Unreadable::Version(version));
        }
        read_body(body.get(PREFIX_BYTES..).unwrap_or_default()).ok_or(Unreadable::Damaged)
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    put_varint(out, count as u64);
}

/// The checksum has proved the bytes; lengths are checked all the same.
fn read_body(mut bytes: &[u8]) -> Option<Manifest> {
    let rest = &mut bytes;
    let id = take_array::<{ size_of::<LogId>() }>(rest)?;
    let log = Identity { id, salt: rest.try_get_u32_le().ok()? };
    let (generation, next_sequence) = (rest.try_get_u64_le().ok()?, rest.try_get_u64_le().ok()?);
    let (segments, lost) = (take_list(rest, take_listed)?, take_list(rest, take_listed)?);
    let merged_below = take_varint(rest)?;
    let list = take_list(rest, |rest| {
        let id = take_array::<{ size_of::<IncarnationId>() }>(rest)?;
        Some(Incarnation { id, first_sequence: take_varint(rest)? })
    })?;
    let clock = take_list(rest, |rest| rest.try_get_u8().ok())?;
    let incarnations = Incarnations::new(merged_below, list);
    rest.is_empty().then_some(Manifest {
        log,
        generation,
        next_sequence,
        segments,
        lost,
        incarnations,
        clock,
    })
}

fn take_listed(rest: &mut &[u8]) -> Option<Listed> {
    let id = rest.try_get_u64_le().ok()?;
    let (first_sequence, end) = (take_varint(rest)?, take_varint(rest)?);
    let [id, end] = [id, end].map(|number| Some(number).filter(|number| *number != 0));
    Some(Listed { id, first_sequence, end })
}

fn take_array<const BYTES: usize>(bytes: &mut &[u8]) -> Option<[u8; BYTES]> {
    let (array, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*array)
}

fn take_list<T>(bytes: &mut &[u8], mut take: impl FnMut(&mut &[u8]) -> Option<T>) -> Option<Vec<T>> {
    let count = take_varint(bytes)?;
    // Each takes a byte at least: a wrong count cannot reserve more memory than the file is long.
    let mut list = Vec::with_capacity(usize::try_from(count).ok()?.min(bytes.len()));
    for _ in 0..count {
        list.push(take(bytes)?);
    }
    Some(list)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test")]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let mut incarnations = Incarnations::default();
        (1..300).for_each(|n| incarnations.push(Incarnation::begin(n * 3)));
        incarnations.merged_below = 2;
        Manifest {
            log: Identity { id: [3; 16], salt: 9 },
            generation: 7,
            next_sequence: 900,
            segments: vec![
                Listed { id: None, first_sequence: 1, end: Some(5) },
                Listed { id: Some(u64::MAX), first_sequence: 5, end: None },
            ],
            lost: vec![Listed { id: Some(8), first_sequence: 2, end: Some(3) }],
            incarnations,
            clock: vec![1, 2, 3],
        }
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written_and_no_byte_of_it_can_change() {
        let manifest = sample();
        let bytes = manifest.to_bytes();
        assert_eq!(Manifest::read(&bytes).as_ref(), Ok(&manifest));
        // A shorter copy was written over a longer one.
        assert_eq!(Manifest::read(&[&bytes[..], &[7; 100]].concat()), Ok(manifest));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            assert_eq!(Manifest::read(&flipped), Err(Unreadable::Damaged), "byte {at}");
            assert_eq!(Manifest::read(&bytes[..at]), Err(Unreadable::Damaged), "cut off at {at}");
        }
    }

    #[test]
    fn the_oldest_of_too_many_lost_ranges_are_joined_but_not_over_a_segment() {
        let segment = |id, first| Listed { id: Some(id), first_sequence: first, end: Some(first + 5) };
        let lost = |first| Listed::lost(first, first + 5);
        let mut manifest = Manifest {
            segments: vec![segment(1, 25), segment(2, 100_000)],
            lost: (1..=MAX_LOST as u64).map(|n| lost(n * 10)).collect(),
            ..sample()
        };
        // It is of a file, which may come back.
        manifest.lost[4] = segment(3, 50);
        let before = manifest.clone();
        manifest.join_lost();
        assert_eq!(manifest, before, "not too many");
        manifest.lost.extend([20_000, 20_010, 20_020].map(lost));
        manifest.join_lost();
        assert_eq!(manifest.lost.len(), MAX_LOST);
        let expected =
            [Listed::lost(10, 25), Listed::lost(30, 45), segment(3, 50), Listed::lost(60, 75), lost(80)];
        assert_eq!(manifest.lost[..5], expected);
    }

    #[test]
    fn a_newer_version_is_reported_by_its_number() {
        let mut bytes = Manifest::new(Identity::default()).to_bytes();
        bytes[8] = 2;
        let end = bytes.len() - CHECKSUM_BYTES;
        let checksum = crc32c::crc32c(&bytes[..end]).to_le_bytes();
        bytes[end..].copy_from_slice(&checksum);
        assert_eq!(Manifest::read(&bytes), Err(Unreadable::Version(2)));
    }
}

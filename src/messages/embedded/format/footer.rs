//! The footer of a full segment: its index, after the last block.
//!
//! It says where runs of blocks begin, which topics the segment holds, and where each message of a topic is. So a log is
//! opened without reading its blocks, and one topic of a million is read without the others. Each part has a checksum of
//! its own; a damaged index can be built again from the blocks.
//!
//! ```text
//! sparse entries | records, in ranges, by name | list of ranges | postings, topic by topic | trailer
//! ```
//!
//! Version 2 of the format has another layout, which is still read: see [`version2`].

use std::io;

use bytes::{Buf, BufMut};

use self::directory::{Base, Writer};
pub use self::{
    directory::{Range, RangeList},
    held::{At, Held, List, Posting, Record, SparseEntry, Summary},
    part::{Damaged, Found, Part},
};
use super::block::{Salt, place_of};
use crate::messages::embedded::disk::File;

mod directory;
mod held;
mod part;
pub mod version2;

/// The first bytes of the trailer.
const MAGIC: [u8; 8] = *b"PRNLFOT3";

/// offset, first sequence, last sequence, earliest time, latest time.
const ENTRY_BYTES: usize = 4 + 4 * 8;

/// magic; offset, length and checksum of sparse entries and of the list of ranges; offset of records, of postings; first and
/// last sequence, last time, earliest and latest time, messages, ids, topics; checksum.
pub const TRAILER_BYTES: usize = 8 + 2 * 16 + 2 * 8 + 8 * 8 + 4;

/// The footer, as it is on disk, of a segment whose blocks end at `offset`. The topics are sorted by name.
pub fn to_bytes<'a>(
    offset: u64,
    runs: &[SparseEntry],
    topics: impl Iterator<Item = (&'a str, Held, &'a [Posting])>,
    summary: &'a Summary,
    salt: Salt,
) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in runs {
        out.put_u32_le(entry.offset);
        for number in [entry.first_sequence, entry.last_sequence, entry.min_time, entry.max_time] {
            out.put_u64_le(number);
        }
    }
    let of_runs = Part { offset, length: out.len(), checksum: crc32c::crc32c(&out) };
    let mut writer = Writer::new(summary);
    for (name, held, postings) in topics {
        writer.push(name, &held, postings);
    }
    writer.close();
    let Writer { records, list, postings, .. } = writer;
    let of_list = Part {
        offset: of_runs.end() + records.len() as u64,
        length: list.len(),
        checksum: crc32c::crc32c(&list),
    };
    let start_of_trailer = out.len() + records.len() + list.len() + postings.len();
    out.reserve(start_of_trailer - out.len() + TRAILER_BYTES);
    for part in [records, list, postings] {
        out.extend_from_slice(&part);
    }
    out.extend_from_slice(&MAGIC);
    for part in [&of_runs, &of_list] {
        out.put_u64_le(part.offset);
        out.put_u32_le(place_of(part.length));
        out.put_u32_le(part.checksum);
    }
    let &Summary { first_sequence, last_sequence, last_time, min_time, max_time, messages, ids, topics } =
        summary;
    for number in [of_runs.end(), of_list.end(), first_sequence, last_sequence, last_time, min_time] {
        out.put_u64_le(number);
    }
    for number in [max_time, messages, ids, topics] {
        out.put_u64_le(number);
    }
    let checksum = crc32c::crc32c_append(salt, out.get(start_of_trailer..).unwrap_or_default());
    out.put_u32_le(checksum);
    out
}

/// The trailer of a footer.
#[derive(Clone, Copy, Debug)]
pub struct Footer {
    runs: Part,
    layout: Layout,
    /// The summary of the segment.
    pub summary: Summary,
    /// The salt of the log.
    pub salt: Salt,
}

#[derive(Clone, Copy, Debug)]
enum Layout {
    Version2(version2::Parts),
    Version3 {
        /// The offset of the records, which end where the list of their ranges begins.
        records: u64,
        list: Part,
        /// The offset of the postings.
        postings: u64,
    },
}

impl Footer {
    /// Reads the trailer of a file, if it has one.
    pub fn read(file: &File, salt: Salt) -> io::Result<Option<Self>> {
        let length = file.len()?;
        let longest =
            u64::try_from(TRAILER_BYTES.max(version2::TRAILER_BYTES)).unwrap_or(u64::MAX).min(length);
        let bytes = file.read_soundly(length - longest, usize::try_from(longest).unwrap_or(0))?;
        let last = |count: usize| bytes.len().checked_sub(count).and_then(|start| bytes.get(start..));
        let of_version_3 = last(TRAILER_BYTES).and_then(|bytes| Self::parse(bytes, salt, length));
        let of_version_2 = || {
            let (parts, summary) = version2::parse(last(version2::TRAILER_BYTES)?, salt)?;
            let end = length.checked_sub(version2::TRAILER_BYTES as u64)?;
            let is_within = [&parts.runs, &parts.records, &parts.names].iter().all(|part| part.end() <= end);
            let layout = Layout::Version2(parts);
            is_within.then_some(Self { runs: parts.runs, layout, summary, salt })
        };
        Ok(of_version_3.or_else(of_version_2))
    }

    fn parse(bytes: &[u8], salt: Salt, length: u64) -> Option<Self> {
        let (body, mut checksum) = bytes.split_at_checked(TRAILER_BYTES - 4)?;
        let mut fields = body.strip_prefix(&MAGIC)?;
        if crc32c::crc32c_append(salt, body) != checksum.get_u32_le() {
            return None;
        }
        let (runs, list) = (Part::take(&mut fields), Part::take(&mut fields));
        let mut number = || fields.get_u64_le();
        let (records, postings) = (number(), number());
        let summary = Summary {
            first_sequence: number(),
            last_sequence: number(),
            last_time: number(),
            min_time: number(),
            max_time: number(),
            messages: number(),
            ids: number(),
            topics: number(),
        };
        let end = length.checked_sub(TRAILER_BYTES as u64)?;
        let is_ordered =
            runs.end() <= records && records <= list.offset && list.end() <= postings && postings <= end;
        let layout = Layout::Version3 { records, list, postings };
        is_ordered.then_some(Self { runs, layout, summary, salt })
    }

    /// The offset after the last block.
    pub fn blocks_end(&self) -> u64 {
        self.runs.offset
    }

    /// Whether postings have the times of their messages.
    pub fn has_times(&self) -> bool {
        matches!(self.layout, Layout::Version3 { .. })
    }

    /// The name of the part at an offset.
    pub fn part_at(&self, offset: u64) -> &'static str {
        let (records, list) = match &self.layout {
            Layout::Version2(parts) => (parts.records.end(), parts.names.end()),
            Layout::Version3 { list, .. } => (list.offset, list.end()),
        };
        match offset {
            offset if offset < self.runs.end() => "the sparse index",
            offset if offset < records => "topics",
            offset if offset < list => "names of topics",
            _ => "places of messages, or the summary",
        }
    }

    /// Whether everything but the postings is sound.
    pub fn is_whole(&self, file: &File) -> io::Result<bool> {
        if self.runs.read(file)?.is_err() {
            return Ok(false);
        }
        let Ok(list) = self.ranges(file)? else { return Ok(false) };
        if let Layout::Version2(_) = self.layout {
            return Ok(true);
        }
        for place in 0..list.len() {
            if self.range(file, &list, place)?.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads the sparse index.
    pub fn runs(&self, file: &File) -> Found<Vec<SparseEntry>> {
        let bytes = match self.runs.read(file)? {
            Ok(bytes) => bytes,
            Err(damaged) => return Ok(Err(damaged)),
        };
        if let Layout::Version2(_) = self.layout {
            return Ok(Ok(version2::runs(&bytes, self.summary.last_time)));
        }
        let entry = |mut bytes: &[u8]| SparseEntry {
            offset: bytes.get_u32_le(),
            first_sequence: bytes.get_u64_le(),
            last_sequence: bytes.get_u64_le(),
            min_time: bytes.get_u64_le(),
            max_time: bytes.get_u64_le(),
        };
        Ok(Ok(bytes.chunks_exact(ENTRY_BYTES).map(entry).collect()))
    }

    /// Reads the list of the ranges of records. In a footer of version 2 this reads and checks all records: keep the list.
    pub fn ranges(&self, file: &File) -> Found<RangeList> {
        match &self.layout {
            Layout::Version2(parts) => directory::check_version_2(file, parts),
            Layout::Version3 { list, .. } => {
                Ok(list.read(file)?.and_then(|bytes| RangeList::parse(&bytes).ok_or(Damaged)))
            }
        }
    }

    /// Reads a range of records.
    pub fn range(&self, file: &File, list: &RangeList, place: usize) -> Found<Range> {
        let Summary { first_sequence, min_time, .. } = self.summary;
        let (records, names, postings) = match &self.layout {
            Layout::Version2(parts) => (parts.records.offset, Some(parts.names.offset), parts.postings),
            Layout::Version3 { records, postings, .. } => (*records, None, *postings),
        };
        list.read(file, &Base { records, names, postings, first_sequence, min_time }, place)
    }

    /// Reads the places of a topic's messages.
    pub fn postings(&self, file: &File, record: &Record<'_>) -> Found<Vec<Posting>> {
        let time = self.has_times().then_some(record.held.first.time);
        let bytes = record.postings.read(file)?;
        Ok(bytes.and_then(|bytes| directory::take_postings(&bytes, time).ok_or(Damaged)))
    }
}

#[cfg(test)]
mod tests;

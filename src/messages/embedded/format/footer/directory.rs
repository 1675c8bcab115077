//! The topics of a footer, by name: a list of ranges, and the records of each range.
//!
//! A range has a checksum of its own, so that one topic of a million is found by reading two small parts: the list of
//! ranges, and one range. A footer of version 2 has one checksum for all its records. It is checked once, when the list of
//! its ranges is made; the list has a checksum for each range from then on.

use std::sync::{Arc, OnceLock};

use bytes::{Buf, BufMut, Bytes};

use super::{
    held::{At, Held, Posting, Record, Summary},
    part::{Damaged, Found, Part},
    version2,
};
use crate::{
    messages::embedded::{
        disk::File,
        format::block::{put_text, take_text},
    },
    wire::{put_varint, take_varint},
};

/// The size at which a range of records is closed: a list of ranges is about as large for a segment with all the topics
/// that it can have.
const RANGE_BYTES: usize = 16 * 1024;

/// The number of records of version 2 that are read at once.
const RANGE_RECORDS: usize = 128;

/// The distance, in records, between the records of a range at which a binary search looks: a tenth of the records that a
/// search of the whole range would decode, and 16 bytes of memory for each step.
const STEP_RECORDS: usize = 16;

/// Where the ranges of records are, and the first name of each.
#[derive(Debug, Default)]
pub struct RangeList {
    /// The first names, back to back.
    names: String,
    ranges: Vec<Place>,
}

/// The place of a range. Offsets are within all records, all names and all postings of the footer.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The end of its first name in the names of the list.
    name_end: u32,
    records: (u32, u32),
    /// Of version 2, whose names are apart.
    names: (u32, u32),
    postings: u32,
    checksum: u32,
}

/// What records are relative to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base {
    pub records: u64,
    /// Of version 2, whose names are apart.
    pub names: Option<u64>,
    pub postings: u64,
    pub first_sequence: u64,
    pub min_time: u64,
}

impl RangeList {
    /// Adds the next range.
    fn push(&mut self, first_name: &str, place: Place) {
        self.names.push_str(first_name);
        self.ranges.push(Place { name_end: size(self.names.len()), ..place });
    }

    /// The number of ranges.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// The range that has a name, if any has.
    pub fn find(&self, name: &str) -> Option<usize> {
        let (mut low, mut high) = (0, self.ranges.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.first_name(middle)? <= name {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low.checked_sub(1)
    }

    /// The name of the first record of a range.
    pub fn first_name(&self, place: usize) -> Option<&str> {
        let end = self.ranges.get(place)?.name_end as usize;
        let start = place.checked_sub(1).and_then(|before| self.ranges.get(before));
        self.names.get(start.map_or(0, |before| before.name_end as usize)..end)
    }

    /// The memory that it takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.names.len() + size_of_val(self.ranges.as_slice())
    }

    /// Reads a range, and checks it.
    pub(super) fn read(&self, file: &File, base: &Base, place: usize) -> Found<Range> {
        let Some(place) = self.ranges.get(place) else { return Ok(Err(Damaged)) };
        let part = |offset: u64, (start, length): (u32, u32)| {
            file.read_soundly(offset.saturating_add(start.into()), length as usize)
        };
        let records = part(base.records, place.records)?;
        let names = base.names.map(|names| part(names, place.names)).transpose()?;
        let checksum = crc32c::crc32c(&records);
        let checksum = names.as_ref().map_or(checksum, |names| crc32c::crc32c_append(checksum, names));
        if checksum != place.checksum {
            return Ok(Err(Damaged));
        }
        let postings = base.postings.saturating_add(place.postings.into());
        let names = names.map(|names| (Bytes::from(names), place.names.0));
        let &Base { first_sequence, min_time, .. } = base;
        Ok(Ok(Range {
            records: records.into(),
            names,
            postings,
            first_sequence,
            min_time,
            steps: Arc::default(),
        }))
    }

    /// Decodes the list of a footer of version 3.
    pub(super) fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut list = Self::default();
        let (mut records, mut postings) = (0_u32, 0_u32);
        while !bytes.is_empty() {
            let name = take_text(&mut bytes)?;
            let length = take_u32(&mut bytes)?;
            let of_postings = take_u32(&mut bytes)?;
            let checksum = bytes.try_get_u32_le().ok()?;
            let place = Place { name_end: 0, records: (records, length), names: (0, 0), postings, checksum };
            list.push(name, place);
            records = records.checked_add(length)?;
            postings = postings.checked_add(of_postings)?;
        }
        Some(list)
    }
}

/// Checks all records, and divides them into ranges that can be checked by themselves from then on.
pub(super) fn check_version_2(file: &File, parts: &version2::Parts) -> Found<RangeList> {
    let (Ok(records), Ok(names)) = (parts.records.read(file)?, parts.names.read(file)?) else {
        return Ok(Err(Damaged));
    };
    Ok(divide(&records, &names).ok_or(Damaged))
}

fn divide(records: &Bytes, names: &Bytes) -> Option<RangeList> {
    let mut list = RangeList::default();
    let mut start = 0;
    for range in records.chunks(RANGE_RECORDS * version2::RECORD_BYTES) {
        let (first, last) =
            (range.get(..version2::RECORD_BYTES)?, range.get(range.len() - version2::RECORD_BYTES..)?);
        let (from, _) = version2::name_of(first);
        let (at, length) = version2::name_of(last);
        let (from, to) = (from as usize, at.checked_add(length)? as usize);
        let of_range = names.get(from..to)?;
        let checksum = crc32c::crc32c_append(crc32c::crc32c(range), of_range);
        let first_name = version2::record(first, names, 0, 0)?.name;
        let span =
            |start: usize, length: usize| Some((u32::try_from(start).ok()?, u32::try_from(length).ok()?));
        let place = Place {
            name_end: 0,
            records: span(start, range.len())?,
            names: span(from, to - from)?,
            postings: 0,
            checksum,
        };
        list.push(first_name, place);
        start += range.len();
    }
    Some(list)
}

/// Some records, in the order of their names.
#[derive(Clone, Debug)]
pub struct Range {
    records: Bytes,
    /// Of version 2: the names of the records, and the offset of the first one in all names.
    names: Option<(Bytes, u32)>,
    /// The offset in the file of the postings of the first record; of version 2, of all postings.
    postings: u64,
    first_sequence: u64,
    min_time: u64,
    /// Each [`STEP_RECORDS`]th record, from the first search for a name on.
    steps: Arc<OnceLock<Vec<Step>>>,
}

/// Where a record of a range is.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// Within the records of the range.
    offset: usize,
    /// The offset in the file of its postings; of version 2, of all postings.
    postings: u64,
}

impl Range {
    /// The records, by name.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.records_from(self.first()).map(|(_, record)| record)
    }

    /// The record of a topic.
    pub fn find(&self, name: &str) -> Option<Record<'_>> {
        let steps = self.steps.get_or_init(|| {
            self.records_from(self.first()).step_by(STEP_RECORDS).map(|(step, _)| step).collect()
        });
        let is_before =
            |step: &Step| self.records_from(*step).next().is_some_and(|(_, record)| record.name <= name);
        let step = steps.partition_point(is_before).checked_sub(1).and_then(|last| steps.get(last))?;
        let mut records = self.records_from(*step).map(|(_, record)| record);
        records.find(|record| record.name >= name).filter(|record| record.name == name)
    }

    fn first(&self) -> Step {
        Step { offset: 0, postings: self.postings }
    }

    /// A record and those after it, each with its place.
    fn records_from(&self, Step { offset, mut postings }: Step) -> impl Iterator<Item = (Step, Record<'_>)> {
        let mut rest = self.records.get(offset..).unwrap_or_default();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let step = Step { offset: self.records.len() - rest.len(), postings };
            if let Some((names, first)) = &self.names {
                let (record, others) = rest.split_at_checked(version2::RECORD_BYTES)?;
                rest = others;
                return Some((step, version2::record(record, names, *first, self.postings)?));
            }
            let record = self.take(&mut rest, postings)?;
            postings = record.postings.end();
            Some((step, record))
        })
    }

    /// The memory that it takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.records.len() + self.names.as_ref().map_or(0, |(names, _)| names.len())
    }

    fn take<'a>(&self, bytes: &mut &'a [u8], postings: u64) -> Option<Record<'a>> {
        let name = take_text(bytes)?;
        let mut held = Held { messages: take_varint(bytes)?, bytes: take_varint(bytes)?, ..Held::default() };
        held.last_bytes = take_u32(bytes)?;
        let first = self.first_sequence.checked_add(take_varint(bytes)?)?;
        let last = first.checked_add(take_varint(bytes)?)?;
        held.min_time = self.min_time.checked_add(take_varint(bytes)?)?;
        held.max_time = held.min_time.checked_add(take_varint(bytes)?)?;
        held.first = At { sequence: first, time: held.min_time.checked_add(take_varint(bytes)?)? };
        held.last = At { sequence: last, time: held.min_time.checked_add(take_varint(bytes)?)? };
        held.all_expired = take_varint(bytes)?;
        if held.all_expired != 0 {
            held.first_expires = take_varint(bytes)?;
            held.last_expires = take_varint(bytes)?;
            held.expiring_bytes = take_varint(bytes)?;
        }
        let length = usize::try_from(take_varint(bytes)?).ok()?;
        let checksum = bytes.try_get_u32_le().ok()?;
        Some(Record { name, held, postings: Part { offset: postings, length, checksum } })
    }
}

/// Writes the topics of a footer: records, the list of their ranges, and postings.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    summary: &'a Summary,
    pub records: Vec<u8>,
    pub list: Vec<u8>,
    pub postings: Vec<u8>,
    /// The name of the first record of the open range, and where its records and postings begin.
    open: Option<(&'a str, usize, usize)>,
}

impl<'a> Writer<'a> {
    pub fn new(summary: &'a Summary) -> Self {
        Self { summary, records: Vec::new(), list: Vec::new(), postings: Vec::new(), open: None }
    }

    /// Adds the next topic by name.
    pub fn push(&mut self, name: &'a str, held: &Held, of_topic: &[Posting]) {
        self.open.get_or_insert((name, self.records.len(), self.postings.len()));
        let start = self.postings.len();
        put_postings(&mut self.postings, of_topic, held.first.time);
        let list = self.postings.get(start..).unwrap_or_default();
        let (length, checksum) = (list.len() as u64, crc32c::crc32c(list));
        let out = &mut self.records;
        put_text(out, name);
        let of_sequences =
            [held.first.sequence - self.summary.first_sequence, held.last.sequence - held.first.sequence];
        let of_times = [
            held.min_time - self.summary.min_time,
            held.max_time - held.min_time,
            held.first.time - held.min_time,
            held.last.time - held.min_time,
        ];
        let numbers = [held.messages, held.bytes, held.last_bytes.into()].into_iter();
        for number in numbers.chain(of_sequences).chain(of_times) {
            put_varint(out, number);
        }
        put_varint(out, held.all_expired);
        if held.all_expired != 0 {
            for number in [held.first_expires, held.last_expires, held.expiring_bytes] {
                put_varint(out, number);
            }
        }
        put_varint(out, length);
        out.put_u32_le(checksum);
        if let Some((_, start, _)) = self.open
            && self.records.len() - start >= RANGE_BYTES
        {
            self.close();
        }
    }

    /// Closes the last range.
    pub fn close(&mut self) {
        let Some((name, records, postings)) = self.open.take() else { return };
        let bytes = self.records.get(records..).unwrap_or_default();
        put_text(&mut self.list, name);
        put_varint(&mut self.list, bytes.len() as u64);
        put_varint(&mut self.list, (self.postings.len() - postings) as u64);
        self.list.put_u32_le(crc32c::crc32c(bytes));
    }
}

/// Appends postings. `time` is that of the first.
fn put_postings(out: &mut Vec<u8>, postings: &[Posting], mut time: u64) {
    let (mut sequence, mut offset) = (0, 0);
    for posting in postings {
        put_varint(out, posting.sequence - sequence);
        put_varint(out, u64::from(posting.offset - offset));
        put_varint(out, posting.length.into());
        out.put_u32_le(posting.checksum);
        put_varint(out, posting.expires);
        // Times may go back. Zigzag, as in protobuf.
        let step = posting.time.wrapping_sub(time).cast_signed();
        put_varint(out, (step.wrapping_shl(1) ^ (step >> 63)).cast_unsigned());
        (sequence, offset, time) = (posting.sequence, posting.offset, posting.time);
    }
}

/// Reads postings. `time` is that of the first; `None` in version 2, which has no times.
pub(super) fn take_postings(mut bytes: &[u8], time: Option<u64>) -> Option<Vec<Posting>> {
    let mut postings = Vec::new();
    let (mut sequence, mut offset, mut at) = (0_u64, 0_u32, time.unwrap_or(0));
    while !bytes.is_empty() {
        sequence = sequence.checked_add(take_varint(&mut bytes)?)?;
        offset = offset.checked_add(take_u32(&mut bytes)?)?;
        let length = take_u32(&mut bytes)?;
        let checksum = bytes.try_get_u32_le().ok()?;
        let expires = take_varint(&mut bytes)?;
        if time.is_some() {
            let step = take_varint(&mut bytes)?;
            at = at.wrapping_add((step >> 1) ^ (step & 1).wrapping_neg());
        }
        postings.push(Posting { sequence, time: at, expires, offset, length, checksum });
    }
    Some(postings)
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    u32::try_from(take_varint(bytes)?).ok()
}

#[expect(clippy::expect_used, reason = "a segment has at most 1 GiB, and its index is smaller")]
fn size(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a part of an index fits 32 bits")
}

//! Converts segments from version 1 of the format to version 2, and keeps the log's identity, sequences and times.
//!
//! One segment at a time: the new file is synced beside the old one, and then takes its name. So a directory with both
//! versions is one whose conversion was interrupted. Bytes that are not a whole block of version 1 are copied as they are, and
//! are then found as damage or as a torn tail, as they would have been before.

use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::{Buf, Bytes};
use memchr::memmem;

use super::directory::sequence_of;
use crate::messages::{
    OpenError,
    embedded::{
        disk::Disk,
        format::{
            block::{BLOCK_MAGIC, Block, Entry, Identity, LogId, take_text},
            segment_header::{self, SegmentHeader},
        },
    },
};

/// The first bytes of segments of version 1.
const START: [u8; 12] = *b"PRNLSEG\n\x01\0\0\0";

/// magic, version, log, first sequence, checksum.
const SEGMENT_HEADER_BYTES: usize = 8 + 4 + 16 + 8 + 4;

/// magic, table bytes, body bytes, entries, topics, first sequence, time, checksum.
const BLOCK_HEADER_BYTES: usize = 5 * 4 + 2 * 8 + 4;

/// A segment of version 1.
struct Old {
    path: PathBuf,
    bytes: Bytes,
    header: SegmentHeader,
    is_sound: bool,
}

/// Converts all segments of version 1 in a directory. Returns how many there were.
pub fn all(disk: &Disk, directory: &Path) -> Result<usize, OpenError> {
    let (mut count, mut log) = (0, None);
    let mut damaged = Vec::new();
    for path in disk.list(directory).map_err(OpenError::at(directory))? {
        let Some(first_sequence) = sequence_of(&path) else { continue };
        match find(disk, path.clone(), first_sequence, &mut log).map_err(OpenError::at(&path))? {
            Some(old) if old.is_sound => {
                write(disk, &old, old.header.log).map_err(OpenError::at(&path))?;
                count += 1;
            }
            // Its name has the sequence, and another segment the log.
            Some(_) => damaged.push((path, first_sequence)),
            None => {}
        }
    }
    for (path, first_sequence) in damaged {
        if let Some(old) =
            find(disk, path.clone(), first_sequence, &mut None).map_err(OpenError::at(&path))?
        {
            write(disk, &old, log.unwrap_or(old.header.log)).map_err(OpenError::at(&path))?;
            count += 1;
        }
    }
    if count > 0 {
        disk.sync_directory(directory).map_err(OpenError::at(directory))?;
    }
    Ok(count)
}

/// Reads a segment, if it is in version 1. Sets `log` if its header is sound.
fn find(
    disk: &Disk,
    path: PathBuf,
    first_sequence: u64,
    log: &mut Option<Identity>,
) -> io::Result<Option<Old>> {
    let file = disk.open(&path, false)?;
    let length = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let start = file.read_soundly(0, length.min(segment_header::SEGMENT_HEADER_BYTES))?;
    if let Ok(header) = SegmentHeader::read(&start) {
        *log = Some(header.log);
    }
    if !start.starts_with(&START) {
        return Ok(None);
    }
    let Some((body, mut checksum)) = start
        .get(..SEGMENT_HEADER_BYTES)
        .and_then(|header| header.split_at_checked(SEGMENT_HEADER_BYTES - 4))
    else {
        // It was being created, and is empty.
        disk.remove(&path)?;
        return Ok(None);
    };
    let is_sound = crc32c::crc32c(body) == checksum.get_u32_le();
    let mut id = LogId::default();
    let mut fields = body.get(START.len()..).unwrap_or_default();
    fields.copy_to_slice(&mut id);
    let old_log = Identity { id, salt: log.map_or_else(Identity::new_salt, |log| log.salt) };
    if is_sound {
        *log = Some(old_log);
    }
    let header = SegmentHeader { log: old_log, first_sequence, replaces_up_to: 0, link: None };
    Ok(Some(Old { path, bytes: file.read(0, length)?.into(), header, is_sound }))
}

fn write(disk: &Disk, old: &Old, log: Identity) -> io::Result<()> {
    let Old { path, bytes, header, .. } = old;
    let mut out = Vec::with_capacity(bytes.len());
    out.extend(SegmentHeader { log, ..*header }.to_bytes());
    let mut at = SEGMENT_HEADER_BYTES;
    while at < bytes.len() {
        let rest = bytes.slice(at..);
        if let Some((block, length)) = read(&rest) {
            block.put(&mut out, 0, log.salt);
            at += length;
        } else {
            let after = rest.get(1..).unwrap_or_default();
            let next = memmem::find(after, &BLOCK_MAGIC).map_or(rest.len(), |next| next + 1);
            out.extend_from_slice(rest.get(..next).unwrap_or_default());
            at += next;
        }
    }
    let new = path.with_extension("new");
    let copy = disk.create(&new)?;
    copy.write_all_at(&out, 0)?;
    copy.sync()?;
    disk.rename(&new, path)
}

/// The block of version 1 at the beginning of some bytes, and its size, if it is complete.
fn read(bytes: &Bytes) -> Option<(Block, usize)> {
    let (fixed, mut checksum) = bytes.get(..BLOCK_HEADER_BYTES)?.split_at_checked(BLOCK_HEADER_BYTES - 4)?;
    let mut fields = fixed.strip_prefix(&BLOCK_MAGIC)?;
    let mut size = || usize::try_from(fields.get_u32_le()).ok();
    let (table_bytes, body_bytes, entries, topics) = (size()?, size()?, size()?, size()?);
    let (first_sequence, time) = (fields.get_u64_le(), fields.get_u64_le());
    let body_at = BLOCK_HEADER_BYTES.checked_add(table_bytes)?;
    let end = body_at.checked_add(body_bytes).filter(|end| *end <= bytes.len())?;
    let mut table = bytes.get(BLOCK_HEADER_BYTES..body_at)?;
    if crc32c::crc32c_append(crc32c::crc32c(fixed), table) != checksum.get_u32_le() {
        return None;
    }
    let last_sequence = first_sequence.checked_add(u64::try_from(entries).ok()?.checked_sub(1)?)?;
    let body = bytes.slice(body_at..end);
    let mut block = Block { first_sequence, last_sequence, time, body, ..Block::default() };
    for _ in 0..topics {
        block.topics.push(take_text(&mut table)?.into());
    }
    let mut start = 0_u32;
    for (place, sequence) in (0_u32..).zip(first_sequence..=last_sequence) {
        let (topic, length) = (table.try_get_u32_le().ok()?, table.try_get_u32_le().ok()?);
        let checksum = table.try_get_u32_le().ok()?;
        let id = take_text(&mut table)?;
        if !id.is_empty() {
            block.ids.push((place, id.into()));
        }
        let end = start.checked_add(length).filter(|end| *end as usize <= body_bytes)?;
        block.entries.push(Entry { sequence, topic, start, end, checksum, expires: 0 });
        start = end;
    }
    (table.is_empty() && start as usize == body_bytes).then_some((block, end))
}

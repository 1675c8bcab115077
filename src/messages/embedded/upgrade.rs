//! Writes segments of version 1 of the format anew, in version 2, with the log's identity, sequences and times kept.
//!
//! Segment by segment: the new one is synced beside the old one, and then takes its name, so that a directory in which
//! both versions are found, because the power went, is one that is half done. What is no whole block of version 1 stays
//! as it is between the others, and is found as damage, or as a torn tail, as it would have been.

use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::{Buf, Bytes};
use memchr::memmem;

use super::{
    block::{self, BLOCK_MAGIC, Block, Entry, Identity, LogId, SegmentHeader, take_text},
    disk::Disk,
    files,
};
use crate::messages::OpenError;

/// What begins a segment of version 1, and no other.
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

/// Writes all segments of version 1 in a directory anew; how many they were.
pub fn all(disk: &Disk, directory: &Path) -> Result<usize, OpenError> {
    let (mut count, mut log) = (0, None);
    let mut damaged = Vec::new();
    for path in disk.list(directory).map_err(at(directory))? {
        let Some(first_sequence) = files::sequence_of(&path) else { continue };
        match find(disk, path.clone(), first_sequence, &mut log).map_err(at(&path))? {
            Some(old) if old.is_sound => {
                write(disk, &old, old.header.log).map_err(at(&path))?;
                count += 1;
            }
            // The name tells the sequence, and another segment the log.
            Some(_) => damaged.push((path, first_sequence)),
            None => {}
        }
    }
    for (path, first_sequence) in damaged {
        if let Some(old) = find(disk, path.clone(), first_sequence, &mut None).map_err(at(&path))? {
            write(disk, &old, log.unwrap_or(old.header.log)).map_err(at(&path))?;
            count += 1;
        }
    }
    if count > 0 {
        disk.sync_directory(directory).map_err(at(directory))?;
    }
    Ok(count)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> OpenError + use<> {
    let path = path.to_path_buf();
    move |source| OpenError::Io { path, source }
}

/// A segment, if it is of version 1; and the log, if its header can be believed.
fn find(
    disk: &Disk,
    path: PathBuf,
    first_sequence: u64,
    log: &mut Option<Identity>,
) -> io::Result<Option<Old>> {
    let file = disk.open(&path, false)?;
    let length = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let start = file.read(0, length.min(block::SEGMENT_HEADER_BYTES))?;
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
        // It was being made: there is nothing in it.
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
    let header = SegmentHeader { log: old_log, first_sequence, through: 0 };
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
            let behind = rest.get(1..).unwrap_or_default();
            let next = memmem::find(behind, &BLOCK_MAGIC).map_or(rest.len(), |next| next + 1);
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

/// The whole block of version 1 that some bytes begin with, and its length.
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

//! What was removed, on disk: for each topic that retention or a purge has cut, how far.
//!
//! A file of its own, replaced as a whole before anything that it tells is done. Where it cannot be read, what was
//! removed and is still in a segment is served again, and readers are not told of what is gone: that is said in the
//! server's log, and no message is lost by it.

use std::{io, path::Path};

use bytes::{Buf, BufMut};

use super::{
    block::{Identity, LogId, Salt, put_text, take_text},
    disk::Disk,
    topics::{Removed, Topics},
};
use crate::wire::{put_varint, take_varint};

/// The file.
const NAME: &str = "removed";

/// It begins with this.
const MAGIC: [u8; 8] = *b"PRNLRMV\n";

/// The version of the format.
const VERSION: u32 = 1;

/// All that was removed from `topics`, as it is on disk.
pub fn to_bytes(log: Identity, topics: &Topics) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.put_u32_le(VERSION);
    out.put_slice(&log.id);
    out.put_u32_le(log.salt);
    put_varint(&mut out, topics.forgotten());
    for (name, removed) in topics.all_removed() {
        put_text(&mut out, name);
        for number in [removed.floor, removed.lost, removed.purged] {
            put_varint(&mut out, number);
        }
    }
    out.put_u32_le(crc32c::crc32c(&out));
    out
}

/// Replaces the file; it is on disk when this returns.
pub fn write(disk: &Disk, directory: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = directory.join(format!("{NAME}.new"));
    let file = disk.create(&new)?;
    file.write_all_at(bytes, 0)?;
    file.sync()?;
    disk.rename(&new, &directory.join(NAME))?;
    disk.sync_directory(directory)
}

/// The file is there, whatever is in it.
pub fn is_there(disk: &Disk, directory: &Path) -> bool {
    disk.open(&directory.join(NAME), false).is_ok()
}

/// Which log the file is of, where no segment tells.
pub fn log(disk: &Disk, directory: &Path) -> Option<Identity> {
    let file = disk.open(&directory.join(NAME), false).ok()?;
    let bytes = file.read(0, usize::try_from(file.len().ok()?).ok()?).ok()?;
    let (body, mut checksum) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    let mut rest = body.strip_prefix(&MAGIC).filter(|_| crc32c::crc32c(body) == checksum.get_u32_le())?;
    (rest.try_get_u32_le().ok()? == VERSION).then_some(())?;
    let id = rest.first_chunk::<16>().copied()?;
    rest.advance(id.len());
    Some(Identity { id, salt: rest.try_get_u32_le().ok()? })
}

/// Reads it into `topics`, before any message is added. What is wrong with the file, in words, if it cannot be
/// believed.
pub fn read(disk: &Disk, directory: &Path, log: LogId, topics: &mut Topics) -> io::Result<Option<String>> {
    let path = directory.join(NAME);
    let file = match disk.open(&path, false) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let bytes = file.read(0, length)?;
    let fault = |text: &str| Ok(Some(format!("{}: {text}", path.display())));
    let Some((body, mut checksum)) = bytes.len().checked_sub(4).and_then(|at| bytes.split_at_checked(at))
    else {
        return fault("is too short");
    };
    if crc32c::crc32c(body) != checksum.get_u32_le() {
        return fault("its checksum does not hold");
    }
    let Some(mut rest) = body.strip_prefix(&MAGIC).filter(|rest| rest.len() >= 4 + log.len() + 4) else {
        return fault("is no such file");
    };
    let version = rest.get_u32_le();
    if version != VERSION {
        return fault(&format!("is of version {version} of its format"));
    }
    let (of, mut rest) = rest.split_at(log.len());
    if of != log {
        return fault("is one of another log");
    }
    rest.advance(size_of::<Salt>());
    match take_all(&mut rest) {
        Some((forgotten, all)) => {
            for (name, removed) in all {
                topics.remember(name, removed);
            }
            topics.set_forgotten(forgotten);
            Ok(None)
        }
        None => fault("is not complete"),
    }
}

fn take_all<'a>(rest: &mut &'a [u8]) -> Option<(u64, Vec<(&'a str, Removed)>)> {
    let forgotten = take_varint(rest)?;
    let mut all = Vec::new();
    while !rest.is_empty() {
        let name = take_text(rest)?;
        let removed =
            Removed { floor: take_varint(rest)?, lost: take_varint(rest)?, purged: take_varint(rest)? };
        all.push((name, removed));
    }
    Some((forgotten, all))
}

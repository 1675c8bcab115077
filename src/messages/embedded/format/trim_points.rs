//! The file of trim points: for each topic that retention or a purge has trimmed, how far.
//!
//! The file is replaced as a whole before a removal that it records is carried out. If it cannot be read, removed messages
//! that are still in a segment are served again, and gaps are not reported to readers. The server logs that; no message is
//! lost.

use std::{io, path::Path, sync::Arc};

use bytes::{Buf, BufMut};

use super::block::{Identity, LogId, Salt, put_text, take_text};
use crate::{
    messages::embedded::disk::Disk,
    wire::{put_varint, take_varint},
};

/// The name of the file.
pub const NAME: &str = "removed";

/// Its first bytes.
const MAGIC: [u8; 8] = *b"PRNLRMV\n";

/// The version of its format.
const VERSION: u32 = 1;

/// What was removed from a topic. It outlives the messages of the topic.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TrimPoint {
    /// All messages below this sequence are removed.
    pub first_kept: u64,
    /// The highest sequence that retention or a purge removed; 0 for none. Expired and superseded messages do not count.
    pub lost_up_to: u64,
    /// Ids of messages up to this sequence are forgotten and can be published again; 0 for none.
    pub purged_up_to: u64,
    /// The loss epoch in which `lost_up_to` last changed; 0 if that was before the server started. Not on disk.
    pub lost_at: u64,
}

/// The content of the file.
#[derive(Debug, Default)]
pub struct TrimPoints {
    /// Topics that are no longer listed have lost messages up to this sequence; 0 for none.
    pub forgotten_up_to: u64,
    /// The topics and their trim points.
    pub topics: Vec<(String, TrimPoint)>,
}

/// The file, as it is on disk.
pub fn to_bytes<'a>(
    log: Identity,
    forgotten_up_to: u64,
    topics: impl Iterator<Item = (&'a Arc<str>, TrimPoint)>,
) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.put_u32_le(VERSION);
    out.put_slice(&log.id);
    out.put_u32_le(log.salt);
    put_varint(&mut out, forgotten_up_to);
    for (name, TrimPoint { first_kept, lost_up_to, purged_up_to, lost_at: _ }) in topics {
        put_text(&mut out, name);
        for number in [first_kept, lost_up_to, purged_up_to] {
            put_varint(&mut out, number);
        }
    }
    out.put_u32_le(crc32c::crc32c(&out));
    out
}

/// Replaces the file. It is on disk when this returns.
pub fn write(disk: &Disk, directory: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = directory.join(format!("{NAME}.new"));
    let file = disk.create(&new)?;
    file.write_all_at(bytes, 0)?;
    file.sync()?;
    disk.rename(&new, &directory.join(NAME))?;
    disk.sync_directory(directory)
}

/// Whether there is a file, sound or not.
pub fn exists(disk: &Disk, directory: &Path) -> bool {
    disk.open(&directory.join(NAME), false).is_ok()
}

/// The log that the file belongs to, for a directory in which no segment says it.
pub fn identity(disk: &Disk, directory: &Path) -> Option<Identity> {
    let file = disk.open(&directory.join(NAME), false).ok()?;
    let bytes = file.read(0, usize::try_from(file.len().ok()?).ok()?).ok()?;
    let (body, mut checksum) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    let mut rest = body.strip_prefix(&MAGIC).filter(|_| crc32c::crc32c(body) == checksum.get_u32_le())?;
    (rest.try_get_u32_le().ok()? == VERSION).then_some(())?;
    let id = rest.first_chunk::<16>().copied()?;
    rest.advance(id.len());
    Some(Identity { id, salt: rest.try_get_u32_le().ok()? })
}

/// Reads the file. Without one, nothing was removed. An outer error is I/O; an inner one says why the file is not valid.
pub fn read(disk: &Disk, directory: &Path, log: LogId) -> io::Result<Result<TrimPoints, String>> {
    let path = directory.join(NAME);
    let file = match disk.open(&path, false) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(TrimPoints::default())),
        Err(error) => return Err(error),
    };
    let length = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let bytes = file.read(0, length)?;
    let fault = |text: &str| Ok(Err(format!("{}: {text}", path.display())));
    let Some((body, mut checksum)) = bytes.len().checked_sub(4).and_then(|at| bytes.split_at_checked(at))
    else {
        return fault("is too short");
    };
    if crc32c::crc32c(body) != checksum.get_u32_le() {
        return fault("its checksum is wrong");
    }
    let Some(mut rest) = body.strip_prefix(&MAGIC).filter(|rest| rest.len() >= 4 + log.len() + 4) else {
        return fault("is not a file of trim points");
    };
    let version = rest.get_u32_le();
    if version != VERSION {
        return fault(&format!("is in version {version} of its format"));
    }
    let (of, mut rest) = rest.split_at(log.len());
    if of != log {
        return fault("belongs to another log");
    }
    rest.advance(size_of::<Salt>());
    match take_topics(&mut rest) {
        Some(points) => Ok(Ok(points)),
        None => fault("is not complete"),
    }
}

fn take_topics(rest: &mut &[u8]) -> Option<TrimPoints> {
    let forgotten_up_to = take_varint(rest)?;
    let mut topics = Vec::new();
    while !rest.is_empty() {
        let name = take_text(rest)?.to_owned();
        let first_kept = take_varint(rest)?;
        let (lost_up_to, purged_up_to) = (take_varint(rest)?, take_varint(rest)?);
        topics.push((name, TrimPoint { first_kept, lost_up_to, purged_up_to, lost_at: 0 }));
    }
    Some(TrimPoints { forgotten_up_to, topics })
}

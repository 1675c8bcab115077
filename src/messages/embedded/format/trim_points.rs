//! The file of trim points: for each topic that retention or a purge has trimmed, how far.
//!
//! It is kept twice, and replaced before a removal that it records is carried out. If no copy can be read, removed messages
//! that are still in a segment are served again, and gaps are not reported to readers. The server logs that; no message is
//! lost.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Buf, BufMut};

use super::{
    block::{Identity, LogId, put_text, take_text},
    twin::{self, Twin},
};
use crate::{
    messages::embedded::disk::Disk,
    wire::{put_varint, take_varint},
};

/// The name of the file of version 1, of which there was one copy.
pub const NAME: &str = "removed";

/// Its first bytes.
const MAGIC: [u8; 8] = *b"PRNLRMV\n";

/// The file since version 2.
const KIND: twin::Kind = twin::Kind { name: NAME, magic: MAGIC, versions: 2..=4 };

/// A topic with a name of usual length takes up to this much.
pub const TOPIC_BYTES: u64 = 104;

/// The loss epochs of a run of the server take up to this much.
pub const EPOCHS_BYTES: u64 = 18;

/// The number of runs of the server whose loss epochs are kept. A subscription that began in an earlier one gets a gap for what was
/// removed before it began.
pub const MAX_RUNS: usize = 256;

/// What was removed from a topic. It outlives the messages of the topic.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TrimPoint {
    /// All messages below this sequence are removed.
    pub first_kept: u64,
    /// The highest sequence that retention or a purge removed; 0 for none. Expired and superseded messages do not count.
    pub lost_up_to: u64,
    /// Ids of messages up to this sequence are forgotten and can be published again; 0 for none.
    pub purged_up_to: u64,
    /// The loss epoch in which `lost_up_to` last changed.
    pub lost_at: u64,
    /// The bytes of purged messages up to this sequence have left the disk; 0 for none.
    pub erased_up_to: u64,
}

impl TrimPoint {
    /// Whether bytes of purged messages may still be on disk.
    pub fn owes_erasure(&self) -> bool {
        self.erased_up_to < self.purged_up_to
    }
}

/// The loss epochs of one run of the server, from the first to the last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EpochRange {
    pub first: u64,
    pub last: u64,
}

/// The content of the file.
#[derive(Debug, Default)]
pub struct TrimPoints {
    /// Topics that are no longer listed have lost messages up to this sequence; 0 for none.
    pub forgotten_up_to: u64,
    /// The last loss epoch of these topics.
    pub forgotten_at: u64,
    /// The loss epochs of the last runs of the server, oldest first.
    pub epochs: Vec<EpochRange>,
    /// The topics and their trim points.
    pub topics: Vec<(Arc<str>, TrimPoint)>,
}

impl TrimPoints {
    /// The content of the file.
    pub fn to_bytes(&self, log: Identity) -> Vec<u8> {
        let mut out = log.id.to_vec();
        out.put_u32_le(log.salt);
        put_varint(&mut out, self.forgotten_up_to);
        out.put_u64_le(self.forgotten_at);
        put_varint(&mut out, self.epochs.len() as u64);
        for EpochRange { first, last } in &self.epochs {
            out.put_u64_le(*first);
            put_varint(&mut out, last - first);
        }
        for (name, TrimPoint { first_kept, lost_up_to, purged_up_to, erased_up_to, lost_at }) in &self.topics
        {
            put_text(&mut out, name);
            for number in [first_kept, lost_up_to, purged_up_to, erased_up_to] {
                put_varint(&mut out, *number);
            }
            out.put_u64_le(*lost_at);
        }
        out
    }
}

/// The file on disk.
#[derive(Debug)]
pub struct TrimPointFile {
    twin: Twin,
    /// There may be a file of version 1.
    has_older: bool,
}

impl TrimPointFile {
    /// Opens the file to replace it. No copy needs to exist.
    pub fn open(disk: &Disk, directory: &Path) -> io::Result<Self> {
        let (twin, _) = Twin::open(disk, directory, KIND)?;
        Ok(Self { twin, has_older: disk.open(&directory.join(NAME), false).is_ok() })
    }

    /// Replaces the content. It is on disk when this returns.
    pub fn write(&mut self, content: &[u8]) -> io::Result<()> {
        self.twin.write(content)?;
        if self.has_older {
            self.twin.remove(NAME)?;
            self.has_older = false;
        }
        Ok(())
    }

    /// Reserves room for a content of this size, so that it can be replaced on a full disk.
    pub fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        self.twin.reserve(bytes)
    }
}

/// Whether both copies have the content in the newest version, so that it is on disk for certain.
pub fn is_settled(disk: &Disk, directory: &Path) -> bool {
    let is_newest =
        |read: &twin::Read| read.content.as_ref().is_some_and(|(version, _)| version == KIND.versions.end());
    Twin::open(disk, directory, KIND).is_ok_and(|(_, read)| read.is_settled && is_newest(&read))
}

/// A copy in a version that this server does not know, and that version.
pub fn newer(disk: &Disk, directory: &Path) -> io::Result<Option<(PathBuf, u32)>> {
    Ok(Twin::open(disk, directory, KIND)?.1.newer)
}

/// The copies that are not whole while the other one is, and why they are not.
pub fn faults(disk: &Disk, directory: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let (_, read) = Twin::open(disk, directory, KIND)?;
    Ok(if read.content.is_some() { read.faults } else { Vec::new() })
}

/// The log that the file belongs to, for a directory in which no segment says it.
pub fn identity(disk: &Disk, directory: &Path) -> Option<Identity> {
    let (_, content) = content(disk, directory).ok()?.ok()??;
    take_identity(&mut content.as_slice())
}

/// Reads the file. Without one, nothing was removed. An outer error is I/O; an inner one says why the file is not valid.
pub fn read(disk: &Disk, directory: &Path, log: LogId) -> io::Result<Result<TrimPoints, String>> {
    let (version, content) = match content(disk, directory)? {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(Ok(TrimPoints::default())),
        Err(fault) => return Ok(Err(fault)),
    };
    let fault = |text: &str| Ok(Err(format!("{}: {text}", directory.join(NAME).display())));
    let mut rest = content.as_slice();
    let Some(of) = take_identity(&mut rest) else { return fault("is not a file of trim points") };
    if of.id != log {
        return fault("belongs to another log");
    }
    match take_topics(&mut rest, version) {
        Some(points) => Ok(Ok(points)),
        None => fault("is not complete"),
    }
}

/// What a file holds, or why it is not valid.
type Content<T> = Result<Option<T>, String>;

/// The version and the content of the newest file; `None` if there is none.
fn content(disk: &Disk, directory: &Path) -> io::Result<Content<(u32, Vec<u8>)>> {
    let (_, read) = Twin::open(disk, directory, KIND)?;
    if let Some(content) = read.content {
        return Ok(Ok(Some(content)));
    }
    match content_of_version_1(disk, directory)? {
        // A copy that is not whole was never complete if there is one of version 1.
        Ok(None) if read.copies == 2 && read.faults.len() == 2 => {
            let faults = read.faults.iter().map(|(path, fault)| format!("{}: {fault}", path.display()));
            Ok(Err(faults.collect::<Vec<_>>().join("; ")))
        }
        result => Ok(result.map(|content| content.map(|content| (1, content)))),
    }
}

fn content_of_version_1(disk: &Disk, directory: &Path) -> io::Result<Content<Vec<u8>>> {
    let path = directory.join(NAME);
    let file = match disk.open(&path, false) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(None)),
        Err(error) => return Err(error),
    };
    let bytes = file.read(0, usize::try_from(file.len()?).map_err(io::Error::other)?)?;
    let fault = |text: &str| Ok(Err(format!("{}: {text}", path.display())));
    let Some((body, mut checksum)) = bytes.len().checked_sub(4).and_then(|at| bytes.split_at_checked(at))
    else {
        return fault("is too short");
    };
    if crc32c::crc32c(body) != checksum.get_u32_le() {
        return fault("its checksum is wrong");
    }
    let Some(mut rest) = body.strip_prefix(&MAGIC).filter(|rest| rest.len() >= 4) else {
        return fault("is not a file of trim points");
    };
    match rest.get_u32_le() {
        1 => Ok(Ok(Some(rest.to_vec()))),
        version => fault(&format!("is in version {version} of its format")),
    }
}

fn take_identity(rest: &mut &[u8]) -> Option<Identity> {
    let id = rest.first_chunk::<{ size_of::<LogId>() }>().copied()?;
    rest.advance(id.len());
    Some(Identity { id, salt: rest.try_get_u32_le().ok()? })
}

fn take_topics(rest: &mut &[u8], version: u32) -> Option<TrimPoints> {
    let forgotten_up_to = take_varint(rest)?;
    let take_epoch = |rest: &mut &[u8]| match version {
        ..3 => Some(0),
        3 => take_varint(rest),
        _ => rest.try_get_u64_le().ok(),
    };
    let forgotten_at = take_epoch(rest)?;
    let epochs = if version < 4 { Vec::new() } else { take_epochs(rest)? };
    let mut topics = Vec::new();
    while !rest.is_empty() {
        let name = take_text(rest)?.into();
        let first_kept = take_varint(rest)?;
        let (lost_up_to, purged_up_to) = (take_varint(rest)?, take_varint(rest)?);
        // Before, nothing was erased.
        let erased_up_to = if version == 1 { 0 } else { take_varint(rest)? };
        let lost_at = take_epoch(rest)?;
        topics.push((name, TrimPoint { first_kept, lost_up_to, purged_up_to, lost_at, erased_up_to }));
    }
    Some(TrimPoints { forgotten_up_to, forgotten_at, epochs, topics })
}

fn take_epochs(rest: &mut &[u8]) -> Option<Vec<EpochRange>> {
    let count = usize::try_from(take_varint(rest)?).ok().filter(|count| *count <= MAX_RUNS)?;
    let mut epochs = Vec::with_capacity(count);
    for _ in 0..count {
        let first = rest.try_get_u64_le().ok()?;
        epochs.push(EpochRange { first, last: first.checked_add(take_varint(rest)?)? });
    }
    Some(epochs)
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "a test")]
mod tests {
    use super::*;
    use crate::messages::embedded::simulated::Simulation;

    fn disk_with(bytes: &[u8]) -> Disk {
        let disk = Simulation::new();
        disk.write_file(Path::new("/log/removed.0"), bytes);
        Disk::Simulated(disk)
    }

    fn read_from(disk: &Disk) -> TrimPoints {
        read(disk, Path::new("/log"), [7; 16]).expect("read").expect("valid")
    }

    fn point(lost_at: u64) -> TrimPoint {
        TrimPoint { first_kept: 300, lost_up_to: 299, purged_up_to: 200, lost_at, erased_up_to: 100 }
    }

    #[test]
    fn the_content_is_read_as_it_was_written() {
        let disk = Disk::Simulated(Simulation::new());
        disk.create_directory(Path::new("/log")).expect("created");
        let points = TrimPoints {
            forgotten_up_to: 5,
            forgotten_at: u64::MAX,
            epochs: vec![EpochRange { first: 1, last: 1 }, EpochRange { first: 1 << 40, last: u64::MAX }],
            topics: vec![("a".into(), point(1)), ("b".into(), point(u64::MAX))],
        };
        let identity = Identity { id: [7; 16], salt: 9 };
        let mut file = TrimPointFile::open(&disk, Path::new("/log")).expect("open");
        file.write(&points.to_bytes(identity)).expect("written");
        let seen = read_from(&disk);
        assert_eq!((seen.forgotten_up_to, seen.forgotten_at), (5, u64::MAX));
        assert_eq!((&seen.epochs, &seen.topics), (&points.epochs, &points.topics));
        assert!(is_settled(&disk, Path::new("/log")));
    }

    #[test]
    fn a_file_of_version_3_has_epochs_of_no_known_run() {
        let mut content = vec![7; 16];
        content.put_u32_le(9);
        put_varint(&mut content, 5);
        put_varint(&mut content, 1 << 60);
        put_text(&mut content, "a");
        for number in [300, 299, 200, 100, 1 << 61] {
            put_varint(&mut content, number);
        }
        let mut bytes = MAGIC.to_vec();
        bytes.put_u32_le(3);
        bytes.put_u64_le(1);
        bytes.put_u64_le(content.len() as u64);
        bytes.extend(content);
        bytes.put_u32_le(crc32c::crc32c(&bytes));
        let disk = disk_with(&bytes);
        let seen = read_from(&disk);
        assert_eq!((seen.forgotten_up_to, seen.forgotten_at, seen.epochs), (5, 1 << 60, vec![]));
        assert_eq!(seen.topics, [("a".into(), point(1 << 61))]);
        assert!(!is_settled(&disk, Path::new("/log")), "it is written again");
    }
}

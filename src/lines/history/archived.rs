//! Finds the compressed generation that a position is in, for a reader of the whole history: the file was compressed after it
//! was read, or was compressed when it was read. Everything here blocks.
//!
//! Its content proves it, if enough was read. Otherwise the time of the last write has to be the same as well, which tools
//! that compress a file keep: generations of a log often begin alike.

use std::{fs::File, io, sync::Arc};

use super::{
    archive::Archive,
    generation::Generation,
    listed,
    rotation::{Openers, Rotation},
    siblings::{Next, written},
};
use crate::lines::{
    Position,
    content::pread::Content,
    identity::Identity,
    root::places::{Place, Sibling},
};

/// The generation that a position in a compressed file is in; true if it is the same file. `joined` was the last one when the
/// reader came.
pub fn of_archive(
    places: &[Arc<Place>],
    position: &Position,
    joined: Option<&Arc<Generation>>,
    openers: &Openers,
) -> io::Result<Option<(bool, Rotation)>> {
    for place in places {
        for name in place.names_of(position.identity.inode())? {
            let Some(sibling) = place.sibling(&name).filter(|it| it.identity.is_same(&position.identity))
            else {
                continue;
            };
            if let Some(Candidate { rotation, .. }) = candidate(&sibling, position, joined, openers)? {
                return Ok(Some((true, rotation)));
            }
        }
    }
    Ok(of_file(places, position, joined, openers)?.map(|rotation| (false, rotation)))
}

/// The generation that holds what was read of another file, which is gone.
pub fn of_file(
    places: &[Arc<Place>],
    position: &Position,
    joined: Option<&Arc<Generation>>,
    openers: &Openers,
) -> io::Result<Option<Rotation>> {
    if position.checkpoint.line.offset == 0 {
        return of_unread_file(places, position, joined, openers);
    }
    // The last write that the reader saw was that of the whole file, unless it was still written to.
    let is_written = |written: u64| {
        let seconds = |nanos: u64| nanos / 1_000_000_000;
        position.written.is_some_and(|at| [at, seconds(at) * 1_000_000_000].contains(&written))
    };
    let is_proof = position.checkpoint.is_proof();
    let mut found = Vec::new();
    for next in listed::generations(places)?.files {
        if is_proof || is_written(written(&next.file)) {
            found.extend(candidate(&next.file, position, joined, openers)?);
        }
    }
    let count = found.iter().filter(|it| is_written(it.written)).count();
    if count == 1 {
        return Ok(found.into_iter().find(|it| is_written(it.written)).map(|it| it.rotation));
    }
    Ok(found.pop().filter(|_| found.is_empty()).map(|it| it.rotation))
}

/// The same for a position at the start of a file, whose content proves nothing: the one after the file that was read before,
/// or the first that was written later than the position saw it.
fn of_unread_file(
    places: &[Arc<Place>],
    position: &Position,
    joined: Option<&Arc<Generation>>,
    openers: &Openers,
) -> io::Result<Option<Rotation>> {
    let files = listed::generations(places)?.files;
    let before = match position.late {
        Some((identity, checkpoint)) if checkpoint.line.offset > 0 => {
            let (written, size) = (None, checkpoint.line.offset);
            let before = Position { identity, checkpoint, size, written, ..position.clone() };
            let mut found = Vec::new();
            for (at, next) in files.iter().enumerate() {
                let is_same = next.file.identity == identity;
                if is_same
                    || checkpoint.is_proof() && candidate(&next.file, &before, None, openers)?.is_some()
                {
                    found.push(at);
                }
            }
            if let [at] = found[..] { Some(at + 1) } else { None }
        }
        _ => None,
    };
    let is_proven = position.late.is_some_and(|(_, before)| before.is_proof());
    let by_time = || position.written.filter(|_| !is_proven).and_then(|seen| first_since(&files, seen));
    let at = before.or_else(by_time);
    let Some(next) = at.and_then(|at| files.get(at)).filter(|next| !next.misses_some) else {
        return Ok(None);
    };
    let found = candidate(&next.file, position, joined, openers)?.map(|it| it.rotation);
    Ok(found.filter(|rotation| rotation.archive().is_some()))
}

/// The first file that was written last at this time or later. Rotations delete the oldest file first: only if a file
/// is there that was written before this time, all files after it are there.
fn first_since(files: &[Next], seen: u64) -> Option<usize> {
    let times = files.iter().map(|next| written(&next.file)).collect::<Vec<_>>();
    // Some tools keep only the seconds.
    let is_unsure = |at: &u64| at.is_multiple_of(1_000_000_000) && at / 1_000_000_000 == seen / 1_000_000_000;
    let first = times.iter().position(|at| *at >= seen).filter(|first| *first > 0);
    first.filter(|_| !times.iter().any(is_unsure))
}

/// A generation that begins with what was read.
struct Candidate {
    rotation: Rotation,
    /// When it was written last.
    written: u64,
}

fn candidate(
    sibling: &Sibling,
    position: &Position,
    joined: Option<&Arc<Generation>>,
    openers: &Openers,
) -> io::Result<Option<Candidate>> {
    let written = written(sibling);
    // A compressed file is no longer written to, and is no older than the position saw it.
    let seconds = |nanos: u64| nanos / 1_000_000_000;
    if position.written.is_some_and(|seen| seconds(written) < seconds(seen)) {
        return Ok(None);
    }
    let Ok(file) = sibling.place.open(&sibling.name).map(Arc::new) else { return Ok(None) };
    if Identity::of(&file.metadata()?) != sibling.identity {
        return Ok(None);
    }
    let checkpoint = &position.checkpoint;
    let is_short = |file: &File| file.metadata().is_ok_and(|metadata| metadata.len() < position.size);
    let rotation = match openers.archive(&file, &sibling.name)? {
        Err(_) => return Ok(None),
        Ok(None) if is_short(&file) || !checkpoint.is_prefix_of(&*file)? => return Ok(None),
        Ok(None) => Rotation::old(file.try_clone()?, joined.cloned())?,
        Ok(Some(archive)) if !holds(&archive, position)? => return Ok(None),
        Ok(Some(archive)) => {
            archive.rest();
            Rotation::compressed(archive, file, joined.cloned())?
        }
    };
    Ok(Some(Candidate { rotation, written }))
}

/// Whether the content of an archive begins with what was read, and is not known to end before what was seen. Its start is
/// compared first: to reach the position, all before it is decompressed.
fn holds(archive: &Archive, position: &Position) -> io::Result<bool> {
    let checkpoint = &position.checkpoint;
    // The start is kept from the first read on.
    if archive.read_some(&mut [0], 0)? == 0 {
        return Ok(checkpoint.line.offset == 0);
    }
    // A forged position may have no head, which any archive begins with.
    let is_prefix = checkpoint.has_whole_head(archive)? && checkpoint.is_prefix_of(archive)?;
    let is_short = archive.is_ended() && archive.fault().is_none() && archive.bytes() < position.size;
    Ok(is_prefix && !is_short)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;
    use crate::lines::{
        content::{
            checkpoint::{Checkpoint, Fingerprint},
            position::{HEAD, LinePosition},
        },
        history::archive::{Archives, Format},
    };

    fn position(checkpoint: Checkpoint, size: u64) -> Position {
        Position {
            path: 0,
            directory: None,
            identity: Identity::default(),
            checkpoint,
            size,
            compressed: None,
            skip_to: None,
            deleted: false,
            resume_at: None,
            late: None,
            filter: None,
            record: None,
            written: None,
            is_copy: false,
        }
    }

    #[test]
    fn a_position_without_a_head_is_refused_before_an_archive_is_decompressed_to_its_end() {
        let content = (0..200_000_u32).map(|n| format!("line {n:05}\n")).collect::<String>();
        let (mut plain, bytes) = (tempfile::tempfile().unwrap(), content.len() as u64);
        plain.write_all(content.as_bytes()).unwrap();
        let mut encoder = GzEncoder::new(tempfile::tempfile().unwrap(), Compression::fast());
        encoder.write_all(content.as_bytes()).unwrap();
        let file = Arc::new(encoder.finish().unwrap());
        let archives = Arc::<Archives>::default();
        let archive = || archives.archive(file.clone(), "app.log.1.gz", Format::Gzip, &Arc::default());

        let made = Checkpoint::at(&plain, LinePosition { offset: bytes, ..HEAD }).unwrap();
        assert!(holds(&archive(), &position(made, bytes)).unwrap());
        let nothing = Fingerprint::of(&[]);
        let forged = Checkpoint { before: nothing, head: nothing, ..made };
        let archive = archive();
        assert!(!holds(&archive, &position(forged, bytes)).unwrap());
        assert!(archive.bytes() < bytes / 2, "{}", archive.bytes());
    }
}

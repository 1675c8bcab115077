//! Finds the compressed generation that a position is in, for a reader of the whole history: the file was compressed after it
//! was read, or was compressed when it was read. Everything here blocks.
//!
//! Its content proves it. Where that does not, because too little was read, the time of the last write does, which tools
//! that compress a file keep.

use std::{io, sync::Arc};

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
    let mut found = Vec::new();
    for next in listed::generations(places)?.files {
        found.extend(candidate(&next.file, position, joined, openers)?);
    }
    // The last write that the reader saw was that of the whole file, unless it was still written to.
    let is_written = |candidate: &Candidate| {
        let seconds = |nanos: u64| nanos / 1_000_000_000;
        position.written.is_some_and(|at| [at, seconds(at) * 1_000_000_000].contains(&candidate.written))
    };
    let count = found.iter().filter(|it| is_written(it)).count();
    if count == 1 {
        return Ok(found.into_iter().find(is_written).map(|it| it.rotation));
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
    let at = match position.late {
        Some((identity, checkpoint)) if checkpoint.line.offset > 0 => {
            let before = Position { identity, checkpoint, written: None, ..position.clone() };
            let mut found = Vec::new();
            for (at, next) in files.iter().enumerate() {
                if next.file.identity == identity || candidate(&next.file, &before, None, openers)?.is_some()
                {
                    found.push(at);
                }
            }
            if let [at] = found[..] { Some(at + 1) } else { None }
        }
        _ => position.written.and_then(|seen| first_since(&files, seen)),
    };
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
    let rotation = match openers.archive(&file, &sibling.name)? {
        Err(_) => return Ok(None),
        Ok(None) if !checkpoint.is_prefix_of(&*file)? => return Ok(None),
        Ok(None) => Rotation::old(file.try_clone()?, joined.cloned())?,
        Ok(Some(archive)) if !holds(&archive, position)? => return Ok(None),
        Ok(Some(archive)) => {
            archive.rest();
            Rotation::compressed(archive, file, joined.cloned())?
        }
    };
    Ok(Some(Candidate { rotation, written }))
}

/// Whether the content of an archive begins with what was read. Its start is compared first: to reach the position, all
/// before it is decompressed.
fn holds(archive: &Archive, position: &Position) -> io::Result<bool> {
    // The start is kept from the first read on.
    let is_empty = archive.read_some(&mut [0], 0)? == 0;
    Ok(!is_empty && position.checkpoint.is_prefix_of(archive)?
        || is_empty && position.checkpoint.line.offset == 0)
}

//! Finds the file that a position is in, for a reader that was away: under any name, in any place where the history of its
//! log may be. Everything here blocks.
//!
//! A name only proposes. A file is proven by its inode, its birth and its content; by its content alone only if no file has
//! the inode and the birth, exactly one has the content, and the position covers enough of it.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{File, Metadata},
    io,
    os::unix::fs::MetadataExt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::siblings::written;
use crate::lines::{
    Position,
    content::checkpoint::{Checkpoint, Fingerprint},
    identity::Identity,
    root::{
        places::{Place, Sibling},
        rotated_name::{is_rotation, without_compression},
        rotation_scheme::{Kind, Mark, Scheme},
    },
};

/// How long the heads of the files of a directory are remembered, for readers that come together.
const HEADS_AGE: Duration = Duration::from_secs(5);

/// How many directories have their heads remembered.
const MAX_DIRECTORIES: usize = 64;

/// How much of a log must have been read for its copy to be proven by content: two processes that print the same when they
/// start differ by then.
const MIN_COPIED_BYTES: u64 = 4 * 1024;

/// The most rotated files of a log in one directory among which its copy is looked for.
const MAX_ROTATIONS: usize = 2000;

/// What was found where a position points.
#[derive(Debug)]
pub enum Found {
    /// A file that begins with everything that was read.
    Proven(File),
    /// The file itself, but it was truncated or rewritten.
    Rewritten(File),
}

/// Looks for the file with this inode and birth, which was read up to the checkpoint.
pub fn by_identity(
    places: &[Arc<Place>],
    wanted: &Identity,
    checkpoint: &Checkpoint,
) -> io::Result<Option<Found>> {
    let (mut proven, mut rewritten) = (Vec::new(), None);
    for place in places {
        for name in place.names_of(wanted.inode())? {
            let Ok(file) = place.open(&name) else { continue };
            let identity = Identity::of(&file.metadata()?);
            if !identity.is_same(wanted) {
                continue;
            }
            if checkpoint.is_prefix_of(&file)? {
                proven.push((identity, file));
            } else if wanted.birth() != 0 {
                // Only its birth proves that it is the same file.
                rewritten = Some(file);
            }
        }
    }
    Ok(only(proven).map(Found::Proven).or(rewritten.map(Found::Rewritten)))
}

/// Looks for the only file that begins with everything that was read.
pub fn by_content(heads: &Heads, places: &[Arc<Place>], checkpoint: &Checkpoint) -> io::Result<Option<File>> {
    if !checkpoint.is_proof() {
        return Ok(None);
    }
    let mut proven = Vec::new();
    for place in places {
        for name in heads.names(place, checkpoint.head)? {
            let Ok(file) = place.open(&name) else { continue };
            if checkpoint.is_prefix_of(&file)? {
                proven.push((Identity::of(&file.metadata()?), file));
            }
        }
    }
    Ok(only(proven))
}

/// Looks for the copy of a log that was made before the log was truncated: the only file with the name of a rotation that
/// begins with everything that was read, has as much as was seen, and was created after that was written. `log` is the file
/// that was truncated.
pub fn copy_of(places: &[Arc<Place>], position: &Position, log: &Metadata) -> io::Result<Option<File>> {
    let Position { identity, checkpoint, size, written, .. } = position;
    let is_enough = checkpoint.is_proof() && checkpoint.line.offset >= MIN_COPIED_BYTES;
    let Some(written) = written.filter(|_| is_enough && identity.birth() != 0) else { return Ok(None) };
    let born = written.max(identity.birth());
    // A log is truncated after it was copied.
    let truncated = (log.ctime(), log.ctime_nsec());
    let mut proven = Vec::new();
    for place in places {
        let mut names = place.names()?;
        names.retain(|name| is_rotation(&place.name, name));
        if names.len() > MAX_ROTATIONS {
            return Ok(None);
        }
        let last = last_number(&place.name, names.iter().map(String::as_str));
        for name in names.iter().filter(|name| number(&place.name, name).is_none_or(|it| it <= last)) {
            let Ok(file) = place.open(name) else { continue };
            let metadata = file.metadata()?;
            let copy = Identity::of(&metadata);
            let is_young = copy.birth() >= born && (metadata.mtime(), metadata.mtime_nsec()) <= truncated;
            if is_young && copy != *identity && metadata.len() >= *size && checkpoint.is_prefix_of(&file)? {
                proven.push((copy, file));
            }
        }
    }
    Ok(only(proven))
}

/// The last number that surely a rotation of a log gave to one of these files: none is missing below it. One with a higher
/// number may be another log.
pub fn last_number<'a>(log: &str, names: impl Iterator<Item = &'a str>) -> u64 {
    let numbers = names.filter_map(|name| number(log, name)).filter(|number| *number > 0);
    let numbers = numbers.collect::<BTreeSet<_>>().into_iter().zip(1..);
    numbers.take_while(|(number, nth)| number == nth).last().map_or(0, |(number, _)| number)
}

/// The number that a rotation of a log gave to a file.
pub fn number(log: &str, name: &str) -> Option<u64> {
    match Scheme::of_rotation(log, name)?.1 {
        Mark::Number(number) => Some(number),
        Mark::Date(..) => None,
    }
}

/// The file, if all are the same one.
fn only(mut files: Vec<(Identity, File)>) -> Option<File> {
    let (identity, file) = files.pop()?;
    files.iter().all(|(other, _)| *other == identity).then_some(file)
}

/// The device and the inode of a directory, and the name of the log in it.
type PlaceKey = ((u64, u64), String);

/// The files of a directory by the fingerprints of their heads.
type Names = Arc<HashMap<Fingerprint, Vec<String>>>;

/// Which files begin alike, by directory: read once for readers that come together, as after a tree was copied.
#[derive(Debug, Default)]
pub struct Heads {
    known: Mutex<HashMap<PlaceKey, (Instant, Names)>>,
}

impl Heads {
    /// The names of a place whose files began with these bytes a moment ago.
    fn names(&self, place: &Place, head: Fingerprint) -> io::Result<Vec<String>> {
        // Held while they are read, so that readers that come together read them once.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (read, _)| read.elapsed() < HEADS_AGE);
        let key = (place.directory()?, place.name.clone());
        let names = if let Some((_, names)) = known.get(&key) {
            names.clone()
        } else {
            let names = Arc::new(read_heads(place)?);
            if known.len() < MAX_DIRECTORIES {
                known.insert(key, (Instant::now(), names.clone()));
            }
            names
        };
        Ok(names.get(&head).cloned().unwrap_or_default())
    }
}

fn read_heads(place: &Place) -> io::Result<HashMap<Fingerprint, Vec<String>>> {
    let mut heads = HashMap::<_, Vec<_>>::new();
    for name in place.names()? {
        let Ok(file) = place.open(&name) else { continue };
        if let Ok(head) = Fingerprint::whole_head(&file) {
            heads.entry(head).or_default().push(name);
        }
    }
    Ok(heads)
}

/// The names that a file has now, in all places.
pub fn names_of(places: &[Arc<Place>], wanted: Identity) -> io::Result<Vec<Sibling>> {
    let mut found = Vec::new();
    for place in places {
        let siblings = place.names_of(wanted.inode())?.into_iter().filter_map(|name| place.sibling(&name));
        found.extend(siblings.filter(|sibling| sibling.identity == wanted));
    }
    Ok(found)
}

/// Whether rotated files of a path were created after one that is gone, and are not at the path now. The last write to that
/// one was at `gone_written`, in nanoseconds since 1970.
pub fn are_left(path: &Arc<Place>, gone: Identity, gone_written: Option<u64>) -> io::Result<bool> {
    let current = path.sibling(&path.name).map(|current| current.identity);
    let is_dated =
        |name: &str| Scheme::of_likely_rotation(&path.name, name).is_some_and(|it| it.kind() == Kind::Date);
    let is_rotated = |name: &str| is_rotation(&path.name, name) || is_dated(name);
    let names = path.names()?.into_iter();
    let names = names.filter(|name| is_rotated(without_compression(name).unwrap_or(name)));
    // Compressing gives a file another birth, and keeps the time of its last write: so the one that is gone, and those before
    // it, are known.
    let may_be_later = |other: &Sibling| {
        let is_compressed = without_compression(&other.name).is_some();
        let seconds = |nanos: u64| nanos / 1_000_000_000;
        let is_known = |at: u64| written(other) == at || seconds(written(other)) < seconds(at);
        !(is_compressed && gone_written.is_some_and(is_known))
    };
    let others = names.filter_map(|name| path.sibling(&name)).filter(may_be_later);
    let mut others = others.map(|other| other.identity);
    Ok(others.any(|other| other.birth() > gone.birth() && Some(other) != current))
}

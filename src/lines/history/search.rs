//! Finds the file that a position is in, for a reader that was away: under any name, in any place where the history of its
//! log may be. Everything here blocks.
//!
//! A name only proposes. A file is proven by its inode, its birth and its content; by its content alone only if no file has
//! the inode and the birth, exactly one has the content, and the position covers enough of it.

use std::{
    collections::HashMap,
    fs::File,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::lines::{
    content::checkpoint::{Checkpoint, Fingerprint},
    identity::Identity,
    root::places::{Place, Sibling},
};

/// How long the heads of the files of a directory are remembered, for readers that come together.
const HEADS_AGE: Duration = Duration::from_secs(5);

/// How many directories have their heads remembered.
const MAX_DIRECTORIES: usize = 64;

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

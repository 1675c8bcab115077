//! A file and those it was rotated from or to, as their names and ages tell: for a reader that was away, and for events
//! that were lost. Everything here blocks.
//!
//! A log is rotated by renaming it (`app.log` → `app.log.1`) and making a new one at its path. Which files belong to it
//! is told by their names, and in which order by when they were made.

use std::{
    cmp::Reverse,
    fs::{File, Metadata},
    io,
    os::unix::fs::MetadataExt,
    time::{Duration, SystemTime},
};

use crate::lines::{
    content::{checkpoint::Checkpoint, pread::read_at},
    identity::Identity,
    root::{Parent, Sibling, rotated_name::is_rotation},
};

/// How many siblings are looked at: far more than a rotation keeps, few enough to look at all.
const MAX_SIBLINGS: usize = 1000;

/// How often a file that was there a moment ago is looked for.
const ATTEMPTS: usize = 5;

/// How long to wait in between: a rotation of a few files takes less.
const PAUSE: Duration = Duration::from_millis(10);

/// How much of two files is compared at once.
const STEP_BYTES: usize = 64 * 1024;

/// How much of two long files is compared at their start, and at their end.
const COMPARED_BYTES: u64 = 32 * 1024 * 1024;

/// How often a directory is listed until a listing is like the one before.
const LISTINGS: usize = 20;

/// The siblings that are younger than a file, the oldest first; the one at the path comes last.
pub fn younger(parent: &Parent, name: &str, than: &Metadata) -> io::Result<Vec<Sibling>> {
    let identity = Identity::of(than);
    let mut younger = listed(parent, |found| is_generation(name, found).then_some(()))?;
    // What was rotated out of sight was the oldest.
    let own = younger.iter().find(|sibling| sibling.identity == identity);
    let own = own.map_or((identity.birth(), Reverse(Some(u64::MAX)), than.modified()?), age);
    // A file that was put at the path though it is older is what its reader wants, too.
    younger.retain(|sibling| sibling.identity != identity && (sibling.name == name || age(sibling) > own));
    younger.sort_by_cached_key(|sibling| (sibling.name == name, age(sibling), sibling.name.clone()));
    Ok(younger)
}

/// When a file was made, as far as is known: several may be made within one tick of the file system's clock, or it does
/// not tell, and then the numbers that rotation gives tell; where there are none, the last change.
fn age(sibling: &Sibling) -> (u64, Reverse<Option<u64>>, SystemTime) {
    let number = sibling.name.rsplit('.').next().and_then(|suffix| suffix.parse::<u64>().ok());
    (sibling.identity.birth(), Reverse(number), sibling.modified)
}

/// The siblings that are wanted, those that rank first. A listing misses a file that is renamed meanwhile, so that one is
/// taken that holds still.
fn listed<R: Ord>(parent: &Parent, rank: impl Fn(&str) -> Option<R>) -> io::Result<Vec<Sibling>> {
    let list = || -> io::Result<Vec<Sibling>> {
        let mut siblings = parent.siblings(MAX_SIBLINGS, &rank)?;
        siblings.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(siblings)
    };
    let mut last = list()?;
    for _ in 1..LISTINGS {
        let next = list()?;
        let is_same =
            |(one, other): (&Sibling, &Sibling)| one.name == other.name && one.identity == other.identity;
        let holds_still = next.len() == last.len() && next.iter().zip(&last).all(is_same);
        last = next;
        if holds_still {
            break;
        }
    }
    Ok(last)
}

/// The sibling that a reader stood in, wherever it was renamed to.
pub fn find(
    parent: &Parent,
    name: &str,
    is_it: impl Fn(&Sibling, &File) -> io::Result<bool>,
) -> io::Result<Option<File>> {
    // The names that rotation gives come first; others are many where `name` is short.
    let rank = |found: &str| found.starts_with(name).then(|| !is_generation(name, found));
    for _ in 0..LISTINGS {
        let mut holds_still = true;
        for sibling in listed(parent, rank)? {
            let Ok(file) = parent.open(&sibling.name) else { continue };
            if Identity::of(&file.metadata()?) != sibling.identity {
                holds_still = false;
            } else if is_it(&sibling, &file)? {
                return Ok(Some(file));
            }
        }
        if holds_still {
            break;
        }
    }
    Ok(None)
}

/// Looks again for a file that is not found: a rotation may be moving it, and all its siblings, just now.
pub fn again<T>(mut look: impl FnMut() -> io::Result<Option<T>>) -> io::Result<Option<T>> {
    for _ in 1..ATTEMPTS {
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        std::thread::sleep(PAUSE);
    }
    look()
}

/// A file was replaced by another one that begins with all that was read of it: an editor, or a tool that writes anew
/// and renames, has appended to it. Of a long file, the start and the end of what was read are compared.
pub fn is_replaced_by(old: &File, new: &File, checkpoint: &Checkpoint) -> io::Result<bool> {
    let offset = checkpoint.line.offset;
    if offset == 0 || old.metadata()?.nlink() > 0 || !checkpoint.is_prefix_of(new)? {
        return Ok(false);
    }
    if offset <= 2 * COMPARED_BYTES {
        return is_equal(old, new, 0, offset);
    }
    Ok(is_equal(old, new, 0, COMPARED_BYTES)? && is_equal(old, new, offset - COMPARED_BYTES, offset)?)
}

fn is_equal(old: &File, new: &File, from: u64, to: u64) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; STEP_BYTES], vec![0; STEP_BYTES]);
    let mut at = from;
    while at < to {
        let read = read_at(old, &mut left, at)?.min(read_at(new, &mut right, at)?);
        let read = read.min(usize::try_from(to - at).unwrap_or(read));
        if read == 0 || left.get(..read) != right.get(..read) {
            return Ok(false);
        }
        at += read as u64;
    }
    Ok(true)
}

/// The file's own name, or one that a rotation gives. Others, `app.log.bak` or `app.log.1.gz`, are copies whose lines
/// would come twice, or other logs.
pub fn is_generation(name: &str, sibling: &str) -> bool {
    name == sibling || is_rotation(name, sibling)
}

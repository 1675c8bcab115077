//! The files beside a log that may be generations of it, by their names and ages: for a reader that was away, and for
//! events that were lost. Everything here blocks.
//!
//! A log is rotated by renaming it (`app.log` to `app.log.1`) and creating a new one at its path. The names say which files
//! belong to it, and the times of their creation say in which order.

use std::{
    cmp::Reverse,
    fs::{File, Metadata},
    io,
    time::{Duration, SystemTime},
};

use crate::lines::{
    identity::Identity,
    root::{Parent, Sibling, rotated_name::is_rotation},
};

/// How often a file that was there a moment ago is searched.
const ATTEMPTS: usize = 5;

/// The time between two attempts: the rotation of a few files takes less.
const PAUSE: Duration = Duration::from_millis(10);

/// The most listings of a directory that changes while it is listed.
const LISTINGS: usize = 20;

/// The generations that are younger than a file, the oldest first; the one at the path comes last.
///
/// Where all of them are numbered, the numbers give the order, since the clock may have been set back; otherwise the times
/// of their creation do.
pub fn younger(parent: &Parent, name: &str, than: &Metadata) -> io::Result<Vec<Sibling>> {
    let identity = Identity::of(than);
    let mut younger = generations(parent, name)?;
    if !order_by_number(&mut younger, name) {
        younger.sort_by_cached_key(|sibling| (sibling.name == name, age(sibling), sibling.name.clone()));
    } else if let Some(own) =
        younger.iter().position(|sibling| sibling.identity == identity && sibling.name != name)
    {
        return Ok(younger.split_off(own + 1));
    }
    // A file that was rotated out of sight was the oldest.
    let own = younger.iter().find(|sibling| sibling.identity == identity);
    let own = own.map_or((identity.birth(), Reverse(Some(u64::MAX)), than.modified()?), age);
    // A reader continues in the file at the path also if that one is older.
    younger.retain(|sibling| sibling.identity != identity && (sibling.name == name || age(sibling) > own));
    Ok(younger)
}

/// Sorts generations by their numbers, the one at the path last. False, and nothing is done, if one has no number.
///
/// Most rotations give the oldest the highest number, but some count up. The times of creation of most neighbours show which
/// it is; a clock that was set back misleads only for one pair.
fn order_by_number(generations: &mut [Sibling], name: &str) -> bool {
    let number = |sibling: &Sibling| number(name, &sibling.name);
    if generations.iter().any(|sibling| sibling.name != name && number(sibling).is_none()) {
        return false;
    }
    // The one at the path has no number, and comes first.
    generations.sort_by_key(number);
    let births =
        generations.iter().filter(|sibling| sibling.name != name).map(|sibling| sibling.identity.birth());
    let births = births.collect::<Vec<_>>();
    let (mut ascending, mut descending) = (0, 0);
    for pair in births.windows(2) {
        if let [lower, higher] = pair {
            ascending += usize::from(lower < higher);
            descending += usize::from(lower > higher);
        }
    }
    if ascending > descending {
        generations.sort_by_key(|sibling| (sibling.name == name, number(sibling)));
    } else {
        generations.sort_by_key(|sibling| (sibling.name == name, Reverse(number(sibling))));
    }
    true
}

/// The number of a rotation. Dates and Unix times have more digits.
fn number(name: &str, sibling: &str) -> Option<u64> {
    sibling.strip_prefix(name)?.strip_prefix('.')?.parse().ok().filter(|number| *number < 1_000_000)
}

/// When a file was created. Files that were created within one tick of the file system's clock, or whose file system does
/// not record it, are ordered by the numbers that rotation gives them, and without numbers by their last change.
fn age(sibling: &Sibling) -> (u64, Reverse<Option<u64>>, SystemTime) {
    let number = sibling.name.rsplit('.').next().and_then(|suffix| suffix.parse::<u64>().ok());
    (sibling.identity.birth(), Reverse(number), sibling.modified)
}

/// All generations in a directory, sorted by name. A listing misses a file that is renamed meanwhile, so the directory is
/// listed until two listings agree.
fn generations(parent: &Parent, name: &str) -> io::Result<Vec<Sibling>> {
    let list = || parent.siblings(|found| is_generation(name, found));
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

/// The file with this inode among those whose names begin with `name`. `is_it` proves that it is the one.
pub fn find(
    parent: &Parent,
    name: &str,
    inode: u64,
    is_it: impl Fn(&Identity, &File) -> io::Result<bool>,
) -> io::Result<Option<File>> {
    // A listing misses a file that is renamed meanwhile.
    for _ in 0..2 {
        for found in parent.names_of(inode)?.iter().filter(|found| found.starts_with(name)) {
            let Ok(file) = parent.open(found) else { continue };
            if is_it(&Identity::of(&file.metadata()?), &file)? {
                return Ok(Some(file));
            }
        }
    }
    Ok(None)
}

/// Repeats a search for a file that is not found: a rotation may be renaming it, and all its siblings, just now.
pub fn again<T>(mut search: impl FnMut() -> io::Result<Option<T>>) -> io::Result<Option<T>> {
    for _ in 1..ATTEMPTS {
        if let Some(found) = search()? {
            return Ok(Some(found));
        }
        std::thread::sleep(PAUSE);
    }
    search()
}

/// The file's own name, or one that a rotation gives. Others, `app.log.bak` or `app.log.1.gz`, are copies whose lines
/// would come twice, or other logs.
pub fn is_generation(name: &str, sibling: &str) -> bool {
    name == sibling || is_rotation(name, sibling)
}

//! Lists of files that a rotation may be renaming just now.

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::siblings::Younger;
use crate::lines::root::places::Place;

/// The most listings of a directory that changes while it is listed.
const LISTINGS: usize = 20;

/// A file that is missing for this time is gone. A rotation that renames many files has gaps between their numbers
/// meanwhile, and on a busy machine it can stand still at one of them.
const GONE: Duration = Duration::from_secs(1);

/// The time between two listings while a file is missing.
const PAUSE: Duration = Duration::from_millis(10);

/// Lists the files of some places until the list can be believed. Blocks.
///
/// A listing misses a file that is renamed meanwhile, so two listings must agree. If a file seems to be missing, it must be
/// missing in every listing until the directory has not changed for a second, or until a second is over.
pub fn stable(places: &[Arc<Place>], list: impl Fn() -> io::Result<Younger>) -> io::Result<Younger> {
    let began = Instant::now();
    let mut last = list()?;
    for listings in 1_usize.. {
        if last.misses_some() {
            if began.elapsed() >= GONE || places.iter().all(|place| place.holds_still_for(GONE)) {
                break;
            }
            thread::sleep(PAUSE);
        } else if listings >= LISTINGS || places.iter().all(|place| place.is_settled()) {
            break;
        }
        let next = list()?;
        let agree = next.names().eq(last.names()) && next.misses_some() == last.misses_some();
        last = next;
        if agree && !last.misses_some() {
            break;
        }
    }
    Ok(last)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::lines::root::{FilePath, Root, Roots};

    fn changed_just_now() -> (tempfile::TempDir, Vec<Arc<Place>>) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("app.log"), "1\n").unwrap();
        let roots = Roots::open(vec![Root::new("logs", directory.path())]).unwrap();
        let places = roots.places(&FilePath::parse("logs/app.log").unwrap());
        assert_eq!(places.len(), 1);
        (directory, places)
    }

    #[test]
    fn a_file_that_is_missing_in_some_listings_is_not_gone() {
        let (_directory, places) = changed_just_now();
        let count = Cell::new(0);
        let list = || {
            count.set(count.get() + 1);
            Ok(Younger { misses_last: count.get() <= 5, ..Younger::default() })
        };
        assert!(!stable(&places, list).unwrap().misses_some());
    }

    #[test]
    fn a_file_that_is_missing_in_all_listings_is_gone() {
        let (_directory, places) = changed_just_now();
        let list = || Ok(Younger { misses_last: true, ..Younger::default() });
        assert!(stable(&places, list).unwrap().misses_some());
    }
}

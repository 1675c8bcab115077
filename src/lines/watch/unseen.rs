//! The files that came to a path since the last one, where no event told of them.

use std::{fs::File, io};

use crate::lines::{
    history::siblings::{Next, Younger},
    identity::Identity,
    root::Parent,
};

/// How often the files are listed while a rotation goes on between the listing and the opening of the file at the path.
const ATTEMPTS: usize = 10;

/// What came to a path.
pub struct Unseen {
    /// Files that are renamed away by now, the oldest first, and whether others may be missing before each.
    pub files: Vec<(File, Identity, bool)>,
    /// The file at the path.
    pub current: io::Result<(File, Identity)>,
    /// Others may be missing before the file at the path.
    pub misses_last: bool,
}

/// Opens the files that came to a path after one of them, and then the file at the path. `list` lists them.
pub fn find(
    parent: &Parent,
    name: &str,
    after: Identity,
    list: impl Fn() -> io::Result<Younger>,
) -> io::Result<Unseen> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let Younger { files: listed, current: expected, mut misses_last, .. } = list()?;
        let mut files = Vec::new();
        for Next { file: sibling, misses_some } in listed {
            match open(parent, &sibling.name) {
                Ok((file, identity)) if identity == sibling.identity => {
                    files.push((file, identity, misses_some));
                }
                _ => misses_last = true,
            }
        }
        let current = open(parent, name);
        // If it came after the listing, so may others have, which are renamed away already.
        let is_expected = |(_, identity): &(File, Identity)| {
            *identity == after || expected.as_ref().is_some_and(|expected| expected.identity == *identity)
        };
        let is_complete = current.as_ref().map_or(true, is_expected);
        if is_complete || attempts == ATTEMPTS {
            return Ok(Unseen { files, current, misses_last: misses_last || !is_complete });
        }
    }
}

/// Opens a file, and says which one it is.
pub fn open(parent: &Parent, name: &str) -> io::Result<(File, Identity)> {
    let file = parent.open(name)?;
    let identity = Identity::of(&file.metadata()?);
    Ok((file, identity))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::{cell::Cell, fs};

    use tempfile::TempDir;

    use super::*;
    use crate::lines::{
        history::siblings,
        root::{FilePath, Root, Roots},
    };

    /// A log that was rotated once: `app.log.1` was read.
    struct Log {
        directory: TempDir,
        parent: Parent,
        rotations: Cell<usize>,
    }

    impl Log {
        fn new() -> Self {
            let directory = TempDir::new().unwrap();
            let roots = Roots::open(vec![Root::new("logs", directory.path())]).unwrap();
            let parent = roots.parent(&FilePath::parse("logs/app.log").unwrap()).unwrap();
            let log = Self { directory, parent, rotations: Cell::new(0) };
            fs::write(log.path("app.log"), "0").unwrap();
            log.rotate();
            log
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.directory.path().join(name)
        }

        fn rotate(&self) {
            let rotations = self.rotations.get() + 1;
            self.rotations.set(rotations);
            for number in (1..rotations).rev() {
                let name = |number: usize| self.path(&format!("app.log.{number}"));
                fs::rename(name(number), name(number + 1)).unwrap();
            }
            fs::rename(self.path("app.log"), self.path("app.log.1")).unwrap();
            fs::write(self.path("app.log"), rotations.to_string()).unwrap();
        }

        /// What was found after the first file, and whether some may be missing, where the log is rotated right after each
        /// of the first `count` listings.
        fn found(&self, count: usize) -> (Vec<String>, bool) {
            let own = fs::metadata(self.path(&format!("app.log.{}", self.rotations.get()))).unwrap();
            let listings = Cell::new(0);
            let list = || {
                let listed = siblings::younger(&[self.parent.place()], &own, &[], false);
                listings.set(listings.get() + 1);
                if listings.get() <= count {
                    self.rotate();
                }
                listed
            };
            let found = find(&self.parent, "app.log", Identity::of(&own), list).unwrap();
            let misses_some = found.misses_last || found.files.iter().any(|(_, _, misses_some)| *misses_some);
            let files = found.files.into_iter().map(|(file, ..)| file).chain(found.current.map(|it| it.0));
            (files.map(|file| io::read_to_string(file).unwrap()).collect(), misses_some)
        }
    }

    #[test]
    fn a_file_that_comes_and_is_renamed_away_between_the_listing_and_the_opening_is_found() {
        assert_eq!(Log::new().found(0), (vec!["1".into()], false));
        assert_eq!(Log::new().found(1), (vec!["1".into(), "2".into()], false));
        assert_eq!(Log::new().found(3), (vec!["1".into(), "2".into(), "3".into(), "4".into()], false));
    }

    #[test]
    fn a_log_that_is_rotated_after_each_listing_may_miss_some() {
        assert!(Log::new().found(usize::MAX).1);
    }
}

//! The names on a simulated disk.
//!
//! A name on disk changes only by a sync of its directory. A power cut undoes any number of the latest changes in a directory
//! since its last sync: a rename is done or not done, and no change is done before an earlier one. A change in two directories
//! is one change, and waits for the earlier ones in both. A new directory is on disk when its parent was synced; ext4, XFS and
//! Btrfs also bring it to disk with its own sync, but POSIX does not promise that.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use super::loss::{Kept, Loss};

/// The names that processes see, the names on disk, and the changes between the two.
#[derive(Clone, Debug, Default)]
pub struct Names {
    seen: Tree,
    durable: Tree,
    /// The changes and their times, oldest first.
    unsynced: Vec<(u64, Change)>,
}

#[derive(Clone, Debug, Default)]
struct Tree {
    directories: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, u64>,
}

#[derive(Clone, Debug)]
enum Change {
    Directory(PathBuf),
    Create(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl Names {
    /// The file with a name.
    pub fn find(&self, path: &Path) -> io::Result<u64> {
        self.seen.files.get(path).copied().ok_or(io::ErrorKind::NotFound.into())
    }

    /// Whether a file has a name.
    pub fn sees(&self, file: u64) -> bool {
        self.seen.files.values().any(|named| *named == file)
    }

    /// Whether a file has a name now, or has one on disk.
    pub fn has(&self, file: u64) -> bool {
        self.sees(file) || self.durable.files.values().any(|named| *named == file)
    }

    /// The time of the oldest change that is not on disk.
    pub fn oldest_unsynced(&self) -> Option<u64> {
        self.unsynced.first().map(|(time, _)| *time)
    }

    /// The files and directories in a directory, in descending order.
    pub fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.seen.has_directory(path)?;
        let names = self.seen.files.keys().chain(&self.seen.directories);
        let mut names = names.filter(|name| name.parent() == Some(path)).cloned().collect::<Vec<_>>();
        names.sort();
        names.reverse();
        Ok(names)
    }

    /// Creates a directory and its parents. An existing one stays.
    pub fn create_directory(&mut self, path: &Path, time: u64) -> io::Result<()> {
        let missing = path.ancestors().take_while(|above| self.seen.has_directory(above).is_err());
        let missing = missing.map(Path::to_path_buf).collect::<Vec<_>>();
        for path in missing.into_iter().rev() {
            if self.find(&path).is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            self.change(Change::Directory(path), time);
        }
        Ok(())
    }

    /// Names a new file.
    pub fn create(&mut self, path: &Path, file: u64, time: u64) -> io::Result<()> {
        self.seen.has_directory(directory_of(path))?;
        self.change(Change::Create(path.into(), file), time);
        Ok(())
    }

    /// Renames a file.
    pub fn rename(&mut self, from: &Path, to: &Path, time: u64) -> io::Result<()> {
        self.find(from)?;
        self.seen.has_directory(directory_of(to))?;
        self.change(Change::Rename(from.into(), to.into()), time);
        Ok(())
    }

    /// Removes the name of a file.
    pub fn remove(&mut self, path: &Path, time: u64) -> io::Result<()> {
        self.find(path)?;
        self.change(Change::Remove(path.into()), time);
        Ok(())
    }

    /// Brings the names in a directory to the disk, and the changes that they wait for.
    pub fn sync(&mut self, path: &Path) -> io::Result<()> {
        self.seen.has_directory(path)?;
        let mut directories = BTreeSet::from([path.to_path_buf()]);
        let (mut due, mut rest) = (Vec::new(), Vec::new());
        for (time, change) in self.unsynced.drain(..).rev() {
            if change.directories().iter().any(|directory| directories.contains(*directory)) {
                directories.extend(change.directories().map(Path::to_path_buf));
                due.push(change);
            } else {
                rest.push((time, change));
            }
        }
        due.iter().rev().for_each(|change| self.durable.apply(change));
        self.unsynced.extend(rest.into_iter().rev());
        Ok(())
    }

    /// Names a file, on disk at once.
    pub fn put(&mut self, path: &Path, file: u64, time: u64) {
        let directory = directory_of(path);
        // This fails only if a directory has the name of a file, which is a mistake of the test.
        let made = self.create_directory(directory, time);
        self.change(Change::Create(path.into(), file), time);
        made.and_then(|()| self.sync(directory))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// The names after a power cut.
    pub fn lose_power(&self, loss: &mut Loss) -> Self {
        let kept = loss.kept();
        let mut durable = self.durable.clone();
        let mut cut = BTreeSet::new();
        // The probability that a directory loses its further changes: with some seeds few survive, with others many.
        let one_in = [2, 4, 16].get(loss.random.index(3)).copied().unwrap_or(2);
        for (time, change) in &self.unsynced {
            let is_kept = match kept {
                Kept::All => true,
                Kept::Nothing => false,
                Kept::Until(last) => *time <= last,
                Kept::Any => !loss.random.one_in(one_in),
            };
            if is_kept && change.directories().iter().all(|directory| !cut.contains(directory)) {
                durable.apply(change);
            } else {
                cut.extend(change.directories());
            }
        }
        Self { seen: durable.clone(), durable, unsynced: Vec::new() }
    }

    fn change(&mut self, change: Change, time: u64) {
        self.seen.apply(&change);
        self.unsynced.push((time, change));
    }
}

impl Tree {
    fn has_directory(&self, path: &Path) -> io::Result<()> {
        let is_root = path.parent().is_none();
        let is_there = is_root || self.directories.contains(path);
        is_there.then_some(()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Directory(path) => {
                self.directories.insert(path.clone());
            }
            Change::Create(path, file) => {
                self.files.insert(path.clone(), *file);
            }
            Change::Rename(from, to) => {
                if let Some(file) = self.files.remove(from) {
                    self.files.insert(to.clone(), file);
                }
            }
            Change::Remove(path) => {
                self.files.remove(path);
            }
        }
    }
}

impl Change {
    /// The directories that it changes.
    fn directories(&self) -> [&Path; 2] {
        match self {
            Self::Directory(path) | Self::Create(path, _) | Self::Remove(path) => [directory_of(path); 2],
            Self::Rename(from, to) => [directory_of(from), directory_of(to)],
        }
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

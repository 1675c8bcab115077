//! The names in a directory, by their inodes: read once for all readers that search it, as long as it does not change.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::fs::FileType;

use super::{Entry, OVERLAY, Parent};

/// How many names are kept of all directories of a root, about 6 MB.
const MAX_KEPT: usize = 100_000;

/// How long a directory must not have changed for its listing to be kept: the clock of a file system is coarse, so that a
/// change right after the listing may not be seen.
const SETTLED: Duration = Duration::from_millis(100);

/// The names in a directory.
#[derive(Debug)]
pub struct Listing {
    /// Regular files, sorted by their inodes.
    files: Vec<(u64, String)>,
    links: Vec<String>,
    directories: Vec<String>,
    /// The inodes of the names may differ from those of the files.
    is_overlay: bool,
}

/// Listings that were used last, by the directory.
#[derive(Debug, Default)]
pub struct Listings {
    kept: Mutex<VecDeque<Kept>>,
}

#[derive(Debug)]
struct Kept {
    stamp: Stamp,
    /// Nothing was missed: the directory had not changed for a while when it was listed.
    is_settled: bool,
    began: Instant,
    listing: Arc<Listing>,
}

/// Which directory it is, and when it changed last: seconds and nanoseconds of two times.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stamp {
    directory: (u64, u64),
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Listing {
    /// The names of regular files that may be of the file with this inode.
    pub fn with_inode(&self, inode: u64) -> impl Iterator<Item = &str> {
        let start = self.files.partition_point(|(other, _)| *other < inode);
        let same = self.files.get(start..).unwrap_or_default().iter();
        let same = same.take_while(move |(other, _)| *other == inode);
        let all = if self.is_overlay { self.files.as_slice() } else { &[] };
        same.chain(all).map(|(_, name)| name.as_str())
    }

    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|(_, name)| name.as_str())
    }

    pub fn links(&self) -> impl Iterator<Item = &str> {
        self.links.iter().map(String::as_str)
    }

    /// Its subdirectories, without links.
    pub fn directories(&self) -> impl Iterator<Item = &str> {
        self.directories.iter().map(String::as_str)
    }

    fn len(&self) -> usize {
        self.files.len() + self.links.len() + self.directories.len()
    }
}

impl Parent {
    /// The names in this directory, read since it changed last, or since this was called.
    pub fn listing(&self) -> io::Result<Arc<Listing>> {
        let called = Instant::now();
        if self.is_remote() {
            // Its times may be out of date.
            return self.list().map(Arc::new);
        }
        // Held while the directory is read, so that readers that search it at once read it once.
        let mut kept = self.tree.listings.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = self.stamp()?;
        let is_new = |kept: &&Kept| kept.stamp == stamp && (kept.is_settled || kept.began >= called);
        if let Some(known) = kept.iter().find(is_new) {
            return Ok(known.listing.clone());
        }
        kept.retain(|known| known.stamp.directory != stamp.directory);
        let (is_settled, began) = (stamp.is_settled(), Instant::now());
        let listing = Arc::new(self.list()?);
        if listing.len() <= MAX_KEPT {
            kept.push_front(Kept { stamp, is_settled, began, listing: listing.clone() });
            let mut names = 0;
            kept.retain(|known| {
                names += known.listing.len();
                names <= MAX_KEPT
            });
        }
        Ok(listing)
    }

    /// Whether the directory did not change for a while, so that its names are known to be complete.
    pub fn is_settled(&self) -> bool {
        self.holds_still_for(SETTLED)
    }

    /// Whether the directory did not change for a time, as far as its file system and the clock say.
    pub fn holds_still_for(&self, time: Duration) -> bool {
        !self.is_remote() && self.stamp().is_ok_and(|stamp| stamp.holds_still_for(time))
    }

    /// When a name in the directory was added, renamed or removed last, in nanoseconds since 1970.
    pub fn changed(&self) -> io::Result<u64> {
        let (seconds, nanos) = self.stamp()?.modified;
        Ok(u64::try_from(seconds.saturating_mul(1_000_000_000).saturating_add(nanos)).unwrap_or(0))
    }

    fn list(&self) -> io::Result<Listing> {
        let is_overlay = rustix::fs::fstatfs(&self.directory).is_ok_and(|it| it.f_type == OVERLAY);
        let (mut files, mut links, mut directories) = (Vec::new(), Vec::new(), Vec::new());
        for entry in self.read()? {
            let Entry { name, kind, inode } = entry?;
            let Ok(name) = name.into_string() else { continue };
            match kind {
                FileType::RegularFile => files.push((inode, name)),
                FileType::Symlink => links.push(name),
                FileType::Directory => directories.push(name),
                _ => {}
            }
        }
        files.sort_unstable();
        Ok(Listing { files, links, directories, is_overlay })
    }

    fn stamp(&self) -> io::Result<Stamp> {
        let stat = rustix::fs::fstat(&self.directory)?;
        Ok(Stamp {
            directory: (stat.st_dev, stat.st_ino),
            modified: (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            changed: (stat.st_ctime, i64::try_from(stat.st_ctime_nsec).unwrap_or(0)),
        })
    }
}

impl Stamp {
    fn is_settled(&self) -> bool {
        self.holds_still_for(SETTLED)
    }

    fn holds_still_for(&self, time: Duration) -> bool {
        let (seconds, nanos) = self.modified.max(self.changed);
        let since = Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanos).unwrap_or(0));
        SystemTime::now().duration_since(UNIX_EPOCH + since).is_ok_and(|age| age >= time)
    }
}

//! Where a path leads: the file at the end of its links, and the directories that decide it.

use std::{
    io,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, SystemTime},
};

use super::{FilePath, Parent, Roots, Tree, walk};

/// Where a path leads now. Its directories are below the root, and the rules admit the file.
#[derive(Debug)]
pub struct Trail {
    /// The path of the file without links; there need be no file. `None` if a directory is missing, or the path leads to
    /// nothing that can be read.
    pub target: Option<FilePath>,
    /// The directories of the links on the path. What happens in another one cannot change where the path leads.
    pub links: Vec<LinkPlace>,
    /// The directory of a link is not among them: the rules deny it, or it is gone.
    pub misses_some: bool,
}

/// The directory of a link, and the link's name in it.
#[derive(Debug)]
pub struct LinkPlace {
    pub directory: OwnedFd,
    /// The device and the inode of the directory.
    pub identity: (u64, u64),
    pub name: String,
}

/// Which link has a name. A link cannot be changed, but only replaced by another one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LinkIdentity {
    inode: u64,
    /// The seconds since 1970 and the nanoseconds after them.
    created: (i64, u64),
}

impl LinkPlace {
    fn open(tree: &Tree, link: &walk::Link) -> Option<Self> {
        if tree.globs.deny_directory(&link.directory) {
            return None;
        }
        // The path was walked: a link on it now was put there since, and the next look finds it.
        let directory = walk::directory(&tree.directory, &[], &link.directory).ok()?.handle;
        let stat = rustix::fs::fstat(&directory).ok()?;
        Some(Self {
            directory,
            identity: (stat.st_dev, stat.st_ino),
            name: link.name.to_string_lossy().into_owned(),
        })
    }
}

impl LinkPlace {
    /// The link that has the name now. `None` if there is none.
    pub fn link(&self) -> Option<LinkIdentity> {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        let stat = rustix::fs::statat(&self.directory, self.name.as_str(), flags).ok()?;
        Some(LinkIdentity { inode: stat.st_ino, created: (stat.st_mtime, stat.st_mtime_nsec) })
    }

    /// When the link was created.
    fn created(&self) -> Option<SystemTime> {
        let (seconds, nanos) = self.link()?.created;
        let seconds = u64::try_from(seconds).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds) + Duration::from_nanos(nanos))
    }
}

impl Roots {
    /// When a link on a path was last pointed elsewhere. `None` if no link is on it.
    pub fn relinked(&self, path: &FilePath) -> Option<SystemTime> {
        self.trail(path, self.parent(path).ok().as_ref()).links.iter().filter_map(LinkPlace::created).max()
    }

    /// Follows the links of a path. `parent` is its directory, if that exists.
    pub fn trail(&self, path: &FilePath, parent: Option<&Parent>) -> Trail {
        let is_plain = parent.is_some_and(|parent| !parent.is_linked(&path.name));
        let nowhere = Trail { target: None, links: Vec::new(), misses_some: false };
        let Some(tree) = self.trees.get(&path.root) else { return nowhere };
        if is_plain {
            return Trail { target: Some(path.clone()), ..nowhere };
        }
        let asked = path.directory.join(&path.name);
        let (links, end) = walk::links(&tree.directory, &tree.homes, &asked);
        let is_allowed = |end: &std::path::PathBuf| tree.globs.allow(&asked) && tree.globs.allow(end);
        let target = end.filter(is_allowed).and_then(|end| path.sibling(&end));
        let places = links.iter().filter_map(|link| LinkPlace::open(tree, link)).collect::<Vec<_>>();
        let misses_some = places.len() < links.len();
        Trail { target, links: places, misses_some }
    }
}

impl Parent {
    /// Whether a link is on the path to this directory, or at this name in it.
    fn is_linked(&self, name: &str) -> bool {
        self.real != self.asked || self.is_link(name).unwrap_or(false)
    }

    fn is_link(&self, name: &str) -> io::Result<bool> {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        let stat = rustix::fs::statat(&self.directory, Path::new(name), flags)?;
        Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Symlink)
    }
}

//! Where a path leads: the file at the end of its links, and the directories that decide it.

use std::{
    ffi::OsStr,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::fs::{AtFlags, FileType, StatxFlags, statx};

use super::{
    FilePath, Named, Parent, Roots, Tree,
    walk::{self, Aim, Step},
};

/// Where a path leads now. Its directories are below the root, and the rules admit the file.
#[derive(Debug)]
pub struct Trail {
    /// The path of the file without links; there need be no file. `None` if a directory is missing, or the path leads to
    /// nothing that can be read.
    pub target: Option<FilePath>,
    /// The directory of the target.
    pub parent: Option<Parent>,
    /// What the name of the target is, where no link is on the path.
    pub named: Option<Named>,
    /// The directories of the links on the path, or of the directories on it if no link is. What happens in another one
    /// cannot change where the path leads.
    pub links: Vec<LinkPlace>,
    /// The directory of one is not among them: the rules deny it, or it is gone.
    pub misses_some: bool,
}

/// The directory of a link or of another directory, and the name of that in it.
#[derive(Debug)]
pub struct LinkPlace {
    pub directory: OwnedFd,
    /// The device and the inode of the directory.
    pub identity: (u64, u64),
    pub name: String,
}

/// Which link or directory has a name. A link cannot be changed, but only replaced by another one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LinkIdentity {
    inode: u64,
    /// The seconds since 1970 and the nanoseconds after them.
    created: (i64, u32),
}

impl LinkPlace {
    fn open(tree: &Tree, link: &walk::Link) -> Option<Self> {
        if tree.globs.deny_directory(&link.directory) {
            return None;
        }
        // The path was walked: a link on it now was put there since, and the next look finds it.
        let directory = walk::directory(&tree.directory, &[], &link.directory).ok()?.handle;
        Self::in_directory(directory, &link.name)
    }

    fn in_directory(directory: OwnedFd, name: &OsStr) -> Option<Self> {
        let stat = rustix::fs::fstat(&directory).ok()?;
        let (identity, name) = ((stat.st_dev, stat.st_ino), name.to_string_lossy().into_owned());
        Some(Self { directory, identity, name })
    }

    /// The places of the directories on the way to one, up to the first that is missing.
    fn on_way(tree: &Tree, path: &Path) -> Vec<Self> {
        let (mut places, mut at) = (Vec::new(), PathBuf::new());
        let mut here = tree.directory.try_clone().ok();
        for name in path {
            let Some(directory) = here.take().filter(|_| !tree.globs.deny_directory(&at)) else { break };
            here = match walk::step(directory.as_fd(), name, Aim::Look) {
                Ok(Step::Directory(next)) => Some(next),
                _ => None,
            };
            places.extend(Self::in_directory(directory, name));
            at.push(name);
        }
        places
    }

    /// The link or directory that has the name now. `None` if there is none.
    pub fn link(&self) -> Option<LinkIdentity> {
        let (flags, wanted) = (AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS | StatxFlags::BTIME);
        let it = statx(&self.directory, self.name.as_str(), flags, wanted).ok()?;
        // The time of a directory changes with its files.
        let is_link = FileType::from_raw_mode(it.stx_mode.into()) == FileType::Symlink;
        let created = if is_link { it.stx_mtime } else { it.stx_btime };
        Some(LinkIdentity { inode: it.stx_ino, created: (created.tv_sec, created.tv_nsec) })
    }

    /// When the link was created.
    fn created(&self) -> Option<SystemTime> {
        let (seconds, nanos) = self.link()?.created;
        let seconds = u64::try_from(seconds).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds) + Duration::from_nanos(nanos.into()))
    }
}

impl Roots {
    /// When a link on a path was last pointed elsewhere. `None` if no link is on it.
    pub fn relinked(&self, path: &FilePath) -> Option<SystemTime> {
        let trail = self.trail(path);
        if trail.named.is_some() { None } else { trail.links.iter().filter_map(LinkPlace::created).max() }
    }

    /// Follows the links of a path.
    pub fn trail(&self, path: &FilePath) -> Trail {
        let nowhere =
            Trail { target: None, parent: None, named: None, links: Vec::new(), misses_some: false };
        let Some(tree) = self.trees.get(&path.root) else { return nowhere };
        let plain = self.parent(path).ok().map(|parent| (parent.inspect(&path.name), parent));
        if let Some((named, parent)) = plain.filter(|(named, parent)| parent.is_plain(named)) {
            let (target, parent, named) = (Some(path.clone()), Some(parent), Some(named));
            return Trail {
                target,
                parent,
                named,
                links: LinkPlace::on_way(tree, &path.directory),
                ..nowhere
            };
        }
        let asked = path.directory.join(&path.name);
        let (links, end) = walk::links(&tree.directory, &tree.homes, &asked);
        let is_allowed = |end: &std::path::PathBuf| tree.globs.allow(&asked) && tree.globs.allow(end);
        let target = end.filter(is_allowed).and_then(|end| path.sibling(&end));
        let places = if links.is_empty() {
            LinkPlace::on_way(tree, &path.directory)
        } else {
            links.iter().filter_map(|link| LinkPlace::open(tree, link)).collect()
        };
        let misses_some = places.len() < links.len();
        let parent = target.as_ref().and_then(|target| self.parent(target).ok());
        Trail { target, parent, named: None, links: places, misses_some }
    }
}

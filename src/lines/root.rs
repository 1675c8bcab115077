//! The sandbox: the roots that the operator named, and files below them.
//!
//! A root is a directory that is opened once: it stays the one that is served, also when it is renamed, and when it is
//! removed there is nothing to read until the server starts again. Every file is opened beneath its descriptor, one
//! name after another ([`walk`]), so that no path, link or race leads outside; then the open file is looked at, and
//! only a regular one is read. A path is never checked as text and opened afterwards. Roots know nothing of each
//! other: a file below two of them is read by the rules of the one that was asked for. Everything here blocks.
//!
//! The rules of a root ([`rule`]) hold for the path that was asked for, and for the file that its links lead to: a link
//! `ok.log` to `secret.key` is read only where both are allowed. The rotations of an allowed file, by a strict reading of
//! their names ([`rotated_name`]), are its own history and need not be allowed themselves. Denying always wins: over a
//! file's own name, and over those that it may have had before it was rotated.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStringExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat},
    io::Errno,
};

use super::{Error, FileInfo, Page, RootError, identity::Identity};
use list::List;
use rule::Globs;
use walk::{Aim, Step};

pub mod list;
pub mod rotated_name;
pub mod rule;
mod walk;

/// The longest path: Linux's own limit.
const MAX_PATH_BYTES: usize = 4096;

/// A directory whose files can be read, by the operator's choice.
#[derive(Clone, Debug)]
pub struct Root {
    /// Of letters, digits, `_` and `-`.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// What of it can be read.
    pub rules: rule::RootRules,
}

impl Root {
    /// All of a directory.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), path: path.into(), rules: rule::RootRules::default() }
    }
}

/// File systems that are written to from elsewhere, by their magic numbers (linux/magic.h, and the file systems' own
/// sources).
const REMOTE: [(&str, i64); 8] = [
    ("nfs", 0x6969),
    ("smb", 0xfe53_4d42),
    ("cifs", 0xff53_4d42),
    ("fuse", 0x6573_5546),
    ("9p", 0x0102_1997),
    ("ceph", 0x00c3_6400),
    ("afs", 0x5346_414f),
    ("lustre", 0x0bd0_0bd0),
];

/// The roots, by name.
#[derive(Debug)]
pub struct Roots {
    trees: BTreeMap<String, Arc<Tree>>,
}

/// A root that is served.
#[derive(Debug)]
struct Tree {
    directory: OwnedFd,
    /// By what names absolute links may call it; none, if they are not followed.
    homes: Vec<PathBuf>,
    globs: Globs,
    hard_links: bool,
}

impl Tree {
    fn open(Root { name, path, rules }: Root) -> Result<Self, RootError> {
        let globs = Globs::new(&rules)
            .map_err(|error| RootError::Globs { name: name.clone(), fault: error.to_string() })?;
        let open = || -> io::Result<_> {
            // By a link, too: the operator said so.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = rustix::fs::open(&path, flags, Mode::empty())?;
            let homes = if rules.absolute_links {
                vec![std::path::absolute(&path)?, path.canonicalize()?]
            } else {
                Vec::new()
            };
            Ok((directory, homes))
        };
        let (directory, homes) =
            open().map_err(|source| RootError::Open { name, path: path.clone(), source })?;
        Ok(Self { directory, homes, globs, hard_links: rules.hard_links })
    }
}

/// A path below a root, taken apart.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct FilePath {
    root: String,
    /// The directory, relative to the root; empty for the root itself.
    directory: PathBuf,
    /// The file's own name.
    pub name: String,
}

impl FilePath {
    /// Takes `ROOT/relative/path` apart.
    pub fn parse(path: &str) -> Result<Self, Error> {
        check(path)?;
        let Some((root, relative)) = path.split_once('/') else {
            return Err(Error::PathInvalid { fault: "names no file" });
        };
        let (directory, name) = relative.rsplit_once('/').unwrap_or(("", relative));
        Ok(Self { root: root.into(), directory: directory.into(), name: name.into() })
    }

    /// A checksum that tells one path from another in a cursor.
    pub fn checksum(&self) -> u32 {
        crc32c::crc32c(self.to_string().as_bytes())
    }
}

impl std::fmt::Display for FilePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { root, directory, name } = self;
        if directory.as_os_str().is_empty() {
            write!(f, "{root}/{name}")
        } else {
            write!(f, "{root}/{}/{name}", directory.display())
        }
    }
}

/// What can be told of a path without looking.
fn check(path: &str) -> Result<(), Error> {
    let fault = |fault| Err(Error::PathInvalid { fault });
    if path.len() > MAX_PATH_BYTES {
        return fault("is longer than 4,096 bytes");
    }
    if path.contains('\0') {
        return fault("holds a NUL byte");
    }
    for part in path.split('/') {
        match part {
            "" => return fault("has an empty part"),
            "." | ".." => return fault("has a part `.` or `..`"),
            _ => {}
        }
    }
    Ok(())
}

/// A directory that holds a file and its rotated generations.
#[derive(Debug)]
pub struct Parent {
    tree: Arc<Tree>,
    directory: OwnedFd,
    /// Its path below the root, as it was asked for.
    asked: PathBuf,
    /// Its path below the root, without links.
    real: PathBuf,
    /// The file that was asked for; empty in a list, where no file is another's history.
    name: String,
}

/// A file that stands at a path, as far as can be told without opening it.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Which file it is.
    pub identity: Identity,
    /// It is written to by another name, too: a link leads to it.
    pub is_elsewhere: bool,
}

/// A file among its rotated generations.
#[derive(Debug)]
pub struct Sibling {
    /// Its name.
    pub name: String,
    /// Which file it is.
    pub identity: Identity,
    /// When its content last changed.
    pub modified: SystemTime,
}

impl Roots {
    /// Opens every root.
    pub fn open(roots: Vec<Root>) -> Result<Self, RootError> {
        let mut trees = BTreeMap::new();
        for root in roots {
            let name = root.name.clone();
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
            if name.is_empty() || !name.bytes().all(plain) {
                return Err(RootError::Name { name });
            }
            if trees.contains_key(&name) {
                return Err(RootError::Twice { name });
            }
            trees.insert(name, Arc::new(Tree::open(root)?));
        }
        Ok(Self { trees })
    }

    /// Opens the directory that a file is in.
    pub fn parent(&self, path: &FilePath) -> io::Result<Parent> {
        self.directory(&path.root, &path.directory, &path.name)
    }

    fn directory(&self, root: &str, asked: &Path, name: &str) -> io::Result<Parent> {
        let tree = self.trees.get(root).ok_or(Errno::NOENT)?;
        let found = walk::directory(&tree.directory, &tree.homes, asked)?;
        let (tree, asked) = (tree.clone(), asked.to_owned());
        Ok(Parent { tree, directory: found.handle, asked, real: found.path, name: name.into() })
    }

    /// There is such a root.
    pub fn has(&self, path: &FilePath) -> bool {
        self.trees.contains_key(&path.root)
    }

    /// The files below a root or a directory of it, or below all roots, sorted by path.
    pub fn list(&self, path: Option<&str>, range: list::Range) -> Result<Page, Error> {
        let mut list = List::new(range);
        if let Some(path) = path {
            check(path)?;
            let (root, relative) = path.split_once('/').unwrap_or((path, ""));
            let directory = self.directory(root, Path::new(relative), "");
            let directory = directory.map_err(|error| Error::of_open(error, path))?;
            if directory.is_denied() {
                return Err(Error::NotFound { path: path.into() });
            }
            list.add(&directory, &format!("{path}/"))?;
            return Ok(list.into_page());
        }
        // Not in the order of the names: `a-b/` comes before `a/`.
        let paths = self.trees.keys().map(|name| (format!("{name}/"), name)).collect::<BTreeMap<_, _>>();
        for (path, name) in paths {
            list.add(&self.directory(name, Path::new(""), "")?, &path)?;
        }
        Ok(list.into_page())
    }
}

impl Parent {
    /// Opens a file of this directory for reading. What is missing, denied, outside the root or no regular file gives
    /// an error all the same.
    pub fn open(&self, name: &str) -> io::Result<File> {
        Ok(self.find(name, Aim::Read)?.0)
    }

    /// Finds a file of this directory; and whether a link led to it.
    fn find(&self, name: &str, aim: Aim) -> io::Result<(File, bool)> {
        if !self.allows(&self.asked, name) {
            return Err(Errno::NOENT.into());
        }
        let (file, is_link, is_allowed) = match walk::step(self.directory.as_fd(), OsStr::new(name), aim)? {
            Step::File(file) => (file, false, self.real == self.asked || self.allows(&self.real, name)),
            Step::Link(_) => {
                // From the root on, since it may lead to another directory.
                let Tree { directory, homes, globs, .. } = &*self.tree;
                let found = walk::file(directory, homes, &self.asked.join(name), aim)?;
                // No file's history, whatever the name of the link: it is judged by itself.
                (found.handle, true, globs.allow(&found.path))
            }
            Step::Directory(_) => return Err(Errno::ISDIR.into()),
        };
        if !is_allowed || !self.tree.hard_links && file.metadata()?.nlink() > 1 {
            return Err(Errno::NOENT.into());
        }
        Ok((file, is_link))
    }

    /// The rules allow a file of this directory, which has this path.
    fn allows(&self, directory: &Path, name: &str) -> bool {
        let (globs, path) = (&self.tree.globs, directory.join(name));
        let is_history = !self.name.is_empty() && rotated_name::is_rotation_or_compressed(&self.name, name);
        globs.allow(&path)
            || is_history && globs.allow(&directory.join(&self.name)) && !globs.deny_file(&path)
    }

    /// Looks at a file without reading it, which takes no permission to read it. None where there is no regular file that
    /// is allowed.
    pub fn stat(&self, name: &str) -> Option<Found> {
        let (file, is_link) = self.find(name, Aim::Look).ok()?;
        let metadata = file.metadata().ok()?;
        Some(Found { identity: Identity::of(&metadata), is_elsewhere: is_link || metadata.nlink() > 1 })
    }

    /// The device and the inode: tells whether a path leads to another directory now.
    ///
    /// # Errors
    /// Where the system does not tell.
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        let stat = rustix::fs::fstat(&self.directory)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// The directory is on a file system that other machines write to: inotify does not tell of them, and what is read
    /// may be out of date.
    pub fn is_remote(&self) -> bool {
        rustix::fs::fstatfs(&self.directory)
            .is_ok_and(|it| REMOTE.iter().any(|(_, magic)| it.f_type == *magic))
    }

    /// A descriptor of the directory, for watching.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.directory.try_clone()
    }

    /// A path by which this process finds the directory, wherever it is moved.
    pub fn watch_path(descriptor: BorrowedFd<'_>) -> PathBuf {
        use std::os::fd::AsRawFd;
        Path::new("/proc/self/fd").join(descriptor.as_raw_fd().to_string())
    }

    /// The regular files whose names are wanted, at most so many: those whose names rank first.
    pub fn siblings<R: Ord>(
        &self,
        most: usize,
        rank: impl Fn(&str) -> Option<R>,
    ) -> io::Result<Vec<Sibling>> {
        let mut names = Vec::new();
        for entry in self.read()? {
            let Ok(found) = entry?.0.into_string() else { continue };
            names.extend(rank(&found).map(|rank| (rank, found)));
        }
        names.sort();
        let mut siblings = Vec::new();
        for (_, found) in names.into_iter().take(most) {
            let Ok(metadata) = self.open(&found).and_then(|file| file.metadata()) else { continue };
            let identity = Identity::of(&metadata);
            siblings.push(Sibling { name: found, identity, modified: metadata.modified()? });
        }
        Ok(siblings)
    }

    /// The names in this directory, and what they stand for.
    fn read(&self) -> io::Result<impl Iterator<Item = io::Result<(OsString, FileType)>>> {
        // Anew: a descriptor that only searches cannot be read, and others may read this one, too.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let entries = Dir::new(openat(&self.directory, ".", flags, Mode::empty())?)?;
        Ok(entries.filter_map(move |entry| match entry {
            Ok(entry) => {
                let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
                let kind = match entry.file_type() {
                    FileType::Unknown => self.kind(&name),
                    kind => kind,
                };
                (name != "." && name != "..").then_some(Ok((name, kind)))
            }
            // The directory itself was removed.
            Err(Errno::NOENT) => None,
            Err(error) => Some(Err(error.into())),
        }))
    }

    /// For file systems whose directories do not tell.
    fn kind(&self, name: &OsStr) -> FileType {
        let stat = statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW);
        stat.map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode))
    }

    /// A directory of this one; links are not followed.
    fn child(&self, name: &str) -> io::Result<Self> {
        if self.real.components().count() >= walk::MAX_DEPTH {
            return Err(Errno::NAMETOOLONG.into());
        }
        let Step::Directory(directory) = walk::step(self.directory.as_fd(), OsStr::new(name), Aim::Look)?
        else {
            return Err(Errno::NOTDIR.into());
        };
        let (asked, real) = (self.asked.join(name), self.real.join(name));
        Ok(Self { tree: self.tree.clone(), directory, asked, real, name: String::new() })
    }

    fn is_denied(&self) -> bool {
        self.tree.globs.deny_directory(&self.asked) || self.tree.globs.deny_directory(&self.real)
    }

    /// The rules do not rule out, by the path alone, that a list has something under this name.
    fn may_hold(&self, name: &str, is_directory: bool) -> bool {
        let path = self.asked.join(name);
        if is_directory { !self.tree.globs.deny_directory(&path) } else { self.tree.globs.allow(&path) }
    }
}

#[cfg(test)]
mod tests;

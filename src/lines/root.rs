//! The sandbox: the roots that the operator named, and files below them.
//!
//! A root is a directory that is opened once. It stays the one that is served when it is renamed; when it is removed,
//! there is nothing to read until the server is restarted. Every file is opened below its descriptor, one name after
//! another ([`walk`]), so that no path, link or race leads outside. The open file is inspected, and only a regular file
//! is read; a path is never checked as text and opened afterwards. Roots are independent: a file below two of them is
//! read by the rules of the root that the caller named. Everything here blocks.
//!
//! The rules of a root ([`rule`]) hold for the path that the caller asked for, and for the file that its links lead to: a link
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
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat},
    io::Errno,
};

use super::{Error, FileInfo, Page, RootError, identity::Identity};
use home::Home;
pub use inspect::{Named, Stamp};
use list::List;
use listing::Listings;
pub use may_read::MayRead;
use rule::Globs;
use walk::{Aim, Step};

mod branch;
mod home;
mod inspect;
pub mod list;
mod listing;
mod may_read;
pub mod places;
pub mod rotated_name;
pub mod rotation_scheme;
pub mod rule;
mod tie;
pub mod trail;
mod walk;

/// The longest path: Linux's own limit.
pub const MAX_PATH_BYTES: usize = 4096;

/// A directory whose files can be read, as the operator configured it.
#[derive(Clone, Debug)]
pub struct Root {
    /// The first part of a path: letters, digits, `_` and `-`.
    pub name: String,
    /// The directory.
    pub path: PathBuf,
    /// Which of its files can be read.
    pub rules: rule::RootRules,
}

impl Root {
    /// A root without rules: all regular files of a directory can be read.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), path: path.into(), rules: rule::RootRules::default() }
    }
}

/// File systems that other machines write to, by their magic numbers (linux/magic.h, and the sources of the file systems).
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

/// The magic number of overlayfs.
const OVERLAY: i64 = 0x794c_7630;

/// An entry of a directory.
#[derive(Debug)]
struct Entry {
    name: OsString,
    kind: FileType,
    inode: u64,
}

/// All roots, by name.
#[derive(Debug)]
pub struct Roots {
    trees: BTreeMap<String, Arc<Tree>>,
}

/// A root that is served.
#[derive(Debug)]
struct Tree {
    /// The name of the root.
    name: String,
    directory: Arc<OwnedFd>,
    home: Home,
    /// The paths by which absolute links may name the directory; none if absolute links are not followed.
    homes: Vec<PathBuf>,
    globs: Globs,
    hard_links: bool,
    listings: Listings,
}

impl Tree {
    fn open(Root { name, path, rules }: Root) -> Result<Self, RootError> {
        let globs = Globs::new(&rules)
            .map_err(|error| RootError::Globs { name: name.clone(), fault: error.to_string() })?;
        let open = || -> io::Result<_> {
            // The operator may name a link.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = rustix::fs::open(&path, flags, Mode::empty())?;
            let homes = if rules.absolute_links {
                vec![std::path::absolute(&path)?, path.canonicalize()?]
            } else {
                Vec::new()
            };
            let home = Home::new(&path, &directory)?;
            Ok((directory, home, homes))
        };
        let (directory, home, homes) =
            open().map_err(|source| RootError::Open { name: name.clone(), path: path.clone(), source })?;
        let listings = Listings::default();
        let directory = Arc::new(directory);
        Ok(Self { name, directory, home, homes, globs, hard_links: rules.hard_links, listings })
    }
}

/// A path below a root, parsed.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct FilePath {
    root: String,
    /// The directory, relative to the root; empty for the root itself.
    directory: PathBuf,
    /// The file's own name.
    pub name: String,
    /// What the caller may read besides.
    may_read: MayRead,
}

impl FilePath {
    /// Parses `ROOT/relative/path`.
    pub fn parse(path: &str) -> Result<Self, Error> {
        check(path)?;
        let Some((root, relative)) = path.split_once('/') else {
            return Err(Error::PathInvalid { fault: "names no file" });
        };
        let (directory, name) = relative.rsplit_once('/').unwrap_or(("", relative));
        let may_read = MayRead::default();
        Ok(Self { root: root.into(), directory: directory.into(), name: name.into(), may_read })
    }

    /// The same path for a caller that may read only these files besides.
    pub fn for_caller(self, may_read: MayRead) -> Self {
        Self { may_read, ..self }
    }

    /// The path of a file below the root of this one.
    fn sibling(&self, relative: &Path) -> Option<Self> {
        let (name, directory) = (relative.file_name()?.to_str()?, relative.parent()?);
        let may_read = self.may_read.clone();
        Some(Self { root: self.root.clone(), directory: directory.into(), name: name.into(), may_read })
    }

    /// Whether both are in one directory, as far as their text says.
    pub fn is_beside(&self, other: &Self) -> bool {
        (&self.root, &self.directory) == (&other.root, &other.directory)
    }

    /// A checksum by which a cursor names the path.
    pub fn checksum(&self) -> u32 {
        crc32c::crc32c(self.to_string().as_bytes())
    }
}

impl std::fmt::Display for FilePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { root, directory, name, .. } = self;
        if directory.as_os_str().is_empty() {
            write!(f, "{root}/{name}")
        } else {
            write!(f, "{root}/{}/{name}", directory.display())
        }
    }
}

/// Checks a path as text.
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
    /// That of the root itself is shared.
    directory: Arc<OwnedFd>,
    /// Its path below the root, as the caller gave it.
    asked: PathBuf,
    /// Its path below the root, with links resolved.
    real: PathBuf,
    /// The file that the caller asked for; empty in a list, where no file is the history of another.
    name: String,
    /// It is searched for history only: what the operator named as such can be opened.
    is_history: bool,
    /// What the caller may read besides.
    may_read: MayRead,
    /// Its files may be another log's: the caller needs a right to each.
    needs_right: bool,
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
        let parent = self.directory(&path.root, &path.directory, &path.name)?;
        Ok(Parent { may_read: path.may_read.clone(), ..parent })
    }

    fn directory(&self, root: &str, asked: &Path, name: &str) -> io::Result<Parent> {
        Parent::open_directory(self.trees.get(root).ok_or(Errno::NOENT)?, asked, name)
    }

    /// The path below the same root at which an open file is now. `None` if it was deleted, is outside the root, has a
    /// name that is not UTF-8, or the system does not report it.
    pub fn present_path(&self, path: &FilePath, file: &File) -> Option<FilePath> {
        let tree = self.trees.get(&path.root)?;
        if file.metadata().ok()?.nlink() == 0 {
            return None;
        }
        let path_of = |descriptor| std::fs::read_link(Parent::watch_path(descriptor)).ok();
        let (root, present) = (path_of(tree.directory.as_fd())?, path_of(file.as_fd())?);
        path.sibling(present.strip_prefix(root).ok()?)
    }

    /// Whether the rules deny a path.
    pub fn denies(&self, path: &FilePath) -> bool {
        let tree = self.trees.get(&path.root);
        tree.is_none_or(|tree| tree.globs.deny_file(&path.directory.join(&path.name)))
    }

    /// Whether the root of a path exists.
    pub fn has(&self, path: &FilePath) -> bool {
        self.trees.contains_key(&path.root)
    }

    /// The files below a root or a directory of it, or below all roots, sorted by path.
    pub fn list(&self, path: Option<&str>, range: list::Range) -> Result<Page, Error> {
        let mut list = List::new(range);
        if let Some(path) = path {
            check(path)?;
            if !list.enters(path) {
                return Err(Error::NotFound { path: path.into() });
            }
            let (root, relative) = path.split_once('/').unwrap_or((path, ""));
            let directory = self.directory(root, Path::new(relative), "");
            let directory = directory.map_err(|error| Error::of_open(error, path))?;
            if directory.is_denied() {
                return Err(Error::NotFound { path: path.into() });
            }
            list.add(&directory, &format!("{path}/"))?;
            return Ok(list.into_page());
        }
        // This is not the order of the names: `a-b/` comes before `a/`.
        let paths = self.trees.keys().map(|name| (format!("{name}/"), name)).collect::<BTreeMap<_, _>>();
        for (path, name) in paths.into_iter().filter(|(path, _)| list.enters(path)).collect::<Vec<_>>() {
            list.add(&self.directory(name, Path::new(""), "")?, &path)?;
        }
        Ok(list.into_page())
    }
}

impl Parent {
    fn open_directory(tree: &Arc<Tree>, asked: &Path, name: &str) -> io::Result<Self> {
        let (directory, real) = if asked.as_os_str().is_empty() {
            (tree.directory.clone(), PathBuf::new())
        } else {
            let walk::Found { handle, path } = walk::directory(&tree.directory, &tree.homes, asked)?;
            (Arc::new(handle), path)
        };
        let (tree, asked) = (tree.clone(), asked.to_owned());
        let (name, may_read) = (name.into(), MayRead::default());
        Ok(Self { tree, directory, asked, real, name, is_history: false, may_read, needs_right: false })
    }

    /// Opens a file of this directory for reading. Fails alike for a file that is missing, denied, outside the root or
    /// not regular.
    pub fn open(&self, name: &str) -> io::Result<File> {
        Ok(self.find(name, Aim::Read)?.0)
    }

    /// The same; true if a link led to the file.
    pub fn open_through(&self, name: &str) -> io::Result<(File, bool)> {
        self.find(name, Aim::Read)
    }

    /// Opens a file of this directory; true if a link led to it.
    fn find(&self, name: &str, aim: Aim) -> io::Result<(File, bool)> {
        if !self.allows(&self.asked, name) {
            return Err(Errno::NOENT.into());
        }
        let (file, is_link, is_allowed) = match walk::step(self.directory.as_fd(), OsStr::new(name), aim)? {
            Step::File(file) => (file, false, self.allows_here(name)),
            Step::Link(_) => {
                // Walk from the root, since the link may lead to another directory.
                let Tree { directory, homes, .. } = &*self.tree;
                let found = walk::file(directory, homes, &self.asked.join(name), aim)?;
                // The name of the link does not make its target a rotation: the rules hold for the target itself.
                let is_own = self.is_log(name) || self.may_read(&found.path);
                (found.handle, true, is_own && self.admits(&found.path))
            }
            Step::Directory(_) => return Err(Errno::ISDIR.into()),
        };
        if !is_allowed || !self.tree.hard_links && file.metadata()?.nlink() > 1 {
            return Err(Errno::NOENT.into());
        }
        Ok((file, is_link))
    }

    /// Whether the rules admit the file at a name that is no link, and that has this many names.
    fn allows_file(&self, name: &str, names: u64) -> bool {
        self.allows(&self.asked, name) && self.allows_here(name) && (self.tree.hard_links || names <= 1)
    }

    /// Whether the rules admit a name of this directory where its links lead.
    fn allows_here(&self, name: &str) -> bool {
        self.real == self.asked || self.allows(&self.real, name)
    }

    /// Whether the rules admit a name of this directory, which has this path below the root.
    fn allows(&self, directory: &Path, name: &str) -> bool {
        let (globs, path) = (&self.tree.globs, directory.join(name));
        let is_rotation = !self.name.is_empty() && rotated_name::is_rotation_or_compressed(&self.name, name);
        let is_own = is_rotation && !self.needs_right || self.is_log(name) || self.may_read(&path);
        let is_admitted = || {
            self.admits(&path)
                || is_rotation && globs.allow(&directory.join(&self.name)) && !globs.deny_file(&path)
        };
        is_own && is_admitted()
    }

    /// Whether a name of this directory is that of the file that the caller asked for.
    fn is_log(&self, name: &str) -> bool {
        name == self.name && !self.needs_right
    }

    /// Whether the caller may read a path besides the one that it asked for, and its rotations.
    fn may_read(&self, path: &Path) -> bool {
        self.may_read.allows(&self.tree.name, path)
    }

    /// Whether the rules admit a path for itself.
    fn admits(&self, path: &Path) -> bool {
        let globs = &self.tree.globs;
        globs.allow(path) || self.is_history && globs.is_history(path)
    }

    /// The device and the inode of the directory.
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        let stat = rustix::fs::fstat(&self.directory)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// A checksum by which a cursor names the directory.
    pub fn checksum(&self) -> io::Result<u32> {
        Ok(Identity::of(&File::from(self.directory.try_clone()?).metadata()?).checksum())
    }

    /// Whether other machines write to the file system of the directory. inotify does not report their changes, and what
    /// is read may be out of date.
    pub fn is_remote(&self) -> bool {
        rustix::fs::fstatfs(&self.directory)
            .is_ok_and(|it| REMOTE.iter().any(|(_, magic)| it.f_type == *magic))
    }

    /// A descriptor of the directory, for watching.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.directory.try_clone()
    }

    /// A path by which this process finds an open file or directory, wherever it is moved.
    pub fn watch_path(descriptor: BorrowedFd<'_>) -> PathBuf {
        use std::os::fd::AsRawFd;
        Path::new("/proc/self/fd").join(descriptor.as_raw_fd().to_string())
    }

    /// The names in this directory.
    fn read(&self) -> io::Result<impl Iterator<Item = io::Result<Entry>>> {
        // Opened again: a descriptor that only searches cannot be read, and another thread may read this one.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let entries = Dir::new(openat(&self.directory, ".", flags, Mode::empty())?)?;
        Ok(entries.filter_map(move |entry| match entry {
            Ok(entry) => {
                let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
                let kind = match entry.file_type() {
                    FileType::Unknown => self.kind(&name),
                    kind => kind,
                };
                let inode = entry.ino();
                (name != "." && name != "..").then_some(Ok(Entry { name, kind, inode }))
            }
            // The directory was removed.
            Err(Errno::NOENT) => None,
            Err(error) => Some(Err(error.into())),
        }))
    }

    /// The type of a name, for file systems whose directories do not hold it.
    fn kind(&self, name: &OsStr) -> FileType {
        let stat = statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW);
        stat.map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode))
    }

    /// A subdirectory; links are not followed.
    fn child(&self, name: &str) -> io::Result<Self> {
        if self.real.components().count() >= walk::MAX_DEPTH {
            return Err(Errno::NAMETOOLONG.into());
        }
        let Step::Directory(directory) = walk::step(self.directory.as_fd(), OsStr::new(name), Aim::Look)?
        else {
            return Err(Errno::NOTDIR.into());
        };
        let (asked, real) = (self.asked.join(name), self.real.join(name));
        let (tree, is_history) = (self.tree.clone(), self.is_history);
        let directory = Arc::new(directory);
        let (may_read, needs_right) = (self.may_read.clone(), self.needs_right);
        Ok(Self { tree, directory, asked, real, name: String::new(), is_history, may_read, needs_right })
    }

    fn is_denied(&self) -> bool {
        self.tree.globs.deny_directory(&self.asked) || self.tree.globs.deny_directory(&self.real)
    }

    /// Whether a list may have an entry of this name, or below it, as far as the rules say.
    fn may_hold(&self, name: &str, is_directory: bool) -> bool {
        let path = self.asked.join(name);
        if is_directory { !self.tree.globs.deny_directory(&path) } else { self.tree.globs.allow(&path) }
    }
}

#[cfg(test)]
mod tests;

//! The sandbox: the roots that the operator named, and files below them.
//!
//! A root is a directory that is opened once. Every file is opened beneath its descriptor, by `openat2` where there
//! is one (cap-std), so that no path, link or race leads outside; then the open file is looked at, and only a regular
//! one is read. A path is never checked as text and opened afterwards. Everything here blocks.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::SystemTime,
};

use cap_std::fs::{Dir, MetadataExt, OpenOptions, OpenOptionsExt};
use rustix::fs::OFlags;

use super::{Error, FileInfo, Page, RootError, source::Identity};

/// The longest path: Linux's own limit.
const MAX_PATH_BYTES: usize = 4096;

/// How deep directories are listed: deeper trees are no log directories, and may be endless through mounts.
const MAX_DEPTH: usize = 32;

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
    roots: BTreeMap<String, Dir>,
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
        let fault = |fault| Err(Error::PathInvalid { fault });
        if path.len() > MAX_PATH_BYTES {
            return fault("is longer than 4,096 bytes");
        }
        if path.contains('\0') {
            return fault("holds a NUL byte");
        }
        let Some((root, relative)) = path.split_once('/') else {
            return fault("names no file");
        };
        for part in path.split('/') {
            match part {
                "" => return fault("has an empty part"),
                "." | ".." => return fault("has a part `.` or `..`"),
                _ => {}
            }
        }
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

/// A directory that holds a file and its rotated generations.
#[derive(Debug)]
pub struct Parent {
    dir: Dir,
    /// The device and the inode.
    identity: (u64, u64),
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
    pub fn open(roots: Vec<(String, PathBuf)>) -> Result<Self, RootError> {
        let mut opened = BTreeMap::new();
        for (name, path) in roots {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
            if name.is_empty() || !name.bytes().all(plain) {
                return Err(RootError::Name { name });
            }
            let dir = Dir::open_ambient_dir(&path, cap_std::ambient_authority())
                .map_err(|source| RootError::Open { name: name.clone(), path, source })?;
            if opened.insert(name.clone(), dir).is_some() {
                return Err(RootError::Twice { name });
            }
        }
        Ok(Self { roots: opened })
    }

    /// Opens the directory that a file is in.
    pub fn parent(&self, path: &FilePath) -> io::Result<Parent> {
        let root = self.roots.get(&path.root).ok_or(io::ErrorKind::NotFound)?;
        let dir = if path.directory.as_os_str().is_empty() {
            root.try_clone()?
        } else {
            root.open_dir(&path.directory)?
        };
        let metadata = dir.dir_metadata()?;
        Ok(Parent { identity: (metadata.dev(), metadata.ino()), dir })
    }

    /// There is such a root.
    pub fn has(&self, path: &FilePath) -> bool {
        self.roots.contains_key(&path.root)
    }

    /// The files below a root or a directory of it, or below all roots, sorted by path, those behind `after`.
    pub fn list(&self, path: Option<&str>, page_size: usize, after: Option<&str>) -> Result<Page, Error> {
        let mut files = BTreeMap::new();
        match path {
            None => {
                for (name, dir) in &self.roots {
                    let listing = dir.try_clone();
                    listing.and_then(|dir| list(&dir, name, after, page_size + 1, MAX_DEPTH, &mut files))?;
                }
            }
            Some(path) => {
                let dir = self.directory(path).map_err(|_| Error::NotFound { path: path.into() })?;
                list(&dir, path, after, page_size + 1, MAX_DEPTH, &mut files)?;
            }
        }
        let more = files.len() > page_size;
        let files = files.into_values().take(page_size).collect::<Vec<_>>();
        let next = files.last().filter(|_| more).map(|file| file.path.clone());
        Ok(Page { files, next })
    }

    fn directory(&self, path: &str) -> io::Result<Dir> {
        let (root, relative) = path.split_once('/').unwrap_or((path, ""));
        let root = self.roots.get(root).ok_or(io::ErrorKind::NotFound)?;
        if relative.is_empty() { root.try_clone() } else { root.open_dir(relative) }
    }
}

/// Keeps the first `most` files below a directory that come behind `after`. Names that are not UTF-8 cannot be asked
/// for, and links to directories may lead in circles: both are left out.
fn list(
    dir: &Dir,
    path: &str,
    after: Option<&str>,
    most: usize,
    depth: usize,
    files: &mut BTreeMap<String, FileInfo>,
) -> io::Result<()> {
    for entry in dir.entries()? {
        let Ok(entry) = entry else { continue };
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = format!("{path}/{name}");
        // What vanishes, or may not be read, while it is listed is not there.
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            if depth > 0
                && let Ok(dir) = entry.open_dir()
            {
                let _ = list(&dir, &path, after, most, depth - 1, files);
            }
            continue;
        }
        let wanted = after.is_none_or(|after| path.as_str() > after)
            && (files.len() < most || files.last_key_value().is_some_and(|(last, _)| path < *last));
        let metadata = if kind.is_symlink() { dir.metadata(&name) } else { entry.metadata() };
        let Some(metadata) = metadata.ok().filter(|metadata| wanted && metadata.is_file()) else { continue };
        let modified =
            metadata.modified().map_or(SystemTime::UNIX_EPOCH, cap_std::time::SystemTime::into_std);
        files.insert(path.clone(), FileInfo { path, size: metadata.len(), modified });
        if files.len() > most {
            files.pop_last();
        }
    }
    Ok(())
}

impl Parent {
    /// Opens a file of this directory for reading. What is missing, denied, outside the root or no regular file gives
    /// an error all the same.
    pub fn open(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        // A FIFO without a writer must not block, and a terminal must not become ours.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        options.read(true).custom_flags(flags.bits().cast_signed());
        let file = self.dir.open_with(name, &options)?.into_std();
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(file)
    }

    /// Looks at a file without opening it, so that no permission is needed. None where there is no regular file.
    pub fn stat(&self, name: &str) -> Option<Found> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(OFlags::PATH.bits().cast_signed());
        let metadata = self.dir.open_with(name, &options).ok()?.into_std().metadata().ok()?;
        if !metadata.is_file() {
            return None;
        }
        let is_link = self.dir.symlink_metadata(name).is_ok_and(|it| it.file_type().is_symlink());
        let is_elsewhere = is_link || std::os::unix::fs::MetadataExt::nlink(&metadata) > 1;
        Some(Found { identity: Identity::of(&metadata), is_elsewhere })
    }

    /// The device and the inode: tells whether a path leads to another directory now.
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// The directory is on a file system that other machines write to: inotify does not tell of them, and what is read
    /// may be out of date.
    pub fn is_remote(&self) -> bool {
        rustix::fs::fstatfs(&self.dir).is_ok_and(|it| REMOTE.iter().any(|(_, magic)| it.f_type == *magic))
    }

    /// A descriptor of the directory, for watching.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        Ok(self.dir.try_clone()?.into())
    }

    /// A path by which this process finds the directory, wherever it is moved.
    pub fn watch_path(descriptor: BorrowedFd<'_>) -> PathBuf {
        use std::os::fd::AsRawFd;
        Path::new("/proc/self/fd").join(descriptor.as_raw_fd().to_string())
    }

    /// The regular files whose names begin with `name`: the file itself and those it may have been renamed to.
    pub fn siblings(&self, name: &str, most: usize) -> io::Result<Vec<Sibling>> {
        let mut siblings = Vec::new();
        for entry in self.dir.entries()?.flatten() {
            let Ok(found) = entry.file_name().into_string() else { continue };
            if !found.starts_with(name) || siblings.len() >= most {
                continue;
            }
            let Ok(metadata) = self.open(&found).and_then(|file| file.metadata()) else { continue };
            let identity = Identity::of(&metadata);
            siblings.push(Sibling { name: found, identity, modified: metadata.modified()? });
        }
        Ok(siblings)
    }
}

//! Walks from a root to the file that a path leads to, one name after another, and records the names.
//!
//! `openat2` with `RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS`, which cap-std uses, holds a path beneath a directory too,
//! but does not report where its links led, which the rules need, and cannot follow an absolute link. After four renames
//! elsewhere on the machine, or without `openat2`, cap-std does the same as this file
//! (cap-primitives 4.0.3, src/rustix/linux/fs/open_impl.rs and src/fs/manually/open.rs).
//!
//! Each step opens one name in a directory that is open, and never follows a link (`O_NOFOLLOW`): a name without `/`
//! that is not `..` cannot lead out of its directory, whatever is renamed meanwhile. The text of a link is read and
//! walked step by step; `..` goes back to the directory that the walk came from, which is held open, and never above the
//! root. A link of /proc is walked by its text like any other.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, openat, readlinkat, statat},
    io::Errno,
};

/// The most links in a path: Linux's own limit.
const MAX_LINKS: usize = 40;

/// The most directories in a path: each of them is held open while the path is walked, or the directory is listed.
pub const MAX_DEPTH: usize = 64;

/// The flags for a directory on the way, and for a file to inspect: neither takes permission to read it.
#[cfg(target_os = "linux")]
const SEARCH: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const SEARCH: OFlags = OFlags::RDONLY;

/// What a file is opened for.
#[derive(Clone, Copy, Debug)]
pub enum Aim {
    /// Reading.
    Read,
    /// Inspecting, which takes no permission to read it.
    Look,
}

/// The meaning of a name in a directory.
#[derive(Debug)]
pub enum Step {
    /// A regular file, open.
    File(File),
    /// A directory to continue from.
    Directory(OwnedFd),
    /// A link, and its text.
    Link(PathBuf),
}

/// The end of a walk.
#[derive(Debug)]
pub struct Found<T> {
    pub handle: T,
    /// The names from the root to it; no name is a link.
    pub path: PathBuf,
}

/// A link on the way of a walk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    /// The directory that it is in, by its path below the root.
    pub directory: PathBuf,
    pub name: OsString,
    /// The names after it on the path; empty if it is the file's own name.
    pub rest: PathBuf,
}

/// Whether this is the name of an entry of a directory, and no path.
pub fn is_name(name: &OsStr) -> bool {
    let mut parts = Path::new(name).components();
    matches!(parts.next(), Some(Component::Normal(part)) if part == name) && parts.next().is_none()
}

/// Opens a name in a directory. Other than a file, a directory or a link counts as missing and is not even opened, since
/// that may wake a FIFO's writer or wind a tape.
pub fn step(directory: BorrowedFd<'_>, name: &OsStr, aim: Aim) -> io::Result<Step> {
    if !is_name(name) {
        return Err(Errno::NOENT.into());
    }
    let kind = FileType::from_raw_mode(statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
    let open = |flags| openat(directory, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    match kind {
        FileType::Symlink => {
            let text = readlinkat(directory, name, Vec::new())?.into_bytes();
            Ok(Step::Link(OsString::from_vec(text).into()))
        }
        FileType::Directory => Ok(Step::Directory(open(SEARCH | OFlags::DIRECTORY)?)),
        FileType::RegularFile => {
            // The name may be another file by now: a FIFO must not block, and a terminal must not become ours.
            let flags = match aim {
                Aim::Read => OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY,
                Aim::Look => SEARCH | OFlags::NONBLOCK | OFlags::NOCTTY,
            };
            let file = File::from(open(flags)?);
            if file.metadata()?.is_file() { Ok(Step::File(file)) } else { Err(Errno::NOENT.into()) }
        }
        _ => Err(Errno::NOENT.into()),
    }
}

/// Opens the directory that a path below a root leads to. An absolute link is below the root if it begins with one of
/// its `homes`.
pub fn directory(root: &OwnedFd, homes: &[PathBuf], path: &Path) -> io::Result<Found<OwnedFd>> {
    let mut walk = Walk::new(root, homes, path);
    while let Some(name) = walk.ahead.pop() {
        match walk.step(name, Aim::Look)? {
            None => {}
            Some(_) => return Err(Errno::NOTDIR.into()),
        }
    }
    let path = walk.path();
    let handle = match walk.above.pop() {
        Some((directory, _)) => directory,
        None => root.try_clone()?,
    };
    Ok(Found { handle, path })
}

/// Opens the file that a path below a root leads to; `homes` as above.
pub fn file(root: &OwnedFd, homes: &[PathBuf], path: &Path, aim: Aim) -> io::Result<Found<File>> {
    let mut walk = Walk::new(root, homes, path);
    while let Some(name) = walk.ahead.pop() {
        match walk.step(name, aim)? {
            None => {}
            Some(found) if walk.ahead.is_empty() => return Ok(found),
            Some(_) => return Err(Errno::NOTDIR.into()),
        }
    }
    Err(Errno::ISDIR.into())
}

/// The links on the way to a file, as far as the path leads, and the names from the root to the file. It need not be there;
/// `None` if its directory is missing, or it is no file.
pub fn links(root: &OwnedFd, homes: &[PathBuf], path: &Path) -> (Vec<Link>, Option<PathBuf>) {
    let mut walk = Walk::new(root, homes, path);
    let mut end = None;
    while let Some(name) = walk.ahead.pop() {
        let is_last = walk.ahead.is_empty();
        match walk.step(name.clone(), Aim::Look) {
            Ok(None) => {}
            Ok(Some(found)) => end = Some(found.path).filter(|_| is_last),
            Err(error) => {
                let is_missing = is_last && error.kind() == io::ErrorKind::NotFound;
                end = is_missing.then(|| walk.path().join(name));
                break;
            }
        }
    }
    (walk.links, end)
}

/// A path that is being walked.
struct Walk<'a> {
    root: &'a OwnedFd,
    homes: &'a [PathBuf],
    /// The directories that were entered below the root, the innermost last.
    above: Vec<(OwnedFd, OsString)>,
    /// The names still to be walked, the next one last.
    ahead: Vec<OsString>,
    /// The links that were followed.
    links: Vec<Link>,
}

impl<'a> Walk<'a> {
    fn new(root: &'a OwnedFd, homes: &'a [PathBuf], path: &Path) -> Self {
        let mut walk = Self { root, homes, above: Vec::new(), ahead: Vec::new(), links: Vec::new() };
        walk.push(path);
        walk
    }

    fn push(&mut self, path: &Path) {
        let names = path.components().rev().filter(|part| !matches!(part, Component::CurDir));
        self.ahead.extend(names.map(|part| part.as_os_str().to_owned()));
    }

    /// The path of the directory that was reached.
    fn path(&self) -> PathBuf {
        self.above.iter().map(|(_, name)| name).collect()
    }

    /// Walks one name further. Returns the file that it reaches, if it is one.
    fn step(&mut self, name: OsString, aim: Aim) -> io::Result<Option<Found<File>>> {
        if name == ".." {
            // Nothing is above the root.
            self.above.pop().ok_or(Errno::XDEV)?;
            return Ok(None);
        }
        let here = self.above.last().map_or(self.root.as_fd(), |(directory, _)| directory.as_fd());
        match step(here, &name, aim)? {
            Step::Directory(_) if self.above.len() >= MAX_DEPTH => return Err(Errno::NAMETOOLONG.into()),
            Step::Directory(directory) => self.above.push((directory, name)),
            Step::Link(text) => {
                let rest = self.ahead.iter().rev().collect();
                self.links.push(Link { directory: self.path(), name, rest });
                self.follow(&text)?;
            }
            Step::File(handle) => return Ok(Some(Found { handle, path: self.path().join(name) })),
        }
        Ok(None)
    }

    fn follow(&mut self, text: &Path) -> io::Result<()> {
        if self.links.len() > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        if text.is_relative() {
            self.push(text);
            return Ok(());
        }
        let below = self.homes.iter().find_map(|home| text.strip_prefix(home).ok()).ok_or(Errno::XDEV)?;
        self.above.clear();
        self.push(below);
        Ok(())
    }
}

//! From a root to what a path leads to, one name after another, and by which names.
//!
//! `openat2` with `RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS`, which cap-std uses, holds a path beneath a directory too,
//! but does not tell where its links led, which the rules have to judge, and cannot follow an absolute one. After four
//! renames elsewhere on the machine, or without `openat2`, cap-std does what is done here
//! (cap-primitives 4.0.3, src/rustix/linux/fs/open_impl.rs and src/fs/manually/open.rs).
//!
//! Each step opens one name in a directory that is open, and never follows a link (`O_NOFOLLOW`): a name without `/`
//! that is not `..` cannot lead out of its directory, whatever is renamed meanwhile. A link's own text is read, and
//! taken step by step; `..` goes back to the directory that was come from, which is held open, and never above the
//! root. A link of /proc has a text like any other, and its magic is never asked for.

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

/// How many links a path may lead through: Linux's own limit.
const MAX_LINKS: usize = 40;

/// How deep a path may lead: each directory on the way is held open while it is walked, and while what is below it is
/// listed.
pub const MAX_DEPTH: usize = 64;

/// How a directory on the way is opened, and a file to look at: neither takes permission to read it.
#[cfg(target_os = "linux")]
const SEARCH: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const SEARCH: OFlags = OFlags::RDONLY;

/// What a file is wanted for.
#[derive(Clone, Copy, Debug)]
pub enum Aim {
    /// To read it.
    Read,
    /// To look at it, which takes no permission to read it.
    Look,
}

/// What a name of a directory stands for.
#[derive(Debug)]
pub enum Step {
    /// A regular file, open for what it is wanted for.
    File(File),
    /// A directory, to go on from.
    Directory(OwnedFd),
    /// A link, and its text.
    Link(PathBuf),
}

/// Where a path led.
#[derive(Debug)]
pub struct Found<T> {
    /// Open.
    pub handle: T,
    /// By which names, relative to the root; none of them was a link.
    pub path: PathBuf,
}

/// Opens what a name of a directory stands for. What is neither a file, a directory nor a link is not there: it is not
/// even opened, since that may wake a FIFO's writer or wind a tape.
pub fn step(directory: BorrowedFd<'_>, name: &OsStr, aim: Aim) -> io::Result<Step> {
    let mut parts = Path::new(name).components();
    let is_name = matches!(parts.next(), Some(Component::Normal(part)) if part == name);
    if !is_name || parts.next().is_some() {
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
            // It may be another one by now: a FIFO must not block, nor a terminal become ours.
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

/// Opens the directory that a path below a root leads to. Absolute links are taken to be below the root if they begin
/// with one of its `homes`.
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

/// A path that is being walked.
struct Walk<'a> {
    root: &'a OwnedFd,
    homes: &'a [PathBuf],
    /// The directories that were entered below the root, the innermost last.
    above: Vec<(OwnedFd, OsString)>,
    /// What is still to be walked, the next name last.
    ahead: Vec<OsString>,
    links: usize,
}

impl<'a> Walk<'a> {
    fn new(root: &'a OwnedFd, homes: &'a [PathBuf], path: &Path) -> Self {
        let mut walk = Self { root, homes, above: Vec::new(), ahead: Vec::new(), links: 0 };
        walk.push(path);
        walk
    }

    fn push(&mut self, path: &Path) {
        let names = path.components().rev().filter(|part| !matches!(part, Component::CurDir));
        self.ahead.extend(names.map(|part| part.as_os_str().to_owned()));
    }

    /// The names of the directory that was reached.
    fn path(&self) -> PathBuf {
        self.above.iter().map(|(_, name)| name).collect()
    }

    /// Goes one name further. Gives a file that it comes to.
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
            Step::Link(text) => self.follow(&text)?,
            Step::File(handle) => return Ok(Some(Found { handle, path: self.path().join(name) })),
        }
        Ok(None)
    }

    fn follow(&mut self, text: &Path) -> io::Result<()> {
        self.links += 1;
        if self.links > MAX_LINKS {
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

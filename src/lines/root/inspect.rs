//! Inspects a name in a directory, by one system call where it is a file: each followed path is inspected once a second.

use std::{ffi::OsStr, fs::Metadata, io, os::unix::fs::MetadataExt, sync::Arc};

use rustix::{
    fs::{AtFlags, FileType, StatxFlags, statat, statx},
    io::Errno,
};

use super::{
    Parent,
    walk::{self, Aim},
};
use crate::lines::identity::Identity;

/// What a name is.
#[derive(Clone, Copy, Debug)]
pub enum Named {
    /// A regular file that the rules admit.
    File(Found),
    /// A link, wherever it leads.
    Link,
    /// Nothing that can be read.
    Nothing,
}

/// A file at a path, as far as it is known without opening it for reading.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    pub identity: Identity,
    /// It has another name too, or is the target of a link, so it may be written to without an event in this directory.
    pub is_elsewhere: bool,
    pub stamp: Stamp,
}

/// What changes when a file is written to, renamed or given other permissions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stamp {
    size: u64,
    /// When the content changed last: the seconds since 1970 and the nanoseconds after them.
    modified: (i64, i64),
    /// When anything of it changed last.
    changed: (i64, i64),
}

impl Stamp {
    pub fn of(it: &Metadata) -> Self {
        Self {
            size: it.size(),
            modified: (it.mtime(), it.mtime_nsec()),
            changed: (it.ctime(), it.ctime_nsec()),
        }
    }
}

impl Parent {
    /// Inspects a name, which takes no permission to read the file.
    pub fn inspect(&self, name: &str) -> Named {
        match self.inspect_at_once(name) {
            Ok(named) => named,
            Err(Errno::NOENT) => Named::Nothing,
            // The system has no statx, or forbids it.
            Err(_) if self.is_link(name).unwrap_or(false) => Named::Link,
            Err(_) => self.open_to_inspect(name).map_or(Named::Nothing, Named::File),
        }
    }

    /// Inspects a file. `None` if no regular file is there that the rules admit.
    pub fn stat(&self, name: &str) -> Option<Found> {
        match self.inspect(name) {
            Named::File(found) => Some(found),
            Named::Link => self.open_to_inspect(name).ok(),
            Named::Nothing => None,
        }
    }

    fn inspect_at_once(&self, name: &str) -> Result<Named, Errno> {
        if !walk::is_name(OsStr::new(name)) {
            return Err(Errno::NOENT);
        }
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let it = statx(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW, wanted)?;
        match FileType::from_raw_mode(it.stx_mode.into()) {
            FileType::Symlink => return Ok(Named::Link),
            FileType::RegularFile if self.allows_file(name, it.stx_nlink.into()) => {}
            _ => return Ok(Named::Nothing),
        }
        let time = |time: rustix::fs::StatxTimestamp| (time.tv_sec, time.tv_nsec.into());
        let stamp = Stamp { size: it.stx_size, modified: time(it.stx_mtime), changed: time(it.stx_ctime) };
        let (identity, is_elsewhere) = (Identity::of_statx(&it), it.stx_nlink > 1);
        Ok(Named::File(Found { identity, is_elsewhere, stamp }))
    }

    /// Follows links.
    fn open_to_inspect(&self, name: &str) -> io::Result<Found> {
        let (file, is_link) = self.find(name, Aim::Look)?;
        let metadata = file.metadata()?;
        let is_elsewhere = is_link || metadata.nlink() > 1;
        Ok(Found { identity: Identity::of(&metadata), is_elsewhere, stamp: Stamp::of(&metadata) })
    }

    /// Whether the path to this directory is none that leads over a link, nor this a link in it.
    pub fn is_plain(&self, named: &Named) -> bool {
        self.real == self.asked && !matches!(named, Named::Link)
    }

    fn is_link(&self, name: &str) -> io::Result<bool> {
        let stat = statat(&*self.directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
    }

    /// Whether both are one directory, wherever it is now.
    pub fn is_same(&self, other: &Self) -> io::Result<bool> {
        Ok(Arc::ptr_eq(&self.directory, &other.directory) || self.identity()? == other.identity()?)
    }
}

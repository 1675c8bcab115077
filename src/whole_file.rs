//! Files that keep where a reader is: whole at every moment, and of one process at a time.
//!
//! A new content is written to a file beside the old one, synced, and renamed over it. A process that has a file holds the
//! lock of the file at the path, and locks a new file before it puts it there. A crash leaves the old content or the new.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read, Seek, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::directory;

/// The number of symbolic links that Linux follows in a path.
const MAX_LINKS: usize = 40;

/// The permissions of a file where there was none: a position may name files and topics.
const MODE: u32 = 0o600;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is something else at the path: a directory, a pipe.
    #[error("{} is {what}", file.display())]
    NotAFile {
        /// The path of what is there.
        file: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// Another process has the file, or another stream of this one.
    #[error("{} is in use", .0.display())]
    InUse(PathBuf),
    /// An error of the file system.
    #[error("{} cannot be {what}: {cause}", file.display())]
    Io {
        /// The path of the file.
        file: PathBuf,
        /// The step that failed: `opened`.
        what: &'static str,
        /// The error.
        cause: io::Error,
    },
}

/// A file that this process has, until it is dropped.
#[derive(Debug)]
pub struct WholeFile {
    path: PathBuf,
    /// The file at the path; it holds the lock.
    locked: File,
}

impl WholeFile {
    /// Opens the file at a path, or returns `None` if there is no file.
    ///
    /// # Errors
    /// [`Error::InUse`] if another process has it; [`Error::NotAFile`]; [`Error::Io`].
    pub fn open(path: &Path) -> Result<Option<Self>, Error> {
        let path = target(path);
        loop {
            match fs::metadata(&path) {
                Ok(found) if !found.is_file() => {
                    // To open a pipe would wait for its other end.
                    let what = if found.is_dir() { "a directory" } else { "not a regular file" };
                    return Err(Error::NotAFile { file: path, what });
                }
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                // Any other error is one of opening it, too.
                Ok(_) | Err(_) => {}
            }
            let file = match OpenOptions::new().read(true).write(true).open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                file => file.map_err(io_error(&path, "opened"))?,
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(Error::InUse(path)),
                Err(TryLockError::Error(cause)) => return Err(io_error(&path, "locked")(cause)),
            }
            // Between the two steps its owner may have put another file in its place.
            let (here, there) = (file.metadata(), fs::metadata(&path));
            if here.is_ok_and(|here| there.is_ok_and(|it| (it.dev(), it.ino()) == (here.dev(), here.ino()))) {
                return Ok(Some(Self { path, locked: file }));
            }
        }
    }

    /// Makes a file with this content at a path where there is none: at no time is it an empty one.
    ///
    /// # Errors
    /// [`Error::InUse`] if there is a file; [`Error::Io`].
    pub fn create(path: &Path, text: &str) -> Result<Self, Error> {
        let path = target(path);
        let beside = beside(&path, &format!("{}-{}", std::process::id(), fastrand::u32(..)));
        let placed = write_beside(&beside, &beside, text).and_then(|file| {
            fs::hard_link(&beside, &path).or_else(|error| match error.kind() {
                // A file system without hard links.
                ErrorKind::PermissionDenied | ErrorKind::Unsupported => fs::rename(&beside, &path),
                _ => Err(error),
            })?;
            // A later rename over it leaves the old content or the new, which both continue.
            directory::sync_name(&path)?;
            Ok(file)
        });
        let _ = fs::remove_file(&beside);
        match placed {
            Ok(locked) => Ok(Self { path, locked }),
            // Another process was faster.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(Error::InUse(path)),
            Err(error) => Err(io_error(&path, "created")(error)),
        }
    }

    /// The path, after the links in it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The content, up to `max_bytes` and one more byte.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn read(&self, max_bytes: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let mut file = &self.locked;
        let read =
            file.rewind().and_then(|()| file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes));
        read.map_err(io_error(&self.path, "read"))?;
        Ok(bytes)
    }

    /// Puts a new content in place of the old one. After an error the file has the old one.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn replace(&mut self, text: &str) -> Result<(), Error> {
        let beside = beside(&self.path, "new");
        // A killed run may have left one.
        let _ = fs::remove_file(&beside);
        let placed = write_beside(&beside, &self.path, text).and_then(|file| {
            fs::rename(&beside, &self.path)?;
            Ok(file)
        });
        if placed.is_err() {
            // On a full disk it takes room.
            let _ = fs::remove_file(&beside);
        }
        self.locked = placed.map_err(io_error(&self.path, "written"))?;
        Ok(())
    }
}

/// The path to which symbolic links lead, even if nothing is there yet: a link stays, and its target is replaced.
fn target(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(link) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(link);
    }
    fs::canonicalize(&path).unwrap_or(path)
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.perennial-{what}"))
}

/// Writes a new file, locked and synced, with the permissions of another one if that exists.
fn write_beside(beside: &Path, other: &Path, text: &str) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(MODE).open(beside)?;
    file.try_lock()?;
    if let Ok(other) = fs::metadata(other) {
        file.set_permissions(other.permissions())?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(file)
}

fn io_error(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> Error {
    let file = path.to_owned();
    move |cause| Error::Io { file, what, cause }
}

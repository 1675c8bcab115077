//! The file in which `perennial lines --resume FILE` keeps cursors from one run to the next.
//!
//! The first line is a header, then there is one line for each cursor, and the last line marks the end:
//!
//! ```text
//! perennial cursor 2 lines
//! CURSOR logs/app.log
//! end
//! ```
//!
//! Promises that the file at the path is always whole: a new file is written beside it, synced, and renamed. One process
//! has it at a time: it holds the lock of the file at the path, and locks a new file before it puts it there. A file
//! that is not understood, or is not whole, is an error and stays as it is, because to read from the start instead
//! would print every line again. The caller decides when to save.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The first line, with the version of the format.
const HEADER: &str = "perennial cursor 2 lines";
/// The first line of a file without a last line; such files are read, too.
const HEADER_1: &str = "perennial cursor 1 lines";
/// The beginning of every version's first line.
const ANY_HEADER: &str = "perennial cursor ";
/// The last line: a file without it was cut.
const END: &str = "end";
/// The number of symbolic links that Linux follows in a path.
const MAX_LINKS: usize = 40;
/// Larger than any of our files: a thousand paths and cursors of the largest size.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// Why a file cannot keep the cursors.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{} is {what}, not a file that can keep cursors; give --resume another name", file.display())]
    NotAFile { file: PathBuf, what: &'static str },
    #[error("{} is empty, so it holds no cursor; delete it to read from the start", .0.display())]
    Empty(PathBuf),
    #[error("{} is not a file of cursors, which begins with {HEADER:?}; give --resume another name", .0.display())]
    Foreign(PathBuf),
    #[error("{} was written by a newer perennial, or for another command: {header:?}", file.display())]
    OtherVersion { file: PathBuf, header: String },
    #[error("{} is not whole: its end is missing; restore it, or delete it to read from the start", .0.display())]
    Truncated(PathBuf),
    #[error("line {line} of {} is damaged; restore the file, or delete it to read from the start", file.display())]
    Damaged { file: PathBuf, line: usize },
    #[error("{} holds two cursors for {path}; delete it to read from the start", file.display())]
    Twice { file: PathBuf, path: String },
    #[error("another perennial uses {}; end it first, or give --resume another name", .0.display())]
    InUse(PathBuf),
    #[error(
        "{} holds a cursor for {path}, which this command does not read; name it too, or give --resume another file",
        file.display()
    )]
    OtherPath { file: PathBuf, path: String },
    #[error("the cursor of a path with a line break cannot be kept: {0:?}")]
    Path(String),
    #[error("{} cannot be {what}: {cause}", file.display())]
    Io { file: PathBuf, what: &'static str, cause: io::Error },
}

/// The file, locked until it is dropped.
#[derive(Debug)]
pub struct CursorFile {
    path: PathBuf,
    text: String,
    /// The file at the path; it holds the lock.
    locked: File,
}

/// A path, and the cursor that was reached in it.
pub type Entry = (String, String);

impl CursorFile {
    /// Opens or creates the file, and returns its cursors. They must be for paths in `wanted`.
    pub fn open(path: &Path, wanted: &[String]) -> Result<(Self, Vec<Entry>), Error> {
        if let Some(broken) = wanted.iter().find(|path| path.contains(['\n', '\r'])) {
            return Err(Error::Path(broken.clone()));
        }
        let path = target(path);
        let locked = lock(&path)?;
        let text = read(&path, &locked)?;
        let entries = parse(&path, &text)?;
        if let Some((other, _)) = entries.iter().find(|(path, _)| !wanted.contains(path)) {
            return Err(Error::OtherPath { file: path, path: other.clone() });
        }
        let mut file = Self { path, text: String::new(), locked };
        // A file that cannot be written is an error now, and not after the first lines.
        file.save(entries.iter().map(|(path, cursor)| (path.as_str(), cursor.as_str())))?;
        Ok((file, entries))
    }

    /// Replaces its cursors, given with their paths. After an error the file holds those of the last time.
    pub fn save<'a>(&mut self, entries: impl Iterator<Item = (&'a str, &'a str)>) -> Result<(), Error> {
        let text = text(entries);
        if text == self.text {
            return Ok(());
        }
        self.locked = replace(&self.path, &text).map_err(io_error(&self.path, "written"))?;
        self.text = text;
        Ok(())
    }
}

fn text<'a>(entries: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let lines = entries.map(|(path, cursor)| format!("{cursor} {path}\n")).collect::<String>();
    format!("{HEADER}\n{lines}{END}\n")
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

/// Puts a new file at a path in one step, and returns it locked.
fn replace(path: &Path, text: &str) -> io::Result<File> {
    let beside = beside(path, "new");
    // A killed run may have left one.
    let _ = fs::remove_file(&beside);
    let placed = write_beside(&beside, path, text).and_then(|file| {
        fs::rename(&beside, path)?;
        Ok(file)
    });
    if placed.is_err() {
        // On a full disk it takes room.
        let _ = fs::remove_file(&beside);
    }
    placed
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.perennial-{what}"))
}

/// Writes a new file, locked and synced, with the permissions of another one if that exists.
fn write_beside(beside: &Path, other: &Path, text: &str) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(beside)?;
    file.try_lock()?;
    if let Ok(other) = fs::metadata(other) {
        file.set_permissions(other.permissions())?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(file)
}

/// Puts a file without cursors at a path where there is none: at no time is it an empty one.
fn create(path: &Path) -> io::Result<()> {
    let beside = beside(path, &std::process::id().to_string());
    let _ = fs::remove_file(&beside);
    let created = write_beside(&beside, &beside, &text(std::iter::empty()))
        .and_then(|_| fs::hard_link(&beside, path))
        .or_else(|error| match error.kind() {
            // Another process was faster: that one is used.
            ErrorKind::AlreadyExists => Ok(()),
            // A file system without hard links.
            ErrorKind::PermissionDenied | ErrorKind::Unsupported => fs::rename(&beside, path),
            _ => Err(error),
        });
    let _ = fs::remove_file(&beside);
    created
}

fn lock(path: &Path) -> Result<File, Error> {
    loop {
        match fs::metadata(path) {
            Ok(found) if !found.is_file() => {
                // To open a pipe would wait for its other end.
                let what = if found.is_dir() { "a directory" } else { "not a regular file" };
                return Err(Error::NotAFile { file: path.to_owned(), what });
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                create(path).map_err(io_error(path, "created"))?;
            }
            // Any other error is one of opening it, too.
            Ok(_) | Err(_) => {}
        }
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(io_error(path, "opened"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse(path.to_owned())),
            Err(TryLockError::Error(cause)) => return Err(io_error(path, "locked")(cause)),
        }
        // Between the two steps its owner may have put another file in its place.
        let (here, there) = (file.metadata(), fs::metadata(path));
        if here.is_ok_and(|here| there.is_ok_and(|it| (it.dev(), it.ino()) == (here.dev(), here.ino()))) {
            return Ok(file);
        }
    }
}

fn read(path: &Path, file: &File) -> Result<String, Error> {
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io_error(path, "read"))?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > MAX_BYTES) {
        return Err(Error::Foreign(path.to_owned()));
    }
    String::from_utf8(bytes).map_err(|_| Error::Foreign(path.to_owned()))
}

fn parse(file: &Path, text: &str) -> Result<Vec<Entry>, Error> {
    let file = || file.to_owned();
    if text.trim().is_empty() {
        return Err(Error::Empty(file()));
    }
    let Some((header, body)) = text.split_once('\n') else {
        let is_begun = HEADER.starts_with(text) || HEADER_1.starts_with(text);
        return Err(if is_begun { Error::Truncated(file()) } else { Error::Foreign(file()) });
    };
    let has_end = match header {
        HEADER => true,
        HEADER_1 => false,
        _ if header.starts_with(ANY_HEADER) => {
            return Err(Error::OtherVersion { file: file(), header: header.to_owned() });
        }
        _ => return Err(Error::Foreign(file())),
    };
    // An editor may have added line breaks, or removed the last one.
    let body = if has_end { body.trim_end() } else { body };
    let last = if has_end { END } else { "" };
    let lines = match body.rsplit_once('\n').unwrap_or(("", body)) {
        (lines, end) if end == last => lines,
        _ => return Err(Error::Truncated(file())),
    };
    let mut entries = Vec::<Entry>::new();
    for (n, line) in lines.lines().enumerate() {
        let entry = line.split_once(' ').filter(|(cursor, path)| !cursor.is_empty() && !path.is_empty());
        let (cursor, path) = entry
            .filter(|_| !line.contains('\r'))
            .ok_or_else(|| Error::Damaged { file: file(), line: n + 2 })?;
        if entries.iter().any(|(other, _)| other == path) {
            return Err(Error::Twice { file: file(), path: path.to_owned() });
        }
        entries.push((path.to_owned(), cursor.to_owned()));
    }
    Ok(entries)
}

fn io_error(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> Error {
    let file = path.to_owned();
    move |cause| Error::Io { file, what, cause }
}

#[cfg(test)]
mod tests;

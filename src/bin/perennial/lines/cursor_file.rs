//! The file that keeps the cursors of `perennial lines` from one run to the next.
//!
//! Promises that what is at the path is always whole: a new file is written beside it, synced, and renamed. Only one
//! process has it at a time: it holds the lock of the file at the path, and locks a new file before it puts it there.
//! A file that is something else is never changed. When a cursor may be saved is left to the caller.

use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The first line: what it is, and in which version.
const HEADER: &str = "perennial cursor 1 lines";
/// As many links as the system follows.
const MAX_LINKS: usize = 40;
/// Above any of ours: a thousand paths and cursors of the largest size.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// Why a file cannot keep the cursors.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{} is not a file of cursors, which begins with {HEADER:?}; give --resume another name", .0.display())]
    Foreign(PathBuf),
    #[error("line {line} of {} is damaged; delete the file to start anew", file.display())]
    Damaged { file: PathBuf, line: usize },
    #[error("another perennial uses {}; end it first, or give --resume another name", .0.display())]
    Taken(PathBuf),
    #[error(
        "{} keeps the place in {path}, which is not asked for; ask for it too, or give --resume another name",
        file.display()
    )]
    OtherPath { file: PathBuf, path: String },
    #[error("a path with a line break in it cannot be kept: {0:?}")]
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
    /// Opens or makes the file, and gives what it keeps of `asked`. It may not keep anything else.
    pub fn open(path: &Path, asked: &[String]) -> Result<(Self, Vec<Entry>), Error> {
        if let Some(broken) = asked.iter().find(|path| path.contains(['\n', '\r'])) {
            return Err(Error::Path(broken.clone()));
        }
        let path = target(path);
        let locked = lock(&path)?;
        let text = read(&path, &locked)?;
        let entries = parse(&path, &text)?;
        if let Some((other, _)) = entries.iter().find(|(path, _)| !asked.contains(path)) {
            return Err(Error::OtherPath { file: path, path: other.clone() });
        }
        let mut file = Self { path, text: String::new(), locked };
        // What cannot be written is said now, and not after the first lines.
        file.save(entries.iter().map(|(path, cursor)| (path.as_str(), cursor.as_str())))?;
        Ok((file, entries))
    }

    /// Replaces what it keeps.
    pub fn save<'a>(&mut self, entries: impl Iterator<Item = (&'a str, &'a str)>) -> Result<(), Error> {
        let mut text = format!("{HEADER}\n");
        for (path, cursor) in entries {
            // A String takes anything.
            let _ = writeln!(text, "{cursor} {path}");
        }
        if text == self.text {
            return Ok(());
        }
        self.locked = replace(&self.path, &text).map_err(io_error(&self.path, "written"))?;
        self.text = text;
        Ok(())
    }
}

/// Where the links of a path lead, though there be nothing yet: a link stays one, and what it points at is replaced.
fn target(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(link) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(link);
    }
    fs::canonicalize(&path).unwrap_or(path)
}

/// Puts a new file at a path, in one step, and gives it locked.
fn replace(path: &Path, text: &str) -> io::Result<File> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.perennial-new"));
    // One that a killed run left.
    let _ = fs::remove_file(&beside);
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&beside)?;
    file.try_lock()?;
    // Who may read the old one may read the new one, and nobody else.
    if let Ok(old) = fs::metadata(path) {
        file.set_permissions(old.permissions())?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    Ok(file)
}

fn lock(path: &Path) -> Result<File, Error> {
    loop {
        // To open a pipe would wait for its other end.
        if fs::metadata(path).is_ok_and(|it| !it.is_file()) {
            return Err(Error::Foreign(path.to_owned()));
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(io_error(path, "opened"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Taken(path.to_owned())),
            Err(TryLockError::Error(cause)) => return Err(io_error(path, "locked")(cause)),
        }
        // Who had it may have put another one in its place between the two steps.
        let (here, there) = (file.metadata(), fs::metadata(path));
        if here.is_ok_and(|here| there.is_ok_and(|it| (it.dev(), it.ino()) == (here.dev(), here.ino()))) {
            return Ok(file);
        }
    }
}

fn read(path: &Path, file: &File) -> Result<String, Error> {
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(io_error(path, "read"))?;
    String::from_utf8(bytes).map_err(|_| Error::Foreign(path.to_owned()))
}

fn parse(path: &Path, text: &str) -> Result<Vec<Entry>, Error> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut lines = text.split('\n').enumerate();
    if lines.next().is_none_or(|(_, first)| first != HEADER) {
        return Err(Error::Foreign(path.to_owned()));
    }
    let entry = |(n, line): (usize, &str)| match line.split_once(' ') {
        Some((cursor, path)) if !cursor.is_empty() && !path.is_empty() => {
            Ok((path.to_owned(), cursor.to_owned()))
        }
        _ => Err(Error::Damaged { file: path.to_owned(), line: n + 1 }),
    };
    lines.filter(|(_, line)| !line.is_empty()).map(entry).collect()
}

fn io_error(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> Error {
    let file = path.to_owned();
    move |cause| Error::Io { file, what, cause }
}

#[cfg(test)]
mod tests;

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
    io,
    path::{Path, PathBuf},
};

use perennial::whole_file::{self, WholeFile};

/// The first line, with the version of the format.
const HEADER: &str = "perennial cursor 2 lines";
/// The first line of a file without a last line; such files are read, too.
const HEADER_1: &str = "perennial cursor 1 lines";
/// The beginning of every version's first line.
const ANY_HEADER: &str = "perennial cursor ";
/// The last line: a file without it was cut.
const END: &str = "end";
/// Larger than any of our files: ten thousand paths and cursors of the largest size.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

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

impl From<whole_file::Error> for Error {
    fn from(error: whole_file::Error) -> Self {
        match error {
            whole_file::Error::NotAFile { file, what } => Self::NotAFile { file, what },
            whole_file::Error::InUse(file) => Self::InUse(file),
            whole_file::Error::Io { file, what, cause } => Self::Io { file, what, cause },
        }
    }
}

/// The file, locked until it is dropped.
#[derive(Debug)]
pub struct CursorFile {
    text: String,
    file: WholeFile,
}

/// A path, and the cursor that was reached in it.
pub type Entry = (String, String);

impl CursorFile {
    /// Opens or creates the file, and returns its cursors. They must be for paths in `wanted`, unless `takes_others`.
    pub fn open(path: &Path, wanted: &[String], takes_others: bool) -> Result<(Self, Vec<Entry>), Error> {
        if let Some(broken) = wanted.iter().find(|path| path.contains(['\n', '\r'])) {
            return Err(Error::Path(broken.clone()));
        }
        let file = open_or_create(path)?;
        let path = file.path().to_owned();
        let text = read(&file)?;
        let entries = parse(&path, &text)?;
        let is_other = |(path, _): &&Entry| !takes_others && !wanted.contains(path);
        if let Some((other, _)) = entries.iter().find(is_other) {
            return Err(Error::OtherPath { file: path, path: other.clone() });
        }
        let mut file = Self { text: String::new(), file };
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
        self.file.replace(&text)?;
        self.text = text;
        Ok(())
    }
}

fn text<'a>(entries: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let lines = entries.map(|(path, cursor)| format!("{cursor} {path}\n")).collect::<String>();
    format!("{HEADER}\n{lines}{END}\n")
}

/// Opens the file at a path, or puts one without cursors there.
fn open_or_create(path: &Path) -> Result<WholeFile, whole_file::Error> {
    loop {
        if let Some(file) = WholeFile::open(path)? {
            return Ok(file);
        }
        match WholeFile::create(path, &text(std::iter::empty())) {
            // Another process was faster.
            Err(whole_file::Error::InUse(_)) => {}
            created => return created,
        }
    }
}

fn read(file: &WholeFile) -> Result<String, Error> {
    let foreign = || Error::Foreign(file.path().to_owned());
    let bytes = file.read(MAX_BYTES)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > MAX_BYTES) {
        return Err(foreign());
    }
    String::from_utf8(bytes).map_err(|_| foreign())
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

#[cfg(test)]
mod tests;

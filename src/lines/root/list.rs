//! A page of the files below a directory, in the order of their paths.
//!
//! It lists what can be read, by opening it: what is denied, is no regular file, leads outside or may not be read is
//! not listed. Names that are not UTF-8 cannot be asked for, and links to directories may lead in circles: both are left
//! out, as is what lies too deep to be opened. Directories are walked in the order of the paths, so the walk ends when
//! the page is full; of a directory only the next [`CHUNK`] names are held, however many it has.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, SystemTime},
};

use rustix::fs::FileType;
use tokio_util::sync::CancellationToken;

use super::{Error, FileInfo, MAX_PATH_BYTES, Page, Parent};

/// How many names of a directory are held at once.
const CHUNK: usize = 4096;

/// A file that was written to so recently is growing.
const GROWING: Duration = Duration::from_secs(60);

/// Which part of a list.
#[derive(Clone, Debug)]
pub struct Range {
    /// At most so many files.
    pub most: usize,
    /// Only those behind this path.
    pub after: Option<String>,
    /// What tells which files grow.
    pub now: SystemTime,
    /// Nobody waits for the list any more.
    pub gone: CancellationToken,
}

/// A list in the making. It takes one file more than there is room for, to tell that there are more.
#[derive(Debug)]
pub struct List {
    range: Range,
    files: Vec<FileInfo>,
}

/// The names of a directory by the paths that they stand for; those of directories end with `/`.
type Names = BTreeMap<String, String>;

impl List {
    pub fn new(range: Range) -> Self {
        Self { range, files: Vec::new() }
    }

    pub fn into_page(mut self) -> Page {
        let more = self.files.len() > self.range.most;
        self.files.truncate(self.range.most);
        let next = self.files.last().filter(|_| more).map(|file| file.path.clone());
        Page { files: self.files, next }
    }

    fn is_full(&self) -> bool {
        self.files.len() > self.range.most || self.range.gone.is_cancelled()
    }

    /// Adds what is below a directory; `path` is its own, with a `/` at its end. Directories have to be added in the
    /// order of these paths.
    pub fn add(&mut self, directory: &Parent, path: &str) -> Result<(), Error> {
        let mut from = None;
        loop {
            let (names, is_last) = vanished(self.names(directory, path, from.as_deref()), path)?;
            for (path, name) in &names {
                if self.is_full() {
                    return Ok(());
                }
                match path.strip_suffix('/') {
                    Some(_) => self.add_directory(directory, name, path)?,
                    None => self.add_file(directory, name, path)?,
                }
            }
            match names.into_iter().next_back() {
                Some((last, _)) if !is_last => from = Some(last),
                _ => return Ok(()),
            }
        }
    }

    /// The first names of a directory that come behind `from` and may stand for something on the page; and whether
    /// there are no more.
    fn names(&self, directory: &Parent, path: &str, from: Option<&str>) -> io::Result<(Names, bool)> {
        let (mut names, mut is_last) = (Names::new(), true);
        for entry in directory.read()? {
            let (name, kind) = entry?;
            let Ok(name) = name.into_string() else { continue };
            let is_directory = kind == FileType::Directory;
            let path = format!("{path}{name}{}", if is_directory { "/" } else { "" });
            let is_wanted = path.len() <= MAX_PATH_BYTES
                && from.is_none_or(|from| path.as_str() > from)
                && self.is_behind(&path)
                && directory.may_hold(&name, is_directory);
            if is_wanted {
                names.insert(path, name);
            }
            if names.len() > CHUNK {
                names.pop_last();
                is_last = false;
            }
        }
        Ok((names, is_last))
    }

    /// The path of a file, or one below that of a directory, comes behind the page before.
    fn is_behind(&self, path: &str) -> bool {
        let Some(after) = &self.range.after else { return true };
        path > after.as_str() || path.ends_with('/') && after.starts_with(path)
    }

    fn add_directory(&mut self, parent: &Parent, name: &str, path: &str) -> Result<(), Error> {
        match parent.child(name) {
            Ok(directory) => self.add(&directory, path),
            Err(error) => vanished(Err(error), path),
        }
    }

    fn add_file(&mut self, directory: &Parent, name: &str, path: &str) -> Result<(), Error> {
        let metadata = directory.open(name).and_then(|file| file.metadata()).map(Some);
        let Some(metadata) = vanished(metadata, path)? else { return Ok(()) };
        let modified = metadata.modified()?;
        // Ahead by a little where another machine's clock wrote it.
        let ago = self.range.now.duration_since(modified).unwrap_or_else(|ahead| ahead.duration());
        self.files.push(FileInfo {
            path: path.into(),
            size: metadata.len(),
            modified,
            created: metadata.created().ok(),
            growing: ago < GROWING,
        });
        Ok(())
    }
}

/// What vanishes, or may not be read, while it is listed is not there. What lies with the server is an error: a list
/// must not be short for want of descriptors.
pub fn vanished<T: Default>(result: io::Result<T>, path: &str) -> Result<T, Error> {
    match result.map_err(|error| Error::of_open(error, path)) {
        Err(Error::NotFound { .. }) => Ok(T::default()),
        result => result,
    }
}

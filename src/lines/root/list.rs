//! A page of the files below a directory, in the order of their paths.
//!
//! A file is listed if it can be opened for reading: files that are denied, not regular, outside the root or not readable
//! are left out. So are names that are not UTF-8, which cannot be asked for, links to directories, which may lead in
//! circles, and files that lie too deep to be opened. Directories are walked in the order of the paths, so the walk ends
//! when the page is full. Of each directory at most the next [`CHUNK`] names are held.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, SystemTime},
};

use rustix::fs::FileType;
use tokio_util::sync::CancellationToken;

use super::{Entry, Error, FileInfo, MAX_PATH_BYTES, Page, Parent};
use crate::blocking::give_way;

/// The most names of a directory that are held at once.
const CHUNK: usize = 4096;

/// A file whose content changed within this time is growing.
const GROWING: Duration = Duration::from_secs(60);

/// Which part of a list a caller wants.
#[derive(Debug)]
pub struct Range {
    /// The most files.
    pub most: usize,
    /// Only files after this path.
    pub after: Option<String>,
    /// Files that changed within [`GROWING`] before this are growing.
    pub now: SystemTime,
    /// Cancelled when the caller is gone.
    pub gone: CancellationToken,
    /// Only files whose path the caller may see.
    pub shows: Shows,
}

/// What a list shows.
pub struct Shows {
    /// Whether it shows the file of a path.
    pub file: Box<dyn Fn(&str) -> bool + Send>,
    /// Whether it can show a file below the directory of a path. Other directories are not opened, so that the time of a list
    /// says nothing about them.
    pub below: Box<dyn Fn(&str) -> bool + Send>,
}

impl Default for Shows {
    /// All of them.
    fn default() -> Self {
        Self { file: Box::new(|_| true), below: Box::new(|_| true) }
    }
}

impl std::fmt::Debug for Shows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shows")
    }
}

/// A list being built. It takes one file more than the page has room for, to know whether there are more.
#[derive(Debug)]
pub struct List {
    range: Range,
    files: Vec<FileInfo>,
}

/// The names of a directory by their paths; the path of a directory ends with `/`.
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

    /// Adds the files below a directory; `path` is its own, with a `/` at its end. Directories have to be added in the
    /// order of these paths.
    pub fn add(&mut self, directory: &Parent, path: &str) -> Result<(), Error> {
        let mut from = None;
        loop {
            let (names, is_last) = vanished(self.names(directory, path, from.as_deref()), path)?;
            for (path, name) in &names {
                give_way();
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

    /// The first names of a directory that come after `from` and may be on the page, and whether these are all.
    fn names(&self, directory: &Parent, path: &str, from: Option<&str>) -> io::Result<(Names, bool)> {
        let (mut names, mut is_last) = (Names::new(), true);
        for entry in directory.read()? {
            give_way();
            let Entry { name, kind, .. } = entry?;
            let Ok(name) = name.into_string() else { continue };
            let is_directory = kind == FileType::Directory;
            let path = format!("{path}{name}{}", if is_directory { "/" } else { "" });
            let is_wanted = path.len() <= MAX_PATH_BYTES
                && from.is_none_or(|from| path.as_str() > from)
                && self.is_after_last_page(&path)
                && directory.may_hold(&name, is_directory)
                && self.may_show(&path, is_directory);
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

    fn may_show(&self, path: &str, is_directory: bool) -> bool {
        let Shows { file, below } = &self.range.shows;
        if is_directory { below(path) } else { file(path) }
    }

    /// Whether a file below a directory may be in the list.
    pub fn enters(&self, directory: &str) -> bool {
        (self.range.shows.below)(directory)
    }

    /// Whether the path of a file, or one below a directory, comes after the page before.
    fn is_after_last_page(&self, path: &str) -> bool {
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
        self.files.extend(file_info(directory, name, path, self.range.now)?);
        Ok(())
    }
}

/// A file of a list, if it can be opened for reading. Files that changed shortly before `now` are growing.
pub fn file_info(
    directory: &Parent,
    name: &str,
    path: &str,
    now: SystemTime,
) -> Result<Option<FileInfo>, Error> {
    let metadata = directory.open(name).and_then(|file| file.metadata()).map(Some);
    let Some(metadata) = vanished(metadata, path)? else { return Ok(None) };
    let modified = metadata.modified()?;
    // It is a little in the future where another machine's clock wrote it.
    let ago = now.duration_since(modified).unwrap_or_else(|ahead| ahead.duration());
    Ok(Some(FileInfo {
        path: path.into(),
        size: metadata.len(),
        modified,
        created: metadata.created().ok(),
        growing: ago < GROWING,
    }))
}

/// A file or directory that vanishes while it is listed, or may not be read, is left out. A fault of the server is an
/// error: a list must not be short because the server ran out of descriptors.
pub fn vanished<T: Default>(result: io::Result<T>, path: &str) -> Result<T, Error> {
    match result.map_err(|error| Error::of_open(error, path)) {
        Err(Error::NotFound { .. }) => Ok(T::default()),
        result => result,
    }
}

//! The record of a backup: `backup.ndjson`, beside the files of the copy, one JSON object a line.
//!
//! The first line names the log, then follows a line for each file that is whole, and the last line says that all are
//! there. A line is appended when its file is on disk, so the record of an interrupted backup says with which files to
//! continue.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Error, at, copies};
use crate::messages::embedded::{
    format::{block::LogId, manifest, trim_points},
    recovery::directory::sequence_of,
};

/// The name of the record.
pub const NAME: &str = "backup.ndjson";

/// The version of its format.
const VERSION: u32 = 1;

/// What tells a file from every earlier state of it. Every write changes the times.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Stamp {
    pub device: u64,
    pub inode: u64,
    pub bytes: u64,
    /// In nanoseconds since 1970, as the file system has them.
    pub modified: i128,
    pub changed: i128,
}

impl Stamp {
    pub fn of(metadata: &fs::Metadata) -> Self {
        let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: nanos(metadata.mtime(), metadata.mtime_nsec()),
            changed: nanos(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A file of the copy that is on disk.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Entry {
    pub name: String,
    pub bytes: u64,
    pub crc32c: u32,
    /// The file that it was copied from. `None` if that file was being written, or if the backup has made this one.
    pub source: Option<Stamp>,
    /// The copy itself. A link to it changes the last of its times.
    pub copy: Stamp,
}

impl Entry {
    /// Whether a file is the one that was recorded, and was not changed since.
    pub fn is_at(&self, path: &Path) -> bool {
        let is_it = |there: Stamp| {
            let Stamp { inode, bytes, modified, .. } = self.copy;
            (there.inode, there.bytes, there.modified) == (inode, bytes, modified)
        };
        fs::symlink_metadata(path).is_ok_and(|metadata| is_it(Stamp::of(&metadata)))
    }
}

/// Whether a file of a log may have this name. Another name in a record could lead out of the directory.
fn is_name(name: &str) -> bool {
    let path = Path::new(name);
    let is_trim_points =
        || name.strip_prefix(trim_points::NAME).is_some_and(|end| ["", ".0", ".1"].contains(&end));
    let is_known = sequence_of(path).is_some() || manifest::NAMES.contains(&name) || is_trim_points();
    is_known && path.file_name() == Some(path.as_os_str())
}

/// The last line.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct End {
    /// No message of the backup has this sequence or a higher one.
    pub next_sequence: u64,
    pub files: usize,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Backup { version: u32, log: Uuid },
    File(Entry),
    End(End),
}

/// What a record says.
#[derive(Debug)]
pub struct Record {
    pub log: LogId,
    pub files: BTreeMap<String, Entry>,
    /// `None` if the backup is not whole.
    pub end: Option<End>,
}

impl Record {
    /// Reads the record in a directory; `None` if there is none. What follows a line that is not whole is left out.
    pub fn read(directory: &Path) -> Result<Option<Self>, Error> {
        let path = directory.join(NAME);
        let file = match fs::File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(at(&path))?,
        };
        let mut record = None::<Self>;
        for line in BufReader::new(file).lines() {
            let line = line.map_err(at(&path))?;
            match (serde_json::from_str(&line), &mut record) {
                (Ok(Line::Backup { version: VERSION, log }), None) => {
                    let log = log.into_bytes();
                    record = Some(Self { log, files: BTreeMap::new(), end: None });
                }
                (Ok(Line::Backup { version, .. }), None) => {
                    return Err(Error::BackupVersion { path, version });
                }
                (Ok(Line::File(Entry { name, .. })), Some(_)) if !is_name(&name) => {
                    return Err(Error::RecordedName { path, name });
                }
                (Ok(Line::File(entry)), Some(record)) => {
                    record.files.insert(entry.name.clone(), entry);
                }
                (Ok(Line::End(end)), Some(record)) => record.end = Some(end),
                _ => break,
            }
        }
        Ok(record)
    }

    /// Whether all files are there.
    pub fn is_whole(&self) -> bool {
        self.end.is_some_and(|end| end.files == self.files.len())
    }
}

/// Appends to a record.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: fs::File,
}

impl Writer {
    /// Begins a record with the files that are there.
    pub fn begin<'a>(
        directory: &Path,
        log: LogId,
        files: impl Iterator<Item = &'a Entry>,
    ) -> Result<Self, Error> {
        let path = directory.join(NAME);
        let new = directory.join(format!("{NAME}{}", copies::PART));
        let mut lines = vec![Line::Backup { version: VERSION, log: Uuid::from_bytes(log) }];
        lines.extend(files.cloned().map(Line::File));
        let mut writer = Self { file: copies::create(&new).map_err(at(&new))?, path: path.clone() };
        for line in &lines {
            writer.append(line)?;
        }
        writer.sync()?;
        fs::rename(&new, &path).map_err(at(&path))?;
        Ok(writer)
    }

    /// A file is on disk.
    pub fn add(&mut self, entry: &Entry) -> Result<(), Error> {
        self.append(&Line::File(entry.clone()))
    }

    /// All files are on disk.
    pub fn end(&mut self, end: End) -> Result<(), Error> {
        self.append(&Line::End(end))?;
        self.sync()
    }

    fn append(&mut self, line: &Line) -> Result<(), Error> {
        let text = serde_json::to_string(line).map_err(|error| at(&self.path)(error.into()))?;
        self.file.write_all(format!("{text}\n").as_bytes()).map_err(at(&self.path))
    }

    fn sync(&self) -> Result<(), Error> {
        self.file.sync_all().map_err(at(&self.path))
    }
}

//! Checks a backup against its record, and makes a log of it.

use std::{fs, io, path::Path};

use super::{
    super::{Error, Fault, Finding, archive, at},
    UNFINISHED, WHOLE, copies,
    record::{Entry, Record},
};
use crate::directory;

/// The log while it is restored.
const RESTORING: &str = "messages.restoring";

/// A log that was made of a backup.
#[derive(Clone, Copy, Debug)]
pub struct Restored {
    /// The size of its files in bytes.
    pub bytes: u64,
    /// No message in it has this sequence or a higher one.
    pub next_sequence: u64,
}

/// The record of a backup that is whole.
fn record_of(backup: &Path) -> Result<Record, Error> {
    let whole = backup.join(WHOLE);
    match Record::read(&whole)? {
        Some(record) if record.is_whole() => Ok(record),
        None if backup.join(UNFINISHED).exists() => Err(Error::NotWhole { directory: backup.into() }),
        _ => Err(Error::NoBackup { directory: backup.into() }),
    }
}

/// Reads a file of a backup; `None` if it is not as it was recorded.
fn read(whole: &Path, entry: &Entry) -> Result<Option<Vec<u8>>, Error> {
    let path = whole.join(&entry.name);
    // A backup has no links, and reading a pipe could wait for ever.
    if fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
        return Ok(None);
    }
    match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        bytes => Ok(Some(bytes.map_err(at(&path))?).filter(|bytes| crc32c::crc32c(bytes) == entry.crc32c)),
    }
}

/// Reads every file of a backup, and reports those that are not as they were recorded. Returns how many there are.
///
/// # Errors
/// [`Error::NoBackup`], [`Error::NotWhole`], [`Error::RecordedName`] and [`Error::Io`].
pub fn check(
    backup: &Path,
    mut report: impl FnMut(&Finding),
    mut progress: impl FnMut(u64, u64),
) -> Result<usize, Error> {
    let (record, whole) = (record_of(backup)?, backup.join(WHOLE));
    let all = record.files.values().map(|entry| entry.bytes).sum::<u64>();
    let (mut faults, mut done) = (0, 0);
    for entry in record.files.values() {
        if read(&whole, entry)?.is_none() {
            faults += 1;
            report(&Finding::new(&whole.join(&entry.name), None, Fault::NotAsRecorded));
        }
        done += entry.bytes;
        progress(done, all);
    }
    Ok(faults)
}

/// Makes a log of a backup, in the directory `log`, which must hold none. `progress` is called with the number of bytes
/// that were copied, and of all. An interrupted call leaves no log there.
///
/// # Errors
/// [`Error::NoBackup`], [`Error::NotWhole`], [`Error::RecordedName`], [`Error::NotAsRecorded`], [`Error::HoldsLog`]
/// and [`Error::Io`].
pub fn restore(backup: &Path, log: &Path, mut progress: impl FnMut(u64, u64)) -> Result<Restored, Error> {
    let (record, whole) = (record_of(backup)?, backup.join(WHOLE));
    if !matches!(archive::list(log), Err(Error::NoLog { .. })) {
        return Err(Error::HoldsLog { directory: log.into() });
    }
    let new = log.with_file_name(RESTORING);
    if new.exists() {
        fs::remove_dir_all(&new).map_err(at(&new))?;
    }
    directory::create(&new).map_err(at(&new))?;
    let all = record.files.values().map(|entry| entry.bytes).sum::<u64>();
    let mut done = 0;
    for entry in record.files.values() {
        let path = whole.join(&entry.name);
        let bytes = read(&whole, entry)?.ok_or(Error::NotAsRecorded { path })?;
        copies::write(&new.join(&entry.name), &bytes)?;
        done += entry.bytes;
        progress(done, all);
    }
    copies::sync_directory(&new).map_err(at(&new))?;
    fs::rename(&new, log).map_err(at(log))?;
    if let Some(data) = log.parent() {
        copies::sync_directory(data).map_err(at(data))?;
    }
    let next_sequence = record.end.map_or(0, |end| end.next_sequence);
    Ok(Restored { bytes: all, next_sequence })
}

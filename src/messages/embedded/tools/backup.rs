//! Backups of a log, beside the server that writes it or without one.
//!
//! A backup directory has the shape of a data directory: the copy of the log is in `messages`, and a server opens a
//! copy of the directory as it is. Beside the files of the log there is the [record](record) of the backup, which names
//! every file with its checksum, and the source that it was copied from.
//!
//! - A backup holds every message that was acknowledged before it began. Its last commit is one that the server has
//!   completed, so no message in it can be replaced by another one under the same sequence.
//! - It is made in `messages.unfinished`, and exchanged with `messages` when it is whole and on disk. An interrupted
//!   backup leaves the one before in its place, and the next run continues with the files that are there.
//! - Segments are the same as before, by the inode, the length and the times of their file, or are copied again:
//!   messages are erased in place, and segments are compacted under the name of the first one.
//! - What was purged before a backup ends is not in it: it is overwritten in the copy, if the server has not done that
//!   yet.
//! - A backup that has messages which the log has lost is not replaced, unless the caller asks for that.
//!
//! The state of the log is copied in this order. The trim points before the segments say what had been erased when they
//! were opened, and the trim points after them cover everything that was erased meanwhile. The manifest is read before
//! the segments, as it would be found after a power cut at that moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{FlockOperation, flock};

use self::{
    copies::{Before, Copies, Source},
    newest::Newest,
    record::Record,
};
use super::{Error, Finding, archive, at};
use crate::messages::embedded::{
    disk::Disk,
    format::{
        block::{Identity, LogId},
        manifest::{self, Manifest},
        trim_points::{self, TrimPointFile, TrimPoints},
    },
    manifest::Found,
    recovery::directory::Candidate,
};

mod copies;
mod losses;
mod newest;
mod purged;
pub mod record;
mod restore;
#[cfg(test)]
mod tests;

pub use restore::{Restored, check, restore};

/// The copy of the log in a backup directory, as in a data directory.
const WHOLE: &str = "messages";

/// The copy while it is made.
const UNFINISHED: &str = "messages.unfinished";

/// The copy of the backup before, while it is removed.
const OLD: &str = "messages.old";

/// A log is copied in passes: each copies what the passes before have not, and the last one copies the newest segment.
/// After this number of passes, the last one copies everything that is left.
const MAX_PASSES: usize = 5;

/// A pass that leaves more bytes than this to copy is followed by another one.
const LAST_PASS_BYTES: u64 = 256 * 1024 * 1024;

/// The number of times that the last pass is repeated because the server was started or its clock was set meanwhile.
const MAX_TRIES: usize = 20;

/// A backup that was made.
#[derive(Debug)]
pub struct BackedUp {
    /// The number of segments in it.
    pub segments: usize,
    /// The number of those that the backup before did not have.
    pub copied_segments: usize,
    /// The size of the segments in bytes.
    pub bytes: u64,
    /// No message in it has this sequence or a higher one.
    pub next_sequence: u64,
    /// The faults of the log that were noticed. The backup has them, too.
    pub faults: Vec<Finding>,
}

/// Makes a backup of the log in `source` in the directory `backup`, or brings the one that is there up to date.
/// `replaces`: also if the log has lost messages that the backup there has. `progress` is called with the number of
/// bytes that are there, and of all.
///
/// # Errors
/// [`Error::NoLog`], [`Error::Open`], [`Error::Io`], and those of backups. After an error, `backup` still holds what was
/// whole before.
pub fn backup(
    source: &Path,
    backup: &Path,
    replaces: bool,
    mut progress: impl FnMut(u64, u64),
) -> Result<BackedUp, Error> {
    let files = archive::list_stable(source)?;
    let log = files.log.ok_or_else(|| Error::NoLog { directory: source.into() })?;
    drop(files);
    let place = Place::open(source, backup)?;
    let mut copies = place.begin(log.id)?;
    for _ in 1..MAX_PASSES {
        if copies.copy_sealed(source, &mut progress)? <= LAST_PASS_BYTES {
            break;
        }
    }
    let mut tries = 0;
    let (mut made, losses) = loop {
        match last_pass(source, log, &mut copies, &mut progress) {
            Ok(Some(made)) => break made,
            Ok(None) if tries < MAX_TRIES => tries += 1,
            Ok(None) => return Err(Error::Unsteady { directory: source.into() }),
            Err(error) if archive::is_moving(&error) && tries < MAX_TRIES => tries += 1,
            Err(error) => return Err(error),
        }
    };
    let copied_segments = copies.copied();
    copies.finish(made.next_sequence, log.id)?;
    if !losses.is_empty() && !replaces {
        return Err(Error::Worse { directory: backup.into(), losses });
    }
    place.exchange()?;
    let unknown = losses.into_iter().filter(|loss| !made.faults.contains(loss)).collect::<Vec<_>>();
    made.faults.extend(unknown);
    Ok(BackedUp { copied_segments, ..made })
}

/// Copies everything that is left, and finds what the backup before has and the log has lost. `None`: the server was
/// started, or its clock was set, so it has to be done again.
fn last_pass(
    source: &Path,
    log: Identity,
    copies: &mut Copies,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Option<(BackedUp, Vec<Finding>)>, Error> {
    let read = || read_trim_points(source, log.id);
    // Before the segments are opened: a compaction may remove one that is open here, and then nothing erases it.
    let before = read()?.unwrap_or_default();
    let files = archive::list_stable(source)?;
    let mut faults = archive::lost(source, &files);
    let manifest = files.manifest.manifest.clone();
    let (names, next_sequence) = copy_segments(files.segments, copies, progress)?;
    let points = match read()? {
        Ok(points) => Some(points),
        Err(fault) => {
            faults.push(archive::trim_points_finding(source, &fault));
            None
        }
    };
    let found = Found::read(&Disk::Real, source)?;
    if found.manifest.as_ref().map(|manifest| &manifest.clock)
        != manifest.as_ref().map(|manifest| &manifest.clock)
    {
        return Ok(None);
    }
    let next_sequence = next_sequence.max(manifest.as_ref().map_or(1, |manifest| manifest.next_sequence));
    copies.keep_only(&names)?;
    let points = points.map(|points| as_of(points, &before, next_sequence));
    if let Some(points) = &points {
        purged::erase(copies, log, &owed(points))?;
        write_trim_points(copies, log, points)?;
    }
    if let Some(manifest) = manifest {
        for (generation, name) in (manifest.generation..).zip(manifest::NAMES) {
            copies.put(name, &Manifest { generation, ..manifest.clone() }.to_bytes(), None)?;
        }
    }
    let losses = losses::find(source, copies, &points.unwrap_or_default(), &faults)?;
    let bytes = copies.bytes_of_segments();
    let made = BackedUp { segments: names.len(), copied_segments: 0, bytes, next_sequence, faults };
    Ok(Some((made, losses)))
}

/// Copies segments. Returns their names, and a sequence that is above all of theirs.
fn copy_segments(
    mut segments: Vec<Candidate>,
    copies: &mut Copies,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Vec<String>, u64), Error> {
    let newest = segments.pop_if(|last| last.footer.is_none());
    let (mut names, mut next_sequence) = (Vec::new(), 1);
    let sources = segments.iter().map(Source::of).collect::<Result<Vec<_>, _>>()?;
    let all = sources.iter().map(Source::bytes).sum::<u64>();
    let mut done = 0;
    for (candidate, source) in segments.iter().zip(&sources) {
        let end = candidate.footer.map_or(0, |footer| footer.summary.last_sequence + 1);
        next_sequence = next_sequence.max(end);
        names.push(source.name.clone());
        copies.ensure(source)?;
        done += source.bytes();
        progress(done, all);
    }
    if let Some(candidate) = newest
        && let Some(Newest { bytes, next_sequence: next }) = Newest::read(&candidate)?
    {
        let source = Source::of(&candidate)?;
        names.push(source.name.clone());
        copies.put_newest(&source, &bytes)?;
        next_sequence = next_sequence.max(next).max(candidate.first_sequence);
    }
    Ok((names, next_sequence))
}

/// The trim points of a log; an inner error says why they are not valid.
fn read_trim_points(directory: &Path, log: LogId) -> Result<Result<TrimPoints, String>, Error> {
    trim_points::read(&Disk::Real, directory, log).map_err(at(directory))
}

/// The trim points that belong to segments that were copied after `before` was read, and that have no message from
/// `next_sequence` on.
///
/// A point above that is of messages that the copy does not have: a message that is published in the restored log would
/// count as removed. And what was erased in the source since `before` may not be erased in the copy.
fn as_of(mut points: TrimPoints, before: &TrimPoints, next_sequence: u64) -> TrimPoints {
    let last = next_sequence.saturating_sub(1);
    let erased = before.topics.iter().map(|(name, point)| (name.clone(), point.erased_up_to));
    let erased = erased.collect::<BTreeMap<_, _>>();
    points.forgotten_up_to = points.forgotten_up_to.min(last);
    for (name, point) in &mut points.topics {
        point.first_kept = point.first_kept.min(next_sequence);
        point.lost_up_to = point.lost_up_to.min(last);
        point.purged_up_to = point.purged_up_to.min(last);
        point.erased_up_to = point.erased_up_to.min(erased.get(name).copied().unwrap_or(0));
    }
    points
}

/// For each topic of which purged messages may be in a copy: the sequences after the first one, up to the second.
fn owed(points: &TrimPoints) -> BTreeMap<Arc<str>, (u64, u64)> {
    let owing = points.topics.iter().filter(|(_, point)| point.owes_erasure());
    owing.map(|(name, point)| (name.clone(), (point.erased_up_to, point.purged_up_to))).collect()
}

fn write_trim_points(copies: &mut Copies, log: Identity, points: &TrimPoints) -> Result<(), Error> {
    let directory = copies.directory().to_path_buf();
    let mut file = TrimPointFile::open(&Disk::Real, &directory).map_err(at(&directory))?;
    file.write(&points.to_bytes(log)).map_err(at(&directory))?;
    copies.record_others(trim_points::NAME)
}

/// The directory of a backup, locked.
#[derive(Debug)]
struct Place {
    directory: PathBuf,
    /// Held until the backup is made.
    _lock: fs::File,
}

impl Place {
    fn open(source: &Path, directory: &Path) -> Result<Self, Error> {
        let canonical = |path: &Path| fs::canonicalize(path).map_err(at(path));
        crate::directory::create(directory).map_err(at(directory))?;
        let directory = canonical(directory)?;
        let data = canonical(source)?;
        if data.parent().is_some_and(|data| directory.starts_with(data)) || directory.starts_with(&data) {
            return Err(Error::InsideData { directory });
        }
        let lock = fs::File::open(&directory).map_err(at(&directory))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Error::BackupInUse { directory });
        }
        let place = Self { directory, _lock: lock };
        place.settle()?;
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Refuses a directory that holds something else, and then completes an exchange that was interrupted.
    fn settle(&self) -> Result<(), Error> {
        let not_a_backup = || Error::NotABackup { directory: self.directory.clone() };
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&self.directory).map_err(at(&self.directory))? {
            names.insert(entry.map_err(at(&self.directory))?.file_name());
        }
        let has = |name: &str| names.contains(OsStr::new(name));
        // Nothing is changed before each name is known to be of a backup.
        for name in &names {
            let is_one = [WHOLE, UNFINISHED, OLD].iter().any(|known| name == known);
            if name != "lost+found" && !(is_one && is_copy(&self.directory.join(name))?) {
                return Err(not_a_backup());
            }
        }
        let (whole, old) = (self.path(WHOLE), self.path(OLD));
        let kept = if has(WHOLE) { &whole } else { &old };
        if (has(WHOLE) || has(OLD)) && Record::read(kept)?.is_none() {
            return Err(not_a_backup());
        }
        match (has(WHOLE), has(OLD)) {
            (true, true) => remove_copy(&old),
            (false, true) => fs::rename(&old, &whole).map_err(at(&old)),
            (_, false) => Ok(()),
        }
    }

    /// Begins a backup of a log. The earlier backup in the directory is reused.
    fn begin(&self, log: LogId) -> Result<Copies, Error> {
        let (whole, unfinished) = (self.path(WHOLE), self.path(UNFINISHED));
        let before = Record::read(&whole)?;
        if before.as_ref().is_some_and(|before| before.log != log) {
            return Err(Error::OtherBackup { directory: self.directory.clone() });
        }
        if Record::read(&unfinished)?.is_some_and(|record| record.log != log) {
            remove_copy(&unfinished)?;
        }
        Copies::open(unfinished, Before::new(whole, before), log)
    }

    /// Puts the new copy in the place of the one before, in one step where the file system can do that.
    fn exchange(&self) -> Result<(), Error> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        let (whole, unfinished, old) = (self.path(WHOLE), self.path(UNFINISHED), self.path(OLD));
        let sync = || copies::sync_directory(&self.directory).map_err(at(&self.directory));
        sync()?;
        if whole.exists() {
            let exchanged = renameat_with(CWD, &unfinished, CWD, &whole, RenameFlags::EXCHANGE);
            if exchanged.is_ok() {
                fs::rename(&unfinished, &old).map_err(at(&unfinished))?;
            } else {
                fs::rename(&whole, &old).map_err(at(&whole))?;
                fs::rename(&unfinished, &whole).map_err(at(&unfinished))?;
            }
            sync()?;
            remove_copy(&old)?;
        } else {
            fs::rename(&unfinished, &whole).map_err(at(&unfinished))?;
        }
        sync()
    }
}

/// Whether a directory holds a copy of a log: with a record, or without one and without a whole file, as before the first
/// file is copied, and after the last one is removed.
fn is_copy(directory: &Path) -> Result<bool, Error> {
    if !fs::symlink_metadata(directory).map_err(at(directory))?.is_dir() {
        return Ok(false);
    }
    if Record::read(directory)?.is_some() {
        return Ok(true);
    }
    for entry in fs::read_dir(directory).map_err(at(directory))? {
        let name = entry.map_err(at(directory))?.file_name();
        if !name.to_str().is_some_and(|name| name.ends_with(copies::PART)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes a copy. The record is removed last, so that an interrupted removal leaves something that is still known as a
/// copy.
fn remove_copy(directory: &Path) -> Result<(), Error> {
    let record = directory.join(record::NAME);
    for entry in fs::read_dir(directory).map_err(at(directory))? {
        let path = entry.map_err(at(directory))?.path();
        if path != record {
            fs::remove_file(&path).map_err(at(&path))?;
        }
    }
    copies::remove(&record)?;
    fs::remove_dir(directory).map_err(at(directory))
}

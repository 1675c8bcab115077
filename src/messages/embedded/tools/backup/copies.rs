//! The copy of a log while it is made.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, UNIX_EPOCH},
};

use super::{
    archive, at,
    record::{self, End, Entry, Record, Stamp, Writer},
};
use crate::directory;
use crate::messages::{
    clock::Clock,
    embedded::{
        disk::{Disk, File},
        format::block::LogId,
        recovery::directory::{Candidate, sequence_of},
        tools::Error,
    },
};

/// The end of the name of a file that is being written.
pub const PART: &str = ".part";

/// A write may not change the time of a file that was written less than this before: the clock of file systems has
/// ticks of up to 10 ms.
const TICK: Duration = Duration::from_millis(50);

/// The number of times that a segment is copied again because the server erased messages in it meanwhile.
const MAX_COPIES: usize = 50;

/// The unit in which zeros become a hole.
const HOLE_BYTES: usize = 64 * 1024;

/// A segment to copy.
#[derive(Debug)]
pub struct Source {
    pub name: String,
    path: PathBuf,
    file: Arc<File>,
    bytes: u64,
}

impl Source {
    /// The source of a segment whose file is open: it can be read even if the server removes it.
    pub fn of(candidate: &Candidate) -> Result<Self, Error> {
        Self::new(&candidate.path, candidate.file.clone())
    }

    fn open(path: &Path) -> Result<Self, Error> {
        Self::new(path, Arc::new(Disk::Real.open(path, false).map_err(at(path))?))
    }

    fn new(path: &Path, file: Arc<File>) -> Result<Self, Error> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let bytes = file.len().map_err(at(path))?;
        Ok(Self { name, path: path.into(), file, bytes })
    }

    /// Its size when it was opened.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn stamp(&self) -> Result<Stamp, Error> {
        self.file.metadata().map(|metadata| Stamp::of(&metadata)).map_err(at(&self.path))
    }

    /// All bytes, and the state of the file that has them.
    fn read(&self) -> Result<(Vec<u8>, Stamp), Error> {
        for _ in 0..MAX_COPIES {
            let stamp = self.stamp()?;
            let now = Clock::System.now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let age = i128::try_from(now.as_nanos()).unwrap_or(i128::MAX) - stamp.modified.max(stamp.changed);
            if (0..TICK.as_nanos().try_into().unwrap_or(0)).contains(&age) {
                thread::sleep(TICK);
                continue;
            }
            let mut bytes = vec![0; usize::try_from(stamp.bytes).unwrap_or(usize::MAX)];
            match self.file.fill_soundly(&mut bytes, 0) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
                result => result.map_err(at(&self.path))?,
            };
            if self.stamp()? == stamp {
                return Ok((bytes, stamp));
            }
        }
        Err(Error::Unsteady { directory: self.path.clone() })
    }
}

/// The backup that is replaced. It has no files if there is none.
#[derive(Debug, Default)]
pub struct Before {
    pub directory: PathBuf,
    pub files: BTreeMap<String, Entry>,
    /// No message in it has this sequence or a higher one.
    pub next_sequence: u64,
}

impl Before {
    pub fn new(directory: PathBuf, record: Option<Record>) -> Self {
        let next_sequence = record.as_ref().and_then(|record| record.end).map_or(0, |end| end.next_sequence);
        let files = record.map_or_else(BTreeMap::new, |record| record.files);
        Self { directory, files, next_sequence }
    }
}

/// The files of the copy, and those of the backup before.
#[derive(Debug)]
pub struct Copies {
    directory: PathBuf,
    files: BTreeMap<String, Entry>,
    before: Before,
    copied: BTreeSet<String>,
    record: Writer,
}

impl Copies {
    /// Continues the copy in a directory, or begins it. `before` is the backup that is there.
    pub fn open(directory: PathBuf, before: Before, log: LogId) -> Result<Self, Error> {
        directory::create(&directory).map_err(at(&directory))?;
        let mut files = Record::read(&directory)?.map_or_else(BTreeMap::new, |record| record.files);
        files.retain(|name, entry| entry.is_at(&directory.join(name)));
        let record = Writer::begin(&directory, log, files.values())?;
        Ok(Self { directory, files, before, copied: BTreeSet::new(), record })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn before(&self) -> &Before {
        &self.before
    }

    /// Whether the backup before has a file of this name with other bytes.
    pub fn differs(&self, name: &str) -> bool {
        let content = |entry: &Entry| (entry.bytes, entry.crc32c);
        let (now, before) = (self.files.get(name).map(content), self.before.files.get(name).map(content));
        before.is_some() && now != before
    }

    /// The number of segments that the backup before did not have.
    pub fn copied(&self) -> usize {
        self.copied.iter().filter(|name| self.files.contains_key(*name)).count()
    }

    /// The size of all segments.
    pub fn bytes_of_segments(&self) -> u64 {
        let segments = self.files.values().filter(|entry| sequence_of(Path::new(&entry.name)).is_some());
        segments.map(|entry| entry.bytes).sum()
    }

    /// Copies the segments that are not the newest one, without holding those that the server removes meanwhile.
    /// Returns how many bytes it has copied.
    pub fn copy_sealed(&mut self, source: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<u64, Error> {
        let files = archive::list_stable(source)?;
        let mut paths = Vec::with_capacity(files.segments.len());
        for candidate in &files.segments {
            paths.push((candidate.path.clone(), candidate.file.len().map_err(at(&candidate.path))?));
        }
        drop(files);
        paths.pop();
        let all = paths.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let (mut done, mut copied) = (0, 0);
        for (path, bytes) in paths {
            match Source::open(&path).and_then(|source| self.ensure(&source)) {
                // Retention or a compaction has removed it.
                Err(Error::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && !path.exists() => {}
                result => copied += if result? { bytes } else { 0 },
            }
            done += bytes;
            progress(done, all);
        }
        Ok(copied)
    }

    /// Makes sure that the copy has a segment as it is now. True if it was copied.
    pub fn ensure(&mut self, source: &Source) -> Result<bool, Error> {
        let stamp = source.stamp()?;
        let is_current = |entry: &&Entry| entry.source == Some(stamp);
        if self.files.get(&source.name).is_some_and(|entry| is_current(&entry)) {
            return Ok(false);
        }
        if let Some(entry) = self.before.files.get(&source.name).filter(is_current).cloned()
            && self.link(entry)?
        {
            return Ok(false);
        }
        let (bytes, stamp) = source.read()?;
        self.put(&source.name, &bytes, Some(stamp))?;
        self.copied.insert(source.name.clone());
        Ok(true)
    }

    /// Takes a file of the backup before. False if it was changed, or if the file system has no links.
    fn link(&mut self, entry: Entry) -> Result<bool, Error> {
        let (from, to) = (self.before.directory.join(&entry.name), self.directory.join(&entry.name));
        if !entry.is_at(&from) {
            return Ok(false);
        }
        remove(&to)?;
        if fs::hard_link(&from, &to).is_err() {
            return Ok(false);
        }
        self.record.add(&entry)?;
        self.files.insert(entry.name.clone(), entry);
        Ok(true)
    }

    /// Writes a file of the copy, and records it when it is on disk.
    pub fn put(&mut self, name: &str, bytes: &[u8], source: Option<Stamp>) -> Result<(), Error> {
        let path = self.directory.join(name);
        let copy = write(&path, bytes)?;
        let (length, crc32c) = (bytes.len() as u64, crc32c::crc32c(bytes));
        let entry = Entry { name: name.into(), bytes: length, crc32c, source, copy };
        self.record.add(&entry)?;
        self.files.insert(name.into(), entry);
        Ok(())
    }

    /// Writes the newest segment, which is never taken from the backup before.
    pub fn put_newest(&mut self, source: &Source, bytes: &[u8]) -> Result<(), Error> {
        self.put(&source.name, bytes, None)?;
        self.copied.insert(source.name.clone());
        Ok(())
    }

    /// Writes a file again in which messages were erased. It stays the copy of the same source.
    pub fn put_erased(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let source = self.files.get(name).and_then(|entry| entry.source);
        self.put(name, bytes, source)
    }

    /// Records files that were written to the directory, by the beginning of their names.
    pub fn record_others(&mut self, prefix: &str) -> Result<(), Error> {
        for entry in fs::read_dir(&self.directory).map_err(at(&self.directory))? {
            let path = entry.map_err(at(&self.directory))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if name.starts_with(prefix) {
                let bytes = fs::read(&path).map_err(at(&path))?;
                self.put(name, &bytes, None)?;
            }
        }
        Ok(())
    }

    /// Removes every file but these, and the record.
    pub fn keep_only(&mut self, names: &[String]) -> Result<(), Error> {
        let names = names.iter().map(String::as_str).collect::<BTreeSet<_>>();
        for entry in fs::read_dir(&self.directory).map_err(at(&self.directory))? {
            let path = entry.map_err(at(&self.directory))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name != record::NAME && !names.contains(name) {
                remove(&path)?;
            }
        }
        self.files.retain(|name, _| names.contains(name.as_str()));
        Ok(())
    }

    /// Completes the record. All files are on disk.
    pub fn finish(mut self, next_sequence: u64, log: LogId) -> Result<(), Error> {
        sync_directory(&self.directory).map_err(at(&self.directory))?;
        // Without the lines of files that are gone.
        self.record = Writer::begin(&self.directory, log, self.files.values())?;
        self.record.end(End { next_sequence, files: self.files.len() })?;
        sync_directory(&self.directory).map_err(at(&self.directory))
    }
}

pub fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(at(path)),
    }
}

/// Writes a file under a name of its own, and gives it its name when it is on disk.
pub fn write(path: &Path, bytes: &[u8]) -> Result<Stamp, Error> {
    let part = path.with_file_name(format!(
        "{}{PART}",
        path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    ));
    let written = create(&part).and_then(|file| {
        file.set_len(bytes.len() as u64)?;
        for (place, piece) in bytes.chunks(HOLE_BYTES).enumerate() {
            if piece.iter().any(|byte| *byte != 0) {
                file.write_all_at(piece, (place * HOLE_BYTES) as u64)?;
            }
        }
        file.sync_all()?;
        fs::rename(&part, path)?;
        file.metadata()
    });
    written.map(|metadata| Stamp::of(&metadata)).map_err(at(path))
}

/// Creates an empty file that only its owner can read, in the place of one that an interrupted run may have left. A link
/// of that name is replaced, and not followed.
pub fn create(path: &Path) -> io::Result<fs::File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => result?,
    }
    fs::File::options().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Waits until the names in a directory are on disk.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    Disk::Real.sync_directory(path)
}

//! The manifest of an open log: reads the two copies, and changes them.
//!
//! A change is on disk when the call returns, and only then the log does what it announces. The copy that does not have
//! the newest content is the next one to be written, so a power cut during a change leaves the other copy whole.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use super::{
    Embedded,
    disk::{Disk, File, bad_sectors::is_bad_sector, is_full},
    format::{
        manifest::{Listed, Manifest, NAMES, Unreadable},
        segment_header::{Link, Predecessor, SegmentId},
    },
    maintenance,
};
use crate::messages::{
    Error, OpenError, Position,
    incarnation::{Incarnation, Incarnations},
};

/// The room of a copy grows in steps of this many bytes.
const ROOM_BYTES: usize = if cfg!(test) { 256 } else { 4096 };

/// The most bytes that a change adds to the content: a segment, the incarnation of this run, and a step of the wall clock.
const CHANGE_BYTES: usize = 512;

/// The two copies, as they were found.
#[derive(Debug, Default)]
pub struct Found {
    /// The newer of the valid copies.
    pub manifest: Option<Manifest>,
    /// Which copy that is.
    pub newest: Option<usize>,
    /// Copies that exist and are not valid.
    pub damaged: Vec<PathBuf>,
    /// Those of them that the disk cannot read.
    pub unreadable: [bool; 2],
    /// The older copy has the same content.
    pub is_mirrored: bool,
}

impl Found {
    /// Reads the copies in a directory. Fails if the disk cannot read a copy and there is no other valid one.
    pub fn read(disk: &Disk, directory: &Path) -> Result<Self, OpenError> {
        let (mut found, mut failure) = (Self::default(), None);
        for (place, path) in NAMES.iter().map(|name| directory.join(name)).enumerate() {
            let bytes = match disk.open(&path, false).and_then(|file| read_all(&file)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) if is_bad_sector(&error) => {
                    if let Some(unreadable) = found.unreadable.get_mut(place) {
                        *unreadable = true;
                    }
                    found.damaged.push(path.clone());
                    failure = Some((path, error));
                    continue;
                }
                bytes => bytes.map_err(OpenError::at(&path))?,
            };
            match Manifest::read(&bytes) {
                Ok(copy) => found.take(copy, place),
                Err(Unreadable::Version(version)) => return Err(OpenError::Version { path, version }),
                Err(Unreadable::Damaged) => found.damaged.push(path),
            }
        }
        match failure.filter(|_| found.manifest.is_none()) {
            Some((path, source)) => Err(OpenError::Io { path, source }),
            None => Ok(found),
        }
    }

    fn take(&mut self, copy: Manifest, place: usize) {
        let Some(other) = &self.manifest else {
            (self.manifest, self.newest) = (Some(copy), Some(place));
            return;
        };
        let generation = other.generation;
        self.is_mirrored = *other == Manifest { generation, ..copy.clone() };
        if copy.generation > generation {
            (self.manifest, self.newest) = (Some(copy), Some(place));
        }
    }

    /// The generation of the newer copy; 0 if there is none.
    pub fn generation(&self) -> u64 {
        self.manifest.as_ref().map_or(0, |manifest| manifest.generation)
    }
}

/// Writes the manifest of a log that is being opened, before anything else is written. On a full disk, it is written with
/// the next change.
pub fn start(disk: &Disk, directory: &Path, manifest: Manifest, found: &Found) -> io::Result<ManifestFile> {
    for path in &found.damaged {
        tracing::warn!(path = %path.display(), "a copy of the manifest is damaged or cannot be read: it is written again");
    }
    // A server that was killed may have left a segment whose name only the kernel has: it must not be listed before a power cut
    // can no longer take its name away.
    disk.sync_directory(directory)?;
    let file = ManifestFile::new(disk.clone(), directory, manifest, found);
    match file.mirror() {
        Err(error) if is_full(&error) => {
            tracing::warn!(%error, "there is no room for the manifest yet");
        }
        result => result?,
    }
    Ok(file)
}

fn read_all(file: &File) -> io::Result<Vec<u8>> {
    file.read(0, usize::try_from(file.len()?).map_err(io::Error::other)?)
}

/// The manifest of an open log.
#[derive(Debug)]
pub struct ManifestFile {
    disk: Disk,
    directory: PathBuf,
    copies: Mutex<Copies>,
    /// The incarnations, of which the manifest on disk may not have the last one yet.
    incarnations: RwLock<Arc<Incarnations>>,
}

/// The content of the manifest, and where it is on disk.
#[derive(Debug)]
struct Copies {
    manifest: Manifest,
    /// The newer copy; `None` if there is no valid one.
    newest: Option<usize>,
    /// The newest copy has all of the content.
    is_current: bool,
    /// The older copy has the same content.
    is_mirrored: bool,
    files: [Option<File>; 2],
    /// The copies that the disk cannot read.
    unreadable: [bool; 2],
}

impl Copies {
    /// The open file of a copy.
    fn file(&mut self, place: usize) -> &mut Option<File> {
        let [first, second] = &mut self.files;
        if place == 0 { first } else { second }
    }
}

/// Makes a copy long enough for a content. This takes the room on the disk.
fn grow(file: &File, bytes: usize) -> io::Result<()> {
    let room = (bytes + bytes / 4).next_multiple_of(ROOM_BYTES) as u64;
    if file.len()? < bytes as u64 { file.allocate(0..room) } else { Ok(()) }
}

impl ManifestFile {
    /// The manifest of a log that is being opened. `found` is what its directory has.
    pub fn new(disk: Disk, directory: &Path, manifest: Manifest, found: &Found) -> Self {
        let incarnations = RwLock::new(manifest.incarnations.clone().into());
        let generation = found.generation();
        let manifest = Manifest { generation, ..manifest };
        let is_as_found = found.manifest.as_ref() == Some(&manifest);
        let copies = Copies {
            manifest,
            newest: found.newest,
            is_current: is_as_found,
            is_mirrored: is_as_found && found.is_mirrored,
            files: [None, None],
            unreadable: found.unreadable,
        };
        Self { disk, directory: directory.into(), copies: Mutex::new(copies), incarnations }
    }

    fn copies(&self) -> MutexGuard<'_, Copies> {
        // The content changes by one assignment, after it is on disk.
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The incarnations of the log.
    pub fn incarnations(&self) -> Arc<Incarnations> {
        self.incarnations.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds an incarnation whose record is on disk. The next change writes it to the manifest.
    pub fn begin(&self, incarnation: Incarnation) {
        let mut incarnations = self.incarnations.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut incarnations).push(incarnation);
        drop(incarnations);
        let mut copies = self.copies();
        (copies.is_current, copies.is_mirrored) = (false, false);
    }

    /// Whether both copies on disk have the content.
    pub fn is_current(&self) -> bool {
        let copies = self.copies();
        copies.is_current && copies.is_mirrored
    }

    /// Reads the content.
    pub fn read<T>(&self, read: impl FnOnce(&Manifest) -> T) -> T {
        read(&self.copies().manifest)
    }

    /// Changes the manifest. One copy has the change when this returns.
    pub fn change(&self, change: impl FnOnce(&mut Manifest)) -> io::Result<()> {
        let mut copies = self.copies();
        let mut manifest = copies.manifest.clone();
        change(&mut manifest);
        self.write(&mut copies, &manifest)
    }

    /// Writes the manifest, if no copy was ever written.
    pub fn ensure(&self) -> io::Result<()> {
        if self.copies().newest.is_some() { Ok(()) } else { self.mirror() }
    }

    /// Changes the manifest. Both copies have the change when this returns: if one of them is damaged later, the other
    /// one has everything.
    pub fn change_both(&self, change: impl FnOnce(&mut Manifest)) -> io::Result<()> {
        self.change(change)?;
        self.mirror()
    }

    /// Brings the content to both copies, if they do not have it.
    pub fn mirror(&self) -> io::Result<()> {
        let mut copies = self.copies();
        if !copies.is_current {
            let manifest = copies.manifest.clone();
            self.write(&mut copies, &manifest)?;
        }
        if !copies.is_mirrored {
            let manifest = copies.manifest.clone();
            self.write(&mut copies, &manifest)?;
            copies.is_mirrored = true;
        }
        Ok(())
    }

    /// Reserves room in both copies for a change that adds a segment, so that a full disk does not prevent it.
    pub fn reserve(&self) -> io::Result<()> {
        let mut copies = self.copies();
        let bytes = self.content(&copies.manifest).to_bytes().len();
        for place in 0..NAMES.len() {
            // A copy that does not exist yet is written as a whole.
            if copies.file(place).is_none() && self.open(&mut copies, place)?.is_none() {
                let manifest = copies.manifest.clone();
                self.write(&mut copies, &manifest)?;
            }
            let file = match copies.file(place).take() {
                Some(file) => Some(file),
                None => self.open(&mut copies, place)?,
            };
            if let Some(file) = &file {
                grow(file, bytes + CHANGE_BYTES)?;
            }
            *copies.file(place) = file;
        }
        Ok(())
    }

    /// The next content of a copy.
    fn content(&self, manifest: &Manifest) -> Manifest {
        let incarnations = (*self.incarnations()).clone();
        Manifest { incarnations, generation: manifest.generation + 1, ..manifest.clone() }
    }

    /// Writes the older copy, and syncs it.
    fn write(&self, copies: &mut Copies, manifest: &Manifest) -> io::Result<()> {
        (copies.is_current, copies.is_mirrored) = (false, false);
        let place = copies.newest.map_or(0, |newest| 1 - newest);
        let manifest = self.content(manifest);
        let bytes = manifest.to_bytes();
        let file = match copies.file(place).take() {
            Some(file) => file,
            None => self.open(copies, place)?.map_or_else(|| self.create(place), Ok)?,
        };
        // Segments are freed by a change, too.
        maintenance::room::with_spare(&self.disk, &self.directory, || grow(&file, bytes.len()))?;
        file.write_all_at(&bytes, 0)?;
        file.sync()?;
        *copies.file(place) = Some(file);
        (copies.newest, copies.manifest, copies.is_current) = (Some(place), manifest, true);
        Ok(())
    }

    fn path(&self, place: usize) -> PathBuf {
        self.directory.join(NAMES.get(place).copied().unwrap_or_default())
    }

    fn open(&self, copies: &mut Copies, place: usize) -> io::Result<Option<File>> {
        if let Some(unreadable) = copies.unreadable.get_mut(place).filter(|unreadable| **unreadable) {
            // Bytes cannot be replaced in a page that cannot be read; a new file does not need them.
            self.disk.remove(&self.path(place))?;
            *unreadable = false;
        }
        match self.disk.open(&self.path(place), true) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            file => file.map(Some),
        }
    }

    fn create(&self, place: usize) -> io::Result<File> {
        let file = self.disk.create(&self.path(place))?;
        self.disk.sync_directory(&self.directory)?;
        Ok(file)
    }

    /// The link of the next segment, which begins with a sequence.
    pub fn link_of_next(&self, first_sequence: u64) -> Link {
        let before = self.read(|manifest| {
            manifest.segments.iter().chain(&manifest.lost).max_by_key(|listed| listed.first_sequence).copied()
        });
        let predecessor = before.map(|Listed { id, first_sequence: first, .. }| Predecessor {
            id,
            first_sequence: first,
            end: first_sequence,
        });
        Link::new(predecessor, self.incarnations().lineage(first_sequence.saturating_sub(1)))
    }

    /// Lists a new segment, which the messages from now on go to.
    pub fn list_next(&self, id: SegmentId, first_sequence: u64) -> io::Result<()> {
        self.change(|manifest| {
            if let Some(before) = manifest.segments.last_mut() {
                before.end.get_or_insert(first_sequence);
            }
            manifest.segments.push(Listed { id: Some(id), first_sequence, end: None });
            manifest.next_sequence = first_sequence;
        })?;
        if let Err(error) = self.mirror() {
            tracing::warn!(%error, "the second copy of the manifest cannot be written now: the next change does it");
        }
        Ok(())
    }

    /// Records that the log is closed, and that its last segment has all messages below a sequence.
    pub fn close(&self, next_sequence: u64) -> io::Result<()> {
        self.change_both(|manifest| {
            if let Some(last) = manifest.segments.last_mut() {
                last.end = Some(next_sequence);
            }
            manifest.next_sequence = next_sequence;
        })
    }

    /// The lost ranges of sequences.
    pub fn lost_ranges(&self) -> Vec<Range<u64>> {
        let range = |lost: &Listed| lost.first_sequence..lost.end.unwrap_or(u64::MAX);
        self.read(|manifest| manifest.lost.iter().map(range).collect())
    }

    /// The link of a segment that replaces others, from the one with this first sequence on.
    pub fn link_of_compacted(&self, first_sequence: u64) -> Link {
        let before = self.read(|manifest| {
            let listed = manifest.segments.iter().chain(&manifest.lost);
            let before = listed.filter(|listed| listed.first_sequence < first_sequence);
            before.max_by_key(|listed| listed.first_sequence).copied()
        });
        let predecessor = before.map(|Listed { id, first_sequence: first, end }| Predecessor {
            id,
            first_sequence: first,
            end: end.unwrap_or(first_sequence),
        });
        Link::new(predecessor, self.incarnations().lineage(first_sequence.saturating_sub(1)))
    }

    /// Lists a compacted segment instead of those that it replaces.
    pub fn list_compacted(&self, id: SegmentId, replaced: &[u64]) -> io::Result<()> {
        let (Some(first), Some(last)) = (replaced.first(), replaced.last()) else { return Ok(()) };
        self.change_both(|manifest| {
            let end = manifest.segments.iter().find(|listed| listed.first_sequence == *last);
            let listed =
                Listed { id: Some(id), first_sequence: *first, end: end.and_then(|listed| listed.end) };
            manifest.segments.retain(|listed| !replaced.contains(&listed.first_sequence));
            let place = manifest.segments.partition_point(|listed| listed.first_sequence < *first);
            manifest.segments.insert(place, listed);
        })
    }

    /// Takes a segment off the list, before its file is removed. The ranges of sequences, first and last, that are damaged in it
    /// stay known as lost.
    pub fn unlist(&self, first_sequence: u64, damaged: &[(u64, u64)]) -> io::Result<()> {
        self.change_both(|manifest| {
            manifest.segments.retain(|listed| listed.first_sequence != first_sequence);
            let lost = |(first, last): &(u64, u64)| Listed::lost(*first, last.saturating_add(1));
            manifest.lost.extend(damaged.iter().map(lost));
            manifest.lost.sort_by_key(|lost| lost.first_sequence);
            manifest.join_lost();
        })
    }

    /// Forgets the lost ranges that end below a sequence.
    pub fn forget_lost(&self, end: u64) -> io::Result<()> {
        let is_known = |lost: &Listed| lost.end.is_none_or(|lost| lost > end);
        if self.read(|manifest| manifest.lost.iter().all(is_known)) {
            return Ok(());
        }
        self.change_both(|manifest| manifest.lost.retain(is_known))
    }
}

impl Embedded {
    /// The incarnations of the log.
    pub fn incarnations(&self) -> Arc<Incarnations> {
        self.shared.manifest.incarnations()
    }

    /// Checks that a position is one of this log and its history.
    pub fn check(&self, position: &Position) -> Result<(), Error> {
        position.check(self.id(), &self.incarnations(), self.head())
    }
}

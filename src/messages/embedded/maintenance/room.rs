//! Room on the disk: segments prepared ahead and spare files, so that a full disk is noticed before a commit, and can be
//! healed from inside.
//!
//! - A segment gets its room when it is created: that of a full segment, or else what the disk has.
//! - A few spare files, [`RESERVE`], are renamed into use where no file can be created: freeing takes no room and no file.
//! - While publishing is refused for want of room, [`Shared`] says how much it needs, and room is looked for each second.

use std::{
    io,
    ops::Range,
    path::Path,
    sync::{Arc, MutexGuard},
};

use super::{Maintenance, Worker, lock};
use crate::messages::{
    Config, NeededRoom,
    embedded::{
        Shared,
        disk::{Disk, File, is_full},
        format::segment_header::{SEGMENT_HEADER_BYTES, SegmentHeader},
        index::{builder::IndexBuilder, segment::Segment},
        segment_name,
    },
};

/// The name of the prepared segment.
pub const READY: &str = "next.segment";

/// The names of the spare files.
pub const RESERVE: [&str; 2] = ["reserve-1", "reserve-2"];

/// A segment gets this fraction more than its nominal size on disk, for the last commit and the index.
pub const SPARE: u64 = 8;

/// A segment is prepared with at least this fraction of its size.
const PREPARED: u64 = 8;

/// A spare file has this fraction of the size of a segment, and a segment is not begun with less.
const SMALLEST: u64 = 64;

/// The unit in which room is counted: that of most file systems.
const PAGE: u64 = 4096;

/// Why there is no next segment.
#[derive(Debug)]
pub struct NotMade {
    /// The cause.
    pub error: io::Error,
    /// The new segment may have its name: then the previous one must not be written any more.
    pub is_named: bool,
}

/// What a new segment is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// Messages of this many bytes wait for it.
    Publish(u64),
    /// The current segment can be freed once there is another one: a spare file may be used.
    Free,
}

impl Maintenance {
    /// The next segment: the prepared one, or a new one. Its name is on disk when this returns.
    pub fn next_segment(&self, first_sequence: u64, purpose: Purpose) -> Result<Segment, NotMade> {
        let shared = &self.shared;
        // Keep the lock until the file has its own name: the worker would create another one under the name `READY`.
        let mut ready = lock(&self.ready);
        let not_named = |error| NotMade { error, is_named: false };
        shared.manifest.ensure().map_err(not_named)?;
        // Once the segment has its name, its place in the manifest must not fail for want of room.
        let reserved = match purpose {
            Purpose::Publish(_) => shared.manifest.reserve(),
            Purpose::Free => room_to_free(shared),
        };
        reserved.map_err(not_named)?;
        let file = match ready.take() {
            Some(file) => file,
            None => make_for(shared, purpose).map_err(not_named)?,
        };
        let link = shared.manifest.link_of_next(first_sequence);
        let header =
            SegmentHeader { log: shared.identity, first_sequence, replaces_up_to: 0, link: Some(link) };
        let path = shared.directory.join(segment_name(first_sequence));
        let disk = &shared.config.disk;
        let named = file
            .write_all_at(&header.to_bytes(), 0)
            .and_then(|()| file.sync())
            .and_then(|()| disk.rename(&shared.directory.join(READY), &path));
        if let Err(error) = named {
            let _ = disk.remove(&shared.directory.join(READY));
            return Err(not_named(error));
        }
        disk.sync_directory(&shared.directory).map_err(|error| NotMade { error, is_named: true })?;
        if let Err(error) = shared.manifest.list_next(link.id, first_sequence) {
            // It must not be written without a place in the manifest, nor keep that place without its file.
            let undone = || {
                shared.manifest.mirror()?;
                disk.remove(&path)?;
                disk.sync_directory(&shared.directory)
            };
            let is_named = !is_full(&error) || undone().is_err();
            return Err(NotMade { error, is_named });
        }
        let index = IndexBuilder::new(shared.identity.salt, header.bytes());
        Ok(Segment::open(path, Arc::new(file), first_sequence, 0, index))
    }

    /// Looks for room until there is some.
    pub fn watch_room(&self) {
        self.request(super::Task::WatchRoom);
    }
}

fn room_to_free(shared: &Shared) -> io::Result<()> {
    with_spare(&shared.config.disk, &shared.directory, || shared.manifest.reserve())
}

fn make_for(shared: &Shared, purpose: Purpose) -> io::Result<File> {
    let least = match purpose {
        Purpose::Publish(bytes) => bytes + SEGMENT_HEADER_BYTES as u64,
        Purpose::Free => 0,
    };
    match make(shared, smallest(&shared.config).max(least)) {
        Err(error) if is_full(&error) && purpose == Purpose::Free => {
            take_reserve(&shared.config.disk, &shared.directory, &shared.directory.join(READY))
        }
        result => result,
    }
}

/// Creates the file of a segment, with its room on the disk: that of a full one, or else as much as there is, but not less
/// than `least`.
fn make(shared: &Shared, least: u64) -> io::Result<File> {
    let path = shared.directory.join(READY);
    let file = shared.config.disk.create(&path)?;
    let mut size = room(&shared.config);
    loop {
        match file.allocate(0..size) {
            Ok(()) => return Ok(file),
            Err(error) if is_full(&error) && size / 2 >= least => size /= 2,
            Err(error) => {
                let _ = shared.config.disk.remove(&path);
                return Err(error);
            }
        }
    }
}

/// The size that a segment gets on disk before it is written.
pub fn room(config: &Config) -> u64 {
    let bytes = config.segment_bytes as u64;
    bytes + bytes / SPARE
}

fn smallest(config: &Config) -> u64 {
    (config.segment_bytes as u64 / SMALLEST).max(PAGE / 8)
}

/// Creates a file, or takes a spare one if there is no room for another file. It may be longer than 0: with zeros.
pub fn create(disk: &Disk, directory: &Path, path: &Path) -> io::Result<File> {
    match disk.create(path) {
        Err(error) if is_full(&error) => take_reserve(disk, directory, path).map_err(|_| error),
        result => result,
    }
}

/// Renames a spare file.
pub fn take_reserve(disk: &Disk, directory: &Path, to: &Path) -> io::Result<File> {
    let mut result = Err(io::Error::from(io::ErrorKind::StorageFull));
    for name in RESERVE {
        result = disk.open(&directory.join(name), true);
        if let Ok(file) = result {
            disk.rename(&directory.join(name), to)?;
            return Ok(file);
        }
    }
    result.map_err(|error| if is_full(&error) { error } else { io::ErrorKind::StorageFull.into() })
}

/// Does something that freeing needs. If the disk is full, the room of the spare files is used for it.
pub fn with_spare<T>(
    disk: &Disk,
    directory: &Path,
    mut work: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let mut result = work();
    for name in RESERVE {
        if result.as_ref().err().is_some_and(is_full) && disk.remove(&directory.join(name)).is_ok() {
            tracing::warn!(name, "the disk is full: a spare file is removed");
            result = work();
        }
    }
    result
}

/// Makes the spare files that are missing, as far as there is room.
pub fn fill_reserve(disk: &Disk, directory: &Path, config: &Config) -> io::Result<()> {
    let bytes = smallest(config);
    let mut is_new = false;
    for path in RESERVE.map(|name| directory.join(name)) {
        match disk.open(&path, true) {
            Ok(file) => {
                // It has bytes if it was taken and a power cut undid that.
                let length = file.len()?;
                let seen = file.read(0, usize::try_from(length).map_err(io::Error::other)?)?;
                if seen.iter().any(|byte| *byte != 0) {
                    file.zero(0..length)?;
                    file.sync()?;
                }
                if length < bytes {
                    file.allocate(0..bytes)?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                is_new = true;
                make_spare(disk, &path, bytes)?;
            }
            Err(error) => return Err(error),
        }
    }
    if is_new { disk.sync_directory(directory) } else { Ok(()) }
}

fn make_spare(disk: &Disk, path: &Path, bytes: u64) -> io::Result<()> {
    let file = disk.create(path)?;
    file.allocate(0..bytes).and_then(|()| file.sync()).inspect_err(|_| _ = disk.remove(path))
}

impl Shared {
    /// The torn tail that is still in its segment, if there is one.
    pub fn pending_tail(&self) -> MutexGuard<'_, Option<(Arc<File>, Range<u64>)>> {
        lock(&self.pending_tail)
    }

    /// Records that messages can be published.
    pub fn has_room(&self) {
        if self.lack.borrow().is_some() {
            tracing::info!("there is room on the disk again: messages can be published");
            self.lack.send_replace(None);
        }
    }

    /// Reserves room in the manifest for the next change.
    pub fn reserve_manifest(&self) {
        if let Err(error) = self.manifest.reserve() {
            tracing::debug!(%error, "there is no room to reserve for the manifest");
        }
    }

    /// What the disk must have before messages of this size can be published.
    pub fn needed_room(&self, bytes: u64) -> NeededRoom {
        let bytes = (bytes + PAGE).next_multiple_of(PAGE);
        let left = self.config.disk.free(&self.directory);
        NeededRoom { bytes, files: u64::from(left.is_ok_and(|left| left.files == 0)) }
    }

    /// What a new segment needs.
    pub fn needed_for_segment(&self, bytes: u64) -> NeededRoom {
        self.needed_room(smallest(&self.config).max(bytes))
    }
}

impl Worker {
    /// Prepares the next segment. If the disk is nearly full, its rest is left for the segment that is written.
    pub(super) fn prepare(&self) {
        // The committer creates one itself if it finds none, under the same lock.
        let mut ready = lock(&self.ready);
        if ready.is_none() {
            match make(&self.shared, room(&self.shared.config) / PREPARED) {
                Ok(file) => *ready = Some(file),
                Err(error) => tracing::warn!(%error, "there is no room for the next segment yet"),
            }
        }
    }

    /// Deletes the prepared segment. False if there is none.
    pub(super) fn give_room_back(&self) -> bool {
        let mut ready = lock(&self.ready);
        let is_there = ready.take().is_some();
        if is_there {
            let _ = self.shared.config.disk.remove(&self.shared.directory.join(READY));
        }
        is_there
    }

    /// Makes what was used of the reserve again.
    pub(super) fn replenish(&self) {
        let Shared { config, directory, .. } = &*self.shared;
        let missing = |name: &str| config.disk.open(&directory.join(name), false).is_err();
        if RESERVE.iter().any(|name| missing(name))
            && let Err(error) = fill_reserve(&config.disk, directory, config)
        {
            tracing::debug!(%error, "there is no room for spare files");
        }
        self.shared.reserve_trim_points();
        self.shared.reserve_manifest();
    }
}

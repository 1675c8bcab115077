//! The seam between the log and the disk: tests make it lose power, run full, and fail.
//!
//! It has the calls that the log needs of a file system. The bytes of a file are on disk only after [`File::sync`], and its
//! name only after [`Disk::sync_directory`].

use std::{
    fs, io,
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

pub mod bad_sectors;
#[cfg(test)]
pub mod simulated;

/// The file system of a log.
#[derive(Clone, Debug, Default)]
pub enum Disk {
    /// The real one.
    #[default]
    Real,
    /// In memory, with faults.
    #[cfg(test)]
    Simulated(std::sync::Arc<simulated::Simulation>),
}

/// A range of this size or more is given back to the file system when it is erased; a shorter one is overwritten.
const HOLE_BYTES: u64 = if cfg!(test) { 1024 } else { 32 * 1024 };

/// The size of a piece in which zeros are written.
const ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];

/// The unit in which zeros are found that may be a hole.
const SECTOR: usize = 512;

/// What a file system has left for this process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Free {
    /// The number of bytes.
    pub bytes: u64,
    /// The number of files that can be created.
    pub files: u64,
}

/// The device and the inode of a file or directory: another one that takes its path has others while it is open.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FileId(u64, u64);

impl FileId {
    /// Of the file or directory at a path of the file system.
    pub fn at(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::of(&metadata))
    }

    /// Of a file with this metadata.
    pub fn of(metadata: &fs::Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }
}

/// An open file.
#[derive(Debug)]
pub enum File {
    /// Of the file system.
    Real(fs::File),
    /// In memory.
    #[cfg(test)]
    Simulated(simulated::Handle),
}

impl Disk {
    /// Creates a directory and its parents, if they are missing. Their names are on disk when this returns.
    pub fn create_directory(&self, path: &Path) -> io::Result<()> {
        let missing = path.ancestors().take_while(|above| !self.has_directory(above)).count();
        match self {
            Self::Real => fs::create_dir_all(path)?,
            #[cfg(test)]
            Self::Simulated(simulation) => simulation.create_directory(path)?,
        }
        // The directory itself may be there since a run that was killed before this.
        for created in path.ancestors().take(missing.max(1)) {
            // A relative path of one name has an empty parent.
            let parent =
                created.parent().map(|parent| if parent == Path::new("") { Path::new(".") } else { parent });
            if let Some(parent) = parent {
                self.sync_directory(parent)?;
            }
        }
        Ok(())
    }

    fn has_directory(&self, path: &Path) -> bool {
        match self {
            Self::Real => path == Path::new("") || path.is_dir(),
            #[cfg(test)]
            Self::Simulated(simulation) => simulation.list(path).is_ok(),
        }
    }

    /// Which file or directory is at a path.
    pub fn id_at(&self, path: &Path) -> io::Result<FileId> {
        match self {
            Self::Real => FileId::at(path),
            #[cfg(test)]
            Self::Simulated(_) => Ok(FileId::default()),
        }
    }

    /// The paths of the files in a directory, in any order.
    pub fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        match self {
            Self::Real => fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect(),
            #[cfg(test)]
            Self::Simulated(simulation) => simulation.list(path),
        }
    }

    /// Opens an existing file for reading, and for writing if `writes`.
    pub fn open(&self, path: &Path, writes: bool) -> io::Result<File> {
        match self {
            Self::Real => fs::File::options().read(true).write(writes).open(path).map(File::Real),
            #[cfg(test)]
            Self::Simulated(simulation) => simulation.open(path).map(File::Simulated),
        }
    }

    /// Creates a file, or truncates the existing one.
    pub fn create(&self, path: &Path) -> io::Result<File> {
        match self {
            Self::Real => {
                let mut options = fs::File::options();
                options.read(true).write(true).create(true).truncate(true).open(path).map(File::Real)
            }
            #[cfg(test)]
            Self::Simulated(simulation) => simulation.create(path).map(File::Simulated),
        }
    }

    /// Renames a file, and replaces the file that had the new name.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self {
            Self::Real => fs::rename(from, to),
            #[cfg(test)]
            Self::Simulated(simulation) => simulation.rename(from, to),
        }
    }

    /// Removes the name of a file; open handles stay valid.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::Real => fs::remove_file(path),
            #[cfg(test)]
            Self::Simulated(simulation) => simulation.remove(path),
        }
    }

    /// The free room on the file system of a directory. One that does not limit the number of files reports any
    /// number.
    pub fn free(&self, path: &Path) -> io::Result<Free> {
        match self {
            Self::Real => {
                let left = statvfs(path)?;
                let files = if left.f_files == 0 { u64::MAX } else { left.f_favail };
                Ok(Free { bytes: left.f_bavail.saturating_mul(left.f_frsize), files })
            }
            #[cfg(test)]
            Self::Simulated(simulation) => Ok(simulation.free()),
        }
    }

    /// Waits until the names in a directory are on disk.
    pub fn sync_directory(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::Real => fs::File::open(path)?.sync_all(),
            #[cfg(test)]
            Self::Simulated(simulation) => simulation.sync_directory(path),
        }
    }
}

impl File {
    /// Fills `bytes` from an offset; [`io::ErrorKind::UnexpectedEof`] if the file has fewer.
    pub fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Real(file) => file.read_exact_at(bytes, offset),
            #[cfg(test)]
            Self::Simulated(file) => file.read_exact_at(bytes, offset),
        }
    }

    /// Reads `length` bytes from an offset.
    pub fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Writes bytes at an offset. After an error, some of them may be written.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Real(file) => file.write_all_at(bytes, offset),
            #[cfg(test)]
            Self::Simulated(file) => file.write_all_at(bytes, offset),
        }
    }

    /// Writes bytes again that the file has already. On a full disk, sectors of zeros become holes, because they may be
    /// holes now: then a write to them would need room.
    pub fn rewrite(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.write_all_at(bytes, offset) {
            Err(error) if is_full(&error) => {}
            result => return result,
        }
        let to_border = usize::try_from(offset.next_multiple_of(SECTOR as u64) - offset).unwrap_or(0);
        let (first, rest) = bytes.split_at(to_border.min(bytes.len()));
        let is_zeros = |sector: &[u8]| sector.len() == SECTOR && sector.iter().all(|byte| *byte == 0);
        let mut parts = vec![(first.len(), false)];
        for sector in rest.chunks(SECTOR) {
            match parts.last_mut().filter(|(_, is_hole)| *is_hole == is_zeros(sector)) {
                Some((length, _)) => *length += sector.len(),
                None => parts.push((sector.len(), is_zeros(sector))),
            }
        }
        let mut at = 0;
        for (length, is_hole) in parts {
            let start = offset + at as u64;
            if is_hole {
                self.punch(start, length as u64)?;
            } else {
                self.write_all_at(bytes.get(at..at + length).unwrap_or_default(), start)?;
            }
            at += length;
        }
        Ok(())
    }

    /// The length of the file in bytes.
    pub fn len(&self) -> io::Result<u64> {
        match self {
            Self::Real(file) => Ok(file.metadata()?.len()),
            #[cfg(test)]
            Self::Simulated(file) => Ok(file.len()),
        }
    }

    /// Which file it is.
    pub fn id(&self) -> io::Result<FileId> {
        match self {
            Self::Real(file) => file.metadata().map(|metadata| FileId::of(&metadata)),
            #[cfg(test)]
            Self::Simulated(_) => Ok(FileId::default()),
        }
    }

    /// The metadata of a file of the file system.
    pub fn metadata(&self) -> io::Result<fs::Metadata> {
        match self {
            Self::Real(file) => file.metadata(),
            #[cfg(test)]
            Self::Simulated(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Truncates the file, or extends it with zeros.
    pub fn set_len(&self, bytes: u64) -> io::Result<()> {
        match self {
            Self::Real(file) => file.set_len(bytes),
            #[cfg(test)]
            Self::Simulated(file) => file.set_len(bytes),
        }
    }

    /// Extends the file with zeros to the end of a range, and reserves the room of the range on the disk. On a file system
    /// that cannot reserve room, this only sets the length, and a write may find the disk full.
    pub fn allocate(&self, range: Range<u64>) -> io::Result<()> {
        let Range { start, end } = range;
        if start >= end {
            return Ok(());
        }
        match self {
            Self::Real(file) => match fallocate(file, FallocateFlags::empty(), start, end - start) {
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                    if file.metadata()?.len() < end { file.set_len(end) } else { Ok(()) }
                }
                result => Ok(result?),
            },
            #[cfg(test)]
            Self::Simulated(file) => file.allocate(range),
        }
    }

    /// Overwrites bytes with zeros, within the length of the file. This takes no room, and gives the room of a long range
    /// back, where the file system writes in place and can make holes.
    pub fn erase(&self, range: Range<u64>) -> io::Result<()> {
        let length = range.end.saturating_sub(range.start);
        if length >= HOLE_BYTES {
            match self.punch(range.start, length) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                result => return result,
            }
        }
        self.zero(range)
    }

    /// Overwrites bytes with zeros. The range keeps its room; if it has none and the disk is full, it is a hole afterwards.
    pub fn zero(&self, range: Range<u64>) -> io::Result<()> {
        match self.write_zeros(range.clone()) {
            Err(error) if is_full(&error) => {
                self.punch(range.start, range.end - range.start).map_err(|_| error)
            }
            result => result,
        }
    }

    fn write_zeros(&self, range: Range<u64>) -> io::Result<()> {
        let mut at = range.start;
        while at < range.end {
            let piece = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(ZEROS.len());
            self.write_all_at(ZEROS.get(..piece).unwrap_or_default(), at)?;
            at += piece as u64;
        }
        Ok(())
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        match self {
            Self::Real(file) => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                match fallocate(file, flags, offset, length) {
                    Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                        Err(io::ErrorKind::Unsupported.into())
                    }
                    result => Ok(result?),
                }
            }
            #[cfg(test)]
            Self::Simulated(file) => file.punch(offset, length),
        }
    }

    /// Waits until the bytes and the length of the file are on disk.
    pub fn sync(&self) -> io::Result<()> {
        match self {
            Self::Real(file) => file.sync_data(),
            #[cfg(test)]
            Self::Simulated(file) => file.sync(),
        }
    }
}

/// Whether the disk is full, which is not a failure of the log.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

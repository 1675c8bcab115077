//! The seam between the log and the disk: what tests make lose power, run full and fail.
//!
//! All that the log asks of a file system, and no more. Nothing is promised to be on disk before [`File::sync`] for the
//! bytes of a file, and [`Disk::sync_directory`] for its name.

use std::{
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rustix::fs::{FallocateFlags, fallocate};

#[cfg(test)]
pub mod simulated;

/// Where the log's files are.
#[derive(Clone, Debug, Default)]
pub enum Disk {
    /// The file system.
    #[default]
    Real,
    /// In memory, with faults.
    #[cfg(test)]
    Simulated(std::sync::Arc<simulated::Simulation>),
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
    /// Makes a directory, and those above it.
    pub fn create_directory(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::Real => fs::create_dir_all(path),
            #[cfg(test)]
            Self::Simulated(simulation) => simulation.create_directory(path),
        }
    }

    /// The paths of the files in a directory, in no order.
    pub fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        match self {
            Self::Real => fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect(),
            #[cfg(test)]
            Self::Simulated(simulation) => simulation.list(path),
        }
    }

    /// Opens a file that is there, to read it and, if asked for, to write it.
    pub fn open(&self, path: &Path, writes: bool) -> io::Result<File> {
        match self {
            Self::Real => fs::File::options().read(true).write(writes).open(path).map(File::Real),
            #[cfg(test)]
            Self::Simulated(simulation) => simulation.open(path).map(File::Simulated),
        }
    }

    /// Makes an empty file, or empties the one that is there.
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

    /// Gives a file another name; what had that name is gone.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self {
            Self::Real => fs::rename(from, to),
            #[cfg(test)]
            Self::Simulated(simulation) => simulation.rename(from, to),
        }
    }

    /// Removes a file's name; who has it open still reads it.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::Real => fs::remove_file(path),
            #[cfg(test)]
            Self::Simulated(simulation) => simulation.remove(path),
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
    /// Reads just so many bytes; [`io::ErrorKind::UnexpectedEof`] if there are fewer.
    pub fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Real(file) => file.read_exact_at(bytes, offset),
            #[cfg(test)]
            Self::Simulated(file) => file.read_exact_at(bytes, offset),
        }
    }

    /// Reads so many bytes.
    pub fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Writes all bytes at an offset. After an error some may be written.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Real(file) => file.write_all_at(bytes, offset),
            #[cfg(test)]
            Self::Simulated(file) => file.write_all_at(bytes, offset),
        }
    }

    /// How many bytes it has.
    pub fn len(&self) -> io::Result<u64> {
        match self {
            Self::Real(file) => Ok(file.metadata()?.len()),
            #[cfg(test)]
            Self::Simulated(file) => Ok(file.len()),
        }
    }

    /// Cuts it, or fills it up with zeros.
    pub fn set_len(&self, bytes: u64) -> io::Result<()> {
        match self {
            Self::Real(file) => file.set_len(bytes),
            #[cfg(test)]
            Self::Simulated(file) => file.set_len(bytes),
        }
    }

    /// Fills it up with zeros to so many bytes, and takes the room on the disk now. Where the file system cannot, only
    /// the length is set, and room is found wanting at a write.
    pub fn allocate(&self, bytes: u64) -> io::Result<()> {
        match self {
            Self::Real(file) => match fallocate(file, FallocateFlags::empty(), 0, bytes) {
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(bytes),
                result => Ok(result?),
            },
            #[cfg(test)]
            Self::Simulated(file) => file.allocate(bytes),
        }
    }

    /// Waits until its bytes and its length are on disk.
    pub fn sync(&self) -> io::Result<()> {
        match self {
            Self::Real(file) => file.sync_data(),
            #[cfg(test)]
            Self::Simulated(file) => file.sync(),
        }
    }
}

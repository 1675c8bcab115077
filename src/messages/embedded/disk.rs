//! The seam between the log and the disk: what tests make go wrong.

use std::{fs::File, io, os::unix::fs::FileExt};

/// Where the log's bytes go.
#[derive(Clone, Debug, Default)]
pub enum Disk {
    /// The file system.
    #[default]
    Real,
    /// The file system, with faults.
    #[cfg(test)]
    Faulty(std::sync::Arc<Faults>),
}

/// What goes wrong, and when: each is switched on for the next call.
#[cfg(test)]
#[derive(Debug, Default)]
pub struct Faults {
    /// The next write finds no room, after half of its bytes.
    pub full: std::sync::atomic::AtomicBool,
    /// The next sync fails.
    pub sync: std::sync::atomic::AtomicBool,
}

#[cfg_attr(not(test), expect(clippy::unused_self, reason = "only tests have faults"))]
impl Disk {
    /// Writes all bytes at an offset.
    pub fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        #[cfg(test)]
        if let Self::Faulty(faults) = self
            && faults.full.swap(false, std::sync::atomic::Ordering::SeqCst)
        {
            let (half, _) = bytes.split_at(bytes.len() / 2);
            file.write_all_at(half, offset)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.write_all_at(bytes, offset)
    }

    /// Waits until what was written is on disk.
    pub fn sync(&self, file: &File) -> io::Result<()> {
        #[cfg(test)]
        if let Self::Faulty(faults) = self
            && faults.sync.swap(false, std::sync::atomic::Ordering::SeqCst)
        {
            return Err(io::Error::other("a fault"));
        }
        file.sync_data()
    }
}

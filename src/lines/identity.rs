//! Which file a file is, whatever its name.

use std::{os::unix::fs::MetadataExt, time::UNIX_EPOCH};

use rustix::fs::{Statx, StatxFlags, makedev};
use serde::{Deserialize, Serialize};

/// The device, the inode and the birth of a file. The inode alone is no identity: a file that is created after another
/// was deleted often gets its inode.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Identity {
    device: u64,
    inode: u64,
    /// In nanoseconds since 1970; 0 where the file system does not record it.
    birth: u64,
}

impl Identity {
    pub fn of(metadata: &std::fs::Metadata) -> Self {
        let birth = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let birth = birth.and_then(|birth| u64::try_from(birth.as_nanos()).ok()).unwrap_or(0);
        Self { device: metadata.dev(), inode: metadata.ino(), birth }
    }

    /// The same of what `statx` returns.
    pub fn of_statx(it: &Statx) -> Self {
        let birth = Some(it.stx_btime).filter(|_| it.stx_mask & StatxFlags::BTIME.bits() != 0);
        let birth = birth.and_then(|birth| {
            let seconds = u64::try_from(birth.tv_sec).ok()?.checked_mul(1_000_000_000)?;
            seconds.checked_add(birth.tv_nsec.into())
        });
        let device = makedev(it.stx_dev_major, it.stx_dev_minor);
        Self { device, inode: it.stx_ino, birth: birth.unwrap_or(0) }
    }

    #[cfg(test)]
    pub fn largest() -> Self {
        Self { device: u64::MAX, inode: u64::MAX, birth: u64::MAX }
    }

    /// A checksum by which a cursor names a directory. Without the device, which a restart of the machine may renumber.
    pub fn checksum(&self) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.inode.to_le_bytes()), &self.birth.to_le_bytes())
    }

    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// When the file was created, in nanoseconds since 1970; 0 where the file system does not record it.
    pub fn birth(&self) -> u64 {
        self.birth
    }

    /// Whether it is the same file, also after a restart of the machine, which may renumber devices. Without a birth,
    /// the device has to agree.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.inode, self.birth) == (other.inode, other.birth)
            && (self.birth != 0 || self.device == other.device)
    }
}

//! Before each commit: the files that are written are still those that the next start finds, and no second server can have
//! come in. Otherwise messages that were acknowledged would be gone with the last handle to their file, or overwritten.

use std::io;

use crate::messages::{
    Error,
    embedded::{Shared, disk::FileId, index::segment::Segment},
};

impl Shared {
    /// Fails if the directory was moved away or replaced: another server may have the path now, and find nothing of what is
    /// written here. Fails, too, if the lock file is not in its place, where that alone keeps a second server out.
    pub fn check_directory(&self) -> Result<(), Error> {
        let there = self.config.disk.id_at(&self.directory);
        self.check_is(there, self.directory_id, "the directory of the log was moved or replaced")?;
        let Some(lock) = &self.config.lock_file else { return Ok(()) };
        self.check_is(FileId::at(&lock.path), lock.id, "the lock file was removed, moved or replaced")
    }

    /// Fails if the file of the segment that is written was removed, moved away or replaced.
    pub fn check_file(&self, segment: &Segment) -> Result<(), Error> {
        let ours = segment.file_id().map_err(|error| self.fail(&error))?;
        let there = self.config.disk.id_at(&segment.path);
        self.check_is(there, ours, "the newest file of the log was removed, moved or replaced")
    }

    fn check_is(&self, there: io::Result<FileId>, ours: FileId, fault: &str) -> Result<(), Error> {
        let fault = || io::Error::other(fault);
        let is_ours = match there {
            Ok(there) if there == ours => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Err(fault()),
        };
        is_ours.map_err(|error| self.fail(&error))
    }
}

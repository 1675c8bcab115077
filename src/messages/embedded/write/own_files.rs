//! Before each commit: the files that are written are still those that the next start finds. Otherwise messages that were
//! acknowledged would be gone with the last handle to their file.

use std::io;

use crate::messages::{
    Error,
    embedded::{Shared, index::segment::Segment},
};

impl Shared {
    /// Fails if the directory was moved away or replaced. Another server may have the path now, and find nothing of what is
    /// written here.
    pub fn check_directory(&self) -> Result<(), Error> {
        let moved = || io::Error::other("the directory of the log was moved or replaced");
        let id = self.config.disk.directory_id(&self.directory);
        let is_ours = id.and_then(|id| if id == self.directory_id { Ok(()) } else { Err(moved()) });
        is_ours.map_err(|error| self.fail(&error))
    }

    /// Fails if the file of the segment that is written was removed, moved away or replaced.
    pub fn check_file(&self, segment: &Segment) -> Result<(), Error> {
        let is_ours = self.config.disk.has_file(&segment.path, &segment.file);
        let moved = || io::Error::other("the newest file of the log was removed, moved or replaced");
        let is_ours = is_ours.and_then(|is_ours| if is_ours { Ok(()) } else { Err(moved()) });
        is_ours.map_err(|error| self.fail(&error))
    }
}

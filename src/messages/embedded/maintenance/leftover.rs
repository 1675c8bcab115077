//! Files whose messages are in others, and that are still to be removed.

use std::{io, path::PathBuf};

use crate::messages::embedded::{Shared, format::segment_header::SegmentId};

/// Files whose messages are in others, and that are still to be removed.
#[derive(Debug)]
pub struct Leftover {
    /// The compacted segment that is not listed yet, and the first sequences of those that it replaces.
    pub unlisted: Option<(SegmentId, Vec<u64>)>,
    /// Where they are.
    pub files: Vec<PathBuf>,
}

impl Leftover {
    /// Removes the files, after the compacted segment is listed.
    fn remove(&mut self, shared: &Shared) -> io::Result<()> {
        let disk = &shared.config.disk;
        disk.sync_directory(&shared.directory)?;
        if let Some((id, replaced)) = &self.unlisted {
            shared.manifest.list_compacted(*id, replaced)?;
            self.unlisted = None;
        }
        // If this is interrupted, the header of the new segment identifies those that are left.
        while let Some(path) = self.files.last() {
            match disk.remove(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
            self.files.pop();
        }
        disk.sync_directory(&shared.directory)
    }
}

/// Removes files, or keeps them for the next time.
pub fn remove(shared: &Shared, mut leftover: Leftover) -> io::Result<()> {
    let removed = leftover.remove(shared);
    if removed.is_err() {
        shared.leftovers().push(leftover);
    }
    removed
}

/// Removes the files that could not be removed before.
pub fn remove_leftovers(shared: &Shared) -> io::Result<()> {
    let leftovers = std::mem::take(&mut *shared.leftovers());
    let mut result = Ok(());
    for leftover in leftovers {
        result = result.and(remove(shared, leftover));
    }
    result
}

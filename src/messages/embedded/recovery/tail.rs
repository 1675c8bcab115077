//! A torn tail: bytes at the end of the last segment that a power cut may have torn. They were never acknowledged, and are
//! copied to a file of their own before anything is written in their place.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::messages::embedded::{
    disk::{Disk, File, is_full},
    format::block::{self, Salt},
    maintenance::{room, tails::TORN},
};

/// The bytes of a torn tail in its segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tail {
    /// The offset of the first byte.
    pub start: u64,
    /// The offset after the last one.
    pub end: u64,
}

impl Tail {
    /// Copies the tail to a file of its own, writes a mark in its place, and overwrites the rest with zeros. Returns the new
    /// file. The caller syncs the segment.
    pub fn set_aside(
        self,
        disk: &Disk,
        segment: &Path,
        file: &File,
        next_sequence: u64,
        salt: Salt,
    ) -> io::Result<PathBuf> {
        let Self { start, end } = self;
        let aside = segment.with_extension(format!("{}{start}", TORN.trim_start_matches('.')));
        let directory = segment.parent().unwrap_or(segment);
        let bytes = file.read(start, usize::try_from(end - start).map_err(io::Error::other)?)?;
        let copy = room::create(disk, directory, &aside)?;
        let copied = copy.write_all_at(&bytes, 0).and_then(|()| copy.set_len(bytes.len() as u64));
        let mut copied = copied.and_then(|()| copy.sync());
        if copied.as_ref().is_err_and(is_full) {
            // A spare file may be large enough.
            let _ = disk.remove(&aside);
            copied = room::take_reserve(disk, directory, &aside).and_then(|copy| {
                copy.write_all_at(&bytes, 0)?;
                copy.set_len(bytes.len() as u64)?;
                copy.sync()
            });
        }
        copied.inspect_err(|_| _ = disk.remove(&aside))?;
        disk.sync_directory(directory)?;
        // Nothing was lost: its messages were never acknowledged. The mark says so from now on. It is on disk before the
        // zeros: without both, the next start would give sequences again that a reader may have seen.
        let mark = block::mark(next_sequence, salt);
        let mark_end = start + mark.len() as u64;
        if end < mark_end {
            file.allocate(end..mark_end)?;
        }
        file.write_all_at(&mark, start)?;
        file.sync()?;
        file.zero(mark_end..end)?;
        Ok(aside)
    }
}

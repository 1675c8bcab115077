//! Reading at an offset of a file that may change meanwhile. Everything here blocks.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
};

use super::hole;

/// How often a search is repeated in a file that is truncated while it is searched. In a file that never holds still,
/// like some in /proc, it is an error.
pub const MAX_TRUNCATIONS: usize = 8;

/// The unit in which the system counts a file's blocks.
const BLOCK_BYTES: u64 = 512;

/// The bytes of a log: of a file, or of what a compressed file holds. Offsets count these bytes.
pub trait Content {
    /// Reads at least one byte, or none at the end.
    fn read_some(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// The size and times of the content.
    fn stat(&self) -> io::Result<Stat>;

    /// Whether bytes that were read may have been written again: what a compressed file holds is read in one pass.
    fn is_rewritable(&self) -> bool;

    /// Where the data at an offset ends and a hole begins: the offset itself, if it is in a hole. `None` if no hole
    /// follows, or the file system does not report holes.
    fn end_of_data(&self, offset: u64) -> io::Result<Option<u64>>;

    /// The next data at or after an offset. `None` if only a hole follows.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;

    /// Fills the buffer. [`io::ErrorKind::UnexpectedEof`] if the content is shorter.
    fn read_all(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match read_at(self, buffer, offset)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => {
                    buffer = buffer.get_mut(read..).unwrap_or_default();
                    offset += read as u64;
                }
            }
        }
        Ok(())
    }
}

/// The size and times of some content.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// A hint: a file in /proc says that it is empty, and the size of a compressed file's content is not known before
    /// it is read.
    pub size: u64,
    /// Blocks are missing, or the file system counts them in another way.
    pub is_sparse: bool,
    /// When the file was written last, in nanoseconds since 1970.
    pub written: i64,
}

impl Content for File {
    fn read_some(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn stat(&self) -> io::Result<Stat> {
        let metadata = self.metadata()?;
        let is_sparse = metadata.blocks().saturating_mul(BLOCK_BYTES) < metadata.len();
        let written = metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
        Ok(Stat { size: metadata.len(), is_sparse, written })
    }

    fn is_rewritable(&self) -> bool {
        true
    }

    fn end_of_data(&self, offset: u64) -> io::Result<Option<u64>> {
        hole::end_of_data(self, offset)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        hole::next_data(self, offset)
    }
}

/// Reads at least one byte, or none at the end. A signal does not interrupt it.
pub fn read_at(content: &(impl Content + ?Sized), buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match content.read_some(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Repeats a search that fails with [`io::ErrorKind::UnexpectedEof`], which means that the file was truncated after its
/// size was read.
pub fn despite_truncation<T>(mut search: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..MAX_TRUNCATIONS {
        match search() {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            done => return done,
        }
    }
    search()
}

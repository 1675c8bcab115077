//! Reading at an offset of a file that may change meanwhile. Everything here blocks.

use std::{fs::File, io, os::unix::fs::FileExt};

/// How often a search is repeated in a file that is truncated while it is searched. In a file that never holds still,
/// like some in /proc, it is an error.
pub const MAX_TRUNCATIONS: usize = 8;

/// Reads at least one byte, or none at the end of the file. A signal does not interrupt it.
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
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

//! A part of a footer, which is read and checked as a whole.

use std::io;

use bytes::{Buf, Bytes};

use crate::messages::embedded::disk::File;

/// Where a part is, and its checksum.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Part {
    /// The offset of its first byte in the file.
    pub offset: u64,
    /// Its size in bytes.
    pub length: usize,
    /// The checksum of its bytes.
    pub checksum: u32,
}

/// A part of a footer is not as it was written.
#[derive(Clone, Copy, Debug)]
pub struct Damaged;

/// The result of reading a footer. Outer error: I/O. Inner error: the footer is damaged.
pub type Found<T> = io::Result<Result<T, Damaged>>;

impl Part {
    /// The offset after its last byte.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length as u64)
    }

    /// Takes a part from a trailer that is long enough.
    pub fn take(trailer: &mut &[u8]) -> Self {
        Self {
            offset: trailer.get_u64_le(),
            length: trailer.get_u32_le() as usize,
            checksum: trailer.get_u32_le(),
        }
    }

    /// Reads its bytes.
    pub fn read(&self, file: &File) -> Found<Bytes> {
        let bytes = file.read_soundly(self.offset, self.length)?;
        Ok(if crc32c::crc32c(&bytes) == self.checksum { Ok(bytes.into()) } else { Err(Damaged) })
    }
}

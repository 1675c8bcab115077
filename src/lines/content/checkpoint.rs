//! Where a reader is in a file, with the bytes that prove that the file still holds what was read. Everything here
//! blocks.

use std::{fs::File, io, os::unix::fs::FileExt};

use serde::{Deserialize, Serialize};

use super::position::{HEAD, LinePosition};

/// How many bytes before the offset prove that the file was not rewritten. Processes that write the same lines again, and
/// differ in their first ones alone, are common; with 1 KiB of equal lines they are rare.
pub const FINGERPRINT_BYTES: usize = 1024;

/// How many bytes at the start of a file prove, together with those before the offset, that it begins with all that
/// was read of another one.
pub const HEAD_BYTES: usize = 200;

/// A checksum of some bytes of a file, and how many they are.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Fingerprint {
    pub bytes: u16,
    checksum: u32,
}

impl Fingerprint {
    /// Of at most [`FINGERPRINT_BYTES`].
    pub fn of(bytes: &[u8]) -> Self {
        Self { bytes: u16::try_from(bytes.len()).unwrap_or(u16::MAX), checksum: crc32c::crc32c(bytes) }
    }

    /// One that a cursor holds.
    pub fn known(bytes: u16, checksum: u32) -> Self {
        Self { bytes, checksum }
    }

    /// Of the bytes before an offset.
    pub fn before(file: &File, offset: u64) -> io::Result<Self> {
        Self::of_last(file, offset, clamp(offset, FINGERPRINT_BYTES))
    }

    /// Of this many bytes before an offset, at most [`FINGERPRINT_BYTES`].
    fn of_last(file: &File, offset: u64, bytes: usize) -> io::Result<Self> {
        let mut buffer = [0; FINGERPRINT_BYTES];
        let (buffer, _) = buffer.split_at_mut(bytes);
        // A forged cursor may have a fingerprint of more bytes than are there.
        let from = offset.checked_sub(bytes as u64).ok_or(io::ErrorKind::InvalidInput)?;
        file.read_exact_at(buffer, from)?;
        Ok(Self::of(buffer))
    }

    /// Of the start of a file that was read up to `offset`.
    fn head(file: &File, offset: u64) -> io::Result<Self> {
        let mut buffer = [0; HEAD_BYTES];
        let (buffer, _) = buffer.split_at_mut(clamp(offset, HEAD_BYTES));
        file.read_exact_at(buffer, 0)?;
        Ok(Self::of(buffer))
    }
}

/// The smaller one.
pub fn clamp(bytes: u64, most: usize) -> usize {
    usize::try_from(bytes).unwrap_or(most).min(most)
}

/// A position in a file, and the fingerprints that prove it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Checkpoint {
    /// Where the next line starts.
    pub line: LinePosition,
    /// Of the bytes before it.
    pub before: Fingerprint,
    /// Of the bytes at the start of the file.
    pub head: Fingerprint,
}

impl Checkpoint {
    /// At the start of any file.
    pub fn start() -> Self {
        let nothing = Fingerprint::of(&[]);
        Self { line: HEAD, before: nothing, head: nothing }
    }

    pub fn at(file: &File, line: LinePosition) -> io::Result<Self> {
        let LinePosition { offset, .. } = line;
        Ok(Self { line, before: Fingerprint::before(file, offset)?, head: Fingerprint::head(file, offset)? })
    }

    /// At a position further on in the same file.
    pub fn moved(self, file: &File, line: LinePosition, before: Fingerprint) -> io::Result<Self> {
        let is_whole = usize::from(self.head.bytes) == HEAD_BYTES;
        let head = if is_whole { Ok(self.head) } else { Fingerprint::head(file, line.offset) };
        let head = match head {
            // The file was truncated since it was read; the next read reports that.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.head,
            head => head?,
        };
        Ok(Self { line, before, head })
    }

    /// Whether the file still has these bytes before the offset. False for a forged checkpoint, too.
    pub fn is_intact(&self, file: &File) -> io::Result<bool> {
        let bytes = usize::from(self.before.bytes).min(FINGERPRINT_BYTES);
        or_false(|| Ok(Fingerprint::of_last(file, self.line.offset, bytes)? == self.before))
    }

    /// Whether the file still begins with the same bytes.
    pub fn has_head(&self, file: &File) -> io::Result<bool> {
        or_false(|| Ok(Fingerprint::head(file, self.line.offset)? == self.head))
    }

    /// Whether its fingerprints cover enough of a file to prove it without its inode and its birth.
    pub fn is_proof(&self) -> bool {
        usize::from(self.before.bytes) == FINGERPRINT_BYTES && usize::from(self.head.bytes) == HEAD_BYTES
    }

    /// Whether the file begins with all that was read, as far as fingerprints of its start and its end can prove.
    pub fn is_prefix_of(&self, file: &File) -> io::Result<bool> {
        Ok(self.has_head(file)? && self.is_intact(file)?)
    }
}

/// False where the file is too short for the check, or the offset was forged.
fn or_false(check: impl Fn() -> io::Result<bool>) -> io::Result<bool> {
    match check() {
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput) => {
            Ok(false)
        }
        checked => checked,
    }
}

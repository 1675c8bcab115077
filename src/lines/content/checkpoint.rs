//! Where a reader is in a file, with the bytes that prove that the file still holds what was read. Everything here
//! blocks.

use std::io;

use serde::{Deserialize, Serialize};

use super::{
    hole::{self, Hole, Holes},
    position::{HEAD, LinePosition},
    pread::Content,
};

/// How many bytes before the offset prove that the file was not rewritten. Processes that write the same lines again, and
/// differ in their first ones alone, are common; with 1 KiB of equal lines they are rare.
pub const FINGERPRINT_BYTES: usize = 1024;

/// How many bytes at the start of a file prove, together with those before the offset, that it begins with the bytes that
/// were read of another one.
pub const HEAD_BYTES: usize = 200;

/// A checksum of some bytes of a file, and how many they are.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
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

    /// Of the last of these bytes, after a hole among them: it may be filled in later.
    pub fn of_last(bytes: &[u8]) -> Self {
        Self::of(hole::after_runs(bytes))
    }

    /// Of the bytes before an offset, after a hole among them.
    pub fn before(file: &impl Content, offset: u64) -> io::Result<Self> {
        let mut buffer = [0; FINGERPRINT_BYTES];
        let (buffer, _) = buffer.split_at_mut(clamp(offset, FINGERPRINT_BYTES));
        file.read_all(buffer, offset - buffer.len() as u64)?;
        Ok(Self::of_last(buffer))
    }

    /// Of the start of a file, as a checkpoint far after it has it. An error if the file is shorter.
    pub fn whole_head(file: &impl Content) -> io::Result<Self> {
        Self::head(file, HEAD_BYTES as u64)
    }

    /// Of the start of a file that was read up to `offset`, before a hole in it.
    fn head(file: &impl Content, offset: u64) -> io::Result<Self> {
        let mut buffer = [0; HEAD_BYTES];
        let (buffer, _) = buffer.split_at_mut(clamp(offset, HEAD_BYTES));
        file.read_all(buffer, 0)?;
        Ok(Self::of(hole::before_runs(buffer)))
    }

    /// Whether a file has the same bytes from this offset on.
    fn is_at(self, file: &impl Content, offset: u64) -> io::Result<bool> {
        let mut buffer = vec![0; usize::from(self.bytes)];
        file.read_all(&mut buffer, offset)?;
        Ok(Self::of(&buffer) == self)
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
    /// The holes that were passed before it.
    pub holes: Holes,
}

impl Checkpoint {
    /// At the start of any file.
    pub fn start() -> Self {
        let nothing = Fingerprint::of(&[]);
        Self { line: HEAD, before: nothing, head: nothing, holes: Holes::default() }
    }

    pub fn at(file: &impl Content, line: LinePosition) -> io::Result<Self> {
        let LinePosition { offset, .. } = line;
        let (before, head) = (Fingerprint::before(file, offset)?, Fingerprint::head(file, offset)?);
        Ok(Self { line, before, head, holes: Holes::default() })
    }

    /// At a position further on in the same file.
    pub fn moved(self, file: &impl Content, line: LinePosition, before: Fingerprint) -> io::Result<Self> {
        let is_whole = usize::from(self.head.bytes) == HEAD_BYTES;
        let head = if is_whole { Ok(self.head) } else { Fingerprint::head(file, line.offset) };
        let head = match head {
            // The file was truncated since it was read; the next read reports that.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.head,
            head => head?,
        };
        Ok(Self { line, before, head, holes: self.holes })
    }

    /// With one more hole that is passed.
    pub fn after(mut self, hole: Hole) -> Self {
        self.holes.push(hole);
        self
    }

    /// Whether fingerprints prove it: they cover nothing as long as only holes were passed.
    pub fn has_fingerprint(&self) -> bool {
        self.before.bytes > 0 || self.head.bytes > 0
    }

    /// Whether the file still has these bytes before the offset, and is not shorter. False for a forged checkpoint, too.
    pub fn is_intact(&self, file: &impl Content) -> io::Result<bool> {
        let LinePosition { offset, .. } = self.line;
        or_false(|| {
            if let Some(last) = offset.checked_sub(1) {
                file.read_all(&mut [0], last)?;
            }
            let from = offset.checked_sub(u64::from(self.before.bytes));
            self.before.is_at(file, from.ok_or(io::ErrorKind::InvalidInput)?)
        })
    }

    /// Whether the file still begins with the same bytes.
    pub fn has_head(&self, file: &impl Content) -> io::Result<bool> {
        or_false(|| self.head.is_at(file, 0))
    }

    /// Whether the content begins with the same bytes, and has no more of them before the offset that a head covers. For
    /// content that is never written again: a hole in it is filled at no later time.
    pub fn has_whole_head(&self, content: &impl Content) -> io::Result<bool> {
        or_false(|| Ok(Fingerprint::head(content, self.line.offset)? == self.head))
    }

    /// Whether its fingerprints cover enough of a file to prove it without its inode and its birth.
    pub fn is_proof(&self) -> bool {
        usize::from(self.before.bytes) == FINGERPRINT_BYTES && usize::from(self.head.bytes) == HEAD_BYTES
    }

    /// Whether the file begins with the bytes that were read, as far as fingerprints of their start and their end can prove.
    pub fn is_prefix_of(&self, file: &impl Content) -> io::Result<bool> {
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

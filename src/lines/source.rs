//! One file that is being read: its descriptor, where the reader stands in it, and the proof that it is still the
//! same file. Everything here blocks, and runs on a blocking thread.

use std::{fs::File, io, os::unix::fs::FileExt, sync::atomic::AtomicBool, time::UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{
    place,
    split::{self, Bounds, Encoded, Place},
};

/// How much is read at once in bulk: larger reads gain nothing, see the figures in `docs/benchmarks.md`.
const READ_BYTES: usize = 256 * 1024;

/// The smallest read.
const MIN_READ_BYTES: usize = 4 * 1024;

/// How many bytes before the offset prove that the file was not written anew.
const MARKER_BYTES: usize = 64;

/// Which file it is. The inode alone is no identity: a file made after another was deleted often gets the same one.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Identity {
    device: u64,
    inode: u64,
    /// In nanoseconds since 1970; 0 where the file system does not tell.
    birth: u64,
}

impl Identity {
    /// Of an open file.
    pub fn of(metadata: &std::fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        let birth = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let birth = birth.and_then(|birth| u64::try_from(birth.as_nanos()).ok()).unwrap_or(0);
        Self { device: metadata.dev(), inode: metadata.ino(), birth }
    }

    /// When the file was made: in nanoseconds since 1970.
    pub fn birth(&self) -> u64 {
        self.birth
    }
}

/// A checksum of the bytes before an offset.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Marker {
    bytes: u8,
    checksum: u32,
}

impl Marker {
    fn before(file: &File, offset: u64) -> io::Result<Self> {
        let mut buffer = [0; MARKER_BYTES];
        let bytes = offset.min(MARKER_BYTES as u64);
        let (buffer, _) = buffer.split_at_mut(usize::try_from(bytes).unwrap_or(0));
        file.read_exact_at(buffer, offset - bytes)?;
        Ok(Self { bytes: u8::try_from(bytes).unwrap_or(0), checksum: crc32c::crc32c(buffer) })
    }

    /// The file still has these bytes before the offset. False for a marker or an offset that was made up.
    pub fn holds(self, file: &File, offset: u64) -> io::Result<bool> {
        if offset > file.metadata()?.len() {
            return Ok(false);
        }
        match Self::before(file, offset) {
            Ok(marker) => Ok(marker == self),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A file that is being read.
#[derive(Debug)]
pub struct Source {
    file: File,
    identity: Identity,
    place: Place,
    marker: Marker,
    /// Bytes read and not yet used; `place` is where they start. Freed when the reader has caught up.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Where the file ended when it was last read to its end: behind `place` by a part of a line.
    seen: u64,
}

/// What one look at a file yielded.
#[derive(Debug)]
pub struct Filled {
    /// The lines.
    pub lines: Encoded,
    /// Nothing follows them now, but perhaps a part of a line.
    pub at_end: bool,
    /// The size of the file.
    pub size: u64,
}

impl Filled {
    /// Nothing, at the end of a file of this size.
    pub fn nothing(size: u64) -> Self {
        Self { lines: Encoded::default(), at_end: true, size }
    }
}

impl Source {
    /// Stands at a place of an open file.
    pub fn new(file: File, place: Place) -> io::Result<Self> {
        let identity = Identity::of(&file.metadata()?);
        let marker = Marker::before(&file, place.offset)?;
        let seen = place.offset;
        Ok(Self { file, identity, place, marker, buffer: Box::default(), start: 0, end: 0, seen })
    }

    /// Which file it is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Where the reader stands.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The proof of it.
    pub fn marker(&self) -> Marker {
        self.marker
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Reads on until a batch is full or the end of the file is reached.
    ///
    /// A part of a line at the end stays, unless `flush` says that no more will come: then it is a line.
    pub fn fill(&mut self, bounds: &Bounds, flush: bool) -> io::Result<Filled> {
        let mut lines = Encoded::default();
        let mut at_end = false;
        let size = self.file.metadata()?.len();
        loop {
            let chunk = self.buffer.get(self.start..self.end).unwrap_or_default();
            self.start += split::split(chunk, &mut self.place, bounds, &mut lines);
            if lines.is_full(bounds) {
                break;
            }
            if self.read(size)? == 0 {
                at_end = true;
                break;
            }
        }
        if at_end && flush {
            let rest = self.buffer.get(self.start..self.end).unwrap_or_default();
            self.start += split::flush(rest, &mut self.place, bounds, &mut lines);
            at_end = self.start == self.end;
        }
        if at_end {
            self.seen = self.place.offset + (self.end - self.start) as u64;
            // A part of a line is read again when it has grown: what is kept could have been overwritten meanwhile.
            (self.buffer, self.start, self.end) = (Box::default(), 0, 0);
        }
        self.marker = Marker::before(&self.file, self.place.offset)?;
        Ok(Filled { lines, at_end, size: size.max(self.place.offset) })
    }

    /// Reads what follows the buffer into it. The size is a hint for how much to ask for: it may lie.
    fn read(&mut self, size: u64) -> io::Result<usize> {
        let held = self.end - self.start;
        let next = self.place.offset + held as u64;
        let ahead = usize::try_from(size.saturating_sub(next)).unwrap_or(READ_BYTES);
        // One byte more than there should be, so that the next read can tell the end.
        let wanted = (ahead + 1).clamp(MIN_READ_BYTES, READ_BYTES);
        if self.buffer.len() < held + wanted {
            let mut larger = vec![0; held + wanted.max(held)].into_boxed_slice();
            if let (Some(to), Some(from)) = (larger.get_mut(..held), self.buffer.get(self.start..self.end)) {
                to.copy_from_slice(from);
            }
            self.buffer = larger;
        } else {
            self.buffer.copy_within(self.start..self.end, 0);
        }
        (self.start, self.end) = (0, held);
        let free = self.buffer.get_mut(held..).unwrap_or_default();
        let read = loop {
            match self.file.read_at(free, next) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.end += read;
        Ok(read)
    }

    /// The bytes before the place are as they were.
    pub fn is_intact(&self) -> io::Result<bool> {
        self.marker.holds(&self.file, self.place.offset)
    }

    /// The file has grown since it was read to its end.
    pub fn has_more(&self) -> io::Result<bool> {
        let mut byte = [0];
        Ok(self.file.read_at(&mut byte, self.seen)? > 0)
    }

    /// A part of a line is left at the end.
    pub fn has_part(&self) -> bool {
        self.seen > self.place.offset
    }

    /// Goes on to the line with this number, or as far as there are lines.
    pub fn seek_line(&mut self, number: u64, gone: &AtomicBool) -> io::Result<()> {
        let (place, seen) = place::line(&self.file, self.place, number, gone)?;
        *self = Self { seen, ..Self::new(self.file.try_clone()?, place)? };
        Ok(())
    }

    /// Back to the start, because the file was truncated. Returns how far it had been read.
    pub fn rewind(&mut self) -> io::Result<u64> {
        let offset = self.place.offset;
        self.place = place::HEAD;
        self.marker = Marker::before(&self.file, 0)?;
        (self.buffer, self.start, self.end, self.seen) = (Box::default(), 0, 0, 0);
        Ok(offset)
    }
}

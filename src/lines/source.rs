//! One file that is being read: its descriptor, where the reader stands in it, and the proof that it is still the
//! same file. Everything here blocks, and runs on a blocking thread.

use std::{cell::Cell, fs::File, io, os::unix::fs::FileExt, sync::atomic::AtomicBool, time::UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{
    place,
    split::{self, Bounds, Encoded, Place},
};

/// How much is read at once in bulk: a batch of the usual size.
const READ_BYTES: usize = 64 * 1024;

/// The smallest read.
const MIN_READ_BYTES: usize = 4 * 1024;

/// What a line is taken to have, to tell how much a batch of few lines needs.
const TYPICAL_LINE_BYTES: usize = 256;

/// The largest buffer that a thread keeps: longer lines are rare.
const KEPT_BYTES: usize = 256 * 1024;

thread_local! {
    /// What a blocking thread reads into. It belongs to the thread and not to the reader: a reader that waits, for its
    /// file or for its client, holds no buffer. What is left of a chunk behind a batch is read again.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

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
        Ok(Self { file, identity, place, marker, seen })
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
        let mut chunk = Chunk { buffer: BUFFER.take(), start: 0, end: 0 };
        let filled = self.fill_from(&mut chunk, bounds, flush);
        if chunk.buffer.len() <= KEPT_BYTES {
            BUFFER.set(chunk.buffer);
        }
        filled
    }

    fn fill_from(&mut self, chunk: &mut Chunk, bounds: &Bounds, flush: bool) -> io::Result<Filled> {
        let mut lines = Encoded::default();
        let mut at_end = false;
        let size = self.file.metadata()?.len();
        let most = bounds.max_items.saturating_mul(TYPICAL_LINE_BYTES).clamp(MIN_READ_BYTES, READ_BYTES);
        loop {
            chunk.start += split::split(chunk.bytes(), &mut self.place, bounds, &mut lines);
            if lines.is_full(bounds) {
                break;
            }
            // The size is a hint for how much to ask for: it may lie. One byte more than there should be tells the end.
            let next = self.place.offset + chunk.bytes().len() as u64;
            let ahead = usize::try_from(size.saturating_sub(next)).unwrap_or(most);
            if chunk.read(&self.file, next, (ahead + 1).clamp(MIN_READ_BYTES, most))? == 0 {
                at_end = true;
                break;
            }
        }
        if at_end && flush {
            chunk.start += split::flush(chunk.bytes(), &mut self.place, bounds, &mut lines);
            at_end = chunk.bytes().is_empty();
        }
        if at_end {
            self.seen = self.place.offset + chunk.bytes().len() as u64;
        }
        self.marker = Marker::before(&self.file, self.place.offset)?;
        Ok(Filled { lines, at_end, size: size.max(self.place.offset) })
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
        self.seen = 0;
        Ok(offset)
    }
}

/// Bytes read and not yet used.
struct Chunk {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Reads so many bytes at an offset behind those that are here.
    fn read(&mut self, file: &File, offset: u64, wanted: usize) -> io::Result<usize> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let room = self.end + wanted;
        if self.buffer.len() < room {
            // A line that does not end doubles it, so that it is not copied for every read.
            self.buffer.resize(room.max(2 * self.end), 0);
        }
        let free = self.buffer.get_mut(self.end..room).unwrap_or_default();
        let read = loop {
            match file.read_at(free, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.end += read;
        Ok(read)
    }
}

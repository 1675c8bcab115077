//! One file that is being read: where a reader stands in it, the proof that it is still the same file, and reading on
//! from there. Everything here blocks, and runs on a blocking thread.

use std::{
    cell::Cell,
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    time::UNIX_EPOCH,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    hole,
    split::{self, Bounds, Encoded, End, HEAD, Hole, Place, Rules, TYPICAL_LINE_BYTES, Within},
};

/// How much is read at once in bulk: a batch of the usual size.
const READ_BYTES: usize = 64 * 1024;

/// The smallest read.
const MIN_READ_BYTES: usize = 4 * 1024;

/// The largest buffer that a thread keeps: longer lines are rare.
const KEPT_BYTES: usize = 256 * 1024;

thread_local! {
    /// What a blocking thread reads into. It belongs to the thread and not to the reader: a reader that waits, for its
    /// file or for its client, holds no buffer. What is left of a chunk behind a batch is read again.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The unit in which the system counts a file's blocks.
const BLOCK_BYTES: u64 = 512;

/// How many bytes before the offset prove that the file was not written anew.
const MARKER_BYTES: usize = 64;

/// How many bytes from the start of the file prove, together with the marker, that another file is a copy.
const HEAD_BYTES: usize = 200;

/// A search for a place begins anew so often at most: in a file that never holds still, like some in /proc, it is an error.
const MAX_TRUNCATIONS: usize = 8;

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
        let birth = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let birth = birth.and_then(|birth| u64::try_from(birth.as_nanos()).ok()).unwrap_or(0);
        Self { device: metadata.dev(), inode: metadata.ino(), birth }
    }

    /// When the file was made: in nanoseconds since 1970.
    pub fn birth(&self) -> u64 {
        self.birth
    }

    /// The same file, as far as can be told after a restart: the numbers of devices change then. Where there is no
    /// time of birth, the device has to agree, too.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.inode, self.birth) == (other.inode, other.birth)
            && (self.birth != 0 || self.device == other.device)
    }
}

/// A checksum of some bytes: those before an offset, or those at the head.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Marker {
    bytes: u8,
    checksum: u32,
}

impl Marker {
    fn of(bytes: &[u8]) -> Self {
        Self { bytes: u8::try_from(bytes.len()).unwrap_or(u8::MAX), checksum: crc32c::crc32c(bytes) }
    }

    /// Of the bytes before an offset.
    fn before(file: &File, offset: u64) -> io::Result<Self> {
        let mut buffer = [0; MARKER_BYTES];
        let bytes = clamp(offset, MARKER_BYTES);
        let (buffer, _) = buffer.split_at_mut(bytes);
        file.read_exact_at(buffer, offset - bytes as u64)?;
        Ok(Self::of(buffer))
    }

    /// Of the first bytes of a file of which so many were read.
    fn head(file: &File, read: u64) -> io::Result<Self> {
        let mut buffer = [0; HEAD_BYTES];
        let (buffer, _) = buffer.split_at_mut(clamp(read, HEAD_BYTES));
        file.read_exact_at(buffer, 0)?;
        Ok(Self::of(buffer))
    }
}

/// The smaller one.
fn clamp(bytes: u64, most: usize) -> usize {
    usize::try_from(bytes).unwrap_or(most).min(most)
}

/// Where a reader stands in a file, and the proof of it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Standing {
    /// Where the next line starts.
    pub place: Place,
    /// The bytes before it.
    pub marker: Marker,
    /// The bytes that the file begins with.
    pub head: Marker,
}

impl Standing {
    /// At the start of any file.
    pub fn start() -> Self {
        let nothing = Marker::of(&[]);
        Self { place: HEAD, marker: nothing, head: nothing }
    }

    /// At a place of a file.
    pub fn at(file: &File, place: Place) -> io::Result<Self> {
        let Place { offset, .. } = place;
        Ok(Self { place, marker: Marker::before(file, offset)?, head: Marker::head(file, offset)? })
    }

    /// At a place further on in the same file.
    fn moved(self, file: &File, place: Place, marker: Marker) -> io::Result<Self> {
        let is_whole = usize::from(self.head.bytes) == HEAD_BYTES;
        let head = if is_whole { Ok(self.head) } else { Marker::head(file, place.offset) };
        let head = match head {
            // Truncated since it was read: the next look tells.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.head,
            head => head?,
        };
        Ok(Self { place, marker, head })
    }

    /// The file still has these bytes before the place. False for a standing that was made up.
    pub fn is_intact(&self, file: &File) -> io::Result<bool> {
        is_so(|| Ok(Marker::before(file, self.place.offset)? == self.marker))
    }

    /// The file begins with all that was read, as far as a checksum of its start and its end can tell.
    pub fn is_copied(&self, file: &File) -> io::Result<bool> {
        is_so(|| Ok(Marker::head(file, self.place.offset)? == self.head && self.is_intact(file)?))
    }
}

/// What is to be read of a file that is too short is not so. Nor is an offset that was made up.
fn is_so(check: impl Fn() -> io::Result<bool>) -> io::Result<bool> {
    match check() {
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput) => {
            Ok(false)
        }
        checked => checked,
    }
}

/// Does something that reads a file up to where it was found to end: again, if it was truncated meanwhile.
pub fn despite_truncation<T>(mut read: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..MAX_TRUNCATIONS {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            done => return done,
        }
    }
    read()
}

/// What one look at a file yielded. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Filled {
    /// The lines, encoded.
    pub items: Bytes,
    /// How many they are.
    pub count: usize,
    /// Why there are no more.
    pub ended: Ended,
    /// They reach to the end of the file, but for a part of a line.
    pub reaches_end: bool,
    /// The size of the file.
    pub size: u64,
    /// Behind the lines.
    pub standing: Standing,
}

/// Why a look at a file yielded no more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// The batch is full, or something other than a line comes next.
    More,
    /// At the end of the file, but for a part of a line.
    End {
        /// Where the file ended.
        seen: u64,
        /// NUL bytes are left, which a writer may still fill in without anybody being told.
        is_reserved: bool,
    },
    /// The caller asked for no more.
    Until,
    /// What comes next was never written; the standing is behind it.
    Hole {
        /// Where it starts.
        offset: u64,
        /// How long it is.
        bytes: u64,
    },
    /// The file is shorter than what was read, or was written anew.
    Truncated,
}

impl Filled {
    /// Nothing, for a reason.
    pub fn nothing(standing: Standing, ended: Ended, size: u64) -> Self {
        let reaches_end = matches!(ended, Ended::End { .. });
        Self { items: Bytes::new(), count: 0, ended, reaches_end, size, standing }
    }
}

/// Reads on until a batch is full or the end of the file is reached.
///
/// A part of a line at the end stays, unless `flush` says that it is wanted. The bytes before the place are checked
/// each time: a truncation shows nowhere else when the file has grown to its old size again.
pub fn fill(
    file: &File,
    standing: &Standing,
    bounds: &Bounds,
    rules: &Rules,
    flush: Option<End>,
) -> io::Result<Filled> {
    let buffer = BUFFER.take();
    let chunk = Chunk { file, buffer, start: 0, end: 0 };
    let metadata = file.metadata()?;
    let size = metadata.len();
    let is_sparse = metadata.blocks().saturating_mul(BLOCK_BYTES) < size;
    let mut fill = Fill { chunk, size, is_sparse, standing, place: standing.place, bounds, rules, flush };
    let filled = match fill.run() {
        // Truncated while it was read.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Ok(Filled::nothing(*standing, Ended::Truncated, file.metadata()?.len()))
        }
        filled => filled,
    };
    if fill.chunk.buffer.len() <= KEPT_BYTES {
        BUFFER.set(fill.chunk.buffer);
    }
    filled
}

struct Fill<'a> {
    chunk: Chunk<'a>,
    size: u64,
    /// Blocks are missing, or counted otherwise: holes are looked for.
    is_sparse: bool,
    standing: &'a Standing,
    place: Place,
    bounds: &'a Bounds,
    rules: &'a Rules,
    flush: Option<End>,
}

impl Fill<'_> {
    fn run(&mut self) -> io::Result<Filled> {
        let most = self.bounds.max_items.saturating_mul(TYPICAL_LINE_BYTES).clamp(MIN_READ_BYTES, READ_BYTES);
        if !self.check(most)? {
            return Ok(Filled::nothing(*self.standing, Ended::Truncated, self.size));
        }
        let mut lines = Encoded::default();
        let ended = loop {
            let used = split::split(self.chunk.bytes(), &mut self.place, self.bounds, self.rules, &mut lines);
            self.chunk.start += used;
            if self.rules.is_end(&self.place) {
                break Ended::Until;
            }
            if lines.is_full(self.bounds) {
                break Ended::More;
            }
            let nuls = self.rules.hole(self.chunk.bytes(), &self.place);
            if nuls == Hole::Yes {
                break self.at_hole(self.place.offset, &mut lines)?;
            }
            let next = self.next();
            let end_of_data = if self.is_sparse { hole::end_of_data(self.chunk.file, next)? } else { None };
            if end_of_data == Some(next) {
                break self.at_hole(if nuls == Hole::No { next } else { self.place.offset }, &mut lines)?;
            }
            // The size is a hint for how much to ask for: it may lie. One byte more than there should be tells the end.
            // What is here of a line that does not end is searched again after each read: reads that double keep that short.
            let most = most.max(self.chunk.bytes().len());
            let ahead = clamp(self.size.saturating_sub(next), most);
            let wanted = (ahead + 1).clamp(MIN_READ_BYTES, most);
            let wanted = end_of_data.map_or(wanted, |end| clamp(end - next, wanted));
            if self.chunk.read(next, wanted)? == 0 {
                let is_hole = nuls == Hole::Perhaps;
                break if is_hole {
                    self.at_hole(self.place.offset, &mut lines)?
                } else {
                    self.at_end(&mut lines)
                };
            }
        };
        self.filled(lines, ended)
    }

    /// Reads the bytes before the place together with those behind it, and compares them.
    fn check(&mut self, most: usize) -> io::Result<bool> {
        let Standing { place, marker, .. } = *self.standing;
        let lead = usize::from(marker.bytes);
        let Some(from) = place.offset.checked_sub(lead as u64) else { return Ok(false) };
        let ahead = clamp(self.size.saturating_sub(place.offset), most);
        let wanted = lead + (ahead + 1).clamp(MIN_READ_BYTES, most);
        while self.chunk.end < lead {
            if self.chunk.read(from + self.chunk.end as u64, wanted)? == 0 {
                return Ok(false);
            }
        }
        self.chunk.start = lead;
        let before = self.chunk.buffer.get(..lead).unwrap_or_default();
        Ok(Marker::of(before) == marker)
    }

    /// The first byte that was not read.
    fn next(&self) -> u64 {
        self.place.offset + self.chunk.bytes().len() as u64
    }

    /// What becomes of a hole, and of a part of a line before it.
    fn at_hole(&mut self, from: u64, lines: &mut Encoded) -> io::Result<Ended> {
        let text = hole::first_text(self.chunk.file, from)?;
        if text.is_none() && self.flush != Some(End::Last) {
            // Nothing was written behind it: it may be filled in yet.
            if from > self.place.offset {
                self.at_end(lines);
            }
            return Ok(Ended::End { seen: self.size, is_reserved: true });
        }
        if from > self.place.offset {
            self.flush(End::Hole, lines);
        }
        if lines.count > 0 {
            return Ok(Ended::More);
        }
        let to = text.unwrap_or(self.size).max(from);
        (self.chunk.start, self.chunk.end) = (0, 0);
        self.place.offset = to;
        Ok(Ended::Hole { offset: from, bytes: to - from })
    }

    fn at_end(&mut self, lines: &mut Encoded) -> Ended {
        let seen = self.next();
        if let Some(end) = self.flush {
            self.flush(end, lines);
            if end == End::Last && !self.chunk.bytes().is_empty() {
                return Ended::More;
            }
        }
        Ended::End { seen, is_reserved: false }
    }

    fn flush(&mut self, end: End, lines: &mut Encoded) {
        let (chunk, place) = (&mut self.chunk, &mut self.place);
        let used = split::flush(chunk.bytes(), end, place, self.bounds, self.rules, lines);
        chunk.start += used;
    }

    fn filled(&self, lines: Encoded, ended: Ended) -> io::Result<Filled> {
        let Encoded { items, count } = lines;
        let standing = if self.place == self.standing.place {
            *self.standing
        } else {
            let marker = match self.chunk.before(clamp(self.place.offset, MARKER_BYTES)) {
                Some(bytes) => Marker::of(bytes),
                None => Marker::before(self.chunk.file, self.place.offset)?,
            };
            self.standing.moved(self.chunk.file, self.place, marker)?
        };
        // A batch may be full with the last line of the file.
        let reaches_end =
            matches!(ended, Ended::End { .. }) || ended == Ended::More && self.place.offset == self.size;
        let size = self.size.max(self.place.offset);
        Ok(Filled { items: items.into(), count, ended, reaches_end, size, standing })
    }
}

/// A part of a line waits at the end of the file.
pub fn has_part(standing: &Standing, ended: Ended) -> bool {
    matches!(ended, Ended::End { seen, is_reserved: false }
        if seen > standing.place.offset && standing.place.within != Within::Dropped)
}

/// Bytes read, of which some are used: the last of those stay, as the next marker.
struct Chunk<'a> {
    file: &'a File,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Chunk<'_> {
    fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// So many used bytes before the ones that are left, if they are still here.
    fn before(&self, bytes: usize) -> Option<&[u8]> {
        self.buffer.get(self.start.checked_sub(bytes)?..self.start)
    }

    /// Reads so many bytes at an offset behind those that are here.
    fn read(&mut self, offset: u64, wanted: usize) -> io::Result<usize> {
        let kept = self.start.saturating_sub(MARKER_BYTES);
        self.buffer.copy_within(kept..self.end, 0);
        (self.start, self.end) = (self.start - kept, self.end - kept);
        let room = self.end + wanted;
        if self.buffer.len() < room {
            // A line that does not end doubles it, so that it is not copied for every read.
            self.buffer.resize(room.max(2 * self.end), 0);
        }
        let free = self.buffer.get_mut(self.end..room).unwrap_or_default();
        let read = read_at(self.file, free, offset)?;
        self.end += read;
        Ok(read)
    }
}

/// Reads what is there, also when a signal comes in between.
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

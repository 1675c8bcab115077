//! Reads one batch of lines from a checkpoint on, after it has proven that the file still holds what was read before.
//! Everything here blocks, and runs on a blocking thread.

use std::{cell::Cell, fs::File, io, os::unix::fs::MetadataExt};

use bytes::Bytes;

use super::{
    checkpoint::{Checkpoint, FINGERPRINT_BYTES, Fingerprint, clamp},
    hole,
    position::{LinePosition, Within},
    pread::read_at,
    rules::{Hole, Rules},
    split::{self, Bounds, Encoded, End, TYPICAL_LINE_BYTES},
};

/// How much is read at once in bulk: a batch of the usual size.
const READ_BYTES: usize = 64 * 1024;

/// The smallest read.
const MIN_READ_BYTES: usize = 4 * 1024;

/// The largest buffer that a thread keeps: longer lines are rare.
const KEPT_BYTES: usize = 256 * 1024;

thread_local! {
    /// What a blocking thread reads into. It belongs to the thread and not to the reader: a reader that waits, for its
    /// file or for its client, holds no buffer. The rest of a chunk after a batch is read again.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The unit in which the system counts a file's blocks.
const BLOCK_BYTES: u64 = 512;

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
    /// After the lines.
    pub checkpoint: Checkpoint,
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
        /// NUL bytes are left, which a writer may still fill in without an event.
        is_reserved: bool,
    },
    /// The caller asked for no more.
    Until,
    /// The next bytes were never written; the checkpoint is after them.
    Hole {
        /// Where it starts.
        offset: u64,
        /// How long it is.
        bytes: u64,
    },
    /// The file is shorter than the part that was read, or was rewritten.
    Truncated,
}

impl Filled {
    /// Nothing, for a reason.
    pub fn nothing(checkpoint: Checkpoint, ended: Ended, size: u64) -> Self {
        let reaches_end = matches!(ended, Ended::End { .. });
        Self { items: Bytes::new(), count: 0, ended, reaches_end, size, checkpoint }
    }
}

/// Reads until a batch is full or the end of the file is reached.
///
/// A part of a line at the end is left, unless `flush` says that it is wanted. The bytes before the checkpoint are checked
/// each time: nothing else shows that a file was truncated and has grown to its old size again. From `end` on, the file
/// is not read: its bytes are another log's.
pub fn fill(
    file: &File,
    checkpoint: &Checkpoint,
    bounds: &Bounds,
    rules: &Rules,
    flush: Option<End>,
    end: Option<u64>,
) -> io::Result<Filled> {
    let buffer = BUFFER.take();
    let chunk = Chunk { file, buffer, start: 0, end: 0, limit: end.unwrap_or(u64::MAX) };
    let metadata = file.metadata()?;
    let size = metadata.len().min(chunk.limit);
    let is_sparse = metadata.blocks().saturating_mul(BLOCK_BYTES) < size;
    let mut fill =
        Fill { chunk, size, is_sparse, checkpoint, position: checkpoint.line, bounds, rules, flush };
    let filled = match fill.run() {
        // Truncated while it was read.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Ok(Filled::nothing(*checkpoint, Ended::Truncated, file.metadata()?.len()))
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
    checkpoint: &'a Checkpoint,
    position: LinePosition,
    bounds: &'a Bounds,
    rules: &'a Rules,
    flush: Option<End>,
}

impl Fill<'_> {
    fn run(&mut self) -> io::Result<Filled> {
        let most = self.bounds.max_items.saturating_mul(TYPICAL_LINE_BYTES).clamp(MIN_READ_BYTES, READ_BYTES);
        if !self.check(most)? {
            return Ok(Filled::nothing(*self.checkpoint, Ended::Truncated, self.size));
        }
        let mut lines = Encoded::default();
        let ended = loop {
            let used =
                split::split(self.chunk.bytes(), &mut self.position, self.bounds, self.rules, &mut lines);
            self.chunk.start += used;
            if self.rules.is_end(&self.position) {
                break Ended::Until;
            }
            if lines.is_full(self.bounds) {
                break Ended::More;
            }
            let nuls = self.rules.hole(self.chunk.bytes(), &self.position);
            if nuls == Hole::Yes {
                break self.at_hole(self.position.offset, &mut lines)?;
            }
            let next = self.next();
            let end_of_data = if self.is_sparse { hole::end_of_data(self.chunk.file, next)? } else { None };
            if end_of_data == Some(next) {
                break self
                    .at_hole(if nuls == Hole::No { next } else { self.position.offset }, &mut lines)?;
            }
            // The size is only a hint for how much to ask for: it may be wrong. One byte more shows the end of the file.
            // What is here of a line that does not end is searched again after each read: reads that double keep that short.
            let most = most.max(self.chunk.bytes().len());
            let ahead = clamp(self.size.saturating_sub(next), most);
            let wanted = (ahead + 1).clamp(MIN_READ_BYTES, most);
            let wanted = end_of_data.map_or(wanted, |end| clamp(end - next, wanted));
            if self.chunk.read(next, wanted)? == 0 {
                let is_hole = nuls == Hole::Perhaps;
                break if is_hole {
                    self.at_hole(self.position.offset, &mut lines)?
                } else {
                    self.at_end(&mut lines)
                };
            }
        };
        self.filled(lines, ended)
    }

    /// Reads the bytes before the position together with those after it, and compares them.
    fn check(&mut self, most: usize) -> io::Result<bool> {
        let Checkpoint { line: position, before: fingerprint, .. } = *self.checkpoint;
        let lead = usize::from(fingerprint.bytes);
        let Some(from) = position.offset.checked_sub(lead as u64) else { return Ok(false) };
        let ahead = clamp(self.size.saturating_sub(position.offset), most);
        let wanted = lead + (ahead + 1).clamp(MIN_READ_BYTES, most);
        while self.chunk.end < lead {
            if self.chunk.read(from + self.chunk.end as u64, wanted)? == 0 {
                return Ok(false);
            }
        }
        self.chunk.start = lead;
        let before = self.chunk.buffer.get(..lead).unwrap_or_default();
        // In /proc a file says that it is empty, and may change with every read.
        let has_head = position.offset > lead as u64 && self.size >= position.offset;
        Ok(Fingerprint::of(before) == fingerprint
            && (!has_head || self.checkpoint.has_head(self.chunk.file)?))
    }

    /// The first byte that was not read.
    fn next(&self) -> u64 {
        self.position.offset + self.chunk.bytes().len() as u64
    }

    /// What becomes of a hole, and of a part of a line before it.
    fn at_hole(&mut self, from: u64, lines: &mut Encoded) -> io::Result<Ended> {
        let text = hole::first_text(self.chunk.file, from)?.filter(|text| *text < self.chunk.limit);
        if text.is_none() && self.flush != Some(End::Last) {
            // Nothing was written after it: it may still be filled in.
            if from > self.position.offset {
                self.at_end(lines);
            }
            return Ok(Ended::End { seen: self.size, is_reserved: true });
        }
        if from > self.position.offset {
            self.flush(End::Hole, lines);
        }
        if lines.count > 0 {
            return Ok(Ended::More);
        }
        let to = text.unwrap_or(self.size).max(from);
        (self.chunk.start, self.chunk.end) = (0, 0);
        self.position.offset = to;
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
        let (chunk, position) = (&mut self.chunk, &mut self.position);
        let used = split::flush(chunk.bytes(), end, position, self.bounds, self.rules, lines);
        chunk.start += used;
    }

    fn filled(&self, lines: Encoded, ended: Ended) -> io::Result<Filled> {
        let Encoded { items, count } = lines;
        let checkpoint = if self.position == self.checkpoint.line {
            *self.checkpoint
        } else {
            let before = match self.chunk.before(clamp(self.position.offset, FINGERPRINT_BYTES)) {
                Some(bytes) => Fingerprint::of(bytes),
                None => Fingerprint::before(self.chunk.file, self.position.offset)?,
            };
            self.checkpoint.moved(self.chunk.file, self.position, before)?
        };
        // A batch may be full with the last line of the file.
        let reaches_end =
            matches!(ended, Ended::End { .. }) || ended == Ended::More && self.position.offset == self.size;
        let size = self.size.max(self.position.offset);
        Ok(Filled { items: items.into(), count, ended, reaches_end, size, checkpoint })
    }
}

/// A part of a line waits at the end of the file.
pub fn has_part(checkpoint: &Checkpoint, ended: Ended) -> bool {
    matches!(ended, Ended::End { seen, is_reserved: false }
        if seen > checkpoint.line.offset && checkpoint.line.within != Within::Dropped)
}

/// Bytes read, of which some are used: the last of those stay, as the next marker.
struct Chunk<'a> {
    file: &'a File,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The offset at which the file counts as ended.
    limit: u64,
}

impl Chunk<'_> {
    fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// The last used bytes, if this many are still here.
    fn before(&self, bytes: usize) -> Option<&[u8]> {
        self.buffer.get(self.start.checked_sub(bytes)?..self.start)
    }

    /// Reads up to `wanted` bytes from an offset, and appends them.
    fn read(&mut self, offset: u64, wanted: usize) -> io::Result<usize> {
        let kept = self.start.saturating_sub(FINGERPRINT_BYTES);
        self.buffer.copy_within(kept..self.end, 0);
        (self.start, self.end) = (self.start - kept, self.end - kept);
        let room = self.end + wanted;
        if self.buffer.len() < room {
            // A line that does not end doubles it, so that it is not copied for every read.
            self.buffer.resize(room.max(2 * self.end), 0);
        }
        let room = room.min(self.end + clamp(self.limit.saturating_sub(offset), wanted));
        let free = self.buffer.get_mut(self.end..room).unwrap_or_default();
        let read = read_at(self.file, free, offset)?;
        self.end += read;
        Ok(read)
    }
}

//! Reads one batch of lines from a checkpoint on, after it has proven that the bytes before the checkpoint are those that
//! were read.
//! Everything here blocks, and runs on a blocking thread.

use std::{
    cell::Cell,
    io,
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use bytes::Bytes;

use super::{
    checkpoint::{Checkpoint, FINGERPRINT_BYTES, Fingerprint, clamp},
    filter::SLICE,
    hole::{self, Hole, Nuls},
    position::{LinePosition, Within},
    pread::{Content, Stat, read_at},
    rules::Rules,
    split::{self, Bounds, Encoded, End, TYPICAL_LINE_BYTES},
};
use crate::blocking::give_way;

/// How much is read at once in bulk: a batch of the usual size.
const READ_BYTES: usize = 64 * 1024;

/// The smallest read.
const MIN_READ_BYTES: usize = 4 * 1024;

/// The largest buffer that a thread keeps: longer lines are rare.
const KEPT_BYTES: usize = 256 * 1024;

thread_local! {
    /// The buffer of a blocking thread. It belongs to the thread and not to the reader: a reader that waits, for its
    /// file or for its client, holds no buffer. The rest of a chunk after a batch is read again.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Passed holes with more bytes than this are not read again with every read, but where that is asked for.
pub const CHECKED_HOLE_BYTES: u64 = 64 * 1024;

/// The most bytes of a passed hole that are read to find out whether it was filled in.
const MAX_CHECKED_HOLE_BYTES: u64 = 16 * 1024 * 1024;

/// The arguments of a read: two equal requests have the same result, as long as the file does not change.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Where the lines start.
    pub checkpoint: Checkpoint,
    pub bounds: Bounds,
    pub rules: Arc<Rules>,
    /// Deliver the part of a line at the end of the file; otherwise it is left.
    pub flush: Option<End>,
    /// Only if the text ends here: a part that has just grown may become a line. `None`: wherever it ends.
    pub flush_at: Option<u64>,
    /// From here on, the file is not read: its bytes are another log's.
    pub end: Option<u64>,
    /// A hole is passed if the text after it starts before this offset: there was time to fill it in.
    pub settled: u64,
    /// Read all holes that were passed again, also large ones.
    pub checks_holes: bool,
}

/// The result of a read. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Filled {
    /// The lines, encoded.
    pub items: Bytes,
    /// The number of lines.
    pub count: usize,
    /// Why there are no more.
    pub ended: Ended,
    /// They reach to the end of the file, except for a part of a line.
    pub reaches_end: bool,
    /// The size of the file.
    pub size: u64,
    /// When the file was written last before it was read, in nanoseconds since 1970; `None` if it was not read.
    pub written: Option<u64>,
    /// After the lines.
    pub checkpoint: Checkpoint,
    /// Bytes were written into a hole after it was passed: they are missing.
    pub has_filled_hole: bool,
}

/// Why a read yielded no more lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// The batch is full, or something other than a line comes next.
    More,
    /// At the end of the text, except for a part of a line.
    End {
        /// Where the text ended.
        seen: u64,
        /// Only NUL bytes follow, which a writer may still fill in without an event.
        is_reserved: bool,
    },
    /// The next bytes were never written, but text follows: a writer may be about to fill them in.
    Unsettled {
        /// Where that text starts.
        text: u64,
    },
    /// The caller asked for no more.
    Until,
    /// The next bytes were never written; the checkpoint is after them.
    Hole(Hole),
    /// The file is shorter than the part that was read, or was rewritten.
    Truncated,
}

impl Filled {
    /// A read without lines.
    pub fn nothing(checkpoint: Checkpoint, ended: Ended, size: u64) -> Self {
        let reaches_end = matches!(ended, Ended::End { .. });
        let (items, written, has_filled_hole) = (Bytes::new(), None, false);
        Self { items, count: 0, ended, reaches_end, size, written, checkpoint, has_filled_hole }
    }
}

/// Reads until a batch is full or the end of the file is reached.
///
/// The bytes before the checkpoint are compared each time: nothing else shows that a file was truncated and has grown to
/// its old size again. Fails if the caller is gone during a long search.
pub fn fill<C: Content>(file: &C, request: &Request, gone: &AtomicBool) -> io::Result<Filled> {
    let buffer = BUFFER.take();
    let chunk = Chunk { file, buffer, start: 0, end: 0, read: 0, limit: request.end.unwrap_or(u64::MAX) };
    let Stat { size, is_sparse, written } = file.stat()?;
    let size = size.min(chunk.limit);
    let checkpoint = request.checkpoint;
    let mut fill = Fill {
        chunk,
        size,
        is_sparse,
        checkpoint,
        position: checkpoint.line,
        request,
        has_filled_hole: false,
        gone,
    };
    let filled = match fill.run() {
        // Truncated while it was read.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Ok(Filled::nothing(request.checkpoint, Ended::Truncated, file.stat()?.size))
        }
        filled => filled,
    };
    if fill.chunk.buffer.len() <= KEPT_BYTES {
        BUFFER.set(fill.chunk.buffer);
    }
    Ok(Filled { written: u64::try_from(written).ok(), ..filled? })
}

struct Fill<'a, C> {
    chunk: Chunk<'a, C>,
    size: u64,
    /// Blocks are missing, or the file system counts them in another way.
    is_sparse: bool,
    /// Of the request, without holes that were filled in, and with those that are passed.
    checkpoint: Checkpoint,
    position: LinePosition,
    request: &'a Request,
    has_filled_hole: bool,
    gone: &'a AtomicBool,
}

impl<C: Content> Fill<'_, C> {
    fn run(&mut self) -> io::Result<Filled> {
        let Request { bounds, rules, .. } = self.request;
        // Of the lines that are read, a filter may leave out most.
        let wanted = if rules.filter.is_some() { usize::MAX } else { bounds.max_items };
        let most = wanted.saturating_mul(TYPICAL_LINE_BYTES).clamp(MIN_READ_BYTES, READ_BYTES);
        if !self.check(most)? {
            return Ok(self.truncated());
        }
        let mut lines = Encoded::default();
        let since = rules.filter.is_some().then(Instant::now);
        let ended = loop {
            give_way();
            let bytes = self.chunk.bytes();
            let nuls = rules.nuls(bytes, self.position.offset);
            let text = match nuls {
                Nuls::Content => bytes,
                Nuls::Begun(end) | Nuls::Run(end) => bytes.get(..end).unwrap_or_default(),
            };
            let used = split::split(text, &mut self.position, bounds, rules, &mut lines);
            self.chunk.start += used;
            if rules.is_end(&self.position) {
                break Ended::Until;
            }
            if lines.is_full(bounds) {
                break Ended::More;
            }
            // The filter may have left lines of this text for the next slice: this is before what follows the text.
            let is_over = since.is_some_and(|since| since.elapsed() >= SLICE);
            if is_over && self.position != self.checkpoint.line {
                break Ended::More;
            }
            if let Nuls::Run(start) = nuls {
                break self.at_hole(start - used, &mut lines)?;
            }
            let next = self.next();
            // Where NUL is content, only the file system knows which bytes were never written.
            let finds_holes = self.is_sparse && rules.has_nul_content();
            let end_of_data = if finds_holes { self.chunk.file.end_of_data(next)? } else { None };
            if end_of_data == Some(next) {
                break self.at_hole(self.chunk.bytes().len(), &mut lines)?;
            }
            // The size is only a hint for how much to ask for: it may be wrong. One byte more shows the end of the file.
            // The start of a line whose end is not read yet is searched again after each read. Each read doubles the
            // buffer, so that this happens only a few times.
            let most = most.max(self.chunk.bytes().len());
            let ahead = clamp(self.size.saturating_sub(next), most);
            let wanted = (ahead + 1).clamp(MIN_READ_BYTES, most);
            let wanted = end_of_data.map_or(wanted, |end| clamp(end - next, wanted));
            if self.chunk.read(next, wanted)? == 0 {
                break self.at_end(&mut lines);
            }
            if self.size >= next && !self.chunk.follows_on(next)? {
                // It was rewritten, or reserved space was written: the next read decides which. The lines before that leave.
                self.chunk.end = self.chunk.start;
                return self.filled(lines, Ended::More);
            }
        };
        let filled = self.filled(lines, ended)?;
        Ok(if self.is_still_proven(&filled)? { filled } else { self.truncated() })
    }

    fn truncated(&self) -> Filled {
        Filled::nothing(self.request.checkpoint, Ended::Truncated, self.size)
    }

    /// Reads the bytes before the position together with those after it, and compares them.
    fn check(&mut self, most: usize) -> io::Result<bool> {
        let Checkpoint { line: position, before: fingerprint, .. } = self.checkpoint;
        let proof = usize::from(fingerprint.bytes);
        // Without a fingerprint, one byte shows that the file is not shorter.
        let lead = proof.max(usize::from(position.offset > 0));
        let Some(from) = position.offset.checked_sub(lead as u64) else { return Ok(false) };
        let ahead = clamp(self.size.saturating_sub(position.offset), most);
        let wanted = lead + (ahead + 1).clamp(MIN_READ_BYTES, most);
        while self.chunk.end < lead {
            if self.chunk.read(from + self.chunk.end as u64, wanted)? == 0 {
                return Ok(false);
            }
        }
        self.chunk.start = lead;
        let before = self.chunk.buffer.get(lead - proof..lead).unwrap_or_default();
        Ok(Fingerprint::of(before) == fingerprint && self.check_holes()?)
    }

    /// Whether the file still holds the bytes before the position of the request. Checked after the last read, because the
    /// file may have been rewritten between two reads, or during a read.
    fn is_still_proven(&self, filled: &Filled) -> io::Result<bool> {
        let Checkpoint { line, before, .. } = self.request.checkpoint;
        // In /proc a file says that it is empty, and may change with every read.
        if line.offset == 0 || self.size < line.offset {
            return Ok(true);
        }
        if line.offset > u64::from(before.bytes).max(1) {
            return self.checkpoint.has_head(self.chunk.file);
        }
        Ok(filled.count == 0 || self.checkpoint.is_intact(self.chunk.file)?)
    }

    /// Finds out whether holes that were passed were filled in since. False if nothing proves that the file is the same.
    fn check_holes(&mut self) -> io::Result<bool> {
        let holes = &mut self.checkpoint.holes;
        if holes.is_empty() || !self.request.checks_holes && holes.bytes() > CHECKED_HOLE_BYTES {
            return Ok(true);
        }
        self.has_filled_hole = holes.forget_filled(self.chunk.file, MAX_CHECKED_HOLE_BYTES)?;
        Ok(!self.has_filled_hole || self.checkpoint.has_fingerprint())
    }

    /// The first byte that was not read.
    fn next(&self) -> u64 {
        self.position.offset + self.chunk.bytes().len() as u64
    }

    /// Decides about a hole before which `part` bytes of a line are left.
    fn at_hole(&mut self, part: usize, lines: &mut Encoded) -> io::Result<Ended> {
        let file = self.chunk.file;
        let is_last = self.request.flush.is_some_and(End::is_of_file);
        let offset = self.position.offset + part as u64;
        let text = if self.request.rules.has_nul_content() {
            file.next_data(offset)?
        } else if is_last {
            hole::first_text(file, offset, self.gone)?
        } else {
            hole::first_text_near(file, offset, self.size, self.gone)?
        };
        let Some(text) = text.filter(|text| *text < self.chunk.limit) else {
            // Nothing was written after it: it may still be filled in.
            if let Some(flush) = self.flush_at(offset) {
                self.flush(flush, part, lines);
            }
            let has_lines = is_last && lines.count > 0;
            let end = Ended::End { seen: offset, is_reserved: true };
            return Ok(if has_lines { Ended::More } else { end });
        };
        if text > self.request.settled && !is_last {
            return Ok(Ended::Unsettled { text });
        }
        if text <= offset {
            // It was filled in just now.
            return Ok(Ended::More);
        }
        self.flush(End::Hole, part, lines);
        if lines.count > 0 {
            return Ok(Ended::More);
        }
        let hole = Hole { offset, bytes: text - offset };
        (self.chunk.start, self.chunk.end) = (0, 0);
        self.position.offset = text;
        self.checkpoint = self.checkpoint.after(hole);
        Ok(Ended::Hole(hole))
    }

    fn at_end(&mut self, lines: &mut Encoded) -> Ended {
        let seen = self.next();
        if let Some(end) = self.flush_at(seen) {
            self.flush(end, self.chunk.bytes().len(), lines);
            // Otherwise the filter does not admit what is left.
            let is_full = lines.is_full(&self.request.bounds);
            if end.is_of_file() && is_full && !self.chunk.bytes().is_empty() {
                return Ended::More;
            }
        }
        Ended::End { seen, is_reserved: false }
    }

    /// Why the part of a line before the end of the text is delivered, if it is.
    fn flush_at(&self, seen: u64) -> Option<End> {
        let Request { flush, flush_at, .. } = self.request;
        flush.filter(|_| flush_at.is_none_or(|at| at == seen))
    }

    /// Moves the next `part` bytes, a part of a line, into the batch, as far as they fit.
    fn flush(&mut self, end: End, part: usize, lines: &mut Encoded) {
        let Request { bounds, rules, .. } = self.request;
        let part = self.chunk.bytes().get(..part).unwrap_or_default();
        self.chunk.start += split::flush(part, end, &mut self.position, bounds, rules, lines);
    }

    fn filled(&self, lines: Encoded, ended: Ended) -> io::Result<Filled> {
        let Encoded { items, count } = lines;
        let checkpoint = if self.position == self.checkpoint.line {
            self.checkpoint
        } else {
            let before = match self.chunk.before(clamp(self.position.offset, FINGERPRINT_BYTES)) {
                Some(bytes) => Fingerprint::of_last(bytes),
                None => Fingerprint::before(self.chunk.file, self.position.offset)?,
            };
            self.checkpoint.moved(self.chunk.file, self.position, before)?
        };
        // A batch may be full with the last line of the file.
        let reaches_end =
            matches!(ended, Ended::End { .. }) || ended == Ended::More && self.position.offset == self.size;
        let size = self.size.max(self.position.offset);
        let (items, written, has_filled_hole) = (items.into(), None, self.has_filled_hole);
        Ok(Filled { items, count, ended, reaches_end, size, written, checkpoint, has_filled_hole })
    }
}

/// A part of a line waits at the end of the file.
pub fn has_part(checkpoint: &Checkpoint, ended: Ended) -> bool {
    matches!(ended, Ended::End { seen, .. }
        if seen > checkpoint.line.offset && checkpoint.line.within != Within::Dropped)
}

/// Bytes read, of which some are used: the last of those stay, as the next marker.
struct Chunk<'a, C> {
    file: &'a C,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// How many of them the last read brought.
    read: usize,
    /// The offset at which the file counts as ended.
    limit: u64,
}

impl<C: Content> Chunk<'_, C> {
    fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// The last used bytes, if this many are still here.
    fn before(&self, bytes: usize) -> Option<&[u8]> {
        self.buffer.get(self.start.checked_sub(bytes)?..self.start)
    }

    /// Whether the bytes of the last read, at this offset, continue those of the reads before: the file still has the last
    /// KiB before the offset.
    fn follows_on(&self, offset: u64) -> io::Result<bool> {
        if !self.file.is_rewritable() {
            return Ok(true);
        }
        let before = self.end - self.read;
        let known = self.buffer.get(before.saturating_sub(FINGERPRINT_BYTES)..before).unwrap_or_default();
        let mut found = [0; FINGERPRINT_BYTES];
        let (found, _) = found.split_at_mut(known.len());
        match self.file.read_all(found, offset - known.len() as u64) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            read => read.map(|()| found == known),
        }
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
        self.read = read_at(self.file, free, offset)?;
        self.end += self.read;
        Ok(self.read)
    }
}

#[cfg(test)]
mod tests;

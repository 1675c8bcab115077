//! The facts that a reader knows about the end of its file, and when it reads there again without an event.

use std::time::Duration;

use tokio::time::Instant;

use crate::lines::content::{
    checkpoint::Checkpoint,
    fill::{self, CHECKED_HOLE_BYTES, Ended, Filled},
    split::End,
};

/// How often reserved space and large passed holes are read: no event reports writes by mmap.
pub const RESERVED_POLL: Duration = Duration::from_secs(1);

/// How often a file is read that was found to be shorter than the part that was read.
pub const SHORT_POLL: Duration = Duration::from_millis(20);

/// The facts that a reader knows about the end of its file.
#[derive(Debug)]
pub struct Tail {
    /// Where the text ended when it was last read to its end.
    pub seen: Option<u64>,
    /// Since when the reader has not seen it grow after it had read it to its end, also if it read other files meanwhile.
    pub quiet_since: Instant,
    /// When the file was last read.
    pub read_at: Instant,
    /// The read before the last one reached the end, too.
    pub is_live: bool,
    /// Since when it ends there.
    end_since: Instant,
    /// Only NUL bytes follow, this many: a writer may still fill them in.
    reserved_bytes: u64,
    /// Where the text ended when the part of a line there was flushed. The rest of it is flushed after it has grown.
    flushed: Option<u64>,
    /// Where the text ended when the part of a line there was asked for as the last line. A part that a filter leaves out
    /// stays, and need not be asked for again before it has grown.
    pub ended: Option<u64>,
    /// A hole in the file that a writer may be about to fill in.
    unsettled: Option<Unsettled>,
    /// When large passed holes were last read.
    holes_read_at: Option<Instant>,
}

/// Holes that are passed when they are still holes after the grace.
#[derive(Clone, Copy, Debug)]
struct Unsettled {
    since: Instant,
    /// The size of the file then: holes before this offset are old enough after the grace.
    size: u64,
}

impl Tail {
    /// Of a file that was not read yet; it counts as quiet for `grace`.
    pub fn new(grace: Duration) -> Self {
        let now = Instant::now();
        Self::at(None, now, now.checked_sub(grace).unwrap_or(now))
    }

    /// Of a file that ended at `seen` when it was left.
    pub fn of_late_file(seen: u64) -> Self {
        let now = Instant::now();
        Self::at(Some(seen), now, now)
    }

    fn at(seen: Option<u64>, now: Instant, quiet_since: Instant) -> Self {
        Self {
            seen,
            quiet_since,
            read_at: now,
            is_live: false,
            end_since: now,
            reserved_bytes: 0,
            flushed: None,
            ended: None,
            unsettled: None,
            holes_read_at: None,
        }
    }

    /// Another file is read from here on, or the same one from its start.
    pub fn forget(&mut self) {
        (self.seen, self.is_live, self.reserved_bytes) = (None, false, 0);
        (self.flushed, self.ended, self.unsettled, self.holes_read_at) = (None, None, None, None);
    }

    /// Records a read, in which a part of a line was asked for by `flush`.
    pub fn record(&mut self, filled: &Filled, flush: Option<End>) {
        self.read_at = Instant::now();
        match filled.ended {
            Ended::End { seen, is_reserved } => {
                let known = self.seen.replace(seen);
                if known != Some(seen) {
                    self.end_since = self.read_at;
                    if known.is_some() {
                        self.quiet_since = self.read_at;
                    }
                }
                self.reserved_bytes = if is_reserved { filled.size.saturating_sub(seen) } else { 0 };
                self.unsettled = None;
                // See `fill::Request::flush_at`.
                match flush.filter(|_| known.is_none_or(|known| known == seen)) {
                    Some(End::Partial) => self.flushed = Some(seen),
                    Some(End::Last) => self.ended = Some(seen),
                    _ => {}
                }
            }
            Ended::Unsettled { text } if self.unsettled.is_none_or(|known| text > known.size) => {
                self.unsettled = Some(Unsettled { since: self.read_at, size: filled.size });
            }
            Ended::More => self.is_live = false,
            Ended::Unsettled { .. } | Ended::Until | Ended::Hole(_) | Ended::Truncated => {}
        }
    }

    /// The NUL bytes between the end of the text and that of the file, where the file was read to its end.
    pub fn reserved_bytes(&self) -> u64 {
        self.reserved_bytes
    }

    /// See [`fill::Request::settled`].
    pub fn settled(&self, grace: Duration) -> u64 {
        let is_old = |unsettled: &Unsettled| unsettled.since + grace <= Instant::now();
        self.unsettled.filter(is_old).map_or(0, |unsettled| unsettled.size)
    }

    /// Whether large holes that were passed are to be read again with the next read, which is taken note of.
    pub fn reads_holes(&mut self, checkpoint: &Checkpoint) -> bool {
        let is_due = checkpoint.holes.bytes() > CHECKED_HOLE_BYTES
            && self.holes_read_at.is_none_or(|last| last.elapsed() >= RESERVED_POLL);
        if is_due {
            self.holes_read_at = Some(Instant::now());
        }
        is_due
    }

    /// When the file at the path has to be read though no event reports a change.
    pub fn next_read(
        &self,
        ended: Ended,
        checkpoint: &Checkpoint,
        grace: Duration,
        partial_flush: Option<Duration>,
    ) -> Option<Instant> {
        let settles = match ended {
            Ended::Unsettled { .. } => self.unsettled.map(|unsettled| unsettled.since + grace),
            Ended::End { is_reserved: true, .. } => Some(self.read_at + RESERVED_POLL),
            _ => None,
        };
        let flush = partial_flush.filter(|_| self.has_part(checkpoint, ended));
        let flush = flush.map(|flush| self.read_at.max(self.end_since + flush));
        // Bytes may have been written into them since they were read, but no later than the last read.
        let holes = self.holes_read_at.filter(|last| *last < self.read_at).map(|last| last + RESERVED_POLL);
        let holes = holes.filter(|_| checkpoint.holes.bytes() > CHECKED_HOLE_BYTES);
        [settles, flush, holes].into_iter().flatten().min()
    }

    /// Whether a part of a line waits at the end of the file that was not flushed.
    pub fn has_part(&self, checkpoint: &Checkpoint, ended: Ended) -> bool {
        fill::has_part(checkpoint, ended) && self.flushed != self.seen
    }
}

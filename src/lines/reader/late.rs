//! The files that a reader left, which are checked for late lines: their writers may not have noticed the rotation, and a
//! file may be where no event reports its changes.
//!
//! The last one is checked whenever the reader wakes, and all of them once a second while one of them may have a late
//! writer, later with every heartbeat. They are held open; one that was deleted is closed after its time, so that its
//! space is freed.

use std::{collections::VecDeque, fs::File, io, os::unix::fs::MetadataExt, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::tail::{RESERVED_POLL, Tail};
use crate::lines::{
    content::{checkpoint::Checkpoint, position::Within},
    identity::Identity,
};

/// How long a file that was left is checked every second; each late line starts this time again.
pub const LATE_WINDOW: Duration = Duration::from_secs(60);

/// How often files are checked after that, at least.
const OLD_POLL: Duration = Duration::from_secs(15);

/// A file that was left, to which late lines may still be written.
#[derive(Clone, Debug)]
pub struct LateFile {
    pub file: Arc<File>,
    pub identity: Identity,
    /// Where it was left.
    pub checkpoint: Checkpoint,
    /// Where its text ended then: after the checkpoint, by a part of a line.
    pub seen: u64,
    /// See [`Tail::ended`].
    ended: Option<u64>,
    /// Its facts then.
    known: Known,
    /// When it was left for its successor.
    left: Instant,
    /// Until then it is checked every second.
    until: Instant,
    /// It was not rotated, but a link was pointed to another file: after its time, its lines are not this log's.
    is_linked: bool,
}

/// A file that a reader left before it was cut.
#[derive(Debug)]
pub struct Left {
    pub file: Arc<File>,
    pub identity: Identity,
    /// How far it was read.
    pub checkpoint: Checkpoint,
    /// It was left because a link was pointed to another file.
    pub is_linked: bool,
}

/// How a file was left before its late lines were read.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    left: Instant,
    /// See [`LateFile::is_linked`].
    linked_until: Option<Instant>,
    /// No other file was left after it.
    pub is_newest: bool,
}

impl Before {
    /// Of a file that is left now; `is_linked`: because a link was pointed to another one.
    pub fn now(is_linked: bool) -> Self {
        let left = Instant::now();
        Self { left, linked_until: is_linked.then_some(left + LATE_WINDOW), is_newest: true }
    }
}

/// The facts that show that a file was written to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Known {
    size: u64,
    /// Where bytes may be written without a change of the size: when the content last changed.
    modified: Option<(i64, i64)>,
    is_deleted: bool,
}

impl Known {
    fn of(file: &File, checks_time: bool) -> io::Result<Self> {
        let it = file.metadata()?;
        let modified = checks_time.then(|| (it.mtime(), it.mtime_nsec()));
        Ok(Self { size: it.len(), modified, is_deleted: it.nlink() == 0 })
    }
}

impl LateFile {
    /// A file that is left at a checkpoint, for the first time or after late lines.
    pub fn new(
        file: Arc<File>,
        identity: Identity,
        checkpoint: Checkpoint,
        tail: &Tail,
        Before { left, linked_until, .. }: Before,
    ) -> io::Result<Self> {
        let seen = tail.seen.unwrap_or(0).max(checkpoint.line.offset);
        let is_reserved = tail.reserved_bytes() > 0;
        let known = Known::of(&file, is_reserved || !checkpoint.holes.is_empty())?;
        // Bytes that were appended since the file was read are late.
        let known = if is_reserved { known } else { Known { size: seen, ..known } };
        let until = linked_until.unwrap_or_else(|| Instant::now() + LATE_WINDOW);
        let is_linked = linked_until.is_some();
        Ok(Self { file, identity, checkpoint, seen, ended: tail.ended, known, left, until, is_linked })
    }

    /// It is not checked every second any more.
    pub fn is_over(&self, now: Instant) -> bool {
        self.until <= now
    }

    /// Whether it was written to since it was left, or has a part of a line that never gets its newline.
    fn is_wanted(&self, now: Instant) -> bool {
        let line = self.checkpoint.line;
        let has_part =
            self.seen > line.offset && line.within != Within::Dropped && self.ended != Some(self.seen);
        let is_written = Known::of(&self.file, self.known.modified.is_some())
            .is_ok_and(|it| it.size > self.known.size || it.modified != self.known.modified);
        let is_linked_over = self.is_over(now) && self.is_linked;
        is_written && !is_linked_over || self.is_over(now) && has_part
    }

    /// Whether it need not be held open any longer.
    fn is_done(&self, now: Instant) -> bool {
        self.is_over(now) && (self.is_linked || Known::of(&self.file, false).is_ok_and(|it| it.is_deleted))
    }
}

/// The files that a reader left, the newest last.
#[derive(Debug)]
pub struct LateFiles {
    files: VecDeque<LateFile>,
    most: usize,
    /// When all of them are checked again.
    next_check: Instant,
}

impl LateFiles {
    /// No file; later up to `most`, and at least one.
    pub fn new(most: usize) -> Self {
        Self { files: VecDeque::new(), most: most.max(1), next_check: Instant::now() }
    }

    /// The same with files that a reader left before it was cut.
    pub fn of(most: usize, left: Vec<Left>) -> Self {
        let mut files = Self::new(most);
        for Left { file, identity, checkpoint, is_linked } in left {
            let (tail, before) = (Tail::of_late_file(checkpoint.line.offset), Before::now(is_linked));
            if let Ok(late) = LateFile::new(file, identity, checkpoint, &tail, before) {
                files.push(late);
            }
        }
        files
    }

    /// The last file that was rotated.
    pub fn last(&self) -> Option<&LateFile> {
        self.files.back().filter(|late| !late.is_linked)
    }

    /// How a file was left that was taken to read its late lines.
    pub fn before(&self, late: &LateFile) -> Before {
        Before {
            left: late.left,
            linked_until: late.is_linked.then_some(late.until),
            is_newest: self.files.back().is_none_or(|newest| newest.left <= late.left),
        }
    }

    /// Adds a file that is left now, for the first time or after late lines.
    pub fn push(&mut self, late: LateFile) {
        self.forget(&late.identity);
        if self.files.len() >= self.most {
            self.files.pop_front();
        }
        let place = self.files.partition_point(|other| other.left <= late.left);
        self.files.insert(place, late);
        self.next_check = self.next_check.min(Instant::now() + RESERVED_POLL);
    }

    /// The file is read again: it has no late lines.
    pub fn forget(&mut self, identity: &Identity) {
        self.files.retain(|late| late.identity != *identity);
    }

    /// Takes a file that has to be read. `checks_all`: a heartbeat is due.
    pub fn take_wanted(&mut self, now: Instant, checks_all: bool) -> Option<LateFile> {
        if !checks_all && now < self.next_check {
            let is_wanted = self.files.back().is_some_and(|late| late.is_wanted(now));
            return if is_wanted { self.files.pop_back() } else { None };
        }
        if let Some(wanted) = self.files.iter().position(|late| late.is_wanted(now)) {
            return self.files.remove(wanted);
        }
        self.files.retain(|late| !late.is_done(now));
        let is_over = self.files.iter().all(|late| late.is_over(now));
        self.next_check = now + if is_over { OLD_POLL } else { RESERVED_POLL };
        None
    }

    /// Takes a file that has to be read before `next` is entered, which may be one of them.
    pub fn take_before(&mut self, next: &Identity, now: Instant) -> Option<LateFile> {
        let is_wanted = |late: &LateFile| late.identity != *next && late.is_wanted(now);
        let wanted = self.files.iter().position(is_wanted)?;
        self.files.remove(wanted)
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// When they are checked again though nothing wakes the reader.
    pub fn next_check(&self) -> Option<Instant> {
        (!self.files.is_empty()).then_some(self.next_check)
    }
}

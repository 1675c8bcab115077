//! Reads the file at a path and its successors, batch by batch: first the existing lines, then those that are
//! written.
//!
//! [`State`] says where a reader is in the life of the files at its path; `at_end` decides what it does at the end of a
//! file. Nothing is read ahead of the caller but the rest of a chunk, and an idle reader holds no buffer. Followers that
//! are at the end of one file share one read. Dropping a reader frees everything it has; a search on a blocking thread
//! ends soon after.

use std::{
    fs::File,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Batch, Error, Event, GapReason, Inner, Progress, Query,
    content::{
        cached::Cached,
        checkpoint::Checkpoint,
        fill::{self, Ended, Filled, Request},
        hole::Hole,
        pread::despite_truncation,
        rules::Rules,
        split::{Bounds, End},
    },
    history::rotation::{Openers, Rotation, Successor},
    root::FilePath,
    seek::{
        locate,
        start::{self, Opened},
    },
    shared_read::Wanted,
    watch::Follow,
};
use crate::{
    blocking::{Pool, short_work},
    stream::{Pacing, alarm::Alarm},
};
use at_end::Next;
use late::LateFiles;
use state::State;
use tail::Tail;

mod archived;
mod at_end;
pub mod late;
pub mod opening;
mod position;
mod state;
mod tail;

/// How long a remote file must be shorter than the part that was read, before it counts as truncated: its size may be out
/// of date for a moment.
const REMOTE_CONFIRM: Duration = Duration::from_secs(3);

/// One stream of lines.
#[derive(Debug)]
pub struct Reader {
    inner: Arc<Inner>,
    gone: Gone,
    /// Reports changes, for a stream that follows.
    follow: Option<Follow>,
    rules: Arc<Rules>,
    pacing: Pacing,
    /// Set once for each heartbeat, not for each batch, so it may elapse early.
    alarm: Alarm,
    partial_flush: Option<Duration>,
    file_path: FilePath,
    path_checksum: u32,
    /// See [`Position::directory`](super::Position::directory).
    directory: Option<u32>,
    /// Opens the next generation, for a reader of the whole history.
    openers: Option<Openers>,
    /// The gaps after this file that were reported before there was a next one.
    reported: Vec<Event>,
    /// Which file is read.
    rotation: Rotation,
    /// How far it is read.
    checkpoint: Checkpoint,
    state: State,
    phase: Phase,
    tail: Tail,
    /// The size of the file when it was last read.
    size: u64,
    /// See [`Position::written`](super::Position::written).
    written: Option<u64>,
    /// Lines before this number are not delivered.
    skip_to: Option<u64>,
    /// The files that were left, which are checked for late lines.
    late: LateFiles,
    /// The events of the next batch.
    events: Vec<Event>,
    /// Whether the last batch said that the stream is caught up; `None` before the first batch.
    reported_caught_up: Option<bool>,
    /// The last reported change of the path when the file was last read.
    version: Option<u64>,
}

/// The next step of a reader in its file.
#[derive(Clone, Copy, Debug)]
pub enum Phase {
    /// It reads.
    Read {
        /// Deliver the part of a line at the end of the file.
        flush: Option<End>,
        /// See [`Phase::Short`].
        short_since: Option<Instant>,
    },
    /// It is at the end that the last read found.
    AtEnd(Ended),
    /// The file is remote, and shorter than the part that was read since this time: its size may be out of date.
    Short { since: Instant },
}

impl Phase {
    /// It reads, and leaves a part of a line at the end.
    pub fn read() -> Self {
        Self::Read { flush: None, short_since: None }
    }
}

/// The reading of a file that continues after late lines of another one.
#[derive(Debug)]
pub struct Paused {
    rotation: Rotation,
    checkpoint: Checkpoint,
    state: State,
    tail: Tail,
    /// How the other file was left.
    before: late::Before,
}

/// Cancels the blocking searches of a reader that is dropped.
#[derive(Debug, Default)]
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Reader {
    /// Finds the file, and the position in it where the stream starts.
    pub async fn open(inner: &Arc<Inner>, query: Query) -> Result<Self, Error> {
        let path = FilePath::parse(&query.path)?.for_caller(query.may_read.clone());
        start::check(&query, &path)?;
        let mut query = Query { rules: query.rules.within(inner.options.max_line_bytes)?, ..query };
        let gone = Gone::default();
        let (files, file_path, caller_gone) = (inner.clone(), path.clone(), gone.0.clone());
        let open = move || {
            query.rules.filter = files.engines.filter(&query.patterns, &query.rules.delimiter)?;
            let opened = start::open(&files, &query, &file_path, &caller_gone)?;
            Ok((query, opened))
        };
        let (query, opened) = blocking(&inner.options.pool, open).await?;
        let Query { rules, batching, partial_flush, history, .. } = query;
        let openers = history.then(|| Openers { archives: inner.archives.clone(), gone: gone.0.clone() });
        let opened = opened.search(&inner.options.pool).await?;
        let Opened { follow, rotation, checkpoint, directory, skip_to, late, events, waits_for_file, .. } =
            opened;
        let state = if waits_for_file { State::absent(rotation.left()) } else { State::AtPath };
        Ok(Self {
            inner: inner.clone(),
            gone,
            follow,
            rules: Arc::new(rules),
            pacing: Pacing::new(batching, Instant::now()),
            alarm: inner.alarms.alarm(),
            partial_flush,
            path_checksum: path.checksum(),
            file_path: path,
            directory,
            openers,
            reported: Vec::new(),
            rotation,
            checkpoint,
            state,
            phase: Phase::read(),
            tail: Tail::new(inner.options.rotation_grace),
            size: 0,
            written: None,
            skip_to,
            late: LateFiles::of(inner.options.max_rotated, late),
            events,
            reported_caught_up: None,
            version: None,
        })
    }

    /// Waits for lines or events, or until a heartbeat is due. The first call returns at once. `None` at the end that
    /// the caller asked for; do not call it again after that, or after an error.
    pub async fn wait(&mut self) -> Result<Option<Filled>, Error> {
        loop {
            if self.pacing.is_over() {
                return Ok(None);
            }
            if let Phase::Read { .. } = self.phase {
                let filled = self.read().await?;
                // Events of a file that has more lines leave with these.
                let has_events = !self.events.is_empty() && !matches!(self.phase, Phase::Read { .. });
                let is_news = match self.reported_caught_up {
                    None => true,
                    Some(reported) => !reported && self.follow.is_some() && self.is_caught_up(&filled),
                };
                // Lines that a filter leaves out move the cursor, too, and a compressed file waits for its turn.
                let is_due = filled.ended == Ended::More && self.pacing.heartbeat_at() <= Instant::now();
                if filled.count > 0 || has_events || is_news || is_due {
                    return Ok(Some(filled));
                }
                continue;
            }
            match self.at_end().await? {
                Next::Read { flush } => self.read_again(flush),
                Next::End => return Ok(None),
                Next::Heartbeat | Next::Report => {
                    let ended = match self.phase {
                        Phase::AtEnd(ended) => ended,
                        Phase::Read { .. } | Phase::Short { .. } => Ended::More,
                    };
                    return Ok(Some(Filled::nothing(self.checkpoint, ended, self.size)));
                }
            }
        }
    }

    /// Reads the file once more.
    fn read_again(&mut self, flush: Option<End>) {
        // A file that was just entered was not read to its end yet.
        self.tail.is_live = !matches!(self.phase, Phase::Read { .. });
        let short_since = match self.phase {
            Phase::Short { since } => Some(since),
            Phase::Read { short_since, .. } => short_since,
            Phase::AtEnd(_) => None,
        };
        self.phase = Phase::Read { flush, short_since };
    }

    /// Reads a batch of the file, and moves to its end.
    async fn read(&mut self) -> Result<Filled, Error> {
        let version = self.follow.as_mut().map(Follow::mark);
        let (flush, short_since) = match self.phase {
            Phase::Read { flush, short_since } => (flush, short_since),
            Phase::AtEnd(_) | Phase::Short { .. } => (None, None),
        };
        let flush = flush.or_else(|| self.flush_without_follow());
        let archive = self.rotation.archive().cloned();
        let filled = match self.rotation.file().cloned() {
            None => self.nothing(0),
            Some(_) if let Some(archive) = archive => self.read_archive(archive, flush).await?,
            Some(file) => match self.seek(&file).await? {
                Some(nothing) => nothing,
                None => self.read_file(file, flush, version).await?,
            },
        };
        self.record(&filled, flush, short_since);
        Ok(filled)
    }

    /// A read that finds nothing at the end of the file.
    fn nothing(&self, seen: u64) -> Filled {
        Filled::nothing(self.checkpoint, Ended::End { seen, is_reserved: false }, self.size)
    }

    async fn read_file(
        &mut self,
        file: Arc<File>,
        flush: Option<End>,
        version: Option<u64>,
    ) -> Result<Filled, Error> {
        let grace = self.inner.options.rotation_grace;
        let request = Request {
            checkpoint: self.checkpoint,
            bounds: Bounds { max_items: self.pacing.max_items(), max_bytes: self.pacing.max_bytes() },
            rules: self.rules.clone(),
            flush,
            // The part was there when the reader decided to flush it.
            flush_at: self.tail.seen.filter(|_| flush.is_some() && self.follow.is_some()),
            end: self.find_limit(&file),
            // A stream that ends at the end of the file waits for nothing, and a file that was left had its time.
            settled: if self.follow.is_none() || self.state.is_late() {
                u64::MAX
            } else {
                self.tail.settled(grace)
            },
            checks_holes: self.tail.reads_holes(&self.checkpoint),
        };
        let limit = request.end;
        let wanted = Wanted { file: self.rotation.identity(), request };
        let pool = self.inner.options.pool.clone();
        // Most reads at the end of a file find a few lines that were just written. A filter may compute for long.
        let is_short = self.tail.is_live && !self.rotation.is_remote() && self.rules.filter.is_none();
        let read = read(pool, file, wanted.request.clone(), self.gone.0.clone(), is_short);
        let filled = match (&self.follow, version) {
            (Some(follow), Some(version)) if self.tail.is_live => {
                // Without a notification this read looks for changes that inotify does not report, so an older shared
                // read must not be reused.
                let is_notified = self.version.replace(version) != Some(version);
                let after = (!is_notified).then_some(self.tail.read_at);
                follow.shared_read().get(&wanted, version, after, read).await?
            }
            _ => read.await?,
        };
        let truncated_limit = limit.filter(|_| filled.ended == Ended::Truncated);
        Ok(truncated_limit.map_or(filled, |limit| self.lose_foreign_file(limit)))
    }

    /// The offset from which the lines of the file are not this log's: it left the path, and was renamed to a name that
    /// the rules deny or that is followed itself.
    fn limit(&self) -> Option<u64> {
        let limit = self.state.foreign_from().or_else(|| self.rotation.limit());
        // The file may have been read further before its renaming was noticed.
        limit.map(|limit| limit.max(self.checkpoint.line.offset))
    }

    /// [`limit`](Self::limit), after a check whether the file became another log's since it was last read.
    fn find_limit(&mut self, file: &File) -> Option<u64> {
        let may_become_foreign = self.rotation.left().is_some() && self.limit().is_none();
        if may_become_foreign && self.inner.is_foreign(&self.file_path, file) {
            self.state.become_foreign(self.tail.seen.unwrap_or(0));
        }
        self.limit()
    }

    /// The other log truncated or rewrote the file before it was read up to the limit.
    fn lose_foreign_file(&mut self, limit: u64) -> Filled {
        let seen = self.checkpoint.line.offset;
        let bytes = limit.saturating_sub(seen);
        if bytes > 0 && !self.state.is_drained() {
            self.events.push(Event::Gap { reason: GapReason::Truncated, bytes: Some(bytes) });
        }
        self.state.give_up_file();
        self.nothing(seen)
    }

    /// Moves to the line that the caller asked for. Returns an empty read if that line is not written yet.
    async fn seek(&mut self, file: &Arc<File>) -> Result<Option<Filled>, Error> {
        // The line is one of the file at the path, not of one that is read for late lines.
        let Some(number) = self.skip_to.filter(|_| !self.state.is_late()) else { return Ok(None) };
        let (inner, file, rules) = (self.inner.clone(), file.clone(), self.rules.clone());
        let (from, gone) = (self.checkpoint, self.gone.0.clone());
        let search = move || {
            if from.line.offset > 0 && !from.is_intact(&*file)? {
                return Ok((None, 0, file.metadata()?.len()));
            }
            // Whether a CR before it is content does not change the numbers.
            let (found, seen) = if rules.delimiter.bytes() == b"\n" {
                inner.indexes.line(&file, number, &gone)?
            } else {
                locate::line(&file, from.line, number, &rules.delimiter, &gone)?
            };
            Ok((Some(Checkpoint::at(&*file, found)?), seen, file.metadata()?.len()))
        };
        let pool = &self.inner.options.pool;
        let (checkpoint, seen, size) = blocking(pool, move || Ok(despite_truncation(search)?)).await?;
        let Some(checkpoint) = checkpoint else {
            return Ok(Some(Filled::nothing(self.checkpoint, Ended::Truncated, size)));
        };
        self.checkpoint = checkpoint;
        if checkpoint.line.number.is_some_and(|found| found < number) {
            let ended = Ended::End { seen, is_reserved: false };
            return Ok(Some(Filled::nothing(checkpoint, ended, size)));
        }
        self.skip_to = None;
        Ok(None)
    }

    /// Moves to the end of a read.
    fn record(&mut self, filled: &Filled, flush: Option<End>, short_since: Option<Instant>) {
        let (before, size, text_end) = (self.checkpoint, self.size, self.text_end());
        (self.checkpoint, self.size) = (filled.checkpoint, filled.size);
        self.written = filled.written.or(self.written);
        let is_known = |seen| self.tail.seen.is_none_or(|known| known == seen);
        let is_same_end = matches!(filled.ended, Ended::End { seen, .. } if is_known(seen));
        self.state.record_read(filled.count == 0 && is_same_end);
        self.tail.record(filled, flush);
        let may_be_stale =
            self.rotation.is_remote() || self.limit().is_some() || self.rotation.archive().is_some();
        if filled.ended != Ended::Truncated && filled.size < size && !may_be_stale {
            self.report_cut_off(text_end);
        }
        if filled.has_filled_hole {
            self.events.push(Event::Gap { reason: GapReason::Filled, bytes: None });
        }
        self.phase = match filled.ended {
            Ended::More => Phase::read(),
            Ended::Hole(Hole { offset, bytes }) => {
                self.events.push(Event::Hole { offset, bytes });
                Phase::read()
            }
            Ended::Truncated => {
                let since = short_since.unwrap_or_else(Instant::now);
                // A remote file may seem to be shorter for a moment.
                if self.rotation.is_remote() && since.elapsed() < REMOTE_CONFIRM {
                    Phase::Short { since }
                } else {
                    self.rewind(before, text_end, filled.size);
                    Phase::read()
                }
            }
            ended @ (Ended::End { .. } | Ended::Unsettled { .. } | Ended::Until) => {
                if self.follow.is_none() {
                    self.report_reserved();
                }
                Phase::AtEnd(ended)
            }
        };
    }

    /// The size of the file without the NUL bytes at its end.
    fn text_end(&self) -> u64 {
        self.size.saturating_sub(self.tail.reserved_bytes())
    }

    /// Reports the text before `text_end` that was cut off after the part of the file that was read.
    fn report_cut_off(&mut self, text_end: u64) {
        let bytes = text_end.saturating_sub(self.text_end());
        if bytes > 0 {
            self.events.push(Event::Gap { reason: GapReason::Truncated, bytes: Some(bytes) });
        }
    }

    /// Reports the NUL bytes at the end of a file that is left now.
    fn report_reserved(&mut self) {
        let (bytes, seen) = (self.tail.reserved_bytes(), self.tail.seen);
        if let Some(offset) = seen.filter(|_| bytes > 0) {
            self.events.push(Event::Hole { offset, bytes });
        }
    }

    /// Starts again at the head of a file that was truncated or rewritten, whose text ended at `text_end` before.
    fn rewind(&mut self, read: Checkpoint, text_end: u64, size: u64) {
        let read_offset = read.line.offset;
        let unread = text_end.saturating_sub(read_offset);
        if unread > 0 {
            self.events.push(Event::Gap { reason: GapReason::Truncated, bytes: Some(unread) });
        }
        self.events.push(Event::Truncated { read_offset, size });
        self.checkpoint = Checkpoint::start();
        // It may be the size before the truncation, which happened during the read.
        self.size = 0;
        self.tail.forget();
    }

    /// Whether nothing older is left to deliver.
    fn is_caught_up(&self, filled: &Filled) -> bool {
        filled.reaches_end && self.rotation.successor() != Successor::Ready
    }

    /// The batch of what [`wait`](Self::wait) returned.
    pub fn batch(&mut self, filled: Filled) -> Batch {
        let caught_up = self.is_caught_up(&filled);
        self.reported_caught_up = Some(caught_up);
        self.pacing.record(filled.count, Instant::now());
        Batch {
            items: Some(filled.items).filter(|items| !items.is_empty()).into_iter().collect(),
            count: filled.count,
            events: std::mem::take(&mut self.events),
            position: self.position(),
            progress: Progress { caught_up, next_offset: self.checkpoint.line.offset, size: self.size },
        }
    }
}

/// Reads one batch: at once if it is expected to be short and is in memory, otherwise on a thread that may block.
async fn read(
    pool: Pool,
    file: Arc<File>,
    request: Request,
    gone: Arc<AtomicBool>,
    is_short: bool,
) -> Result<Filled, Error> {
    if is_short {
        match short_work(|| fill::fill(&Cached::new(&file), &request, &gone)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            filled => return Ok(filled?),
        }
    }
    blocking(&pool, move || Ok(fill::fill(&*file, &request, &gone)?)).await
}

/// Runs `work` on a thread that may block.
pub async fn blocking<T: Send + 'static>(
    pool: &Pool,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    pool.run(work).await?
}

#[cfg(test)]
mod tests;

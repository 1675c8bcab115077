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
    Batch, Error, Event, GapReason, Inner, Position, Progress, Query,
    content::{
        checkpoint::Checkpoint,
        fill::{self, Ended, Filled},
        pread::despite_truncation,
        rules::Rules,
        split::{Bounds, End},
    },
    history::rotation::{LateFile, Rotation, Successor},
    root::FilePath,
    seek::{
        locate,
        start::{self, Opened},
    },
    shared_read::Wanted,
    watch::Follow,
};
use crate::stream::Pacing;
use at_end::Next;
use state::{Drained, State};

mod at_end;
mod state;

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
    partial_flush: Option<Duration>,
    file_path: FilePath,
    path_checksum: u32,
    /// See [`Position::directory`].
    directory: Option<u32>,
    /// Which file is read.
    rotation: Rotation,
    /// How far it is read.
    checkpoint: Checkpoint,
    state: State,
    /// How the last read of the file ended; `None` if it has to be read.
    ended: Option<Ended>,
    tail: Tail,
    /// The size of the file when it was last read.
    size: u64,
    /// Lines before this number are not delivered.
    skip_to: Option<u64>,
    /// The file became another log's after it had left the path: from this offset on, its lines are not this log's.
    foreign_from: Option<u64>,
    /// Since when a remote file is shorter than the part that was read.
    short_since: Option<Instant>,
    /// Deliver the part of a line at the end of the file with the next read.
    flush: Option<End>,
    /// The file before, which is checked for late lines.
    late: Option<LateFile>,
    /// The events of the next batch.
    events: Vec<Event>,
    /// Whether the last batch said that the stream is caught up; `None` before the first batch.
    reported_caught_up: Option<bool>,
    /// The last reported change of the path when the file was last read.
    version: Option<u64>,
}

/// What a reader knows of the end of its file.
#[derive(Debug)]
pub struct Tail {
    /// Where the file ended when it was last read to its end.
    seen: Option<u64>,
    /// Since when it ends there.
    end_since: Instant,
    /// Since when it ends there while the reader was at its end, so that it would have seen late lines.
    quiet_since: Instant,
    /// When the file was last read.
    read_at: Instant,
    /// The read before the last one reached the end, too.
    is_live: bool,
}

impl Tail {
    /// Of a file that was not read yet; it counts as quiet for `grace`.
    fn new(grace: Duration) -> Self {
        let now = Instant::now();
        let quiet_since = now.checked_sub(grace).unwrap_or(now);
        Self { seen: None, end_since: now, quiet_since, read_at: now, is_live: false }
    }

    /// Of a file that ended at `seen` when it was left.
    fn of_late_file(seen: u64) -> Self {
        let now = Instant::now();
        Self { seen: Some(seen), end_since: now, quiet_since: now, read_at: now, is_live: false }
    }

    /// Another file is read from here on.
    fn forget(&mut self) {
        (self.seen, self.is_live) = (None, false);
    }

    fn record(&mut self, ended: Ended) {
        self.read_at = Instant::now();
        if let Ended::End { seen, .. } = ended
            && self.seen.replace(seen) != Some(seen)
        {
            self.end_since = self.read_at;
            if self.is_live {
                self.quiet_since = self.read_at;
            }
        }
        self.is_live &= ended != Ended::More;
    }
}

/// A reader that is in another file for a while: what it needs to continue in this one.
#[derive(Debug)]
pub struct Paused {
    rotation: Rotation,
    checkpoint: Checkpoint,
    state: State,
    tail: Tail,
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
        let path = FilePath::parse(&query.path)?;
        start::check(&query, &path)?;
        let rules = query.rules.clone().within(inner.options.max_line_bytes)?;
        let gone = Gone::default();
        let opened = {
            let (inner, query, path, gone) = (inner.clone(), query.clone(), path.clone(), gone.0.clone());
            blocking(move || start::open(&inner, &query, &path, &gone)).await?
        };
        let Query { batching, partial_flush, .. } = query;
        let Opened { follow, rotation, checkpoint, directory, skip_to, events, waits_for_file } = opened;
        let state = if waits_for_file {
            State::Absent { since: rotation.left(), drained: Drained::No }
        } else {
            State::AtPath
        };
        Ok(Self {
            inner: inner.clone(),
            gone,
            follow,
            rules: Arc::new(rules),
            pacing: Pacing::new(batching, Instant::now()),
            partial_flush,
            path_checksum: path.checksum(),
            file_path: path,
            directory,
            rotation,
            checkpoint,
            state,
            ended: None,
            tail: Tail::new(inner.options.rotation_grace),
            size: 0,
            skip_to,
            foreign_from: None,
            short_since: None,
            flush: None,
            late: None,
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
            let Some(ended) = self.ended else {
                let filled = self.read().await?;
                self.record(&filled);
                // Events of a file that has more lines leave with these.
                let has_events = !self.events.is_empty() && self.ended.is_some();
                let is_news = match self.reported_caught_up {
                    None => true,
                    Some(reported) => !reported && self.follow.is_some() && self.is_caught_up(&filled),
                };
                if filled.count > 0 || has_events || is_news {
                    return Ok(Some(filled));
                }
                continue;
            };
            let next = if ended == Ended::Until { Next::End } else { self.at_end(ended).await? };
            match next {
                // A file that was just entered was not read to its end yet.
                Next::Read => self.tail.is_live = self.ended.take().is_some(),
                Next::End => return Ok(None),
                Next::Heartbeat | Next::Report => {
                    return Ok(Some(Filled::nothing(self.checkpoint, ended, self.size)));
                }
            }
        }
    }

    /// Reads a batch of the file.
    async fn read(&mut self) -> Result<Filled, Error> {
        let version = self.follow.as_mut().map(Follow::mark);
        let Some(file) = self.rotation.file().cloned() else {
            let nothing = Ended::End { seen: 0, is_reserved: false };
            return Ok(Filled::nothing(self.checkpoint, nothing, 0));
        };
        if self.skip_to.is_some()
            && let Some(nothing) = self.seek(&file).await?
        {
            return Ok(nothing);
        }
        let bounds = Bounds { max_items: self.pacing.max_items(), max_bytes: self.pacing.max_bytes() };
        let wanted = Wanted {
            file: self.rotation.identity(),
            checkpoint: self.checkpoint,
            bounds,
            rules: self.rules.clone(),
            flush: self.flush.take().or(self.follow.is_none().then_some(End::Last)),
            end: self.find_limit(&file),
        };
        let read = read(file, wanted.clone());
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
        let truncated_limit = wanted.end.filter(|_| filled.ended == Ended::Truncated);
        Ok(truncated_limit.map_or(filled, |limit| self.lose_foreign_file(limit)))
    }

    /// The offset from which the lines of the file are not this log's: it left the path, and was renamed to a name that
    /// the rules deny or that is followed itself.
    fn limit(&self) -> Option<u64> {
        let limit = self.foreign_from.or_else(|| self.rotation.limit());
        // The file may have been read further before its renaming was noticed.
        limit.map(|limit| limit.max(self.checkpoint.line.offset))
    }

    /// [`limit`](Self::limit), after a check whether the file became another log's since it was last read.
    fn find_limit(&mut self, file: &File) -> Option<u64> {
        let may_become_foreign = self.rotation.left().is_some() && self.limit().is_none();
        if may_become_foreign && self.inner.is_foreign(&self.file_path, file) {
            self.foreign_from = Some(self.tail.seen.unwrap_or(0));
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
        Filled::nothing(self.checkpoint, Ended::End { seen, is_reserved: false }, self.size)
    }

    /// Moves to the line that the caller asked for. Returns an empty read if that line is not written yet.
    async fn seek(&mut self, file: &Arc<File>) -> Result<Option<Filled>, Error> {
        let Some(number) = self.skip_to else { return Ok(None) };
        let (inner, file, rules) = (self.inner.clone(), file.clone(), self.rules.clone());
        let (from, gone) = (self.checkpoint, self.gone.0.clone());
        let search = move || {
            if from.line.offset > 0 && !from.is_intact(&file)? {
                return Ok((None, 0, file.metadata()?.len()));
            }
            // Whether a CR before it is content does not change the numbers.
            let (found, seen) = if rules.delimiter.bytes() == b"\n" {
                inner.indexes.line(&file, number, &gone)?
            } else {
                locate::line(&file, from.line, number, &rules.delimiter, &gone)?
            };
            Ok((Some(Checkpoint::at(&file, found)?), seen, file.metadata()?.len()))
        };
        let (checkpoint, seen, size) = blocking(move || Ok(despite_truncation(search)?)).await?;
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
    fn record(&mut self, filled: &Filled) {
        let (before, old_size) = (self.checkpoint, self.size);
        (self.checkpoint, self.size) = (filled.checkpoint, filled.size);
        self.state.record_read(filled.count == 0 && matches!(filled.ended, Ended::End { .. }));
        self.tail.record(filled.ended);
        self.ended = match filled.ended {
            Ended::More => None,
            Ended::Hole { offset, bytes } => {
                self.events.push(Event::Hole { offset, bytes });
                None
            }
            Ended::Truncated if self.is_confirmed() => {
                self.rewind(before, old_size, filled.size);
                None
            }
            // It is read again in a moment.
            Ended::Truncated => Some(Ended::Truncated),
            ended @ (Ended::End { .. } | Ended::Until) => {
                self.short_since = None;
                Some(ended)
            }
        };
    }

    /// Whether a truncation is certain: a remote file may seem to be shorter for a moment.
    fn is_confirmed(&mut self) -> bool {
        let since = *self.short_since.get_or_insert_with(Instant::now);
        !self.rotation.is_remote() || since.elapsed() >= REMOTE_CONFIRM
    }

    /// Starts again at the head of a file that was truncated or rewritten.
    fn rewind(&mut self, read: Checkpoint, old_size: u64, size: u64) {
        let read_offset = read.line.offset;
        let unread = old_size.saturating_sub(read_offset);
        if unread > 0 {
            self.events.push(Event::Gap { reason: GapReason::Truncated, bytes: Some(unread) });
        }
        self.events.push(Event::Truncated { read_offset, size });
        (self.checkpoint, self.short_since, self.flush) = (Checkpoint::start(), None, None);
        self.tail.is_live = false;
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
            position: Position {
                path: self.path_checksum,
                directory: self.directory,
                identity: self.rotation.identity(),
                checkpoint: self.checkpoint,
                size: self.size,
                compressed: None,
                skip_to: self.skip_to,
                deleted: self.state.is_absent(),
                resume_at: self.state.resume_at(),
                filter: None,
                record: None,
            },
            progress: Progress { caught_up, next_offset: self.checkpoint.line.offset, size: self.size },
        }
    }
}

/// Reads one batch on a thread that may block.
async fn read(file: Arc<File>, wanted: Wanted) -> Result<Filled, Error> {
    blocking(move || {
        let Wanted { checkpoint, bounds, rules, flush, end, .. } = &wanted;
        Ok(fill::fill(&file, checkpoint, bounds, rules, *flush, *end)?)
    })
    .await
}

/// Runs `work` on a thread that may block.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error).into()))
}

#[cfg(test)]
mod tests;

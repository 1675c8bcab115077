//! Reads a file and its successors, batch by batch: what there is, then what is still to be written.
//!
//! Nothing is read ahead of the caller but the rest of a chunk, and an idle reader holds no buffer. Followers of one file
//! who are at its end share what one of them reads. Dropping a reader frees all it has; a search that is under way on a
//! blocking thread ends soon after.

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
        rules::{Delimiter, Rules},
        split::{Bounds, End},
    },
    history::rotation::{LateFile, Next, Rotation},
    identity::Identity,
    root::FilePath,
    seek::{
        locate,
        start::{self, Opened},
    },
    shared_read::Wanted,
    watch::Follow,
};
use crate::stream::Pacing;
use at_end::{Absent, AtEnd, Drained};

mod at_end;

/// The shortest line that can be too long: a cut needs room for a character.
const MIN_LINE_BYTES: usize = 4;

/// For how long a remote file must be shorter than what was read of it: its size may be out of date for a moment.
const REMOTE_CONFIRM: Duration = Duration::from_secs(3);

/// Reads a file and its successors.
#[derive(Debug)]
pub struct Reader {
    inner: Arc<Inner>,
    gone: Gone,
    follow: Option<Follow>,
    rotation: Rotation,
    checkpoint: Checkpoint,
    rules: Arc<Rules>,
    pacing: Pacing,
    partial_flush: Option<Duration>,
    /// No line before this number is delivered.
    skip_to: Option<u64>,
    file_path: FilePath,
    path: u32,
    size: u64,
    events: Vec<Event>,
    /// There is no file at the path, which was told.
    absent: Option<Absent>,
    /// How the last look at the file ended; none if it is to be looked at.
    ended: Option<Ended>,
    /// The change of the file that was the last when it was looked at.
    version: Option<u64>,
    /// The last look but one ended at the end of the file, too.
    is_live: bool,
    /// The last batch said that nothing older is left; none before the first batch.
    told_caught_up: Option<bool>,
    /// What is left at the end is wanted.
    flush: Option<End>,
    /// Where the file ended when it was last read to its end.
    seen: Option<u64>,
    /// Since when that is so.
    part_since: Instant,
    /// Since when it is so though the reader was there: late lines would have been seen.
    quiet_since: Instant,
    /// When the file was last looked at.
    looked: Instant,
    /// The file was shorter than what was read of it.
    short_since: Option<Instant>,
    is_drained: Drained,
    /// The file that was left last.
    late: Option<LateFile>,
    /// Where the present file is read on, while late lines of another one are read.
    resume_at: Option<(Identity, Checkpoint)>,
}

/// Tells a blocking search that its reader is gone.
#[derive(Debug, Default)]
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Reader {
    /// Finds the file and the place to start.
    pub async fn open(inner: &Arc<Inner>, query: Query) -> Result<Self, Error> {
        let path = FilePath::parse(&query.path)?;
        start::check(&query, &path)?;
        let gone = Gone::default();
        let opened = {
            let (inner, query, path, gone) = (inner.clone(), query.clone(), path.clone(), gone.0.clone());
            blocking(move || start::open(&inner, &query, &path, &gone)).await?
        };
        let Query { batching, partial_flush, mut rules, .. } = query;
        rules.max_line_bytes = rules.max_line_bytes.min(inner.options.max_line_bytes).max(MIN_LINE_BYTES);
        let Opened { follow, rotation, checkpoint, skip_to, events, waits_for_file } = opened;
        let absent = waits_for_file.then(|| Absent { since: rotation.left(), is_history: false });
        let now = Instant::now();
        Ok(Self {
            inner: inner.clone(),
            gone,
            follow,
            rotation,
            checkpoint,
            rules: Arc::new(rules),
            pacing: Pacing::new(batching, now),
            partial_flush,
            skip_to,
            path: path.checksum(),
            file_path: path,
            size: 0,
            events,
            absent,
            ended: None,
            version: None,
            is_live: false,
            told_caught_up: None,
            flush: None,
            seen: None,
            part_since: now,
            quiet_since: now.checked_sub(inner.options.rotation_grace).unwrap_or(now),
            looked: now,
            short_since: None,
            is_drained: Drained::No,
            late: None,
            resume_at: None,
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
                let filled = self.fill().await?;
                self.took(&filled);
                let tells = !self.events.is_empty() && self.ended.is_some();
                let is_news = match self.told_caught_up {
                    None => true,
                    Some(told) => !told && self.follow.is_some() && self.is_caught_up(&filled),
                };
                if filled.count > 0 || tells || is_news {
                    return Ok(Some(filled));
                }
                continue;
            };
            let next = if ended == Ended::Until { AtEnd::Stop } else { self.settle(ended).await? };
            match next {
                // Not so in a file that was entered just now, whose last look there was none.
                AtEnd::ReadOn => self.is_live = self.ended.take().is_some(),
                AtEnd::Stop => return Ok(None),
                AtEnd::Heartbeat | AtEnd::Tell => {
                    let nothing = Filled::nothing(self.checkpoint, ended, self.size);
                    return Ok(Some(nothing));
                }
            }
        }
    }

    /// Looks at the file.
    async fn fill(&mut self) -> Result<Filled, Error> {
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
        };
        let read = read(file, wanted.clone());
        match (&self.follow, version) {
            (Some(follow), Some(version)) if self.is_live => {
                // Without a notification this read looks for changes that inotify does not report, so an older shared
                // read must not be reused.
                let is_notified = self.version.replace(version) != Some(version);
                let after = (!is_notified).then_some(self.looked);
                follow.shared_read().get(&wanted, version, after, read).await
            }
            _ => read.await,
        }
    }

    /// Goes to the line that the caller asked for. What there is to tell, if it is not written yet.
    async fn seek(&mut self, file: &Arc<File>) -> Result<Option<Filled>, Error> {
        let Some(number) = self.skip_to else { return Ok(None) };
        let (inner, file, rules) = (self.inner.clone(), file.clone(), self.rules.clone());
        let (from, gone) = (self.checkpoint, self.gone.0.clone());
        let sought = move || {
            if from.line.offset > 0 && !from.is_intact(&file)? {
                return Ok((None, 0, file.metadata()?.len()));
            }
            let (found, seen) = if rules.delimiter == Delimiter::Newline {
                inner.indexes.line(&file, number, &gone)?
            } else {
                locate::line(&file, from.line, number, &rules.delimiter, &gone)?
            };
            Ok((Some(Checkpoint::at(&file, found)?), seen, file.metadata()?.len()))
        };
        let (checkpoint, seen, size) = blocking(move || Ok(despite_truncation(sought)?)).await?;
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

    /// Takes note of what a look at the file yielded.
    fn took(&mut self, filled: &Filled) {
        let (before, old_size) = (self.checkpoint, self.size);
        (self.checkpoint, self.size) = (filled.checkpoint, filled.size);
        let is_used_up = filled.count == 0 && matches!(filled.ended, Ended::End { .. });
        self.is_drained = match self.is_drained {
            Drained::Asked | Drained::Yes if is_used_up => Drained::Yes,
            _ => Drained::No,
        };
        self.looked = Instant::now();
        if let Ended::End { seen, .. } = filled.ended
            && self.seen.replace(seen) != Some(seen)
        {
            self.part_since = self.looked;
            self.quiet_since = if self.is_live { self.looked } else { self.quiet_since };
        }
        self.ended = match filled.ended {
            Ended::More => {
                self.is_live = false;
                None
            }
            Ended::Hole { offset, bytes } => {
                self.events.push(Event::Hole { offset, bytes });
                None
            }
            Ended::Truncated if self.is_confirmed() => {
                self.rewind(before, old_size, filled.size);
                None
            }
            // Asked for again in a moment.
            Ended::Truncated => Some(Ended::Truncated),
            ended @ (Ended::End { .. } | Ended::Until) => {
                self.short_since = None;
                Some(ended)
            }
        };
    }

    /// A remote file may seem to be short for a moment.
    fn is_confirmed(&mut self) -> bool {
        let since = *self.short_since.get_or_insert_with(Instant::now);
        !self.rotation.is_remote() || since.elapsed() >= REMOTE_CONFIRM
    }

    /// Starts again at the head of a file that was truncated or written anew.
    fn rewind(&mut self, read: Checkpoint, old_size: u64, size: u64) {
        let read_offset = read.line.offset;
        let unread = old_size.saturating_sub(read_offset);
        if unread > 0 {
            self.events.push(Event::Gap { reason: GapReason::Truncated, bytes: Some(unread) });
        }
        self.events.push(Event::Truncated { read_offset, size });
        (self.checkpoint, self.short_since, self.flush) = (Checkpoint::start(), None, None);
        (self.is_live, self.is_drained) = (false, Drained::No);
    }

    /// Nothing older is left behind this.
    fn is_caught_up(&self, filled: &Filled) -> bool {
        filled.reaches_end && self.rotation.next() != Next::Ready
    }

    /// The batch of what [`wait`](Self::wait) returned.
    pub fn batch(&mut self, filled: Filled) -> Batch {
        let caught_up = self.is_caught_up(&filled);
        self.told_caught_up = Some(caught_up);
        self.pacing.record(filled.count, Instant::now());
        Batch {
            items: Some(filled.items).filter(|items| !items.is_empty()).into_iter().collect(),
            count: filled.count,
            events: std::mem::take(&mut self.events),
            position: Position {
                path: self.path,
                identity: self.rotation.identity(),
                checkpoint: self.checkpoint,
                skip_to: self.skip_to,
                deleted: self.absent.is_some(),
                resume_at: self.resume_at,
            },
            progress: Progress { caught_up, next_offset: self.checkpoint.line.offset, size: self.size },
        }
    }
}

/// Reads one batch on a thread that may block.
async fn read(file: Arc<File>, wanted: Wanted) -> Result<Filled, Error> {
    blocking(move || {
        let Wanted { checkpoint, bounds, rules, flush, .. } = &wanted;
        Ok(fill::fill(&file, checkpoint, bounds, rules, *flush)?)
    })
    .await
}

/// Does something on a thread that may block.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error).into()))
}

#[cfg(test)]
mod tests;

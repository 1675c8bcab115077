//! Reads a file and its successors, batch by batch: what there is, then what is still to be written.
//!
//! Nothing is read ahead of the caller but the rest of a chunk, and an idle reader holds no buffer. Dropping a reader
//! frees all it has; a search that is under way on a blocking thread ends soon after.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Batch, Error, Event, Inner, OnGap, Position, Query, Start,
    generations::{Generations, Look},
    root::FilePath,
    source::{Filled, Source},
    split::Bounds,
    watch::Watch,
};
use crate::wire::Batching;

/// How often a file that was renamed away is looked at for late lines: nobody tells, as it has another name now.
const LATE_LINES_POLL: Duration = Duration::from_millis(20);

/// Reads a file and its successors.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts, not a state in disguise")]
pub struct Reader {
    /// None only while a blocking thread has it.
    generations: Option<Generations>,
    gone: Gone,
    watch: Option<Watch>,
    batching: Batching,
    max_line_bytes: usize,
    grace: Duration,
    /// How many lines may still be delivered.
    remaining: Option<u64>,
    /// No line before this number is delivered.
    skip_to: Option<u64>,
    position: Position,
    size: u64,
    events: Vec<Event>,
    is_first: bool,
    is_current: bool,
    at_end: bool,
    /// The part of a line that is left at the end is a line.
    flush: bool,
    /// Since when the file is no longer at its path, and quiet.
    left_since: Option<Instant>,
    last_sent: Instant,
}

/// Tells a blocking search that its reader is gone.
#[derive(Debug, Default)]
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What to do at the end of the file.
enum AtEnd {
    /// There is something new.
    ReadOn,
    /// Nothing will come.
    Stop,
    /// Nothing happened for so long that the caller should hear of it.
    Heartbeat,
}

impl Reader {
    /// Finds the file and the place to start.
    pub async fn open(inner: &Arc<Inner>, query: Query) -> Result<Self, Error> {
        let Query { path: text, start, follow, on_gap, batching } = query;
        let path = FilePath::parse(&text)?;
        check(&start, &path)?;
        let gone = Gone::default();
        let generations = {
            let (inner, path, text) = (inner.clone(), path.clone(), text.clone());
            blocking(move || {
                let parent = inner.roots.parent(&path).map_err(|error| Error::of_open(error, &text))?;
                Ok(Generations::new(parent, &path))
            })
            .await?
        };
        // Watched before anything is read, so that nothing is written unnoticed in between.
        let watch = follow.then(|| inner.watches.watch(generations.parent(), &path.name));
        let skip_to = match &start {
            Start::Line(number) => Some(*number),
            Start::Resume(position) => position.skip_to,
            _ => None,
        };
        let reader = Self {
            generations: Some(generations),
            gone,
            watch,
            remaining: batching.limit,
            batching,
            max_line_bytes: inner.options.max_line_bytes,
            grace: inner.options.rotation_grace,
            skip_to,
            position: Position::nowhere(path.checksum()),
            size: 0,
            events: Vec::new(),
            is_first: true,
            is_current: true,
            at_end: false,
            flush: false,
            left_since: None,
            last_sent: Instant::now(),
        };
        reader.start(start, on_gap, text).await
    }

    async fn start(mut self, start: Start, on_gap: OnGap, path: String) -> Result<Self, Error> {
        if let Start::Resume(position) = &start {
            self.position = position.clone();
        }
        let gone = self.gone.0.clone();
        let opened = self.work(move |generations| generations.open(&start, on_gap, &path, &gone)).await?;
        self.events = opened.events;
        self.is_current = opened.is_current;
        if !self.is_current {
            // The rotation was long ago: no late line is to be waited for.
            self.left_since = Instant::now().checked_sub(self.grace);
        }
        Ok(self)
    }

    /// The next batch; none at the end that the caller asked for. Not to be called again after an error.
    pub async fn next(&mut self) -> Result<Option<Batch>, Error> {
        loop {
            if self.remaining == Some(0) {
                return Ok(None);
            }
            if !self.at_end {
                let filled = self.fill().await?;
                if filled.lines.count > 0 || self.is_first || !self.events.is_empty() {
                    return Ok(Some(self.batch(filled)));
                }
                continue;
            }
            match self.settle().await? {
                AtEnd::ReadOn => {}
                AtEnd::Stop => return Ok(None),
                AtEnd::Heartbeat => return Ok(Some(self.batch(Filled::nothing(self.size)))),
            }
            if !self.events.is_empty() && self.at_end {
                return Ok(Some(self.batch(Filled::nothing(self.size))));
            }
        }
    }

    async fn fill(&mut self) -> Result<Filled, Error> {
        if let Some(watch) = &mut self.watch {
            watch.mark();
        }
        let remaining = self.remaining.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let bounds = Bounds {
            max_items: self.batching.max_items.min(remaining),
            max_bytes: self.batching.max_bytes,
            max_line_bytes: self.max_line_bytes,
        };
        let flush = std::mem::take(&mut self.flush) || self.watch.is_none();
        let (skip_to, gone) = (self.skip_to, self.gone.0.clone());
        let filled = self
            .work(move |generations| {
                let Some(source) = &mut generations.source else { return Ok(Filled::nothing(0)) };
                if let Some(number) = skip_to {
                    source.seek_line(number, &gone)?;
                    if source.place().number.is_some_and(|current| current < number) {
                        return Ok(Filled::nothing(source.file().metadata()?.len()));
                    }
                }
                Ok(source.fill(&bounds, flush)?)
            })
            .await?;
        self.at_end = filled.at_end;
        self.size = filled.size;
        let source = self.generations.as_ref().and_then(|generations| generations.source.as_ref());
        if let Some(source) = source {
            let is_ahead = |number: &u64| source.place().number.is_some_and(|current| current < *number);
            self.skip_to = self.skip_to.filter(is_ahead);
            let Position { path, .. } = self.position;
            self.position = Position::of(path, source, self.skip_to);
        }
        Ok(filled)
    }

    fn batch(&mut self, filled: Filled) -> Batch {
        self.is_first = false;
        self.last_sent = Instant::now();
        let count = filled.lines.count;
        self.remaining = self.remaining.map(|left| left.saturating_sub(count as u64));
        Batch {
            items: Bytes::from(filled.lines.items),
            count,
            events: std::mem::take(&mut self.events),
            position: self.position.clone(),
            caught_up: filled.at_end && self.is_current,
            next_offset: self.position.place.offset,
            size: self.size,
        }
    }

    /// Looks what is to be done at the end of the file, and waits where there is nothing to do.
    async fn settle(&mut self) -> Result<AtEnd, Error> {
        if self.watch.is_none() && self.is_current {
            return Ok(AtEnd::Stop);
        }
        loop {
            if let Some(watch) = &mut self.watch {
                watch.mark();
            }
            let look = self.work(|generations| Ok(generations.look()?)).await?;
            if self.take(look).await? {
                return Ok(AtEnd::ReadOn);
            }
            if !self.events.is_empty() {
                return Ok(AtEnd::ReadOn);
            }
            let Some(watch) = &mut self.watch else { return Ok(AtEnd::Stop) };
            let is_leaving = self.left_since.is_some() && !self.position.deleted;
            let interval = if is_leaving { LATE_LINES_POLL } else { watch.interval() };
            let next_look = Instant::now() + interval;
            let heartbeat = self.last_sent + self.batching.heartbeat;
            let is_due = tokio::select! {
                () = watch.changed() => false,
                () = tokio::time::sleep_until(next_look.min(heartbeat)) => heartbeat <= next_look,
            };
            if is_due {
                return Ok(AtEnd::Heartbeat);
            }
        }
    }

    /// Acts on what was seen. True if there is something to read.
    async fn take(&mut self, look: Look) -> Result<bool, Error> {
        if let Some(size) = look.truncated {
            let read_offset = self.work(|generations| Ok(generations.rewind()?)).await?;
            self.events.push(Event::Truncated { read_offset, size });
            self.at_end = false;
            return Ok(true);
        }
        self.is_current = look.is_current;
        if look.has_more || look.is_current {
            self.left_since = None;
            self.position.deleted = false;
            self.at_end = !look.has_more;
            return Ok(look.has_more);
        }
        // Renamed away, replaced or deleted, and used up. Its writer may not have noticed yet.
        let left_since = *self.left_since.get_or_insert_with(Instant::now);
        if self.watch.is_some() && left_since.elapsed() < self.grace {
            return Ok(false);
        }
        self.leave(look.exists).await
    }

    /// Leaves a file that is used up for the next one, or tells that there is none.
    async fn leave(&mut self, exists: bool) -> Result<bool, Error> {
        if self.skip_to.is_none() && self.has_part() {
            // What has no newline by now never gets one.
            (self.flush, self.at_end) = (true, false);
            return Ok(true);
        }
        if let Some(is_current) = self.work(|generations| Ok(generations.advance()?)).await? {
            self.events.push(Event::Rotated { next_offset: 0 });
            (self.is_current, self.at_end) = (is_current, false);
            (self.left_since, self.skip_to) = (None, None);
            return Ok(true);
        }
        if !exists && !self.position.deleted {
            self.position.deleted = true;
            self.events.push(Event::Deleted);
        }
        Ok(false)
    }

    fn has_part(&self) -> bool {
        let source = self.generations.as_ref().and_then(|generations| generations.source.as_ref());
        source.is_some_and(Source::has_part)
    }

    /// Does something that blocks.
    async fn work<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Generations) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let mut generations =
            self.generations.take().ok_or_else(|| io::Error::other("a reader that has gone wrong"))?;
        let (generations, result) = blocking(move || {
            let result = work(&mut generations);
            Ok((generations, result))
        })
        .await?;
        self.generations = Some(generations);
        result
    }
}

/// What can be told of a start without looking at the file.
fn check(start: &Start, path: &FilePath) -> Result<(), Error> {
    match start {
        Start::Line(0) => Err(Error::LineZero),
        Start::Resume(position) if position.path != path.checksum() => Err(Error::Mismatch),
        Start::Resume(position) if !position.is_sound() => Err(Error::PositionInvalid),
        _ => Ok(()),
    }
}

/// Does something on a thread that may block.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error).into()))
}

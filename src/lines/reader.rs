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
    Batch, Error, Event, GapReason, Inner, Position, Query,
    chain::{Chain, Entered, Late, Next},
    place,
    root::FilePath,
    source::{self, Ended, Filled, Identity, Standing},
    split::{Bounds, Delimiter, End, Rules},
    start::{self, Opened},
    watch::Follow,
};
use crate::wire::Batching;

/// The shortest line that can be too long: a cut needs room for a character.
const MIN_LINE_BYTES: usize = 4;

/// How often a file that was renamed away is looked at for late lines: it may have gone where nobody tells of it.
const LATE_LINES_POLL: Duration = Duration::from_millis(20);

/// For how long that often; then as often as reserved space.
const LATE_LINES_SOON: Duration = Duration::from_secs(2);

/// For how many times the grace a file that is still written to keeps its readers from its successor.
const MAX_GRACES: u32 = 5;

/// For how long a file that was left is looked at: one more line of it makes that anew.
const LATE_WINDOW: Duration = Duration::from_secs(60);

/// How often reserved space is looked at: what is written there by mmap is not told.
const RESERVED_POLL: Duration = Duration::from_secs(1);

/// For how long a remote file must be shorter than what was read of it: its size may be out of date for a moment.
const REMOTE_CONFIRM: Duration = Duration::from_secs(3);

/// Reads a file and its successors.
#[derive(Debug)]
pub struct Reader {
    inner: Arc<Inner>,
    gone: Gone,
    follow: Option<Follow>,
    chain: Chain,
    standing: Standing,
    rules: Arc<Rules>,
    batching: Batching,
    partial_flush: Option<Duration>,
    /// How many lines may still be delivered.
    remaining: Option<u64>,
    /// No line before this number is delivered.
    skip_to: Option<u64>,
    file_path: FilePath,
    path: u32,
    size: u64,
    events: Vec<Event>,
    /// There is no file to read: what comes to the path is read next.
    waits_for_file: bool,
    /// How the last look at the file ended; none if it is to be looked at.
    ended: Option<Ended>,
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
    late: Option<Late>,
    /// Where the present file is read on, while late lines of another one are read.
    back: Option<(Identity, Standing)>,
    last_sent: Instant,
}

/// Whether a file that is no longer at its path may be left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Drained {
    No,
    /// It is looked at for the last time.
    Asked,
    /// Nothing more was found.
    Yes,
}

/// What was read by a follower at the end of a file, for the others.
#[derive(Debug)]
pub struct Recent {
    asked: Asked,
    /// The change of the file that was the last when it was read.
    version: u64,
    filled: Filled,
}

/// What makes two looks at a file yield the same.
#[derive(Clone, Debug, PartialEq)]
struct Asked {
    file: Identity,
    standing: Standing,
    bounds: Bounds,
    rules: Arc<Rules>,
    flush: Option<End>,
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
    /// There may be something new.
    ReadOn,
    /// There is something to tell.
    Tell,
    /// Nothing will come.
    Stop,
    /// Nothing happened for so long that the caller should hear of it.
    Heartbeat,
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
        let Opened { follow, chain, standing, skip_to, events, waits_for_file } = opened;
        let now = Instant::now();
        Ok(Self {
            inner: inner.clone(),
            gone,
            follow,
            chain,
            standing,
            rules: Arc::new(rules),
            remaining: batching.limit,
            batching,
            partial_flush,
            skip_to,
            path: path.checksum(),
            file_path: path,
            size: 0,
            events,
            waits_for_file,
            ended: None,
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
            back: None,
            last_sent: now,
        })
    }

    /// The next batch; none at the end that the caller asked for. Not to be called again after an error.
    pub async fn next(&mut self) -> Result<Option<Batch>, Error> {
        loop {
            if self.remaining == Some(0) {
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
                    return Ok(Some(self.batch(filled)));
                }
                continue;
            };
            let next = if ended == Ended::Until { AtEnd::Stop } else { self.settle(ended).await? };
            match next {
                // Not so in a file that was entered just now, whose last look there was none.
                AtEnd::ReadOn => self.is_live = self.ended.take().is_some(),
                AtEnd::Stop => return Ok(None),
                AtEnd::Heartbeat | AtEnd::Tell => {
                    let nothing = Filled::nothing(self.standing, ended, self.size);
                    return Ok(Some(self.batch(nothing)));
                }
            }
        }
    }

    /// Looks at the file.
    async fn fill(&mut self) -> Result<Filled, Error> {
        let version = self.follow.as_mut().map(Follow::mark);
        let Some(file) = self.chain.file().cloned() else {
            let nothing = Ended::End { seen: 0, is_reserved: false };
            return Ok(Filled::nothing(self.standing, nothing, 0));
        };
        if self.skip_to.is_some()
            && let Some(nothing) = self.seek(&file).await?
        {
            return Ok(nothing);
        }
        let remaining = self.remaining.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let bounds =
            Bounds { max_items: self.batching.max_items.min(remaining), max_bytes: self.batching.max_bytes };
        let asked = Asked {
            file: self.chain.identity(),
            standing: self.standing,
            bounds,
            rules: self.rules.clone(),
            flush: self.flush.take().or(self.follow.is_none().then_some(End::Last)),
        };
        match (&self.follow, version) {
            (Some(follow), Some(version)) if self.is_live => {
                // Held while the file is read: whoever else wants the same waits for it.
                let mut recent = follow.recent().lock().await;
                if let Some(recent) = recent.as_ref().filter(|it| it.version >= version && it.asked == asked)
                {
                    return Ok(recent.filled.clone());
                }
                let filled = look(file, asked.clone()).await?;
                *recent = Some(Recent { asked, version, filled: filled.clone() });
                Ok(filled)
            }
            _ => look(file, asked).await,
        }
    }

    /// Goes to the line that the caller asked for. What there is to tell, if it is not written yet.
    async fn seek(&mut self, file: &Arc<File>) -> Result<Option<Filled>, Error> {
        let Some(number) = self.skip_to else { return Ok(None) };
        let (inner, file, rules) = (self.inner.clone(), file.clone(), self.rules.clone());
        let (from, gone) = (self.standing, self.gone.0.clone());
        let (standing, seen, size) = blocking(move || {
            if from.place.offset > 0 && !from.is_intact(&file)? {
                return Ok((None, 0, file.metadata()?.len()));
            }
            let (found, seen) = if rules.delimiter == Delimiter::Newline {
                inner.indexes.line(&file, number, &gone)?
            } else {
                place::line(&file, from.place, number, &rules.delimiter, &gone)?
            };
            Ok((Some(Standing::at(&file, found)?), seen, file.metadata()?.len()))
        })
        .await?;
        let Some(standing) = standing else {
            return Ok(Some(Filled::nothing(self.standing, Ended::Truncated, size)));
        };
        self.standing = standing;
        if standing.place.number.is_some_and(|found| found < number) {
            let ended = Ended::End { seen, is_reserved: false };
            return Ok(Some(Filled::nothing(standing, ended, size)));
        }
        self.skip_to = None;
        Ok(None)
    }

    /// Takes note of what a look at the file yielded.
    fn took(&mut self, filled: &Filled) {
        let (before, old_size) = (self.standing, self.size);
        (self.standing, self.size) = (filled.standing, filled.size);
        if self.is_drained == Drained::Asked {
            let is_used_up = filled.count == 0 && matches!(filled.ended, Ended::End { .. });
            self.is_drained = if is_used_up { Drained::Yes } else { Drained::No };
        }
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
        !self.chain.is_remote() || since.elapsed() >= REMOTE_CONFIRM
    }

    /// Starts again at the head of a file that was truncated or written anew.
    fn rewind(&mut self, read: Standing, old_size: u64, size: u64) {
        let read_offset = read.place.offset;
        let unread = old_size.saturating_sub(read_offset);
        if unread > 0 {
            self.events.push(Event::Gap { reason: GapReason::Truncated, bytes: Some(unread) });
        }
        self.events.push(Event::Truncated { read_offset, size });
        (self.standing, self.short_since, self.flush) = (Standing::start(), None, None);
        (self.is_live, self.is_drained) = (false, Drained::No);
    }

    /// Nothing older is left behind this.
    fn is_caught_up(&self, filled: &Filled) -> bool {
        filled.reaches_end && self.chain.next() != Next::Ready
    }

    fn batch(&mut self, filled: Filled) -> Batch {
        let caught_up = self.is_caught_up(&filled);
        self.told_caught_up = Some(caught_up);
        self.last_sent = Instant::now();
        self.remaining = self.remaining.map(|left| left.saturating_sub(filled.count as u64));
        Batch {
            items: filled.items,
            count: filled.count,
            events: std::mem::take(&mut self.events),
            position: Position {
                path: self.path,
                identity: self.chain.identity(),
                standing: self.standing,
                skip_to: self.skip_to,
                deleted: self.waits_for_file,
                back: self.back,
            },
            caught_up,
            next_offset: self.standing.place.offset,
            size: self.size,
        }
    }

    /// Looks what is to be done at the end of the file, and waits where there is nothing to do.
    async fn settle(&mut self, ended: Ended) -> Result<AtEnd, Error> {
        loop {
            let Some(exists) = self.follow.as_ref().map(Follow::exists) else {
                return if self.chain.is_current() { Ok(AtEnd::Stop) } else { self.leave(true).await };
            };
            if self.detour() {
                return Ok(AtEnd::ReadOn);
            }
            if let Some(left) = self.chain.left() {
                match self.at_left(left, exists).await? {
                    AtEnd::Stop => {}
                    next => return Ok(next),
                }
            } else if std::mem::take(&mut self.waits_for_file) {
                // The file that was gone is back.
                return Ok(AtEnd::ReadOn);
            }
            let now = Instant::now();
            let heartbeat = self.batching.heartbeat_at(self.last_sent);
            if heartbeat <= now {
                return Ok(AtEnd::Heartbeat);
            }
            let next_look = self.next_look(ended);
            if next_look.is_some_and(|next| next <= now) {
                let is_part = self.chain.left().is_none() && source::has_part(&self.standing, ended);
                self.flush = is_part.then_some(End::Partial);
                return Ok(AtEnd::ReadOn);
            }
            let late = self.late.as_ref().map(|_| now + RESERVED_POLL);
            let until = [next_look, late].into_iter().flatten().fold(heartbeat, Instant::min);
            let Some(follow) = &mut self.follow else { return Ok(AtEnd::Stop) };
            tokio::select! {
                changed = follow.changed() => {
                    changed?;
                    return Ok(AtEnd::ReadOn);
                }
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// Goes back to the file that was left, if it has grown since. True if so.
    fn detour(&mut self) -> bool {
        let Some(late) = &self.late else { return false };
        let is_over = late.until <= Instant::now();
        let has_part = late.seen > late.standing.place.offset;
        let is_wanted = late.has_grown() || is_over && has_part;
        if !is_wanted {
            self.late.take_if(|_| is_over);
            return false;
        }
        let Some(chain) = self.chain.detour(late, self.standing) else { return false };
        self.events.push(Event::Late { offset: late.standing.place.offset });
        self.back = Some((self.chain.identity(), self.standing));
        (self.chain, self.standing) = (chain, late.standing);
        (self.seen, self.is_live, self.is_drained) = (Some(late.seen), false, Drained::No);
        // What has no newline by now never gets one.
        (self.size, self.flush) = (0, is_over.then_some(End::Last));
        self.late = None;
        true
    }

    /// The file is no longer at its path: its writer may not have noticed yet. `Stop` if there is nothing to do.
    async fn at_left(&mut self, left: Instant, exists: bool) -> Result<AtEnd, Error> {
        match self.chain.next() {
            Next::None if self.waits_for_file => return Ok(AtEnd::Stop),
            // Its writer has not come to the new file yet: what it writes until then is in this one.
            Next::Empty if !self.waits_for_file => return Ok(AtEnd::Stop),
            Next::None | Next::Empty | Next::Ready => {}
        }
        if self.waits_for_file || self.is_drained == Drained::Yes {
            return self.leave(exists).await;
        }
        let grace = self.inner.options.rotation_grace;
        let is_quiet = left.max(self.quiet_since) + grace <= Instant::now();
        let is_over = self.chain.next() == Next::Ready && left.elapsed() > grace * MAX_GRACES;
        if self.back.is_some() || is_over && !is_quiet {
            // What is written to it from now on comes late, lest its successor wait for ever.
            return self.leave(exists).await;
        }
        if !is_quiet {
            return Ok(AtEnd::Stop);
        }
        // What has no newline by now never gets one.
        (self.is_drained, self.flush) = (Drained::Asked, Some(End::Last));
        Ok(AtEnd::ReadOn)
    }

    /// Leaves a file that is used up for the next one, or tells that there is none. `Stop` if there is nothing to do.
    async fn leave(&mut self, exists: bool) -> Result<AtEnd, Error> {
        let (chain, inner, was_gone) = (self.chain.clone(), self.inner.clone(), self.waits_for_file);
        let (path, standing) = (self.file_path.clone(), self.standing);
        let advanced = blocking(move || Ok(chain.advance(&inner.roots, &path, standing, was_gone)?)).await?;
        if let Some(Entered { chain, standing, events }) = advanced {
            // A file that was told to be gone may be another one's by now.
            self.late = self.chain.file().filter(|_| !was_gone).map(|file| Late {
                file: file.clone(),
                identity: self.chain.identity(),
                standing: self.standing,
                seen: self.seen.unwrap_or(0).max(self.standing.place.offset),
                until: Instant::now() + LATE_WINDOW,
            });
            self.back = None;
            (self.chain, self.standing) = (chain, standing);
            self.events.extend(events);
            (self.waits_for_file, self.is_drained, self.skip_to) = (false, Drained::No, None);
            (self.size, self.seen, self.is_live) = (0, None, false);
            self.ended = None;
            return Ok(AtEnd::ReadOn);
        }
        if !exists && !self.waits_for_file {
            self.waits_for_file = true;
            self.events.push(Event::Deleted);
            return Ok(AtEnd::Tell);
        }
        Ok(AtEnd::Stop)
    }

    /// When the file is to be looked at though nothing told of it.
    fn next_look(&self, ended: Ended) -> Option<Instant> {
        if let Some(left) = self.chain.left().filter(|_| !self.waits_for_file) {
            let is_new = left.elapsed() < LATE_LINES_SOON;
            return Some(self.looked + if is_new { LATE_LINES_POLL } else { RESERVED_POLL });
        }
        match ended {
            Ended::Truncated => Some(self.looked + LATE_LINES_POLL),
            Ended::End { is_reserved: true, .. } => Some(self.looked + RESERVED_POLL),
            Ended::End { .. } if source::has_part(&self.standing, ended) => {
                self.partial_flush.map(|flush| self.looked.max(self.part_since + flush))
            }
            _ => None,
        }
    }
}

/// Looks at a file on a thread that may block.
async fn look(file: Arc<File>, asked: Asked) -> Result<Filled, Error> {
    blocking(move || {
        let Asked { standing, bounds, rules, flush, .. } = &asked;
        Ok(source::fill(&file, standing, bounds, rules, *flush)?)
    })
    .await
}

/// Does something on a thread that may block.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error).into()))
}

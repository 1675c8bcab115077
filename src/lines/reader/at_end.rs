//! What a reader does at the end of a file: it waits, goes on in the next file, or goes back for late lines.

use std::time::Duration;

use tokio::time::Instant;

use super::{Reader, blocking};
use crate::lines::{
    Error, Event,
    content::{
        fill::{self, Ended},
        split::End,
    },
    history::rotation::{Entered, LateFile, Next},
    watch::Follow,
};

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

/// There is no file at the path.
#[derive(Clone, Copy, Debug)]
pub struct Absent {
    /// Since when the file is gone.
    pub since: Option<Instant>,
    /// What is still written to it is the path's: it was deleted, or has the name that a rotation gives.
    pub is_history: bool,
}

/// Whether a file that is no longer at its path may be left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Drained {
    /// It may not.
    No,
    /// It is looked at for the last time.
    Asked,
    /// Nothing more was found.
    Yes,
}

/// What to do at the end of the file.
pub enum AtEnd {
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
    /// Looks what is to be done at the end of the file, and waits where there is nothing to do.
    pub async fn settle(&mut self, ended: Ended) -> Result<AtEnd, Error> {
        loop {
            let Some(exists) = self.follow.as_ref().map(Follow::exists) else {
                return if self.rotation.is_current() { Ok(AtEnd::Stop) } else { self.leave(true).await };
            };
            if self.is_back() || self.detour() {
                return Ok(AtEnd::ReadOn);
            }
            if let Some(left) = self.rotation.left() {
                match self.at_left(left, exists).await? {
                    AtEnd::Stop => {}
                    next => return Ok(next),
                }
            }
            let now = Instant::now();
            let heartbeat = self.pacing.heartbeat_at();
            if heartbeat <= now {
                return Ok(AtEnd::Heartbeat);
            }
            let next_look = self.next_look(ended);
            if next_look.is_some_and(|next| next <= now) {
                let is_part = self.rotation.left().is_none() && fill::has_part(&self.checkpoint, ended);
                self.flush = is_part.then_some(End::Partial);
                return Ok(AtEnd::ReadOn);
            }
            let late = self.late.as_ref().map(|_| now + RESERVED_POLL);
            let until = [next_look, late].into_iter().flatten().fold(heartbeat, Instant::min);
            let Some(follow) = &mut self.follow else { return Ok(AtEnd::Stop) };
            tokio::select! {
                changed = follow.changed() => {
                    changed?;
                    // Another path's file by now: what is written to it is not for this one.
                    if self.absent.is_none_or(|absent| absent.is_history) {
                        return Ok(AtEnd::ReadOn);
                    }
                    follow.mark();
                }
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// The file that was gone is at its path again. It may have been, and be gone once more.
    fn is_back(&mut self) -> bool {
        let left = self.rotation.left();
        let is_back = self.absent.take_if(|absent| absent.since != left).is_some();
        if is_back {
            self.is_drained = Drained::No;
        }
        is_back
    }

    /// Goes back to the file that was left, if it has grown since. True if so.
    fn detour(&mut self) -> bool {
        let Some(late) = &self.late else { return false };
        let is_over = late.until <= Instant::now();
        let has_part = late.seen > late.checkpoint.line.offset;
        let is_wanted = late.has_grown() || is_over && has_part;
        if !is_wanted {
            self.late.take_if(|_| is_over);
            return false;
        }
        let Some(rotation) = self.rotation.detour(late, self.checkpoint) else { return false };
        self.events.push(Event::Late { offset: late.checkpoint.line.offset });
        self.resume_at = Some((self.rotation.identity(), self.checkpoint));
        (self.rotation, self.checkpoint) = (rotation, late.checkpoint);
        (self.seen, self.is_live, self.is_drained) = (Some(late.seen), false, Drained::No);
        // What has no newline by now never gets one.
        (self.size, self.flush) = (0, is_over.then_some(End::Last));
        self.late = None;
        true
    }

    /// The file is no longer at its path: its writer may not have noticed yet. `Stop` if there is nothing to do.
    async fn at_left(&mut self, left: Instant, exists: bool) -> Result<AtEnd, Error> {
        match (self.rotation.next(), self.absent) {
            // Where there is a new file, its writer has not come to it yet: what it writes until then is in this one.
            (Next::None, Some(_)) | (Next::Empty, None) => return Ok(AtEnd::Stop),
            (_, Some(Absent { is_history: false, .. })) => return self.leave(exists).await,
            _ => {}
        }
        if self.is_drained == Drained::Yes {
            return self.leave(exists).await;
        }
        let grace = self.inner.options.rotation_grace;
        let is_quiet = left.max(self.quiet_since) + grace <= Instant::now();
        let is_over = self.rotation.next() == Next::Ready && left.elapsed() > grace * MAX_GRACES;
        if self.resume_at.is_some() || is_over && !is_quiet {
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
        let (rotation, inner, absent) = (self.rotation.clone(), self.inner.clone(), self.absent);
        let (path, checkpoint) = (self.file_path.clone(), self.checkpoint);
        let (advanced, is_history) = blocking(move || {
            let advanced = rotation.advance(&inner.roots, &path, checkpoint, absent.is_some())?;
            let is_history = advanced.is_none() && rotation.is_history(&inner.roots, &path)?;
            Ok((advanced, is_history))
        })
        .await?;
        if let Some(Entered { rotation, checkpoint, events }) = advanced {
            let is_ours = absent.is_none_or(|absent| absent.is_history);
            self.late = self.rotation.file().filter(|_| is_ours).map(|file| LateFile {
                file: file.clone(),
                identity: self.rotation.identity(),
                checkpoint: self.checkpoint,
                seen: self.seen.unwrap_or(0).max(self.checkpoint.line.offset),
                until: Instant::now() + LATE_WINDOW,
            });
            self.resume_at = None;
            (self.rotation, self.checkpoint) = (rotation, checkpoint);
            self.events.extend(events);
            (self.absent, self.is_drained, self.skip_to) = (None, Drained::No, None);
            (self.size, self.seen, self.is_live) = (0, None, false);
            self.ended = None;
            return Ok(AtEnd::ReadOn);
        }
        if !exists && self.absent.is_none() {
            self.absent = Some(Absent { since: self.rotation.left(), is_history });
            self.events.push(Event::Deleted);
            return Ok(AtEnd::Tell);
        }
        Ok(AtEnd::Stop)
    }

    /// When the file is to be looked at though nothing told of it.
    fn next_look(&self, ended: Ended) -> Option<Instant> {
        if let Some(left) = self.rotation.left().filter(|_| self.absent.is_none()) {
            let is_new = left.elapsed() < LATE_LINES_SOON;
            return Some(self.looked + if is_new { LATE_LINES_POLL } else { RESERVED_POLL });
        }
        match ended {
            Ended::Truncated => Some(self.looked + LATE_LINES_POLL),
            Ended::End { is_reserved: true, .. } => Some(self.looked + RESERVED_POLL),
            Ended::End { .. } if fill::has_part(&self.checkpoint, ended) => {
                self.partial_flush.map(|flush| self.looked.max(self.part_since + flush))
            }
            _ => None,
        }
    }
}

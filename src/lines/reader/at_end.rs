//! What a reader does at the end of a file: it waits, continues in the next file, or returns to the file before for late
//! lines.

use std::time::Duration;

use tokio::time::Instant;

use super::{Paused, Reader, Tail, blocking, state::State};
use crate::lines::{
    Error, Event, GapReason,
    content::{
        fill::{self, Ended},
        split::End,
    },
    history::rotation::{Entered, LateFile, Rotation, Successor},
    watch::Follow,
};

/// How often a renamed file is read for late lines: it may be where no event reports them.
const LATE_LINES_POLL: Duration = Duration::from_millis(20);

/// How long it is read that often; then it is read every [`RESERVED_POLL`].
const LATE_LINES_SOON: Duration = Duration::from_secs(2);

/// A renamed file that keeps growing delays its successor by at most this many grace periods.
const MAX_GRACES: u32 = 5;

/// How long a file that was left is checked for late lines; each late line starts this time again.
const LATE_WINDOW: Duration = Duration::from_secs(60);

/// How often reserved space is read: no event reports what is written to it by mmap.
const RESERVED_POLL: Duration = Duration::from_secs(1);

/// What to do next at the end of the file.
pub enum Next {
    /// Read: there may be something new.
    Read,
    /// Send a batch: there is an event to report.
    Report,
    /// Send a heartbeat: it is due.
    Heartbeat,
    /// End the stream.
    End,
}

impl Reader {
    /// Decides what to do at the end of the file, and waits where there is nothing to do.
    pub async fn at_end(&mut self, ended: Ended) -> Result<Next, Error> {
        loop {
            let Some(exists) = self.follow.as_ref().map(Follow::exists) else {
                let is_last = self.rotation.is_current();
                return if is_last {
                    Ok(Next::End)
                } else {
                    Ok(self.move_on(true).await?.unwrap_or(Next::End))
                };
            };
            if self.state.come_back(self.rotation.left()) || self.visit_late_file() {
                return Ok(Next::Read);
            }
            if let Some(left) = self.rotation.left()
                && let Some(next) = self.while_renamed(left, exists).await?
            {
                return Ok(next);
            }
            let now = Instant::now();
            let heartbeat = self.pacing.heartbeat_at();
            if heartbeat <= now {
                return Ok(Next::Heartbeat);
            }
            let next_read = self.next_read(ended);
            if next_read.is_some_and(|next| next <= now) {
                let is_part = self.rotation.left().is_none() && fill::has_part(&self.checkpoint, ended);
                self.flush = is_part.then_some(End::Partial);
                return Ok(Next::Read);
            }
            let late = self.late.as_ref().map(|_| now + RESERVED_POLL);
            let until = [next_read, late].into_iter().flatten().fold(heartbeat, Instant::min);
            let Some(follow) = &mut self.follow else { return Ok(Next::End) };
            tokio::select! {
                changed = follow.changed() => {
                    changed?;
                    return Ok(Next::Read);
                }
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// The file is no longer at its path, since `left`: its writer may not have reopened the log yet. `None` where there
    /// is nothing to do but to wait.
    async fn while_renamed(&mut self, left: Instant, exists: bool) -> Result<Option<Next>, Error> {
        self.state.notice_renamed();
        if matches!(self.state, State::LateLines { .. }) {
            self.return_from_late_lines();
            return Ok(Some(Next::Read));
        }
        let successor = self.rotation.successor();
        let is_foreign = self.limit().is_some();
        let has_file = self.rotation.file().is_some();
        match successor {
            Successor::None if self.state.is_absent() => return Ok(None),
            // The writer has not come to the new file yet: what it writes until then is in this one.
            Successor::Empty if !self.state.is_absent() && !is_foreign => return Ok(None),
            _ => {}
        }
        if self.state.is_drained() || !has_file {
            return self.move_on(exists).await;
        }
        let grace = self.inner.options.rotation_grace;
        let is_quiet = is_foreign || left.max(self.tail.quiet_since) + grace <= Instant::now();
        let is_overdue = successor == Successor::Ready && left.elapsed() > grace * MAX_GRACES;
        if is_overdue && !is_quiet {
            // Its successor must not wait for ever: what is written to this file from now on comes late.
            return self.move_on(exists).await;
        }
        if !is_quiet {
            return Ok(None);
        }
        self.state.ask_for_last_read();
        // A line that has no newline by now never gets one.
        self.flush = Some(End::Last);
        Ok(Some(Next::Read))
    }

    /// Leaves a file that is read to its end for the next one, or reports that there is none. `None` if both were done before.
    async fn move_on(&mut self, exists: bool) -> Result<Option<Next>, Error> {
        let (rotation, inner, was_absent) =
            (self.rotation.clone(), self.inner.clone(), self.state.is_absent());
        let (path, checkpoint) = (self.file_path.clone(), self.checkpoint);
        let next =
            blocking(move || Ok(rotation.advance(&inner.roots, &path, checkpoint, was_absent)?)).await?;
        let Some(Entered { rotation, checkpoint, events }) = next else {
            let is_news = !exists && self.state.report_absent(self.rotation.left());
            if is_news {
                self.events.push(Event::Deleted);
            }
            return Ok(is_news.then_some(Next::Report));
        };
        // A file that is another log's by now has no late lines for this one.
        self.late = if self.limit().is_none() { self.late_file() } else { None };
        self.events.extend(events);
        (self.rotation, self.checkpoint, self.state) = (rotation, checkpoint, State::AtPath);
        (self.size, self.skip_to, self.ended, self.foreign_from) = (0, None, None, None);
        self.tail.forget();
        Ok(Some(Next::Read))
    }

    /// The present file, to be checked for late lines after it is left.
    fn late_file(&self) -> Option<LateFile> {
        Some(LateFile {
            file: self.rotation.file()?.clone(),
            identity: self.rotation.identity(),
            checkpoint: self.checkpoint,
            seen: self.tail.seen.unwrap_or(0).max(self.checkpoint.line.offset),
            until: Instant::now() + LATE_WINDOW,
        })
    }

    /// Returns to the file before, if it has grown since it was left. True if so.
    fn visit_late_file(&mut self) -> bool {
        let Some(late) = &self.late else { return false };
        let is_over = late.until <= Instant::now();
        let has_part = late.seen > late.checkpoint.line.offset;
        let is_wanted = late.has_grown() || is_over && has_part;
        if !is_wanted {
            self.late.take_if(|_| is_over);
            return false;
        }
        if self.inner.is_foreign(&self.file_path, &late.file) {
            // It is unknown which of the new lines were written before the file became another log's.
            self.late = None;
            self.events.push(Event::Gap { reason: GapReason::Deleted, bytes: None });
            return false;
        }
        let visit = Rotation::visit(late);
        self.events.push(Event::Late { offset: late.checkpoint.line.offset });
        let paused = Paused {
            rotation: std::mem::replace(&mut self.rotation, visit),
            checkpoint: std::mem::replace(&mut self.checkpoint, late.checkpoint),
            state: std::mem::replace(&mut self.state, State::AtPath),
            tail: std::mem::replace(&mut self.tail, Tail::of_late_file(late.seen)),
        };
        self.state = State::LateLines { paused: Box::new(paused) };
        self.size = 0;
        // A line that has no newline by now never gets one.
        self.flush = is_over.then_some(End::Last);
        self.late = None;
        true
    }

    /// The late lines are read: the newer file is read on.
    fn return_from_late_lines(&mut self) {
        let (late, is_foreign) = (self.late_file(), self.foreign_from.is_some());
        if let State::LateLines { paused } = std::mem::replace(&mut self.state, State::AtPath) {
            let Paused { mut rotation, checkpoint, state, tail } = *paused;
            if let Some(late) = &late {
                rotation.record_visit(late);
            }
            self.events.push(Event::Rotated { next_offset: checkpoint.line.offset });
            (self.rotation, self.checkpoint, self.state, self.tail) = (rotation, checkpoint, state, tail);
            (self.size, self.ended, self.foreign_from) = (0, None, None);
            self.late = late.filter(|_| !is_foreign);
        }
    }

    /// When the file has to be read though no event reports a change.
    fn next_read(&self, ended: Ended) -> Option<Instant> {
        let is_waiting = !self.state.is_absent() || self.rotation.successor() != Successor::None;
        if let Some(left) = self.rotation.left().filter(|_| is_waiting) {
            let is_new = left.elapsed() < LATE_LINES_SOON;
            return Some(self.tail.read_at + if is_new { LATE_LINES_POLL } else { RESERVED_POLL });
        }
        match ended {
            Ended::Truncated => Some(self.tail.read_at + LATE_LINES_POLL),
            // The file may be where no event reports a change.
            _ if self.state.is_absent() && self.rotation.file().is_some() => {
                Some(self.tail.read_at + RESERVED_POLL)
            }
            Ended::End { is_reserved: true, .. } => Some(self.tail.read_at + RESERVED_POLL),
            Ended::End { .. } if fill::has_part(&self.checkpoint, ended) => {
                self.partial_flush.map(|flush| self.tail.read_at.max(self.tail.end_since + flush))
            }
            _ => None,
        }
    }
}

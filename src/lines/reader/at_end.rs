//! The end of a file: a reader waits there, continues in the next file, or returns to a file that it left for late
//! lines.

use std::{io, sync::atomic::AtomicBool, time::Duration};

use tokio::time::Instant;

use super::{
    Paused, Phase, Reader, Tail, blocking,
    late::{Before, LateFile},
    state::State,
    tail::{RESERVED_POLL, SHORT_POLL},
};
use crate::lines::{
    Error, Event, GapReason,
    content::{fill::Ended, rules::Rules, split::End},
    history::rotation::{Advanced, Entered, Rotation, Successor},
    seek::locate,
    watch::Follow,
};

/// How often a renamed file is read for late lines: it may be where no event reports them.
const LATE_LINES_POLL: Duration = Duration::from_millis(20);

/// How long it is read that often; then it is read every [`RESERVED_POLL`].
const LATE_LINES_SOON: Duration = Duration::from_secs(2);

/// A renamed file that keeps growing delays its successor by at most this many grace periods.
const MAX_GRACES: u32 = 5;

/// The next step at the end of the file.
pub enum Next {
    /// Read: there may be something new. Deliver the part of a line at the end of the file, if that is asked for.
    Read { flush: Option<End> },
    /// Send a batch: there is an event to report.
    Report,
    /// Send a heartbeat: it is due.
    Heartbeat,
    /// End the stream.
    End,
}

impl Next {
    /// Read, and leave a part of a line at the end.
    const READ: Self = Self::Read { flush: None };
}

/// Counts the lines of a file that was entered after its start, if the number of a line is to end the stream.
fn count_lines(entered: &mut Entered, rules: &Rules, gone: &AtomicBool) -> io::Result<()> {
    let line = &mut entered.checkpoint.line;
    if rules.until_line.is_some()
        && line.number.is_none()
        && let Some(file) = entered.rotation.file()
    {
        line.number = Some(locate::number(file, line.offset, &rules.delimiter, gone)?);
    }
    Ok(())
}

impl Reader {
    /// Decides on the next step at the end of the file, and waits until there is one.
    pub async fn at_end(&mut self) -> Result<Next, Error> {
        if matches!(self.phase, Phase::AtEnd(Ended::Until)) {
            return Ok(Next::End);
        }
        if let Some(next) = self.at_end_of_archive().await {
            return Ok(next);
        }
        loop {
            let Some(exists) = self.follow.as_ref().map(Follow::exists) else {
                let is_last = self.rotation.is_current();
                return if is_last {
                    Ok(Next::End)
                } else {
                    Ok(self.move_on(true).await?.unwrap_or(Next::End))
                };
            };
            if self.state.come_back(self.rotation.left()) {
                return Ok(Next::READ);
            }
            let now = Instant::now();
            let heartbeat = self.pacing.heartbeat_at();
            if let Some(next) = self.visit_late_file(now, heartbeat <= now) {
                return Ok(next);
            }
            if let Some(left) = self.rotation.left()
                && let Some(next) = self.while_renamed(left, exists).await?
            {
                return Ok(next);
            }
            if heartbeat <= now {
                return Ok(Next::Heartbeat);
            }
            let next_read = self.next_read();
            if next_read.is_some_and(|next| next <= now) {
                let is_part = self.rotation.left().is_none() && self.has_part();
                return Ok(Next::Read { flush: is_part.then_some(End::Partial) });
            }
            let next_check = self.late.next_check().filter(|_| self.may_visit_late_files());
            let earlier = [next_read, next_check].into_iter().flatten().min();
            let earlier = async {
                match earlier {
                    Some(earlier) => tokio::time::sleep_until(earlier).await,
                    None => std::future::pending().await,
                }
            };
            let Some(follow) = &mut self.follow else { return Ok(Next::End) };
            tokio::select! {
                // In order: choosing at random costs more than looking.
                biased;
                changed = follow.changed() => {
                    changed?;
                    return Ok(Next::READ);
                }
                () = self.alarm.at(heartbeat) => {}
                () = earlier => {}
            }
        }
    }

    /// Whether a part of a line waits at the end of the file to be flushed.
    fn has_part(&self) -> bool {
        matches!(self.phase, Phase::AtEnd(ended) if self.tail.has_part(&self.checkpoint, ended))
    }

    /// The file is no longer at its path, since `left`: its writer may not have reopened the log yet. `None` where there
    /// is nothing to do but to wait.
    async fn while_renamed(&mut self, left: Instant, exists: bool) -> Result<Option<Next>, Error> {
        self.state.notice_renamed();
        if let Some(next) = self.return_from_late_lines() {
            return Ok(Some(next));
        }
        let successor = self.rotation.successor();
        let is_foreign = self.limit().is_some();
        let has_file = self.rotation.file().is_some();
        match successor {
            Successor::None if self.state.is_absent() => return Ok(None),
            // The writer has not opened the new file yet, and still writes to this one.
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
            // The successor must not wait for ever. Lines that are written to this file from now on come late.
            return self.move_on(exists).await;
        }
        // A read that cannot find the end now is not the last one.
        let is_unsettled = matches!(self.phase, Phase::Short { .. } | Phase::AtEnd(Ended::Unsettled { .. }));
        if !is_quiet || is_unsettled {
            return Ok(None);
        }
        self.state.ask_for_last_read();
        // A line that has no newline by now never gets one, unless its file is at the path again.
        let flush = Some(self.end_of_file()).filter(|_| !self.rotation.comes_again());
        Ok(Some(Next::Read { flush }))
    }

    /// Leaves a file that is read to its end for the next one, or reports that there is no next one. `None` if that was
    /// reported before.
    async fn move_on(&mut self, exists: bool) -> Result<Option<Next>, Error> {
        let (rotation, inner, was_absent) =
            (self.rotation.clone(), self.inner.clone(), self.state.is_absent());
        let (path, checkpoint) = (self.file_path.clone(), self.checkpoint);
        let (rules, gone, openers) = (self.rules.clone(), self.gone.0.clone(), self.openers.clone());
        let advance = move || {
            let place = (&*inner.roots, &path);
            let mut next = rotation.advance_with(openers.as_ref(), place, checkpoint, was_absent)?;
            if let Advanced::Entered(entered) = &mut next {
                count_lines(entered, &rules, &gone)?;
            }
            Ok(next)
        };
        let next = blocking(&self.inner.options.pool, advance).await?;
        let mut entered = match next {
            Advanced::Entered(entered) => *entered,
            Advanced::Nothing(gaps) => {
                let has_gaps = self.report_gaps(gaps);
                let is_news = !exists && self.state.report_absent(self.rotation.left());
                if is_news {
                    self.events.push(Event::Deleted);
                }
                return Ok((is_news || has_gaps).then_some(Next::Report));
            }
            Advanced::Unsettled => return Ok(self.ask_again().await),
        };
        self.join_line(&mut entered);
        let Entered { rotation, checkpoint, events } = entered;
        // A cursor in the next file does not remember them all.
        let now = Instant::now();
        // A file that is written to without end must not keep the reader from the next one: its lines come late.
        if self.state.may_wait_for_late_lines(self.inner.options.rotation_grace * MAX_GRACES)
            && let Some(late) = self.late.take_before(&rotation.identity(), now)
        {
            return Ok(Some(self.visit(late, now)));
        }
        // A file that is another log's by now has no late lines for this one.
        let before = Before::now(rotation.is_linked());
        if let Some(late) = self.late_file(before).filter(|_| self.limit().is_none()) {
            self.late.push(late);
        }
        if self.follow.is_some() {
            self.report_reserved();
        }
        self.late.forget(&rotation.identity());
        self.report_gaps(Vec::new());
        self.events.extend(events.into_iter().filter(|event| !self.reported.contains(event)));
        self.reported.clear();
        (self.rotation, self.checkpoint, self.state) = (rotation, checkpoint, State::AtPath);
        (self.size, self.written, self.skip_to, self.phase) = (0, None, None, Phase::read());
        self.tail.forget();
        Ok(Some(Next::READ))
    }

    /// The next step where the next file cannot be found yet. `None` for a reader that follows, which waits anyway.
    async fn ask_again(&self) -> Option<Next> {
        if self.follow.is_some() {
            return None;
        }
        let (now, heartbeat) = (Instant::now(), self.pacing.heartbeat_at());
        if heartbeat <= now {
            return Some(Next::Heartbeat);
        }
        tokio::time::sleep_until(heartbeat.min(now + LATE_LINES_POLL)).await;
        Some(Next::READ)
    }

    /// The present file, to be checked for late lines after it is left.
    fn late_file(&self, before: Before) -> Option<LateFile> {
        if self.rotation.archive().is_some() {
            return None;
        }
        let (file, identity) = (self.rotation.file()?.clone(), self.rotation.identity());
        LateFile::new(file, identity, self.checkpoint, &self.tail, before).ok()
    }

    /// Whether the reader may return to files that it left. They wait while it may leave the present one: the next file
    /// may be one of them, as a link may have been pointed back to it.
    fn may_visit_late_files(&self) -> bool {
        let may_leave = self.rotation.left().is_some() && !self.state.is_absent();
        !self.state.is_late() && !may_leave
    }

    /// Returns to a file that was left, if it was written to since. `checks_all`: a heartbeat is due.
    fn visit_late_file(&mut self, now: Instant, checks_all: bool) -> Option<Next> {
        if !self.may_visit_late_files() {
            return None;
        }
        let late = self.late.take_wanted(now, checks_all)?;
        Some(self.visit(late, now))
    }

    /// Goes to a file that was left, for its late lines.
    fn visit(&mut self, late: LateFile, now: Instant) -> Next {
        if self.inner.is_foreign(&self.file_path, &late.file) {
            // It is unknown which of the new lines were written before the file became another log's.
            self.events.push(Event::Gap { reason: GapReason::Deleted, bytes: None });
            return Next::Report;
        }
        // A line that has no newline by now never gets one.
        let flush = late.is_over(now).then_some(End::Last);
        self.events.push(Event::Late { offset: late.checkpoint.line.offset });
        let before = self.late.before(&late);
        let visit = Rotation::visit(late.file, late.identity);
        let paused = Paused {
            before,
            rotation: std::mem::replace(&mut self.rotation, visit),
            checkpoint: std::mem::replace(&mut self.checkpoint, late.checkpoint),
            state: std::mem::replace(&mut self.state, State::AtPath),
            tail: std::mem::replace(&mut self.tail, Tail::of_late_file(late.seen)),
        };
        self.state = State::visit_late_lines(paused);
        (self.size, self.written) = (0, None);
        Next::Read { flush }
    }

    /// Ends the reading of late lines, and continues in the newer file. `None` in another state.
    fn return_from_late_lines(&mut self) -> Option<Next> {
        let is_foreign = self.state.foreign_from().is_some();
        let Paused { mut rotation, checkpoint, state, tail, before } = self.state.return_from_late_lines()?;
        rotation.record_visit(self.rotation.identity(), self.checkpoint);
        if let Some(late) = self.late_file(before).filter(|_| !is_foreign) {
            self.late.push(late);
        }
        self.events.push(Event::Rotated { next_offset: checkpoint.line.offset });
        (self.rotation, self.checkpoint, self.state, self.tail) = (rotation, checkpoint, state, tail);
        (self.size, self.written, self.phase) = (0, None, Phase::read());
        Some(Next::READ)
    }

    /// When the file has to be read though no event reports a change.
    pub(super) fn next_read(&self) -> Option<Instant> {
        let read_at = self.tail.read_at;
        let is_waiting = !self.state.is_absent() || self.rotation.successor() != Successor::None;
        if let Some(left) = self.rotation.left().filter(|_| is_waiting) {
            let is_new = left.elapsed() < LATE_LINES_SOON;
            return Some(read_at + if is_new { LATE_LINES_POLL } else { RESERVED_POLL });
        }
        match self.phase {
            Phase::Short { .. } => Some(read_at + SHORT_POLL),
            // The file may be where no event reports a change.
            _ if self.state.is_absent() && self.rotation.file().is_some() => Some(read_at + RESERVED_POLL),
            Phase::AtEnd(ended) => {
                let grace = self.inner.options.rotation_grace;
                self.tail.next_read(ended, &self.checkpoint, grace, self.partial_flush)
            }
            Phase::Read { .. } => None,
        }
    }
}

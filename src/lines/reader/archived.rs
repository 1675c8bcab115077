//! A reader of the whole history in a generation that was rotated away, which may be compressed.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Phase, Reader, at_end::Next, blocking};
use crate::lines::{
    Error, Event, GapReason,
    content::{
        fill::{self, Ended, Filled, Request},
        split::{Bounds, End},
    },
    history::{
        archive::Archive,
        rotation::{Entered, Successor},
    },
};

/// How often an archive is read again that ends too early and may grow: each time from its start.
const GROWING_POLL: Duration = Duration::from_millis(500);

/// How often an archive is asked for again that has to wait for others.
const ADMISSION_POLL: Duration = Duration::from_millis(20);

impl Reader {
    /// Reads a batch of a compressed file.
    pub(super) async fn read_archive(
        &self,
        archive: Arc<Archive>,
        flush: Option<End>,
    ) -> Result<Filled, Error> {
        if !archive.is_admitted() {
            let until = self.pacing.heartbeat_at().min(Instant::now() + ADMISSION_POLL);
            tokio::time::sleep_until(until).await;
            return Ok(Filled::nothing(self.checkpoint, Ended::More, self.size));
        }
        let request = Request {
            checkpoint: self.checkpoint,
            bounds: Bounds { max_items: self.pacing.max_items(), max_bytes: self.pacing.max_bytes() },
            rules: self.rules.clone(),
            flush,
            flush_at: None,
            end: None,
            settled: u64::MAX,
            checks_holes: false,
        };
        let (gone, content) = (self.gone.0.clone(), archive.clone());
        let read = move || Ok(fill::fill(&*content, &request, &gone)?);
        let filled = blocking(&self.inner.options.pool, read).await?;
        // The size is not known before the end.
        let size = archive.bytes().max(filled.checkpoint.line.offset);
        Ok(Filled { size, ..filled })
    }

    /// Why a part of a line at the end of the file is delivered to a reader that does not follow.
    pub(super) fn flush_without_follow(&self) -> Option<End> {
        // What comes after the last byte of a compressed file is not known before that is read.
        let is_known =
            self.rotation.archive().is_none_or(|archive| archive.is_ended() && !archive.may_grow());
        (self.follow.is_none() && is_known).then(|| self.end_of_file())
    }

    /// What the end of the file is for a line without a line end.
    pub(super) fn end_of_file(&self) -> End {
        if self.rotation.archive().is_some_and(|archive| archive.fault().is_some()) {
            return End::Cut;
        }
        let goes_on = !self.rotation.is_current() && self.rotation.successor() != Successor::None;
        if self.openers.is_some() && goes_on { End::Generation } else { End::Last }
    }

    /// The next step at the end of a compressed file, before it is left; `None` in another file, and where that can be left.
    pub(super) async fn at_end_of_archive(&mut self) -> Option<Next> {
        let archive = self.rotation.archive()?.clone();
        if archive.may_grow() {
            let (now, heartbeat) = (Instant::now(), self.pacing.heartbeat_at());
            if heartbeat <= now {
                return Some(Next::Heartbeat);
            }
            tokio::time::sleep_until(heartbeat.min(now + GROWING_POLL)).await;
            archive.retry();
            return Some(Next::Read { flush: None });
        }
        // Its last part is delivered before anything else.
        let has_part = matches!(self.phase, Phase::AtEnd(ended) if fill::has_part(&self.checkpoint, ended));
        has_part.then(|| Next::Read { flush: Some(self.end_of_file()) })
    }

    /// Reports that this file cannot be read to its end, and these gaps after it, each once. True if one is new.
    pub(super) fn report_gaps(&mut self, gaps: Vec<Event>) -> bool {
        let all = self.gap_of_archive().into_iter().chain(gaps);
        let new = all.filter(|gap| !self.reported.contains(gap)).collect::<Vec<_>>();
        self.events.extend(new.iter().cloned());
        let is_any = !new.is_empty();
        self.reported.extend(new);
        is_any
    }

    /// The gap after a compressed file that cannot be read to its end.
    fn gap_of_archive(&self) -> Option<Event> {
        let archive = self.rotation.archive()?;
        let (name, fault, unconfirmed) = (archive.name.clone(), archive.fault()?, archive.unconfirmed());
        Some(Event::Gap { reason: GapReason::Unreadable { name, fault, unconfirmed }, bytes: None })
    }

    /// The line at the end of the file before goes on in the next one, unless lines are missing between them.
    pub(super) fn join_line(&self, entered: &mut Entered) {
        let line = &mut entered.checkpoint.line;
        let is_whole = !entered.events.iter().any(|event| matches!(event, Event::Gap { .. }));
        if self.openers.is_some() && line.offset == 0 && is_whole && self.end_of_file() == End::Generation {
            line.within = self.checkpoint.line.within;
        }
    }
}

//! The one thread that writes: group commit.
//!
//! It takes all requests that wait, gives each message its sequence, and writes them as blocks with one write and one
//! fdatasync. Then readers see the messages, and the publishers are answered. Further requests gather during the sync, so
//! the more publishers there are, the more messages share a sync.
//!
//! A write that finds the disk full is taken back, and the log continues when there is room. After any other failure the log
//! accepts nothing more: after a failed sync the page cache may show bytes that the disk does not have. A restart writes the
//! tail again.

use std::{
    io,
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    commit::{Commit, CommitBuilder},
    queue::{Order, Outcome},
};
#[cfg(test)]
use crate::messages::embedded::Turns;
use crate::messages::{
    Error, NeededRoom,
    clock::Reading,
    embedded::{
        Shared,
        disk::is_full,
        format::{
            block::{self, Block, place_of},
            clock_history::ClockHistory,
        },
        index::{dedupe::Dedupe, segment::Segment},
        maintenance::{
            Maintenance,
            room::{NotMade, Purpose},
        },
        recovery::tail::Tail,
    },
    incarnation::Incarnation,
};

/// The size at which a commit takes no further request: more would only delay the answers.
const COMMIT_BYTES: usize = 4 * 1024 * 1024;

/// The number of messages at which a segment is followed by the next: its index is in memory.
pub const SEGMENT_MESSAGES: u64 = 500_000;

/// Writes the log. Runs until all senders are gone, and commits the requests that they left.
#[derive(Debug)]
pub struct Committer {
    pub shared: Arc<Shared>,
    /// Prepares segments, and takes full ones.
    pub maintenance: Maintenance,
    /// The segment being written; `None` if there was no room for one.
    pub segment: Option<Arc<Segment>>,
    /// The offset of its next block.
    pub offset: u64,
    /// A torn tail at that offset, which must be set aside first.
    pub tail: Option<Tail>,
    /// The next commit begins a segment.
    pub rolls_next: bool,
    /// The bytes before this offset are on disk for certain, and a mark or a later commit says so.
    pub settled_up_to: u64,
    pub next_sequence: u64,
    pub dedupe: Dedupe,
    /// The incarnation of this run has begun: its first message is on disk.
    pub has_begun: bool,
    /// The steps of the wall clock are on disk, in both copies of the manifest.
    pub is_clock_stored: bool,
    /// The bytes of a commit; kept for its capacity.
    pub buffer: Vec<u8>,
}

impl Committer {
    /// Runs on a thread of its own.
    pub fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        #[cfg(test)]
        let turns = self.shared.config.turns.clone();
        while let Some(order) = orders.blocking_recv() {
            #[cfg(test)]
            let _turn = turns.as_ref().map(Turns::take);
            let mut commit = self.begin();
            let mut next = Some(order);
            let (mut rolls, mut probes) = (false, false);
            let mut marks = Vec::new();
            #[cfg(test)]
            let mut settled = Vec::new();
            while let Some(order) = next {
                match order {
                    Order::Publish(request) => self.take(&mut commit, request),
                    Order::Roll => rolls = true,
                    Order::Mark(reply) => marks.push(reply),
                    Order::Probe => probes = true,
                    // It was done when the commit began.
                    Order::LookAtClock => {}
                    #[cfg(test)]
                    Order::Settle(reply) => settled.push(reply),
                    #[cfg(test)]
                    Order::Hold(until) => _ = until.recv(),
                }
                next = if commit.builder.bytes() < COMMIT_BYTES { orders.try_recv().ok() } else { None };
            }
            self.finish(commit);
            self.do_chores(rolls, probes, marks);
            #[cfg(test)]
            for reply in settled {
                let _ = reply.send(());
            }
        }
        #[cfg(test)]
        let _turn = turns.as_ref().map(Turns::take);
        self.end();
    }

    /// Does what the maintenance thread asked for.
    fn do_chores(&mut self, rolls: bool, probes: bool, marks: Vec<oneshot::Sender<u64>>) {
        if self.shared.has_failed() {
            for reply in marks {
                let _ = reply.send(self.settled_up_to);
            }
            return;
        }
        let has_messages = |segment: &Arc<Segment>| segment.summary().messages > 0;
        if rolls && self.tail.is_none() && self.segment.as_ref().is_some_and(has_messages) {
            // If this fails, the next run of retention asks for it again.
            let _ = self.roll(Purpose::Free);
        }
        if probes {
            self.probe();
        }
        if !marks.is_empty() {
            self.mark();
        }
        for reply in marks {
            let _ = reply.send(self.settled_up_to);
        }
    }

    /// Marks the end of the last commit, so that bytes before it are not taken for torn whatever happens to them.
    fn mark(&mut self) {
        let Some(segment) = self.segment.as_ref().filter(|_| self.tail.is_none()) else { return };
        if self.settled_up_to == self.offset {
            return;
        }
        let mark = block::mark(self.next_sequence, self.shared.identity.salt);
        match segment.file.write_all_at(&mark, self.offset).and_then(|()| segment.file.sync()) {
            Ok(()) => {
                self.offset += mark.len() as u64;
                self.settled_up_to = self.offset;
                segment.extend(self.offset);
            }
            Err(error) if is_full(&error) => {
                let taken_back = segment.file.set_len(self.offset).and_then(|()| segment.file.sync());
                let _ = taken_back.map_err(|error| self.shared.fail(&error));
            }
            Err(error) => _ = self.shared.fail(&error),
        }
    }

    /// Looks whether there is room for what was refused last.
    fn probe(&mut self) {
        let lack = *self.shared.lack.borrow();
        let Some(lack) = lack else { return };
        let room = self.make_ready(lack.bytes).and_then(|segment| {
            let end = self.offset + lack.bytes;
            segment.file.allocate(self.offset..end).map_err(|error| self.refuse(&error, lack))
        });
        if room.is_ok() {
            self.shared.has_room();
        }
    }

    /// The segment to write to, with nothing in the way of a commit of this many bytes.
    fn make_ready(&mut self, bytes: u64) -> Result<Arc<Segment>, Error> {
        if let (Some(tail), Some(segment)) = (self.tail, &self.segment) {
            // A purge erases in the tail or in its copy.
            let mut pending = self.shared.pending_tail();
            let Shared { config, identity, .. } = &*self.shared;
            let (disk, file) = (&config.disk, &segment.file);
            let aside = tail.set_aside(disk, &segment.path, file, self.next_sequence, identity.salt);
            match aside.and_then(|aside| file.sync().map(|()| aside)) {
                Ok(path) => {
                    *pending = None;
                    tracing::warn!(path = %path.display(), "an incomplete write at the end of the log was set aside");
                    self.tail = None;
                    self.rolls_next = true;
                    self.offset = tail.start + block::MARK_BYTES as u64;
                    self.settled_up_to = self.offset;
                    segment.extend(self.offset);
                }
                Err(error) if is_full(&error) => {
                    let needed = self.shared.needed_room(bytes + (tail.end - tail.start));
                    return Err(self.refuse(&error, needed));
                }
                Err(error) => return Err(self.shared.fail(&error)),
            }
        }
        let is_full = self.segment.as_ref().is_none_or(|segment| {
            let is_long = self.offset >= self.shared.segment_bytes();
            let is_full = is_long || segment.summary().messages >= SEGMENT_MESSAGES || self.rolls_next;
            // The next one would have the same name.
            is_full && segment.first_sequence < self.next_sequence
        });
        if is_full {
            self.roll(Purpose::Publish(bytes))?;
        }
        self.segment.clone().ok_or(Error::Failed)
    }

    /// Refuses messages for want of room.
    fn refuse(&self, error: &io::Error, needed: NeededRoom) -> Error {
        self.shared.lack.send_if_modified(|lack| {
            let is_news = lack.is_none();
            if is_news {
                tracing::warn!(%error, %needed, "the disk is full: publishing is refused, reading goes on");
                self.maintenance.watch_room();
            }
            let has_changed = *lack != Some(needed);
            *lack = Some(needed);
            has_changed
        });
        Error::Full(needed)
    }

    /// Begins a commit. If the wall clock was set, that is on disk first: otherwise the messages of the commit would be
    /// taken for older or newer ones.
    fn begin(&mut self) -> Commit {
        let reading = self.shared.timeline.read();
        let refused = self.record_clock(&reading).err();
        let builder = CommitBuilder::new(reading.wall, self.next_sequence);
        let timeline = &self.shared.timeline;
        let (moment, moment_of_ids) = (timeline.moment(), timeline.moment_of_ids());
        Commit { builder, moment, moment_of_ids, refused, answers: Vec::new() }
    }

    /// Records a suspension and a step of the wall clock, if there is one, or one that could not be written to the disk before. A clock that
    /// was set and set back meanwhile has made no step, but one copy of the manifest may have it.
    fn record_clock(&mut self, reading: &Reading) -> Result<(), Error> {
        let timeline = &self.shared.timeline;
        let (step, has_slept) = (timeline.unrecorded(reading), timeline.has_slept(reading));
        if step.is_none() && !has_slept && self.is_clock_stored {
            return Ok(());
        }
        self.shared.check_directory()?;
        self.is_clock_stored = false;
        let store = |history: &ClockHistory| self.shared.store_clock(history);
        if has_slept {
            let recorded = timeline.record_suspension(reading, self.next_sequence, store);
            recorded.map_err(|error| self.refuse_after(&error))?;
        }
        let recorded = if let Some(step) = step {
            let oldest = self.shared.state().segments.first().map_or(0, |segment| segment.first_sequence);
            timeline.record(&step, self.next_sequence, oldest, store)
        } else {
            store(&timeline.history())
        };
        recorded.map_err(|error| self.refuse_after(&error))?;
        self.is_clock_stored = true;
        Ok(())
    }

    /// Why nothing is published when the log cannot write something that must come first.
    fn refuse_after(&self, error: &io::Error) -> Error {
        if is_full(error) { self.refuse(error, self.shared.needed_room(0)) } else { self.shared.fail(error) }
    }

    /// Writes a commit and answers its requests.
    fn finish(&mut self, commit: Commit) {
        let Commit { builder, moment_of_ids, refused, answers, .. } = commit;
        let next_sequence = builder.next_sequence;
        let blocks = builder.finish();
        let result = match refused {
            _ if self.shared.has_failed() => Err(Error::Failed),
            Some(error) => Err(error),
            None => self.write(&blocks),
        };
        if let Ok(places) = &result
            && !blocks.is_empty()
        {
            self.next_sequence = next_sequence;
            for block in &blocks {
                self.dedupe.add(block, &moment_of_ids);
            }
            self.show(blocks, places);
        }
        self.dedupe.sweep(&moment_of_ids);
        self.shared.message_ids.store(self.dedupe.count(), Ordering::Relaxed);
        for (reply, outcome, room) in answers {
            let outcome = match (&result, outcome) {
                (Err(error), Outcome::Each(each)) => {
                    // A message that was refused for a reason of its own keeps that reason.
                    Outcome::Each(each.into_iter().map(|one| one.and(Err(error.repeat()))).collect())
                }
                (_, outcome) => outcome,
            };
            // The publisher may be gone; its messages stay published.
            let _ = reply.send(outcome);
            drop(room);
        }
    }

    /// Writes blocks, and waits until they are on disk. Returns the place of each block and of its body in the buffer.
    fn write(&mut self, blocks: &[Block]) -> Result<Vec<(u64, Range<usize>)>, Error> {
        if blocks.is_empty() {
            return Ok(Vec::new());
        }
        self.shared.check_directory()?;
        let store = |history: &ClockHistory| self.shared.store_clock(history);
        self.shared.timeline.record_boot(self.next_sequence, store);
        self.buffer.clear();
        let begun = if self.has_begun { None } else { blocks.first() };
        let begun = begun.map(|block| Incarnation::begin(block.first_sequence));
        if let Some(incarnation) = begun {
            block::put_incarnation(&mut self.buffer, incarnation, self.shared.identity.salt);
        }
        let mut places = Vec::with_capacity(blocks.len());
        for block in blocks {
            let start = self.buffer.len();
            let back = place_of(start);
            places.push((start as u64, block.put(&mut self.buffer, back, self.shared.identity.salt)));
        }
        let segment = self.make_ready(self.buffer.len() as u64)?;
        self.shared.check_file(&segment)?;
        match segment.file.write_all_at(&self.buffer, self.offset) {
            Ok(()) => {
                self.shared.sync(&segment).map_err(|error| self.shared.fail(&error))?;
                if let Some(incarnation) = begun {
                    self.has_begun = true;
                    self.shared.manifest.begin(incarnation);
                }
                self.settled_up_to = self.offset;
                self.shared.has_room();
                Ok(places)
            }
            Err(error) if is_full(&error) => {
                // Take the partial write back, and sync that: its publishers learn that nothing was published, so it
                // must not reappear, not even after a power cut.
                let taken_back = segment.file.set_len(self.offset).and_then(|()| segment.file.sync());
                taken_back.map_err(|error| self.shared.fail(&error))?;
                Err(self.refuse(&error, self.shared.needed_room(self.buffer.len() as u64)))
            }
            Err(error) => Err(self.shared.fail(&error)),
        }
    }

    /// Makes messages that are on disk visible to readers.
    fn show(&mut self, blocks: Vec<Block>, places: &[(u64, Range<usize>)]) {
        let Some(segment) = &self.segment else { return };
        let mut state = self.shared.state_mut();
        for (block, (start, body)) in blocks.into_iter().zip(places) {
            let at = |place: usize| self.offset + place as u64;
            segment.add(&block, self.offset + start, at(body.start), at(body.end));
            state.topics.add(&block);
            state.recent.push(block);
        }
        // While the state is locked, so that a reader that compares the two finds them of one commit.
        self.shared.head.send_replace(self.next_sequence - 1);
        drop(state);
        self.offset += self.buffer.len() as u64;
        if self.offset >= self.shared.segment_bytes() / 2 {
            self.maintenance.prepare();
        }
    }

    /// Begins the next segment, and writes there from then on.
    fn roll(&mut self, purpose: Purpose) -> Result<(), Error> {
        let next = self.maintenance.next_segment(self.next_sequence, purpose);
        let next = next.map_err(|NotMade { error, is_named }| match purpose {
            _ if is_named => self.shared.fail(&error),
            Purpose::Publish(bytes) if is_full(&error) => {
                self.refuse(&error, self.shared.needed_for_segment(bytes))
            }
            Purpose::Publish(_) => self.shared.fail(&error),
            Purpose::Free => {
                tracing::warn!(%error, "the next segment cannot be created now");
                error.into()
            }
        })?;
        let next = Arc::new(next);
        self.rolls_next = false;
        let full = self.segment.replace(next.clone());
        self.offset = next.blocks_end();
        self.settled_up_to = self.offset;
        self.shared.state_mut().segments.push(next);
        if let Some(full) = full {
            self.maintenance.seal(full);
        }
        Ok(())
    }

    /// Marks a clean end, so that later damage is not taken for a torn write, and gives the unused room back.
    fn end(&mut self) {
        if let Some(segment) =
            self.segment.as_ref().filter(|_| self.tail.is_none() && !self.shared.has_failed())
        {
            let mark = block::mark(self.next_sequence, self.shared.identity.salt);
            let file = &segment.file;
            let end = self.offset + mark.len() as u64;
            let marked = file.write_all_at(&mark, self.offset).and_then(|()| file.set_len(end));
            let closed = || self.shared.manifest.close(self.next_sequence);
            if let Err(error) = marked.and_then(|()| file.sync()).and_then(|()| closed()) {
                tracing::warn!(%error, "the log could not be marked as closed: the next start checks its tail");
            }
        }
        self.maintenance.stop();
    }
}

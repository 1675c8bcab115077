//! The one thread that writes: group commit.
//!
//! It takes all requests that wait, gives each message its sequence, and writes them as blocks with one write and one
//! fdatasync; then readers see them and publishers are answered. While it syncs, further requests gather, so the
//! more publishers there are, the more a sync is worth. A write that finds no room is taken back, and the log goes on
//! when there is room. After any other failure the log takes nothing more: what the page cache shows after a failed
//! sync proves nothing, so only a restart, which writes the tail anew, goes on.

use std::{ops::Range, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::{
    Shared,
    block::{self, Block},
    dedupe::Dedupe,
    draft::Draft,
    keeper::{self, Keeper, NotMade},
    millis, nanos, read,
    segment::Segment,
    time_of,
};
use crate::messages::{Error, NewMessage, Published};

/// A commit takes no further request when it has so many bytes: more would only delay the answers.
const COMMIT_BYTES: usize = 4 * 1024 * 1024;

/// A segment that holds so many messages is followed by the next: the index of one is in memory.
pub const SEGMENT_MESSAGES: u64 = 500_000;

/// Messages to publish, checked.
#[derive(Debug)]
pub struct Request {
    /// In order.
    pub messages: Vec<NewMessage>,
    /// How the messages stand by each other.
    pub mode: Mode,
    /// Where the outcome goes.
    pub reply: oneshot::Sender<Outcome>,
    /// The room that the request takes in the queue; free again when it is answered.
    pub room: OwnedSemaphorePermit,
}

/// How the messages of a request stand by each other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// Each is published on its own.
    Each,
    /// All or none.
    All,
    /// All or none, and of the server's own making: what was promised to somebody is not refused for want of a topic.
    Own,
}

/// What became of a request.
#[derive(Debug)]
pub enum Outcome {
    /// Each message's own.
    Each(Vec<Result<Published, Error>>),
    /// An atomic request was not published, because of this one of its messages.
    None(usize, Error),
}

/// Something for the committer to do.
#[derive(Debug)]
pub enum Order {
    /// Publish.
    Publish(Request),
    /// Begin a segment, so that what was written so far can be rewritten.
    Roll,
}

/// Writes the log. It runs until all senders are gone, and commits what they left.
#[derive(Debug)]
pub struct Committer {
    /// What readers see.
    pub shared: Arc<Shared>,
    /// Who makes segments ready, and takes those that are full.
    pub keeper: Keeper,
    /// The segment being written.
    pub segment: Arc<Segment>,
    /// Where its next block goes.
    pub offset: u64,
    /// Of the next message.
    pub next_sequence: u64,
    /// Of the newest message.
    pub last_time: u64,
    /// Ids published lately.
    pub dedupe: Dedupe,
    /// What a commit is written from: kept for its capacity.
    pub buffer: Vec<u8>,
}

/// Requests and what became of them, not yet on disk.
struct Commit {
    draft: Draft,
    answers: Vec<(oneshot::Sender<Outcome>, Outcome, OwnedSemaphorePermit)>,
}

impl Committer {
    /// Runs on a thread of its own.
    pub fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        while let Some(order) = orders.blocking_recv() {
            let mut commit = self.begin();
            let mut next = Some(order);
            let mut rolls = false;
            while let Some(order) = next {
                match order {
                    Order::Publish(request) => self.take(&mut commit, request),
                    Order::Roll => rolls = true,
                }
                next = if commit.draft.bytes() < COMMIT_BYTES { orders.try_recv().ok() } else { None };
            }
            self.finish(commit);
            if rolls && self.segment.summary().messages > 0 && !self.shared.has_failed() {
                // What cannot be done now is tried again when retention is enforced.
                let _ = self.roll(false);
            }
        }
        self.end();
    }

    fn begin(&self) -> Commit {
        // A wall clock that was set back does not take the log with it.
        let time = nanos(self.shared.now()).max(self.last_time);
        Commit { draft: Draft::new(time, self.next_sequence), answers: Vec::new() }
    }

    fn take(&self, commit: &mut Commit, request: Request) {
        let Request { messages, mode, reply, room } = request;
        let mut results = Vec::with_capacity(messages.len());
        let mark = commit.draft.mark();
        for (index, message) in messages.iter().enumerate() {
            match self.place(&mut commit.draft, message, mode) {
                Err(error) if mode != Mode::Each => {
                    commit.draft.roll_back(mark);
                    commit.answers.push((reply, Outcome::None(index, error), room));
                    return;
                }
                result => results.push(result),
            }
            if mode == Mode::Each {
                commit.draft.close_if_full();
            }
        }
        commit.draft.close_if_full();
        commit.answers.push((reply, Outcome::Each(results), room));
    }

    /// Gives a message its place in the commit, or finds that it has one.
    fn place(&self, draft: &mut Draft, new: &NewMessage, mode: Mode) -> Result<Published, Error> {
        let (known, purged, topic_count) = {
            let state = self.shared.state();
            let known = state.topics.key_value(&new.topic).map(|(name, _)| name.clone());
            let purged = if new.message_id.is_some() { state.topics.purged(&new.topic) } else { 0 };
            (known, purged, state.topics.count())
        };
        let id = new.message_id.as_deref().map(|id| self.dedupe.key(&new.topic, id));
        if let Some(key) = id {
            let in_draft = draft.find(key).map(|sequence| (sequence, draft.time));
            let earlier = in_draft.or_else(|| {
                self.dedupe.find(key, &new.topic, draft.time).filter(|(sequence, _)| *sequence > purged)
            });
            if let Some((sequence, time)) = earlier {
                return Ok(Published { sequence, time: time_of(time), duplicate: true });
            }
        }
        let in_draft = draft.last(&new.topic);
        if let Some(expected) = new.expected_sequence {
            let current = match in_draft {
                Some(last) => last,
                None => self.current(&new.topic, draft.time)?,
            };
            if expected != current {
                return Err(Error::SequenceMismatch { expected, current });
            }
        }
        let is_new = known.is_none() && in_draft.is_none();
        let limit = self.shared.options.max_topics;
        if is_new && mode != Mode::Own && topic_count + draft.new_topics() >= limit {
            return Err(Error::TooManyTopics { limit });
        }
        let name = known.unwrap_or_else(|| new.topic.as_str().into());
        let sequence = draft.push(name, new, id, is_new);
        Ok(Published { sequence, time: time_of(draft.time), duplicate: false })
    }

    /// The sequence of a topic's last message that has not expired; 0 if there is none.
    fn current(&self, topic: &str, now: u64) -> Result<u64, Error> {
        let now = millis(time_of(now));
        let (known, segments) = {
            let state = self.shared.state();
            let Some(known) = state.topics.get(topic) else { return Ok(0) };
            if known.held.last_expires == 0 || known.held.last_expires > now {
                return Ok(known.held.last.0);
            }
            (known.clone(), state.segments.clone())
        };
        let last = read::last_live(&self.shared, &segments, topic, &known, now)?;
        Ok(last.map_or(0, |(_, posting)| posting.sequence))
    }

    /// Writes a commit and answers its requests.
    fn finish(&mut self, commit: Commit) {
        let Commit { draft, answers } = commit;
        let (time, next_sequence) = (draft.time, draft.next_sequence);
        let blocks = draft.finish();
        let result = if self.shared.has_failed() { Err(Error::Failed) } else { self.write(&blocks) };
        if let Ok(places) = &result
            && !blocks.is_empty()
        {
            self.next_sequence = next_sequence;
            self.last_time = time;
            for block in &blocks {
                self.dedupe.add(block);
            }
            self.show(blocks, places);
            self.shared.head.send_replace(next_sequence - 1);
        }
        self.dedupe.sweep(time);
        for (reply, outcome, room) in answers {
            let outcome = match (&result, outcome) {
                (Err(error), Outcome::Each(each)) => {
                    // A message that was wrong in itself is told so, whatever became of the others.
                    Outcome::Each(each.into_iter().map(|one| one.and(Err(error.repeat()))).collect())
                }
                (_, outcome) => outcome,
            };
            // Who is gone does not hear it; what was published stays.
            let _ = reply.send(outcome);
            drop(room);
        }
    }

    /// Writes blocks, and waits until they are on disk. Where each begins, in the buffer, and where its body is.
    fn write(&mut self, blocks: &[Block]) -> Result<Vec<(u64, Range<usize>)>, Error> {
        if blocks.is_empty() {
            return Ok(Vec::new());
        }
        let is_full =
            self.offset >= self.shared.segment_bytes() || self.segment.summary().messages >= SEGMENT_MESSAGES;
        if is_full {
            self.roll(true)?;
        }
        self.buffer.clear();
        let mut places = Vec::with_capacity(blocks.len());
        for block in blocks {
            let start = self.buffer.len();
            let back = u32::try_from(start).unwrap_or(u32::MAX);
            places.push((start as u64, block.put(&mut self.buffer, back, self.shared.identity.salt)));
        }
        match self.segment.file.write_all_at(&self.buffer, self.offset) {
            Ok(()) => {
                self.segment.file.sync().map_err(|error| self.shared.fail(&error))?;
                Ok(places)
            }
            Err(error) if keeper::is_full(&error) => {
                // What was written of it must not be there when there is room again.
                // Nor after a power cut: its publishers are told that nothing was published.
                let taken_back =
                    self.segment.file.set_len(self.offset).and_then(|()| self.segment.file.sync());
                taken_back.map_err(|error| self.shared.fail(&error))?;
                tracing::warn!(%error, "no room for messages: publishing is refused, reading goes on");
                Err(Error::Full)
            }
            Err(error) => Err(self.shared.fail(&error)),
        }
    }

    /// Lets readers see what is on disk.
    fn show(&mut self, blocks: Vec<Block>, places: &[(u64, Range<usize>)]) {
        let mut state = self.shared.state_mut();
        for (block, (start, body)) in blocks.into_iter().zip(places) {
            let at = |place: usize| self.offset + place as u64;
            self.segment.add(&block, self.offset + start, at(body.start), at(body.end));
            state.topics.add(&block);
            state.recent.push(block);
        }
        drop(state);
        self.offset += self.buffer.len() as u64;
        if self.offset >= self.shared.segment_bytes() / 2 {
            self.keeper.prepare();
        }
    }

    /// Begins the next segment. What is written goes there from then on. Where it `is_needed`, messages wait for it.
    fn roll(&mut self, is_needed: bool) -> Result<(), Error> {
        let next = self.keeper.next_segment(self.next_sequence);
        let next = next.map_err(|NotMade { error, is_named }| {
            if is_named || is_needed && !keeper::is_full(&error) {
                return self.shared.fail(&error);
            }
            tracing::warn!(%error, is_needed, "another segment of messages cannot be begun now");
            if keeper::is_full(&error) { Error::Full } else { error.into() }
        })?;
        let full = std::mem::replace(&mut self.segment, Arc::new(next));
        self.offset = self.segment.blocks_end();
        self.shared.state_mut().segments.push(self.segment.clone());
        self.keeper.seal(full);
        Ok(())
    }

    /// Says that all is on disk: what is damaged after this was not torn. Gives the room behind it back.
    fn end(&mut self) {
        if !self.shared.has_failed() {
            let mark = block::mark(self.next_sequence, self.shared.identity.salt);
            let file = &self.segment.file;
            let end = self.offset + mark.len() as u64;
            let marked = file.write_all_at(&mark, self.offset).and_then(|()| file.set_len(end));
            if let Err(error) = marked.and_then(|()| file.sync()) {
                tracing::warn!(%error, "the log could not be marked as closed: the next start looks at its tail");
            }
        }
        self.keeper.stop();
    }
}

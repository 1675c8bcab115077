//! The one thread that writes: group commit.
//!
//! It takes all requests that wait, gives each message its sequence, and writes them as blocks with one write and one
//! fdatasync. Then readers see the messages, and the publishers are answered. Further requests gather during the sync, so
//! the more publishers there are, the more messages share a sync.
//!
//! A write that finds the disk full is taken back, and the log continues when there is room. After any other failure the log
//! accepts nothing more: after a failed sync the page cache may show bytes that the disk does not have. A restart writes the
//! tail again.

use std::{ops::Range, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::{
    commit::CommitBuilder,
    queue::{Mode, Order, Outcome, Request},
};
use crate::messages::{
    Config, Error, Expected, NewMessage, Published, Sequence,
    embedded::{
        Shared,
        format::block::{self, Block, place_of},
        index::{dedupe::Dedupe, segment::Segment},
        maintenance::{self, Maintenance, NotMade},
        millis, nanos,
        read::fetch,
        time_of,
    },
    incarnation::Incarnation,
    topic,
};

/// The size at which a commit takes no further request: more would only delay the answers.
const COMMIT_BYTES: usize = 4 * 1024 * 1024;

/// The number of messages at which a segment is followed by the next: its index is in memory.
pub const SEGMENT_MESSAGES: u64 = 500_000;

/// Writes the log. Runs until all senders are gone, and commits the requests that they left.
#[derive(Debug)]
pub struct Committer {
    /// The log as readers see it.
    pub shared: Arc<Shared>,
    /// Prepares segments, and takes full ones.
    pub maintenance: Maintenance,
    /// The segment being written.
    pub segment: Arc<Segment>,
    /// The offset of its next block.
    pub offset: u64,
    /// The sequence of the next message.
    pub next_sequence: u64,
    /// The time of the newest message, in nanoseconds since 1970.
    pub last_time: u64,
    /// The message ids of the dedupe window.
    pub dedupe: Dedupe,
    /// The incarnation of this run has begun: its first message is on disk.
    pub has_begun: bool,
    /// The bytes of a commit; kept for its capacity.
    pub buffer: Vec<u8>,
}

/// Requests and their outcomes, which are not on disk yet.
struct Commit {
    builder: CommitBuilder,
    answers: Vec<(oneshot::Sender<Outcome>, Outcome, OwnedSemaphorePermit)>,
}

impl Committer {
    /// Runs on a thread of its own.
    pub fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        while let Some(order) = orders.blocking_recv() {
            let mut commit = self.begin();
            let mut next = Some(order);
            let mut rolls = false;
            #[cfg(test)]
            let mut settled = Vec::new();
            while let Some(order) = next {
                match order {
                    Order::Publish(request) => self.take(&mut commit, request),
                    Order::Roll => rolls = true,
                    #[cfg(test)]
                    Order::Settle(reply) => settled.push(reply),
                }
                next = if commit.builder.bytes() < COMMIT_BYTES { orders.try_recv().ok() } else { None };
            }
            self.finish(commit);
            if rolls && self.segment.summary().messages > 0 && !self.shared.has_failed() {
                // If this fails, the next run of retention asks for it again.
                let _ = self.roll(false);
            }
            #[cfg(test)]
            for reply in settled {
                let _ = reply.send(());
            }
        }
        self.end();
    }

    fn begin(&self) -> Commit {
        // The times of the log do not fall, even if the wall clock is set back.
        let time = nanos(self.shared.now()).max(self.last_time);
        Commit { builder: CommitBuilder::new(time, self.next_sequence), answers: Vec::new() }
    }

    fn take(&self, commit: &mut Commit, request: Request) {
        let Request { messages, mode, reply, room } = request;
        let mut results = Vec::with_capacity(messages.len());
        let savepoint = commit.builder.savepoint();
        for (index, message) in messages.iter().enumerate() {
            match self.place(&mut commit.builder, message, mode) {
                Err(error) if mode != Mode::Each => {
                    commit.builder.roll_back(savepoint);
                    commit.answers.push((reply, Outcome::Refused { index, error }, room));
                    return;
                }
                result => results.push(result),
            }
            if mode == Mode::Each {
                commit.builder.close_if_full();
            }
        }
        commit.builder.close_if_full();
        commit.answers.push((reply, Outcome::Each(results), room));
    }

    /// Adds a message to the commit, or finds that it was published before.
    fn place(&self, builder: &mut CommitBuilder, new: &NewMessage, mode: Mode) -> Result<Published, Error> {
        let (known, purged, topic_count, consumer_count) = {
            let state = self.shared.state();
            let known = state.topics.key_value(&new.topic).map(|(name, _)| name.clone());
            let purged = if new.message_id.is_some() { state.topics.purged_up_to(&new.topic) } else { 0 };
            (known, purged, state.topics.count(), state.topics.consumer_count())
        };
        let id = new.message_id.as_deref().map(|id| self.dedupe.key(&new.topic, id));
        if let Some(key) = id {
            let in_commit = builder.find(key).map(|sequence| (sequence, builder.time));
            let earlier = in_commit.or_else(|| {
                self.dedupe.find(key, &new.topic, builder.time).filter(|(sequence, _)| *sequence > purged)
            });
            if let Some((sequence, time)) = earlier {
                let sequence = Sequence::of_message(sequence);
                return Ok(Published { sequence, time: time_of(time), duplicate: true });
            }
        }
        let in_commit = builder.last(&new.topic);
        let expected = match new.expected {
            Expected::Any => None,
            Expected::Empty => Some(None),
            Expected::Last(sequence) => Some(Some(sequence)),
        };
        if let Some(expected) = expected {
            let current = match in_commit {
                Some(last) => last,
                None => self.current(&new.topic, builder.time)?,
            };
            let current = Sequence::new(current);
            if expected != current {
                return Err(Error::SequenceMismatch { expected, current });
            }
        }
        let is_new = known.is_none() && in_commit.is_none();
        let Config { max_topics, max_consumers, .. } = self.shared.config;
        // Consumers have a limit of their own, and take no room of the topics.
        let consumers = consumer_count + builder.new_consumers();
        let topics = topic_count + builder.new_topics() - consumers;
        if is_new && topic::is_of_consumer(&new.topic) {
            if consumers >= max_consumers {
                return Err(Error::TooManyConsumers { limit: max_consumers });
            }
        } else if is_new && mode != Mode::Own && topics >= max_topics {
            return Err(Error::TooManyTopics { limit: max_topics });
        }
        let name = known.unwrap_or_else(|| new.topic.as_str().into());
        let sequence = builder.push(name, new, id, is_new);
        let sequence = Sequence::of_message(sequence);
        Ok(Published { sequence, time: time_of(builder.time), duplicate: false })
    }

    /// The sequence of a topic's last message that has not expired; 0 if there is none.
    fn current(&self, topic: &str, now_nanos: u64) -> Result<u64, Error> {
        let now = millis(time_of(now_nanos));
        let (known, segments) = {
            let state = self.shared.state();
            let Some(known) = state.topics.get(topic) else { return Ok(0) };
            if known.held.last_expires == 0 || known.held.last_expires > now {
                return Ok(known.held.last.sequence);
            }
            (known.clone(), state.segments.clone())
        };
        let last = fetch::last_live(&self.shared, &segments, topic, &known, now)?;
        Ok(last.map_or(0, |(_, posting)| posting.sequence))
    }

    /// Writes a commit and answers its requests.
    fn finish(&mut self, commit: Commit) {
        let Commit { builder, answers } = commit;
        let (time, next_sequence) = (builder.time, builder.next_sequence);
        let blocks = builder.finish();
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
        let is_full =
            self.offset >= self.shared.segment_bytes() || self.segment.summary().messages >= SEGMENT_MESSAGES;
        if is_full {
            self.roll(true)?;
        }
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
        match self.segment.file.write_all_at(&self.buffer, self.offset) {
            Ok(()) => {
                self.segment.file.sync().map_err(|error| self.shared.fail(&error))?;
                if let Some(incarnation) = begun {
                    self.has_begun = true;
                    self.shared.manifest.begin(incarnation);
                }
                Ok(places)
            }
            Err(error) if maintenance::is_full(&error) => {
                // Take the partial write back, and sync that: its publishers learn that nothing was published, so it
                // must not reappear, not even after a power cut.
                let taken_back =
                    self.segment.file.set_len(self.offset).and_then(|()| self.segment.file.sync());
                taken_back.map_err(|error| self.shared.fail(&error))?;
                tracing::warn!(%error, "no room for messages: publishing is refused, reading goes on");
                Err(Error::Full)
            }
            Err(error) => Err(self.shared.fail(&error)),
        }
    }

    /// Makes messages that are on disk visible to readers.
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
            self.maintenance.prepare();
        }
    }

    /// Begins the next segment, and writes there from then on. `is_needed`: messages wait for it.
    fn roll(&mut self, is_needed: bool) -> Result<(), Error> {
        let next = self.maintenance.next_segment(self.next_sequence);
        let next = next.map_err(|NotMade { error, is_named }| {
            if is_named || is_needed && !maintenance::is_full(&error) {
                return self.shared.fail(&error);
            }
            tracing::warn!(%error, is_needed, "the next segment cannot be created now");
            if maintenance::is_full(&error) { Error::Full } else { error.into() }
        })?;
        let full = std::mem::replace(&mut self.segment, Arc::new(next));
        self.offset = self.segment.blocks_end();
        self.shared.state_mut().segments.push(self.segment.clone());
        self.maintenance.seal(full);
        Ok(())
    }

    /// Marks a clean end, so that later damage is not taken for a torn write, and gives the unused room back.
    fn end(&mut self) {
        if !self.shared.has_failed() {
            let mark = block::mark(self.next_sequence, self.shared.identity.salt);
            let file = &self.segment.file;
            let end = self.offset + mark.len() as u64;
            let marked = file.write_all_at(&mark, self.offset).and_then(|()| file.set_len(end));
            if let Err(error) = marked.and_then(|()| file.sync()) {
                tracing::warn!(%error, "the log could not be marked as closed: the next start checks its tail");
            }
        }
        self.maintenance.stop();
    }
}

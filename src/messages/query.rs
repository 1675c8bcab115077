//! What a subscription asks for, and what it yields.

use std::{sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::{
    Error, Sequence, SequenceRange,
    incarnation::{Incarnation, Incarnations, Lineage},
    topic::Pattern,
};
use crate::{
    cursor,
    stream::{self, Batching},
};

/// The highest count of [`Start::Last`].
pub const MAX_LAST: u64 = 1_000_000;

/// Which messages to read.
#[derive(Clone, Debug)]
pub struct Query {
    /// Patterns, as the caller gave them; at least one. A message is read if any of them matches its topic.
    pub topics: Vec<String>,
    /// The patterns that are read instead, if the caller may read a part of the topics only.
    pub within: Option<Arc<[Pattern]>>,
    /// Where to start.
    pub start: Start,
    /// Where to stop.
    pub stop: Stop,
    /// What to do about removed messages.
    pub on_gap: OnGap,
    /// Read as this consumer: start where it has committed, unless `start` is [`Start::Resume`]. The subscription
    /// replaces an open one of the same consumer.
    pub consumer: Option<String>,
    /// How the stream is divided into batches.
    pub batching: Batching,
}

impl Query {
    /// Checks what needs no log, and returns the parsed patterns.
    pub(super) fn check(&self, max_patterns: usize) -> Result<Arc<[Pattern]>, Error> {
        let count = self.topics.len();
        if count > max_patterns {
            return Err(Error::TooManyPatterns { count, limit: max_patterns });
        }
        if let Start::Last(last) = self.start
            && last > MAX_LAST
        {
            return Err(Error::LastTooMany { last });
        }
        if self.topics.is_empty() {
            return Err(Error::NoPatterns);
        }
        let parse = |(index, text): (usize, &String)| {
            Pattern::parse(text).map_err(|error| Error::Pattern { index, error })
        };
        let patterns = self.topics.iter().enumerate().map(parse).collect::<Result<_, _>>()?;
        Ok(self.within.clone().unwrap_or(patterns))
    }
}

/// What to do when the next messages of a subscription were removed before it read them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnGap {
    /// End with [`Error::Removed`].
    #[default]
    Fail,
    /// Continue, and report the gap in an event.
    Skip,
}

/// Where to start.
#[derive(Clone, Debug, Default)]
pub enum Start {
    /// With the next message that is published.
    #[default]
    New,
    /// With the oldest message.
    Earliest,
    /// With this sequence, or the next higher one. The log may not have reached it yet.
    Sequence(Sequence),
    /// Of the messages that the log holds now, those published at this time or later; then every later message.
    Time(SystemTime),
    /// With the last messages that match: this many of them, at most [`MAX_LAST`].
    Last(u64),
    /// With the last message of each topic that matches, followed by new messages.
    LastPerTopic,
    /// After a batch that was delivered.
    Resume(Position),
}

/// Where to stop: at the first of these that is reached. All unset: never.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// After this sequence.
    pub sequence: Option<Sequence>,
    /// Deliver only messages published at this time or earlier, and stop at the head that the log has when the clock has
    /// passed this time.
    pub time: Option<SystemTime>,
    /// After the newest message at the time of the call.
    pub caught_up: bool,
}

/// The decoded content of a cursor: which log and which history of it, and how far a subscription has read.
///
/// Every kind of log has an identity, incarnations and sequences. Cursors on disk have this encoding, so its fields stay
/// numbers, with 0 for none.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Position {
    pub(super) log: [u8; 16],
    /// Every message up to this sequence was delivered, did not match, or was reported as missing.
    pub(super) delivered_up_to: u64,
    /// The subscription waits for a sequence that the log has not reached.
    pub(super) is_awaited: bool,
    /// Gaps up to this sequence were reported; 0 where that is `delivered_up_to`.
    pub(super) reported_up_to: u64,
    /// While a snapshot of last messages is delivered: the head at which it was taken; else 0.
    pub(super) snapshot: u64,
    /// The last incarnations at or below [`reference`](Self::reference).
    pub(super) lineage: Lineage,
    /// The subscription started at a time, and has not passed the head at that moment.
    pub(super) since: Option<Since>,
    /// Removals up to this loss epoch, before the subscription started, are no gaps of it; 0 where gaps up to a sequence were
    /// reported, or none was.
    pub(super) lost_before: u64,
}

/// A start at a time: of the messages up to a head, those that were published at that time or later.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Since {
    /// The time, in nanoseconds since 1970.
    pub(super) time: u64,
    /// The head when the subscription was opened: every later message is delivered.
    pub(super) head: u64,
}

/// The first version: without incarnations.
#[derive(Deserialize)]
struct First {
    log: [u8; 16],
    delivered_up_to: u64,
    is_awaited: bool,
    reported_up_to: u64,
    snapshot: u64,
}

impl From<First> for Position {
    fn from(First { log, delivered_up_to, is_awaited, reported_up_to, snapshot }: First) -> Self {
        let mut position = Self { delivered_up_to, is_awaited, reported_up_to, snapshot, ..Self::start(log) };
        // It is from before incarnations were recorded.
        if position.reference() > 0 {
            position.lineage = Lineage::last_of(&[Incarnation::of_log(log)]);
        }
        position
    }
}

impl cursor::Position for Position {
    const KIND: cursor::Kind = cursor::Kind::Messages;
    const DECODERS: &'static [cursor::Decoder<Self>] =
        &[|bytes| cursor::decode_fields::<First>(bytes).map(Self::from), cursor::decode_fields];
}

impl Position {
    /// Every message up to this sequence was delivered; `None` if no message was.
    pub fn sequence(&self) -> Option<Sequence> {
        Sequence::new(self.delivered_up_to)
    }

    /// The position before the first message of a log.
    pub(super) fn start(log: [u8; 16]) -> Self {
        Self {
            log,
            delivered_up_to: 0,
            is_awaited: false,
            reported_up_to: 0,
            snapshot: 0,
            lineage: Lineage::default(),
            since: None,
            lost_before: 0,
        }
    }

    /// The highest sequence of the history that the position depends on; 0 for none, as where a sequence is awaited. A gap
    /// that was reported in one history says nothing about another.
    pub(super) fn reference(&self) -> u64 {
        let delivered_up_to = if self.is_awaited { 0 } else { self.delivered_up_to };
        delivered_up_to
            .max(self.reported_up_to)
            .max(self.snapshot)
            .max(self.since.map_or(0, |since| since.head))
    }

    /// Checks that the position is one of the log with this identity, this history and this head.
    pub(super) fn check(&self, log: [u8; 16], history: &Incarnations, head: u64) -> Result<(), Error> {
        let Self { log: of, delivered_up_to, is_awaited, reported_up_to, snapshot, lineage, since, .. } =
            self;
        if *of != log {
            return Err(Error::OtherLog);
        }
        history.check(lineage, self.reference(), head).map_err(Error::Diverged)?;
        let is_ahead = *delivered_up_to > head && !is_awaited;
        // Gaps, snapshots and the head at the start are never ahead of the log.
        let is_impossible =
            *reported_up_to > head || *snapshot > head || since.is_some_and(|since| since.head > head);
        if is_ahead || is_impossible || *snapshot > 0 && delivered_up_to > snapshot {
            return Err(Error::Ahead { newest: Sequence::new(head) });
        }
        Ok(())
    }
}

/// Messages, encoded by [`wire::message`](crate::wire::message) as `MessagesResponse.messages`, and the position after
/// them.
pub type Batch = stream::Batch<Event, Position, Progress>;

/// How far the stream of a subscription is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// The batch ends at the head of the log.
    pub caught_up: bool,
    /// The highest sequence of the users' topics when the batch was made; `None` if they never had a message.
    pub head: Option<Sequence>,
}

/// Something that happened to the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// Messages with these sequences may have been damaged on disk; they are not served.
    Damaged(SequenceRange),
    /// Retention or a purge removed messages of the subscribed topics in this range before they were read.
    Removed(SequenceRange),
    /// The log has another history than the one that was read: it does not have the messages that were read in this
    /// range, and the stream continues with its own messages from the first of these sequences on.
    Diverged(SequenceRange),
}

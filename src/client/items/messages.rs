//! Items of topics: messages, which their sequence tells apart. The publish time tells a message from another one with
//! its sequence, in a log that was restored from a copy.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use tonic::Code;

use super::{
    Items,
    kind::{Kind, Parts},
    state::Digits,
};
use crate::{
    client::Error,
    proto::{
        ErrorReason, MessageGap, MessageGapReason, MessageStreamEvent, MessagesRequest, MessagesResponse,
        OnGap, StoredMessage, message_stream_event::Event, messages_request::Start,
    },
};

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    sequence: Digits,
    /// In nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    publish_time: Option<Digits>,
}

impl Kind for MessagesRequest {
    type Item = StoredMessage;
    type Event = MessageStreamEvent;
    type Key = Key;
    type Track = ();

    const NAME: &'static str = "messages";

    fn track(&self) {}

    fn consumer(&self) -> Option<&str> {
        self.consumer.as_deref()
    }

    fn begin((): &mut (), response: &mut MessagesResponse, pending: Option<&Key>) -> Result<bool, Error> {
        let Some(Key { sequence, publish_time }) = pending else { return Ok(false) };
        if response.events.iter().filter_map(gap).any(is_diverged) {
            // The log has another history: sequences may go back.
            return Ok(false);
        }
        response.events.retain(|event| gap(event).is_none_or(|gap| gap.last_sequence() > sequence.0));
        let same = response.messages.iter().find(|message| message.sequence() == sequence.0);
        if same.is_some_and(|same| publish_time.is_some_and(|time| time != time_of(same))) {
            return Err(diverged());
        }
        response.messages.retain(|message| message.sequence() > sequence.0);
        Ok(response.messages.is_empty())
    }

    fn key((): &(), message: &StoredMessage) -> Key {
        Key { sequence: Digits(message.sequence()), publish_time: Some(time_of(message)) }
    }

    fn gap(event: &MessageStreamEvent) -> Option<Error> {
        gap(event).map(|gap| Error::MessageGap(*gap))
    }

    fn parts(response: MessagesResponse) -> Parts<Self> {
        let MessagesResponse { messages, events, cursor, caught_up, head_sequence: _ } = response;
        Parts { skipped: 0, events, items: messages, cursor, caught_up }
    }
}

fn gap(event: &MessageStreamEvent) -> Option<&MessageGap> {
    match &event.event {
        Some(Event::Gap(gap)) => Some(gap),
        _ => None,
    }
}

fn is_diverged(gap: &MessageGap) -> bool {
    gap.reason() == MessageGapReason::Diverged
}

fn time_of(message: &StoredMessage) -> Digits {
    let nanos = |time: &prost_types::Timestamp| {
        time.seconds.saturating_mul(1_000_000_000).saturating_add(time.nanos.into())
    };
    Digits(message.publish_time.as_ref().map_or(0, nanos))
}

fn diverged() -> Error {
    Error::Status {
        code: Code::OutOfRange,
        reason: Some(ErrorReason::LogDiverged.as_str_name().to_owned()),
        violations: Vec::new(),
        metadata: BTreeMap::new(),
        message: "the log has another message at the sequence of the last one: it was restored from a copy"
            .into(),
        retry_after: None,
        transport: false,
    }
}

impl From<&str> for MessagesRequest {
    /// The messages of the topics that match a pattern: `orders.*`, `orders.>`.
    fn from(pattern: &str) -> Self {
        Self { topics: vec![pattern.into()], ..Self::default() }
    }
}

impl<const N: usize> From<[&str; N]> for MessagesRequest {
    /// The messages of the topics that match one of these patterns.
    fn from(patterns: [&str; N]) -> Self {
        Self { topics: patterns.map(str::to_owned).to_vec(), ..Self::default() }
    }
}

impl Items<MessagesRequest> {
    /// Starts with the oldest message that is kept. Without a start, the stream has the messages that are published from
    /// now on.
    #[must_use]
    pub fn earliest(self) -> Self {
        self.with(|request| request.start = Some(Start::Earliest(true)))
    }

    /// Starts with the last `messages` messages.
    #[must_use]
    pub fn last(self, messages: i64) -> Self {
        self.with(|request| request.start = Some(Start::Last(messages)))
    }

    /// Starts with the last message of each topic.
    #[must_use]
    pub fn last_per_topic(self) -> Self {
        self.with(|request| request.start = Some(Start::LastPerTopic(true)))
    }

    /// Starts with this sequence.
    #[must_use]
    pub fn from_sequence(self, sequence: i64) -> Self {
        self.with(|request| request.start = Some(Start::FromSequence(sequence)))
    }

    /// Ends the stream after the messages that exist.
    #[must_use]
    pub fn until_caught_up(self) -> Self {
        self.with(|request| request.until_caught_up = true)
    }

    /// Where messages are missing, reports a gap and continues: as a value of [`Items::with_events`], otherwise as an
    /// error. Without this, the server ends the stream with an error (`CURSOR_EXPIRED`).
    #[must_use]
    pub fn skip_gaps(self) -> Self {
        self.with(|request| request.set_on_gap(OnGap::Skip))
    }

    /// Reads as a consumer, whose position the server keeps: the stream continues after its last commit. Commit with
    /// [`Items::commit`] or [`Self::commit_every`]. One stream at a time reads as a consumer: an older one ends with
    /// `CONSUMER_TAKEN_OVER`.
    #[must_use]
    pub fn consumer(self, name: &str) -> Self {
        self.with(|request| request.consumer = Some(name.to_owned()))
    }

    /// Commits by itself what is done: at most once in this time, and when the stream ends or is closed.
    #[must_use]
    pub fn commit_every(mut self, interval: Duration) -> Self {
        self.options().commit_every = Some(interval);
        self
    }
}

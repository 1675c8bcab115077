//! The messages of a run.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use perennial::proto::{PublishRequest, StoredMessage, publish_request::Content, stored_message};

use crate::arguments::bench::{Load, MIN_SIZE};

/// The first bytes of a payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// The run, so that messages of other runs on the same topics do not count.
    pub run: u64,
    pub publisher: u64,
    /// Counted from 1 for each publisher.
    pub number: u64,
    /// The time at which the message was made, in nanoseconds since 1970.
    pub nanos: u64,
}

impl Head {
    fn to_bytes(self) -> [u8; MIN_SIZE] {
        let mut bytes = [0; MIN_SIZE];
        let fields = [self.run, self.publisher, self.number, self.nanos];
        for (to, field) in bytes.chunks_exact_mut(size_of::<u64>()).zip(fields) {
            to.copy_from_slice(&field.to_be_bytes());
        }
        bytes
    }

    /// The head of a message, or `None` if it is not from a benchmark.
    pub fn of(message: &StoredMessage) -> Option<Self> {
        let Some(stored_message::Content::Data(data)) = &message.content else { return None };
        let mut fields = data.get(..MIN_SIZE)?.chunks_exact(size_of::<u64>());
        let mut next = || Some(u64::from_be_bytes(fields.next()?.try_into().ok()?));
        Some(Self { run: next()?, publisher: next()?, number: next()?, nanos: next()? })
    }

    pub fn age(&self, now: u64) -> Duration {
        Duration::from_nanos(now.saturating_sub(self.nanos))
    }
}

/// Nanoseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The topics of a load.
pub fn topics(load: &Load) -> Vec<String> {
    (0..load.topics).map(|n| format!("bench.{n}")).collect()
}

/// Makes the messages of a publisher.
#[derive(Clone, Debug)]
pub struct Maker {
    run: u64,
    publisher: u64,
    topics: Vec<String>,
    size: usize,
}

impl Maker {
    pub fn new(load: &Load, run: u64, publisher: u64) -> Self {
        Self { run, publisher, topics: topics(load), size: load.size }
    }

    /// Makes the message with this number.
    pub fn message(&self, number: u64) -> PublishRequest {
        let head = Head { run: self.run, publisher: self.publisher, number, nanos: now() };
        let mut data = Vec::with_capacity(self.size);
        data.extend_from_slice(&head.to_bytes());
        data.resize(self.size, b'.');
        // Each publisher starts at another topic.
        let topic =
            usize::try_from(number.wrapping_add(self.publisher)).unwrap_or_default() % self.topics.len();
        PublishRequest {
            topic: self.topics.get(topic).cloned().unwrap_or_default(),
            content: Some(Content::Data(data)),
            ..PublishRequest::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_a_message_is_read_back() {
        let head = Head { run: u64::MAX, publisher: 2, number: 3, nanos: 4_000 };
        let mut data = head.to_bytes().to_vec();
        data.resize(100, b'.');
        let message = |content| StoredMessage { content: Some(content), ..StoredMessage::default() };
        assert_eq!(Head::of(&message(stored_message::Content::Data(data))), Some(head));
        assert_eq!(head.age(5_000), Duration::from_micros(1));
        assert_eq!(Head::of(&message(stored_message::Content::Data(vec![1; MIN_SIZE - 1]))), None);
        assert_eq!(Head::of(&message(stored_message::Content::Text("hello".into()))), None);
    }
}

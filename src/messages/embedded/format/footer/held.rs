//! What a footer says of runs, messages, topics and the whole segment, apart from how it is encoded.

use super::part::Part;
use crate::messages::embedded::{age::Moment, format::block::Entry};

/// An entry of the sparse index: a run of blocks that is read as a whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SparseEntry {
    /// The offset of its first byte; the run ends where the next one begins.
    pub offset: u32,
    /// No message in it has a lower sequence.
    pub first_sequence: u64,
    /// No message in it has a higher one.
    pub last_sequence: u64,
    /// No message in it has an earlier time, in nanoseconds since 1970.
    pub min_time: u64,
    /// No message in it has a later one.
    pub max_time: u64,
}

/// The place of a message in its segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Posting {
    /// The sequence of the message.
    pub sequence: u64,
    /// Its publish time, in nanoseconds since 1970; 0 in a footer of version 2, which does not have it.
    pub time: u64,
    /// When it expires, in milliseconds since 1970; 0 for never.
    pub expires: u64,
    /// The offset of its first byte in the segment.
    pub offset: u32,
    /// Its size in bytes.
    pub length: u32,
    /// The checksum of its bytes.
    pub checksum: u32,
}

impl Posting {
    /// Of a message whose offset in the segment does not matter.
    pub fn without_offset(entry: &Entry, time: u64) -> Self {
        let &Entry { sequence, expires, start, end, checksum, .. } = entry;
        Self { sequence, time, expires, offset: 0, length: end - start, checksum }
    }
}

/// The sequence and the time, in nanoseconds since 1970, of a message.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct At {
    /// The sequence of the message.
    pub sequence: u64,
    /// Its time, in nanoseconds since 1970.
    pub time: u64,
}

/// What a segment holds of a topic. Expiry is in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Held {
    /// The number of messages.
    pub messages: u64,
    /// The size of the messages.
    pub bytes: u64,
    /// The first message.
    pub first: At,
    /// The last message.
    pub last: At,
    /// No message has an earlier time, in nanoseconds since 1970.
    pub min_time: u64,
    /// No message has a later one.
    pub max_time: u64,
    /// When the first message expires; 0 for never.
    pub first_expires: u64,
    /// When the last message expires; 0 for never.
    pub last_expires: u64,
    /// The size of the messages that expire.
    pub expiring_bytes: u64,
    /// When the last of those expires.
    pub all_expired: u64,
    /// The size of the last message.
    pub last_bytes: u32,
}

impl Held {
    /// Adds the next message.
    pub fn add(&mut self, posting: &Posting) {
        let Posting { sequence, time, expires, length, .. } = *posting;
        if self.messages == 0 {
            (self.first, self.first_expires) = (At { sequence, time }, expires);
            (self.min_time, self.max_time) = (time, time);
        }
        (self.last, self.last_expires, self.last_bytes) = (At { sequence, time }, expires, length);
        (self.min_time, self.max_time) = (self.min_time.min(time), self.max_time.max(time));
        self.messages += 1;
        self.bytes += u64::from(length);
        if expires != 0 {
            self.expiring_bytes += u64::from(length);
            self.all_expired = self.all_expired.max(expires);
        }
    }
}

/// The messages of a topic in a segment.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// Their summary.
    pub held: Held,
    /// Their places, in order.
    pub postings: Vec<Posting>,
}

/// A summary of a segment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Summary {
    /// No message has a lower sequence; 0 if there are no messages.
    pub first_sequence: u64,
    /// No message has a higher one.
    pub last_sequence: u64,
    /// The time of the last block, in nanoseconds since 1970.
    pub last_time: u64,
    /// No message has an earlier time; 0 if there are no messages.
    pub min_time: u64,
    /// No message has a later time.
    pub max_time: u64,
    /// The number of messages.
    pub messages: u64,
    /// The number of messages with an id.
    pub ids: u64,
    /// The number of topics.
    pub topics: u64,
}

impl Summary {
    /// The age of the youngest message, or less, in nanoseconds.
    pub fn youngest(&self, moment: &Moment) -> u64 {
        *moment.ages(self.first_sequence..=self.last_sequence, self.min_time, self.max_time).start()
    }
}

/// A topic of a full segment.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The name of the topic.
    pub name: &'a str,
    /// What the segment holds of it.
    pub held: Held,
    /// The places of its messages.
    pub postings: Part,
}

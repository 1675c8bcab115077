//! What a log tells of itself, of its topics and of an acknowledged message.

use std::time::SystemTime;

use super::Sequence;

/// What the acknowledgement of a message guarantees.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// It is on the disk of this machine.
    Fsynced,
    /// A majority of the replicas have stored it; their systems may not have written it to their disks yet.
    Replicated,
    /// The only replica has stored it; its system may not have written it to its disk yet.
    Buffered,
}

/// A message of a topic: its sequence and its time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stamp {
    /// The sequence of the message.
    pub sequence: Sequence,
    /// When the log accepted it.
    pub time: SystemTime,
}

/// A topic that holds messages.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// The number of its messages.
    pub messages: u64,
    /// The number of bytes that they take in the log; `None` if the log does not count them.
    pub bytes: Option<u64>,
    /// Its oldest message.
    pub first: Stamp,
    /// Its newest message.
    pub last: Stamp,
}

/// A page of a list of topics.
#[derive(Clone, Debug)]
pub struct TopicPage {
    /// Sorted by name.
    pub topics: Vec<TopicInfo>,
    /// The name to continue after; `None` on the last page.
    pub next: Option<String>,
}

/// Figures of a log.
#[derive(Clone, Copy, Debug)]
pub struct LogFigures {
    /// The number of its segments.
    pub segments: usize,
    /// The size of their messages on disk, without indexes and reserved room.
    pub bytes: u64,
    /// Topics with messages, without those of consumers.
    pub topics: usize,
    /// Consumers that have committed a cursor.
    pub consumers: usize,
    /// The earliest time of a message in a segment; `None` without messages.
    pub oldest: Option<SystemTime>,
    /// The newest sequence that can be read; 0 for none.
    pub head: u64,
    /// A write has failed: the log accepts no message until a restart.
    pub has_failed: bool,
}

/// The last message of a topic of the server's own.
#[derive(Clone, Debug)]
pub(crate) struct LastText {
    pub sequence: Sequence,
    pub time: SystemTime,
    /// `None` if the message is damaged or is not text.
    pub text: Option<String>,
}

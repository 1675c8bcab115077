//! Consumers: a cursor by a name, kept in the log.

use std::time::SystemTime;

use super::{Error, Log, Position};

/// A consumer, and where it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConsumerInfo {
    /// Its name.
    pub name: String,
    /// What was committed last.
    pub position: Position,
    /// When it was committed.
    pub time: SystemTime,
    /// The newest sequence in the log.
    pub head: u64,
    /// Someone reads as it now.
    pub is_connected: bool,
}

/// Some consumers.
#[derive(Clone, Debug)]
pub struct ConsumerPage {
    /// Sorted by name.
    pub consumers: Vec<ConsumerInfo>,
    /// The name to go on after, if there are more.
    pub next: Option<String>,
}

impl Log {
    /// Keeps a position under a name; it is on disk when this returns.
    ///
    /// # Errors
    /// [`Error::Consumer`], [`Error::Mismatch`], [`Error::Ahead`], [`Error::CommitBehind`], or what is wrong with the log.
    pub async fn commit_cursor(
        &self,
        _consumer: &str,
        _position: Position,
        _may_rewind: bool,
    ) -> Result<SystemTime, Error> {
        Err(Error::NoConsumer)
    }

    /// The consumers, sorted by name: at most `page_size`, those behind `after`.
    pub fn list_consumers(&self, _page_size: usize, _after: Option<&str>) -> ConsumerPage {
        ConsumerPage { consumers: Vec::new(), next: None }
    }

    /// Forgets a consumer, for good.
    ///
    /// # Errors
    /// [`Error::NoConsumer`], or what is wrong with the log.
    pub async fn delete_consumer(&self, _name: &str) -> Result<(), Error> {
        Err(Error::NoConsumer)
    }

    /// Removes the messages of a topic, all or up to a sequence, for good. How many they were.
    ///
    /// # Errors
    /// [`Error::Topic`], [`Error::NoTopic`], or what is wrong with the log.
    pub async fn purge_topic(&self, _topic: &str, _until: Option<u64>) -> Result<u64, Error> {
        Err(Error::NoTopic)
    }
}

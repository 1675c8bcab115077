//! The queue of the committer: what publishers ask for, and what becomes of it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::messages::{Error, NewMessage, Published};

/// The size, in KiB, of the messages that may wait to be written; further publishers wait for room.
const QUEUE_KIB: u32 = 64 * 1024;

/// The number of requests that may wait to be written.
pub const QUEUE_REQUESTS: usize = 16 * 1024;

/// Something for the committer to do.
#[derive(Debug)]
pub enum Order {
    /// Publish messages.
    Publish(Request),
    /// Begin the next segment, so that the current one can be compacted.
    Roll,
    /// Mark the end of the last commit, and reply up to which offset of the segment bytes may be changed.
    Mark(oneshot::Sender<u64>),
    /// Look whether there is room for messages again.
    Probe,
    /// Record a step of the wall clock, if there is one. This is done before every commit, too.
    LookAtClock,
    /// Reply when everything that was queued before is done.
    #[cfg(test)]
    Settle(oneshot::Sender<()>),
    /// Wait until the sender is dropped.
    #[cfg(test)]
    Hold(std::sync::mpsc::Receiver<()>),
}

/// Messages to publish. They have been checked.
#[derive(Debug)]
pub struct Request {
    /// In the order of the sequences that they get.
    pub messages: Vec<NewMessage>,
    /// Whether one refused message keeps the others from being published.
    pub mode: Mode,
    /// The receiver of the outcome.
    pub reply: oneshot::Sender<Outcome>,
    /// The room that the request takes in the queue until it is answered.
    pub room: OwnedSemaphorePermit,
}

/// Whether one refused message of a request keeps the others from being published.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// No: each is published on its own.
    Each,
    /// Yes: all or none.
    All,
    /// All or none, and not limited by the number of topics: the server keeps a promise that it has made.
    Own,
}

/// What became of a request.
#[derive(Debug)]
pub enum Outcome {
    /// The result of each message, in order.
    Each(Vec<Result<Published, Error>>),
    /// No message was published, because this one was refused.
    Refused {
        /// The index of the refused message.
        index: usize,
        /// Why it was refused.
        error: Error,
    },
}

/// The room in the queue, by the size of messages.
#[derive(Debug)]
pub struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(QUEUE_KIB as usize)))
    }
}

impl Room {
    /// The bytes that messages take, rounded up for each request.
    pub fn used(&self) -> usize {
        (QUEUE_KIB as usize).saturating_sub(self.0.available_permits()) * 1024
    }

    /// Waits for room for some messages. A request that is larger than the queue takes all of it.
    pub async fn for_messages(&self, messages: &[NewMessage]) -> Result<OwnedSemaphorePermit, Error> {
        let bytes = messages.iter().map(NewMessage::bytes).sum::<usize>();
        let kib = u32::try_from(bytes / 1024).map_or(QUEUE_KIB, |kib| kib.saturating_add(1).min(QUEUE_KIB));
        self.0.clone().acquire_many_owned(kib).await.map_err(|_| Error::Closed)
    }
}

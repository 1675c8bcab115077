//! A publisher that takes messages one by one.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll, ready},
};

use futures::{StreamExt, stream};
use prost::Message as _;
use tokio::{
    sync::{Mutex as Turn, OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinHandle,
};

use super::{Start, frames::WINDOW_BYTES};
use crate::{
    client::{Client, Error},
    proto::{PublishRequest, PublishResponse, PublishResult, publish_result::Outcome},
};

type Answer = Result<PublishResponse, Error>;

/// Publishes messages in order, and gives each a receipt.
///
/// A message without an id gets one. After a lost connection, the messages without an answer are sent again with the same
/// ids, so that none is published twice. Up to 8,192 messages ([`Client::with_publish_window`]) and 16 MiB have no answer;
/// then [`Self::publish`] waits. A message that the server refuses fails its receipt, and the others go on.
///
/// The publisher fails if no server accepts it within [`Client::with_connect_timeout`] after its first message. A server that
/// it has reached is tried again without limit.
///
/// A publisher can be shared by tasks. One that is dropped before [`Self::close`] leaves messages unsent.
pub struct Publisher {
    /// Held while a message waits for room, so that messages keep the order of the calls.
    turn: Turn<Option<mpsc::UnboundedSender<Outgoing>>>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    window: u32,
    /// Room for messages and for bytes without an answer.
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    failed: OnceLock<Error>,
}

struct Outgoing {
    message: PublishRequest,
    entry: Entry,
}

struct Entry {
    receipt: oneshot::Sender<Answer>,
    _room: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

/// The answer to one message: await it. The message is on disk when it is `Ok`.
///
/// [`Error::OutcomeUnknown`]: the message may be published or not.
pub struct Receipt {
    answer: oneshot::Receiver<Answer>,
    shared: Arc<Shared>,
}

impl Publisher {
    pub(in crate::client) fn new(client: Client) -> Self {
        let window =
            u32::try_from(client.publish_window.clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        let shared = Arc::new(Shared {
            window,
            messages: Arc::new(Semaphore::new(window as usize)),
            bytes: Arc::new(Semaphore::new(WINDOW_BYTES)),
            failed: OnceLock::new(),
        });
        let (sender, receiver) = mpsc::unbounded_channel();
        // It sends and receives while no caller waits. `close` waits for it, and a drop ends it.
        let task = tokio::spawn(run(client, receiver, shared.clone()));
        Self { turn: Turn::new(Some(sender)), shared, task }
    }

    /// Takes a message, and waits while too many have no answer. Returns the receipt, or why the publisher has failed.
    pub async fn publish(&self, message: PublishRequest) -> Result<Receipt, Error> {
        let turn = self.turn.lock().await;
        let size = u32::try_from(message.encoded_len().clamp(1, WINDOW_BYTES)).unwrap_or(u32::MAX);
        let ended = |_| self.shared.error();
        let room = (
            self.shared.messages.clone().acquire_owned().await.map_err(ended)?,
            self.shared.bytes.clone().acquire_many_owned(size).await.map_err(ended)?,
        );
        let (receipt, answer) = oneshot::channel();
        let outgoing = Outgoing { message, entry: Entry { receipt, _room: room } };
        let sender = turn.as_ref().ok_or(Error::PublisherEnded)?;
        sender.send(outgoing).map_err(|_| self.shared.error())?;
        Ok(Receipt { answer, shared: self.shared.clone() })
    }

    /// Waits until every message has its answer. Fails only if the publisher has failed: the results of the messages are in
    /// their receipts.
    pub async fn flush(&self) -> Result<(), Error> {
        // Each message without an answer holds one permit.
        let all = self.shared.messages.acquire_many(self.shared.window).await;
        all.map(drop).map_err(|_| self.shared.error())
    }

    /// Waits until every message has its answer, and ends the publisher. Returns why the publisher has failed, if it has.
    pub async fn close(mut self) -> Result<(), Error> {
        self.turn.get_mut().take();
        if let Err(error) = (&mut self.task).await
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
        self.shared.failed.get().cloned().map_or(Ok(()), Err)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").finish_non_exhaustive()
    }
}

impl Future for Receipt {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let answer = ready!(Pin::new(&mut self.answer).poll(context));
        Poll::Ready(answer.unwrap_or_else(|_| Err(self.shared.error())))
    }
}

impl Shared {
    fn error(&self) -> Error {
        self.failed.get().cloned().unwrap_or(Error::PublisherEnded)
    }

    fn fail(&self, error: Error) {
        // Only the first error ends the flow.
        let _ = self.failed.set(error);
        self.messages.close();
        self.bytes.close();
    }
}

async fn run(client: Client, mut receiver: mpsc::UnboundedReceiver<Outgoing>, shared: Arc<Shared>) {
    let entries = Arc::new(Mutex::new(VecDeque::new()));
    let taken = entries.clone();
    let messages = stream::poll_fn(move |context| receiver.poll_recv(context)).map(move |outgoing| {
        taken.lock().unwrap_or_else(PoisonError::into_inner).push_back(outgoing.entry);
        outgoing.message
    });
    let mut results = std::pin::pin!(super::stream(client, messages, Start::WithFirstMessage));
    while let Some(result) = results.next().await {
        let answer = match result {
            Ok(result) => answer_of(result),
            Err(error @ Error::OutcomeUnknown { .. }) => Err(error),
            Err(error) => {
                // Receipts that have no answer report it.
                shared.fail(error);
                return;
            }
        };
        let entry: Option<Entry> = entries.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        if let Some(entry) = entry {
            // The caller may have dropped the receipt.
            let _ = entry.receipt.send(answer);
        }
    }
}

fn answer_of(result: PublishResult) -> Answer {
    match result.outcome {
        Some(Outcome::Published(response)) => Ok(response),
        Some(Outcome::Error(error)) => Err(error.into()),
        None => Err(Error::Protocol { fault: "a result is neither a message nor an error" }),
    }
}

//! Publishing: checks messages, queues them, and waits until they are on disk.

use tokio::sync::oneshot;

use super::queue::{Mode, Outcome, Request};
use crate::messages::{BatchError, Error, NewMessage, Published, embedded::Embedded};

/// The future outcome of queued messages.
enum Receipt {
    /// They are queued; the committer answers.
    Queued(oneshot::Receiver<Outcome>),
    /// The log is closed, or there was nothing to queue.
    NotQueued,
}

impl Receipt {
    /// Waits until the messages are on disk or refused.
    async fn results(self) -> Results {
        let results = match self {
            Self::Queued(outcome) => match outcome.await {
                Ok(Outcome::Each(results)) => results,
                Ok(Outcome::Refused { .. }) | Err(_) => Vec::new(),
            },
            Self::NotQueued => Vec::new(),
        };
        Results(results.into_iter())
    }
}

/// The results of queued messages, in order.
struct Results(std::vec::IntoIter<Result<Published, Error>>);

impl Results {
    /// The result of the next message. One without a result was refused because the log is closed.
    fn next(&mut self) -> Result<Published, Error> {
        self.0.next().unwrap_or(Err(Error::Closed))
    }
}

impl Embedded {
    /// Publishes a message. It is on disk when this returns.
    pub async fn publish(&self, message: NewMessage) -> Result<Published, Error> {
        message.check(self.max_message_bytes())?;
        self.publish_own(message).await
    }

    /// Publishes a message without checking it, also to a topic of the server's own.
    pub async fn publish_own(&self, message: NewMessage) -> Result<Published, Error> {
        let receipt = self.queue_each(vec![message]).await;
        receipt.results().await.next()
    }

    /// Publishes messages, each on its own. The returned future yields the result of each, in order.
    pub async fn publish_each(
        &self,
        messages: Vec<NewMessage>,
    ) -> impl Future<Output = Vec<Result<Published, Error>>> + Send + use<> {
        let max_bytes = self.max_message_bytes();
        let count = messages.len();
        let (mut good, mut faults) = (Vec::with_capacity(count), Vec::new());
        for (index, message) in messages.into_iter().enumerate() {
            match message.check(max_bytes) {
                Ok(()) => good.push(message),
                Err(fault) => faults.push((index, fault)),
            }
        }
        let receipt = self.queue_each(good).await;
        async move {
            let (mut results, mut faults) = (receipt.results().await, faults.into_iter().peekable());
            let result = |index| match faults.next_if(|(of, _)| *of == index) {
                Some((_, fault)) => Err(fault),
                None => results.next(),
            };
            (0..count).map(result).collect()
        }
    }

    /// Publishes all messages or none, with consecutive sequences.
    pub async fn publish_batch(&self, messages: Vec<NewMessage>) -> Result<Vec<Published>, BatchError> {
        let max_bytes = self.max_message_bytes();
        for (index, message) in messages.iter().enumerate() {
            message.check(max_bytes).map_err(|error| BatchError { index: Some(index), error })?;
        }
        self.publish_together(messages, Mode::All).await
    }

    /// Publishes all messages or none without checking them, also to topics of the server's own.
    pub async fn publish_own_batch(&self, messages: Vec<NewMessage>) -> Result<Vec<Published>, BatchError> {
        self.publish_together(messages, Mode::Own).await
    }

    async fn publish_together(
        &self,
        messages: Vec<NewMessage>,
        mode: Mode,
    ) -> Result<Vec<Published>, BatchError> {
        let of_all = |error| BatchError { index: None, error };
        let outcome = self.queue(messages, mode).await.map_err(of_all)?;
        match outcome.await.map_err(|_| of_all(Error::Closed))? {
            Outcome::Each(results) => results.into_iter().collect::<Result<_, _>>().map_err(of_all),
            Outcome::Refused { index, error } => Err(BatchError { index: Some(index), error }),
        }
    }

    async fn queue_each(&self, messages: Vec<NewMessage>) -> Receipt {
        if messages.is_empty() {
            return Receipt::NotQueued;
        }
        match self.queue(messages, Mode::Each).await {
            Ok(outcome) => Receipt::Queued(outcome),
            Err(_) => Receipt::NotQueued,
        }
    }

    /// Waits for room in the queue, and queues messages in the order of the calls.
    async fn queue(
        &self,
        messages: Vec<NewMessage>,
        mode: Mode,
    ) -> Result<oneshot::Receiver<Outcome>, Error> {
        let room = self.room.for_messages(&messages).await?;
        let (reply, outcome) = oneshot::channel();
        self.send(Request { messages, mode, reply, room }).await?;
        Ok(outcome)
    }
}

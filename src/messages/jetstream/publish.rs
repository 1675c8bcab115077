//! Publishing to the stream.
//!
//! Every message has an id, so it is published again with that id while the cluster does not answer: a client sees a pause
//! where another leader is chosen, and neither an error nor the message twice. A message is acknowledged when this server's
//! tail has it, so that its publisher can read it here at once.

use std::{sync::Arc, time::Duration, time::SystemTime};

use async_nats::{
    HeaderMap,
    jetstream::{
        context::{PublishAckFuture, PublishError, PublishErrorKind},
        message::PublishMessage,
    },
};
use futures::{FutureExt, future::BoxFuture};
use tokio::time::Instant;

use super::{
    JetStream,
    cluster::{PATIENCE, PAUSE, api_error},
    native::{self, MAX_HEADER_BYTES},
};
use crate::messages::{
    Durability, Error, Expected, NeededRoom, NewMessage, Published, Sequence, Unsupported, topic,
};

/// How long an acknowledgement waits for the tail; after that, the message is read from the stream.
const TAIL_PATIENCE: Duration = Duration::from_secs(2);

/// The times that a message is refused for its expected sequence before the refusal is believed: a leader may not know yet
/// that another one was chosen, or what it has in flight.
const REFUSALS: u32 = 2;

/// The error of JetStream for an expected sequence, with the current one in its text, and without.
const WRONG_LAST: u64 = 10_071;
const WRONG_LAST_IN_FLIGHT: u64 = 10_164;

/// The errors of JetStream for a limit of the stream, of the account or of the disk.
const FULL: [u64; 4] = [10_002, 10_023, 10_047, 10_077];

/// A message that is ready to be sent, as often as it takes.
#[derive(Clone, Debug)]
pub struct Ready {
    pub message: NewMessage,
    pub subject: String,
    pub headers: HeaderMap,
}

/// What an error of JetStream means for the message.
#[derive(Debug)]
pub enum Refusal {
    /// Another publisher was first; the current sequence of the topic, if the error has it.
    Sequence(Option<u64>),
    /// There is no room.
    Full,
    /// It is not known whether it was stored: publish it again.
    Unknown,
}

impl Refusal {
    pub fn of(error: &PublishError) -> Self {
        let Some(of) = api_error(error) else {
            return if error.kind() == PublishErrorKind::MaxPayloadExceeded {
                Self::Full
            } else {
                Self::Unknown
            };
        };
        match of.error_code().0 {
            WRONG_LAST | WRONG_LAST_IN_FLIGHT => Self::Sequence(number_in(&of.to_string())),
            code if FULL.contains(&code) => Self::Full,
            _ => Self::Unknown,
        }
    }
}

/// The number of `wrong last sequence: 5`.
fn number_in(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("wrong last sequence: ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

impl JetStream {
    /// Checks a message, and makes what the stream stores of it.
    pub fn ready(&self, message: NewMessage) -> Result<Ready, Error> {
        message.check(self.max_message_bytes())?;
        self.ready_unchecked(message)
    }

    /// The same for a message of any topic. One of the server's own replaces those before it.
    pub fn ready_own(&self, message: NewMessage) -> Result<Ready, Error> {
        let bytes = message.bytes();
        if bytes > self.max_message_bytes {
            return Err(Error::TooLarge { bytes, limit: self.max_message_bytes });
        }
        let mut ready = self.ready_unchecked(message)?;
        if topic::is_reserved(&ready.message.topic) {
            native::replace(&mut ready.headers);
        }
        Ok(ready)
    }

    fn ready_unchecked(&self, message: NewMessage) -> Result<Ready, Error> {
        let headers = native::headers(&message, &native::id_of(&message));
        if native::header_bytes(&headers) > MAX_HEADER_BYTES {
            return Err(Error::Unsupported(Unsupported::LargeHeaders));
        }
        Ok(Ready { subject: self.cluster.subjects.of(&message.topic), message, headers })
    }

    /// Publishes a message.
    pub async fn publish(&self, message: NewMessage) -> Result<Published, Error> {
        self.check_open()?;
        let ready = self.ready(message)?;
        self.publish_ready(ready).await
    }

    /// Publishes a message of any topic, also when the log is closed.
    pub async fn publish_at_end(&self, message: NewMessage) -> Result<Published, Error> {
        let ready = self.ready_own(message)?;
        self.publish_ready(ready).await
    }

    pub async fn publish_ready(&self, ready: Ready) -> Result<Published, Error> {
        let sent = self.send(&ready).await;
        self.acknowledged(ready, sent).await
    }

    /// Publishes messages, each on its own. Waits for room, and sends the messages in the order of the calls. The returned
    /// future waits until they are stored.
    pub async fn publish_each(
        self: &Arc<Self>,
        messages: Vec<NewMessage>,
    ) -> BoxFuture<'static, Vec<Result<Published, Error>>> {
        let mut results = Vec::with_capacity(messages.len());
        for message in messages {
            let result = match self.check_open().and_then(|()| self.ready(message)) {
                Ok(ready) => {
                    let (log, sent) = (self.clone(), self.send(&ready).await);
                    // Its own task, so that an acknowledgement makes room although the caller still sends.
                    Ok(tokio::spawn(async move { log.acknowledged(ready, sent).await }))
                }
                Err(error) => Err(error),
            };
            results.push(result);
        }
        async move {
            let mut published = Vec::with_capacity(results.len());
            for result in results {
                published.push(match result {
                    Ok(task) => task.await.unwrap_or(Err(Error::Closed)),
                    Err(error) => Err(error),
                });
            }
            published
        }
        .boxed()
    }

    pub(super) async fn send(&self, ready: &Ready) -> Result<PublishAckFuture, PublishError> {
        let message =
            PublishMessage::build().payload(native::payload(&ready.message)).headers(ready.headers.clone());
        self.cluster.context.send_publish(ready.subject.clone(), message).await
    }

    /// Waits for the acknowledgement of a message, and sends it again while the cluster does not answer.
    async fn acknowledged(
        &self,
        mut ready: Ready,
        mut sent: Result<PublishAckFuture, PublishError>,
    ) -> Result<Published, Error> {
        let deadline = Instant::now() + PATIENCE;
        let (mut refusals, mut is_again) = (0, false);
        loop {
            let acknowledged = match sent {
                Ok(acknowledgement) => acknowledgement.await,
                Err(error) => Err(error),
            };
            let error = match acknowledged {
                Ok(acknowledgement) => {
                    let duplicate =
                        acknowledgement.duplicate && !is_again && ready.message.message_id.is_some();
                    return Ok(self.published(acknowledgement.sequence, duplicate).await);
                }
                Err(error) => error,
            };
            match Refusal::of(&error) {
                Refusal::Full => return Err(Error::Full(NeededRoom::default())),
                Refusal::Sequence(current) => {
                    // A stream without replicas looks at ids after the expected sequence.
                    if let Some(sequence) = self.probe(&ready).await? {
                        let duplicate = !is_again && ready.message.message_id.is_some();
                        return Ok(self.published(sequence, duplicate).await);
                    }
                    refusals += 1;
                    if refusals >= REFUSALS {
                        return Err(self.mismatch(&ready.message, current).await);
                    }
                    self.mark().await?;
                    self.expect_anew(&mut ready, current).await;
                }
                Refusal::Unknown => {
                    tracing::debug!(%error, "a message is published again");
                    is_again |= api_error(&error).is_none();
                    tokio::time::sleep(PAUSE).await;
                }
            }
            if Instant::now() > deadline {
                return Err(Error::Unreachable);
            }
            sent = self.send(&ready).await;
        }
    }

    /// The sequence of the message that has the id of this one; `None` if JetStream does not know the id. Stores nothing.
    pub(super) async fn probe(&self, ready: &Ready) -> Result<Option<u64>, Error> {
        let headers = native::probe(&ready.headers, self.durability() == Durability::Replicated);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let probe = PublishMessage::build().headers(headers.clone());
            let answer = match self.cluster.context.send_publish(ready.subject.clone(), probe).await {
                Ok(acknowledgement) => acknowledgement.await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(acknowledged) => return Ok(Some(acknowledged.sequence)),
                Err(error) if error.kind() == PublishErrorKind::WrongLastMessageId => return Ok(None),
                Err(error) if matches!(Refusal::of(&error), Refusal::Sequence(_)) => return Ok(None),
                Err(error) => tracing::debug!(%error, "an id is asked for again"),
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(Error::Unreachable)
    }

    /// Makes a message that is expected to begin its topic follow one that has expired, and that JetStream still has.
    async fn expect_anew(&self, ready: &mut Ready, current: Option<u64>) {
        let (Expected::Empty, Some(current)) = (ready.message.expected, current) else { return };
        let Ok(range) = self.history.read(&self.cluster, current, current).await else { return };
        let now = self.now();
        let last = range.messages.iter().find(|message| message.sequence == current);
        if last.is_some_and(|last| last.expires != 0 && last.expires <= now) {
            native::expect(&mut ready.headers, current);
        }
    }

    /// The error of a message that came second.
    pub(super) async fn mismatch(&self, message: &NewMessage, current: Option<u64>) -> Error {
        let current = match current {
            Some(current) => current,
            None => self.last_of(&message.topic).await.unwrap_or(0),
        };
        let expected = match message.expected {
            Expected::Any | Expected::Empty => None,
            Expected::Last(sequence) => Some(sequence),
        };
        Error::SequenceMismatch { expected, current: Sequence::new(current) }
    }

    /// The acknowledgement of a message that is stored, when the tail has it.
    pub(super) async fn published(&self, sequence: u64, duplicate: bool) -> Published {
        let _ = tokio::time::timeout(TAIL_PATIENCE, self.tail.reached(sequence)).await;
        let time = match self.tail.find(sequence).as_ref().map(native::Stored::published) {
            Some(time) => time,
            None => self.stored_time(sequence).await,
        };
        Published { sequence: Sequence::of_message(sequence), time, duplicate }
    }

    /// When a message was stored. One that has expired meanwhile has no time any more: then it is now.
    async fn stored_time(&self, sequence: u64) -> SystemTime {
        let range = self.history.read(&self.cluster, sequence, sequence).await;
        let found = range.ok().and_then(|range| {
            range.messages.iter().find(|message| message.sequence == sequence).map(native::Stored::published)
        });
        found.unwrap_or_else(SystemTime::now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_sequence_is_read_from_the_error() {
        assert_eq!(number_in("wrong last sequence: 57 (code 400, error code 10071)"), Some(57));
        assert_eq!(number_in("wrong last sequence (code 400, error code 10164)"), None);
    }
}

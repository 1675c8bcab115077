//! Batches that are published as a whole, by JetStream's atomic batches (ADR-50).
//!
//! A batch that was perhaps stored before its acknowledgement was lost is known by the ids of its messages: JetStream
//! refuses the repeated batch, and a probe of each id, which stores nothing, says which message has it.

use std::collections::BTreeMap;

use async_nats::jetstream::{context::PublishError, message::PublishMessage, publish::PublishAck};
use tokio::time::Instant;

use super::{
    JetStream,
    cluster::{PATIENCE, PAUSE, api_error},
    native,
    publish::{Ready, Refusal},
};
use crate::messages::{BatchError, Error, Expected, NeededRoom, NewMessage, Published, Unsupported};

/// The most messages of an atomic batch.
pub const MAX_BATCH: usize = 1_000;

const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";

/// A message, and its place among those that the caller gave.
#[derive(Debug)]
struct Placed {
    place: usize,
    ready: Ready,
}

impl JetStream {
    /// Publishes all messages or none, with consecutive sequences.
    pub async fn publish_batch(&self, messages: Vec<NewMessage>) -> Result<Vec<Published>, BatchError> {
        self.publish_together(messages, Self::ready).await
    }

    /// Publishes all messages or none; `ready` checks one, and makes what the stream stores of it.
    pub async fn publish_together(
        &self,
        messages: Vec<NewMessage>,
        ready_one: impl Fn(&Self, NewMessage) -> Result<Ready, Error>,
    ) -> Result<Vec<Published>, BatchError> {
        let of_all = |error| BatchError { index: None, error };
        self.check_open().map_err(of_all)?;
        let mut ready = Vec::with_capacity(messages.len());
        for (index, message) in messages.into_iter().enumerate() {
            let of_one = |error| BatchError { index: Some(index), error };
            let next = ready_one(self, message).map_err(of_one)?;
            let is_second = ready.iter().any(|before: &Ready| before.subject == next.subject);
            if is_second && next.message.expected != Expected::Any {
                return Err(of_one(Error::Unsupported(Unsupported::ExpectedInBatch)));
            }
            let is_repeated = next.message.message_id.is_some()
                && ready.iter().any(|before| {
                    before.subject == next.subject && before.message.message_id == next.message.message_id
                });
            if is_repeated {
                return Err(of_one(Error::Unsupported(Unsupported::RepeatedInBatch)));
            }
            ready.push(next);
        }
        if ready.len() > MAX_BATCH {
            return Err(of_all(Error::Unsupported(Unsupported::LargeBatch)));
        }
        self.publish_all(
            ready.into_iter().enumerate().map(|(place, ready)| Placed { place, ready }).collect(),
        )
        .await
    }

    async fn publish_all(&self, mut left: Vec<Placed>) -> Result<Vec<Published>, BatchError> {
        let of_all = |error| BatchError { index: None, error };
        let mut stored = BTreeMap::new();
        let deadline = Instant::now() + PATIENCE;
        let mut is_again = false;
        while !left.is_empty() {
            let error = match self.commit(&left).await {
                Ok(acknowledged) => {
                    let first = acknowledged.sequence + 1 - left.len() as u64;
                    stored.extend(
                        left.iter().zip(first..).map(|(placed, sequence)| (placed.place, (sequence, false))),
                    );
                    break;
                }
                Err(error) => error,
            };
            match Refusal::of(&error) {
                Refusal::Full => return Err(of_all(Error::Full(NeededRoom::default()))),
                Refusal::Sequence(_) => {
                    self.mark().await.map_err(of_all)?;
                    // An id is looked at before the expected sequence.
                    let known = self.take_known(&mut left, is_again).await.map_err(of_all)?;
                    if !known.is_empty() {
                        stored.extend(known);
                        continue;
                    }
                    if let Some((place, error)) = self.first_mismatch(&left).await {
                        return Err(BatchError { index: Some(place), error });
                    }
                }
                // A batch that has an id that is known is refused, too.
                Refusal::Unknown => {
                    tracing::debug!(%error, "a batch is published again");
                    is_again |= api_error(&error).is_none();
                    tokio::time::sleep(PAUSE).await;
                    stored.extend(self.take_known(&mut left, is_again).await.map_err(of_all)?);
                }
            }
            if Instant::now() > deadline {
                return Err(of_all(Error::Unreachable));
            }
        }
        let mut results = Vec::with_capacity(stored.len());
        for (sequence, duplicate) in stored.into_values() {
            results.push(self.published(sequence, duplicate).await);
        }
        Ok(results)
    }

    /// Sends a batch, and waits for the acknowledgement of its last message. A batch of one is a plain message.
    async fn commit(&self, batch: &[Placed]) -> Result<PublishAck, PublishError> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        for (Placed { ready, .. }, number) in batch.iter().zip(1..) {
            let mut headers = ready.headers.clone();
            let is_last = number == batch.len();
            if batch.len() > 1 {
                headers.insert(BATCH_ID, id.as_str());
                headers.insert(BATCH_SEQUENCE, number.to_string());
                if is_last {
                    headers.insert(BATCH_COMMIT, "1");
                }
            }
            let (subject, payload) = (ready.subject.clone(), native::payload(&ready.message));
            if is_last {
                let message = PublishMessage::build().payload(payload).headers(headers);
                return self.cluster.context.send_publish(subject, message).await?.await;
            }
            // If one is lost, the commit is refused.
            let sent = self.cluster.client.publish_with_headers(subject, headers, payload).await;
            if let Err(error) = sent {
                tracing::debug!(%error, "a message of a batch was not sent");
            }
        }
        Err(PublishError::new(async_nats::jetstream::context::PublishErrorKind::Other))
    }

    /// Takes the messages out of a batch whose ids JetStream knows, and returns them with their sequences. One that may have
    /// been sent before is no duplicate.
    async fn take_known(
        &self,
        left: &mut Vec<Placed>,
        is_again: bool,
    ) -> Result<Vec<(usize, (u64, bool))>, Error> {
        let (mut known, mut rest) = (Vec::new(), Vec::new());
        for placed in left.drain(..) {
            match self.probe(&placed.ready).await? {
                Some(sequence) => {
                    let duplicate = !is_again && placed.ready.message.message_id.is_some();
                    known.push((placed.place, (sequence, duplicate)));
                }
                None => rest.push(placed),
            }
        }
        *left = rest;
        Ok(known)
    }

    /// The first message of a batch whose topic does not hold what it expects.
    async fn first_mismatch(&self, batch: &[Placed]) -> Option<(usize, Error)> {
        for Placed { place, ready } in batch {
            let expected = match ready.message.expected {
                Expected::Any => continue,
                Expected::Empty => 0,
                Expected::Last(sequence) => sequence.get(),
            };
            let current = self.last_of(&ready.message.topic).await.unwrap_or(0);
            if current != expected {
                return Some((*place, self.mismatch(&ready.message, Some(current)).await));
            }
        }
        None
    }
}

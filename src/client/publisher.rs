//! A flow of messages over many connections.
//!
//! Promises one result a message, in order. A message keeps its id over all attempts, so the server knows it again:
//! what was published before a connection was lost is answered, not published, the second time.

use std::{collections::VecDeque, pin::Pin};

use async_stream::try_stream;
use futures::{FutureExt, Stream, StreamExt, stream::Fuse};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use uuid::Uuid;

use super::{Client, Error, resume::Waits};
use crate::proto::{PublishRequest, PublishResult, PublishStreamRequest, PublishStreamResponse};

/// Unanswered messages: what the server's own default window takes, less what may be under way to it.
const WINDOW_MESSAGES: usize = 8_192;
/// Unanswered bytes, but for one message: what a client may hold for the sake of sending it again.
const WINDOW_BYTES: usize = 16 * 1024 * 1024;
/// Of a frame: far under the contract's 10,000, so that the first answers are not held up by the last message.
const FRAME_MESSAGES: usize = 1_024;
/// Of a frame, but for one message: larger ones gain nothing.
const FRAME_BYTES: usize = 256 * 1024;
/// Frames ready for the transport: one in its hands, one behind it. More would only make smaller frames.
const FRAMES_READY: usize = 1;

pub(super) fn stream(
    client: Client,
    messages: impl Stream<Item = PublishRequest> + Send,
) -> impl Stream<Item = Result<PublishResult, Error>> + Send {
    try_stream!({
        let mut flow = Flow::new(client, Box::pin(messages.fuse()));
        while let Some(results) = flow.next().await? {
            for result in results {
                yield result;
            }
        }
    })
}

struct Flow<S> {
    client: Client,
    messages: Pin<Box<Fuse<S>>>,
    ids: Ids,
    /// In order; the first `sent` of them went out on the connection that is open.
    unanswered: VecDeque<PublishRequest>,
    unanswered_bytes: usize,
    sent: usize,
    open: Option<Open>,
    waits: Waits,
}

struct Open {
    frames: mpsc::Sender<PublishStreamRequest>,
    answers: Streaming<PublishStreamResponse>,
}

enum Step {
    Answer(Result<Option<PublishStreamResponse>, Status>),
    Message(Option<PublishRequest>),
    Sent,
}

impl<S: Stream<Item = PublishRequest> + Send> Flow<S> {
    fn new(client: Client, messages: Pin<Box<Fuse<S>>>) -> Self {
        let waits = Waits::new(client.observer.clone());
        Self {
            client,
            messages,
            ids: Ids::new(),
            unanswered: VecDeque::new(),
            unanswered_bytes: 0,
            sent: 0,
            open: None,
            waits,
        }
    }

    /// Some results, or none after the last message was answered.
    async fn next(&mut self) -> Result<Option<Vec<PublishResult>>, Error> {
        loop {
            let step = match self.step().await {
                Ok(Some(step)) => step,
                Ok(None) => return Ok(None),
                Err(status) => {
                    self.refused(&status).await?;
                    continue;
                }
            };
            match step {
                Step::Answer(Ok(Some(answer))) => {
                    self.answered(answer.results.len());
                    return Ok(Some(answer.results));
                }
                // The server owes an answer or more: this is how a connection that was cut may look.
                Step::Answer(Ok(None)) => self.lost(Error::EndedEarly).await?,
                Step::Answer(Err(status)) => self.refused(&status).await?,
                Step::Message(Some(message)) => self.take(message),
                Step::Message(None) | Step::Sent => {}
            }
        }
    }

    async fn step(&mut self) -> Result<Option<Step>, Status> {
        if self.messages.is_done() && self.unanswered.is_empty() {
            return Ok(None);
        }
        if self.open.is_none() {
            self.open().await?;
        }
        let room = self.has_room() && !self.messages.is_done();
        let Some(Open { frames, answers }) = &mut self.open else { return Ok(None) };
        let step = tokio::select! {
            biased;
            answer = answers.message() => Step::Answer(answer),
            frame = frames.reserve(), if self.sent < self.unanswered.len() => {
                // A closed channel is told by the answers, with the reason.
                let Ok(frame) = frame else { return Ok(Some(Step::Answer(answers.message().await))) };
                let messages = next_frame(&self.unanswered, self.sent);
                self.sent += messages.len();
                frame.send(PublishStreamRequest { messages });
                Step::Sent
            }
            message = self.messages.next(), if room => Step::Message(message),
        };
        Ok(Some(step))
    }

    async fn open(&mut self) -> Result<(), Status> {
        let (frames, receiver) = mpsc::channel(FRAMES_READY);
        let answers = self.client.message_client().publish_stream(ReceiverStream::new(receiver)).await?;
        self.waits.answered();
        self.open = Some(Open { frames, answers: answers.into_inner() });
        Ok(())
    }

    async fn refused(&mut self, status: &Status) -> Result<(), Error> {
        let error = Error::from_status(status, &self.client.url);
        self.lost(error).await
    }

    async fn lost(&mut self, error: Error) -> Result<(), Error> {
        self.open = None;
        self.sent = 0;
        self.waits.wait_out(error).await
    }

    fn has_room(&self) -> bool {
        self.unanswered.len() < WINDOW_MESSAGES && self.unanswered_bytes < WINDOW_BYTES
    }

    /// Takes a message and those that are ready behind it, so that they share a frame.
    fn take(&mut self, message: PublishRequest) {
        let mut next = Some(message);
        while let Some(mut message) = next {
            message.message_id.get_or_insert_with(|| self.ids.next());
            self.unanswered_bytes += message.encoded_len();
            self.unanswered.push_back(message);
            next = if self.has_room() { self.messages.next().now_or_never().flatten() } else { None };
        }
    }

    fn answered(&mut self, results: usize) {
        self.waits.delivered();
        let results = results.min(self.unanswered.len());
        let bytes = self.unanswered.drain(..results).map(|message| message.encoded_len()).sum::<usize>();
        self.unanswered_bytes = self.unanswered_bytes.saturating_sub(bytes);
        self.sent = self.sent.saturating_sub(results);
    }
}

fn next_frame(unanswered: &VecDeque<PublishRequest>, sent: usize) -> Vec<PublishRequest> {
    let mut bytes = 0;
    let fits = |message: &&PublishRequest| {
        let first = bytes == 0;
        bytes += message.encoded_len().max(1);
        first || bytes <= FRAME_BYTES
    };
    unanswered.iter().skip(sent).take(FRAME_MESSAGES).take_while(fits).cloned().collect()
}

/// Ids that no other flow makes: one UUID, and a number a message.
struct Ids {
    flow: Uuid,
    next: u64,
}

impl Ids {
    fn new() -> Self {
        Self { flow: Uuid::now_v7(), next: 0 }
    }

    fn next(&mut self) -> String {
        self.next += 1;
        format!("{}-{}", self.flow.simple(), self.next)
    }
}

#[cfg(test)]
mod tests;

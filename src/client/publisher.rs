//! A flow of messages over many connections.
//!
//! Promises one result per message, in order. A message keeps its id over all attempts, so the server recognizes it: a
//! message that was published before the connection was lost is answered the second time, and not published again.

use std::{pin::Pin, time::Duration};

use async_stream::try_stream;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, stream::Fuse};
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming, client::Grpc};
use uuid::Uuid;

use super::{Client, Error, MAX_RESPONSE_BYTES, resume::Waits};
use crate::proto::{PublishRequest, PublishResult, PublishStreamResponse};
use codec::FrameCodec;
use frames::Frames;

mod codec;
mod frames;

/// The default window: the messages that the server's own window takes, minus those that may be on their way.
pub(super) const WINDOW_MESSAGES: usize = 8_192;
/// Frames that wait for the transport, beside the one that it sends. More would only make the frames smaller.
const FRAMES_READY: usize = 1;
/// How long the end of an answered call is awaited.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

const METHOD: &str = "/perennial.v1.MessageService/PublishStream";

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
    unanswered: Frames,
    open: Option<Open>,
    waits: Waits,
}

struct Open {
    frames: mpsc::Sender<Bytes>,
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
        let unanswered = Frames::new(client.publish_window);
        Self { client, messages, ids: Ids::new(), unanswered, open: None, waits }
    }

    /// The next results, or `None` after the last message was answered.
    async fn next(&mut self) -> Result<Option<Vec<PublishResult>>, Error> {
        loop {
            let step = match self.step().await {
                Ok(Some(step)) => step,
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.lost(error).await?;
                    continue;
                }
            };
            match step {
                Step::Answer(Ok(Some(answer))) => {
                    self.waits.delivered();
                    if !self.unanswered.answered(answer.results.len()) {
                        return Err(Error::Protocol { fault: "it answered messages that it did not get" });
                    }
                    return Ok(Some(answer.results));
                }
                // Answers are missing: a cut connection may look like this.
                Step::Answer(Ok(None)) => self.lost(Error::EndedEarly).await?,
                Step::Answer(Err(status)) => self.failed(&status).await?,
                Step::Message(Some(message)) => self.take(message),
                Step::Message(None) | Step::Sent => {}
            }
        }
    }

    async fn step(&mut self) -> Result<Option<Step>, Error> {
        if self.messages.is_done() && self.unanswered.is_empty() {
            self.close().await;
            return Ok(None);
        }
        if self.open.is_none() {
            self.open().await?;
        }
        let room = self.unanswered.has_room() && !self.messages.is_done();
        let Some(Open { frames, answers }) = &mut self.open else { return Ok(None) };
        let step = tokio::select! {
            biased;
            answer = answers.message() => Step::Answer(answer),
            frame = frames.reserve(), if self.unanswered.is_ready() => {
                // If the channel is closed, the answers report the reason.
                let Ok(frame) = frame else { return Ok(Some(Step::Answer(answers.message().await))) };
                if let Some(bytes) = self.unanswered.send() {
                    frame.send(bytes);
                }
                Step::Sent
            }
            message = self.messages.next(), if room => Step::Message(message),
        };
        Ok(Some(step))
    }

    async fn open(&mut self) -> Result<(), Error> {
        let (frames, receiver) = mpsc::channel(FRAMES_READY);
        let mut grpc = Grpc::new(self.client.channel.clone()).max_decoding_message_size(MAX_RESPONSE_BYTES);
        grpc.ready().await.map_err(|error| self.client.server().unreachable(error.to_string()))?;
        let request = Request::new(ReceiverStream::new(receiver));
        let answers = grpc.streaming(request, PathAndQuery::from_static(METHOD), FrameCodec).await;
        let answers = answers.map_err(|status| self.client.server().error(&status))?;
        self.waits.answered();
        self.open = Some(Open { frames, answers: answers.into_inner() });
        Ok(())
    }

    /// Ends the call after the last answer. The server counts a call that is dropped as one whose client went away.
    async fn close(&mut self) {
        let Some(Open { frames, mut answers }) = self.open.take() else { return };
        drop(frames);
        // Every message is answered, so an error of the connection changes no result.
        let _ = tokio::time::timeout(CLOSE_LIMIT, answers.message()).await;
    }

    /// Reconnects after a failed call.
    async fn failed(&mut self, status: &Status) -> Result<(), Error> {
        let error = self.client.server().error(status);
        self.lost(error).await
    }

    /// Waits before the next attempt, which sends every unanswered message again; or returns the error.
    async fn lost(&mut self, error: Error) -> Result<(), Error> {
        self.open = None;
        self.unanswered.rewind();
        self.waits.wait_out(error).await
    }

    /// Takes a message and those that are ready after it, so that they share a frame.
    fn take(&mut self, message: PublishRequest) {
        let mut next = Some(message);
        while let Some(mut message) = next {
            message.message_id.get_or_insert_with(|| self.ids.next());
            let is_frame_full = self.unanswered.push(&message);
            let continues = !is_frame_full && self.unanswered.has_room();
            next = if continues { self.messages.next().now_or_never().flatten() } else { None };
        }
    }
}

/// Ids that no other flow makes: one UUID for the flow, and a number for each message.
struct Ids {
    /// The UUID in base64. The server keeps each id for a while, so they are short.
    flow: String,
    next: u64,
}

impl Ids {
    fn new() -> Self {
        Self { flow: URL_SAFE_NO_PAD.encode(Uuid::now_v7().as_bytes()), next: 0 }
    }

    fn next(&mut self) -> String {
        self.next += 1;
        format!("{}-{}", self.flow, self.next)
    }
}

#[cfg(test)]
mod tests;

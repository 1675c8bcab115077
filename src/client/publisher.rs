//! A flow of messages over many connections.
//!
//! Promises one result per message, in order. A message keeps its id over all attempts, so the server recognizes it: a
//! message that was published before the connection was lost is answered the second time, and not published again.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_stream::stream;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::Fuse};
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Streaming, client::Grpc};
use uuid::Uuid;

use super::{
    Client, Error, MAX_RESPONSE_BYTES,
    connect::Server,
    connections::Connection,
    waits::{Limits, Waits},
};
use crate::proto::{PublishRequest, PublishResult, PublishStreamResponse};
use codec::FrameCodec;
use frames::Frames;

mod codec;
mod frames;
mod handle;

pub use handle::{Publisher, Receipt};

/// The default window: the messages that the server's own window takes, minus those that may be on their way.
pub(super) const WINDOW_MESSAGES: usize = 8_192;
/// Frames that wait for the transport, beside the one that it sends. More would only make the frames smaller.
const FRAMES_READY: usize = 1;
/// How long the end of an answered call is awaited.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Without an answer for this time, the connection is lost.
const SILENCE: Duration = Duration::from_secs(30);
/// A call may take longer by this until it is accepted, because the connection is made before.
const CONNECT_ALLOWANCE: Duration = Duration::from_secs(10);
/// How long the server knows an id by default.
pub(super) const DEDUPE_WINDOW: Duration = Duration::from_secs(120);
/// The transport may hold a message that it was given until the call ends, so a call ends this long before the server
/// forgets the id of a message that the call has sent again; clocks and the disk need some time, too.
const DEDUPE_LAST: Duration = Duration::from_secs(10);
/// A message is sent again only if there is the time for an answer before.
const DEDUPE_MARGIN: Duration = SILENCE.saturating_add(DEDUPE_LAST);

const METHOD: &str = "/perennial.v1.MessageService/PublishStream";

/// When a flow connects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Start {
    /// At once, so that a server that is away is noticed before the first message.
    AtOnce,
    /// With the first message, and after a lost connection with the next one.
    WithFirstMessage,
}

/// The results of messages. [`Error::OutcomeUnknown`] is one of them; any other error is the last item.
pub(super) fn stream(
    client: Client,
    messages: impl Stream<Item = PublishRequest> + Send,
    start: Start,
) -> impl Stream<Item = Result<PublishResult, Error>> + Send {
    stream!({
        let mut flow = Flow::new(client, Box::pin(messages.fuse()), start);
        loop {
            match flow.next().await {
                Ok(Some(results)) => {
                    for result in results {
                        yield result;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    yield Err(error);
                    break;
                }
            }
        }
    })
}

struct Flow<S> {
    client: Client,
    messages: Pin<Box<Fuse<S>>>,
    ids: Ids,
    unanswered: Frames,
    start: Start,
    open: Option<Open>,
    /// When the connection is lost if no answer has come.
    silent_at: Instant,
    waits: Waits,
}

struct Open {
    connection: Connection,
    frames: mpsc::Sender<Bytes>,
    /// The frames that were put into the channel, and those that the transport has taken out.
    given: usize,
    taken: Arc<AtomicUsize>,
    answers: Answers,
}

/// The server's side of a call. Messages are sent before it is there.
enum Answers {
    Opening(BoxFuture<'static, Result<Streaming<PublishStreamResponse>, Error>>),
    Open(Box<Streaming<PublishStreamResponse>>),
}

enum Step {
    Opened,
    Answer(Option<PublishStreamResponse>),
    Message(Option<PublishRequest>),
    Sent,
}

impl Answers {
    async fn next(&mut self, server: &Server) -> Result<Step, Error> {
        match self {
            Self::Opening(opening) => {
                *self = Self::Open(Box::new(opening.as_mut().await?));
                Ok(Step::Opened)
            }
            Self::Open(answers) => {
                answers.message().await.map(Step::Answer).map_err(|status| server.error(&status))
            }
        }
    }
}

/// Results of messages, in their order.
type Results = Vec<Result<PublishResult, Error>>;

impl<S: Stream<Item = PublishRequest> + Send> Flow<S> {
    fn new(client: Client, messages: Pin<Box<Fuse<S>>>, start: Start) -> Self {
        let limits = Limits { connect: client.connect_timeout, outage: None };
        let waits = Waits::new(client.observer.clone(), limits);
        let resend_limit = client.dedupe_window.saturating_sub(DEDUPE_MARGIN);
        let unanswered = Frames::new(client.publish_window, resend_limit);
        let silent_at = Instant::now();
        Self { client, messages, ids: Ids::new(), unanswered, start, open: None, silent_at, waits }
    }

    /// The next results, or `None` after the last message was answered.
    async fn next(&mut self) -> Result<Option<Results>, Error> {
        loop {
            let step = match self.step().await {
                Ok(Some(step)) => step,
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.lost(error).await?;
                    continue;
                }
            };
            let results = match step {
                Step::Answer(Some(answer)) => self.answered(answer)?,
                // Answers are missing: a cut connection may look like this.
                Step::Answer(None) => {
                    self.lost(Error::EndedEarly).await?;
                    continue;
                }
                Step::Opened => {
                    self.waits.answered();
                    continue;
                }
                Step::Message(Some(message)) => {
                    self.take(message);
                    continue;
                }
                Step::Sent => self.unanswered.forgotten().into_iter().map(Err).collect(),
                Step::Message(None) => continue,
            };
            if !results.is_empty() {
                return Ok(Some(results));
            }
        }
    }

    /// Takes an answer of the server.
    fn answered(&mut self, answer: PublishStreamResponse) -> Result<Results, Error> {
        self.waits.delivered();
        self.silent_at = Instant::now() + SILENCE;
        let mut results = Results::with_capacity(answer.results.len());
        for result in answer.results {
            results.extend(self.unanswered.forgotten().into_iter().map(Err));
            if !self.unanswered.answered() {
                return Err(Error::Protocol { fault: "it answered messages that it did not get" });
            }
            results.push(Ok(result));
        }
        results.extend(self.unanswered.forgotten().into_iter().map(Err));
        Ok(results)
    }

    async fn step(&mut self) -> Result<Option<Step>, Error> {
        let is_over = self.messages.is_done() && self.unanswered.is_empty();
        if self.open.is_none() && !is_over {
            if self.start == Start::WithFirstMessage && self.unanswered.is_empty() {
                return Ok(Some(Step::Message(self.messages.next().await)));
            }
            self.open();
        }
        let server = self.client.connections.server();
        let room = self.unanswered.has_room() && !self.messages.is_done();
        // Answers to the messages before may still come, so silence does not end the call.
        let known = self.client.dedupe_window.saturating_sub(DEDUPE_LAST);
        let forgotten_at = self.unanswered.oldest_sent_again().map(|sent| Instant::from_std(sent + known));
        let Some(Open { frames, given, answers, .. }) = &mut self.open else { return Ok(None) };
        if is_over {
            if matches!(answers, Answers::Opening(_)) {
                return answers.next(server).await.map(Some);
            }
            self.close().await;
            return Ok(None);
        }
        let step = tokio::select! {
            biased;
            step = answers.next(server) => step?,
            frame = frames.reserve(), if self.unanswered.is_ready() => {
                // If the channel is closed, the answers report the reason.
                let Ok(frame) = frame else { return answers.next(server).await.map(Some) };
                if !self.unanswered.awaits_answer() {
                    self.silent_at = Instant::now() + SILENCE;
                }
                if let Some(bytes) = self.unanswered.send() {
                    frame.send(bytes);
                    *given += 1;
                }
                Step::Sent
            }
            message = self.messages.next(), if room => Step::Message(message),
            () = tokio::time::sleep_until(self.silent_at), if self.unanswered.awaits_answer() => {
                return Err(Error::Silent { waited: SILENCE });
            }
            () = tokio::time::sleep_until(forgotten_at.unwrap_or(self.silent_at)), if forgotten_at.is_some() => {
                return Err(Error::Silent { waited: known });
            }
        };
        Ok(Some(step))
    }

    fn open(&mut self) {
        self.waits.begin();
        let connection = self.client.connections.current();
        let (frames, receiver) = mpsc::channel(FRAMES_READY);
        let taken = Arc::new(AtomicUsize::new(0));
        let count = taken.clone();
        // The transport asks for a frame when it has a connection.
        let sent = ReceiverStream::new(receiver).inspect(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let wait = SILENCE + CONNECT_ALLOWANCE;
        let wait = self.waits.rest().map_or(wait, |rest| wait.min(rest));
        let (client, channel) = (self.client.clone(), connection.channel.clone());
        let opening = async move {
            let server = client.connections.server();
            let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES);
            let answers = async {
                grpc.ready().await.map_err(|error| server.unreachable(error.to_string()))?;
                let method = PathAndQuery::from_static(METHOD);
                let answers = grpc.streaming(Request::new(sent), method, FrameCodec).await;
                answers.map_err(|status| server.error(&status))
            };
            let silent = Err(Error::Silent { waited: wait });
            tokio::time::timeout(wait, answers).await.unwrap_or(silent).map(Response::into_inner)
        };
        let answers = Answers::Opening(Box::pin(opening));
        self.open = Some(Open { connection, frames, given: 0, taken, answers });
    }

    /// Ends the call after the last answer. The server counts a call that is dropped as one whose client went away.
    async fn close(&mut self) {
        let Some(Open { frames, mut answers, .. }) = self.open.take() else { return };
        drop(frames);
        // Every message is answered, so an error of the connection changes no result.
        let _ = tokio::time::timeout(CLOSE_LIMIT, answers.next(self.client.connections.server())).await;
    }

    /// Waits before the next attempt, which sends every unanswered message again; or returns the error.
    async fn lost(&mut self, error: Error) -> Result<(), Error> {
        if let Some(open) = self.open.take() {
            if matches!(error, Error::Silent { .. }) {
                self.client.connections.retire(&open.connection);
            }
            self.unanswered.rewind(open.given.saturating_sub(open.taken.load(Ordering::Relaxed)));
        }
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

//! The body of a request on its way to tonic.
//!
//! tonic reserves the length that a message announces, before a byte of it has arrived. So this body holds a message
//! back until it is complete, in a buffer that grows with the bytes that arrive and that the connection and the server
//! bound together. It also ends a request whose deadline passes, whose client sends nothing for too long or sends too
//! slowly, or whose connection ends.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

use super::{elements, method::Method};
use crate::grpc::{
    call::Part,
    status::{self, Failure},
};

/// The bytes before each message: a flag and the length of the message.
const PREFIX_BYTES: usize = 5;

/// A message must be complete after this many times the limit of a stall, however its bytes come.
const STALLS_OF_A_MESSAGE: u32 = 4;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The limits on the time of a request.
#[derive(Debug)]
pub struct Limits {
    /// When the time that the caller allows is over.
    pub deadline: Option<Instant>,
    /// The client may send nothing for this long while its request is not complete.
    pub stall: Duration,
    /// Cancelled when the connection must end.
    pub ends: CancellationToken,
}

/// The body of a request, which gives only complete messages.
pub struct Intake<B> {
    body: B,
    method: Arc<Method>,
    limits: Limits,
    /// The beginning of a message.
    partial: BytesMut,
    /// The bytes of `partial`.
    part: Part,
    /// Bytes after a message that was given.
    rest: Bytes,
    /// Whether a message was given.
    has_given: bool,
    /// The next bytes begin a message of a stream: `slow` is set again.
    is_new_message: bool,
    is_over: bool,
    /// Made when the body first has nothing.
    wait: Option<Box<Wait>>,
}

/// The wait for more bytes.
struct Wait {
    deadline: Option<Pin<Box<Sleep>>>,
    stall: Pin<Box<Sleep>>,
    /// When the message that arrives must be complete.
    slow: Pin<Box<Sleep>>,
    ends: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<B> Intake<B> {
    /// Wraps the body of a request.
    pub fn new(body: B, method: Arc<Method>, part: Part, limits: Limits) -> Self {
        let is_new_message = method.is_request_stream;
        Self {
            body,
            method,
            limits,
            partial: BytesMut::new(),
            part,
            rest: Bytes::new(),
            has_given: false,
            is_new_message,
            is_over: false,
            wait: None,
        }
    }

    /// Takes bytes that arrived. Gives messages that are now complete.
    fn take(&mut self, mut bytes: Bytes) -> Result<Option<Bytes>, Failure> {
        if self.partial.is_empty() {
            let mut complete = 0;
            while let Some(length) = bytes.get(complete..).and_then(length) {
                match self.whole(bytes.get(complete..).unwrap_or_default(), length) {
                    Ok(Some(message)) => complete += message,
                    // The messages before the fault go first.
                    Err(failure) if complete == 0 => return Err(failure),
                    Ok(None) | Err(_) => break,
                }
            }
            if complete > 0 {
                self.rest = bytes.split_off(complete);
                return Ok(Some(bytes));
            }
        }
        while !bytes.is_empty() {
            let needed = match length(&self.partial) {
                None => PREFIX_BYTES,
                Some(length) => {
                    self.check(length)?;
                    PREFIX_BYTES + length
                }
            };
            let more = bytes.len().min(needed - self.partial.len());
            self.partial.extend_from_slice(bytes.get(..more).unwrap_or_default());
            bytes.advance(more);
            self.part.resize(self.partial.capacity())?;
            let length = length(&self.partial);
            let Some(length) = length else { continue };
            let partial = std::mem::take(&mut self.partial);
            if self.whole(&partial, length)?.is_some() {
                self.part.resize(0)?;
                self.rest = bytes;
                return Ok(Some(partial.freeze()));
            }
            self.partial = partial;
        }
        Ok(None)
    }

    /// The size of the message of this length at the beginning of `bytes`; `None` if it is not complete.
    fn whole(&mut self, bytes: &[u8], length: usize) -> Result<Option<usize>, Failure> {
        self.check(length)?;
        let Some(message) = bytes.get(PREFIX_BYTES..PREFIX_BYTES + length) else { return Ok(None) };
        elements::check(message, &self.method.fields).map_err(|excess| {
            status::too_many_elements(&excess.field, excess.noun, excess.count, excess.limit)
        })?;
        self.has_given = true;
        // A request that is not a stream has one message, and its end must come, too.
        self.is_new_message = self.method.is_request_stream;
        Ok(Some(PREFIX_BYTES + length))
    }

    /// Checks the length of a message and whether there may be one.
    fn check(&self, length: usize) -> Result<(), Failure> {
        if self.has_given && !self.method.is_request_stream {
            return Err(status::malformed("has more than one message: this method takes one"));
        }
        let limit = self.method.max_bytes;
        if length > limit { Err(status::too_large(length, limit)) } else { Ok(()) }
    }

    /// Whether a client that sends nothing keeps the server waiting.
    fn is_awaited(&self) -> bool {
        !self.method.is_request_stream || !self.partial.is_empty()
    }

    /// Why the request must end although more bytes may come.
    fn interruption(&mut self, context: &mut Context<'_>) -> Option<Failure> {
        let (is_awaited, is_request_stream) = (self.is_awaited(), self.method.is_request_stream);
        let Limits { deadline, stall, ends } = &self.limits;
        let wait = self.wait.get_or_insert_with(|| {
            Box::new(Wait {
                deadline: deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline))),
                stall: Box::pin(tokio::time::sleep(*stall)),
                slow: Box::pin(tokio::time::sleep(stall.saturating_mul(STALLS_OF_A_MESSAGE))),
                ends: Box::pin(ends.clone().cancelled_owned()),
            })
        });
        if wait.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(context).is_ready()) {
            return Some(status::deadline_exceeded());
        }
        // A stream of requests ends by itself when its connection must end.
        if !is_request_stream && wait.ends.as_mut().poll(context).is_ready() {
            return Some(status::draining());
        }
        if !is_awaited {
            return None;
        }
        if wait.stall.as_mut().poll(context).is_ready() {
            return Some(status::request_stalled(*stall));
        }
        let limit = stall.saturating_mul(STALLS_OF_A_MESSAGE);
        wait.slow.as_mut().poll(context).is_ready().then(|| status::request_slow(limit))
    }

    /// Bytes arrived: the client has time again.
    fn on_bytes(&mut self) {
        if let Some(wait) = &mut self.wait {
            let (now, stall) = (Instant::now(), self.limits.stall);
            wait.stall.as_mut().reset(now + stall);
            if std::mem::take(&mut self.is_new_message) {
                wait.slow.as_mut().reset(now + stall.saturating_mul(STALLS_OF_A_MESSAGE));
            }
        }
    }

    fn end(&mut self, failure: Failure) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.is_over = true;
        self.partial = BytesMut::new();
        self.rest = Bytes::new();
        let _ = self.part.resize(0);
        Poll::Ready(Some(Err(Status::from(failure).into())))
    }
}

impl<B> Body for Intake<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.is_over {
            return Poll::Ready(None);
        }
        loop {
            let bytes = std::mem::take(&mut this.rest);
            if !bytes.is_empty() {
                match this.take(bytes) {
                    Ok(None) => {}
                    Ok(Some(messages)) => return Poll::Ready(Some(Ok(Frame::data(messages)))),
                    Err(failure) => return this.end(failure),
                }
            }
            let frame = match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    let failure = ready!(this.interruption(context).map_or(Poll::Pending, Poll::Ready));
                    return this.end(failure);
                }
            };
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => {
                        this.on_bytes();
                        this.rest = bytes;
                    }
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None if this.partial.is_empty() => return Poll::Ready(None),
                None => return this.end(status::malformed("ends within a message: send the whole of it")),
            }
        }
    }
}

/// The length of the message that begins here.
fn length(bytes: &[u8]) -> Option<usize> {
    let (_, length) = bytes.first_chunk::<PREFIX_BYTES>()?.split_first_chunk::<1>()?;
    usize::try_from(u32::from_be_bytes(length.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests;

//! The bodies of streaming responses: between a generator and hyper, without a copy of large items.
//!
//! tonic's service traits return a stream, and tonic's own body would copy each response into a buffer of its stream. A
//! method returns [`Served`] instead: a stream that can be taken out of tonic's response again. The accept path does
//! that with [`own_body`], and everything else about the response stays tonic's: its headers, and an error before the
//! first response.
//!
//! A response that is small is copied, with others that are ready, into one frame. A large one leaves as its head and as
//! slices of its items, of up to [`SLICE`] bytes each: the transport asks for the next slice only when it has room, so a
//! reader that takes nothing holds little, and readers of the same messages share their bytes.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Response, Status, body::Body};

use super::{call::Responses, codec::Encoded, status};

/// The most bytes of a piece of a body: the largest frame that clients accept unless they ask for larger ones.
pub const SLICE: usize = 16 * 1024;

/// Items up to this size are copied: a frame of their own would cost more.
const SMALL: usize = 2 * 1024;

/// Before each response: one byte that says that it is not compressed, and its length in four.
const PREFIX_BYTES: usize = 5;

/// The responses of a call, until they are taken for a body.
#[derive(Clone, Debug)]
pub struct Served(Arc<Mutex<Option<Responses<Encoded>>>>);

impl Served {
    /// What a streaming method returns.
    pub fn response(responses: Responses<Encoded>) -> Response<Self> {
        let served = Self(Arc::new(Mutex::new(Some(responses))));
        let mut response = Response::new(served.clone());
        response.extensions_mut().insert(served);
        response
    }

    fn responses(&self) -> MutexGuard<'_, Option<Responses<Encoded>>> {
        // A stream that panicked is not polled again.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For a server without [`own_body`].
impl Stream for Served {
    type Item = Result<Encoded, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut *self.responses() {
            Some(responses) => Pin::new(responses).poll_next(context),
            None => Poll::Ready(None),
        }
    }
}

/// Replaces the body of a streaming response.
pub fn own_body(mut response: http::Response<Body>) -> http::Response<Body> {
    let served = response.extensions_mut().remove::<Served>();
    let responses = served.and_then(|served| served.responses().take());
    match responses {
        Some(responses) => response.map(|_| Body::new(ResponseBody::new(responses))),
        None => response,
    }
}

/// The body of a streaming response.
#[derive(Debug)]
struct ResponseBody {
    responses: Responses<Encoded>,
    end: End,
    /// The responses had nothing when they were polled last.
    waits: bool,
}

/// Whether the body has ended.
#[derive(Debug)]
enum End {
    Open,
    /// The trailers are left.
    Trailers(Status),
    Ended,
}

impl ResponseBody {
    fn new(responses: Responses<Encoded>) -> Self {
        Self { responses, end: End::Open, waits: false }
    }

    /// Whether the responses had nothing when they were polled last, and were not woken since. hyper polls a body once more
    /// after each piece.
    fn is_asleep(&self, context: &Context<'_>) -> bool {
        self.waits && self.responses.sleep(context.waker())
    }

    /// The next piece; `None` if there are only trailers left.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.is_asleep(context) {
            return Poll::Pending;
        }
        self.waits = false;
        if let Some(piece) = self.responses.next_piece() {
            return Poll::Ready(Some(piece));
        }
        let mut small = BytesMut::new();
        while let End::Open = self.end {
            match Pin::new(&mut self.responses).poll_next(context) {
                Poll::Pending if small.is_empty() => return Poll::Pending,
                Poll::Pending => {
                    self.waits = true;
                    break;
                }
                Poll::Ready(Some(Ok(response))) => {
                    if small.len() + PREFIX_BYTES + response.size() > SLICE {
                        let mut pieces = pieces(response, small);
                        let first = pieces.pop_front();
                        self.responses.keep(pieces);
                        return Poll::Ready(first);
                    }
                    put_head(&response, &mut small);
                    response.items.iter().for_each(|item| small.put_slice(item));
                }
                Poll::Ready(Some(Err(status))) => self.end = End::Trailers(status),
                Poll::Ready(None) => self.end = End::Trailers(status::ok()),
            }
        }
        Poll::Ready((!small.is_empty()).then(|| small.freeze()))
    }
}

/// The last frame of a response: how the call ended.
pub fn trailers(status: &Status) -> Result<Frame<Bytes>, Status> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers)?;
    Ok(Frame::trailers(trailers))
}

/// Everything of a response but its items. The fields of a message may come in any order, and its items follow.
fn put_head(response: &Encoded, out: &mut BytesMut) {
    let bytes = response.size();
    out.reserve(PREFIX_BYTES + response.rest.len() + if bytes > SLICE { 0 } else { bytes });
    out.put_u8(0);
    out.put_u32(u32::try_from(bytes).unwrap_or(u32::MAX));
    out.put_slice(&response.rest);
}

/// The pieces of a large response, after others that have not left yet.
fn pieces(response: Encoded, mut small: BytesMut) -> VecDeque<Bytes> {
    let mut pieces = VecDeque::new();
    put_head(&response, &mut small);
    for mut item in response.items {
        if item.len() <= SMALL {
            if small.len() + item.len() > SLICE {
                pieces.push_back(small.split().freeze());
            }
            small.put_slice(&item);
            continue;
        }
        if !small.is_empty() {
            pieces.push_back(small.split().freeze());
        }
        while !item.is_empty() {
            pieces.push_back(item.split_to(item.len().min(SLICE)));
        }
    }
    if !small.is_empty() {
        pieces.push_back(small.freeze());
    }
    pieces
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(piece) = ready!(self.poll_piece(context)) {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let End::Trailers(status) = std::mem::replace(&mut self.end, End::Ended) else {
            return Poll::Ready(None);
        };
        if self.responses.are_cut() {
            return Poll::Ready(Some(Err(status::cut_off(&status))));
        }
        Poll::Ready(Some(trailers(&status)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.end, End::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}

#[cfg(test)]
mod tests;

//! The body of a stream that does not observe the end of its connection, as those of health and reflection.
//!
//! Without it, a client that watches the health would delay each drain to its limit.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Status, body::Body};

use crate::grpc::{body::trailers, status};

/// A body that ends with its connection.
#[derive(Debug)]
pub struct Ending {
    body: Body,
    /// `None` after the end.
    ends: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Ending {
    /// Ends a body when `ends` is cancelled.
    pub fn new(body: Body, ends: &CancellationToken) -> Self {
        Self { body, ends: Some(Box::pin(ends.clone().cancelled_owned())) }
    }
}

impl HttpBody for Ending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        // A last frame of the stream goes first, such as NOT_SERVING.
        let at_end = frame.is_pending()
            && self.ends.as_mut().is_some_and(|ends| ends.as_mut().poll(context).is_ready());
        if !at_end {
            return frame;
        }
        self.body = Body::empty();
        self.ends = None;
        Poll::Ready(Some(trailers(&status::draining().into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

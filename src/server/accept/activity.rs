//! What a connection does: the requests that are being answered, and since when there is none.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;
use tonic::{Status, body::Body};

use super::Config;
use crate::grpc::call::Held;

/// The activity of a connection.
#[derive(Debug)]
pub struct Activity {
    since: Instant,
    /// The number of requests.
    requests: AtomicU64,
    /// The number of requests whose response has not ended.
    open: AtomicUsize,
    /// When the last response ended, in milliseconds after `since`.
    last: AtomicU64,
}

impl Activity {
    /// Of a connection that was accepted then.
    pub fn new(since: Instant) -> Self {
        let (requests, open, last) = (AtomicU64::new(0), AtomicUsize::new(0), AtomicU64::new(0));
        Self { since, requests, open, last }
    }

    /// Whether a request is being answered.
    pub fn is_busy(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    /// When the connection will have been idle for too long, if nothing happens.
    pub fn idle_at(&self, config: &Config) -> Instant {
        let last = self.since + Duration::from_millis(self.last.load(Ordering::Relaxed));
        if self.requests.load(Ordering::Relaxed) == 0 {
            self.since + config.first_request
        } else if self.is_busy() {
            Instant::now() + config.idle
        } else {
            last + config.idle
        }
    }

    /// Whether it has been idle for too long.
    pub fn is_idle(&self, config: &Config) -> bool {
        !self.is_busy() && self.idle_at(config) <= Instant::now()
    }
}

/// Counts a request while it is answered.
#[derive(Debug)]
pub struct Busy(Arc<Activity>);

impl Busy {
    /// A request that has arrived.
    pub fn new(activity: Arc<Activity>) -> Self {
        activity.requests.fetch_add(1, Ordering::Relaxed);
        activity.open.fetch_add(1, Ordering::Relaxed);
        Self(activity)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last.store(now, Ordering::Relaxed);
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of a response. The connection is busy until it is dropped.
#[derive(Debug)]
pub struct Tracked {
    body: Body,
    held: Held,
    _busy: Busy,
}

impl Tracked {
    /// The body of a response, and what the transport holds of it.
    pub fn new(body: Body, held: Held, busy: Busy) -> Self {
        Self { body, held, _busy: busy }
    }
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => self.held.gave(frame.data_ref().map_or(0, Bytes::len)),
            Poll::Pending => self.held.waits(),
            Poll::Ready(_) => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! The streams of a connection: futures that hyper makes, polled by the task of their connection.
//!
//! A task a stream would write to the connection by itself, from any worker, and each write would wake the task of the
//! connection. Here the connection polls all streams that are ready, and then writes what they gave.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use futures::{FutureExt, Stream, stream::FuturesUnordered};
use hyper::rt::Executor;

type Served = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The streams of a connection. Dropping it drops them.
pub struct Streams {
    streams: FuturesUnordered<Served>,
    started: Arc<Started>,
}

/// Streams that were started and not polled yet.
struct Started {
    streams: Mutex<Vec<Served>>,
    waker: Waker,
}

impl Started {
    fn streams(&self) -> MutexGuard<'_, Vec<Served>> {
        // Every change is one call, so a panic elsewhere cannot leave it half changed.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts streams: hyper's executor.
#[derive(Clone)]
pub struct Starter(Arc<Started>);

impl Streams {
    /// Without streams. The waker is woken when a stream is started.
    pub fn new(waker: Waker) -> Self {
        let started = Arc::new(Started { streams: Mutex::default(), waker });
        Self { streams: FuturesUnordered::new(), started }
    }

    /// Starts streams among these.
    pub fn starter(&self) -> Starter {
        Starter(self.started.clone())
    }

    /// Polls the streams that are ready, up to a fair share: those that are left wake `context` again.
    pub fn poll(&mut self, context: &mut Context<'_>) {
        self.streams.extend(self.started.streams().drain(..));
        while let Poll::Ready(Some(())) = Pin::new(&mut self.streams).poll_next(context) {}
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        // A stream holds a `Starter`, so the streams in this list would keep the list.
        let started = std::mem::take(&mut *self.started.streams());
        drop(started);
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Starter {
    fn execute(&self, stream: F) {
        // A panic ends this stream only. The hook has reported it.
        let stream = AssertUnwindSafe(stream).catch_unwind().map(|_| ());
        self.0.streams().push(Box::pin(stream));
        self.0.waker.wake_by_ref();
    }
}

//! Detection of readers that take nothing.
//!
//! The transport does not poll a stream while it cannot hand on the bytes that it already has, so a stream does not see
//! directly that its reader has no room. Instead, a [`StallWatch`] measures the time since the stream gave a response
//! that was not followed by another poll, or since its generator woke it (with an item or a heartbeat) and no poll came.
//! The second case is needed: an encoder that fills a buffer polls once more after the only response, so the first case
//! alone would never find a stream of single items.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};

use futures::task::AtomicWaker;

use super::Inner;

/// The shortest and the longest pause between two inspections of all streams.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// A stream whose generator another task can take out.
pub(in crate::grpc) trait Evictable: std::fmt::Debug + Send + Sync {
    /// Ends the stream if its reader took nothing for this long.
    fn evict_if_stalled(&self, limit: Duration);
}

/// A stream that is inspected.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) stall: Arc<StallWatch>,
    pub(super) evictable: Weak<dyn Evictable>,
}

/// Counts the inspections of all streams, so that a stream has a clock that costs nothing to read.
#[derive(Debug, Default)]
pub(in crate::grpc) struct Inspections(AtomicU64);

/// Measures how long a stream has waited for its reader. It is also the waker of the stream, so that it sees wakes.
#[derive(Debug)]
pub(in crate::grpc) struct StallWatch {
    inspections: Arc<Inspections>,
    /// After how many inspections the wait began, plus 1. 0 while the stream does not wait for its reader.
    since: AtomicU64,
    task: AtomicWaker,
}

impl StallWatch {
    /// For a stream that was never polled: its first response is ready and waits for the reader.
    pub(in crate::grpc) fn new(inspections: Arc<Inspections>) -> Arc<Self> {
        let watch = Self { inspections, since: AtomicU64::new(0), task: AtomicWaker::new() };
        watch.on_response();
        watch.into()
    }

    /// The reader asks for more. As a waker, this wakes `task` from now on.
    pub(in crate::grpc) fn on_poll(&self, task: &Waker) {
        self.since.store(0, Ordering::Relaxed);
        self.task.register(task);
    }

    /// The reader got a response. The wait begins, in case it does not ask again.
    pub(in crate::grpc) fn on_response(&self) {
        self.since.store(self.now(), Ordering::Relaxed);
    }

    /// Whether the stream waits for its reader.
    pub(in crate::grpc) fn is_waiting(&self) -> bool {
        self.since.load(Ordering::Relaxed) > 0
    }

    /// Whether the reader took nothing for longer than the limit of stalls; up to one pause later than that.
    pub(in crate::grpc) fn is_longer_than(&self, limit: Duration) -> bool {
        let pauses = limit.as_nanos().div_ceil(pause(limit).as_nanos());
        match self.since.load(Ordering::Relaxed) {
            0 => false,
            since => u128::from(self.now().saturating_sub(since)) > pauses,
        }
    }

    fn now(&self) -> u64 {
        self.inspections.0.load(Ordering::Relaxed).saturating_add(1)
    }
}

/// The pause between two inspections.
fn pause(limit: Duration) -> Duration {
    (limit / 4).clamp(PAUSES.0, PAUSES.1)
}

impl Wake for StallWatch {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A wait that has begun before is the longer one.
        let _ = self.since.compare_exchange(0, self.now(), Ordering::Relaxed, Ordering::Relaxed);
        self.task.wake();
    }
}

/// Evicts stalled streams until the server drains or is gone. It holds only a weak reference to the server.
pub(super) async fn sweep(inner: Weak<Inner>) {
    loop {
        let Some((limit, shutdown)) = inner.upgrade().map(|it| (it.config.stall, it.shutdown.clone())) else {
            return;
        };
        if shutdown.run_until_cancelled(tokio::time::sleep(pause(limit))).await.is_none() {
            return;
        }
        let Some(inner) = inner.upgrade() else { return };
        inner.inspections.0.fetch_add(1, Ordering::Relaxed);
        // Most streams wait for nothing. Of these, nothing but that is read, because their memory was not used for long. Copy
        // the list, so that no stream waits for the lock while generators are dropped.
        let waiting = {
            let streams = inner.streams();
            let waiting = streams.values().filter(|stream| stream.stall.is_waiting());
            waiting.filter_map(|stream| stream.evictable.upgrade()).collect::<Vec<_>>()
        };
        for stream in waiting {
            stream.evict_if_stalled(limit);
        }
    }
}

//! Readers that take nothing.
//!
//! A reader without room is not seen from here: the transport does not poll a stream whose last bytes it could not
//! hand on. So a stream waits for its reader since it gave a response that was not followed by another poll, or since
//! it was woken, having something to give or its heartbeat, and was not polled. The second matters: an encoder that
//! fills a buffer polls once more behind the only response there is, and no stream that lives on single items would
//! ever be found by the first.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};

use futures::task::AtomicWaker;
use tokio::time::Instant;

use super::Shared;

/// How often stalled streams are looked for: the shortest and the longest pause.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// A stream whose generator can be taken out from beside.
pub(super) trait Stallable: std::fmt::Debug + Send + Sync {
    /// Ends it if its reader took nothing for so long.
    fn end_if_stalled(&self, stall: Duration);
}

/// Since when a stream waits for its reader. It is also the stream's waker: being woken is what it learns from.
#[derive(Debug)]
pub(super) struct Waiting {
    started: Instant,
    /// In milliseconds since the start, counted from 1; 0: it waits for nothing, or for its generator.
    since: AtomicU64,
    task: AtomicWaker,
}

impl Waiting {
    /// For a stream that was never polled: its first response is ready, and waits.
    pub(super) fn new() -> Arc<Self> {
        Self { started: Instant::now(), since: AtomicU64::new(1), task: AtomicWaker::new() }.into()
    }

    /// The reader asks for more. What is returned wakes it.
    pub(super) fn is_polled_by(self: &Arc<Self>, task: &Waker) -> Waker {
        self.since.store(0, Ordering::Relaxed);
        self.task.register(task);
        self.clone().into()
    }

    /// The reader has got a response, and may not come back.
    pub(super) fn has_given(&self) {
        self.since.store(self.now(), Ordering::Relaxed);
    }

    /// Whether the reader took nothing for so long.
    pub(super) fn is_longer_than(&self, stall: Duration) -> bool {
        let stall = u64::try_from(stall.as_millis()).unwrap_or(u64::MAX);
        match self.since.load(Ordering::Relaxed) {
            0 => false,
            since => self.now().saturating_sub(since) > stall,
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // What waits already has waited longer.
        let _ = self.since.compare_exchange(0, self.now(), Ordering::Relaxed, Ordering::Relaxed);
        self.task.wake();
    }
}

/// Looks for stalled streams until the server is gone or drains. It holds nothing that keeps the server.
pub(super) async fn sweep(shared: Weak<Shared>) {
    loop {
        let Some((stall, shutdown)) = shared.upgrade().map(|s| (s.settings.stall, s.shutdown.clone())) else {
            return;
        };
        let pause = (stall / 4).clamp(PAUSES.0, PAUSES.1);
        if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
        let Some(shared) = shared.upgrade() else { return };
        // Copied, so that no stream has to wait for the lock while generators are dropped.
        let streams = shared.streams().values().filter_map(Weak::upgrade).collect::<Vec<_>>();
        for stream in streams {
            stream.end_if_stalled(stall);
        }
    }
}

//! What the transport holds for the client of a connection.
//!
//! HTTP/2 takes up to two slices of the body of a stream before it finds that its client reads nothing, and the output of
//! a connection keeps the bytes that its socket does not take. Only the end of the connection frees these bytes. So they
//! are counted for each connection, and when the server holds too much for its readers (see [`Unsent`](super::stall)), the
//! connections that have taken nothing for longest are closed.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tokio_util::sync::CancellationToken;

use super::{Calls, Inner};
use crate::grpc::body::SLICE;

/// The bytes that the transport holds for a connection. The tasks of all connections change only their own.
#[derive(Debug)]
pub struct Backlog {
    id: u64,
    inner: Arc<Inner>,
    /// The bytes that bodies have given and that HTTP/2 may still hold.
    given: AtomicUsize,
    /// Those of streams that have nothing more to give. They have left when the output keeps nothing after a turn.
    parked: AtomicUsize,
    /// How often they have left.
    drained: AtomicU64,
    /// The bytes that the output keeps because the socket is full.
    kept: AtomicUsize,
    /// The last inspection before a body gave bytes, which it does only when its stream has room.
    moved: AtomicU64,
    closed: CancellationToken,
    /// The bytes that were held when it was closed.
    freed: AtomicUsize,
}

impl Calls {
    /// Counts what the transport holds for a new connection, until it is dropped.
    pub fn backlog(&self) -> Arc<Backlog> {
        let inner = self.0.clone();
        let id = inner.next_id.fetch_add(1, Ordering::Relaxed);
        let moved = AtomicU64::new(inner.inspections.last());
        let backlog = Arc::new(Backlog {
            id,
            inner,
            given: AtomicUsize::new(0),
            parked: AtomicUsize::new(0),
            drained: AtomicU64::new(0),
            kept: AtomicUsize::new(0),
            moved,
            closed: CancellationToken::new(),
            freed: AtomicUsize::new(0),
        });
        self.0.backlogs().insert(id, Arc::downgrade(&backlog));
        backlog
    }
}

impl Backlog {
    /// The output keeps these bytes after a turn: 0 unless the socket is full.
    pub fn keeps(&self, bytes: usize) {
        let before = self.kept.swap(bytes, Ordering::Relaxed);
        if bytes < before {
            self.moves();
        }
        if bytes == 0 && self.parked.swap(0, Ordering::Relaxed) > 0 {
            self.drained.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The client took something.
    fn moves(&self) {
        self.moved.store(self.inner.inspections.last(), Ordering::Relaxed);
    }

    /// What is held for a new stream.
    pub fn of_stream(self: &Arc<Self>) -> Held {
        Held { backlog: self.clone(), bytes: 0, parked: None }
    }

    /// What a body holds besides what it has given.
    pub fn kept(self: &Arc<Self>) -> Kept {
        Kept { backlog: self.clone(), bytes: 0 }
    }

    /// Ends when the connection must be closed. Returns the bytes that this frees.
    pub async fn closed(&self) -> usize {
        self.closed.cancelled().await;
        self.freed.load(Ordering::Relaxed)
    }

    /// Its number among connections and streams: older ones have smaller ones.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The bytes that are held.
    pub(super) fn bytes(&self) -> usize {
        [&self.given, &self.parked, &self.kept].map(|bytes| bytes.load(Ordering::Relaxed)).iter().sum()
    }

    /// The last inspection before the client took something, if its socket is full. A client without room in the windows
    /// of HTTP/2 has streams that wait, which can end one by one.
    pub(super) fn full_since(&self) -> Option<u64> {
        let is_full = self.kept.load(Ordering::Relaxed) > 0;
        is_full.then(|| self.moved.load(Ordering::Relaxed))
    }

    /// Has the connection closed. Returns the bytes that this frees.
    pub(super) fn close(&self) -> usize {
        if self.closed.is_cancelled() {
            return 0;
        }
        let freed = self.bytes();
        self.freed.store(freed, Ordering::Relaxed);
        self.closed.cancel();
        freed
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.inner.backlogs().remove(&self.id);
    }
}

/// What the transport may hold for a stream.
#[derive(Debug)]
pub struct Held {
    backlog: Arc<Backlog>,
    /// Those of a stream that may have more to give.
    bytes: usize,
    /// Those of one that has no more, and how often such bytes had left before.
    parked: Option<(usize, u64)>,
}

impl Held {
    /// The body gave bytes. HTTP/2 asked for them, so it held less than a slice.
    pub fn gave(&mut self, bytes: usize) {
        let before = self.bytes + self.unpark();
        self.set(before.min(SLICE).saturating_add(bytes));
        self.backlog.moves();
    }

    /// HTTP/2 asked for more, and the body has nothing.
    pub fn waits(&mut self) {
        let left = (self.bytes + self.unpark()).min(SLICE);
        self.set(0);
        let Backlog { parked, drained, .. } = &*self.backlog;
        if left > 0 {
            parked.fetch_add(left, Ordering::Relaxed);
            self.parked = Some((left, drained.load(Ordering::Relaxed)));
        }
    }

    /// The bytes that are still parked.
    fn unpark(&mut self) -> usize {
        let Backlog { parked, drained, .. } = &*self.backlog;
        let here = self.parked.take().filter(|(_, before)| *before == drained.load(Ordering::Relaxed));
        let bytes = here.map_or(0, |(bytes, _)| bytes);
        parked.fetch_sub(bytes, Ordering::Relaxed);
        bytes
    }

    fn set(&mut self, bytes: usize) {
        if bytes != self.bytes {
            self.backlog.given.fetch_add(bytes, Ordering::Relaxed);
            self.backlog.given.fetch_sub(self.bytes, Ordering::Relaxed);
            self.bytes = bytes;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.unpark();
        self.set(0);
    }
}

/// The bytes that a body holds for its client.
#[derive(Debug)]
pub struct Kept {
    backlog: Arc<Backlog>,
    bytes: usize,
}

impl Kept {
    /// The body holds this many bytes from now on.
    pub fn set(&mut self, bytes: usize) {
        if bytes != self.bytes {
            self.backlog.given.fetch_add(bytes, Ordering::Relaxed);
            self.backlog.given.fetch_sub(self.bytes, Ordering::Relaxed);
            self.bytes = bytes;
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::grpc::call::Config;

    #[tokio::test]
    async fn bytes_count_until_they_have_left() {
        let calls = Calls::new(Config::default(), CancellationToken::new(), &mut Registry::default());
        let backlog = calls.backlog();
        let mut stream = backlog.of_stream();
        stream.gave(SLICE);
        stream.gave(SLICE);
        assert_eq!(backlog.bytes(), 2 * SLICE, "the most that HTTP/2 takes");
        stream.gave(100);
        assert_eq!(backlog.bytes(), SLICE + 100);
        stream.waits();
        backlog.keeps(50);
        assert_eq!(backlog.bytes(), SLICE + 50, "the socket is full");
        stream.gave(10);
        stream.waits();
        assert_eq!(backlog.bytes(), SLICE + 50);
        backlog.keeps(0);
        assert_eq!(backlog.bytes(), 0);
        stream.gave(10);
        stream.waits();
        let mut other = backlog.of_stream();
        other.gave(7);
        assert_eq!(backlog.bytes(), 17);
        drop(stream);
        assert_eq!(backlog.bytes(), 7);
        backlog.keeps(0);
        drop(other);
        assert_eq!(backlog.bytes(), 0);
    }
}

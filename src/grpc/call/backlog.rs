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
    /// The bytes that the output keeps because the socket is full.
    kept: AtomicUsize,
    /// The last inspection before a body gave bytes, which it does only when its stream has room.
    moved: AtomicU64,
    closed: CancellationToken,
}

impl Calls {
    /// Counts what the transport holds for a new connection, until it is dropped.
    pub fn backlog(&self) -> Arc<Backlog> {
        let inner = self.0.clone();
        let id = inner.next_id.fetch_add(1, Ordering::Relaxed);
        let moved = AtomicU64::new(inner.inspections.last());
        let (given, kept, closed) = (AtomicUsize::new(0), AtomicUsize::new(0), CancellationToken::new());
        let backlog = Arc::new(Backlog { id, inner, given, kept, moved, closed });
        self.0.backlogs().insert(id, Arc::downgrade(&backlog));
        backlog
    }
}

impl Backlog {
    /// The output keeps these bytes: 0 unless the socket is full.
    pub fn keeps(&self, bytes: usize) {
        self.kept.store(bytes, Ordering::Relaxed);
    }

    /// What is held for a new stream.
    pub fn of_stream(self: &Arc<Self>) -> Held {
        Held { backlog: self.clone(), bytes: 0 }
    }

    /// Ends when the connection must be closed.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Its number among connections and streams: older ones have smaller ones.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The bytes that are held.
    pub fn bytes(&self) -> usize {
        self.given.load(Ordering::Relaxed) + self.kept.load(Ordering::Relaxed)
    }

    /// The last inspection before the client took something.
    pub(super) fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Has the connection closed. Returns the bytes that this frees.
    pub(super) fn close(&self) -> usize {
        if self.closed.is_cancelled() {
            return 0;
        }
        self.closed.cancel();
        self.bytes()
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
    bytes: usize,
}

impl Held {
    /// The body gave bytes. HTTP/2 asked for them, so it held less than a slice.
    pub fn gave(&mut self, bytes: usize) {
        self.set(self.bytes.min(SLICE).saturating_add(bytes));
        self.backlog.moved.store(self.backlog.inner.inspections.last(), Ordering::Relaxed);
    }

    /// HTTP/2 asked for more, and the body has nothing.
    pub fn waits(&mut self) {
        let is_full = self.backlog.kept.load(Ordering::Relaxed) > 0;
        self.set(if is_full { self.bytes.min(SLICE) } else { 0 });
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
        self.set(0);
    }
}

//! Detection of readers that take nothing.
//!
//! The transport does not poll a stream while it cannot hand on the bytes that it already has, so a stream does not see
//! directly that its reader has no room. Instead, a [`StallWatch`] measures the time since the stream gave a response
//! that was not followed by another poll, or since its generator woke it (with an item or a heartbeat) and no poll came.
//! The second case is needed: an encoder that fills a buffer polls once more after the only response, so the first case
//! alone would never find a stream of single items.
//!
//! What streams and connections hold for their readers is counted, too: see [`Unsent`]. Above its limit, those that have
//! waited longest end at once.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};

use futures::task::AtomicWaker;
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use tokio::{sync::Notify, time::Instant};

use super::{Backlog, Inner};

/// The shortest and the longest pause between two inspections of all streams.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// A stream whose reader took something within this time does not end because all streams hold too much.
const SLOW: Duration = Duration::from_secs(1);

/// The pause between two counts of what the transport holds.
const COUNTED: Duration = Duration::from_secs(1);

/// A stream whose generator another task can take out.
pub(in crate::grpc) trait Evictable: std::fmt::Debug + Send + Sync {
    /// Ends the stream if its reader took nothing for this long.
    fn evict_if_stalled(&self, limit: Duration);

    /// Ends the stream and drops what it holds for its reader, because all streams hold more than `limit` bytes; if it holds
    /// something, and its wait began before this inspection.
    fn evict_for_room(&self, limit: usize, before: u64);
}

/// The bytes that the server holds for readers that do not take them. Those of responses that have begun to leave and wait
/// for room in the windows of their readers are counted as they come and go; bytes that several streams share count for
/// each. Those that the transport holds are counted once a second: see [`Backlog`].
#[derive(Debug)]
pub(in crate::grpc) struct Unsent {
    bytes: Gauge<i64, AtomicI64>,
    in_transport: Gauge<i64, AtomicI64>,
    limit: AtomicUsize,
    /// The limit was exceeded.
    exceeded: Notify,
}

impl Unsent {
    pub(super) fn new(limit: usize, registry: &mut Registry) -> Self {
        let bytes = Gauge::default();
        let help = "Bytes of responses that have begun to leave and wait for their readers";
        registry.register("responses_unsent_bytes", help, bytes.clone());
        let in_transport = Gauge::default();
        let help = "Bytes of responses that connections hold because their clients do not take them, counted once a second";
        registry.register("connections_unsent_bytes", help, in_transport.clone());
        Self { bytes, in_transport, limit: AtomicUsize::new(limit), exceeded: Notify::new() }
    }

    /// The bytes of responses, and those of connections.
    pub(super) fn held(&self) -> (u64, u64) {
        let number = |gauge: &Gauge<i64, AtomicI64>| u64::try_from(gauge.get()).unwrap_or(0);
        (number(&self.bytes), number(&self.in_transport))
    }

    fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    pub(super) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// These bytes wait from now on.
    pub(super) fn add(&self, bytes: usize) {
        let before = self
            .bytes
            .inc_by(i64::try_from(bytes).unwrap_or(i64::MAX))
            .saturating_add(self.in_transport.get());
        if self.exceeds(before.saturating_add_unsigned(bytes as u64)) && !self.exceeds(before) {
            self.exceeded.notify_one();
        }
    }

    /// These bytes have left, or were dropped.
    pub(super) fn remove(&self, bytes: usize) {
        self.bytes.dec_by(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// The transport holds these bytes.
    fn counted(&self, in_transport: usize) {
        self.in_transport.set(i64::try_from(in_transport).unwrap_or(i64::MAX));
        if self.is_exceeded() {
            self.exceeded.notify_one();
        }
    }

    /// A connection that is closed frees these bytes.
    fn freed(&self, in_transport: usize) {
        self.in_transport.dec_by(i64::try_from(in_transport).unwrap_or(i64::MAX));
    }

    /// Whether connections alone hold more than all may.
    fn transport_exceeds(&self) -> bool {
        self.exceeds(self.in_transport.get())
    }

    fn is_exceeded(&self) -> bool {
        self.exceeds(self.bytes.get().saturating_add(self.in_transport.get()))
    }

    fn exceeds(&self, bytes: i64) -> bool {
        usize::try_from(bytes).is_ok_and(|bytes| bytes > self.limit())
    }
}

/// A stream that is inspected.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) stall: Arc<StallWatch>,
    pub(super) evictable: Weak<dyn Evictable>,
}

/// The time of the last inspection of all streams, in milliseconds since the first one, plus 1: a clock that costs nothing
/// to read.
#[derive(Debug)]
pub(in crate::grpc) struct Inspections(AtomicU64);

impl Default for Inspections {
    fn default() -> Self {
        Self(AtomicU64::new(1))
    }
}

impl Inspections {
    pub(super) fn last(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn begins(&self, since_first: Duration) {
        self.0.store(millis(since_first).saturating_add(1), Ordering::Relaxed);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Measures how long a stream has waited for its reader. It is also the waker of the stream, so that it sees wakes.
#[derive(Debug)]
pub(in crate::grpc) struct StallWatch {
    inspections: Arc<Inspections>,
    /// The last inspection before the wait began. 0 while the stream does not wait for its reader.
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
        // With what a wake before has published: that wake may reach the task only after this poll.
        self.since.swap(0, Ordering::AcqRel);
        self.keep(task);
    }

    /// Wakes `task` from now on, until it was woken once.
    pub(in crate::grpc) fn keep(&self, task: &Waker) {
        self.task.register(task);
    }

    pub(in crate::grpc) fn wake_task(&self) {
        self.task.wake();
    }

    /// The reader got a response. The wait begins, in case it does not ask again.
    pub(in crate::grpc) fn on_response(&self) {
        self.since.store(self.inspections.last(), Ordering::Relaxed);
    }

    /// Whether the stream waits for its reader.
    pub(in crate::grpc) fn is_waiting(&self) -> bool {
        self.since().is_some()
    }

    /// The last inspection before the wait began.
    pub(in crate::grpc) fn since(&self) -> Option<u64> {
        Some(self.since.load(Ordering::Relaxed)).filter(|since| *since > 0)
    }

    /// Whether the reader took nothing for longer than the limit of stalls; up to one pause later than that.
    pub(in crate::grpc) fn is_longer_than(&self, limit: Duration) -> bool {
        // The wait began within the pause after that inspection.
        let limit = millis(limit.saturating_add(pause(limit)));
        self.since().is_some_and(|since| self.inspections.last().saturating_sub(since) >= limit)
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
        let _ = self.since.compare_exchange(0, self.inspections.last(), Ordering::AcqRel, Ordering::Relaxed);
        self.wake_task();
    }
}

/// Evicts stalled streams until the server drains or is gone. It holds only a weak reference to the server.
pub(super) async fn sweep(inner: Weak<Inner>) {
    let first = Instant::now();
    // The inspection that found that streams hold too much.
    let mut exceeded_at = None;
    loop {
        let Some((limit, shutdown, unsent)) =
            inner.upgrade().map(|it| (it.config().stall, it.shutdown.clone(), it.unsent.clone()))
        else {
            return;
        };
        let pause = async {
            if exceeded_at.is_some() {
                tokio::time::sleep(SLOW).await;
            } else {
                // An inspection takes a while where there are many streams, and clients decide how often this happens.
                tokio::time::sleep(PAUSES.0).await;
                let rest = pause(limit).saturating_sub(PAUSES.0);
                let _ = tokio::time::timeout(rest, unsent.exceeded.notified()).await;
            }
        };
        if shutdown.run_until_cancelled(pause).await.is_none() {
            return;
        }
        let Some(inner) = inner.upgrade() else { return };
        inner.inspections.begins(first.elapsed());
        for (.., stream) in waiting(&inner) {
            stream.evict_if_stalled(limit);
        }
        if let Some(before) = exceeded_at.take() {
            make_room(&inner, before);
        }
        exceeded_at = inner.unsent.is_exceeded().then(|| inner.inspections.last());
    }
}

/// The streams that wait for their readers, with the last inspection before their wait began, and their numbers.
///
/// Most streams wait for nothing. Of these, nothing but that is read, because their memory was not used for long. This is a
/// copy, so that no stream waits for the lock while generators are dropped.
fn waiting(inner: &Inner) -> Vec<(u64, u64, Arc<dyn Evictable>)> {
    let streams = inner.streams();
    let waiting = |(id, stream): (&u64, &Watched)| {
        let since = stream.stall.since()?;
        Some((since, *id, stream.evictable.upgrade()?))
    };
    streams.iter().filter_map(waiting).collect()
}

/// Counts what the transport holds, until the server is gone.
pub(super) async fn watch_connections(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(COUNTED).await;
        let Some(inner) = inner.upgrade() else { return };
        let bytes = backlogs(&inner).iter().map(|backlog| backlog.bytes()).sum();
        inner.unsent.counted(bytes);
    }
}

/// Those of all connections. This is a copy, so that no connection waits for the lock.
fn backlogs(inner: &Inner) -> Vec<Arc<Backlog>> {
    inner.backlogs().values().filter_map(Weak::upgrade).collect()
}

/// A stream or a connection that holds bytes.
enum Holder {
    Stream(Arc<dyn Evictable>),
    Connection(Arc<Backlog>),
}

/// Ends the streams and the connections that have waited longest, until the others hold no more than they may. First those
/// whose wait began before the inspection `before`: of those that have waited equally long, the older ones end first. Then,
/// if the transport alone holds too much, the connections for which it holds most, although their clients take something.
fn make_room(inner: &Inner, before: u64) {
    let streams = waiting(inner).into_iter().map(|(since, id, stream)| (since, id, Holder::Stream(stream)));
    // Their numbers change meanwhile.
    let connections = backlogs(inner).into_iter().map(|it| (it.bytes(), it)).filter(|(bytes, _)| *bytes > 0);
    let mut connections = connections.collect::<Vec<_>>();
    let holders = connections.iter().filter_map(|(_, backlog)| {
        Some((backlog.full_since()?, backlog.id(), Holder::Connection(backlog.clone())))
    });
    let mut holders = streams.chain(holders).filter(|(since, ..)| *since < before).collect::<Vec<_>>();
    holders.sort_by_key(|(since, id, _)| (*since, *id));
    let mut has_closed = false;
    for (.., holder) in holders {
        if !inner.unsent.is_exceeded() {
            break;
        }
        match holder {
            // The streams of a connection that was closed count until its task has ended. The next inspection sees that.
            Holder::Stream(_) if has_closed => return,
            Holder::Stream(stream) => stream.evict_for_room(inner.unsent.limit(), before),
            Holder::Connection(_) if has_closed && !inner.unsent.transport_exceeds() => return,
            Holder::Connection(backlog) => {
                inner.unsent.freed(backlog.close());
                has_closed = true;
            }
        }
    }
    connections.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    for (_, backlog) in connections {
        if !inner.unsent.transport_exceeds() {
            return;
        }
        inner.unsent.freed(backlog.close());
    }
}

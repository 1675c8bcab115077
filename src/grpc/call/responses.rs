//! The responses of a call: its generator, polled until the call must end.
//!
//! A call is checked for its end before the stream waits, and from time to time while it is always ready, but not before
//! each response: most responses leave alone, and a poll that finds nothing follows each of them. Only the right to the
//! stream is checked before each response, because it costs one atomic load.

use std::{
    collections::VecDeque,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::Stream;
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Code, Status};

use super::{
    Call, Inspected, Outgoing,
    stall::{Evictable, StallWatch, Unsent},
};
use crate::{
    blocking,
    grpc::status::{self, Failure},
};

/// A stream that is always ready is checked for its end at each poll after this many. One that waits is checked before it
/// waits.
const MAX_UNCHECKED: u8 = 8;

/// A generator and its call.
struct Serving<T> {
    call: Call,
    stream: Pin<Box<dyn Stream<Item = Result<Outgoing<T>, Failure>> + Send>>,
}

/// The end of the connection or of the server, or of the right to the stream.
///
/// It has a waker of its own, so that it is polled only after it woke the stream: to poll it with each heartbeat would
/// take two locks that all streams of the connection share.
#[derive(Debug)]
struct Ends {
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    signal: Arc<Signal>,
    /// Of `signal`.
    waker: Waker,
}

/// Wakes a stream, and says that it was for its end.
#[derive(Debug)]
struct Signal {
    is_set: AtomicBool,
    stall: Arc<StallWatch>,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.is_set.store(true, Ordering::Release);
        self.stall.wake_by_ref();
    }
}

impl Ends {
    fn new(cancelled: WaitForCancellationFutureOwned, stall: &Arc<StallWatch>) -> Self {
        // Set, so that the first poll registers the waker.
        let signal = Arc::new(Signal { is_set: AtomicBool::new(true), stall: stall.clone() });
        let waker = signal.clone().into();
        Self { cancelled: Box::pin(cancelled), signal, waker }
    }

    fn has_come(&mut self) -> bool {
        self.signal.is_set.swap(false, Ordering::Acquire)
            && self.cancelled.as_mut().poll(&mut Context::from_waker(&self.waker)).is_ready()
    }
}

/// What the responses of a call share with the task that evicts stalled streams.
struct Shared<T> {
    stall: Arc<StallWatch>,
    state: Mutex<State<T>>,
}

struct State<T> {
    /// `None` when the stream is over.
    serving: Option<Serving<T>>,
    /// Why the stream was evicted.
    evicted: Option<Status>,
    pieces: Pieces,
}

/// The pieces of a response that has begun to leave. They count among what all streams hold for their readers.
struct Pieces {
    left: VecDeque<Bytes>,
    bytes: usize,
    unsent: Arc<Unsent>,
    /// Pieces were dropped before they left, so that the reader has a part of a response.
    are_cut: bool,
}

impl Pieces {
    fn new(unsent: Arc<Unsent>) -> Self {
        Self { left: VecDeque::new(), bytes: 0, unsent, are_cut: false }
    }

    fn keep(&mut self, pieces: VecDeque<Bytes>) {
        self.bytes = pieces.iter().map(Bytes::len).sum();
        self.unsent.add(self.bytes);
        self.left = pieces;
    }

    fn next(&mut self) -> Option<Bytes> {
        let piece = self.left.pop_front()?;
        self.bytes -= piece.len();
        self.unsent.remove(piece.len());
        Some(piece)
    }

    fn cut(&mut self) {
        self.are_cut |= !self.left.is_empty();
        self.unsent.remove(std::mem::take(&mut self.bytes));
        self.left = VecDeque::new();
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.cut();
    }
}

impl<T> std::fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("stall", &self.stall).finish_non_exhaustive()
    }
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        // A generator that panicked is not polled again, because its stream has ended.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the stream with a failure if its reader is as slow as `is_due` says; `cuts`: what it holds is dropped.
    fn evict(&self, is_due: impl FnOnce(&State<T>) -> bool, failure: impl FnOnce() -> Failure, cuts: bool) {
        // A locked stream is being polled, so it is not stalled. Check under the lock, because a poll may just have ended.
        let Ok(mut state) = self.state.try_lock() else { return };
        if !is_due(&state) {
            return;
        }
        if cuts {
            state.pieces.cut();
        }
        let Some(mut serving) = state.serving.take() else { return };
        state.evicted = Some(serving.call.end(failure()));
        drop(state);
        // Dropping a generator may take a while.
        drop(serving);
    }
}

impl<T> Evictable for Shared<T> {
    fn evict_if_stalled(&self, limit: Duration) {
        self.evict(|_| self.stall.is_longer_than(limit), || status::stalled(limit), false);
    }

    fn evict_for_room(&self, limit: usize, before: u64) {
        let waits = || self.stall.since().is_some_and(|since| since < before);
        let is_due = |state: &State<T>| state.pieces.bytes > 0 && waits();
        self.evict(is_due, || status::too_much_unsent(limit), true);
    }
}

/// The responses of a call.
#[derive(Debug)]
pub struct Responses<T> {
    shared: Arc<Shared<T>>,
    /// Of `shared.stall`.
    waker: Waker,
    _inspected: Inspected,
    deadline: Option<Pin<Box<Sleep>>>,
    ends: Option<Ends>,
    /// How many polls ago it was last checked whether the call must end.
    unchecked: u8,
    is_over: bool,
}

impl<T> Stream for Responses<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let Self { shared, waker, deadline, ends, unchecked, is_over, .. } = &mut *self;
        let mut state = shared.state();
        shared.stall.on_poll(context.waker());
        let context = &mut Context::from_waker(waker);
        let Some(Serving { call, stream }) = &mut state.serving else {
            *is_over = true;
            return Poll::Ready(state.evicted.take().map(Err));
        };
        let is_checked = *unchecked < MAX_UNCHECKED && !call.ends.are_withdrawn();
        let mut end = if is_checked { None } else { interruption(call, deadline, ends, context) };
        let mut item = Poll::Pending;
        if end.is_none() {
            // A generator that is always ready would keep its worker from all other tasks.
            ready!(pin!(tokio::task::consume_budget()).poll(context));
            item = {
                let _entered = blocking::enter(call.owner);
                stream.as_mut().poll_next(context)
            };
            *unchecked = if is_checked { *unchecked + 1 } else { 1 };
            if item.is_pending() && is_checked {
                end = interruption(call, deadline, ends, context);
            }
        }
        if let Some(failure) = end {
            item = Poll::Ready(Some(Err(failure)));
        }
        let item = match ready!(item) {
            Some(Ok(Outgoing { response, items, bytes })) => {
                call.items += items as u64;
                call.bytes += bytes as u64;
                call.sent.add(items, bytes);
                shared.stall.on_response();
                return Poll::Ready(Some(Ok(response)));
            }
            Some(Err(failure)) => Some(Err(call.end(failure))),
            None => {
                call.ending = Some((Code::Ok, ""));
                None
            }
        };
        *is_over = true;
        state.serving = None;
        Poll::Ready(item)
    }
}

impl<T: 'static> Responses<T> {
    /// The responses of a generator, until it ends, the deadline of the call passes, or `ends` is over.
    pub(super) fn new<S>(call: Call, stream: S, ends: Option<WaitForCancellationFutureOwned>) -> Self
    where
        S: Stream<Item = Result<Outgoing<T>, Failure>> + Send + 'static,
    {
        let calls = call.calls.clone();
        let deadline = call.deadline().map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
        let stall = calls.stall_watch();
        let ends = ends.map(|ends| Ends::new(ends, &stall));
        let waker = stall.clone().into();
        let serving = Some(Serving { call, stream: Box::pin(stream) });
        let state = State { serving, evicted: None, pieces: Pieces::new(calls.0.unsent.clone()) };
        let shared = Arc::new(Shared { stall, state: Mutex::new(state) });
        let weak: Weak<dyn Evictable> = Arc::downgrade(&(shared.clone() as Arc<dyn Evictable>));
        let inspected = calls.inspect(shared.stall.clone(), weak);
        Self {
            shared,
            waker,
            _inspected: inspected,
            deadline,
            ends,
            unchecked: MAX_UNCHECKED,
            is_over: false,
        }
    }

    /// Keeps the pieces of a response whose first one leaves now.
    pub fn keep(&self, pieces: VecDeque<Bytes>) {
        self.shared.state().pieces.keep(pieces);
    }

    /// The next piece of the response that leaves.
    pub fn next_piece(&self) -> Option<Bytes> {
        let piece = self.shared.state().pieces.next()?;
        self.shared.stall.on_response();
        Some(piece)
    }

    /// Wakes `task` from now on. False if they were woken since the last poll, or gave a response at it.
    pub fn sleep(&self, task: &Waker) -> bool {
        // In this order, or a wake in between would be seen by none. The task that was known may have been woken since the last
        // poll, by a wake that had begun before that poll and was late: then none is known.
        self.shared.stall.keep(task);
        !self.shared.stall.is_waiting()
    }

    /// The second half of a wake that began before the last poll.
    #[cfg(test)]
    pub fn wake_late(&self) {
        self.shared.stall.wake_task();
    }

    /// Whether the rest of a response that has begun to leave was dropped.
    pub fn are_cut(&self) -> bool {
        self.shared.state().pieces.are_cut
    }
}

/// The reason for which a call must end now, if there is one.
fn interruption(
    call: &Call,
    deadline: &mut Option<Pin<Box<Sleep>>>,
    ends: &mut Option<Ends>,
    context: &mut Context<'_>,
) -> Option<Failure> {
    if deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(context).is_ready()) {
        return Some(status::deadline_exceeded());
    }
    // A stream that ends by itself when the server drains has no `ends`, and ends by itself also when its right does.
    let has_come = |ends: &mut Ends| call.ends.are_withdrawn() || ends.has_come();
    ends.as_mut().is_some_and(has_come).then(|| call.ends.failure())
}

impl<T> Drop for Responses<T> {
    fn drop(&mut self) {
        // Drop the generator now, even if the task that evicts stalled streams still holds a reference.
        let mut state = self.shared.state();
        state.pieces.cut();
        let serving = state.serving.take();
        drop(state);
        drop(serving);
    }
}

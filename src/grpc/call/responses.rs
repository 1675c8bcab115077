//! The responses of a call: its generator, polled until the call must end.
//!
//! What must end a call is checked before the stream waits, and from time to time while it is always ready, but not before
//! each response: most responses leave alone, and a poll that finds nothing follows each of them.

use std::{
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use futures::Stream;
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Status};

use super::{
    Call, Inspected, Outgoing,
    stall::{Evictable, StallWatch},
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

/// What the responses of a call share with the task that evicts stalled streams.
struct Shared<T> {
    stall: Arc<StallWatch>,
    /// `None` when the stream is over.
    serving: Mutex<Option<Serving<T>>>,
}

impl<T> std::fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("stall", &self.stall).finish_non_exhaustive()
    }
}

impl<T> Shared<T> {
    fn serving(&self) -> MutexGuard<'_, Option<Serving<T>>> {
        // A generator that panicked is not polled again, because its stream has ended.
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Evictable for Shared<T> {
    fn evict_if_stalled(&self, limit: Duration) {
        // A locked stream is being polled, so it is not stalled. Check under the lock, because a poll may just have ended.
        let Ok(mut serving) = self.serving.try_lock() else { return };
        let stalled = if self.stall.is_longer_than(limit) { serving.take() } else { None };
        drop(serving);
        if let Some(Serving { mut call, .. }) = stalled {
            call.end(status::stalled(limit));
        }
    }
}

/// The responses of a call.
#[derive(Debug)]
pub struct Responses<T> {
    shared: Arc<Shared<T>>,
    /// Of `shared.stall`.
    waker: Waker,
    inspected: Inspected,
    deadline: Option<Pin<Box<Sleep>>>,
    ends: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
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
        let Self { shared, waker, inspected, deadline, ends, unchecked, is_over } = &mut *self;
        let mut serving = shared.serving();
        shared.stall.on_poll(context.waker());
        let context = &mut Context::from_waker(waker);
        let Some(Serving { call, stream }) = &mut *serving else {
            *is_over = true;
            return Poll::Ready(Some(Err(status::stalled(inspected.inner.config.stall).into())));
        };
        let is_checked = *unchecked < MAX_UNCHECKED;
        let mut end = if is_checked { None } else { interruption(deadline, ends, context) };
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
                end = interruption(deadline, ends, context);
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
        *serving = None;
        Poll::Ready(item)
    }
}

impl<T: 'static> Responses<T> {
    /// The responses of a generator, until it ends, the deadline of the call passes, or `ends` is cancelled.
    pub(super) fn new<S>(call: Call, stream: S, ends: Option<CancellationToken>) -> Self
    where
        S: Stream<Item = Result<Outgoing<T>, Failure>> + Send + 'static,
    {
        let calls = call.calls.clone();
        let deadline = call.deadline().map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
        let ends = ends.map(|ends| Box::pin(ends.cancelled_owned()));
        let stall = calls.stall_watch();
        let waker = stall.clone().into();
        let serving = Some(Serving { call, stream: Box::pin(stream) });
        let shared = Arc::new(Shared { stall, serving: Mutex::new(serving) });
        let weak: Weak<dyn Evictable> = Arc::downgrade(&(shared.clone() as Arc<dyn Evictable>));
        let inspected = calls.inspect(shared.stall.clone(), weak);
        Self { shared, waker, inspected, deadline, ends, unchecked: MAX_UNCHECKED, is_over: false }
    }

    /// The reader takes a part of a response that it got before.
    pub fn progress(&self) {
        self.shared.stall.on_response();
    }
}

/// The reason for which a call must end now, if there is one.
fn interruption(
    deadline: &mut Option<Pin<Box<Sleep>>>,
    ends: &mut Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    context: &mut Context<'_>,
) -> Option<Failure> {
    if deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(context).is_ready()) {
        return Some(status::deadline_exceeded());
    }
    let is_draining = ends.as_mut().is_some_and(|ends| ends.as_mut().poll(context).is_ready());
    is_draining.then(status::draining)
}

impl<T> Drop for Responses<T> {
    fn drop(&mut self) {
        // Drop the generator now, even if the task that evicts stalled streams still holds a reference.
        let serving = self.shared.serving().take();
        drop(serving);
    }
}

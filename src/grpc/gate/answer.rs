//! The body of an answer on its way to the transport, for calls that do not bound their own responses.
//!
//! The transport does not ask for more while the client has no room, and holds what it has been given. So an answer is
//! encoded at once, counts against the buffers of its connection, and leaves in slices. A client that takes nothing for
//! too long, or whose deadline passes, loses the rest of its answer and gets the reason if it reads again.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use tokio::time::{Instant, Sleep};
use tonic::{Status, body::Body};

use crate::grpc::{
    body::{SLICE, trailers},
    call::{
        Admission, Calls, Inspected, Part,
        stall::{Evictable, StallWatch},
    },
    status::{self, Failure},
};

/// The body of an answer.
#[derive(Debug)]
pub struct Answer {
    shared: Arc<Shared>,
    /// Made when the body first has nothing.
    deadline: Option<Pin<Box<Sleep>>>,
    is_over: bool,
    _inspected: Inspected,
}

/// What an answer shares with the task that ends stalled ones.
#[derive(Debug)]
struct Shared {
    stall: Arc<StallWatch>,
    deadline: Option<Instant>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// The answer waits for its client.
    Held(Held),
    /// The answer was dropped, for this reason.
    Dropped(Failure),
    Over,
}

#[derive(Debug)]
struct Held {
    body: Body,
    /// Bytes of the body that were not given.
    rest: Bytes,
    /// The bytes of `rest`.
    part: Part,
    /// The place of the call.
    _admission: Admission,
}

impl Answer {
    /// Wraps the body of an answer. `encodes`: the body can give its bytes at once.
    ///
    /// # Errors
    /// `BUFFERS_FULL`.
    pub fn new(
        body: Body,
        encodes: bool,
        part: Part,
        admission: Admission,
        calls: &Calls,
    ) -> Result<Self, Failure> {
        let deadline = admission.deadline;
        let mut held = Held { body, rest: Bytes::new(), part, _admission: admission };
        if encodes {
            held.encode()?;
        }
        let (stall, state) = (calls.stall_watch(), Mutex::new(State::Held(held)));
        let shared = Arc::new(Shared { stall, deadline, state });
        let weak: Weak<dyn Evictable> = Arc::downgrade(&(shared.clone() as Arc<dyn Evictable>));
        let inspected = calls.inspect(shared.stall.clone(), weak);
        Ok(Self { shared, deadline: None, is_over: false, _inspected: inspected })
    }

    /// Why the answer must end although more may come.
    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        let Some(deadline) = self.shared.deadline else { return false };
        let sleep = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        sleep.as_mut().poll(context).is_ready()
    }
}

impl Held {
    /// Takes the bytes of the answer from its body.
    fn encode(&mut self) -> Result<(), Failure> {
        let context = &mut Context::from_waker(Waker::noop());
        if let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut self.body).poll_frame(context) {
            match frame.into_data() {
                Ok(bytes) => {
                    // The transport would hold a small answer anyway.
                    if bytes.len() > SLICE {
                        self.part.resize(bytes.len())?;
                    }
                    self.rest = bytes;
                }
                Err(_) => self.body = Body::empty(),
            }
        }
        Ok(())
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.rest.is_empty() {
            match std::task::ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => self.rest = bytes,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return Poll::Ready(other),
            }
        }
        let slice = self.rest.split_to(self.rest.len().min(SLICE));
        if self.rest.is_empty() {
            // Frees the buffer of the slices when the transport has sent them.
            let _ = self.part.resize(0);
        }
        Poll::Ready(Some(Ok(Frame::data(slice))))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A body that panicked is not polled again, because its stream has ended.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Evictable for Shared {
    fn evict_if_stalled(&self, limit: Duration) {
        // A locked answer is being polled, so it is not stalled. Check under the lock, because a poll may just have ended.
        let Ok(mut state) = self.state.try_lock() else { return };
        if !matches!(*state, State::Held(_)) || !self.stall.is_waiting() {
            return;
        }
        let failure = if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            status::deadline_exceeded()
        } else if self.stall.is_longer_than(limit) {
            status::stalled(limit)
        } else {
            return;
        };
        *state = State::Dropped(failure);
    }

    /// An answer counts against the buffers of its connection instead.
    fn evict_for_room(&self, _: usize, _: u64) {}
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let shared = self.shared.clone();
        let mut state = shared.state();
        shared.stall.on_poll(context.waker());
        let waker = shared.stall.clone().into();
        let context = &mut Context::from_waker(&waker);
        let frame = match &mut *state {
            State::Held(held) => held.poll(context),
            State::Dropped(_) => {
                let State::Dropped(failure) = std::mem::replace(&mut *state, State::Over) else {
                    return Poll::Ready(None);
                };
                self.is_over = true;
                return Poll::Ready(Some(trailers(&failure.into())));
            }
            State::Over => Poll::Ready(None),
        };
        match frame {
            Poll::Ready(Some(Ok(frame))) => {
                shared.stall.on_response();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Pending if self.is_late(context) => {
                *state = State::Over;
                self.is_over = true;
                Poll::Ready(Some(trailers(&status::deadline_exceeded().into())))
            }
            Poll::Pending => Poll::Pending,
            over @ Poll::Ready(_) => {
                *state = State::Over;
                self.is_over = true;
                over
            }
        }
    }
}

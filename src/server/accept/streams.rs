//! The streams of a connection: futures that hyper makes, polled by the task of their connection.
//!
//! A task a stream would write to the connection by itself, from any worker, and each write would wake the task of the
//! connection. Here the connection polls all streams that are ready, and then writes what they gave.
//!
//! The streams of a connection share the time of its turn. When it has passed, the streams that are ready and have not been
//! polled keep their order for the next turn.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use futures::{FutureExt, Stream, stream::FuturesUnordered};
use hyper::rt::Executor;

/// How long the streams of a connection may work before others run. A connection with many busy streams delays each task
/// that waits for the same worker by this, and by the longest poll of one stream.
const TURN: Duration = Duration::from_micros(500);

type Served = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The streams of a connection. Dropping it drops them.
pub struct Streams {
    polled: FuturesUnordered<InTurn>,
    started: Arc<Started>,
    turn: Arc<Turn>,
}

/// When the streams must let others run.
struct Turn {
    length: Duration,
    since: Instant,
    /// The end of the current turn, in nanoseconds after `since`.
    ends: AtomicU64,
}

impl Turn {
    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn begins(&self) {
        let turn = u64::try_from(self.length.as_nanos()).unwrap_or(u64::MAX);
        self.ends.store(self.now().saturating_add(turn), Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.now() >= self.ends.load(Ordering::Relaxed)
    }
}

/// A stream that ends its turn: it gives itself back when it is polled at the end of a turn and has not ended.
///
/// [`FuturesUnordered`] polls its futures until none is ready, and only a future that is ready makes it stop.
struct InTurn {
    stream: Option<Served>,
    turn: Arc<Turn>,
}

impl Future for InTurn {
    type Output = Option<Served>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        if stream.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        if self.turn.is_over() { Poll::Ready(self.stream.take()) } else { Poll::Pending }
    }
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
        Self::with_turns_of(TURN, waker)
    }

    /// The same, with turns of this length.
    pub(super) fn with_turns_of(length: Duration, waker: Waker) -> Self {
        let started = Arc::new(Started { streams: Mutex::default(), waker });
        let turn = Arc::new(Turn { length, since: Instant::now(), ends: AtomicU64::new(0) });
        Self { polled: FuturesUnordered::new(), started, turn }
    }

    /// Starts streams among these.
    pub fn starter(&self) -> Starter {
        Starter(self.started.clone())
    }

    /// A turn begins.
    pub fn begin_turn(&self) {
        self.turn.begins();
    }

    /// Whether the turn has lasted long enough.
    pub fn is_turn_over(&self) -> bool {
        self.turn.is_over()
    }

    /// Polls the streams that are ready, until the turn is over: those that are left wake `context` again.
    pub fn poll(&mut self, context: &mut Context<'_>) {
        for stream in self.started.streams().drain(..) {
            self.polled.push(InTurn { stream: Some(stream), turn: self.turn.clone() });
        }
        while let Poll::Ready(Some(given_back)) = Pin::new(&mut self.polled).poll_next(context) {
            if let Some(stream) = given_back {
                self.polled.push(InTurn { stream: Some(stream), turn: self.turn.clone() });
                context.waker().wake_by_ref();
                return;
            }
        }
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, AtomicUsize},
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn streams_that_are_always_ready_and_slow_are_polled_in_order_one_in_each_turn() {
        let mut streams = Streams::new(Waker::noop().clone());
        let polls = Arc::new(Mutex::new(Vec::new()));
        for number in 0..5 {
            let polls = polls.clone();
            streams.starter().execute(std::future::poll_fn(move |context| {
                polls.lock().unwrap().push(number);
                std::thread::sleep(TURN);
                context.waker().wake_by_ref();
                Poll::<()>::Pending
            }));
        }
        let woken = Arc::new(Woken::default());
        let waker = woken.clone().into();
        for _ in 0..15 {
            streams.begin_turn();
            streams.poll(&mut Context::from_waker(&waker));
            assert!(streams.is_turn_over() && woken.0.swap(false, Ordering::Relaxed));
        }
        assert_eq!(*polls.lock().unwrap(), [0, 1, 2, 3, 4].repeat(3));
    }

    #[test]
    fn a_stream_that_is_given_back_at_the_end_of_a_turn_is_woken_as_before() {
        let mut streams = Streams::new(Waker::noop().clone());
        let (waiting, polls) = (Arc::new(Mutex::new(None::<Waker>)), Arc::new(AtomicUsize::new(0)));
        let (registered, counter) = (waiting.clone(), polls.clone());
        streams.starter().execute(std::future::poll_fn(move |context| {
            if counter.fetch_add(1, Ordering::Relaxed) == 0 {
                std::thread::sleep(TURN);
            }
            *registered.lock().unwrap() = Some(context.waker().clone());
            Poll::<()>::Pending
        }));
        let mut polls_after_turn = || {
            streams.begin_turn();
            streams.poll(&mut Context::from_waker(Waker::noop()));
            polls.load(Ordering::Relaxed)
        };
        // It is polled once more, because its waker is another one.
        assert_eq!([polls_after_turn(), polls_after_turn(), polls_after_turn()], [1, 2, 2]);
        waiting.lock().unwrap().take().unwrap().wake();
        assert_eq!([polls_after_turn(), polls_after_turn()], [3, 3]);
    }
}

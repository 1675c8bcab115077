//! Alarms for many streams that wait for the same moments.
//!
//! All heartbeats of one length are due on one grid, see [`Pacing::heartbeat_at`](super::Pacing::heartbeat_at), so thousands
//! of idle streams wait for a few moments. Streams that wait for the same one share a timer, which wakes them back to back:
//! a timer each would be touched several times on its way through the timer wheel, and its memory is cold each time.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Wake, Waker},
};

use tokio::{
    task::{Unconstrained, unconstrained},
    time::{Instant, Sleep},
};

/// The fewest timers that are looked through for those that are over.
const MIN_TIMERS: usize = 64;

/// The timers of streams that share them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Alarms(Arc<Mutex<Timers>>);

#[derive(Debug, Default)]
struct Timers {
    by_due: BTreeMap<Instant, Weak<Timer>>,
    /// How many there were after those that are over were forgotten.
    known: usize,
}

/// An alarm of one stream. Dropping it frees everything that it has.
#[derive(Debug)]
pub struct Alarm {
    alarms: Alarms,
    set: Option<Set>,
}

/// An alarm that was set.
#[derive(Debug)]
struct Set {
    timer: Arc<Timer>,
    /// Which of the timer's wakers is that of the stream; `None` before it was polled.
    place: Option<usize>,
}

/// A timer, and those that it wakes.
struct Timer {
    due: Instant,
    /// It is polled once, with `waiting` as its waker. Held to keep it.
    _sleep: Mutex<Pin<Box<Unconstrained<Sleep>>>>,
    waiting: Arc<Waiting>,
}

/// The streams that wait for a timer. It is the waker of the timer.
#[derive(Default)]
struct Waiting(Mutex<Wakers>);

#[derive(Default)]
struct Wakers {
    is_over: bool,
    places: Vec<Option<Waker>>,
    /// The places without a waker.
    free: Vec<usize>,
}

impl Wakers {
    fn add(&mut self, waker: Waker) -> usize {
        let place = self.free.pop().unwrap_or(self.places.len());
        match self.places.get_mut(place) {
            Some(free) => *free = Some(waker),
            None => self.places.push(Some(waker)),
        }
        place
    }

    fn remove(&mut self, place: usize) {
        if let Some(waker) = self.places.get_mut(place) {
            *waker = None;
            self.free.push(place);
        }
    }
}

impl Waiting {
    fn wakers(&self) -> MutexGuard<'_, Wakers> {
        // No change of it can panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        let wakers = {
            let mut wakers = self.wakers();
            wakers.is_over = true;
            std::mem::take(&mut wakers.places)
        };
        for waker in wakers.into_iter().flatten() {
            waker.wake();
        }
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").field("due", &self.due).finish_non_exhaustive()
    }
}

impl Timer {
    fn new(due: Instant) -> Self {
        // A task that has done much in one turn could not set the timer otherwise.
        let mut sleep = Box::pin(unconstrained(tokio::time::sleep_until(due)));
        let waiting = Arc::<Waiting>::default();
        let waker = Waker::from(waiting.clone());
        if sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            waiting.wakers().is_over = true;
        }
        Self { due, _sleep: Mutex::new(sleep), waiting }
    }
}

impl Alarms {
    /// An alarm that is not set.
    #[must_use]
    pub fn alarm(&self) -> Alarm {
        Alarm { alarms: self.clone(), set: None }
    }

    fn timer(&self, due: Instant) -> Arc<Timer> {
        // No change of it can panic half way.
        let mut timers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(timer) = timers.by_due.get(&due).and_then(Weak::upgrade) {
            return timer;
        }
        if timers.by_due.len() > MIN_TIMERS.max(2 * timers.known) {
            timers.by_due.retain(|_, timer| timer.strong_count() > 0);
            timers.known = timers.by_due.len();
        }
        let timer = Arc::new(Timer::new(due));
        timers.by_due.insert(due, Arc::downgrade(&timer));
        timer
    }
}

impl Alarm {
    /// Ready at `due`, or at an earlier moment for which the alarm was set before: a stream whose batches leave all the time
    /// sets it once for each heartbeat, not for each batch.
    pub fn poll_at(&mut self, due: Instant, context: &mut Context<'_>) -> Poll<()> {
        if self.set.as_ref().is_none_or(|set| set.timer.due > due) {
            self.unset();
            self.set = Some(Set { timer: self.alarms.timer(due), place: None });
        }
        let Some(Set { timer, place }) = &mut self.set else { return Poll::Pending };
        let mut wakers = timer.waiting.wakers();
        if wakers.is_over {
            drop(wakers);
            self.set = None;
            return Poll::Ready(());
        }
        match place.and_then(|place| wakers.places.get_mut(place)) {
            Some(Some(waker)) => waker.clone_from(context.waker()),
            _ => *place = Some(wakers.add(context.waker().clone())),
        }
        Poll::Pending
    }

    /// Waits until `due`. See [`poll_at`](Self::poll_at); cancelling it leaves the alarm set.
    pub async fn at(&mut self, due: Instant) {
        std::future::poll_fn(|context| self.poll_at(due, context)).await;
    }

    fn unset(&mut self) {
        if let Some(Set { timer, place: Some(place) }) = self.set.take() {
            timer.waiting.wakers().remove(place);
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.unset();
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn poll(alarm: &mut Alarm, due: Instant, count: &Arc<Count>) -> Poll<()> {
        alarm.poll_at(due, &mut Context::from_waker(&Waker::from(count.clone())))
    }

    fn timers(alarms: &Alarms) -> usize {
        alarms.0.lock().unwrap().by_due.values().filter(|timer| timer.strong_count() > 0).count()
    }

    #[tokio::test(start_paused = true)]
    async fn all_streams_are_woken_at_their_moment_and_share_its_timer() {
        let (alarms, now) = (Alarms::default(), Instant::now());
        let waiting = (1..=3).flat_map(|seconds| [seconds; 100]).map(|seconds| {
            let alarms = alarms.clone();
            tokio::spawn(async move {
                let mut alarm = alarms.alarm();
                alarm.at(now + Duration::from_secs(seconds)).await;
                assert_eq!(now.elapsed(), Duration::from_secs(seconds));
            })
        });
        let waiting = waiting.collect::<Vec<_>>();
        for task in waiting {
            task.await.unwrap();
        }
        let made = alarms.0.lock().unwrap().by_due.len();
        assert_eq!((made, timers(&alarms)), (3, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_wakes_once_and_not_after_it_was_dropped_or_set_earlier() {
        let (alarms, now) = (Alarms::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        let counts = [(); 4].map(|()| Arc::<Count>::default());
        let mut all = [(); 4].map(|()| alarms.alarm());
        for (alarm, count) in all.iter_mut().zip(&counts) {
            for _ in 0..3 {
                assert!(poll(alarm, at(9), count).is_pending());
            }
        }
        let [mut kept, mut earlier, mut later, dropped] = all;
        drop(dropped);
        assert!(poll(&mut earlier, at(2), &counts[1]).is_pending());
        assert!(poll(&mut later, at(20), &counts[2]).is_pending(), "it stays set for the earlier moment");
        let woken = || counts.each_ref().map(|count| count.0.load(Ordering::Relaxed));
        tokio::time::sleep_until(at(5)).await;
        assert_eq!(woken(), [0, 1, 0, 0]);
        assert!(poll(&mut earlier, at(2), &counts[1]).is_ready());
        tokio::time::sleep_until(at(10)).await;
        assert_eq!(woken(), [1, 1, 1, 0]);
        assert!(
            poll(&mut later, at(20), &counts[2]).is_ready() && poll(&mut kept, at(9), &counts[0]).is_ready()
        );
        assert!(poll(&mut later, at(20), &counts[2]).is_pending(), "it is set again");
        assert!(poll(&mut kept, at(9), &counts[0]).is_ready(), "a moment that has passed");
        drop((kept, earlier, later));
        assert_eq!(timers(&alarms), 0, "no timer is left");
        tokio::time::sleep_until(at(30)).await;
        assert_eq!(woken(), [1, 1, 1, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn streams_that_come_and_go_leave_nothing() {
        let (alarms, due) = (Alarms::default(), Instant::now() + Duration::from_secs(3600));
        let mut kept = alarms.alarm();
        let count = Arc::default();
        assert!(poll(&mut kept, due, &count).is_pending());
        for _ in 0..1000 {
            assert!(poll(&mut alarms.alarm(), due, &count).is_pending());
        }
        assert_eq!(kept.set.as_ref().unwrap().timer.waiting.wakers().places.len(), 2);
        for seconds in 0..1000 {
            let due = due + Duration::from_secs(seconds);
            assert!(poll(&mut alarms.alarm(), due, &count).is_pending());
        }
        assert!(alarms.0.lock().unwrap().by_due.len() <= MIN_TIMERS + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_waker_is_woken() {
        let (alarms, due) = (Alarms::default(), Instant::now() + Duration::from_secs(1));
        let (first, second) = (Arc::<Count>::default(), Arc::<Count>::default());
        let mut alarm = alarms.alarm();
        assert!(poll(&mut alarm, due, &first).is_pending() && poll(&mut alarm, due, &second).is_pending());
        tokio::time::sleep_until(due + Duration::from_millis(1)).await;
        assert_eq!((first.0.load(Ordering::Relaxed), second.0.load(Ordering::Relaxed)), (0, 1));
    }
}

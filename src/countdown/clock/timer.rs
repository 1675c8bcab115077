//! One kernel timer for all sleepers of the server: Linux's timerfd, awaited through tokio.
//!
//! tokio's own timers round up to a whole millisecond and more; a timerfd is some 0.1 ms late. Sleepers stand in a
//! map by their deadline. One task, the driver, waits for the timer, wakes those that are due, and sets the timer to
//! the next deadline; a sleeper with an earlier deadline than all others sets the timer itself. Nothing runs when
//! nothing is due, and an idle stream costs an entry in the map, not a descriptor.
//!
//! Nobody waits for the driver. It ends when the last [`Timer`] handle goes, and then nobody sleeps; if it ends for
//! any other reason (its runtime shuts down, or it panics), every sleeper is told [`Stopped`] and none hangs.
//!
//! A second timerfd, never due, tells when the wall clock was set (`TFD_TIMER_CANCEL_ON_SET`): all sleepers then end.

use std::{
    collections::BTreeMap,
    fmt, io, mem,
    os::fd::OwnedFd,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};
use tokio::io::{Interest, unix::AsyncFd};
use tokio_util::task::AbortOnDropHandle;

/// So many are woken before the driver lets other tasks run: some 50 µs of its worker.
const SLICE: usize = 256;

/// The timer, and the task that serves it. Dropping it ends the task.
pub struct Timer {
    queue: Arc<Queue>,
    _driver: AbortOnDropHandle<()>,
}

/// The driver is gone; nobody will wake a sleeper.
#[derive(Debug)]
pub(super) struct Stopped;

struct Queue {
    timer: AsyncFd<OwnedFd>,
    /// None where the kernel can't tell when the wall clock is set.
    steps: Option<AsyncFd<OwnedFd>>,
    /// Tells sleepers of one deadline apart.
    next_id: AtomicU64,
    state: Mutex<State>,
}

type Key = (Instant, u64);

#[derive(Default)]
struct State {
    sleepers: BTreeMap<Key, Waker>,
    /// What the timer is set to. It may be the deadline of a sleeper that was dropped: one wake-up for nothing is
    /// cheaper than setting the timer at each drop.
    armed: Option<Instant>,
    /// How often the wall clock was set.
    steps: u64,
    stopped: bool,
}

impl Timer {
    pub(super) fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let queue = Arc::new(Queue {
            timer: register(TimerfdClockId::Monotonic)?,
            steps: watch_steps().ok(),
            next_id: AtomicU64::new(0),
            state: Mutex::default(),
        });
        // Made here and not in the task, which may be dropped before it ever ran.
        let guard = StopOnDrop(Arc::clone(&queue));
        let driver = AbortOnDropHandle::new(runtime.spawn(drive(guard)));
        Ok(Self { queue, _driver: driver })
    }

    /// Whether sleeps end when the wall clock is set.
    pub(super) fn notices_steps(&self) -> bool {
        self.queue.steps.is_some()
    }

    /// Ends at the deadline, or when the wall clock was set.
    pub(super) fn sleep_until(&self, deadline: Instant) -> impl Future<Output = Result<(), Stopped>> {
        let id = self.queue.next_id.fetch_add(1, Ordering::Relaxed);
        let steps = self.queue.lock().steps;
        Sleeper { queue: &self.queue, key: (deadline, id), steps }
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").field("sleepers", &self.queue.lock().sleepers.len()).finish_non_exhaustive()
    }
}

#[expect(
    deprecated,
    reason = "the new constructors are `unsafe`, since a descriptor could be closed under them; an `OwnedFd` that is \
              never taken out again cannot"
)]
fn register(clock: TimerfdClockId) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = timerfd_create(clock, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    AsyncFd::with_interest(fd, Interest::READABLE)
}

/// A timer that is never due, and readable when the wall clock was set.
fn watch_steps() -> io::Result<AsyncFd<OwnedFd>> {
    let fd = register(TimerfdClockId::Realtime)?;
    let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
    let never = Timespec { tv_sec: i64::MAX, tv_nsec: 0 };
    timerfd_settime(&fd, flags, &Itimerspec { it_interval: Timespec::default(), it_value: never })?;
    Ok(fd)
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic half-way through a change runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the timer to the first deadline. Relative to now, which costs less than 1 µs of precision and needs no
    /// look into [`Instant`], and never fires early: both count `CLOCK_MONOTONIC`.
    fn arm(&self, state: &mut State) -> Result<(), Errno> {
        state.armed = state.sleepers.first_key_value().map(|((deadline, _), _)| *deadline);
        // Nothing would disarm it.
        let wait = state.armed.map_or(Duration::ZERO, |deadline| {
            deadline.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1))
        });
        let seconds = i64::try_from(wait.as_secs()).unwrap_or(i64::MAX);
        let wait = Timespec { tv_sec: seconds, tv_nsec: wait.subsec_nanos().into() };
        let once = Itimerspec { it_interval: Timespec::default(), it_value: wait };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once).map(drop)
    }

    /// Moves a slice of those who are due to `due`, or sets the timer if nobody is.
    fn take_due(&self, due: &mut Vec<Waker>) -> Result<(), Errno> {
        let mut state = self.lock();
        let now = Instant::now();
        while due.len() < SLICE
            && let Some(first) = state.sleepers.first_entry()
            && first.key().0 <= now
        {
            due.push(first.remove());
        }
        if due.is_empty() { self.arm(&mut state) } else { Ok(()) }
    }

    /// Ends all sleeps: the wall clock was set.
    fn stepped(&self) {
        let woken = {
            let mut state = self.lock();
            state.steps += 1;
            mem::take(&mut state.sleepers)
        };
        woken.into_values().for_each(Waker::wake);
    }

    /// Ends all sleeps, now and for ever.
    fn stop(&self) {
        let woken = {
            let mut state = self.lock();
            state.stopped = true;
            mem::take(&mut state.sleepers)
        };
        woken.into_values().for_each(Waker::wake);
    }
}

struct Sleeper<'a> {
    queue: &'a Queue,
    key: Key,
    /// [`State::steps`] when it began.
    steps: u64,
}

impl Future for Sleeper<'_> {
    type Output = Result<(), Stopped>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { queue, key, steps } = *self;
        if Instant::now() >= key.0 {
            return Poll::Ready(Ok(()));
        }
        let mut state = queue.lock();
        if state.stopped {
            return Poll::Ready(Err(Stopped));
        }
        if state.steps != steps {
            return Poll::Ready(Ok(()));
        }
        if state.sleepers.get(&key).is_some_and(|waker| waker.will_wake(context.waker())) {
            return Poll::Pending;
        }
        let replaced = state.sleepers.insert(key, context.waker().clone());
        let armed = match state.armed {
            Some(armed) if armed <= key.0 => Ok(()),
            _ => queue.arm(&mut state),
        };
        drop(state);
        // Outside the lock: the last waker of a task drops the task, and with it perhaps another sleeper.
        drop(replaced);
        if armed.is_err() {
            queue.stop();
            return Poll::Ready(Err(Stopped));
        }
        Poll::Pending
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        // In two steps, so that the waker is dropped outside the lock.
        let waker = self.queue.lock().sleepers.remove(&self.key);
        drop(waker);
    }
}

/// Stops the queue however the driver ends.
struct StopOnDrop(Arc<Queue>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Wakes sleepers until the timer can't be had any more.
async fn drive(queue: StopOnDrop) {
    if let Err(error) = drive_while_it_works(&queue.0).await {
        tracing::error!(%error, "the precise timer stopped: sleeps are only good to the next millisecond now");
    }
}

async fn drive_while_it_works(queue: &Queue) -> io::Result<()> {
    let mut due = Vec::new();
    loop {
        tokio::select! {
            expired = wait(&queue.timer) => expired?,
            stepped = step(queue.steps.as_ref()) => { stepped?; queue.stepped(); }
        }
        loop {
            queue.take_due(&mut due)?;
            if due.is_empty() {
                break;
            }
            due.drain(..).for_each(Waker::wake);
            tokio::task::yield_now().await;
        }
    }
}

/// Waits until the timer was due.
async fn wait(timer: &AsyncFd<OwnedFd>) -> io::Result<()> {
    loop {
        let mut ready = timer.readable().await?;
        let read = |fd: &AsyncFd<OwnedFd>| Ok(rustix::io::read(fd.get_ref(), &mut [0; 8])?);
        // Otherwise it was set anew meanwhile, and is not due.
        if let Ok(read) = ready.try_io(read) {
            return read.map(drop);
        }
    }
}

/// Waits until the wall clock was set.
async fn step(steps: Option<&AsyncFd<OwnedFd>>) -> io::Result<()> {
    let Some(steps) = steps else { return std::future::pending().await };
    match wait(steps).await {
        Err(error) if error.raw_os_error() == Some(Errno::CANCELED.raw_os_error()) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;

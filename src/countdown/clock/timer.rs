//! Two kernel timers for all sleepers of the server, one for each clock: Linux's timerfd, awaited through tokio.
//!
//! tokio's own timers round up to a whole millisecond or more; a timerfd is about 0.1 ms late. Sleepers are in a
//! [queue] by their moment, and sleepers of one moment share an entry. A lane is such a queue and its timer, which is
//! set to the first moment, in absolute time. Each lane has one task, the driver: it waits for the timer, wakes the
//! sleepers that are due, in slices between which other tasks run, and sets the timer again. A sleeper whose moment
//! comes before all others sets the timer itself. Sleepers of one connection are woken together, so that their
//! responses leave in one write. The driver sleeps while no sleeper is due, and an idle stream costs an entry in the
//! queue, not a descriptor.
//!
//! Where many moments are close together, the driver leaves a gap after each round, so that one wake serves several of
//! them. A moment with no other close to it is served at once, and no moment is served early.
//!
//! The driver ends when the last [`Timer`] handle is dropped, and then no sleeper is left. If it ends for another
//! reason (its runtime shuts down, or it panics), every sleep ends with [`Stopped`], and no sleeper hangs.
//!
//! The timer of the wall clock also fires when that clock is set (`TFD_TIMER_CANCEL_ON_SET`): all its sleeps then end.

use std::{
    fmt, io,
    os::fd::OwnedFd,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Instant,
};

use rustix::{
    io::Errno,
    time::{
        ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
        timerfd_create, timerfd_settime,
    },
};
use tokio::io::{Interest, unix::AsyncFd};
use tokio_util::task::AbortOnDropHandle;

use self::queue::{EntryId, LaneMoment, Queue, Sleeping};
use crate::{
    countdown::{Moment, Nanos},
    stream::{self, WakeGroup},
};

mod queue;

/// The least number of due sleepers that are taken out of the queue before the first is woken, if that many are due.
const ROUND: usize = 1 << 14;

/// How many sleepers a driver wakes before other tasks run; it then continues to the end of a connection's sleepers.
const SLICE: usize = 64;

/// The most sleepers that are woken before other tasks run, also of one connection: a worker's own queue has room for
/// about this many tasks.
const MAX_SLICE: usize = 240;

/// The timers, and the tasks that serve them. Dropping it ends the tasks.
pub struct Timer {
    monotonic: Arc<Lane>,
    wall: Arc<Lane>,
    /// One moment of the monotonic clock, as an `Instant` and as the timer counts it.
    base: (Instant, LaneMoment),
    _drivers: [AbortOnDropHandle<()>; 2],
}

/// The driver has ended, and will wake no sleeper.
#[derive(Debug)]
pub(super) struct Stopped;

/// A clock's timer, and the sleepers that wait for it.
struct Lane {
    clock: ClockId,
    timer: AsyncFd<OwnedFd>,
    flags: TimerfdTimerFlags,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: Queue,
    /// The moment that the timer is set to. It may be the moment of a dropped sleeper: one spurious wake-up is cheaper
    /// than setting the timer at each drop.
    armed: Option<LaneMoment>,
    stopped: bool,
}

impl Timer {
    pub(super) fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let monotonic = Arc::new(Lane::new(ClockId::Monotonic)?);
        let wall = Arc::new(Lane::new(ClockId::Realtime)?);
        let base = base(&monotonic);
        let drivers = [&monotonic, &wall].map(|lane| {
            // Make the driver here and not in the task, which may be dropped before its first poll.
            let driver = Driver { lane: Arc::clone(lane), due: Vec::new() };
            AbortOnDropHandle::new(runtime.spawn(driver.run()))
        });
        Ok(Self { monotonic, wall, base, _drivers: drivers })
    }

    /// Whether sleeps until a moment end when the wall clock is set.
    pub(super) fn notices_steps(&self) -> bool {
        self.wall.flags.contains(TimerfdTimerFlags::CANCEL_ON_SET)
    }

    /// Sleeps until the deadline.
    pub(super) fn sleep_until(
        &self,
        deadline: Instant,
        wake_group: Option<WakeGroup>,
    ) -> impl Future<Output = Result<(), Stopped>> {
        let (instant, base) = self.base;
        let after = Nanos::from(deadline.saturating_duration_since(instant));
        Sleeper::new(&self.monotonic, base + after, wake_group)
    }

    /// Sleeps until the moment, or until the wall clock is set.
    pub(super) fn sleep_until_moment(
        &self,
        moment: Moment,
        wake_group: Option<WakeGroup>,
    ) -> impl Future<Output = Result<(), Stopped>> {
        Sleeper::new(&self.wall, LaneMoment::of_wall_clock(moment), wake_group)
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lanes = [&self.monotonic, &self.wall];
        let sum =
            |count: fn(&Queue) -> usize| lanes.iter().map(|lane| count(&lane.lock().queue)).sum::<usize>();
        f.debug_struct("Timer")
            .field("moments", &sum(Queue::moments))
            .field("sleepers", &sum(Queue::sleepers))
            .finish_non_exhaustive()
    }
}

impl Lane {
    #[expect(
        deprecated,
        reason = "the new constructors are `unsafe`, since a descriptor could be closed under them; an `OwnedFd` that \
                  is never taken out again cannot"
    )]
    fn new(clock: ClockId) -> io::Result<Self> {
        let is_wall = clock == ClockId::Realtime;
        let timer = if is_wall { TimerfdClockId::Realtime } else { TimerfdClockId::Monotonic };
        let fd = timerfd_create(timer, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let absolute = TimerfdTimerFlags::ABSTIME;
        let notices = absolute | TimerfdTimerFlags::CANCEL_ON_SET;
        // Some kernels have timerfd and lack this flag.
        let flags = if is_wall && set(&fd, notices, LaneMoment::LAST).is_ok() { notices } else { absolute };
        let timer = AsyncFd::with_interest(fd, Interest::READABLE)?;
        Ok(Self { clock, timer, flags, state: Mutex::default() })
    }

    fn now(&self) -> LaneMoment {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(self.clock);
        LaneMoment::new(tv_sec, tv_nsec)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock leaves the state consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the timer, if it is set to a later moment than the first one, or not set.
    fn arm(&self, state: &mut State) -> Result<(), Errno> {
        match state.queue.next() {
            Some(next) if state.armed.is_none_or(|armed| armed > next) => {
                state.armed = Some(next);
                set(self.timer.get_ref(), self.flags, next)
            }
            _ => Ok(()),
        }
    }

    /// Adds a sleeper to the queue.
    fn insert(&self, moment: LaneMoment, sleeping: Sleeping) -> Result<EntryId, Stopped> {
        let mut state = self.lock();
        if state.stopped {
            return Err(Stopped);
        }
        let entry = state.queue.insert(moment, sleeping);
        let armed = self.arm(&mut state);
        drop(state);
        match armed {
            Ok(()) => Ok(entry),
            // The wall clock was set a moment ago, and the timer is set. Wake all sleepers, this one too, so that they
            // read the clock again.
            Err(Errno::CANCELED) => {
                self.end_all();
                Ok(entry)
            }
            Err(_) => {
                self.stop();
                Err(Stopped)
            }
        }
    }

    /// Moves the sleepers that are due to `due`; if there is none, sets the timer.
    fn take_due(&self, due: &mut Vec<Sleeping>) -> Result<(), Errno> {
        let mut state = self.lock();
        state.queue.take_due(self.now(), ROUND, due);
        if due.is_empty() { self.arm(&mut state) } else { Ok(()) }
    }

    /// Ends all sleeps.
    fn end_all(&self) {
        let woken = self.lock().queue.take_all();
        woken.into_iter().for_each(Waker::wake);
    }

    /// Ends all sleeps, and refuses new ones.
    fn stop(&self) {
        self.lock().stopped = true;
        self.end_all();
    }

    /// Waits until the timer is due, or its clock was set.
    async fn wait(&self) -> io::Result<()> {
        loop {
            let mut ready = self.timer.readable().await?;
            let read = rustix::io::read(self.timer.get_ref(), &mut [0; 8]);
            // Clear it also after a successful read: the timer then has no more to read, and reports the next expiry
            // to tokio again.
            ready.clear_ready();
            self.lock().armed = None;
            match read {
                Ok(_) => return Ok(()),
                // Meanwhile the timer was set to a later moment.
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// One moment of the monotonic clock, as an `Instant` and as the timer counts it. The time between the two readings
/// makes all sleeps late, and none early.
fn base(monotonic: &Lane) -> (Instant, LaneMoment) {
    let tries = std::iter::repeat_with(|| {
        let (first, second) = (Instant::now(), monotonic.now());
        (first.elapsed(), first, second)
    });
    // The thread may be preempted between the two readings, so take the closest pair of several.
    let best = tries.take(8).min_by_key(|(passed, ..)| *passed);
    best.map_or_else(|| (Instant::now(), monotonic.now()), |(_, first, second)| (first, second))
}

/// Sets a timer to a moment of its clock.
fn set(timer: &OwnedFd, flags: TimerfdTimerFlags, moment: LaneMoment) -> Result<(), Errno> {
    // A value of 0 would disarm the timer.
    let (tv_sec, tv_nsec) = moment.max(LaneMoment::FIRST).parts();
    let at = Timespec { tv_sec, tv_nsec };
    let once = Itimerspec { it_interval: Timespec::default(), it_value: at };
    timerfd_settime(timer, flags, &once).map(drop)
}

struct Sleeper<'a> {
    lane: &'a Lane,
    moment: LaneMoment,
    wake_group: Option<WakeGroup>,
    entry: Option<EntryId>,
}

impl<'a> Sleeper<'a> {
    fn new(lane: &'a Lane, moment: LaneMoment, wake_group: Option<WakeGroup>) -> Self {
        Self { lane, moment, wake_group, entry: None }
    }
}

impl Future for Sleeper<'_> {
    type Output = Result<(), Stopped>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(entry) = self.entry else {
            let sleeping = Sleeping { wake_group: self.wake_group, waker: context.waker().clone() };
            return match self.lane.insert(self.moment, sleeping) {
                Ok(entry) => {
                    self.entry = Some(entry);
                    Poll::Pending
                }
                Err(stopped) => Poll::Ready(Err(stopped)),
            };
        };
        let mut state = self.lane.lock();
        let Some(waker) = state.queue.waker(entry) else {
            // It was taken out: it is due, the clock was set, or the driver has ended.
            return Poll::Ready(if state.stopped { Err(Stopped) } else { Ok(()) });
        };
        if !waker.will_wake(context.waker()) {
            let replaced = std::mem::replace(waker, context.waker().clone());
            drop(state);
            drop(replaced);
        }
        Poll::Pending
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.entry {
            // In two steps, so that the waker is dropped outside the lock.
            let waker = self.lane.lock().queue.remove(entry);
            drop(waker);
        }
    }
}

/// Wakes the sleepers of a lane.
struct Driver {
    lane: Arc<Lane>,
    /// Sleepers that were taken out of the queue, and not woken yet.
    due: Vec<Sleeping>,
}

impl Driver {
    /// Serves the lane until its timer fails.
    async fn run(mut self) {
        loop {
            let served = match self.lane.wait().await {
                Ok(()) => self.serve().await.map_err(io::Error::from),
                Err(error) => Err(error),
            };
            match served {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(Errno::CANCELED.raw_os_error()) => {
                    self.lane.end_all();
                }
                Err(error) => {
                    tracing::error!(%error, "a precise timer failed; sleeps now end at the next whole millisecond");
                    return;
                }
            }
        }
    }

    /// Wakes all sleepers that are due, and sets the timer for the others.
    async fn serve(&mut self) -> Result<(), Errno> {
        loop {
            self.lane.take_due(&mut self.due)?;
            if self.due.is_empty() {
                return Ok(());
            }
            while !self.due.is_empty() {
                let slice = stream::slice(&self.due, |one| one.wake_group, SLICE, MAX_SLICE);
                self.due.drain(..slice).for_each(|one| one.waker.wake());
                if !self.due.is_empty() {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

/// However the driver ends, all its sleepers wake.
impl Drop for Driver {
    fn drop(&mut self) {
        self.due.drain(..).for_each(|one| one.waker.wake());
        self.lane.stop();
    }
}

#[cfg(test)]
mod tests;

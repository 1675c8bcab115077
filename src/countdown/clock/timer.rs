//! Two kernel timers for all sleepers of the server, one for each clock: Linux's timerfd, awaited through tokio.
//!
//! tokio's own timers round up to a whole millisecond and more; a timerfd is some 0.1 ms late. Sleepers stand in a
//! [queue] by their moment, and those of one moment share an entry. A lane is such a queue and its timer, which is set
//! to the first moment, in absolute time. One task a lane, the driver, waits for the timer, wakes those who are due, in
//! slices that let others run, and sets the timer anew; a sleeper with an earlier moment than all others sets the timer
//! itself. Those of one connection are woken together, so that what they have to say leaves in one write. Nothing runs
//! when nothing is due, and an idle stream costs an entry in the queue, not a descriptor.
//!
//! Where there are many moments close together, the timer leaves a gap after each round, so that one wake serves
//! several of them; a moment that is alone is served at once, and none is served early.
//!
//! Nobody waits for a driver. It ends when the last [`Timer`] handle goes, and then nobody sleeps; if it ends for any
//! other reason (its runtime shuts down, or it panics), every sleeper is told [`Stopped`] and none hangs.
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

use self::queue::{Place, Queue, Sleeping};
use crate::{countdown::schedule::nanos_of, stream::WakeGroup};

mod queue;

/// So many are taken out of the queue at least before any is woken, if so many are due.
const ROUND: usize = 1 << 14;

/// So many are woken before a driver lets other tasks run, and then on to the end of a connection.
const SLICE: usize = 64;

/// The most that are woken before others run, also of one connection: what a worker's own queue has room for.
const MAX_SLICE: usize = 240;

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// The timers, and the tasks that serve them. Dropping it ends the tasks.
pub struct Timer {
    monotonic: Arc<Lane>,
    wall: Arc<Lane>,
    /// A moment by both names of the monotonic clock.
    base: (Instant, i64),
    _drivers: [AbortOnDropHandle<()>; 2],
}

/// The driver is gone; nobody will wake a sleeper.
#[derive(Debug)]
pub(super) struct Stopped;

/// A clock's timer, and who sleeps by it.
struct Lane {
    clock: ClockId,
    timer: AsyncFd<OwnedFd>,
    flags: TimerfdTimerFlags,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: Queue,
    /// What the timer is set to. It may be the moment of a sleeper that was dropped: one wake-up for nothing is
    /// cheaper than setting the timer at each drop.
    armed: Option<i64>,
    stopped: bool,
}

impl Timer {
    pub(super) fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let monotonic = Arc::new(Lane::new(ClockId::Monotonic)?);
        let wall = Arc::new(Lane::new(ClockId::Realtime)?);
        let base = base(&monotonic);
        let drivers = [&monotonic, &wall].map(|lane| {
            // Made here and not in the task, which may be dropped before it ever ran.
            let driver = Driver { lane: Arc::clone(lane), due: Vec::new() };
            AbortOnDropHandle::new(runtime.spawn(driver.run()))
        });
        Ok(Self { monotonic, wall, base, _drivers: drivers })
    }

    /// Whether sleeps until a moment end when the wall clock is set.
    pub(super) fn notices_steps(&self) -> bool {
        self.wall.flags.contains(TimerfdTimerFlags::CANCEL_ON_SET)
    }

    /// Ends at the deadline.
    pub(super) fn sleep_until(
        &self,
        deadline: Instant,
        wake_group: Option<WakeGroup>,
    ) -> impl Future<Output = Result<(), Stopped>> {
        let (base, nanos) = self.base;
        let after = nanos_of(deadline.saturating_duration_since(base));
        Sleeper::new(&self.monotonic, i128::from(nanos) + after, wake_group)
    }

    /// Ends at the moment, in nanoseconds since 1970, or when the wall clock was set.
    pub(super) fn sleep_until_moment(
        &self,
        moment: i128,
        wake_group: Option<WakeGroup>,
    ) -> impl Future<Output = Result<(), Stopped>> {
        Sleeper::new(&self.wall, moment, wake_group)
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
        // Not every kernel that can do the one can do the other.
        let flags = if is_wall && set(&fd, notices, i64::MAX).is_ok() { notices } else { absolute };
        let timer = AsyncFd::with_interest(fd, Interest::READABLE)?;
        Ok(Self { clock, timer, flags, state: Mutex::default() })
    }

    fn now(&self) -> i64 {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(self.clock);
        tv_sec.saturating_mul(NANOS_PER_SECOND).saturating_add(tv_nsec)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic half-way through a change runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the timer, if it would be late otherwise.
    fn arm(&self, state: &mut State) -> Result<(), Errno> {
        match state.queue.next() {
            Some(next) if state.armed.is_none_or(|armed| armed > next) => {
                state.armed = Some(next);
                set(self.timer.get_ref(), self.flags, next)
            }
            _ => Ok(()),
        }
    }

    /// Adds a sleeper, and tells where it stands.
    fn insert(&self, moment: i64, sleeping: Sleeping) -> Result<Place, Stopped> {
        let mut state = self.lock();
        if state.stopped {
            return Err(Stopped);
        }
        let place = state.queue.insert(moment, sleeping);
        let armed = self.arm(&mut state);
        drop(state);
        match armed {
            Ok(()) => Ok(place),
            // The clock was set just now; the timer is, too. All look at the clock again, this one among them.
            Err(Errno::CANCELED) => {
                self.end_all();
                Ok(place)
            }
            Err(_) => {
                self.stop();
                Err(Stopped)
            }
        }
    }

    /// Moves those who are due to `due`, or sets the timer if nobody is.
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

    /// Ends all sleeps, now and for ever.
    fn stop(&self) {
        self.lock().stopped = true;
        self.end_all();
    }

    /// Waits until the timer is due, or its clock was set.
    async fn wait(&self) -> io::Result<()> {
        loop {
            let mut ready = self.timer.readable().await?;
            let read = rustix::io::read(self.timer.get_ref(), &mut [0; 8]);
            // Also when something was read: there is no more in it, and when it fires anew, tokio is told anew.
            ready.clear_ready();
            self.lock().armed = None;
            match read {
                Ok(_) => return Ok(()),
                // It was set anew meanwhile, and is not due.
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A moment by both names of the monotonic clock. What passes between the two makes all sleeps late, and none early.
fn base(monotonic: &Lane) -> (Instant, i64) {
    let tries = std::iter::repeat_with(|| {
        let (first, second) = (Instant::now(), monotonic.now());
        (first.elapsed(), first, second)
    });
    // Kept from running between the two, it is tried again.
    let best = tries.take(8).min_by_key(|(passed, ..)| *passed);
    best.map_or_else(|| (Instant::now(), monotonic.now()), |(_, first, second)| (first, second))
}

/// Sets a timer to a moment of its clock.
fn set(timer: &OwnedFd, flags: TimerfdTimerFlags, moment: i64) -> Result<(), Errno> {
    // Nothing would disarm it.
    let moment = moment.max(1);
    let at = Timespec { tv_sec: moment / NANOS_PER_SECOND, tv_nsec: moment % NANOS_PER_SECOND };
    let once = Itimerspec { it_interval: Timespec::default(), it_value: at };
    timerfd_settime(timer, flags, &once).map(drop)
}

struct Sleeper<'a> {
    lane: &'a Lane,
    moment: i64,
    wake_group: Option<WakeGroup>,
    place: Option<Place>,
}

impl<'a> Sleeper<'a> {
    fn new(lane: &'a Lane, moment: i128, wake_group: Option<WakeGroup>) -> Self {
        let moment = i64::try_from(moment).unwrap_or(if moment < 0 { 0 } else { i64::MAX });
        Self { lane, moment, wake_group, place: None }
    }
}

impl Future for Sleeper<'_> {
    type Output = Result<(), Stopped>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(place) = self.place else {
            let sleeping = Sleeping { wake_group: self.wake_group, waker: context.waker().clone() };
            return match self.lane.insert(self.moment, sleeping) {
                Ok(place) => {
                    self.place = Some(place);
                    Poll::Pending
                }
                Err(stopped) => Poll::Ready(Err(stopped)),
            };
        };
        let mut state = self.lane.lock();
        let Some(waker) = state.queue.waker(place) else {
            // Taken out: it is due, or the clock was set, or the driver is gone.
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
        if let Some(place) = self.place {
            // In two steps, so that the waker is dropped outside the lock.
            let waker = self.lane.lock().queue.remove(place);
            drop(waker);
        }
    }
}

/// Wakes the sleepers of a lane.
struct Driver {
    lane: Arc<Lane>,
    /// Who is to be woken; no longer in the queue.
    due: Vec<Sleeping>,
}

impl Driver {
    /// Until the timer can't be had any more.
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
                    tracing::error!(%error, "a precise timer stopped: sleeps are good to the next millisecond now");
                    return;
                }
            }
        }
    }

    /// Wakes all who are due, and sets the timer for the others.
    async fn serve(&mut self) -> Result<(), Errno> {
        loop {
            self.lane.take_due(&mut self.due)?;
            if self.due.is_empty() {
                return Ok(());
            }
            while !self.due.is_empty() {
                let slice = slice(&self.due);
                self.due.drain(..slice).for_each(|one| one.waker.wake());
                if !self.due.is_empty() {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

/// How many to wake before others run: whole connections, so that what their streams have to say leaves in one write.
fn slice(due: &[Sleeping]) -> usize {
    let (least, most) = (due.len().min(SLICE), due.len().min(MAX_SLICE));
    let wake_group = due.get(least.saturating_sub(1)).and_then(|one| one.wake_group);
    let more =
        due.iter().skip(least).take_while(|one| wake_group.is_some() && one.wake_group == wake_group).count();
    (least + more).min(most)
}

/// However it ends, nobody waits for it in vain.
impl Drop for Driver {
    fn drop(&mut self) {
        self.due.drain(..).for_each(|one| one.waker.wake());
        self.lane.stop();
    }
}

#[cfg(test)]
mod tests;

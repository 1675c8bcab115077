//! Where a countdown's time comes from: two clocks and a way to sleep.
//!
//! The monotonic clock tells how much time passed, the wall clock what people call it; this is the only place of the
//! crate's countdowns that reads the latter. A sleep never ends before its deadline, with one exception that
//! [`Clock::sleep_until`] names. Cancel a sleep by dropping it: nothing of it stays behind.

use std::{io, sync::LazyLock, time::SystemTime};

use tokio::time::Instant;

#[cfg(target_os = "linux")]
mod timer;

#[cfg(target_os = "linux")]
pub use timer::Timer;

/// A source of time. One for the whole server; cheap to clone.
#[derive(Clone, Debug)]
pub enum Clock {
    /// tokio's timers, to the next millisecond, and a wall clock that was read once and moves with them: virtual
    /// where tokio's time is. It does not notice when somebody sets the system's clock.
    Tokio,
    /// tokio's timers, and the system's wall clock: where there is nothing better.
    System,
    /// The kernel's timer, to some 0.1 ms, and the system's wall clock.
    #[cfg(target_os = "linux")]
    Precise(std::sync::Arc<Timer>),
}

/// What [`Clock::Tokio`] counts from.
static BASE: LazyLock<(SystemTime, Instant)> =
    LazyLock::new(|| (SystemTime::now(), Instant::from_std(std::time::Instant::now())));

impl Clock {
    /// The best clock of this system. On Linux it starts a task on the current runtime, which ends with the last
    /// clone of this clock; should it end before, with the runtime, sleeps go on with tokio's timers.
    ///
    /// # Errors
    /// There is no runtime here, or no descriptor left.
    pub fn precise() -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        return Ok(Self::Precise(std::sync::Arc::new(Timer::start()?)));
        #[cfg(not(target_os = "linux"))]
        return Ok(Self::System);
    }

    /// Now, by the monotonic clock.
    pub fn now(&self) -> Instant {
        match self {
            Self::Tokio | Self::System => Instant::now(),
            // Not tokio's, which tests can stop: the kernel's timer goes on.
            #[cfg(target_os = "linux")]
            Self::Precise(_) => Instant::from_std(std::time::Instant::now()),
        }
    }

    /// Now, by the wall clock.
    pub fn wall(&self) -> SystemTime {
        match self {
            Self::Tokio => {
                let (wall, base) = *BASE;
                let now = Instant::now();
                // A runtime whose time stands still can be older than the base.
                wall + now.saturating_duration_since(base) - base.saturating_duration_since(now)
            }
            Self::System => SystemTime::now(),
            #[cfg(target_os = "linux")]
            Self::Precise(_) => SystemTime::now(),
        }
    }

    /// Sleeps until the monotonic clock shows `deadline`. May end early when the wall clock was set: who waits for a
    /// moment of the wall clock looks at it again then, and everybody else at the deadline.
    pub async fn sleep_until(&self, deadline: Instant) {
        match self {
            Self::Tokio | Self::System => tokio::time::sleep_until(deadline).await,
            #[cfg(target_os = "linux")]
            Self::Precise(timer) => {
                if timer.sleep_until(deadline.into_std()).await.is_err() {
                    tokio::time::sleep_until(deadline).await;
                }
            }
        }
    }

    /// Sleeps until the wall clock shows a moment, in nanoseconds since 1970. May end early, as
    /// [`sleep_until`](Self::sleep_until), and does so when the clock is set: who waits looks at it again.
    pub async fn sleep_until_moment(&self, moment: i128) {
        let left = u128::try_from(moment - super::schedule::nanos(self.wall())).unwrap_or(0);
        let left = std::time::Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX));
        let longest = if self.notices_steps() { super::MAX_SLEEP } else { super::LOOK_AGAIN };
        self.sleep_until(self.now() + left.min(longest)).await;
    }

    /// Whether sleeps end when the wall clock is set. If not, who waits for a moment of it looks now and then.
    pub(super) fn notices_steps(&self) -> bool {
        match self {
            // Its wall clock cannot be set.
            Self::Tokio => true,
            Self::System => false,
            #[cfg(target_os = "linux")]
            Self::Precise(timer) => timer.notices_steps(),
        }
    }
}

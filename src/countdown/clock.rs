//! The time of countdowns: a monotonic clock, a wall clock, and sleeps until either shows a moment.
//!
//! No other file of the countdowns reads the wall clock. A sleep never ends before its moment, with one exception: a
//! sleep until a moment of the wall clock ends when that clock is set. Dropping a sleep cancels it and leaves nothing.

use std::{
    io,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

#[cfg(test)]
mod manual;
mod steps;
#[cfg(target_os = "linux")]
mod timer;

pub use steps::Steps;
#[cfg(target_os = "linux")]
pub use timer::Timer;

use super::Moment;
use crate::stream::WakeGroup;

/// The longest sleep: timers have bounds, and a position from a client may be far ahead.
const MAX_SLEEP: Duration = Duration::from_secs(3600);

/// How often the wall clock is read where the system does not report that it was set.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Both clocks are read again if more than this passed between the two readings: the thread was preempted.
const TOGETHER: Duration = Duration::from_millis(1);

/// A source of time. One for the whole server; cheap to clone.
#[derive(Clone, Debug)]
pub enum Clock {
    /// tokio's timers, to the next millisecond, and a wall clock that was read once and moves with them. It is virtual
    /// where tokio's time is, and does not notice when the system's clock is set.
    Tokio,
    /// tokio's timers, and the system's wall clock: for systems without a better timer.
    System,
    /// The kernel's timer, to about 0.1 ms, and the system's wall clock; with the wake group of its sleeps.
    #[cfg(target_os = "linux")]
    Precise(std::sync::Arc<Timer>, Option<WakeGroup>),
    /// As `Tokio`, but a test sets the wall clock.
    #[cfg(test)]
    Manual(std::sync::Arc<manual::Manual>),
}

/// The moment from which [`Clock::Tokio`] counts, by both clocks.
static BASE: LazyLock<(SystemTime, Instant)> =
    LazyLock::new(|| (SystemTime::now(), Instant::from_std(std::time::Instant::now())));

impl Clock {
    /// The best clock of this system. On Linux it starts tasks on the current runtime, which end with the last clone of
    /// this clock. If the runtime shuts down first, sleeps continue with tokio's timers.
    ///
    /// # Errors
    /// The caller is not in a runtime, or no file descriptor is left.
    pub fn precise() -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        return Ok(Self::Precise(std::sync::Arc::new(Timer::start()?), None));
        #[cfg(not(target_os = "linux"))]
        return Ok(Self::System);
    }

    /// The same clock, for a stream of a wake group: where many sleeps end at one time, those of a group end together.
    #[must_use]
    pub fn with_wake_group(&self, wake_group: Option<WakeGroup>) -> Self {
        match self {
            #[cfg(target_os = "linux")]
            Self::Precise(timer, _) => Self::Precise(timer.clone(), wake_group),
            other => other.clone(),
        }
    }

    /// Now, by the monotonic clock.
    pub fn now(&self) -> Instant {
        match self {
            Self::Tokio | Self::System => Instant::now(),
            #[cfg(test)]
            Self::Manual(_) => Instant::now(),
            // Not tokio's clock: tests can pause that one, and not the kernel's timer.
            #[cfg(target_os = "linux")]
            Self::Precise(..) => Instant::from_std(std::time::Instant::now()),
        }
    }

    /// Now, by the wall clock.
    pub fn wall(&self) -> SystemTime {
        match self {
            Self::Tokio => {
                let (wall, base) = *BASE;
                let now = Instant::now();
                // A runtime whose time is paused can be older than the base.
                wall + now.saturating_duration_since(base) - base.saturating_duration_since(now)
            }
            Self::System => SystemTime::now(),
            #[cfg(target_os = "linux")]
            Self::Precise(..) => SystemTime::now(),
            #[cfg(test)]
            Self::Manual(manual) => manual.wall(),
        }
    }

    /// Both clocks at one moment. The wall clock is read first, so that the time between the two readings makes a tick
    /// late and never early.
    pub fn both(&self) -> (Moment, Instant) {
        let mut before = self.now();
        for _ in 0..4 {
            let wall = self.wall().into();
            let after = self.now();
            if after.saturating_duration_since(before) <= TOGETHER {
                return (wall, after);
            }
            before = after;
        }
        (self.wall().into(), self.now())
    }

    /// Sleeps until the monotonic clock shows `deadline`.
    pub async fn sleep_until(&self, deadline: Instant) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Precise(timer, wake_group) => {
                if timer.sleep_until(deadline.into_std(), *wake_group).await.is_err() {
                    tokio::time::sleep_until(deadline).await;
                }
            }
            _ => tokio::time::sleep_until(deadline).await,
        }
    }

    /// Sleeps until the wall clock shows a moment, or until that clock is set. It may also end earlier, as often as once
    /// a second, so the caller reads the clock again.
    pub async fn sleep_until_moment(&self, moment: Moment) {
        match self {
            // Its wall clock cannot be set.
            Self::Tokio => self.sleep_no_longer(moment, MAX_SLEEP).await,
            Self::System => self.sleep_no_longer(moment, LOOK_AGAIN).await,
            #[cfg(target_os = "linux")]
            Self::Precise(timer, wake_group) if timer.notices_steps() => {
                if timer.sleep_until_moment(moment, *wake_group).await.is_err() {
                    self.sleep_no_longer(moment, LOOK_AGAIN).await;
                }
            }
            // The timer of the wall clock would fire late by as much as that clock is set back.
            #[cfg(target_os = "linux")]
            Self::Precise(..) => {
                let left = self.left(moment).min(LOOK_AGAIN);
                self.sleep_until(self.now() + left).await;
            }
            #[cfg(test)]
            Self::Manual(manual) => manual.sleep_until_moment(moment).await,
        }
    }

    /// Sleeps by tokio's timers, up to `longest`.
    async fn sleep_no_longer(&self, moment: Moment, longest: Duration) {
        tokio::time::sleep(self.left(moment).min(longest)).await;
    }

    /// From now to a moment of the wall clock; zero if it is past.
    fn left(&self, moment: Moment) -> Duration {
        (moment - Moment::from(self.wall())).to_duration()
    }
}

//! A clock for tests, which set its wall clock: tokio's time, which may be virtual, plus an offset.

use std::{sync::Mutex, time::SystemTime};

use tokio::{sync::Notify, time::Instant};

use super::Clock;
use crate::countdown::{Moment, Nanos};

/// A wall clock that a test sets.
#[derive(Debug, Default)]
pub struct Manual {
    /// The time without the offset, if the clock is stopped; `None` if it follows tokio's time.
    stopped_at: Option<SystemTime>,
    offset: Mutex<Nanos>,
    stepped: Notify,
}

impl Manual {
    fn offset(&self) -> Nanos {
        *self.offset.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn wall(&self) -> SystemTime {
        let (offset, wall) = (self.offset(), self.stopped_at.unwrap_or_else(|| Clock::Tokio.wall()));
        wall + offset.to_duration() - (-offset).to_duration()
    }

    /// Like a timer that the kernel cancels when the clock is set.
    pub(super) async fn sleep_until_moment(&self, moment: Moment) {
        // Subscribe before the clock is read, so that no later step is missed.
        let stepped = self.stepped.notified();
        let left = (moment - Moment::from(self.wall())).to_duration();
        let passed = async {
            // A stopped clock reaches a later moment by a step only.
            if self.stopped_at.is_some() && !left.is_zero() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep_until(Instant::now() + left).await;
        };
        tokio::select! {
            () = passed => {}
            () = stepped => {}
        }
    }
}

impl Clock {
    /// A clock whose wall clock can be set by [`step`](Self::step).
    pub(crate) fn manual() -> Self {
        Self::Manual(std::sync::Arc::default())
    }

    /// A clock whose wall clock moves by [`step`](Self::step) only: virtual time is not exact while other threads run.
    pub(crate) fn stopped() -> Self {
        let stopped_at = Some(Clock::Tokio.wall());
        Self::Manual(Manual { stopped_at, ..Manual::default() }.into())
    }

    /// Sets the wall clock, forward or back, and ends all sleeps until one of its moments. It also
    /// simulates a suspend, in which the monotonic clock stops and the wall clock goes on.
    pub(crate) fn step(&self, by: Nanos) {
        let Self::Manual(manual) = self else { panic!("{self:?} cannot be set") };
        *manual.offset.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += by;
        manual.stepped.notify_waiters();
    }
}

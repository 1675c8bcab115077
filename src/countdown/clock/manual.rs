//! A clock whose wall clock tests set: tokio's time, which may be virtual, and an offset.

use std::{sync::Mutex, time::SystemTime};

use tokio::{sync::Notify, time::Instant};

use super::{super::schedule::nanos, Clock};

/// How far the wall clock was set.
#[derive(Debug, Default)]
pub struct Manual {
    /// Where it stands but for the offset, if it does not go by itself.
    still: Option<SystemTime>,
    offset: Mutex<i128>,
    stepped: Notify,
}

impl Manual {
    fn offset(&self) -> i128 {
        *self.offset.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn wall(&self) -> SystemTime {
        let span = super::super::schedule::duration(self.offset().unsigned_abs());
        let wall = self.still.unwrap_or_else(|| Clock::Tokio.wall());
        if self.offset() < 0 { wall - span } else { wall + span }
    }

    /// As a timer that the kernel cancels when the clock is set.
    pub(super) async fn sleep_until_moment(&self, moment: i128) {
        // Before the look: a step from now on ends this.
        let stepped = self.stepped.notified();
        let left = super::super::schedule::span(moment - nanos(self.wall()));
        let passed = async {
            // Nobody but a step gets one to any moment that stands still.
            if self.still.is_some() && !left.is_zero() {
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

    /// One whose wall clock stands still but for steps: with threads beside, virtual time is not exact.
    pub(crate) fn still() -> Self {
        let still = Some(Clock::Tokio.wall());
        Self::Manual(Manual { still, ..Manual::default() }.into())
    }

    /// Sets the wall clock by so many nanoseconds, forward or back; who sleeps until a moment of it wakes. A machine
    /// that slept is the same: its monotonic clock stood still, and the wall clock is ahead.
    pub(crate) fn step(&self, by: i128) {
        let Self::Manual(manual) = self else { panic!("{self:?} can't be set") };
        *manual.offset.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += by;
        manual.stepped.notify_waiters();
    }
}

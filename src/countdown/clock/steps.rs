//! Detects that the wall clock was set, or that the machine was suspended: the wall clock then moves against the
//! monotonic clock, which cannot be set and stops in suspend.
//!
//! Each reading is compared with the last one, so the small differences of a slewed clock do not add up. NTP slews a
//! clock by up to 0.05 %, which is half of the difference that counts as a step.

use tokio::time::Instant;

use crate::countdown::{Moment, Nanos};

/// A difference up to this is not a step, also between two readings at almost the same time: people do not notice it.
const SLACK: Nanos = Nanos::new(20_000_000);

/// A difference up to this fraction (1/1000) of the time since the last reading is not a step either.
const SLEW: i128 = 1_000;

/// The last reading of both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    wall: Moment,
    monotonic: Instant,
}

impl Steps {
    /// Detects steps after this reading of both clocks.
    pub fn at((wall, monotonic): (Moment, Instant)) -> Self {
        Self { wall, monotonic }
    }

    /// By how much the wall clock was set after the last reading, if it was: above zero means forward.
    pub fn inspect(&mut self, (wall, monotonic): (Moment, Instant)) -> Option<Nanos> {
        let passed = Nanos::from(monotonic.saturating_duration_since(self.monotonic));
        let by = wall - self.wall - passed;
        *self = Self { wall, monotonic };
        (by.abs() > SLACK + passed / SLEW).then_some(by)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn step_after(passed: u64, moved: i128) -> Option<Nanos> {
        let now = Instant::now();
        let later = now + Duration::from_nanos(passed);
        let wall = Moment::EPOCH + Nanos::new(i128::from(passed) + moved);
        Steps::at((Moment::EPOCH, now)).inspect((wall, later))
    }

    #[test]
    fn a_step_is_noticed_in_either_direction() {
        for by in [-3_600_000_000_000, -25_000_000, 25_000_000, 3_600_000_000_000] {
            assert_eq!(step_after(1_000_000_000, by), Some(Nanos::new(by)));
        }
    }

    proptest! {
        #[test]
        fn a_slewed_clock_has_no_step(passed in 0..1_000_000_000_000_000_u64, ppm in -500..=500_i128) {
            prop_assert_eq!(step_after(passed, i128::from(passed) * ppm / 1_000_000), None);
        }
    }
}

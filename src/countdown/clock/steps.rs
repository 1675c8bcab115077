//! Whether the wall clock was set, or the machine has slept: by how much the wall clock moved against the monotonic
//! one, which nobody can set, and which stands still in suspend.
//!
//! A step lies between two looks as a whole, so each look begins anew, and what a clock is slewed by does not add up:
//! NTP lets it run 0.05 % fast or slow at most, which is half of what is taken for a step.

use tokio::time::Instant;

use super::super::schedule::nanos_of;

/// What is no step, in nanoseconds, however little time has passed: nobody sees a clock jump by less.
const SLACK: i128 = 20_000_000;

/// Nor is one part in so many of the time since the last look.
const SLEW: i128 = 1_000;

/// The two clocks at the last look.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    wall: i128,
    monotonic: Instant,
}

impl Steps {
    /// From a reading of both clocks on.
    pub fn at((wall, monotonic): (i128, Instant)) -> Self {
        Self { wall, monotonic }
    }

    /// By how many nanoseconds the wall clock was set since the last reading, if it was: above zero, forward.
    pub fn inspect(&mut self, (wall, monotonic): (i128, Instant)) -> Option<i128> {
        let passed = nanos_of(monotonic.saturating_duration_since(self.monotonic));
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

    fn look(passed: u64, moved: i128) -> Option<i128> {
        let now = Instant::now();
        let later = now + Duration::from_nanos(passed);
        Steps::at((0, now)).inspect((i128::from(passed) + moved, later))
    }

    #[test]
    fn a_clock_that_is_set_is_noticed_either_way() {
        for by in [-3_600_000_000_000, -25_000_000, 25_000_000, 3_600_000_000_000] {
            assert_eq!(look(1_000_000_000, by), Some(by));
        }
    }

    proptest! {
        #[test]
        fn a_clock_that_is_slewed_has_no_step(passed in 0..1_000_000_000_000_000_u64, ppm in -500..=500_i128) {
            prop_assert_eq!(look(passed, i128::from(passed) * ppm / 1_000_000), None);
        }
    }
}

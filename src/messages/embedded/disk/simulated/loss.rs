//! How much a power cut leaves of what was not synced.

use std::ops::RangeInclusive;

use super::random::Random;

/// A power cut. A seed decides what it leaves.
#[derive(Debug)]
pub struct Loss {
    /// The source of further decisions.
    pub random: Random,
    /// The times at which something was not synced.
    times: RangeInclusive<u64>,
    /// The same for all files and names; `None`: each gets its own.
    alike: Option<Kept>,
    /// Sectors may be torn.
    pub tears: bool,
}

/// The changes to a file, or to the names, that survive.
#[derive(Clone, Copy, Debug)]
pub enum Kept {
    /// The disk had just written everything.
    All,
    /// The disk had not begun.
    Nothing,
    /// The disk wrote in the order of the calls.
    Until(u64),
    /// The disk wrote in its own order.
    Any,
}

impl Loss {
    /// The power cut of a seed.
    pub fn new(seed: u64, times: RangeInclusive<u64>) -> Self {
        let mut loss = Self { random: Random::new(seed), times, alike: None, tears: false };
        loss.tears = loss.random.one_in(3);
        loss.alike = loss.random.one_in(2).then(|| loss.draw());
        loss
    }

    /// The part of the next file that survives.
    pub fn kept(&mut self) -> Kept {
        self.alike.unwrap_or_else(|| self.draw())
    }

    fn draw(&mut self) -> Kept {
        let (start, end) = (*self.times.start(), *self.times.end());
        match self.random.below(8) {
            0 => Kept::All,
            1 => Kept::Nothing,
            2 | 3 => Kept::Until(start + self.random.below(end - start + 1)),
            _ => Kept::Any,
        }
    }
}

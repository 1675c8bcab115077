//! How much of what was not synced a power cut leaves.

use std::ops::RangeInclusive;

use super::random::Random;

/// A power cut: what it leaves is drawn from a seed.
#[derive(Debug)]
pub struct Loss {
    /// The rest of the draws.
    pub random: Random,
    /// When there was something that was not synced.
    times: RangeInclusive<u64>,
    /// The same for every file and for the names, or each gets its own.
    alike: Option<Kept>,
    /// Sectors may be torn.
    pub tears: bool,
}

/// What is left of the changes to a file or to the names.
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
    /// The cut of a seed.
    pub fn new(seed: u64, times: RangeInclusive<u64>) -> Self {
        let mut loss = Self { random: Random::new(seed), times, alike: None, tears: false };
        loss.tears = loss.random.one_in(3);
        loss.alike = loss.random.one_in(2).then(|| loss.draw());
        loss
    }

    /// What is left of the next file.
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

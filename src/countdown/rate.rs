//! The ticks a second of all open streams.
//!
//! A tick costs a wake and a write, so ticks, not streams, are the load of a machine. Each stream holds a [`Rate`]
//! while it is open.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::Error;

/// The unit is a millionth of a tick a second, so that one tick a day still counts.
const UNIT: u64 = 1_000_000;

/// The ticks a second of all streams, and their maximum. Cheap to clone.
#[derive(Clone)]
pub struct Rates {
    used: Arc<AtomicU64>,
    limit: u64,
}

impl Rates {
    /// A maximum of `limit` ticks a second.
    pub fn new(limit: u64) -> Self {
        Self { used: Arc::default(), limit }
    }

    /// The most ticks a second.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Counts a stream that ticks once an interval, until the returned [`Rate`] is dropped.
    ///
    /// # Errors
    /// [`Error::TooManyTicks`].
    pub fn take(&self, interval: Duration) -> Result<Rate, Error> {
        let nanos = interval.as_nanos().max(1);
        let rate = u64::try_from(1_000_000_000 * u128::from(UNIT) / nanos).unwrap_or(u64::MAX);
        let limit = self.limit.saturating_mul(UNIT);
        let take = |used: u64| used.checked_add(rate).filter(|used| *used <= limit);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(Rate { used: Arc::clone(&self.used), rate }),
            Err(_) => Err(Error::TooManyTicks { limit: self.limit }),
        }
    }
}

impl From<u64> for Rates {
    fn from(limit: u64) -> Self {
        Self::new(limit)
    }
}

impl Default for Rates {
    /// A million ticks a second: more than two cores write, and far below what a client could ask for with a few
    /// thousand streams of 1 ms by mistake.
    fn default() -> Self {
        Self::new(1_000_000)
    }
}

impl fmt::Debug for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.used.load(Ordering::Relaxed) / UNIT;
        f.debug_struct("Rates").field("used", &used).field("limit", &self.limit).finish()
    }
}

/// The ticks a second of one stream.
#[derive(Debug)]
pub struct Rate {
    used: Arc<AtomicU64>,
    rate: u64,
}

impl Drop for Rate {
    fn drop(&mut self) {
        self.used.fetch_sub(self.rate, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn a_stream_over_the_limit_is_refused_and_a_dropped_one_leaves_room() {
        let rates = Rates::new(1_000);
        let ms = Duration::from_millis;
        let half = rates.take(ms(2)).unwrap();
        let _quarter = rates.take(ms(4)).unwrap();
        assert_eq!(rates.take(ms(1)).unwrap_err(), Error::TooManyTicks { limit: 1_000 });
        drop(half);
        let _rest = rates.take(Duration::from_micros(1_334)).unwrap();
        assert!(rates.take(Duration::from_secs(1)).is_err());
        assert!(rates.take(Duration::from_secs(100_000_000)).is_ok());
    }

    #[test]
    fn an_interval_of_zero_is_over_any_limit_and_nothing_overflows() {
        let rates = Rates::new(u64::MAX);
        let _all = rates.take(Duration::ZERO).unwrap();
        assert!(Rates::new(1_000_000).take(Duration::ZERO).is_err());
        assert!(rates.take(Duration::MAX).is_ok());
    }
}

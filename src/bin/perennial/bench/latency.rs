//! The durations of a run, as an HDR histogram with two significant digits.

use std::time::Duration;

use hdrhistogram::Histogram;

/// A percentile is at most 1 % off.
const SIGNIFICANT_DIGITS: u8 = 2;

/// The durations that were recorded, in nanoseconds.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    #[expect(clippy::expect_used, reason = "the digits are a constant")]
    fn default() -> Self {
        // This constructor makes a histogram that grows with the values.
        Self(Histogram::new(SIGNIFICANT_DIGITS).expect("0 to 5 digits are possible"))
    }
}

impl Latency {
    #[expect(clippy::expect_used, reason = "a histogram that grows takes every value")]
    pub fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.0.record(nanos).expect("the histogram grows");
    }

    #[expect(clippy::expect_used, reason = "a histogram that grows takes every value")]
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the histogram grows");
    }

    /// The duration that this share of all durations does not exceed, or `None` without any.
    pub fn percentile(&self, percent: f64) -> Option<Duration> {
        (!self.0.is_empty()).then(|| Duration::from_nanos(self.0.value_at_percentile(percent)))
    }

    /// The longest duration, or `None` without any.
    pub fn max(&self) -> Option<Duration> {
        (!self.0.is_empty()).then(|| Duration::from_nanos(self.0.max()))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]

    use super::*;

    #[test]
    fn percentiles_are_those_of_all_merged_durations() {
        let mut all = Latency::default();
        assert_eq!((all.percentile(50.0), all.max()), (None, None));
        for part in 0..10 {
            let mut some = Latency::default();
            (1..=10).for_each(|n| some.record(Duration::from_millis(part * 10 + n)));
            all.merge(&some);
        }
        for (got, expected_ms) in
            [(all.percentile(50.0), 50.0), (all.percentile(99.0), 99.0), (all.max(), 100.0)]
        {
            let got = got.unwrap().as_secs_f64() * 1e3;
            assert!((got - expected_ms).abs() <= expected_ms * 0.01, "{got} {expected_ms}");
        }
    }

    #[test]
    fn every_duration_can_be_recorded() {
        let mut all = Latency::default();
        all.record(Duration::ZERO);
        all.record(Duration::MAX);
        assert!(all.max().unwrap() >= Duration::from_nanos(u64::MAX / 100 * 99));
    }
}

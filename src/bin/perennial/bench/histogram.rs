//! Durations counted in buckets: 64 to each power of two of nanoseconds, so that a value is at most 1.6 % off, however
//! many there are.

use std::time::Duration;

/// Buckets within a power of two, as a power of two.
const PRECISION: u32 = 6;
const SUB_BUCKETS: usize = 1 << PRECISION;

/// How long things took.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    pub fn add(&mut self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let at = bucket(nanos);
        if at >= self.buckets.len() {
            self.buckets.resize(at + 1, 0);
        }
        self.buckets.get_mut(at).into_iter().for_each(|count| *count += 1);
        self.count += 1;
        self.max = self.max.max(nanos);
    }

    pub fn merge(&mut self, other: &Self) {
        if other.buckets.len() > self.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(mine, theirs)| *mine += theirs);
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// What so many per cent do not exceed; nothing if there are none.
    pub fn percentile(&self, per_cent: u64) -> Option<Duration> {
        let wanted = (self.count * per_cent).div_ceil(100).max(1);
        let mut seen = 0;
        let at = self.buckets.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        Some(Duration::from_nanos(upper(at?).min(self.max)))
    }

    /// The longest; nothing if there are none.
    pub fn max(&self) -> Option<Duration> {
        (self.count > 0).then(|| Duration::from_nanos(self.max))
    }
}

/// Small values have a bucket each; of others, the leading bits and how many follow.
fn bucket(nanos: u64) -> usize {
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(PRECISION + 1);
    shift as usize * SUB_BUCKETS + usize::try_from(nanos >> shift).unwrap_or(usize::MAX)
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let shift = (bucket / SUB_BUCKETS).saturating_sub(1);
    let leading = (bucket - shift * SUB_BUCKETS) as u128;
    u64::try_from(((leading + 1) << shift) - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]

    use super::*;

    #[test]
    fn buckets_follow_each_other_and_are_narrow() {
        let mut last = 0;
        for nanos in (0..100_000).chain((100_000..10_000_000).step_by(97)) {
            let at = bucket(nanos);
            assert!(at == last || at == last + 1 || nanos >= 100_000, "{nanos}");
            assert!(upper(at) >= nanos && upper(at) - nanos <= nanos / 60, "{nanos}: {}", upper(at));
            assert!(at == 0 || upper(at - 1) < nanos, "{nanos}");
            last = at;
        }
        assert!(upper(bucket(u64::MAX)) == u64::MAX);
    }

    #[test]
    fn percentiles_are_those_of_all_that_was_merged() {
        let mut all = Histogram::default();
        assert_eq!((all.percentile(50), all.max()), (None, None));
        for part in 0..10 {
            let mut some = Histogram::default();
            (1..=10).for_each(|n| some.add(Duration::from_millis(part * 10 + n)));
            all.merge(&some);
        }
        let close = |got: Option<Duration>, millis: u64| {
            let got = got.unwrap().as_secs_f64() * 1e3;
            assert!((got - f64::from(u32::try_from(millis).unwrap())).abs() <= got * 0.016, "{got} {millis}");
        };
        close(all.percentile(50), 50);
        close(all.percentile(99), 99);
        assert_eq!(all.max(), Some(Duration::from_millis(100)));
    }
}

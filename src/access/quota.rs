//! Quotas: how much each caller may do at once and in a second, by the `[[limit]]` tables of the rules.
//!
//! A limit holds for each caller by itself: callers share one only if their first identity is the same. If several limits
//! name a caller, all of them hold. Each lets through the amount of one second at once.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use super::Identity;

/// Above this number of usages, those that no call holds are forgotten.
const MAX_USAGES: usize = 10_000;

/// What a quota counts.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Quota {
    /// Streams that are open.
    Streams,
    /// Calls of all methods a second.
    Calls,
    /// Messages published a second.
    Publishes,
    /// Bytes of messages published a second.
    Bytes,
}

impl Quota {
    /// All quotas.
    pub const ALL: [Self; 4] = [Self::Streams, Self::Calls, Self::Publishes, Self::Bytes];

    /// The key of a limit.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Streams => "streams",
            Self::Calls => "calls",
            Self::Publishes => "publishes",
            Self::Bytes => "bytes",
        }
    }
}

/// What one `[[limit]]` allows.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Limit {
    /// Open streams.
    pub streams: Option<NonZeroU32>,
    /// Calls a second.
    pub calls: Option<NonZeroU32>,
    /// Messages published a second.
    pub publishes: Option<NonZeroU32>,
    /// Bytes of messages published a second.
    pub bytes: Option<NonZeroU32>,
}

/// A quota that is used up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Exceeded {
    /// Which.
    pub quota: Quota,
    /// How much it allows.
    pub limit: u32,
    /// When it allows more, if that is known.
    pub wait: Option<Duration>,
}

/// A rate, and how much of it is used: a bucket that holds the amount of a second and is filled all the time.
///
/// The library for this, `governor`, brings timers and channels that nothing else here needs.
#[derive(Debug)]
struct Rate {
    limit: NonZeroU32,
    /// When the bucket is full again, if nothing more is taken.
    full_at: Mutex<Instant>,
}

impl Rate {
    fn new(limit: NonZeroU32) -> Self {
        Self { limit, full_at: Mutex::new(Instant::now()) }
    }

    fn take(&self, amount: u64, quota: Quota, now: Instant) -> Result<(), Exceeded> {
        // One that is larger than the amount of a second needs all of it, or it could never be.
        let amount = u32::try_from(amount).unwrap_or(u32::MAX).min(self.limit.get());
        let time = Duration::from_secs(1).mul_f64(f64::from(amount) / f64::from(self.limit.get()));
        // Each change is one assignment, so a panic elsewhere leaves it whole.
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let next = (*full_at).max(now) + time;
        match next.checked_duration_since(now + Duration::from_secs(1)).filter(|wait| !wait.is_zero()) {
            None => {
                *full_at = next;
                Ok(())
            }
            wait => Err(Exceeded { quota, limit: self.limit.get(), wait }),
        }
    }
}

/// What a caller uses of a limit.
#[derive(Debug)]
pub struct Usage {
    limit: Limit,
    streams: AtomicU32,
    calls: Option<Rate>,
    publishes: Option<Rate>,
    bytes: Option<Rate>,
}

impl Usage {
    fn new(limit: Limit) -> Self {
        let rate = |limit: Option<NonZeroU32>| limit.map(Rate::new);
        let Limit { calls, publishes, bytes, .. } = limit;
        Self {
            limit,
            streams: AtomicU32::new(0),
            calls: rate(calls),
            publishes: rate(publishes),
            bytes: rate(bytes),
        }
    }

    fn open_stream(self: &Arc<Self>) -> Result<StreamQuota, Exceeded> {
        let others = self.streams.fetch_add(1, Ordering::Relaxed);
        let held = StreamQuota(self.clone());
        match self.limit.streams.map(NonZeroU32::get).filter(|limit| others >= *limit) {
            None => Ok(held),
            Some(limit) => Err(Exceeded { quota: Quota::Streams, limit, wait: None }),
        }
    }
}

/// A stream counts until this is dropped.
#[derive(Debug)]
pub struct StreamQuota(Arc<Usage>);

impl Drop for StreamQuota {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The usages of one caller.
#[derive(Clone, Debug, Default)]
pub struct Quotas(Vec<Arc<Usage>>);

impl Quotas {
    /// Counts a call.
    ///
    /// # Errors
    /// A quota is used up.
    pub fn take_call(&self) -> Result<(), Exceeded> {
        let mut rates = self.0.iter().filter_map(|usage| usage.calls.as_ref());
        rates.try_for_each(|rate| rate.take(1, Quota::Calls, Instant::now()))
    }

    /// Counts a stream until the guards are dropped.
    ///
    /// # Errors
    /// A quota is used up.
    pub fn open_stream(&self) -> Result<Vec<StreamQuota>, Exceeded> {
        self.0.iter().filter(|usage| usage.limit.streams.is_some()).map(Usage::open_stream).collect()
    }

    /// Counts messages that are published, and their bytes.
    ///
    /// # Errors
    /// A quota is used up. Quotas that are not are counted all the same.
    pub fn take_publish(&self, messages: u64, bytes: u64) -> Result<(), Exceeded> {
        let now = Instant::now();
        for usage in &self.0 {
            if let Some(rate) = &usage.publishes {
                rate.take(messages, Quota::Publishes, now)?;
            }
            if let Some(rate) = &usage.bytes {
                rate.take(bytes, Quota::Bytes, now)?;
            }
        }
        Ok(())
    }
}

/// The usages of all callers, which outlive the calls and the rules.
#[derive(Debug, Default)]
pub struct Usages(Mutex<HashMap<(blake3::Hash, Limit), Arc<Usage>>>);

impl Usages {
    /// The usages of a caller with this first identity.
    pub fn of(&self, identity: Option<&Identity>, limits: &[Limit]) -> Quotas {
        if limits.is_empty() {
            return Quotas::default();
        }
        // A hash, because an issuer of JWTs makes subjects as long as it likes.
        let name = identity.map(ToString::to_string).unwrap_or_default();
        let caller = blake3::hash(name.as_bytes());
        // Each change is one call, so a panic elsewhere leaves it whole.
        let mut usages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if usages.len() > MAX_USAGES {
            usages.retain(|_, usage| Arc::strong_count(usage) > 1);
        }
        let usage = |limit: &Limit| {
            usages.entry((caller, *limit)).or_insert_with(|| Arc::new(Usage::new(*limit))).clone()
        };
        Quotas(limits.iter().map(usage).collect())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    fn named(name: &str) -> Identity {
        Identity::Token(name.into())
    }

    fn number(number: u32) -> Option<NonZeroU32> {
        NonZeroU32::new(number)
    }

    #[test]
    fn each_caller_has_its_own_usage_of_each_limit() {
        let usages = Usages::default();
        let [calls, streams] = [
            Limit { calls: number(2), ..Limit::default() },
            Limit { streams: number(1), ..Limit::default() },
        ];
        let (a, b) =
            (usages.of(Some(&named("a")), &[calls, streams]), usages.of(Some(&named("b")), &[calls]));
        assert_eq!([a.take_call(), a.take_call()], [Ok(()), Ok(())]);
        let exceeded = a.take_call().unwrap_err();
        assert_eq!((exceeded.quota, exceeded.limit), (Quota::Calls, 2));
        assert!(exceeded.wait.unwrap() <= Duration::from_secs(1));
        // The same caller in another call, and after the rules were read again.
        assert!(usages.of(Some(&named("a")), &[calls]).take_call().is_err());
        assert!(b.take_call().is_ok());
        let open = a.open_stream().unwrap();
        assert_eq!(usages.of(Some(&named("a")), &[streams]).open_stream().unwrap_err().quota, Quota::Streams);
        assert!(b.open_stream().unwrap().is_empty());
        drop(open);
        assert_eq!(a.open_stream().unwrap().len(), 1);
    }

    #[test]
    fn a_message_that_is_larger_than_a_second_allows_needs_all_of_it() {
        let usages = Usages::default();
        let quotas = usages.of(
            Some(&named("a")),
            &[Limit { bytes: number(100), publishes: number(10), ..Limit::default() }],
        );
        assert!(quotas.take_publish(1, 1_000_000).is_ok());
        let exceeded = quotas.take_publish(1, 1).unwrap_err();
        assert_eq!((exceeded.quota, exceeded.limit), (Quota::Bytes, 100));
        let quotas = usages.of(Some(&named("b")), &[Limit { publishes: number(10), ..Limit::default() }]);
        assert!(quotas.take_publish(8, 0).is_ok() && quotas.take_publish(0, 7).is_ok());
        assert_eq!(quotas.take_publish(8, 0).unwrap_err().quota, Quota::Publishes);
    }

    #[test]
    fn a_rate_allows_the_amount_of_a_second_at_once_and_then_as_much_as_time_passes() {
        let (rate, start) = (Rate::new(number(4).unwrap()), Instant::now());
        let mut taken = Vec::new();
        for milliseconds in (0..=2_000).step_by(50) {
            let now = start + Duration::from_millis(milliseconds);
            while rate.take(1, Quota::Calls, now).is_ok() {
                taken.push(milliseconds);
            }
            let wait = rate.take(1, Quota::Calls, now).unwrap_err().wait.unwrap();
            let too_early = wait.saturating_sub(Duration::from_millis(1));
            assert!(rate.take(1, Quota::Calls, now + too_early).is_err());
        }
        assert_eq!(taken, [0, 0, 0, 0, 250, 500, 750, 1_000, 1_250, 1_500, 1_750, 2_000]);
    }

    #[test]
    fn usages_that_no_call_holds_are_forgotten_where_there_are_many() {
        let usages = Usages::default();
        let limit = [Limit { streams: number(1), ..Limit::default() }];
        let kept = usages.of(Some(&named("kept")), &limit);
        let _open = kept.open_stream().unwrap();
        for caller in 0..MAX_USAGES + 2 {
            drop(usages.of(Some(&named(&caller.to_string())), &limit));
        }
        assert!(usages.0.lock().unwrap().len() < 10);
        assert!(usages.of(Some(&named("kept")), &limit).open_stream().is_err());
    }
}

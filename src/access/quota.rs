//! Quotas: how much each caller may do at once and in a second, by the `[[limit]]` tables of the rules.
//!
//! A limit holds for each caller by itself: callers share one only if their first identity is the same. If several limits
//! name a caller, all of them hold. Each rate lets through the amount of one second at once. Streams that are open count
//! also among a limit that was changed or added since; a changed rate counts from zero.

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

/// Above this number of rates of a caller, those of earlier rules are forgotten.
const MAX_RATES: usize = 64;

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

/// What a caller uses. It outlives the calls and the rules, so that new rules find what is in use.
#[derive(Debug, Default)]
pub struct Usage {
    /// Open streams. They are counted without a limit, too, because a later one may have one.
    streams: AtomicU32,
    /// By what they count and allow.
    rates: Mutex<HashMap<(Quota, NonZeroU32), Arc<Rate>>>,
}

impl Usage {
    /// The rates of some limits.
    fn rates(&self, limits: &[Limit]) -> Vec<(Quota, Arc<Rate>)> {
        let of = |limit: &Limit| {
            let Limit { calls, publishes, bytes, .. } = *limit;
            [(Quota::Calls, calls), (Quota::Publishes, publishes), (Quota::Bytes, bytes)]
        };
        let wanted = limits.iter().flat_map(of).filter_map(|(quota, limit)| Some((quota, limit?)));
        // Each change is one call, so a panic elsewhere leaves it whole.
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        if rates.len() > MAX_RATES {
            // Those of earlier rules, unless a call holds them.
            rates.retain(|_, rate| Arc::strong_count(rate) > 1);
        }
        let rate = |(quota, limit)| {
            let rate = rates.entry((quota, limit)).or_insert_with(|| Arc::new(Rate::new(limit)));
            (quota, rate.clone())
        };
        wanted.map(rate).collect()
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

/// The quotas of one caller.
#[derive(Clone, Debug)]
pub struct Quotas {
    caller: blake3::Hash,
    usages: Arc<Usages>,
    /// `None` if nothing is limited.
    usage: Option<Arc<Usage>>,
    rates: Vec<(Quota, Arc<Rate>)>,
    /// The most open streams.
    streams: Option<u32>,
}

impl Quotas {
    fn take(&self, quota: Quota, amount: u64, now: Instant) -> Result<(), Exceeded> {
        let mut rates = self.rates.iter().filter(|(of, _)| *of == quota);
        rates.try_for_each(|(_, rate)| rate.take(amount, quota, now))
    }

    /// Counts a call.
    ///
    /// # Errors
    /// A quota is used up.
    pub fn take_call(&self) -> Result<(), Exceeded> {
        if self.rates.is_empty() { Ok(()) } else { self.take(Quota::Calls, 1, Instant::now()) }
    }

    /// Counts a stream until the guard is dropped.
    ///
    /// # Errors
    /// A quota is used up.
    pub fn open_stream(&self) -> Result<StreamQuota, Exceeded> {
        let usage = self.usage.clone().unwrap_or_else(|| self.usages.get(self.caller));
        let others = usage.streams.fetch_add(1, Ordering::Relaxed);
        let held = StreamQuota(usage);
        match self.streams.filter(|limit| others >= *limit) {
            None => Ok(held),
            Some(limit) => Err(Exceeded { quota: Quota::Streams, limit, wait: None }),
        }
    }

    /// Counts messages that are published, and their bytes.
    ///
    /// # Errors
    /// A quota is used up. Quotas that are not are counted all the same.
    pub fn take_publish(&self, messages: u64, bytes: u64) -> Result<(), Exceeded> {
        if self.rates.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        self.take(Quota::Publishes, messages, now)?;
        self.take(Quota::Bytes, bytes, now)
    }
}

/// The usages of all callers.
#[derive(Debug, Default)]
pub struct Usages(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_caller: HashMap<blake3::Hash, Arc<Usage>>,
    /// At this number, those that no call holds are forgotten: twice as many as were left the last time, so that this takes
    /// little of each call.
    forget_at: usize,
}

impl Usages {
    /// The quotas of a caller with this first identity.
    pub fn of(self: &Arc<Self>, identity: Option<&Identity>, limits: &[Limit]) -> Quotas {
        // A hash, because an issuer of JWTs makes subjects as long as it likes.
        let name = identity.map(ToString::to_string).unwrap_or_default();
        let caller = blake3::hash(name.as_bytes());
        let usage = (!limits.is_empty()).then(|| self.get(caller));
        let rates = usage.as_ref().map(|usage| usage.rates(limits)).unwrap_or_default();
        let streams = limits.iter().filter_map(|limit| limit.streams).min().map(NonZeroU32::get);
        Quotas { caller, usages: self.clone(), usage, rates, streams }
    }

    fn get(&self, caller: blake3::Hash) -> Arc<Usage> {
        // Each change is one call, so a panic elsewhere leaves it whole.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { by_caller, forget_at } = &mut *known;
        if by_caller.len() >= MAX_USAGES.max(*forget_at) {
            by_caller.retain(|_, usage| Arc::strong_count(usage) > 1);
            *forget_at = by_caller.len() * 2;
        }
        by_caller.entry(caller).or_default().clone()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]
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
        let usages = Arc::new(Usages::default());
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
        let _other = b.open_stream().unwrap();
        drop(open);
        assert!(a.open_stream().is_ok());
    }

    #[test]
    fn a_message_that_is_larger_than_a_second_allows_needs_all_of_it() {
        let usages = Arc::new(Usages::default());
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
    fn open_streams_count_among_a_limit_that_was_changed_or_added() {
        let usages = Arc::new(Usages::default());
        let streams = |most| [Limit { streams: number(most), ..Limit::default() }];
        let of = |limits: &[Limit]| usages.of(Some(&named("a")), limits);
        let unlimited = of(&[]).open_stream().unwrap();
        let first = of(&streams(2)).open_stream().unwrap();
        let exceeded = of(&streams(2)).open_stream().unwrap_err();
        assert_eq!((exceeded.quota, exceeded.limit), (Quota::Streams, 2));
        let second = of(&streams(3)).open_stream().unwrap();
        // The lowest limit holds, and a stream that is refused does not count.
        assert_eq!(of(&[streams(5), streams(3)].concat()).open_stream().unwrap_err().limit, 3);
        drop((unlimited, first));
        assert!(of(&streams(2)).open_stream().is_ok());
        drop(second);
    }

    #[test]
    fn usages_that_no_call_holds_are_forgotten_where_there_are_many() {
        let usages = Arc::new(Usages::default());
        let limit = [Limit { streams: number(1), ..Limit::default() }];
        let kept = usages.of(Some(&named("kept")), &limit);
        let _open = kept.open_stream().unwrap();
        for caller in 0..MAX_USAGES + 2 {
            drop(usages.of(Some(&named(&caller.to_string())), &limit));
        }
        assert!(usages.0.lock().unwrap().by_caller.len() < 10);
        assert!(usages.of(Some(&named("kept")), &limit).open_stream().is_err());
    }

    #[test]
    fn usages_that_calls_hold_are_walked_rarely() {
        let usages = Arc::new(Usages::default());
        let limit = [Limit { calls: number(1), ..Limit::default() }];
        let held = (0..MAX_USAGES * 4).map(|caller| {
            let quotas = usages.of(Some(&named(&caller.to_string())), &limit);
            (quotas, usages.0.lock().unwrap().forget_at)
        });
        let (_held, walks): (Vec<_>, Vec<_>) = held.unzip();
        let walks = walks.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert_eq!(walks, 2);
    }
}

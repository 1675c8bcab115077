//! Quotas: how much each caller may do at once and in a second, by the `[[limit]]` tables of the rules.
//!
//! A limit holds for each caller by itself. A limit that names an identity of a connection, as a certificate, counts
//! everything that comes by this identity; each other limit counts by the first identity of the caller, which is that of its
//! token if it has one. If several limits name a caller, all of them hold. Each rate lets through the amount of one second at once. Streams that are open count
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
#[derive(Debug, Default)]
pub struct StreamQuota(Vec<Arc<Usage>>);

impl Drop for StreamQuota {
    fn drop(&mut self) {
        for usage in &self.0 {
            usage.streams.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The quotas of one caller.
#[derive(Clone, Debug)]
pub struct Quotas {
    /// By what it counts: its first identity, and those of its connection.
    holders: Vec<Holder>,
    usages: Arc<Usages>,
    rates: Vec<(Quota, Arc<Rate>)>,
}

/// An identity of a caller, by which limits count.
#[derive(Clone, Debug)]
struct Holder {
    identity: blake3::Hash,
    /// `None` if nothing is limited.
    usage: Option<Arc<Usage>>,
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
        let mut held = StreamQuota::default();
        for Holder { identity, usage, streams } in &self.holders {
            let usage = usage.clone().unwrap_or_else(|| self.usages.get(*identity));
            let others = usage.streams.fetch_add(1, Ordering::Relaxed);
            held.0.push(usage);
            if let Some(limit) = streams.filter(|limit| others >= *limit) {
                return Err(Exceeded { quota: Quota::Streams, limit, wait: None });
            }
        }
        Ok(held)
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
    /// The quotas of a caller with this first identity and these of its connection, by limits that each count by one of them.
    pub fn of(
        self: &Arc<Self>,
        first: Option<&Identity>,
        of_connection: &[Identity],
        limits: &[(Option<&Identity>, Limit)],
    ) -> Quotas {
        let others = of_connection.iter().map(Some).filter(|other| *other != first);
        // A group has several accounts.
        let others = others.filter(|other| !matches!(other, Some(Identity::Gid(_))));
        let mut rates = Vec::new();
        let holder = |holder: Option<&Identity>| {
            // A hash, because an issuer of JWTs makes subjects as long as it likes.
            let identity = blake3::hash(holder.map(ToString::to_string).unwrap_or_default().as_bytes());
            let own =
                limits.iter().filter(|(of, _)| *of == holder).map(|(_, limit)| *limit).collect::<Vec<_>>();
            let usage = (!own.is_empty()).then(|| self.get(identity));
            rates.extend(usage.iter().flat_map(|usage| usage.rates(&own)));
            let streams = own.iter().filter_map(|limit| limit.streams).min().map(NonZeroU32::get);
            Holder { identity, usage, streams }
        };
        let holders = std::iter::once(first).chain(others).map(holder).collect();
        Quotas { holders, usages: self.clone(), rates }
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

    /// The quotas of a caller that has a token of this name and nothing else.
    fn of(usages: &Arc<Usages>, name: &str, limits: &[Limit]) -> Quotas {
        let identity = named(name);
        let limits = limits.iter().map(|limit| (Some(&identity), *limit)).collect::<Vec<_>>();
        usages.of(Some(&identity), &[], &limits)
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
        let (a, b) = (of(&usages, "a", &[calls, streams]), of(&usages, "b", &[calls]));
        assert_eq!([a.take_call(), a.take_call()], [Ok(()), Ok(())]);
        let exceeded = a.take_call().unwrap_err();
        assert_eq!((exceeded.quota, exceeded.limit), (Quota::Calls, 2));
        assert!(exceeded.wait.unwrap() <= Duration::from_secs(1));
        // The same caller in another call, and after the rules were read again.
        assert!(of(&usages, "a", &[calls]).take_call().is_err());
        assert!(b.take_call().is_ok());
        let open = a.open_stream().unwrap();
        assert_eq!(of(&usages, "a", &[streams]).open_stream().unwrap_err().quota, Quota::Streams);
        let _other = b.open_stream().unwrap();
        drop(open);
        assert!(a.open_stream().is_ok());
    }

    #[test]
    fn a_message_that_is_larger_than_a_second_allows_needs_all_of_it() {
        let usages = Arc::new(Usages::default());
        let quotas =
            of(&usages, "a", &[Limit { bytes: number(100), publishes: number(10), ..Limit::default() }]);
        assert!(quotas.take_publish(1, 1_000_000).is_ok());
        let exceeded = quotas.take_publish(1, 1).unwrap_err();
        assert_eq!((exceeded.quota, exceeded.limit), (Quota::Bytes, 100));
        let quotas = of(&usages, "b", &[Limit { publishes: number(10), ..Limit::default() }]);
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
        let of = |limits: &[Limit]| of(&usages, "a", limits);
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
        let kept = of(&usages, "kept", &limit);
        let _open = kept.open_stream().unwrap();
        for caller in 0..MAX_USAGES + 2 {
            drop(of(&usages, &caller.to_string(), &limit));
        }
        assert!(usages.0.lock().unwrap().by_caller.len() < 10);
        assert!(of(&usages, "kept", &limit).open_stream().is_err());
    }

    #[test]
    fn usages_that_calls_hold_are_walked_rarely() {
        let usages = Arc::new(Usages::default());
        let limit = [Limit { calls: number(1), ..Limit::default() }];
        let held = (0..MAX_USAGES * 4).map(|caller| {
            let quotas = of(&usages, &caller.to_string(), &limit);
            (quotas, usages.0.lock().unwrap().forget_at)
        });
        let (_held, walks): (Vec<_>, Vec<_>) = held.unzip();
        let walks = walks.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert_eq!(walks, 2);
    }

    #[test]
    fn several_tokens_do_not_multiply_a_limit_of_their_connection() {
        let usages = Arc::new(Usages::default());
        let of_connection = [Identity::Certificate("DNS:a".into()), Identity::Certificate("DNS:b".into())];
        let limit =
            |calls, streams| Limit { calls: number(calls), streams: number(streams), ..Limit::default() };
        let quotas = |first: &Identity| {
            let limits = [(Some(&of_connection[1]), limit(2, 2)), (Some(first), limit(1, 1))];
            usages.of(Some(first), &of_connection, &limits)
        };
        let [one, two, three] = ["1", "2", "3"].map(named);
        let _open = [&one, &two].map(|token| quotas(token).open_stream().unwrap());
        assert_eq!(quotas(&three).open_stream().unwrap_err().limit, 2);
        assert_eq!([quotas(&one).take_call(), quotas(&two).take_call()], [Ok(()), Ok(())]);
        assert_eq!(quotas(&three).take_call().unwrap_err().limit, 2);
        // Without the limit, streams count all the same, also for one that is added.
        let usages = Arc::new(Usages::default());
        let _open = usages.of(Some(&one), &of_connection, &[]).open_stream().unwrap();
        let added = [(Some(&of_connection[0]), limit(9, 1))];
        assert!(usages.of(Some(&two), &of_connection, &added).open_stream().is_err());
        assert!(usages.of(Some(&two), &[], &[(Some(&two), limit(9, 1))]).open_stream().is_ok());
    }
}

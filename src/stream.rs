//! What every generator shares: how a call divides its stream into batches, and when a batch leaves.
//!
//! A call asks for a [`Batching`]. A generator keeps a [`Pacing`] made of it, and yields [`Batch`]es: the first at
//! once, then one whenever items or events are ready, or when a heartbeat is due, until the stream is over.

use std::{num::NonZeroU64, ops::RangeInclusive, sync::OnceLock, time::Duration};

use tokio::time::Instant;

pub mod alarm;

/// The default of [`Batching::max_bytes`]: larger batches gain little throughput and cost each reader memory.
pub const BATCH_BYTES: usize = 64 * 1024;

/// The default of [`Batching::heartbeat`]: under the 30 s after which the stricter middleboxes drop a connection.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// The heartbeats that a call may ask for: a shorter one would be a load, and a longer one would show too late that a
/// stream is dead.
pub const HEARTBEATS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

/// The values of `max_batch` that a call may ask for.
pub const MAX_BATCHES: RangeInclusive<i32> = 1..=100_000;

/// Heartbeats leave on a grid whose cells are this fraction of the heartbeat.
const HEARTBEAT_PARTS: u32 = 16;

/// The heartbeats that a [`Pacing`] uses: at least one that does not spin, at most one that an [`Instant`] can hold.
const USABLE_HEARTBEATS: [Duration; 2] = [Duration::from_millis(1), Duration::from_secs(365 * 24 * 60 * 60)];

/// How a call divides its stream into batches.
#[derive(Clone, Debug)]
pub struct Batching {
    /// The stream ends after this many items; at least 1.
    pub limit: Option<u64>,
    /// An empty batch leaves when no batch has left for this long, or up to a 16th of it earlier.
    pub heartbeat: Duration,
    /// The most items of a batch; at least 1.
    pub max_items: usize,
    /// A batch leaves when its items have this many bytes; it exceeds this by less than one item.
    pub max_bytes: usize,
    /// The stream is woken together with the streams of this group.
    pub wake_group: Option<WakeGroup>,
}

impl Default for Batching {
    fn default() -> Self {
        Self {
            limit: None,
            heartbeat: HEARTBEAT,
            max_items: usize::MAX,
            max_bytes: BATCH_BYTES,
            wake_group: None,
        }
    }
}

impl Batching {
    /// The values that a call asks for; `defaults` has those that it leaves out.
    ///
    /// # Errors
    /// The first value that is out of its range.
    pub fn new(
        limit: Option<i64>,
        heartbeat: Option<Duration>,
        max_batch: Option<i32>,
        defaults: Self,
    ) -> Result<Self, Error> {
        let mut batching = defaults;
        if let Some(limit) = limit {
            let checked = u64::try_from(limit).ok().filter(|limit| *limit > 0);
            batching.limit = Some(checked.ok_or(Error::Limit { limit })?);
        }
        if let Some(heartbeat) = heartbeat {
            let checked = Some(heartbeat).filter(|heartbeat| HEARTBEATS.contains(heartbeat));
            batching.heartbeat = checked.ok_or(Error::Heartbeat { heartbeat })?;
        }
        if let Some(max_batch) = max_batch {
            let checked = Some(max_batch).filter(|max_batch| MAX_BATCHES.contains(max_batch));
            let checked = checked.and_then(|max_batch| usize::try_from(max_batch).ok());
            batching.max_items = checked.ok_or(Error::MaxBatch { max_batch })?;
        }
        Ok(batching)
    }
}

/// A value of a [`Batching`] that no stream can have.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// Below 1.
    #[error("the limit {limit} is below 1")]
    Limit {
        /// The value asked for.
        limit: i64,
    },
    /// Not one of [`HEARTBEATS`].
    #[error("the heartbeat {heartbeat:?} is not one of {HEARTBEATS:?}")]
    Heartbeat {
        /// The value asked for.
        heartbeat: Duration,
    },
    /// Not one of [`MAX_BATCHES`].
    #[error("the batch size {max_batch} is not one of {MAX_BATCHES:?}")]
    MaxBatch {
        /// The value asked for.
        max_batch: i32,
    },
}

/// An opaque id. Streams of one group are woken back to back, so that their writes coalesce.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct WakeGroup(NonZeroU64);

impl WakeGroup {
    /// The group of a number; `None` for 0.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }
}

/// How many of these to wake before other tasks run: `least`, and then those of the same group, up to `most` in all.
///
/// A group is divided only if it has more than that, so that the responses of a connection's streams leave in one write.
#[must_use]
pub fn slice<T>(due: &[T], group: impl Fn(&T) -> Option<WakeGroup>, least: usize, most: usize) -> usize {
    let (least, most) = (due.len().min(least), due.len().min(most));
    let last = due.get(least.saturating_sub(1)).and_then(&group);
    let more = due.iter().skip(least).take_while(|one| last.is_some() && group(one) == last).count();
    (least + more).min(most)
}

/// Items and events that leave together, and the position after them.
///
/// `E` is an event, `P` a position, and `S` what else a kind of stream reports with each batch.
#[derive(Clone, Debug)]
pub struct Batch<E, P, S> {
    /// The encoded items, in order, in one or more slices; empty in a heartbeat.
    pub items: Vec<bytes::Bytes>,
    /// How many items there are.
    pub count: usize,
    /// What happened before the first item, in order.
    pub events: Vec<E>,
    /// Where to continue: every item before it was delivered, did not match, or is reported in `events` or `progress`.
    pub position: P,
    /// Facts about the stream after this batch, such as whether it has caught up.
    pub progress: S,
}

impl<E, P, S> Batch<E, P, S> {
    /// How many bytes the items have.
    pub fn bytes(&self) -> usize {
        self.items.iter().map(bytes::Bytes::len).sum()
    }
}

/// The pace of the batches of one call: how many items may still leave, and when a batch left last.
#[derive(Clone, Debug)]
pub struct Pacing {
    batching: Batching,
    heartbeat_at: Instant,
    is_first: bool,
    is_over: bool,
}

impl Pacing {
    /// For a stream that was opened at `now`.
    #[must_use]
    pub fn new(mut batching: Batching, now: Instant) -> Self {
        let [shortest, longest] = USABLE_HEARTBEATS;
        batching.heartbeat = batching.heartbeat.clamp(shortest, longest);
        batching.max_items = batching.max_items.max(1);
        let is_over = batching.limit == Some(0);
        Self { heartbeat_at: on_grid(now, batching.heartbeat), batching, is_first: true, is_over }
    }

    /// The most items of the next batch, which is less where the limit is near.
    #[must_use]
    pub fn max_items(&self) -> usize {
        // A limit that does not fit a usize does not bound a batch.
        let left = self.batching.limit.and_then(|left| usize::try_from(left).ok()).unwrap_or(usize::MAX);
        self.batching.max_items.min(left)
    }

    /// A batch leaves when its items have this many bytes.
    #[must_use]
    pub fn max_bytes(&self) -> usize {
        self.batching.max_bytes
    }

    /// Whether no batch has left yet.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.is_first
    }

    /// Whether the stream is over: its limit is reached, or its generator has ended it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Ends the stream after the next batch.
    pub fn end(&mut self) {
        self.is_over = true;
    }

    /// Records that a batch of `count` items leaves at `now`.
    pub fn record(&mut self, count: usize, now: Instant) {
        (self.is_first, self.heartbeat_at) = (false, on_grid(now, self.batching.heartbeat));
        if let Some(left) = &mut self.batching.limit {
            *left = left.saturating_sub(count as u64);
            self.is_over |= *left == 0;
        }
    }

    /// When a heartbeat is due, if no batch leaves before.
    ///
    /// It is early by up to a 16th: all heartbeats of one length are due on one grid, so that one wake serves many idle
    /// streams, and the batches of a connection leave in one write.
    #[must_use]
    pub fn heartbeat_at(&self) -> Instant {
        self.heartbeat_at
    }
}

/// The moment on the grid at which a heartbeat is due after a batch that left at `sent`.
fn on_grid(sent: Instant, heartbeat: Duration) -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    let due = sent + heartbeat;
    // A u64 holds the nanoseconds of 584 years, and is divided far faster than a u128.
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let cell = nanos(heartbeat / HEARTBEAT_PARTS).max(1);
    let since = due.saturating_duration_since(*START.get_or_init(Instant::now));
    let into_cell = Duration::from_nanos(nanos(since) % cell);
    due.checked_sub(into_cell).unwrap_or(due)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    fn asked(
        limit: Option<i64>,
        heartbeat: Option<Duration>,
        max_batch: Option<i32>,
    ) -> Result<Batching, Error> {
        Batching::new(limit, heartbeat, max_batch, Batching { max_items: 7, ..Batching::default() })
    }

    #[test]
    fn each_value_has_a_range_and_a_default() {
        let ms = Duration::from_millis;
        let Batching { limit, heartbeat, max_items, .. } = asked(None, None, None).unwrap();
        assert_eq!((limit, heartbeat, max_items), (None, HEARTBEAT, 7));
        let Batching { limit, heartbeat, max_items, .. } =
            asked(Some(1), Some(ms(100)), Some(100_000)).unwrap();
        assert_eq!((limit, heartbeat, max_items), (Some(1), ms(100), 100_000));
        for limit in [0, -1, i64::MIN] {
            assert_eq!(asked(Some(limit), None, None).unwrap_err(), Error::Limit { limit });
        }
        for heartbeat in [Duration::ZERO, ms(99), ms(3_600_001), Duration::MAX] {
            assert_eq!(asked(None, Some(heartbeat), None).unwrap_err(), Error::Heartbeat { heartbeat });
        }
        for max_batch in [0, -1, 100_001, i32::MIN] {
            assert_eq!(asked(None, None, Some(max_batch)).unwrap_err(), Error::MaxBatch { max_batch });
        }
    }

    #[test]
    fn a_stream_is_over_when_its_limit_is_reached_or_its_generator_ends_it() {
        let now = Instant::now();
        let mut pacing = Pacing::new(Batching { limit: Some(10), max_items: 6, ..Batching::default() }, now);
        assert!(pacing.is_first());
        let mut sizes = Vec::new();
        while !pacing.is_over() {
            sizes.push(pacing.max_items());
            pacing.record(pacing.max_items(), now);
        }
        assert_eq!((sizes, pacing.is_first()), (vec![6, 4], false));
        let mut endless = Pacing::new(Batching::default(), now);
        endless.record(1_000, now);
        assert!(!endless.is_over());
        endless.end();
        assert!(endless.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_of_streams_opened_apart_are_due_together_and_early_by_up_to_a_16th() {
        let heartbeat = Duration::from_secs(16);
        let mut due = Vec::new();
        for _ in 0..160 {
            let now = Instant::now();
            let pacing = Pacing::new(Batching { heartbeat, ..Batching::default() }, now);
            let at = pacing.heartbeat_at();
            assert!((heartbeat * 15 / 16..=heartbeat).contains(&(at - now)), "{:?}", at - now);
            due.push(at);
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        due.dedup();
        assert!(due.len() <= 17, "{}", due.len());
    }

    #[test]
    fn a_slice_ends_with_a_connection_unless_it_is_too_long() {
        let slice_of = |sizes: &[usize]| {
            let groups = sizes.iter().zip(1..).flat_map(|(size, group)| vec![WakeGroup::new(group); *size]);
            slice(&groups.collect::<Vec<_>>(), |group| *group, 64, 240)
        };
        assert_eq!(slice_of(&[]), 0);
        assert_eq!(slice_of(&[3, 4]), 7);
        assert_eq!(slice_of(&[100, 100]), 100);
        assert_eq!(slice_of(&[64, 100]), 64);
        assert_eq!(slice_of(&[63, 100, 1]), 163);
        assert_eq!(slice_of(&[10_000]), 240);
        assert_eq!(slice(&[None; 100], |group| *group, 64, 240), 64);
    }

    #[test]
    fn no_heartbeat_spins_or_overflows() {
        let now = Instant::now();
        for heartbeat in [Duration::ZERO, Duration::MAX] {
            let pacing = Pacing::new(Batching { heartbeat, ..Batching::default() }, now);
            assert!(pacing.heartbeat_at() > now);
        }
    }
}

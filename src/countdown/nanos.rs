//! Moments and lengths in whole nanoseconds, the unit of all arithmetic on time here.
//!
//! A [`Moment`] is a point on the wall clock. Two moments are apart by [`Nanos`], which are below zero if the first one
//! is earlier. A [`Length`] is never below zero, and has the range in which positions and records store it. Operations
//! that have no meaning do not compile:
//!
//! ```
//! # use perennial::countdown::{Moment, Nanos};
//! let later = Moment::EPOCH + Nanos::from_secs(1);
//! assert_eq!(later - Moment::EPOCH, Nanos::from_secs(1));
//! ```
//!
//! ```compile_fail,E0308
//! # use perennial::countdown::Moment;
//! let sum = Moment::EPOCH + Moment::EPOCH;
//! ```
//!
//! ```compile_fail,E0308
//! # use perennial::countdown::{Length, Moment};
//! let earlier = Moment::EPOCH < Length::new(1);
//! ```
//!
//! No clock shows more than 2⁹⁴ nanoseconds, so sums and differences have room to spare in an `i128`. A client can forge
//! a stored moment or length: [`Position::check`](super::Position) bounds them before they are used.

use std::{
    ops::{Add, AddAssign, Div, Mul, Neg, Sub},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

const PER_SECOND: i128 = 1_000_000_000;

/// A moment of the wall clock.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Moment(i128);

/// A length that may be below zero.
///
/// A record stores one as an `i64`: [`can_be_stored`](Self::can_be_stored) comes before it is written.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(from = "i64")]
pub struct Nanos(i128);

/// A length of up to 584 years, not below zero.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Length(u64);

impl Moment {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// The moment this many nanoseconds after 1970, or before it.
    #[inline]
    #[must_use]
    pub const fn from_nanos(nanos: i128) -> Self {
        Self(nanos)
    }

    /// The nanoseconds since 1970.
    #[inline]
    #[must_use]
    pub const fn as_nanos(self) -> i128 {
        self.0
    }

    /// From another moment to this one. A difference that an `i128` cannot express is the largest one that it can.
    #[inline]
    pub(super) fn saturating_since(self, other: Self) -> Nanos {
        Nanos(self.0.saturating_sub(other.0))
    }

    #[inline]
    pub(super) fn checked_sub(self, length: Nanos) -> Option<Self> {
        self.0.checked_sub(length.0).map(Self)
    }

    /// The first multiple of `grain`, counted from 1970, that is not before this moment.
    pub(super) fn round_up(self, grain: Nanos) -> Self {
        Self(self.0 + (-self.0).rem_euclid(grain.0))
    }
}

impl Nanos {
    /// No time.
    pub const ZERO: Self = Self(0);

    /// This many nanoseconds.
    #[inline]
    #[must_use]
    pub const fn new(nanos: i128) -> Self {
        Self(nanos)
    }

    /// This many seconds.
    #[inline]
    #[must_use]
    pub const fn from_secs(seconds: i128) -> Self {
        Self(seconds * PER_SECOND)
    }

    /// The number of nanoseconds.
    #[inline]
    #[must_use]
    pub const fn get(self) -> i128 {
        self.0
    }

    /// Whether a record can store it.
    pub(super) fn can_be_stored(self) -> bool {
        i64::try_from(self.0).is_ok()
    }

    #[inline]
    pub(super) fn abs(self) -> Self {
        Self(self.0.abs())
    }

    /// As a duration; zero if it is below zero, and the longest duration if it is longer than that.
    pub(super) fn to_duration(self) -> Duration {
        match (u64::try_from(self.0 / PER_SECOND), u32::try_from(self.0 % PER_SECOND)) {
            _ if self.0 < 0 => Duration::ZERO,
            (Ok(seconds), Ok(nanos)) => Duration::new(seconds, nanos),
            _ => Duration::MAX,
        }
    }

    /// How many whole intervals it has, at most `u64::MAX`; `None` if it is below zero. The interval is not 0.
    #[inline]
    pub(super) fn whole_intervals(self, interval: Length) -> Option<u64> {
        let nanos = u128::try_from(self.0).ok()?;
        Some(u64::try_from(nanos / u128::from(interval.0)).unwrap_or(u64::MAX))
    }
}

impl Length {
    /// The longest length.
    pub(super) const LONGEST: Self = Self(u64::MAX);

    /// This many nanoseconds.
    #[inline]
    #[must_use]
    pub const fn new(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The number of nanoseconds.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Repeated `times` times; `None` if that is longer than the longest length.
    #[inline]
    pub(super) fn checked_mul(self, times: u64) -> Option<Self> {
        self.0.checked_mul(times).map(Self)
    }
}

/// A length is below zero, or longer than 584 years.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OutOfRange;

impl From<SystemTime> for Moment {
    #[inline]
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self::EPOCH + Nanos::from(after),
            Err(before) => Self::EPOCH - Nanos::from(before.duration()),
        }
    }
}

impl From<Timestamp> for Moment {
    #[inline]
    fn from(time: Timestamp) -> Self {
        Self(time.as_nanosecond())
    }
}

impl From<Duration> for Nanos {
    #[inline]
    #[expect(clippy::expect_used, reason = "a shorter length would be wrong data")]
    fn from(duration: Duration) -> Self {
        Self(i128::try_from(duration.as_nanos()).expect("a duration has fewer than 2⁹⁴ nanoseconds"))
    }
}

impl From<i64> for Nanos {
    #[inline]
    fn from(nanos: i64) -> Self {
        Self(nanos.into())
    }
}

impl From<Length> for Nanos {
    #[inline]
    fn from(length: Length) -> Self {
        Self(length.0.into())
    }
}

impl From<Length> for Duration {
    #[inline]
    fn from(length: Length) -> Self {
        Self::from_nanos(length.0)
    }
}

impl TryFrom<Nanos> for Length {
    type Error = OutOfRange;

    fn try_from(length: Nanos) -> Result<Self, OutOfRange> {
        u64::try_from(length.0).map(Self).map_err(|_| OutOfRange)
    }
}

impl TryFrom<Duration> for Length {
    type Error = OutOfRange;

    fn try_from(duration: Duration) -> Result<Self, OutOfRange> {
        Nanos::from(duration).try_into()
    }
}

impl Sub for Moment {
    type Output = Nanos;

    #[inline]
    fn sub(self, other: Self) -> Nanos {
        Nanos(self.0 - other.0)
    }
}

impl Add<Nanos> for Moment {
    type Output = Self;

    #[inline]
    fn add(self, length: Nanos) -> Self {
        Self(self.0 + length.0)
    }
}

impl Sub<Nanos> for Moment {
    type Output = Self;

    #[inline]
    fn sub(self, length: Nanos) -> Self {
        Self(self.0 - length.0)
    }
}

impl AddAssign<Nanos> for Moment {
    #[inline]
    fn add_assign(&mut self, length: Nanos) {
        *self = *self + length;
    }
}

impl Add for Nanos {
    type Output = Self;

    #[inline]
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Sub for Nanos {
    type Output = Self;

    #[inline]
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl AddAssign for Nanos {
    #[inline]
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Neg for Nanos {
    type Output = Self;

    #[inline]
    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl Mul<Nanos> for i128 {
    type Output = Nanos;

    #[inline]
    fn mul(self, length: Nanos) -> Nanos {
        Nanos(self * length.0)
    }
}

impl Div<i128> for Nanos {
    type Output = Self;

    #[inline]
    fn div(self, parts: i128) -> Self {
        Self(self.0 / parts)
    }
}

/// At most 2³² intervals, the most that a countdown has, fit with room to spare.
impl Mul<u64> for Length {
    type Output = Nanos;

    #[inline]
    fn mul(self, times: u64) -> Nanos {
        Nanos(i128::from(self.0) * i128::from(times))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn a_time_before_1970_is_a_moment_below_zero() {
        let (before, after) = (UNIX_EPOCH - Duration::from_nanos(1), UNIX_EPOCH + Duration::from_nanos(1));
        assert_eq!((Moment::from(before), Moment::from(after)), (Moment(-1), Moment(1)));
        assert_eq!(Moment::from(Timestamp::from_nanosecond(-1).unwrap()), Moment(-1));
    }

    #[test]
    fn a_length_that_a_duration_cannot_express_is_its_closest_value() {
        let most = Nanos::from(Duration::MAX);
        for (length, duration) in [
            (Nanos(-1), Duration::ZERO),
            (Nanos::ZERO, Duration::ZERO),
            (Nanos(1_000_000_001), Duration::new(1, 1)),
            (most, Duration::MAX),
            (most + Nanos(1), Duration::MAX),
            (Nanos(i128::MAX), Duration::MAX),
            (Nanos(i128::MIN), Duration::ZERO),
        ] {
            assert_eq!(length.to_duration(), duration, "{length:?}");
        }
    }

    #[test]
    fn a_stored_length_is_neither_below_zero_nor_longer_than_its_type() {
        assert_eq!(Length::try_from(Nanos(-1)), Err(OutOfRange));
        assert_eq!(Length::try_from(Nanos::from(Length::LONGEST)), Ok(Length::LONGEST));
        assert_eq!(Length::try_from(Nanos::from(Length::LONGEST) + Nanos(1)), Err(OutOfRange));
        assert_eq!(Length::try_from(Duration::MAX), Err(OutOfRange));
    }

    #[test]
    fn intervals_are_counted_from_zero_up_and_moments_are_rounded_up_on_either_side_of_1970() {
        let interval = Length(10);
        let counts = [-1, 0, 9, 10, 19].map(|nanos| Nanos(nanos).whole_intervals(interval));
        assert_eq!(counts, [None, Some(0), Some(0), Some(1), Some(1)]);
        assert_eq!(Nanos(i128::MAX).whole_intervals(Length(1)), Some(u64::MAX));
        let rounded = [-11, -10, -9, 0, 1, 10].map(|nanos| Moment(nanos).round_up(interval.into()).0);
        assert_eq!(rounded, [-10, -10, 0, 0, 10, 10]);
    }

    #[test]
    fn stored_values_have_the_bytes_of_their_numbers() {
        for nanos in [i128::MIN, -1, 0, 1_795_456_800_000_000_000, i128::MAX] {
            let bytes = postcard::to_allocvec(&Moment(nanos)).unwrap();
            assert_eq!(bytes, postcard::to_allocvec(&nanos).unwrap());
            assert_eq!(postcard::from_bytes(&bytes), Ok(Moment(nanos)));
        }
        for nanos in [0, 1, u64::MAX] {
            let bytes = postcard::to_allocvec(&Length(nanos)).unwrap();
            assert_eq!(bytes, postcard::to_allocvec(&nanos).unwrap());
            assert_eq!(serde_json::to_string(&Length(nanos)).unwrap(), nanos.to_string());
        }
        for nanos in [i64::MIN, -1, i64::MAX] {
            let text = serde_json::to_string(&Nanos::from(nanos)).unwrap();
            assert_eq!(text, nanos.to_string());
            assert_eq!(serde_json::from_str::<Nanos>(&text).unwrap(), Nanos::from(nanos));
        }
        assert!(!(Nanos::from(i64::MAX) + Nanos(1)).can_be_stored());
        assert!(serde_json::from_str::<Nanos>("9223372036854775808").is_err());
    }
}

//! Moments and durations: read from the command line, shown to people, and as protobuf has them.

use jiff::{SignedDuration, Timestamp, Zoned};
use perennial::units;

mod moment;

pub use moment::{Moment, coming, moment};

/// Reads a duration of zero or more in the grammar of [`units`].
pub fn duration(text: &str) -> Result<SignedDuration, units::Error> {
    let duration = units::parse_duration(text)?;
    #[expect(clippy::expect_used, reason = "the grammar ends at a hundred years")]
    Ok(SignedDuration::try_from(duration).expect("a hundred years fit"))
}

/// Writes a duration so that [`duration`] reads it back as the same.
pub fn written(duration: SignedDuration) -> String {
    units::duration_text(duration.unsigned_abs())
}

/// A duration in words, rounded up: to the millisecond below ten seconds, and to the second above.
pub fn in_words(duration: SignedDuration) -> String {
    let unit = if duration.abs() < SignedDuration::from_secs(10) { 1_000_000 } else { 1_000_000_000 };
    let nanos = ceiling(duration, unit).saturating_mul(unit);
    let rounded = SignedDuration::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX));
    let days = rounded.as_hours() / 24;
    let rest = rounded.saturating_sub(SignedDuration::from_hours(days.saturating_mul(24)));
    match days {
        0 => format!("{rest:#}"),
        _ if rest.is_zero() => format!("{days}d"),
        _ => format!("{days}d {rest:#}"),
    }
}

/// A duration in units of `unit_nanos` nanoseconds, rounded up.
pub fn ceiling(duration: SignedDuration, unit_nanos: i128) -> i128 {
    let nanos = duration.as_nanos();
    nanos.div_euclid(unit_nanos) + i128::from(nanos.rem_euclid(unit_nanos) > 0)
}

/// A moment in local time, with its date unless that is today's.
pub fn on_the_wall(time: Timestamp, now: &Zoned) -> String {
    let time = time.to_zoned(now.time_zone().clone());
    let format = if time.date() == now.date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
    time.strftime(format).to_string()
}

pub fn to_proto(duration: SignedDuration) -> prost_types::Duration {
    prost_types::Duration { seconds: duration.as_secs(), nanos: duration.subsec_nanos() }
}

pub fn timestamp_to_proto(time: Timestamp) -> prost_types::Timestamp {
    // Before 1970, jiff has both parts negative and protobuf has the second one positive.
    let nanos = time.subsec_nanosecond();
    let (seconds, nanos) =
        if nanos < 0 { (time.as_second() - 1, nanos + 1_000_000_000) } else { (time.as_second(), nanos) };
    prost_types::Timestamp { seconds, nanos }
}

pub fn from_proto(time: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos).ok()
}

pub fn duration_from_proto(duration: &prost_types::Duration) -> SignedDuration {
    // Both parts have the same sign. A server sends no nanoseconds outside this range.
    let nanos = duration.nanos.clamp(-999_999_999, 999_999_999);
    SignedDuration::from_secs(duration.seconds).saturating_add(SignedDuration::from_nanos(nanos.into()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]
    use super::*;

    #[test]
    fn durations_are_not_negative() {
        assert_eq!(duration("1.5s").unwrap(), SignedDuration::from_millis(1_500));
        assert_eq!(duration("20ms").unwrap(), SignedDuration::from_millis(20));
        assert_eq!(duration("1d 2h").unwrap(), SignedDuration::from_hours(26));
        assert!(duration("-1d").is_err() && duration("1mo").is_err());
        assert!(duration("-1s").is_err() && duration("1").is_err());
        let long = duration("1d 1h 30m 1.5s").unwrap();
        assert_eq!(duration(&written(long)), Ok(long));
    }

    #[test]
    fn durations_are_shown_rounded_up() {
        for (text, words) in [
            ("3m 20s", "3m 20s"),
            ("12.0001s", "13s"),
            ("9.9999s", "10s"),
            ("1.5s", "1s 500ms"),
            ("0s", "0s"),
            ("2d", "2d"),
            ("49h 1s", "2d 1h 1s"),
        ] {
            assert_eq!(in_words(units::parse_signed_duration(text).unwrap()), words, "{text}");
        }
    }

    #[test]
    fn a_moment_is_shown_with_its_date_unless_that_is_today() {
        let now: Zoned = "2026-11-23T12:00:00+01:00[Europe/Berlin]".parse().unwrap();
        let shown = |text: &str| on_the_wall(text.parse().unwrap(), &now);
        assert_eq!(shown("2026-11-23T17:00:00.9Z"), "18:00:00");
        assert_eq!(shown("2026-11-23T23:00:00Z"), "2026-11-24 00:00:00");
    }
}

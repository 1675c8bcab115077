//! The one grammar of durations and sizes: for flags, configuration files, retention rules and the command line.
//!
//! - A duration is one or more numbers with units, the largest unit first: `500ms`, `1.5s`, `1h30m`, `1h 30m`, `7d`. A
//!   day has 24 hours and a week seven days. Months and years have no fixed length and are refused, as is a number
//!   without a unit. jiff reads the text, so its longer forms (`2 hours`, `PT5M`) work, too.
//! - A size is a number of bytes, with or without a unit: `65536`, `64KiB`, `1.5GiB`, `10MB`. `KiB` is 1,024 bytes and
//!   `kB` 1,000. Case does not matter. `64k` is refused, because programs disagree on its meaning.
//!
//! [`duration_text`] and [`size_text`] write both exactly, and what they write is read back as the same value. Sizes are
//! read here and not by the crate `bytesize`, which computes in floating point and turns a size that is out of range
//! into the largest one without an error.

use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo};

/// The longest duration that can be written: a hundred years. Longer ones would overflow the clock.
pub const MAX_DURATION: Duration = Duration::from_secs(36_525 * DAY);

const DAY: u64 = 24 * 60 * 60;

/// Units in which a duration is shown, in nanoseconds; the largest first.
const DURATION_UNITS: [(&str, u128); 7] = [
    ("d", DAY as u128 * 1_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Units of a size, in bytes. Those of powers of two come first, the largest of them first: a size is shown in these.
const SIZE_UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("", 1),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
];

/// Why a text is not a duration, a size or a number. The message repeats the text and says what would work.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum Error {
    #[error("`{0}` is not a duration: write 500ms, 20s, 1h30m or 7d")]
    NotADuration(String),
    #[error("`{0}` has no unit: write {0}s for seconds, or use ms, m, h or d")]
    NoUnit(String),
    #[error("`{0}` has months or years, which have no fixed length: write days, as in 30d")]
    NoFixedLength(String),
    #[error("`{0}` is negative: write a duration of zero or more")]
    Negative(String),
    #[error("`{0}` is out of range: durations up to 36525d, a hundred years, are possible")]
    DurationOutOfRange(String),
    #[error("`{0}` is not a size: write 64KiB, 10MB, 1GiB or a number of bytes")]
    NotASize(String),
    #[error("`{0}` is out of range: sizes up to 16777215TiB are possible")]
    SizeOutOfRange(String),
    #[error("`{0}` is not a number")]
    NotANumber(String),
    #[error("`{text}` is out of range: numbers from {min} to {max} are possible")]
    NumberOutOfRange { text: String, min: i64, max: i64 },
}

/// Reads a duration from zero to [`MAX_DURATION`].
pub fn parse_duration(text: &str) -> Result<Duration, Error> {
    let signed = parse_signed_duration(text)?;
    Duration::try_from(signed).map_err(|_| Error::Negative(text.into()))
}

/// Reads a duration that may be negative: `-30s`. At most [`MAX_DURATION`] in both directions.
pub fn parse_signed_duration(text: &str) -> Result<SignedDuration, Error> {
    let fault = |error: &jiff::Error| {
        if error.is_range() || has_too_many_digits(text) {
            Error::DurationOutOfRange(text.into())
        } else {
            Error::NotADuration(text.into())
        }
    };
    let number = text.trim().trim_start_matches(['-', '+']);
    if number.starts_with(|c: char| c.is_ascii_digit()) && number.parse::<f64>().is_ok() {
        return Err(Error::NoUnit(text.into()));
    }
    // A `Span` knows days and has narrower limits for hours and below; a `SignedDuration` is the other way round.
    let duration = if let Ok(duration) = text.trim().parse::<SignedDuration>() {
        duration
    } else {
        let span = text.trim().parse::<Span>().map_err(|error| fault(&error))?;
        if span.get_years() != 0 || span.get_months() != 0 {
            return Err(Error::NoFixedLength(text.into()));
        }
        span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|error| fault(&error))?
    };
    if duration.unsigned_abs() > MAX_DURATION {
        return Err(Error::DurationOutOfRange(text.into()));
    }
    Ok(duration)
}

/// Whether a text would be a duration if its numbers were smaller. jiff does not distinguish the two where a number does
/// not fit its 64 bits.
fn has_too_many_digits(text: &str) -> bool {
    let mut digits = 0;
    let short = |c: &char| {
        digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
        digits <= 1
    };
    text.chars().filter(short).collect::<String>().trim().parse::<Span>().is_ok()
}

/// Reads a number of bytes.
pub fn parse_size(text: &str) -> Result<u64, Error> {
    let fault = || Error::NotASize(text.into());
    let trimmed = text.trim();
    let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let (_, unit) = SIZE_UNITS
        .into_iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit.trim_start()))
        .ok_or_else(fault)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err(fault());
    }
    let bytes = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(unit));
    let rest = fraction_of(fraction, unit).ok_or_else(fault)?;
    bytes.and_then(|bytes| bytes.checked_add(rest)).ok_or_else(|| Error::SizeOutOfRange(text.into()))
}

/// The bytes of `0.FRACTION` units, or `None` if they are not whole.
fn fraction_of(fraction: &str, unit: u64) -> Option<u64> {
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() {
        return Some(0);
    }
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let scaled = fraction.parse::<u128>().ok()?.checked_mul(unit.into())?;
    if !scaled.is_multiple_of(scale) {
        return None;
    }
    u64::try_from(scaled / scale).ok()
}

/// Reads a whole number, and reports one that is too large as such.
pub fn parse_i32(text: &str) -> Result<i32, Error> {
    use std::num::IntErrorKind as Kind;
    text.trim().parse::<i32>().map_err(|error| match error.kind() {
        Kind::PosOverflow | Kind::NegOverflow => {
            Error::NumberOutOfRange { text: text.into(), min: i32::MIN.into(), max: i32::MAX.into() }
        }
        _ => Error::NotANumber(text.into()),
    })
}

/// Writes a duration exactly, without spaces: `1h30m`, `7d`, `1s500ms`, `0s`.
pub fn duration_text(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    if rest == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    for (name, nanos) in DURATION_UNITS {
        if rest >= nanos {
            text.push_str(&format!("{}{name}", rest / nanos));
            rest %= nanos;
        }
    }
    text
}

/// Writes a size exactly, in the largest unit that leaves a whole number: `64KiB`, `1GiB`, `1000B`.
pub fn size_text(bytes: u64) -> String {
    let fits = |(_, unit): &(&str, u64)| bytes != 0 && bytes.is_multiple_of(*unit);
    let (name, unit) = SIZE_UNITS.into_iter().find(fits).unwrap_or(("B", 1));
    format!("{}{name}", bytes / unit)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    fn nanos(nanos: u64) -> Duration {
        Duration::from_nanos(nanos)
    }

    #[test]
    fn durations_are_read_with_days_fractions_and_several_units() {
        for (text, expected) in [
            ("500ms", nanos(500_000_000)),
            ("1.5s", nanos(1_500_000_000)),
            ("90s", Duration::from_secs(90)),
            ("1h30m", Duration::from_secs(5400)),
            ("1h 30m", Duration::from_secs(5400)),
            (" 20s ", Duration::from_secs(20)),
            ("1.5h", Duration::from_secs(5400)),
            ("7d", Duration::from_secs(7 * DAY)),
            ("1d12h", Duration::from_secs(DAY * 3 / 2)),
            ("1w", Duration::from_secs(7 * DAY)),
            ("87648h", Duration::from_secs(87_648 * 3600)),
            ("36525d", MAX_DURATION),
            ("250us", nanos(250_000)),
            ("1ns", nanos(1)),
            ("2 hours", Duration::from_secs(7200)),
            ("0s", Duration::ZERO),
        ] {
            assert_eq!(parse_duration(text), Ok(expected), "{text}");
        }
        assert_eq!(parse_signed_duration("-30s"), Ok(SignedDuration::from_secs(-30)));
        assert_eq!(parse_signed_duration("-1d"), Ok(SignedDuration::from_hours(-24)));
    }

    #[test]
    fn a_text_that_is_not_a_duration_is_refused_with_the_reason() {
        let error = |text: &str| parse_duration(text).unwrap_err();
        for text in ["", "soon", "d", "1.5d", "1 parsec", "h1"] {
            assert_eq!(error(text), Error::NotADuration(text.into()));
        }
        for text in ["7", "1.5", "0", "-7", "99999999999999999999"] {
            assert_eq!(error(text), Error::NoUnit(text.into()));
        }
        for text in ["1mo", "2y", "1y 3d"] {
            assert_eq!(error(text), Error::NoFixedLength(text.into()));
        }
        for text in ["-1s", "-7d", "7d ago"] {
            assert_eq!(error(text), Error::Negative(text.into()));
        }
        for text in [
            "36526d",
            "36525d1ns",
            "99999999999d",
            "99999999999s",
            "2562047788015215h",
            "9223372036854775807s",
            "99999999999999999999s",
            "99999999999999999999d",
        ] {
            assert_eq!(error(text), Error::DurationOutOfRange(text.into()));
        }
        assert_eq!(parse_signed_duration("-36526d"), Err(Error::DurationOutOfRange("-36526d".into())));
        assert_eq!(error("7").to_string(), "`7` has no unit: write 7s for seconds, or use ms, m, h or d");
    }

    #[test]
    fn sizes_are_read_in_powers_of_two_and_of_ten() {
        for (text, expected) in [
            ("0", 0),
            ("65536", 65_536),
            ("7B", 7),
            ("64KiB", 64 << 10),
            ("64 KiB", 64 << 10),
            ("64kib", 64 << 10),
            ("1MiB", 1 << 20),
            ("1GiB", 1 << 30),
            ("1.5GiB", 3 << 29),
            ("2TiB", 2 << 40),
            ("10MB", 10_000_000),
            ("0.5kB", 500),
            ("1TB", 1_000_000_000_000),
            ("16777215TiB", 16_777_215 << 40),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_text_that_is_not_a_size_is_refused_with_the_reason() {
        for text in
            ["", "KiB", "some", "64k", "1G", "-1", "1.KiB", ".5KiB", "1.2.3KiB", "1.5B", "0.0001kB", "1e3"]
        {
            assert_eq!(parse_size(text), Err(Error::NotASize(text.into())));
        }
        for text in ["18446744073709551616", "99999999999999999999999", "16777216TiB", "20000000TB"] {
            assert_eq!(parse_size(text), Err(Error::SizeOutOfRange(text.into())));
        }
    }

    #[test]
    fn a_number_that_is_too_large_is_out_of_range_and_still_a_number() {
        assert_eq!(parse_i32("-7"), Ok(-7));
        assert_eq!(parse_i32("five"), Err(Error::NotANumber("five".into())));
        let error = parse_i32("99999999999").unwrap_err().to_string();
        assert_eq!(
            error,
            "`99999999999` is out of range: numbers from -2147483648 to 2147483647 are possible"
        );
    }

    #[test]
    fn a_duration_is_shown_in_all_its_units() {
        for (duration, text) in [
            (Duration::ZERO, "0s"),
            (Duration::from_secs(90), "1m30s"),
            (Duration::from_secs(7 * DAY), "7d"),
            (Duration::from_millis(61_001), "1m1s1ms"),
            (nanos(1_500_250), "1ms500us250ns"),
        ] {
            assert_eq!(duration_text(duration), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn a_duration_that_was_shown_is_read_as_the_same(seconds in 0..36_525 * DAY, nanos in 0..1_000_000_000_u32) {
            let duration = Duration::new(seconds, nanos);
            proptest::prop_assert_eq!(parse_duration(&duration_text(duration)), Ok(duration));
        }

        #[test]
        fn a_size_that_was_shown_is_read_as_the_same(number: u64, shift in 0..64_u32) {
            let bytes = number >> shift << (shift / 2);
            proptest::prop_assert_eq!(parse_size(&size_text(bytes)), Ok(bytes));
        }
    }
}

//! The grammar of moments: `tomorrow 9am`, `18:00 Europe/Berlin`, `-24h`, RFC 3339, Unix seconds.
//!
//! A day or a time of day without a zone is local. Where daylight saving skips or repeats a local hour, the moment
//! carries a note that names the reading taken.

use jiff::{
    SignedDuration, Timestamp, ToSpan, Zoned,
    civil::{Date, DateTime, Time},
    fmt::temporal::DateTimeParser,
    tz::{AmbiguousOffset, TimeZone},
};

use perennial::units;

use super::duration;

/// The grammar by example, for a refusal.
const EXAMPLES: &str = "\"tomorrow 9am\", 18:00, \"18:00 Europe/Berlin\", 2026-11-28, \"2026-11-28 18:00\", \
                            2026-11-28T18:00:00Z, -24h, +90m, now or @1795456800";

/// Smaller plain numbers are more likely a mistake than a moment before September 2001.
const MIN_UNIX_SECONDS: i64 = 1_000_000_000;
/// Larger numbers are after the year 5100, so they are probably milliseconds.
const MAX_UNIX_SECONDS: i64 = 99_999_999_999;

/// A moment as it was read from text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Moment {
    pub time: Timestamp,
    /// Set where the local time is skipped or repeated by daylight saving: the reading that was taken.
    pub note: Option<String>,
}

impl From<Timestamp> for Moment {
    fn from(time: Timestamp) -> Self {
        Self { time, note: None }
    }
}

/// Reads a moment; a time of day alone is today's.
pub fn moment(text: &str) -> Result<Moment, String> {
    read(text, &Zoned::now(), Passed::IsKept)
}

/// Reads a moment to come; a time of day alone is tomorrow's if today's has passed.
pub fn coming(text: &str) -> Result<Moment, String> {
    read(text, &Zoned::now(), Passed::IsTomorrow)
}

/// What a time of day means that has passed today.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Passed {
    IsKept,
    IsTomorrow,
}

fn read(text: &str, now: &Zoned, passed: Passed) -> Result<Moment, String> {
    let text = text.trim();
    match absolute(text, now)? {
        Some(time) => Ok(time.into()),
        None => local(text, now, passed),
    }
}

/// A moment that no zone changes, or `None` for another form.
fn absolute(text: &str, now: &Zoned) -> Result<Option<Timestamp>, String> {
    if text.eq_ignore_ascii_case("now") {
        return Ok(Some(now.timestamp()));
    }
    if let Some(ahead) = text.strip_prefix('+').or_else(|| text.strip_prefix("in ")) {
        return from_now(now, ahead, 1).map(Some);
    }
    if let Some(ago) = text.strip_prefix('-').or_else(|| text.strip_suffix(" ago")) {
        return from_now(now, ago, -1).map(Some);
    }
    if let Some(seconds) = text.strip_prefix('@') {
        return unix(seconds).map(Some);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse::<i64>() {
            Ok(..MIN_UNIX_SECONDS) => {
                Err(format!("{text} alone is not a time; write @{text} for Unix seconds"))
            }
            _ => unix(text).map(Some),
        };
    }
    Ok(text.parse().ok())
}

fn from_now(now: &Zoned, text: &str, sign: i32) -> Result<Timestamp, String> {
    let duration = duration(text.trim()).map_err(|error| match error {
        units::Error::NotADuration(_) | units::Error::Negative(_) => unknown(),
        error => error.to_string(),
    })?;
    now.timestamp().checked_add(duration * sign).map_err(|_| "too far from now".to_owned())
}

/// Seconds since 1970, with or without a fraction.
fn unix(text: &str) -> Result<Timestamp, String> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.' || byte == b'-');
    let since: SignedDuration = Some(format!("{text}s"))
        .filter(|_| is_number)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("@{text} is not Unix time, which is seconds since 1970; try @1795456800"))?;
    if since.as_secs() > MAX_UNIX_SECONDS {
        let seconds = since.as_secs() / 1_000;
        return Err(format!("Unix time is in seconds; if {text} is in milliseconds, try @{seconds}"));
    }
    Timestamp::from_duration(since).map_err(|_| format!("@{text} is out of range"))
}

/// A day, a time of day, or both, in a zone.
fn local(text: &str, now: &Zoned, passed: Passed) -> Result<Moment, String> {
    let text = joined(text);
    let (text, zone) = split_zone(&text)?;
    let now = &zone.map_or_else(|| now.clone(), |zone| now.with_time_zone(zone));
    let words = text.split_whitespace().collect::<Vec<_>>();
    let day = |word: &str| day(word, now.date());
    let (date, time) = match *words.as_slice() {
        [word] => match (day(word), time_of_day(word)) {
            (Some(date), _) => (date, Time::midnight()),
            (None, Some(time)) if passed == Passed::IsTomorrow => return next(time, now),
            (None, Some(time)) => (now.date(), time),
            (None, None) => {
                let at = word.parse::<DateTime>().map_err(|_| unknown())?;
                (at.date(), at.time())
            }
        },
        [first, second] => {
            let in_order = day(first).zip(time_of_day(second));
            in_order.or_else(|| day(second).zip(time_of_day(first))).ok_or_else(unknown)?
        }
        _ => return Err(unknown()),
    };
    let first = readings(date.to_datetime(time), now.time_zone())?.into_iter().next();
    first.ok_or_else(unknown)
}

/// The next moment at which the clock shows a time of day.
fn next(time: Time, now: &Zoned) -> Result<Moment, String> {
    let tomorrow = now.date().checked_add(1.day()).map_err(|error| error.to_string())?;
    for date in [now.date(), tomorrow] {
        let readings = readings(date.to_datetime(time), now.time_zone())?;
        if let Some(next) = readings.into_iter().find(|reading| reading.time >= now.timestamp()) {
            return Ok(next);
        }
    }
    Err(unknown())
}

/// The moments at which the clock in a zone shows a local time, in order: one, or two where an hour is repeated.
fn readings(local: DateTime, zone: &TimeZone) -> Result<Vec<Moment>, String> {
    let at = zone.to_ambiguous_timestamp(local);
    let out_of_range = |_| format!("{local} is out of range");
    let shown = |time: Timestamp| time.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    let (written, place) = (local.strftime("%Y-%m-%d %H:%M"), zone.iana_name().unwrap_or("this time zone"));
    match at.offset() {
        AmbiguousOffset::Unambiguous { .. } => Ok(vec![at.compatible().map_err(out_of_range)?.into()]),
        AmbiguousOffset::Gap { .. } => {
            let time = at.compatible().map_err(out_of_range)?;
            let note =
                format!("{written} does not exist in {place}: the clock skips it; read as {}", shown(time));
            Ok(vec![Moment { time, note: Some(note) }])
        }
        AmbiguousOffset::Fold { .. } => {
            let earlier = at.earlier().map_err(out_of_range)?;
            let later = at.later().map_err(out_of_range)?;
            let note = |taken, other| {
                let (taken, other) = (shown(taken), shown(other));
                format!("{written} occurs twice in {place}; read as {taken}, the other one is {other}")
            };
            Ok([(earlier, later), (later, earlier)]
                .map(|(taken, other)| Moment { time: taken, note: Some(note(taken, other)) })
                .into())
        }
    }
}

fn day(word: &str, today: Date) -> Option<Date> {
    match word.to_ascii_lowercase().as_str() {
        "yesterday" => today.yesterday().ok(),
        "today" => Some(today),
        "tomorrow" => today.tomorrow().ok(),
        // Without this check, jiff would read the date of `2026-11-28T18:00` and drop the time.
        word if word.len() == "2026-11-28".len() => word.parse().ok(),
        _ => None,
    }
}

/// `18:00`, `18:00:30`, `9am` or `9:30pm`.
fn time_of_day(word: &str) -> Option<Time> {
    let word = word.to_ascii_lowercase();
    let (clock, noon) = match (word.strip_suffix("am"), word.strip_suffix("pm")) {
        (Some(clock), _) => (clock, 0),
        (_, Some(clock)) => (clock, 12),
        (None, None) => {
            return word.parse().ok().filter(|_| word.contains(':') && !word.contains(['-', 't']));
        }
    };
    let (hour, minute) = clock.split_once(':').unwrap_or((clock, "0"));
    let hour = hour.parse::<i8>().ok().filter(|hour| (1..=12).contains(hour))?;
    Time::new(hour % 12 + noon, minute.parse().ok()?, 0, 0).ok()
}

/// `9 am` as one word.
fn joined(text: &str) -> String {
    let mut out = String::new();
    for word in text.split_whitespace() {
        let is_half = ["am", "pm"].iter().any(|half| word.eq_ignore_ascii_case(half));
        if !(out.is_empty() || is_half && out.ends_with(|last: char| last.is_ascii_digit())) {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

/// Takes a zone off the end: `Europe/Berlin`, `UTC`, `Z` or `+02:00`.
fn split_zone(text: &str) -> Result<(&str, Option<TimeZone>), String> {
    let Some((rest, word)) = text.rsplit_once(' ') else { return Ok((text, None)) };
    let is_name =
        word.starts_with(|first: char| first.is_ascii_alphabetic()) && day(word, Date::ZERO).is_none();
    if !(is_name || word.starts_with(['+', '-'])) {
        return Ok((text, None));
    }
    if word.eq_ignore_ascii_case("z") {
        return Ok((rest, Some(TimeZone::UTC)));
    }
    match DateTimeParser::new().parse_time_zone(word) {
        Ok(zone) => Ok((rest, Some(zone))),
        Err(_) if word.contains('/') => {
            Err(format!("{word} is not a time zone known here; try Europe/Berlin, UTC or +02:00"))
        }
        Err(_) => Err(unknown()),
    }
}

fn unknown() -> String {
    format!("not a time; try {EXAMPLES}")
}

#[cfg(test)]
mod tests;

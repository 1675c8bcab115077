#![expect(clippy::unwrap_used, reason = "a test")]

use super::*;

/// A Monday, at noon in Berlin.
fn noon() -> Zoned {
    "2026-11-23T12:00:00+01:00[Europe/Berlin]".parse().unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn moments_are_read_as_people_write_them() {
    for (text, expected) in [
        ("now", "2026-11-23T11:00:00Z"),
        ("yesterday", "2026-11-21T23:00:00Z"),
        ("today", "2026-11-22T23:00:00Z"),
        ("Tomorrow", "2026-11-23T23:00:00Z"),
        ("tomorrow 9am", "2026-11-24T08:00:00Z"),
        ("9am tomorrow", "2026-11-24T08:00:00Z"),
        ("yesterday 9:30 PM", "2026-11-22T20:30:00Z"),
        ("today 12am", "2026-11-22T23:00:00Z"),
        ("today 12pm", "2026-11-23T11:00:00Z"),
        ("18:00", "2026-11-23T17:00:00Z"),
        ("09:30", "2026-11-23T08:30:00Z"),
        ("18:00:30", "2026-11-23T17:00:30Z"),
        ("6pm", "2026-11-23T17:00:00Z"),
        ("6 pm", "2026-11-23T17:00:00Z"),
        ("18:00 America/New_York", "2026-11-23T23:00:00Z"),
        ("tomorrow 9am Asia/Tokyo", "2026-11-24T00:00:00Z"),
        ("today Pacific/Auckland", "2026-11-23T11:00:00Z"),
        ("18:00 UTC", "2026-11-23T18:00:00Z"),
        ("18:00 z", "2026-11-23T18:00:00Z"),
        ("18:00 +02:00", "2026-11-23T16:00:00Z"),
        ("2026-11-28", "2026-11-27T23:00:00Z"),
        ("2026-11-28 18:00", "2026-11-28T17:00:00Z"),
        ("2026-11-28 6pm", "2026-11-28T17:00:00Z"),
        ("2026-11-28T18:00", "2026-11-28T17:00:00Z"),
        ("2026-11-28T18:00 UTC", "2026-11-28T18:00:00Z"),
        ("2026-11-28 18:00 Asia/Tokyo", "2026-11-28T09:00:00Z"),
        ("2026-11-28 Asia/Tokyo", "2026-11-27T15:00:00Z"),
        ("2026-11-28T18:00:00Z", "2026-11-28T18:00:00Z"),
        ("2026-11-28T18:00:00.5+01:00", "2026-11-28T17:00:00.5Z"),
        ("+5m", "2026-11-23T11:05:00Z"),
        ("in 1h 30m", "2026-11-23T12:30:00Z"),
        ("-24h", "2026-11-22T11:00:00Z"),
        ("-7d", "2026-11-16T11:00:00Z"),
        ("2h ago", "2026-11-23T09:00:00Z"),
        ("@1732380000", "2024-11-23T16:40:00Z"),
        ("@1732380000.25", "2024-11-23T16:40:00.25Z"),
        ("@0", "1970-01-01T00:00:00Z"),
        ("@-1", "1969-12-31T23:59:59Z"),
        ("1732380000", "2024-11-23T16:40:00Z"),
        (" 18:00 ", "2026-11-23T17:00:00Z"),
    ] {
        let expected = Moment { time: at(expected), note: None };
        assert_eq!(read(text, &noon(), Passed::IsKept), Ok(expected), "{text}");
    }
}

#[test]
fn a_time_of_day_that_has_passed_is_tomorrows_for_a_moment_to_come() {
    for (text, expected) in [
        ("18:00", "2026-11-23T17:00:00Z"),
        ("12:00", "2026-11-23T11:00:00Z"),
        ("09:30", "2026-11-24T08:30:00Z"),
        ("9am", "2026-11-24T08:00:00Z"),
        ("20:00 Asia/Tokyo", "2026-11-23T11:00:00Z"),
        ("19:59 Asia/Tokyo", "2026-11-24T10:59:00Z"),
        // The day is given, so it counts.
        ("today 9am", "2026-11-23T08:00:00Z"),
    ] {
        assert_eq!(read(text, &noon(), Passed::IsTomorrow).unwrap().time, at(expected), "{text}");
    }
}

#[test]
fn what_is_not_a_moment_is_refused_with_what_would_work() {
    for (wrong, hint) in [
        ("", "tomorrow 9am"),
        ("soon", "tomorrow 9am"),
        ("next week", "tomorrow 9am"),
        ("25:00", "tomorrow 9am"),
        ("13pm", "tomorrow 9am"),
        ("0am", "tomorrow 9am"),
        ("2026-02-30", "tomorrow 9am"),
        ("tomorrow yesterday", "tomorrow 9am"),
        ("tomorrow 9am please", "tomorrow 9am"),
        ("+", "tomorrow 9am"),
        ("-", "tomorrow 9am"),
        ("+5", "no unit"),
        ("--24h", "tomorrow 9am"),
        ("18:00 Europe/Brelin", "Europe/Brelin"),
        ("5", "@5"),
        ("20261128", "@20261128"),
        ("@", "@1795456800"),
        ("@soon", "@1795456800"),
        ("1732380000123", "@1732380000"),
        ("@1732380000123", "@1732380000"),
        ("99999999999999999999", "Unix"),
        ("+9999999999h", "out of range"),
        ("@-99999999999999", "out of range"),
    ] {
        let error = read(wrong, &noon(), Passed::IsTomorrow).unwrap_err();
        assert!(error.contains(hint), "{wrong}: {error}");
    }
}

#[test]
fn a_local_time_that_daylight_saving_skips_is_read_as_the_one_after_the_gap_and_noted() {
    let skipped = read("2026-03-29 02:30", &noon(), Passed::IsKept).unwrap();
    assert_eq!(skipped.time, at("2026-03-29T03:30:00+02:00"));
    let note = skipped.note.unwrap();
    for part in ["2026-03-29 02:30", "does not exist in Europe/Berlin", "2026-03-29T03:30:00+02:00"] {
        assert!(note.contains(part), "{note}");
    }
    let other_zone = read("2026-03-29 02:30 Asia/Tokyo", &noon(), Passed::IsKept).unwrap();
    assert_eq!(other_zone.note, None);
}

#[test]
fn a_local_time_that_daylight_saving_repeats_is_read_as_the_first_or_the_next_and_noted() {
    let (first, second) = (at("2026-10-25T02:30:00+02:00"), at("2026-10-25T02:30:00+01:00"));
    let repeated = read("2026-10-25 02:30", &noon(), Passed::IsKept).unwrap();
    assert_eq!(repeated.time, first);
    let note = repeated.note.unwrap();
    for part in ["occurs twice in Europe/Berlin", "2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00"] {
        assert!(note.contains(part), "{note}");
    }
    let between: Zoned = "2026-10-25T02:45:00+02:00[Europe/Berlin]".parse().unwrap();
    let coming = read("02:30", &between, Passed::IsTomorrow).unwrap();
    assert_eq!(coming.time, second);
    assert!(coming.note.unwrap().contains("read as 2026-10-25T02:30:00+01:00"));
}

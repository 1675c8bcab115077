//! The names that a rotation gives: `app.log` becomes `app.log.1`, `app.log.old` or `app.log-20261123`, and may then be
//! compressed. svlogd, multilog and s6-log rename `current` to a label such as `@4000000067e0a1b2c3d4e5f6.s`.
//!
//! [`is_rotation`] is strict, because a file with such a name is read as history of the other although the rules of the
//! root may not allow it by itself: `node10` is no rotation of `node1`, and `access-20` is no rotation of `access`. [`bases`] is
//! generous, because it only serves to deny: it also finds marks before the extension and at the front.
//!
//! Names are bytes, since a link may lead to one that is not UTF-8.

use std::{collections::BTreeSet, ops::RangeInclusive};

/// The endings of compressed files.
const COMPRESSED: [&[u8]; 6] = [b".gz", b".zst", b".xz", b".bz2", b".lz4", b".Z"];

/// The years of a date: wide enough for any log, and no number that a program would count to.
const YEARS: RangeInclusive<u32> = 1970..=2199;

/// Seconds since 1970 as logrotate's `%s` writes them, from 2001 to 2065, and the same in milliseconds.
const UNIX_SECONDS: RangeInclusive<u64> = 1_000_000_000..=2_999_999_999;

/// The name of a log of which old files get a label.
pub const LABELLED: &str = "current";

/// The bytes of a label without its ending: `@`, and a TAI64N time in hexadecimal digits.
pub const LABEL_BYTES: usize = 25;

/// Whether `sibling` is `name` with one rotation mark after it, and not compressed, or a label of it.
pub fn is_rotation(name: &str, sibling: &str) -> bool {
    name == LABELLED && is_label(sibling.as_bytes())
        || sibling.strip_prefix(name).is_some_and(|suffix| is_mark(suffix.as_bytes()))
}

/// Whether a name is a label. Its ending says whether the file was finished.
pub fn is_label(name: &[u8]) -> bool {
    let Some((label, ending)) = name.split_at_checked(LABEL_BYTES) else { return false };
    let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    label.strip_prefix(b"@4").is_some_and(|digits| digits.iter().all(is_digit))
        && [&b""[..], b".s", b".u"].contains(&ending)
}

/// The same, compressed or not.
pub fn is_rotation_or_compressed(name: &str, sibling: &str) -> bool {
    is_rotation(name, without_compression(sibling).unwrap_or(sibling))
}

/// The name before it was compressed; `None` if it is not.
pub fn without_compression(name: &str) -> Option<&str> {
    COMPRESSED.iter().find_map(|ending| {
        let (plain, found) = name.split_at_checked(name.len().checked_sub(ending.len())?)?;
        (found.as_bytes() == *ending).then_some(plain)
    })
}

/// The names of which a name is a rotation, compressed or not, by the strict reading.
pub fn strict_bases(name: &str) -> impl Iterator<Item = &str> {
    let plain = without_compression(name).unwrap_or(name);
    let label = is_label(plain.as_bytes()).then_some(LABELLED);
    let bases = separators(plain.as_bytes()).filter_map(|at| plain.get(..at));
    bases.filter(|base| !base.is_empty() && is_rotation(base, plain)).chain(label)
}

/// The names that a file may have had before it was rotated, and perhaps compressed. Without its own.
pub fn bases(name: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut shorter = BTreeSet::from([name]);
    let mut waiting = vec![name];
    while let Some(name) = waiting.pop() {
        waiting.extend(without_last_mark(name).filter(|base| shorter.insert(base)));
    }
    let inner = shorter.iter().flat_map(|name| without_inner_mark(name));
    let mut bases = inner.collect::<BTreeSet<_>>();
    bases.extend(shorter.iter().any(|name| is_label(name)).then(|| LABELLED.into()));
    bases.extend(shorter.into_iter().map(<[u8]>::to_vec));
    bases.remove(name);
    bases
}

/// `app.log` of `app.log.1`, of `app.log-20261123` and of `app.log.gz`.
fn without_last_mark(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let uncompressed =
        COMPRESSED.iter().filter(|ending| ends_with(name, ending)).map(|ending| name.len() - ending.len());
    let marks = separators(name).filter(|at| name.get(*at..).is_some_and(is_mark));
    uncompressed.chain(marks).filter_map(|at| name.get(..at)).filter(|base| !base.is_empty())
}

/// `app.log` of `app.1.log`, of `app-20261123.log` and of `20261123-app.log`.
fn without_inner_mark(name: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let extension = name.iter().rposition(|byte| *byte == b'.').unwrap_or(0);
    let before_extension = separators(name)
        .filter(move |from| *from > 0 && name.get(*from..extension).is_some_and(is_mark))
        .filter_map(move |from| Some([name.get(..from)?, name.get(extension..)?].concat()));
    let in_front = separators(name).filter(|to| name.get(..*to).is_some_and(is_date));
    let in_front = in_front.filter_map(|to| Some(name.get(to + 1..)?.to_vec()));
    before_extension.chain(in_front.filter(|base| !base.is_empty()))
}

fn separators(name: &[u8]) -> impl Iterator<Item = usize> {
    name.iter().enumerate().filter(|(_, byte)| b".-_".contains(byte)).map(|(at, _)| at)
}

fn ends_with(name: &[u8], ending: &[u8]) -> bool {
    name.len()
        .checked_sub(ending.len())
        .is_some_and(|at| name.get(at..).is_some_and(|found| found.eq_ignore_ascii_case(ending)))
}

/// A number after `.`, `.old`, or a date after `.`, `-` or `_`.
fn is_mark(mark: &[u8]) -> bool {
    match mark.split_first() {
        Some((b'.', rest)) => rest.eq_ignore_ascii_case(b"old") || is_number(rest) || is_date(rest),
        Some((b'-' | b'_', rest)) => is_date(rest),
        _ => false,
    }
}

pub fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// A date with a year of four digits and at least a month or a week; a time of day and the number of a rotation within
/// that time may follow. Or a Unix time.
pub fn is_date(text: &[u8]) -> bool {
    is_unix_time(text) || is_calendar_date(text)
}

fn is_unix_time(text: &[u8]) -> bool {
    let (seconds, millis) = text.split_at(text.len().min(10));
    let seconds = if seconds.len() == 10 { number(seconds) } else { None };
    seconds.is_some_and(|seconds| UNIX_SECONDS.contains(&seconds))
        && (millis.is_empty() || millis.len() == 3 && is_number(millis))
}

fn is_calendar_date(text: &[u8]) -> bool {
    let (year, rest) = text.split_at(text.len().min(4));
    if year.len() < 4
        || !number(year).is_some_and(|year| u32::try_from(year).is_ok_and(|it| YEARS.contains(&it)))
    {
        return false;
    }
    let days = two(rest, b"-._", 1..=12).and_then(|rest| two(rest, b"-._", 1..=31));
    let weeks = two(rest, b"-._", 1..=53);
    weeks.is_some_and(is_index) || days.is_some_and(|rest| is_index(rest) || is_time(rest))
}

/// The hour, then perhaps minutes, seconds, a fraction of them, a time zone, and a number.
fn is_time(text: &[u8]) -> bool {
    let hours = two(text, b"-._T", 0..=23);
    let minutes = hours.and_then(|rest| two(rest, b"-._:", 0..=59));
    let seconds = minutes.and_then(|rest| two(rest, b"-._:", 0..=60));
    [hours, minutes, seconds].into_iter().flatten().any(|rest| is_index(rest) || is_zone(rest))
        || seconds.is_some_and(is_fraction)
}

fn is_fraction(text: &[u8]) -> bool {
    let Some((b'.' | b',', digits)) = text.split_first() else { return false };
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    let (fraction, rest) = digits.split_at(end);
    !fraction.is_empty() && (is_index(rest) || is_zone(rest))
}

fn is_zone(text: &[u8]) -> bool {
    match text.split_first() {
        Some((b'Z', rest)) => is_index(rest),
        Some((b'+' | b'-', rest)) => {
            two(rest, b"", 0..=14).and_then(|rest| two(rest, b":", 0..=59)).is_some_and(is_index)
        }
        _ => false,
    }
}

/// Nothing, or a separator and a number.
fn is_index(text: &[u8]) -> bool {
    match text.split_first() {
        None => true,
        Some((b'.' | b'-' | b'_', rest)) => is_number(rest),
        _ => false,
    }
}

/// What follows two digits within this range, before which one of these separators may stand.
fn two<'a>(text: &'a [u8], separators: &[u8], range: RangeInclusive<u64>) -> Option<&'a [u8]> {
    let text = match text.split_first() {
        Some((first, rest)) if separators.contains(first) => rest,
        _ => text,
    };
    let (digits, rest) = text.split_at_checked(2)?;
    number(digits).filter(|number| range.contains(number)).map(|_| rest)
}

/// `None` unless all of it are digits.
fn number(text: &[u8]) -> Option<u64> {
    if is_number(text) { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rotation_is_a_name_with_a_number_a_date_or_old_after_a_separator() {
        for suffix in [
            ".1",
            ".0",
            ".12",
            ".1500",
            ".old",
            "-20261123",
            ".20261123",
            "_20261123",
            "-2026112310",
            "-202611231059",
            "-20261123-1",
            "-20261123.1",
            ".2026-11-23",
            ".2026-11-23T10:00:00Z",
            "-2026-11-23T10-00-00.555",
            ".2026-11-23_10-00",
            "-20261123T100000+0100",
            "-2026-48",
            "-202611",
            "-1764478800",
            ".1764478800123",
        ] {
            assert!(is_rotation("app.log", &format!("app.log{suffix}")), "{suffix}");
        }
        for suffix in [
            "",
            "0",
            "10",
            "-1",
            "-20",
            "_7",
            "-123",
            "-2026",
            "-12345678",
            "-20261323",
            "-20261132",
            "-202611231",
            "-7234567890",
            "-1234567890123456",
            ".",
            "-",
            "..1",
            ".1.2",
            ".-1",
            ".bak",
            ".1.gz",
            "2.old",
            "~",
            ".1x",
            ".old.1",
            "-old",
            "-20261123x",
            ":1",
            "T1",
        ] {
            assert!(!is_rotation("app.log", &format!("app.log{suffix}")), "{suffix}");
        }
        for (name, other) in [
            ("node1", "node10"),
            ("task.stdout.1", "task.stdout.10"),
            ("app.log.1234", "app.log.12345"),
            ("access", "access-20"),
            ("app.log", "@4000000067e0a1b2c3d4e5f6.s"),
            ("current", "@4000000067e0a1b2c3d4e5f6.t"),
            ("current", "@4000000067E0A1B2C3D4E5F6.s"),
            ("current", "@8000000067e0a1b2c3d4e5f6.s"),
            ("current", "@4000000067e0a1b2.s"),
            ("app.log-2026112", "app.log-20261123"),
            ("app.log-20261123", "app.log-2026112310"),
        ] {
            assert!(!is_rotation(name, other), "{name} {other}");
        }
        for ending in ["", ".s", ".u"] {
            assert!(is_rotation("current", &format!("@4000000067e0a1b2c3d4e5f6{ending}")), "{ending}");
        }
    }

    #[test]
    fn a_compressed_rotation_is_one_with_the_ending_of_a_compressor() {
        for name in ["a.1", "a.12.gz", "a-20261123", "a.2026-11-23T10:00:00Z", "a.old", "a.old.gz", "a.1.zst"]
        {
            assert!(is_rotation_or_compressed("a", name), "{name}");
        }
        for name in ["a", "a.key", "a.gz", "b.1", "a.bak", "a.1.key", "a1b", "a.", "a.-", "a-1.zst", "a1.gz"]
        {
            assert!(!is_rotation_or_compressed("a", name), "{name}");
        }
    }

    #[test]
    fn the_names_before_a_rotation_are_found_wherever_its_marks_stand() {
        for name in [
            "a.key.1",
            "a.key.old",
            "a.key.OLD",
            "a.key-20261123",
            "a.key.1.gz",
            "a.key.gz",
            "a.key.old.1",
            "a.1.key",
            "a-20261123.key",
            "a-2026-11-23T10-00-00.555.key",
            "a.old.key",
            "20261123-a.key",
            "2026-11-23.a.key",
            "a.1.key.1.gz",
            "a.key.1.2.3",
            "a.key.GZ",
        ] {
            assert!(bases(name.as_bytes()).contains(&b"a.key"[..]), "{name}: {:?}", bases(name.as_bytes()));
        }
        for name in ["a.key", "a.key10", "b.key.1", "a.key-20", "xa.key.1"] {
            assert!(!bases(name.as_bytes()).contains(&b"a.key"[..]), "{name}");
        }
        assert!(bases(b"\xff.key.1").contains(&b"\xff.key"[..]));
        for name in ["@4000000067e0a1b2c3d4e5f6.s", "@4000000067e0a1b2c3d4e5f6.s.gz"] {
            assert!(bases(name.as_bytes()).contains(&b"current"[..]), "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_rotation_has_the_name_it_was_rotated_from_among_its_bases(name in "[a-z0-9._-]{1,12}", suffix in "[-._0-9oldT:Z]{0,20}") {
            let sibling = name.clone() + &suffix;
            if is_rotation_or_compressed(&name, &sibling) {
                prop_assert!(bases(sibling.as_bytes()).contains(name.as_bytes()));
            }
        }

        #[test]
        fn no_name_takes_long_or_makes_it_panic(name in proptest::collection::vec(prop_oneof![Just(b'.'), Just(b'1'), any::<u8>()], 0..255)) {
            prop_assert!(bases(&name).iter().all(|base| base.len() < name.len() && !base.is_empty()));
        }
    }
}

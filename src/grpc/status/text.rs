//! Parts of error texts: names, sizes, durations, and what the caller sent.

use std::time::Duration;

use crate::messages::topic;

/// The longest part of a request that a text repeats, in characters: a status travels in headers, percent-encoded, and
/// many clients accept at most 8 KiB of headers.
const MAX_QUOTED: usize = 200;

/// The fault of a name that has the grammar of a topic, but is not one.
pub fn name_fault(error: topic::Error, max: usize, example: &str) -> String {
    use topic::Error as E;
    let grammar = format!("it must be 1 to {max} bytes of A-Z, a-z, 0-9, `_` and `-`, joined by dots");
    match error {
        E::Empty => format!("is empty: {grammar}, as in `{example}`"),
        E::TooLong { bytes } => format!("has {bytes} bytes: {grammar}"),
        E::EmptyToken => "has an empty part: put something before, between and after the dots".into(),
        E::Character { character } => format!("contains {character:?}: {grammar}"),
        E::Wildcard { wildcard } | E::PartOfToken { wildcard } => format!("contains `{wildcard}`: {grammar}"),
        E::TailNotLast => format!("contains `>`: {grammar}"),
        E::Reserved => format!("contains `$`: {grammar}"),
    }
}

/// The fault of a countdown that is longer than the operator allows.
pub fn too_long(length: Duration, max: Duration) -> String {
    let (length, max) = show_both(length, max);
    format!("makes the countdown {length} long: this server allows at most {max} (10 years by default)")
}

/// A length and the maximum that it exceeds, in whole days if the maximum is.
pub fn show_both(length: Duration, max: Duration) -> (String, String) {
    const DAY: u128 = 24 * 60 * 60 * 1_000_000_000;
    if max.is_zero() || !max.as_nanos().is_multiple_of(DAY) {
        return (format!("{length:?}"), format!("{max:?}"));
    }
    let [length, max] = [length, max].map(|it| format!("{} days", it.as_nanos().div_ceil(DAY)));
    (length, max)
}

/// A short duration.
pub fn show(duration: Duration) -> String {
    if duration.subsec_nanos().is_multiple_of(1_000_000) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{duration:?}")
    }
}

/// A size in the largest unit that divides it.
pub fn size(bytes: usize) -> String {
    match bytes {
        bytes if bytes >= 1024 * 1024 && bytes.is_multiple_of(1024 * 1024) => {
            format!("{} MiB", bytes / (1024 * 1024))
        }
        bytes if bytes >= 1024 && bytes.is_multiple_of(1024) => format!("{} KiB", bytes / 1024),
        bytes => format!("{bytes} bytes"),
    }
}

/// A text of the caller in backticks; only the beginning of a long one.
pub fn quoted(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED) {
        None => format!("`{text}`"),
        Some((end, _)) => format!("`{}…`", text.get(..end).unwrap_or_default()),
    }
}

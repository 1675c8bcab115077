//! How a rotation names the files of a log: which part of the name is its mark, and which order the marks give.
//!
//! A scheme is only read off a name that is proven to be a file of the log, because another log may have a similar name:
//! then other names of that scheme are files of the log, too.

use super::rotated_name::{LABEL_BYTES, LABELLED, is_date, is_label, is_number};

/// What all labels begin with. No other scheme has a mark after it.
const LABEL: &str = "@";

/// The part of a rotated name that all files of a log share.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scheme {
    before: String,
    after: String,
    kind: Kind,
}

/// What a mark is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A number that each rotation changes, upward or downward.
    Number,
    /// A date or a Unix time.
    Date,
}

/// The mark of a name, which orders the names of a scheme.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Mark {
    Number(u64),
    /// The digits up to seconds, and the number of the rotation within that time.
    Date(String, u64),
}

impl Scheme {
    /// How `sibling` was rotated from `name`, and its mark: at the end of it, before its extension, or in front.
    pub fn of_rotation(name: &str, sibling: &str) -> Option<(Self, Mark)> {
        if name == LABELLED && is_label(sibling.as_bytes()) {
            let scheme = Self { before: LABEL.into(), after: String::new(), kind: Kind::Date };
            return scheme.mark(sibling).map(|mark| (scheme, mark));
        }
        let rotations = Self::all(sibling).filter(|(scheme, _)| scheme.is_of(name));
        // A mark at the end is what a rotation adds to a name that has others already.
        rotations.max_by_key(|(scheme, _)| (scheme.after.is_empty(), scheme.before.len()))
    }

    /// The same, where it is likely. A number is none if the name has numbers itself: then it may be that of another log.
    pub fn of_likely_rotation(name: &str, sibling: &str) -> Option<Self> {
        let has_digit = |name: &str| name.bytes().any(|byte| byte.is_ascii_digit());
        let may_be = sibling.len() > name.len() && has_digit(sibling);
        let (scheme, _) = may_be.then(|| Self::of_rotation(name, sibling)).flatten()?;
        (scheme.kind == Kind::Date || !has_digit(name)).then_some(scheme)
    }

    /// How `sibling` may have been made of `name` by a number or a date and other text, in any order and case: `3.app.log` and
    /// `app.log.3.save` of `app.log`.
    pub fn around(name: &str, sibling: &str) -> Vec<Self> {
        let has = |text: &str| text.to_ascii_lowercase().contains(&name.to_ascii_lowercase());
        let all = Self::all(sibling).map(|(scheme, _)| scheme);
        all.filter(|scheme| has(&scheme.before) || has(&scheme.after)).collect()
    }

    /// How both names were made, and the mark of the first.
    pub fn shared(name: &str, other: &str) -> Option<(Self, Mark)> {
        Self::all(name).find(|(scheme, _)| scheme.mark(other).is_some())
    }

    /// All readings of a name.
    fn all(name: &str) -> impl Iterator<Item = (Self, Mark)> {
        let is_separator = |byte: &u8| b".-_/".contains(byte);
        let bytes = name.as_bytes();
        let starts = (0..bytes.len()).filter(move |at| {
            let last = at.checked_sub(1).and_then(|last| bytes.get(last));
            last.is_none_or(is_separator) && bytes.get(*at).is_some_and(u8::is_ascii_digit)
        });
        starts.flat_map(move |start| {
            let ends = (start + 1..=bytes.len()).rev();
            let ends = ends.filter(move |end| bytes.get(*end).is_none_or(is_separator));
            // The longest reading of a date is the right one.
            let readings = ends.filter_map(move |end| {
                let (kind, mark) = parse(name.get(start..end)?)?;
                let scheme = Self { before: name.get(..start)?.into(), after: name.get(end..)?.into(), kind };
                Some((scheme, mark))
            });
            readings.take(1)
        })
    }

    /// The mark of a name of this scheme.
    pub fn mark(&self, name: &str) -> Option<Mark> {
        if self.before == LABEL {
            let label = name.get(..LABEL_BYTES).filter(|_| is_label(name.as_bytes()))?;
            return Some(Mark::Date(label.into(), 0));
        }
        let text = name.strip_prefix(self.before.as_str())?.strip_suffix(self.after.as_str())?;
        parse(text).filter(|(kind, _)| *kind == self.kind).map(|(_, mark)| mark)
    }

    /// Whether both have their marks between the same texts.
    pub fn is_around_same(&self, other: &Self) -> bool {
        (&self.before, &self.after) == (&other.before, &other.after)
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether names of this scheme are made of this one by a mark and the separator beside it.
    fn is_of(&self, name: &str) -> bool {
        let Self { before, after, kind } = self;
        let is_separator = |byte: char| ".-_".contains(byte);
        if before.is_empty() {
            // In front: only dates, and not an index of something else.
            return *kind == Kind::Date && after.strip_prefix(is_separator) == Some(name);
        }
        let Some(stem) = before.strip_suffix(is_separator) else { return false };
        let is_marked = *kind == Kind::Date || before.ends_with('.') || !after.is_empty();
        is_marked && name.strip_prefix(stem) == Some(after.as_str())
    }
}

fn parse(text: &str) -> Option<(Kind, Mark)> {
    if is_date(text.as_bytes()) {
        return Some((Kind::Date, date(text)));
    }
    let number = if is_number(text.as_bytes()) { text.parse().ok() } else { None };
    number.map(|number| (Kind::Number, Mark::Number(number)))
}

/// The digits of a date and a time of day, filled up to seconds. A number after them counts within that time.
fn date(text: &str) -> Mark {
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let all = digits(text);
    // A last part of another length than two digits, or after a whole date, is an index.
    let (main, index) = match text.rfind(['.', '-', '_']) {
        Some(at) => {
            let (head, tail) = (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default());
            let is_index = digits(head).len() >= 8 && is_number(tail.as_bytes()) && tail.len() != 2;
            if is_index { (digits(head), tail.parse().unwrap_or(0)) } else { (all, 0) }
        }
        None => (all, 0),
    };
    Mark::Date(format!("{main:0<14}"), index)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_has_its_mark_at_the_end_before_the_extension_or_in_front() {
        for (name, rotated, next) in [
            ("app.log", "app.log.1", "app.log.2"),
            ("app.log", "app.log-20261122", "app.log-20261123"),
            ("app.log", "app-20261122.log", "app-20261123.log"),
            ("app.log", "app.1.log", "app.2.log"),
            ("app.log", "app-1.log", "app-2.log"),
            ("app.log", "20261122-app.log", "20261123-app.log"),
            ("app.log", "app.log.2026-11-22T10:00:00Z", "app.log.2026-11-22T11:00:00Z"),
            ("app.log", "app.log-20261122-1", "app.log-20261122-2"),
            ("app.log", "app.log-20261122", "app.log-20261122-1"),
            ("app.log", "app.log-1764478800", "app.log-1764478900"),
            ("task.1", "task.1.1", "task.1.2"),
            ("current", "@4000000067e0a1b2c3d4e5f6.s", "@4000000067e0a1b2d0000000.u"),
        ] {
            let (scheme, mark) = Scheme::of_rotation(name, rotated).unwrap();
            let after = scheme.mark(next).unwrap_or_else(|| panic!("{rotated} {next}"));
            assert!(mark < after, "{mark:?} {after:?}");
            assert_eq!(scheme.mark(rotated), Some(mark));
            assert_eq!(scheme.mark(name), None);
        }
        for (name, other) in [
            ("app.log", "other.log.1"),
            ("app.log", "app.log"),
            ("app.log", "1-app.log"),
            ("access", "access-20"),
            ("node1", "node10"),
            ("app.log", "app.log.1.gz"),
            ("app.log", "@4000000067e0a1b2c3d4e5f6.s"),
        ] {
            assert_eq!(Scheme::of_rotation(name, other), None, "{name} {other}");
        }
        // The other log's, not a mark before the extension.
        let (scheme, _) = Scheme::of_rotation("task.stdout.1", "task.stdout.1.1").unwrap();
        assert_eq!(scheme.mark("task.stdout.2.1"), None);
        assert_eq!(scheme.mark("task.stdout.10"), None);
    }

    #[test]
    fn two_names_share_a_scheme_where_only_a_mark_differs() {
        let (scheme, mark) = Scheme::shared("app-2026-11-22.log", "app-2026-11-24.log").unwrap();
        assert!(mark < scheme.mark("app-2026-11-23.log").unwrap());
        let (scheme, mark) = Scheme::shared("0.log", "1.log").unwrap();
        assert!(mark < scheme.mark("12.log").unwrap());
        assert_eq!(scheme.mark("0.log.20261123-101010"), None);
        let (scheme, mark) = Scheme::shared("2026-11-22/app.log", "2026-11-24/app.log").unwrap();
        assert!(mark < scheme.mark("2026-11-23/app.log").unwrap());
        assert_eq!(Scheme::shared("node1", "node2"), None);
        assert_eq!(Scheme::shared("a-1.log", "b-1.log"), None);
    }
}

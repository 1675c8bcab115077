//! What is kept for how long: rules by topic pattern.
//!
//! A rule is written `PATTERN=LIMIT …`, with spaces between its limits:
//!
//! | limit | what it keeps |
//! |---|---|
//! | `age:7d` | what is not older; `ms`, `s`, `m`, `h`, `d` |
//! | `bytes:1GiB` | the newest messages, so many bytes of them; `B`, `KiB`, `MiB`, `GiB`, `TiB`, or a number of bytes |
//! | `count:1000` | the newest messages, so many of them |
//! | `total:20GiB` | as `bytes`, but of all topics of the rule together |
//! | `last` | the last message; stands alone |
//!
//! Every limit holds for each topic by itself, but `total`, which the topics of the rule share. A message goes as soon
//! as one limit says so. The first rule whose pattern matches a topic holds, and the ones after it do not: so
//! `orders.eu=age:30d` comes before `orders.>=age:7d`. A topic that no rule matches is kept for ever, and so are the
//! server's own, whatever the rules say.

use std::{fmt, str::FromStr, time::Duration};

use super::topic::{self, Pattern};

/// The longest age: a hundred years. Far longer ones overflow the clock.
const MAX_AGE: Duration = Duration::from_secs(36_525 * DAY);

/// The seconds of a day.
const DAY: u64 = 24 * 60 * 60;

/// The units of an age, in milliseconds: the largest first.
const AGES: [(&str, u64); 5] = [("d", DAY * 1000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// The units of a size, in bytes: the largest first.
const SIZES: [(&str, u64); 6] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1), ("", 1)];

/// How much of the topics that a pattern matches is kept. A message is removed as soon as any limit says so.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// The topics it is for.
    pub pattern: Pattern,
    /// Messages that are older are removed.
    pub age: Option<Duration>,
    /// The most bytes a topic.
    pub bytes: Option<u64>,
    /// The most messages a topic.
    pub count: Option<u64>,
    /// The most bytes of all topics of the rule together.
    pub total: Option<u64>,
    /// Only the last message of a topic is kept; what it supersedes is no gap.
    pub is_last_only: bool,
}

/// Why a text is no rule.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// The pattern.
    #[error("the pattern {0}")]
    Pattern(#[from] topic::Error),
    /// Something else.
    #[error("{0}")]
    Syntax(String),
}

impl Rule {
    /// The rule that holds for a topic: the first one whose pattern matches it.
    pub fn find<'a>(rules: &'a [Self], topic: &str) -> Option<&'a Self> {
        rules.iter().find(|rule| rule.pattern.matches(topic))
    }

    /// Whether there is any limit but [`Rule::is_last_only`].
    fn has_limit(&self) -> bool {
        self.age.is_some() || self.bytes.is_some() || self.count.is_some() || self.total.is_some()
    }

    /// Adds a limit as it is written.
    fn add(&mut self, limit: &str) -> Result<(), Error> {
        let Self { age, bytes, count, total, is_last_only, .. } = self;
        if limit == "last" {
            let is_there = std::mem::replace(is_last_only, true);
            return if is_there { Err(twice("last")) } else { Ok(()) };
        }
        match limit.split_once(':') {
            Some(("age", value)) => set(age, "age", read_age(value)?),
            Some(("bytes", value)) => set(bytes, "bytes", read_size("bytes", value)?),
            Some(("count", value)) => set(count, "count", read_count(value)?),
            Some(("total", value)) => set(total, "total", read_size("total", value)?),
            _ => Err(syntax(format!(
                "`{limit}` is no limit: age:7d, bytes:1GiB, count:1000, total:20GiB and last are possible, with \
                 spaces between"
            ))),
        }
    }
}

impl FromStr for Rule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let no_rule = || {
            syntax(format!(
                "`{text}` is not PATTERN=LIMITS, as in orders.>=age:7d or state.>=last; spaces stand \
                 between limits, commas between rules"
            ))
        };
        let (pattern, limits) = text.split_once('=').ok_or_else(no_rule)?;
        let pattern = Pattern::parse(pattern.trim())?;
        if pattern.as_str().starts_with('$') {
            return Err(topic::Error::Reserved.into());
        }
        let mut rule =
            Self { pattern, age: None, bytes: None, count: None, total: None, is_last_only: false };
        for limit in limits.split_whitespace() {
            rule.add(limit)?;
        }
        match (rule.has_limit(), rule.is_last_only) {
            (false, false) => Err(syntax(format!("`{text}` has no limit: write one at least, as in age:7d"))),
            (true, true) => Err(syntax(format!(
                "`{text}` has another limit beside last, which stands alone: leave one of them out"
            ))),
            _ => Ok(rule),
        }
    }
}

/// As it is written: what is read back from it is the same rule, if its age is of whole milliseconds.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pattern, age, bytes, count, total, is_last_only } = self;
        let milliseconds = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let limits = [
            age.map(|age| format!("age:{}", in_units(milliseconds(age), &AGES))),
            bytes.map(|bytes| format!("bytes:{}", in_units(bytes, &SIZES))),
            count.map(|count| format!("count:{count}")),
            total.map(|total| format!("total:{}", in_units(total, &SIZES))),
            is_last_only.then(|| "last".into()),
        ];
        let limits = limits.into_iter().flatten().collect::<Vec<_>>();
        write!(f, "{}={}", pattern.as_str(), limits.join(" "))
    }
}

fn syntax(text: impl Into<String>) -> Error {
    Error::Syntax(text.into())
}

fn twice(name: &str) -> Error {
    syntax(format!("{name} is there twice: leave one of them out"))
}

fn set<T>(limit: &mut Option<T>, name: &str, value: T) -> Result<(), Error> {
    match limit.replace(value) {
        Some(_) => Err(twice(name)),
        None => Ok(()),
    }
}

/// A number and its unit, which is not 0. `possible` tells what can be written.
fn read(name: &str, value: &str, units: &[(&str, u64)], possible: &str) -> Result<u64, Error> {
    let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (number, unit) = value.split_at(end);
    let unit = units.iter().find(|(name, _)| *name == unit).filter(|_| !number.is_empty());
    let Some((_, size)) = unit else {
        return Err(syntax(format!("{name}:{value} cannot be read: write {possible}")));
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(*size)) {
        Some(0) => Err(syntax(format!(
            "{name} is 0, which keeps nothing: make it more, or leave it out to keep all"
        ))),
        Some(number) => Ok(number),
        None => Err(syntax(format!("{name}:{value} is more than can be counted: leave it out to keep all"))),
    }
}

fn read_age(value: &str) -> Result<Duration, Error> {
    let milliseconds = read("age", value, &AGES, "500ms, 30s, 15m, 12h or 7d, in whole numbers")?;
    let age = Duration::from_millis(milliseconds);
    if age > MAX_AGE {
        return Err(syntax(format!("age:{value} is too long: 36525d, a hundred years, at most")));
    }
    Ok(age)
}

fn read_size(name: &str, value: &str) -> Result<u64, Error> {
    read(name, value, &SIZES, "a number of bytes, or one with B, KiB, MiB, GiB or TiB, as in 20GiB")
}

fn read_count(value: &str) -> Result<u64, Error> {
    read("count", value, &[("", 1)], "a number of messages, as in count:1000")
}

/// In the largest unit that leaves a whole number.
fn in_units(number: u64, units: &[(&str, u64)]) -> String {
    let unit = units.iter().find(|(_, size)| number.is_multiple_of(*size));
    unit.map_or_else(|| number.to_string(), |(name, size)| format!("{}{name}", number / size))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        text.parse().unwrap()
    }

    fn fault(text: &str) -> String {
        text.parse::<Rule>().unwrap_err().to_string()
    }

    #[test]
    fn a_rule_is_read_as_it_is_written() {
        let none = |pattern: &str| Rule {
            pattern: Pattern::parse(pattern).unwrap(),
            age: None,
            bytes: None,
            count: None,
            total: None,
            is_last_only: false,
        };
        let days = |days| Some(Duration::from_secs(days * DAY));
        for (text, expected) in [
            ("a=age:7d", Rule { age: days(7), ..none("a") }),
            ("a=age:500ms", Rule { age: Some(Duration::from_millis(500)), ..none("a") }),
            ("a=age:90s", Rule { age: Some(Duration::from_secs(90)), ..none("a") }),
            ("a=age:15m", Rule { age: Some(Duration::from_secs(900)), ..none("a") }),
            ("a=age:12h", Rule { age: Some(Duration::from_secs(43_200)), ..none("a") }),
            ("a=age:36525d", Rule { age: days(36_525), ..none("a") }),
            ("a.>=bytes:1GiB", Rule { bytes: Some(1 << 30), ..none("a.>") }),
            ("*.b=bytes:7", Rule { bytes: Some(7), ..none("*.b") }),
            ("a=bytes:7B", Rule { bytes: Some(7), ..none("a") }),
            ("a=bytes:3KiB", Rule { bytes: Some(3 << 10), ..none("a") }),
            ("a=total:2TiB", Rule { total: Some(2 << 40), ..none("a") }),
            ("a=count:1", Rule { count: Some(1), ..none("a") }),
            (">=last", Rule { is_last_only: true, ..none(">") }),
            (
                " a =  total:5MiB count:9  age:1d bytes:1KiB ",
                Rule {
                    age: days(1),
                    bytes: Some(1 << 10),
                    count: Some(9),
                    total: Some(5 << 20),
                    ..none("a")
                },
            ),
        ] {
            assert_eq!(rule(text), expected, "{text}");
        }
    }

    #[test]
    fn a_rule_is_shown_as_it_is_written() {
        for (text, shown) in [
            ("a.>=last", "a.>=last"),
            ("a=count:1000 age:168h", "a=age:7d count:1000"),
            ("a=age:90s", "a=age:90s"),
            ("a=age:61001ms total:1048577", "a=age:61001ms total:1048577B"),
            ("a=bytes:1024MiB", "a=bytes:1GiB"),
        ] {
            assert_eq!(rule(text).to_string(), shown);
            assert_eq!(rule(shown), rule(text));
        }
    }

    #[test]
    fn what_is_no_rule_is_told_with_what_would_be_one() {
        for (text, wrong, remedy) in [
            ("", "`` is not", "PATTERN=LIMITS"),
            ("orders.>", "`orders.>` is not", "orders.>=age:7d"),
            ("=age:7d", "the pattern is empty", "name a topic"),
            ("a..b=age:7d", "empty token", "before, between and after"),
            ("a b=age:7d", "' '", "A-Z"),
            ("$countdown.>=age:7d", "starts with `$`", "the server's own"),
            ("a=", "`a=` has no limit", "age:7d"),
            ("a=   ", "no limit", "age:7d"),
            ("a=7d", "`7d` is no limit", "age:7d, bytes:1GiB, count:1000, total:20GiB and last"),
            ("a=days:7", "`days:7` is no limit", "age:7d"),
            ("a=last:1", "`last:1` is no limit", "last"),
            ("a=age:7d,count:1", "age:7d,count:1 cannot be read", "12h"),
            ("a=bytes:1 GiB", "`GiB` is no limit", "bytes:1GiB"),
            ("a=age:", "age: cannot be read", "7d"),
            ("a=age:7", "age:7 cannot be read", "7d"),
            ("a=age:d", "age:d cannot be read", "7d"),
            ("a=age:-7d", "age:-7d cannot be read", "7d"),
            ("a=age:1.5h", "age:1.5h cannot be read", "whole numbers"),
            ("a=age:1w", "age:1w cannot be read", "7d"),
            ("a=age:36526d", "too long", "36525d"),
            ("a=age:18446744073709551615d", "more than can be counted", "leave it out"),
            ("a=bytes:1GB", "bytes:1GB cannot be read", "GiB"),
            ("a=total:some", "total:some cannot be read", "20GiB"),
            ("a=total:16777216TiB", "more than can be counted", "leave it out"),
            ("a=bytes:99999999999999999999", "more than can be counted", "leave it out"),
            ("a=count:1KiB", "count:1KiB cannot be read", "count:1000"),
            ("a=age:0d", "age is 0", "leave it out"),
            ("a=bytes:0", "bytes is 0", "leave it out"),
            ("a=count:0", "count is 0", "leave it out"),
            ("a=total:0GiB", "total is 0", "leave it out"),
            ("a=age:1d age:2d", "age is there twice", "leave one of them out"),
            ("a=count:1 bytes:1 count:1", "count is there twice", "leave one of them out"),
            ("a=last last", "last is there twice", "leave one of them out"),
            ("a=last age:7d", "another limit beside last", "leave one of them out"),
            ("a=count:1 last", "another limit beside last", "leave one of them out"),
        ] {
            let fault = fault(text);
            assert!(fault.contains(wrong) && fault.contains(remedy), "{text}: {fault}");
            assert!(!fault.ends_with('.'), "{fault}");
        }
    }

    #[test]
    fn the_first_rule_that_matches_holds() {
        let rules = ["a.b=count:1", "a.>=count:2", "a.c=count:3", ">=count:4"].map(rule);
        for (topic, count) in
            [("a.b", Some(1)), ("a.c", Some(2)), ("a", Some(4)), ("b", Some(4)), ("$countdown.x", None)]
        {
            assert_eq!(Rule::find(&rules, topic).and_then(|rule| rule.count), count, "{topic}");
        }
        assert_eq!(Rule::find(&[], "a"), None);
    }
}

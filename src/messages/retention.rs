//! Retention: which messages are kept, by rules for topic patterns.
//!
//! A rule is written `PATTERN=LIMIT …`, with spaces between its limits:
//!
//! | limit | keeps |
//! |---|---|
//! | `age:7d` | messages that are not older, in the grammar of [`units`](crate::units) |
//! | `bytes:1GiB` | the newest messages, up to this many bytes, in the grammar of [`units`](crate::units) |
//! | `count:1000` | the newest messages, up to this many |
//! | `total:20GiB` | as `bytes`, but of all topics of the rule together |
//! | `last` | the last message; no other limit can be beside it |
//!
//! A limit applies to each topic by itself, except `total`, which the topics of the rule share. A message is removed as soon as
//! one limit says so. Only the first rule whose pattern matches a topic applies to it: so `orders.eu=age:30d` comes before
//! `orders.>=age:7d`. A topic that no rule matches keeps all messages, and so do the server's own topics.

use std::{fmt, str::FromStr, time::Duration};

use super::topic::{self, Pattern};
use crate::units;

/// The messages to keep of the topics that a pattern matches. A message is removed as soon as any limit says so.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// The topics that the rule applies to.
    pub pattern: Pattern,
    /// Remove messages that are older.
    pub age: Option<Duration>,
    /// The most bytes of a topic.
    pub bytes: Option<u64>,
    /// The most messages of a topic.
    pub count: Option<u64>,
    /// The most bytes of all topics of the rule together.
    pub total: Option<u64>,
    /// Keep only the last message of a topic. The superseded ones are not a gap.
    pub is_last_only: bool,
}

/// Why a text is not a rule.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// The pattern is not valid.
    #[error("the pattern {0}")]
    Pattern(#[from] topic::Error),
    /// The limits are not valid.
    #[error("{0}")]
    Syntax(String),
}

impl Rule {
    /// Whether the rule has a limit other than [`Rule::is_last_only`].
    fn has_limit(&self) -> bool {
        self.age.is_some() || self.bytes.is_some() || self.count.is_some() || self.total.is_some()
    }

    /// Adds a limit.
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
                "`{limit}` is not a limit: write age:7d, bytes:1GiB, count:1000, total:20GiB or last, with spaces \
                 between them"
            ))),
        }
    }
}

impl FromStr for Rule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let no_rule = || {
            syntax(format!(
                "`{text}` is not PATTERN=LIMITS, as in orders.>=age:7d or state.>=last; write spaces \
                 between limits and commas between rules"
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
            (false, false) => Err(syntax(format!("`{text}` has no limit: write at least one, as in age:7d"))),
            (true, true) => Err(syntax(format!(
                "`{text}` has another limit beside last, which excludes all others: leave one of them out"
            ))),
            _ => Ok(rule),
        }
    }
}

/// Writes the rule so that reading it back gives the same rule.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pattern, age, bytes, count, total, is_last_only } = self;
        let limits = [
            age.map(|age| format!("age:{}", units::duration_text(age))),
            bytes.map(|bytes| format!("bytes:{}", units::size_text(bytes))),
            count.map(|count| format!("count:{count}")),
            total.map(|total| format!("total:{}", units::size_text(total))),
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
    syntax(format!("{name} is given twice: leave one of them out"))
}

fn set<T>(limit: &mut Option<T>, name: &str, value: T) -> Result<(), Error> {
    match limit.replace(value) {
        Some(_) => Err(twice(name)),
        None => Ok(()),
    }
}

/// Limits of zero would keep nothing.
fn not_zero<T: PartialEq + Default>(name: &str, value: T) -> Result<T, Error> {
    if value == T::default() {
        let text = format!("{name} is 0, which keeps nothing: make it more, or leave it out to keep all");
        return Err(syntax(text));
    }
    Ok(value)
}

fn read_age(value: &str) -> Result<Duration, Error> {
    not_zero("age", units::parse_duration(value).map_err(|error| syntax(format!("age: {error}")))?)
}

fn read_size(name: &str, value: &str) -> Result<u64, Error> {
    not_zero(name, units::parse_size(value).map_err(|error| syntax(format!("{name}: {error}")))?)
}

fn read_count(value: &str) -> Result<u64, Error> {
    let fault = |error: std::num::ParseIntError| {
        syntax(if *error.kind() == std::num::IntErrorKind::PosOverflow {
            format!("count: `{value}` is out of range: leave it out to keep all")
        } else {
            format!("count: `{value}` is not a number of messages: write one, as in count:1000")
        })
    };
    not_zero("count", value.parse::<u64>().map_err(fault)?)
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
    fn a_rule_is_parsed() {
        let none = |pattern: &str| Rule {
            pattern: Pattern::parse(pattern).unwrap(),
            age: None,
            bytes: None,
            count: None,
            total: None,
            is_last_only: false,
        };
        let days = |days: u64| Some(Duration::from_secs(days * 86_400));
        for (text, expected) in [
            ("a=age:7d", Rule { age: days(7), ..none("a") }),
            ("a=age:500ms", Rule { age: Some(Duration::from_millis(500)), ..none("a") }),
            ("a=age:90s", Rule { age: Some(Duration::from_secs(90)), ..none("a") }),
            ("a=age:15m", Rule { age: Some(Duration::from_secs(900)), ..none("a") }),
            ("a=age:12h", Rule { age: Some(Duration::from_secs(43_200)), ..none("a") }),
            ("a=age:36525d", Rule { age: days(36_525), ..none("a") }),
            ("a=age:1.5h", Rule { age: Some(Duration::from_secs(5400)), ..none("a") }),
            ("a=age:1d12h", Rule { age: Some(Duration::from_secs(129_600)), ..none("a") }),
            ("a=age:1w", Rule { age: days(7), ..none("a") }),
            ("a=bytes:1GB", Rule { bytes: Some(1_000_000_000), ..none("a") }),
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
    fn a_rule_is_printed_so_that_it_can_be_parsed() {
        for (text, shown) in [
            ("a.>=last", "a.>=last"),
            ("a=count:1000 age:168h", "a=age:7d count:1000"),
            ("a=age:90s", "a=age:1m30s"),
            ("a=age:61001ms total:1048577", "a=age:1m1s1ms total:1048577B"),
            ("a=bytes:1024MiB", "a=bytes:1GiB"),
        ] {
            assert_eq!(rule(text).to_string(), shown);
            assert_eq!(rule(shown), rule(text));
        }
    }

    #[test]
    fn a_text_that_is_not_a_rule_is_refused_with_an_example() {
        for (text, wrong, remedy) in [
            ("", "`` is not", "PATTERN=LIMITS"),
            ("orders.>", "`orders.>` is not", "orders.>=age:7d"),
            ("=age:7d", "the pattern is empty", "name a topic"),
            ("a..b=age:7d", "empty token", "before, between and after"),
            ("a b=age:7d", "' '", "A-Z"),
            ("$countdown.>=age:7d", "starts with `$`", "the server's own"),
            ("a=", "`a=` has no limit", "age:7d"),
            ("a=   ", "no limit", "age:7d"),
            ("a=7d", "`7d` is not a limit", "age:7d, bytes:1GiB, count:1000, total:20GiB or last"),
            ("a=days:7", "`days:7` is not a limit", "age:7d"),
            ("a=last:1", "`last:1` is not a limit", "last"),
            ("a=age:7d,count:1", "age: `7d,count:1` is not a duration", "7d"),
            ("a=bytes:1 GiB", "`GiB` is not a limit", "bytes:1GiB"),
            ("a=age:", "age: `` is not a duration", "7d"),
            ("a=age:7", "age: `7` has no unit", "7s"),
            ("a=age:d", "age: `d` is not a duration", "7d"),
            ("a=age:-7d", "age: `-7d` is negative", "zero or more"),
            ("a=age:1mo", "no fixed length", "30d"),
            ("a=age:36526d", "out of range", "36525d"),
            ("a=age:18446744073709551615d", "out of range", "36525d"),
            ("a=bytes:1G", "bytes: `1G` is not a size", "GiB"),
            ("a=total:some", "total: `some` is not a size", "GiB"),
            ("a=total:16777216TiB", "total: `16777216TiB` is out of range", "16777215TiB"),
            ("a=bytes:99999999999999999999", "out of range", "16777215TiB"),
            ("a=count:1KiB", "count: `1KiB` is not a number", "count:1000"),
            ("a=count:99999999999999999999", "out of range", "leave it out"),
            ("a=age:0d", "age is 0", "leave it out"),
            ("a=bytes:0", "bytes is 0", "leave it out"),
            ("a=count:0", "count is 0", "leave it out"),
            ("a=total:0GiB", "total is 0", "leave it out"),
            ("a=age:1d age:2d", "age is given twice", "leave one of them out"),
            ("a=count:1 bytes:1 count:1", "count is given twice", "leave one of them out"),
            ("a=last last", "last is given twice", "leave one of them out"),
            ("a=last age:7d", "another limit beside last", "leave one of them out"),
            ("a=count:1 last", "another limit beside last", "leave one of them out"),
        ] {
            let fault = fault(text);
            assert!(fault.contains(wrong) && fault.contains(remedy), "{text}: {fault}");
            assert!(!fault.ends_with('.'), "{fault}");
        }
    }
}

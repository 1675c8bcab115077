//! What `perennial countdown` counts: `10`, `5m`, `18:00`, `tomorrow 9am`.
//!
//! A whole number is the number to start from. A duration becomes the number of intervals in it, so that the countdown
//! lasts as long as it says. Anything else is a moment, and must be to come. What could be read in two ways is refused.

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
};
use jiff::{SignedDuration, Timestamp};
use perennial::{proto::countdown_request::Target, units};

use crate::time::{self, Moment};

/// The options that say where a countdown begins in another way.
const OTHERS: [&str; 3] = ["until", "name", "cursor"];

/// The first word, and the further ones of `tomorrow 9am`, which need no quotes.
const WORD: &str = "count";
const FURTHER: &str = "further";
const VALUE_NAME: &str = "N|DURATION|TIME";

const DEFAULT_INTERVAL: SignedDuration = SignedDuration::from_secs(1);
/// A divisor below this is no help as an interval.
const MIN_SUGGESTED: SignedDuration = SignedDuration::from_millis(1);

/// The subject of the countdown, if the command line gives it in words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Count(Option<Kind>);

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// The number to start from.
    From(i32),
    Until(Moment),
}

/// The other options that the meaning of a count depends on.
#[derive(Clone, Copy, Debug, Default)]
struct Options {
    interval: Option<SignedDuration>,
    has_to_or_step: bool,
    has_wait_or_align: bool,
}

impl Count {
    pub fn target(&self) -> Option<Target> {
        self.0.as_ref().map(|kind| match kind {
            Kind::From(number) => Target::Start(*number),
            Kind::Until(moment) => Target::UntilTime(time::timestamp_to_proto(moment.time)),
        })
    }

    /// The moment that it counts towards.
    pub fn until(&self) -> Option<&Moment> {
        match &self.0 {
            Some(Kind::Until(moment)) => Some(moment),
            Some(Kind::From(_)) | None => None,
        }
    }
}

impl Kind {
    fn read(text: &str, options: Options) -> Result<Self, String> {
        let number = text.strip_prefix('-').unwrap_or(text);
        if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Self::From).map_err(|_| {
                format!(
                    "{text} is out of range: a number is at most {}; @{text} is a time in Unix seconds",
                    i32::MAX
                )
            });
        }
        // A clock's 18:00:00 and `+5m` are moments, though jiff can read them as durations.
        if !text.contains(':') && !text.starts_with('+') {
            match time::duration(text) {
                Ok(duration) => return intervals(text, duration, options).map(Self::From),
                Err(units::Error::NotADuration(_)) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        moment(text, options).map(Self::Until)
    }
}

/// How many intervals a duration has.
fn intervals(text: &str, duration: SignedDuration, options: Options) -> Result<i32, String> {
    let interval = options.interval.unwrap_or(DEFAULT_INTERVAL);
    if options.has_to_or_step {
        return Err(format!(
            "a duration counts down to 0 in steps of 1; with --to or --step write a number instead of {text}"
        ));
    }
    let (all, one) = (duration.as_nanos(), interval.as_nanos());
    if one == 0 {
        return Err("--interval must be above 0s".into());
    }
    let shown = |duration: SignedDuration| format!("{duration:#}");
    if all % one != 0 {
        let divisor =
            i64::try_from(divisor(all, one)).map_or(SignedDuration::ZERO, SignedDuration::from_nanos);
        let remedy = if divisor >= MIN_SUGGESTED {
            format!("add --interval {}", shown(divisor))
        } else {
            "round it".into()
        };
        return Err(format!("{text} is not a whole number of intervals of {}: {remedy}", shown(interval)));
    }
    i32::try_from(all / one).map_err(|_| {
        format!("{text} has more than {} intervals of {}: add a longer --interval", i32::MAX, shown(interval))
    })
}

/// The greatest common divisor.
fn divisor(mut a: i128, mut b: i128) -> i128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn moment(text: &str, options: Options) -> Result<Moment, String> {
    if let Some((hour, rest)) = text.split_once(':')
        && let ([_], [_, _]) = (hour.as_bytes(), rest.as_bytes())
        && hour.bytes().chain(rest.bytes()).all(|byte| byte.is_ascii_digit())
    {
        return Err(format!(
            "{text} can be a time of day or minutes and seconds: write 0{text}, {text}am or {hour}m{rest}s"
        ));
    }
    let now = Timestamp::now();
    let moment = time::coming(text).map_err(|error| {
        if error.starts_with("not a time") {
            format!(
                "{text:?} is not a number (10), a duration (5m, 1h30m) or a time (18:00, tomorrow 9am, \
                 2026-12-24T18:00); --name NAME watches a shared countdown, and `perennial countdown list` lists them"
            )
        } else {
            format!("{text}: {error}")
        }
    })?;
    if moment.time < now {
        return Err(format!("{text} is in the past: it is read as {}", moment.time));
    }
    if options.has_wait_or_align {
        return Err("--wait-first and --align go with a number or a duration, not with a time".into());
    }
    Ok(moment)
}

impl Args for Count {
    fn augment_args(command: Command) -> Command {
        let word = Arg::new(WORD)
            .value_name(VALUE_NAME)
            .allow_negative_numbers(true)
            .required_unless_present_any(OTHERS)
            .conflicts_with_all(OTHERS)
            .help("What to count: 10 numbers, 5m, or the time until 18:00")
            .long_help(
                "What to count: a number to start from (10), a duration (5m, 1h30m, 90s), which counts down its \
                 seconds or its --intervals, or a time to come, local unless it has a zone (18:00, tomorrow 9am, \
                 18:00 Europe/Berlin, 2026-12-24T18:00, @1798135200 for Unix seconds)",
            );
        let further = Arg::new(FURTHER).hide(true).num_args(0..).action(ArgAction::Append);
        command.arg(word).arg(further)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Count {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let Some(word) = matches.get_one::<String>(WORD) else { return Ok(Self(None)) };
        let further = matches.get_many::<String>(FURTHER).into_iter().flatten();
        let text = std::iter::once(word).chain(further).cloned().collect::<Vec<_>>().join(" ");
        let options = Options {
            interval: matches.get_one("interval").copied(),
            has_to_or_step: matches.contains_id("to") || matches.contains_id("step"),
            has_wait_or_align: matches.get_flag("wait_first") || matches.get_flag("align"),
        };
        let kind = Kind::read(text.trim(), options).map_err(|fault| {
            let mut error = Error::raw(ErrorKind::ValueValidation, fault);
            error.insert(ContextKind::InvalidArg, ContextValue::String(format!("[{VALUE_NAME}]")));
            error
        })?;
        Ok(Self(Some(kind)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]
    use super::*;

    fn read(text: &str) -> Result<Kind, String> {
        Kind::read(text, Options::default())
    }

    #[test]
    fn a_number_stays_a_number_and_a_duration_is_its_seconds() {
        for (text, start) in [
            ("10", 10),
            ("0", 0),
            ("-3", -3),
            ("2147483647", i32::MAX),
            ("5m", 300),
            ("1h30m", 5_400),
            ("1h 30m", 5_400),
            ("90s", 90),
            ("2 minutes", 120),
            ("0s", 0),
            ("1d", 86_400),
        ] {
            assert_eq!(read(text).unwrap(), Kind::From(start), "{text}");
        }
    }

    #[test]
    fn a_duration_lasts_as_long_as_it_says_at_any_interval() {
        let with = |interval: i64| {
            let interval = Some(SignedDuration::from_millis(interval));
            Kind::read("1m", Options { interval, ..Options::default() })
        };
        assert_eq!(with(500).unwrap(), Kind::From(120));
        assert_eq!(with(20_000).unwrap(), Kind::From(3));
        assert!(with(7_000).unwrap_err().contains("--interval 1s"));
        assert!(with(0).unwrap_err().contains("above 0s"));
    }

    #[test]
    fn anything_else_is_a_moment_to_come() {
        for text in [
            "18:00",
            "18:00:30",
            "9am",
            "tomorrow 9am",
            "18:00 Europe/Berlin",
            "2100-12-24T18:00",
            "2100-12-24",
            "@4102444800",
            "in 5m",
            "+5m",
        ] {
            match read(text) {
                Ok(Kind::Until(moment)) => assert!(moment.time >= Timestamp::now(), "{text}"),
                other => unreachable!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_ambiguous_or_impossible_count_is_refused_with_a_remedy() {
        for (text, remedy) in [
            ("5:00", "05:00, 5:00am or 5m00s"),
            ("1.5", "1.5s"),
            ("1500ms", "--interval 500ms"),
            ("1.0000001s", "round it"),
            ("99999999999", "@99999999999"),
            ("30000d", "longer --interval"),
            ("1y", "30d"),
            ("lst", "perennial countdown list"),
            ("", "5m"),
            ("25:00", "18:00"),
            ("18:00 Mars/Olympus", "Europe/Berlin"),
            ("yesterday", "in the past"),
            ("2020-01-01", "in the past"),
            ("@1732380000", "in the past"),
            ("10 lst", "5m"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(remedy), "{text}: {error}");
        }
    }

    #[test]
    fn options_that_do_not_go_with_a_duration_or_a_moment_are_refused() {
        let to = Options { has_to_or_step: true, ..Options::default() };
        assert!(Kind::read("5m", to).unwrap_err().contains("write a number instead of 5m"));
        assert!(Kind::read("300", to).is_ok() && Kind::read("18:00", to).is_ok());
        let align = Options { has_wait_or_align: true, ..Options::default() };
        assert!(Kind::read("18:00", align).unwrap_err().contains("not with a time"));
        assert!(Kind::read("5m", align).is_ok());
    }
}

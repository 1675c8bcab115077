//! Options that other tools have under another name: the error names ours.

use clap::{
    Arg,
    builder::UnknownArgumentValueParser,
    error::{ContextKind, ContextValue},
};

/// The long name, the short one if there is one, and what to write instead.
type Guess = (&'static str, Option<char>, &'static str);

const FOLLOWED: &str = "new messages are always followed: end with Ctrl-C, or with --until-caught-up after the messages that exist now";
const UNTIL_CAUGHT_UP: &str = "--until-caught-up ends after the messages that exist now";
const MESSAGES_LAST: &str = "--last N starts with the last N messages, and --limit N ends after N";
const MESSAGES_FROM: &str = "--from takes new, earliest, a sequence or a time, as in --from -1h";
const MESSAGES: [Guess; 11] = [
    ("follow", Some('f'), FOLLOWED),
    ("no-follow", None, UNTIL_CAUGHT_UP),
    ("lines", Some('n'), MESSAGES_LAST),
    ("tail", None, MESSAGES_LAST),
    ("count", Some('c'), MESSAGES_LAST),
    ("earliest", None, MESSAGES_FROM),
    ("from-beginning", None, MESSAGES_FROM),
    ("new", None, MESSAGES_FROM),
    ("since", None, MESSAGES_FROM),
    ("until", None, "--until-time TIME or --until-sequence N ends the stream"),
    (
        "group",
        None,
        "--consumer NAME keeps a position on the server; it does not share the messages between readers",
    ),
];

const LINES: [Guess; 4] = [
    ("lines", None, "-n N begins with the last N lines"),
    ("regexp", Some('e'), "--grep PATTERN prints the lines that match"),
    ("bytes", Some('c'), "--from-offset B begins at byte B"),
    ("no-follow", None, "without -f or -F, the stream ends at the end of the file"),
];

const COUNTDOWN: [Guess; 2] = [
    ("every", Some('i'), "--interval D sets the time between two numbers"),
    ("from", None, "write the number alone, as in `perennial countdown 10`"),
];

pub fn of_messages() -> impl Iterator<Item = Arg> {
    MESSAGES.into_iter().map(refused)
}

pub fn of_lines() -> impl Iterator<Item = Arg> {
    LINES.into_iter().map(refused)
}

pub fn of_countdown() -> impl Iterator<Item = Arg> {
    COUNTDOWN.into_iter().map(refused)
}

/// The prefix of the ids of these options.
const ID: &str = "guess-";

/// The error for one of these options names the option alone; clap adds its value, `[<ID>]`.
pub fn without_value(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg)
        && let Some((name, _)) = option.split_once(&format!(" [<{ID}"))
    {
        let name = ContextValue::String(name.to_owned());
        error.insert(ContextKind::InvalidArg, name);
    }
    error
}

fn refused((long, short, advice): Guess) -> Arg {
    let arg = Arg::new(format!("{ID}{long}")).long(long).hide(true);
    let arg = arg.num_args(0..=1).default_missing_value("").allow_hyphen_values(true);
    let arg = arg.value_parser(UnknownArgumentValueParser::suggest(advice));
    short.into_iter().fold(arg, Arg::short)
}

//! What can be said on the command line, the request it makes, and the command that continues it.

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use perennial::proto::{
    CountdownRequest, MessagesRequest, OnGap, OnLag, ReadLinesRequest, countdown_request::Target,
    messages_request, read_lines_request,
};

use crate::time;

const AFTER_HELP: &str = "\
Data goes to stdout, everything else to stderr. json and ndjson name fields as the JSON form of the contract does,
but give 64-bit numbers as numbers.

TIME is 2026-11-23T18:00:00Z, \"2026-11-23 18:00\", 18:00, +5m or \"in 5m\". D is 500ms, 1s or 1h30m.

Exit codes: 0 done (also when the reader of a pipe has gone), 1 another error, 2 wrong usage, 64 and the gRPC code
for an error of a call (69: not found, 78: cannot be reached), 130 Ctrl-C. After Ctrl-C the last line on stderr is
the command that continues the stream.";

/// Time, files and messages as streams that can be cut anywhere and continue exactly where they stopped.
#[derive(Debug, Parser)]
#[command(name = "perennial", version, after_help = AFTER_HELP, arg_required_else_help = true)]
pub struct Arguments {
    /// The server
    #[arg(
        long,
        global = true,
        env = "PERENNIAL_SERVER",
        value_name = "URL",
        default_value = "http://127.0.0.1:50051"
    )]
    pub server: String,
    /// How to print
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

impl Arguments {
    /// The words of a command up to the subcommand.
    pub fn prefix(&self, server_given: bool) -> Vec<String> {
        let mut words = vec!["perennial".to_owned()];
        if server_given {
            words.extend(["--server".to_owned(), self.server.clone()]);
        }
        push(&mut words, "-o", (self.output != Format::Text).then(|| name(&self.output)));
        words
    }
}

/// How items are printed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// One readable object an item
    Json,
    /// One object a line
    Ndjson,
    /// The number, line or payload alone, as it is
    Raw,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Count down
    Countdown(Countdown),
    /// Read the lines of a file, and follow it
    Lines(Lines),
    /// Read the messages of topics, and those to come
    Messages(Messages),
    /// Publish a message, or one a line of stdin
    Publish(Publish),
    /// List the files that can be read
    Files {
        /// A root, or a directory below one
        #[arg(value_name = "ROOT")]
        path: Option<String>,
    },
    /// List the topics
    Topics {
        /// Those that match: orders.*
        pattern: Option<String>,
    },
    /// Ask whether the server serves
    Health {
        /// One service, by its full name
        service: Option<String>,
    },
}

/// What the three streams share.
#[derive(Args, Debug)]
pub struct Batching {
    /// End after N items
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    pub limit: Option<i64>,
    /// At most N items a response
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub max_batch: Option<i32>,
    /// Let the server give a sign of life after D of silence
    #[arg(long, value_name = "D", value_parser = time::duration)]
    pub heartbeat: Option<SignedDuration>,
    /// Continue behind the response with this cursor
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
}

impl Batching {
    fn heartbeat(&self) -> Option<prost_types::Duration> {
        self.heartbeat.map(time::to_proto)
    }

    fn push(&self, words: &mut Vec<String>, delivered: i64, cursor: &str) {
        // A stream with nothing left has ended, and needs no command.
        push(words, "--limit", self.limit.map(|limit| limit.saturating_sub(delivered).max(1)));
        push(words, "--max-batch", self.max_batch);
        push(words, "--heartbeat", self.heartbeat.map(|duration| format!("{duration:#}")));
        push(words, "--cursor", Some(cursor));
    }
}

/// A stream that can be continued by a command.
pub trait Continue {
    /// The words that continue it: as it was, without its start.
    fn words(&self, delivered: i64, cursor: &str) -> Vec<String>;
    /// It waits for what is still to come.
    fn follows(&self) -> bool;
}

#[derive(Args, Debug)]
pub struct Countdown {
    /// The number to start from
    #[arg(allow_negative_numbers = true, required_unless_present_any = ["until", "cursor"])]
    #[arg(conflicts_with_all = ["until", "cursor"])]
    n: Option<i32>,
    /// Count towards a moment
    #[arg(long, value_name = "TIME", value_parser = time::coming, conflicts_with = "cursor")]
    until: Option<Timestamp>,
    /// The time between two numbers [default: 1s]
    #[arg(long, value_name = "D", value_parser = time::duration, conflicts_with = "cursor")]
    interval: Option<SignedDuration>,
    /// The last number [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true, conflicts_with = "cursor")]
    to: Option<i32>,
    /// By how much the number falls [default: 1]
    #[arg(long, value_name = "N", conflicts_with = "cursor")]
    step: Option<i32>,
    /// Pause before the first number
    #[arg(long, conflicts_with_all = ["until", "cursor"])]
    wait_first: bool,
    /// Yield numbers that are late too, instead of skipping them
    #[arg(long)]
    burst: bool,
    #[command(flatten)]
    batching: Batching,
}

impl Countdown {
    pub fn request(&self) -> CountdownRequest {
        let until = self.until.map(|until| Target::Until(time::timestamp_to_proto(until)));
        CountdownRequest {
            target: self.n.map(Target::From).or(until),
            to: self.to,
            step: self.step,
            interval: self.interval.map(time::to_proto),
            wait_first: self.wait_first,
            on_lag: if self.burst { OnLag::Burst } else { OnLag::Unspecified }.into(),
            cursor: self.batching.cursor.clone(),
            limit: self.batching.limit,
            heartbeat: self.batching.heartbeat(),
            max_batch: self.batching.max_batch,
        }
    }
}

impl Continue for Countdown {
    fn words(&self, delivered: i64, cursor: &str) -> Vec<String> {
        let mut words = vec!["countdown".to_owned()];
        words.extend(self.burst.then(|| "--burst".to_owned()));
        self.batching.push(&mut words, delivered, cursor);
        words
    }

    fn follows(&self) -> bool {
        true
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Gap {
    /// End with an error
    Fail,
    /// Go on with what is there, and say what is missing
    Skip,
}

#[derive(Args, Debug)]
pub struct Lines {
    /// The file, as `perennial files` names it
    #[arg(value_name = "ROOT/PATH")]
    path: String,
    /// Begin with the last N lines
    #[arg(short = 'n', long, value_name = "N", conflicts_with_all = ["from_line", "from_offset", "cursor"])]
    last: Option<i64>,
    /// Begin with this line, counted from 1
    #[arg(long, value_name = "N", conflicts_with_all = ["from_offset", "cursor"])]
    from_line: Option<i64>,
    /// Begin at this byte, counted from 0
    #[arg(long, value_name = "B", conflicts_with = "cursor")]
    from_offset: Option<i64>,
    /// Stay, and yield lines as they are written
    #[arg(short, long)]
    follow: bool,
    /// What to do when the place of the cursor is gone [default: fail]
    #[arg(long, value_enum, value_name = "WHAT")]
    on_gap: Option<Gap>,
    #[command(flatten)]
    batching: Batching,
}

impl Lines {
    pub fn request(&self) -> ReadLinesRequest {
        use read_lines_request::Start;
        let line = self.from_line.map(Start::FromLine);
        let start = self.last.map(Start::Last).or(line).or(self.from_offset.map(Start::FromOffset));
        let on_gap = match self.on_gap {
            None => OnGap::Unspecified,
            Some(Gap::Fail) => OnGap::Fail,
            Some(Gap::Skip) => OnGap::Skip,
        };
        ReadLinesRequest {
            path: self.path.clone(),
            start,
            follow: self.follow,
            on_gap: on_gap.into(),
            cursor: self.batching.cursor.clone(),
            limit: self.batching.limit,
            heartbeat: self.batching.heartbeat(),
            max_batch: self.batching.max_batch,
            ..ReadLinesRequest::default()
        }
    }
}

impl Continue for Lines {
    fn words(&self, delivered: i64, cursor: &str) -> Vec<String> {
        let mut words = vec!["lines".to_owned(), self.path.clone()];
        words.extend(self.follow.then(|| "-f".to_owned()));
        push(&mut words, "--on-gap", self.on_gap.as_ref().map(name));
        self.batching.push(&mut words, delivered, cursor);
        words
    }

    fn follows(&self) -> bool {
        self.follow
    }
}

/// A place in the history of the messages.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Place {
    New,
    Earliest,
    Sequence(i64),
    Time(Timestamp),
}

fn place(text: &str) -> Result<Place, String> {
    match text {
        "new" => Ok(Place::New),
        "earliest" => Ok(Place::Earliest),
        _ => match text.parse() {
            Ok(sequence) => Ok(Place::Sequence(sequence)),
            Err(_) => time::moment(text)
                .map(Place::Time)
                .map_err(|error| format!("neither new, earliest nor a sequence, and {error}")),
        },
    }
}

#[derive(Args, Debug)]
pub struct Messages {
    /// Topics, or patterns of them: orders.new, orders.*, 'orders.>'
    #[arg(required = true, value_name = "PATTERN")]
    patterns: Vec<String>,
    /// Begin at new, earliest, a SEQUENCE or a TIME [default: new]
    #[arg(long, value_name = "PLACE", value_parser = place, allow_hyphen_values = true)]
    #[arg(conflicts_with_all = ["last", "cursor"])]
    from: Option<Place>,
    /// Begin with the last N messages
    #[arg(long, value_name = "N", conflicts_with = "cursor")]
    last: Option<i64>,
    /// Stop after this sequence
    #[arg(long, value_name = "N")]
    until_sequence: Option<i64>,
    /// Stop before the first message later than this
    #[arg(long, value_name = "TIME", value_parser = time::moment)]
    until_time: Option<Timestamp>,
    /// Stop after what is there now
    #[arg(long)]
    until_caught_up: bool,
    #[command(flatten)]
    batching: Batching,
}

impl Messages {
    pub fn request(&self) -> MessagesRequest {
        use messages_request::Start;
        let from = self.from.as_ref().and_then(|place| match place {
            Place::New => None,
            Place::Earliest => Some(Start::Earliest(true)),
            Place::Sequence(sequence) => Some(Start::Sequence(*sequence)),
            Place::Time(time) => Some(Start::Time(time::timestamp_to_proto(*time))),
        });
        MessagesRequest {
            topics: self.patterns.clone(),
            start: self.last.map(Start::Last).or(from),
            until_sequence: self.until_sequence,
            until_time: self.until_time.map(time::timestamp_to_proto),
            until_caught_up: self.until_caught_up,
            cursor: self.batching.cursor.clone(),
            limit: self.batching.limit,
            heartbeat: self.batching.heartbeat(),
            max_batch: self.batching.max_batch,
        }
    }
}

impl Continue for Messages {
    fn words(&self, delivered: i64, cursor: &str) -> Vec<String> {
        let mut words = vec!["messages".to_owned()];
        words.extend(self.patterns.iter().cloned());
        push(&mut words, "--until-sequence", self.until_sequence);
        push(&mut words, "--until-time", self.until_time);
        words.extend(self.until_caught_up.then(|| "--until-caught-up".to_owned()));
        self.batching.push(&mut words, delivered, cursor);
        words
    }

    fn follows(&self) -> bool {
        true
    }
}

#[derive(Args, Debug)]
pub struct Publish {
    /// The topic: orders.new
    pub topic: String,
    /// The text of the message
    #[arg(required_unless_present = "stdin", conflicts_with = "stdin", allow_hyphen_values = true)]
    pub text: Option<String>,
    /// Publish each line of stdin as a message
    #[arg(long)]
    pub stdin: bool,
    /// What the message is about
    #[arg(long)]
    pub key: Option<String>,
    /// Anything else to tell; can be given again
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    pub headers: Vec<(String, String)>,
    /// The id that makes it safe to publish the message again
    #[arg(long, conflicts_with = "stdin")]
    pub id: Option<String>,
    /// Publish only if the last message of the topic has this sequence; 0: if there is none
    #[arg(long, value_name = "SEQUENCE", conflicts_with = "stdin")]
    pub expect: Option<i64>,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("no `=`; try name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn push(words: &mut Vec<String>, option: &str, value: Option<impl ToString>) {
    if let Some(value) = value {
        words.extend([option.to_owned(), value.to_string()]);
    }
}

fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]
    use clap::CommandFactory;

    use super::*;
    use crate::quote;

    #[test]
    fn the_definitions_hold_together() {
        Arguments::command().debug_assert();
    }

    fn resume(line: &[&str]) -> String {
        let arguments = Arguments::try_parse_from(line).unwrap();
        let mut words = arguments.prefix(line.contains(&"--server"));
        words.extend(match &arguments.verb {
            Verb::Countdown(it) => it.words(2, "C"),
            Verb::Lines(it) => it.words(2, "C"),
            Verb::Messages(it) => it.words(2, "C"),
            _ => unreachable!("not a stream"),
        });
        Arguments::try_parse_from(&words).unwrap();
        quote::command(&words)
    }

    #[test]
    fn the_command_that_resumes_keeps_the_options_and_drops_the_start() {
        let countdown = ["perennial", "countdown", "9", "--interval", "1s", "--to", "-3", "--burst"];
        assert_eq!(resume(&countdown), "perennial countdown --burst --cursor C");
        let lines = ["perennial", "lines", "logs/a b", "-n", "3", "-f", "--on-gap", "skip", "--limit", "9"];
        assert_eq!(resume(&lines), "perennial lines 'logs/a b' -f --on-gap skip --limit 7 --cursor C");
        let messages = ["perennial", "-o", "raw", "--server", "h:1", "messages", "a.>", "b", "--from", "3"];
        assert_eq!(resume(&messages), "perennial --server h:1 -o raw messages 'a.>' b --cursor C");
        let bounded = ["perennial", "messages", "a", "--until-sequence", "7", "--heartbeat", "1m 30s"];
        assert_eq!(
            resume(&bounded),
            "perennial messages a --until-sequence 7 --heartbeat '1m 30s' --cursor C"
        );
    }

    #[test]
    fn a_start_and_a_cursor_exclude_each_other() {
        for line in [
            &["perennial", "lines", "a/b", "-n", "1", "--cursor", "C"][..],
            &["perennial", "countdown", "3", "--cursor", "C"],
            &["perennial", "messages", "a", "--from", "new", "--cursor", "C"],
            &["perennial", "countdown"],
            &["perennial", "publish", "a"],
        ] {
            assert_eq!(Arguments::try_parse_from(line).unwrap_err().exit_code(), 2, "{line:?}");
        }
    }
}

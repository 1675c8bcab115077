//! What can be said on the command line, the request it makes, and the command that continues it.

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use perennial::proto::{
    CountdownRequest, MessagesRequest, OnLag, countdown_request::Target, messages_request,
};

use crate::time;

mod lines;

pub use lines::Lines;

const AFTER_HELP: &str = "\
Data goes to stdout, everything else to stderr. json and ndjson name fields as the JSON form of the contract does,
but give 64-bit numbers as numbers.

TIME is 2026-11-23T18:00:00Z, \"2026-11-23 18:00\", 18:00, +5m or \"in 5m\". D is 500ms, 1s or 1h30m.

Exit codes: 0 done (also when the reader of a pipe has gone), 1 another error, 2 wrong usage, 64 and the gRPC code
for an error of a call (69: not found, 78: cannot be reached), 130 Ctrl-C or SIGTERM. After these the last line on
stderr is the command that continues the stream; of several files, a line each.";

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
    /// Read the lines of files, and follow them
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
        self.push_rest(words, delivered);
        push(words, "--cursor", Some(cursor));
    }

    fn push_rest(&self, words: &mut Vec<String>, delivered: i64) {
        // A stream with nothing left has ended, and needs no command.
        push(words, "--limit", self.limit.map(|limit| limit.saturating_sub(delivered).max(1)));
        push(words, "--max-batch", self.max_batch);
        push(words, "--heartbeat", self.heartbeat.map(|duration| format!("{duration:#}")));
    }
}

/// A stream that can be continued by a command.
pub trait Continue {
    /// The words that continue it: as it was, without its start.
    fn words(&self, delivered: i64, cursor: &str) -> Vec<String>;
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
            ..MessagesRequest::default()
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
mod tests;

//! What can be said on the command line, the request it makes, and the command that continues it.

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;
use perennial::proto::OnGap;

use crate::time;

pub mod bench;
mod countdown;
mod lines;
mod messages;
mod publish;

pub use bench::Bench;
pub use countdown::{Countdown, CountdownVerb, Create, Watch};
pub use lines::Lines;
pub use messages::Messages;
pub use publish::{Publish, Source};

// A paragraph is one line, so that clap wraps it at the width of the terminal.
const AFTER_HELP: &str = "\
Data goes to stdout, everything else to stderr. json and ndjson use the field names of the contract's JSON form, with \
64-bit numbers as numbers.

TIME is one of: now, yesterday, \"tomorrow 9am\", 18:00, \"18:00 Europe/Berlin\", 2026-11-28, \"2026-11-28 18:00\", \
2026-11-28T18:00:00Z, -24h, +90m, or Unix seconds as @1795456800. A day or a time of day without a zone is local.
D is a duration: 500ms, 1s, 1h30m or 7d; a day has 24 hours.

Exit codes: 0 done (also when the reader of a pipe has gone), 1 another error, 2 wrong usage, 64 and the gRPC code \
for an error of a call (69: not found, 78: cannot be reached), 130 Ctrl-C or SIGTERM. After these the last line on \
stderr is the command that continues the stream; of several files, a line each; none after 74, when another reader \
took over as the same consumer. Of several messages to publish, the first that failed gives the code.";

const BENCH_AFTER_HELP: &str = "\
p50, p99 and max are, for `publish`, how long an acknowledgement took, and for `deliver`, how old a message was when it
arrived: at full speed that is how long it waited, so give --rate for the time it takes. MB is 1,000,000 bytes of
payload. -o json prints an object a row. The messages stay in the topics bench.0, bench.1, … unless there is --purge. The exit
code is 1 if a message was lost, refused or delivered twice.";

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
    /// What no single option shows to be wrong.
    pub fn check(&self) -> Result<(), String> {
        match &self.verb {
            Verb::Countdown(it) => it.check(self.output),
            Verb::Lines(it) => it.check(self.output),
            Verb::Messages(it) => it.check(self.output),
            Verb::Publish(it) => it.check(),
            _ => Ok(()),
        }
    }

    /// How moments were read, where that is worth saying: a local time that daylight saving skips or repeats.
    pub fn notes(&self) -> Vec<&str> {
        match &self.verb {
            Verb::Countdown(it) => it.note().into_iter().collect(),
            Verb::Messages(it) => it.notes().collect(),
            _ => Vec::new(),
        }
    }

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
    /// Count down, or look after countdowns that are shared
    Countdown(Countdown),
    /// Read the lines of files, and follow them
    Lines(Lines),
    /// Read the messages of topics, and those to come
    Messages(Messages),
    /// Publish a message, one a line of stdin, or one a file
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
    /// Remove the messages of a topic, for good
    Purge(Purge),
    /// List the consumers: where each is, and how far behind
    Consumers,
    /// Forget a consumer and its place, for good
    DeleteConsumer {
        /// Its name, as `perennial consumers` tells it
        name: String,
    },
    /// Measure publishing and delivery
    #[command(subcommand, after_help = BENCH_AFTER_HELP)]
    Bench(Bench),
    /// Ask whether the server serves
    Health {
        /// One service, by its full name
        service: Option<String>,
    },
}

#[derive(Args, Debug)]
pub struct Purge {
    /// The topic: orders.new
    pub topic: String,
    /// Remove the messages up to this sequence, it included [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    pub until_sequence: Option<i64>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// What to do when what comes next is gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Gap {
    /// End with an error
    Fail,
    /// Go on with what is there, and say what is missing
    Skip,
}

fn on_gap(gap: Option<Gap>) -> OnGap {
    match gap {
        None => OnGap::Unspecified,
        Some(Gap::Fail) => OnGap::Fail,
        Some(Gap::Skip) => OnGap::Skip,
    }
}

/// What the three streams share.
#[derive(Args, Debug, Default, PartialEq)]
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

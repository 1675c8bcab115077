//! Arguments, and what they mean as requests. Nothing below sees a flag.

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned, civil};
use perennial::proto::{
    CountdownRequest, MessagesRequest, OnGap, OnLag, PublishRequest, ReadLinesRequest, countdown_request,
    messages_request, publish_request, read_lines_request,
};

const EXIT_CODES: &str = "\
Exit codes:
  0        all went well; also when the reader of a pipe has gone
  1        something else went wrong, as writing to stdout
  2        wrong usage
  64 + N   the server, or the connection to it, ended the call with gRPC code N: 67 is INVALID_ARGUMENT,
           69 NOT_FOUND, 78 UNAVAILABLE
  130      interrupted; the command that resumes is on stderr

Streams reconnect and resume by themselves. Only data goes to stdout.";

/// Streams that can be cut anywhere and continue exactly where they stopped.
#[derive(Debug, Parser)]
#[command(name = "perennial", version, after_help = EXIT_CODES, max_term_width = 110)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Arguments {
    /// The server
    #[arg(
        long,
        env = "PERENNIAL_SERVER",
        default_value = "http://127.0.0.1:50051",
        global = true,
        value_name = "URL"
    )]
    pub server: String,
    /// How to print: text for people; json, readable, and ndjson, an object a line, with the names of proto3's JSON
    /// and numbers as numbers; raw: the line, the number or the payload alone, as it is
    #[arg(short, long, default_value = "text", global = true, value_name = "FORMAT")]
    pub output: Format,
    #[command(subcommand)]
    pub command: Command,
}

/// How to print.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Format {
    Text,
    Json,
    Ndjson,
    Raw,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Count down from a number, or to a moment
    Countdown(Countdown),
    /// The lines of a file, and with -f those still to be written
    Lines(Lines),
    /// The messages of topics, and those still to be published
    Messages(Messages),
    /// Publish a message, or each line of stdin as one
    Publish(Publish),
    /// The files that can be read: SIZE, TIME, PATH
    Files {
        /// A root, or a directory of one; all, if left out
        root: Option<String>,
    },
    /// The topics: MESSAGES, FIRST and LAST sequence, TIME of the last, NAME
    Topics {
        /// A pattern, as in `orders.>`; all, if left out
        pattern: Option<String>,
    },
    /// Whether the server, or a service, serves
    Health {
        /// A service, as in perennial.v1.MessageService
        service: Option<String>,
    },
}

/// What all streams share.
#[derive(Args, Clone, Debug)]
pub struct Stream {
    /// Continue after this cursor
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
    /// End after so many items
    #[arg(long, value_name = "N")]
    pub limit: Option<i64>,
    /// At most so many items a response
    #[arg(long, value_name = "N")]
    pub max_batch: Option<i32>,
    /// Have the server send a sign of life when there was nothing for so long [default: 15s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub heartbeat: Option<SignedDuration>,
}

/// `perennial countdown`
#[derive(Args, Clone, Debug)]
pub struct Countdown {
    /// The first number
    #[arg(required_unless_present_any = ["until", "cursor"], conflicts_with = "until", allow_negative_numbers = true)]
    from: Option<i32>,
    /// Count down to a moment: 2026-12-31T23:59:59Z, "2026-12-31 18:00", 18:00, +5m
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// The time between two numbers [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    interval: Option<SignedDuration>,
    /// The last number [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    to: Option<i32>,
    /// By how much it falls [default: 1]
    #[arg(long, value_name = "N")]
    step: Option<i32>,
    /// Pause before the first number
    #[arg(long, conflicts_with = "until")]
    wait_first: bool,
    /// When late, print every number and not the newest alone
    #[arg(long)]
    burst: bool,
    #[command(flatten)]
    pub stream: Stream,
}

/// `perennial lines`
#[derive(Args, Clone, Debug)]
pub struct Lines {
    /// ROOT/PATH, as `perennial files` lists it
    path: String,
    /// Start with the last N lines
    #[arg(short = 'n', long, value_name = "N", conflicts_with_all = ["from_line", "from_offset", "cursor"])]
    last: Option<i64>,
    /// Start with line N, counted from 1
    #[arg(long, value_name = "N", conflicts_with_all = ["from_offset", "cursor"])]
    from_line: Option<i64>,
    /// Start at byte B, counted from 0
    #[arg(long, value_name = "B", conflicts_with = "cursor")]
    from_offset: Option<i64>,
    /// Stay, and print what is written
    #[arg(short, long)]
    pub follow: bool,
    /// When what the cursor points at is gone: fail, or skip, go on and tell
    #[arg(long, value_name = "fail|skip", default_value = "fail")]
    on_gap: Gap,
    #[command(flatten)]
    pub stream: Stream,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Gap {
    Fail,
    Skip,
}

/// `perennial messages`
#[derive(Args, Clone, Debug)]
pub struct Messages {
    /// Topics: orders.eu.created, 'orders.*.created', 'orders.>'
    #[arg(required = true, value_name = "PATTERN")]
    topics: Vec<String>,
    /// Where to start: new, earliest, a sequence, or a time [default: new]
    #[arg(long, value_name = "WHERE", value_parser = from, conflicts_with_all = ["last", "cursor"])]
    from: Option<From>,
    /// Start with the last N messages
    #[arg(long, value_name = "N", conflicts_with = "cursor")]
    last: Option<i64>,
    /// End after this sequence
    #[arg(long, value_name = "N")]
    until_sequence: Option<i64>,
    /// End before the first message after this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until_time: Option<Timestamp>,
    /// End when everything that was there is printed
    #[arg(long)]
    until_caught_up: bool,
    #[command(flatten)]
    pub stream: Stream,
}

#[derive(Clone, Copy, Debug)]
enum From {
    New,
    Earliest,
    Sequence(i64),
    Time(Timestamp),
}

/// `perennial publish`
#[derive(Args, Clone, Debug)]
pub struct Publish {
    topic: String,
    /// The payload
    #[arg(required_unless_present = "stdin", conflicts_with = "stdin")]
    text: Option<String>,
    /// Publish each line of stdin as a message; ids are set, so that none is published twice
    #[arg(long)]
    pub stdin: bool,
    /// What the message is about
    #[arg(long)]
    key: Option<String>,
    /// A header; can be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = header)]
    header: Vec<(String, String)>,
    /// An id that makes the same command safe to repeat
    #[arg(long, conflicts_with = "stdin")]
    id: Option<String>,
    /// Publish only if the topic's last message has this sequence; 0: if it has none
    #[arg(long, value_name = "SEQUENCE", conflicts_with = "stdin")]
    expect: Option<i64>,
}

impl Countdown {
    /// The request, and how to give it again without its start.
    pub fn request(&self) -> CountdownRequest {
        let Self { from, until, interval, to, step, wait_first, burst, stream } = self.clone();
        let from = from.map(countdown_request::Target::From);
        let Stream { cursor, limit, max_batch, heartbeat } = stream;
        CountdownRequest {
            target: from.or_else(|| until.map(|until| countdown_request::Target::Until(timestamp(until)))),
            to,
            step,
            interval: interval.map(proto_duration),
            wait_first,
            on_lag: if burst { OnLag::Burst } else { OnLag::Skip }.into(),
            cursor,
            limit,
            heartbeat: heartbeat.map(proto_duration),
            max_batch,
        }
    }

    /// The words that name this stream, without where it starts.
    pub fn words(&self) -> Vec<String> {
        let mut words = vec!["countdown".to_string()];
        words.extend(self.burst.then(|| "--burst".into()));
        words
    }
}

impl Lines {
    /// The request.
    pub fn request(&self) -> ReadLinesRequest {
        let Self { path, last, from_line, from_offset, follow, on_gap, stream } = self.clone();
        let start = last.map(read_lines_request::Start::Last);
        let start = start.or(from_line.map(read_lines_request::Start::FromLine));
        let start = start.or(from_offset.map(read_lines_request::Start::FromOffset));
        let on_gap = if on_gap == Gap::Skip { OnGap::Skip } else { OnGap::Fail }.into();
        let Stream { cursor, limit, max_batch, heartbeat } = stream;
        let heartbeat = heartbeat.map(proto_duration);
        ReadLinesRequest { path, start, follow, on_gap, cursor, limit, heartbeat, max_batch }
    }

    /// The words that name this stream, without where it starts.
    pub fn words(&self) -> Vec<String> {
        let mut words = vec!["lines".to_string(), self.path.clone()];
        words.extend(self.follow.then(|| "-f".into()));
        words.extend((self.on_gap == Gap::Skip).then(|| "--on-gap=skip".into()));
        words
    }
}

impl Messages {
    /// The request.
    pub fn request(&self) -> MessagesRequest {
        let Self { topics, from, last, until_sequence, until_time, until_caught_up, stream } = self.clone();
        let from = from.and_then(|from| match from {
            From::New => None,
            From::Earliest => Some(messages_request::Start::Earliest(true)),
            From::Sequence(sequence) => Some(messages_request::Start::Sequence(sequence)),
            From::Time(time) => Some(messages_request::Start::Time(timestamp(time))),
        });
        let Stream { cursor, limit, max_batch, heartbeat } = stream;
        MessagesRequest {
            topics,
            start: from.or(last.map(messages_request::Start::Last)),
            until_sequence,
            until_time: until_time.map(timestamp),
            until_caught_up,
            cursor,
            limit,
            heartbeat: heartbeat.map(proto_duration),
            max_batch,
        }
    }

    /// The words that name this stream, without where it starts.
    pub fn words(&self) -> Vec<String> {
        let mut words = vec!["messages".to_string()];
        words.extend(self.topics.iter().cloned());
        words.extend(self.until_sequence.map(|sequence| format!("--until-sequence={sequence}")));
        words.extend(self.until_time.map(|time| format!("--until-time={time}")));
        words.extend(self.until_caught_up.then(|| "--until-caught-up".into()));
        words
    }
}

impl Publish {
    /// The message with this payload, or the one of the arguments.
    pub fn request(&self, text: Option<Vec<u8>>) -> PublishRequest {
        let Self { topic, text: own, key, header, id, expect, .. } = self.clone();
        let content = match text.map(String::from_utf8) {
            None => publish_request::Content::Text(own.unwrap_or_default()),
            Some(Ok(text)) => publish_request::Content::Text(text),
            Some(Err(error)) => publish_request::Content::Data(error.into_bytes()),
        };
        PublishRequest {
            topic,
            content: Some(content),
            key,
            headers: header.into_iter().collect(),
            message_id: id,
            expected_sequence: expect,
        }
    }
}

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    // Both count from 1970; before it, jiff's fraction is negative, and the server wants no such time.
    prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}

fn proto_duration(duration: SignedDuration) -> prost_types::Duration {
    prost_types::Duration { seconds: duration.as_secs(), nanos: duration.subsec_nanos() }
}

fn duration(text: &str) -> Result<SignedDuration, String> {
    text.parse().map_err(|_| "no duration: write 500ms, 1s, 5m or 1h30m".into())
}

fn header(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').ok_or("no header: write NAME=VALUE")?;
    Ok((parts.0.into(), parts.1.into()))
}

fn from(text: &str) -> Result<From, String> {
    match text {
        "new" => Ok(From::New),
        "earliest" => Ok(From::Earliest),
        text => match text.parse() {
            Ok(sequence) => Ok(From::Sequence(sequence)),
            Err(_) => moment(text)
                .map(From::Time)
                .map_err(|_| "neither new, nor earliest, nor a sequence, nor a time".into()),
        },
    }
}

/// A moment as people write it: in full, local, today's, or from now.
fn moment(text: &str) -> Result<Timestamp, String> {
    moment_from(text, &Zoned::now())
}

fn moment_from(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    let fault = || "no time: write 2026-12-31T23:59:59Z, \"2026-12-31 18:00\", 18:00 or +5m".to_string();
    if let Some(ahead) = text.strip_prefix('+').or_else(|| text.strip_prefix("in ")) {
        let ahead = ahead.trim().parse::<SignedDuration>().map_err(|_| fault())?;
        return now.timestamp().checked_add(ahead).map_err(|_| fault());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(time) = text.parse::<civil::Time>() {
        let today = now.date().to_datetime(time).to_zoned(now.time_zone().clone()).map_err(|_| fault())?;
        let next = if today.timestamp() < now.timestamp() { today.checked_add(1.day()) } else { Ok(today) };
        return next.map(|next| next.timestamp()).map_err(|_| fault());
    }
    let local = text.parse::<civil::DateTime>().map_err(|_| fault())?;
    local.to_zoned(now.time_zone().clone()).map(|zoned| zoned.timestamp()).map_err(|_| fault())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_fit_together() {
        Arguments::command().debug_assert();
        for wrong in [
            &["countdown"][..],
            &["countdown", "3", "--until", "+5m"],
            &["lines", "a/b", "-n", "3", "--cursor", "x"],
            &["messages"],
            &["publish", "a"],
            &["publish", "a", "text", "--stdin"],
        ] {
            assert!(Arguments::try_parse_from(["perennial"].iter().chain(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_moment_is_read_as_people_write_it() {
        let now = "2026-11-23T12:00:00+01:00[Europe/Berlin]".parse::<Zoned>().unwrap();
        for (text, expected) in [
            ("2026-12-31T23:59:59Z", "2026-12-31T23:59:59Z"),
            ("2026-12-31 18:00", "2026-12-31T17:00:00Z"),
            ("18:00", "2026-11-23T17:00:00Z"),
            ("11:00", "2026-11-24T10:00:00Z"),
            ("+5m", "2026-11-23T11:05:00Z"),
            ("in 1h30m", "2026-11-23T12:30:00Z"),
        ] {
            assert_eq!(moment_from(text, &now).unwrap().to_string(), expected, "{text}");
        }
        assert!(moment_from("soon", &now).is_err());
    }
}

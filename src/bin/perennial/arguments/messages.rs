//! The options of `perennial messages`: the request they make, and the commands that resume it.

use clap::Args;
use perennial::proto::{MessagesRequest, messages_request::Start};

use super::{Batching, Format, Gap, TIME_FORMS, name, on_gap, push};
use crate::{
    messages::template::{PLACEHOLDERS, Template},
    time::{self, Moment},
};

// Sections of --help.
const BEGIN: &str = "Start";
const END: &str = "End";

const EXAMPLES: &str = "\
Examples:
  perennial messages orders.new
  perennial messages 'orders.>' --from yesterday --until-caught-up
  perennial messages 'sensors.*' --last-per-topic
  perennial messages 'orders.*' --consumer billing -o ndjson";

/// A point in the history of the messages.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum StartPoint {
    New,
    Earliest,
    Sequence(i64),
    Time(Moment),
}

impl StartPoint {
    /// The reading of a local time that daylight saving skips or repeats.
    pub(super) fn note(&self) -> Option<&str> {
        match self {
            Self::Time(moment) => moment.note.as_deref(),
            Self::New | Self::Earliest | Self::Sequence(_) => None,
        }
    }
}

pub(super) fn start_point(text: &str) -> Result<StartPoint, String> {
    match text {
        "new" => Ok(StartPoint::New),
        "earliest" => Ok(StartPoint::Earliest),
        _ => match text.parse() {
            Ok(sequence) => Ok(StartPoint::Sequence(sequence)),
            Err(_) => time::moment(text)
                .map(StartPoint::Time)
                .map_err(|error| format!("not new, earliest or a sequence, and {error}")),
        },
    }
}

#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{TIME_FORMS}"))]
pub struct Messages {
    /// Topics, or patterns: * matches one token, and > at the end matches all that follow
    #[arg(required = true, value_name = "PATTERN")]
    patterns: Vec<String>,
    /// Start with the next message (new), the oldest one (earliest), a SEQUENCE, or a TIME [default: new]
    #[arg(long, value_name = "START", value_parser = start_point, allow_hyphen_values = true, help_heading = BEGIN)]
    #[arg(conflicts_with_all = ["last", "last_per_topic", "cursor"])]
    from: Option<StartPoint>,
    /// Start with the last N messages
    #[arg(long, value_name = "N", conflicts_with_all = ["last_per_topic", "cursor"], help_heading = BEGIN)]
    last: Option<i64>,
    /// Start with the last message of each topic: the current state, and then its changes
    #[arg(long, conflicts_with = "cursor", help_heading = BEGIN)]
    last_per_topic: bool,
    /// Continue after the position that the server keeps under NAME, and move it
    ///
    /// A new NAME starts where the other options say; later runs ignore them. The position is committed after the
    /// messages before it were written to stdout, once a second and at the end. After a run that was killed, the next
    /// one repeats the messages of the last second; no message is lost. A second reader with the same NAME takes over,
    /// and the first one ends. --cursor sets the position to that cursor, also backwards.
    #[arg(long, value_name = "NAME", help_heading = BEGIN)]
    consumer: Option<String>,
    /// The reaction to messages that were removed and would come next [default: fail]
    #[arg(long, value_enum, value_name = "REACTION", help_heading = BEGIN)]
    on_gap: Option<Gap>,
    /// End after this sequence
    #[arg(long, value_name = "SEQUENCE", help_heading = END)]
    until_sequence: Option<i64>,
    /// Only messages published at this time or earlier; end when the server's clock has passed it
    #[arg(long, value_name = "TIME", value_parser = time::moment, allow_hyphen_values = true, help_heading = END)]
    until_time: Option<Moment>,
    /// End after the messages that exist now
    #[arg(long, help_heading = END)]
    until_caught_up: bool,
    /// Print each message by a template: '{time} {topic} {text}'
    #[arg(long, value_name = "TEMPLATE", value_parser = Template::parse, allow_hyphen_values = true)]
    #[arg(long_help = template_help())]
    format: Option<Template>,
    #[command(flatten)]
    batching: Batching,
}

fn template_help() -> String {
    format!(
        "Print each message by a template: '{{time}} {{topic}} {{text}}'\n\n\
         The placeholders are {PLACEHOLDERS}. {{text}} is the unchanged payload, {{data}} the payload in base64, \
         {{headers}} a JSON object. Write {{{{ and }}}} for braces, and \\n, \\t, \\0, \\\\ and \\xNN for characters \
         that cannot be typed. A newline follows, unless the template ends with \\n or \\0."
    )
}

impl Messages {
    /// Refuses two forms of output at once.
    pub fn check(&self, format: Format) -> Result<(), String> {
        if self.format.is_some() && format != Format::Text {
            return Err(format!("--format and -o {} both say how to print; use one of them", name(&format)));
        }
        Ok(())
    }

    /// The readings of local times that daylight saving skips or repeats.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        let until = self.until_time.as_ref().and_then(|until| until.note.as_deref());
        self.from.as_ref().and_then(StartPoint::note).into_iter().chain(until)
    }

    /// The consumer whose position the server keeps.
    pub fn consumer(&self) -> Option<&str> {
        self.consumer.as_deref()
    }

    /// Whether the position is given here and replaces the one that the server keeps.
    pub fn has_cursor(&self) -> bool {
        self.batching.cursor.is_some()
    }

    /// The template by which messages are printed.
    pub fn template(&self) -> Option<&Template> {
        self.format.as_ref()
    }

    /// Where a new consumer starts, in words.
    pub fn start_in_words(&self) -> String {
        match (&self.from, self.last, self.last_per_topic) {
            (_, Some(last), _) => format!("with the last {last} messages"),
            (_, _, true) => "with the last message of each topic".into(),
            (Some(StartPoint::Earliest), ..) => "with the oldest message".into(),
            (Some(StartPoint::Sequence(sequence)), ..) => format!("at sequence {sequence}"),
            (Some(StartPoint::Time(time)), ..) => format!("at {}", time.time),
            (Some(StartPoint::New) | None, ..) => "with the next message published".into(),
        }
    }

    pub fn request(&self) -> MessagesRequest {
        let from = self.from.as_ref().and_then(|start| match start {
            StartPoint::New => None,
            StartPoint::Earliest => Some(Start::Earliest(true)),
            StartPoint::Sequence(sequence) => Some(Start::FromSequence(*sequence)),
            StartPoint::Time(time) => Some(Start::FromTime(time::timestamp_to_proto(time.time))),
        });
        let state = self.last_per_topic.then_some(Start::LastPerTopic(true));
        MessagesRequest {
            topics: self.patterns.clone(),
            start: self.last.map(Start::Last).or(state).or(from),
            until_sequence: self.until_sequence,
            until_time: self.until_time.as_ref().map(|until| time::timestamp_to_proto(until.time)),
            until_caught_up: self.until_caught_up,
            cursor: self.batching.cursor.clone(),
            limit: self.batching.limit,
            heartbeat: self.batching.heartbeat(),
            max_batch: self.batching.max_batch,
            on_gap: on_gap(self.on_gap).into(),
            consumer: self.consumer.clone(),
        }
    }

    /// The command that continues after a cursor: the same options without the start.
    pub fn words(&self, delivered: i64, cursor: &str) -> Vec<String> {
        let mut words = self.words_as_consumer(delivered);
        push(&mut words, "--cursor", Some(cursor));
        words
    }

    /// The command that continues after the position of the consumer.
    pub fn words_as_consumer(&self, delivered: i64) -> Vec<String> {
        let mut words = vec!["messages".to_owned()];
        words.extend(self.patterns.iter().cloned());
        push(&mut words, "--consumer", self.consumer.as_ref());
        push(&mut words, "--on-gap", self.on_gap.as_ref().map(name));
        push(&mut words, "--until-sequence", self.until_sequence);
        push(&mut words, "--until-time", self.until_time.as_ref().map(|until| until.time));
        words.extend(self.until_caught_up.then(|| "--until-caught-up".to_owned()));
        push(&mut words, "--format", self.format.as_ref().map(Template::source));
        self.batching.push_rest(&mut words, delivered);
        words
    }
}

#[cfg(test)]
mod tests;

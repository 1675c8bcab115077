//! The options of `perennial messages`: the request they make, and the commands that continue it.

use clap::Args;
use perennial::proto::{MessagesRequest, messages_request::Start};

use super::{Batching, Format, Gap, name, on_gap, push};
use crate::{
    messages::template::{PLACEHOLDERS, Template},
    time::{self, Moment},
};

// Where --help lists an option.
const BEGIN: &str = "Where to begin";
const END: &str = "Where to end";

/// A place in the history of the messages.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Place {
    New,
    Earliest,
    Sequence(i64),
    Time(Moment),
}

fn place(text: &str) -> Result<Place, String> {
    match text {
        "new" => Ok(Place::New),
        "earliest" => Ok(Place::Earliest),
        _ => match text.parse() {
            Ok(sequence) => Ok(Place::Sequence(sequence)),
            Err(_) => time::moment(text)
                .map(Place::Time)
                .map_err(|error| format!("not new, earliest or a sequence, and {error}")),
        },
    }
}

#[derive(Args, Debug)]
pub struct Messages {
    /// Topics, or patterns of them: orders.new, orders.*, 'orders.>'
    #[arg(required = true, value_name = "PATTERN")]
    patterns: Vec<String>,
    /// Begin at new, earliest, a SEQUENCE or a TIME [default: new]
    #[arg(long, value_name = "PLACE", value_parser = place, allow_hyphen_values = true, help_heading = BEGIN)]
    #[arg(conflicts_with_all = ["last", "last_per_topic", "cursor"])]
    from: Option<Place>,
    /// Begin with the last N messages
    #[arg(long, value_name = "N", conflicts_with_all = ["last_per_topic", "cursor"], help_heading = BEGIN)]
    last: Option<i64>,
    /// Begin with the last message of each topic: the state, and then its changes
    #[arg(long, conflicts_with = "cursor", help_heading = BEGIN)]
    last_per_topic: bool,
    /// Continue behind the place that the server keeps under NAME, and keep it there
    ///
    /// A name that is new begins where the other options say; they are ignored from then on. The place is committed
    /// after the messages before it were written to stdout, once a second and at the end: a run that is killed prints
    /// again, the next time, what it printed in the last second. It loses no message. A second reader under the same
    /// name takes over, and this one ends. With --cursor the place is set to that cursor, also backward.
    #[arg(long, value_name = "NAME", help_heading = BEGIN)]
    consumer: Option<String>,
    /// What to do when messages that come next were removed [default: fail]
    #[arg(long, value_enum, value_name = "WHAT", help_heading = BEGIN)]
    on_gap: Option<Gap>,
    /// Stop after this sequence
    #[arg(long, value_name = "N", help_heading = END)]
    until_sequence: Option<i64>,
    /// Stop before the first message later than this
    #[arg(long, value_name = "TIME", value_parser = time::moment, allow_hyphen_values = true, help_heading = END)]
    until_time: Option<Moment>,
    /// Stop after what is there now
    #[arg(long, help_heading = END)]
    until_caught_up: bool,
    /// Print each message so: '{time} {topic} {text}'
    #[arg(long, value_name = "FORMAT", value_parser = Template::parse, allow_hyphen_values = true)]
    #[arg(long_help = template_help())]
    format: Option<Template>,
    #[command(flatten)]
    batching: Batching,
}

fn template_help() -> String {
    format!(
        "Print each message so: '{{time}} {{topic}} {{text}}'\n\n\
         There are {PLACEHOLDERS}. {{text}} is the payload as it is, {{data}} the payload in base64, {{headers}} an \
         object. {{{{ and }}}} stand for braces; \\n, \\t, \\0, \\\\ and \\xNN for what cannot be typed. A newline \
         follows, unless the format ends with \\n or \\0."
    )
}

impl Messages {
    /// What no single option shows to be wrong.
    pub fn check(&self, format: Format) -> Result<(), String> {
        if self.format.is_some() && format != Format::Text {
            return Err(format!("--format is a form of its own; leave -o {}", name(&format)));
        }
        Ok(())
    }

    /// What is worth saying about how moments were read.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        let from = match &self.from {
            Some(Place::Time(from)) => Some(from),
            _ => None,
        };
        from.into_iter().chain(&self.until_time).filter_map(|moment| moment.note.as_deref())
    }

    /// The name that the place is kept under.
    pub fn consumer(&self) -> Option<&str> {
        self.consumer.as_deref()
    }

    /// The place was given, and is not the one that is kept.
    pub fn has_cursor(&self) -> bool {
        self.batching.cursor.is_some()
    }

    /// How a message is printed.
    pub fn template(&self) -> Option<&Template> {
        self.format.as_ref()
    }

    /// Where a consumer that is new begins, in words.
    pub fn start_in_words(&self) -> String {
        match (&self.from, self.last, self.last_per_topic) {
            (_, Some(last), _) => format!("with the last {last} messages"),
            (_, _, true) => "with the last message of each topic".into(),
            (Some(Place::Earliest), ..) => "with the oldest message there is".into(),
            (Some(Place::Sequence(sequence)), ..) => format!("at sequence {sequence}"),
            (Some(Place::Time(time)), ..) => format!("at {}", time.time),
            (Some(Place::New) | None, ..) => "with what is published from now on".into(),
        }
    }

    pub fn request(&self) -> MessagesRequest {
        let from = self.from.as_ref().and_then(|place| match place {
            Place::New => None,
            Place::Earliest => Some(Start::Earliest(true)),
            Place::Sequence(sequence) => Some(Start::FromSequence(*sequence)),
            Place::Time(time) => Some(Start::FromTime(time::timestamp_to_proto(time.time))),
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

    /// The words that continue it behind a cursor: as it was, without its start.
    pub fn words(&self, delivered: i64, cursor: &str) -> Vec<String> {
        let mut words = self.words_as_consumer(delivered);
        push(&mut words, "--cursor", Some(cursor));
        words
    }

    /// The words that continue it where its consumer is.
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

//! The options of `perennial countdown`: of one that is watched, and of the verbs that look after shared ones.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use perennial::{
    proto::{
        CountdownRequest, CreateCountdownRequest, EndMessage, OnLag, countdown_request,
        create_countdown_request, end_message::Content,
    },
    units,
};

use super::{Batching, Format, publish::header, push};
use crate::time::{self, Moment};

mod count;

use count::Count;

const USAGE: &str = "perennial countdown [OPTIONS] <N | DURATION | TIME>
       perennial countdown [OPTIONS] <--until TIME | --name NAME | --cursor C>
       perennial countdown [OPTIONS] <COMMAND>";

const CREATE_USAGE: &str = "perennial countdown create [OPTIONS] <NAME> <DURATION>
       perennial countdown create [OPTIONS] <NAME> <--until TIME | --from N>";

#[derive(Args, Debug)]
#[command(subcommand_negates_reqs = true, override_usage = USAGE)]
pub struct Countdown {
    #[command(flatten)]
    pub watch: Watch,
    /// What to do with a shared countdown, instead of watching one
    #[command(subcommand)]
    pub verb: Option<CountdownVerb>,
}

impl Countdown {
    /// What is worth saying about how a moment was read.
    pub fn note(&self) -> Option<&str> {
        let until = match &self.verb {
            Some(CountdownVerb::Create(it)) => it.until.as_ref(),
            _ => self.watch.moment(),
        };
        until?.note.as_deref()
    }

    /// What no single option shows to be wrong.
    pub fn check(&self, format: Format) -> Result<(), String> {
        // clap's own rule would refuse the options of all commands, too: `countdown -o json list`.
        if self.verb.is_some() && self.watch != Watch::default() {
            return Err("what is counted is given without a command, or a command without that".into());
        }
        if self.watch.lateness && format != Format::Text {
            return Err(format!("--lateness is told in text; leave -o {}", super::name(&format)));
        }
        Ok(())
    }
}

/// A countdown that is watched.
#[derive(Args, Debug, Default, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "they are options of the command line")]
pub struct Watch {
    #[command(flatten)]
    count: Count,
    /// Count towards a moment
    #[arg(long, value_name = "TIME", value_parser = time::coming, allow_hyphen_values = true, conflicts_with_all = ["name", "cursor"])]
    until: Option<Moment>,
    /// Watch the shared countdown of this name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The time between two numbers [default: 1s]
    #[arg(long, value_name = "D", value_parser = time::duration, conflicts_with_all = ["name", "cursor"])]
    interval: Option<SignedDuration>,
    /// The last number [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true, conflicts_with_all = ["name", "cursor"])]
    to: Option<i32>,
    /// By how much the number falls [default: 1]
    #[arg(long, value_name = "N", conflicts_with_all = ["name", "cursor"])]
    step: Option<i32>,
    /// Pause before the first number
    #[arg(long, conflicts_with_all = ["until", "name", "cursor"])]
    wait_first: bool,
    /// Put the numbers on whole intervals of the clock: each second on the second
    #[arg(long, conflicts_with_all = ["until", "name", "cursor"])]
    align: bool,
    /// Yield numbers that are late too, instead of skipping them
    #[arg(long)]
    burst: bool,
    /// Print a number a line on a terminal too, instead of a display
    #[arg(long)]
    plain: bool,
    /// Tell how late a number was when it was sent, and when it arrived
    #[arg(long)]
    lateness: bool,
    #[command(flatten)]
    batching: Batching,
}

impl Watch {
    /// A line a number, whatever stdout is.
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    pub fn tells_lateness(&self) -> bool {
        self.lateness
    }

    /// The shared countdown that is watched.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The moment that it counts towards, where it was given.
    pub fn until(&self) -> Option<Timestamp> {
        self.moment().map(|until| until.time)
    }

    fn moment(&self) -> Option<&Moment> {
        self.until.as_ref().or(self.count.until())
    }

    pub fn request(&self) -> CountdownRequest {
        use countdown_request::Target;
        let until = self.until.as_ref().map(|until| Target::UntilTime(time::timestamp_to_proto(until.time)));
        CountdownRequest {
            target: self.count.target().or(until).or(self.name.clone().map(Target::Name)),
            to: self.to,
            step: self.step,
            interval: self.interval.map(time::to_proto),
            wait_first: self.wait_first,
            align: self.align,
            on_lag: if self.burst { OnLag::Burst } else { OnLag::Unspecified }.into(),
            cursor: self.batching.cursor.clone(),
            limit: self.batching.limit,
            heartbeat: self.batching.heartbeat(),
            max_batch: self.batching.max_batch,
        }
    }

    /// The words that continue it: as it was, without its start.
    pub fn words(&self, delivered: i64, cursor: &str) -> Vec<String> {
        let mut words = vec!["countdown".to_owned()];
        push(&mut words, "--name", self.name.as_ref());
        for (is_given, option) in
            [(self.burst, "--burst"), (self.plain, "--plain"), (self.lateness, "--lateness")]
        {
            words.extend(is_given.then(|| option.to_owned()));
        }
        self.batching.push(&mut words, delivered, cursor);
        words
    }
}

#[derive(Debug, Subcommand)]
pub enum CountdownVerb {
    /// Create a shared countdown, which runs from now on
    Create(Box<Create>),
    /// Stop one for a while
    Pause(Versioned),
    /// Let a paused one go on
    Resume(Versioned),
    /// Put off the end of one, or bring it forward
    Extend {
        /// Its name
        name: String,
        /// By how much: 30s, or -30s to bring the end forward
        #[arg(value_name = "D", value_parser = units::parse_signed_duration, allow_hyphen_values = true)]
        by: SignedDuration,
        #[command(flatten)]
        version: Version,
    },
    /// End one before its time, for good
    Cancel(Versioned),
    /// Tell how one stands
    Get {
        /// Its name
        name: String,
    },
    /// List them: state, what is left, end, version, name
    List,
    /// Forget one, for good; its name can be used again
    Delete(Versioned),
}

#[derive(Args, Debug)]
pub struct Version {
    /// Do it only if this is still its version
    #[arg(long, value_name = "V")]
    pub version: Option<i64>,
}

#[derive(Args, Debug)]
pub struct Versioned {
    /// Its name
    pub name: String,
    #[command(flatten)]
    pub version: Version,
}

#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("length").args(["duration", "until", "from"]).required(true))]
#[command(override_usage = CREATE_USAGE)]
pub struct Create {
    /// Its name: launch, auction.42
    name: String,
    /// How long it runs: 10m
    #[arg(value_name = "DURATION", value_parser = time::duration)]
    duration: Option<SignedDuration>,
    /// When it ends
    #[arg(long, value_name = "TIME", value_parser = time::coming, allow_hyphen_values = true)]
    until: Option<Moment>,
    /// The number to start from
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    from: Option<i32>,
    /// The time between two numbers [default: 1s]
    #[arg(long, value_name = "D", value_parser = time::duration)]
    interval: Option<SignedDuration>,
    /// The last number [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    to: Option<i32>,
    /// By how much the number falls [default: 1]
    #[arg(long, value_name = "N")]
    step: Option<i32>,
    /// Publish a message to this topic when it ends
    #[arg(long, value_name = "TOPIC")]
    on_end: Option<String>,
    /// The text of the message
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, requires = "on_end")]
    text: Option<String>,
    /// The file with the message: text, or data if it is not UTF-8
    #[arg(long, value_name = "PATH", requires = "on_end", conflicts_with = "text")]
    data_file: Option<PathBuf>,
    /// What the message is about
    #[arg(long, requires = "on_end")]
    key: Option<String>,
    /// Anything else that the message tells; can be given again
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header, requires = "on_end")]
    headers: Vec<(String, String)>,
    /// The id that makes it safe to create it again
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

impl Create {
    /// The file that the message is in.
    pub fn data_file(&self) -> Option<&Path> {
        self.data_file.as_deref()
    }

    /// The request, with what was in the file.
    pub fn request(self, data: Option<Content>) -> CreateCountdownRequest {
        use create_countdown_request::Target;
        let duration = self.duration.map(|duration| Target::Duration(time::to_proto(duration)));
        let until = self.until.as_ref().map(|until| Target::UntilTime(time::timestamp_to_proto(until.time)));
        let content = self.text.map(Content::Text).or(data);
        let (key, headers) = (self.key, self.headers.into_iter().collect());
        CreateCountdownRequest {
            name: self.name,
            target: duration.or(until).or(self.from.map(Target::Start)),
            to: self.to,
            step: self.step,
            interval: self.interval.map(time::to_proto),
            on_end: self.on_end.map(|topic| EndMessage { topic, key, headers, content }),
            request_id: self.request_id,
        }
    }
}

#[cfg(test)]
mod tests;

//! The options of `perennial countdown`: those of a countdown that is watched, and those of the commands for shared ones.

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

const CREATE_HELP: &str = "\
Examples:
  perennial countdown create launch 10m
  perennial countdown create break --until 10:30
  perennial countdown create auction.42 --from 10 --interval 1m
  perennial countdown create launch 10m --on-end launches --text liftoff";

const EXTEND_HELP: &str = "\
Examples:
  perennial countdown extend launch 30s
  perennial countdown extend launch -1m30s --version 7";

#[derive(Args, Debug)]
#[command(subcommand_negates_reqs = true, override_usage = USAGE)]
pub struct Countdown {
    #[command(flatten)]
    pub watch: Watch,
    #[command(subcommand)]
    pub verb: Option<CountdownVerb>,
}

impl Countdown {
    /// The reading of a local time that daylight saving skips or repeats.
    pub fn note(&self) -> Option<&str> {
        let until = match &self.verb {
            Some(CountdownVerb::Create(it)) => it.until.as_ref(),
            _ => self.watch.moment(),
        };
        until?.note.as_deref()
    }

    /// Refuses combinations that clap's own rules do not cover.
    pub fn check(&self, format: Format) -> Result<(), String> {
        // clap's own rule would also refuse the options of every command: `countdown -o json list`.
        if self.verb.is_some() && self.watch != Watch::default() {
            return Err(
                "a command such as create or list takes no options of a countdown that is watched".into()
            );
        }
        if self.watch.lateness && format != Format::Text {
            return Err(format!(
                "--lateness prints text, so it cannot be used with -o {}",
                super::name(&format)
            ));
        }
        Ok(())
    }
}

/// A countdown that is watched.
#[derive(Args, Debug, Default, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct Watch {
    #[command(flatten)]
    count: Count,
    /// Count towards TIME
    #[arg(long, value_name = "TIME", value_parser = time::coming, allow_hyphen_values = true, conflicts_with_all = ["name", "cursor"])]
    until: Option<Moment>,
    /// Watch the shared countdown NAME
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The time between two numbers [default: 1s]
    #[arg(long, value_name = "D", value_parser = time::duration, conflicts_with_all = ["name", "cursor"])]
    interval: Option<SignedDuration>,
    /// The last number [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true, conflicts_with_all = ["name", "cursor"])]
    to: Option<i32>,
    /// The difference between two numbers [default: 1]
    #[arg(long, value_name = "N", conflicts_with_all = ["name", "cursor"])]
    step: Option<i32>,
    /// Wait one interval before the first number
    #[arg(long, conflicts_with_all = ["until", "name", "cursor"])]
    wait_first: bool,
    /// Print the numbers at whole intervals of the clock: each second on the second
    #[arg(long, conflicts_with_all = ["until", "name", "cursor"])]
    align: bool,
    /// Print late numbers in a burst instead of skipping them
    #[arg(long)]
    burst: bool,
    /// Print one number per line on a terminal, too, instead of a display
    #[arg(long)]
    plain: bool,
    /// Print how late each number was when it was sent and when it arrived
    #[arg(long)]
    lateness: bool,
    #[command(flatten)]
    batching: Batching,
}

impl Watch {
    /// Whether one number per line is printed on a terminal, too.
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    pub fn shows_lateness(&self) -> bool {
        self.lateness
    }

    /// The shared countdown that is watched.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The moment that it counts towards, if that was given.
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

    /// The words of the command that resumes it: the same options without the start.
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
    /// Create a shared countdown, which starts at once
    #[command(after_help = CREATE_HELP)]
    Create(Box<Create>),
    /// Pause a shared countdown
    #[command(after_help = "Example:\n  perennial countdown pause launch")]
    Pause(Versioned),
    /// Let a paused countdown run again
    #[command(after_help = "Example:\n  perennial countdown resume launch")]
    Resume(Versioned),
    /// Move the end of a countdown
    #[command(after_help = EXTEND_HELP)]
    Extend {
        /// The name of the countdown
        name: String,
        /// The time to add: 30s, or -30s for an earlier end
        #[arg(value_name = "D", value_parser = units::parse_signed_duration, allow_hyphen_values = true)]
        by: SignedDuration,
        #[command(flatten)]
        version: Version,
    },
    /// End a countdown early, for good
    #[command(after_help = "Example:\n  perennial countdown cancel launch")]
    Cancel(Versioned),
    /// Print the state of a countdown
    #[command(after_help = "Example:\n  perennial countdown get launch")]
    Get {
        /// The name of the countdown
        name: String,
    },
    /// List the shared countdowns: state, time left, end, version, name
    #[command(after_help = "Example:\n  perennial -o json countdown list")]
    List,
    /// Delete a countdown, for good; its name can be used again
    #[command(after_help = "Example:\n  perennial countdown delete launch")]
    Delete(Versioned),
}

#[derive(Args, Debug)]
pub struct Version {
    /// Change the countdown only if V is still its version
    #[arg(long, value_name = "V")]
    pub version: Option<i64>,
}

#[derive(Args, Debug)]
pub struct Versioned {
    /// The name of the countdown
    pub name: String,
    #[command(flatten)]
    pub version: Version,
}

#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("length").args(["duration", "until", "from"]).required(true))]
#[command(override_usage = CREATE_USAGE)]
pub struct Create {
    /// The name of the countdown: launch, auction.42
    name: String,
    /// The time until it ends: 10m
    #[arg(value_name = "DURATION", value_parser = time::duration)]
    duration: Option<SignedDuration>,
    /// End at TIME
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
    /// The difference between two numbers [default: 1]
    #[arg(long, value_name = "N")]
    step: Option<i32>,
    /// Publish a message to TOPIC when it ends
    #[arg(long, value_name = "TOPIC")]
    on_end: Option<String>,
    /// The text of the message
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, requires = "on_end")]
    text: Option<String>,
    /// The file with the payload of the message: text, or data if it is not UTF-8
    #[arg(long, value_name = "PATH", requires = "on_end", conflicts_with = "text")]
    data_file: Option<PathBuf>,
    /// The key of the message
    #[arg(long, requires = "on_end")]
    key: Option<String>,
    /// A header of the message; can be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header, requires = "on_end")]
    headers: Vec<(String, String)>,
    /// An id of this creation: repeated with the same id, it returns the same countdown
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

impl Create {
    /// The file with the payload of the message.
    pub fn data_file(&self) -> Option<&Path> {
        self.data_file.as_deref()
    }

    /// The request, with the content of that file.
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

//! The options of `perennial publish`: the source of the messages, and the fields that all of them get.

use std::path::PathBuf;

use clap::Args;
use jiff::SignedDuration;
use perennial::proto::{PublishRequest, publish_request::Content};

use crate::time;

/// The text that means stdin.
const STDIN: &str = "-";

const USAGE: &str = "perennial publish [OPTIONS] <TOPIC> <TEXT>
       perennial publish [OPTIONS] <TOPIC> <--stdin | --file <PATH>...>
       perennial publish [OPTIONS] [TOPIC] --json";

const AFTER_HELP: &str = "\
Examples:
  perennial publish orders.new hello --key 7
  perennial publish orders.new --file order.xml --header type=xml
  perennial publish logs --stdin
  perennial publish --json

One message prints its sequence. Several messages print a summary on stderr, and with -o json or ndjson one object each.

D is a duration: 500ms, 1s, 1h30m or 7d; a day has 24 hours.";

/// The source of the messages.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// The command line: one message.
    Text(String),
    /// Stdin: one message per line.
    Lines,
    /// Stdin: one object that describes a message per line.
    Objects,
    /// One message per file.
    Files(Vec<PathBuf>),
}

#[derive(Args, Debug)]
#[command(override_usage = USAGE, after_help = AFTER_HELP)]
#[command(group = clap::ArgGroup::new("source").args(["text", "stdin", "json", "files"]).required(true))]
pub struct Publish {
    /// The topic; with --json, it replaces the topic of each line
    #[arg(required_unless_present = "json")]
    topic: Option<String>,
    /// The text of the message; - publishes each line of stdin
    #[arg(allow_hyphen_values = true)]
    text: Option<String>,
    /// Publish each line of stdin as a message
    #[arg(long)]
    stdin: bool,
    /// Publish the message that each line of stdin describes, as `messages -o ndjson` prints it
    ///
    /// {"topic": "orders.new", "text": "hello", "key": "7", "headers": {"a": "b"}, "messageId": "x", "ttl": "1h"}, or
    /// "data" in base64 instead of "text". TOPIC, --key and --ttl replace the values of the line, and each --header is
    /// added.
    #[arg(long)]
    json: bool,
    /// Publish this file as a message: as text, or as data if it is not UTF-8; can be repeated
    #[arg(long = "file", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// The key: the entity that the message is about, such as an order
    #[arg(long)]
    key: Option<String>,
    /// A header; can be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Deliver the message for D, and then no longer [default: until it is removed]
    #[arg(long, value_name = "D", value_parser = time::duration)]
    ttl: Option<SignedDuration>,
    /// An id that makes it safe to publish the message again: a second one with the same id is not stored
    #[arg(long)]
    id: Option<String>,
    /// Publish only if the last message of the topic has this sequence; 0 if the topic must be empty
    #[arg(long, value_name = "SEQUENCE")]
    expect: Option<i64>,
}

/// Reads `name=value`.
pub fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("no `=`; try name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Publish {
    /// Refuses options that are for a single message where there may be several.
    pub fn check(&self) -> Result<(), String> {
        let is_one = match self.source() {
            Source::Text(_) => true,
            Source::Files(files) => files.len() == 1,
            Source::Lines | Source::Objects => false,
        };
        match (&self.id, self.expect) {
            (Some(_), _) if !is_one => Err("--id is for one message, and there may be several".into()),
            (_, Some(_)) if !is_one => Err("--expect is for one message, and there may be several".into()),
            _ => Ok(()),
        }
    }

    pub fn source(&self) -> Source {
        match &self.text {
            _ if self.json => Source::Objects,
            _ if !self.files.is_empty() => Source::Files(self.files.clone()),
            Some(text) if text != STDIN => Source::Text(text.clone()),
            _ => Source::Lines,
        }
    }

    /// The topic of all messages, if it is given.
    pub fn topic(&self) -> Option<&str> {
        self.topic.as_deref()
    }

    /// A message with this content and the given fields.
    pub fn message(&self, content: Content) -> PublishRequest {
        self.complete(PublishRequest {
            content: Some(content),
            message_id: self.id.clone(),
            expected_sequence: self.expect,
            ..PublishRequest::default()
        })
    }

    /// Replaces and adds the fields that all messages get.
    pub fn complete(&self, mut message: PublishRequest) -> PublishRequest {
        if let Some(topic) = &self.topic {
            message.topic.clone_from(topic);
        }
        if self.key.is_some() {
            message.key.clone_from(&self.key);
        }
        message.headers.extend(self.headers.iter().cloned());
        message.ttl = self.ttl.map(time::to_proto).or(message.ttl);
        message
    }
}

#[cfg(test)]
mod tests;

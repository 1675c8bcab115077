//! The options of `perennial publish`: where the messages come from, and what they have in common.

use std::path::PathBuf;

use clap::Args;
use jiff::SignedDuration;
use perennial::proto::{PublishRequest, publish_request::Content};

use crate::time;

/// As a text: stdin.
const STDIN: &str = "-";

/// Where messages come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// The command line: one.
    Text(String),
    /// Stdin: one a line.
    Lines,
    /// Stdin: one an object, a line each.
    Objects,
    /// One a file.
    Files(Vec<PathBuf>),
}

#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("source").args(["text", "stdin", "json", "files"]).required(true))]
pub struct Publish {
    /// The topic: orders.new
    #[arg(required_unless_present = "json")]
    topic: Option<String>,
    /// The text of the message; - for one a line of stdin
    #[arg(allow_hyphen_values = true)]
    text: Option<String>,
    /// Publish each line of stdin as a message
    #[arg(long)]
    stdin: bool,
    /// Publish each line of stdin as the message that it describes, as `messages -o ndjson` prints it
    ///
    /// {"topic": "orders.new", "text": "hello", "key": "7", "headers": {"a": "b"}, "messageId": "x", "ttl": "1h"}, or
    /// "data" in base64 instead of "text". A TOPIC, --key and --ttl here win, and a --header is added.
    #[arg(long)]
    json: bool,
    /// Publish a file as a message: text, or data if it is not UTF-8; can be given again
    #[arg(long = "file", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// What the message is about
    #[arg(long)]
    key: Option<String>,
    /// Anything else to tell; can be given again
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Let the message be delivered for D, and then no more [default: as long as it is kept]
    #[arg(long, value_name = "D", value_parser = time::duration)]
    ttl: Option<SignedDuration>,
    /// The id that makes it safe to publish the message again
    #[arg(long)]
    id: Option<String>,
    /// Publish only if the last message of the topic has this sequence; 0: if there is none
    #[arg(long, value_name = "SEQUENCE")]
    expect: Option<i64>,
}

/// `name=value`.
pub fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("no `=`; try name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Publish {
    /// What no single option shows to be wrong.
    pub fn check(&self) -> Result<(), String> {
        let is_one = match self.source() {
            Source::Text(_) => true,
            Source::Files(files) => files.len() == 1,
            Source::Lines | Source::Objects => false,
        };
        match (&self.id, self.expect) {
            (Some(_), _) if !is_one => Err("--id is of one message, and there may be several".into()),
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

    /// The topic, where it is the same for all.
    pub fn topic(&self) -> Option<&str> {
        self.topic.as_deref()
    }

    /// A message with some content.
    pub fn message(&self, content: Content) -> PublishRequest {
        self.complete(PublishRequest {
            content: Some(content),
            message_id: self.id.clone(),
            expected_sequence: self.expect,
            ..PublishRequest::default()
        })
    }

    /// A message with what is said here of all.
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

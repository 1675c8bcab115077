//! `perennial publish`: publishes one message, or one for each line of stdin or each file.

use std::io::{self, IsTerminal};

use futures::StreamExt;
use perennial::{
    client::{Client, Error},
    proto::{PublishRequest, PublishResult, publish_request::Content, publish_result},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Failure, GRPC, INTERRUPTED,
    arguments::{Format, Publish, Source},
    code_of, json,
    output::{self, Output, Problem},
    rate::Rate,
};

mod object;
pub mod source;

use source::Messages;

const TEMPLATE: &str = "{human_pos} published  {rate}  {elapsed}";

/// Publishes the messages that the arguments describe.
pub async fn run(
    client: &Client,
    it: Publish,
    format: Format,
    stop: CancellationToken,
) -> Result<u8, Failure> {
    let source = it.source();
    let content = match &source {
        Source::Text(text) => Content::Text(text.clone()),
        Source::Files(files) if let [file] = files.as_slice() => match source::file(file) {
            Ok(content) => content,
            Err(text) => {
                output::error(&text);
                return Err(Failure::Reported(1));
            }
        },
        _ => return flow(client, it, format, stop).await,
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => Ok(INTERRUPTED),
        done = one(client, it.message(content), format) => done,
    }
}

/// Publishes one message, and prints its sequence.
async fn one(client: &Client, message: PublishRequest, format: Format) -> Result<u8, Failure> {
    let answer = client.publish(message).await?;
    let mut out = Output::new(format);
    match format {
        Format::Text | Format::Raw => {
            out.text(format!("{}\n", answer.sequence.unwrap_or_default()).as_bytes());
        }
        Format::Json | Format::Ndjson => out.object(&json::published(&answer))?,
    }
    out.flush()?;
    Ok(0)
}

/// Publishes many messages, and prints a summary on stderr.
async fn flow(client: &Client, it: Publish, format: Format, stop: CancellationToken) -> Result<u8, Failure> {
    let topic = it.topic().map_or_else(String::new, |topic| format!(" to {topic}"));
    let (messages, source) = Messages::open(it);
    // Ctrl-C ends the reading; the messages that were read are still published.
    let messages = messages.take_until(stop.clone().cancelled_owned());
    let mut results = std::pin::pin!(client.publish_all(messages));
    let mut out = Output::new(format);
    let mut summary = Summary { topic, ..Summary::default() };
    let mut rate = Rate::new(TEMPLATE, has_reader(&source, format));
    while let Some(result) = results.next().await {
        let result = match result {
            Ok(result) => Ok(result),
            // Of one message: the others go on.
            Err(error @ Error::OutcomeUnknown { .. }) => Err(error),
            Err(error) => {
                summary.print(&source);
                return Err(error.into());
            }
        };
        rate.add(1);
        let number = source.answered();
        let problem = match result {
            Ok(result) => summary.add(&mut out, result)?,
            Err(error) => Some(summary.lost(&error)),
        };
        if let Some(problem) = problem {
            output::report(&problem.about(&source.name(number)));
        }
    }
    rate.hide();
    out.flush()?;
    summary.print(&source);
    let failed = summary.failed.or(source.has_failed().then_some(1));
    Ok(if stop.is_cancelled() { INTERRUPTED } else { failed.unwrap_or_default() })
}

/// Whether a person watches stderr, and the terminal shows neither typing nor results.
fn has_reader(source: &Messages, format: Format) -> bool {
    let is_typed = source.is_stdin() && io::stdin().is_terminal();
    let is_printed = matches!(format, Format::Json | Format::Ndjson) && io::stdout().is_terminal();
    io::stderr().is_terminal() && !is_typed && !is_printed
}

#[derive(Default)]
struct Summary {
    topic: String,
    published: u64,
    duplicates: u64,
    first: Option<i64>,
    last: Option<i64>,
    /// The exit code of the first failure.
    failed: Option<u8>,
}

impl Summary {
    /// Counts and prints a result, or returns why the message was not published.
    fn add(&mut self, out: &mut Output, result: PublishResult) -> io::Result<Option<Problem>> {
        match result.outcome {
            Some(publish_result::Outcome::Published(answer)) => {
                self.published += 1;
                self.duplicates += u64::from(answer.duplicate);
                self.last = answer.sequence;
                self.first = self.first.or(answer.sequence);
                if matches!(out.format, Format::Json | Format::Ndjson) {
                    out.object(&json::published(&answer))?;
                    out.relieve()?;
                }
                Ok(None)
            }
            Some(publish_result::Outcome::Error(error)) => {
                self.failed.get_or_insert(GRPC.saturating_add(u8::try_from(error.code).unwrap_or_default()));
                Ok(Some(Problem::publish(&error)))
            }
            None => {
                self.failed.get_or_insert(1);
                Ok(Some(Problem::local("the server sent an empty result: the message may not be published")))
            }
        }
    }

    /// Counts a message whose answer was lost.
    fn lost(&mut self, error: &Error) -> Problem {
        self.failed.get_or_insert(code_of(error));
        Problem::call(error)
    }

    fn print(&self, source: &Messages) {
        let mut text = format!("published {} of {}{}", self.published, source.total(), self.topic);
        if let Some((first, last)) = self.first.zip(self.last) {
            text.push_str(&format!(", sequences {first} to {last}"));
        }
        if self.duplicates > 0 {
            text.push_str(&format!(", {} of them were published before", self.duplicates));
        }
        if source.expired() > 0 {
            text.push_str(&format!(", {} had expired", source.expired()));
        }
        output::note(&text);
    }
}

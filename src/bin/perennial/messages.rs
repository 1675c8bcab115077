//! `perennial messages`: prints the messages of topics, and commits the position of a consumer.
//!
//! Promises that a position is committed only after the messages before it were written to stdout: after a kill, the next
//! run repeats some messages and loses none.

use std::{io, ops::ControlFlow, time::Duration};

use futures::FutureExt;
use jiff::tz::TimeZone;
use perennial::{
    client::{Client, Error},
    proto::{ErrorReason, MessagesResponse},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Failure, INTERRUPTED,
    arguments::{Format, Messages},
    can_resume, code_of, json,
    output::{self, Output, Problem},
    quote,
    session::{self, Session},
    text,
};

mod consumer;
mod lag;
pub mod template;

use consumer::Consumer;
use lag::Lag;

/// Prints messages to their end, an error, or Ctrl-C.
pub async fn read(
    client: &Client,
    it: Messages,
    prefix: Vec<String>,
    format: Format,
    stop: CancellationToken,
) -> Result<u8, Failure> {
    let consumer = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(INTERRUPTED),
        consumer = Consumer::find(client, &it) => consumer?,
    };
    let mut reading = Reading::new(it, prefix, format, consumer);
    let responses = client.messages(reading.it.request()).responses();
    match session::run(&mut reading, responses, &stop).await {
        Err(Failure::Call(error)) => reading.commit_failed(&error),
        done => done,
    }
}

struct Reading {
    it: Messages,
    prefix: Vec<String>,
    out: Output,
    zone: TimeZone,
    consumer: Option<Consumer>,
    lag: Lag,
    delivered: i64,
    /// The cursor after the last printed message.
    cursor: Option<String>,
}

impl Session for Reading {
    type Item = Result<MessagesResponse, Error>;

    async fn received(&mut self, response: Self::Item) -> Result<ControlFlow<u8>, Failure> {
        match response {
            Ok(response) => self.print(&response).map(ControlFlow::Continue),
            Err(error) => self.failed(&error).await.map(ControlFlow::Break),
        }
    }

    fn idle(&mut self) -> Result<Option<Duration>, Failure> {
        self.out.flush()?;
        let Some(consumer) = &mut self.consumer else { return Ok(None) };
        let due = consumer.due();
        if due.is_some_and(|due| due.is_zero()) {
            consumer.commit();
            return Ok(None);
        }
        Ok(due)
    }

    async fn background(&mut self) -> Result<(), Failure> {
        match &mut self.consumer {
            Some(consumer) => Ok(consumer.committed().await?),
            None => std::future::pending().await,
        }
    }

    async fn ended(&mut self) -> Result<u8, Failure> {
        self.close().await?;
        Ok(0)
    }

    async fn interrupted(&mut self) -> Result<u8, Failure> {
        self.close().await?;
        self.print_resume(true);
        Ok(INTERRUPTED)
    }
}

impl Reading {
    fn new(it: Messages, prefix: Vec<String>, format: Format, consumer: Option<Consumer>) -> Self {
        Self {
            it,
            prefix,
            out: Output::new(format),
            zone: TimeZone::system(),
            consumer,
            lag: Lag::new(),
            delivered: 0,
            cursor: None,
        }
    }

    fn print(&mut self, response: &MessagesResponse) -> Result<(), Failure> {
        print(&mut self.out, &self.it, response, &self.zone)?;
        self.out.relieve()?;
        self.lag.on_response(response);
        let messages = i64::try_from(response.messages.len()).unwrap_or(i64::MAX);
        self.delivered = self.delivered.saturating_add(messages);
        response.cursor.clone_into(self.cursor.get_or_insert_default());
        let Some(consumer) = &mut self.consumer else { return Ok(()) };
        consumer.printed(&response.cursor, !(response.messages.is_empty() && response.events.is_empty()));
        // `idle` does not run while messages are always ready, so check here, too.
        consumer.committed().now_or_never().unwrap_or(Ok(()))?;
        if consumer.due().is_some_and(|due| due.is_zero()) {
            self.out.flush()?;
            consumer.commit();
        }
        Ok(())
    }

    /// Writes the buffered output, and commits the position.
    async fn close(&mut self) -> Result<(), Failure> {
        self.out.flush()?;
        self.lag.hide();
        match &mut self.consumer {
            Some(consumer) => Ok(consumer.close().await?),
            None => Ok(()),
        }
    }

    fn commit_failed(&mut self, error: &Error) -> Result<u8, Failure> {
        self.out.flush()?;
        self.lag.hide();
        output::report(&Problem::call(error).about("the cursor could not be committed"));
        self.print_resume(false);
        Ok(code_of(error))
    }

    async fn failed(&mut self, error: &Error) -> Result<u8, Failure> {
        // The other reader started after the last commit, and commits from now on.
        if error.has_reason(ErrorReason::ConsumerTakenOver) {
            self.out.flush()?;
            self.lag.hide();
            output::report(&Problem::call(error));
            return Ok(code_of(error));
        }
        let closed = self.close().await;
        output::report(&Problem::call(error));
        match closed {
            // The commit failed as well, so the server does not have the position.
            Err(Failure::Call(_)) if can_resume(error) => self.print_resume(false),
            Err(Failure::Call(_)) => {}
            closed => {
                closed?;
                if can_resume(error) {
                    self.print_resume(true);
                }
            }
        }
        Ok(code_of(error))
    }

    /// Prints the command that resumes: by the consumer's name if its position `is_committed`, otherwise by the cursor.
    fn print_resume(&self, is_committed: bool) {
        let words = match &self.cursor {
            None => return,
            Some(_) if is_committed && self.consumer.is_some() => self.it.words_as_consumer(self.delivered),
            Some(cursor) => self.it.words(self.delivered, cursor),
        };
        let words = self.prefix.iter().cloned().chain(words).collect::<Vec<_>>();
        output::line(&quote::command(&words));
    }
}

fn print(out: &mut Output, it: &Messages, response: &MessagesResponse, zone: &TimeZone) -> io::Result<()> {
    if let Some(template) = it.template() {
        text::message_events(out, response)?;
        return response.messages.iter().try_for_each(|message| template.print(out, message, zone));
    }
    match out.format {
        Format::Text | Format::Raw => text::messages(out, response, zone),
        Format::Json | Format::Ndjson => json::messages(out, response),
    }
}

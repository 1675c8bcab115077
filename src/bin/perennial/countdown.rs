//! `perennial countdown`: prints or displays a countdown, and manages shared ones.

use std::{
    io::{self, IsTerminal},
    ops::ControlFlow,
    time::Duration,
};

use perennial::{
    client::{Client, Error},
    proto::CountdownResponse,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Failure, INTERRUPTED,
    arguments::{Countdown, Format, Watch},
    can_resume, code_of, json,
    output::{self, Output, Problem},
    quote,
    session::{self, Session},
    text,
};

pub mod event;
pub mod lateness;
mod live;
mod shared;

/// Prints or displays a countdown, or calls a method for a shared one.
pub async fn run(
    client: &Client,
    it: Countdown,
    prefix: Vec<String>,
    format: Format,
    stop: CancellationToken,
) -> Result<u8, Failure> {
    if let Some(verb) = it.verb {
        return tokio::select! {
            biased;
            () = stop.cancelled() => Ok(INTERRUPTED),
            done = shared::run(client, verb, format) => done,
        };
    }
    let resume = Resume { prefix, it: it.watch, delivered: 0, cursor: None };
    if resume.it.is_plain() || format != Format::Text || !is_screen() {
        read(client, resume, format, stop).await
    } else {
        live::run(client, resume, stop).await
    }
}

/// Stdout is a terminal that can be drawn on.
fn is_screen() -> bool {
    io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Prints a countdown to its end, an error, or Ctrl-C: one line or object per number.
async fn read(
    client: &Client,
    resume: Resume,
    format: Format,
    stop: CancellationToken,
) -> Result<u8, Failure> {
    let responses = client.countdown(resume.it.request()).responses();
    let printer = text::Ticks::new(resume.it.shows_lateness());
    let mut reading = Reading { resume, printer, out: Output::new(format) };
    session::run(&mut reading, responses, &stop).await
}

/// A countdown that is printed number by number.
struct Reading {
    resume: Resume,
    printer: text::Ticks,
    out: Output,
}

impl Session for Reading {
    type Item = Result<CountdownResponse, Error>;

    async fn received(&mut self, response: Self::Item) -> Result<ControlFlow<u8>, Failure> {
        let response = match response {
            Ok(response) => response,
            Err(error) => {
                self.out.flush()?;
                return Err(self.resume.failed(&error));
            }
        };
        match self.out.format {
            Format::Text | Format::Raw => self.printer.print(&mut self.out, &response)?,
            Format::Json | Format::Ndjson => json::countdowns::ticks(&mut self.out, &response)?,
        }
        self.out.relieve()?;
        self.resume.record(&response);
        Ok(ControlFlow::Continue(()))
    }

    fn idle(&mut self) -> Result<Option<Duration>, Failure> {
        self.out.flush()?;
        Ok(None)
    }

    async fn ended(&mut self) -> Result<u8, Failure> {
        self.out.flush()?;
        Ok(0)
    }

    async fn interrupted(&mut self) -> Result<u8, Failure> {
        self.out.flush()?;
        self.resume.print_command();
        Ok(INTERRUPTED)
    }
}

/// What the command that resumes a countdown is made of.
struct Resume {
    prefix: Vec<String>,
    it: Watch,
    delivered: i64,
    cursor: Option<String>,
}

impl Resume {
    fn record(&mut self, response: &CountdownResponse) {
        let ticks = i64::try_from(response.ticks.len()).unwrap_or(i64::MAX);
        self.delivered = self.delivered.saturating_add(ticks);
        response.cursor.clone_into(self.cursor.get_or_insert_default());
    }

    fn failed(&self, error: &Error) -> Failure {
        output::report(&Problem::call(error));
        if can_resume(error) {
            self.print_command();
        }
        Failure::Reported(code_of(error))
    }

    fn print_command(&self) {
        if let Some(cursor) = &self.cursor {
            let words = self.prefix.iter().cloned().chain(self.it.words(self.delivered, cursor));
            output::line(&quote::command(&words.collect::<Vec<_>>()));
        }
    }
}

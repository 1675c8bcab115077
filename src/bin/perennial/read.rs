//! Runs a countdown or messages to their end, an error, or Ctrl-C, and says how they are continued.

use std::io;

use futures::{FutureExt, Stream, StreamExt};
use jiff::tz::TimeZone;
use perennial::{
    client::Error,
    proto::{CountdownResponse, MessagesResponse},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    Failure, INTERRUPTED,
    arguments::{Continue, Format},
    code_of, json,
    output::{self, Output},
    quote, text,
};

/// Cancelled by the first Ctrl-C or SIGTERM; the second ends the process, whatever it is doing.
pub fn on_interrupt() -> io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let told = stop.clone();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        for is_first in [true, false] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if is_first {
                told.cancel();
            }
        }
        std::process::exit(INTERRUPTED.into());
    });
    Ok(stop)
}

/// A response of a countdown or of messages.
pub trait Batch {
    fn cursor(&self) -> &str;
    fn items(&self) -> usize;
    fn print(&self, out: &mut Output, zone: &TimeZone) -> io::Result<()>;
}

impl Batch for CountdownResponse {
    fn cursor(&self) -> &str {
        &self.cursor
    }
    fn items(&self) -> usize {
        self.ticks.len()
    }
    fn print(&self, out: &mut Output, _: &TimeZone) -> io::Result<()> {
        match out.format {
            Format::Text | Format::Raw => text::ticks(out, self),
            Format::Json | Format::Ndjson => json::ticks(out, self),
        }
    }
}

impl Batch for MessagesResponse {
    fn cursor(&self) -> &str {
        &self.cursor
    }
    fn items(&self) -> usize {
        self.messages.len()
    }
    fn print(&self, out: &mut Output, zone: &TimeZone) -> io::Result<()> {
        match out.format {
            Format::Text | Format::Raw => text::messages(out, self, zone),
            Format::Json | Format::Ndjson => json::messages(out, self),
        }
    }
}

/// The command that continues a stream.
pub struct Resume<C> {
    prefix: Vec<String>,
    stream: C,
    delivered: i64,
    cursor: Option<String>,
}

impl<C: Continue> Resume<C> {
    pub fn new(prefix: Vec<String>, stream: C) -> Self {
        Self { prefix, stream, delivered: 0, cursor: None }
    }

    fn took(&mut self, batch: &impl Batch) {
        self.delivered = self.delivered.saturating_add(i64::try_from(batch.items()).unwrap_or(i64::MAX));
        batch.cursor().clone_into(self.cursor.get_or_insert_default());
    }

    fn tell(&self) {
        if let Some(cursor) = &self.cursor {
            let words = self.prefix.iter().cloned().chain(self.stream.words(self.delivered, cursor));
            output::line(&quote::command(&words.collect::<Vec<_>>()));
        }
    }
}

/// Prints a stream.
pub async fn read<B: Batch>(
    stream: impl Stream<Item = Result<B, Error>>,
    mut resume: Resume<impl Continue>,
    format: Format,
    stop: CancellationToken,
) -> Result<u8, Failure> {
    let mut stream = std::pin::pin!(stream);
    let mut out = Output::new(format);
    let zone = TimeZone::system();
    loop {
        let next = match stream.next().now_or_never() {
            _ if stop.is_cancelled() => None,
            Some(next) => Some(next),
            None => {
                // Nothing more is ready: what there is must not wait.
                out.flush()?;
                tokio::select! {
                    biased;
                    () = stop.cancelled() => None,
                    next = stream.next() => Some(next),
                    gone = output::reader_gone() => return Err(Failure::Output(gone)),
                }
            }
        };
        match next {
            Some(Some(Ok(batch))) => {
                batch.print(&mut out, &zone)?;
                out.relieve()?;
                resume.took(&batch);
            }
            Some(None) => {
                out.flush()?;
                return Ok(0);
            }
            Some(Some(Err(error))) => {
                out.flush()?;
                output::call_failed(None, &error);
                resume.tell();
                return Err(Failure::Told(code_of(&error)));
            }
            None => {
                out.flush()?;
                resume.tell();
                return Ok(INTERRUPTED);
            }
        }
    }
}

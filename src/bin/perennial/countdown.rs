//! Runs a countdown to its end, an error, or Ctrl-C, and says how it is continued.

use futures::{FutureExt, StreamExt};
use perennial::client::Client;
use tokio_util::sync::CancellationToken;

use crate::{
    Failure, INTERRUPTED,
    arguments::{Countdown, Format},
    code_of, json,
    output::{self, Output},
    quote, text,
};

/// Prints a countdown.
pub async fn read(
    client: &Client,
    it: Countdown,
    prefix: Vec<String>,
    format: Format,
    stop: CancellationToken,
) -> Result<u8, Failure> {
    let mut stream = std::pin::pin!(client.countdown(it.request()));
    let mut resume = Resume { prefix, it, delivered: 0, cursor: None };
    let mut out = Output::new(format);
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
            Some(Some(Ok(response))) => {
                match format {
                    Format::Text | Format::Raw => text::ticks(&mut out, &response)?,
                    Format::Json | Format::Ndjson => json::ticks(&mut out, &response)?,
                }
                out.relieve()?;
                resume.took(response.ticks.len(), response.cursor);
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

/// The command that continues it.
struct Resume {
    prefix: Vec<String>,
    it: Countdown,
    delivered: i64,
    cursor: Option<String>,
}

impl Resume {
    fn took(&mut self, ticks: usize, cursor: String) {
        self.delivered = self.delivered.saturating_add(i64::try_from(ticks).unwrap_or(i64::MAX));
        self.cursor = Some(cursor);
    }

    fn tell(&self) {
        if let Some(cursor) = &self.cursor {
            let words = self.prefix.iter().cloned().chain(self.it.words(self.delivered, cursor));
            output::line(&quote::command(&words.collect::<Vec<_>>()));
        }
    }
}

//! The loop that every stream runs in: an item, a pause, Ctrl-C, the end, or a stdout that has no reader any more.
//!
//! Promises that nothing that was printed waits in a buffer while the stream is quiet, and that Ctrl-C is seen between
//! two items however fast they arrive. What an item means, and what is said at the end, is left to the [`Session`].

use std::{ops::ControlFlow, pin::pin, time::Duration};

use futures::{FutureExt, Stream, StreamExt};
use tokio_util::sync::CancellationToken;

use crate::{Failure, output};

/// A run of one command over its stream.
pub trait Session {
    /// What the stream yields.
    type Item;

    /// Prints an item. A break ends the run with that exit code.
    async fn received(&mut self, item: Self::Item) -> Result<ControlFlow<u8>, Failure>;

    /// The stream is quiet: writes out what is buffered. Returns the time after which this must be called again even if
    /// no item has arrived.
    fn idle(&mut self) -> Result<Option<Duration>, Failure>;

    /// Waits for anything beside the stream that the session takes part in. It is dropped when the stream goes on.
    async fn background(&mut self) -> Result<(), Failure> {
        std::future::pending().await
    }

    /// The stream ended with OK. Returns the exit code.
    async fn ended(&mut self) -> Result<u8, Failure>;

    /// The run was interrupted by Ctrl-C or SIGTERM. Returns the exit code.
    async fn interrupted(&mut self) -> Result<u8, Failure>;
}

/// Runs a session to its end, and returns the exit code.
pub async fn run<S: Session>(
    session: &mut S,
    items: impl Stream<Item = S::Item>,
    stop: &CancellationToken,
) -> Result<u8, Failure> {
    let mut items = pin!(items);
    loop {
        let next = match items.next().now_or_never() {
            _ if stop.is_cancelled() => return session.interrupted().await,
            Some(next) => next,
            None => {
                let due = session.idle()?;
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return session.interrupted().await,
                    next = items.next() => next,
                    done = session.background() => {
                        done?;
                        continue;
                    }
                    () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => continue,
                    gone = output::reader_gone() => return Err(Failure::Output(gone)),
                }
            }
        };
        let Some(item) = next else { return session.ended().await };
        if let ControlFlow::Break(code) = session.received(item).await? {
            return Ok(code);
        }
    }
}

#[cfg(test)]
mod tests;

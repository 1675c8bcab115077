//! The place of a consumer, which the server keeps.
//!
//! One commit at a time is under way, beside the printing. One that fails for a reason that may pass is made again with
//! the next place; until then the server keeps the one before, and a run that dies repeats a little more.

use std::time::{Duration, Instant};

use perennial::{
    client::{Client, Error},
    proto,
};
use tokio::task::JoinHandle;

use crate::{arguments::Messages, output};

/// A place behind new messages is committed so often: each time costs the server a sync of its disk.
const INTERVAL: Duration = Duration::from_secs(1);
/// One that only heartbeats moved, so often: nothing comes twice for it, but `perennial consumers` shows it.
const IDLE_INTERVAL: Duration = Duration::from_secs(60);
/// At the end nobody waits longer for the server.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// The consumer that is read as.
pub struct Consumer {
    client: Client,
    name: String,
    /// The first commit may move it back: the place was given on the command line.
    rewinds: bool,
    /// The last place before which all was printed.
    printed: Option<String>,
    /// Messages were printed since the last commit.
    has_news: bool,
    committed: Option<String>,
    /// When the last commit was begun.
    begun: Option<Instant>,
    /// The commit that is under way, and of what.
    running: Option<(String, JoinHandle<Result<(), Error>>)>,
}

impl Consumer {
    /// The consumer that is asked for, if one is; says on stderr where it continues.
    pub async fn find(client: &Client, it: &Messages) -> Result<Option<Self>, Error> {
        let Some(name) = it.consumer() else { return Ok(None) };
        let there = client.consumer(name).await?;
        output::note(&beginning(name, there.as_ref(), it));
        Ok(Some(Self {
            client: client.clone(),
            name: name.to_owned(),
            rewinds: it.has_cursor(),
            printed: None,
            has_news: true,
            committed: None,
            begun: None,
            running: None,
        }))
    }

    /// All before a cursor was printed; it may still have to be flushed.
    pub fn printed(&mut self, cursor: &str, has_news: bool) {
        cursor.clone_into(self.printed.get_or_insert_default());
        self.has_news |= has_news;
    }

    /// How long until there is a place to commit.
    pub fn due(&self) -> Option<Duration> {
        if self.running.is_some() || self.printed.is_none() || self.printed == self.committed {
            return None;
        }
        let interval = if self.has_news { INTERVAL } else { IDLE_INTERVAL };
        Some(self.begun.map_or(Duration::ZERO, |begun| interval.saturating_sub(begun.elapsed())))
    }

    /// Begins to commit the place: only after a flush.
    pub fn commit(&mut self) {
        let Some(cursor) = self.printed.clone() else { return };
        let (client, name, rewinds) = (self.client.clone(), self.name.clone(), self.rewinds);
        let of = cursor.clone();
        // A task, so that it goes on while messages are printed; [`Self::committed`] waits for it.
        let call = tokio::spawn(async move { client.commit_cursor(&name, &cursor, rewinds).await });
        self.begun = Some(Instant::now());
        self.has_news = false;
        self.running = Some((of, call));
    }

    /// Ends when the commit that is under way has, and never if there is none. An error is one that cannot pass.
    pub async fn committed(&mut self) -> Result<(), Error> {
        match self.outcome().await {
            Err(error) if error.is_retryable() || is_behind(&error) => Ok(()),
            outcome => outcome,
        }
    }

    async fn outcome(&mut self) -> Result<(), Error> {
        let Some((_, call)) = &mut self.running else { return std::future::pending().await };
        let outcome = call.await;
        let of = self.running.take().map(|(of, _)| of);
        match outcome {
            Ok(Ok(())) => {
                self.committed = of;
                self.rewinds = false;
                Ok(())
            }
            Ok(Err(error)) => {
                self.has_news = true;
                Err(error)
            }
            // Nobody cancels it.
            Err(_) => Ok(()),
        }
    }

    /// Commits the last place, unless someone else is ahead of it.
    pub async fn close(&mut self) -> Result<(), Error> {
        let last = async {
            if self.running.is_some() {
                self.committed().await?;
            }
            if self.due().is_none() {
                return Ok(());
            }
            self.commit();
            self.outcome().await
        };
        match tokio::time::timeout(CLOSE_LIMIT, last).await {
            Ok(Err(error)) if is_behind(&error) => {
                output::note("another reader has brought the consumer further than this one: it stays there");
                Ok(())
            }
            Ok(outcome) => outcome,
            Err(_) => Err(Error::Silent { waited: CLOSE_LIMIT }),
        }
    }
}

fn is_behind(error: &Error) -> bool {
    error.reason() == Some("COMMIT_BEHIND")
}

/// Where the consumer goes on, and what becomes of another reader, in words.
fn beginning(name: &str, there: Option<&proto::ConsumerInfo>, it: &Messages) -> String {
    let place = match there {
        _ if it.has_cursor() => "is set to the cursor given".into(),
        None => format!("is new, and begins {}", it.start_in_words()),
        Some(there) => {
            let (place, head) = (there.sequence.unwrap_or_default(), there.head_sequence.unwrap_or_default());
            format!("continues after sequence {place} of {head}")
        }
    };
    let is_read = there.is_some_and(|there| there.connected);
    let other = if is_read { ", and takes over from another reader" } else { "" };
    format!("consumer {name} {place}{other}")
}

#[cfg(test)]
mod tests;

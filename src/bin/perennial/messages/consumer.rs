//! The position of a consumer, which the server keeps.
//!
//! One commit at a time runs, while messages are printed. After a failure that may pass, the next position is committed
//! instead; until then the server keeps the last one, and after a kill the next run repeats a few more messages.

use std::time::{Duration, Instant};

use perennial::{
    client::{Client, Error},
    proto::{self, ErrorReason},
};
use tokio::task::JoinHandle;

use crate::{arguments::Messages, output};

/// The time between commits while messages arrive: each commit costs the server a sync of its disk.
const INTERVAL: Duration = Duration::from_secs(1);
/// The time between commits that only heartbeats moved: no message depends on them, but `perennial consumers` shows
/// them.
const IDLE_INTERVAL: Duration = Duration::from_secs(60);
/// The longest wait for the last commit.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// The consumer of this run.
pub struct Consumer {
    client: Client,
    name: String,
    /// The first commit may move the position back, because it was given on the command line.
    rewinds: bool,
    /// The cursor after the last printed message.
    printed: Option<String>,
    /// Messages were printed since the last commit.
    has_news: bool,
    committed: Option<String>,
    /// The start of the last commit.
    begun: Option<Instant>,
    /// The running commit, and the cursor that it commits.
    running: Option<(String, JoinHandle<Result<(), Error>>)>,
}

impl Consumer {
    /// Finds the consumer that the arguments name, if any, and reports on stderr where it continues.
    pub async fn find(client: &Client, it: &Messages) -> Result<Option<Self>, Error> {
        let Some(name) = it.consumer() else { return Ok(None) };
        let info = client.consumer(name).await?;
        output::note(&beginning(name, info.as_ref(), it));
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

    /// Records that every message before a cursor was printed. The output may not be flushed yet.
    pub fn printed(&mut self, cursor: &str, has_news: bool) {
        cursor.clone_into(self.printed.get_or_insert_default());
        self.has_news |= has_news;
    }

    /// The time until the next commit, or `None` if there is no position to commit.
    pub fn due(&self) -> Option<Duration> {
        if self.running.is_some() || self.printed.is_none() || self.printed == self.committed {
            return None;
        }
        let interval = if self.has_news { INTERVAL } else { IDLE_INTERVAL };
        Some(self.begun.map_or(Duration::ZERO, |begun| interval.saturating_sub(begun.elapsed())))
    }

    /// Starts to commit the position. Call it only after a flush.
    pub fn commit(&mut self) {
        let Some(cursor) = self.printed.clone() else { return };
        let (client, name, rewinds) = (self.client.clone(), self.name.clone(), self.rewinds);
        let of = cursor.clone();
        // A task runs while messages are printed; [`Self::committed`] waits for it.
        let call = tokio::spawn(async move { client.commit_cursor(&name, &cursor, rewinds).await });
        self.begun = Some(Instant::now());
        self.has_news = false;
        self.running = Some((of, call));
    }

    /// Waits for the running commit; without one, it never returns. An error is one that cannot pass.
    pub async fn committed(&mut self) -> Result<(), Error> {
        match self.outcome().await {
            Err(error) if error.is_retryable() || has_later_commit(&error) => Ok(()),
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
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// Commits the last position, unless another reader has committed a later one.
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
            Ok(Err(error)) if has_later_commit(&error) => {
                output::note(
                    "another reader has committed a later position for this consumer, which is kept",
                );
                Ok(())
            }
            Ok(outcome) => outcome,
            Err(_) => Err(Error::Silent { waited: CLOSE_LIMIT }),
        }
    }
}

fn has_later_commit(error: &Error) -> bool {
    error.has_reason(ErrorReason::CommitBehind)
}

/// Where the consumer continues, and whether it takes over from another reader, in words.
fn beginning(name: &str, info: Option<&proto::ConsumerInfo>, it: &Messages) -> String {
    let start = match info {
        _ if it.has_cursor() => "is set to the given cursor".into(),
        None => format!("is new, and starts {}", it.start_in_words()),
        Some(info) if !info.fault.is_empty() => format!("cannot continue: {}", info.fault),
        Some(info) => format!("continues {}", position(info)),
    };
    let is_connected = info.is_some_and(|info| info.connected);
    let other = if is_connected { ", and takes over from another reader" } else { "" };
    format!("consumer {name} {start}{other}")
}

/// The position of a consumer beside the newest message. Sequences count the messages of all topics and the server's own
/// records, so their difference is not a number of messages to come, and the position may be above the newest message.
fn position(info: &proto::ConsumerInfo) -> String {
    let (sequence, newest) = (info.sequence.unwrap_or_default(), info.head_sequence.unwrap_or_default());
    if sequence >= newest {
        format!("after sequence {sequence}, with no newer message in any topic")
    } else {
        format!("after sequence {sequence}; the newest message of all topics has sequence {newest}")
    }
}

#[cfg(test)]
mod tests;

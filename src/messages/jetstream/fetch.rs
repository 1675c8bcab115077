//! Reads the history of the stream by batched direct get, and knows what it has seen all of.
//!
//! Any replica answers, and it may lag: that it has no message after a sequence proves nothing. A message with a higher
//! sequence in the same answer does, because a replica has the messages in their order. So a range is known up to the last
//! message of an answer; where none comes, a mark is published, and the answer of a replica that has the mark counts.
//!
//! The ranges that were read last are kept, so that readers that catch up together read them once.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use async_nats::HeaderMap;
use bytes::Bytes;
use futures::StreamExt;
use serde::Serialize;
use tokio::{sync::Semaphore, time::Instant};

use super::{
    cluster::{Cluster, PATIENCE},
    native::{self, Stored},
};
use crate::messages::Error;

/// The most messages of an answer. The subscription of an answer holds more than this, so that none is dropped.
const MAX_BATCH: u64 = 1_000;

/// An answer ends with the message with which it has this size, in bytes.
const MAX_BYTES: usize = 512 * 1024;

/// An answer that does not go on for this long is asked for again: a server of the cluster has gone.
const SILENCE: Duration = Duration::from_secs(2);

/// The pause before a replica that lags is asked again.
const PAUSE: Duration = Duration::from_millis(20);

/// The most answers that are read at once.
const MAX_FETCHES: usize = 32;

/// The most bytes of the ranges that are kept.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// End of the messages of an answer.
const END_OF_BATCH: u16 = 204;

/// There is no message that was asked for.
const NOT_FOUND: u16 = 404;

/// The messages with sequences from `first` to `last`: all that the stream has.
#[derive(Debug)]
pub struct Range {
    pub first: u64,
    pub last: u64,
    pub messages: Vec<Stored>,
    bytes: usize,
}

/// A message as an answer has it.
#[derive(Debug)]
pub struct Raw {
    pub subject: String,
    pub sequence: u64,
    pub time: SystemTime,
    pub headers: HeaderMap,
    pub payload: Bytes,
}

/// What is asked for.
#[derive(Debug, Default, Serialize)]
pub struct Request {
    #[serde(rename = "seq", skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    #[serde(rename = "multi_last", skip_serializing_if = "Vec::is_empty")]
    pub last_of: Vec<String>,
    /// Only messages of the subjects that this matches.
    #[serde(rename = "next_by_subj", skip_serializing_if = "Option::is_none")]
    pub next_of: Option<String>,
    #[serde(rename = "up_to_seq", skip_serializing_if = "Option::is_none")]
    pub up_to: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<usize>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
}

/// Reads the history.
#[derive(Debug)]
pub struct History {
    turns: Semaphore,
    ranges: Mutex<VecDeque<Arc<Range>>>,
}

impl Default for History {
    fn default() -> Self {
        Self { turns: Semaphore::new(MAX_FETCHES), ranges: Mutex::default() }
    }
}

impl History {
    fn ranges(&self) -> MutexGuard<'_, VecDeque<Arc<Range>>> {
        // Each change is one call, so a panic elsewhere leaves the ranges whole.
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of the ranges that are kept.
    pub fn memory(&self) -> usize {
        self.ranges().iter().map(|range| range.bytes).sum()
    }

    /// Reads messages from a sequence on, at most up to another one, which the stream has reached.
    pub async fn read(&self, cluster: &Cluster, first: u64, up_to: u64) -> Result<Arc<Range>, Error> {
        let known =
            self.ranges().iter().rev().find(|range| range.first <= first && first <= range.last).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let turn = self.turns.acquire().await;
        let range = Arc::new(range(cluster, first, up_to).await?);
        drop(turn);
        let mut ranges = self.ranges();
        ranges.push_back(range.clone());
        let mut bytes = ranges.iter().map(|range| range.bytes).sum::<usize>();
        while bytes > CACHE_BYTES
            && let Some(oldest) = ranges.pop_front()
        {
            bytes -= oldest.bytes;
        }
        Ok(range)
    }
}

/// Reads messages from a sequence on, past the cache.
async fn range(cluster: &Cluster, first: u64, up_to: u64) -> Result<Range, Error> {
    let deadline = Instant::now() + PATIENCE;
    // Not more than can be used: the end of the range may be near.
    let batch = up_to.saturating_sub(first).saturating_add(2).min(MAX_BATCH);
    let mut has_mark = false;
    while Instant::now() < deadline {
        let request = Request {
            sequence: Some(first),
            batch: Some(batch),
            max_bytes: Some(MAX_BYTES),
            ..Request::default()
        };
        let raw = ask(cluster, &request).await?.unwrap_or_default();
        let last = raw.last().map_or(0, |raw| raw.sequence);
        if last >= first {
            let messages = raw.iter().filter(|raw| raw.sequence <= up_to);
            let messages = messages.filter_map(|raw| stored(cluster, raw)).collect::<Vec<_>>();
            let bytes = messages.iter().map(|message| message.bytes.len()).sum();
            return Ok(Range { first, last: last.min(up_to), messages, bytes });
        }
        if !has_mark {
            cluster.mark().await?;
            has_mark = true;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(Error::Unreachable)
}

/// A message of a topic, for subscriptions.
pub fn stored(cluster: &Cluster, raw: &Raw) -> Option<Stored> {
    let Raw { subject, sequence, time, headers, payload } = raw;
    let topic = cluster.subjects.topic_of_any(subject)?;
    Some(native::read(*sequence, &topic, *time, Some(headers), payload))
}

/// Asks until a replica answers. `None`: it has no such message.
pub async fn ask(cluster: &Cluster, request: &Request) -> Result<Option<Vec<Raw>>, Error> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match ask_once(cluster, request).await {
            Ok(answer) => return Ok(answer),
            Err(fault) => {
                tracing::debug!(fault, "the history is asked for again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    Err(Error::Unreachable)
}

/// Asks one replica, and reads its answer to the end. The error is for the log.
async fn ask_once(cluster: &Cluster, request: &Request) -> Result<Option<Vec<Raw>>, String> {
    let client = &cluster.client;
    let inbox = client.new_inbox();
    let mut answer = client.subscribe(inbox.clone()).await.map_err(|error| error.to_string())?;
    let text = serde_json::to_vec(request).map_err(|error| error.to_string())?;
    let subject = format!("$JS.API.DIRECT.GET.{}", cluster.name);
    client.publish_with_reply(subject, inbox, text.into()).await.map_err(|error| error.to_string())?;
    let mut messages = Vec::<Raw>::new();
    loop {
        let next = tokio::time::timeout(SILENCE, answer.next()).await;
        let next = next.map_err(|_| "no answer")?.ok_or("the connection has ended")?;
        match next.status.map(|status| status.as_u16()) {
            None => {}
            Some(END_OF_BATCH) => return Ok(Some(messages)),
            Some(NOT_FOUND) => return Ok(None),
            Some(status) => return Err(format!("status {status} {}", next.description.unwrap_or_default())),
        }
        let (before, raw) = raw(next.headers, next.payload).ok_or("an answer that is no message")?;
        // Each names the one before it, so that a message that was dropped on the way is noticed.
        if before.is_some_and(|before| before != messages.last().map_or(0, |last| last.sequence)) {
            return Err("a message is missing from the answer".into());
        }
        messages.push(raw);
    }
}

/// A message of an answer, and the sequence of the one before it there.
fn raw(headers: Option<HeaderMap>, payload: Bytes) -> Option<(Option<u64>, Raw)> {
    let headers = headers?;
    // The server adds its headers after those of the publisher.
    let last = |name: &'static str| headers.get_last(name).map(async_nats::HeaderValue::as_str);
    let time = last("Nats-Time-Stamp")?.parse::<jiff::Timestamp>().ok()?;
    let before = last("Nats-Last-Sequence").and_then(|sequence| sequence.parse().ok());
    let (subject, sequence) = (last("Nats-Subject")?.to_owned(), last("Nats-Sequence")?.parse().ok()?);
    Some((before, Raw { subject, sequence, time: time.into(), headers, payload }))
}

//! Where a subscription to the stream starts.

use std::{sync::Arc, time::Duration, time::SystemTime};

use super::{
    JetStream,
    fetch::{self, Request},
};
use crate::messages::{Diverged, Error, Position, Start, clock::nanos, query::Since, topic::Pattern};

/// The clocks of the servers of a cluster, and of this one, are taken to differ by up to this, in nanoseconds.
pub const CLOCK_SKEW_NANOS: u64 = 1_000_000_000;

/// A start at a time looks at messages from this much earlier on: the times of messages go back where another leader has
/// another clock.
const TIME_MARGIN: Duration = Duration::from_secs(60);

/// The messages that are looked at first for those that a subscription starts with.
const FIRST_WINDOW: u64 = 1_000;

/// Where a subscription starts.
#[derive(Clone, Copy, Debug, Default)]
pub struct StartPoint {
    /// Every message up to this sequence is passed over.
    pub delivered_up_to: u64,
    /// Where a start time applies.
    pub since: Option<Since>,
    /// The head at which a snapshot of last messages is taken.
    pub snapshot: Option<u64>,
}

/// Whether a start depends on where the stream ends.
pub fn needs_head(start: &Start) -> bool {
    match start {
        Start::New | Start::Time(_) | Start::Last(_) | Start::LastPerTopic => true,
        Start::Resume(position) => position.snapshot > 0,
        Start::Earliest | Start::Sequence(_) => false,
    }
}

/// A consumer starts where it has committed, unless the caller resumes from a position.
pub async fn of_consumer(log: &JetStream, consumer: &str, start: Start) -> Result<Start, Error> {
    let committed = log.consumer_position(consumer).await?;
    Ok(match (start, committed) {
        (Start::Resume(position), _) | (_, Some(position)) => Start::Resume(position),
        (start, None) => start,
    })
}

/// Finds where a subscription starts. `head` is where the stream ends, if the start depends on it.
pub async fn find(
    log: &JetStream,
    patterns: &Arc<[Pattern]>,
    start: Start,
    head: u64,
) -> Result<StartPoint, Error> {
    let after = |delivered_up_to| StartPoint { delivered_up_to, ..StartPoint::default() };
    Ok(match start {
        Start::New | Start::Last(0) => after(head),
        Start::Earliest => after(0),
        Start::Sequence(sequence) => after(sequence.get() - 1),
        Start::Time(time) => StartPoint {
            since: Some(Since { time: nanos(time), head }),
            ..after(before_time(log, time, head).await?)
        },
        Start::Last(count) => after(before_last(log, patterns, count, head).await?),
        Start::LastPerTopic => StartPoint { snapshot: Some(head), ..after(0) },
        Start::Resume(position) => {
            let head = check(log, &position).await?.max(head);
            let Position { delivered_up_to, since, snapshot, .. } = position;
            // A later snapshot has every message that the first one has, and that is still the last one of its topic.
            StartPoint { delivered_up_to, since, snapshot: (snapshot > 0).then_some(head) }
        }
    })
}

/// Checks that a position is one of this stream. Returns the head.
pub async fn check(log: &JetStream, position: &Position) -> Result<u64, Error> {
    let head = log.tail.head();
    if position.log != log.cluster.id {
        return Err(Error::OtherLog);
    }
    if position.reference() <= head {
        return Ok(head);
    }
    // Another server has read further than this one, unless the stream has gone back.
    let head = log.barrier().await?;
    if position.reference() > head { Err(Error::Diverged(Diverged { last_common: None })) } else { Ok(head) }
}

/// The sequence before the first message that may have a time, or a later one; at most `head`.
async fn before_time(log: &JetStream, time: SystemTime, head: u64) -> Result<u64, Error> {
    let from = time.checked_sub(TIME_MARGIN).unwrap_or(SystemTime::UNIX_EPOCH);
    let start = jiff::Timestamp::try_from(from).map_err(|_| Error::Unreachable)?;
    let request = Request { start_time: Some(start.to_string()), batch: Some(1), ..Request::default() };
    let found = fetch::ask(&log.cluster, &request).await?.unwrap_or_default();
    // Where a replica has no such message yet, what it lacks is at its end.
    let first = found.first().map_or(log.tail.first(), |found| found.sequence);
    Ok((first - 1).min(head))
}

/// The sequence before the last `count` messages that match. Looks at the messages backwards, in windows that grow.
async fn before_last(
    log: &JetStream,
    patterns: &Arc<[Pattern]>,
    count: u64,
    head: u64,
) -> Result<u64, Error> {
    let wanted = usize::try_from(count).unwrap_or(usize::MAX);
    let (mut end, mut window, mut left) = (head, FIRST_WINDOW.max(count.saturating_mul(2)), wanted);
    while end > 0 {
        let start = end.saturating_sub(window);
        let matching = matching(log, patterns, start, end).await?;
        if let Some(place) = matching.len().checked_sub(left) {
            return Ok(matching.get(place).map_or(start, |first| first - 1));
        }
        left -= matching.len();
        (end, window) = (start, window.saturating_mul(2));
    }
    Ok(0)
}

/// The sequences of the messages that match, after `start` and up to `end`.
async fn matching(
    log: &JetStream,
    patterns: &Arc<[Pattern]>,
    start: u64,
    end: u64,
) -> Result<Vec<u64>, Error> {
    let (mut sequences, mut after, now) = (Vec::new(), start, log.now());
    while after < end {
        let range = log.history.read(&log.cluster, after + 1, end).await?;
        let new = range.messages.iter().filter(|message| message.sequence > after && message.sequence <= end);
        let is_live = |expires: u64| expires == 0 || expires > now;
        let new = new.filter(|message| is_live(message.expires));
        let new = new.filter(|message| patterns.iter().any(|pattern| pattern.matches(&message.topic)));
        sequences.extend(new.map(|message| message.sequence));
        after = range.last.max(after + 1);
        tokio::task::consume_budget().await;
    }
    Ok(sequences)
}

//! Where a subscription starts.

use std::{io, sync::Arc};

use crate::messages::{
    Diverged, Error, OnGap, Position, SequenceRange, Start,
    embedded::{Embedded, nanos},
    query::Since,
    topic::Pattern,
};

/// What the topics of a subscription had lost before it started. Each topic has its own trim point, so a topic may lose
/// messages later whose sequences are below those that another one had lost before.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    /// The log's loss epoch.
    pub epoch: u64,
    /// No sequence that was lost by then is higher.
    pub lost_up_to: u64,
}

/// A consumer starts where it has committed, unless the caller resumes from a position.
pub async fn start_of_consumer(log: &Embedded, consumer: Option<&str>, start: Start) -> Result<Start, Error> {
    let Some(consumer) = consumer else { return Ok(start) };
    let committed = log.consumer_position(consumer).await?;
    Ok(match (start, committed) {
        (Start::Resume(position), _) | (_, Some(position)) => Start::Resume(position),
        (start, None) => start,
    })
}

/// Where a subscription starts.
#[derive(Clone, Copy, Debug)]
pub struct StartPoint {
    /// Every message up to this sequence is passed over.
    pub delivered_up_to: u64,
    /// Gaps up to this sequence were reported.
    pub reported_up_to: u64,
    /// What was lost before a fresh start.
    pub before: Option<Before>,
    /// The head at which a snapshot of last messages is taken.
    pub snapshot: Option<u64>,
    /// Where a start time applies.
    pub since: Option<Since>,
    /// The caller asked for what the log holds, not for a sequence.
    pub is_fresh: bool,
    /// The messages of another history that the caller has read.
    pub diverged: Option<SequenceRange>,
}

/// Finds where a subscription starts.
pub async fn find(
    log: &Embedded,
    patterns: &Arc<[Pattern]>,
    start: Start,
    on_gap: OnGap,
    head: u64,
) -> Result<StartPoint, Error> {
    // A start never reports a gap for messages that were removed before it.
    let fresh = async |delivered_up_to| {
        let before = Some(lost_before(log, patterns, delivered_up_to).await?);
        Ok::<_, Error>(StartPoint {
            delivered_up_to,
            reported_up_to: 0,
            before,
            snapshot: None,
            since: None,
            is_fresh: true,
            diverged: None,
        })
    };
    Ok(match start {
        Start::New | Start::Last(0) => fresh(head).await?,
        Start::Earliest => fresh(0).await?,
        Start::Time(time) => {
            let time = nanos(time);
            StartPoint {
                since: Some(Since { time, head }),
                ..fresh(log.before_time(time, head).await?).await?
            }
        }
        Start::Last(count) => fresh(log.start_of_last(count, patterns, head).await?).await?,
        Start::LastPerTopic => StartPoint { snapshot: Some(head), is_fresh: false, ..fresh(0).await? },
        // The log may not have reached the sequence: then the subscription waits for it.
        Start::Sequence(sequence) => {
            let delivered_up_to = sequence.get() - 1;
            StartPoint {
                delivered_up_to,
                reported_up_to: 0,
                before: None,
                snapshot: None,
                since: None,
                is_fresh: false,
                diverged: None,
            }
        }
        Start::Resume(position) => {
            match log.check(&position) {
                Err(Error::Diverged(Diverged { last_common: Some(last_common) }))
                    if on_gap == OnGap::Skip =>
                {
                    return Ok(after_common(&position, last_common, head));
                }
                result => result?,
            }
            let Position { delivered_up_to, reported_up_to, snapshot, since, .. } = position;
            let snapshot = Some(snapshot).filter(|head| *head > 0);
            StartPoint {
                delivered_up_to,
                reported_up_to,
                before: known_before(log, patterns, &position).await?,
                snapshot,
                since,
                is_fresh: false,
                diverged: None,
            }
        }
    })
}

/// Where a subscription continues after it has read another history. A snapshot begins again, because the log may have
/// other last messages below the last common sequence than those that were read.
fn after_common(position: &Position, last_common: u64, head: u64) -> StartPoint {
    let is_snapshot = position.snapshot > 0;
    let delivered_up_to = if is_snapshot { 0 } else { position.delivered_up_to.min(last_common) };
    StartPoint {
        delivered_up_to,
        reported_up_to: position.reported_up_to.min(last_common),
        before: None,
        snapshot: is_snapshot.then_some(head),
        // Up to the last common sequence, the messages are those among which the start time selected.
        since: position.since.map(|since| Since { head: since.head.min(last_common), ..since }),
        is_fresh: false,
        diverged: Some(SequenceRange::of_messages(last_common + 1, position.reference())),
    }
}

/// What the topics that match had lost before the subscription of a position started.
async fn known_before(
    log: &Embedded,
    patterns: &Arc<[Pattern]>,
    position: &Position,
) -> io::Result<Option<Before>> {
    let Position { delivered_up_to, reported_up_to, lost_before: epoch, .. } = *position;
    if epoch == 0 || !log.knows_epoch(epoch) {
        return Ok(None);
    }
    let lost_up_to = log.lost_up_to(patterns, delivered_up_to.max(reported_up_to)).await?;
    Ok(Some(Before { epoch, lost_up_to }))
}

/// What the topics that match have lost by now.
pub async fn lost_before(log: &Embedded, patterns: &Arc<[Pattern]>, after: u64) -> io::Result<Before> {
    // The epoch first: what is lost between the two counts as lost later.
    let epoch = log.loss_epoch();
    Ok(Before { epoch, lost_up_to: log.lost_up_to(patterns, after).await? })
}

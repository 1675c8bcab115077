//! Follows the log, so that the registry has every change, whichever server published it.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};

use super::{PREFIX, Record, registry::Registry};
use crate::{
    countdown::Moment,
    messages::{self, Batch, OnGap, Start, Stop},
    stream::Batching,
    wire::message,
};

/// How long to wait after an error before the log is read again.
const RETRY: Duration = Duration::from_secs(1);

/// The states of all countdowns, in the order of the log.
pub(super) type Changes = Pin<Box<dyn Stream<Item = Result<Batch, messages::Error>> + Send>>;

/// Reads the states that the log has, and returns the stream of later ones.
pub(super) async fn load(registry: &Registry) -> Result<Changes, messages::Error> {
    let query = messages::Query {
        within: None,
        topics: vec![format!("{PREFIX}>")],
        start: Start::LastPerTopic,
        stop: Stop::default(),
        on_gap: OnGap::Skip,
        consumer: None,
        batching: Batching::default(),
    };
    let mut changes: Changes = Box::pin(registry.log.subscribe(query).await?);
    while let Some(batch) = changes.next().await {
        let batch = batch?;
        apply(registry, &batch);
        if batch.progress.caught_up {
            break;
        }
    }
    Ok(changes)
}

/// Applies every change. Without `changes`, the log is read again. Never returns.
pub(super) async fn run(registry: Arc<Registry>, changes: Option<Changes>) {
    let mut changes = match changes {
        Some(changes) => changes,
        None => load_again(&registry).await,
    };
    loop {
        let error = match changes.next().await {
            Some(Ok(batch)) => {
                apply(&registry, &batch);
                continue;
            }
            Some(Err(error)) => error,
            None => messages::Error::Closed,
        };
        tracing::error!(%error, "cannot read the changes of shared countdowns from the log; trying again");
        tokio::time::sleep(RETRY).await;
        changes = load_again(&registry).await;
    }
}

/// The same as [`load`], again and again until it is possible.
async fn load_again(registry: &Registry) -> Changes {
    loop {
        if let Ok(changes) = load(registry).await {
            return changes;
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn apply(registry: &Registry, batch: &Batch) {
    for item in &batch.items {
        let mut rest = &item[..];
        while let Some(found) = message::read_next(&mut rest) {
            let Some(name) = found.topic.strip_prefix(PREFIX) else { continue };
            let text = std::str::from_utf8(found.content).ok().filter(|_| found.is_text);
            let is_sequence = i64::try_from(found.sequence).is_ok();
            let Some(record) = text.and_then(Record::from_json).filter(|_| is_sequence) else {
                tracing::error!(
                    name,
                    version = found.sequence,
                    "a message of the log is not a countdown's state"
                );
                continue;
            };
            let expires = found.expires.map(|since_1970| Moment::EPOCH + since_1970.into());
            registry.apply(name, found.sequence, record, expires);
        }
    }
    registry.advance(batch.position.sequence().map_or(0, messages::Sequence::get));
}

//! Following the log: what is known of shared countdowns comes from there, whoever changed them.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};

use super::{PREFIX, Record, registry::Registry};
use crate::{
    messages::{self, Batch, OnGap, Start, Stop},
    stream::Batching,
    wire::message,
};

/// How long to wait before the log is read again, after it could not be.
const RETRY: Duration = Duration::from_secs(1);

/// States, in the order of the log.
pub(super) type Changes = Pin<Box<dyn Stream<Item = Result<Batch, messages::Error>> + Send>>;

/// Reads what is there, and returns what is to come.
pub(super) async fn load(registry: &Registry) -> Result<Changes, messages::Error> {
    let query = messages::Query {
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

/// Takes note of every change, for ever.
pub(super) async fn run(registry: Arc<Registry>, mut changes: Changes) {
    loop {
        let error = match changes.next().await {
            Some(Ok(batch)) => {
                apply(&registry, &batch);
                continue;
            }
            Some(Err(error)) => error,
            None => messages::Error::Closed,
        };
        tracing::error!(%error, "the changes of countdowns cannot be read: they are read anew");
        changes = loop {
            tokio::time::sleep(RETRY).await;
            if let Ok(changes) = load(&registry).await {
                break changes;
            }
        };
    }
}

fn apply(registry: &Registry, batch: &Batch) {
    for item in &batch.items {
        let mut rest = &item[..];
        while let Some(found) = message::read_next(&mut rest) {
            let Some(name) = found.topic.strip_prefix(PREFIX) else { continue };
            let text = std::str::from_utf8(found.content).ok().filter(|_| found.is_text);
            let Some(record) = text.and_then(Record::from_json) else {
                tracing::error!(name, version = found.sequence, "this is no state of a countdown");
                continue;
            };
            let forgotten = found.expires.and_then(|since| i128::try_from(since.as_nanos()).ok());
            registry.apply(name, found.sequence, record, forgotten);
        }
    }
    registry.has_read(batch.position.sequence().map_or(0, messages::Sequence::get));
}

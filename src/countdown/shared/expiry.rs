//! The timer of shared countdowns: when one has ended, that is recorded, and what it was to publish is published.
//!
//! Both go into the log in one append, under the condition that nothing else was done to the countdown meanwhile: so
//! the message is published exactly once, however often this is tried, by however many servers, and whenever one dies.
//! A countdown whose end came while no server ran is ended when one starts. Nothing runs when nothing is due.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::{OnEnd, Record, Snapshot, registry::Registry, state_message};
use crate::{
    countdown::schedule,
    messages::{BatchError, Error, NewMessage},
};

/// How many ends are on their way to the disk at once: they share commits.
const AT_ONCE: usize = 1_024;

/// How long to wait before an end that could not be recorded is tried again, in nanoseconds.
const RETRY_NANOS: i128 = 1_000_000_000;

/// The log reports at most once in this time that ends cannot be recorded.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Names the countdown.
const NAME_HEADER: &str = "countdown";
/// When it was due.
const DUE_HEADER: &str = "countdown-due-time";
/// How late it was published.
const LATENESS_HEADER: &str = "countdown-lateness";

/// Ends countdowns when they are due, and forgets those that ended long ago. Never returns.
pub(super) async fn run(registry: Arc<Registry>) {
    let (mut ending, mut failures) = (FuturesUnordered::new(), Failures::default());
    loop {
        let room = AT_ONCE.saturating_sub(ending.len());
        for snapshot in registry.take_due(room) {
            ending.push(end(&registry, snapshot));
        }
        let next = if ending.len() < AT_ONCE { registry.next_moment() } else { None };
        let due = async {
            match next {
                Some(moment) => registry.clock.sleep_until_moment(moment).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = registry.moments_moved() => {}
            Some(ended) = ending.next() => failures.note(ended),
        }
    }
}

/// Records the end of a countdown. Where that cannot be done yet, it is due again.
async fn end(registry: &Registry, snapshot: Arc<Snapshot>) -> Result<(), Error> {
    let Snapshot { name, version, .. } = &*snapshot;
    if !registry.is_current(&snapshot) {
        return Ok(());
    }
    let now = schedule::nanos(registry.clock.wall());
    let Some(record) = snapshot.record.end(*version, now) else {
        // The clock was set back since it was due.
        snapshot.moment().into_iter().for_each(|moment| registry.schedule(moment, snapshot.clone()));
        return Ok(());
    };
    let mut messages = vec![state_message(name, *version, &record, Some(registry.config.keep_ended))];
    messages.extend(record.on_end.as_ref().map(|on_end| end_message(name, on_end, &record, now)));
    match registry.log.publish_own_batch(messages).await {
        // Somebody else was first: what is to be done about that is known as soon as it is read.
        Ok(_) | Err(BatchError { index: Some(0), error: Error::SequenceMismatch { .. } }) => Ok(()),
        Err(BatchError { error, .. }) => {
            // Else nothing can be published before the next start.
            if !matches!(error, Error::Closed | Error::Failed) {
                registry.schedule(now + RETRY_NANOS, snapshot.clone());
            }
            Err(error)
        }
    }
}

/// Ends that could not be recorded, reported at most once a second.
#[derive(Default)]
struct Failures {
    unreported: usize,
    told: Option<Instant>,
}

impl Failures {
    fn note(&mut self, ended: Result<(), Error>) {
        let Err(error) = ended else { return };
        self.unreported += 1;
        if self.told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            tracing::warn!(%error, tries = self.unreported, "ends of countdowns cannot be recorded yet");
            *self = Self { unreported: 0, told: Some(Instant::now()) };
        }
    }
}

/// The message that a countdown publishes when it ends.
fn end_message(name: &str, on_end: &OnEnd, record: &Record, now: i128) -> NewMessage {
    let mut message = on_end.message();
    let due = record.run().map_or(now, |run| run.end());
    let late = SignedDuration::from_nanos_i128((now - due).max(0));
    let due = Timestamp::from_nanosecond(due).unwrap_or_default();
    let headers = [
        (NAME_HEADER, name.to_owned()),
        (DUE_HEADER, due.to_string()),
        (LATENESS_HEADER, format!("{}.{:09}s", late.as_secs(), late.subsec_nanos())),
    ];
    message.headers.extend(headers.map(|(name, value)| (name.to_owned(), value)));
    message.headers.sort();
    message
}

//! Ends shared countdowns when they are due: it records the end, and publishes the end message.
//!
//! Both go into the log in one append, on the condition that the countdown was not changed meanwhile. So the message is
//! published exactly once, also if several servers try, if one tries again, or if one crashes. If the end comes while
//! no server runs, the next one that starts records it. No work is done while no countdown is due.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use jiff::{SignedDuration, Timestamp};
use tokio::{sync::Semaphore, time::Instant};

use super::{OnEnd, Phase, Snapshot, registry::Registry, state_message};
use crate::{
    countdown::{Moment, Nanos},
    messages::{BatchError, Error, NewMessage},
};

/// How many ends are written at the same time: they share commits.
const AT_ONCE: usize = 1_024;

/// How many end messages that are not in memory are read and published at the same time: each has up to about 1 MiB.
const READ_AT_ONCE: usize = 32;

/// How long to wait before recording an end is tried again.
const RETRY: Nanos = Nanos::from_secs(1);

/// The shortest time between two warnings that ends cannot be recorded.
const WARN_EVERY: Duration = Duration::from_secs(1);

/// The name of the countdown.
const NAME_HEADER: &str = "countdown";
/// When the end was due, in RFC 3339.
const DUE_HEADER: &str = "countdown-due-time";
/// How late the message was published, in seconds.
const LATENESS_HEADER: &str = "countdown-lateness";

/// Ends countdowns when they are due, and removes those whose last message has expired. Never returns.
pub(super) async fn run(registry: Arc<Registry>) {
    let reads = Semaphore::new(READ_AT_ONCE);
    let (mut ending, mut failures) = (FuturesUnordered::new(), Failures::default());
    loop {
        let room = AT_ONCE.saturating_sub(ending.len());
        for snapshot in registry.take_due(room) {
            ending.push(end(&registry, snapshot, &reads));
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
            () = registry.first_moment_changed() => {}
            Some(ended) = ending.next() => failures.record(ended),
        }
    }
}

/// Records the end of a countdown, or schedules it again if that is not possible yet.
async fn end(registry: &Registry, snapshot: Arc<Snapshot>, reads: &Semaphore) -> Result<(), Error> {
    let Snapshot { name, version, .. } = &*snapshot;
    if !registry.is_current(&snapshot) {
        return Ok(());
    }
    let Phase::Running { end_time: due, .. } = snapshot.record.phase else { return Ok(()) };
    let now = registry.clock.wall().into();
    if snapshot.record.end(*version, now).is_none() {
        // The clock was set back after the countdown was due.
        registry.schedule(due.into(), snapshot.clone());
        return Ok(());
    }
    // Held until the message is published.
    let _turn = match snapshot.end_bytes_in_log {
        Some(_) => reads.acquire().await.ok(),
        None => None,
    };
    let complete = match registry.complete(snapshot.clone()).await {
        Ok(complete) => complete,
        Err(super::Error::Log(error)) => {
            registry.schedule(now + RETRY, snapshot.clone());
            return Err(error);
        }
        // It was deleted meanwhile.
        Err(_) => return Ok(()),
    };
    let Some(record) = complete.record.end(*version, now) else { return Ok(()) };
    let mut messages = vec![state_message(name, *version, &record, Some(registry.config.keep_ended))];
    messages.extend(record.on_end.as_ref().map(|on_end| end_message(name, on_end, due, now)));
    match registry.log.publish_own_batch(messages).await {
        // Another change came first. The registry schedules it when it is read from the log.
        Ok(_) | Err(BatchError { index: Some(0), error: Error::SequenceMismatch { .. } }) => Ok(()),
        Err(BatchError { error, .. }) => {
            // After the other two errors, nothing can be published until the server is restarted.
            if !matches!(error, Error::Closed | Error::Failed) {
                registry.schedule(now + RETRY, snapshot.clone());
            }
            Err(error)
        }
    }
}

/// Ends that could not be recorded, logged at most once a second.
#[derive(Default)]
struct Failures {
    unreported: usize,
    last_warning: Option<Instant>,
}

impl Failures {
    fn record(&mut self, ended: Result<(), Error>) {
        let Err(error) = ended else { return };
        self.unreported += 1;
        if self.last_warning.is_none_or(|last| last.elapsed() >= WARN_EVERY) {
            tracing::warn!(%error, tries = self.unreported, "cannot record the end of countdowns; trying again");
            *self = Self { unreported: 0, last_warning: Some(Instant::now()) };
        }
    }
}

/// The message that the server publishes when a countdown ends.
fn end_message(name: &str, on_end: &OnEnd, due: Timestamp, now: Moment) -> NewMessage {
    let mut message = on_end.message();
    let late = SignedDuration::from_nanos_i128((now - Moment::from(due)).max(Nanos::ZERO).get());
    let headers = [
        (NAME_HEADER, name.to_owned()),
        (DUE_HEADER, due.to_string()),
        (LATENESS_HEADER, format!("{}.{:09}s", late.as_secs(), late.subsec_nanos())),
    ];
    message.headers.extend(headers.map(|(name, value)| (name.to_owned(), value)));
    message.headers.sort();
    message
}

//! Leases: which subscription of all servers reads as a consumer.
//!
//! A lease is the last message of the topic `$lease.NAME`, with the id of its holder. A subscription that reads as a
//! consumer publishes one. The order of the stream decides: a holder whose lease is followed by another one has lost it,
//! and ends. A holder renews its lease on the condition that it is still the last one, and releases it on the same
//! condition. The lease of a server that has gone expires.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{JetStream, cluster::PATIENCE, native::Stored};
use crate::{
    messages::{Content, Error, Expected, NewMessage, Sequence},
    wire::message,
};

/// What the topics of leases begin with.
const PREFIX: &str = "$lease.";

/// A lease that is not renewed expires after this.
const TTL: Duration = Duration::from_secs(60);

/// How often a lease is renewed.
const RENEW: Duration = Duration::from_secs(20);

/// Expired leases are looked for when there are this many more than after the last look.
const LOOK_EVERY: usize = 1_000;

/// The leases of a stream, as far as the tail has it.
#[derive(Clone, Debug, Default)]
pub struct Leases(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    by_consumer: HashMap<String, Entry>,
    look_at: usize,
}

#[derive(Debug, Default)]
struct Entry {
    sequence: u64,
    /// Empty after a release.
    holder: String,
    expires: u64,
    /// The holder, if it is a subscription of this server.
    local: Option<CancellationToken>,
}

impl Entry {
    fn is_held(&self, now: u64) -> bool {
        !self.holder.is_empty() && (self.local.is_some() || self.expires > now)
    }
}

impl Leases {
    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change is one call, so a panic elsewhere leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a message of the stream, if it is one of a lease.
    pub fn record(&self, stored: &Stored) {
        let Some(consumer) = stored.topic.strip_prefix(PREFIX) else { return };
        let holder = message::text(&stored.bytes).unwrap_or_default();
        let mut known = self.known();
        let Known { by_consumer, look_at } = &mut *known;
        let entry = by_consumer.entry(consumer.into()).or_default();
        (entry.sequence, entry.expires) = (stored.sequence, stored.expires);
        if entry.holder != holder {
            entry.holder = holder.into();
            if let Some(before) = entry.local.take() {
                before.cancel();
            }
        }
        if by_consumer.len() > *look_at {
            by_consumer.retain(|_, entry| entry.local.is_some() || entry.expires > stored.time);
            *look_at = by_consumer.len() + LOOK_EVERY;
        }
    }

    /// Whether a subscription reads as this consumer.
    pub fn is_held(&self, consumer: &str, now: u64) -> bool {
        self.known().by_consumer.get(consumer).is_some_and(|entry| entry.is_held(now))
    }

    /// What a lease must follow, so that no other subscription has it; `None` while a subscription holds it.
    fn free(&self, consumer: &str, now: u64) -> Option<Expected> {
        match self.known().by_consumer.get(consumer) {
            Some(entry) if entry.is_held(now) => None,
            Some(entry) if entry.expires > now => Sequence::new(entry.sequence).map(Expected::Last),
            _ => Some(Expected::Empty),
        }
    }

    /// Makes the holder one of this server, if it is still the holder.
    fn hold(&self, consumer: &str, holder: &str, is_over: &CancellationToken) -> bool {
        match self.known().by_consumer.get_mut(consumer) {
            Some(entry) if entry.holder == holder => {
                entry.local = Some(is_over.clone());
                true
            }
            _ => false,
        }
    }

    /// The holder has gone. At other servers this is so when its release has arrived.
    fn drop_local(&self, consumer: &str, holder: &str) {
        if let Some(entry) = self.known().by_consumer.get_mut(consumer)
            && entry.holder == holder
        {
            entry.holder.clear();
            entry.local = None;
        }
    }
}

/// The right to read as a consumer, until this is dropped or another subscription takes it.
#[derive(Debug)]
pub struct Lease {
    leases: Leases,
    consumer: String,
    holder: String,
    is_over: CancellationToken,
    is_dropped: CancellationToken,
}

impl Lease {
    /// Fails if another subscription has taken the lease.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_over.is_cancelled() {
            Err(Error::TakenOver { name: self.consumer.clone() })
        } else {
            Ok(())
        }
    }

    /// Waits until another subscription takes the lease.
    pub async fn over(&self) {
        self.is_over.cancelled().await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.drop_local(&self.consumer, &self.holder);
        self.is_dropped.cancel();
    }
}

impl JetStream {
    /// Takes the lease of a consumer. The subscription that held it, at any server, ends.
    pub async fn lease(self: &Arc<Self>, consumer: &str) -> Result<Lease, Error> {
        self.take_lease(consumer, Expected::Any).await
    }

    /// Takes the lease of a consumer if no subscription holds it, at any server.
    pub async fn free_lease(self: &Arc<Self>, consumer: &str) -> Result<Option<Lease>, Error> {
        self.barrier().await?;
        let Some(expected) = self.tail.leases.free(consumer, self.now()) else { return Ok(None) };
        match self.take_lease(consumer, expected).await {
            Ok(lease) => Ok(Some(lease)),
            Err(Error::SequenceMismatch { .. } | Error::TakenOver { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn take_lease(self: &Arc<Self>, consumer: &str, expected: Expected) -> Result<Lease, Error> {
        let holder = uuid::Uuid::new_v4().simple().to_string();
        let sequence = self.publish_own(lease_message(consumer, &holder, expected)).await?.sequence.get();
        let reached = tokio::time::timeout(PATIENCE, self.tail.reached(sequence)).await;
        reached.map_err(|_| Error::Unreachable)?;
        let lease = Lease {
            leases: self.tail.leases.clone(),
            consumer: consumer.into(),
            holder,
            is_over: CancellationToken::new(),
            is_dropped: CancellationToken::new(),
        };
        if !lease.leases.hold(consumer, &lease.holder, &lease.is_over) {
            return Err(Error::TakenOver { name: consumer.into() });
        }
        // It renews the lease while it is held, and releases it: a drop cannot wait for the cluster.
        tokio::spawn(keep(Arc::downgrade(self), Kept::of(&lease, sequence)));
        Ok(lease)
    }
}

/// What is needed to renew and to release a lease.
struct Kept {
    consumer: String,
    holder: String,
    /// The sequence of the lease, as it was renewed last.
    sequence: AtomicU64,
    is_over: CancellationToken,
    is_dropped: CancellationToken,
}

impl Kept {
    fn of(lease: &Lease, sequence: u64) -> Self {
        let Lease { consumer, holder, is_over, is_dropped, .. } = lease;
        Self {
            consumer: consumer.clone(),
            holder: holder.clone(),
            sequence: sequence.into(),
            is_over: is_over.clone(),
            is_dropped: is_dropped.clone(),
        }
    }

    /// The next message of the lease, which is stored only if it is still the last one.
    fn message(&self, holder: &str) -> NewMessage {
        let last = Sequence::of_message(self.sequence.load(Ordering::Relaxed));
        lease_message(&self.consumer, holder, Expected::Last(last))
    }
}

async fn keep(log: Weak<JetStream>, kept: Kept) {
    loop {
        let is_dropped = tokio::select! {
            biased;
            () = kept.is_over.cancelled() => return,
            () = kept.is_dropped.cancelled() => true,
            () = tokio::time::sleep(RENEW) => false,
        };
        let Some(log) = log.upgrade() else { return };
        if is_dropped {
            if let Err(error) = log.publish_at_end(kept.message("")).await {
                tracing::debug!(%error, consumer = kept.consumer, "a lease was not released, and expires");
            }
            return;
        }
        match log.publish_own(kept.message(&kept.holder)).await {
            Ok(published) => kept.sequence.store(published.sequence.get(), Ordering::Relaxed),
            // Another one has taken it, or it has expired while the cluster did not answer.
            Err(Error::SequenceMismatch { .. }) => kept.is_over.cancel(),
            Err(error) => tracing::warn!(%error, consumer = kept.consumer, "a lease was not renewed"),
        }
    }
}

fn lease_message(consumer: &str, holder: &str, expected: Expected) -> NewMessage {
    NewMessage {
        topic: format!("{PREFIX}{consumer}"),
        content: Content::Text(holder.into()),
        ttl: Some(TTL),
        expected,
        ..NewMessage::default()
    }
}

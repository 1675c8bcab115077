//! Setting a consumer to a start position, so that its reader repeats messages or skips them.
//!
//! A reader that is connected would undo it with its next commit, so the call is refused while there is one. Whether there
//! is one is decided before the position is stored.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    consumers::{Lease, topic_of},
    subscription::Subscription,
};
use crate::{
    messages::{ConsumerInfo, Error, OnGap, Query, Start, Stop, embedded::Embedded},
    stream::Batching,
};

/// A reader that has ended is disconnected within this time, if its client has said so.
const FAREWELL: Duration = Duration::from_secs(1);

/// The time between two looks for the end of a reader.
const LOOK: Duration = Duration::from_millis(20);

impl Embedded {
    /// Moves a consumer to a start position, or creates it there. It is on disk when this returns.
    pub async fn set_consumer(self: &Arc<Self>, name: &str, start: Start) -> Result<ConsumerInfo, Error> {
        topic_of(name)?;
        // The topics of its readers are not known yet, so the gaps before the start are those of all topics.
        let query = Query {
            within: None,
            topics: vec![">".into()],
            start,
            stop: Stop::default(),
            on_gap: OnGap::Skip,
            consumer: None,
            batching: Batching::default(),
        };
        let lease = self.free_lease_soon(name).await?;
        let position = Subscription::open(self.clone(), query).await?.start_position();
        // From here on the outcome is that of the commit: the consumer is not moved and reported as refused.
        lease.check().map_err(|_| Error::ConsumerConnected)?;
        let time = self.commit_cursor(name, position.clone(), true).await?;
        let (head, is_connected) = (self.newest(), lease.check().is_err());
        Ok(ConsumerInfo { name: name.into(), position: Ok(position), time, head, is_connected })
    }

    /// Waits a moment for a reader that is about to be disconnected.
    async fn free_lease_soon(&self, consumer: &str) -> Result<Lease, Error> {
        let end = Instant::now() + FAREWELL;
        loop {
            match self.free_lease(consumer) {
                Some(lease) => return Ok(lease),
                None if Instant::now() >= end => return Err(Error::ConsumerConnected),
                None => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

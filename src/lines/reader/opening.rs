//! The opening of a reader, which may take minutes: to prove a position in a compressed file, everything before it is
//! decompressed. Meanwhile heartbeats leave with the caller's own position. Dropping it ends the search.

use std::{pin::pin, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use tokio::time::{Instant, timeout_at};

use super::Reader;
use crate::{
    lines::{Batch, Error, Inner, Position, Progress, Query, Start},
    stream::Pacing,
};

/// A reader that is being opened.
pub struct Opening {
    reader: BoxFuture<'static, Result<Reader, Error>>,
    /// The position of a reader that resumes: only it has one before it is open.
    resumed: Option<Position>,
    pacing: Pacing,
}

impl Opening {
    pub fn new(inner: Arc<Inner>, query: Query) -> Self {
        let resumed = if let Start::Resume(position) = &query.start { Some(position.clone()) } else { None };
        let pacing = Pacing::new(query.batching.clone(), Instant::now());
        Self { reader: async move { Reader::open(&inner, query).await }.boxed(), resumed, pacing }
    }

    /// The reader, or `None` if a heartbeat is due before. Do not call it again after the reader or an error.
    pub async fn wait(&mut self) -> Result<Option<Reader>, Error> {
        let mut reader = pin!(&mut self.reader);
        if self.resumed.is_none() {
            return reader.await.map(Some);
        }
        timeout_at(self.pacing.heartbeat_at(), &mut reader).await.ok().transpose()
    }

    /// The heartbeat of a reader that resumes.
    pub fn heartbeat(&mut self) -> Option<Batch> {
        let position = self.resumed.clone()?;
        self.pacing.record(0, Instant::now());
        let (next_offset, size) = (position.checkpoint.line.offset, position.size);
        let progress = Progress { caught_up: false, next_offset, size };
        Some(Batch { items: Vec::new(), count: 0, events: Vec::new(), position, progress })
    }
}

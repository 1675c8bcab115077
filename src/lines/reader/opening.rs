//! The opening of a reader, which may take minutes: to prove a position in a compressed file, everything before it is
//! decompressed. Meanwhile heartbeats leave with the caller's own position. Dropping it ends the search.

use std::sync::Arc;

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

/// What an [`Opening`] gives.
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
pub enum Step {
    Reader(Reader),
    Heartbeat(Batch),
}

impl Opening {
    pub fn new(inner: Arc<Inner>, query: Query) -> Self {
        let resumed = if let Start::Resume(position) = &query.start { Some(position.clone()) } else { None };
        let pacing = Pacing::new(query.batching.clone(), Instant::now());
        Self { reader: async move { Reader::open(&inner, query).await }.boxed(), resumed, pacing }
    }

    /// What comes first: the reader, or a heartbeat of one that resumes. Do not call it again after the reader or an error.
    pub async fn next(&mut self) -> Result<Step, Error> {
        let Some(resumed) = &self.resumed else {
            return Ok(Step::Reader((&mut self.reader).await?));
        };
        let Ok(opened) = timeout_at(self.pacing.heartbeat_at(), &mut self.reader).await else {
            self.pacing.record(0, Instant::now());
            return Ok(Step::Heartbeat(heartbeat(resumed.clone())));
        };
        Ok(Step::Reader(opened?))
    }
}

fn heartbeat(position: Position) -> Batch {
    let (next_offset, size) = (position.checkpoint.line.offset, position.size);
    let progress = Progress { caught_up: false, next_offset, size };
    Batch { items: Vec::new(), count: 0, events: Vec::new(), position, progress }
}

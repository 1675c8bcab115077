//! Lines: a query for a file below a root, and the stream of its lines.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use futures::Stream;
use serde::{Deserialize, Serialize};

use crate::wire::Batching;

/// The files that can be read: the operator's roots, and what watches them. One for the whole server; cheap to clone.
#[derive(Clone, Debug)]
pub struct Files {
    inner: Arc<()>,
}

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct Options {
    /// A longer line is split; in bytes.
    pub max_line_bytes: usize,
}

/// Which lines to read.
#[derive(Clone, Debug)]
pub struct Query {
    /// `ROOT/relative/path`, as the caller gave it.
    pub path: String,
    /// Where to start.
    pub start: Start,
    /// Stay, and yield what is still to be written.
    pub follow: bool,
    /// What to do when the place that a position names is gone.
    pub on_gap: OnGap,
    /// How the stream is cut into batches.
    pub batching: Batching,
}

/// Where to start.
#[derive(Clone, Debug, Default)]
pub enum Start {
    /// At the first byte.
    #[default]
    Head,
    /// With the last so many lines.
    Last(u64),
    /// With the line of this number, from 1.
    Line(u64),
    /// At this offset in bytes.
    Offset(u64),
    /// Behind a batch that was delivered.
    Resume(Position),
}

/// What to do when a place is gone.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnGap {
    /// End with [`Error::Expired`].
    #[default]
    Fail,
    /// Go on, and tell.
    Skip,
}

/// A place in a file: the file's identity, and an offset in it. Small: at most 500 bytes when serialised.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Position {}

/// Some lines, and where they leave the reader.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Encoded by [`wire::line`](crate::wire::line), one after another: `ReadLinesResponse.lines`.
    pub items: Bytes,
    /// How many lines `items` holds.
    pub count: usize,
    /// What happened before them.
    pub events: Vec<Event>,
    /// Behind this batch.
    pub position: Position,
    /// The batch ends at the end of the file.
    pub caught_up: bool,
    /// The offset behind the last line.
    pub next_offset: u64,
    /// The size of the file when last looked at.
    pub size: u64,
}

/// Something that happened to the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// Renamed away or replaced; what follows is the new file.
    Rotated {
        /// Where the new file starts.
        next_offset: u64,
    },
    /// Shorter than what was read, or written anew.
    Truncated {
        /// How far it had been read.
        read_offset: u64,
        /// Its size when that was noticed.
        size: u64,
    },
    /// There is no file at the path now.
    Deleted,
    /// Lines are missing.
    Gap {
        /// Why, in words.
        reason: &'static str,
        /// How many bytes, where known.
        bytes: Option<u64>,
    },
}

/// A file that can be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FileInfo {
    /// `ROOT/relative/path`.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// When its content last changed.
    pub modified: SystemTime,
}

/// Some files.
#[derive(Clone, Debug)]
pub struct Page {
    /// Sorted by path.
    pub files: Vec<FileInfo>,
    /// The path to go on after, if there are more.
    pub next: Option<String>,
}

/// Why lines cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {}

impl Files {
    /// Opens a stream of lines. The first batch is ready at once.
    ///
    /// # Errors
    /// All that can be known before the first batch.
    pub async fn open(
        &self,
        query: Query,
    ) -> Result<impl Stream<Item = Result<Batch, Error>> + Send + 'static, Error> {
        let _ = (query, &self.inner);
        Ok(futures::stream::empty())
    }
}

//! Lines: a query for a file below a root, and the stream of its lines.
//!
//! A stream delivers the lines of a file in order, each once. When the file is rotated, the stream continues in the new
//! file; when it is truncated, from its start; an event reports either. Lines that cannot be delivered are reported as a
//! gap. A batch ends at a position, and the same query with that position continues exactly there.
//!
//! Data comes from the file alone: the thread that watches files only says when to read. A reader reads ahead at most
//! the rest of a chunk, so a slow reader costs no memory, and loses nothing while the data is on disk. Dropping a stream
//! frees everything it has; a search on a blocking thread ends soon after.
//!
//! A query opens only files below the roots that the operator configured, and only those that the rules of the root
//! admit: by the name that the caller asked for, or as a rotation of such a file. A position is untrusted, and never
//! widens the rules.
//!
//! The rooms, from the top: `reader` runs one stream. `seek` finds where it starts. `history` knows which file follows
//! which at a path, and `content` reads lines from one file. `watch` reports changes, and `root` is the sandbox that
//! opens every file.

use std::{
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::Stream;
use tokio_util::sync::CancellationToken;

use crate::{
    blocking::Pool,
    stream::{self, alarm::Alarms},
};
use content::filter::Engines;
use history::{archive::Archives, search::Heads};
use reader::opening::{Opening, Step};
use root::{FilePath, Roots, list::Range};
use seek::index::Indexes;
use watch::Watches;

mod content;
mod error;
mod history;
mod identity;
mod position;
mod query;
mod reader;
mod root;
mod seek;
mod shared_read;
mod tree;
mod watch;

pub use content::filter::{Filter, MAX_PATTERN_BYTES, MAX_PATTERNS, PatternFault, Patterns};
pub use content::rules::{Delimiter, LongLine, MAX_DELIMITER_BYTES, MIN_ASKED_LINE_BYTES, Rules};
pub use error::{Error, RootError};
pub use history::archive::Fault;
pub use position::Position;
pub use query::{OnGap, Query, Start};
pub use root::{
    MayRead, Root,
    list::Shows,
    rule::{Glob, GlobError, Paths, RootRules},
};
pub use tree::{
    Batch as FileBatch, Change, MAX_GLOB_BYTES, MAX_GLOBS, Position as FilePosition, Query as FileQuery,
};

/// The pauses after which a caller may ask for a partial line.
pub const PARTIAL_FLUSHES: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(60 * 60);

/// The default of [`Options::max_line_bytes`]: people do not read longer lines, and a reader holds one in memory.
const MAX_LINE_BYTES: usize = 1024 * 1024;

/// The default of [`Options::rotation_grace`]: writers reopen their log at a signal, within milliseconds.
const ROTATION_GRACE: Duration = Duration::from_millis(200);

/// The default of [`Options::max_rotated`]: far more than a rotation keeps.
const MAX_ROTATED: usize = 256;

/// The default of [`Options::max_watched_per_stream`]: about 20 MB for a stream, and far more than a client can follow.
const MAX_WATCHED_PER_STREAM: usize = 100_000;

/// The default of [`Options::max_watched`]: about 200 MB.
const MAX_WATCHED: usize = 1_000_000;

/// The files that can be read: the configured roots, and the thread that watches followed files. There is one for the
/// whole server; it is cheap to clone.
#[derive(Clone, Debug)]
pub struct Files {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    roots: Arc<Roots>,
    watches: Watches,
    notices: tree::notices::Notices,
    watched: tree::Watched,
    indexes: Indexes,
    heads: Heads,
    engines: Engines,
    archives: Arc<Archives>,
    alarms: Alarms,
    options: Options,
}

impl Inner {
    /// See [`Watches::is_foreign`].
    fn is_foreign(&self, path: &FilePath, file: &std::fs::File) -> bool {
        self.watches.is_foreign(path, file)
    }
}

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct Options {
    /// The most bytes of a line; a longer one is split. At least 4.
    pub max_line_bytes: usize,
    /// How long a renamed file must be quiet before its successor is read: its writer may not have reopened the log
    /// yet. Lines that are written to it later are delivered late, between the lines of its successor.
    pub rotation_grace: Duration,
    /// The most rotated files of a path that are kept open for readers that have not reached them. Others are opened
    /// when a reader reaches them; if they are gone by then, that is a gap. It is also the most files that a reader has
    /// left and still checks for late lines.
    pub max_rotated: usize,
    /// The most files and directories that all streams of files hold together.
    pub max_watched: usize,
    /// The most files and directories that a stream of files holds.
    pub max_watched_per_stream: usize,
    /// Where files are opened, searched, read and listed.
    pub pool: Pool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_line_bytes: MAX_LINE_BYTES,
            rotation_grace: ROTATION_GRACE,
            max_rotated: MAX_ROTATED,
            max_watched: MAX_WATCHED,
            max_watched_per_stream: MAX_WATCHED_PER_STREAM,
            pool: Pool::default(),
        }
    }
}

/// Lines, encoded by [`wire::line`](crate::wire::line) as `ReadLinesResponse.lines`, and the position after them.
pub type Batch = stream::Batch<Event, Position, Progress>;

/// How far the stream of a file is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// The batch ends at the end of the file, and no newer file is waiting.
    pub caught_up: bool,
    /// The offset after the last line that was delivered or left out.
    pub next_offset: u64,
    /// The size of the file in bytes when it was last read.
    pub size: u64,
}

/// Something that happened to the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// The file was renamed away or replaced. The next line is from the new file.
    Rotated {
        /// Where the new file is read from: 0, or where it was read up to before.
        next_offset: u64,
    },
    /// The file is shorter than the part that was read, or was rewritten. It is read from its start.
    Truncated {
        /// How far the file had been read.
        read_offset: u64,
        /// Its size in bytes when the reader noticed.
        size: u64,
    },
    /// No file is at the path now.
    Deleted,
    /// A file is at the path, after none was.
    Opened {
        /// Its size in bytes.
        size: u64,
    },
    /// Bytes that were never written were skipped.
    Hole {
        /// Where the hole starts.
        offset: u64,
        /// Its length.
        bytes: u64,
    },
    /// Lines are missing.
    Gap {
        /// Why they are missing.
        reason: GapReason,
        /// The missing bytes, where their number is known.
        bytes: Option<u64>,
    },
    /// Lines were written to the previous file after the reader had left it. They follow now; then an event
    /// [`Rotated`](Self::Rotated) leads back to the present file.
    Late {
        /// Where the late lines start.
        offset: u64,
    },
    /// Where the stream continues. The first event of a stream that resumes.
    Resumed(Found),
}

/// Why lines are missing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum GapReason {
    /// The file was truncated before they were read.
    Truncated,
    /// Their file was deleted before it was read.
    Deleted,
    /// The file that the position is in was not found.
    Expired,
    /// They were written into a hole after it was passed.
    Filled,
    /// They are in a compressed file that cannot be read, or not to its end.
    Unreadable {
        /// The name of the file.
        name: Arc<str>,
        /// Why it cannot be read.
        fault: Fault,
        /// Lines after this offset of its content were read, and were not confirmed by a checksum.
        unconfirmed: Option<u64>,
    },
}

/// Which file a position was found in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Found {
    /// The same file, at its path.
    Exact,
    /// The same file under another name, or another file that begins with everything that was read: also a copy that was
    /// made before the file was truncated.
    Moved,
    /// The same file, but truncated or rewritten since.
    Truncated,
    /// No such file.
    Lost,
}

/// A file that can be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FileInfo {
    /// `ROOT/relative/path`.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// When the content last changed.
    pub modified: SystemTime,
    /// When the file was created, where the file system records it.
    pub created: Option<SystemTime>,
    /// The content changed within the last minute.
    pub growing: bool,
}

/// One page of a list of files.
#[derive(Clone, Debug)]
pub struct Page {
    /// Sorted by path.
    pub files: Vec<FileInfo>,
    /// The path after which the next page starts; `None` on the last page.
    pub next: Option<String>,
}

/// Every root that cannot be served, and why.
pub fn faults_of_roots(roots: &[Root]) -> Vec<RootError> {
    roots.iter().filter_map(|root| Roots::open(vec![root.clone()]).err()).collect()
}

impl Files {
    /// Opens the roots, and starts the thread that watches followed files.
    ///
    /// # Errors
    /// The first root that cannot be served, or a thread that does not start.
    pub fn new(roots: Vec<Root>, options: Options) -> Result<Self, RootError> {
        let roots = Arc::new(Roots::open(roots)?);
        let watches = Watches::new(roots.clone(), options.max_rotated).map_err(RootError::Watch)?;
        let notices = tree::notices::Notices::new().map_err(RootError::Watch)?;
        Ok(Self {
            inner: Arc::new(Inner {
                roots,
                watches,
                notices,
                watched: tree::Watched::new(options.max_watched),
                indexes: Indexes::default(),
                heads: Heads::default(),
                engines: Engines::default(),
                archives: Arc::default(),
                alarms: Alarms::default(),
                options,
            }),
        })
    }

    /// [`Options::max_line_bytes`].
    pub fn max_line_bytes(&self) -> usize {
        self.inner.options.max_line_bytes
    }

    /// How many files and directories all streams of files hold.
    pub fn watched(&self) -> usize {
        self.inner.watched.count()
    }

    /// Opens a stream of lines. Its first batch leaves at once; if a position is searched for longer than a heartbeat,
    /// heartbeats leave meanwhile.
    ///
    /// # Errors
    /// Everything that can be known before the first batch.
    pub async fn open(
        &self,
        query: Query,
    ) -> Result<impl Stream<Item = Result<Batch, Error>> + Send + use<>, Error> {
        let mut opening = Opening::new(self.inner.clone(), query);
        let mut step = opening.next().await?;
        Ok(async_stream::try_stream!({
            let mut reader = loop {
                match step {
                    Step::Reader(reader) => break reader,
                    Step::Heartbeat(batch) => yield batch,
                }
                step = opening.next().await?;
            };
            drop(opening);
            while let Some(filled) = reader.wait().await? {
                yield reader.batch(filled);
            }
        }))
    }

    /// Opens a stream of the files that match globs: those that are there, and then those that appear and go. Its first
    /// batch leaves at once.
    ///
    /// # Errors
    /// [`Error::Globs`]; [`Error::Glob`]; [`Error::NotFound`] if there is no such root; [`Error::Mismatch`]. Later also
    /// [`Error::TooManyFiles`] and [`Error::TooManyWatched`].
    pub fn watch(
        &self,
        query: FileQuery,
    ) -> Result<impl Stream<Item = Result<FileBatch, Error>> + Send + use<>, Error> {
        let mut watcher = tree::Watcher::open(&self.inner, query)?;
        Ok(async_stream::try_stream!({
            while let Some(batch) = watcher.next().await? {
                yield batch;
            }
        }))
    }

    /// Lists the files that can be read below a root (`ROOT`), below a directory of one (`ROOT/dir`), or below all
    /// roots. They are sorted by path: at most `page_size`, and only those after the path `after`. A file whose content
    /// changed within a minute before `now` is growing.
    ///
    /// # Errors
    /// [`Error::PathInvalid`]; [`Error::NotFound`] if there is no such root or directory; [`Error::Io`].
    pub async fn list(
        &self,
        path: Option<&str>,
        page_size: usize,
        after: Option<&str>,
        now: SystemTime,
    ) -> Result<Page, Error> {
        self.list_if(path, page_size, after, now, Shows::default()).await
    }

    /// The same, of the files that `shows` has.
    ///
    /// # Errors
    /// Those of [`Self::list`].
    pub async fn list_if(
        &self,
        path: Option<&str>,
        page_size: usize,
        after: Option<&str>,
        now: SystemTime,
        shows: Shows,
    ) -> Result<Page, Error> {
        let gone = CancellationToken::new();
        // The walk ends when the caller is gone.
        let _guard = gone.clone().drop_guard();
        let (inner, path) = (self.inner.clone(), path.map(str::to_owned));
        let after = after.map(str::to_owned);
        let range = Range { most: page_size, after, now, gone, shows };
        let pool = inner.options.pool.clone();
        reader::blocking(&pool, move || inner.roots.list(path.as_deref(), range)).await
    }
}

#[cfg(test)]
mod tests;

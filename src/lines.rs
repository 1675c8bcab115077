//! Lines: a query for a file below a root, and the stream of its lines.
//!
//! Lines come in the order of the file, each once, in batches that end where their position says. Where the file is
//! rotated, the stream goes on in the next one; where it is truncated, from its start; each is told as an event. Data
//! comes from the file alone: what watches it only says when to look. A stream reads nothing ahead but the rest of a
//! chunk, so a slow reader costs no memory, and loses nothing while the data is on disk. Dropping a stream frees all
//! that it has.
//!
//! The rooms: [`root`](self) opens files and nothing outside the roots; `watch` tells when to look, and keeps the chain
//! of the files that came to a path; `generations` knows a file's rotated siblings; `start` finds where to begin, with
//! `place` and `index`; `chain` is which file a reader is in; `source` reads it, `split` finds and encodes its lines,
//! `hole` passes what was never written; `reader` is what happens in time.

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::Stream;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::stream::{self, Batching};
use index::Indexes;
use reader::Reader;
use root::{Roots, list::Range};
use source::{Identity, Standing};
use split::Place;
pub use split::{Delimiter, LongLine, Rules};
use watch::Watches;

mod chain;
mod generations;
mod hole;
mod index;
mod place;
mod reader;
mod root;
mod source;
mod split;
mod start;
mod watch;

pub use root::{
    Root,
    rule::{Glob, GlobError, RootRules},
};

/// The default of [`Options::max_line_bytes`]: longer lines are no lines for people, and a reader holds one in memory.
const MAX_LINE_BYTES: usize = 1024 * 1024;

/// The default of [`Options::rotation_grace`]: writers reopen their log at a signal, within milliseconds.
const ROTATION_GRACE: Duration = Duration::from_millis(200);

/// The default of [`Options::max_rotated`]: far more than a rotation keeps. Later ones are opened when they are reached,
/// if they are still there.
const MAX_ROTATED: usize = 256;

/// The files that can be read: the operator's roots, and what watches them. One for the whole server; cheap to clone.
#[derive(Clone, Debug)]
pub struct Files {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    roots: Arc<Roots>,
    watches: Watches,
    indexes: Indexes,
    options: Options,
}

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct Options {
    /// A longer line is split; in bytes, at least 4.
    pub max_line_bytes: usize,
    /// How long a file that was renamed away must be quiet before its successor is read: its writer may not have
    /// noticed yet. What is written to it later comes late, between the lines of its successor.
    pub rotation_grace: Duration,
    /// How many rotated files of a path are kept open for readers that have not reached them.
    pub max_rotated: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_line_bytes: MAX_LINE_BYTES, rotation_grace: ROTATION_GRACE, max_rotated: MAX_ROTATED }
    }
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
    /// Wait for a file that is not there yet; for one who follows.
    pub wait_for_create: bool,
    /// What to do when the place that a position names is gone.
    pub on_gap: OnGap,
    /// What a line is, and which is the last.
    pub rules: Rules,
    /// Yield a part of a line that did not grow for so long; for one who follows.
    pub partial_flush: Option<Duration>,
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
pub struct Position {
    /// A checksum of the path.
    path: u32,
    identity: Identity,
    standing: Standing,
    /// No line before this number.
    skip_to: Option<u64>,
    /// All of the file was delivered and it is gone; what appears at the path comes next.
    deleted: bool,
    /// Where another file is read on, which was left for late lines of this one.
    back: Option<(Identity, Standing)>,
}

impl Position {
    /// It could have been made by a reader: a position comes from a stranger.
    fn is_sound(&self) -> bool {
        // An offset is signed in the system's interface; a line has at least one byte, its newline.
        let is_sound = |Standing { place: Place { offset, number, .. }, .. }: &Standing| {
            i64::try_from(*offset).is_ok() && number.is_none_or(|number| (1..=offset + 1).contains(&number))
        };
        is_sound(&self.standing)
            && self.back.as_ref().is_none_or(|(_, standing)| is_sound(standing))
            && self.skip_to.is_none_or(|number| i64::try_from(number).is_ok())
    }
}

/// Lines, encoded by [`wire::line`](crate::wire::line) as `ReadLinesResponse.lines`, and the position after them.
pub type Batch = stream::Batch<Event, Position, Progress>;

/// How far the stream of a file is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// The batch ends at the end of the file.
    pub caught_up: bool,
    /// The offset after the last line.
    pub next_offset: u64,
    /// The size of the file when it was last inspected.
    pub size: u64,
}

/// Something that happened to the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
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
    /// There is one, after there was none.
    Opened {
        /// Its size in bytes.
        size: u64,
    },
    /// Bytes that were never written were passed over.
    Hole {
        /// Where they begin.
        offset: u64,
        /// How many they are.
        bytes: u64,
    },
    /// Lines are missing.
    Gap {
        /// Why.
        reason: GapReason,
        /// How many bytes, where known.
        bytes: Option<u64>,
    },
    /// Lines were written to the file before, after it had been left: they come now, and then the present one goes on.
    Late {
        /// Where they start.
        offset: u64,
    },
    /// What was found where the position points; the first event of a stream that resumes.
    Resumed(Found),
}

/// Why lines are missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GapReason {
    /// They were truncated away before they were read.
    Truncated,
    /// Their file was deleted before it was read.
    Deleted,
    /// The place that a position names is gone.
    Expired,
}

/// What was found where a position points.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Found {
    /// The file that was read, at its path.
    Exact,
    /// The file that was read, under another name, or one that begins with all that was read of it.
    Moved,
    /// The file that was read, truncated or written anew.
    Truncated,
    /// Not the file that was read.
    Lost,
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
    /// When it was made, where the file system tells.
    pub created: Option<SystemTime>,
    /// It was written to within the last minute.
    pub growing: bool,
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
pub enum Error {
    /// Not of the form `ROOT/relative/path`.
    #[error("the path {fault}")]
    PathInvalid {
        /// What is wrong with it.
        fault: &'static str,
    },
    /// Missing, not allowed, outside the root, or no regular file: these look alike.
    #[error("no file `{path}`")]
    NotFound {
        /// As the caller gave it.
        path: String,
    },
    /// Lines are counted from 1.
    #[error("there is no line 0")]
    LineZero,
    /// An end by a line's number needs a start whose number is known.
    #[error("the numbers of the lines are not known")]
    NumbersUnknown,
    /// The file is shorter.
    #[error("offset {offset} is beyond the end of the file, {size}")]
    OffsetBeyondEnd {
        /// As asked for.
        offset: u64,
        /// Of the file, in bytes.
        size: u64,
    },
    /// The position is one of another path.
    #[error("a position in another file")]
    Mismatch,
    /// What the position points at is gone.
    #[error("the file that was being read is gone")]
    Expired,
    /// The position could not have been made by a reader.
    #[error("an impossible position")]
    PositionInvalid,
    /// The file system gave an error.
    #[error("reading went wrong")]
    Io(#[from] io::Error),
}

impl Error {
    /// Of opening a file: whatever lies with the path looks alike; what lies with the server does not.
    fn of_open(error: io::Error, path: &str) -> Self {
        use rustix::io::Errno;
        let servers_own = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::IO].map(Errno::raw_os_error);
        match error.raw_os_error() {
            Some(code) if servers_own.contains(&code) => Self::Io(error),
            _ => Self::NotFound { path: path.into() },
        }
    }
}

/// Why a root cannot be served: for the operator.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// Not a name.
    #[error("`{name}` is no name for a root: use letters, digits, `_` and `-`")]
    Name {
        /// As given.
        name: String,
    },
    /// Two roots of one name.
    #[error("the root `{name}` is given twice")]
    Twice {
        /// As given.
        name: String,
    },
    /// No directory that can be opened.
    #[error("the root `{name}`: {}: {source}", path.display())]
    Open {
        /// As given.
        name: String,
        /// Its directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What watches the files cannot be started.
    #[error("files cannot be watched")]
    Watch(#[source] io::Error),
    /// Too many globs, or too large ones.
    #[error("the root `{name}`: its globs cannot be used together: {fault}")]
    Globs {
        /// As given.
        name: String,
        /// Why not.
        fault: String,
    },
}

impl Files {
    /// Opens the roots, and starts the thread that watches followed files.
    ///
    /// # Errors
    /// The first root that cannot be served.
    pub fn new(roots: Vec<Root>, options: Options) -> Result<Self, RootError> {
        let roots = Arc::new(Roots::open(roots)?);
        let watches = Watches::new(roots.clone(), options.max_rotated).map_err(RootError::Watch)?;
        Ok(Self { inner: Arc::new(Inner { roots, watches, indexes: Indexes::default(), options }) })
    }

    /// The most bytes of a line.
    pub fn max_line_bytes(&self) -> usize {
        self.inner.options.max_line_bytes
    }

    /// Opens a stream of lines. The first batch is ready at once.
    ///
    /// # Errors
    /// All that can be known before the first batch.
    pub async fn open(
        &self,
        query: Query,
    ) -> Result<impl Stream<Item = Result<Batch, Error>> + Send + use<>, Error> {
        let mut reader = Reader::open(&self.inner, query).await?;
        Ok(async_stream::try_stream!({
            while let Some(filled) = reader.wait().await? {
                yield reader.batch(filled);
            }
        }))
    }

    /// Lists the files that can be read below a root (`ROOT`), a directory of one (`ROOT/dir`), or all roots: sorted
    /// by path, at most `page_size`, those behind `after`. `now` tells which of them grow.
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
        let gone = CancellationToken::new();
        // A caller who goes away ends the walk.
        let _guard = gone.clone().drop_guard();
        let (inner, path) = (self.inner.clone(), path.map(str::to_owned));
        let range = Range { most: page_size, after: after.map(str::to_owned), now, gone };
        reader::blocking(move || inner.roots.list(path.as_deref(), range)).await
    }
}

#[cfg(test)]
mod tests;

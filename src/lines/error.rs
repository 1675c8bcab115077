//! Why lines cannot be read, and why a root cannot be served.

use std::{io, path::PathBuf, time::Duration};

use super::PatternFault;

/// Why a stream of lines or a list of files does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path has not the form `ROOT/relative/path`.
    #[error("the path {fault}")]
    PathInvalid {
        /// What is wrong with the path, as the end of a sentence that starts with it.
        fault: &'static str,
    },
    /// The file is missing, denied, not allowed, outside the root, or not a regular file. These cases look alike, so
    /// that a caller learns nothing about files that it may not read.
    #[error("no file `{path}`")]
    NotFound {
        /// The path that the caller asked for.
        path: String,
    },
    /// The query starts or ends with line 0; lines are counted from 1.
    #[error("{field} is 0, and lines are counted from 1")]
    LineZero {
        /// The field that names the line.
        field: &'static str,
    },
    /// The query ends at a line's number, but starts where the number is not known.
    #[error("the numbers of the lines are not known")]
    NumbersUnknown,
    /// The query sets a field that has no effect unless it follows the file.
    #[error("{field} needs a query that follows")]
    NeedsFollow {
        /// The name of the field.
        field: &'static str,
    },
    /// The query reads the whole history, and sets a field that is of one file.
    #[error("{field} is of one file, and the query reads the whole history")]
    NotInHistory {
        /// The name of the field.
        field: &'static str,
    },
    /// The position is in a compressed file, which only a query for the whole history reads.
    #[error("a position in a compressed file needs a query for the whole history")]
    NeedsHistory,
    /// The pause before a partial line is yielded is not in [`PARTIAL_FLUSHES`](super::PARTIAL_FLUSHES).
    #[error("a partial line after {pause:?}")]
    PartialFlush {
        /// The pause.
        pause: Duration,
    },
    /// The delimiter is empty, or longer than [`MAX_DELIMITER_BYTES`](super::MAX_DELIMITER_BYTES).
    #[error("a delimiter of {bytes} bytes")]
    DelimiterLength {
        /// The length of the delimiter.
        bytes: usize,
    },
    /// The longest line is below [`MIN_ASKED_LINE_BYTES`](super::MIN_ASKED_LINE_BYTES), or above the operator's limit.
    #[error("lines of {asked} bytes, where {limit} is the limit")]
    LineBytes {
        /// The number of bytes that the caller asked for.
        asked: usize,
        /// The operator's limit.
        limit: usize,
    },
    /// The filter has a pattern that cannot be used.
    #[error("{field}: {fault}")]
    Pattern {
        /// The name of the field.
        field: &'static str,
        /// Why it cannot be used.
        fault: PatternFault,
    },
    /// The globs of a query for files cannot be used.
    #[error("globs {fault}")]
    Globs {
        /// What is wrong with them, as the end of a sentence that starts with the name of the field.
        fault: String,
    },
    /// One of the globs of a query for files cannot be used.
    #[error("globs[{index}] {fault}")]
    Glob {
        /// Which one, counted from 0.
        index: usize,
        /// What is wrong with it, as the end of a sentence that starts with the name of the field.
        fault: String,
    },
    /// The globs match more files, or lead through more directories, than a stream may hold.
    #[error("more than {limit} files and directories")]
    TooManyFiles {
        /// The most files and directories of a stream.
        limit: usize,
    },
    /// All streams of files together would hold more files and directories than they may.
    #[error("more than {limit} files and directories of all streams")]
    TooManyWatched {
        /// The most files and directories of all streams.
        limit: usize,
    },
    /// The query starts at an offset after the end of the file.
    #[error("offset {offset} is beyond the end of the file, {size}")]
    OffsetBeyondEnd {
        /// The offset that the caller asked for.
        offset: u64,
        /// The size of the file in bytes.
        size: u64,
    },
    /// The position belongs to another path.
    #[error("a position in another file")]
    Mismatch,
    /// The file that the position is in was not found, and the query asks to fail then.
    #[error("the file that was being read is gone")]
    Expired,
    /// No reader makes such a position.
    #[error("an impossible position")]
    PositionInvalid,
    /// The file system reported an error that is not the path's fault.
    #[error("the file system reported an error")]
    Io(#[from] io::Error),
}

impl Error {
    /// The error of a file that cannot be opened: [`NotFound`](Self::NotFound), unless the server itself is at fault.
    pub(super) fn of_open(error: io::Error, path: &str) -> Self {
        if is_servers_own(&error) { Self::Io(error) } else { Self::NotFound { path: path.into() } }
    }
}

/// Whether an error is the server's or the machine's fault: no descriptors or memory left, or a broken disk.
pub(super) fn is_servers_own(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let own = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::IO].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| own.contains(&code))
}

/// Why a root cannot be served; for the operator.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The name has other characters than letters, digits, `_` and `-`, or none.
    #[error("`{name}` is no name for a root: use letters, digits, `_` and `-`")]
    Name {
        /// The name as configured.
        name: String,
    },
    /// Two roots have one name.
    #[error("the root `{name}` is given twice")]
    Twice {
        /// The name as configured.
        name: String,
    },
    /// The directory cannot be opened.
    #[error("the root `{name}`: {}: {source}", path.display())]
    Open {
        /// The name of the root.
        name: String,
        /// The directory as configured.
        path: PathBuf,
        /// Why it cannot be opened.
        source: io::Error,
    },
    /// The thread that watches followed files does not start.
    #[error("files cannot be watched")]
    Watch(#[source] io::Error),
    /// There are too many globs, or one of them is too large.
    #[error("the root `{name}`: its globs cannot be used together: {fault}")]
    Globs {
        /// The name of the root.
        name: String,
        /// What is wrong with the globs.
        fault: String,
    },
}

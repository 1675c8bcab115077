//! Tools for a log at rest, or beside the server that writes it. They read its directory, and need no server.
//!
//! [`verify`] reads every byte, [`Archive::stats`] reads the indexes, [`Export`] writes the messages that a reader
//! would get, and [`import`] makes a new log of such messages. [`backup()`] copies the files of a log, and [`restore`]
//! makes a log of such a copy. All but `import` and `restore` only read the log: they take no lock and never write into
//! its directory. A commit that the server is writing at the end of the log is left out, and is not damage.

use std::{
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
};

use crate::messages::{OpenError, SequenceRange};

mod archive;
mod backup;
mod export;
mod import;
mod object;
mod stats;
mod verify;

pub use archive::Archive;
pub use backup::{BackedUp, Restored, backup, check as check_backup, restore};
pub use export::{Export, Selection};
pub use import::{Imported, import};
pub use stats::{ConsumerStats, End, Stats, TopicStats};
pub use verify::{Verified, verify};

/// Why a tool fails. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no log in the directory.
    #[error("there is no log in {}: name the server's data directory with --data", directory.display())]
    NoLog {
        /// The directory.
        directory: PathBuf,
    },
    /// The log cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An I/O error.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The export cannot be written.
    #[error("the output: {0}")]
    Output(io::Error),
    /// The import cannot be read.
    #[error("the input: {0}")]
    Input(io::Error),
    /// The directory to import into holds messages.
    #[error(
        "{} holds a log with {messages} messages: import makes a new one, so give it another directory with --data",
        directory.display()
    )]
    Occupied {
        /// The directory.
        directory: PathBuf,
        /// The number of messages that it holds.
        messages: u64,
    },
    /// The directory of a backup is in the data directory, or the other way round.
    #[error("{} and the data directory overlap: make the backup in another directory, best on another disk", directory.display())]
    InsideData {
        /// The directory.
        directory: PathBuf,
    },
    /// Another backup is being made in the directory.
    #[error("another process makes a backup in {}: wait until it has ended", directory.display())]
    BackupInUse {
        /// The directory.
        directory: PathBuf,
    },
    /// The directory for a backup holds other files.
    #[error("{} holds files that are no backup: name an empty or a new directory", directory.display())]
    NotABackup {
        /// The directory.
        directory: PathBuf,
    },
    /// The directory holds the backup of another log.
    #[error("{} holds the backup of another log: name another directory", directory.display())]
    OtherBackup {
        /// The directory.
        directory: PathBuf,
    },
    /// The record of a backup is of a later version.
    #[error("{} has version {version}, which this program does not know: use the one that made the backup", path.display())]
    BackupVersion {
        /// The record.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The record of a backup names a file that no log has.
    #[error(
        "{} names the file {name:?}, which is no file of a log: the record was changed, so use another backup",
        path.display()
    )]
    RecordedName {
        /// The record.
        path: PathBuf,
        /// The name in it.
        name: String,
    },
    /// The backup before has messages that the log has lost.
    #[error(
        "the log has lost messages that the backup in {} has, so that backup is kept: restore it, or replace it with \
         --replace:\n  {}",
        directory.display(),
        Losses(losses)
    )]
    Worse {
        /// The directory of the backup.
        directory: PathBuf,
        /// The faults of the log that the backup does not have.
        losses: Vec<Finding>,
    },
    /// The log changes faster than it can be copied.
    #[error("{} changes too often to be copied, or its clock is set again and again: try again", directory.display())]
    Unsteady {
        /// The directory or the file.
        directory: PathBuf,
    },
    /// There is no backup in the directory.
    #[error("there is no whole backup in {}: name the directory that was given to `log backup`", directory.display())]
    NoBackup {
        /// The directory.
        directory: PathBuf,
    },
    /// The only backup in the directory was interrupted.
    #[error("the backup in {} was interrupted: run `log backup` again, which continues it", directory.display())]
    NotWhole {
        /// The directory.
        directory: PathBuf,
    },
    /// A file of a backup is not as it was written.
    #[error("{} is missing or was changed since the backup was made: restore another backup", path.display())]
    NotAsRecorded {
        /// The file.
        path: PathBuf,
    },
    /// The directory to restore into holds a log.
    #[error("{} holds a log: restore into a data directory without one, named with --data", directory.display())]
    HoldsLog {
        /// The directory.
        directory: PathBuf,
    },
    /// Lines of the import are wrong.
    #[error("nothing is imported: {}", Listed(lines, *more))]
    Lines {
        /// The numbers of the first wrong lines, from 1, and what is wrong with them.
        lines: Vec<(u64, String)>,
        /// The number of further wrong lines.
        more: u64,
    },
}

struct Listed<'a>(&'a [(u64, String)], u64);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(lines, more) = self;
        for (place, (number, fault)) in lines.iter().enumerate() {
            let separator = if place == 0 { "" } else { "\n  " };
            write!(f, "{separator}line {number}: {fault}")?;
        }
        if *more > 0 { write!(f, "\n  and {more} more") } else { Ok(()) }
    }
}

/// The number of faults that an error lists.
const MAX_LISTED: usize = 10;

struct Losses<'a>(&'a [Finding]);

impl fmt::Display for Losses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(losses) = self;
        for (place, loss) in losses.iter().take(MAX_LISTED).enumerate() {
            write!(f, "{}{loss}", if place == 0 { "" } else { "\n  " })?;
        }
        let more = losses.len().saturating_sub(MAX_LISTED);
        if more > 0 { write!(f, "\n  and {more} more") } else { Ok(()) }
    }
}

/// Something that a tool found in the directory of a log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// The bytes of the file that it is about; `None` for the whole file.
    pub bytes: Option<Range<u64>>,
    /// What was found.
    pub fault: Fault,
}

impl Finding {
    fn new(path: &Path, bytes: impl Into<Option<Range<u64>>>, fault: Fault) -> Self {
        Self { path: path.into(), bytes: bytes.into(), fault }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, bytes, fault } = self;
        write!(f, "{}: ", path.display())?;
        if let Some(bytes) = bytes {
            write!(f, "bytes {} to {}: ", bytes.start, bytes.end)?;
        }
        write!(f, "{fault}")
    }
}

/// What a tool found. Not every fault is damage: see [`Fault::is_damage`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Fault {
    /// The header of a segment is damaged.
    #[error("the header is damaged")]
    Header,
    /// A segment was renamed.
    #[error("the name says that sequences begin with {name}, the header says {header}")]
    Name {
        /// The first sequence in the name.
        name: u64,
        /// The first sequence in the header.
        header: u64,
    },
    /// Bytes between records that are not a record.
    #[error("damaged{}", Missing(*missing))]
    NoRecord {
        /// The sequences that may be missing; `None` if no message is missing.
        missing: Option<SequenceRange>,
    },
    /// The checksum of a message is wrong.
    #[error("sequence {sequence}, a message of `{topic}`, is damaged")]
    Message {
        /// Its sequence.
        sequence: u64,
        /// Its topic.
        topic: String,
    },
    /// A message differs from the table of its block, though the checksums of both are right.
    #[error("sequence {sequence}, a message of `{topic}`, differs from the table of its block")]
    Disagrees {
        /// Its sequence.
        sequence: u64,
        /// Its topic.
        topic: String,
    },
    /// The time of a block is lower than that of an earlier one.
    #[error("the time of the block with sequence {sequence} is before that of an earlier block")]
    Time {
        /// The first sequence of the block.
        sequence: u64,
    },
    /// A part of an index is damaged.
    #[error("the index is damaged: {part}; the server builds it again from the messages when it starts")]
    Index {
        /// The part.
        part: String,
    },
    /// An index differs from the messages.
    #[error("the index differs from the messages: {part}")]
    IndexDisagrees {
        /// The part.
        part: String,
    },
    /// The last commit is not complete, and is not being written.
    #[error(
        "the last commit is not complete, from sequence {from} on: the server sets it aside when it starts"
    )]
    Torn {
        /// The first sequence that may be in it.
        from: u64,
    },
    /// The file of trim points is not valid.
    #[error("{0}: removed messages that are still on disk will be served again")]
    TrimPoints(String),
    /// The file of a segment is missing.
    #[error("the file is missing, with {}: restore it from a copy of this directory", Missing::of(*first, *last))]
    Lost {
        /// The lowest sequence that it may have held,
        first: u64,
        /// and the highest one; `None` if that is unknown.
        last: Option<u64>,
    },
    /// Sequences that are missing, of no file that is known.
    #[error("{} are missing: they were in a file that is lost, or in the damaged part of one that was deleted since", Missing::of(*first, *last))]
    LostRange {
        /// The lowest of them,
        first: u64,
        /// and the highest one; `None` if that is unknown.
        last: Option<u64>,
    },
    /// No copy of the manifest is valid.
    #[error(
        "the manifest is lost: whether all segments are there is only known from the segments themselves"
    )]
    ManifestLost,
    /// One copy of the manifest is not valid; the other one is.
    #[error("this copy of the manifest is not whole: the server writes it again when it starts")]
    ManifestCopy,
    /// One of the two copies of the file of trim points is not whole; the other one is.
    #[error("{0}: the other copy is used, and the server writes this one again when it starts")]
    Copy(String),
    /// A file of a backup is missing, or was changed since.
    #[error("is missing or was changed since the backup was made")]
    NotAsRecorded,
    /// A full segment has no index yet. Not damage.
    #[error("has no index yet: the server writes it when it starts")]
    NoIndex,
    /// A file with a tail that was torn off the log. Not damage.
    #[error("a torn tail of {bytes} bytes that was set aside: it was never acknowledged")]
    SetAside {
        /// The size of the tail.
        bytes: u64,
    },
    /// A segment that a compacted one replaces. Not damage.
    #[error("was compacted: the server removes it")]
    Superseded,
}

impl Fault {
    /// Whether bytes are not as they were written. Other faults are only worth knowing.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::NoIndex | Self::SetAside { .. } | Self::Superseded)
    }
}

/// Sequences that may be missing.
struct Missing(Option<SequenceRange>);

impl Missing {
    /// The sequences that the file of a segment held.
    fn of(first: u64, last: Option<u64>) -> String {
        match last {
            Some(last) => format!("sequences {first} to {last}"),
            None => format!("all messages from sequence {first} on"),
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => write!(f, ", no message is missing"),
            Some(SequenceRange { first, last }) if first == last => {
                write!(f, ", sequence {first} may be missing")
            }
            Some(SequenceRange { first, last }) => write!(f, ", sequences {first} to {last} may be missing"),
        }
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_path_buf();
    move |source| Error::Io { path, source }
}

#[cfg(test)]
mod tests;

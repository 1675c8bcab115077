//! Tools for a log at rest, or beside the server that writes it: they read its directory, and need no server.
//!
//! [`verify`] reads every byte, [`stats`] what the indexes tell, [`export`] gives the messages that readers would get,
//! and [`import`] makes a new log of such. All but the last only read, take no lock, and never write into the directory:
//! what is being written to the end of the log is left out, and no damage.

use std::{
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
};

use super::OpenError;

mod archive;
mod export;
mod import;
mod object;
mod stats;
mod verify;

pub use archive::Archive;
pub use export::{Export, Selection};
pub use import::{Imported, import};
pub use stats::{ConsumerStats, End, Stats, TopicStats};
pub use verify::{Verified, verify};

/// Why a tool does not come to its end. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no log in the directory.
    #[error("there is no log in {}: name the server's data directory with --data", directory.display())]
    NoLog {
        /// Where it would be.
        directory: PathBuf,
    },
    /// The log cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The file system gave an error.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What.
        source: io::Error,
    },
    /// What is exported cannot be written.
    #[error("the output: {0}")]
    Output(io::Error),
    /// What is to be imported cannot be read.
    #[error("the input: {0}")]
    Input(io::Error),
    /// A log that is to be made is there already.
    #[error(
        "{} holds a log with {messages} messages: import makes a new one, so give it another directory with --data",
        directory.display()
    )]
    Occupied {
        /// Where.
        directory: PathBuf,
        /// How many.
        messages: u64,
    },
    /// What is to be imported is wrong.
    #[error("nothing is imported: {}", Listed(lines, *more))]
    Lines {
        /// The numbers of lines, from 1, and what is wrong with them.
        lines: Vec<(u64, String)>,
        /// How many lines more are wrong.
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

/// Something that was found in a log's directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub bytes: Option<Range<u64>>,
    /// What.
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

/// What was found.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Fault {
    /// The beginning of a segment.
    #[error("the header is damaged")]
    Header,
    /// A segment that was renamed.
    #[error("the name says that sequences begin with {name}, the header says {header}")]
    Name {
        /// As the name tells.
        name: u64,
        /// As the header tells.
        header: u64,
    },
    /// Bytes between records that are none.
    #[error("damaged{}", Lost(*from, *to))]
    NoRecord {
        /// The first sequence that may have been there.
        from: u64,
        /// The last one; less than the first where none is missing.
        to: u64,
    },
    /// A message whose checksum does not hold.
    #[error("sequence {sequence}, a message of `{topic}`, is damaged")]
    Message {
        /// Its place.
        sequence: u64,
        /// Its topic.
        topic: String,
    },
    /// A message that is whole, and not what its block says.
    #[error("sequence {sequence}, a message of `{topic}`, is not what the table of its block says")]
    Disagrees {
        /// Its place.
        sequence: u64,
        /// Its topic.
        topic: String,
    },
    /// A time that is lower than that of an earlier block.
    #[error("the time of the block with sequence {sequence} is before that of an earlier block")]
    Time {
        /// The first one of the block.
        sequence: u64,
    },
    /// A part of an index whose checksum does not hold.
    #[error("the index is damaged: {part}; it is made anew from the messages when the server starts")]
    Index {
        /// Which one.
        part: String,
    },
    /// An index that does not say what the blocks say.
    #[error("the index does not say what the messages say: {part}")]
    IndexDisagrees {
        /// Which part.
        part: String,
    },
    /// The last commit is not whole, and nobody writes it.
    #[error("the last commit is not whole{}: the server sets it aside when it starts", Lost(*from, u64::MAX))]
    Torn {
        /// The first sequence that may be in it.
        from: u64,
    },
    /// The file of what was removed.
    #[error("{0}: what was removed and is still on disk is served again")]
    Removed(String),
    /// A segment that is full and has no index yet. No damage.
    #[error("has no index yet: the server makes it when it starts")]
    NoIndex,
    /// A tail that was torn once. No damage.
    #[error("was torn off the log, {bytes} bytes, and set aside: it was never acknowledged")]
    SetAside {
        /// How many bytes.
        bytes: u64,
    },
    /// A segment that another one stands for. No damage.
    #[error("was rewritten: the server removes it")]
    Superseded,
}

impl Fault {
    /// Something is not what was written; else it is only good to know.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::NoIndex | Self::SetAside { .. } | Self::Superseded)
    }
}

/// Sequences that may be missing.
struct Lost(u64, u64);

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self(from, to) if from > to => write!(f, ", no message is missing"),
            Self(from, to) if from == to => write!(f, ", sequence {from} may be missing"),
            Self(from, u64::MAX) => write!(f, ", from sequence {from} on"),
            Self(from, to) => write!(f, ", sequences {from} to {to} may be missing"),
        }
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_path_buf();
    move |source| Error::Io { path, source }
}

#[cfg(test)]
mod tests;

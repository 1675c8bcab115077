//! The operator's settings of a log, and the report of opening it.

use std::{
    fs, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    clock::Clock,
    embedded::{Storage, disk::FileId},
    retention,
};
use crate::blocking::Pool;

/// The default of [`Config::max_message_bytes`].
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// The limits of [`Config::segment_bytes`]: offsets within a segment have 32 bits, and a smaller segment is mostly index.
pub const SEGMENT_SIZES: RangeInclusive<usize> = 1024 * 1024..=1024 * 1024 * 1024;

/// The default of [`Config::segment_bytes`].
const SEGMENT_BYTES: usize = 64 * 1024 * 1024;

/// The default of [`Config::max_patterns`]: each pattern is matched against each topic of a block.
const MAX_PATTERNS: usize = 64;

/// The default of [`Config::max_topics`]: a topic takes about 200 bytes of memory.
const MAX_TOPICS: usize = 1_000_000;

/// The default of [`Config::max_consumers`]: a consumer takes about as much memory as a topic.
const MAX_CONSUMERS: usize = 100_000;

/// The default of [`Config::dedupe_window`]: longer than clients retry by themselves.
const DEDUPE_WINDOW: Duration = Duration::from_secs(120);

/// The default of [`Config::max_dedupe_ids`].
const MAX_DEDUPE_IDS: usize = 100_000;

/// The default of [`Config::max_all_dedupe_ids`]: about 500 MB of memory, if that many are published within the window.
const MAX_ALL_DEDUPE_IDS: usize = 10_000_000;

/// The default of [`Config::retention_interval`]: a message over a limit is removed within a minute.
const RETENTION_INTERVAL: Duration = Duration::from_secs(20);

/// The default of [`Config::erase_within`]: each segment with something to erase is read twice in this time.
const ERASE_WITHIN: Duration = Duration::from_secs(24 * 3600);

/// The default of [`Config::removal_delay`]: long enough for NTP to set a clock that was wrong when the machine started.
const REMOVAL_DELAY: Duration = Duration::from_secs(600);

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The largest message: payload, key and headers together, in bytes.
    pub max_message_bytes: usize,
    /// The most patterns of a subscription.
    pub max_patterns: usize,
    /// The most topics that hold messages. Those of consumers do not count.
    pub max_topics: usize,
    /// The most consumers.
    pub max_consumers: usize,
    /// A segment that has reached this size, in bytes, is followed by the next.
    pub segment_bytes: usize,
    /// How long a message id is remembered.
    pub dedupe_window: Duration,
    /// The most message ids that are remembered of one topic.
    pub max_dedupe_ids: usize,
    /// The most message ids that are remembered of all topics.
    pub max_all_dedupe_ids: usize,
    /// Which messages are kept. The first rule whose pattern matches a topic applies to it; a topic that no rule matches
    /// keeps all messages.
    pub retention: Vec<retention::Rule>,
    /// The pause between two runs of retention.
    pub retention_interval: Duration,
    /// What expired, was superseded or was removed by retention leaves the disk within this time.
    pub erase_within: Duration,
    /// For this long after a start, and after the wall clock was set, nothing is removed from the disk because of its age.
    pub removal_delay: Duration,
    /// The file system; tests simulate one.
    pub disk: Storage,
    /// A lock file that must stay in its place; `None` where the directory itself is locked.
    pub lock_file: Option<LockFile>,
    /// The clocks; tests set them.
    pub clock: Clock,
    /// The threads of the log take turns.
    #[cfg(test)]
    pub turns: Option<super::embedded::Turns>,
    /// Where the log is read.
    pub pool: Pool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_message_bytes: MAX_MESSAGE_BYTES,
            max_patterns: MAX_PATTERNS,
            max_topics: MAX_TOPICS,
            max_consumers: MAX_CONSUMERS,
            segment_bytes: SEGMENT_BYTES,
            dedupe_window: DEDUPE_WINDOW,
            max_dedupe_ids: MAX_DEDUPE_IDS,
            max_all_dedupe_ids: MAX_ALL_DEDUPE_IDS,
            retention: Vec::new(),
            retention_interval: RETENTION_INTERVAL,
            erase_within: ERASE_WITHIN,
            removal_delay: REMOVAL_DELAY,
            disk: Storage::default(),
            lock_file: None,
            clock: Clock::default(),
            #[cfg(test)]
            turns: None,
            pool: Pool::default(),
        }
    }
}

/// A lock file that alone keeps a second server out of the directory. If it is not in its place before a commit, the log
/// accepts no more messages.
#[derive(Clone, Debug)]
pub struct LockFile {
    pub(super) path: PathBuf,
    pub(super) id: FileId,
}

impl LockFile {
    /// The open and locked file, and its path.
    ///
    /// # Errors
    /// Those of reading its metadata.
    pub fn new(path: PathBuf, file: &fs::File) -> io::Result<Self> {
        Ok(Self { path, id: FileId::of(&file.metadata()?) })
    }
}

/// What opening a log found, for the operator.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// The number of messages on disk, removed ones included.
    pub messages: u64,
    /// The number of segment files.
    pub segments: usize,
    /// Torn tails that were set aside: their files, and their sizes in bytes.
    pub torn: Vec<(PathBuf, u64)>,
    /// A description of each damage.
    pub damaged: Vec<String>,
    /// The number of segments that were converted from version 1 of the format.
    pub upgraded: usize,
}

/// Why a log cannot be opened, for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// An I/O error.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A segment in another version of the format.
    #[error("{}: written in version {version} of the format; {}", path.display(), remedy(*version))]
    Version {
        /// The segment.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// A file of another log.
    #[error("{}: of another log than the other files; move it out of the directory", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
}

impl OpenError {
    /// Says where an I/O error happened.
    pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}

fn remedy(version: u32) -> &'static str {
    if version == 1 {
        "a server converts it when it starts: start perenniald with this data directory once"
    } else {
        "use the version of Perennial that wrote it, or a newer one"
    }
}

//! A log that is only read, as it was at one moment, although a server may be writing it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use bytes::{Bytes, BytesMut};

use super::{Error, Fault, Finding, at};
use crate::messages::{
    OpenError, SequenceRange,
    clock::{Clock, nanos},
    embedded::{
        age::{Corrections, Moment},
        disk::Disk,
        format::{
            block::{Entry, Identity, Salt},
            clock_history::ClockHistory,
            erased,
            footer::{Footer, Held, Posting},
            manifest,
            scan::{Found, Scan},
            trim_points,
        },
        index::{
            block_run::BlockTimes, builder::IndexBuilder, cache::Cache, segment::Segment, topics::Topics,
        },
        recovery::{
            directory::{Candidate, Files},
            presence::Presence,
        },
        segment_name,
    },
    retention::Rule,
};

/// The number of times that reading is repeated because the server deleted or truncated a file meanwhile.
const MAX_TRIES: usize = 20;

/// The number of pauses in which a copy of the manifest that is not whole may be completed by the server: a second, also
/// with the short pauses of the tests.
const MAX_WAITS: usize = if cfg!(test) { 1_000 } else { 10 };

/// An incomplete end of a log is being written if it changes within this pause, repeated this many times.
const SETTLE: (Duration, usize) = (Duration::from_millis(if cfg!(test) { 1 } else { 100 }), 10);

/// A log that is only read.
#[derive(Debug)]
pub struct Archive {
    pub(super) directory: PathBuf,
    /// `None` if no file says it.
    pub(super) log: Option<Identity>,
    pub(super) files: Files,
    /// In the order of their sequences.
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) topics: Topics,
    pub(super) cache: Cache,
    /// The faults of files other than segments that exist.
    pub(super) faults: Vec<Finding>,
    /// The highest sequence that it has given.
    pub(super) head: u64,
    /// Messages that have expired at this moment are left out.
    pub(super) moment: Moment,
}

impl Archive {
    /// Reads the log in a directory: the indexes, and the messages of segments that have none. `rules` say which topics keep
    /// only their last message.
    ///
    /// # Errors
    /// [`Error::NoLog`], [`Error::Open`] and [`Error::Io`].
    pub fn open(directory: &Path, rules: &[Rule]) -> Result<Self, Error> {
        let mut tries = 0;
        loop {
            match Self::try_open(directory, rules) {
                Err(error) if is_moving(&error) && tries < MAX_TRIES => tries += 1,
                result => return result,
            }
        }
    }

    fn try_open(directory: &Path, rules: &[Rule]) -> Result<Self, Error> {
        let files = list(directory)?;
        let log = files.log;
        let mut topics = Topics::new(rules.to_vec());
        let mut faults = lost(directory, &files);
        if let Some(log) = log {
            match trim_points::read(&Disk::Real, directory, log.id).map_err(at(directory))? {
                Ok(points) => topics.restore(points),
                Err(fault) => faults.push(trim_points_finding(directory, &fault)),
            }
        }
        let (segments, cache) = (Vec::new(), Cache::default());
        let history = files.manifest.manifest.as_ref();
        let history = history.and_then(|manifest| ClockHistory::read(&manifest.clock)).unwrap_or_default();
        let corrections = Corrections::new(&history.steps, history.current(Clock::System.boot_id()));
        let moment = Moment::new(nanos(Clock::System.now()), corrections.into());
        let directory = directory.into();
        let mut archive = Self {
            directory,
            log,
            files: Files::default(),
            segments,
            topics,
            cache,
            faults,
            head: 0,
            moment,
        };
        let count = files.segments.len();
        for (place, candidate) in files.segments.iter().enumerate() {
            archive.take(candidate, place + 1 == count).map_err(at(&candidate.path))?;
        }
        archive.files = files;
        Ok(archive)
    }

    fn take(&mut self, candidate: &Candidate, is_last: bool) -> io::Result<()> {
        let Candidate { path, file, first_sequence, header, footer, .. } = candidate;
        let replaces_up_to = header.map_or(0, |header| header.replaces_up_to);
        if let Some(footer) = footer {
            let sealed =
                Segment::sealed(path.clone(), file.clone(), *first_sequence, replaces_up_to, *footer)?;
            if let Ok(segment) = sealed
                && segment.has_sound_topics()?
            {
                let topics = &mut self.topics;
                let each = segment.for_each_topic(&self.cache, |name, held| topics.add_held(name, held))?;
                if each.is_err() {
                    return Err(io::Error::other("the index of a segment changes while it is read"));
                }
                self.head = self.head.max(segment.summary().last_sequence);
                self.segments.push(Arc::new(segment));
                return Ok(());
            }
        }
        let loaded = Loaded::read(candidate, (*first_sequence).max(self.head + 1), is_last)?;
        for found in &loaded.scan.blocks {
            self.topics.add(&found.block);
        }
        self.head = self.head.max(loaded.scan.next_sequence.saturating_sub(1));
        let index = index_of(&loaded.scan);
        let segment = Segment::open(path.clone(), file.clone(), *first_sequence, replaces_up_to, index);
        self.segments.push(Arc::new(segment));
        Ok(())
    }

    /// What a segment holds of each topic.
    pub(super) fn topics_of(&self, segment: &Segment) -> Result<Vec<(String, Held)>, Error> {
        let mut topics = Vec::new();
        let mut add = |name: &str, held: &Held| topics.push((name.to_owned(), *held));
        if segment.for_each_topic(&self.cache, &mut add).map_err(at(&segment.path))?.is_err() {
            topics.clear();
            let mut add = |name: &str, held: &Held| topics.push((name.to_owned(), *held));
            let _ = self.rebuilt(segment)?.for_each_topic(&self.cache, &mut add);
        }
        Ok(topics)
    }

    /// Whether a reader would get all messages of a topic in a segment.
    pub(super) fn is_all_live(&self, topic: &str, held: &Held) -> bool {
        self.topics.first_kept(topic) <= held.first.sequence && held.all_expired == 0
    }

    /// The messages of a topic in a segment that a reader would get.
    pub(super) fn live(&self, segment: &Segment, topic: &str) -> Result<Vec<Posting>, Error> {
        let first_kept = self.topics.first_kept(topic);
        let found =
            segment.postings_from(&self.cache, topic, first_kept, |_| true).map_err(at(&segment.path))?;
        let postings = if let Ok(postings) = found {
            postings
        } else {
            let rebuilt = self.rebuilt(segment)?;
            let found = rebuilt.postings_from(&self.cache, topic, first_kept, |_| true);
            found.map_err(at(&segment.path))?.unwrap_or_default()
        };
        let (mut live, mut times) = (Vec::with_capacity(postings.len()), BlockTimes::default());
        for posting in postings {
            if !times.has_expired(segment, &posting, &self.moment).map_err(at(&segment.path))? {
                live.push(posting);
            }
        }
        Ok(live)
    }

    /// Builds the index of a segment from its messages.
    fn rebuilt(&self, segment: &Segment) -> Result<Segment, Error> {
        let candidate = self.files.segments.iter().find(|candidate| candidate.path == segment.path);
        let index = if let Some(candidate) = candidate {
            let loaded = Loaded::read(candidate, candidate.first_sequence, false);
            index_of(&loaded.map_err(at(&segment.path))?.scan)
        } else {
            IndexBuilder::new(segment.salt(), 0)
        };
        let Segment { path, file, first_sequence, replaces_up_to, .. } = segment;
        Ok(Segment::open(path.clone(), file.clone(), *first_sequence, *replaces_up_to, index))
    }

    /// The faults of files other than segments that exist.
    pub fn faults(&self) -> impl Iterator<Item = &Finding> {
        self.faults.iter()
    }
}

/// The files that are missing according to the manifest and the segments, and the faults of the manifest itself.
pub fn lost(directory: &Path, files: &Files) -> Vec<Finding> {
    let presence = Presence::new(files.manifest.manifest.as_ref(), &files.segments);
    let mut findings = Vec::new();
    if presence.is_manifest_lost {
        findings.push(Finding::new(&directory.join(manifest::NAMES[0]), None, Fault::ManifestLost));
    } else {
        let copies = files.manifest.damaged.iter();
        findings.extend(copies.map(|path| Finding::new(path, None, Fault::ManifestCopy)));
    }
    findings.extend(presence.lost.iter().map(|lost| {
        let (first, last) = (lost.first_sequence, lost.end.map(|end| end - 1));
        match lost.id {
            Some(_) => Finding::new(&directory.join(segment_name(first)), None, Fault::Lost { first, last }),
            // Of a damaged file that was deleted since, or of one of version 2: no file of this name may ever have existed.
            None => Finding::new(directory, None, Fault::LostRange { first, last }),
        }
    }));
    // A file that cannot be read is reported where its content is checked.
    if let (Some(end), Some(last)) = (presence.closed_at, files.segments.last())
        && let Ok(Some(first)) = last.cut_at(end)
    {
        let missing = Some(SequenceRange::of_messages(first, end - 1));
        findings.push(Finding::new(&last.path, None, Fault::NoRecord { missing }));
    }
    findings
}

/// The files of a log.
pub fn list(directory: &Path) -> Result<Files, Error> {
    let no_log = || Error::NoLog { directory: directory.into() };
    match Files::list(&Disk::Real, directory, false) {
        Err(OpenError::Io { path, source })
            if path == directory && source.kind() == io::ErrorKind::NotFound =>
        {
            Err(no_log())
        }
        Ok(files) if files.segments.is_empty() && files.lists_no_segment() => Err(no_log()),
        result => Ok(result?),
    }
}

/// As [`list`], repeated while files are deleted meanwhile.
pub fn list_stable(directory: &Path) -> Result<Files, Error> {
    let mut tries = 0;
    loop {
        match list(directory) {
            Err(error) if is_moving(&error) && tries < MAX_TRIES => tries += 1,
            // It may be being written.
            Ok(files) if !files.manifest.damaged.is_empty() && tries < MAX_WAITS => {
                thread::sleep(SETTLE.0);
                tries += 1;
            }
            result => return result,
        }
    }
}

/// Whether the server has deleted or truncated a file since it was listed.
pub fn is_moving(error: &Error) -> bool {
    let (Error::Open(OpenError::Io { source, .. }) | Error::Io { source, .. }) = error else { return false };
    matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
}

/// The finding that the file of trim points is not valid.
pub fn trim_points_finding(directory: &Path, fault: &str) -> Finding {
    let path = directory.join(trim_points::NAME);
    let text = fault.strip_prefix(&format!("{}: ", path.display())).unwrap_or(fault);
    Finding::new(&path, None, Fault::TrimPoints(text.into()))
}

/// The bytes of a segment, and its records.
#[derive(Debug)]
pub struct Loaded {
    /// All bytes.
    pub bytes: Bytes,
    /// The trailer of its footer.
    pub footer: Option<Footer>,
    /// Its records; of the last segment, without a commit that is being written.
    pub scan: Scan,
    /// Incomplete bytes at the end of the last segment that do not change.
    pub torn: Option<std::ops::Range<u64>>,
}

impl Loaded {
    /// Reads a segment in which no sequence is below `from`. `is_last`: the server may be writing to its end.
    pub fn read(candidate: &Candidate, from: u64, is_last: bool) -> io::Result<Self> {
        Self::read_into(candidate, from, is_last, &mut BytesMut::new())
    }

    /// As [`read`](Self::read), into memory that [`into_memory`](Self::into_memory) returned. The kernel clears new memory,
    /// which takes as long as reading a file that is cached.
    pub fn read_into(
        candidate: &Candidate,
        from: u64,
        is_last: bool,
        memory: &mut BytesMut,
    ) -> io::Result<Self> {
        let mut loaded = Self::read_stable(candidate, from, memory)?;
        if !is_last {
            return Ok(loaded);
        }
        let mut torn = loaded.torn_at();
        for _ in 0..SETTLE.1 {
            let Some(start) = torn else { break };
            thread::sleep(SETTLE.0);
            let now = Self::read_stable(candidate, from, memory)?;
            if now.torn_at() == Some(start) {
                continue;
            }
            // It was being written, and another commit may be by now.
            loaded = now;
            if let Some(start) = loaded.torn_at() {
                loaded.scan.truncate(start);
            }
            torn = None;
        }
        if let Some(start) = torn {
            loaded.torn = Some(start..loaded.scan.tail.end.max(loaded.scan.end));
            loaded.scan.truncate(start);
        }
        Ok(loaded)
    }

    /// The memory of the bytes; empty if they are in use elsewhere.
    pub fn into_memory(self) -> BytesMut {
        let Self { bytes, scan, .. } = self;
        // Its blocks are slices of the bytes.
        drop(scan);
        bytes.try_into_mut().unwrap_or_default()
    }

    fn torn_at(&self) -> Option<u64> {
        if self.footer.is_some() { None } else { self.scan.torn() }
    }

    fn read_stable(candidate: &Candidate, from: u64, memory: &mut BytesMut) -> io::Result<Self> {
        let mut tries = 0;
        loop {
            match Self::read_once(candidate, from, memory) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && tries < MAX_TRIES => tries += 1,
                result => return result,
            }
        }
    }

    fn read_once(candidate: &Candidate, from: u64, memory: &mut BytesMut) -> io::Result<Self> {
        let footer = Footer::read(&candidate.file, candidate.salt)?;
        let length = usize::try_from(candidate.file.len()?).map_err(io::Error::other)?;
        memory.resize(length, 0);
        candidate.file.fill_soundly(memory, 0)?;
        let bytes = std::mem::take(memory).freeze();
        let end = footer.map_or(length, |footer| usize::try_from(footer.blocks_end()).unwrap_or(length));
        let scan = Scan::new(&bytes.slice(..end.min(length)), from, candidate.salt);
        Ok(Self { bytes, footer, scan, torn: None })
    }

    /// The damage among its messages. `next` is the first sequence of the next segment.
    pub fn damage(&self, path: &Path, next: Option<u64>) -> Vec<Finding> {
        let scan = &self.scan;
        let mut findings = Vec::new();
        for damage in &scan.damage {
            let (first, last) = damage.sequences;
            let missing = (first <= last).then(|| SequenceRange::of_messages(first, last));
            findings.push(Finding::new(path, damage.bytes.clone(), Fault::NoRecord { missing }));
        }
        for found in scan.blocks.iter().filter(|found| !found.is_intact) {
            findings.extend(broken(path, found, scan.salt()));
        }
        let from = scan.next_sequence;
        if let Some(torn) = &self.torn {
            let broken = scan.blocks.last().map_or(from, |found| found.block.last_sequence + 1);
            findings.push(Finding::new(path, torn.clone(), Fault::Torn { from: from.min(broken) }));
        } else if !scan.tail.is_empty() {
            let to = match self.footer {
                Some(footer) => footer.summary.last_sequence,
                None => next.map_or(0, |next| next - 1),
            };
            // Without a footer the bytes may be an incomplete one: the check of the index reports that.
            if self.footer.is_some() || from <= to {
                let missing = (from <= to).then(|| SequenceRange::of_messages(from, to));
                findings.push(Finding::new(path, scan.tail.clone(), Fault::NoRecord { missing }));
            }
        }
        findings
    }
}

/// The messages of a block whose checksums are wrong, and that were not erased.
fn broken(path: &Path, found: &Found, salt: Salt) -> Vec<Finding> {
    let finding = |entry: &Entry| {
        let topic = found.block.topic(entry).map_or_else(String::new, ToString::to_string);
        let bytes = found.body + u64::from(entry.start)..found.body + u64::from(entry.end);
        Finding::new(path, bytes, Fault::Message { sequence: entry.sequence, topic })
    };
    erased::broken(&found.block, salt).iter().map(finding).collect()
}

/// The index of the blocks that a scan has found.
pub fn index_of(scan: &Scan) -> IndexBuilder {
    let mut index = IndexBuilder::new(scan.salt(), 0);
    for found in &scan.blocks {
        index.add(&found.block, found.start, found.body, found.end);
    }
    // There may be a mark after the last block.
    index.extend(scan.end);
    index
}

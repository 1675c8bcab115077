//! A log that is only looked at, as it was at one moment, though a server may write it meanwhile.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use bytes::Bytes;

use super::{Error, Fault, Finding, at};
use crate::messages::{
    OpenError,
    embedded::{
        block::{Block, LogId},
        disk::Disk,
        files::{Candidate, Files},
        floors,
        footer::{Footer, Held, Posting},
        scan::{Found, Scan},
        segment::{Building, Cache, Segment},
        topics::Topics,
    },
    retention::Rule,
};

/// How often it is tried again when the server has deleted or cut a file under the reader's hands.
const MAX_TRIES: usize = 20;

/// What is at the end of a log and not whole is being written if it changes within this time, so often looked at.
const SETTLE: (Duration, usize) = (Duration::from_millis(if cfg!(test) { 1 } else { 100 }), 10);

/// A log that is only looked at.
#[derive(Debug)]
pub struct Archive {
    pub(super) directory: PathBuf,
    /// None if no header tells.
    pub(super) log: Option<LogId>,
    pub(super) files: Files,
    /// In the order of their sequences.
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) topics: Topics,
    pub(super) cache: Cache,
    /// What is wrong with the file of what was removed.
    pub(super) removed_fault: Option<Finding>,
    /// The highest sequence in it, or that it has been at.
    pub(super) head: u64,
}

impl Archive {
    /// Looks at the log in a directory: at the indexes, and at the messages of segments that have none. `rules` tell
    /// of which topics only the last message is kept.
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
        let log = files.log();
        let mut topics = Topics::new(rules.to_vec());
        let mut removed_fault = None;
        if let Some(log) = log {
            let fault = floors::read(&Disk::Real, directory, log, &mut topics).map_err(at(directory))?;
            removed_fault = fault.map(|fault| removed(directory, &fault));
        }
        let (segments, cache) = (Vec::new(), Cache::default());
        let directory = directory.into();
        let mut archive =
            Self { directory, log, files: Files::default(), segments, topics, cache, removed_fault, head: 0 };
        let count = files.segments.len();
        for (place, candidate) in files.segments.iter().enumerate() {
            archive.take(candidate, place + 1 == count).map_err(at(&candidate.path))?;
        }
        archive.files = files;
        Ok(archive)
    }

    fn take(&mut self, candidate: &Candidate, is_last: bool) -> io::Result<()> {
        let Candidate { path, file, first_sequence, header, footer } = candidate;
        let through = header.map_or(0, |header| header.through);
        if let Some(footer) = footer {
            let sealed = Segment::sealed(path.clone(), file.clone(), (*first_sequence, through), *footer)?;
            if let Ok(segment) = sealed {
                let mut held = Vec::new();
                let each = segment
                    .for_each_topic(&self.cache, |name, of_topic| held.push((name.to_owned(), *of_topic)))?;
                if each.is_ok() {
                    for (name, held) in &held {
                        self.topics.add_held(name, held);
                    }
                    self.head = self.head.max(segment.summary().last_sequence);
                    self.segments.push(Arc::new(segment));
                    return Ok(());
                }
            }
        }
        let loaded = Loaded::read(candidate, (*first_sequence).max(self.head + 1), is_last)?;
        for found in &loaded.scan.blocks {
            self.topics.add(&found.block);
        }
        self.head = self.head.max(loaded.scan.next_sequence.saturating_sub(1));
        let building = building(&loaded.scan);
        let segment = Segment::building(path.clone(), file.clone(), *first_sequence, through, building);
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

    /// All that a segment holds of a topic would be given to a reader.
    pub(super) fn is_all_live(&self, topic: &str, held: &Held) -> bool {
        self.topics.floor(topic) <= held.first.0 && held.all_expired == 0
    }

    /// The messages of a topic in a segment that a reader would get at a time.
    pub(super) fn live(&self, segment: &Segment, topic: &str, now: u64) -> Result<Vec<Posting>, Error> {
        let floor = self.topics.floor(topic);
        let found =
            segment.postings_from(&self.cache, topic, floor, usize::MAX).map_err(at(&segment.path))?;
        let mut live = if let Ok(postings) = found {
            postings
        } else {
            let rebuilt = self.rebuilt(segment)?;
            let found = rebuilt.postings_from(&self.cache, topic, floor, usize::MAX);
            found.map_err(at(&segment.path))?.unwrap_or_default()
        };
        live.retain(|posting| !posting.has_expired(now));
        Ok(live)
    }

    /// A segment whose index is damaged, by its messages.
    fn rebuilt(&self, segment: &Segment) -> Result<Segment, Error> {
        let candidate = self.files.segments.iter().find(|candidate| candidate.path == segment.path);
        let building = if let Some(candidate) = candidate {
            let loaded = Loaded::read(candidate, candidate.first_sequence, false);
            building(&loaded.map_err(at(&segment.path))?.scan)
        } else {
            Building::new()
        };
        let Segment { path, file, first_sequence, through, .. } = segment;
        Ok(Segment::building(path.clone(), file.clone(), *first_sequence, *through, building))
    }

    /// What is wrong with what is not messages.
    pub fn faults(&self) -> impl Iterator<Item = &Finding> {
        self.removed_fault.iter()
    }
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
        Ok(files) if files.segments.is_empty() => Err(no_log()),
        result => Ok(result?),
    }
}

/// As [`list`], again if a file is deleted meanwhile.
pub fn list_still(directory: &Path) -> Result<Files, Error> {
    let mut tries = 0;
    loop {
        match list(directory) {
            Err(error) if is_moving(&error) && tries < MAX_TRIES => tries += 1,
            result => return result,
        }
    }
}

/// A file that the server has deleted, or cut, since it was listed.
fn is_moving(error: &Error) -> bool {
    let (Error::Open(OpenError::Io { source, .. }) | Error::Io { source, .. }) = error else { return false };
    matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
}

/// The file of what was removed cannot be believed.
pub fn removed(directory: &Path, fault: &str) -> Finding {
    let path = directory.join("removed");
    let text = fault.strip_prefix(&format!("{}: ", path.display())).unwrap_or(fault);
    Finding::new(&path, None, Fault::Removed(text.into()))
}

/// All bytes of a segment, and what they hold.
#[derive(Debug)]
pub struct Loaded {
    /// All.
    pub bytes: Bytes,
    /// The trailer of its index.
    pub footer: Option<Footer>,
    /// Up to the index; of the last segment, without what is being written.
    pub scan: Scan,
    /// What is not whole at the end of the last segment, and does not change.
    pub torn: Option<std::ops::Range<u64>>,
}

impl Loaded {
    /// Reads a segment in which no sequence is below `from`. `is_last`: someone may be writing to its end.
    pub fn read(candidate: &Candidate, from: u64, is_last: bool) -> io::Result<Self> {
        let mut loaded = Self::read_still(candidate, from)?;
        if !is_last {
            return Ok(loaded);
        }
        let mut torn = loaded.torn_at();
        for _ in 0..SETTLE.1 {
            let Some(start) = torn else { break };
            thread::sleep(SETTLE.0);
            let now = Self::read_still(candidate, from)?;
            if now.torn_at() == Some(start) {
                continue;
            }
            // It was being written, and something else may be by now.
            loaded = now;
            if let Some(start) = loaded.torn_at() {
                loaded.scan.cut(start);
            }
            torn = None;
        }
        if let Some(start) = torn {
            loaded.torn = Some(start..loaded.scan.tail.end.max(loaded.scan.end));
            loaded.scan.cut(start);
        }
        Ok(loaded)
    }

    fn torn_at(&self) -> Option<u64> {
        if self.footer.is_some() { None } else { self.scan.torn() }
    }

    fn read_still(candidate: &Candidate, from: u64) -> io::Result<Self> {
        let mut tries = 0;
        loop {
            match Self::read_once(candidate, from) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && tries < MAX_TRIES => tries += 1,
                result => return result,
            }
        }
    }

    fn read_once(candidate: &Candidate, from: u64) -> io::Result<Self> {
        let footer = Footer::read(&candidate.file)?;
        let length = usize::try_from(candidate.file.len()?).map_err(io::Error::other)?;
        let bytes = Bytes::from(candidate.file.read(0, length)?);
        let end = footer.map_or(length, |footer| usize::try_from(footer.blocks_end()).unwrap_or(length));
        let scan = Scan::new(&bytes.slice(..end.min(length)), from);
        Ok(Self { bytes, footer, scan, torn: None })
    }

    /// What is damaged among its messages. `next`: the first sequence of the segment behind it.
    pub fn damage(&self, path: &Path, next: Option<u64>) -> Vec<Finding> {
        let scan = &self.scan;
        let mut findings = Vec::new();
        for damage in &scan.damage {
            let (from, to) = damage.sequences;
            findings.push(Finding::new(path, damage.bytes.clone(), Fault::NoRecord { from, to }));
        }
        for found in scan.blocks.iter().filter(|found| !found.is_intact) {
            findings.extend(broken(path, found));
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
            // Without a footer it may be one that is not whole: that is for the index to tell.
            if self.footer.is_some() || from <= to {
                findings.push(Finding::new(path, scan.tail.clone(), Fault::NoRecord { from, to }));
            }
        }
        findings
    }
}

/// The messages of a block whose checksums do not hold.
fn broken(path: &Path, found: &Found) -> Vec<Finding> {
    let Block { entries, .. } = &found.block;
    let broken = entries.iter().filter(|entry| !found.block.is_intact(entry));
    let finding = |entry| {
        let topic = found.block.topic(entry).map_or_else(String::new, ToString::to_string);
        let bytes = found.body + u64::from(entry.start)..found.body + u64::from(entry.end);
        Finding::new(path, bytes, Fault::Message { sequence: entry.sequence, topic })
    };
    broken.map(finding).collect()
}

/// The index that says what a scan has found.
pub fn building(scan: &Scan) -> Building {
    let mut building = Building::new();
    for found in &scan.blocks {
        building.add(&found.block, found.start, found.body, found.end);
    }
    building
}

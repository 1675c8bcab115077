//! Finds what is there after a start.
//!
//! A segment that has a footer is known by it, without reading its blocks. The others are read: the one that was
//! written last, and any that was full when the server died. In the last one, what may have been torn by a power cut is
//! set aside in a file of its own, not deleted; what is wrong anywhere else is damage: it stays where it is, and its
//! sequences are told to readers. The last commit is written anew and synced before it is served: after a failed sync
//! the page cache may show what the disk does not have.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    State,
    block::{self, LogId, SEGMENT_HEADER_BYTES},
    dedupe::Dedupe,
    disk::{Disk, File},
    files::{Candidate, Files},
    floors,
    footer::Footer,
    nanos,
    scan::Scan,
    segment::{Building, Cache, Segment},
    topics::Topics,
    upgrade,
};
use crate::messages::{OpenError, Opened, Options};

/// By how much the sequence jumps over a torn tail: more than a commit can hold, so that no sequence which anyone may
/// have seen is given twice.
const SEQUENCE_JUMP: u64 = 1_000_000;

/// What was found.
#[derive(Debug)]
pub struct Finding {
    /// Which log it is; none if there was nothing.
    pub log: Option<LogId>,
    /// What readers see.
    pub state: State,
    /// Ids published lately.
    pub dedupe: Dedupe,
    /// Of the next message.
    pub next_sequence: u64,
    /// Of the newest message.
    pub last_time: u64,
    /// The last segment, where it goes on; none if a new one is to begin.
    pub active: Option<(Arc<Segment>, u64)>,
    /// Segments that have no footer, and should.
    pub unsealed: Vec<Arc<Segment>>,
    /// For the operator.
    pub opened: Opened,
    /// A segment whose end is not known to be whole: its path, the bytes that are no record, and the sequence that would
    /// have followed.
    open_end: Option<(PathBuf, Range<u64>, u64)>,
}

/// Finds what is in a directory.
pub fn find(directory: &Path, options: &Options, cache: &Cache) -> Result<Finding, OpenError> {
    let at = |path: &Path| {
        let path = path.to_path_buf();
        move |source| OpenError::Io { path, source }
    };
    let disk = &options.disk;
    disk.create_directory(directory).map_err(at(directory))?;
    let upgraded = upgrade::all(disk, directory)?;
    let files = Files::list(disk, directory, true)?;
    for path in files.unfinished.iter().chain(&files.superseded) {
        // It was being made, or was to be deleted, when the server ended.
        disk.remove(path).map_err(at(path))?;
    }
    let log = files.log().or_else(|| floors::log(disk, directory));
    let mut opened = Opened { upgraded, ..Opened::default() };
    for (path, first) in &files.misnamed {
        opened.damaged.push(format!("{}: its name is another's, it begins with {first}", path.display()));
    }
    let mut candidates = files.segments;
    let mut topics = Topics::new(options.retention.clone());
    if let Some(log) = log {
        let fault = floors::read(disk, directory, log, &mut topics).map_err(at(directory))?;
        opened.damaged.extend(fault);
    }
    let state = State { topics, ..State::default() };
    let dedupe = Dedupe::new(options.dedupe_window, options.max_dedupe_ids, options.max_all_dedupe_ids);
    let mut finding = Finding {
        log,
        state,
        dedupe,
        next_sequence: 1,
        last_time: 0,
        active: None,
        unsealed: Vec::new(),
        opened,
        open_end: None,
    };
    let last = candidates.pop();
    for candidate in candidates {
        let path = candidate.path.clone();
        finding.take(candidate, None, cache, options).map_err(at(&path))?;
    }
    if let Some(last) = last {
        let path = last.path.clone();
        finding.take(last, Some(disk), cache, options).map_err(at(&path))?;
    }
    finding.next_sequence = finding.next_sequence.max(files.unused);
    Ok(finding)
}

impl Finding {
    /// Takes a segment. `last`: it was the one that is written.
    fn take(
        &mut self,
        candidate: Candidate,
        last: Option<&Disk>,
        cache: &Cache,
        options: &Options,
    ) -> io::Result<()> {
        let Candidate { path, file, first_sequence, header, footer } = candidate;
        let through = header.map_or(0, |header| header.through);
        self.follow(first_sequence);
        if header.is_none() {
            if let Some(disk) = last
                && Self::was_being_made(&file)?
            {
                return disk.remove(&path);
            }
            self.opened.damaged.push(format!("{}: the header", path.display()));
        }
        self.opened.segments += 1;
        if let Some(footer) = footer {
            let sealed = Segment::sealed(path.clone(), file.clone(), (first_sequence, through), footer)?;
            if let Ok(segment) = sealed
                && self.take_sealed(&segment, cache, options)?
            {
                self.state.segments.push(Arc::new(segment));
                return Ok(());
            }
            self.opened.damaged.push(format!("{}: the index, which is made anew", path.display()));
        }
        // One that has an index was full: nothing was torn there, and nothing more is written there.
        let last = last.filter(|_| footer.is_none());
        let length = footer.map_or(file.len()?, |footer| footer.blocks_end());
        let bytes = Bytes::from(file.read(0, usize::try_from(length).map_err(io::Error::other)?)?);
        let mut scan = Scan::new(&bytes, first_sequence.max(self.next_sequence));
        if let Some(disk) = last {
            self.end_torn(disk, &path, &file, &bytes, &mut scan)?;
        }
        self.take_scanned(&path, &scan);
        if last.is_none() {
            // A footer that was not written whole, or not at all: whether anything is missing, the next segment tells.
            self.open_end = Some((path.clone(), scan.tail.clone(), scan.next_sequence));
        }
        let mut building = Building::new();
        for found in &scan.blocks {
            building.add(&found.block, found.start, found.body, found.end);
        }
        building.extend(scan.end);
        let segment = Arc::new(Segment::building(path, file, first_sequence, through, building));
        self.state.segments.push(segment.clone());
        if last.is_some() && header.is_some() {
            self.active = Some((segment, scan.end));
        } else if scan.damage.is_empty() {
            self.unsealed.push(segment);
        }
        if let Some(Footer { summary, .. }) = footer {
            let end = summary.last_sequence + 1;
            self.follow(end);
            self.next_sequence = self.next_sequence.max(end);
        }
        Ok(())
    }

    /// A file without a header and without anything else: the power went when it was made.
    fn was_being_made(file: &File) -> io::Result<bool> {
        let length = usize::try_from(file.len()?).map_err(io::Error::other)?;
        let bytes = file.read(0, length)?;
        Ok(bytes.iter().skip(SEGMENT_HEADER_BYTES).all(|byte| *byte == 0))
    }

    /// Takes what a footer tells. False if it is damaged.
    fn take_sealed(&mut self, segment: &Segment, cache: &Cache, options: &Options) -> io::Result<bool> {
        let summary = segment.summary();
        let mut held = Vec::new();
        let read = segment.for_each_topic(cache, |name, of_topic| held.push((name.to_owned(), *of_topic)))?;
        if read.is_err() {
            return Ok(false);
        }
        held.iter().for_each(|(name, held)| self.state.topics.add_held(name, held));
        if summary.messages > 0 {
            self.next_sequence = self.next_sequence.max(summary.last_sequence + 1);
            self.last_time = self.last_time.max(summary.last_time);
        }
        self.opened.messages += summary.messages;
        let window = u64::try_from(options.dedupe_window.as_nanos()).unwrap_or(u64::MAX);
        if summary.ids > 0 && summary.last_time >= nanos(options.clock.now()).saturating_sub(window) {
            let bytes = segment.read(0, segment.blocks_end())?;
            let scan = Scan::new(&bytes, segment.first_sequence);
            scan.blocks.iter().for_each(|found| self.dedupe.add(&found.block));
        }
        Ok(true)
    }

    fn take_scanned(&mut self, path: &Path, scan: &Scan) {
        for damage in &scan.damage {
            let Range { start, end } = damage.bytes.clone();
            self.opened.damaged.push(format!("{}: bytes {start} to {end}", path.display()));
            let (from, to) = damage.sequences;
            if from <= to {
                self.state.damaged.insert(from, to);
            }
        }
        for found in &scan.blocks {
            self.state.topics.add(&found.block);
            self.dedupe.add(&found.block);
            self.last_time = self.last_time.max(found.block.time);
            self.opened.messages += found.block.entries.len() as u64;
        }
        self.next_sequence = self.next_sequence.max(scan.next_sequence);
    }

    /// Sees whether a segment before the one that begins here had an end that is missing.
    fn follow(&mut self, first_sequence: u64) {
        if let Some((path, bytes, expected)) = self.open_end.take()
            && expected < first_sequence
        {
            let Range { start, end } = bytes;
            self.opened.damaged.push(format!("{}: bytes {start} to {end}", path.display()));
            self.state.damaged.insert(expected, first_sequence - 1);
            // Its index would be written over what is left there.
            self.unsealed.retain(|segment| segment.path != path);
        }
    }

    /// Sets aside what may have been torn, and makes sure that what is left is on disk.
    fn end_torn(
        &mut self,
        disk: &Disk,
        path: &Path,
        file: &File,
        bytes: &Bytes,
        scan: &mut Scan,
    ) -> io::Result<()> {
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        let torn = scan.torn();
        if let Some(torn) = torn {
            let end = scan.tail.end.max(scan.end);
            let aside = path.with_extension(format!("torn-{torn}"));
            let copy = disk.create(&aside)?;
            copy.write_all_at(bytes.get(at(torn)..at(end)).unwrap_or_default(), 0)?;
            copy.sync()?;
            disk.sync_directory(path.parent().unwrap_or(path))?;
            scan.cut(torn);
            scan.next_sequence += SEQUENCE_JUMP;
            // Its sequences are not damage but what was never there: the mark says so from now on.
            let zeros = vec![0; at(end - torn)];
            file.write_all_at(&zeros, torn)?;
            self.opened.torn.push((aside, end - torn));
        }
        let unsure = scan.unsure();
        let tail = bytes.get(at(unsure)..at(scan.end)).unwrap_or_default();
        if !tail.is_empty() {
            file.write_all_at(tail, unsure)?;
        }
        if torn.is_some() {
            let mark = block::mark(scan.next_sequence);
            file.write_all_at(&mark, scan.end)?;
            scan.end += mark.len() as u64;
        }
        file.sync()
    }
}

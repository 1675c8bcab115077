//! Reads every byte of a log, and reports every part that is not as it was written.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
};

use bytes::BytesMut;

use super::{
    Error, Fault, Finding,
    archive::{self, Loaded},
    at,
};
use crate::{
    messages::embedded::{
        disk::Disk,
        format::{
            block::{Block, Entry},
            footer::Footer,
            scan::Found,
            segment_header::{self, SEGMENT_HEADER_BYTES},
            trim_points,
        },
        millis,
        recovery::directory::{Candidate, sequence_of},
        time_of,
    },
    wire::message,
};

/// What was verified.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Verified {
    /// The number of segments.
    pub segments: u64,
    /// The number of sound messages, including removed ones that are still on disk.
    pub messages: u64,
    /// The number of bytes that were read.
    pub bytes: u64,
    /// The number of findings that are damage.
    pub damage: u64,
}

/// Segments are verified on this many threads at most: each holds a segment in memory.
const MAX_THREADS: usize = 4;

/// Verifies the log in a directory, and reports each finding, in the order of the log. Nothing is written. `progress` is
/// called with the number of bytes that were read, and of all that are to be read.
///
/// # Errors
/// [`Error::NoLog`], [`Error::Open`] and [`Error::Io`].
pub fn verify(
    directory: &Path,
    mut report: impl FnMut(&Finding),
    mut progress: impl FnMut(u64, u64),
) -> Result<Verified, Error> {
    let files = archive::list_stable(directory)?;
    let mut verified = Verified::default();
    let (mut points, mut faults) = (BTreeMap::new(), Vec::new());
    if let Some(log) = files.log {
        match trim_points::read(&Disk::Real, directory, log.id).map_err(at(directory))? {
            Ok(read) => points.extend(read.topics),
            Err(fault) => faults.push(archive::trim_points_finding(directory, &fault)),
        }
        let copies = trim_points::faults(&Disk::Real, directory).map_err(at(directory))?;
        faults.extend(copies.into_iter().map(|(path, fault)| Finding::new(&path, None, Fault::Copy(fault))));
    }
    let mut tell = |finding: &Finding| {
        if let Fault::Message { sequence, topic } = &finding.fault
            && points.get(topic.as_str()).is_some_and(|point| *sequence < point.first_kept)
        {
            // It is removed, and is being erased.
            return;
        }
        verified.damage += u64::from(finding.fault.is_damage());
        report(finding);
    };
    for finding in faults {
        tell(&finding);
    }
    for finding in archive::lost(directory, &files) {
        tell(&finding);
    }
    for path in &files.torn {
        let bytes = std::fs::metadata(path).map_err(at(path))?.len();
        tell(&Finding::new(path, None, Fault::SetAside { bytes }));
    }
    for (path, header) in &files.misnamed {
        let name = sequence_of(path).unwrap_or_default();
        tell(&Finding::new(path, None, Fault::Name { name, header: *header }));
    }
    for path in &files.superseded {
        tell(&Finding::new(path, None, Fault::Superseded));
    }
    let lengths = files.segments.iter().map(|candidate| candidate.file.len().map_err(at(&candidate.path)));
    let all = lengths.sum::<Result<u64, _>>()?;
    let mut before = Before { next_sequence: 1, last_time: 0 };
    let (mut segments, mut messages, mut bytes) = (0, 0, 0);
    each_segment(&files.segments, |candidate, next, checked| {
        let mut checked = checked.map_err(at(&candidate.path))?;
        // It was checked as if nothing came before it, which is right unless files overlap.
        if before.next_sequence > candidate.first_sequence || before.last_time > checked.earliest {
            checked =
                Checked::of(candidate, next, before, &mut BytesMut::new()).map_err(at(&candidate.path))?;
        }
        before = checked.after(before);
        checked.findings.iter().for_each(&mut tell);
        segments += u64::from(checked.is_segment);
        (messages, bytes) = (messages + checked.messages, bytes + checked.bytes);
        progress(bytes, all.max(bytes));
        Ok(())
    })?;
    Ok(Verified { segments, messages, bytes, ..verified })
}

/// Verifies segments on several threads, and calls `take` for each, in order.
fn each_segment(
    segments: &[Candidate],
    mut take: impl FnMut(&Candidate, Option<u64>, io::Result<Checked>) -> Result<(), Error>,
) -> Result<(), Error> {
    let threads = std::thread::available_parallelism().map_or(1, Into::into).min(MAX_THREADS);
    let (place, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let next_of = |place: usize| segments.get(place + 1).map(|next| next.first_sequence);
    let work = |results: mpsc::Sender<(usize, io::Result<Checked>)>| {
        let mut memory = BytesMut::new();
        while !is_over.load(Ordering::Relaxed) {
            let place = place.fetch_add(1, Ordering::Relaxed);
            let Some(candidate) = segments.get(place) else { return };
            let before = Before { next_sequence: candidate.first_sequence, last_time: 0 };
            // After an error, no thread takes it.
            let _ = results.send((place, Checked::of(candidate, next_of(place), before, &mut memory)));
        }
    };
    std::thread::scope(|scope| {
        let (sender, results) = mpsc::channel();
        for _ in 0..threads.min(segments.len()) {
            let sender = sender.clone();
            let work = &work;
            scope.spawn(move || work(sender));
        }
        drop(sender);
        let (mut early, mut expected) = (BTreeMap::new(), 0);
        let mut result = Ok(());
        for (place, checked) in results {
            early.insert(place, checked);
            while result.is_ok()
                && let Some((candidate, checked)) = segments.get(expected).zip(early.remove(&expected))
            {
                result = take(candidate, next_of(expected), checked);
                expected += 1;
            }
            is_over.store(result.is_err(), Ordering::Relaxed);
        }
        result
    })
}

/// The facts known from the segments before one.
#[derive(Clone, Copy)]
struct Before {
    next_sequence: u64,
    last_time: u64,
}

/// A segment that was verified.
struct Checked {
    findings: Vec<Finding>,
    /// It is not a file that was being made.
    is_segment: bool,
    messages: u64,
    bytes: u64,
    next_sequence: u64,
    /// The earliest and the latest time of its blocks.
    earliest: u64,
    last_time: u64,
}

impl Checked {
    fn of(
        candidate: &Candidate,
        next: Option<u64>,
        before: Before,
        memory: &mut BytesMut,
    ) -> io::Result<Self> {
        let mut checked = Self {
            findings: Vec::new(),
            is_segment: false,
            messages: 0,
            bytes: 0,
            next_sequence: before.next_sequence,
            earliest: u64::MAX,
            last_time: before.last_time,
        };
        checked.segment(candidate, next, memory)?;
        Ok(checked)
    }

    /// The facts known after it.
    fn after(&self, before: Before) -> Before {
        Before {
            next_sequence: self.next_sequence.max(before.next_sequence),
            last_time: self.last_time.max(before.last_time),
        }
    }

    fn report(&mut self, finding: &Finding) {
        self.findings.push(finding.clone());
    }

    fn segment(&mut self, candidate: &Candidate, next: Option<u64>, memory: &mut BytesMut) -> io::Result<()> {
        let Candidate { path, first_sequence, header, .. } = candidate;
        let from = self.next_sequence.max(*first_sequence);
        let loaded = Loaded::read_into(candidate, from, next.is_none(), memory)?;
        let was_being_made = next.is_none() && segment_header::is_empty(&loaded.bytes);
        match header {
            None if was_being_made => return Ok(()),
            None => {
                let bytes = segment_header::records_start(&loaded.bytes).min(SEGMENT_HEADER_BYTES);
                self.report(&Finding::new(path, 0..bytes as u64, Fault::Header));
            }
            Some(header) if header.first_sequence != *first_sequence => {
                let fault = Fault::Name { name: *first_sequence, header: header.first_sequence };
                self.report(&Finding::new(path, None, fault));
            }
            Some(_) => {}
        }
        self.is_segment = true;
        self.bytes = loaded.bytes.len() as u64;
        for finding in loaded.damage(path, next) {
            self.report(&finding);
        }
        // In version 2, a server that read the clock set back kept the time of the message before.
        let is_monotone = header.is_some_and(|header| header.link.is_none());
        for found in &loaded.scan.blocks {
            self.block(path, found, is_monotone);
        }
        self.index(candidate, &loaded, next)?;
        let indexed = loaded.footer.map_or(0, |footer| footer.summary.last_sequence + 1);
        self.next_sequence = self.next_sequence.max(loaded.scan.next_sequence).max(indexed);
        *memory = loaded.into_memory();
        Ok(())
    }

    fn block(&mut self, path: &Path, found: &Found, is_monotone: bool) {
        let block = &found.block;
        let sequence = block.first_sequence;
        if is_monotone && block.time < self.last_time {
            self.report(&Finding::new(path, found.start..found.end, Fault::Time { sequence }));
        }
        if is_monotone {
            self.earliest = self.earliest.min(block.time);
        }
        self.last_time = self.last_time.max(block.time);
        let mut before = 0;
        let mut ids = block.ids.iter().peekable();
        for (place, entry) in (0_u32..).zip(&block.entries) {
            let id = ids.next_if(|(of, _)| *of == place).map(|(_, id)| id.as_ref());
            // Erased or damaged.
            if !found.is_whole && !block.is_intact(entry) {
                continue;
            }
            self.messages += 1;
            if entry.sequence <= before || !agrees(block, id, entry) {
                let topic = block.topic(entry).map_or_else(String::new, ToString::to_string);
                let bytes = found.body + u64::from(entry.start)..found.body + u64::from(entry.end);
                let fault = Fault::Disagrees { sequence: entry.sequence, topic };
                self.report(&Finding::new(path, bytes, fault));
            }
            before = entry.sequence;
        }
    }

    /// Checks the index against its own checksums, and against the blocks.
    fn index(&mut self, candidate: &Candidate, loaded: &Loaded, next: Option<u64>) -> io::Result<()> {
        let Candidate { path, file, .. } = candidate;
        let index = archive::index_of(&loaded.scan);
        let should_be = match loaded.footer {
            Some(footer) if !footer.has_times() => index.to_footer_of_version_2(),
            _ => index.to_footer(),
        };
        let Some(footer) = loaded.footer else {
            let tail = loaded.scan.tail.clone();
            let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
            let bytes = loaded.bytes.get(at(tail.start)..at(tail.end)).unwrap_or_default();
            // An index that was begun and not completed is not damage.
            let is_begun = should_be.starts_with(bytes) || index.to_footer_of_version_2().starts_with(bytes);
            if next.is_some() && is_begun {
                self.report(&Finding::new(path, None, Fault::NoIndex));
            } else if !is_begun {
                let fault = Fault::Index { part: "its end is not complete".into() };
                self.report(&Finding::new(path, tail, fault));
            }
            return Ok(());
        };
        let start = usize::try_from(footer.blocks_end()).unwrap_or(usize::MAX);
        let bytes = loaded.bytes.get(start..).unwrap_or_default();
        if bytes == should_be {
            return Ok(());
        }
        let mut fault = index_fault(&footer, file)?.map(|part| Fault::Index { part });
        // The index also lists messages that are damaged in the blocks, so it can only be compared without damage.
        let is_comparable = loaded.scan.damage.is_empty() && loaded.scan.tail.is_empty();
        if fault.is_none() && is_comparable {
            fault = Some(Fault::IndexDisagrees { part: different(&footer, bytes, &should_be).into() });
        }
        if let Some(fault) = fault {
            self.report(&Finding::new(path, start as u64..loaded.bytes.len() as u64, fault));
        }
        Ok(())
    }
}

/// Whether a message agrees with the table of its block.
fn agrees(block: &Block, id: Option<&str>, entry: &Entry) -> bool {
    let bytes = block.body.get(entry.range()).unwrap_or_default();
    let Some(found) = message::read(bytes) else { return false };
    let expires = found.expires.map_or(0, |expires| millis(std::time::UNIX_EPOCH + expires));
    found.sequence == entry.sequence
        && block.topic(entry).is_some_and(|topic| topic.as_ref() == found.topic)
        && std::time::UNIX_EPOCH + found.time == time_of(block.time)
        && found.message_id == id
        && expires == entry.expires
}

/// The part of an index whose checksum is wrong.
fn index_fault(footer: &Footer, file: &crate::messages::embedded::disk::File) -> io::Result<Option<String>> {
    if footer.runs(file)?.is_err() {
        return Ok(Some("its sparse index".into()));
    }
    let topics = || Ok(Some("its topics".into()));
    let Ok(ranges) = footer.ranges(file)? else { return topics() };
    for place in 0..ranges.len() {
        let Ok(range) = footer.range(file, &ranges, place)? else { return topics() };
        for record in range.records() {
            if footer.postings(file, &record)?.is_err() {
                return Ok(Some(format!("the places of the messages of `{}`", record.name)));
            }
        }
    }
    Ok(None)
}

/// The first part of an index that differs from the blocks, although its checksums are right.
fn different(footer: &Footer, bytes: &[u8], should_be: &[u8]) -> &'static str {
    let first = bytes.iter().zip(should_be).take_while(|(is, should)| is == should).count();
    footer.part_at(footer.blocks_end() + first as u64)
}

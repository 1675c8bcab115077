//! Reads every byte of a log, and reports what is not as it was written.

use std::{io, path::Path};

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
            footer::{Damaged, Footer},
            scan::Found,
            segment_header::{self, SEGMENT_HEADER_BYTES},
            trim_points,
        },
        millis,
        recovery::directory::Candidate,
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

/// Verifies the log in a directory, and reports each finding. Nothing is written.
///
/// # Errors
/// [`Error::NoLog`], [`Error::Open`] and [`Error::Io`].
pub fn verify(directory: &Path, report: impl FnMut(&Finding)) -> Result<Verified, Error> {
    let files = archive::list_stable(directory)?;
    let mut verifier = Verifier { report, verified: Verified::default(), next_sequence: 1, last_time: 0 };
    if let Some(log) = files.log
        && let Err(fault) = trim_points::read(&Disk::Real, directory, log.id).map_err(at(directory))?
    {
        verifier.report(&archive::trim_points_finding(directory, &fault));
    }
    for finding in archive::lost(directory, &files) {
        verifier.report(&finding);
    }
    for path in &files.torn {
        let bytes = std::fs::metadata(path).map_err(at(path))?.len();
        verifier.report(&Finding::new(path, None, Fault::SetAside { bytes }));
    }
    for path in &files.superseded {
        verifier.report(&Finding::new(path, None, Fault::Superseded));
    }
    for (place, candidate) in files.segments.iter().enumerate() {
        let next = files.segments.get(place + 1).map(|next| next.first_sequence);
        verifier.segment(candidate, next).map_err(at(&candidate.path))?;
    }
    Ok(verifier.verified)
}

struct Verifier<F> {
    report: F,
    verified: Verified,
    next_sequence: u64,
    last_time: u64,
}

impl<F: FnMut(&Finding)> Verifier<F> {
    fn report(&mut self, finding: &Finding) {
        self.verified.damage += u64::from(finding.fault.is_damage());
        (self.report)(finding);
    }

    fn segment(&mut self, candidate: &Candidate, next: Option<u64>) -> io::Result<()> {
        let Candidate { path, first_sequence, header, .. } = candidate;
        let from = self.next_sequence.max(*first_sequence);
        let loaded = Loaded::read(candidate, from, next.is_none())?;
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
        self.verified.segments += 1;
        self.verified.bytes += loaded.bytes.len() as u64;
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
        Ok(())
    }

    fn block(&mut self, path: &Path, found: &Found, is_monotone: bool) {
        let block = &found.block;
        let sequence = block.first_sequence;
        if is_monotone && block.time < self.last_time {
            self.report(&Finding::new(path, found.start..found.end, Fault::Time { sequence }));
        }
        self.last_time = self.last_time.max(block.time);
        let mut before = 0;
        for (place, entry) in (0_u32..).zip(&block.entries) {
            if !block.is_intact(entry) {
                continue;
            }
            self.verified.messages += 1;
            if entry.sequence <= before || !agrees(block, place, entry) {
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
        let should_be = archive::index_of(&loaded.scan).to_footer();
        let Some(footer) = loaded.footer else {
            let tail = loaded.scan.tail.clone();
            let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
            let bytes = loaded.bytes.get(at(tail.start)..at(tail.end)).unwrap_or_default();
            // An index that was begun and not completed is not damage.
            let is_begun = should_be.starts_with(bytes);
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
fn agrees(block: &Block, place: u32, entry: &Entry) -> bool {
    let bytes = block.body.get(entry.range()).unwrap_or_default();
    let Some(found) = message::read(bytes) else { return false };
    let id = block.ids.iter().find(|(of, _)| *of == place).map(|(_, id)| id.as_ref());
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
    let directory = match footer.directory(file)? {
        Ok(directory) => directory,
        Err(Damaged) => return Ok(Some("its topics".into())),
    };
    for record in directory.records() {
        if record.postings(file)?.is_err() {
            return Ok(Some(format!("the places of the messages of `{}`", record.name)));
        }
    }
    Ok(None)
}

/// The first part of an index that differs from the blocks, although its checksums are right.
fn different(footer: &Footer, bytes: &[u8], should_be: &[u8]) -> &'static str {
    let first = bytes.iter().zip(should_be).take_while(|(is, should)| is == should).count();
    footer.part_at(footer.blocks_end() + first as u64)
}

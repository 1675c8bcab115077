//! Writes the messages of a log as lines, in order: those that a reader would get now.

use std::io::Write;

use super::{Archive, Error, Finding, archive::Loaded, at, object};
use crate::{
    messages::{
        embedded::{format::block::Block, recovery::directory::Candidate},
        topic::{self, Pattern},
    },
    wire::message,
};

/// The size at which the buffer is written out.
const BUFFER_BYTES: usize = 256 * 1024;

/// The messages to export.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Patterns of topics; empty for all topics.
    pub patterns: Vec<Pattern>,
    /// The lowest sequence.
    pub from: Option<u64>,
    /// The highest sequence.
    pub until: Option<u64>,
    /// Include the topics of the server's own.
    pub has_system: bool,
}

impl Selection {
    fn matches(&self, topic: &str) -> bool {
        let is_wanted = self.patterns.is_empty() || self.patterns.iter().any(|one| one.matches(topic));
        is_wanted && (self.has_system || !topic::is_reserved(topic))
    }
}

/// An export of a log, as it was at one moment.
#[derive(Debug)]
pub struct Export<'a> {
    archive: &'a Archive,
    selection: Selection,
}

impl<'a> Export<'a> {
    /// An export of a log as it is now.
    pub fn new(archive: &'a Archive, selection: Selection) -> Self {
        Self { archive, selection }
    }

    /// The number of messages to export. Damaged ones are counted too: they are found when they are read.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn count(&self) -> Result<u64, Error> {
        let mut count = 0;
        for segment in &self.archive.segments {
            for (name, held) in self.archive.topics_of(segment)? {
                if !self.selection.matches(&name) {
                    continue;
                }
                let is_whole = self.is_within(held.first.sequence) && self.is_within(held.last.sequence);
                count += if is_whole && self.archive.is_all_live(&name, &held) {
                    held.messages
                } else {
                    let live = self.archive.live(segment, &name)?;
                    live.iter().filter(|posting| self.is_within(posting.sequence)).count() as u64
                };
            }
        }
        Ok(count)
    }

    fn is_within(&self, sequence: u64) -> bool {
        let Selection { from, until, .. } = self.selection;
        // Later messages may have superseded those that the archive has.
        sequence <= self.archive.head
            && from.is_none_or(|from| sequence >= from)
            && until.is_none_or(|until| sequence <= until)
    }

    /// Writes the messages, and reports damage. Returns how many were written.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Output`].
    pub fn write(&self, out: &mut impl Write, mut report: impl FnMut(&Finding)) -> Result<u64, Error> {
        let (mut count, mut buffer, mut next_sequence) = (0, Vec::new(), 1);
        let files = &self.archive.files.segments;
        for (place, candidate) in files.iter().enumerate() {
            let next = files.get(place + 1).map(|next| next.first_sequence);
            if self.is_outside(candidate, next) {
                continue;
            }
            let from = candidate.first_sequence.max(next_sequence);
            let loaded = Loaded::read(candidate, from, next.is_none()).map_err(at(&candidate.path))?;
            loaded.damage(&candidate.path, next).iter().for_each(&mut report);
            for found in &loaded.scan.blocks {
                count += self.put(&mut buffer, &found.block);
                if buffer.len() >= BUFFER_BYTES {
                    out.write_all(&buffer).map_err(Error::Output)?;
                    buffer.clear();
                }
            }
            next_sequence = next_sequence.max(loaded.scan.next_sequence);
        }
        out.write_all(&buffer).and_then(|()| out.flush()).map_err(Error::Output)?;
        Ok(count)
    }

    /// Whether the segment has no sequence that is selected.
    fn is_outside(&self, candidate: &Candidate, next: Option<u64>) -> bool {
        let Selection { from, until, .. } = self.selection;
        until.is_some_and(|until| candidate.first_sequence > until)
            || from.zip(next).is_some_and(|(from, next)| next <= from)
    }

    fn put(&self, out: &mut Vec<u8>, block: &Block) -> u64 {
        let topics = block.topics.iter();
        let first_kept =
            topics.map(|topic| self.selection.matches(topic).then(|| self.archive.topics.first_kept(topic)));
        let first_kept = first_kept.collect::<Vec<_>>();
        let mut count = 0;
        for entry in &block.entries {
            let first = first_kept.get(entry.topic as usize).copied().flatten();
            let is_wanted = first.is_some_and(|first_kept| entry.sequence >= first_kept)
                && self.is_within(entry.sequence)
                && !self.archive.moment.has_expired(entry.sequence, block.time, entry.expires)
                && block.is_intact(entry);
            let found = message::read(block.body.get(entry.range()).unwrap_or_default());
            if let Some(found) = found.filter(|_| is_wanted)
                && object::put(out, &found).is_ok()
            {
                count += 1;
            }
        }
        count
    }
}

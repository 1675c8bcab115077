//! Gives the messages of a log as lines, in order: those that a reader would get now, and no others.

use std::io::Write;

use super::{Archive, Error, Finding, archive::Loaded, at, object};
use crate::{
    messages::{
        clock::Clock,
        embedded::{block::Block, files::Candidate, millis},
        topic::{self, Pattern},
    },
    wire::message,
};

/// Written out when it holds so much.
const BUFFER_BYTES: usize = 256 * 1024;

/// Which messages.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Topics; all if there are none.
    pub patterns: Vec<Pattern>,
    /// Those with this sequence or a higher one.
    pub from: Option<u64>,
    /// Those with this sequence or a lower one.
    pub until: Option<u64>,
    /// Topics of the server's own are given, too.
    pub has_system: bool,
}

impl Selection {
    fn matches(&self, topic: &str) -> bool {
        let is_wanted = self.patterns.is_empty() || self.patterns.iter().any(|one| one.matches(topic));
        is_wanted && (self.has_system || !topic::is_reserved(topic))
    }
}

/// An export that is ready to begin.
#[derive(Debug)]
pub struct Export<'a> {
    archive: &'a Archive,
    selection: Selection,
    /// Messages that expire later are given: in milliseconds since 1970.
    now: u64,
}

impl<'a> Export<'a> {
    /// Of a log, as it is now.
    pub fn new(archive: &'a Archive, selection: Selection) -> Self {
        Self { archive, selection, now: millis(Clock::System.now()) }
    }

    /// How many messages there are to give. Those that are damaged are found when they are read.
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
                let is_whole = self.is_within(held.first.0) && self.is_within(held.last.0);
                count += if is_whole && self.archive.is_all_live(&name, &held) {
                    held.messages
                } else {
                    let live = self.archive.live(segment, &name, self.now)?;
                    live.iter().filter(|posting| self.is_within(posting.sequence)).count() as u64
                };
            }
        }
        Ok(count)
    }

    fn is_within(&self, sequence: u64) -> bool {
        let Selection { from, until, .. } = self.selection;
        // What came later may supersede what is there.
        sequence <= self.archive.head
            && from.is_none_or(|from| sequence >= from)
            && until.is_none_or(|until| sequence <= until)
    }

    /// Writes them, and tells what is damaged. How many they were.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Output`].
    pub fn write(&self, out: &mut impl Write, mut tell: impl FnMut(&Finding)) -> Result<u64, Error> {
        let (mut count, mut buffer, mut next_sequence) = (0, Vec::new(), 1);
        let files = &self.archive.files.segments;
        for (place, candidate) in files.iter().enumerate() {
            let next = files.get(place + 1).map(|next| next.first_sequence);
            if self.is_aside(candidate, next) {
                continue;
            }
            let from = candidate.first_sequence.max(next_sequence);
            let loaded = Loaded::read(candidate, from, next.is_none()).map_err(at(&candidate.path))?;
            loaded.damage(&candidate.path, next).iter().for_each(&mut tell);
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

    /// No sequence of the segment is asked for.
    fn is_aside(&self, candidate: &Candidate, next: Option<u64>) -> bool {
        let Selection { from, until, .. } = self.selection;
        until.is_some_and(|until| candidate.first_sequence > until)
            || from.zip(next).is_some_and(|(from, next)| next <= from)
    }

    fn put(&self, out: &mut Vec<u8>, block: &Block) -> u64 {
        let topics = block.topics.iter();
        let floors =
            topics.map(|topic| self.selection.matches(topic).then(|| self.archive.topics.floor(topic)));
        let floors = floors.collect::<Vec<_>>();
        let mut count = 0;
        for entry in &block.entries {
            let floor = floors.get(entry.topic as usize).copied().flatten();
            let is_wanted = floor.is_some_and(|floor| entry.sequence >= floor)
                && self.is_within(entry.sequence)
                && !entry.has_expired(self.now)
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

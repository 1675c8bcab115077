//! Makes a new log of lines. It is built in a directory of its own, which is renamed when everything is on disk: so there is
//! either all of it or nothing.

use std::{
    fs,
    io::{self, BufRead},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Archive, Error, at, object};
use crate::messages::{
    Config,
    embedded::{
        disk::{Disk, File},
        format::{
            block::{self, Identity},
            manifest::{Listed, Manifest},
            segment_header::{Link, Predecessor, SegmentHeader},
        },
        index::{builder::IndexBuilder, quotas::Share},
        manifest::{Found, ManifestFile},
        segment_name,
        write::{commit::CommitBuilder, committer::SEGMENT_MESSAGES},
    },
    incarnation::{Incarnation, Incarnations, Lineage},
    topic,
};

/// The number of wrong lines that are listed.
const MAX_NAMED: usize = 10;

/// The size at which messages of the same time are written.
const WRITE_BYTES: usize = 1024 * 1024;

/// What was imported.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Imported {
    /// The number of messages.
    pub messages: u64,
    /// The sequences of the first and the last message.
    pub sequences: Option<(u64, u64)>,
    /// The number of commits of consumers, which were left out.
    pub consumers: u64,
    /// The identity of the new log.
    pub log: String,
}

/// Makes a log in a directory from lines as [`Export`](super::Export) writes them, with their sequences and times, and with
/// an identity of its own. The caller makes sure that no other process uses the directory. Commits of consumers are left out,
/// because their cursors are of the old log.
///
/// # Errors
/// [`Error::Occupied`], [`Error::Lines`], [`Error::Input`] and [`Error::Io`]; then nothing has changed.
pub fn import(directory: &Path, input: impl BufRead, config: &Config) -> Result<Imported, Error> {
    let messages = held(directory)?;
    if messages > 0 {
        return Err(Error::Occupied { directory: directory.into(), messages });
    }
    let aside = directory.with_extension("import");
    remove(&aside)?;
    fs::create_dir_all(&aside).map_err(at(&aside))?;
    let imported = fill(&aside, input, config).and_then(|imported| {
        sync(&aside)?;
        // It holds no message, so it can be replaced.
        remove(directory)?;
        fs::rename(&aside, directory).map_err(at(directory))?;
        sync(directory.parent().unwrap_or(directory))?;
        Ok(imported)
    });
    if imported.is_err() {
        let _ = fs::remove_dir_all(&aside);
    }
    imported
}

/// The number of messages that a log has on disk, removed or not.
fn held(directory: &Path) -> Result<u64, Error> {
    match Archive::open(directory, &[]) {
        Ok(archive) => {
            let messages = archive.segments.iter().map(|segment| segment.summary().messages).sum::<u64>();
            // Incomplete bytes may have been messages.
            let is_damaged = archive.log.is_none() || !archive.files.torn.is_empty();
            Ok(messages.max(u64::from(is_damaged)))
        }
        Err(Error::NoLog { .. }) => Ok(0),
        Err(error) => Err(error),
    }
}

fn remove(directory: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(at(directory)),
    }
}

fn sync(directory: &Path) -> Result<(), Error> {
    Disk::Real.sync_directory(directory).map_err(at(directory))
}

fn fill(directory: &Path, mut input: impl BufRead, config: &Config) -> Result<Imported, Error> {
    let log = Identity::new();
    let mut writer = Writer::new(directory, log, config.segment_bytes as u64);
    let (mut wrong, mut more) = (Vec::new(), 0);
    let (mut messages, mut sequences, mut consumers) = (0, None, 0);
    let (mut line, mut number, mut before) = (Vec::new(), 0, 0);
    while input.read_until(b'\n', &mut line).map_err(Error::Input)? > 0 {
        number += 1;
        let text = line.trim_ascii();
        if !text.is_empty() {
            let placed = object::read(text, config.max_message_bytes);
            match placed.and_then(|placed| follows(&placed, &mut before).map(|()| placed)) {
                Ok(placed) if topic::is_of_consumer(&placed.message.topic) => consumers += 1,
                Ok(placed) => {
                    let (first, _) = sequences.unwrap_or((placed.sequence, 0));
                    sequences = Some((first, placed.sequence));
                    messages += 1;
                    if wrong.is_empty() {
                        writer.push(&placed)?;
                    }
                }
                Err(fault) if wrong.len() < MAX_NAMED => wrong.push((number, fault)),
                Err(_) => more += 1,
            }
        }
        line.clear();
    }
    if !wrong.is_empty() {
        return Err(Error::Lines { lines: wrong, more });
    }
    writer.finish()?;
    Ok(Imported { messages, sequences, consumers, log: uuid::Uuid::from_bytes(log.id).to_string() })
}

/// Checks that sequences rise. Times may fall: the clock of the server may have been set back.
fn follows(placed: &object::Placed, before: &mut u64) -> Result<(), String> {
    if placed.sequence <= *before {
        return Err(format!("the sequence is {}, after {before}: sequences rise", placed.sequence));
    }
    *before = placed.sequence;
    Ok(())
}

/// Writes segments.
struct Writer {
    directory: PathBuf,
    log: Identity,
    segment_bytes: u64,
    builder: CommitBuilder,
    segment: Option<OpenSegment>,
    /// The segments so far.
    listed: Vec<Listed>,
    /// All messages are of one incarnation, as those from before incarnations were recorded.
    incarnation: Option<Incarnation>,
    /// The lowest sequence of the next message.
    next_sequence: u64,
}

/// The segment that is being written.
struct OpenSegment {
    path: PathBuf,
    file: File,
    end: u64,
    index: IndexBuilder,
    messages: u64,
}

impl Writer {
    fn new(directory: &Path, log: Identity, segment_bytes: u64) -> Self {
        let directory = directory.into();
        Self {
            directory,
            log,
            segment_bytes,
            builder: CommitBuilder::default(),
            segment: None,
            listed: Vec::new(),
            incarnation: None,
            next_sequence: 1,
        }
    }

    fn push(&mut self, placed: &object::Placed) -> Result<(), Error> {
        if placed.time != self.builder.time || self.builder.bytes() >= WRITE_BYTES {
            self.write()?;
            self.builder = CommitBuilder::new(placed.time, placed.sequence);
        }
        self.builder.next_sequence = placed.sequence;
        self.next_sequence = placed.sequence + 1;
        let topic: Arc<str> = placed.message.topic.as_str().into();
        self.builder.push(topic, &placed.message, None, false, Share::default());
        self.builder.close_if_full();
        Ok(())
    }

    /// Writes the collected messages.
    fn write(&mut self) -> Result<(), Error> {
        let blocks = std::mem::take(&mut self.builder).finish();
        let Some(first) = blocks.first() else { return Ok(()) };
        let first_sequence = first.first_sequence;
        let mut segment = match self.segment.take() {
            Some(full) if full.end >= self.segment_bytes || full.messages >= SEGMENT_MESSAGES => {
                full.seal()?;
                self.begin(first_sequence)?
            }
            Some(segment) => segment,
            None => self.begin(first_sequence)?,
        };
        let mut buffer = Vec::new();
        if self.incarnation.is_none() {
            let incarnation = Incarnation { first_sequence, ..Incarnation::of_log(self.log.id) };
            block::put_incarnation(&mut buffer, incarnation, self.log.salt);
            self.incarnation = Some(incarnation);
        }
        for block in &blocks {
            let start = segment.end + buffer.len() as u64;
            let body = block.put(&mut buffer, 0, self.log.salt);
            let at = |place: usize| segment.end + place as u64;
            let (body, end) = (at(body.start), at(body.end));
            segment.index.add(block, start, body, end);
            segment.messages += block.entries.len() as u64;
        }
        segment.append(&buffer)?;
        self.segment = Some(segment);
        Ok(())
    }

    fn begin(&mut self, first_sequence: u64) -> Result<OpenSegment, Error> {
        let path = self.directory.join(segment_name(first_sequence));
        let file = Disk::Real.create(&path).map_err(at(&path))?;
        let predecessor = self.listed.last_mut().map(|before| {
            before.end = Some(first_sequence);
            Predecessor { id: before.id, first_sequence: before.first_sequence, end: first_sequence }
        });
        let link = Link::new(predecessor, Lineage::last_of(self.incarnation.as_slice()));
        self.listed.push(Listed { id: Some(link.id), first_sequence, end: None });
        let header = SegmentHeader { log: self.log, first_sequence, replaces_up_to: 0, link: Some(link) };
        let index = IndexBuilder::new(self.log.salt, header.bytes());
        let mut open = OpenSegment { path, file, end: 0, index, messages: 0 };
        open.append(&header.to_bytes())?;
        Ok(open)
    }

    /// Ends the last segment as a server does when it stops. The next start continues it.
    fn finish(mut self) -> Result<(), Error> {
        self.write()?;
        let mut last = match self.segment.take() {
            Some(last) => last,
            None => self.begin(1)?,
        };
        last.append(&block::mark(self.next_sequence, self.log.salt))?;
        last.file.sync().map_err(at(&last.path))?;
        let manifest = Manifest {
            next_sequence: self.next_sequence,
            segments: self.listed,
            incarnations: Incarnations::new(0, self.incarnation),
            ..Manifest::new(self.log)
        };
        let file = ManifestFile::new(Disk::Real, &self.directory, manifest, &Found::default());
        file.mirror().map_err(at(&self.directory))
    }
}

impl OpenSegment {
    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all_at(bytes, self.end).map_err(at(&self.path))?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Ends a full segment.
    fn seal(mut self) -> Result<(), Error> {
        let footer = self.index.to_footer();
        self.append(&footer)?;
        self.file.sync().map_err(at(&self.path))
    }
}

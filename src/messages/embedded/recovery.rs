//! Recovers the state of a log from its directory.
//!
//! A segment with a footer is known by it, without reading its blocks. Others are read: the one that was written last, and
//! any that was full when the server died. In the last one, bytes that a power cut may have torn are set aside in a file of
//! their own, not deleted. Damage anywhere else stays where it is, and its sequences are reported to readers. The last commit
//! is written again and synced before it is served: after a failed sync the page cache may show bytes that the disk does not
//! have.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use self::{
    clocks::WithIds,
    directory::{Candidate, Files},
    presence::Presence,
    tail::Tail,
};
use super::{
    State,
    disk::{Disk, File, is_full},
    format::{
        self,
        block::{Block, Identity, MARK_BYTES},
        clock_history::ClockHistory,
        footer::Footer,
        manifest::{Listed, Manifest},
        scan::Scan,
        segment_header, trim_points,
    },
    index::{builder::IndexBuilder, cache::Cache, segment::Segment, topics::Topics},
    manifest, segment_name,
};
use crate::messages::{
    Config, OpenError, Opened,
    incarnation::{Incarnation, Incarnations},
};

pub mod clocks;
pub mod directory;
pub mod presence;
pub mod tail;
mod upgrade;

/// The sequence jumps by this much over a torn tail: more than a commit holds, so that no sequence that a reader may have
/// seen is given again.
const SEQUENCE_JUMP: u64 = 1_000_000;

/// The sequence jumps by this much if the segment that was written last is lost: more than a segment and a commit hold.
const LOST_JUMP: u64 = 2_000_000;

/// The recovered state.
#[derive(Debug)]
pub struct Recovered {
    /// The log: a new one for an empty directory.
    pub identity: Identity,
    /// The manifest as it must be on disk, and as it was found there.
    pub manifest: Manifest,
    pub found: manifest::Found,
    /// The state that readers see.
    pub state: State,
    /// The sequence of the next message.
    pub next_sequence: u64,
    /// The known facts about the wall clock.
    pub clock_history: ClockHistory,
    /// The blocks with message ids of segments that were read.
    pub with_ids: WithIds,
    /// The segment to continue, and the offset of its next block; `None` to begin a new one.
    pub active: Option<(Arc<Segment>, u64)>,
    /// A torn tail at that offset, for whose copy the disk has no room.
    pub tail: Option<Tail>,
    /// With it: the sequence of the next message as long as the manifest cannot be written either. Nothing on disk says then that
    /// the sequences have jumped.
    pub next_before_tail: Option<u64>,
    /// The bytes of that segment before this offset are not taken for torn, whatever happens to them.
    pub settled_up_to: u64,
    /// Full segments without a footer.
    pub unsealed: Vec<Arc<Segment>>,
    /// The report for the operator.
    pub opened: Opened,
    /// The previous segment, if its end may be missing.
    open_end: Option<OpenEnd>,
}

/// A segment whose end may be missing: only the first sequence of the next segment shows that.
#[derive(Debug)]
struct OpenEnd {
    path: PathBuf,
    /// Bytes at its end that are not a record.
    bytes: Range<u64>,
    next_sequence: u64,
}

/// Recovers the state of the log in a directory.
pub fn recover(directory: &Path, config: &Config, cache: &Cache) -> Result<Recovered, OpenError> {
    let at = OpenError::at;
    let disk = &config.disk;
    disk.create_directory(directory).map_err(at(directory))?;
    let upgraded = upgrade::all(disk, directory)?;
    let files = Files::list(disk, directory, true)?;
    for path in files.unfinished.iter().chain(&files.superseded) {
        // It was being created or deleted when the server ended.
        disk.remove(path).map_err(at(path))?;
    }
    let log = files.log;
    let mut presence = Presence::new(files.manifest.manifest.as_ref(), &files.segments);
    presence.open_again(files.segments.last()).map_err(at(directory))?;
    let mut opened = Opened { upgraded, ..Opened::default() };
    for (path, first) in &files.misnamed {
        opened.damaged.push(format!("{}: a wrong name, it begins with sequence {first}", path.display()));
    }
    if presence.is_manifest_lost {
        let path = directory.join(format::manifest::NAMES[0]);
        opened
            .damaged
            .push(format!("{}: the manifest, which is made again from the segments", path.display()));
    }
    let identity = log.unwrap_or_else(Identity::new);
    let manifest = Manifest {
        incarnations: incarnations(files.manifest.manifest.as_ref(), identity, &files.segments),
        ..files.manifest.manifest.clone().unwrap_or_else(|| Manifest::new(identity))
    };
    let clock_history = ClockHistory::read(&manifest.clock).unwrap_or_else(|| {
        opened.damaged.push(format!("{}: what is known of the wall clock", directory.display()));
        ClockHistory::default()
    });
    let mut candidates = files.segments;
    let mut topics = Topics::new(config.retention.clone());
    if let Some(log) = log {
        match trim_points::read(disk, directory, log.id).map_err(at(directory))? {
            Ok(points) => topics.restore(points),
            Err(fault) => opened.damaged.push(fault),
        }
    }
    for (path, fault) in trim_points::faults(disk, directory).map_err(at(directory))? {
        tracing::warn!(path = %path.display(), fault, "a copy of the list of removed messages is not used: it is written again");
    }
    let state = State { topics, ..State::default() };
    let mut recovered = Recovered {
        identity,
        manifest,
        found: files.manifest,
        state,
        next_sequence: 1,
        clock_history,
        with_ids: WithIds::default(),
        active: None,
        tail: None,
        next_before_tail: None,
        settled_up_to: 0,
        unsealed: Vec::new(),
        opened,
        open_end: None,
    };
    let last = if presence.is_last_open() { candidates.pop() } else { None };
    for candidate in candidates {
        let path = candidate.path.clone();
        recovered.take(candidate, None, cache).map_err(at(&path))?;
    }
    if let Some(last) = last {
        let path = last.path.clone();
        recovered.take(last, Some(disk), cache).map_err(at(&path))?;
    }
    recovered.next_sequence = recovered.next_sequence.max(files.unused);
    recovered.finish(directory, presence);
    Ok(recovered)
}

/// The incarnations that are known before segments are read.
fn incarnations(manifest: Option<&Manifest>, log: Identity, candidates: &[Candidate]) -> Incarnations {
    if let Some(manifest) = manifest {
        return manifest.incarnations.clone();
    }
    let has_link = |candidate: &Candidate| candidate.header.map(|header| header.link.is_some());
    let is_older = candidates.iter().any(|candidate| has_link(candidate) == Some(false))
        || !candidates.is_empty() && candidates.iter().all(|candidate| has_link(candidate) != Some(true));
    Incarnations::new(0, is_older.then(|| Incarnation::of_log(log.id)))
}

impl Recovered {
    /// Adds a segment. `last`: it is the one that was being written.
    fn take(&mut self, candidate: Candidate, last: Option<&Disk>, cache: &Cache) -> io::Result<()> {
        let Candidate { path, file, first_sequence, header, footer, salt } = candidate;
        let link = header.and_then(|header| header.link);
        if let Some(link) = link {
            self.manifest.incarnations.extend(&link.lineage);
        }
        let replaces_up_to = header.map_or(0, |header| header.replaces_up_to);
        self.check_open_end(first_sequence);
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
            let sealed = Segment::sealed(path.clone(), file.clone(), first_sequence, replaces_up_to, footer)?;
            if let Ok(segment) = sealed
                && self.take_sealed(&segment, cache)?
            {
                self.state.segments.push(Arc::new(segment));
                return Ok(());
            }
            self.opened.damaged.push(format!("{}: the index, which is built again", path.display()));
        }
        // A segment with an index was full: nothing was torn there, and it is not continued.
        let last = last.filter(|_| footer.is_none());
        let length = footer.map_or(file.len()?, |footer| footer.blocks_end());
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        let bad = file.fill_soundly(&mut bytes, 0)?;
        let bytes = Bytes::from(bytes);
        let mut scan = Scan::new(&bytes, first_sequence.max(self.next_sequence), salt);
        if last.is_some() && bad.last().is_some_and(|bad| bad.end > scan.unsure()) {
            // It cannot be taken for torn, because it may have been acknowledged.
            return Err(io::Error::other("the disk cannot read the end of the log"));
        }
        if let Some(disk) = last {
            self.set_torn_aside(disk, &path, &file, &bytes, &mut scan)?;
        }
        self.take_scanned(&path, &scan);
        if last.is_none() {
            // Its footer was not written completely, or not at all: the next segment shows whether messages are missing.
            self.open_end = Some(OpenEnd {
                path: path.clone(),
                bytes: scan.tail.clone(),
                next_sequence: scan.next_sequence,
            });
        }
        if last.is_some() && link.is_none() && self.is_unused(&scan, first_sequence) {
            // The next segment takes its name.
            self.opened.segments -= 1;
            return Ok(());
        }
        let mut index = IndexBuilder::new(salt, 0);
        for found in &scan.blocks {
            index.add(&found.block, found.start, found.body, found.end);
        }
        index.extend(scan.end);
        let segment = Arc::new(Segment::open(path, file, first_sequence, replaces_up_to, index));
        let with_ids = scan.blocks.iter().filter(|found| !found.block.ids.is_empty());
        let without_body = |block: &Block| Block { body: Bytes::new(), ..block.clone() };
        self.with_ids.insert(segment.id, with_ids.map(|found| without_body(&found.block)).collect());
        self.state.segments.push(segment.clone());
        // One of version 2 is followed by the next at once, unless a torn tail must be set aside before.
        if last.is_some() && (link.is_some() || self.tail.is_some()) {
            self.settled_up_to = scan.last_commit.min(scan.end);
            self.active = Some((segment, scan.end));
        } else if scan.damage.is_empty() {
            self.unsealed.push(segment);
        }
        if let Some(Footer { summary, .. }) = footer {
            let end = summary.last_sequence + 1;
            self.check_open_end(end);
            self.next_sequence = self.next_sequence.max(end);
        }
        Ok(())
    }

    /// A segment of version 2, which is not continued, without any message.
    fn is_unused(&self, scan: &Scan, first_sequence: u64) -> bool {
        scan.blocks.is_empty() && scan.damage.is_empty() && self.next_sequence <= first_sequence
    }

    /// A file without a header and without content: the power failed when it was created.
    fn was_being_made(file: &File) -> io::Result<bool> {
        let length = usize::try_from(file.len()?).map_err(io::Error::other)?;
        let bytes = file.read_soundly(0, length)?;
        Ok(segment_header::is_empty(&bytes))
    }

    /// Adds a segment by its footer. False if that is damaged.
    fn take_sealed(&mut self, segment: &Segment, cache: &Cache) -> io::Result<bool> {
        let summary = segment.summary();
        if !segment.has_sound_topics()? {
            return Ok(false);
        }
        let topics = &mut self.state.topics;
        if segment.for_each_topic(cache, |name, held| topics.add_held(name, held))?.is_err() {
            return Err(io::Error::other("the index of a segment changes while it is read"));
        }
        if summary.messages > 0 {
            self.next_sequence = self.next_sequence.max(summary.last_sequence + 1);
        }
        self.opened.messages += summary.messages;
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
            self.opened.messages += found.block.entries.len() as u64;
        }
        for (_, incarnation) in &scan.incarnations {
            self.manifest.incarnations.push(*incarnation);
        }
        self.next_sequence = self.next_sequence.max(scan.next_sequence);
    }

    /// Reports segments that are lost, and completes the manifest, when all others were added.
    fn finish(&mut self, directory: &Path, presence: Presence) {
        let is_newest_lost = presence.is_newest_lost();
        let Presence { mut present, lost, .. } = presence;
        if let Some(end) = present.last().and_then(|last| last.end) {
            self.check_open_end(end);
        }
        self.next_sequence = self.next_sequence.max(self.manifest.next_sequence);
        self.next_before_tail = self.next_before_tail.map(|next| next.max(self.manifest.next_sequence));
        if is_newest_lost {
            self.next_sequence += LOST_JUMP;
        }
        self.manifest = Manifest { lost, ..self.manifest.clone() };
        for lost in &mut self.manifest.lost {
            let end = *lost.end.get_or_insert(self.next_sequence);
            self.next_sequence = self.next_sequence.max(end);
        }
        self.manifest.segments.clone_from(&present);
        self.manifest.join_lost();
        for lost in &self.manifest.lost {
            let (first, last) = (lost.first_sequence, lost.end.unwrap_or(self.next_sequence) - 1);
            self.opened.damaged.push(if lost.id.is_some() {
                let path = directory.join(segment_name(first));
                format!("{}: the file is missing, with sequences {first} to {last}", path.display())
            } else {
                let fault = "are missing, which were in a file that is lost, or in the damaged part of one that was deleted since";
                format!("{}: sequences {first} to {last} {fault}", directory.display())
            });
            let to = self.state.damaged.entry(first).or_insert(last);
            *to = last.max(*to);
        }
        let is_in_use = |listed: &Listed| {
            let segments = &self.state.segments;
            segments.binary_search_by_key(&listed.first_sequence, |segment| segment.first_sequence).is_ok()
        };
        present.retain(is_in_use);
        if self.next_sequence == 1 {
            // No message is from before incarnations were recorded.
            self.manifest.incarnations = Incarnations::default();
        }
        let manifest = Manifest { segments: present, ..self.manifest.clone() };
        let is_as_found = self.found.manifest.as_ref() == Some(&manifest);
        // A purge may erase a torn tail that cannot be set aside yet.
        let has_jumped = !self.opened.torn.is_empty() || self.tail.is_some();
        let next_sequence =
            if is_as_found && !has_jumped { manifest.next_sequence } else { self.next_sequence };
        self.manifest = Manifest { next_sequence, ..manifest };
    }

    /// Records the missing end of the previous segment, if the next one begins at a higher sequence.
    fn check_open_end(&mut self, first_sequence: u64) {
        if let Some(OpenEnd { path, bytes, next_sequence }) = self.open_end.take()
            && next_sequence < first_sequence
        {
            let Range { start, end } = bytes;
            self.opened.damaged.push(format!("{}: bytes {start} to {end}", path.display()));
            self.state.damaged.insert(next_sequence, first_sequence - 1);
            // Its index would overwrite the bytes that are left there.
            self.unsealed.retain(|segment| segment.path != path);
        }
    }

    /// Sets aside what may have been torn, and makes sure that the rest is on disk.
    fn set_torn_aside(
        &mut self,
        disk: &Disk,
        path: &Path,
        file: &File,
        bytes: &Bytes,
        scan: &mut Scan,
    ) -> io::Result<()> {
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        let torn = scan.torn().map(|start| Tail { start, end: scan.tail.end.max(scan.end) });
        if let Some(tail) = torn {
            scan.truncate(tail.start);
            scan.next_sequence += SEQUENCE_JUMP;
        }
        let unsure = scan.unsure();
        let sure = bytes.get(at(unsure)..at(scan.end)).unwrap_or_default();
        if !sure.is_empty() {
            file.rewrite(sure, unsure)?;
        }
        if let Some(tail) = torn {
            match tail.set_aside(disk, path, file, scan.next_sequence, scan.salt()) {
                Ok(aside) => {
                    self.opened.torn.push((aside, tail.end - tail.start));
                    scan.end += MARK_BYTES as u64;
                    scan.last_commit = scan.end;
                }
                Err(error) if is_full(&error) => {
                    tracing::warn!(%error, bytes = tail.end - tail.start, "there is no room to set aside an incomplete write at the end of the log: publishing waits for it, reading goes on");
                    self.tail = torn;
                    self.next_before_tail = Some(scan.next_sequence - SEQUENCE_JUMP);
                }
                Err(error) => return Err(error),
            }
        }
        file.sync()
    }
}

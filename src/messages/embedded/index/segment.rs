//! A segment: a file of blocks, and the index of what is where in it.
//!
//! The index of the segment that is being written is in memory, and grows with its messages. The index of a full segment is
//! its footer, of which only the sparse index is in memory: 28 bytes for each run of 64 KiB. Other parts of footers are
//! kept in a [`Cache`] after they were read.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use quick_cache::{Weighter, sync::Cache as QuickCache};

use crate::messages::{
    embedded::{
        disk::File,
        format::{
            block::{Block, Salt},
            footer::{self, Damaged, Directory, Footer, Held, List, Posting, SparseEntry, Summary},
        },
    },
    topic::Pattern,
};

/// The size of a run of blocks: a batch or two, so that a slow or narrow subscription reads little in vain.
const RUN_BYTES: u64 = 64 * 1024;

/// The size of the parts of footers that are kept in memory.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// The expected number of these parts.
const CACHE_ITEMS: usize = 4096;

/// Messages are read one by one instead of by runs if they are less than this fraction of a segment,
const NARROW: u64 = 8;

/// and if they are of at most this many topics, each of which is looked up for each batch.
const MAX_NARROW: usize = 64;

/// A file of blocks.
#[derive(Debug)]
pub struct Segment {
    /// Unique in this process; a path is not, because files are replaced.
    pub id: u64,
    /// The path of the file.
    pub path: PathBuf,
    /// The open file.
    pub file: Arc<File>,
    /// No message in it has a lower sequence, nor had one that compaction dropped.
    pub first_sequence: u64,
    /// A compacted segment replaces all older segments whose first sequence is at most this one; 0 for a segment that was
    /// not compacted.
    pub replaces_up_to: u64,
    index: Index,
}

#[derive(Debug)]
enum Index {
    Open(RwLock<IndexBuilder>),
    Sealed { footer: Footer, entries: Vec<SparseEntry> },
}

/// The index of a segment whose footer is not written yet.
#[derive(Debug, Default)]
pub struct IndexBuilder {
    entries: Vec<SparseEntry>,
    /// The offset after the last block, and after a mark that follows it.
    end: u64,
    lists: Vec<(Arc<str>, List)>,
    places: HashMap<Arc<str>, usize>,
    summary: Summary,
    salt: Salt,
}

impl IndexBuilder {
    /// The index of a segment without blocks, whose header ends at an offset.
    pub fn new(salt: Salt, header_end: usize) -> Self {
        Self { salt, end: header_end as u64, ..Self::default() }
    }

    /// Adds a block from `start` to `end` whose body begins at `body`.
    pub fn add(&mut self, block: &Block, start: u64, body: u64, end: u64) {
        match self.entries.last_mut() {
            Some(entry) if start - u64::from(entry.offset) < RUN_BYTES => {
                entry.last_sequence = block.last_sequence;
            }
            _ => self.entries.push(SparseEntry {
                offset: offset_of(start),
                first_sequence: block.first_sequence,
                last_sequence: block.last_sequence,
                time: block.time,
            }),
        }
        let places = block.topics.iter().map(|name| self.place(name)).collect::<Vec<_>>();
        for entry in &block.entries {
            let place = places.get(entry.topic as usize).copied();
            let Some((_, list)) = place.and_then(|place| self.lists.get_mut(place)) else { continue };
            let posting = Posting {
                sequence: entry.sequence,
                expires: entry.expires,
                offset: offset_of(body + u64::from(entry.start)),
                length: entry.end - entry.start,
                checksum: entry.checksum,
            };
            list.held.add(&posting, block.time);
            list.postings.push(posting);
        }
        if self.summary.messages == 0 {
            self.summary.first_sequence = block.first_sequence;
        }
        self.summary.last_sequence = block.last_sequence;
        self.summary.last_time = block.time;
        self.summary.messages += block.entries.len() as u64;
        self.summary.ids += block.ids.len() as u64;
        self.end = end;
    }

    /// Adds a mark after the last block.
    pub fn extend(&mut self, end: u64) {
        self.end = self.end.max(end);
    }

    fn place(&mut self, name: &Arc<str>) -> usize {
        *self.places.entry(name.clone()).or_insert_with(|| {
            self.lists.push((name.clone(), List::default()));
            self.lists.len() - 1
        })
    }

    /// The index as a footer.
    pub fn to_footer(&self) -> Vec<u8> {
        let lists = self.lists.iter().cloned().collect::<BTreeMap<_, _>>();
        footer::to_bytes(self.end, &self.entries, &lists, &self.summary, self.salt)
    }

    fn list(&self, topic: &str) -> Option<&List> {
        self.lists.get(*self.places.get(topic)?).map(|(_, list)| list)
    }
}

/// A run of blocks in a file.
#[derive(Clone, Copy, Debug)]
pub struct BlockRun {
    /// The offset of its first byte.
    pub start: u64,
    /// The offset after its last byte.
    pub end: u64,
    /// Its entry in the sparse index.
    pub entry: SparseEntry,
}

/// The cheapest way to read the messages that match from a segment.
#[derive(Clone, Debug)]
pub enum Plan {
    /// Run by run.
    Runs,
    /// One by one, by the index of these topics.
    Topics(Vec<Arc<str>>),
}

/// The result of reading a footer. Outer error: I/O. Inner error: the footer is damaged.
pub type Found<T> = io::Result<Result<T, Damaged>>;

#[expect(clippy::expect_used, reason = "a segment has at most 1 GiB, and a commit")]
fn offset_of(at: u64) -> u32 {
    u32::try_from(at).expect("an offset within a segment fits 32 bits")
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Segment {
    /// A segment that is being written, or has no footer for another reason.
    pub fn open(
        path: PathBuf,
        file: Arc<File>,
        first_sequence: u64,
        replaces_up_to: u64,
        index: IndexBuilder,
    ) -> Self {
        let index = Index::Open(RwLock::new(index));
        Self { id: next_id(), path, file, first_sequence, replaces_up_to, index }
    }

    /// A segment with a footer.
    pub fn sealed(
        path: PathBuf,
        file: Arc<File>,
        first_sequence: u64,
        replaces_up_to: u64,
        footer: Footer,
    ) -> Found<Self> {
        let entries = match footer.runs(&file)? {
            Ok(entries) => entries,
            Err(damaged) => return Ok(Err(damaged)),
        };
        let index = Index::Sealed { footer, entries };
        Ok(Ok(Self { id: next_id(), path, file, first_sequence, replaces_up_to, index }))
    }

    /// The salt of its records.
    pub fn salt(&self) -> Salt {
        match &self.index {
            Index::Open(_) => self.with_builder(|builder| builder.salt),
            Index::Sealed { footer, .. } => footer.salt,
        }
    }

    /// Whether it has a footer.
    pub fn is_sealed(&self) -> bool {
        matches!(self.index, Index::Sealed { .. })
    }

    /// Adds a block that was written.
    pub fn add(&self, block: &Block, start: u64, body: u64, end: u64) {
        if let Index::Open(builder) = &self.index {
            builder.write().unwrap_or_else(PoisonError::into_inner).add(block, start, body, end);
        }
    }

    /// The footer to write; `None` if there is one.
    pub fn to_footer(&self) -> Option<Vec<u8>> {
        match &self.index {
            Index::Open(_) => Some(self.with_builder(IndexBuilder::to_footer)),
            Index::Sealed { .. } => None,
        }
    }

    fn with_builder<T: Default>(&self, ask: impl FnOnce(&IndexBuilder) -> T) -> T {
        match &self.index {
            Index::Open(builder) => ask(&builder.read().unwrap_or_else(PoisonError::into_inner)),
            Index::Sealed { .. } => T::default(),
        }
    }

    /// A summary of the segment.
    pub fn summary(&self) -> Summary {
        match &self.index {
            Index::Open(_) => self.with_builder(|builder| builder.summary),
            Index::Sealed { footer, .. } => footer.summary,
        }
    }

    /// The offset after the last block.
    pub fn blocks_end(&self) -> u64 {
        match &self.index {
            Index::Open(_) => self.with_builder(|builder| builder.end),
            Index::Sealed { footer, .. } => footer.blocks_end(),
        }
    }

    fn with_entries<T>(&self, ask: impl FnOnce(&[SparseEntry]) -> T) -> T {
        match &self.index {
            Index::Open(builder) => ask(&builder.read().unwrap_or_else(PoisonError::into_inner).entries),
            Index::Sealed { entries, .. } => ask(entries),
        }
    }

    /// The number of runs.
    pub fn run_count(&self) -> usize {
        self.with_entries(<[SparseEntry]>::len)
    }

    /// A run, by its index.
    pub fn run(&self, place: usize) -> Option<BlockRun> {
        let end = self.blocks_end();
        self.with_entries(|entries| {
            let entry = *entries.get(place)?;
            let end = entries.get(place + 1).map_or(end, |next| next.offset.into());
            Some(BlockRun { start: entry.offset.into(), end, entry })
        })
    }

    /// The run that holds a sequence, or else the next one.
    pub fn run_from_sequence(&self, sequence: u64) -> Option<BlockRun> {
        self.run(self.with_entries(|entries| entries.partition_point(|entry| entry.last_sequence < sequence)))
    }

    /// The index of the first run that may hold a message of this time or later.
    pub fn first_run_at_time(&self, time: u64) -> usize {
        self.with_entries(|entries| entries.partition_point(|entry| entry.time < time).saturating_sub(1))
    }

    /// The run that holds a byte.
    pub fn run_at_offset(&self, offset: u32) -> Option<BlockRun> {
        let place = self.with_entries(|entries| entries.partition_point(|entry| entry.offset <= offset));
        self.run(place.checked_sub(1)?)
    }

    /// The places of the messages of a topic, in order.
    pub fn postings(&self, cache: &Cache, topic: &str) -> Found<Arc<[Posting]>> {
        match &self.index {
            Index::Open(_) => Ok(Ok(self.with_builder(|builder| {
                builder.list(topic).map(|list| list.postings.as_slice().into()).unwrap_or_default()
            }))),
            Index::Sealed { footer, .. } => cache.postings(self, footer, topic),
        }
    }

    /// The places of the messages of a topic from a sequence on, at most `most` of them.
    pub fn postings_from(&self, cache: &Cache, topic: &str, from: u64, most: usize) -> Found<Vec<Posting>> {
        let part = |postings: &[Posting]| {
            let start = postings.partition_point(|posting| posting.sequence < from);
            postings.iter().skip(start).take(most).copied().collect::<Vec<_>>()
        };
        match &self.index {
            Index::Open(_) => Ok(Ok(self.with_builder(|builder| {
                builder.list(topic).map(|list| part(&list.postings)).unwrap_or_default()
            }))),
            Index::Sealed { footer, .. } => {
                Ok(cache.postings(self, footer, topic)?.map(|postings| part(&postings)))
            }
        }
    }

    /// What the segment holds of a topic.
    pub fn held(&self, cache: &Cache, topic: &str) -> Found<Option<Held>> {
        match &self.index {
            Index::Open(_) => Ok(Ok(self.with_builder(|builder| builder.list(topic).map(|list| list.held)))),
            Index::Sealed { footer, .. } => {
                let directory = cache.directory(self, footer)?;
                Ok(directory.map(|directory| directory.find(topic).map(|record| record.held)))
            }
        }
    }

    /// Calls `each` for each topic; by name if the segment is full.
    pub fn for_each_topic(&self, cache: &Cache, mut each: impl FnMut(&str, &Held)) -> Found<()> {
        match &self.index {
            Index::Open(_) => {
                self.with_builder(|builder| {
                    builder.lists.iter().for_each(|(name, list)| each(name, &list.held));
                });
                Ok(Ok(()))
            }
            Index::Sealed { footer, .. } => Ok(cache.directory(self, footer)?.map(|directory| {
                directory.records().for_each(|record| each(record.name, &record.held));
            })),
        }
    }

    /// How to read the messages that match.
    pub fn plan(&self, cache: &Cache, patterns: &[Pattern]) -> Found<Plan> {
        if patterns.iter().any(Pattern::matches_all) {
            return Ok(Ok(Plan::Runs));
        }
        match &self.index {
            Index::Open(_) => self.make_plan(cache, patterns),
            Index::Sealed { .. } => cache.plan(self, patterns),
        }
    }

    fn make_plan(&self, cache: &Cache, patterns: &[Pattern]) -> Found<Plan> {
        let (mut topics, mut bytes) = (Vec::<Arc<str>>::new(), 0);
        if patterns.iter().all(|pattern| pattern.literal().is_some()) {
            for name in patterns.iter().filter_map(Pattern::literal) {
                match self.held(cache, name)? {
                    Ok(Some(held)) if !topics.iter().any(|topic| topic.as_ref() == name) => {
                        topics.push(name.into());
                        bytes += held.bytes;
                    }
                    Ok(_) => {}
                    Err(damaged) => return Ok(Err(damaged)),
                }
            }
        } else {
            let read = self.for_each_topic(cache, |name, held| {
                if patterns.iter().any(|pattern| pattern.matches(name)) {
                    topics.push(name.into());
                    bytes += held.bytes;
                }
            })?;
            if let Err(damaged) = read {
                return Ok(Err(damaged));
            }
        }
        let is_narrow = bytes <= self.blocks_end() / NARROW && topics.len() <= MAX_NARROW;
        Ok(Ok(if is_narrow { Plan::Topics(topics) } else { Plan::Runs }))
    }

    /// Reads the bytes from `start` to `end`.
    pub fn read(&self, start: u64, end: u64) -> io::Result<Bytes> {
        let length = usize::try_from(end.saturating_sub(start)).map_err(io::Error::other)?;
        Ok(self.file.read(start, length)?.into())
    }
}

/// Parts of footers that were read lately.
#[derive(Debug)]
pub struct Cache(QuickCache<(u64, Key), Kept, Weight>);

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Key {
    Directory,
    Postings(Box<str>),
    Plan(Box<str>),
}

#[derive(Clone, Debug)]
enum Kept {
    Directory(Arc<Directory>),
    Postings(Arc<[Posting]>),
    Plan(Arc<Plan>),
}

#[derive(Clone, Debug)]
struct Weight;

impl Weighter<(u64, Key), Kept> for Weight {
    fn weight(&self, (_, key): &(u64, Key), kept: &Kept) -> u64 {
        let key = match key {
            Key::Directory => 0,
            Key::Postings(text) | Key::Plan(text) => text.len(),
        };
        let kept = match kept {
            Kept::Directory(directory) => directory.bytes(),
            Kept::Postings(postings) => size_of_val(postings.as_ref()),
            Kept::Plan(plan) => match plan.as_ref() {
                Plan::Runs => 0,
                Plan::Topics(topics) => topics.iter().map(|topic| topic.len() + 32).sum(),
            },
        };
        (key + kept + 64) as u64
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self(QuickCache::with_weighter(CACHE_ITEMS, CACHE_BYTES, Weight))
    }
}

impl Cache {
    fn directory(&self, segment: &Segment, footer: &Footer) -> Found<Arc<Directory>> {
        if let Some(Kept::Directory(directory)) = self.0.get(&(segment.id, Key::Directory)) {
            return Ok(Ok(directory));
        }
        Ok(footer.directory(&segment.file)?.map(|directory| {
            let directory = Arc::new(directory);
            self.0.insert((segment.id, Key::Directory), Kept::Directory(directory.clone()));
            directory
        }))
    }

    fn postings(&self, segment: &Segment, footer: &Footer, topic: &str) -> Found<Arc<[Posting]>> {
        let key = (segment.id, Key::Postings(topic.into()));
        if let Some(Kept::Postings(postings)) = self.0.get(&key) {
            return Ok(Ok(postings));
        }
        let directory = match self.directory(segment, footer)? {
            Ok(directory) => directory,
            Err(damaged) => return Ok(Err(damaged)),
        };
        let Some(record) = directory.find(topic) else { return Ok(Ok(Arc::default())) };
        Ok(record.postings(&segment.file)?.map(|postings| {
            let postings = Arc::<[Posting]>::from(postings);
            self.0.insert(key, Kept::Postings(postings.clone()));
            postings
        }))
    }

    fn plan(&self, segment: &Segment, patterns: &[Pattern]) -> Found<Plan> {
        let text = patterns.iter().map(Pattern::as_str).collect::<Vec<_>>().join(" ");
        let key = (segment.id, Key::Plan(text.into()));
        if let Some(Kept::Plan(plan)) = self.0.get(&key) {
            return Ok(Ok(plan.as_ref().clone()));
        }
        Ok(segment.make_plan(self, patterns)?.inspect(|plan| {
            self.0.insert(key, Kept::Plan(plan.clone().into()));
        }))
    }
}

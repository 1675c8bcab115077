//! A segment: a file of blocks, and the index of its content.
//!
//! The index of the segment that is being written is in memory, and grows with its messages. The index of a full segment is
//! its footer, of which only the sparse index is in memory: 40 bytes for each run of 64 KiB. Other parts of footers are
//! kept in a [`Cache`] after they were read.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use super::{
    builder::IndexBuilder,
    cache::{Cache, Source},
    live::Measured,
};
use crate::messages::embedded::{
    disk::{File, FileId},
    format::{
        block::{Block, Salt},
        footer::{Footer, Found, Held, Posting, Range, RangeList, SparseEntry, Summary},
    },
};

/// Returns the inner error of a [`Found`] from a function that returns one.
macro_rules! sound {
    ($found:expr) => {
        match $found? {
            Ok(found) => found,
            Err(damaged) => return Ok(Err(damaged)),
        }
    };
}

mod plan;

/// The number of topics of a segment without a footer that are copied under one lock.
const SLICE: usize = 512;

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
    /// How much of it is not removed, as it was measured last.
    pub live: Measured,
    /// Which file that is, once it was asked for.
    file_id: OnceLock<FileId>,
    index: Index,
}

#[derive(Debug)]
enum Index {
    Open(RwLock<IndexBuilder>),
    Sealed(Sealed),
}

#[derive(Debug)]
struct Sealed {
    footer: Footer,
    entries: Vec<SparseEntry>,
    /// In version 2 of the format the list is made by checking all records, and is kept from then on.
    list: OnceLock<Arc<RangeList>>,
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

/// Some topics of a segment, to go through without a lock.
#[derive(Debug)]
pub enum Slice {
    /// Of a full segment, by name.
    Range(Range),
    /// Of a segment without a footer, in any order.
    Copied(Vec<(Arc<str>, Held)>),
}

impl Slice {
    /// Calls `each` for each topic.
    pub fn for_each(&self, mut each: impl FnMut(&str, &Held)) {
        match self {
            Self::Range(range) => range.records().for_each(|record| each(record.name, &record.held)),
            Self::Copied(topics) => topics.iter().for_each(|(name, held)| each(name, held)),
        }
    }
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Segment {
    /// The bytes of memory that the index holds, about.
    pub fn memory(&self) -> usize {
        match &self.index {
            Index::Open(index) => index.read().unwrap_or_else(PoisonError::into_inner).memory(),
            Index::Sealed(sealed) => sealed.entries.len() * size_of::<SparseEntry>(),
        }
    }

    /// A segment that is being written, or has no footer for another reason.
    pub fn open(
        path: PathBuf,
        file: Arc<File>,
        first_sequence: u64,
        replaces_up_to: u64,
        index: IndexBuilder,
    ) -> Self {
        let index = Index::Open(RwLock::new(index));
        Self {
            id: next_id(),
            path,
            file,
            first_sequence,
            replaces_up_to,
            live: Measured::default(),
            file_id: OnceLock::new(),
            index,
        }
    }

    /// A segment with a footer.
    pub fn sealed(
        path: PathBuf,
        file: Arc<File>,
        first_sequence: u64,
        replaces_up_to: u64,
        mut footer: Footer,
    ) -> Found<Self> {
        let entries = sound!(footer.runs(&file));
        if let Some(earliest) = entries.iter().map(|entry| entry.min_time).min() {
            footer.summary.min_time = earliest;
        }
        let index = Index::Sealed(Sealed { footer, entries, list: OnceLock::new() });
        Ok(Ok(Self {
            id: next_id(),
            path,
            file,
            first_sequence,
            replaces_up_to,
            live: Measured::default(),
            file_id: OnceLock::new(),
            index,
        }))
    }

    /// Which file it is written to.
    pub fn file_id(&self) -> io::Result<FileId> {
        if let Some(id) = self.file_id.get() {
            return Ok(*id);
        }
        let id = self.file.id()?;
        Ok(*self.file_id.get_or_init(|| id))
    }

    /// The salt of its records.
    pub fn salt(&self) -> Salt {
        match &self.index {
            Index::Open(_) => self.with_builder(IndexBuilder::salt),
            Index::Sealed(sealed) => sealed.footer.salt,
        }
    }

    /// Whether it has a footer.
    pub fn is_sealed(&self) -> bool {
        matches!(self.index, Index::Sealed(_))
    }

    /// Whether [`Posting`]s have the times of their messages.
    pub fn has_times(&self) -> bool {
        match &self.index {
            Index::Open(_) => true,
            Index::Sealed(sealed) => sealed.footer.has_times(),
        }
    }

    /// Adds a block that was written.
    pub fn add(&self, block: &Block, start: u64, body: u64, end: u64) {
        if let Index::Open(builder) = &self.index {
            builder.write().unwrap_or_else(PoisonError::into_inner).add(block, start, body, end);
        }
    }

    /// Adds a mark that was written after the last block.
    pub fn extend(&self, end: u64) {
        if let Index::Open(builder) = &self.index {
            builder.write().unwrap_or_else(PoisonError::into_inner).extend(end);
        }
    }

    /// The footer to write; `None` if there is one.
    pub fn to_footer(&self) -> Option<Vec<u8>> {
        match &self.index {
            Index::Open(_) => Some(self.with_builder(IndexBuilder::to_footer)),
            Index::Sealed(_) => None,
        }
    }

    fn with_builder<T: Default>(&self, ask: impl FnOnce(&IndexBuilder) -> T) -> T {
        match &self.index {
            Index::Open(builder) => ask(&builder.read().unwrap_or_else(PoisonError::into_inner)),
            Index::Sealed(_) => T::default(),
        }
    }

    /// A summary of the segment.
    pub fn summary(&self) -> Summary {
        match &self.index {
            Index::Open(_) => self.with_builder(IndexBuilder::summary),
            Index::Sealed(sealed) => sealed.footer.summary,
        }
    }

    /// The offset after the last block.
    pub fn blocks_end(&self) -> u64 {
        match &self.index {
            Index::Open(_) => self.with_builder(IndexBuilder::end),
            Index::Sealed(sealed) => sealed.footer.blocks_end(),
        }
    }

    fn with_entries<T>(&self, ask: impl FnOnce(&[SparseEntry]) -> T) -> T {
        match &self.index {
            Index::Open(builder) => ask(builder.read().unwrap_or_else(PoisonError::into_inner).entries()),
            Index::Sealed(sealed) => ask(&sealed.entries),
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
        self.with_entries(|entries| {
            let first = entries.iter().position(|entry| entry.max_time >= time);
            first.unwrap_or(entries.len().saturating_sub(1))
        })
    }

    /// The run that holds a byte.
    pub fn run_at_offset(&self, offset: u32) -> Option<BlockRun> {
        let place = self.with_entries(|entries| entries.partition_point(|entry| entry.offset <= offset));
        self.run(place.checked_sub(1)?)
    }

    /// The places of the messages of a topic, in order.
    pub fn postings(&self, cache: &Cache, topic: &str) -> Found<Arc<[Posting]>> {
        let Index::Sealed(sealed) = &self.index else {
            return Ok(Ok(self.with_builder(|builder| builder.postings(topic).into())));
        };
        if let Some(postings) = cache.postings(self.id, topic) {
            return Ok(Ok(postings));
        }
        let Some(range) = sound!(self.range_of(cache, sealed, topic)) else { return Ok(Ok(Arc::default())) };
        let Some(record) = range.find(topic) else { return Ok(Ok(Arc::default())) };
        let postings = Arc::from(sound!(sealed.footer.postings(&self.file, &record)));
        cache.keep_postings(self.id, topic, &postings);
        Ok(Ok(postings))
    }

    /// The places of the messages of a topic from a sequence on, up to the first one that `takes` refuses.
    pub fn postings_from(
        &self,
        cache: &Cache,
        topic: &str,
        from: u64,
        mut takes: impl FnMut(&Posting) -> bool,
    ) -> Found<Vec<Posting>> {
        let mut part = |postings: &[Posting]| {
            let start = postings.partition_point(|posting| posting.sequence < from);
            let postings = postings.get(start..).unwrap_or_default();
            let end = postings.iter().position(|posting| !takes(posting));
            postings.get(..end.unwrap_or(postings.len())).unwrap_or_default().to_vec()
        };
        match &self.index {
            Index::Open(_) => Ok(Ok(self.with_builder(|builder| part(builder.postings(topic))))),
            Index::Sealed(_) => Ok(self.postings(cache, topic)?.map(|postings| part(&postings))),
        }
    }

    /// What the segment holds of a topic.
    pub fn held(&self, cache: &Cache, topic: &str) -> Found<Option<Held>> {
        let Index::Sealed(sealed) = &self.index else {
            return Ok(Ok(self.with_builder(|builder| builder.held(topic))));
        };
        let range = sound!(self.range_of(cache, sealed, topic));
        Ok(Ok(range.and_then(|range| range.find(topic).map(|record| record.held))))
    }

    fn source<'a>(&'a self, sealed: &'a Sealed) -> Source<'a> {
        Source { id: self.id, file: &self.file, footer: &sealed.footer }
    }

    fn list(&self, cache: &Cache, sealed: &Sealed) -> Found<Arc<RangeList>> {
        if let Some(list) = sealed.list.get() {
            return Ok(Ok(list.clone()));
        }
        if sealed.footer.has_times() {
            return cache.list(self.source(sealed));
        }
        let list = Arc::new(sound!(sealed.footer.ranges(&self.file)));
        Ok(Ok(sealed.list.get_or_init(|| list).clone()))
    }

    /// The range that has a topic, if any has.
    fn range_of(&self, cache: &Cache, sealed: &Sealed, topic: &str) -> Found<Option<Range>> {
        let list = sound!(self.list(cache, sealed));
        let Some(place) = list.find(topic) else { return Ok(Ok(None)) };
        Ok(cache.range(self.source(sealed), &list, place)?.map(Some))
    }

    /// Calls `each` for those of some topics, sorted by name, that the segment holds: with the place of the name, what is
    /// held, and a function that reads the places of the messages. Each range of records is read at most once.
    pub fn find_all(
        &self,
        cache: &Cache,
        names: &[Arc<str>],
        mut each: impl FnMut(usize, &Held, &dyn Fn() -> Found<Vec<Posting>>) -> Found<()>,
    ) -> Found<()> {
        let Index::Sealed(sealed) = &self.index else {
            for (place, name) in names.iter().enumerate() {
                let Some(held) = self.with_builder(|builder| builder.held(name)) else { continue };
                let postings = || Ok(Ok(self.with_builder(|builder| builder.postings(name).to_vec())));
                sound!(each(place, &held, &postings));
            }
            return Ok(Ok(()));
        };
        let list = sound!(self.list(cache, sealed));
        let mut names = names.iter().enumerate().peekable();
        while let Some((_, first)) = names.peek() {
            let Some(place) = list.find(first) else {
                names.next();
                continue;
            };
            let next = list.first_name(place + 1);
            let range = sound!(sealed.footer.range(&self.file, &list, place));
            let mut records = range.records().peekable();
            while let Some((place, name)) =
                names.next_if(|(_, name)| next.is_none_or(|next| name.as_ref() < next))
            {
                while records.next_if(|record| record.name < name.as_ref()).is_some() {}
                if let Some(record) = records.next_if(|record| record.name == name.as_ref()) {
                    sound!(each(place, &record.held, &|| sealed.footer.postings(&self.file, &record)));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Some of the topics, by a number from 0; `None` after the last. Going through all topics does not fill the cache.
    pub fn slice(&self, cache: &Cache, place: usize) -> Found<Option<Slice>> {
        let Index::Sealed(sealed) = &self.index else {
            return Ok(Ok(self.with_builder(|builder| {
                let topics = builder.topics(place.saturating_mul(SLICE), SLICE);
                let topics = topics.map(|(name, held)| (name.clone(), held)).collect::<Vec<_>>();
                (!topics.is_empty()).then_some(Slice::Copied(topics))
            })));
        };
        let list = sound!(self.list(cache, sealed));
        if place >= list.len() {
            return Ok(Ok(None));
        }
        Ok(sealed.footer.range(&self.file, &list, place)?.map(|range| Some(Slice::Range(range))))
    }

    /// Calls `each` for each topic; by name if the segment is full.
    pub fn for_each_topic(&self, cache: &Cache, mut each: impl FnMut(&str, &Held)) -> Found<()> {
        let mut place = 0;
        while let Some(slice) = sound!(self.slice(cache, place)) {
            slice.for_each(&mut each);
            place += 1;
        }
        Ok(Ok(()))
    }

    /// Whether every topic can be read: then so can [`for_each_topic`](Self::for_each_topic), unless damage comes later.
    pub fn has_sound_topics(&self) -> io::Result<bool> {
        match &self.index {
            Index::Open(_) => Ok(true),
            Index::Sealed(sealed) => sealed.footer.is_whole(&self.file),
        }
    }

    /// Reads the bytes from `start` to `end`. Those in bad sectors are replaced.
    pub fn read(&self, start: u64, end: u64) -> io::Result<Bytes> {
        let length = usize::try_from(end.saturating_sub(start)).map_err(io::Error::other)?;
        Ok(self.file.read_soundly(start, length)?.into())
    }
}

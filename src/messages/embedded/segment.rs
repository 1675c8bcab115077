//! A segment: a file of blocks, and the index that tells where things are in it.
//!
//! The index of the segment that is written is in memory, and grows with its messages; of one that is full it is the
//! footer, of which only the pages are in memory: 28 bytes for each 64 KiB. What else of it is read is kept for a
//! while in a [`Cache`].

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

use super::{
    block::{Block, SEGMENT_HEADER_BYTES},
    disk::File,
    footer::{self, Damaged, Directory, Footer, Held, List, Page, Posting, Summary},
};
use crate::messages::topic::Pattern;

/// A page is closed when it has so many bytes: a batch or two, so that little is read in vain for a slow or narrow
/// reader.
const PAGE_BYTES: u64 = 64 * 1024;

/// How many bytes of footers are kept in memory.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// About how many things that is.
const CACHE_ITEMS: usize = 4096;

/// A topic's messages are read one by one, and not with all others, if they are less than this part of a segment.
const NARROW: u64 = 8;

/// And if they are of so many topics at the most: each is looked up for each batch.
const MAX_NARROW: usize = 64;

/// A file of blocks.
#[derive(Debug)]
pub struct Segment {
    /// Which one, in this process: another file may get its name.
    pub id: u64,
    /// Where it is.
    pub path: PathBuf,
    /// The file.
    pub file: Arc<File>,
    /// No message in it, or that was ever in it, has a lower sequence.
    pub first_sequence: u64,
    /// It stands for all older segments that begin up to this sequence; 0 if it was not rewritten.
    pub through: u64,
    index: Index,
}

#[derive(Debug)]
enum Index {
    Building(RwLock<Building>),
    Sealed { footer: Footer, pages: Vec<Page> },
}

/// The index of a segment that is not full, or whose footer is not written yet.
#[derive(Debug, Default)]
pub struct Building {
    pages: Vec<Page>,
    /// Behind the last block, and a mark that follows it.
    end: u64,
    lists: Vec<(Arc<str>, List)>,
    places: HashMap<Arc<str>, usize>,
    summary: Summary,
}

impl Building {
    /// Of a segment without blocks.
    pub fn new() -> Self {
        Self { end: SEGMENT_HEADER_BYTES as u64, ..Self::default() }
    }

    /// Takes note of a block from `start` to `end` whose body begins at `body`.
    pub fn add(&mut self, block: &Block, start: u64, body: u64, end: u64) {
        let offset = |at: u64| u32::try_from(at).unwrap_or(u32::MAX);
        match self.pages.last_mut() {
            Some(page) if start - u64::from(page.offset) < PAGE_BYTES => {
                page.last_sequence = block.last_sequence
            }
            _ => self.pages.push(Page {
                offset: offset(start),
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
                offset: offset(body + u64::from(entry.start)),
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

    /// Takes note of a mark behind the last block.
    pub fn extend(&mut self, end: u64) {
        self.end = self.end.max(end);
    }

    fn place(&mut self, name: &Arc<str>) -> usize {
        *self.places.entry(name.clone()).or_insert_with(|| {
            self.lists.push((name.clone(), List::default()));
            self.lists.len() - 1
        })
    }

    /// The footer that says the same.
    pub fn to_footer(&self) -> Vec<u8> {
        let lists = self.lists.iter().cloned().collect::<BTreeMap<_, _>>();
        footer::to_bytes(self.end, &self.pages, &lists, &self.summary)
    }

    fn list(&self, topic: &str) -> Option<&List> {
        self.lists.get(*self.places.get(topic)?).map(|(_, list)| list)
    }
}

/// A run of blocks in a file.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Its first byte.
    pub start: u64,
    /// Behind its last byte.
    pub end: u64,
    /// The sequences that it holds.
    pub page: Page,
}

/// How the messages that match are best read from a segment.
#[derive(Clone, Debug)]
pub enum Plan {
    /// Page by page.
    Pages,
    /// One by one, of these topics.
    Topics(Vec<Arc<str>>),
}

/// A reading of a footer: the file may not give it, or not what was written.
pub type Found<T> = io::Result<Result<T, Damaged>>;

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Segment {
    /// A segment that is being written, or has no footer.
    pub fn building(
        path: PathBuf,
        file: Arc<File>,
        first_sequence: u64,
        through: u64,
        building: Building,
    ) -> Self {
        let index = Index::Building(RwLock::new(building));
        Self { id: next_id(), path, file, first_sequence, through, index }
    }

    /// A segment that has a footer.
    pub fn sealed(path: PathBuf, file: Arc<File>, header: (u64, u64), footer: Footer) -> Found<Self> {
        let pages = match footer.pages(&file)? {
            Ok(pages) => pages,
            Err(damaged) => return Ok(Err(damaged)),
        };
        let (first_sequence, through) = header;
        let index = Index::Sealed { footer, pages };
        Ok(Ok(Self { id: next_id(), path, file, first_sequence, through, index }))
    }

    /// Has a footer.
    pub fn is_sealed(&self) -> bool {
        matches!(self.index, Index::Sealed { .. })
    }

    /// Takes note of a block that was written.
    pub fn add(&self, block: &Block, start: u64, body: u64, end: u64) {
        if let Index::Building(building) = &self.index {
            building.write().unwrap_or_else(PoisonError::into_inner).add(block, start, body, end);
        }
    }

    /// The footer to be; none if there is one.
    pub fn to_footer(&self) -> Option<Vec<u8>> {
        match &self.index {
            Index::Building(_) => Some(self.with_building(Building::to_footer)),
            Index::Sealed { .. } => None,
        }
    }

    fn with_building<T: Default>(&self, ask: impl FnOnce(&Building) -> T) -> T {
        match &self.index {
            Index::Building(building) => ask(&building.read().unwrap_or_else(PoisonError::into_inner)),
            Index::Sealed { .. } => T::default(),
        }
    }

    /// What is known of the whole.
    pub fn summary(&self) -> Summary {
        match &self.index {
            Index::Building(_) => self.with_building(|building| building.summary),
            Index::Sealed { footer, .. } => footer.summary,
        }
    }

    /// Behind the last block.
    pub fn blocks_end(&self) -> u64 {
        match &self.index {
            Index::Building(_) => self.with_building(|building| building.end),
            Index::Sealed { footer, .. } => footer.blocks_end(),
        }
    }

    fn with_pages<T>(&self, ask: impl FnOnce(&[Page]) -> T) -> T {
        match &self.index {
            Index::Building(building) => ask(&building.read().unwrap_or_else(PoisonError::into_inner).pages),
            Index::Sealed { pages, .. } => ask(pages),
        }
    }

    /// How many pages there are.
    pub fn page_count(&self) -> usize {
        self.with_pages(<[Page]>::len)
    }

    /// Where a page is.
    pub fn page(&self, place: usize) -> Option<Extent> {
        let end = self.blocks_end();
        self.with_pages(|pages| {
            let page = *pages.get(place)?;
            let end = pages.get(place + 1).map_or(end, |next| next.offset.into());
            Some(Extent { start: page.offset.into(), end, page })
        })
    }

    /// The page that holds a sequence, or the first one behind it.
    pub fn page_of(&self, sequence: u64) -> Option<Extent> {
        self.page(self.with_pages(|pages| pages.partition_point(|page| page.last_sequence < sequence)))
    }

    /// The first page in which a message of a time, or a later one, may be.
    pub fn page_at(&self, time: u64) -> usize {
        self.with_pages(|pages| pages.partition_point(|page| page.time < time).saturating_sub(1))
    }

    /// The page that holds a byte.
    pub fn page_with(&self, offset: u32) -> Option<Extent> {
        let place = self.with_pages(|pages| pages.partition_point(|page| page.offset <= offset));
        self.page(place.checked_sub(1)?)
    }

    /// Where the messages of a topic are, in order.
    pub fn postings(&self, cache: &Cache, topic: &str) -> Found<Arc<[Posting]>> {
        match &self.index {
            Index::Building(_) => Ok(Ok(self.with_building(|building| {
                building.list(topic).map(|list| list.postings.as_slice().into()).unwrap_or_default()
            }))),
            Index::Sealed { footer, .. } => cache.postings(self, footer, topic),
        }
    }

    /// As [`postings`](Self::postings), only those from a sequence on, at most so many.
    pub fn postings_from(&self, cache: &Cache, topic: &str, from: u64, most: usize) -> Found<Vec<Posting>> {
        let cut = |postings: &[Posting]| {
            let start = postings.partition_point(|posting| posting.sequence < from);
            postings.iter().skip(start).take(most).copied().collect::<Vec<_>>()
        };
        match &self.index {
            Index::Building(_) => Ok(Ok(self.with_building(|building| {
                building.list(topic).map(|list| cut(&list.postings)).unwrap_or_default()
            }))),
            Index::Sealed { footer, .. } => {
                Ok(cache.postings(self, footer, topic)?.map(|postings| cut(&postings)))
            }
        }
    }

    /// What there is of a topic.
    pub fn held(&self, cache: &Cache, topic: &str) -> Found<Option<Held>> {
        match &self.index {
            Index::Building(_) => {
                Ok(Ok(self.with_building(|building| building.list(topic).map(|list| list.held))))
            }
            Index::Sealed { footer, .. } => {
                let directory = cache.directory(self, footer)?;
                Ok(directory.map(|directory| directory.find(topic).map(|record| record.held)))
            }
        }
    }

    /// Each topic, by name where the segment is full.
    pub fn for_each_topic(&self, cache: &Cache, mut each: impl FnMut(&str, &Held)) -> Found<()> {
        match &self.index {
            Index::Building(_) => {
                self.with_building(|building| {
                    building.lists.iter().for_each(|(name, list)| each(name, &list.held));
                });
                Ok(Ok(()))
            }
            Index::Sealed { footer, .. } => Ok(cache.directory(self, footer)?.map(|directory| {
                directory.records().for_each(|record| each(record.name, &record.held));
            })),
        }
    }

    /// How to read what matches.
    pub fn plan(&self, cache: &Cache, patterns: &[Pattern]) -> Found<Plan> {
        if patterns.iter().any(Pattern::matches_all) {
            return Ok(Ok(Plan::Pages));
        }
        match &self.index {
            Index::Building(_) => self.make_plan(cache, patterns),
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
        Ok(Ok(if is_narrow { Plan::Topics(topics) } else { Plan::Pages }))
    }

    /// Reads a run of its bytes.
    pub fn read(&self, start: u64, end: u64) -> io::Result<Bytes> {
        let length = usize::try_from(end.saturating_sub(start)).map_err(io::Error::other)?;
        Ok(self.file.read(start, length)?.into())
    }
}

/// What was read of footers, kept while it is of use.
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
                Plan::Pages => 0,
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

//! Compiled patterns, in bounded memory.
//!
//! Equal filters share one engine. The store keeps the engines that were used last, up to [`KEPT_BYTES`], and a filter
//! whose engine it removed compiles its patterns again. So followers with many different filters cost time, and no more
//! memory. The caches of searches belong to a thread, and not to a filter.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    Filter, PatternFault, Patterns,
    pattern::{Caches, Fault, Pattern},
};
use crate::lines::{Error, content::rules::Delimiter};

/// The most bytes of the engines that are kept. Each of most filters has some 10 KB, and the largest one has 8 MB.
const KEPT_BYTES: usize = 32 * 1024 * 1024;

/// The least that an engine counts: for its text, and for its place in the store.
const OVERHEAD_BYTES: usize = 4096;

thread_local! {
    /// Those of the engine that this thread used last.
    static CACHES: RefCell<Option<Kept>> = const { RefCell::new(None) };
}

#[derive(Debug)]
struct Kept {
    /// It holds the allocation, so that no other engine has the same address.
    engine: Weak<Engine>,
    caches: [Option<Caches>; 2],
}

/// The store of the server. Clones share it.
#[derive(Clone, Debug)]
pub struct Engines(Arc<Store>);

#[derive(Debug)]
struct Store {
    /// The most bytes of the engines that are kept.
    most: usize,
    kept: Mutex<Shelf>,
    /// Counts the uses of engines.
    clock: AtomicU64,
}

#[derive(Debug, Default)]
struct Shelf {
    engines: HashMap<Key, Arc<Engine>>,
    bytes: usize,
}

/// The source of an engine.
pub type Key = Arc<(Patterns, Delimiter)>;

/// The compiled patterns of a filter.
#[derive(Debug)]
pub struct Engine {
    pub include: Option<Pattern>,
    pub exclude: Option<Pattern>,
    bytes: usize,
    /// When it was used last, by the clock of the store.
    used: AtomicU64,
}

impl Default for Engines {
    fn default() -> Self {
        Self::up_to(KEPT_BYTES)
    }
}

impl Engines {
    /// A store of engines with up to this many bytes.
    pub fn up_to(most: usize) -> Self {
        Self(Arc::new(Store { most, kept: Mutex::default(), clock: AtomicU64::default() }))
    }

    /// A filter of patterns that are checked and compiled, for lines that end with this delimiter: `None` if there are
    /// no patterns. It may take milliseconds.
    ///
    /// # Errors
    /// [`Error::Pattern`].
    pub fn filter(&self, patterns: &Patterns, delimiter: &Delimiter) -> Result<Option<Filter>, Error> {
        patterns.check()?;
        if patterns.include.is_empty() && patterns.exclude.is_empty() {
            return Ok(None);
        }
        let key = Arc::new((patterns.clone(), delimiter.clone()));
        let engine = self.engine(&key)?;
        Ok(Some(Filter::new(self.clone(), key, &engine)))
    }

    /// The engine of a filter: the one that is kept, or a new one.
    pub fn engine(&self, key: &Key) -> Result<Arc<Engine>, Error> {
        let kept = self.shelf().engines.get(key).cloned();
        let engine = if let Some(engine) = kept { engine } else { self.keep(key, Engine::compile(key)?) };
        self.mark_used(&engine);
        Ok(engine)
    }

    pub fn mark_used(&self, engine: &Engine) {
        engine.used.store(self.0.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Keeps a new engine, in place of those that were not used for longest. If another thread was faster, its engine
    /// is the one that is shared.
    fn keep(&self, key: &Key, engine: Engine) -> Arc<Engine> {
        self.mark_used(&engine);
        let mut shelf = self.shelf();
        if let Some(engine) = shelf.engines.get(key) {
            return engine.clone();
        }
        let engine = Arc::new(engine);
        shelf.bytes += engine.bytes;
        shelf.engines.insert(key.clone(), engine.clone());
        if shelf.bytes > self.0.most {
            shelf.shrink(self.0.most / 4 * 3);
        }
        engine
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub fn kept(&self) -> (usize, usize) {
        let shelf = self.shelf();
        (shelf.engines.len(), shelf.bytes)
    }
}

impl Shelf {
    /// Gives up engines until those that are kept have no more than this many bytes: by more than is needed, so that
    /// this is rare.
    fn shrink(&mut self, bytes: usize) {
        let by_use = |(key, engine): (&Key, &Arc<Engine>)| (engine.used.load(Ordering::Relaxed), key.clone());
        let mut oldest = self.engines.iter().map(by_use).collect::<Vec<_>>();
        oldest.sort_unstable_by_key(|(used, _)| *used);
        for (_, key) in oldest {
            if self.bytes <= bytes {
                return;
            }
            if let Some(engine) = self.engines.remove(&key) {
                self.bytes -= engine.bytes;
            }
        }
    }
}

impl Engine {
    fn compile(key: &Key) -> Result<Self, Error> {
        let (patterns, delimiter) = &**key;
        let compile = |field, given: &Vec<String>| {
            if given.is_empty() {
                return Ok(None);
            }
            let pattern = Pattern::compile(given, patterns.are_literal, patterns.ignore_case, delimiter);
            pattern.map(Some).map_err(|fault| {
                let fault = match fault {
                    Fault::Syntax { pattern, fault } => PatternFault::Syntax { pattern, fault },
                    Fault::Size => PatternFault::Size,
                };
                Error::Pattern { field, fault }
            })
        };
        let include = compile("include", &patterns.include)?;
        let exclude = compile("exclude", &patterns.exclude)?;
        let compiled = include.iter().chain(&exclude).map(Pattern::bytes).sum::<usize>();
        Ok(Self { include, exclude, bytes: compiled + OVERHEAD_BYTES, used: AtomicU64::default() })
    }

    /// The caches of this thread's searches with the engine, if it is the one that the thread used last.
    pub fn take_caches(self: &Arc<Self>) -> [Option<Caches>; 2] {
        let kept = CACHES.take().filter(|kept| std::ptr::eq(kept.engine.as_ptr(), Arc::as_ptr(self)));
        kept.map(|kept| kept.caches).unwrap_or_default()
    }

    /// Keeps the caches for the next search of this thread.
    pub fn keep_caches(self: &Arc<Self>, caches: [Option<Caches>; 2]) {
        CACHES.set(Some(Kept { engine: Arc::downgrade(self), caches }));
    }
}

//! Filters: which lines of a file are delivered.
//!
//! A line is tested by its content alone, whatever the chunks in which its bytes are read, and in a time that is linear in
//! its length. A filter decides about a line once, by the part that is known then; the rest of the line is delivered if that
//! part is. `pattern` compiles patterns, `engines` keeps them, and `scan` finds the lines of a chunk that
//! they match.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use crate::lines::Error;
pub use engines::Engines;
use engines::{Engine, Key};
pub use scan::{Line, Scan};

mod engines;
mod pattern;
mod scan;

/// The most patterns of a field.
pub const MAX_PATTERNS: usize = 64;

/// The most bytes of the patterns of a call: it bounds the time to compile them.
pub const MAX_PATTERN_BYTES: usize = 4096;

/// A longer line is tested by this many bytes: no search takes longer than for this much text. With the slowest patterns
/// that is about a tenth of a second.
const TESTED_BYTES: usize = 32 * 1024;

/// A read of lines that a filter leaves out ends after about this time, or after one search that takes longer: others then
/// have the thread, and the reader may be gone.
pub const SLICE: Duration = Duration::from_millis(10);

/// The patterns of a filter.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Patterns {
    /// Only lines that match one of these are delivered; all, if there are none.
    pub include: Vec<String>,
    /// Lines that match one of these are not delivered.
    pub exclude: Vec<String>,
    /// The patterns are text, and not regular expressions.
    pub are_literal: bool,
    /// Letters match whatever their case.
    pub ignore_case: bool,
}

/// Why a pattern is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PatternFault {
    /// There are more than [`MAX_PATTERNS`].
    #[error("{0} patterns, of {MAX_PATTERNS} that are allowed")]
    Count(usize),
    /// The patterns of the call have more than [`MAX_PATTERN_BYTES`].
    #[error("patterns of {0} bytes, of {MAX_PATTERN_BYTES} that are allowed")]
    Bytes(usize),
    /// A pattern is empty.
    #[error("an empty pattern")]
    Empty,
    /// A pattern is no regular expression.
    #[error("the pattern {pattern}: {fault}")]
    Syntax {
        /// As the caller wrote it.
        pattern: String,
        /// Its fault, and where.
        fault: String,
    },
    /// Compiled, the patterns are too large.
    #[error("patterns that are too large when they are compiled")]
    Size,
}

impl Patterns {
    /// Checks counts and lengths, before the patterns are compiled.
    fn check(&self) -> Result<(), Error> {
        let mut bytes = 0;
        for (field, given) in [("include", &self.include), ("exclude", &self.exclude)] {
            let refused = |fault| Err(Error::Pattern { field, fault });
            bytes += given.iter().map(String::len).sum::<usize>();
            if given.len() > MAX_PATTERNS {
                return refused(PatternFault::Count(given.len()));
            }
            if bytes > MAX_PATTERN_BYTES {
                return refused(PatternFault::Bytes(bytes));
            }
            if given.iter().any(String::is_empty) {
                return refused(PatternFault::Empty);
            }
        }
        Ok(())
    }
}

/// Which lines are delivered, by patterns. It holds their text, and compiles them again if the store has removed their
/// engine.
#[derive(Clone, Debug)]
pub struct Filter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engines: Engines,
    key: Key,
    engine: Mutex<Weak<Engine>>,
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.key == other.0.key
    }
}

impl Eq for Filter {}

impl Filter {
    fn new(engines: Engines, key: Key, engine: &Arc<Engine>) -> Self {
        Self(Arc::new(Inner { engines, key, engine: Mutex::new(Arc::downgrade(engine)) }))
    }

    /// Whether most lines are left out, as far as that is known.
    pub fn is_selective(&self) -> bool {
        !self.0.key.0.include.is_empty()
    }

    /// A scan through the lines of a chunk.
    pub fn scan(&self) -> Scan {
        Scan::new(self.0.engine())
    }
}

impl Inner {
    #[expect(clippy::expect_used, reason = "the same patterns were compiled before")]
    fn engine(&self) -> Arc<Engine> {
        let known = self.engine.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        if let Some(engine) = known {
            self.engines.mark_used(&engine);
            return engine;
        }
        let engine = self.engines.engine(&self.key).expect("patterns that compile once compile again");
        *self.engine.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&engine);
        engine
    }
}

#[cfg(test)]
mod tests;

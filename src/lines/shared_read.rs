//! A read at the end of a followed file that its followers share.
//!
//! Most followers of a file are at its end. When it grows, the first of them reads it, and the others that ask for the
//! same wait for that read and take its result.

use tokio::{sync::Mutex, time::Instant};

use super::{
    Error,
    content::fill::{Filled, Request},
    identity::Identity,
};

/// The last read of a path by a follower that was at the end of its file.
#[derive(Debug, Default)]
pub struct SharedRead {
    last: Mutex<Option<Read>>,
}

#[derive(Debug)]
struct Read {
    wanted: Wanted,
    /// The last reported change of the file when it was read.
    version: u64,
    /// When the read began.
    began: Instant,
    filled: Filled,
}

/// A read and its file: two equal ones have the same result.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub file: Identity,
    pub request: Request,
}

impl SharedRead {
    /// The result of the last read, if it is of the same, no older than `version`, and began after `after`; otherwise
    /// of a new one.
    pub async fn get(
        &self,
        wanted: &Wanted,
        version: u64,
        after: Option<Instant>,
        read: impl Future<Output = Result<Filled, Error>>,
    ) -> Result<Filled, Error> {
        // Held while the file is read: all others that want the same wait for the result.
        let mut last = self.last.lock().await;
        let is_new = |it: &&Read| it.version >= version && after.is_none_or(|after| it.began > after);
        if let Some(last) = last.as_ref().filter(is_new).filter(|it| it.wanted == *wanted) {
            return Ok(last.filled.clone());
        }
        let began = Instant::now();
        let filled = read.await?;
        *last = Some(Read { wanted: wanted.clone(), version, began, filled: filled.clone() });
        Ok(filled)
    }
}

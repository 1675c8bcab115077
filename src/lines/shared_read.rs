//! A read at the end of a followed file that its followers share.
//!
//! Most followers of a file are at its end. When it grows, the first of them reads it, and the others that ask for the
//! same wait for that read and take its result. Each follower that is polled drives the read, so a stream whose client takes
//! nothing does not delay the others.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::time::Instant;

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
    /// `None` if it failed, as when the follower that began it is gone.
    filled: Shared<BoxFuture<'static, Option<Filled>>>,
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
        read: impl Future<Output = Result<Filled, Error>> + Send + 'static,
    ) -> Result<Filled, Error> {
        let fault = Arc::new(Mutex::new(None));
        let own = {
            let fault = fault.clone();
            let read = async move { read.await.map_err(|error| *lock(&fault) = Some(error)).ok() };
            read.boxed().shared()
        };
        loop {
            let filled = self.find_or_begin(wanted, version, after, &own);
            let is_own = filled.ptr_eq(&own);
            match filled.await {
                Some(filled) => return Ok(filled),
                None if is_own => {
                    let fault = lock(&fault).take();
                    return Err(fault.unwrap_or_else(|| io::Error::from(io::ErrorKind::Interrupted).into()));
                }
                None => {}
            }
        }
    }

    /// The last read, or the caller's own one, which is the last one then.
    fn find_or_begin(
        &self,
        wanted: &Wanted,
        version: u64,
        after: Option<Instant>,
        own: &Shared<BoxFuture<'static, Option<Filled>>>,
    ) -> Shared<BoxFuture<'static, Option<Filled>>> {
        let mut last = lock(&self.last);
        let is_new = |it: &&Read| it.version >= version && after.is_none_or(|after| it.began > after);
        let has_failed = |it: &Read| matches!(it.filled.peek(), Some(None));
        let found = last.as_ref().filter(is_new).filter(|it| it.wanted == *wanted && !has_failed(it));
        if let Some(found) = found {
            return found.filled.clone();
        }
        let (wanted, began, filled) = (wanted.clone(), Instant::now(), own.clone());
        *last = Some(Read { wanted, version, began, filled });
        own.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

//! The files that come after one that was renamed away before the reader came.

use std::{fs::Metadata, io, sync::Arc};

use super::{At, Followed, Generation, Identity, chain::in_chain, old, open};
use crate::lines::{
    history::siblings::{self, Next, Younger},
    root::{FilePath, Roots, places::Sibling},
};

/// The files that come after one that was renamed away, as they were listed: so that a reader that was away for many
/// rotations lists the directory once.
#[derive(Clone, Debug)]
pub struct Ahead {
    listed: Arc<Younger>,
    /// How many of them were read.
    read: usize,
}

impl Ahead {
    /// Those of a list from this one on.
    pub fn from(listed: Younger, read: usize) -> Self {
        Self { listed: Arc::new(listed), read }
    }

    pub fn next(&self) -> Option<&Next> {
        self.listed.files.get(self.read)
    }

    pub fn rest(&self) -> Self {
        Self { read: self.read + 1, ..self.clone() }
    }

    /// The file at the path when they were listed.
    pub fn current(&self) -> Option<&Sibling> {
        self.listed.current.as_ref()
    }

    /// See [`Younger::misses_last`].
    pub fn misses_last(&self) -> bool {
        self.listed.misses_last
    }
}

/// What comes after a file that was renamed away before the reader came.
pub enum NextOld {
    /// A file that was listed.
    Listed(At, Followed),
    /// The first file of the chain.
    Joined(Followed),
    Nothing,
}

pub fn next_old(
    roots: &Roots,
    path: &FilePath,
    (own, is_copy): (&Metadata, bool),
    older: &[Identity],
    joined: Option<&Arc<Generation>>,
    ahead: Option<&Ahead>,
) -> io::Result<NextOld> {
    if let Some((ahead, next)) = ahead.and_then(|ahead| Some((ahead, ahead.next()?)))
        && in_chain(joined, next.file.identity).is_none()
        && let Some(file) = open(&next.file)?
    {
        let follows = Followed { misses_some: next.misses_some, ..Followed::default() };
        return Ok(NextOld::Listed(old(file, joined.cloned(), Some(ahead.rest()), is_copy)?, follows));
    }
    // What was in doubt for the file that was listed from is not for those that came after it.
    let missed_last = ahead.is_some_and(|ahead| ahead.listed.misses_last);
    let places = roots.places(path);
    let list = || {
        let listed = siblings::younger(&places, own, older, is_copy)?;
        let Younger { misses_last, is_backup, .. } = listed;
        let ahead = Ahead { listed: Arc::new(listed), read: 0 };
        let next = ahead.next();
        let misses_some = missed_last || next.map_or(misses_last, |next| next.misses_some);
        let follows = Followed { misses_some, is_backup, listed_until: None };
        if let Some(next) = next.filter(|next| in_chain(joined, next.file.identity).is_none()) {
            // It may be renamed since it was listed; then list again.
            let Some(file) = open(&next.file)? else { return Ok(None) };
            let at = old(file, joined.cloned(), Some(ahead.rest()), is_copy)?;
            return Ok(Some(NextOld::Listed(at, follows)));
        }
        if joined.is_some() {
            // Others may have come to the path since the reader came, and are in the chain.
            return Ok(Some(NextOld::Joined(follows)));
        }
        let Some(current) = &ahead.listed.current else { return Ok(Some(NextOld::Nothing)) };
        let Some(file) = open(current)? else { return Ok(None) };
        let at = At::Path { file, identity: current.identity };
        Ok(Some(NextOld::Listed(at, follows)))
    };
    siblings::again(list, || true)?.ok_or_else(unsettled)
}

/// The files beside the log were renamed each time before they could be opened.
pub fn unsettled() -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, "the files beside the log do not hold still")
}

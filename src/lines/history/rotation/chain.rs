//! Where a reader of an older file joins the chain of the files that came to the path since it came.

use std::{collections::VecDeque, sync::Arc};

use super::{Generation, Identity};

/// The first file of the chain that comes after an older one, for a reader that came when `joined` was the last of it.
pub fn first_joined<'a>(
    joined: &'a Arc<Generation>,
    own: Identity,
    older: &VecDeque<Identity>,
) -> Option<&'a Arc<Generation>> {
    // An event has reported since that the reader's own file came after it.
    let is_own_after = || joined.identity.birth() < own.birth() && in_chain(joined.next(), own).is_some();
    let is_own_newer = joined.left().is_some() && (older.contains(&joined.identity) || is_own_after());
    if joined.is_start() || is_own_newer { joined.next() } else { Some(joined) }
}

pub fn in_chain(joined: Option<&Arc<Generation>>, identity: Identity) -> Option<&Arc<Generation>> {
    let mut generation = joined;
    while let Some(at) = generation.filter(|at| at.identity != identity) {
        generation = at.next();
    }
    generation
}

/// The last file of a chain.
pub fn last_of(generation: &Arc<Generation>) -> &Arc<Generation> {
    let mut last = generation;
    while let Some(next) = last.next() {
        last = next;
    }
    last
}

//! The next file of a reader of the whole history: it reads all generations that were rotated away, also compressed ones.

use std::{
    fs::File,
    io,
    sync::{Arc, atomic::AtomicBool},
};

use super::{
    At, Entered, Followed, Generation, Identity, Rotation,
    ahead::{Ahead, NextOld},
    chain::{first_joined, in_chain},
    old, open,
};
use crate::lines::{
    Event, GapReason,
    content::{
        checkpoint::Checkpoint,
        pread::{Content, read_at},
    },
    history::{
        archive::{Archive, Archives, Fault, Format},
        copies::nanos,
        listed,
        siblings::{self, Next, Younger, written},
    },
    root::{FilePath, Roots, places::Sibling},
};

/// How much of a file and an archive is compared to find out whether they have the same content.
const COMPARED_BYTES: usize = 64 * 1024;

/// Opens the generations of a log for one reader.
#[derive(Clone, Debug)]
pub struct Openers {
    pub archives: Arc<Archives>,
    /// Set when the reader is gone.
    pub gone: Arc<AtomicBool>,
}

/// What was found under a listed name.
enum Opened {
    File(Arc<File>, Option<Archive>),
    Unreadable(Event),
    /// Its name is another file's by now.
    Gone,
}

impl Openers {
    /// The content of a file, if that is compressed; the fault, if it cannot be read.
    pub fn archive(&self, file: &Arc<File>, name: &str) -> io::Result<Result<Option<Archive>, Fault>> {
        Ok(match Format::of(file)? {
            None => Ok(None),
            Some(Format::Other(name)) => Err(Fault::Format(name)),
            Some(format) => Ok(Some(self.archives.archive(file.clone(), name, format, &self.gone))),
        })
    }

    fn open(&self, sibling: &Sibling) -> io::Result<Opened> {
        let Some(file) = open(sibling)? else { return Ok(Opened::Gone) };
        Ok(match self.archive(&file, &sibling.name)? {
            Ok(archive) => Opened::File(file, archive),
            Err(fault) => {
                let (name, bytes) = (sibling.name.as_str().into(), None);
                Opened::Unreadable(Event::Gap {
                    reason: GapReason::Unreadable { name, fault, unconfirmed: None },
                    bytes,
                })
            }
        })
    }

    /// The first file of a list that can be read, with the events of those before it. `None` where the list must be made again.
    fn first(&self, mut ahead: Ahead, joined: Joined<'_>) -> io::Result<Option<First>> {
        let (mut skipped, mut misses_some) = (Vec::new(), false);
        loop {
            let Some(Next { file: sibling, misses_some: misses_before }) = ahead.next().cloned() else {
                misses_some |= ahead.misses_last();
                return Ok(Some(First { next: None, misses_some, skipped, ahead }));
            };
            misses_some |= misses_before;
            if in_chain(joined.came, sibling.identity).is_some() {
                return Ok(Some(First { next: None, misses_some, skipped, ahead }));
            }
            let opened = self.open(&sibling)?;
            let archive = match &opened {
                Opened::Gone => return Ok(None),
                Opened::File(_, None) => None,
                Opened::File(_, Some(archive)) => Some(Some(archive)),
                Opened::Unreadable(_) => Some(None),
            };
            if let Some(archive) = archive
                && is_of_chain(&sibling, archive, joined.next)?
            {
                return Ok(Some(First { next: None, misses_some, skipped, ahead }));
            }
            ahead = ahead.rest();
            match opened {
                Opened::Gone => return Ok(None),
                Opened::Unreadable(gap) => skipped.push(gap),
                Opened::File(file, archive) => {
                    let at = old(file, joined.came.cloned(), Some(ahead.clone()), false)?.holding(archive);
                    return Ok(Some(First { next: Some(at), misses_some, skipped, ahead }));
                }
            }
        }
    }
}

/// The chain of a reader that follows: what comes to the path is in it, also if there is no file yet.
#[derive(Clone, Copy)]
struct Joined<'a> {
    /// The last generation when the reader came.
    came: Option<&'a Arc<Generation>>,
    /// The first one that it has not read.
    next: Option<&'a Arc<Generation>>,
}

/// The first file of a list.
struct First {
    /// None at the end of the list, and where a file of the chain comes next.
    next: Option<At>,
    /// Others may have been before it.
    misses_some: bool,
    skipped: Vec<Event>,
    ahead: Ahead,
}

/// Whether a compressed file has the content of a file of the chain, which is still open there though its name is gone.
/// `archive`: its content, if it can be read.
fn is_of_chain(
    sibling: &Sibling,
    archive: Option<&Archive>,
    next: Option<&Arc<Generation>>,
) -> io::Result<bool> {
    let mut generation = next;
    while let Some(at) = generation {
        if let Some(file) = at.file()
            && is_written_at(sibling, nanos(file.metadata()?.modified()?))
            && archive.map_or(Ok(true), |archive| begins_with(&file, archive))?
        {
            return Ok(true);
        }
        generation = at.next();
    }
    Ok(false)
}

/// Whether a file was written last at this time. Tools that compress a file keep the time of its last write, some of them in
/// seconds.
fn is_written_at(sibling: &Sibling, at: u64) -> bool {
    [at, at / 1_000_000_000 * 1_000_000_000].contains(&written(sibling))
}

/// Whether a file begins with what an archive begins with, which is not empty.
fn begins_with(file: &File, archive: &Archive) -> io::Result<bool> {
    let (mut one, mut other) = (vec![0; COMPARED_BYTES], vec![0; COMPARED_BYTES]);
    let mut read = 0;
    while let Some(rest) = one.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match read_at(archive, rest, read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    let is_equal = file.read_all(other.get_mut(..read).unwrap_or_default(), 0).is_ok();
    Ok(read > 0 && is_equal && one.get(..read) == other.get(..read))
}

/// The oldest generation of a log, and the events before it. `None` if the history begins at the path; `joined` was the last
/// generation when the reader came.
pub fn oldest(
    roots: &Roots,
    path: &FilePath,
    joined: Option<&Arc<Generation>>,
    openers: &Openers,
) -> io::Result<(Option<Rotation>, Vec<Event>)> {
    let list = || {
        let listed = listed::generations(&roots.places(path))?;
        openers.first(Ahead::from(listed, 0), Joined { came: joined, next: joined })
    };
    let Some(First { next, misses_some, mut skipped, .. }) = siblings::again(list, || true)? else {
        return Err(io::Error::other("the files beside the log do not hold still"));
    };
    if misses_some {
        skipped.insert(0, Event::Gap { reason: GapReason::Deleted, bytes: None });
    }
    Ok((next.map(Rotation::at), skipped))
}

/// The file after another one.
pub enum Advanced {
    Entered(Box<Entered>),
    /// No file yet. These are gaps of the whole history all the same.
    Nothing(Vec<Event>),
}

impl Rotation {
    /// The next file, for a reader that has used up this one. `openers` are those of a reader of the whole history. Blocks.
    pub fn advance_with(
        &self,
        openers: Option<&Openers>,
        (roots, path): (&Roots, &FilePath),
        checkpoint: Checkpoint,
        was_gone: bool,
    ) -> io::Result<Advanced> {
        if let Some(openers) = openers
            && let Some(advanced) = self.advance_whole(roots, path, checkpoint, was_gone, openers)?
        {
            return Ok(advanced);
        }
        let entered = self.advance(roots, path, checkpoint, was_gone)?;
        Ok(entered.map_or(Advanced::Nothing(Vec::new()), |entered| Advanced::Entered(Box::new(entered))))
    }

    /// The same after a file that was rotated away. `None` where the chain says what comes next.
    fn advance_whole(
        &self,
        roots: &Roots,
        path: &FilePath,
        checkpoint: Checkpoint,
        was_gone: bool,
        openers: &Openers,
    ) -> io::Result<Option<Advanced>> {
        let own = self.identity();
        let joined = match &self.at {
            At::Generation { generation, .. } => {
                let is_lost = |next: &Arc<Generation>| next.arrival.misses_some || next.file().is_none();
                let Some(next) = generation.next().filter(|next| is_lost(next)) else { return Ok(None) };
                Joined { came: Some(next), next: Some(next) }
            }
            At::Old { is_copy: true, .. } | At::Path { .. } | At::Nothing { .. } => return Ok(None),
            At::Old { joined, .. } => {
                let came = joined.as_ref();
                Joined { came, next: came.and_then(|joined| first_joined(joined, own, &self.older)) }
            }
        };
        // The file is at the path again, perhaps after others that were there in between.
        if in_chain(joined.next, own).is_some() {
            return Ok(None);
        }
        let ahead = if let At::Old { ahead, .. } = &self.at { ahead.as_ref() } else { None };
        let Some(file) = self.file() else { return Ok(None) };
        let (next, skipped) = next_of_whole(roots, path, (&own, file), joined, ahead, openers)?;
        let entered = match next {
            NextOld::Listed(at, how) => self.enter(at, checkpoint, was_gone, how).map(Some),
            NextOld::Joined(how) => joined
                .next
                .map(|next| self.enter_generation(roots, path, next, checkpoint, was_gone, how))
                .transpose(),
            NextOld::Nothing => Ok(None),
        };
        Ok(Some(match entered? {
            Some(entered) => {
                let events = skipped.into_iter().chain(entered.events).collect();
                Advanced::Entered(Box::new(Entered { events, ..entered }))
            }
            None => Advanced::Nothing(skipped),
        }))
    }
}

/// What comes after a file that was rotated away, and the events of what is left out before it.
fn next_of_whole(
    roots: &Roots,
    path: &FilePath,
    (own, file): (&Identity, &Arc<File>),
    joined: Joined<'_>,
    ahead: Option<&Ahead>,
    openers: &Openers,
) -> io::Result<(NextOld, Vec<Event>)> {
    let follows = |misses_some| Followed { misses_some, is_backup: false, is_listed: true };
    if let Some(ahead) = ahead
        && let Some(First { next, misses_some, skipped, .. }) = openers.first(ahead.clone(), joined)?
    {
        if let Some(at) = next {
            return Ok((NextOld::Listed(at, follows(misses_some)), skipped));
        }
        // What came to the path since the reader came is in the chain.
        if joined.came.is_some() {
            return Ok((NextOld::Joined(follows(misses_some)), skipped));
        }
    }
    let written_last = nanos(file.metadata()?.modified()?);
    let list = || {
        let listed = listed::generations(&roots.places(path))?;
        let after = own_place(&listed, own, file, openers)?.map(|at| at + 1);
        let is_known = after.is_some();
        // Those that were written later come after it, if it is not there any more.
        let is_later = |next: &Next| written(&next.file) > written_last;
        let count = listed.files.len();
        let from = after.unwrap_or_else(|| listed.files.iter().position(is_later).unwrap_or(count));
        let Some(first) = openers.first(Ahead::from(listed, from), joined)? else { return Ok(None) };
        let First { next, misses_some, skipped, ahead } = first;
        let how = follows(misses_some || !is_known);
        if let Some(at) = next {
            return Ok(Some((NextOld::Listed(at, how), skipped)));
        }
        if joined.came.is_some() {
            return Ok(Some((NextOld::Joined(how), skipped)));
        }
        let Some(current) = ahead.current() else { return Ok(Some((NextOld::Nothing, skipped))) };
        // Otherwise the name is another file's by now.
        let Some(file) = open(current)? else { return Ok(None) };
        let at = At::Path { file, identity: current.identity };
        Ok(Some((NextOld::Listed(at, how), skipped)))
    };
    Ok(siblings::again(list, || true)?.unwrap_or((NextOld::Nothing, Vec::new())))
}

/// Where a file is in a list, under any name, or an archive of it. `None` if it is not there.
fn own_place(
    listed: &Younger,
    own: &Identity,
    file: &Arc<File>,
    openers: &Openers,
) -> io::Result<Option<usize>> {
    let files = || listed.files.iter().map(|next| &next.file).enumerate();
    if let Some((at, _)) = files().find(|(_, file)| file.identity == *own) {
        return Ok(Some(at));
    }
    let written_last = nanos(file.metadata()?.modified()?);
    let mut found = files().filter(|(_, file)| is_written_at(file, written_last)).collect::<Vec<_>>();
    if found.len() > 1 {
        let mut proven = Vec::new();
        for (at, sibling) in found {
            if let Opened::File(_, Some(archive)) = openers.open(sibling)?
                && begins_with(file, &archive)?
            {
                proven.push((at, sibling));
            }
        }
        found = proven;
    }
    Ok(if let [(at, _)] = found[..] { Some(at) } else { None })
}

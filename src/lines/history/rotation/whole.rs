//! The next file of a reader of the whole history: it reads all generations that were rotated away, also compressed ones.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    sync::{Arc, atomic::AtomicBool},
};

use super::{
    At, Entered, Followed, Generation, Identity, Rotation,
    ahead::{Ahead, NextOld, unsettled},
    chain::{first_joined, in_chain, last_of},
    old, open, reopen,
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

/// How often the files beside a log are listed for a reader that starts, each time until they hold still for a moment.
const LISTS: usize = 20;

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
        let end = |stop: Option<&Arc<Generation>>, misses_some, skipped, ahead| {
            Ok(Some(First { next: None, stop: stop.cloned(), misses_some, skipped, ahead }))
        };
        loop {
            let Some(Next { file: sibling, misses_some: misses_before }) = ahead.next().cloned() else {
                misses_some |= ahead.misses_last();
                return end(None, misses_some, skipped, ahead);
            };
            misses_some |= misses_before;
            if let Some(stop) = in_chain(joined.came, sibling.identity) {
                return end(Some(stop), misses_some, skipped, ahead);
            }
            let opened = self.open(&sibling)?;
            let archive = match &opened {
                Opened::Gone => return Ok(None),
                Opened::File(_, None) => None,
                Opened::File(_, Some(archive)) => Some(Some(archive)),
                Opened::Unreadable(_) => Some(None),
            };
            if let Some(archive) = archive
                && let Some(stop) = of_chain(&sibling, archive, joined.next)?
            {
                return end(Some(stop), misses_some, skipped, ahead);
            }
            ahead = ahead.rest();
            match opened {
                Opened::Gone => return Ok(None),
                Opened::Unreadable(gap) => skipped.push(gap),
                Opened::File(file, archive) => {
                    let at = old(file, joined.came.cloned(), Some(ahead.clone()), false)?.holding(archive);
                    return Ok(Some(First { next: Some(at), stop: None, misses_some, skipped, ahead }));
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
    /// The file of the chain that comes next.
    stop: Option<Arc<Generation>>,
    /// Others may have been before it.
    misses_some: bool,
    skipped: Vec<Event>,
    ahead: Ahead,
}

/// The file of the chain that a compressed file has the content of: it is still open there, though its name is gone.
/// `archive`: the content of the compressed file, if that can be read.
fn of_chain<'a>(
    sibling: &Sibling,
    archive: Option<&Archive>,
    next: Option<&'a Arc<Generation>>,
) -> io::Result<Option<&'a Arc<Generation>>> {
    let mut generation = next;
    while let Some(at) = generation {
        if let Some(file) = at.file()
            && is_compressed_from(sibling, archive, &file, &*file)?
        {
            return Ok(Some(at));
        }
        generation = at.next();
    }
    Ok(None)
}

/// Whether a compressed file was made from another file, which has this content. `archive`: the content of the compressed
/// file, if that can be read.
///
/// Content decides. The times of the last writes only say how much of it: tools that keep the time need no more proof than
/// the start. A tool that does not keep it writes the archive later, and then deletes the file.
fn is_compressed_from(
    sibling: &Sibling,
    archive: Option<&Archive>,
    file: &File,
    content: &dyn Content,
) -> io::Result<bool> {
    let metadata = file.metadata()?;
    let written_last = nanos(metadata.modified()?);
    let is_kept = is_written_at(sibling, written_last);
    let Some(archive) = archive else { return Ok(is_kept) };
    let is_possible = metadata.nlink() == 0 && written(sibling) >= written_last;
    if !is_kept && !is_possible {
        return Ok(false);
    }
    let (own, other) = (start_of(content)?, start_of(archive)?);
    let is_prefix = if other.is_empty() { own.is_empty() } else { own.starts_with(&other) };
    Ok(is_prefix && (is_kept || !own.is_empty() && own.len() == other.len()))
}

/// Whether a file was written last at this time. Tools that compress a file keep the time of its last write, some of them in
/// seconds.
fn is_written_at(sibling: &Sibling, at: u64) -> bool {
    [at, at / 1_000_000_000 * 1_000_000_000].contains(&written(sibling))
}

/// The first bytes of a content, which are compared.
fn start_of(content: &dyn Content) -> io::Result<Vec<u8>> {
    let (mut start, mut read) = (vec![0; COMPARED_BYTES], 0);
    while let Some(rest) = start.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match read_at(content, rest, read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    start.truncate(read);
    Ok(start)
}

/// The oldest generation of a log, and the events before it. `None` if there is no file yet; `joined` was the last
/// generation when the reader came.
pub fn oldest(
    roots: &Roots,
    path: &FilePath,
    joined: Option<&Arc<Generation>>,
    openers: &Openers,
) -> io::Result<(Option<Rotation>, Vec<Event>)> {
    let was_here = joined.is_some_and(|joined| joined.left().is_none());
    let list = || {
        let listed = listed::generations(&roots.places(path))?;
        let first = openers.first(Ahead::from(listed, 0), Joined { came: joined, next: joined })?;
        let Some(First { next, stop, misses_some, mut skipped, ahead, .. }) = first else { return Ok(None) };
        if misses_some {
            skipped.insert(0, Event::Gap { reason: GapReason::Deleted, bytes: None });
        }
        let at = match (next, joined) {
            (Some(at), _) => Some(at),
            (None, Some(joined)) => {
                // The list is that of a moment later: since then, the file may have left the path for others.
                let here = if was_here { Some(joined) } else { joined.next() };
                let Some(generation) = stop.as_ref().or(here) else { return Ok(Some((None, skipped))) };
                let file =
                    generation.file().map_or_else(|| reopen(roots, path, generation), |it| Ok(Some(it)));
                let Some(file) = file? else { return Ok(None) };
                Some(At::Generation { generation: generation.clone(), file: Some(file) })
            }
            (None, None) => match ahead.current() {
                // Without it, its name is another file's by now.
                Some(current) => {
                    let Some(file) = open(current)? else { return Ok(None) };
                    Some(At::Path { file, identity: current.identity })
                }
                None => None,
            },
        };
        Ok(Some((at, skipped)))
    };
    for _ in 0..LISTS {
        if let Some((at, skipped)) = siblings::again(&list, || true)? {
            return Ok((at.map(Rotation::at), skipped));
        }
    }
    Err(unsettled())
}

/// The file after another one.
pub enum Advanced {
    Entered(Box<Entered>),
    /// No file yet. These are gaps of the whole history all the same.
    Nothing(Vec<Event>),
    /// The files beside the log are renamed all the time: ask again soon.
    Unsettled,
}

impl Rotation {
    /// The next file, for a reader that has used up this one. `openers` are those of a reader of the whole history. Blocks.
    pub fn advance_with(
        &self,
        openers: Option<&Openers>,
        place: (&Roots, &FilePath),
        checkpoint: Checkpoint,
        was_gone: bool,
    ) -> io::Result<Advanced> {
        match self.try_advance(openers, place, checkpoint, was_gone) {
            Err(error) if error.kind() == unsettled().kind() => Ok(Advanced::Unsettled),
            advanced => advanced,
        }
    }

    fn try_advance(
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
        let content = self.archive().map_or(&**file as &dyn Content, |archive| &**archive);
        let own = Own { identity: own, file, content };
        let (next, skipped) = next_of_whole(roots, path, own, joined, ahead, openers)?;
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

/// The file that a reader has used up.
#[derive(Clone, Copy)]
struct Own<'a> {
    identity: Identity,
    file: &'a Arc<File>,
    content: &'a dyn Content,
}

/// What comes after a file that was rotated away, and the events of what is left out before it.
fn next_of_whole(
    roots: &Roots,
    path: &FilePath,
    own: Own<'_>,
    joined: Joined<'_>,
    ahead: Option<&Ahead>,
    openers: &Openers,
) -> io::Result<(NextOld, Vec<Event>)> {
    let follows = |misses_some, listed_until| Followed { misses_some, is_backup: false, listed_until };
    let before = ahead.map_or(Ok(None), |ahead| openers.first(ahead.clone(), joined))?;
    let mut known = None;
    if let Some(First { next, misses_some, skipped, .. }) = before {
        if let Some(at) = next {
            return Ok((NextOld::Listed(at, follows(misses_some, None)), skipped));
        }
        if joined.came.is_some() && joined.next.is_none() {
            return Ok((NextOld::Joined(follows(misses_some, None)), skipped));
        }
        known = Some((misses_some, skipped));
    }
    // The files are listed once more before the reader leaves them: since the last list, files of the chain may have been
    // compressed or deleted that were not kept open, and the one at the path may have been copied and truncated.
    let written_last = nanos(own.file.metadata()?.modified()?);
    let list = || {
        let last = joined.next.map(last_of);
        let listed = listed::generations(&roots.places(path))?;
        let after = own_place(&listed, own, openers)?.map(|at| at + 1);
        // Those that were written later come after it, if it is not there any more.
        let is_later = |next: &Next| written(&next.file) > written_last;
        let count = listed.files.len();
        let from = after.unwrap_or_else(|| listed.files.iter().position(is_later).unwrap_or(count));
        let Some(first) = openers.first(Ahead::from(listed, from), joined)? else { return Ok(None) };
        let First { next, stop, mut misses_some, mut skipped, ahead: listed } = first;
        if let Some(at) = next {
            return Ok(Some((NextOld::Listed(at, follows(misses_some || after.is_none(), None)), skipped)));
        }
        // Without the own file in the new list, the old one still says which files came before those of the chain.
        match &known {
            Some((missed_some, known)) => {
                misses_some |= *missed_some;
                let gone = known.iter().filter(|gap| after.is_none() && !skipped.contains(gap));
                skipped = gone.cloned().chain(skipped.clone()).collect();
            }
            None => misses_some |= after.is_none(),
        }
        let cut_off = |file: &File| is_cut_off(ahead, file).map(|is_cut| is_cut.then_some(TRUNCATED));
        if joined.came.is_some() {
            if let Some(file) = joined.next.and_then(|next| next.file()) {
                skipped.extend(cut_off(&file)?);
            }
            let until = stop.as_ref().or(last).map(|stop| stop.identity).filter(|_| after.is_some());
            return Ok(Some((NextOld::Joined(follows(misses_some, until)), skipped)));
        }
        let Some(current) = listed.current() else { return Ok(Some((NextOld::Nothing, skipped))) };
        // Otherwise the name is another file's by now.
        let Some(file) = open(current)? else { return Ok(None) };
        skipped.extend(cut_off(&file)?);
        let at = At::Path { file, identity: current.identity };
        let misses_some = misses_some || after.is_none();
        Ok(Some((NextOld::Listed(at, follows(misses_some, None)), skipped)))
    };
    siblings::again(list, || true)?.ok_or_else(unsettled)
}

/// Text of the file at the path that was there when the files were listed, and is gone without a copy.
const TRUNCATED: Event = Event::Gap { reason: GapReason::Truncated, bytes: None };

/// Whether a file was the one at the path when the files were listed, and is shorter than it was then. Nothing of it was read
/// yet.
fn is_cut_off(ahead: Option<&Ahead>, file: &File) -> io::Result<bool> {
    let Some(then) = ahead.and_then(Ahead::current) else { return Ok(false) };
    let now = file.metadata()?;
    Ok(then.identity == Identity::of(&now) && now.len() < then.metadata.len())
}

/// Where a file is in a list, under any name, or an archive of it. `None` if it is not there.
fn own_place(listed: &Younger, own: Own<'_>, openers: &Openers) -> io::Result<Option<usize>> {
    let files = || listed.files.iter().map(|next| &next.file).enumerate();
    if let Some((at, _)) = files().find(|(_, file)| file.identity == own.identity) {
        return Ok(Some(at));
    }
    let written_last = nanos(own.file.metadata()?.modified()?);
    let mut found = Vec::new();
    for (at, sibling) in files() {
        let is_kept = is_written_at(sibling, written_last);
        if !is_kept && written(sibling) < written_last {
            continue;
        }
        let opened = openers.open(sibling)?;
        let archive = if let Opened::File(_, archive) = &opened { archive.as_ref() } else { None };
        let is_own = match &opened {
            Opened::File(_, None) | Opened::Unreadable(_) => is_kept,
            Opened::File(_, Some(_)) => is_compressed_from(sibling, archive, own.file, own.content)?,
            Opened::Gone => false,
        };
        if is_own {
            found.push((archive.is_some(), is_kept, at));
        }
    }
    // The content proves more than the time.
    let best = found.iter().map(|(is_proven, is_kept, _)| (*is_proven, *is_kept)).max();
    let mut places = found.iter().filter(|(is_proven, is_kept, _)| Some((*is_proven, *is_kept)) == best);
    Ok(places.next().filter(|_| places.next().is_none()).map(|(_, _, at)| *at))
}

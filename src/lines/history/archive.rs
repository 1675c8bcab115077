//! A rotated generation that was compressed, read as if it were not. Everything here blocks.
//!
//! The first bytes of a file say how it is compressed, whatever its name. Offsets count the bytes of the content. What was
//! decompressed last is kept, because a reader begins each batch a little before the end of the last one; an earlier
//! offset is reached by decompressing the file again from its start.
//!
//! An archive is not trusted: what a reader holds of one is bounded, however it was made, and an archive that cannot be
//! read further ends there with a [`Fault`].
//!
//! A damaged archive may give wrong bytes before its format or the checksum at the end of a member shows the damage. So the
//! content of a small member is held back until its checksum was compared, and of a larger one it is known how much was
//! not confirmed by a checksum.

use std::{
    fs::File,
    io,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use decode::Decoder;
pub use decode::{Format, head};

use crate::{
    blocking::give_way,
    lines::content::{
        checkpoint::HEAD_BYTES,
        pread::{Content, Stat},
    },
};

mod decode;

/// How much is decompressed at once.
const STEP_BYTES: usize = 64 * 1024;

/// How much of what was decompressed is kept: a batch, what was read after it, and the bytes that prove it.
const KEPT_BYTES: usize = 256 * 1024;

/// A member with at most this much content is confirmed by its checksum before any of that is read. All of it is kept.
const HELD_BYTES: u64 = KEPT_BYTES as u64;

/// The most that is kept for a reader of long lines.
const MAX_KEPT_BYTES: usize = 8 * 1024 * 1024;

/// How much of an archive may be the first read of it: it is no size, only how much to ask for.
const AHEAD_BYTES: u64 = 1024 * 1024;

/// The most archives of all readers that are decompressed at a time. The others wait.
const MAX_OPEN: usize = 64;

/// An archive that was not read for this long gives way to one that waits.
const IDLE: Duration = Duration::from_secs(1);

/// One that is read all the time gives way after this long, or after [`TURN_COSTS`] times what it takes to come back to
/// where its reader is, if that is longer: it is decompressed again from its start then.
const TURN: Duration = Duration::from_secs(5);

const TURN_COSTS: u32 = 4;

/// From this much content on, an archive may not hold more than [`MAX_RATIO`] times its own bytes.
const RATIO_FROM_BYTES: u64 = 64 * 1024 * 1024;

/// More than gzip and zstd reach with any log.
const MAX_RATIO: u64 = 1000;

/// An archive that ends too early was written to within this time: it may still grow.
const GROWING: Duration = Duration::from_secs(2);

/// Why an archive cannot be read, or not to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// It has another format.
    Format(&'static str),
    /// Its bytes are not what its format demands, or their checksum is wrong.
    Corrupt,
    /// It ends too early.
    Incomplete,
    /// It needs more memory than a reader may have.
    Memory,
    /// It holds far more than a log that was compressed to its size.
    Ratio,
}

/// A compressed file.
#[derive(Debug)]
pub struct Archive {
    file: Arc<File>,
    /// The name that it had when it was opened.
    pub name: Arc<str>,
    format: Format,
    /// Cancels a long read when the reader is gone.
    gone: Arc<AtomicBool>,
    archives: Arc<Archives>,
    open: Arc<Mutex<Option<Open>>>,
    /// The start of its content, which proves each batch.
    head: OnceLock<Vec<u8>>,
    /// The end that was found so far.
    known: Mutex<Known>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// How far it was decompressed.
    bytes: u64,
    /// Its content ends there.
    end: Option<End>,
}

/// The end of the content of an archive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct End {
    /// Why it ends there, if it is not whole.
    fault: Option<Fault>,
    /// How much of the content before it was confirmed by checksums.
    confirmed: u64,
}

/// An archive that is being decompressed.
#[derive(Debug)]
struct Open {
    decoder: Decoder,
    /// The bytes that were decompressed last.
    kept: Vec<u8>,
    /// The offset of the first byte that is kept.
    from: u64,
    most_kept: usize,
    /// The kept bytes end with the content.
    is_ended: bool,
    /// When it was opened, how long it took to come to where it was read first, and when it was read last.
    since: Instant,
    cost: Option<Duration>,
    used: Instant,
}

/// The archives that are decompressed for all readers.
#[derive(Debug, Default)]
pub struct Archives {
    open: Mutex<Vec<Weak<Mutex<Option<Open>>>>>,
}

impl Archives {
    /// A compressed file, for a reader that sets `gone` when it leaves.
    pub fn archive(
        self: &Arc<Self>,
        file: Arc<File>,
        name: &str,
        format: Format,
        gone: &Arc<AtomicBool>,
    ) -> Archive {
        let (name, gone, archives) = (name.into(), gone.clone(), self.clone());
        Archive {
            file,
            name,
            format,
            gone,
            archives,
            open: Arc::default(),
            head: OnceLock::new(),
            known: Mutex::default(),
        }
    }

    /// Takes all places, as archives do that others read just now, until the caller drops them.
    #[cfg(test)]
    pub fn occupy(&self) -> impl Sized + use<> {
        let all = (0..MAX_OPEN).map(|_| Arc::<Mutex<Option<Open>>>::default()).collect::<Vec<_>>();
        self.open.lock().unwrap_or_else(PoisonError::into_inner).extend(all.iter().map(Arc::downgrade));
        all
    }

    /// Whether an archive may be decompressed now. It can close another one, whose reader then has to wait in turn.
    fn admits(&self, open: &Arc<Mutex<Option<Open>>>) -> bool {
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| other.strong_count() > 0);
        if all.iter().any(|other| std::ptr::eq(other.as_ptr(), Arc::as_ptr(open))) {
            return true;
        }
        if all.len() >= MAX_OPEN {
            let Some(other) = all.iter().position(gives_way) else { return false };
            all.swap_remove(other);
        }
        all.push(Arc::downgrade(open));
        true
    }
}

/// Closes an archive that was not read for a while, or had its turn.
fn gives_way(open: &Weak<Mutex<Option<Open>>>) -> bool {
    let Some(open) = open.upgrade() else { return true };
    // One that is locked is read just now.
    let Ok(mut open) = open.try_lock() else { return false };
    let is_over = open.as_ref().is_some_and(|Open { since, cost, used, .. }| {
        used.elapsed() > IDLE
            || cost.is_some_and(|cost| since.elapsed() > TURN.max(cost.saturating_mul(TURN_COSTS)))
    });
    if is_over {
        *open = None;
    }
    is_over
}

impl Archive {
    /// How far it was decompressed: the size of its content, if it was read to its end.
    pub fn bytes(&self) -> u64 {
        self.known().bytes
    }

    /// Its content was read to its end.
    pub fn is_ended(&self) -> bool {
        self.known().end.is_some()
    }

    /// Why it was not read further than to where its content ended.
    pub fn fault(&self) -> Option<Fault> {
        self.known().end?.fault
    }

    /// The offset from which the content was read without being confirmed by a checksum, if it has a fault.
    pub fn unconfirmed(&self) -> Option<u64> {
        let Known { bytes, end } = *self.known();
        end.map(|end| end.confirmed).filter(|confirmed| *confirmed < bytes)
    }

    /// Whether it may be decompressed now: not if as many others are as may be. Then ask again soon.
    pub fn is_admitted(&self) -> bool {
        self.archives.admits(&self.open)
    }

    /// Frees the memory of its decoder, unless that may go on.
    pub fn rest(&self) {
        if !self.is_admitted() {
            self.lock().take();
        }
    }

    /// It ends too early, and was written to a moment ago.
    pub fn may_grow(&self) -> bool {
        let written = || self.file.metadata()?.modified();
        self.fault() == Some(Fault::Incomplete)
            && written().is_ok_and(|at| at.elapsed().is_ok_and(|age| age < GROWING))
    }

    /// Reads on where it ended too early: it may have grown since.
    pub fn retry(&self) {
        self.lock().take();
        self.known().end = None;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens it at its start. `most_kept` bytes of its content are kept at least.
    fn start(&self, most_kept: usize) -> io::Result<Open> {
        let decoder = Decoder::new(self.file.clone(), self.format)?;
        let now = Instant::now();
        Ok(Open {
            decoder,
            kept: Vec::new(),
            from: 0,
            most_kept,
            is_ended: false,
            since: now,
            cost: None,
            used: now,
        })
    }

    /// Decompresses more, or finds the end of the content.
    fn advance(&self, open: &mut Open) -> io::Result<()> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(io::Error::other("the caller is gone"));
        }
        if open.kept.len() > open.most_kept * 2 {
            let dropped = open.kept.len() - open.most_kept;
            open.kept.drain(..dropped);
            open.from += dropped as u64;
        }
        let before = open.kept.len();
        open.kept.resize(before + STEP_BYTES, 0);
        let read = open.decoder.read(open.kept.get_mut(before..).unwrap_or_default());
        let got = read.as_ref().map_or(0, |read| read.unwrap_or(0));
        open.kept.truncate(before + got);
        let confirmed = open.decoder.confirmed();
        let is_bomb = open.end() > RATIO_FROM_BYTES && open.end() / MAX_RATIO > open.decoder.stored();
        let fault = match read {
            Err(fault) => Some(Some(fault?)),
            Ok(_) if is_bomb => Some(Some(Fault::Ratio)),
            Ok(None) => Some(None),
            Ok(Some(_)) => None,
        };
        if fault == Some(Some(Fault::Corrupt)) && open.is_held() {
            open.kept.truncate(usize::try_from(confirmed.saturating_sub(open.from)).unwrap_or(usize::MAX));
        }
        let mut known = self.known();
        if !open.is_held() || fault.is_some() {
            known.bytes = known.bytes.max(open.end());
        }
        known.end = known.end.or(fault.map(|fault| End { fault, confirmed }));
        open.is_ended = fault.is_some();
        Ok(())
    }
}

impl Open {
    /// The offset after the last byte that is kept.
    fn end(&self) -> u64 {
        self.from + self.kept.len() as u64
    }

    /// The kept bytes of the last member are held back.
    fn is_held(&self) -> bool {
        self.end() - self.decoder.confirmed() <= HELD_BYTES
    }

    /// The bytes that can be read: not those that are held back, except at the end.
    fn visible(&self) -> &[u8] {
        let end = if !self.is_ended && self.is_held() { self.decoder.confirmed() } else { self.end() };
        let bytes = usize::try_from(end.saturating_sub(self.from)).unwrap_or(usize::MAX);
        self.kept.get(..bytes).unwrap_or(&self.kept)
    }
}

impl Content for Archive {
    fn read_some(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let head =
            usize::try_from(offset).ok().and_then(|at| self.head.get()?.get(at..)?.get(..buffer.len()));
        if let Some(head) = head {
            buffer.copy_from_slice(head);
            return Ok(head.len());
        }
        let mut locked = self.lock();
        let lead = locked.as_ref().and_then(|open| open.from.checked_sub(offset)).unwrap_or(0);
        if locked.is_none() || lead > 0 {
            // It is read in larger steps than was thought.
            let most_kept = locked.as_ref().map_or(KEPT_BYTES, |open| {
                let asked = usize::try_from(lead).unwrap_or(MAX_KEPT_BYTES).saturating_add(open.most_kept);
                asked.min(MAX_KEPT_BYTES).max(open.most_kept)
            });
            *locked = None;
            *locked = Some(self.start(most_kept)?);
        }
        let Some(open) = locked.as_mut() else { return Ok(0) };
        loop {
            let visible = open.visible();
            if open.from == 0
                && let Some(head) = visible.get(..HEAD_BYTES)
            {
                self.head.get_or_init(|| head.to_vec());
            }
            let at = usize::try_from(offset.saturating_sub(open.from)).unwrap_or(usize::MAX);
            if let Some(found) = visible.get(at..).filter(|found| !found.is_empty()) {
                let bytes = found.len().min(buffer.len());
                buffer
                    .get_mut(..bytes)
                    .unwrap_or_default()
                    .copy_from_slice(found.get(..bytes).unwrap_or_default());
                open.used = Instant::now();
                open.cost.get_or_insert(open.since.elapsed());
                return Ok(bytes);
            }
            if open.is_ended {
                return Ok(0);
            }
            self.advance(open)?;
            give_way();
        }
    }

    fn stat(&self) -> io::Result<Stat> {
        let Known { bytes, end } = *self.known();
        let size = if end.is_some() { bytes } else { bytes.saturating_add(AHEAD_BYTES) };
        Ok(Stat { size, is_sparse: false, written: self.file.stat()?.written })
    }

    fn is_rewritable(&self) -> bool {
        false
    }

    fn end_of_data(&self, _: u64) -> io::Result<Option<u64>> {
        Ok(None)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset))
    }
}

//! A disk in memory that loses power, runs full and fails, for tests.
//!
//! It promises what Linux promises; where file systems differ, the least that any of them promises:
//! - Reads see every write at once. On disk is only what was synced: the bytes and the length of a file by [`Handle::sync`],
//!   names by [`Simulation::sync_directory`].
//! - A power cut leaves any part of what was not synced: see [`content`] and [`names`].
//! - After a failed sync, reads still show what was written, and no later sync brings it to the disk unless it is written
//!   again: the kernel has marked it clean.
//! - Between two calls a test can act, as another thread might: see [`Simulation::before`].
//! - [`Simulation::lose_power`] and [`Simulation::kill`] copy a disk. Writes to the old one do not change the copy, so a test
//!   can cut the power of a log that is running.
//!
//! The same calls and the same seeds give the same bytes.

use std::{
    collections::BTreeMap,
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
};

use bad::BadPages;
use content::Content;
use loss::Loss;
use names::Names;
pub use random::Random;

mod bad;
mod content;
mod loss;
mod names;
mod random;

/// EIO.
const IO: i32 = 5;

/// ENOSPC.
const NO_SPACE: i32 = 28;

/// A disk.
#[derive(Default)]
pub struct Simulation {
    state: Arc<Mutex<State>>,
}

/// An open file of a [`Simulation`]. It can still be read and written after its name was removed.
pub struct Handle {
    state: Arc<Mutex<State>>,
    file: u64,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The disk is full: a write writes half of its bytes, other calls do nothing.
    Full,
    /// EIO: a write writes some of its bytes, other calls do nothing. A failed sync marks what was not on disk as clean,
    /// whatever the error.
    Error,
    /// EIO at the first sync of a file or a directory, at this call or later.
    Sync,
    /// The power fails during this call: it and all later calls get EIO. [`Simulation::lose_power`] then leaves any part of
    /// what the calls up to this one did.
    Power,
}

#[derive(Clone, Default)]
struct State {
    names: Names,
    /// Kept when their name is removed: a power cut may bring it back.
    files: BTreeMap<u64, File>,
    /// Rises with each change, so that changes of names and of bytes have one order.
    clock: u64,
    calls: u64,
    faults: BTreeMap<u64, Fault>,
    deed: Deed,
    bad_deed: Deed,
    capacity: Option<u64>,
    max_files: Option<usize>,
    is_off: bool,
    /// The number of reads of files, and of the bytes that they read.
    reads: (u64, u64),
    gate: Option<Gate>,
    /// Every read of a file gets EIO.
    is_unreadable: bool,
}

/// Reads of files wait until its sender is dropped.
#[derive(Clone)]
struct Gate(Arc<Mutex<mpsc::Receiver<()>>>);

/// What a test does before a call, once. A copy of the disk has none.
#[derive(Default)]
struct Deed(Option<(u64, Box<dyn FnOnce() + Send>)>);

impl Clone for Deed {
    fn clone(&self) -> Self {
        Self::default()
    }
}

#[derive(Clone, Default)]
struct File {
    content: Content,
    handles: usize,
    bad: BadPages,
}

impl Simulation {
    /// An empty disk.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The disk after a power cut now.
    pub fn lose_power(&self, seed: u64) -> Arc<Self> {
        let state = self.state();
        let oldest = state.files.values().filter_map(|file| file.content.oldest_unsynced()).min();
        let oldest = oldest.into_iter().chain(state.names.oldest_unsynced()).min().unwrap_or(state.clock);
        let mut loss = Loss::new(seed, oldest..=state.clock);
        let names = state.names.lose_power(&mut loss);
        let files = state.files.iter().filter(|(id, _)| names.has(**id));
        let files = files
            .map(|(id, file)| (*id, File { content: file.content.lose_power(&mut loss), ..File::default() }));
        let files = files.collect();
        let (clock, capacity, max_files) = (state.clock, state.capacity, state.max_files);
        State { names, files, clock, capacity, max_files, ..State::default() }.into_disk()
    }

    /// The disk as another process finds it after the writing process was killed: with everything, synced or not.
    pub fn kill(&self) -> Arc<Self> {
        let mut state = self.state().clone();
        state.files.values_mut().for_each(|file| file.handles = 0);
        State { calls: 0, faults: BTreeMap::new(), is_off: false, ..state }.into_disk()
    }

    /// The number of calls so far that change something, failed ones included: create, rename, remove, `sync_directory`,
    /// and of files write, `set_len`, allocate, punch, sync.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// The number of reads of files so far, and of the bytes that they read.
    pub fn reads(&self) -> (u64, u64) {
        self.state().reads
    }

    /// Makes reads of files wait until the returned sender is dropped.
    pub fn hold_reads(&self) -> mpsc::Sender<()> {
        let (sender, receiver) = mpsc::channel();
        self.state().gate = Some(Gate(Arc::new(Mutex::new(receiver))));
        sender
    }

    /// Makes a call fail, counted from 0.
    pub fn fail_at(&self, call: u64, fault: Fault) {
        self.state().faults.insert(call, fault);
    }

    /// Acts before a call and after the previous one, as another thread might.
    pub fn before(&self, call: u64, deed: impl FnOnce() + Send + 'static) {
        self.state().deed = Deed(Some((call, Box::new(deed))));
    }

    /// Limits the room for all files together, each in whole sectors; `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Limits the number of files that have a name or are open; `None` for no limit.
    pub fn set_max_files(&self, files: Option<usize>) {
        self.state().max_files = files;
    }

    /// The room for further files and bytes.
    pub fn free(&self) -> super::Free {
        let state = self.state();
        let bytes = state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used()));
        let files = state.max_files.map_or(u64::MAX, |most| most.saturating_sub(state.count()) as u64);
        super::Free { bytes, files }
    }

    /// The number of files that have a name or are open.
    pub fn count(&self) -> usize {
        self.state().count()
    }

    /// The room that is taken by files that have a name or are open.
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// Changes a byte for good, without a write, as rot does.
    pub fn flip(&self, path: &Path, byte: u64, mask: u8) {
        let mut state = self.state();
        let file = state.names.find(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        state.file(file).content.flip(byte, mask);
    }

    /// The bytes of a file as readers see them.
    pub fn read_file(&self, path: &Path) -> Vec<u8> {
        let mut state = self.state();
        let file = state.names.find(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        state.file(file).content.to_vec()
    }

    /// Creates a file and its directory, on disk at once.
    pub fn write_file(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.state();
        let file = state.new_file();
        state.clock += 1;
        let clock = state.clock;
        state.names.put(path, file, clock);
        state.file(file).content = Content::durable(bytes);
    }

    /// Creates a directory and its parents. This does not fail, and is not counted as a call.
    pub fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.clock += 1;
        let clock = state.clock;
        state.names.create_directory(path, clock)
    }

    /// The files and directories in a directory, in any order.
    pub fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.state().names.list(path)
    }

    /// Opens an existing file.
    pub fn open(&self, path: &Path) -> io::Result<Handle> {
        let mut state = self.state();
        let file = state.names.find(path)?;
        Ok(self.handle(&mut state, file))
    }

    /// Creates a file, or truncates the existing one.
    pub fn create(&self, path: &Path) -> io::Result<Handle> {
        let mut state = self.state();
        let file = state.change(|state, clock| {
            if let Ok(file) = state.names.find(path) {
                state.file(file).content.set_len(0, clock);
                return Ok(file);
            }
            if state.max_files.is_some_and(|most| state.count() >= most) {
                return Err(Fault::Full.into());
            }
            let file = state.new_file();
            state.names.create(path, file, clock).map(|()| file)
        })?;
        Ok(self.handle(&mut state, file))
    }

    /// Renames a file.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state().change(|state, clock| state.names.rename(from, to, clock))
    }

    /// Removes the name of a file.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.state().change(|state, clock| state.names.remove(path, clock))
    }

    /// Brings the names in a directory to the disk. After an error a later sync can still bring them, because they are in a
    /// journal and not in the page cache.
    pub fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        match state.call(true)? {
            None => state.names.sync(path),
            Some(fault) => Err(fault.into()),
        }
    }

    fn handle(&self, state: &mut State, file: u64) -> Handle {
        state.file(file).handles += 1;
        Handle { state: self.state.clone(), file }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Simulation").field("calls", &state.calls).finish_non_exhaustive()
    }
}

impl Handle {
    /// Fills `bytes` from an offset.
    pub fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let gate = self.state().gate.clone();
        if let Some(Gate(gate)) = gate {
            // It fails when the sender is dropped.
            let _ = gate.lock().unwrap_or_else(PoisonError::into_inner).recv();
        }
        let is_read = offset..offset + bytes.len() as u64;
        let mut state = self.state();
        state.reads.0 += 1;
        state.reads.1 += bytes.len() as u64;
        let is_bad = state.file(self.file).bad.has_any_of(&is_read);
        if let Some((_, deed)) = state.bad_deed.0.take_if(|_| is_bad) {
            drop(state);
            deed();
            state = self.state();
        }
        if state.is_unreadable || is_bad {
            return Err(Fault::Error.into());
        }
        state.file(self.file).content.read(bytes, offset)
    }

    /// Writes bytes at an offset. After an error, the first of them may be written.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state();
        let fault = state.call(false)?;
        state.file(self.file).bad.write(offset..offset + bytes.len() as u64)?;
        let length = match fault {
            Some(Fault::Full) => bytes.len() / 2,
            Some(Fault::Error | Fault::Sync) => Random::new(state.calls).index(bytes.len()),
            None | Some(Fault::Power) => bytes.len(),
        };
        let room = state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used()));
        let mut clock = state.clock;
        let bytes = bytes.get(..length).unwrap_or_default();
        let written = state.file(self.file).content.write(bytes, offset, room, &mut clock);
        state.clock = clock;
        match fault {
            Some(fault) => Err(fault.into()),
            None if written < length => Err(Fault::Full.into()),
            None => Ok(()),
        }
    }

    /// The length of the file.
    pub fn len(&self) -> u64 {
        self.state().file(self.file).content.len()
    }

    /// Cuts it, or fills it up with zeros, which take no room.
    pub fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.state().change(|state, clock| {
            state.file(self.file).content.set_len(bytes, clock);
            Ok(())
        })
    }

    /// Fills it up with zeros, which take their room now.
    pub fn allocate(&self, range: Range<u64>) -> io::Result<()> {
        self.state().change(|state, clock| {
            let room = state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used()));
            let file = &mut state.file(self.file).content;
            if file.room_to_allocate(&range) > room {
                return Err(Fault::Full.into());
            }
            file.allocate(&range, clock);
            Ok(())
        })
    }

    /// Overwrites bytes with zeros, and gives the room of whole sectors back.
    pub fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.state().change(|state, clock| {
            state.file(self.file).bad.write(offset..offset + length)?;
            state.file(self.file).content.punch(offset, length, clock);
            Ok(())
        })
    }

    /// Brings its bytes and its length to the disk.
    pub fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        match state.call(true)? {
            None => {
                state.file(self.file).content.sync();
                Ok(())
            }
            Some(fault) => {
                state.file(self.file).content.fail_sync();
                Err(fault.into())
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.state().file(self.file).handles -= 1;
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("file", &self.file).finish_non_exhaustive()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let mut locked = lock();
    let calls = locked.calls;
    let Some((_, deed)) = locked.deed.0.take_if(|(call, _)| *call <= calls) else { return locked };
    // It may read and write itself.
    drop(locked);
    deed();
    lock()
}

impl State {
    fn into_disk(self) -> Arc<Simulation> {
        Arc::new(Simulation { state: Arc::new(Mutex::new(self)) })
    }

    /// Counts a call, and finds how it is to go wrong.
    fn call(&mut self, is_sync: bool) -> io::Result<Option<Fault>> {
        let call = self.calls;
        self.calls += 1;
        if self.is_off {
            return Err(Fault::Power.into());
        }
        let at_sync = |(at, fault): (&u64, &Fault)| (is_sync && *fault == Fault::Sync).then_some(*at);
        let due = self.faults.range(..call).find_map(at_sync).unwrap_or(call);
        let fault = match self.faults.get(&due) {
            // It waits for a sync.
            Some(Fault::Sync) if !is_sync => None,
            Some(_) => self.faults.remove(&due),
            None => None,
        };
        self.is_off = fault == Some(Fault::Power);
        Ok(fault)
    }

    /// A call that is done wholly, or not at all; only a power cut leaves both open.
    fn change<T>(&mut self, change: impl FnOnce(&mut Self, u64) -> io::Result<T>) -> io::Result<T> {
        let fault = self.call(false)?;
        self.clock += 1;
        let clock = self.clock;
        match fault {
            None => change(self, clock),
            Some(fault) => {
                if fault == Fault::Power {
                    change(self, clock)?;
                }
                Err(fault.into())
            }
        }
    }

    fn new_file(&mut self) -> u64 {
        let id = self.files.last_key_value().map_or(0, |(last, _)| last + 1);
        self.files.insert(id, File::default());
        id
    }

    fn file(&mut self, id: u64) -> &mut File {
        self.files.entry(id).or_default()
    }

    fn used(&self) -> u64 {
        self.present().map(|file| file.content.room()).sum()
    }

    fn count(&self) -> usize {
        self.present().count()
    }

    /// The files that have a name or are open.
    fn present(&self) -> impl Iterator<Item = &File> {
        let is_there = |id: u64, file: &File| file.handles > 0 || self.names.sees(id);
        self.files.iter().filter(move |(id, file)| is_there(**id, file)).map(|(_, file)| file)
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::from_raw_os_error(if fault == Fault::Full { NO_SPACE } else { IO })
    }
}

#[cfg(test)]
mod tests;

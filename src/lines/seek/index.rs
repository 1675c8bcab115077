//! Where the numbered lines of a file are: how many newlines there are up to every 256 KiB of it, so that a line is found
//! by its number with a read of one block. The first search builds the index, later ones extend it as the file grows, and
//! each verifies it before it uses it. A search ends soon after its caller is gone. Everything here blocks.
//!
//! One search counts at a time, in rounds, and the others take its result; a search for a line that is counted waits for
//! no other. Nothing is counted from a run of NUL bytes on, which may be filled in later: these parts are read again.

use std::{
    collections::HashMap,
    fs::File,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use memchr::{memchr_iter, memrchr};

use crate::{
    blocking::give_way,
    lines::{
        content::{
            checkpoint::Checkpoint,
            hole,
            position::{HEAD, LinePosition},
            pread::read_at,
        },
        identity::Identity,
    },
};

/// How far two counts are apart, at first: 64 KiB of memory a gigabyte.
const STEP_BYTES: u64 = 256 * 1024;

/// How much is read at once: it stays in the processor's second cache. Twice as much is read five times as slowly on
/// the machine of docs/benchmarks.md.
const READ_BYTES: usize = 128 * 1024;

/// How much is counted before the counts are added to the index.
const ROUND_BYTES: u64 = 32 * 1024 * 1024;

/// From this much on a second thread is worth its start; it counts half of a round. More threads would take the
/// processor from other streams.
const PARALLEL_BYTES: u64 = 512 * 1024;

/// The most counts of a file, 512 KiB; for a larger file they are twice as far apart.
const MAX_COUNTS: usize = 64 * 1024;

/// How many files are remembered: 128 MiB of memory if all are large.
const MAX_FILES: usize = 256;

/// How often a search that waits for another search of the same file checks whether its caller is gone.
const PAUSE: Duration = Duration::from_millis(1);

/// The indexes of the files that were asked for last.
#[derive(Debug, Default)]
pub struct Indexes {
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    indexes: HashMap<Identity, (u64, Arc<Shared>)>,
    /// How many searches there were, to find the index that was not used for the longest time.
    asked: u64,
}

/// The index of a file.
#[derive(Debug, Default)]
struct Shared {
    /// Locked for moments, never while the file is searched.
    index: Mutex<Index>,
    /// Locked by the search that counts, for a round.
    counts: Mutex<()>,
}

impl Indexes {
    /// The start of the line with this number; if the file has fewer lines, the start of the last one, whose newline is
    /// still to come. Also returns how far the file was read.
    pub fn line(&self, file: &File, number: u64, gone: &AtomicBool) -> io::Result<(LinePosition, u64)> {
        let Some(wanted) = number.checked_sub(1).filter(|wanted| *wanted > 0) else { return Ok((HEAD, 0)) };
        let shared = self.index(Identity::of(&file.metadata()?));
        let mut is_complete = false;
        loop {
            let counted = shared.verified(file)?;
            if counted.total() >= wanted || is_complete {
                let from = counted.before(wanted);
                drop(counted);
                return from.scan(file, wanted, gone);
            }
            drop(counted);
            let _counts = lock_unless_gone(&shared.counts, gone)?;
            // Another search may have counted on.
            let round = shared.verified(file)?.round(file)?;
            let counts = round.count(file, gone)?;
            is_complete = counts.is_empty();
            shared.verified(file)?.add(file, &round, &counts)?;
        }
    }

    /// The number of files that have an index.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        lock(&self.files).indexes.len()
    }

    fn index(&self, identity: Identity) -> Arc<Shared> {
        let mut files = lock(&self.files);
        files.asked += 1;
        let asked = files.asked;
        if files.indexes.len() >= MAX_FILES && !files.indexes.contains_key(&identity) {
            let oldest = files.indexes.iter().min_by_key(|(_, (asked, _))| *asked).map(|(oldest, _)| *oldest);
            oldest.and_then(|oldest| files.indexes.remove(&oldest));
        }
        let (last, index) = files.indexes.entry(identity).or_insert_with(|| (asked, Arc::default()));
        *last = asked;
        index.clone()
    }
}

impl Shared {
    /// The index, empty if the file was rewritten since it was made.
    fn verified(&self, file: &File) -> io::Result<MutexGuard<'_, Index>> {
        let mut index = lock(&self.index);
        if !index.proof.is_prefix_of(file)? {
            *index = Index::default();
        }
        Ok(index)
    }
}

/// If a panic left an index half changed, the verification before its next use finds that out.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lock_unless_gone<'a, T>(mutex: &'a Mutex<T>, gone: &AtomicBool) -> io::Result<MutexGuard<'a, T>> {
    loop {
        match mutex.try_lock() {
            Ok(guard) => return Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => fail_if_gone(gone)?,
        }
        std::thread::sleep(PAUSE);
    }
}

/// Ends the search of a caller that is gone; it does not see the error.
fn fail_if_gone(gone: &AtomicBool) -> io::Result<()> {
    if gone.load(Ordering::Relaxed) { Err(io::Error::other("the caller is gone")) } else { Ok(()) }
}

#[derive(Debug)]
struct Index {
    step: u64,
    /// How many newlines there are up to the end of each step.
    counts: Vec<u64>,
    /// At the end of the last step.
    proof: Checkpoint,
    /// After the last newline up to there.
    last: u64,
}

impl Default for Index {
    fn default() -> Self {
        Self { step: STEP_BYTES, counts: Vec::new(), proof: Checkpoint::start(), last: 0 }
    }
}

impl Index {
    fn total(&self) -> u64 {
        self.counts.last().copied().unwrap_or(0)
    }

    fn end(&self) -> u64 {
        self.counts.len() as u64 * self.step
    }

    /// Where to search for a newline.
    fn before(&self, wanted: u64) -> Before {
        let step = self.counts.partition_point(|count| *count < wanted);
        let newlines = step.checked_sub(1).and_then(|before| self.counts.get(before)).copied().unwrap_or(0);
        Before { offset: step as u64 * self.step, newlines, last: self.last }
    }

    /// The steps that are counted next.
    fn round(&self, file: &File) -> io::Result<Round> {
        let (step, start) = (self.step, self.end());
        let steps = (file.metadata()?.len().saturating_sub(start) / step).min((ROUND_BYTES / step).max(2));
        Ok(Round { start, step, steps })
    }

    /// Adds the counts of a round, unless the index was made again meanwhile.
    fn add(&mut self, file: &File, round: &Round, counts: &[Counted]) -> io::Result<()> {
        if (self.end(), self.step) != (round.start, round.step) || counts.is_empty() {
            return Ok(());
        }
        for step in counts {
            self.counts.push(self.total() + step.newlines);
            self.last = step.last.unwrap_or(self.last);
        }
        self.proof = Checkpoint::at(file, LinePosition { offset: self.end(), ..HEAD })?;
        while self.counts.len() >= MAX_COUNTS {
            self.counts = self.counts.iter().skip(1).step_by(2).copied().collect();
            self.step *= 2;
        }
        Ok(())
    }
}

/// Some steps of a file, one after another.
#[derive(Clone, Copy, Debug)]
struct Round {
    start: u64,
    step: u64,
    steps: u64,
}

impl Round {
    /// Counts, with a second thread where there are many. Fewer steps at the end of the text, where one is not whole.
    fn count(&self, file: &File, gone: &AtomicBool) -> io::Result<Vec<Counted>> {
        let Self { start, step, steps } = *self;
        let half = steps / 2;
        let count = |from: u64, steps: u64| count(file, start + from * step, step, steps, gone);
        if half * step < PARALLEL_BYTES {
            return count(0, steps);
        }
        let (first, second) = std::thread::scope(|scope| {
            let second = scope.spawn(|| count(half, steps - half));
            (count(0, half), second.join())
        });
        let (mut counted, second) = (first?, second.map_err(|_| io::Error::other("a panic"))??);
        if counted.len() as u64 == half {
            counted.extend(second);
        }
        Ok(counted)
    }
}

/// The newlines of a step.
#[derive(Clone, Copy, Debug)]
struct Counted {
    newlines: u64,
    /// After the last of them.
    last: Option<u64>,
}

/// Counts steps; fewer at the end of the file, where one is not whole, and where one ends in NUL bytes.
fn count(file: &File, start: u64, step: u64, steps: u64, gone: &AtomicBool) -> io::Result<Vec<Counted>> {
    let mut buffer = vec![0; READ_BYTES];
    let mut counted = Vec::new();
    for step_start in (0..steps).map(|n| start + n * step) {
        let (mut at, mut found) = (step_start, Counted { newlines: 0, last: None });
        let mut ends_in_nul = false;
        while at < step_start + step {
            fail_if_gone(gone)?;
            give_way();
            let room = usize::try_from(step_start + step - at).unwrap_or(usize::MAX).min(buffer.len());
            let read = read_at(file, buffer.get_mut(..room).unwrap_or_default(), at)?;
            if read == 0 {
                return Ok(counted);
            }
            let block = buffer.get(..read).unwrap_or_default();
            found.newlines += memchr_iter(b'\n', block).count() as u64;
            found.last = memrchr(b'\n', block).map(|newline| at + newline as u64 + 1).or(found.last);
            ends_in_nul = block.last() == Some(&0);
            at += read as u64;
        }
        if ends_in_nul {
            return Ok(counted);
        }
        counted.push(found);
    }
    Ok(counted)
}

/// Where a search starts.
#[derive(Clone, Copy, Debug)]
struct Before {
    offset: u64,
    /// How many newlines there are before it.
    newlines: u64,
    /// After the last newline that is counted.
    last: u64,
}

impl Before {
    /// Searches for the newline with this number.
    fn scan(&self, file: &File, wanted: u64, gone: &AtomicBool) -> io::Result<(LinePosition, u64)> {
        let mut buffer = vec![0; READ_BYTES];
        let mut at = self.offset;
        let mut position = LinePosition { offset: self.last, number: Some(self.newlines + 1), ..HEAD };
        loop {
            fail_if_gone(gone)?;
            give_way();
            let Some(data) = hole::next_data(file, at)? else {
                return Ok((position, at.max(position.offset)));
            };
            at = at.max(data);
            let read = read_at(file, &mut buffer, at)?;
            if read == 0 {
                return Ok((position, at.max(position.offset)));
            }
            let block = buffer.get(..read).unwrap_or_default();
            for newline in memchr_iter(b'\n', block) {
                let number = position.number.unwrap_or(1) + 1;
                position = LinePosition { offset: at + newline as u64 + 1, number: Some(number), ..HEAD };
                if number > wanted {
                    return Ok((position, position.offset));
                }
            }
            at += read as u64;
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test")]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    static STAYS: AtomicBool = AtomicBool::new(false);

    const SOON: Duration = Duration::from_millis(100);

    /// A file that has no end: reading it would take for ever.
    fn endless() -> File {
        File::open("/dev/zero").unwrap()
    }

    /// How long a search runs after its caller is gone; the least of some, because the machine may be busy.
    fn ends_after(search: impl Fn(&AtomicBool) + Sync) -> Duration {
        let once = || {
            let gone = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let searching = scope.spawn(|| search(&gone));
                std::thread::sleep(Duration::from_millis(50));
                gone.store(true, Ordering::Relaxed);
                let since = std::time::Instant::now();
                searching.join().unwrap();
                since.elapsed()
            })
        };
        (0..3).map(|_| once()).min().unwrap()
    }

    #[test]
    fn a_search_whose_caller_is_gone_ends_within_100_ms_whatever_it_waits_for() {
        let (indexes, file) = (Indexes::default(), endless());
        let took = ends_after(|gone| assert!(indexes.line(&file, 1_000, gone).is_err()));
        assert!(took < SOON, "it reads: {took:?}");
        let text = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&text, b"1\n2\n", 0).unwrap();
        let shared = indexes.index(Identity::of(&text.metadata().unwrap()));
        let _counts = lock(&shared.counts);
        let took = ends_after(|gone| assert!(indexes.line(&text, 1_000, gone).is_err()));
        assert!(took < SOON, "it waits for another search: {took:?}");
    }

    #[test]
    fn a_line_that_is_counted_is_found_while_another_search_counts() {
        let (indexes, file) = (Indexes::default(), tempfile::tempfile().unwrap());
        let text = "12345678901234567890123456789012345678901234567890123456789012\n".repeat(1 << 14);
        std::os::unix::fs::FileExt::write_all_at(&file, text.as_bytes(), 0).unwrap();
        let (_, end) = indexes.line(&file, 10_000, &STAYS).unwrap();
        let shared = indexes.index(Identity::of(&file.metadata().unwrap()));
        let _counts = lock(&shared.counts);
        assert_eq!(indexes.line(&file, 10_000, &STAYS).unwrap().1, end);
    }

    #[test]
    fn a_sparse_file_of_a_tebibyte_is_searched_at_once() {
        let (indexes, file) = (Indexes::default(), tempfile::tempfile().unwrap());
        file.set_len(1 << 40).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"1\n2\n", 0).unwrap();
        let since = std::time::Instant::now();
        assert_eq!(indexes.line(&file, 1_000, &STAYS).unwrap().0.offset, 4);
        assert_eq!(indexes.line(&file, 2, &STAYS).unwrap().0.offset, 2);
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    }

    /// A log whose space is reserved has lines at each write where there were NUL bytes.
    #[test]
    fn lines_that_are_written_into_reserved_space_are_counted() {
        let (indexes, file) = (Indexes::default(), tempfile::tempfile().unwrap());
        let size = 4 * STEP_BYTES;
        std::os::unix::fs::FileExt::write_all_at(&file, &vec![0; size as usize], 0).unwrap();
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        for number in 0..size / 1024 {
            std::os::unix::fs::FileExt::write_all_at(&file, &line, number * 1024).unwrap();
            if number % 100 == 0 {
                let (last, _) = indexes.line(&file, u64::MAX, &STAYS).unwrap();
                assert_eq!((last.number, last.offset), (Some(number + 2), (number + 1) * 1024));
            }
        }
    }

    proptest! {
        #[test]
        fn every_line_is_found_as_by_counting_also_after_the_file_has_grown_or_was_rewritten(
            parts in proptest::collection::vec(
                proptest::collection::vec(prop_oneof![0_usize..5, 100_000_usize..300_000], 0..6), 1..3),
            anew: bool,
            asked in proptest::collection::vec(1_u64..15, 1..5),
        ) {
            let mut file = tempfile::tempfile().unwrap();
            let indexes = Indexes::default();
            let mut content = String::new();
            for (turn, lengths) in parts.iter().enumerate() {
                if anew && turn > 0 {
                    content = "anew\n".repeat(70_000);
                    file.set_len(0).unwrap();
                    std::os::unix::fs::FileExt::write_all_at(&file, content.as_bytes(), 0).unwrap();
                }
                let more = lengths.iter().map(|length| "x".repeat(*length) + "\n").collect::<String>();
                std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).unwrap();
                file.write_all(more.as_bytes()).unwrap();
                content.push_str(&more);
                let lines = content.split_inclusive('\n').collect::<Vec<_>>();
                for number in &asked {
                    let (position, _) = indexes.line(&file, *number, &STAYS).unwrap();
                    let before = lines.iter().take(*number as usize - 1).map(|line| line.len()).sum::<usize>();
                    prop_assert_eq!(position.offset as usize, before);
                    prop_assert_eq!(position.number, Some((*number).min(lines.len() as u64 + 1)));
                }
            }
        }
    }
}

//! Where the numbered lines of a file are: how many newlines there are up to every 256 KiB of it, so that a line is found
//! by its number with a read of one block. The first caller builds it, it is extended as the file grows, and it is
//! verified before each use. A search ends soon after its caller is gone. Everything here blocks.

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

use crate::lines::{
    content::{
        checkpoint::Checkpoint,
        position::{HEAD, LinePosition},
        pread::read_at,
    },
    identity::Identity,
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
    indexes: HashMap<Identity, (u64, Arc<Mutex<Index>>)>,
    /// How many searches there were, to find the index that was not used for the longest time.
    asked: u64,
}

impl Indexes {
    /// The start of the line with this number; if the file has fewer lines, the start of the last one, whose newline is
    /// still to come. Also returns how far the file was read.
    pub fn line(&self, file: &File, number: u64, gone: &AtomicBool) -> io::Result<(LinePosition, u64)> {
        let index = self.index(Identity::of(&file.metadata()?));
        let mut index = lock_unless_gone(&index, gone)?;
        if !index.proof.is_prefix_of(file)? {
            *index = Index::new();
        }
        index.line(file, number, gone)
    }

    /// The number of files that have an index.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        lock(&self.files).indexes.len()
    }

    fn index(&self, identity: Identity) -> Arc<Mutex<Index>> {
        let mut files = lock(&self.files);
        files.asked += 1;
        let asked = files.asked;
        if files.indexes.len() >= MAX_FILES && !files.indexes.contains_key(&identity) {
            let oldest = files.indexes.iter().min_by_key(|(_, (asked, _))| *asked).map(|(oldest, _)| *oldest);
            oldest.and_then(|oldest| files.indexes.remove(&oldest));
        }
        let (last, index) =
            files.indexes.entry(identity).or_insert_with(|| (asked, Arc::new(Mutex::new(Index::new()))));
        *last = asked;
        index.clone()
    }
}

/// What a panic elsewhere leaves is verified before use like everything here.
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

impl Index {
    fn new() -> Self {
        Self { step: STEP_BYTES, counts: Vec::new(), proof: Checkpoint::start(), last: 0 }
    }

    fn line(&mut self, file: &File, number: u64, gone: &AtomicBool) -> io::Result<(LinePosition, u64)> {
        let Some(wanted) = number.checked_sub(1).filter(|wanted| *wanted > 0) else { return Ok((HEAD, 0)) };
        while self.total() < wanted && self.extend(file, gone)? {}
        let step = self.counts.partition_point(|count| *count < wanted);
        let before = step.checked_sub(1).and_then(|before| self.counts.get(before)).copied().unwrap_or(0);
        scan(file, step as u64 * self.step, before, wanted, self.last, gone)
    }

    fn total(&self) -> u64 {
        self.counts.last().copied().unwrap_or(0)
    }

    /// Counts on by some steps, with a second thread where there are many. False at the end of the file: there a step is
    /// not whole.
    fn extend(&mut self, file: &File, gone: &AtomicBool) -> io::Result<bool> {
        let (step, start) = (self.step, self.counts.len() as u64 * self.step);
        let steps = (file.metadata()?.len().saturating_sub(start) / step).min((ROUND_BYTES / step).max(2));
        let half = steps / 2;
        let count = |from: u64, steps: u64| count(file, start + from * step, step, steps, gone);
        let counted = if half * step < PARALLEL_BYTES {
            count(0, steps)?
        } else {
            let (first, second) = std::thread::scope(|scope| {
                let second = scope.spawn(|| count(half, steps - half));
                (count(0, half), second.join())
            });
            let (mut counted, second) = (first?, second.map_err(|_| io::Error::other("a panic"))??);
            if counted.len() as u64 == half {
                counted.extend(second);
            }
            counted
        };
        for step in &counted {
            self.counts.push(self.total() + step.newlines);
            self.last = step.last.unwrap_or(self.last);
        }
        let end = start + counted.len() as u64 * step;
        self.proof = Checkpoint::at(file, LinePosition { offset: end, ..HEAD })?;
        while self.counts.len() >= MAX_COUNTS {
            self.counts = self.counts.iter().skip(1).step_by(2).copied().collect();
            self.step *= 2;
        }
        Ok(!counted.is_empty())
    }
}

/// What there is in a step.
#[derive(Clone, Copy, Debug)]
struct Counted {
    newlines: u64,
    /// After the last of them.
    last: Option<u64>,
}

/// Counts steps; fewer at the end of the file, where one is not whole.
fn count(file: &File, start: u64, step: u64, steps: u64, gone: &AtomicBool) -> io::Result<Vec<Counted>> {
    let mut buffer = vec![0; READ_BYTES];
    let mut counted = Vec::new();
    for step_start in (0..steps).map(|n| start + n * step) {
        let (mut at, mut found) = (step_start, Counted { newlines: 0, last: None });
        while at < step_start + step {
            fail_if_gone(gone)?;
            let room = usize::try_from(step_start + step - at).unwrap_or(usize::MAX).min(buffer.len());
            let read = read_at(file, buffer.get_mut(..room).unwrap_or_default(), at)?;
            if read == 0 {
                return Ok(counted);
            }
            let block = buffer.get(..read).unwrap_or_default();
            found.newlines += memchr_iter(b'\n', block).count() as u64;
            found.last = memrchr(b'\n', block).map(|newline| at + newline as u64 + 1).or(found.last);
            at += read as u64;
        }
        counted.push(found);
    }
    Ok(counted)
}

/// Looks for the newline number `wanted` from `at` on, before which there are `before`.
fn scan(
    file: &File,
    mut at: u64,
    before: u64,
    wanted: u64,
    last: u64,
    gone: &AtomicBool,
) -> io::Result<(LinePosition, u64)> {
    let mut buffer = vec![0; READ_BYTES];
    let mut position = LinePosition { offset: last, number: Some(before + 1), ..HEAD };
    loop {
        fail_if_gone(gone)?;
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

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test")]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    static STAYS: AtomicBool = AtomicBool::new(false);

    /// Reading all of the file would take minutes.
    #[test]
    fn a_search_whose_caller_is_gone_ends_and_neither_keeps_the_index_nor_waits_for_it() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 40).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"1\n2\n", 0).unwrap();
        let (indexes, first_gone, second_gone) =
            (Indexes::default(), AtomicBool::new(false), AtomicBool::new(false));
        let (ended, ends) = std::sync::mpsc::channel();
        let search = |name, gone: &AtomicBool| {
            let result = indexes.line(&file, 1_000, gone);
            ended.send((name, result.is_err())).unwrap();
        };
        let limit = std::time::Duration::from_secs(30);
        std::thread::scope(|scope| {
            scope.spawn(|| search("first", &first_gone));
            // The second one waits for the first, or the first for the second: each ends when its own caller is gone.
            scope.spawn(|| search("second", &second_gone));
            second_gone.store(true, Ordering::Relaxed);
            assert_eq!(ends.recv_timeout(limit).unwrap(), ("second", true));
            first_gone.store(true, Ordering::Relaxed);
            assert_eq!(ends.recv_timeout(limit).unwrap(), ("first", true));
        });
        assert_eq!(indexes.line(&file, 2, &STAYS).unwrap().0.offset, 2);
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

//! Where a reader goes on in a file that replaced the one that it has read: after what both have in common. Everything
//! here blocks.
//!
//! `sed -i`, `rsync` and `tail … > g && mv g f` write a new file and rename it onto the path. If that file begins with the
//! bytes that the reader has read, or holds the last 1 KiB of them exactly once, the lines after these bytes are new. Any
//! other file is a new one, and all its lines are new.

use std::{fs::File, io, os::unix::fs::FileExt};

use memchr::memmem;

use crate::lines::{
    content::{
        checkpoint::{Checkpoint, FINGERPRINT_BYTES},
        position::LinePosition,
        pread::read_at,
    },
    identity::Identity,
};

/// How much of two files is compared or searched at once.
const STEP_BYTES: usize = 64 * 1024;

/// How much of two long files is compared at their start, and at their end.
const COMPARED_BYTES: u64 = 32 * 1024 * 1024;

/// How much of a file is searched for the end of another one: about 0.2 s.
const SEARCHED_BYTES: u64 = 1024 * 1024 * 1024;

/// How many searches are remembered: nearly all followers have read the older file to its end.
const MAX_SEARCHES: usize = 8;

/// The known common content of a file and one that was at the path before it. The newer one keeps it, so that many
/// followers compare the two once.
#[derive(Debug, Default)]
pub struct Overlap {
    old: Identity,
    prefix: CommonPrefix,
    /// Where the bytes before a checkpoint in the older file end in the newer one, if they are there exactly once.
    searches: Vec<(Checkpoint, Option<u64>)>,
}

impl Overlap {
    /// Where a reader of the file `old` goes on in `new`, if it is proven that it has read what comes before.
    pub fn resume(
        &mut self,
        identity: Identity,
        old: &File,
        new: &File,
        checkpoint: &Checkpoint,
    ) -> io::Result<Option<Checkpoint>> {
        if self.is_prefix(identity, old, new, checkpoint)? {
            return Ok(Some(*checkpoint));
        }
        if !checkpoint.is_proof() {
            return Ok(None);
        }
        let known = self.searches.iter().find(|(known, _)| known == checkpoint).map(|(_, found)| *found);
        let found = if let Some(found) = known {
            found
        } else {
            let found = search(old, new, checkpoint.line.offset)?;
            self.searches.truncate(MAX_SEARCHES - 1);
            self.searches.insert(0, (*checkpoint, found));
            found
        };
        // How many lines come before it in the newer file is not known.
        let line = |offset| LinePosition { offset, number: None, ..checkpoint.line };
        found.map(|offset| Checkpoint::at(new, line(offset))).transpose()
    }

    /// Whether `new` begins with everything that was read of the file `old`. Of a long file, only the start and the end of
    /// the part that was read are compared.
    pub fn is_prefix(
        &mut self,
        identity: Identity,
        old: &File,
        new: &File,
        checkpoint: &Checkpoint,
    ) -> io::Result<bool> {
        if self.old != identity {
            *self = Self { old: identity, ..Self::default() };
        }
        let offset = checkpoint.line.offset;
        if offset == 0 || !checkpoint.is_prefix_of(new)? {
            return Ok(false);
        }
        if offset <= 2 * COMPARED_BYTES {
            return self.prefix.covers(old, new, offset);
        }
        let mut tail = CommonPrefix { compared: offset - COMPARED_BYTES };
        Ok(self.prefix.covers(old, new, COMPARED_BYTES)? && tail.covers(old, new, offset)?)
    }
}

/// How many bytes of two files are known to be equal.
#[derive(Debug, Default)]
pub struct CommonPrefix {
    compared: u64,
}

impl CommonPrefix {
    /// Whether the files are equal up to this offset.
    pub fn covers(&mut self, left: &File, right: &File, offset: u64) -> io::Result<bool> {
        let (mut one, mut other) = (Vec::new(), Vec::new());
        while self.compared < offset {
            one.resize(STEP_BYTES, 0);
            other.resize(STEP_BYTES, 0);
            let read =
                read_at(left, &mut one, self.compared)?.min(read_at(right, &mut other, self.compared)?);
            let is_equal = one.get(..read) == other.get(..read);
            let equal = if is_equal {
                read
            } else {
                one.iter().zip(&other).take_while(|(one, other)| one == other).count()
            };
            self.compared += equal as u64;
            if equal < read || read == 0 {
                break;
            }
        }
        Ok(self.compared >= offset)
    }
}

/// Where the last bytes before `offset` of one file end in another one, if they are there exactly once.
fn search(old: &File, new: &File, offset: u64) -> io::Result<Option<u64>> {
    let mut wanted = [0; FINGERPRINT_BYTES];
    let from = offset.saturating_sub(FINGERPRINT_BYTES as u64);
    match old.read_exact_at(&mut wanted, from) {
        // It was truncated meanwhile.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    if new.metadata()?.len() > SEARCHED_BYTES {
        return Ok(None);
    }
    let finder = memmem::Finder::new(&wanted);
    let mut buffer = vec![0; FINGERPRINT_BYTES + STEP_BYTES];
    // `at` is the offset of the buffer, whose first `kept` bytes are the end of what was searched.
    let (mut at, mut kept, mut found) = (0, 0, None);
    loop {
        let read = read_at(new, buffer.get_mut(kept..).unwrap_or_default(), at + kept as u64)?;
        if read == 0 {
            return Ok(found);
        }
        let filled = buffer.get(..kept + read).unwrap_or_default();
        // They may overlap themselves.
        let mut next = 0;
        while let Some(start) = finder.find(filled.get(next..).unwrap_or_default()) {
            let end = at + (next + start + FINGERPRINT_BYTES) as u64;
            if found.replace(end).is_some() {
                return Ok(None);
            }
            next += start + 1;
        }
        let rest = filled.len().min(FINGERPRINT_BYTES - 1);
        let (from, end) = (filled.len() - rest, filled.len());
        buffer.copy_within(from..end, 0);
        (at, kept) = (at + from as u64, rest);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::lines::content::position::Within;

    fn file(text: &str) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn lines(numbers: std::ops::Range<usize>) -> String {
        numbers.map(|n| format!("line {n}\n")).collect()
    }

    /// Where a reader that has read all of `old` goes on in `new`.
    fn resume(old: &str, new: &str) -> Option<u64> {
        let (old, new) = (file(old), file(new));
        let offset = old.metadata().unwrap().len();
        let line = LinePosition { offset, number: Some(7), within: Within::default() };
        let checkpoint = Checkpoint::at(&old, line).unwrap();
        let found = Overlap::default().resume(Identity::default(), &old, &new, &checkpoint).unwrap();
        let found = found.inspect(|found| assert!(found.is_prefix_of(&new).unwrap()));
        found.map(|found| found.line.offset)
    }

    #[test]
    fn what_begins_alike_goes_on_at_the_same_offset_however_short_it_is() {
        for count in [1, 5, 50_000] {
            let old = lines(0..count);
            assert_eq!(resume(&old, &lines(0..count + 3)), Some(old.len() as u64));
            assert_eq!(resume(&old, &old), Some(old.len() as u64));
        }
    }

    #[test]
    fn what_holds_the_end_of_it_once_goes_on_after_that_wherever_it_is() {
        for (skipped, count) in [(1, 200), (900, 1100), (5_000, 60_000), (1, 60_000)] {
            let (old, new) = (lines(0..count), lines(skipped..count + 50));
            assert_eq!(resume(&old, &new), Some(lines(skipped..count).len() as u64), "{skipped} {count}");
        }
    }

    #[test]
    fn what_holds_the_end_of_it_twice_or_less_than_a_fingerprint_of_it_is_another_file() {
        let old = lines(0..1000);
        assert_eq!(resume(&old, &(lines(1..1000) + &lines(1..1000))), None);
        assert_eq!(resume(&old, &lines(960..1100)), None, "less than 1 KiB is left");
        assert_eq!(resume(&old, &lines(1000..2000)), None);
        assert_eq!(resume(&old, ""), None);
        assert_eq!(resume("", "new\n"), None);
        // 1 KiB of equal lines is at many places.
        let equal = "tick\n".repeat(1000);
        assert_eq!(resume(&equal, &("other\n".to_owned() + &equal)), None);
    }
}

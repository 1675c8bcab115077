//! Finds the place in a file where a reader is to start. Everything here blocks, in steps: a long search ends soon
//! after its reader has gone.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::atomic::{AtomicBool, Ordering},
};

use memchr::{memchr_iter, memrchr_iter};

use super::split::Place;

/// How much is looked at between two looks at whether the reader is still there.
const STEP_BYTES: usize = 64 * 1024;

/// The head of a file.
pub const HEAD: Place = Place { offset: 0, number: Some(1), continued: false };

/// The start of the last `count` lines. A last line without newline counts as one.
pub fn last(file: &File, count: u64, gone: &AtomicBool) -> io::Result<Place> {
    let size = file.metadata()?.len();
    let place = |offset| Place { offset, number: (offset == 0).then_some(1), continued: false };
    if count == 0 {
        // Within a line that is being written, what is still to come begins there.
        return Ok(Place { continued: !starts_line(file, size)?, ..place(size) });
    }
    let mut buffer = vec![0; STEP_BYTES];
    let (mut end, mut found) = (size, 0);
    while end > 0 && !gone.load(Ordering::Relaxed) {
        let start = end.saturating_sub(STEP_BYTES as u64);
        let bytes = usize::try_from(end - start).unwrap_or(STEP_BYTES);
        let Some(block) = buffer.get_mut(..bytes) else { break };
        file.read_exact_at(block, start)?;
        for at in memrchr_iter(b'\n', block) {
            let next = start + at as u64 + 1;
            // The newline at the very end closes the last line; it does not begin one.
            found += u64::from(next != size);
            if found == count && next != size {
                return Ok(place(next));
            }
        }
        end = start;
    }
    Ok(place(0))
}

/// The start of the line with this number, counted on from a line's start whose number is known. If the file has
/// fewer lines, the start of the one that is still to come: count on from there when the file has grown. Also returns
/// how far the file was looked at.
pub fn line(file: &File, from: Place, number: u64, gone: &AtomicBool) -> io::Result<(Place, u64)> {
    let mut place = from;
    let mut buffer = vec![0; STEP_BYTES];
    let mut at = from.offset;
    while place.number.is_some_and(|current| current < number) && !gone.load(Ordering::Relaxed) {
        let read = file.read_at(&mut buffer, at)?;
        if read == 0 {
            break;
        }
        let block = buffer.get(..read).unwrap_or_default();
        let current = place.number.unwrap_or(1);
        let lines = memchr_iter(b'\n', block).count() as u64;
        let wanted = usize::try_from((number - current).min(lines)).unwrap_or(usize::MAX);
        if let Some(newline) = wanted.checked_sub(1).and_then(|nth| memchr_iter(b'\n', block).nth(nth)) {
            place.offset = at + newline as u64 + 1;
            place.number = Some(current + wanted as u64);
        }
        at += read as u64;
    }
    Ok((place, at.max(place.offset)))
}

/// A byte offset. `None` if the file is shorter.
pub fn offset(file: &File, offset: u64) -> io::Result<Option<Place>> {
    if offset > file.metadata()?.len() {
        return Ok(None);
    }
    let number = (offset == 0).then_some(1);
    Ok(Some(Place { offset, number, continued: !starts_line(file, offset)? }))
}

/// A line starts at this offset.
fn starts_line(file: &File, offset: u64) -> io::Result<bool> {
    let Some(before) = offset.checked_sub(1) else { return Ok(true) };
    let mut byte = [0];
    file.read_exact_at(&mut byte, before)?;
    Ok(byte == *b"\n")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "a test")]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file
    }

    static STAYS: AtomicBool = AtomicBool::new(false);

    proptest! {
        #[test]
        fn the_last_lines_are_found_across_every_block_border(
            lengths in proptest::collection::vec(prop_oneof![0_usize..5, 60_000_usize..70_000], 0..8),
            newline: bool,
            count in 0_u64..10,
        ) {
            let lines = lengths.iter().map(|length| "x".repeat(*length)).collect::<Vec<_>>();
            let mut content = lines.join("\n");
            if newline && !lines.is_empty() {
                content.push('\n');
            }
            let place = last(&file(content.as_bytes()), count, &STAYS).unwrap();
            let all = content.split_inclusive('\n').collect::<Vec<_>>();
            let tail = &all[all.len().saturating_sub(count as usize)..];
            prop_assert_eq!(&content[place.offset as usize..], tail.concat());
        }

        #[test]
        fn a_line_is_found_by_its_number(
            lengths in proptest::collection::vec(prop_oneof![0_usize..5, 60_000_usize..70_000], 0..8),
            number in 1_u64..10,
        ) {
            let content = lengths.iter().map(|length| "x".repeat(*length) + "\n").collect::<String>();
            let (place, _) = line(&file(content.as_bytes()), HEAD, number, &STAYS).unwrap();
            let before = content.split_inclusive('\n').take(number as usize - 1).collect::<String>();
            prop_assert_eq!(place.offset as usize, before.len());
            prop_assert_eq!(place.number, Some(number.min(lengths.len() as u64 + 1)));
        }
    }
}

//! Finds the position in a file where a reader is to start. Everything here blocks, in steps: a long search ends soon
//! after its reader has gone.

use std::{
    fs::File,
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use memchr::{memmem, memrchr_iter};

use crate::lines::content::{
    hole,
    position::{HEAD, LinePosition, Within},
    pread::read_at,
    rules::Delimiter,
};

/// How much is looked at between two looks at whether the reader is still there.
const STEP_BYTES: usize = 64 * 1024;

/// The start of the last `count` lines. A last line without a delimiter counts as one.
///
/// Searches backward, a block at a time, and passes over holes. Where a delimiter can overlap itself, as two newlines do
/// in three, only reading from the head shows which of them delimit: then all lines are counted.
pub fn last(file: &File, count: u64, delimiter: &Delimiter, gone: &AtomicBool) -> io::Result<LinePosition> {
    let size = size(file, gone)?;
    let position =
        |offset| LinePosition { offset, number: (offset == 0).then_some(1), within: Within::Start };
    if count == 0 {
        // Within a line that is being written, what is still to come begins there.
        return Ok(LinePosition { within: within(file, size, delimiter)?, ..position(size) });
    }
    let bytes = delimiter.bytes();
    if overlaps(bytes) {
        let (end, _) = line(file, HEAD, u64::MAX, delimiter, gone)?;
        let is_part = u64::from(end.offset < size);
        let lines = end.number.unwrap_or(1) - 1 + is_part;
        return Ok(line(file, HEAD, lines.saturating_sub(count) + 1, delimiter, gone)?.0);
    }
    let mut search = Backward { file, bytes, buffer: vec![0; STEP_BYTES + bytes.len()], count, found: 0 };
    for (start, end) in data(file, size)?.into_iter().rev() {
        let Some(end) = search.end_of_text(start, end, gone)? else { continue };
        if let Some(offset) = search.within(start, end, gone)? {
            return Ok(position(offset));
        }
    }
    Ok(position(0))
}

/// A delimiter begins as it ends.
fn overlaps(bytes: &[u8]) -> bool {
    (1..bytes.len()).any(|shift| bytes.get(shift..).is_some_and(|end| bytes.starts_with(end)))
}

/// The parts of a file that are data: the whole file, where the file system does not report holes.
fn data(file: &File, size: u64) -> io::Result<Vec<(u64, u64)>> {
    let (mut parts, mut at) = (Vec::new(), 0);
    while at < size
        && let Some(start) = hole::next_data(file, at)?
    {
        at = hole::end_of_data(file, start)?.filter(|end| *end > start).unwrap_or(size).min(size);
        parts.push((start, at));
    }
    Ok(parts)
}

struct Backward<'a> {
    file: &'a File,
    bytes: &'a [u8],
    buffer: Vec<u8>,
    count: u64,
    found: u64,
}

impl Backward<'_> {
    /// The end of a part of the data but for the NUL bytes at its end, which are passed over like a hole. None if there
    /// is nothing else.
    fn end_of_text(&mut self, start: u64, end: u64, gone: &AtomicBool) -> io::Result<Option<u64>> {
        if self.bytes.contains(&0) {
            return Ok(Some(end));
        }
        let mut block_end = end;
        while block_end > start && !gone.load(Ordering::Relaxed) {
            let block_start = block_end.saturating_sub(STEP_BYTES as u64).max(start);
            let length = usize::try_from(block_end - block_start).unwrap_or(STEP_BYTES);
            let Some(block) = self.buffer.get_mut(..length) else { break };
            let read = read_at(self.file, block, block_start)?;
            let text = block.iter().take(read).rposition(|byte| *byte != 0);
            if let Some(text) = text {
                return Ok(Some(block_start + text as u64 + 1));
            }
            block_end = block_start;
        }
        Ok(None)
    }

    /// Searches one part of the data; where it begins, so does a line.
    fn within(&mut self, start: u64, end: u64, gone: &AtomicBool) -> io::Result<Option<u64>> {
        let mut block_end = end;
        while block_end > start && !gone.load(Ordering::Relaxed) {
            let block_start = block_end.saturating_sub(STEP_BYTES as u64).max(start);
            // A delimiter may cross the border.
            let over = (self.bytes.len() as u64 - 1).min(end - block_end);
            let length = usize::try_from(block_end - block_start + over).unwrap_or(STEP_BYTES);
            let Some(block) = self.buffer.get_mut(..length) else { break };
            let read = read_at(self.file, block, block_start)?;
            let block = block.get(..read).unwrap_or_default();
            let (found, count) = (&mut self.found, self.count);
            let after = |at: usize| block_start + (at + self.bytes.len()) as u64;
            let next = match self.bytes {
                [byte] => count_back(memrchr_iter(*byte, block).map(after), end, found, count),
                bytes => count_back(memmem::rfind_iter(block, bytes).map(after), end, found, count),
            };
            if next.is_some() {
                return Ok(next);
            }
            block_end = block_start;
        }
        // A line also starts after a hole; at the head of the file the search ends anyway.
        if start == 0 {
            return Ok(None);
        }
        self.found += 1;
        Ok(if self.found >= self.count { hole::first_text(self.file, start)? } else { None })
    }
}

/// Counts the lines that begin at these offsets, the last one first. The start of the last one wanted.
fn count_back(mut starts: impl Iterator<Item = u64>, end: u64, found: &mut u64, count: u64) -> Option<u64> {
    starts.find(|start| {
        // The delimiter at the very end closes the last line; it does not begin one.
        *found += u64::from(*start < end);
        *start < end && *found == count
    })
}

/// The size of a file. In /proc a file says that it is empty, in /sys that it has a page: they are read.
fn size(file: &File, gone: &AtomicBool) -> io::Result<u64> {
    let said = file.metadata()?.len();
    if said > 0 && read_at(file, &mut [0], said - 1)? == 1 {
        return Ok(said);
    }
    let mut buffer = vec![0; STEP_BYTES];
    let mut size = 0;
    while !gone.load(Ordering::Relaxed) {
        match read_at(file, &mut buffer, size)? {
            0 => break,
            read => size += read as u64,
        }
    }
    Ok(size)
}

/// The start of the line with this number, counted on from a line's start whose number is known. If the file has
/// fewer lines, the start of the one that is still to come: count on from there when the file has grown. Also returns
/// how far the file was looked at.
pub fn line(
    file: &File,
    from: LinePosition,
    number: u64,
    delimiter: &Delimiter,
    gone: &AtomicBool,
) -> io::Result<(LinePosition, u64)> {
    let bytes = delimiter.bytes();
    let finder = memmem::Finder::new(bytes);
    let mut position = from;
    // The beginning of a delimiter may be at the end of a block: it is looked at again.
    let again = bytes.len() - 1;
    let mut buffer = vec![0; STEP_BYTES + again];
    let mut at = from.offset;
    while position.number.is_some_and(|current| current < number) && !gone.load(Ordering::Relaxed) {
        let read = read_at(file, &mut buffer, at)?;
        if read <= again {
            return Ok((position, at + read as u64));
        }
        let block = buffer.get(..read).unwrap_or_default();
        let mut used = 0;
        for end in finder.find_iter(block).map(|found| found + bytes.len()) {
            position.offset = at + end as u64;
            position.number = position.number.map(|number| number + 1);
            used = end;
            if position.number == Some(number) {
                break;
            }
        }
        at += used.max(read - again) as u64;
    }
    Ok((position, at.max(position.offset)))
}

/// A byte offset. `None` if the file is shorter.
pub fn offset(
    file: &File,
    offset: u64,
    delimiter: &Delimiter,
    gone: &AtomicBool,
) -> io::Result<Option<LinePosition>> {
    if offset > size(file, gone)? {
        return Ok(None);
    }
    let number = (offset == 0).then_some(1);
    Ok(Some(LinePosition { offset, number, within: within(file, offset, delimiter)? }))
}

/// Whether a line starts at this offset, or goes on.
fn within(file: &File, offset: u64, delimiter: &Delimiter) -> io::Result<Within> {
    let bytes = delimiter.bytes();
    let mut before = vec![0; bytes.len()];
    let starts = match offset.checked_sub(bytes.len() as u64) {
        None => offset == 0,
        Some(from) => read_at(file, &mut before, from)? == bytes.len() && before == bytes,
    };
    Ok(if starts || offset == 0 { Within::Start } else { Within::Continued })
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

    #[test]
    fn nul_bytes_before_a_hole_and_at_the_end_are_no_line() {
        let file = file(b"1\n2\n");
        let write =
            |bytes: &[u8], offset| std::os::unix::fs::FileExt::write_all_at(&file, bytes, offset).unwrap();
        write(b"3\n4\n", 1 << 30);
        write(&[0; 100], (1 << 30) + 4);
        for (count, expected) in [(1, (1 << 30) + 2), (2, 1 << 30), (3, 2), (4, 0), (5, 0)] {
            let position = last(&file, count, &Delimiter::Newline, &STAYS).unwrap();
            assert_eq!(position.offset, expected, "{count}");
        }
    }

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
            let position = last(&file(content.as_bytes()), count, &Delimiter::Newline, &STAYS).unwrap();
            let all = content.split_inclusive('\n').collect::<Vec<_>>();
            let tail = &all[all.len().saturating_sub(count as usize)..];
            prop_assert_eq!(&content[position.offset as usize..], tail.concat());
        }

        #[test]
        fn the_last_items_begin_where_reading_from_the_head_finds_them_also_if_delimiters_overlap(
            content in proptest::collection::vec(
                prop_oneof![4 => Just("\n".to_owned()), 2 => Just("x".to_owned()), 1 => Just("y".repeat(65_530))],
                0..30),
            count in 0_u64..10,
        ) {
            let content = content.concat();
            let delimiter = Delimiter::Bytes(b"\n\n".as_slice().into());
            let position = last(&file(content.as_bytes()), count, &delimiter, &STAYS).unwrap();
            let all = content.split_inclusive("\n\n").collect::<Vec<_>>();
            let tail = &all[all.len().saturating_sub(count as usize)..];
            prop_assert_eq!(&content[position.offset as usize..], tail.concat());
        }

        #[test]
        fn a_line_is_found_by_its_number(
            lengths in proptest::collection::vec(prop_oneof![0_usize..5, 60_000_usize..70_000], 0..8),
            number in 1_u64..10,
        ) {
            let content = lengths.iter().map(|length| "x".repeat(*length) + "\n").collect::<String>();
            let (position, _) = line(&file(content.as_bytes()), HEAD, number, &Delimiter::Newline, &STAYS).unwrap();
            let before = content.split_inclusive('\n').take(number as usize - 1).collect::<String>();
            prop_assert_eq!(position.offset as usize, before.len());
            prop_assert_eq!(position.number, Some(number.min(lengths.len() as u64 + 1)));
        }
    }
}

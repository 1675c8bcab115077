//! Finds the position in a file where a reader is to start. Everything here blocks, in steps: a long search ends soon
//! after its reader has gone.

use std::{
    fs::File,
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use memchr::{memchr, memmem, memrchr_iter};

use crate::lines::content::{
    hole::{self, RUN_BYTES},
    position::{HEAD, LinePosition, Within},
    pread::read_at,
    rules::Delimiter,
};

/// How much is searched between two checks whether the reader is gone.
const STEP_BYTES: usize = 64 * 1024;

/// The start of the last `count` lines. A last line without a delimiter counts as one.
///
/// Searches backward, a block at a time, and passes over holes: a line starts after each. Where a delimiter can overlap
/// itself, as two newlines do in three, only reading from the head shows which of them delimit: then all lines are
/// counted.
pub fn last(file: &File, count: u64, delimiter: &Delimiter, gone: &AtomicBool) -> io::Result<LinePosition> {
    let size = size(file, gone)?;
    let bytes = delimiter.bytes();
    let position =
        |offset| LinePosition { offset, number: (offset == 0).then_some(1), within: Within::Start };
    let parts = data(file, size, gone)?;
    let mut search = Backward {
        file,
        bytes,
        has_nul_content: bytes.contains(&0),
        gone,
        buffer: vec![0; RUN_BYTES + STEP_BYTES + bytes.len() + RUN_BYTES],
        end: size,
        count,
        found: 0,
    };
    search.end = search.end_of_text(&parts)?;
    if count == 0 {
        // The rest of a line that is being written starts there.
        return Ok(LinePosition { within: within(file, search.end, delimiter)?, ..position(search.end) });
    }
    if overlaps(bytes) {
        let (end, _) = line(file, HEAD, u64::MAX, delimiter, gone)?;
        let is_part = u64::from(end.offset < search.end);
        let lines = end.number.unwrap_or(1) - 1 + is_part;
        return Ok(line(file, HEAD, lines.saturating_sub(count) + 1, delimiter, gone)?.0);
    }
    for (start, end) in parts.into_iter().rev() {
        if let Some(offset) = search.within(start, end)? {
            return Ok(position(offset));
        }
    }
    Ok(position(0))
}

/// A delimiter begins as it ends.
pub fn overlaps(bytes: &[u8]) -> bool {
    (1..bytes.len()).any(|shift| bytes.get(shift..).is_some_and(|end| bytes.starts_with(end)))
}

/// The parts of a file that are data: the whole file, where the file system does not report holes.
fn data(file: &File, size: u64, gone: &AtomicBool) -> io::Result<Vec<(u64, u64)>> {
    let (mut parts, mut at) = (Vec::new(), 0);
    while at < size
        && !gone.load(Ordering::Relaxed)
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
    /// The delimiter has a NUL: a hole is one only if the file system reports it.
    has_nul_content: bool,
    gone: &'a AtomicBool,
    buffer: Vec<u8>,
    /// The end of the text, before NUL bytes at the end of the file.
    end: u64,
    count: u64,
    found: u64,
}

impl Backward<'_> {
    /// The end of the text: that of the file, unless a run of NUL bytes is there.
    fn end_of_text(&mut self, parts: &[(u64, u64)]) -> io::Result<u64> {
        if self.has_nul_content {
            return Ok(parts.last().map_or(0, |(_, end)| *end));
        }
        for (start, end) in parts.iter().rev() {
            let mut block_end = *end;
            while block_end > *start && !self.gone.load(Ordering::Relaxed) {
                let block_start = block_end.saturating_sub(STEP_BYTES as u64).max(*start);
                let block = read_block(self.file, &mut self.buffer, block_start, block_end)?;
                if let Some(text) = block.iter().rposition(|byte| *byte != 0) {
                    let text_end = block_start + text as u64 + 1;
                    let is_run = self.end.saturating_sub(text_end) >= RUN_BYTES as u64;
                    return Ok(if is_run { text_end } else { self.end });
                }
                block_end = block_start;
            }
        }
        Ok(if self.end >= RUN_BYTES as u64 { 0 } else { self.end })
    }

    /// Searches one part of the data.
    fn within(&mut self, start: u64, end: u64) -> io::Result<Option<u64>> {
        let mut block_end = end;
        while block_end > start && !self.gone.load(Ordering::Relaxed) {
            let block_start = block_end.saturating_sub(STEP_BYTES as u64).max(start);
            let found = self.search(block_start, block_end)?;
            if found.is_some() {
                return Ok(found);
            }
            block_end = block_start;
        }
        // A line also starts after a hole; at the head of the file the search ends anyway.
        if start == 0 || !self.has_nul_content {
            return Ok(None);
        }
        self.found += 1;
        Ok((self.found >= self.count).then_some(start))
    }

    /// Searches one block for delimiters that start in it, and for text that starts in it after a run of NUL bytes.
    fn search(&mut self, start: u64, end: u64) -> io::Result<Option<u64>> {
        let Self { file, bytes, has_nul_content, end: text_end, count, ref mut found, .. } = *self;
        // A run of NUL bytes may end or start at the border, and a delimiter may cross it.
        let from = start.saturating_sub(RUN_BYTES as u64);
        let to = end.saturating_add((bytes.len() + RUN_BYTES) as u64).min(text_end);
        let read = read_block(file, &mut self.buffer, from, to)?;
        let lead = usize::try_from(start - from).unwrap_or(0);
        let length = usize::try_from(end - start).unwrap_or(STEP_BYTES) + bytes.len() - 1;
        let block = read.get(lead..read.len().min(lead + length)).unwrap_or_default();
        let after = |at: usize| start + (at + bytes.len()) as u64;
        if has_nul_content || memchr(0, read).is_none() {
            return Ok(match bytes {
                [byte] => count_back(memrchr_iter(*byte, block).map(after), text_end, found, count),
                bytes => count_back(memmem::rfind_iter(block, bytes).map(after), text_end, found, count),
            });
        }
        let byte = |offset: u64| offset.checked_sub(from).and_then(|at| read.get(usize::try_from(at).ok()?));
        let is_run = |from: u64, to: u64| (from..to).all(|offset| byte(offset) == Some(&0));
        // Before a run, the line starts after it.
        let delimited = memmem::rfind_iter(block, bytes).map(after);
        let delimited = delimited.filter(|offset| !is_run(*offset, offset + RUN_BYTES as u64));
        let is_after_run = |offset: &u64| {
            byte(*offset).is_some_and(|byte| *byte != 0)
                && offset.checked_sub(RUN_BYTES as u64).is_some_and(|from| is_run(from, *offset))
        };
        let mut starts = delimited.chain((start..end).filter(is_after_run)).collect::<Vec<_>>();
        starts.sort_unstable_by_key(|offset| std::cmp::Reverse(*offset));
        Ok(count_back(starts.into_iter(), text_end, found, count))
    }
}

/// Reads a part of a file that is no longer than the buffer; less of it at the end of the file.
fn read_block<'a>(file: &File, buffer: &'a mut [u8], from: u64, to: u64) -> io::Result<&'a [u8]> {
    let length = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX).min(buffer.len());
    let mut filled = 0;
    while filled < length {
        match read_at(file, buffer.get_mut(filled..length).unwrap_or_default(), from + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(buffer.get(..filled).unwrap_or_default())
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
pub fn size(file: &File, gone: &AtomicBool) -> io::Result<u64> {
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
/// how far the file was searched.
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
    // The start of a delimiter may be at the end of a block: it is searched again.
    let again = bytes.len() - 1;
    let mut buffer = vec![0; STEP_BYTES + again];
    let mut at = from.offset;
    while position.number.is_some_and(|current| current < number) && !gone.load(Ordering::Relaxed) {
        if !bytes.contains(&0) {
            match hole::next_data(file, at)? {
                Some(data) => at = at.max(data),
                None => return Ok((position, at)),
            }
        }
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

/// The number of the line that an offset is in, or at which it starts.
pub fn number(file: &File, offset: u64, delimiter: &Delimiter, gone: &AtomicBool) -> io::Result<u64> {
    let bytes = delimiter.bytes();
    let finder = memmem::Finder::new(bytes);
    // The start of a delimiter may be at the end of a block: it is searched again.
    let again = bytes.len() - 1;
    let mut buffer = vec![0; STEP_BYTES + again];
    let (mut number, mut at) = (1, 0);
    while !gone.load(Ordering::Relaxed) {
        let block = read_block(file, &mut buffer, at, offset)?;
        if block.len() <= again {
            break;
        }
        let mut used = 0;
        for end in finder.find_iter(block).map(|found| found + bytes.len()) {
            (number, used) = (number + 1, end);
        }
        at += used.max(block.len() - again) as u64;
    }
    Ok(number)
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
    let offset = if delimiter.bytes().contains(&0) { offset } else { after_run(file, offset, gone)? };
    let number = (offset == 0).then_some(1);
    Ok(Some(LinePosition { offset, number, within: within(file, offset, delimiter)? }))
}

/// The end of a run of NUL bytes that an offset is in and that text follows, because the rest of the run may be too short
/// to be one. Any other offset as it is.
fn after_run(file: &File, offset: u64, gone: &AtomicBool) -> io::Result<u64> {
    let from = offset.saturating_sub(RUN_BYTES as u64);
    let mut buffer = [0; 2 * RUN_BYTES];
    let around = read_block(file, &mut buffer, from, offset + RUN_BYTES as u64)?;
    let (before, after) = around.split_at(around.len().min(usize::try_from(offset - from).unwrap_or(0)));
    let before = before.iter().rev().take_while(|byte| **byte == 0).count();
    let after = after.iter().take_while(|byte| **byte == 0).count();
    if before == 0 || after == 0 || after >= RUN_BYTES || before + after < RUN_BYTES {
        return Ok(offset);
    }
    Ok(hole::first_text(file, offset, gone)?.unwrap_or(offset))
}

/// Whether a line starts at this offset, or continues.
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

    fn write(file: &File, bytes: &[u8], offset: u64) {
        std::os::unix::fs::FileExt::write_all_at(file, bytes, offset).unwrap();
    }

    #[test]
    fn nul_bytes_before_a_hole_and_at_the_end_are_no_line() {
        let file = file(b"1\n2\n");
        write(&file, b"3\n4\n", 1 << 30);
        write(&file, &[0; 100], (1 << 30) + 4);
        for (count, expected) in
            [(0, (1 << 30) + 4), (1, (1 << 30) + 2), (2, 1 << 30), (3, 2), (4, 0), (5, 0)]
        {
            let position = last(&file, count, &Delimiter::Newline, &STAYS).unwrap();
            assert_eq!(position.offset, expected, "{count}");
        }
    }

    #[test]
    fn a_line_starts_after_a_hole_whether_its_zeros_were_written_or_not() {
        for (hole, is_written) in [(16, true), (70_000, true), (1 << 20, true), (1 << 20, false)] {
            let file = file(b"1\n2\nmid");
            let behind = 7 + hole;
            if is_written {
                write(&file, &vec![0; hole as usize], 7);
            }
            write(&file, b"dle\n4\n", behind);
            for (count, expected) in
                [(0, behind + 6), (1, behind + 4), (2, behind), (3, 4), (4, 2), (5, 0), (6, 0)]
            {
                let position = last(&file, count, &Delimiter::Newline, &STAYS).unwrap();
                assert_eq!(position.offset, expected, "{count} {hole} {is_written}");
            }
        }
        // Where the line ends before it, only one starts.
        let file = file(&[b"1\n".as_slice(), &[0; 16], b"2\n"].concat());
        for (count, expected) in [(1, 18), (2, 0)] {
            assert_eq!(last(&file, count, &Delimiter::Newline, &STAYS).unwrap().offset, expected);
        }
    }

    #[test]
    fn fewer_than_16_nul_bytes_are_a_line_and_so_are_all_where_the_delimiter_has_one() {
        let short = file(&[b"1\n".as_slice(), &[0; 15]].concat());
        assert_eq!(last(&short, 1, &Delimiter::Newline, &STAYS).unwrap().offset, 2);
        assert_eq!(last(&short, 0, &Delimiter::Newline, &STAYS).unwrap().offset, 17);
        let items = file(&[b"a\0b\0".as_slice(), &[0; 20]].concat());
        let delimiter = Delimiter::Bytes(b"\0".as_slice().into());
        assert_eq!(last(&items, 21, &delimiter, &STAYS).unwrap().offset, 2);
        assert_eq!(last(&items, 1, &delimiter, &STAYS).unwrap().offset, 23);
    }

    #[test]
    fn an_offset_near_the_end_of_a_hole_is_after_it() {
        let file = file(&[b"1\n".as_slice(), &[0; 20], b"2\n"].concat());
        for (asked, expected) in [(1, 1), (2, 2), (5, 5), (6, 6), (7, 22), (21, 22), (22, 22), (23, 23)] {
            let found = offset(&file, asked, &Delimiter::Newline, &STAYS).unwrap().unwrap();
            assert_eq!(found.offset, expected, "{asked}");
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

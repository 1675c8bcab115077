//! Reading beside sectors that a disk cannot read any more.
//!
//! A disk that answers, but for some bytes of a file, has lost these bytes: the log reports their messages as damaged, and
//! serves the others. A disk that does not answer at all may have everything when it is back, so then the error stays one:
//! a reader that got a gap would pass over messages that are there.

use std::{io, ops::Range};

use super::File;

/// The unit in which a file is read beside bad sectors: that of the page cache.
const PAGE: u64 = PAGE_BYTES as u64;
const PAGE_BYTES: usize = 4096;

/// The value of bytes that cannot be read. It is no record, and not the zero of bytes that were never written.
const UNREADABLE: u8 = 0xff;

/// EIO, and ENODATA, which Linux gives for a medium error in some places.
const BAD_SECTOR: [i32; 2] = [5, 61];

impl File {
    /// Reads `length` bytes from an offset. Those in bad sectors are replaced, so that their checksums are wrong.
    pub fn read_soundly(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.fill_soundly(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Fills `bytes` from an offset in the same way. Returns the ranges of the file that were replaced, in order.
    pub fn fill_soundly(&self, bytes: &mut [u8], offset: u64) -> io::Result<Vec<Range<u64>>> {
        match self.read_exact_at(bytes, offset) {
            Err(error) if is_bad_sector(&error) && self.answers() => {}
            result => return result.map(|()| Vec::new()),
        }
        let mut bad = Vec::<Range<u64>>::new();
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let to_border = usize::try_from(PAGE - at % PAGE).unwrap_or(usize::MAX);
            let (page, after) = rest.split_at_mut(to_border.min(rest.len()));
            let end = at + page.len() as u64;
            match self.read_exact_at(page, at) {
                Err(error) if is_bad_sector(&error) => {
                    page.fill(UNREADABLE);
                    match bad.last_mut().filter(|last| last.end == at) {
                        Some(last) => last.end = end,
                        None => bad.push(at..end),
                    }
                }
                result => result?,
            }
            (rest, at) = (after, end);
        }
        Ok(bad)
    }

    /// Writes into a range of the file. If the disk cannot read a page of which the range is only a part, it cannot write that
    /// part either: then this overwrites the whole page, of which the other bytes are lost already.
    pub fn write_over_bad_sectors(
        &self,
        range: Range<u64>,
        write: impl Fn() -> io::Result<()>,
    ) -> io::Result<()> {
        match write() {
            Err(error) if is_bad_sector(&error) && self.answers() => {}
            result => return result,
        }
        for page in pages_at_the_ends(&range) {
            if self.is_bad(&page) {
                let length = self.len()?;
                self.write_all_at(&[UNREADABLE; PAGE_BYTES], page.start)?;
                if page.end > length {
                    self.set_len(length)?;
                }
            }
        }
        write()
    }

    /// Whether a range begins or ends in a page that the disk cannot read, while it reads others.
    pub fn has_bad_sector(&self, range: &Range<u64>) -> bool {
        self.answers() && pages_at_the_ends(range).iter().any(|page| self.is_bad(page))
    }

    fn is_bad(&self, page: &Range<u64>) -> bool {
        let read = self.read_exact_at(&mut [0; PAGE_BYTES], page.start);
        read.is_err_and(|error| is_bad_sector(&error))
    }

    /// Whether the disk reads other bytes of the file: of its first pages, its last one, or some in between.
    fn answers(&self) -> bool {
        let Ok(length) = self.len() else { return false };
        let pages = length.div_ceil(PAGE);
        let doubled = std::iter::successors(Some(1), |page| Some(page * 2)).take_while(|page| *page < pages);
        let mut probed = [0, pages.saturating_sub(1)].into_iter().chain(doubled).map(|page| page * PAGE);
        probed.any(|start| {
            // What was read before would be found in memory.
            self.forget(start..start + PAGE);
            // Zeros prove nothing: a page that was only reserved is read without the disk.
            let bytes = usize::try_from(length.saturating_sub(start).min(PAGE)).unwrap_or(0);
            let mut page = vec![0; bytes];
            self.read_exact_at(&mut page, start).is_ok() && page.iter().any(|byte| *byte != 0)
        })
    }

    /// Has bytes that are on disk read from there the next time.
    fn forget(&self, range: Range<u64>) {
        match self {
            Self::Real(file) => {
                let length = std::num::NonZeroU64::new(range.end - range.start);
                // It is a hint: if the file system ignores it, memory answers.
                let _ = rustix::fs::fadvise(file, range.start, length, rustix::fs::Advice::DontNeed);
            }
            #[cfg(test)]
            Self::Simulated(_) => {}
        }
    }
}

fn pages_at_the_ends(range: &Range<u64>) -> [Range<u64>; 2] {
    [range.start, range.end.saturating_sub(1)].map(|at| {
        let start = at / PAGE * PAGE;
        start..start + PAGE
    })
}

/// Whether an error is that of a sector that the disk cannot read. A disk that does not answer at all gives the same.
pub fn is_bad_sector(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| BAD_SECTOR.contains(&code))
}

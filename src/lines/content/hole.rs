//! Parts of a file that were never written, as a writer leaves them that reserves space, that keeps its offset while its
//! file is truncated, or whose machine loses power. A file system reports some of them without a read; in the others, and in
//! zeros that were written, all bytes are NUL. Everything here blocks, except for [`find`].

use std::{
    fs::File,
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::pread::{Content, read_at};

/// A run of this many NUL bytes was never written. A shorter one is content, as in UTF-16 and in binary records.
pub const RUN_BYTES: usize = 16;

/// How many holes a checkpoint remembers. A writer that fills holes does so soon, in the last ones.
const MAX_HOLES: usize = 4;

/// How much is read at once.
const STEP_BYTES: usize = 64 * 1024;

/// How many NUL bytes are read after a position to find the text that follows them. Reserved space is read again after
/// every write into it.
const AHEAD_BYTES: u64 = 4 * 1024 * 1024;

/// The NUL bytes among some bytes of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Nuls {
    /// At most content.
    Content,
    /// From here on there are only NUL bytes, too few for a run: the next bytes decide.
    Begun(usize),
    /// The first run starts here.
    Run(usize),
}

/// Finds the first run of NUL bytes. `is_head`: the bytes are the start of the file.
///
/// At the start of a file two NUL bytes are a run: no text begins with them, but a short file that was truncated under its
/// writer does.
pub fn find(bytes: &[u8], is_head: bool) -> Nuls {
    if is_head && bytes.starts_with(&[0, 0]) {
        return Nuls::Run(0);
    }
    if let Some(start) = run(bytes) {
        return Nuls::Run(start);
    }
    match bytes.iter().rev().take_while(|byte| **byte == 0).count() {
        0 => Nuls::Content,
        begun => Nuls::Begun(bytes.len() - begun),
    }
}

/// Where the first run of NUL bytes starts. Looks at one byte of [`RUN_BYTES`] unless it is NUL.
fn run(bytes: &[u8]) -> Option<usize> {
    let (mut from, mut probe) = (0, RUN_BYTES - 1);
    while let Some(byte) = bytes.get(probe) {
        if *byte != 0 {
            (from, probe) = (probe + 1, probe + RUN_BYTES);
            continue;
        }
        let before = bytes.get(from..probe).unwrap_or_default().iter().rposition(|byte| *byte != 0);
        let start = before.map_or(from, |text| from + text + 1);
        let end =
            bytes.iter().skip(probe).position(|byte| *byte != 0).map_or(bytes.len(), |text| probe + text);
        if end - start >= RUN_BYTES {
            return Some(start);
        }
        (from, probe) = (end + 1, end + RUN_BYTES);
    }
    None
}

/// The bytes after the last run of NUL bytes, and after NUL bytes at the start, which may be the end of a run.
pub fn after_runs(bytes: &[u8]) -> &[u8] {
    let mut text = bytes;
    while let Some(start) = run(text) {
        text = text.get(start + RUN_BYTES..).unwrap_or_default();
        text = without_nuls(text);
    }
    without_nuls(text)
}

/// The bytes before the first run of NUL bytes, and before NUL bytes at the end, which may be the start of a run.
pub fn before_runs(bytes: &[u8]) -> &[u8] {
    match find(bytes, true) {
        Nuls::Content => bytes,
        Nuls::Begun(start) | Nuls::Run(start) => bytes.get(..start).unwrap_or_default(),
    }
}

fn without_nuls(bytes: &[u8]) -> &[u8] {
    let text = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    bytes.get(text..).unwrap_or_default()
}

/// A part of a file that was never written.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Hole {
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
}

/// The last holes before a position. Bytes that are written into them after they were passed are missing.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(from = "Vec<Hole>", into = "Vec<Hole>")]
pub struct Holes {
    /// The oldest first, after empty ones.
    last: [Hole; MAX_HOLES],
}

impl Holes {
    pub fn iter(&self) -> impl Iterator<Item = &Hole> {
        self.last.iter().filter(|hole| hole.bytes > 0)
    }

    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// How many bytes they have.
    pub fn bytes(&self) -> u64 {
        self.iter().fold(0, |sum, hole| sum.saturating_add(hole.bytes))
    }

    /// Remembers one more, and forgets the oldest if there are too many.
    pub fn push(&mut self, hole: Hole) {
        self.last.rotate_left(1);
        if let Some(last) = self.last.last_mut() {
            *last = hole;
        }
    }

    /// Forgets those into which bytes were written. True if there are such. Of each hole, up to `most` bytes are read.
    pub fn forget_filled(&mut self, file: &impl Content, most: u64) -> io::Result<bool> {
        let mut has_filled = false;
        for hole in &mut self.last {
            let end = hole.offset.saturating_add(hole.bytes);
            if hole.bytes > 0 && matches!(search(file, hole.offset, end, most, None)?, Search::Text(_)) {
                (*hole, has_filled) = (Hole::default(), true);
            }
        }
        Ok(has_filled)
    }
}

impl From<Vec<Hole>> for Holes {
    fn from(all: Vec<Hole>) -> Self {
        let mut holes = Self::default();
        for hole in all {
            holes.push(hole);
        }
        holes
    }
}

impl From<Holes> for Vec<Hole> {
    fn from(holes: Holes) -> Self {
        holes.iter().copied().collect()
    }
}

/// Where the data at an offset ends and a hole begins: the offset itself, if it is in a hole. `None` if no hole follows,
/// or the file system does not report holes.
pub fn end_of_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    // Every file has a hole at its end, which does not count.
    Ok(seek_to(file, SeekFrom::Hole(offset))?.filter(|hole| file.metadata().is_ok_and(|it| *hole < it.len())))
}

/// The next data at or after an offset. `None` if only a hole follows.
pub fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match seek(file, SeekFrom::Data(offset)) {
        Ok(data) => Ok(Some(data)),
        Err(Errno::NXIO) => Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(offset)),
        Err(error) => Err(error.into()),
    }
}

/// The first byte at or after an offset that is not NUL. `None` if all are. Fails when the caller is gone.
pub fn first_text(file: &impl Content, offset: u64, gone: &AtomicBool) -> io::Result<Option<u64>> {
    match search(file, offset, u64::MAX, u64::MAX, Some(gone))? {
        Search::Text(at) => Ok(Some(at)),
        Search::End | Search::NotFound => Ok(None),
    }
}

/// The same, where the end of the file may be gigabytes of written zeros away: if neither the next megabytes nor the last
/// bytes are text, none is expected between them, and the result is `None`.
pub fn first_text_near(
    file: &impl Content,
    offset: u64,
    size: u64,
    gone: &AtomicBool,
) -> io::Result<Option<u64>> {
    match search(file, offset, u64::MAX, AHEAD_BYTES, Some(gone))? {
        Search::Text(at) => return Ok(Some(at)),
        Search::End => return Ok(None),
        Search::NotFound => {}
    }
    let last = size.saturating_sub(STEP_BYTES as u64).max(offset);
    match search(file, last, u64::MAX, u64::MAX, Some(gone))? {
        Search::Text(_) => first_text(file, offset, gone),
        Search::End | Search::NotFound => Ok(None),
    }
}

/// The result of a search for bytes that are not NUL.
enum Search {
    Text(u64),
    /// There is none up to the end of the file.
    End,
    /// There is none in the part that was searched.
    NotFound,
}

/// Searches from an offset up to `end`, and reads at most about `most` bytes. Holes that the file system reports are not
/// read.
fn search(
    file: &impl Content,
    offset: u64,
    end: u64,
    mut most: u64,
    gone: Option<&AtomicBool>,
) -> io::Result<Search> {
    let mut buffer = Vec::new();
    let mut at = offset;
    while let Some(data) = file.next_data(at)? {
        if data >= end || most == 0 {
            return Ok(Search::NotFound);
        }
        if gone.is_some_and(|gone| gone.load(Ordering::Relaxed)) {
            return Err(io::Error::other("the caller is gone"));
        }
        buffer.resize(usize::try_from(end - data).unwrap_or(STEP_BYTES).min(STEP_BYTES), 0);
        let read = read_at(file, &mut buffer, data)?;
        if read == 0 {
            return Ok(Search::End);
        }
        if let Some(text) = buffer.iter().take(read).position(|byte| *byte != 0) {
            return Ok(Search::Text(data + text as u64));
        }
        at = data + read as u64;
        most = most.saturating_sub(read as u64);
    }
    Ok(Search::End)
}

/// `None` where there is no such place, or the file system does not know.
fn seek_to(file: &File, to: SeekFrom) -> io::Result<Option<u64>> {
    match seek(file, to) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::os::unix::fs::FileExt;

    use proptest::prelude::*;

    use super::*;

    static STAYS: AtomicBool = AtomicBool::new(false);

    #[test]
    fn fifteen_nul_bytes_are_content_and_sixteen_are_a_run_wherever_they_are() {
        for before in 0..40 {
            let bytes = |nuls: usize| [vec![b'a'; before], vec![0; nuls], b"b\0c".to_vec()].concat();
            if before > 0 {
                assert_eq!(find(&bytes(15), true), Nuls::Content, "{before}");
            }
            assert_eq!(find(&bytes(15), false), Nuls::Content, "{before}");
            assert_eq!(find(&bytes(16), false), Nuls::Run(before), "{before}");
        }
        assert_eq!(find(b"a\0\0", false), Nuls::Begun(1));
        assert_eq!(find(b"\0a", true), Nuls::Content);
        assert_eq!(find(b"\0\0a", true), Nuls::Run(0));
        assert_eq!(find(b"", true), Nuls::Content);
    }

    #[test]
    fn bytes_that_are_written_into_a_hole_are_found_and_reported_once() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"end", 100_000).unwrap();
        let mut holes = Holes::default();
        (0..6).for_each(|n| holes.push(Hole { offset: n * 10_000, bytes: 5_000 }));
        assert_eq!((holes.iter().count(), holes.bytes()), (4, 20_000));
        assert!(!holes.forget_filled(&file, u64::MAX).unwrap());
        file.write_all_at(b"x", 39_999).unwrap();
        assert!(!holes.forget_filled(&file, u64::MAX).unwrap(), "it is between two holes");
        file.write_all_at(b"x", 34_999).unwrap();
        assert!(holes.forget_filled(&file, u64::MAX).unwrap());
        assert!(!holes.forget_filled(&file, u64::MAX).unwrap());
        assert_eq!(Holes::from(Vec::from(holes)), Holes::from(holes.iter().copied().collect::<Vec<_>>()));
    }

    proptest! {
        #[test]
        fn a_run_is_found_as_by_looking_at_every_byte(
            parts in proptest::collection::vec((1_usize..20, 0_usize..40), 0..20),
        ) {
            let bytes = parts.iter().flat_map(|(text, nuls)| [vec![b'x'; *text], vec![0; *nuls]].concat());
            let bytes = bytes.collect::<Vec<u8>>();
            let expected = bytes.windows(RUN_BYTES).position(|window| window.iter().all(|byte| *byte == 0));
            prop_assert_eq!(run(&bytes), expected);
            let text = after_runs(&bytes);
            prop_assert!(bytes.ends_with(text) && run(text).is_none() && text.first() != Some(&0));
            let text = before_runs(&bytes);
            prop_assert!(bytes.starts_with(text) && run(text).is_none() && text.last() != Some(&0));
        }
    }

    #[test]
    fn a_hole_differs_from_data_and_from_the_end() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"head", 0).unwrap();
        file.write_all_at(b"tail", 1 << 30).unwrap();
        let hole = end_of_data(&file, 0).unwrap().unwrap();
        assert!((4..=1 << 20).contains(&hole));
        assert_eq!(end_of_data(&file, hole).unwrap(), Some(hole));
        assert_eq!(first_text(&file, 4, &STAYS).unwrap(), Some(1 << 30));
        assert_eq!(end_of_data(&file, 1 << 30).unwrap(), None);
        assert_eq!(first_text(&file, (1 << 30) + 4, &STAYS).unwrap(), None);
        file.set_len(1 << 31).unwrap();
        assert_eq!(first_text(&file, (1 << 30) + 4, &STAYS).unwrap(), None);
    }
}

//! The newest segment, which a server may be writing: up to the end of a commit that is complete.

use std::{thread, time::Duration};

use bytes::Bytes;

use super::{super::archive::Loaded, at};
use crate::messages::{
    clock::Clock,
    embedded::{
        format::{scan::Scan, segment_header},
        recovery::directory::Candidate,
        tools::Error,
    },
};

/// A file that did not change for this time has no commit that the server could still cut off: it does that at once
/// when it finds the disk full.
const QUIET: Duration = Duration::from_secs(2);

/// A last commit that is not followed by another one in this time is complete all the same.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two readings of a segment that is written.
const PAUSE: Duration = Duration::from_millis(20);

/// The number of times that a damaged message is read again, because the server may be erasing it.
const READINGS: usize = 5;

/// What the copy of the newest segment holds.
pub struct Newest {
    pub bytes: Bytes,
    /// No message in it has this sequence or a higher one.
    pub next_sequence: u64,
}

impl Newest {
    /// Reads it; `None` if it has no header yet. What it returns is on disk.
    ///
    /// The next commit is written when the one before is on disk and acknowledged. A last commit that nothing follows
    /// may be cut off again, on a full disk, and others would get its sequences. So the reading waits until another one
    /// follows, or until the file is quiet.
    pub fn read(candidate: &Candidate) -> Result<Option<Self>, Error> {
        let start = Clock::System.boot();
        let (mut end, mut readings) = (None::<u64>, 0);
        loop {
            let Some(Loaded { bytes, scan, footer, .. }) = load(candidate)? else { return Ok(None) };
            let is_damaged = scan.blocks.iter().any(|found| !found.is_intact);
            if is_damaged && readings < READINGS {
                readings += 1;
                thread::sleep(PAUSE);
                continue;
            }
            let waited = Duration::from_nanos(Clock::System.boot().saturating_sub(start));
            let is_quiet = waited > PATIENCE || footer.is_some() || is_quiet(candidate)?;
            let at = *end.get_or_insert(scan.end);
            if is_quiet || scan.unsure() >= at {
                let at = if is_quiet { scan.end } else { at };
                return Ok(Some(Self::up_to(at, &bytes, &scan)));
            }
            thread::sleep(PAUSE);
        }
    }

    fn up_to(end: u64, bytes: &Bytes, scan: &Scan) -> Self {
        let blocks = scan.blocks.iter().filter(|found| found.end <= end);
        let next_sequence = blocks.map(|found| found.block.last_sequence + 1).max().unwrap_or(0);
        let end = usize::try_from(end).unwrap_or(usize::MAX).min(bytes.len());
        Self { bytes: bytes.slice(..end), next_sequence }
    }
}

/// The records, without an incomplete commit at the end. They are on disk.
fn load(candidate: &Candidate) -> Result<Option<Loaded>, Error> {
    let loaded = Loaded::read(candidate, candidate.first_sequence, true).map_err(at(&candidate.path))?;
    if candidate.header.is_none() && segment_header::is_empty(&loaded.bytes) {
        return Ok(None);
    }
    // Reading shows what the server has written, and not only what is on disk.
    candidate.file.sync().map_err(at(&candidate.path))?;
    Ok(Some(loaded))
}

fn is_quiet(candidate: &Candidate) -> Result<bool, Error> {
    let metadata = candidate.file.metadata().map_err(at(&candidate.path))?;
    let changed = metadata.modified().map_err(at(&candidate.path))?;
    Ok(Clock::System.now().duration_since(changed).is_ok_and(|age| age > QUIET))
}

//! The newest segment, which a server may be writing: up to the end of a commit that is complete.

use std::{
    thread,
    time::{Duration, SystemTime},
};

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

/// Between two readings of a segment that is written, and between two looks at its time. It is doubled each time, up to
/// the longest pause: the server syncs the same file.
const PAUSE: Duration = Duration::from_millis(20);

/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_millis(200);

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
        Self::read_by(candidate, || load(candidate))
    }

    /// As [`read`](Self::read). `load` reads the whole segment, which is done again only when it has changed.
    fn read_by(
        candidate: &Candidate,
        mut load: impl FnMut() -> Result<Option<Loaded>, Error>,
    ) -> Result<Option<Self>, Error> {
        let start = Clock::System.boot();
        let is_late = || Duration::from_nanos(Clock::System.boot().saturating_sub(start)) > PATIENCE;
        let (mut end, mut readings, mut pause) = (None::<u64>, 0, PAUSE);
        loop {
            let changed = changed(candidate)?;
            let Some(Loaded { bytes, scan, footer, .. }) = load()? else { return Ok(None) };
            let is_damaged = scan.blocks.iter().any(|found| !found.is_intact);
            if is_damaged && readings < READINGS {
                readings += 1;
                thread::sleep(PAUSE);
                continue;
            }
            let is_quiet = is_late() || footer.is_some() || is_quiet(candidate)?;
            let at = *end.get_or_insert(scan.end);
            if is_quiet || scan.unsure() >= at {
                let at = if is_quiet { scan.end } else { at };
                return Ok(Some(Self::up_to(at, &bytes, &scan)));
            }
            drop((bytes, scan));
            loop {
                thread::sleep(pause);
                pause = (pause * 2).min(MAX_PAUSE);
                if is_late() || is_quiet_or_changed(candidate, changed)? {
                    break;
                }
            }
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

/// When the file was written last.
fn changed(candidate: &Candidate) -> Result<SystemTime, Error> {
    let metadata = candidate.file.metadata().map_err(at(&candidate.path))?;
    metadata.modified().map_err(at(&candidate.path))
}

fn is_quiet(candidate: &Candidate) -> Result<bool, Error> {
    let age = Clock::System.now().duration_since(changed(candidate)?);
    Ok(age.is_ok_and(|age| age > QUIET))
}

/// Whether reading the file again may give another answer than before, when it had been written last at `before`.
fn is_quiet_or_changed(candidate: &Candidate, before: SystemTime) -> Result<bool, Error> {
    Ok(changed(candidate)? != before || is_quiet(candidate)?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;
    use crate::messages::{
        Config, Content, Log, NewMessage,
        embedded::{disk::Disk, recovery::directory::Files},
    };

    #[tokio::test]
    async fn a_segment_that_nothing_is_added_to_is_not_read_again_and_again_until_it_is_quiet() {
        let directory = tempfile::tempdir().unwrap();
        let (log, _) = Log::open(directory.path(), Config::default()).unwrap();
        let content = Content::Text("x".into());
        log.publish(NewMessage { topic: "a".into(), content, ..NewMessage::default() }).await.unwrap();
        let files = Files::list(&Disk::Real, directory.path(), false).unwrap();
        let candidate = files.segments.into_iter().next_back().unwrap();
        let mut readings = 0;
        let newest = Newest::read_by(&candidate, || {
            readings += 1;
            load(&candidate)
        });
        assert_eq!(newest.unwrap().unwrap().next_sequence, 2);
        assert!(readings <= 3, "{readings}");
        log.close().await;
    }
}

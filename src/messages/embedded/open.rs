//! Finds what is there after a start.
//!
//! Headers and tables of all blocks are read; of the last segment the bodies too, because a power cut can leave a
//! block whose header is on disk and whose body is not. What follows the last whole block is a torn tail: it was never
//! acknowledged, but it is set aside in a file of its own, not deleted. What is no block between blocks is damage: it
//! stays where it is, and its sequences are told to readers.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
    time::SystemTime,
};

use bytes::Bytes;
use memchr::memmem;
use tokio::sync::watch;

use super::{
    Shared, State,
    block::{self, BLOCK_HEADER_BYTES, BLOCK_MAGIC, Block, Fault, Header, LogId, SEGMENT_HEADER_BYTES},
    committer::Committer,
    dedupe::Dedupe,
    nanos, segment_name,
};
use crate::messages::{OpenError, Opened, Options};

/// By how much the sequence jumps over a torn tail: more than a commit can hold, so that no sequence which anyone may
/// have seen is given twice.
const SEQUENCE_JUMP: u64 = 1_000_000;

/// What was found so far.
#[derive(Default)]
struct Found {
    state: State,
    log: Option<LogId>,
    dedupe: Option<Dedupe>,
    next_sequence: u64,
    last_time: u64,
    /// Bytes that are no block were passed since the last block.
    is_damaged: bool,
    opened: Opened,
}

/// Opens the log in a directory, or makes one.
pub fn open(directory: &Path, options: Options) -> Result<(Committer, Opened), OpenError> {
    let at = |path: &Path| {
        let path = path.to_path_buf();
        move |source| OpenError::Io { path, source }
    };
    std::fs::create_dir_all(directory).map_err(at(directory))?;
    let mut segments = segments(directory).map_err(at(directory))?;
    let dedupe = Dedupe::new(options.dedupe_window, options.max_dedupe_ids);
    let mut found = Found { next_sequence: 1, dedupe: Some(dedupe), ..Found::default() };
    let mut last = None;
    while let Some(path) = segments.pop_front() {
        let is_last = segments.is_empty();
        let file = File::options().read(true).write(true).open(&path).map_err(at(&path))?;
        let file = Arc::new(file);
        if let Some(end) = found.segment(&file, &path, is_last)? {
            last = Some((file, end));
        }
    }
    let log = found.log.unwrap_or_else(|| *uuid::Uuid::new_v4().as_bytes());
    let (file, offset) = match last {
        Some(last) => last,
        None => found.first_segment(directory, log).map_err(at(directory))?,
    };
    let Found { state, dedupe, next_sequence, last_time, opened, .. } = found;
    let last_sweep = nanos(SystemTime::now());
    let dedupe = dedupe.unwrap_or_else(|| Dedupe::new(options.dedupe_window, options.max_dedupe_ids));
    // A cursor that was handed out before the torn tail was cut must not be ahead.
    let head = watch::Sender::new(next_sequence - 1);
    let failed = watch::Sender::new(false);
    let shared = Arc::new(Shared { id: log, options, state: RwLock::new(state), head, failed });
    let directory = PathBuf::from(directory);
    let committer =
        Committer { shared, directory, file, offset, next_sequence, last_time, dedupe, last_sweep };
    Ok((committer, opened))
}

/// The segments, oldest first.
fn segments(directory: &Path) -> io::Result<std::collections::VecDeque<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths.into())
}

impl Found {
    /// Reads a segment. Where its next block would go; none if the segment was set aside.
    fn segment(&mut self, file: &Arc<File>, path: &Path, is_last: bool) -> Result<Option<u64>, OpenError> {
        let at = |source| OpenError::Io { path: path.into(), source };
        let size = file.metadata().map_err(at)?.len();
        let mut header = [0; SEGMENT_HEADER_BYTES];
        let read = if size < header.len() as u64 { Ok(()) } else { file.read_exact_at(&mut header, 0) };
        read.map_err(at)?;
        match block::read_segment_header(&header) {
            Ok((log, _)) if self.log.is_some_and(|known| known != log) => {
                return Err(OpenError::Foreign { path: path.into() });
            }
            Ok((log, _)) => self.log = Some(log),
            Err(Fault::Version(version)) => return Err(OpenError::Version { path: path.into(), version }),
            // It was being made when the power went.
            Err(Fault::Damaged) if is_last && size <= SEGMENT_HEADER_BYTES as u64 && self.log.is_some() => {
                self.set_aside(file, path, 0).map_err(at)?;
                std::fs::remove_file(path).map_err(at)?;
                return Ok(None);
            }
            Err(Fault::Damaged) if size > SEGMENT_HEADER_BYTES as u64 || self.log.is_some() => {
                self.opened.damaged.push(format!("{}: the header", path.display()));
            }
            Err(Fault::Damaged) => {
                std::fs::remove_file(path).map_err(at)?;
                return Ok(None);
            }
        }
        self.state.index.add_segment(file.clone());
        self.opened.segments += 1;
        self.blocks(file, path, size, is_last).map_err(at).map(Some)
    }

    /// Reads the blocks of a segment. Where its next block would go.
    fn blocks(&mut self, file: &Arc<File>, path: &Path, size: u64, is_last: bool) -> io::Result<u64> {
        let mut offset = SEGMENT_HEADER_BYTES as u64;
        while offset < size {
            if let Some((block, end)) = self.block(file, offset, size, is_last)? {
                self.add(&block, offset, end);
                offset = end;
                continue;
            }
            let Some(next) = self.next_block(file, offset + 1, size, is_last)? else { break };
            self.opened.damaged.push(format!("{}: bytes {offset} to {next}", path.display()));
            self.is_damaged = true;
            offset = next;
        }
        if offset < size && is_last {
            self.set_aside(file, path, offset)?;
            self.next_sequence += SEQUENCE_JUMP;
        } else if offset < size {
            self.opened.damaged.push(format!("{}: bytes {offset} to {size}", path.display()));
            self.is_damaged = true;
        }
        if is_last {
            // What the last run wrote and could not sync is served from now on: it must be on disk first.
            file.sync_all()?;
        }
        Ok(offset)
    }

    /// The block at an offset, if there is a whole one.
    fn block(
        &self,
        file: &File,
        offset: u64,
        size: u64,
        with_body: bool,
    ) -> io::Result<Option<(Block, u64)>> {
        let mut fixed = [0; BLOCK_HEADER_BYTES];
        if size - offset < fixed.len() as u64 {
            return Ok(None);
        }
        file.read_exact_at(&mut fixed, offset)?;
        let Ok(header) = Header::read(&fixed) else { return Ok(None) };
        let end = offset + header.block_bytes() as u64;
        if end > size {
            return Ok(None);
        }
        let table_end = BLOCK_HEADER_BYTES + header.table_bytes;
        let mut bytes = vec![0; if with_body { header.block_bytes() } else { table_end }];
        file.read_exact_at(&mut bytes, offset)?;
        let Ok(block) = Block::read(&Bytes::from(bytes)) else { return Ok(None) };
        // Of the last block, a body that is not what its header says was torn; of an earlier one it is damage, which
        // is found again, entry by entry, when it is read.
        let is_torn = with_body && end == size && !block.entries.iter().all(|entry| block.is_intact(entry));
        Ok((block.first_sequence >= self.next_sequence && !is_torn).then_some((block, end)))
    }

    /// Where the next whole block is.
    fn next_block(&self, file: &File, from: u64, size: u64, with_body: bool) -> io::Result<Option<u64>> {
        let mut bytes = vec![0; usize::try_from(size.saturating_sub(from)).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, from)?;
        for at in memmem::find_iter(&bytes, &BLOCK_MAGIC) {
            let offset = from + at as u64;
            if self.block(file, offset, size, with_body)?.is_some() {
                return Ok(Some(offset));
            }
        }
        Ok(None)
    }

    fn add(&mut self, block: &Block, start: u64, end: u64) {
        if self.is_damaged && block.first_sequence > self.next_sequence {
            self.state.damaged.insert(self.next_sequence, block.first_sequence - 1);
        }
        self.is_damaged = false;
        self.state.index.add(block, start, end);
        if let Some(dedupe) = &mut self.dedupe {
            dedupe.add(block);
        }
        self.next_sequence = block.last_sequence() + 1;
        self.last_time = self.last_time.max(block.time);
        self.opened.messages += block.entries.len() as u64;
    }

    /// Moves what follows an offset to a file of its own, on disk before it is cut off here.
    fn set_aside(&mut self, file: &File, path: &Path, offset: u64) -> io::Result<()> {
        let mut bytes = Vec::new();
        let size = file.metadata()?.len();
        bytes.resize(usize::try_from(size - offset).map_err(io::Error::other)?, 0);
        file.read_exact_at(&mut bytes, offset)?;
        let aside = path.with_extension(format!("torn-{offset}"));
        std::fs::write(&aside, &bytes)?;
        File::open(&aside)?.sync_all()?;
        file.set_len(offset)?;
        file.sync_all()?;
        self.opened.torn.push((aside, bytes.len() as u64));
        Ok(())
    }

    fn first_segment(&mut self, directory: &Path, log: LogId) -> io::Result<(Arc<File>, u64)> {
        let path = directory.join(segment_name(self.next_sequence));
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        let header = block::segment_header(log, self.next_sequence);
        file.write_all_at(&header, 0)?;
        file.sync_all()?;
        File::open(directory)?.sync_all()?;
        let file = Arc::new(file);
        self.state.index.add_segment(file.clone());
        self.opened.segments += 1;
        Ok((file, header.len() as u64))
    }
}

//! What lies in a log's directory, by name and header: for who opens the log, and for who only looks at it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    block::{Fault, LogId, SEGMENT_HEADER_BYTES, SegmentHeader},
    disk::{Disk, File},
    footer::Footer,
};
use crate::messages::OpenError;

/// The files of a log.
#[derive(Debug, Default)]
pub struct Files {
    /// The segments, oldest first, without those that a rewritten one stands for.
    pub segments: Vec<Candidate>,
    /// Segments that a rewritten one stands for.
    pub superseded: Vec<PathBuf>,
    /// What was being made, and is of no use to anyone else.
    pub unfinished: Vec<PathBuf>,
    /// Torn tails that were set aside.
    pub torn: Vec<PathBuf>,
    /// Segments whose names are not those of their first sequences, which these are.
    pub misnamed: Vec<(PathBuf, u64)>,
    /// From this sequence on, no file has a name that another segment is to have.
    pub unused: u64,
}

/// A segment's file, with what its header tells.
#[derive(Debug)]
pub struct Candidate {
    /// Where it is.
    pub path: PathBuf,
    /// The file.
    pub file: Arc<File>,
    /// As its header tells, or else its name.
    pub first_sequence: u64,
    /// None if it is damaged.
    pub header: Option<SegmentHeader>,
    /// The trailer of its index, if it has one.
    pub footer: Option<Footer>,
}

impl Files {
    /// Lists a directory, and opens its segments: also to write, if asked for.
    pub fn list(disk: &Disk, directory: &Path, writes: bool) -> Result<Self, OpenError> {
        let mut files = Self::default();
        let mut paths = BTreeMap::new();
        for path in disk.list(directory).map_err(at(directory))? {
            if let Some(sequence) = sequence_of(&path) {
                paths.insert(sequence, path);
                continue;
            }
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if [".new", ".segment"].iter().any(|suffix| name.ends_with(suffix)) {
                files.unfinished.push(path);
            } else if name.contains(".torn-") {
                files.torn.push(path);
            }
        }
        files.torn.sort();
        let mut through = 0;
        for candidate in files.open(disk, paths, writes)?.into_values() {
            let log = files.log();
            if let Some(header) = candidate.header
                && log.is_some_and(|log| log != header.log)
            {
                return Err(OpenError::Foreign { path: candidate.path });
            }
            if candidate.first_sequence <= through {
                // What is left of it is in a segment that was made of it, whose index is whole.
                files.superseded.push(candidate.path);
                continue;
            }
            if let Some(header) = candidate.header {
                through = if candidate.has_whole_index()? { header.through } else { 0 };
            }
            files.segments.push(candidate);
        }
        Ok(files)
    }

    /// By first sequence. A name can be changed, what is in a file cannot; of two that are alike, it is the one that has
    /// its own name.
    fn open(
        &mut self,
        disk: &Disk,
        paths: BTreeMap<u64, PathBuf>,
        writes: bool,
    ) -> Result<BTreeMap<u64, Candidate>, OpenError> {
        let mut found = BTreeMap::new();
        for (named, path) in paths {
            let candidate = Candidate::open(disk, path, named, writes)?;
            let first_sequence = candidate.first_sequence;
            if candidate.header.is_none() || first_sequence != named {
                self.unused = self.unused.max(named.saturating_add(1));
            }
            if first_sequence == named {
                found.insert(first_sequence, candidate);
            } else {
                self.misnamed.push((candidate.path.clone(), first_sequence));
                found.entry(first_sequence).or_insert(candidate);
            }
        }
        Ok(found)
    }

    /// Which log it is.
    pub fn log(&self) -> Option<LogId> {
        self.segments.iter().find_map(|candidate| Some(candidate.header?.log))
    }
}

impl Candidate {
    fn open(disk: &Disk, path: PathBuf, named: u64, writes: bool) -> Result<Self, OpenError> {
        let file = disk.open(&path, writes).map_err(at(&path))?;
        let length = file.len().map_err(at(&path))?;
        let start = file.read(0, usize::try_from(length).unwrap_or(usize::MAX).min(SEGMENT_HEADER_BYTES));
        let header = match SegmentHeader::read(&start.map_err(at(&path))?) {
            Ok(header) => Some(header),
            Err(Fault::Version(version)) => return Err(OpenError::Version { path, version }),
            Err(Fault::Damaged) => None,
        };
        let footer = Footer::read(&file).map_err(at(&path))?;
        let first_sequence = header.map_or(named, |header| header.first_sequence);
        Ok(Self { path, file: Arc::new(file), first_sequence, header, footer })
    }

    fn has_whole_index(&self) -> Result<bool, OpenError> {
        self.footer.map_or(Ok(false), |footer| footer.is_whole(&self.file).map_err(at(&self.path)))
    }
}

/// The first sequence of a segment, as its name tells; none if it is no segment's name.
pub fn sequence_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(".log")?.parse().ok()
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> OpenError + use<> {
    let path = path.to_path_buf();
    move |source| OpenError::Io { path, source }
}

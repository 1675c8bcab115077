//! The files in the directory of a log, by name and header: for the server that opens the log, and for the tools.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::messages::{
    OpenError,
    embedded::{
        disk::{Disk, File},
        format::{
            self,
            block::{self, Identity, Salt},
            footer::Footer,
            scan::Scan,
            segment_header::{HeaderFault, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentId, is_empty},
            trim_points,
        },
        manifest,
    },
};

/// The files of a log.
#[derive(Debug, Default)]
pub struct Files {
    /// The log, by the header of a segment or else by the file of trim points.
    pub log: Option<Identity>,
    /// The segments, oldest first, without those that a compacted one replaces.
    pub segments: Vec<Candidate>,
    /// Segments that a compacted one replaces.
    pub superseded: Vec<PathBuf>,
    /// Files that were being created.
    pub unfinished: Vec<PathBuf>,
    /// Torn tails that were set aside.
    pub torn: Vec<PathBuf>,
    /// Segments with a wrong name, and the first sequence in their header.
    pub misnamed: Vec<(PathBuf, u64)>,
    /// From this sequence on, no file has the name of a segment.
    pub unused: u64,
    pub manifest: manifest::Found,
}

/// The number of times that a directory is listed while a server changes its manifest.
const MAX_LISTINGS: usize = 100;

/// The number of digits in the name of a segment.
const NAME_DIGITS: usize = 20;

/// The file of a segment, and its header.
#[derive(Debug)]
pub struct Candidate {
    /// The path of the file.
    pub path: PathBuf,
    /// The open file.
    pub file: Arc<File>,
    /// The first sequence, by its header or else by its name.
    pub first_sequence: u64,
    /// `None` if it is damaged.
    pub header: Option<SegmentHeader>,
    /// The trailer of its footer, if it has one.
    pub footer: Option<Footer>,
    /// The salt of its records.
    pub salt: Salt,
}

impl Files {
    /// Lists a directory, and opens its segments, for writing too if `writes`.
    pub fn list(disk: &Disk, directory: &Path, writes: bool) -> Result<Self, OpenError> {
        match trim_points::newer(disk, directory) {
            Ok(None) => {}
            Ok(Some((path, version))) => return Err(OpenError::Version { path, version }),
            Err(source) => return Err(OpenError::at(directory)(source)),
        }
        for _ in 0..MAX_LISTINGS {
            let before = manifest::Found::read(disk, directory)?.generation();
            let mut files = Self::list_once(disk, directory, writes)?;
            files.manifest = manifest::Found::read(disk, directory)?;
            // A server that runs beside a tool may have added or removed a segment meanwhile.
            if files.manifest.generation() == before {
                return files.check(directory);
            }
        }
        Err(OpenError::at(directory)(std::io::ErrorKind::ResourceBusy.into()))
    }

    /// Whether the manifest lists no segment.
    pub fn lists_no_segment(&self) -> bool {
        let manifest = self.manifest.manifest.as_ref();
        manifest.is_none_or(|manifest| manifest.segments.is_empty() && manifest.lost.is_empty())
    }

    /// Checks that all files are of one log.
    fn check(mut self, directory: &Path) -> Result<Self, OpenError> {
        if let Some(manifest) = &self.manifest.manifest {
            if self.log.is_some_and(|log| log.id != manifest.log.id) {
                return Err(OpenError::Foreign { path: directory.join(format::manifest::NAMES[0]) });
            }
            self.log = self.log.or(Some(manifest.log));
            // A segment is listed when its header is on disk. Without a byte in it, its messages are lost as with the file.
            let is_listed = |candidate: &Candidate| {
                let first_sequence = candidate.first_sequence;
                let mut listed = manifest.segments.iter().chain(&manifest.lost);
                listed.any(|listed| listed.first_sequence == first_sequence)
            };
            for candidate in std::mem::take(&mut self.segments) {
                let is_empty = candidate.header.is_none() && candidate.footer.is_none();
                let is_empty = is_empty && is_listed(&candidate) && candidate.is_empty()?;
                if is_empty {
                    self.unfinished.push(candidate.path);
                } else {
                    self.segments.push(candidate);
                }
            }
        }
        Ok(self)
    }

    fn list_once(disk: &Disk, directory: &Path, writes: bool) -> Result<Self, OpenError> {
        let mut files = Self::default();
        let mut paths = BTreeMap::new();
        for path in disk.list(directory).map_err(OpenError::at(directory))? {
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
        let mut replaces_up_to = 0;
        let mut candidates = files.open(disk, paths, writes)?;
        let in_header = candidates.values().find_map(|candidate| Some(candidate.header?.log));
        let in_manifest = || Some(manifest::Found::read(disk, directory).ok()?.manifest?.log);
        files.log = in_header.or_else(in_manifest).or_else(|| trim_points::identity(disk, directory));
        for candidate in candidates.values_mut() {
            candidate.find_index(files.log)?;
        }
        for candidate in candidates.into_values() {
            if let Some(header) = candidate.header
                && files.log.is_some_and(|log| log.id != header.log.id)
            {
                return Err(OpenError::Foreign { path: candidate.path });
            }
            if candidate.first_sequence <= replaces_up_to {
                // A compacted segment with a whole index has the rest of it.
                files.superseded.push(candidate.path);
                continue;
            }
            if let Some(header) = candidate.header {
                let is_compacted = header.replaces_up_to > 0;
                let counts = is_compacted && candidate.has_whole_index()?;
                replaces_up_to = if counts { header.replaces_up_to } else { 0 };
            }
            files.segments.push(candidate);
        }
        Ok(files)
    }

    /// Opens the segments, by their first sequence. The header counts, because a file can be renamed; of two with the same
    /// first sequence, the one with the right name counts.
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
}

impl Candidate {
    fn open(disk: &Disk, path: PathBuf, named: u64, writes: bool) -> Result<Self, OpenError> {
        let file = disk.open(&path, writes).map_err(OpenError::at(&path))?;
        let length = file.len().map_err(OpenError::at(&path))?;
        let start =
            file.read_soundly(0, usize::try_from(length).unwrap_or(usize::MAX).min(SEGMENT_HEADER_BYTES));
        let header = match SegmentHeader::read(&start.map_err(OpenError::at(&path))?) {
            Ok(header) => Some(header),
            Err(HeaderFault::Version(version)) => return Err(OpenError::Version { path, version }),
            Err(HeaderFault::Damaged) => None,
        };
        let first_sequence = header.map_or(named, |header| header.first_sequence);
        Ok(Self { path, file: Arc::new(file), first_sequence, header, footer: None, salt: 0 })
    }

    /// The identity of the segment; `None` in version 2, or if the header is damaged.
    pub fn id(&self) -> Option<SegmentId> {
        self.header.and_then(|header| header.id())
    }

    /// If a segment that had all messages below a sequence when the log was closed has fewer now: the first missing one.
    pub fn cut_at(&self, end: u64) -> io::Result<Option<u64>> {
        let length = self.file.len()?;
        if let Some(start) = length.checked_sub(block::MARK_BYTES as u64)
            && block::read_mark(&self.file.read(start, block::MARK_BYTES)?, self.salt) == Ok(end)
        {
            return Ok(None);
        }
        let bytes = self.file.read(0, usize::try_from(length).map_err(io::Error::other)?)?;
        let next_sequence = Scan::new(&bytes.into(), self.first_sequence, self.salt).next_sequence;
        Ok(Some(next_sequence).filter(|next_sequence| *next_sequence < end))
    }

    /// Reads the trailer, for which the salt of the log must be known.
    fn find_index(&mut self, log: Option<Identity>) -> Result<(), OpenError> {
        self.salt = self.header.map(|header| header.log).or(log).map_or(0, |log| log.salt);
        self.footer = Footer::read(&self.file, self.salt).map_err(OpenError::at(&self.path))?;
        Ok(())
    }

    /// Whether no message was ever written to it.
    fn is_empty(&self) -> Result<bool, OpenError> {
        let length = self.file.len().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        let bytes = length.and_then(|length| self.file.read_soundly(0, length));
        bytes.map(|bytes| is_empty(&bytes)).map_err(OpenError::at(&self.path))
    }

    fn has_whole_index(&self) -> Result<bool, OpenError> {
        self.footer.map_or(Ok(false), |footer| footer.is_whole(&self.file).map_err(OpenError::at(&self.path)))
    }
}

/// The first sequence in the name of a segment; `None` for other names.
pub fn sequence_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(".log")?;
    let is_name = digits.len() == NAME_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_name.then(|| digits.parse().ok())?
}

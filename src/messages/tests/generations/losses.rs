//! Files that are lost between two generations: segments, and copies of files that are kept twice.

use super::*;
use embedded::{
    disk::Disk,
    format::{manifest::Manifest, segment_header::SegmentHeader, trim_points},
};

/// A lost file.
#[derive(Clone, Copy, Debug)]
pub enum Lost {
    /// A segment, with its first sequence and the last one. The newest one has no end.
    Segment(u64, Option<u64>),
    /// Both copies of the list of files.
    List,
}

impl Lost {
    /// What clients know when the log is open again.
    pub fn fact(self, head: u64) -> Fact {
        match self {
            Self::Segment(first, last) => Fact::Lost(first, last.unwrap_or(head).max(first)),
            Self::List => Fact::ListLost,
        }
    }
}

impl World {
    /// Loses files, or none.
    pub fn lose_files(&mut self) -> Vec<Lost> {
        let mut lost = Vec::new();
        while self.client.random.one_in(5) {
            lost.extend(self.lose_segment());
        }
        match self.client.random.below(12) {
            0 | 1 => self.lose_copy(["manifest.0", "manifest.1"], |bytes| {
                Manifest::read(bytes).ok().map(|manifest| manifest.generation)
            }),
            2 => self.lose_copy(["removed.0", "removed.1"], |bytes| {
                let generation = bytes.get(12..20)?.try_into().ok()?;
                Some(u64::from_le_bytes(generation))
            }),
            // Nothing but the list knows of the newest segment.
            3 if !lost.iter().any(|lost| matches!(lost, Lost::Segment(_, None))) => {
                for name in ["manifest.0", "manifest.1"] {
                    self.remove(&Path::new(DIRECTORY).join(name));
                }
                lost.push(Lost::List);
            }
            _ => {}
        }
        lost
    }

    /// Removes a file for good.
    fn remove(&self, path: &Path) {
        if self.disk.remove(path).is_ok() {
            self.disk.sync_directory(Path::new(DIRECTORY)).unwrap();
        }
    }

    /// The segments, by their names.
    fn segments(&self) -> BTreeMap<u64, PathBuf> {
        let paths = self.disk.list(Path::new(DIRECTORY)).unwrap_or_default();
        let first = |path: &PathBuf| embedded::recovery::directory::sequence_of(path);
        paths.into_iter().filter_map(|path| Some((first(&path)?, path))).collect()
    }

    /// Loses the oldest segment, the newest one, or one between.
    fn lose_segment(&mut self) -> Option<Lost> {
        let segments = self.segments();
        let place = match self.client.random.below(3) {
            0 => 0,
            1 => segments.len().checked_sub(1)?,
            _ => self.client.random.index(segments.len()),
        };
        let (first, path) = segments.iter().nth(place)?;
        let header = SegmentHeader::read(&self.disk.read_file(path)).ok()?;
        // One that was compacted has what those had that it replaces.
        let end = segments.keys().find(|next| **next > *first.max(&header.replaces_up_to));
        self.remove(path);
        Some(Lost::Segment(*first, end.map(|end| end - 1)))
    }

    /// Loses one of two copies of a file, if the other one is whole and as new.
    fn lose_copy(&mut self, names: [&str; 2], generation: impl Fn(&[u8]) -> Option<u64>) {
        let [lost, left] = if self.client.random.one_in(2) { [0, 1] } else { [1, 0] };
        let paths = names.map(|name| Path::new(DIRECTORY).join(name));
        let listed = self.disk.list(Path::new(DIRECTORY)).unwrap_or_default();
        if !paths.iter().all(|path| listed.contains(path)) {
            return;
        }
        let disk = Disk::Simulated(self.disk.clone());
        let are_whole =
            !names[0].starts_with(trim_points::NAME) || trim_points::is_settled(&disk, Path::new(DIRECTORY));
        let [one, other] = [lost, left].map(|place| generation(&self.disk.read_file(&paths[place])));
        if are_whole && one.is_some() && one <= other {
            self.remove(&paths[lost]);
        }
    }
}

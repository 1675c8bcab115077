//! The bytes of a simulated file.
//!
//! They change on disk in sectors of 512 bytes, each independent of the others. A power cut leaves of each sector any one of
//! the states that it had since it was last on disk for certain. In a torn sector, the first of the bytes that were changing
//! have changed, and the rest are as before, or garbage; bytes that were not changing stay as they were (SQLite calls this
//! powersafe overwrite). The length covers the rest of the writes that extended the file. A truncation that survives
//! removes what was written before it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Range,
};

use super::{
    loss::{Kept, Loss},
    random::Random,
};

/// The unit in which a disk writes.
const SECTOR: usize = 512;
const SECTOR_BYTES: u64 = SECTOR as u64;

type Image = Box<[u8; SECTOR]>;

/// The content that readers see, the content on disk, and the content that may be on disk.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// Sectors that are not here are zeros.
    sectors: BTreeMap<u64, Sector>,
    len: u64,
    durable_len: u64,
    /// The changes of the length since it was on disk.
    lengths: Vec<Length>,
    /// The sectors that the next sync brings to the disk.
    dirty: BTreeSet<u64>,
    /// The next sync brings the length to the disk.
    is_longer_or_shorter: bool,
    /// The number of bytes that have room, written or not.
    allocated: u64,
    /// Sectors below that which gave their room back.
    holes: BTreeSet<u64>,
}

#[derive(Clone, Debug)]
struct Sector {
    durable: Image,
    /// Its later states, oldest first. The last one is what readers see.
    versions: Vec<Version>,
}

#[derive(Clone, Debug)]
struct Version {
    time: u64,
    image: Image,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// A write, up to this offset in the file.
    Write { end: u64, is_longer: bool },
    /// A truncation before the sector, or within it.
    Cut,
}

#[derive(Clone, Copy, Debug)]
struct Length {
    time: u64,
    len: u64,
}

impl Content {
    /// Bytes that are all on disk.
    pub fn durable(bytes: &[u8]) -> Self {
        let mut new = Self::default();
        new.write(bytes, 0, u64::MAX, &mut 0);
        new.sync();
        new
    }

    /// The length that readers see.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The bytes that readers see.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.len).unwrap_or(usize::MAX)];
        self.copy(&mut bytes, 0);
        bytes
    }

    /// Fills `bytes` from an offset, or fails.
    pub fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.saturating_add(bytes.len() as u64) > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.copy(bytes, offset);
        Ok(())
    }

    fn copy(&self, bytes: &mut [u8], offset: u64) {
        for (index, at, part) in parts(offset, bytes.len()) {
            let target = bytes.get_mut(part).unwrap_or_default();
            let end = at + target.len();
            match self.sectors.get(&index).and_then(|sector| sector.seen().get(at..end)) {
                Some(seen) => target.copy_from_slice(seen),
                None => target.fill(0),
            }
        }
    }

    /// Writes as many bytes as there is room for, and returns how many.
    pub fn write(&mut self, bytes: &[u8], offset: u64, mut room: u64, clock: &mut u64) -> usize {
        let mut written = 0;
        for (index, at, part) in parts(offset, bytes.len()) {
            if self.takes_room(index) {
                let Some(left) = room.checked_sub(SECTOR_BYTES) else { break };
                room = left;
            }
            let source = bytes.get(part).unwrap_or_default();
            *clock += 1;
            self.write_sector(index, at, source, *clock);
            written += source.len();
        }
        written
    }

    /// Writes zeros. Whole sectors give their room back.
    pub fn punch(&mut self, offset: u64, length: u64, time: u64) {
        let length = usize::try_from(length.min(self.len.saturating_sub(offset))).unwrap_or(usize::MAX);
        let zeros = [0; SECTOR];
        for (index, at, part) in parts(offset, length) {
            let zeros = zeros.get(..part.len()).unwrap_or_default();
            self.write_sector(index, at, zeros, time);
            if part.len() == SECTOR {
                self.holes.insert(index);
            }
        }
    }

    fn write_sector(&mut self, index: u64, at: usize, bytes: &[u8], time: u64) {
        self.holes.remove(&index);
        let end = index * SECTOR_BYTES + (at + bytes.len()) as u64;
        let is_longer = end > self.len;
        let sector = self.sectors.entry(index).or_default();
        let mut image = sector.seen().clone();
        if let Some(target) = image.get_mut(at..at + bytes.len()) {
            target.copy_from_slice(bytes);
        }
        sector.versions.push(Version { time, image, kind: Kind::Write { end, is_longer } });
        self.dirty.insert(index);
        if is_longer {
            self.change_length(end, time);
        }
    }

    /// Truncates, or extends with zeros.
    pub fn set_len(&mut self, len: u64, time: u64) {
        for (index, sector) in self.sectors.range_mut(len / SECTOR_BYTES..) {
            let keeps = len.saturating_sub(index * SECTOR_BYTES).min(SECTOR_BYTES);
            let mut image = sector.seen().clone();
            let gone = image.get_mut(usize::try_from(keeps).unwrap_or(SECTOR)..).unwrap_or_default();
            if len < self.len && !gone.is_empty() {
                gone.fill(0);
                sector.versions.push(Version { time, image, kind: Kind::Cut });
            }
        }
        if len < self.len {
            self.allocated = self.allocated.min(len);
            self.holes.split_off(&len.div_ceil(SECTOR_BYTES));
        }
        if len != self.len {
            self.change_length(len, time);
        }
    }

    /// Extends with zeros that have room.
    pub fn allocate(&mut self, range: &Range<u64>, time: u64) {
        self.set_len(self.len.max(range.end), time);
        // Sectors between the end of the room and the range are a hole, unless they were written.
        let between = self.allocated.div_ceil(SECTOR_BYTES)..range.start / SECTOR_BYTES;
        self.holes.extend(between.filter(|index| !self.sectors.contains_key(index)));
        self.allocated = self.allocated.max(range.end);
        let range = range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES);
        self.holes.retain(|index| !range.contains(index));
    }

    /// The room that [`Self::allocate`] would take.
    pub fn room_to_allocate(&self, range: &Range<u64>) -> u64 {
        let mut after = self.clone();
        after.allocate(range, 0);
        after.room().saturating_sub(self.room())
    }

    /// The room that is taken.
    pub fn room(&self) -> u64 {
        self.room_with(self.allocated) - self.holes.len() as u64 * SECTOR_BYTES
    }

    fn room_with(&self, allocated: u64) -> u64 {
        let allocated = allocated.div_ceil(SECTOR_BYTES);
        let end = self.len.div_ceil(SECTOR_BYTES).max(allocated);
        (allocated + self.sectors.range(allocated..end).count() as u64) * SECTOR_BYTES
    }

    fn takes_room(&self, index: u64) -> bool {
        let is_there = self.sectors.contains_key(&index) && index < self.len.div_ceil(SECTOR_BYTES);
        self.holes.contains(&index) || !is_there && index >= self.allocated.div_ceil(SECTOR_BYTES)
    }

    fn change_length(&mut self, len: u64, time: u64) {
        self.len = len;
        self.is_longer_or_shorter = true;
        self.lengths.push(Length { time, len });
    }

    /// Brings to the disk what was written since the last sync, successful or not.
    pub fn sync(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        if !std::mem::take(&mut self.is_longer_or_shorter) && dirty.is_empty() {
            return;
        }
        for index in dirty {
            self.sectors.entry(index).or_default().settle(usize::MAX);
        }
        self.durable_len = self.len;
        let shortest = self.lengths.drain(..).map(|length| length.len).min().unwrap_or(u64::MAX);
        // What a truncation removed does not come back after the new length.
        for sector in self.sectors.range_mut(shortest / SECTOR_BYTES..).map(|(_, sector)| sector) {
            sector.settle(sector.through_cut(u64::MAX));
        }
    }

    /// Marks what was written as clean.
    pub fn fail_sync(&mut self) {
        self.dirty.clear();
        self.is_longer_or_shorter = false;
    }

    /// Changes a byte in all its states.
    pub fn flip(&mut self, byte: u64, mask: u8) {
        assert!(byte < self.len, "byte {byte} of {}", self.len);
        let at = usize::try_from(byte % SECTOR_BYTES).unwrap_or(0);
        let sector = self.sectors.entry(byte / SECTOR_BYTES).or_default();
        for image in sector.versions.iter_mut().map(|version| &mut version.image).chain([&mut sector.durable])
        {
            image.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= mask);
        }
    }

    /// The time of the oldest change that may not be on disk.
    pub fn oldest_unsynced(&self) -> Option<u64> {
        let versions = self.sectors.values().filter_map(|sector| sector.versions.first());
        let versions = versions.map(|version| version.time);
        versions.chain(self.lengths.first().map(|length| length.time)).min()
    }

    /// The file after a power cut.
    pub fn lose_power(&self, loss: &mut Loss) -> Self {
        let kept = loss.kept();
        let mut chosen = BTreeMap::new();
        let mut cut_at = match kept {
            Kept::All => u64::MAX,
            Kept::Nothing => 0,
            Kept::Until(last) => last,
            Kept::Any => self.lengths.get(loss.random.index(self.lengths.len() + 1)).map_or(0, |l| l.time),
        };
        for (index, sector) in &self.sectors {
            let count = sector.survivors(kept, loss);
            cut_at = cut_at.max(sector.length_time(count));
            chosen.insert(*index, count);
        }
        let mut len =
            self.lengths.iter().rev().find(|l| l.time <= cut_at).map_or(self.durable_len, |l| l.len);
        let mut sectors = BTreeMap::new();
        for (index, sector) in &self.sectors {
            let count = chosen.get(index).copied().unwrap_or(0).max(sector.through_cut(cut_at));
            len = len.max(sector.end(count));
            sectors.insert(*index, Sector { durable: sector.left(count, loss), versions: Vec::new() });
        }
        let mut left = Self { sectors, len: u64::MAX, durable_len: len, ..Self::default() };
        left.set_len(len, 0);
        left.sync();
        left.sectors.retain(|index, _| *index < len.div_ceil(SECTOR_BYTES));
        left.allocated = self.allocated.min(len);
        let is_empty = |index: &u64| {
            left.sectors.get(index).is_none_or(|sector| sector.durable.iter().all(|byte| *byte == 0))
        };
        let end = len.div_ceil(SECTOR_BYTES);
        left.holes = self.holes.iter().copied().filter(|index| *index < end && is_empty(index)).collect();
        left
    }
}

impl Default for Sector {
    fn default() -> Self {
        Self { durable: Box::new([0; SECTOR]), versions: Vec::new() }
    }
}

impl Sector {
    fn seen(&self) -> &Image {
        self.image(self.versions.len())
    }

    /// The state after `count` versions.
    fn image(&self, count: usize) -> &Image {
        let last = count.checked_sub(1).and_then(|last| self.versions.get(last));
        last.map_or(&self.durable, |version| &version.image)
    }

    /// Records that the first `count` versions are on disk for certain.
    fn settle(&mut self, count: usize) {
        let count = count.min(self.versions.len());
        if let Some(last) = self.versions.drain(..count).next_back() {
            self.durable = last.image;
        }
    }

    /// The number of versions that the truncations up to a time make certain.
    fn through_cut(&self, time: u64) -> usize {
        let last =
            self.versions.iter().rposition(|version| version.kind == Kind::Cut && version.time <= time);
        last.map_or(0, |last| last + 1)
    }

    /// The number of versions that the disk wrote.
    fn survivors(&self, kept: Kept, loss: &mut Loss) -> usize {
        match kept {
            Kept::All => self.versions.len(),
            Kept::Nothing => 0,
            Kept::Until(last) => self.versions.iter().take_while(|version| version.time <= last).count(),
            Kept::Any if loss.random.one_in(2) => 0,
            Kept::Any => loss.random.index(self.versions.len() + 1),
        }
    }

    /// The time of the last change of the length among the first `count` versions.
    fn length_time(&self, count: usize) -> u64 {
        let changes = |version: &&Version| !matches!(version.kind, Kind::Write { is_longer: false, .. });
        self.versions.iter().take(count).rfind(changes).map_or(0, |version| version.time)
    }

    /// The least length of the file if the first `count` versions are on disk.
    fn end(&self, count: usize) -> u64 {
        let versions = self.versions.iter().take(count).rev();
        let ends = versions.map_while(|version| match version.kind {
            Kind::Write { end, .. } => Some(end),
            Kind::Cut => None,
        });
        ends.max().unwrap_or(0)
    }

    /// The bytes that are left after the disk wrote the first `count` versions.
    fn left(&self, count: usize, loss: &mut Loss) -> Image {
        let mut image = self.image(count).clone();
        let last = count.checked_sub(1).and_then(|last| self.versions.get(last));
        if loss.tears && last.is_some_and(|last| last.kind != Kind::Cut) && loss.random.one_in(4) {
            tear(&mut image, self.image(count - 1), &mut loss.random);
        }
        image
    }
}

/// Keeps a change only up to some byte; the rest is as before, or garbage.
fn tear(image: &mut [u8; SECTOR], before: &[u8; SECTOR], random: &mut Random) {
    let changed = |at: &usize| before.get(*at) != image.get(*at);
    let (Some(first), Some(last)) = ((0..SECTOR).find(changed), (0..SECTOR).rfind(changed)) else { return };
    let start = first + random.index(last + 1 - first);
    let is_garbage = random.one_in(2);
    for (byte, old) in image.iter_mut().zip(before).take(last + 1).skip(start) {
        *byte = if is_garbage { random.number().to_le_bytes()[0] } else { *old };
    }
}

/// The sectors of a range of bytes: the index of the sector, the offset in it, and the part of the range.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let place = offset + done as u64;
        let at = usize::try_from(place % SECTOR_BYTES).unwrap_or(0);
        let start = done;
        done = length.min(done + SECTOR - at);
        (start < done).then_some((place / SECTOR_BYTES, at, start..done))
    })
}

//! Two copies of a small file. The older copy is overwritten in place, and then the other: so replacing the content takes no
//! further room and creates no file, also on a full disk, and one copy is whole at any time.
//!
//! Each copy has the content, a generation that rises with each replacement, and a checksum. The file may be longer than
//! that: the rest is reserved for a longer content.

use std::{
    io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use bytes::{Buf, BufMut};

use crate::messages::embedded::disk::{Disk, File, bad_sectors::is_bad_sector};

/// magic, version, generation, bytes of the content.
const HEADER_BYTES: usize = 8 + 4 + 8 + 8;

/// A content that is larger than this is written once each time, to the older copy.
const TWICE_BYTES: usize = 1024 * 1024;

/// The room of a copy is a multiple of this.
const ROOM_BYTES: u64 = if cfg!(test) { 1024 } else { 16 * 1024 };

/// The kind of a file: its name without the number of the copy, its first bytes, and its versions.
#[derive(Clone, Debug)]
pub struct Kind {
    /// The name, to which `.0` and `.1` are added.
    pub name: &'static str,
    /// The first bytes.
    pub magic: [u8; 8],
    /// The versions of the content that can be read; the last one is written.
    pub versions: RangeInclusive<u32>,
}

/// A version, and the content in it.
pub type Content = (u32, Vec<u8>);

/// Two copies of a file.
#[derive(Debug)]
pub struct Twin {
    disk: Disk,
    directory: PathBuf,
    kind: Kind,
    /// The generation of the newest whole copy; 0 for none.
    generation: u64,
    /// The copy to write first: it is older, or not whole.
    older: usize,
    /// Names that may not be on disk.
    is_new: bool,
    /// The copies that the disk cannot read.
    unreadable: [bool; 2],
}

/// What two copies hold.
#[derive(Debug, Default)]
pub struct Read {
    /// The newest whole content, and its version; `None` if there is none.
    pub content: Option<Content>,
    /// The copies that exist and are not whole, and why they are not.
    pub faults: Vec<(PathBuf, String)>,
    /// A whole copy that is in a later version than those that can be read, and that version.
    pub newer: Option<(PathBuf, u32)>,
    /// The number of copies that exist.
    pub copies: usize,
    /// Both copies have the newest content. Otherwise a server that was killed may have written it without a sync, so that
    /// the disk does not have it.
    pub is_settled: bool,
}

impl Twin {
    /// Opens the copies in a directory. This writes nothing, and no copy needs to exist. Fails if the disk cannot read a copy
    /// and there is no other whole one.
    pub fn open(disk: &Disk, directory: &Path, kind: Kind) -> io::Result<(Self, Read)> {
        let mut read = Read::default();
        let mut found = [(0, None), (0, None)];
        let (mut unreadable, mut failure) = ([false; 2], None);
        for ((copy, found), unreadable) in found.iter_mut().enumerate().zip(&mut unreadable) {
            let path = path(directory, &kind, copy);
            let content = match disk.open(&path, false).and_then(|file| read_copy(&file, &kind)) {
                Ok(content) => content,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) if is_bad_sector(&error) => {
                    *unreadable = true;
                    let fault = format!("cannot be read ({error})");
                    failure = Some(error);
                    Err(fault)
                }
                Err(error) => return Err(error),
            };
            read.copies += 1;
            match content {
                Ok((_, (version, _))) if version > *kind.versions.end() => read.newer = Some((path, version)),
                Ok((_, (version, _))) if !kind.versions.contains(&version) => {
                    read.faults.push((path, format!("is in version {version} of its format")));
                }
                Ok((generation, content)) => *found = (generation, Some(content)),
                Err(fault) => read.faults.push((path, fault)),
            }
        }
        let [first, second] = found;
        let older = usize::from(first.0 > second.0);
        read.is_settled = first.0 > 0 && first.0 == second.0;
        let newest = if older == 1 { first } else { second };
        read.content = newest.1;
        if let Some(error) = failure.filter(|_| read.content.is_none() && read.newer.is_none()) {
            return Err(error);
        }
        let (disk, directory) = (disk.clone(), directory.into());
        Ok((Self { disk, directory, kind, generation: newest.0, older, is_new: true, unreadable }, read))
    }

    /// Replaces the content. One copy has it on disk when this returns.
    pub fn write(&mut self, content: &[u8]) -> io::Result<()> {
        let Kind { magic, versions, .. } = &self.kind;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + content.len() + 4);
        bytes.put_slice(magic);
        bytes.put_u32_le(*versions.end());
        bytes.put_u64_le(self.generation + 1);
        bytes.put_u64_le(content.len() as u64);
        bytes.put_slice(content);
        bytes.put_u32_le(crc32c::crc32c(&bytes));
        self.write_copy(self.older, &bytes)?;
        self.generation += 1;
        self.older = 1 - self.older;
        if content.len() <= TWICE_BYTES {
            // Either is enough, so a failure of the second one is none.
            let _ = self.write_copy(self.older, &bytes);
        }
        Ok(())
    }

    /// Reserves room in both copies for a content of this size.
    pub fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let room = (bytes + HEADER_BYTES as u64 + 4).next_multiple_of(ROOM_BYTES);
        for copy in 0..2 {
            let file = self.file(copy)?;
            if file.len()? < room {
                file.allocate(0..room)?;
                file.sync()?;
            }
        }
        self.sync_names()
    }

    /// Removes another file of the directory, if there is one.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match self.disk.remove(&self.directory.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn write_copy(&mut self, copy: usize, bytes: &[u8]) -> io::Result<()> {
        let file = self.file(copy)?;
        file.write_all_at(bytes, 0)?;
        file.sync()?;
        self.sync_names()
    }

    fn file(&mut self, copy: usize) -> io::Result<File> {
        let path = path(&self.directory, &self.kind, copy);
        if let Some(unreadable) = self.unreadable.get_mut(copy).filter(|unreadable| **unreadable) {
            // Bytes cannot be replaced in a page that cannot be read; a new file does not need them.
            self.disk.remove(&path)?;
            *unreadable = false;
        }
        match self.disk.open(&path, true) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.is_new = true;
                self.disk.create(&path)
            }
            result => result,
        }
    }

    fn sync_names(&mut self) -> io::Result<()> {
        if self.is_new {
            self.disk.sync_directory(&self.directory)?;
            self.is_new = false;
        }
        Ok(())
    }
}

fn path(directory: &Path, kind: &Kind, copy: usize) -> PathBuf {
    directory.join(format!("{}.{copy}", kind.name))
}

/// The generation of a copy, and its content with its version, whatever that is. An outer error is I/O, an inner one says why the copy is not whole.
fn read_copy(file: &File, kind: &Kind) -> io::Result<Result<(u64, Content), String>> {
    let length = file.len()?;
    if length < HEADER_BYTES as u64 {
        return Ok(Err("is too short".into()));
    }
    let header = file.read(0, HEADER_BYTES)?;
    let Some(mut fields) = header.strip_prefix(&kind.magic) else {
        return Ok(Err("has no content".into()));
    };
    let (version, generation, bytes) = (fields.get_u32_le(), fields.get_u64_le(), fields.get_u64_le());
    let end = bytes.saturating_add(HEADER_BYTES as u64 + 4);
    if end > length {
        return Ok(Err("is not complete".into()));
    }
    let whole = file.read(0, usize::try_from(end).map_err(io::Error::other)?)?;
    let (body, mut checksum) = whole.split_at(whole.len() - 4);
    if crc32c::crc32c(body) != checksum.get_u32_le() {
        return Ok(Err("its checksum is wrong".into()));
    }
    Ok(Ok((generation, (version, body.get(HEADER_BYTES..).unwrap_or_default().to_vec()))))
}

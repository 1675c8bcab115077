//! The bytes of a file that the system has in memory, for a read that must not block.
//!
//! Every read here fails with [`io::ErrorKind::WouldBlock`] where [`File`] might wait: for the disk, for another
//! machine, or for a long copy. The caller then repeats the read on a blocking thread.

use std::{
    cell::Cell,
    fs::File,
    io::{self, IoSliceMut},
};

use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::pread::{Content, Stat};

/// The most bytes that one [`Cached`] reads: a task that copies them and splits them into lines holds its worker for
/// some 10 µs.
pub const CACHED_BYTES: usize = 16 * 1024;

/// A file, as far as it can be read without waiting.
#[derive(Debug)]
pub struct Cached<'a> {
    file: &'a File,
    /// How many more bytes may be read.
    left: Cell<usize>,
}

impl<'a> Cached<'a> {
    /// The file has to be a regular one.
    pub fn new(file: &'a File) -> Self {
        Self { file, left: Cell::new(CACHED_BYTES) }
    }
}

impl Content for Cached<'_> {
    fn read_some(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        // The largest offset would stand for that of the descriptor.
        let is_offset = i64::try_from(offset).is_ok();
        let left = self.left.get().checked_sub(buffer.len()).filter(|_| is_offset).ok_or_else(would_block)?;
        self.left.set(left);
        match preadv2(self.file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT) {
            // The file system, the kernel or a filter of system calls does not have it.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::PERM) => Err(would_block()),
            read => Ok(read?),
        }
    }

    /// A file system that cannot read without waiting may have to ask another machine for the size, too. So this reads
    /// a byte first.
    fn stat(&self) -> io::Result<Stat> {
        self.read_some(&mut [0], 0)?;
        self.file.stat()
    }

    fn is_rewritable(&self) -> bool {
        true
    }

    fn end_of_data(&self, _: u64) -> io::Result<Option<u64>> {
        Err(would_block())
    }

    fn next_data(&self, _: u64) -> io::Result<Option<u64>> {
        Err(would_block())
    }
}

fn would_block() -> io::Error {
    io::ErrorKind::WouldBlock.into()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

    use std::io::Write;

    use super::*;

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file
    }

    fn waits<T>(result: io::Result<T>) -> bool {
        result.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether the file system of temporary files has such reads.
    pub fn is_supported() -> bool {
        !waits(Cached::new(&file(b"1")).stat())
    }

    #[test]
    fn it_reads_as_the_file_itself_does() {
        if !is_supported() {
            return;
        }
        let file = file(b"12345");
        let cached = Cached::new(&file);
        for offset in 0..8 {
            let (mut found, mut expected) = ([0; 3], [0; 3]);
            let read = cached.read_some(&mut found, offset).unwrap();
            assert_eq!(read, file.read_some(&mut expected, offset).unwrap());
            assert_eq!(found, expected);
        }
        let (cached, plain) = (cached.stat().unwrap(), file.stat().unwrap());
        assert_eq!((cached.size, cached.written), (plain.size, plain.written));
    }

    #[test]
    fn it_reads_no_more_than_its_bound_and_never_at_the_offset_of_the_descriptor() {
        let file = file(&vec![b'1'; 2 * CACHED_BYTES]);
        let mut buffer = vec![0; CACHED_BYTES + 1];
        assert!(waits(Cached::new(&file).read_some(&mut buffer, 0)));
        assert!(waits(Cached::new(&file).read_some(&mut [0], u64::MAX)));
        if is_supported() {
            let cached = Cached::new(&file);
            assert_eq!(cached.read_some(&mut buffer[1..], 0).unwrap(), CACHED_BYTES);
            assert!(waits(cached.read_some(&mut [0], 0)));
        }
    }

    #[test]
    fn it_waits_for_nothing_that_a_file_system_may_have_to_search() {
        let file = file(b"1");
        assert!(waits(Cached::new(&file).end_of_data(0)) && waits(Cached::new(&file).next_data(0)));
        // These are made when they are read.
        let made = File::open("/proc/self/maps").unwrap();
        assert!(waits(Cached::new(&made).stat()));
    }
}

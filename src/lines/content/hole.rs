//! Parts of a file that were never written: the file system reports them, without a read. Everything here
//! blocks.

use std::{fs::File, io};

use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};

use super::pread::read_at;

/// How much is looked at at once.
const STEP_BYTES: usize = 64 * 1024;

/// Where the data at an offset ends and a hole begins: the offset itself, if it lies in a hole. None where no hole
/// follows, or the file system does not report it.
pub fn end_of_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    // Every file has a hole at its end; that is not one.
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

/// The first byte at or after an offset that is not NUL. `None` if all are.
pub fn first_text(file: &File, offset: u64) -> io::Result<Option<u64>> {
    let mut buffer = vec![0; STEP_BYTES];
    let mut at = offset;
    while let Some(data) = next_data(file, at)? {
        let read = read_at(file, &mut buffer, data)?;
        if read == 0 {
            return Ok(None);
        }
        if let Some(text) = buffer.iter().take(read).position(|byte| *byte != 0) {
            return Ok(Some(data + text as u64));
        }
        at = data + read as u64;
    }
    Ok(None)
}

/// None where there is no such place, or the file system does not know.
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

    use super::*;

    #[test]
    fn a_hole_differs_from_data_and_from_the_end() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"head", 0).unwrap();
        file.write_all_at(b"tail", 1 << 30).unwrap();
        let hole = end_of_data(&file, 0).unwrap().unwrap();
        assert!((4..=1 << 20).contains(&hole));
        assert_eq!(end_of_data(&file, hole).unwrap(), Some(hole));
        assert_eq!(first_text(&file, 4).unwrap(), Some(1 << 30));
        assert_eq!(end_of_data(&file, 1 << 30).unwrap(), None);
        assert_eq!(first_text(&file, (1 << 30) + 4).unwrap(), None);
        file.set_len(1 << 31).unwrap();
        assert_eq!(first_text(&file, (1 << 30) + 4).unwrap(), None);
    }
}

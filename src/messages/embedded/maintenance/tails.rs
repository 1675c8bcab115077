//! Erases what may be of a purged topic in torn tails that were set aside.
//!
//! A tail has no index and no trim points. Whole messages of other topics stay, for inspection; the messages of the topic and
//! all bytes that do not belong to a whole message are overwritten with zeros.

use std::{io, ops::Range};

use bytes::Bytes;
use memchr::memmem;

use crate::messages::embedded::{
    Shared,
    disk::File,
    format::block::{self, BLOCK_MAGIC, Block, Header, MARK_BYTES, Salt},
};

/// The part of the name of a torn tail between the name of its segment and its offset.
pub const TORN: &str = ".torn-";

/// Erases a topic in all tails of the log.
pub fn erase_topic(shared: &Shared, topic: &str) -> io::Result<()> {
    let disk = &shared.config.disk;
    // While this is locked, no tail is set aside.
    let pending = shared.pending_tail();
    if let Some((file, range)) = &*pending {
        erase_in(file, range.clone(), topic, shared.identity.salt)?;
    }
    for path in disk.list(&shared.directory)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.contains(TORN) {
            let file = disk.open(&path, true)?;
            let end = file.len()?;
            erase_in(&file, 0..end, topic, shared.identity.salt)?;
        }
    }
    Ok(())
}

/// Erases a topic in a tail that is a range of a file.
pub fn erase_in(file: &File, range: Range<u64>, topic: &str, salt: Salt) -> io::Result<()> {
    let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    let bytes = Bytes::from(file.read(range.start, length)?);
    let mut is_changed = false;
    for part in parts_to_erase(&bytes, topic, salt) {
        if bytes.get(part.clone()).is_some_and(|seen| seen.iter().any(|byte| *byte != 0)) {
            file.erase(range.start + part.start as u64..range.start + part.end as u64)?;
            is_changed = true;
        }
    }
    if is_changed { file.sync() } else { Ok(()) }
}

fn parts_to_erase(bytes: &Bytes, topic: &str, salt: Salt) -> Vec<Range<usize>> {
    let (mut parts, mut at) = (Vec::new(), 0);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        if block::read_mark(rest, salt).is_ok() {
            at += MARK_BYTES;
        } else if let Some((block, header)) = whole_block(bytes, at, salt) {
            let end = at + header.block_bytes();
            let body = end - block.body.len();
            let is_erased = |entry| {
                let is_topic = block.topic(entry).is_none_or(|of| of.as_ref() == topic);
                is_topic || !block.is_intact(entry)
            };
            let erased = block.entries.iter().filter(|entry| is_erased(*entry));
            parts.extend(erased.map(|entry| body + entry.start as usize..body + entry.end as usize));
            at = end;
        } else {
            let next = memmem::find(rest.get(1..).unwrap_or_default(), &BLOCK_MAGIC);
            let end = next.map_or(bytes.len(), |next| at + 1 + next);
            parts.push(at..end);
            at = end;
        }
    }
    parts
}

fn whole_block(bytes: &Bytes, at: usize, salt: Salt) -> Option<(Block, Header)> {
    let header = Header::read(bytes.get(at..)?).ok()?;
    let end = at.checked_add(header.block_bytes()).filter(|end| *end <= bytes.len())?;
    Some((Block::read(&bytes.slice(at..end), salt).ok()?, header))
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "a test")]
mod tests {
    use super::*;
    use crate::messages::embedded::format::block::{Entry, place_of};

    fn block(messages: &[(&str, &[u8])]) -> Vec<u8> {
        let mut block = Block { first_sequence: 1, ..Block::default() };
        let mut body = Vec::new();
        for (sequence, (topic, bytes)) in (1..).zip(messages) {
            let start = place_of(body.len());
            body.extend_from_slice(bytes);
            let (topic, end) = (place_of(block.topics.len()), (topic, place_of(body.len())));
            block.topics.push((*end.0).into());
            let (end, checksum) = (end.1, crc32c::crc32c(bytes));
            block.entries.push(Entry { sequence, topic, start, end, checksum, expires: 0 });
            block.last_sequence = sequence;
        }
        block.body = body.into();
        let mut out = Vec::new();
        block.put(&mut out, 0, 7);
        out
    }

    #[test]
    fn of_a_tail_only_whole_messages_of_other_topics_are_left() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tail");
        let whole = block(&[("a", b"secret of a"), ("b", b"message of b")]);
        let torn = block(&[("a", b"torn secret")]);
        let tail = [whole.as_slice(), torn.get(..torn.len() - 3).expect("a part")].concat();
        std::fs::write(&path, &tail).expect("written");
        let file = File::Real(std::fs::File::options().read(true).write(true).open(&path).expect("open"));
        let left = |text: &[u8]| memmem::find(&std::fs::read(&path).expect("read"), text).is_some();
        assert!(left(b"secret of a") && left(b"torn sec") && left(b"message of b"));
        erase_in(&file, 0..tail.len() as u64, "a", 7).expect("erased");
        assert!(!left(b"secret of a") && !left(b"torn sec") && left(b"message of b"));
        erase_in(&file, 0..tail.len() as u64, "c", 7).expect("erased");
        assert!(left(b"message of b"), "it is whole, and of another topic");
    }
}

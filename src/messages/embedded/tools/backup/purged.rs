//! Overwrites purged messages in a copy, as the server does it in the log, so that no backup brings them back.

use std::{collections::BTreeMap, io, sync::Arc};

use bytes::{Bytes, BytesMut};

use super::{super::archive::Loaded, at, copies::Copies};
use crate::messages::embedded::{
    disk::Disk,
    format::{
        block::Identity,
        erased::{self, Stretch},
    },
    index::{cache::Cache, segment::Segment},
    recovery::directory::{Candidate, Files},
    tools::Error,
};

/// For each topic: messages after the first sequence up to the second are purged, and may not be overwritten yet.
pub type Owed = BTreeMap<Arc<str>, (u64, u64)>;

/// Overwrites purged messages in the segments of a copy. A segment that has some becomes a new file, because the backup
/// before may have the same one.
pub fn erase(copies: &mut Copies, log: Identity, owed: &Owed) -> Result<(), Error> {
    if owed.is_empty() {
        return Ok(());
    }
    let directory = copies.directory().to_path_buf();
    let cache = Cache::default();
    for candidate in Files::list(&Disk::Real, &directory, false)?.segments {
        let candidate = Candidate { salt: log.salt, ..candidate };
        if !may_hold(&candidate, &cache, owed).map_err(at(&candidate.path))? {
            continue;
        }
        let loaded =
            Loaded::read(&candidate, candidate.first_sequence, false).map_err(at(&candidate.path))?;
        if let Some(bytes) = without(&loaded, owed) {
            let name = candidate.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            copies.put_erased(name, &bytes)?;
        }
    }
    Ok(())
}

/// Whether a segment has purged messages, by its index. A segment without an index may have some.
fn may_hold(candidate: &Candidate, cache: &Cache, owed: &Owed) -> io::Result<bool> {
    let Some(footer) = candidate.footer else { return Ok(true) };
    let (path, file) = (candidate.path.clone(), candidate.file.clone());
    let Ok(segment) = Segment::sealed(path, file, candidate.first_sequence, 0, footer)? else {
        return Ok(true);
    };
    for (topic, (after, up_to)) in owed {
        let found = segment.postings_from(cache, topic, after + 1, |posting| posting.sequence <= *up_to)?;
        if found.is_ok_and(|postings| postings.is_empty()) {
            continue;
        }
        return Ok(true);
    }
    Ok(false)
}

/// The bytes of a segment with purged messages overwritten; `None` if there are none.
fn without(loaded: &Loaded, owed: &Owed) -> Option<Bytes> {
    let salt = loaded.scan.salt();
    let mut changes = Vec::new();
    for found in &loaded.scan.blocks {
        for Stretch { bytes, stamp, is_erased } in erased::to_erase(&found.block, salt, |entry| {
            let owed = found.block.topic(entry).and_then(|topic| owed.get(topic));
            owed.is_some_and(|(_, up_to)| entry.sequence <= *up_to)
        }) {
            if !is_erased {
                changes.push((found.body + bytes.start as u64..found.body + bytes.end as u64, stamp));
            }
        }
    }
    // Bytes that are no record may be of a purged message.
    let last_purged = owed.values().map(|(_, up_to)| *up_to).max().unwrap_or(0);
    let damage = loaded.scan.damage.iter().filter(|damage| damage.sequences.0 <= last_purged);
    changes.extend(damage.map(|damage| (damage.bytes.clone(), Vec::new())));
    if changes.is_empty() {
        return None;
    }
    let mut bytes = BytesMut::from(loaded.bytes.as_ref());
    for (range, stamp) in changes {
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        if let Some(bytes) = bytes.get_mut(at(range.start)..at(range.end)) {
            bytes.fill(0);
            if let Some(first) = bytes.get_mut(..stamp.len()) {
                first.copy_from_slice(&stamp);
            }
        }
    }
    Some(bytes.freeze())
}

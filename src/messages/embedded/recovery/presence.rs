//! Which segments must exist, and which of them do: compares the manifest and the links between segments with the files.

use std::io;

use super::directory::Candidate;
use crate::messages::embedded::format::{
    manifest::{Listed, Manifest},
    segment_header::Predecessor,
};

/// The segments that are there, and those that are not.
#[derive(Debug, Default)]
pub struct Presence {
    /// The segments that are there, in order: one for each candidate.
    pub present: Vec<Listed>,
    /// Segments that must exist and do not, in order. Without an end, the last one: it was the one that was written.
    pub lost: Vec<Listed>,
    /// There should be a manifest, and there is none.
    pub is_manifest_lost: bool,
    /// The log was closed: the last segment has all messages below this sequence.
    pub closed_at: Option<u64>,
}

impl Presence {
    /// Compares. `candidates` are in order, without those that a compacted one replaces.
    pub fn new(manifest: Option<&Manifest>, candidates: &[Candidate]) -> Self {
        let mut listed =
            manifest.map_or_else(Vec::new, |manifest| [&manifest.segments[..], &manifest.lost].concat());
        listed.sort_by_key(|listed| listed.first_sequence);
        let is_manifest_lost = manifest.is_none() && candidates.iter().any(has_link);
        let mut presence = Self { is_manifest_lost, ..Self::default() };
        for (place, candidate) in candidates.iter().enumerate() {
            let known = listing_of(candidate, &listed);
            presence.present.push(Listed {
                id: candidate.id().or_else(|| known.and_then(|known| known.id)),
                first_sequence: candidate.first_sequence,
                end: known
                    .and_then(|known| known.end)
                    .or_else(|| end_by(candidate, candidates.get(place + 1))),
            });
        }
        for listed in listed.iter().filter(|listed| !is_there(listed, candidates)) {
            presence.lose(*listed, candidates);
        }
        // Those below the newest listed one that are not listed were being removed, and so were those before them.
        let newest = listed.last().map_or(0, |newest| newest.first_sequence);
        let is_new = |candidate: &Candidate| is_manifest_lost || candidate.first_sequence > newest;
        for (place, _) in candidates.iter().enumerate().filter(|(_, candidate)| is_new(candidate)) {
            let missing = missing_before(place, candidates, is_manifest_lost);
            let is_listed =
                |missing: &Listed| missing.id.is_some() && listed.iter().any(|it| it.id == missing.id);
            if let Some(missing) = missing.filter(|missing| !is_listed(missing)) {
                presence.lose(missing, candidates);
            }
        }
        presence.lost.sort_by_key(|lost| lost.first_sequence);
        presence.lost.dedup();
        let last = listed.last().zip(candidates.last());
        let last = last.filter(|(listed, last)| is_file_of(listed, last) && last.footer.is_none());
        presence.closed_at = last.and_then(|(listed, _)| listed.end);
        presence
    }

    fn lose(&mut self, mut lost: Listed, candidates: &[Candidate]) {
        let next = candidates.partition_point(|candidate| candidate.first_sequence <= lost.first_sequence);
        lost.end = lost.end.or_else(|| candidates.get(next).map(|next| next.first_sequence));
        if lost.end.is_none_or(|end| end > lost.first_sequence) {
            self.lost.push(lost);
        }
    }

    /// Takes the last segment for one that is written again, if the log was closed and has all of it.
    pub fn open_again(&mut self, last: Option<&Candidate>) -> io::Result<()> {
        if let (Some(end), Some(candidate)) = (self.closed_at, last)
            && candidate.cut_at(end)?.is_none()
            && let Some(last) = self.present.last_mut()
        {
            last.end = None;
        }
        Ok(())
    }

    /// Whether the last segment that is there was the one that was written.
    pub fn is_last_open(&self) -> bool {
        self.present.last().is_some_and(|last| last.end.is_none()) && !self.is_newest_lost()
    }

    /// Whether the segment that was written last is lost.
    pub fn is_newest_lost(&self) -> bool {
        self.lost.iter().any(|lost| lost.end.is_none())
    }
}

fn has_link(candidate: &Candidate) -> bool {
    candidate.header.is_some_and(|header| header.link.is_some())
}

/// Whether a file is that of a listed segment. Where the header is damaged, the name decides.
fn is_file_of(listed: &Listed, candidate: &Candidate) -> bool {
    let is_same_id = candidate.header.is_none() || candidate.id() == listed.id;
    candidate.first_sequence == listed.first_sequence && is_same_id
}

/// The entry of a file in a list that is in order.
fn listing_of<'a>(candidate: &Candidate, listed: &'a [Listed]) -> Option<&'a Listed> {
    let start = listed.partition_point(|listed| listed.first_sequence < candidate.first_sequence);
    let same =
        listed.iter().skip(start).take_while(|listed| listed.first_sequence == candidate.first_sequence);
    { same }.find(|listed| is_file_of(listed, candidate))
}

/// Whether a segment has its file, or a compacted one has replaced it.
fn is_there(listed: &Listed, candidates: &[Candidate]) -> bool {
    let first = listed.first_sequence;
    let after = candidates.partition_point(|candidate| candidate.first_sequence <= first);
    let Some(candidate) = after.checked_sub(1).and_then(|place| candidates.get(place)) else { return false };
    let header = candidate.header.filter(|_| candidate.footer.is_some());
    is_file_of(listed, candidate) || header.is_some_and(|header| first <= header.replaces_up_to)
}

/// The end of a segment by the header of the next one.
fn end_by(candidate: &Candidate, next: Option<&Candidate>) -> Option<u64> {
    let next = next?;
    let before = next.header.and_then(|header| header.link?.predecessor);
    let is_it = |before: &Predecessor| {
        before.id == candidate.id() && before.first_sequence == candidate.first_sequence
    };
    Some(before.filter(is_it).map_or(next.first_sequence, |before| before.end))
}

/// The segment before a candidate, by its header, if it is missing. More may be missing before it.
fn missing_before(place: usize, candidates: &[Candidate], is_manifest_lost: bool) -> Option<Listed> {
    let Predecessor { id, first_sequence, end } = candidates.get(place)?.header?.link?.predecessor?;
    let missing = Listed { id, first_sequence, end: Some(end) };
    if is_there(&missing, candidates) {
        return None;
    }
    let before = place.checked_sub(1).and_then(|before| candidates.get(before));
    let first_sequence = match before {
        // Without an index, its records show where it ends.
        Some(before) => before.footer.map_or(first_sequence, |footer| footer.summary.last_sequence + 1),
        None if is_manifest_lost => 1,
        None => first_sequence,
    };
    Some(Listed { first_sequence, ..missing })
}

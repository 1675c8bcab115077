//! What the backup before has, and the log that was copied has lost. Such a backup may be the only good copy.

use std::{io, path::Path};

use super::{super::archive::Loaded, archive, at, copies::Copies};
use crate::messages::embedded::{
    disk::Disk,
    format::trim_points::{self, TrimPoints},
    recovery::directory::{Candidate, Files},
    tools::{Error, Fault, Finding},
};

/// Finds the faults of the log in `source` that a new copy of it has, and the backup before does not have. `faults` are
/// those of the files that are not segments, and of segments that are missing. `points` are the trim points of the copy.
pub fn find(
    source: &Path,
    copies: &Copies,
    points: &TrimPoints,
    faults: &[Finding],
) -> Result<Vec<Finding>, Error> {
    let before = copies.before();
    if before.files.is_empty() {
        return Ok(Vec::new());
    }
    // If it cannot be listed, no fault of it is known, and it is kept.
    let earlier = archive::list(&before.directory).ok();
    let known = earlier.as_ref().map_or_else(Vec::new, |files| archive::lost(&before.directory, files));
    let is_loss = |fault: &Fault| match fault {
        // The new copy has both copies of it.
        Fault::ManifestCopy | Fault::Copy(_) => false,
        Fault::TrimPoints(_) => before.files.keys().any(|name| name.starts_with(trim_points::NAME)),
        fault => is_below(fault, before.next_sequence),
    };
    let is_known = |known: &[Finding], fault: &Fault| known.iter().any(|known| is_same(&known.fault, fault));
    let losses = faults.iter().filter(|finding| is_loss(&finding.fault) && !is_known(&known, &finding.fault));
    let mut losses = losses.cloned().collect::<Vec<_>>();
    let earlier = earlier.map_or_else(Vec::new, |files| files.segments);
    for candidate in Files::list(&Disk::Real, copies.directory(), false)?.segments {
        let Some(name) = candidate.path.file_name() else { continue };
        let is_of_name = |earlier: &&Candidate| earlier.path.file_name() == Some(name);
        let Some(earlier) = earlier
            .iter()
            .find(is_of_name)
            .filter(|_| name.to_str().is_some_and(|name| copies.differs(name)))
        else {
            continue;
        };
        let damage = |candidate: &Candidate| damage(candidate, points).map_err(at(&candidate.path));
        let found = damage(&candidate)?;
        if found.is_empty() {
            continue;
        }
        let known = damage(earlier)?;
        let new =
            found.into_iter().filter(|finding| is_loss(&finding.fault) && !is_known(&known, &finding.fault));
        losses.extend(new.map(|finding| Finding { path: source.join(name), ..finding }));
    }
    Ok(losses)
}

/// The damage in a segment, without messages that are removed and may be half erased.
fn damage(candidate: &Candidate, points: &TrimPoints) -> io::Result<Vec<Finding>> {
    let path = &candidate.path;
    let mut findings = Loaded::read(candidate, candidate.first_sequence, false)?.damage(path, None);
    findings.retain(|finding| match &finding.fault {
        Fault::Message { sequence, topic } => {
            let point = points.topics.iter().find(|(name, _)| **name == **topic);
            point.is_none_or(|(_, point)| *sequence >= point.first_kept)
        }
        _ => true,
    });
    if candidate.header.is_none() {
        findings.push(Finding::new(path, None, Fault::Header));
    }
    Ok(findings)
}

/// Whether a fault is of sequences below `end`.
fn is_below(fault: &Fault, end: u64) -> bool {
    match fault {
        Fault::Lost { first, .. } | Fault::LostRange { first, .. } => *first < end,
        Fault::Message { sequence, .. } => *sequence < end,
        Fault::NoRecord { missing } => missing.is_some_and(|missing| missing.first.get() < end),
        _ => true,
    }
}

/// Whether two faults are the same one. The last sequence of a lost file may become known later.
fn is_same(one: &Fault, other: &Fault) -> bool {
    match (one, other) {
        (
            Fault::Lost { first: one, .. } | Fault::LostRange { first: one, .. },
            Fault::Lost { first: other, .. } | Fault::LostRange { first: other, .. },
        ) => one == other,
        _ => one == other,
    }
}

//! Copies of a log beside it: `cp app.log app.log.20261123` before a rotation must not give its lines twice. Everything here
//! blocks.

use std::{io, time::SystemTime};

use super::overlap::CommonPrefix;
use crate::lines::root::places::Sibling;

/// How much of a file is compared: longer ones are compared at their start alone.
const COMPARED_BYTES: u64 = 64 * 1024 * 1024;

/// Whether a file is a copy of another one as it was once.
///
/// A copy was born after what it equals was written: after the last write to the other one, or, if that grew since, while
/// it was written. A job that prints the same bytes again is no copy; it is for the caller to know by the names.
pub fn is_copy(copy: &Sibling, of: &Sibling) -> io::Result<bool> {
    let (size, whole) = (copy.metadata.len(), of.metadata.len());
    let (born, written) = (copy.identity.birth(), nanos(of.metadata.modified()?));
    let is_between = size < whole && of.identity.birth() <= born && born <= written;
    if copy.identity == of.identity
        || size == 0
        || born == 0
        || !(size == whole && born >= written || is_between)
    {
        return Ok(false);
    }
    let (Ok(copy), Ok(of)) = (copy.place.open(&copy.name), of.place.open(&of.name)) else { return Ok(false) };
    CommonPrefix::default().covers(&of, &copy, size.min(COMPARED_BYTES))
}

/// In nanoseconds since 1970.
pub fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

//! Seals a full segment: writes its index.

use std::{io, sync::Arc};

use super::compaction;
use crate::messages::embedded::{Shared, format::footer::TRAILER_BYTES, index::segment::Segment};

impl Shared {
    /// Writes the index of a segment after its blocks, and gives the unused room back.
    pub fn seal(&self, segment: &Arc<Segment>) -> io::Result<()> {
        // Only the blocks show damage, so a segment with damage gets no index, and is read at each start.
        let is_damaged = {
            let state = self.state();
            let next = state.segments.iter().find(|next| next.first_sequence > segment.first_sequence);
            let end = next.map_or(u64::MAX, |next| next.first_sequence);
            state.damaged.range(..end).any(|(_, to)| *to >= segment.first_sequence)
        };
        let Some(footer) = segment.to_footer().filter(|_| !is_damaged) else { return Ok(()) };
        let end = segment.blocks_end();
        // The trailer comes last, when the parts that it names are on disk: otherwise a power cut would look like damage.
        let (parts, trailer) = footer.split_at(footer.len().saturating_sub(TRAILER_BYTES));
        segment.file.write_all_at(parts, end)?;
        segment.file.set_len(end + footer.len() as u64)?;
        segment.file.sync()?;
        segment.file.write_all_at(trailer, end + parts.len() as u64)?;
        segment.file.sync()?;
        let sealed = compaction::sealed(segment)?;
        self.replace(segment.id, Arc::new(sealed));
        Ok(())
    }

    /// Replaces a segment by another.
    pub fn replace(&self, id: u64, with: Arc<Segment>) {
        let mut state = self.state_mut();
        if let Some(place) = state.segments.iter_mut().find(|segment| segment.id == id) {
            *place = with;
        }
    }
}

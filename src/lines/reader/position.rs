//! What a cursor of a reader holds.

use super::Reader;
use crate::lines::{
    history::rotation::Rotation,
    position::{Compressed, Position},
};

impl Reader {
    /// Where the reader is.
    pub(super) fn position(&self) -> Position {
        let (identity, checkpoint) = (self.rotation.identity(), self.checkpoint);
        let position = Position {
            path: self.path_checksum,
            directory: self.directory,
            identity,
            checkpoint,
            size: self.text_end(),
            compressed: compressed(&self.rotation),
            skip_to: self.skip_to,
            deleted: self.state.is_absent(),
            resume_at: self.state.resume_at().or_else(|| self.rotation.linked()),
            late: self.late.last().map(|late| (late.identity, late.checkpoint)),
            filter: None,
            record: None,
            written: self.written,
            is_copy: self.rotation.is_copy(),
        };
        let Some(paused) = self.state.skipping() else { return position };
        Position {
            identity: paused.rotation.identity(),
            checkpoint: paused.checkpoint,
            size: paused.tail.seen.unwrap_or(0).max(paused.checkpoint.line.offset),
            deleted: paused.state.is_absent(),
            resume_at: paused.rotation.linked(),
            late: Some((identity, checkpoint)),
            compressed: compressed(&paused.rotation),
            written: None,
            is_copy: paused.rotation.is_copy(),
            ..position
        }
    }
}

fn compressed(rotation: &Rotation) -> Option<Compressed> {
    rotation.archive().map(|_| Compressed { stored_offset: 0, content_offset: 0 })
}

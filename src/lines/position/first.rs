//! Version 1 of the cursor: its fingerprint covers at most 64 bytes before the offset, which do not prove a file without
//! its inode and its birth.

use serde::Deserialize;

use super::Position;
use crate::{
    cursor,
    lines::{
        content::{
            checkpoint::{Checkpoint, Fingerprint},
            hole::Holes,
            position::LinePosition,
        },
        identity::Identity,
    },
};

#[derive(Deserialize)]
struct First {
    path: u32,
    identity: Identity,
    checkpoint: FirstCheckpoint,
    skip_to: Option<u64>,
    deleted: bool,
    resume_at: Option<(Identity, FirstCheckpoint)>,
}

#[derive(Deserialize)]
struct FirstCheckpoint {
    line: LinePosition,
    before: FirstFingerprint,
    head: FirstFingerprint,
}

#[derive(Deserialize)]
struct FirstFingerprint {
    bytes: u8,
    checksum: u32,
}

/// See [`cursor::Position::DECODERS`].
pub fn decode(bytes: &[u8]) -> Option<Position> {
    cursor::decode_fields::<First>(bytes).map(Position::from)
}

impl From<First> for Position {
    fn from(first: First) -> Self {
        let First { path, identity, checkpoint, skip_to, deleted, resume_at } = first;
        let checkpoint = Checkpoint::from(checkpoint);
        Self {
            path,
            directory: None,
            identity,
            checkpoint,
            size: checkpoint.line.offset,
            compressed: None,
            skip_to,
            deleted,
            resume_at: resume_at.map(|(identity, checkpoint)| (identity, checkpoint.into())),
            late: None,
            filter: None,
            record: None,
            written: None,
            is_copy: false,
        }
    }
}

impl From<FirstCheckpoint> for Checkpoint {
    fn from(FirstCheckpoint { line, before, head }: FirstCheckpoint) -> Self {
        Self { line, before: before.into(), head: head.into(), holes: Holes::default() }
    }
}

impl From<FirstFingerprint> for Fingerprint {
    fn from(FirstFingerprint { bytes, checksum }: FirstFingerprint) -> Self {
        Self::known(u16::from(bytes), checksum)
    }
}

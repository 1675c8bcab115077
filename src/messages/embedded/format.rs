//! The bytes on disk, which `docs/log-format.md` describes.

pub mod block;
pub mod clock_history;
pub mod erased;
pub mod footer;
pub mod manifest;
pub mod scan;
pub mod segment_header;
pub mod trim_points;
pub mod twin;

//! The bytes on disk, which `docs/log-format.md` describes.

pub mod block;
pub mod footer;
pub mod scan;
pub mod trim_points;

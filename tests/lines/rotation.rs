//! Rotation: files that are renamed, truncated, replaced and deleted while they are read.

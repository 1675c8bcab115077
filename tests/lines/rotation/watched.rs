//! Watched.

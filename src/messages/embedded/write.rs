//! Writing: publishers queue requests, and one thread commits them in groups.

pub mod commit;
pub mod committer;
mod own_files;
mod place;
mod publish;
pub mod queue;

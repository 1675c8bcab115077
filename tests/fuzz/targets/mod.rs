//! The fuzz targets: each takes any bytes, gives them to a part that reads input of others, and panics at a fault.
//!
//! `tests/fuzz/main.rs` runs them over their corpora and over changes of these.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a target stops at its first surprise"
)]

mod archive;
mod compressed;
mod configuration;
mod cursor;
mod filter;
mod house;
mod jwt;
mod log;
mod path;
mod request;
mod rules;
mod terminal;
mod token;

pub use {archive::pack, log::config as log_config, request::METHODS};

/// What reads input.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of its corpus.
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// The most memory that one input may take, in bytes.
    pub most_memory: usize,
    /// Texts that mean something to it.
    pub words: &'static [&'static str],
}

const MIB: usize = 1024 * 1024;

pub const REQUEST: Target = Target { name: "request", run: request::run, most_memory: 64 * MIB, words: &[] };
pub const CURSOR: Target = Target { name: "cursor", run: cursor::run, most_memory: 64 * MIB, words: &[] };
pub const PATH: Target = Target { name: "path", run: path::run, most_memory: 64 * MIB, words: path::WORDS };
pub const FILTER: Target =
    Target { name: "filter", run: filter::run, most_memory: 64 * MIB, words: filter::WORDS };
pub const COMPRESSED: Target =
    Target { name: "compressed", run: compressed::run, most_memory: 96 * MIB, words: &["\u{1f}", "\u{8}"] };
pub const TOKEN: Target =
    Target { name: "token", run: token::run, most_memory: 16 * MIB, words: token::WORDS };
pub const JWT: Target = Target { name: "jwt", run: jwt::run, most_memory: 16 * MIB, words: jwt::WORDS };
pub const RULES: Target =
    Target { name: "rules", run: rules::run, most_memory: 64 * MIB, words: rules::WORDS };
pub const CONFIGURATION: Target = Target {
    name: "configuration",
    run: configuration::run,
    most_memory: 64 * MIB,
    words: configuration::WORDS,
};
pub const LOG: Target = Target { name: "log", run: log::run, most_memory: 64 * MIB, words: &[] };
pub const TERMINAL: Target =
    Target { name: "terminal", run: terminal::run, most_memory: 16 * MIB, words: terminal::WORDS };

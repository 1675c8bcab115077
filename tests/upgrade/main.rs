//! An upgrade loses nothing: today's server resumes every cursor, and serves every message, consumer and shared
//! countdown, of a server of commit 9cbe249.
//!
//! `tests/data/9cbe249` has that server's data directory, its root, and a file of facts: a cursor or a number a line,
//! with its name. [`make`] says how it was made.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

#[path = "../harness/mod.rs"]
mod harness;

mod countdowns;
mod lines;
mod make;
mod messages;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use harness::{Server, soon};
use perennial::{countdown, cursor};
use tempfile::TempDir;
use tonic::Streaming;

/// What the server of commit 9cbe249 left.
fn left() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/9cbe249")
}

/// Today's server over a copy of it, and the facts.
fn upgraded() -> (Server, Facts) {
    let directory = TempDir::new().unwrap();
    copy(&left(), directory.path());
    (Server::start_over_data(directory, None, &[]), Facts::read(&left()))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Cursors and numbers by their names.
#[derive(Debug, Default)]
struct Facts(BTreeMap<String, String>);

impl Facts {
    const FILE: &str = "facts";

    fn read(directory: &Path) -> Self {
        let text = fs::read_to_string(directory.join(Self::FILE)).unwrap();
        let fact = |line: &str| line.split_once(' ').map(|(name, fact)| (name.to_owned(), fact.to_owned()));
        Self(text.lines().map(|line| fact(line).unwrap()).collect())
    }

    fn write(&self, directory: &Path) {
        let line = |(name, fact): (&String, &String)| format!("{name} {fact}\n");
        fs::write(directory.join(Self::FILE), self.0.iter().map(line).collect::<String>()).unwrap();
    }

    #[expect(clippy::needless_pass_by_value, reason = "a fact is a text or a number")]
    fn note(&mut self, name: &str, fact: impl ToString) {
        self.0.insert(name.to_owned(), fact.to_string());
    }

    #[expect(clippy::unnecessary_wraps, reason = "the field of a request is optional")]
    fn cursor(&self, name: &str) -> Option<String> {
        Some(self.0[name].clone())
    }

    fn number<N: std::str::FromStr<Err: std::fmt::Debug>>(&self, name: &str) -> N {
        self.0[name].parse().unwrap()
    }
}

async fn next<T>(stream: &mut Streaming<T>) -> T {
    soon("a response", stream.message()).await.unwrap().expect("the stream goes on")
}

/// All responses of a stream that ends.
async fn all<T>(mut stream: Streaming<T>) -> Vec<T> {
    let mut all = Vec::new();
    while let Some(response) = soon("a response", stream.message()).await.unwrap() {
        all.push(response);
    }
    all
}

/// A cursor of a kind is decoded in full. `is_newest`: it is of the version that is written today.
fn check<P: cursor::Position + PartialEq + std::fmt::Debug>(facts: &Facts, name: &str, is_newest: bool) {
    let text = facts.cursor(name).unwrap();
    let position = cursor::decode::<P>(&text).unwrap();
    let again = cursor::encode(&position);
    assert_eq!(again == text, is_newest, "{name}");
    assert_eq!(cursor::decode::<P>(&again).unwrap(), position, "{name}");
}

#[test]
fn each_cursor_is_decoded_in_full_and_written_in_the_version_of_today() {
    let facts = Facts::read(&left());
    let is_cursor = |name: &&str| !name.contains("number") && !name.contains("last-gap");
    for name in facts.0.keys().map(String::as_str).filter(is_cursor) {
        match name.split_once('.').unwrap().0 {
            "countdown" => check::<countdown::Position>(&facts, name, true),
            "shared" => check::<countdown::shared::Position>(&facts, name, false),
            "lines" => check::<perennial::lines::Position>(&facts, name, false),
            "messages" => check::<perennial::messages::Position>(&facts, name, false),
            other => panic!("a cursor of {other}"),
        }
    }
}

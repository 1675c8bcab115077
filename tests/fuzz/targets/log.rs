//! A log of any files: it opens or is refused with a text, and every message that a reader gets is the one that was
//! published under its sequence, or is reported as missing.
//!
//! An input is an archive of the files of a directory. The text of each message in the corpus that is not removed begins with `#` and
//! its sequence.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use futures::StreamExt;
use perennial::{
    messages::{
        Config, Content, Event, Log, NewMessage, OnGap, Query, Start, Stop,
        tools::{self, Archive},
    },
    proto::{MessagesResponse, stored_message},
    stream::Batching,
};
use prost::Message;
use tempfile::TempDir;

use super::{
    archive::unpack,
    house::{answer, in_memory},
};

/// The most files of an input.
const MAX_FILES: usize = 40;

/// Small segments, so that a log of a few kilobytes has several.
pub fn config() -> Config {
    Config { segment_bytes: 4096, retention_interval: Duration::from_secs(3600), ..Config::default() }
}

pub fn run(bytes: &[u8]) {
    let directory = TempDir::new_in(in_memory()).unwrap();
    for (name, content) in unpack(bytes).into_iter().take(MAX_FILES) {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if !name.is_empty() && name.len() < 100 && name.bytes().all(is_plain) && !name.starts_with('.') {
            fs::write(directory.path().join(name), content).unwrap();
        }
    }
    tools(directory.path());
    answer("the log", open(directory.path()));
}

/// The tools that read a log at rest. A log that cannot be read is an error.
fn tools(directory: &Path) {
    let _ = tools::verify(directory, |finding| drop(finding.to_string()), |_, _| ());
    if let Ok(archive) = Archive::open(directory, &[]) {
        let _ = archive.stats(10);
    }
}

async fn open(directory: &Path) {
    let log = match Log::open(directory, config()) {
        Ok((log, _)) => log,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let newest = read(&log).await;
    let message =
        NewMessage { topic: "new".into(), content: Content::Text("new".into()), ..NewMessage::default() };
    match log.publish(message).await {
        Ok(published) => {
            let sequence = published.sequence.get();
            assert!(sequence > newest, "sequence {sequence} was given before: {newest} is the newest");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    log.close().await;
}

/// Reads everything, and returns the newest sequence.
async fn read(log: &Log) -> u64 {
    let query = Query {
        within: None,
        topics: vec![">".into()],
        start: Start::Earliest,
        stop: Stop { caught_up: true, ..Stop::default() },
        on_gap: OnGap::Skip,
        consumer: None,
        batching: Batching::default(),
    };
    let Ok(stream) = log.subscribe(query).await else { return 0 };
    let (mut stream, mut texts, mut missing) = (Box::pin(stream), BTreeMap::new(), Vec::new());
    while let Some(batch) = stream.next().await {
        let Ok(batch) = batch else { return texts.last_key_value().map_or(0, |(last, _)| *last) };
        for event in &batch.events {
            let (Event::Damaged(range) | Event::Removed(range) | Event::Diverged(range)) = event;
            missing.push(range.first.get()..=range.last.get());
        }
        let bytes = batch.items.concat();
        for message in MessagesResponse::decode(&bytes[..]).unwrap().messages {
            let sequence = u64::try_from(message.sequence.unwrap()).unwrap();
            let is_next = texts.last_key_value().is_none_or(|(last, _)| *last < sequence);
            assert!(is_next, "{sequence} comes after {:?}", texts.keys().last());
            let Some(stored_message::Content::Text(text)) = message.content else { continue };
            texts.insert(sequence, text);
        }
    }
    let of_corpus = |text: &str| text.strip_prefix('#')?.split(' ').next()?.parse::<u64>().ok();
    for (sequence, text) in &texts {
        let own = of_corpus(text);
        assert!(own.is_none_or(|own| own == *sequence), "{text:?} is served as {sequence}");
    }
    // In logs of the corpus no message was removed.
    if let Some((last, _)) = texts.iter().rfind(|(_, text)| of_corpus(text).is_some()) {
        let is_reported = |sequence: &u64| missing.iter().any(|range| range.contains(sequence));
        let silent = (1..*last).find(|sequence| !texts.contains_key(sequence) && !is_reported(sequence));
        assert_eq!(silent, None, "is missing in silence: {:?}, {missing:?}", texts.keys());
    }
    texts.last_key_value().map_or(0, |(last, _)| *last)
}

//! `perennial bench sub`: the rate of reading messages that exist.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use futures::StreamExt;
use perennial::{
    client::{Client, Error},
    proto::{MessagesRequest, OnGap, messages_request::Start},
};
use tokio::task::JoinSet;

use super::{all, latency::Latency, report::Row, watched};
use crate::{Failure, arguments::bench::Replay, output, payload::payload};

/// The results of one reader.
#[derive(Default)]
struct Read {
    messages: u64,
    bytes: u64,
    duplicates: u64,
    gaps: u64,
}

/// Reads all messages that match, with every reader.
pub async fn run(client: &Client, it: &Replay) -> Result<Row, Failure> {
    let count = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    let connections = it.readers.connect(client);
    let begun = Instant::now();
    for (client, _) in connections.iter().cycle().zip(0..it.readers.subscribers) {
        tasks.spawn(read(client.clone(), it.pattern.clone(), count.clone()));
    }
    let all = watched(&count, all(tasks)).await?;
    let wall = begun.elapsed();
    let sum = |field: fn(&Read) -> u64| all.iter().map(field).sum::<u64>();
    let (messages, gaps) = (sum(|it| it.messages), sum(|it| it.gaps));
    if messages == 0 {
        output::note(&format!("no message matches {}: publish some with `perennial bench pub`", it.pattern));
    }
    if gaps > 0 {
        output::note(&format!("{gaps} gaps: messages were removed or are damaged"));
    }
    Ok(Row {
        what: "deliver",
        messages,
        bytes: sum(|it| it.bytes),
        wall,
        latency: Latency::default(),
        lost: None,
        duplicates: sum(|it| it.duplicates),
    })
}

async fn read(client: Client, pattern: String, count: Arc<AtomicU64>) -> Result<Read, Error> {
    let request = MessagesRequest {
        topics: vec![pattern],
        start: Some(Start::Earliest(true)),
        until_caught_up: true,
        on_gap: OnGap::Skip.into(),
        ..MessagesRequest::default()
    };
    let mut stream = std::pin::pin!(client.messages(request).responses());
    let mut read = Read::default();
    let mut last = 0;
    while let Some(response) = stream.next().await {
        let response = response?;
        for message in &response.messages {
            let sequence = message.sequence.unwrap_or_default();
            read.duplicates += u64::from(sequence <= last);
            last = sequence;
            read.bytes += payload(message).len() as u64;
        }
        read.messages += response.messages.len() as u64;
        read.gaps += response.events.len() as u64;
        count.fetch_add(response.messages.len() as u64, Ordering::Relaxed);
    }
    Ok(read)
}

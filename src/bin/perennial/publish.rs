//! Publishes one message, or one a line of stdin.

use std::io::BufRead;

use futures::{Stream, StreamExt};
use perennial::{
    client::Client,
    proto::{PublishRequest, publish_request::Content, publish_result},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::{
    Failure, GRPC, INTERRUPTED,
    arguments::{Format, Publish},
    json,
    output::{self, Output},
};

/// Lines read ahead of the flow: enough for a full frame.
const LINES_READY: usize = 1_024;

/// Publishes one message, and prints its sequence.
pub async fn one(client: &Client, it: Publish, format: Format) -> Result<u8, Failure> {
    let content = Content::Text(it.text.clone().unwrap_or_default());
    let request =
        PublishRequest { message_id: it.id.clone(), expected_sequence: it.expect, ..message(&it, content) };
    let answer = client.publish(request).await?;
    let mut out = Output::new(format);
    match format {
        Format::Text | Format::Raw => {
            out.text(format!("{}\n", answer.sequence.unwrap_or_default()).as_bytes());
        }
        Format::Json | Format::Ndjson => out.object(&json::published(&answer))?,
    }
    out.flush()?;
    Ok(0)
}

fn message(it: &Publish, content: Content) -> PublishRequest {
    PublishRequest {
        topic: it.topic.clone(),
        content: Some(content),
        key: it.key.clone(),
        headers: it.headers.iter().cloned().collect(),
        ..PublishRequest::default()
    }
}

/// Publishes each line of stdin, and says on stderr how it went.
pub async fn flow(
    client: &Client,
    it: &Publish,
    format: Format,
    stop: CancellationToken,
) -> Result<u8, Failure> {
    // After Ctrl-C no more is read, and what was read is published.
    let messages = lines().map(|line| message(it, line)).take_until(stop.clone().cancelled_owned());
    let mut results = std::pin::pin!(client.publish_all(messages));
    let mut out = Output::new(format);
    let mut told = Summary::default();
    while let Some(result) = results.next().await {
        let result = result.inspect_err(|_| told.tell(&it.topic))?;
        match result.result {
            Some(publish_result::Result::Published(answer)) => {
                told.published += 1;
                told.duplicates += u64::from(answer.duplicate);
                told.last = answer.sequence;
                told.first = told.first.or(answer.sequence);
                if matches!(format, Format::Json | Format::Ndjson) {
                    out.object(&json::published(&answer))?;
                    out.relieve()?;
                }
            }
            Some(publish_result::Result::Error(error)) => {
                told.failed.get_or_insert(GRPC.saturating_add(u8::try_from(error.code).unwrap_or_default()));
                output::error(&format!("line {}: {} ({})", told.lines + 1, error.message, error.reason));
            }
            None => {}
        }
        told.lines += 1;
    }
    out.flush()?;
    told.tell(&it.topic);
    Ok(if stop.is_cancelled() { INTERRUPTED } else { told.failed.unwrap_or_default() })
}

#[derive(Default)]
struct Summary {
    lines: u64,
    published: u64,
    duplicates: u64,
    first: Option<i64>,
    last: Option<i64>,
    failed: Option<u8>,
}

impl Summary {
    fn tell(&self, topic: &str) {
        let mut text = format!("published {} of {} to {topic}", self.published, self.lines);
        if let Some((first, last)) = self.first.zip(self.last) {
            text.push_str(&format!(", sequences {first} to {last}"));
        }
        if self.duplicates > 0 {
            text.push_str(&format!(", {} of them were there already", self.duplicates));
        }
        output::note(&text);
    }
}

/// The lines of stdin, without their newline: read by a thread, because a read of a terminal cannot be cancelled.
fn lines() -> impl Stream<Item = Content> + Send {
    let (sender, receiver) = mpsc::channel(LINES_READY);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut line = Vec::new();
        loop {
            match stdin.read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => return output::error(&format!("stdin cannot be read: {error}")),
            }
            line.pop_if(|last| *last == b'\n');
            let content = match String::from_utf8(std::mem::take(&mut line)) {
                Ok(text) => Content::Text(text),
                Err(bytes) => Content::Data(bytes.into_bytes()),
            };
            if sender.blocking_send(content).is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

//! `perennial bench pubsub`: publishes to waiting subscribers, and measures deliveries, their age, and losses.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt};
use perennial::{
    client::{Client, Error},
    proto::{MessagesRequest, MessagesResponse},
};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    all,
    latency::Latency,
    message::{self, Head},
    publish,
    report::Row,
    watched,
};
use crate::{
    Failure,
    arguments::bench::{Fanout, Readers},
    output,
};

/// The longest wait for all subscriptions.
const SUBSCRIBE_LIMIT: Duration = Duration::from_secs(10);
/// After the last message was published, a message is lost if no message arrives for this time.
const SILENCE: Duration = Duration::from_secs(5);
/// The time between checks for the end, while a subscriber gets no message.
const LOOK: Duration = Duration::from_millis(500);

/// The progress of the publishers and of all subscribers.
struct Sent {
    run: u64,
    publishers: usize,
    /// The messages that each subscriber should get.
    expected: AtomicU64,
    is_over: AtomicBool,
    /// The messages that all subscribers got.
    count: AtomicU64,
}

/// The deliveries to one subscriber.
#[derive(Default)]
struct Got {
    messages: u64,
    duplicates: u64,
    ages: Latency,
    /// The last number from each publisher.
    last: Vec<u64>,
    /// The arrival of the last message.
    end: Option<Instant>,
}

/// Publishes to all subscribers, and returns a row for each side.
pub async fn run(client: &Client, it: &Fanout) -> Result<Vec<Row>, Failure> {
    let sent = Arc::new(Sent {
        run: message::now(),
        publishers: it.load.publishers.into(),
        expected: AtomicU64::new(it.load.messages),
        is_over: AtomicBool::new(false),
        count: AtomicU64::new(0),
    });
    let tasks = subscribe(client, it.readers, &sent).await?;
    let begun = Instant::now();
    let (published, got) = watched(&sent.count, async {
        let answered = Arc::new(AtomicU64::new(0));
        let published = publish::publish(client, &it.load, sent.run, answered).await?;
        sent.expected.store(published.acknowledged, Ordering::Relaxed);
        sent.is_over.store(true, Ordering::Relaxed);
        Ok::<_, Failure>((published, all(tasks).await?))
    })
    .await?;
    let expected = published.acknowledged * u64::from(it.readers.subscribers);
    let mut ages = Latency::default();
    for got in &got {
        ages.merge(&got.ages);
    }
    let messages = got.iter().map(|got| got.messages).sum::<u64>();
    let delivered = Row {
        what: "deliver",
        messages,
        bytes: messages * it.load.size as u64,
        // The silence at the end does not count.
        wall: got.iter().filter_map(|got| got.end).max().map_or(Duration::ZERO, |end| end - begun),
        latency: ages,
        lost: Some(expected.saturating_sub(messages)),
        duplicates: got.iter().map(|got| got.duplicates).sum(),
    };
    Ok(vec![published.row(&it.load), delivered])
}

type Subscribers = JoinSet<Result<Got, Error>>;

/// Starts all subscribers, and waits until each has its subscription.
async fn subscribe(client: &Client, readers: Readers, sent: &Arc<Sent>) -> Result<Subscribers, Failure> {
    let mut tasks = JoinSet::new();
    let (ready, mut arrived) = mpsc::unbounded_channel();
    let connections = readers.connect(client);
    for (client, _) in connections.iter().cycle().zip(0..readers.subscribers) {
        tasks.spawn(receive(client.clone(), sent.clone(), ready.clone()));
    }
    drop(ready);
    let mut there = 0;
    let waiting = async {
        while there < readers.subscribers && arrived.recv().await.is_some() {
            there += 1;
        }
    };
    if tokio::time::timeout(SUBSCRIBE_LIMIT, waiting).await.is_err() {
        output::error(&format!(
            "{there} of {} subscriptions were open after {SUBSCRIBE_LIMIT:?}: give more --connections, a server takes 256 \
             streams on each by default",
            readers.subscribers
        ));
        return Err(Failure::Reported(1));
    }
    Ok(tasks)
}

async fn receive(client: Client, sent: Arc<Sent>, ready: mpsc::UnboundedSender<()>) -> Result<Got, Error> {
    let request = MessagesRequest { topics: vec!["bench.*".into()], ..MessagesRequest::default() };
    let mut stream = std::pin::pin!(client.messages(request).responses());
    // The first response confirms the subscription.
    let mut next = stream.next().await;
    // The receiver may have given up.
    let _ = ready.send(());
    let mut got = Got { last: vec![0; sent.publishers], ..Got::default() };
    while let Some(response) = next {
        got.add(&response?, &sent);
        if got.messages >= sent.expected.load(Ordering::Relaxed) {
            break;
        }
        next = next_or_end(&mut stream, &sent, &got).await;
    }
    Ok(got)
}

/// The next response, or `None` after a silence of all subscribers: on a busy machine, one may wait long while others are
/// served.
async fn next_or_end<S: Stream + Unpin>(stream: &mut S, sent: &Sent, got: &Got) -> Option<S::Item> {
    let (mut count, mut quiet_since) = (0, Instant::now());
    loop {
        if let Ok(next) = tokio::time::timeout(LOOK, stream.next()).await {
            return next;
        }
        let now = sent.count.load(Ordering::Relaxed);
        if now != count {
            (count, quiet_since) = (now, Instant::now());
        }
        let is_over = sent.is_over.load(Ordering::Relaxed);
        let is_complete = is_over && got.messages >= sent.expected.load(Ordering::Relaxed);
        if is_complete || is_over && quiet_since.elapsed() >= SILENCE {
            return None;
        }
    }
}

impl Got {
    fn add(&mut self, response: &MessagesResponse, sent: &Sent) {
        let now = message::now();
        let before = self.messages;
        for head in response.messages.iter().filter_map(Head::of).filter(|head| head.run == sent.run) {
            let publisher = usize::try_from(head.publisher).unwrap_or(usize::MAX);
            let Some(last) = self.last.get_mut(publisher) else { continue };
            // The messages of a publisher arrive in the order of their numbers.
            if head.number <= *last {
                self.duplicates += 1;
                continue;
            }
            *last = head.number;
            self.messages += 1;
            self.ages.record(head.age(now));
        }
        if self.messages > before {
            self.end = Some(Instant::now());
            sent.count.fetch_add(self.messages - before, Ordering::Relaxed);
        }
    }
}

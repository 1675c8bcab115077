//! `perennial bench pub`: the rate of publishing, and the time until the acknowledgement.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_stream::stream;
use futures::{Stream, StreamExt};
use perennial::{
    client::{Client, Error},
    proto::{PublishResult, publish_result},
};
use tokio::task::JoinSet;

use super::{
    all,
    latency::Latency,
    message::{self, Maker},
    report::Row,
    watched,
};
use crate::{Failure, arguments::bench::Load, output};

/// The results of one publisher, or of all.
#[derive(Default)]
pub struct Published {
    pub acknowledged: u64,
    /// The messages that were answered with an error.
    pub failed: u64,
    /// The messages that the server had already, because a connection was lost.
    pub duplicates: u64,
    pub latency: Latency,
    pub wall: Duration,
    /// The first error.
    error: Option<String>,
}

/// Publishes, and returns the row.
pub async fn run(client: &Client, load: &Load) -> Result<Vec<Row>, Failure> {
    let count = Arc::new(AtomicU64::new(0));
    let published = watched(&count, publish(client, load, message::now(), count.clone())).await?;
    Ok(vec![published.row(load)])
}

/// Publishes a load with all its publishers; `count` grows with each answer.
pub async fn publish(
    client: &Client,
    load: &Load,
    run: u64,
    count: Arc<AtomicU64>,
) -> Result<Published, Failure> {
    let mut tasks = JoinSet::new();
    let publishers = u64::from(load.publishers);
    let begun = Instant::now();
    for n in 0..publishers {
        let client = client.apart().with_publish_window(load.in_flight.try_into().unwrap_or(usize::MAX));
        let share = load.messages / publishers + u64::from(n < load.messages % publishers);
        let numbers = numbers(share, load.rate.map(|rate| f64::from(load.publishers) / f64::from(rate)));
        let (maker, count) = (Maker::new(load, run, n), count.clone());
        let is_unary = load.unary;
        tasks.spawn(async move {
            if is_unary {
                unary(client, maker, numbers, count).await
            } else {
                flow(client, maker, numbers, count).await
            }
        });
    }
    let mut total = Published::default();
    for one in all(tasks).await? {
        total.acknowledged += one.acknowledged;
        total.failed += one.failed;
        total.duplicates += one.duplicates;
        total.latency.merge(&one.latency);
        total.error = total.error.or(one.error);
    }
    total.wall = begun.elapsed();
    if let Some(error) = &total.error {
        output::error(&format!("{} messages were refused; the first one: {error}", total.failed));
    }
    Ok(total)
}

/// Yields 1 to `count`, at once or one every `pace` seconds.
fn numbers(count: u64, pace: Option<f64>) -> impl Stream<Item = u64> + Send {
    stream!({
        let begun = tokio::time::Instant::now();
        let mut due = 0.0;
        for number in 1..=count {
            if let Some(pace) = pace {
                let at = begun + Duration::from_secs_f64(due);
                if at > tokio::time::Instant::now() {
                    tokio::time::sleep_until(at).await;
                }
                due += pace;
            }
            yield number;
        }
    })
}

async fn flow(
    client: Client,
    maker: Maker,
    numbers: impl Stream<Item = u64> + Send,
    count: Arc<AtomicU64>,
) -> Result<Published, Error> {
    let made = Arc::new(Mutex::new(VecDeque::new()));
    let times = made.clone();
    let messages = numbers.map(move |number| {
        times.lock().unwrap_or_else(PoisonError::into_inner).push_back(Instant::now());
        maker.message(number)
    });
    let mut published = Published::default();
    let mut results = std::pin::pin!(client.publish_all(messages));
    while let Some(result) = results.next().await {
        let made = made.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        published.add(result?, made.map_or(Duration::ZERO, |made| made.elapsed()));
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(published)
}

async fn unary(
    client: Client,
    maker: Maker,
    numbers: impl Stream<Item = u64> + Send,
    count: Arc<AtomicU64>,
) -> Result<Published, Error> {
    let mut published = Published::default();
    let mut numbers = std::pin::pin!(numbers);
    while let Some(number) = numbers.next().await {
        let message = maker.message(number);
        let made = Instant::now();
        let answer = publish_result::Outcome::Published(client.publish(message).await?);
        published.add(PublishResult { outcome: Some(answer) }, made.elapsed());
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(published)
}

impl Published {
    fn add(&mut self, result: PublishResult, latency: Duration) {
        match result.outcome {
            Some(publish_result::Outcome::Published(answer)) => {
                self.acknowledged += 1;
                self.duplicates += u64::from(answer.duplicate);
                self.latency.record(latency);
            }
            Some(publish_result::Outcome::Error(error)) => {
                self.failed += 1;
                self.error.get_or_insert(format!("{} ({})", error.message, error.reason().as_str_name()));
            }
            None => self.failed += 1,
        }
    }

    pub fn row(self, load: &Load) -> Row {
        Row {
            what: "publish",
            messages: self.acknowledged,
            bytes: self.acknowledged * load.size as u64,
            wall: self.wall,
            latency: self.latency,
            lost: Some(self.failed),
            duplicates: self.duplicates,
        }
    }
}

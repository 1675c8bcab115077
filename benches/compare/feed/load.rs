//! What is published: the same messages, as many in flight, to each server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

/// The size of a payload in bytes.
pub const SIZE: usize = 256;

/// How many topics the messages go to in turn.
pub const TOPICS: usize = 1_000;

/// A pattern that matches all of them.
pub const ALL: &str = "feed.>";

/// How many payloads differ.
const PAYLOADS: usize = 1_000;

/// How many messages wait for their answer when a log is filled: what one `PublishStream` may have by default.
const FILL_WINDOW: usize = 10_000;

/// How many messages are written together when a log is filled.
const FILL_FRAME: usize = 1_000;

/// Messages without end: their topics in turn, and payloads that do not compress.
#[derive(Clone)]
pub struct Messages {
    topics: Arc<[Bytes]>,
    payloads: Arc<[Bytes]>,
}

impl Messages {
    pub fn new(topics: usize, size: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(1);
        let mut payload = || -> Bytes {
            std::iter::repeat_with(|| random.u64(..).to_le_bytes()).flatten().take(size).collect()
        };
        Self {
            topics: (0..topics).map(|n| topic(n).into()).collect(),
            payloads: (0..PAYLOADS).map(|_| payload()).collect(),
        }
    }

    /// The topic and the payload of a message by its number.
    pub fn nth(&self, number: u64) -> (Bytes, Bytes) {
        let turn = |all: &[Bytes]| {
            let place = usize::try_from(number % (all.len() as u64)).unwrap_or_default();
            all.get(place).cloned().unwrap_or_default()
        };
        (turn(&self.topics), turn(&self.payloads))
    }
}

/// The name of a topic by its number.
pub fn topic(number: usize) -> String {
    format!("feed.{number:06}")
}

/// How a stream of messages is published.
#[derive(Clone)]
pub struct Load {
    /// The number of the first message.
    pub first: u64,
    /// How many at most.
    pub messages: u64,
    /// For how long at most.
    pub time: Duration,
    /// How many wait for their answer at most.
    pub window: usize,
    /// How many leave together at most: ours as a request, those of NATS as a write.
    pub frame: usize,
    /// From one message to the next; at full speed if unset.
    pub pace: Option<Duration>,
    /// The sequence that was acknowledged last.
    pub acknowledged: Arc<AtomicU64>,
}

impl Load {
    /// At full speed for a time.
    pub fn timed(time: Duration, window: usize, frame: usize) -> Self {
        Self { time, messages: u64::MAX, window, frame, ..Self::counted(0) }
    }

    /// This number of messages, as fast as possible.
    pub fn counted(messages: u64) -> Self {
        Self {
            first: 0,
            messages,
            time: Duration::MAX,
            window: FILL_WINDOW,
            frame: FILL_FRAME,
            pace: None,
            acknowledged: Arc::default(),
        }
    }

    /// The same for an empty server.
    pub fn again(&self) -> Self {
        Self { acknowledged: Arc::default(), ..self.clone() }
    }

    /// Notes an acknowledged sequence, which has to be higher than the one before.
    pub fn acknowledge(&self, sequence: u64) -> crate::Result<()> {
        let before = self.acknowledged.swap(sequence, Ordering::Relaxed);
        if sequence > before {
            Ok(())
        } else {
            Err(format!("sequence {sequence} was acknowledged after {before}").into())
        }
    }

    /// The sequence that was acknowledged last.
    pub fn last(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }
}

/// Which messages of a load may go now.
pub struct Flow<'a> {
    load: &'a Load,
    start: tokio::time::Instant,
    sent: u64,
    answered: u64,
}

impl<'a> Flow<'a> {
    pub fn new(load: &'a Load) -> Self {
        Self { load, start: tokio::time::Instant::now(), sent: 0, answered: 0 }
    }

    /// The numbers of the messages that go together now; none if the window is full or nothing is due.
    pub fn take(&mut self) -> std::ops::Range<u64> {
        let room = (self.load.window as u64).saturating_sub(self.sent - self.answered);
        let left = if self.start.elapsed() < self.load.time { self.load.messages - self.sent } else { 0 };
        let count = room.min(left).min(self.load.frame as u64).min(self.due());
        let from = self.load.first + self.sent;
        self.sent += count;
        from..from + count
    }

    /// How many more the pace allows by now.
    fn due(&self) -> u64 {
        let Some(pace) = self.load.pace else { return u64::MAX };
        let by_now = self.start.elapsed().as_nanos() / pace.as_nanos().max(1) + 1;
        u64::try_from(by_now).unwrap_or(u64::MAX).saturating_sub(self.sent)
    }

    /// Waits until the next message is due; for ever if it waits for an answer, or if there is no pace.
    pub async fn next_due(&self) {
        let is_full = self.sent - self.answered >= self.load.window as u64;
        match self.load.pace {
            Some(pace) if !is_full && !self.is_all_sent() => {
                let sent = u32::try_from(self.sent).unwrap_or(u32::MAX);
                tokio::time::sleep_until(self.start + pace * sent).await;
            }
            _ => std::future::pending().await,
        }
    }

    pub fn answer(&mut self, count: u64) {
        self.answered += count;
    }

    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// Nothing more will be sent.
    pub fn is_all_sent(&self) -> bool {
        self.sent == self.load.messages || self.start.elapsed() >= self.load.time
    }

    pub fn is_all_answered(&self) -> bool {
        self.is_all_sent() && self.sent == self.answered
    }
}

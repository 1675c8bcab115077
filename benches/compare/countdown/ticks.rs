//! The ticks of a server, whichever it is, as the client gets them.

use std::time::Duration;

use perennial::{
    cursor,
    proto::{CountdownRequest, OnLag, countdown_request::Target},
};
use prost::Message;
use prost_types::Timestamp;
use tonic::{Streaming, transport::Channel};

use crate::{
    Result,
    measure::{now, second_after},
    peer::{COUNTDOWN, Count, Tick},
    process::{Kind, call},
};

const OURS: &str = "/perennial.v1.CountdownService/Countdown";

/// More numbers than any run counts.
pub const FROM: i32 = 5_000_000;

/// Of a response of ours, what is measured: the rest is skipped, and takes no time of the cores that are shared.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    #[prost(message, repeated, tag = "1")]
    pub ticks: Vec<Due>,
    #[prost(string, tag = "3")]
    pub cursor: String,
    #[prost(message, optional, tag = "5")]
    pub sent_time: Option<Timestamp>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Due {
    #[prost(int32, tag = "1")]
    pub remaining: i32,
    #[prost(message, optional, tag = "3")]
    pub due_time: Option<Timestamp>,
}

/// How late the ticks were, in nanoseconds: when they left the server, and when they arrived.
#[derive(Debug, Default)]
pub struct Late {
    pub sent: Vec<i64>,
    pub arrived: Vec<i64>,
    /// The last one, counted from 0, and when it was due.
    pub last: (i64, i64),
}

impl Late {
    fn add(&mut self, remaining: i32, due: i64, sent: i64, after: i64) {
        self.last = (i64::from(FROM) - i64::from(remaining), due);
        if due >= after {
            self.sent.push(sent - due);
            self.arrived.push(now() - due);
        }
    }
}

/// When ticks are due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// An interval after the stream was opened, and so on.
    Own,
    /// On whole intervals of the clock.
    Shared,
}

/// A stream of ticks.
#[derive(Debug)]
pub enum Ticks {
    Ours(Streaming<Response>),
    Peer(Streaming<Tick>),
}

impl Ticks {
    /// Opens a stream that ticks once an interval.
    pub async fn open(kind: Kind, channel: &Channel, interval: Duration, phase: Phase) -> Result<Self> {
        let interval_nanos = i64::try_from(interval.as_nanos())?;
        Ok(if kind == Kind::Perennial {
            Self::Ours(call(channel, OURS, request(interval, phase)?).await?)
        } else {
            let start = if phase == Phase::Shared { second_after(now()) } else { 0 };
            Self::Peer(call(channel, COUNTDOWN, Count { from: FROM, interval_nanos, start }).await?)
        })
    }

    /// Reads the next response, and returns the number of its ticks.
    pub async fn next(&mut self, late: &mut Late, after: i64) -> Result<usize> {
        match self {
            Self::Ours(stream) => {
                let batch = stream.message().await?.ok_or("it ended")?;
                let sent = nanos(batch.sent_time);
                for tick in &batch.ticks {
                    late.add(tick.remaining, nanos(tick.due_time), sent, after);
                }
                Ok(batch.ticks.len())
            }
            Self::Peer(stream) => {
                let tick = stream.message().await?.ok_or("it ended")?;
                late.add(tick.remaining, tick.due, tick.sent, after);
                Ok(1)
            }
        }
    }

    /// Takes the ticks that are due from `after` on.
    pub async fn take(mut self, late: &mut Late, after: i64) -> Result<()> {
        loop {
            self.next(late, after).await?;
        }
    }
}

fn request(interval: Duration, phase: Phase) -> Result<CountdownRequest> {
    Ok(CountdownRequest {
        target: Some(Target::Start(FROM)),
        interval: Some(interval.try_into()?),
        align: phase == Phase::Shared,
        ..Default::default()
    })
}

/// The request of a client that was cut this long ago. The cursor is the server's own, moved back.
#[derive(serde::Deserialize, serde::Serialize)]
struct Position {
    start: i128,
    interval: u64,
    from: i32,
    step: i32,
    count: u64,
    pinned: bool,
    next: u64,
}

impl cursor::Position for Position {
    const KIND: cursor::Kind = cursor::Kind::Countdown;
    const DECODERS: &'static [cursor::Decoder<Self>] = &[cursor::decode_fields];
}

/// Opens a stream that has missed this number of ticks, and delivers all of them.
pub async fn open_after(kind: Kind, channel: &Channel, interval: Duration, missed: i32) -> Result<Ticks> {
    let nanos = i64::try_from(interval.as_nanos())? * i64::from(missed);
    if kind != Kind::Perennial {
        let count =
            Count { from: FROM, interval_nanos: interval.as_nanos().try_into()?, start: now() - nanos };
        return Ok(Ticks::Peer(call(channel, COUNTDOWN, count).await?));
    }
    let request = request(interval, Phase::Own)?;
    let mut stream: Streaming<Response> = call(channel, OURS, request.clone()).await?;
    let cursor = stream.message().await?.ok_or("it ended")?.cursor;
    drop(stream);
    let mut position: Position = cursor::decode(&cursor)?;
    position.start -= i128::from(nanos);
    let cursor = Some(cursor::encode(&position));
    let request = CountdownRequest { cursor, on_lag: OnLag::Burst.into(), ..request };
    Ok(Ticks::Ours(call(channel, OURS, request).await?))
}

fn nanos(time: Option<Timestamp>) -> i64 {
    time.map_or(0, |time| time.seconds * 1_000_000_000 + i64::from(time.nanos))
}

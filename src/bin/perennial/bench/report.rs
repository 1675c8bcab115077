//! The results of a run, as a table or as objects.

use std::time::Duration;

use indicatif::HumanCount;
use serde_json::{Value, json};

use super::latency::Latency;
use crate::{Failure, arguments::Format, output::Output};

/// One side of a run.
pub struct Row {
    pub what: &'static str,
    pub messages: u64,
    /// The bytes of payload.
    pub bytes: u64,
    pub wall: Duration,
    pub latency: Latency,
    /// The messages that should have arrived and did not, or `None` if that is not known.
    pub lost: Option<u64>,
    pub duplicates: u64,
}

const COLUMNS: [&str; 10] =
    ["", "messages", "time", "messages/s", "MB/s", "p50", "p99", "max", "lost", "duplicates"];

/// Prints the rows. A loss or a duplicate is a failure.
pub fn print(rows: &[Row], format: Format) -> Result<u8, Failure> {
    let mut out = Output::new(format);
    match format {
        Format::Json | Format::Ndjson => rows.iter().try_for_each(|row| out.object(&row.object()))?,
        Format::Text | Format::Raw => {
            let cells = rows.iter().map(Row::cells).collect::<Vec<_>>();
            let head = COLUMNS.map(str::to_owned);
            let width =
                |n: usize| cells.iter().chain([&head]).filter_map(|row| row.get(n)).map(String::len).max();
            for row in [&head].into_iter().chain(&cells) {
                let mut line = String::new();
                for (n, cell) in row.iter().enumerate() {
                    let width = width(n).unwrap_or_default();
                    line.push_str(&if n == 0 {
                        format!("{cell:width$}")
                    } else {
                        format!("  {cell:>width$}")
                    });
                }
                out.text(line.as_bytes());
                out.buffer.push(b'\n');
            }
        }
    }
    out.flush()?;
    Ok(u8::from(rows.iter().any(|row| row.lost.is_some_and(|lost| lost > 0) || row.duplicates > 0)))
}

impl Row {
    fn cells(&self) -> [String; 10] {
        let latency = |latency: Option<Duration>| {
            latency.map_or_else(|| "-".into(), |it| format!("{:.2} ms", millis(it)))
        };
        [
            self.what.into(),
            HumanCount(self.messages).to_string(),
            format!("{:.2} s", self.wall.as_secs_f64()),
            HumanCount(whole(self.a_second(self.messages))).to_string(),
            format!("{:.1}", self.a_second(self.bytes) / 1e6),
            latency(self.latency.percentile(50.0)),
            latency(self.latency.percentile(99.0)),
            latency(self.latency.max()),
            self.lost.map_or_else(|| "-".into(), |lost| HumanCount(lost).to_string()),
            HumanCount(self.duplicates).to_string(),
        ]
    }

    fn object(&self) -> Value {
        json!({
            "what": self.what,
            "messages": self.messages,
            "bytes": self.bytes,
            "seconds": self.wall.as_secs_f64(),
            "messagesPerSecond": self.a_second(self.messages),
            "bytesPerSecond": self.a_second(self.bytes),
            "p50Ms": self.latency.percentile(50.0).map(millis),
            "p99Ms": self.latency.percentile(99.0).map(millis),
            "maxMs": self.latency.max().map(millis),
            "lost": self.lost,
            "duplicates": self.duplicates,
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "counts and bytes stay far below 2^52")]
    fn a_second(&self, count: u64) -> f64 {
        let seconds = self.wall.as_secs_f64();
        if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is not negative, and its fraction is not shown"
)]
fn whole(rate: f64) -> u64 {
    rate as u64
}

//! Medians, percentiles, and tables in Markdown.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A random time from the first to the second, to the microsecond.
pub fn between(random: &mut fastrand::Rng, (least, most): (Duration, Duration)) -> Duration {
    let range = u64::try_from(most.saturating_sub(least).as_micros()).unwrap_or(u64::MAX);
    least + Duration::from_micros(random.u64(..=range))
}

/// One cost an item, in nanoseconds.
pub fn each(total: Duration, items: u64) -> f64 {
    total.as_secs_f64() * 1e9 / to_f64(items.max(1))
}

/// A count as what it is divided by.
#[expect(clippy::cast_precision_loss, reason = "counts and byte sizes stay far below 2^52")]
pub fn to_f64(count: u64) -> f64 {
    count as f64
}

/// The middle one; of an even number, the upper of the two.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The value that this part of the values, in per cent, does not exceed.
pub fn percentile(sorted: &[i64], per_cent: usize) -> i64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * per_cent / 100).copied().unwrap_or_default()
}

/// Nanoseconds in the unit in which one thinks of a tick.
pub fn milliseconds(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    format!("{sign}{:.2} ms", Duration::from_nanos(nanos.unsigned_abs()).as_secs_f64() * 1e3)
}

/// Ours, of theirs.
pub fn ratio(ours: f64, theirs: f64) -> String {
    format!("{:.2}", ours / theirs)
}

/// The next whole second of the clock but one, in nanoseconds.
pub fn second_after(nanos: i64) -> i64 {
    (nanos / 1_000_000_000 + 2) * 1_000_000_000
}

/// Bytes in the unit in which one thinks of a stream.
pub fn kib(bytes: f64) -> String {
    format!("{:.1} KiB", bytes / 1024.0)
}

/// Prints the head of a table.
pub fn head(title: &str, columns: &[&str]) {
    println!("\n### {title}\n\n| {} |", columns.join(" | "));
    println!("|{}|", vec!["---"; columns.len()].join("|"));
}

/// Prints a row of a table.
pub fn row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

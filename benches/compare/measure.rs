//! Medians, percentiles, and tables in Markdown.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
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

/// The value, in milliseconds, that so many per cent of the nanoseconds don't exceed.
pub fn percentile(sorted: &[i64], per_cent: usize) -> String {
    let last = sorted.len().saturating_sub(1);
    let value = sorted.get(last * per_cent / 100).copied().unwrap_or_default();
    format!(
        "{:.2} ms",
        Duration::from_nanos(value.unsigned_abs()).as_secs_f64() * 1e3 * f64::from(sign(value))
    )
}

fn sign(value: i64) -> i8 {
    if value < 0 { -1 } else { 1 }
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

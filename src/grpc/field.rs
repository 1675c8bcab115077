//! Conversions of fields that several requests share. Each error names the field, the fault, and a good value.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use prost::{Message, length_delimiter_len};

use super::status::{self, Failure};
use crate::{
    countdown::Nanos,
    cursor::{self, Kind},
    messages::Sequence,
    proto::{self, ErrorReason},
    stream::Batching,
};

/// The range of `page_size`.
const PAGE_SIZES: std::ops::RangeInclusive<i32> = 1..=10_000;

/// The default of `page_size`.
const PAGE_SIZE: usize = 1_000;

/// A page ends when its items have this many bytes: stock clients accept responses of up to 4 MiB.
const PAGE_BYTES: usize = 1024 * 1024;

/// The nanoseconds of a second.
const NANOS: u32 = 1_000_000_000;

/// The most seconds of a `google.protobuf.Duration`: about 10,000 years.
const MAX_SECONDS: u64 = 315_576_000_000;

/// The last second of a `google.protobuf.Timestamp`: 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

/// The fields that say how a stream is divided into batches.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    /// `limit`
    pub limit: Option<i64>,
    /// `heartbeat`
    pub heartbeat: Option<prost_types::Duration>,
    /// `max_batch`
    pub max_batch: Option<i32>,
}

/// How a stream is divided into batches; `defaults` holds for fields that are not set.
pub fn batching(fields: Fields, defaults: Batching) -> Result<Batching, Failure> {
    let Fields { limit, heartbeat, max_batch } = fields;
    let heartbeat = heartbeat.map(|it| duration(it, "heartbeat", status::HEARTBEAT)).transpose()?;
    Ok(Batching::new(limit, heartbeat, max_batch, defaults)?)
}

/// A number that the contract has signed, as most languages have no other, and the domains have not.
pub fn number<S, U>(value: S, field: &str) -> Result<U, Failure>
where
    S: Copy + std::fmt::Display,
    U: TryFrom<S>,
{
    U::try_from(value).map_err(|_| Failure::field(field, format!("is {value}: it must not be negative")))
}

/// The sequence of a message.
pub fn sequence(value: i64, field: &str) -> Result<Sequence, Failure> {
    let sequence = u64::try_from(value).ok().and_then(Sequence::new);
    sequence.ok_or_else(|| Failure::field(field, format!("is {value}: sequences begin at 1")))
}

/// A duration that is valid and not negative; `range` ends the error text. The conversions of prost-types are not used,
/// because they normalise the parts, which overflows for some values that a client can send.
pub fn duration(duration: prost_types::Duration, field: &str, range: &str) -> Result<Duration, Failure> {
    let prost_types::Duration { seconds, nanos } = duration;
    if seconds.unsigned_abs() > MAX_SECONDS {
        let text = format!("is {seconds} s, which is out of range for a duration: {range}");
        return Err(Failure::field(field, text));
    }
    if nanos.unsigned_abs() >= NANOS || seconds.signum() * i64::from(nanos.signum()) < 0 {
        let text = format!("has {nanos} nanoseconds beside {seconds} seconds, which is not valid: {range}");
        return Err(Failure::field(field, text));
    }
    let negative = || Failure::field(field, format!("is {}: {range}", show(&duration)));
    let seconds = u64::try_from(seconds).map_err(|_| negative())?;
    let nanos = u32::try_from(nanos).map_err(|_| negative())?;
    Ok(Duration::new(seconds, nanos))
}

/// A duration as text, valid or not.
pub fn show(duration: &prost_types::Duration) -> String {
    let prost_types::Duration { seconds, nanos } = duration;
    let nanoseconds = i128::from(*seconds) * 1_000_000_000 + i128::from(*nanos);
    if nanoseconds % 1_000_000_000 == 0 {
        format!("{} s", nanoseconds / 1_000_000_000)
    } else if nanoseconds % 1_000_000 == 0 {
        format!("{} ms", nanoseconds / 1_000_000)
    } else {
        format!("{nanoseconds} ns")
    }
}

/// A length as a duration. Seconds and nanoseconds have the same sign.
pub fn signed_duration(length: impl Into<Nanos>) -> prost_types::Duration {
    let nanos = length.into().get();
    let seconds =
        i64::try_from(nanos / i128::from(NANOS)).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX });
    prost_types::Duration { seconds, nanos: i32::try_from(nanos % i128::from(NANOS)).unwrap_or(0) }
}

/// A moment from 1970 to 9999.
pub fn time(time: prost_types::Timestamp, field: &str) -> Result<SystemTime, Failure> {
    let fault = || {
        Failure::field(field, "is not a time from 1970 to 9999: write RFC 3339, as in 2026-11-23T18:00:00Z")
    };
    let prost_types::Timestamp { seconds, nanos } = time;
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds <= LAST_SECOND).ok_or_else(fault)?;
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < NANOS).ok_or_else(fault)?;
    Ok(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos))
}

/// The position in the cursor of a request.
pub fn position<P: cursor::Position>(text: &str) -> Result<P, Failure> {
    cursor::decode(text).map_err(|error| {
        let method = match P::KIND {
            Kind::Countdown => "Countdown without a `name`",
            Kind::Shared => "Countdown with a `name`",
            Kind::Lines => "ReadLines",
            Kind::Messages => "Messages",
            Kind::Files => "WatchFiles",
        };
        let text = format!("is {error}: give one as it came in a response of {method}, unchanged");
        Failure::field("cursor", text).with_reason(ErrorReason::CursorMalformed)
    })
}

/// Whether a stream continues after a gap.
pub fn skips_gaps(on_gap: i32) -> Result<bool, Failure> {
    match proto::OnGap::try_from(on_gap) {
        Ok(proto::OnGap::Unspecified | proto::OnGap::Fail) => Ok(false),
        Ok(proto::OnGap::Skip) => Ok(true),
        Err(unknown) => {
            let text = format!("is {}: it must be ON_GAP_FAIL or ON_GAP_SKIP", unknown.0);
            Err(Failure::field("on_gap", text))
        }
    }
}

/// The number of items of a page.
pub fn page_size(page_size: Option<i32>) -> Result<usize, Failure> {
    match page_size {
        None => Ok(PAGE_SIZE),
        Some(size) if PAGE_SIZES.contains(&size) => Ok(usize::try_from(size).unwrap_or(PAGE_SIZE)),
        Some(size) => Err(Failure::field("page_size", format!("is {size}: it must be from 1 to 10,000"))),
    }
}

/// The first items, up to [`PAGE_BYTES`] and at least one, and the name after which the next page begins. `next` is that
/// name if all items are on the page; `name` is the name of an item.
pub fn page<M: Message>(
    mut items: Vec<M>,
    next: Option<String>,
    name: impl Fn(&M) -> &String,
) -> (Vec<M>, Option<String>) {
    let mut bytes = 0;
    let fits = items.iter().take_while(|item| {
        let length = item.encoded_len();
        bytes += 1 + length_delimiter_len(length) + length;
        bytes <= PAGE_BYTES
    });
    let count = fits.count().max(1);
    if count >= items.len() {
        return (items, next);
    }
    items.truncate(count);
    let next = items.last().map(|item| name(item).clone());
    (items, next)
}

/// The token of the page after a name; empty if there is no further page.
pub fn page_token(next: Option<String>) -> String {
    next.map(|name| URL_SAFE_NO_PAD.encode(name)).unwrap_or_default()
}

/// The name in the token of a page; `None` for the first page.
pub fn page_after(token: &str) -> Result<Option<String>, Failure> {
    if token.is_empty() {
        return Ok(None);
    }
    let name = URL_SAFE_NO_PAD.decode(token).ok().and_then(|name| String::from_utf8(name).ok());
    let fault = || {
        Failure::field(
            "page_token",
            "is not valid: give `next_page_token` of the previous response, unchanged",
        )
    };
    name.map(Some).ok_or_else(fault)
}

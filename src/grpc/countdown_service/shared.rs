//! Conversions of shared countdowns: from requests to changes, and from states to messages.

use super::super::{
    field::{self, signed_duration},
    status::Failure,
};
use crate::{
    access::{Kind, Rights, Verb},
    countdown::{
        Moment, Nanos,
        shared::{self, Change, OnEnd, Phase, Snapshot, Spec, Target},
    },
    messages::Content,
    proto::{self, create_countdown_request, end_message},
};

/// The name and the specification of a countdown to create.
pub fn spec(request: proto::CreateCountdownRequest) -> Result<(String, Spec), Failure> {
    use create_countdown_request::Target as Asked;
    let proto::CreateCountdownRequest { name, target, to, step, interval, on_end, request_id } = request;
    let target = match target {
        Some(Asked::Duration(duration)) => {
            let range = "it must be above zero, and up to 10 years by default";
            Some(Target::For(field::duration(duration, "duration", range)?))
        }
        Some(Asked::UntilTime(until)) => Some(Target::Until(field::time(until, "until_time")?)),
        Some(Asked::Start(start)) => Some(Target::From(start)),
        None => None,
    };
    let (interval, on_end) = (super::interval(interval)?, on_end.map(self::on_end));
    let request = shared::Request { target, to, step, interval, on_end, request_id };
    Ok((name, request.spec()?))
}

fn on_end(message: proto::EndMessage) -> OnEnd {
    let proto::EndMessage { topic, key, headers, content } = message;
    let content = match content {
        None => Content::default(),
        Some(end_message::Content::Text(text)) => Content::Text(text),
        Some(end_message::Content::Data(data)) => Content::Data(data.into()),
    };
    let mut headers = headers.into_iter().collect::<Vec<_>>();
    headers.sort();
    OnEnd { topic, key, headers, content }
}

/// The version that the countdown must have.
pub fn version(version: Option<i64>) -> Result<Option<u64>, Failure> {
    let positive = |version: i64| {
        let number = u64::try_from(version).ok().filter(|number| *number > 0);
        number.ok_or_else(|| Failure::field("version", format!("is {version}: it must be 1 or more")))
    };
    version.map(positive).transpose()
}

/// How far to move an end.
pub fn by(by: Option<prost_types::Duration>) -> Result<Nanos, Failure> {
    let Some(by) = by else {
        let text =
            "is not set: say how far to move the end, as in \"60s\", or \"-60s\" to bring the end forward";
        return Err(Failure::field("by", text));
    };
    let prost_types::Duration { seconds, nanos } = by;
    let is_valid = nanos.unsigned_abs() < 1_000_000_000 && seconds.signum() * i64::from(nanos.signum()) >= 0;
    if !is_valid {
        return Err(Failure::field("by", "is not valid: seconds and nanoseconds must have the same sign"));
    }
    Ok(Nanos::from_secs(seconds.into()) + Nanos::new(nanos.into()))
}

/// The state of a countdown at a moment. Its message is shown only to a caller that may read or publish messages of its
/// topic.
pub fn countdown(snapshot: &Snapshot, now: Moment, rights: &Rights) -> proto::Countdown {
    let Snapshot { name, version, record, .. } = snapshot;
    let is_shown = |on_end: &&OnEnd| {
        let may = |verb| rights.allow_one(verb, Kind::Topic, &on_end.topic);
        may(Verb::Publish) || may(Verb::Subscribe)
    };
    let time = |time: jiff::Timestamp| Some(std::time::SystemTime::from(time).into());
    let (state, end_time, remaining) = match record.phase {
        Phase::Running { end_time, .. } => {
            (proto::CountdownState::Running, time(end_time), (Moment::from(end_time) - now).max(Nanos::ZERO))
        }
        Phase::Paused { remaining } => (proto::CountdownState::Paused, None, remaining.into()),
        Phase::Ended { end_time, .. } => (proto::CountdownState::Ended, time(end_time), Nanos::ZERO),
        Phase::Cancelled { remaining } => (proto::CountdownState::Cancelled, None, remaining.into()),
        // The state of a deleted countdown is never sent.
        Phase::Deleted => (proto::CountdownState::Unspecified, None, Nanos::ZERO),
    };
    proto::Countdown {
        name: name.to_string(),
        state: state.into(),
        version: Some(signed(*version)),
        end_time,
        remaining_duration: Some(signed_duration(remaining)),
        total_duration: Some(signed_duration(record.total)),
        interval: Some(signed_duration(record.interval)),
        to: Some(record.to),
        step: Some(record.step),
        create_time: time(record.create_time),
        update_time: time(record.update_time),
        on_end: record.on_end.as_ref().filter(is_shown).map(message),
    }
}

fn message(on_end: &OnEnd) -> proto::EndMessage {
    let OnEnd { topic, key, headers, content } = on_end.clone();
    let content = match content {
        Content::Text(text) => end_message::Content::Text(text),
        Content::Data(data) => end_message::Content::Data(data.into()),
    };
    proto::EndMessage { topic, key, headers: headers.into_iter().collect(), content: Some(content) }
}

/// A change as an event.
pub fn changed(change: Change, previous_version: u64, version: u64) -> proto::CountdownChanged {
    let change = match change {
        Change::Created => proto::CountdownChange::Created,
        Change::Paused => proto::CountdownChange::Paused,
        Change::Resumed => proto::CountdownChange::Resumed,
        Change::Extended => proto::CountdownChange::Extended,
        Change::Cancelled => proto::CountdownChange::Cancelled,
        Change::Ended => proto::CountdownChange::Ended,
        // The stream ends with an error instead.
        Change::Deleted => proto::CountdownChange::Unspecified,
    };
    proto::CountdownChanged {
        change: change.into(),
        previous_version: Some(signed(previous_version)),
        version: Some(signed(version)),
        by: None,
    }
}

/// A version, or a count of ticks, in the type of the contract.
#[expect(clippy::expect_used, reason = "another number would be wrong data")]
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("a record with a larger number is not read from the log")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn an_end_moves_by_any_duration_whose_parts_have_one_sign() {
        let by = |seconds, nanos| by(Some(prost_types::Duration { seconds, nanos }));
        for (seconds, nanos) in
            [(0, 0), (60, 0), (-60, -1), (0, -1), (i64::MAX, 999_999_999), (i64::MIN, -999_999_999)]
        {
            let expected = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
            assert_eq!(by(seconds, nanos).unwrap().get(), expected);
        }
        for (seconds, nanos) in [(1, -1), (i64::MAX, -1), (i64::MIN, 1), (0, 1_000_000_000), (1, i32::MIN)] {
            assert!(by(seconds, nanos).is_err(), "{seconds} s and {nanos} ns");
        }
    }
}

//! Measures how much of each segment is still needed.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::messages::{
    embedded::{
        Shared,
        age::Moment,
        format::trim_points::TrimPoint,
        index::{live::Live, segment::Segment},
        read::fetch::retrying,
    },
    topic,
};

/// How long segments are measured in one run of retention: a tenth of the usual pause between two runs.
const MEASURING: Duration = Duration::from_secs(2);

/// The size of the messages of a segment that are neither removed nor expired, and the size of all. The first is an estimate:
/// if a topic is removed in part, it goes by the sequences.
pub fn live_bytes(shared: &Shared, segment: &Segment, moment: &Moment) -> io::Result<(u64, u64)> {
    let measured = measure_one(shared, segment, moment)?;
    Ok((measured.left, measured.all))
}

fn measure_one(shared: &Shared, segment: &Segment, moment: &Moment) -> io::Result<Live> {
    let boot = shared.timeline.boot();
    let epoch = shared.state().topics.removal_epoch();
    let (mut live, mut all, mut next_expiry, mut is_purged) = (0, 0, u64::MAX, true);
    let mut place = 0;
    while let Some(slice) = shared.sound(segment.slice(&shared.cache, place), segment)? {
        place += 1;
        let state = shared.state();
        slice.for_each(|name, held| {
            let TrimPoint { first_kept, purged_up_to, .. } = state.topics.trim_point(name);
            // The records of consumers have no message ids, and a purge does not remove them.
            is_purged &= topic::is_of_consumer(name) || purged_up_to >= held.last.sequence;
            let sequences = held.first.sequence..=held.last.sequence;
            // In doubt, all messages count as alive; but where nothing expires, a later look finds nothing new.
            let has_expired = moment.have_all_expired(sequences.clone(), held.all_expired);
            if !has_expired && held.all_expired != 0 {
                let left = moment.until_all_expired(sequences, held.all_expired);
                next_expiry = next_expiry.min(boot.saturating_add(left));
            }
            let bytes = if has_expired { held.bytes - held.expiring_bytes } else { held.bytes };
            all += held.bytes;
            live += if first_kept > held.last.sequence {
                0
            } else if first_kept <= held.first.sequence {
                bytes
            } else {
                let (left, all) =
                    (held.last.sequence - first_kept + 1, held.last.sequence - held.first.sequence + 1);
                (u128::from(bytes) * u128::from(left) / u128::from(all)).max(1).try_into().unwrap_or(bytes)
            };
        });
    }
    Ok(Live { left: live, all, epoch, next_expiry, is_purged })
}

/// No topic holds a message with a lower sequence.
pub fn oldest_kept(shared: &Shared) -> u64 {
    // A topic that begins meanwhile begins with a higher sequence.
    let mut oldest = shared.head.borrow().saturating_add(1);
    shared.for_each_topic(|_, _, topic| oldest = oldest.min(topic.held.first.sequence));
    oldest
}

/// Measures segments of which messages were removed or have expired since they were measured, the ones first that were not
/// measured for longest. With many topics and segments, this takes several runs.
pub fn measure(shared: &Shared, moment: &Moment, goes_on: &dyn Fn() -> bool) {
    let mut segments = shared.state().segments.clone();
    segments.pop();
    let (epoch, now) = (shared.state().topics.removal_epoch(), shared.timeline.boot());
    let is_due = |segment: &&Arc<Segment>| {
        segment.live.get().is_none_or(|live| live.epoch != epoch || now >= live.next_expiry)
    };
    let mut due = segments.iter().filter(is_due).collect::<Vec<_>>();
    due.sort_by_key(|segment| segment.live.get().map(|live| live.epoch));
    let start = Instant::now();
    for segment in due {
        if start.elapsed() > MEASURING || !goes_on() {
            return;
        }
        match retrying(|| measure_one(shared, segment, moment)) {
            Ok(live) => segment.live.set(live),
            // A failure with one segment does not stop the others.
            Err(error) => {
                tracing::error!(%error, path = %segment.path.display(), "a segment cannot be measured");
            }
        }
    }
}

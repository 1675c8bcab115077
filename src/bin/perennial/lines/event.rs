//! The events of a file as sentences.

use perennial::proto::{
    FileResumed, FileResumedFound, LineGap, LineGapReason, LineStreamEvent, line_stream_event::Event,
};

/// The sentence for an event, or `None` if there is nothing to report.
pub fn sentence(event: &LineStreamEvent) -> Option<String> {
    Some(match &event.event {
        Some(Event::Rotated(_)) => "rotated: the next lines are from the new file".into(),
        Some(Event::Truncated(it)) => format!(
            "truncated from {} bytes to {}: it is read again from its start",
            it.read_offset.unwrap_or(0),
            it.size.unwrap_or(0)
        ),
        Some(Event::Deleted(_)) => "deleted: no file is at the path now".into(),
        Some(Event::Gap(it)) => gap(it),
        Some(Event::Opened(it)) => {
            format!("opened: a file of {} bytes is at the path now", it.size.unwrap_or(0))
        }
        Some(Event::Hole(it)) => format!(
            "skipped {} bytes from byte {} on that were never written",
            it.byte_count.unwrap_or(0),
            it.offset.unwrap_or(0)
        ),
        Some(Event::Late(it)) => format!(
            "late: the next lines were written to the rotated file, from byte {} on",
            it.offset.unwrap_or(0)
        ),
        Some(Event::Resumed(it)) => return resumed(*it),
        None => "an event this client does not know".into(),
    })
}

fn gap(gap: &LineGap) -> String {
    let missing =
        gap.byte_count.map_or_else(|| "lines are missing".into(), |n| format!("{n} bytes are missing"));
    let why = match gap.reason() {
        LineGapReason::Truncated => "they were truncated away before they were read",
        LineGapReason::Deleted => "their file was rotated away and deleted before it was read",
        LineGapReason::Expired => "the data after the cursor is gone, up to the next line",
        LineGapReason::Filled => {
            "they were written into a part of the file that had been skipped as never written"
        }
        LineGapReason::Unreadable => {
            let doubt = gap.unconfirmed_offset.map_or_else(String::new, |offset| {
                format!("; its lines from byte {offset} on are not confirmed by a checksum, and may be wrong")
            });
            return format!("{missing}: {} {}{doubt}", gap.file, gap.fault);
        }
        LineGapReason::Unspecified => return missing,
    };
    format!("{missing}: {why}")
}

fn resumed(resumed: FileResumed) -> Option<String> {
    match resumed.found() {
        FileResumedFound::Exact => None,
        FileResumedFound::Moved => {
            Some("resumed in the file that was read: it has been renamed or replaced since".into())
        }
        FileResumedFound::Truncated => {
            Some("resumed from the start: the file has been truncated or rewritten since".into())
        }
        FileResumedFound::Lost => Some("resumed from the start: the file that was read is gone".into()),
        FileResumedFound::Unspecified => Some("resumed".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perennial::proto::{FileDeleted, FileHole, FileOpened, FileRotated, FileTruncated};

    #[test]
    fn each_event_has_a_sentence() {
        let gap_of = |reason: LineGapReason, byte_count| {
            Event::Gap(LineGap { reason: reason.into(), byte_count, ..LineGap::default() })
        };
        let all = [
            Event::Rotated(FileRotated::default()),
            Event::Truncated(FileTruncated { read_offset: Some(9), size: Some(3) }),
            Event::Deleted(FileDeleted {}),
            gap_of(LineGapReason::Deleted, None),
            gap_of(LineGapReason::Expired, Some(7)),
            Event::Opened(FileOpened { size: Some(0) }),
            gap_of(LineGapReason::Filled, None),
            Event::Gap(LineGap {
                reason: LineGapReason::Unreadable.into(),
                byte_count: None,
                file: "app.log.2.xz".into(),
                fault: "has the format of xz".into(),
                unconfirmed_offset: None,
            }),
            Event::Hole(FileHole { offset: Some(1), byte_count: Some(2) }),
            Event::Resumed(FileResumed { found: FileResumedFound::Moved.into() }),
            Event::Resumed(FileResumed { found: FileResumedFound::Lost.into() }),
        ];
        for event in all {
            let text = sentence(&LineStreamEvent { event: Some(event.clone()) });
            assert!(text.is_some_and(|text| !text.contains('_') && !text.is_empty()), "{event:?}");
        }
    }

    #[test]
    fn a_stream_that_resumes_exactly_reports_nothing() {
        let event = Event::Resumed(FileResumed { found: FileResumedFound::Exact.into() });
        assert_eq!(sentence(&LineStreamEvent { event: Some(event) }), None);
    }
}

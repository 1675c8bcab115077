//! What happened to a file, in words.

use perennial::proto::{
    FileResumed, FileResumedFound, LineGap, LineGapReason, LineStreamEvent, line_stream_event::Event,
};

/// A sentence for people; nothing where all is as it should be.
pub fn sentence(event: &LineStreamEvent) -> Option<String> {
    Some(match &event.event {
        Some(Event::Rotated(_)) => "rotated: what follows is from the new file".into(),
        Some(Event::Truncated(it)) => format!(
            "truncated from {} bytes to {}: it is read again from its start",
            it.read_offset.unwrap_or(0),
            it.size.unwrap_or(0)
        ),
        Some(Event::Deleted(_)) => "deleted: there is no file at the path now".into(),
        Some(Event::Gap(it)) => gap(it),
        Some(Event::Opened(it)) => format!("opened: there is a file now, of {} bytes", it.size.unwrap_or(0)),
        Some(Event::Hole(it)) => format!(
            "{} bytes from byte {} on were never written, and are passed over",
            it.byte_count.unwrap_or(0),
            it.offset.unwrap_or(0)
        ),
        Some(Event::Late(it)) => format!(
            "late: what follows was written to the rotated file, from byte {} on",
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
        LineGapReason::Expired => "the place to continue from is gone, and all up to what follows",
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
            Some("resumed from the start: the file has been truncated or written anew since".into())
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
    fn events_are_told_in_plain_words() {
        let all = [
            Event::Rotated(FileRotated::default()),
            Event::Truncated(FileTruncated { read_offset: Some(9), size: Some(3) }),
            Event::Deleted(FileDeleted {}),
            Event::Gap(LineGap { reason: LineGapReason::Deleted.into(), byte_count: None }),
            Event::Gap(LineGap { reason: LineGapReason::Expired.into(), byte_count: Some(7) }),
            Event::Opened(FileOpened { size: Some(0) }),
            Event::Hole(FileHole { offset: Some(1), byte_count: Some(2) }),
            Event::Resumed(FileResumed { found: FileResumedFound::Moved.into() }),
            Event::Resumed(FileResumed { found: FileResumedFound::Lost.into() }),
        ];
        for event in all {
            let text = sentence(&LineStreamEvent { event: Some(event) });
            assert!(text.is_some_and(|text| !text.contains('_') && !text.is_empty()), "{event:?}");
        }
    }

    #[test]
    fn a_stream_that_goes_on_where_it_was_says_nothing() {
        let event = Event::Resumed(FileResumed { found: FileResumedFound::Exact.into() });
        assert_eq!(sentence(&LineStreamEvent { event: Some(event) }), None);
    }
}

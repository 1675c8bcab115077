//! Items of a file: lines. An offset is unique only within one file, so a key also counts the changes of the file since
//! the cursor.

use serde::{Deserialize, Serialize};

use super::{
    Items,
    kind::{Kind, Parts},
    state::Digits,
};
use crate::{
    client::Error,
    proto::{
        FileResumedFound, Line, LineStreamEvent, OnGap, ReadLinesRequest, ReadLinesResponse, line::Content,
        line_stream_event::Event, read_lines_request::Start,
    },
};

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The events `rotated`, `truncated`, `opened` and `late` since the cursor.
    switches: i64,
    offset: Digits,
    /// The bytes of a line that had no end yet and may grow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<Digits>,
}

/// The changes of the file since the cursor from which keys are counted.
#[derive(Default)]
pub struct Track {
    switches: i64,
}

impl Kind for ReadLinesRequest {
    type Item = Line;
    type Event = LineStreamEvent;
    type Key = Key;
    type Track = Track;

    const NAME: &'static str = "lines";

    fn track(&self) -> Track {
        Track::default()
    }

    fn begin(
        track: &mut Track,
        response: &mut ReadLinesResponse,
        pending: Option<&Key>,
    ) -> Result<bool, Error> {
        let mut is_lost = false;
        for event in response.events.iter().filter_map(|it| it.event.as_ref()) {
            match event {
                Event::Rotated(_) | Event::Truncated(_) | Event::Opened(_) | Event::Late(_) => {
                    track.switches += 1;
                }
                Event::Resumed(resumed) => is_lost |= resumed.found() == FileResumedFound::Lost,
                Event::Deleted(_) | Event::Gap(_) | Event::Hole(_) => {}
            }
        }
        let Some(pending) = pending.filter(|_| !is_lost) else { return Ok(false) };
        if response.lines.is_empty() || track.switches != pending.switches {
            // Lines before the change of the file were written after the stream had passed it, so they are new.
            return Ok(track.switches < pending.switches || response.lines.is_empty());
        }
        let is_handed_out =
            |line: &Line| line.offset() <= pending.offset.0 && known_bytes(line, pending).is_none();
        let handed_out = response.lines.iter().take_while(|line| is_handed_out(line)).count();
        response.lines.drain(..handed_out);
        if let Some(first) = response.lines.first_mut()
            && first.offset() <= pending.offset.0
            && let Some(known) = known_bytes(first, pending)
        {
            cut(first, known);
        }
        Ok(response.lines.is_empty())
    }

    fn key(track: &Track, line: &Line) -> Key {
        let may_grow = line.partial || line.no_newline;
        let bytes = may_grow.then(|| Digits(i64::try_from(line.bytes().len()).unwrap_or(i64::MAX)));
        Key { switches: track.switches, offset: Digits(line.offset()), bytes }
    }

    fn moved(track: &Track, key: Key) -> Key {
        Key { switches: key.switches - track.switches, ..key }
    }

    fn restart(track: &mut Track) {
        track.switches = 0;
    }

    fn gap(event: &LineStreamEvent) -> Option<Error> {
        match &event.event {
            Some(Event::Gap(gap)) => Some(Error::LineGap(gap.clone())),
            _ => None,
        }
    }

    fn parts(response: ReadLinesResponse) -> Parts<Self> {
        let ReadLinesResponse { lines, events, cursor, caught_up, next_offset: _, size: _ } = response;
        Parts { skipped: 0, events, items: lines, cursor, caught_up }
    }
}

/// The bytes of a line that were handed out before it grew, or `None` if all of it was, or must have been.
fn known_bytes(line: &Line, pending: &Key) -> Option<usize> {
    let end = pending.offset.0.checked_add(pending.bytes?.0)?;
    let known = usize::try_from(end.checked_sub(line.offset())?).ok()?;
    (line.bytes().len() > known).then_some(known)
}

/// Removes the first bytes of a line.
fn cut(line: &mut Line, known: usize) {
    let rest = line.bytes().get(known..).unwrap_or_default().to_vec();
    line.offset = Some(line.offset().saturating_add(i64::try_from(known).unwrap_or(i64::MAX)));
    line.continued = true;
    line.content = Some(match String::from_utf8(rest) {
        Ok(text) => Content::Text(text),
        Err(error) => Content::Data(error.into_bytes()),
    });
}

impl From<&str> for ReadLinesRequest {
    /// The lines of the file at this path, whose first part is the name of a root: `logs/app.log`.
    fn from(path: &str) -> Self {
        Self { path: path.into(), ..Self::default() }
    }
}

impl From<String> for ReadLinesRequest {
    fn from(path: String) -> Self {
        Self { path, ..Self::default() }
    }
}

impl Items<ReadLinesRequest> {
    /// Continues with the lines that are written after the end of the file was reached.
    #[must_use]
    pub fn follow(self, follow: bool) -> Self {
        self.with(|request| request.follow = follow)
    }

    /// Starts with the last `lines` lines.
    #[must_use]
    pub fn last(self, lines: i64) -> Self {
        self.with(|request| request.start = Some(Start::Last(lines)))
    }

    /// Starts with the line of this number; the first line is 1.
    #[must_use]
    pub fn from_line(self, line: i64) -> Self {
        self.with(|request| request.start = Some(Start::FromLine(line)))
    }

    /// Starts with the line that begins at this byte of the file, or with the first one after it.
    #[must_use]
    pub fn from_offset(self, offset: i64) -> Self {
        self.with(|request| request.start = Some(Start::FromOffset(offset)))
    }

    /// Where lines are missing, reports a gap and continues: as a value of [`Items::with_events`], otherwise as an error.
    /// Without this, the server ends the stream with an error (`CURSOR_EXPIRED`).
    #[must_use]
    pub fn skip_gaps(self) -> Self {
        self.with(|request| request.set_on_gap(OnGap::Skip))
    }
}

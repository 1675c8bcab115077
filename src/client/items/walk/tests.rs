#![expect(clippy::unwrap_used, reason = "a test")]

use super::*;
use crate::{
    client::Code,
    proto::{
        CountdownRequest, CountdownResponse, FileRotated, LateLines, Line, LineGap, LineStreamEvent,
        MessageGap, MessageStreamEvent, MessagesRequest, MessagesResponse, ReadLinesRequest,
        ReadLinesResponse, StoredMessage, Tick, line::Content, line_stream_event as line_event,
        message_stream_event as message_event,
    },
};

fn line(offset: i64) -> Line {
    Line { offset: Some(offset), content: Some(Content::Text("abc".into())), ..Line::default() }
}

fn lines(offsets: impl IntoIterator<Item = i64>, cursor: &str) -> ReadLinesResponse {
    ReadLinesResponse {
        lines: offsets.into_iter().map(line).collect(),
        cursor: cursor.into(),
        ..ReadLinesResponse::default()
    }
}

fn with_event(mut response: ReadLinesResponse, event: line_event::Event) -> ReadLinesResponse {
    response.events.push(LineStreamEvent { event: Some(event) });
    response
}

fn rotated(response: ReadLinesResponse) -> ReadLinesResponse {
    with_event(response, line_event::Event::Rotated(FileRotated::default()))
}

fn message(sequence: i64) -> StoredMessage {
    let publish_time = Some(prost_types::Timestamp { seconds: sequence, nanos: 5 });
    StoredMessage { sequence: Some(sequence), publish_time, ..StoredMessage::default() }
}

fn messages(sequences: impl IntoIterator<Item = i64>, cursor: &str) -> MessagesResponse {
    MessagesResponse {
        messages: sequences.into_iter().map(message).collect(),
        cursor: cursor.into(),
        ..MessagesResponse::default()
    }
}

fn walk<R: Kind + Default>(state: Option<&str>) -> Walk<R> {
    let place = state.map(|text| Place::read(text, R::NAME, "the state").unwrap());
    Walk::new(&R::default(), place, None)
}

fn state<R: Kind>(walk: &Walk<R>) -> Option<String> {
    walk.position().map(|place| place.text(R::NAME))
}

/// Hands out up to `most` items of a response, and finishes it if there were fewer.
fn items<R: Kind>(walk: &mut Walk<R>, response: R::Response, most: usize) -> Vec<R::Item> {
    walk.begin(response, Events::Unwanted).unwrap();
    let mut all = Vec::new();
    while all.len() < most {
        walk.finish_item();
        match walk.next() {
            Some(Value::Item(item)) => all.push(item),
            Some(_) => panic!("an unwanted value"),
            None => {
                walk.finish_response();
                break;
            }
        }
    }
    all
}

fn offsets(lines: &[Line]) -> Vec<i64> {
    lines.iter().map(Line::offset).collect()
}

#[test]
fn a_state_has_the_cursor_before_the_response_until_its_last_item() {
    let mut walk = walk::<ReadLinesRequest>(None);
    items(&mut walk, lines([0], "A"), 9);
    assert_eq!(state(&walk).unwrap(), r#"{"version":1,"kind":"lines","cursor":"A"}"#);
    items(&mut walk, lines([4, 8, 12], "B"), 2);
    let within = r#"{"version":1,"kind":"lines","cursor":"A","after":{"switches":0,"offset":"8"}}"#;
    assert_eq!(state(&walk).unwrap(), within);
    // That item is not done.
    let done = walk.done().unwrap().text("lines");
    assert_eq!(done, r#"{"version":1,"kind":"lines","cursor":"A","after":{"switches":0,"offset":"4"}}"#);
    walk.finish_item();
    assert_eq!(walk.done().unwrap().text("lines"), within);
    walk.next().unwrap();
    assert_eq!(state(&walk).unwrap(), r#"{"version":1,"kind":"lines","cursor":"B"}"#);
}

#[test]
fn nothing_before_the_first_response_is_done_has_a_state() {
    let mut walk = walk::<MessagesRequest>(None);
    items(&mut walk, messages([1, 2], "A"), 1);
    assert_eq!(state(&walk), None);
}

#[test]
fn items_that_were_handed_out_before_are_dropped_however_they_are_batched() {
    let all = (1..=9).collect::<Vec<_>>();
    for stopped in 1..9 {
        let mut first = walk::<MessagesRequest>(Some("A"));
        items(&mut first, messages(all.clone(), "B"), stopped);
        let text = state(&first).unwrap();
        for size in 1..=9 {
            let mut again = walk::<MessagesRequest>(Some(&text));
            let mut got = Vec::new();
            for (n, batch) in all.chunks(size).enumerate() {
                got.extend(items(&mut again, messages(batch.iter().copied(), &format!("C{n}")), 99));
                // A heartbeat between them changes nothing.
                items(&mut again, messages([], &format!("H{n}")), 99);
            }
            let expected = all.get(stopped..).unwrap();
            let got = got.iter().map(StoredMessage::sequence).collect::<Vec<_>>();
            assert_eq!(got, expected, "{stopped} {size}");
        }
    }
}

#[test]
fn a_line_is_known_by_the_changes_of_the_file_and_its_offset() {
    let mut first = walk::<ReadLinesRequest>(Some("A"));
    items(&mut first, lines([100, 104], "B0"), 1);
    // The response is not complete, so its changes count from the cursor before it.
    let mut first = walk::<ReadLinesRequest>(Some("A"));
    items(&mut first, rotated(lines([0, 4, 8], "B")), 2);
    let text = state(&first).unwrap();
    assert_eq!(text, r#"{"version":1,"kind":"lines","cursor":"A","after":{"switches":1,"offset":"4"}}"#);
    let mut again = walk::<ReadLinesRequest>(Some(&text));
    // Lines of the file before the change are new.
    assert_eq!(offsets(&items(&mut again, lines([100], "A1"), 9)), [100]);
    assert_eq!(offsets(&items(&mut again, rotated(lines([0, 4], "A2")), 9)), Vec::<i64>::new());
    assert_eq!(offsets(&items(&mut again, lines([8, 12], "A3"), 9)), [8, 12]);
}

#[test]
fn while_the_item_of_a_state_is_still_to_come_its_key_stays() {
    let text = r#"{"version":1,"kind":"lines","cursor":"A","after":{"switches":1,"offset":"4"}}"#;
    let mut again = walk::<ReadLinesRequest>(Some(text));
    // Late lines of the old file: they have larger offsets, which mean nothing in the new file.
    items(&mut again, lines([1_000_000, 1_000_004], "A1"), 1);
    assert_eq!(state(&again).unwrap(), text);
    let mut again = walk::<ReadLinesRequest>(Some(text));
    items(&mut again, lines([1_000_000], "A1"), 1);
    let moved = text.replace("\"A\"", "\"A1\"");
    assert_eq!(state(&again).unwrap(), moved);
    again.finish_item();
    again.finish_response();
    // The change of the file is before this cursor, and the line after it.
    items(&mut again, rotated(lines([0], "A2")), 9);
    assert_eq!(
        state(&again).unwrap(),
        moved.replace("\"A1\"", "\"A2\"").replace("\"switches\":1", "\"switches\":0")
    );
    assert_eq!(offsets(&items(&mut again, lines([4, 8], "A3"), 9)), [8]);
}

#[test]
fn a_late_event_counts_as_a_change_and_a_lost_file_ends_the_search() {
    let text = r#"{"version":1,"kind":"lines","cursor":"A","after":{"switches":1,"offset":"4"}}"#;
    let mut again = walk::<ReadLinesRequest>(Some(text));
    let late = with_event(lines([0, 4, 8], "B"), line_event::Event::Late(LateLines::default()));
    assert_eq!(offsets(&items(&mut again, late, 9)), [8]);
    let mut again = walk::<ReadLinesRequest>(Some(text));
    let mut resumed = crate::proto::FileResumed::default();
    resumed.set_found(crate::proto::FileResumedFound::Lost);
    let lost = with_event(lines([0, 4, 8], "B"), line_event::Event::Resumed(resumed));
    assert_eq!(offsets(&items(&mut again, lost, 9)), [0, 4, 8]);
}

#[test]
fn of_a_line_that_has_grown_only_the_rest_is_handed_out() {
    let mut first = walk::<ReadLinesRequest>(Some("A"));
    let partial = Line { partial: true, ..line(8) };
    let response = ReadLinesResponse { lines: vec![partial, line(99)], ..lines([], "B") };
    items(&mut first, response, 1);
    let text = state(&first).unwrap();
    assert!(text.ends_with(r#""after":{"switches":0,"offset":"8","bytes":"3"}}"#), "{text}");
    let grown = |text: &str| Line { content: Some(Content::Text(text.into())), ..line(8) };
    for (now, rest) in [("abcdef", Some("def")), ("abc", None)] {
        let mut again = walk::<ReadLinesRequest>(Some(&text));
        let response = ReadLinesResponse { lines: vec![line(4), grown(now), line(20)], ..lines([], "C") };
        let got = items(&mut again, response, 9);
        let got = got.iter().map(|line| (line.offset(), line.to_text().into_owned(), line.continued));
        let rest = rest.map(|rest| (11, rest.to_owned(), true));
        assert_eq!(
            got.collect::<Vec<_>>(),
            rest.into_iter().chain([(20, "abc".into(), false)]).collect::<Vec<_>>()
        );
    }
}

#[test]
fn a_log_with_another_message_at_the_sequence_of_the_last_one_is_an_error() {
    let mut first = walk::<MessagesRequest>(Some("A"));
    items(&mut first, messages([1, 2, 3], "B"), 2);
    let text = state(&first).unwrap();
    let mut again = walk::<MessagesRequest>(Some(&text));
    let mut other = messages([1, 2, 3], "B");
    other.messages.iter_mut().for_each(|message| message.publish_time = None);
    let error = again.begin(other, Events::Unwanted).unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::OutOfRange, Some("LOG_DIVERGED")));
    assert!(!error.is_retryable());
}

#[test]
fn numbers_that_were_skipped_before_are_not_counted_again() {
    let tick = |remaining| Tick { remaining: Some(remaining), ..Tick::default() };
    let response = |skipped_ticks, numbers: &[i32]| CountdownResponse {
        ticks: numbers.iter().copied().map(tick).collect(),
        skipped_ticks,
        cursor: "B".into(),
        ..CountdownResponse::default()
    };
    // 10 was handed out last, in another process. Now 12, 11, 10, 9 and 8 are skipped before 7.
    let text = r#"{"version":1,"kind":"countdown","cursor":"A","after":{"remaining":10}}"#;
    for (skipped, first, new) in [(5, 7, 2), (1, 11, 0), (3, 6, 3), (0, 9, 0)] {
        let mut again = walk::<CountdownRequest>(Some(text));
        let got = items(&mut again, response(skipped, &[first, 4]), 9);
        assert_eq!(again.skipped, new, "{skipped} {first}");
        let expected = if first >= 10 { vec![4] } else { vec![first, 4] };
        assert_eq!(got.iter().map(Tick::remaining).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_gap_is_a_value_for_a_caller_that_wants_events_and_otherwise_an_error() {
    let gap = || with_event(lines([4], "B"), line_event::Event::Gap(LineGap::default()));
    let mut of_lines = walk::<ReadLinesRequest>(Some("A"));
    assert!(matches!(of_lines.begin(gap(), Events::Unwanted), Err(Error::LineGap(_))));
    let mut of_lines = walk::<ReadLinesRequest>(Some("A"));
    let response = ReadLinesResponse { caught_up: true, ..gap() };
    of_lines.begin(response, Events::Wanted).unwrap();
    assert!(matches!(of_lines.next(), Some(Value::Event(_))));
    assert!(matches!(of_lines.next(), Some(Value::Item(_))));
    assert!(matches!(of_lines.next(), Some(Value::CaughtUp)));
    assert!(of_lines.next().is_none());
    of_lines.finish_item();
    of_lines.finish_response();
    // It was live before.
    of_lines.begin(ReadLinesResponse { caught_up: true, ..lines([], "C") }, Events::Wanted).unwrap();
    assert!(of_lines.next().is_none());

    let gap = MessageGap { first_sequence: Some(1), last_sequence: Some(3), ..MessageGap::default() };
    let event = MessageStreamEvent { event: Some(message_event::Event::Gap(gap)) };
    let response = || MessagesResponse { events: vec![event.clone()], ..messages([9], "B") };
    let mut of_messages = walk::<MessagesRequest>(Some("A"));
    assert!(matches!(of_messages.begin(response(), Events::Unwanted), Err(Error::MessageGap(_))));
    // A gap before the item of the state was reported before.
    let text = r#"{"version":1,"kind":"messages","cursor":"A","after":{"sequence":"3"}}"#;
    let mut of_messages = walk::<MessagesRequest>(Some(text));
    of_messages.begin(response(), Events::Unwanted).unwrap();
}

#[test]
fn a_limit_that_the_server_does_not_count_ends_the_stream_within_a_response() {
    let place = Place { cursor: "A".into(), after: None };
    let mut walk = Walk::new(&MessagesRequest::default(), Some(place), Some(2));
    items(&mut walk, messages([1, 2, 3], "B"), 2);
    assert!(walk.is_over());
    walk.finish_item();
    assert!(walk.done().unwrap().text("messages").contains(r#""sequence":"2""#));
}

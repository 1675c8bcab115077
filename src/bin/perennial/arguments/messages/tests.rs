#![expect(clippy::unwrap_used, reason = "a test")]

use clap::Parser;
use perennial::proto::OnGap;

use super::*;
use crate::{
    arguments::{Arguments, Verb},
    quote,
};

fn parsed(line: &str) -> Messages {
    let words = ["perennial", "messages"].into_iter().chain(line.split(' '));
    match Arguments::try_parse_from(words).unwrap().verb {
        Verb::Messages(it) => it,
        _ => unreachable!("not messages"),
    }
}

#[test]
fn each_option_is_a_field_of_the_request() {
    let plain = MessagesRequest { topics: vec!["a".into()], ..MessagesRequest::default() };
    let with = |start| MessagesRequest { start: Some(start), ..plain.clone() };
    for (line, expected) in [
        ("a", plain.clone()),
        ("a --from new", plain.clone()),
        ("a --from earliest", with(Start::Earliest(true))),
        ("a --from 7", with(Start::FromSequence(7))),
        ("a --last 3", with(Start::Last(3))),
        ("a --last-per-topic", with(Start::LastPerTopic(true))),
        ("a --on-gap skip", MessagesRequest { on_gap: OnGap::Skip.into(), ..plain.clone() }),
        ("a --on-gap fail", MessagesRequest { on_gap: OnGap::Fail.into(), ..plain.clone() }),
        ("a --consumer c", MessagesRequest { consumer: Some("c".into()), ..plain.clone() }),
    ] {
        assert_eq!(parsed(line).request(), expected, "{line}");
    }
    let cursor = parsed("a --consumer c --cursor C --until-caught-up").request();
    let expected = MessagesRequest {
        consumer: Some("c".into()),
        cursor: Some("C".into()),
        until_caught_up: true,
        ..plain
    };
    assert_eq!(cursor, expected);
}

#[test]
fn a_consumer_is_continued_by_its_name_alone() {
    let it = parsed("a b.> --consumer c --from earliest --on-gap skip --limit 9");
    assert_eq!(
        quote::command(&it.words_as_consumer(2)),
        "messages a 'b.>' --consumer c --on-gap skip --limit 7"
    );
    // The position could not be committed.
    assert_eq!(
        quote::command(&it.words(2, "C")),
        "messages a 'b.>' --consumer c --on-gap skip --limit 7 --cursor C"
    );
}

#[test]
fn an_unknown_placeholder_is_refused_with_the_known_ones() {
    let line = ["perennial", "messages", "a", "--format", "{seq}"];
    let error = Arguments::try_parse_from(line).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("{header.NAME}"), "{error}");
}

#[test]
fn a_time_may_be_a_word_or_begin_with_a_minus() {
    for line in ["a --from yesterday", "a --from -24h", "a --from @1795456800", "a --from now"] {
        assert!(matches!(parsed(line).request().start, Some(Start::FromTime(_))), "{line}");
    }
    assert!(parsed("a --until-time -1h").request().until_time.is_some());
    let words = ["perennial", "messages", "a", "--from", "someday"];
    let error = Arguments::try_parse_from(words).unwrap_err().to_string();
    assert!(error.contains("earliest") && error.contains("tomorrow 9am"), "{error}");
}

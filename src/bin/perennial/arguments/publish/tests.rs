#![expect(clippy::unwrap_used, reason = "a test")]

use clap::Parser;

use super::*;
use crate::arguments::{Arguments, Verb};

fn parsed(line: &str) -> Publish {
    let words = ["perennial", "publish"].into_iter().chain(line.split(' '));
    match Arguments::try_parse_from(words).unwrap().verb {
        Verb::Publish(it) => it,
        _ => unreachable!("not publish"),
    }
}

#[test]
fn messages_come_from_one_source() {
    let files = |names: &[&str]| Source::Files(names.iter().map(PathBuf::from).collect());
    for (line, expected) in [
        ("a text", Source::Text("text".into())),
        ("a -x", Source::Text("-x".into())),
        ("a -", Source::Lines),
        ("a --stdin", Source::Lines),
        ("a --file x --file y", files(&["x", "y"])),
        ("--json", Source::Objects),
        ("a --json", Source::Objects),
    ] {
        assert_eq!(parsed(line).source(), expected, "{line}");
    }
    for line in
        ["", "a", "a text --stdin", "a text --json", "a --stdin --json", "a --file x --stdin", "--file x"]
    {
        let words = ["perennial", "publish"].into_iter().chain(line.split_whitespace());
        assert_eq!(Arguments::try_parse_from(words).unwrap_err().exit_code(), 2, "{line:?}");
    }
}

#[test]
fn each_option_is_a_field_of_the_message() {
    let it = parsed("a text --key k --header x=1 --header y=2=3 --ttl 90s --id i --expect 0");
    let expected = PublishRequest {
        topic: "a".into(),
        content: Some(Content::Text("text".into())),
        key: Some("k".into()),
        headers: [("x".to_owned(), "1".to_owned()), ("y".to_owned(), "2=3".to_owned())].into(),
        message_id: Some("i".into()),
        expected_sequence: Some(0),
        ttl: Some(prost_types::Duration { seconds: 90, nanos: 0 }),
    };
    assert_eq!(it.message(Content::Text("text".into())), expected);
}

#[test]
fn the_command_line_replaces_the_fields_of_a_line() {
    let read = PublishRequest {
        topic: "read".into(),
        key: Some("read".into()),
        headers: [("read".to_owned(), "1".to_owned())].into(),
        message_id: Some("id".into()),
        ..PublishRequest::default()
    };
    assert_eq!(parsed("--json").complete(read.clone()), read);
    let expected = PublishRequest {
        topic: "a".into(),
        key: Some("k".into()),
        headers: [("read".to_owned(), "1".to_owned()), ("x".to_owned(), "2".to_owned())].into(),
        ..read.clone()
    };
    assert_eq!(parsed("a --json --key k --header x=2").complete(read), expected);
}

#[test]
fn the_usage_has_the_topic_before_the_text() {
    let words = ["perennial", "publish", "orders.new"];
    let refusal = Arguments::try_parse_from(words).unwrap_err().to_string();
    assert!(refusal.contains("<TOPIC> <TEXT>"), "{refusal}");
    let it = parsed("orders.new hello");
    assert_eq!((it.topic(), it.source()), (Some("orders.new"), Source::Text("hello".into())));
}

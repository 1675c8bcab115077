//! Parameters, as tables.
#![expect(clippy::unwrap_used, reason = "a test")]

use super::*;
use crate::{proto::ErrorReason, web::json::Method};

fn parsed(method: (&str, &str), query: &str) -> Result<String, String> {
    let method = Method::find(method.0, method.1);
    match read(query, &method.request, &[]) {
        Ok((message, options)) => {
            let json = serde_json::to_string(&message).unwrap();
            Ok(if options.items { format!("{json} items") } else { json })
        }
        Err(failure) => {
            assert_eq!(failure.reason(), ErrorReason::InvalidField);
            Err(tonic::Status::from(failure).message().to_owned())
        }
    }
}

const COUNTDOWN: (&str, &str) = ("CountdownService", "Countdown");
const LINES: (&str, &str) = ("LineService", "ReadLines");
const MESSAGES: (&str, &str) = ("MessageService", "Messages");

#[test]
fn parameters_are_fields_in_the_grammar_of_the_command_line() {
    for (method, query, expected) in [
        (COUNTDOWN, "start=10&interval=1s", r#"{"start":10,"interval":"1s"}"#),
        (
            COUNTDOWN,
            "start=3&interval=250ms&wait_first",
            r#"{"start":3,"interval":"0.250s","waitFirst":true}"#,
        ),
        (COUNTDOWN, "start=3&waitFirst=false&onLag=burst", r#"{"start":3,"onLag":"ON_LAG_BURST"}"#),
        (LINES, "path=a%2Fb&follow&last=10", r#"{"path":"a/b","last":"10","follow":true}"#),
        (
            LINES,
            "path=a&include=x%7Cy&include=z&exclude=w&ignore_case",
            r#"{"path":"a","include":["x|y","z"],"exclude":["w"],"ignoreCase":true}"#,
        ),
        (
            LINES,
            "path=a&max_line_bytes=64KiB&from_offset=1MiB",
            r#"{"path":"a","fromOffset":"1048576","maxLineBytes":65536}"#,
        ),
        (
            LINES,
            "path=a&on_gap=skip&long_line=LONG_LINE_SKIP",
            r#"{"path":"a","onGap":"ON_GAP_SKIP","longLine":"LONG_LINE_SKIP"}"#,
        ),
        (MESSAGES, "topic=demo.>&earliest&items", r#"{"topics":["demo.>"],"earliest":true} items"#),
        (MESSAGES, "topic=a&topics=b.%2A", r#"{"topics":["a","b.*"]}"#),
        (
            MESSAGES,
            "topic=a&from_time=2026-01-02T03:04:05Z",
            r#"{"topics":["a"],"fromTime":"2026-01-02T03:04:05Z"}"#,
        ),
    ] {
        let read = parsed(method, query).unwrap_or_else(|fault| panic!("{query}: {fault}"));
        assert_eq!(read, expected, "{query}");
    }
}

#[test]
fn a_wrong_parameter_is_named_with_what_would_work() {
    for (method, query, parts) in [
        (COUNTDOWN, "start=ten", &["start", "`ten`", "not a number"][..]),
        (COUNTDOWN, "start=3000000000", &["start", "out of range"]),
        (COUNTDOWN, "start=1&interval=1", &["interval", "no unit", "1s"]),
        (COUNTDOWN, "start=1&intervall=1s", &["intervall", "did you mean interval?"]),
        (COUNTDOWN, "start=1&until_time=2026-01-02T03:04:05Z", &["until_time", "together with start"]),
        (COUNTDOWN, "start=1&start=2", &["start", "twice"]),
        (COUNTDOWN, "until_time=tomorrow", &["until_time", "2026-01-02T03:04:05Z"]),
        (COUNTDOWN, "start=1&on_lag=never", &["on_lag", "skip, burst"]),
        (LINES, "path=a&follow=maybe", &["follow", "neither true nor false"]),
        (LINES, "path=a&max_line_bytes=64k", &["max_line_bytes", "64KiB"]),
        (MESSAGES, "topic=a&token=x", &["token", "authorization: Bearer", "/v1/session"]),
        (MESSAGES, "topic=a&Access_Token=x", &["credential"]),
        (MESSAGES, "topic=a&zzz=1", &["zzz", "there are topics"]),
    ] {
        let fault = parsed(method, query).unwrap_err();
        for part in parts {
            assert!(fault.contains(part), "{query}: {fault}");
        }
    }
}

#[test]
fn a_field_in_the_path_is_not_a_parameter() {
    let method = Method::find(COUNTDOWN.0, COUNTDOWN.1);
    let bound = [("name", "launch".to_owned())];
    let (message, _) = read("", &method.request, &bound).unwrap();
    assert_eq!(serde_json::to_string(&message).unwrap(), r#"{"name":"launch"}"#);
    for query in ["name=other", "start=3"] {
        let fault = tonic::Status::from(read(query, &method.request, &bound).unwrap_err());
        assert!(fault.message().contains("path"), "{fault:?}");
    }
}

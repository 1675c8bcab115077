#![expect(clippy::unwrap_used, reason = "a test")]

use clap::Parser;

use super::*;
use crate::arguments::{Arguments, Verb};

fn parse(line: &str) -> Result<Countdown, clap::Error> {
    let words = ["perennial", "countdown"].into_iter().chain(line.split_whitespace());
    Arguments::try_parse_from(words).map(|arguments| match arguments.verb {
        Verb::Countdown(it) => it,
        _ => unreachable!("not a countdown"),
    })
}

fn verb(line: &str) -> CountdownVerb {
    parse(line).unwrap().verb.unwrap()
}

fn create(line: &str) -> CreateCountdownRequest {
    match verb(line) {
        CountdownVerb::Create(it) => it.request(None),
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn a_countdown_is_from_a_number_until_a_moment_or_a_shared_one() {
    use countdown_request::Target;
    let request = |line: &str| {
        let it = parse(line).unwrap();
        assert!(it.verb.is_none(), "{line}");
        it.watch.request()
    };
    assert_eq!(request("10").target, Some(Target::Start(10)));
    assert_eq!(request("-3 --to -5").target, Some(Target::Start(-3)));
    let moment = prost_types::Timestamp { seconds: 1_795_456_800, nanos: 0 };
    assert_eq!(request("--until 2026-11-23T18:00:00Z").target, Some(Target::UntilTime(moment)));
    assert_eq!(request("--name launch").target, Some(Target::Name("launch".into())));
    assert!(request("10 --align --wait-first").align);
    // The name must be the one that the cursor came from.
    let resumed = request("--name launch --cursor C");
    assert_eq!((resumed.target, resumed.cursor), (Some(Target::Name("launch".into())), Some("C".into())));
}

#[test]
fn a_shared_countdown_cannot_be_watched_with_options_of_its_own_schedule() {
    for line in [
        "10 --name a",
        "--until +5m --name a",
        "--name a --interval 1s",
        "--name a --to 1",
        "--name a --step 2",
        "--name a --wait-first",
        "--name a --align",
        "--until +5m --align",
        "--cursor C --align",
        "10 --until +5m",
        "lst",
        "list --name a",
        "",
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
    assert!(parse("lst").unwrap_err().to_string().contains("countdown list"));
}

#[test]
fn a_shared_countdown_is_resumed_by_its_name_and_cursor() {
    let words = |line: &str| parse(line).unwrap().watch.words(3, "C").join(" ");
    assert_eq!(words("--name launch --lateness"), "countdown --name launch --lateness --cursor C");
    assert_eq!(words("10 --align --plain --limit 5"), "countdown --plain --limit 2 --cursor C");
    parse("--name launch --lateness --cursor C").unwrap();
}

#[test]
fn lateness_is_printed_as_text_only() {
    let it = parse("10 --lateness").unwrap();
    assert_eq!(it.check(Format::Text), Ok(()));
    assert!(it.check(Format::Ndjson).unwrap_err().contains("-o ndjson"));
}

#[test]
fn a_shared_countdown_is_created_for_a_duration_until_a_moment_or_from_a_number() {
    use create_countdown_request::Target;
    let duration = prost_types::Duration { seconds: 600, nanos: 0 };
    assert_eq!(create("create launch 10m").target, Some(Target::Duration(duration)));
    assert_eq!(create("create launch --from 10 --to 1 --step 3").target, Some(Target::Start(10)));
    let until = create("create launch --until 2026-11-23T18:00:00Z --interval 500ms --request-id r");
    assert!(matches!(until.target, Some(Target::UntilTime(_))) && until.interval.is_some());
    assert_eq!((until.name.as_str(), until.request_id.as_deref(), until.on_end), ("launch", Some("r"), None));
    for line in ["create", "create a", "create a 10m --from 3", "create a 10m --until +5m", "create a -10m"] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
}

#[test]
fn an_end_message_needs_a_topic() {
    let message =
        create("create a 1s --on-end b --text -x --key k --header h=1 --header i=a=b").on_end.unwrap();
    assert_eq!(message.topic, "b");
    assert_eq!(message.key.as_deref(), Some("k"));
    assert_eq!(message.content, Some(Content::Text("-x".into())));
    assert_eq!(message.headers.get("i").map(String::as_str), Some("a=b"));
    assert_eq!(create("create a 1s --on-end b").on_end.unwrap().content, None);
    for line in [
        "create a 1s --text x",
        "create a 1s --data-file f",
        "create a 1s --key k",
        "create a 1s --header h=1",
        "create a 1s --on-end b --text x --data-file f",
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
    match verb("create a 1s --on-end b --data-file f") {
        CountdownVerb::Create(it) => {
            assert_eq!(it.data_file(), Some(Path::new("f")));
            let data = Content::Data(vec![0xff]);
            assert_eq!(it.request(Some(data.clone())).on_end.unwrap().content, Some(data));
        }
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn extend_moves_the_end_in_both_directions() {
    for (line, seconds, expected) in [
        ("extend launch 30s", 30, None),
        ("extend launch -30s", -30, None),
        ("extend launch -1h30m --version 7", -5_400, Some(7)),
        ("extend --version 7 launch 2d", 172_800, Some(7)),
    ] {
        match verb(line) {
            CountdownVerb::Extend { name, by, version } => {
                assert_eq!((name.as_str(), by.as_secs(), version.version), ("launch", seconds, expected));
            }
            other => unreachable!("{line}: {other:?}"),
        }
    }
    assert!(parse("extend launch soon").is_err() && parse("extend launch").is_err());
}

#[test]
fn the_verbs_take_a_name_and_a_version_and_the_options_of_all() {
    for line in
        ["pause a --version 2", "resume a --version 2", "cancel a --version 2", "delete a --version 2"]
    {
        match verb(line) {
            CountdownVerb::Pause(it)
            | CountdownVerb::Resume(it)
            | CountdownVerb::Cancel(it)
            | CountdownVerb::Delete(it) => {
                assert_eq!((it.name.as_str(), it.version.version), ("a", Some(2)));
            }
            other => unreachable!("{line}: {other:?}"),
        }
    }
    for line in ["list -o json", "-o json list", "--server h:1 list"] {
        assert!(matches!(verb(line), CountdownVerb::List), "{line}");
        assert_eq!(parse(line).unwrap().check(Format::Json), Ok(()), "{line}");
    }
    for line in ["10 list", "--name a list", "--burst pause a", "--limit 1 get a"] {
        assert!(parse(line).unwrap().check(Format::Text).is_err(), "{line}");
    }
    assert!(matches!(verb("get a --server h:1"), CountdownVerb::Get { .. }));
}

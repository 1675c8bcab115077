#![expect(clippy::unwrap_used, reason = "a test")]

use clap::Parser;

use super::*;
use crate::arguments::{Arguments, Verb};

fn messages(line: &str) -> Messages {
    let words = ["perennial", "messages", "a", "--consumer", "c"].into_iter();
    match Arguments::try_parse_from(words.chain(line.split_whitespace())).unwrap().verb {
        Verb::Messages(it) => it,
        _ => unreachable!("not messages"),
    }
}

/// One that nothing was printed of, of a server that is not there.
fn consumer() -> Consumer {
    Consumer {
        client: Client::connect("127.0.0.1:1").unwrap(),
        name: "c".into(),
        rewinds: false,
        printed: None,
        has_news: true,
        committed: None,
        begun: None,
        running: None,
    }
}

#[test]
fn it_is_said_where_a_consumer_begins() {
    let there =
        proto::ConsumerInfo { sequence: Some(7), head_sequence: Some(9), ..proto::ConsumerInfo::default() };
    let read = proto::ConsumerInfo { connected: true, ..there.clone() };
    for (there, line, expected) in [
        (None, "", "consumer c is new, and begins with what is published from now on"),
        (None, "--from earliest", "consumer c is new, and begins with the oldest message there is"),
        (Some(&there), "--from earliest", "consumer c continues after sequence 7 of 9"),
        (Some(&read), "", "consumer c continues after sequence 7 of 9, and takes over from another reader"),
        (Some(&there), "--cursor C", "consumer c is set to the cursor given"),
    ] {
        assert_eq!(beginning("c", there, &messages(line)), expected);
    }
}

#[tokio::test]
async fn a_first_place_is_due_at_once_and_the_next_one_after_a_while() {
    let mut consumer = consumer();
    assert_eq!(consumer.due(), None);
    consumer.printed("C1", false);
    assert_eq!(consumer.due(), Some(Duration::ZERO));
    consumer.commit();
    assert_eq!(consumer.due(), None);
    // Nobody answers, which may pass: the place is still to be kept.
    consumer.committed().await.unwrap();
    assert!(consumer.due().unwrap() <= INTERVAL);

    consumer.committed = Some("C1".into());
    assert_eq!(consumer.due(), None);
    consumer.has_news = false;
    consumer.printed("C2", false);
    assert!(consumer.due().unwrap() > INTERVAL);
    consumer.printed("C3", true);
    assert!(consumer.due().unwrap() <= INTERVAL);
}

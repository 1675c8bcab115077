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

/// A consumer without a printed message, of a server that does not exist.
fn consumer() -> Consumer {
    Consumer {
        client: Client::new("127.0.0.1:1").unwrap(),
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
fn a_consumer_reports_where_it_continues() {
    let behind = proto::ConsumerInfo { sequence: Some(7), head_sequence: Some(9), ..Default::default() };
    let is_connected = proto::ConsumerInfo { connected: true, ..behind.clone() };
    // The position also counts the server's own records, which no reader gets.
    let caught_up = proto::ConsumerInfo { sequence: Some(31), head_sequence: Some(30), ..behind.clone() };
    let after_7 = "consumer c continues after sequence 7; the newest message of all topics has sequence 9";
    for (info, line, expected) in [
        (None, "", "consumer c is new, and starts with the next message published"),
        (None, "--from earliest", "consumer c is new, and starts with the oldest message"),
        (Some(&behind), "--from earliest", after_7),
        (Some(&is_connected), "", &format!("{after_7}, and takes over from another reader")),
        (Some(&caught_up), "", "consumer c continues after sequence 31, with no newer message in any topic"),
        (Some(&behind), "--cursor C", "consumer c is set to the given cursor"),
    ] {
        assert_eq!(beginning("c", info, &messages(line)), expected);
    }
}

#[tokio::test]
async fn the_first_position_is_due_at_once_and_the_next_one_after_a_while() {
    let mut consumer = consumer();
    assert_eq!(consumer.due(), None);
    consumer.printed("C1", false);
    assert_eq!(consumer.due(), Some(Duration::ZERO));
    consumer.commit();
    assert_eq!(consumer.due(), None);
    // No server answers, which may pass, so the position is still due.
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

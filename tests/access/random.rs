//! Random rules, callers and requests: the real server decides, lists and yields as a model that knows nothing of how the
//! server does it.

use std::collections::BTreeSet;

use futures::StreamExt;
use perennial::{
    client::Code,
    proto::{MessagesRequest, PublishRequest, messages_request::Start},
};

use crate::{harness::soon, house::House};

const ROUNDS: usize = 25;
const CALLERS: [&str; 3] = ["reader", "writer", "worker"];
const VERBS: [&str; 4] = ["list", "subscribe", "publish", "purge"];

struct Rule {
    who: Vec<&'static str>,
    may: Vec<&'static str>,
    topics: Vec<String>,
}

/// Whether a pattern matches a topic, token by token.
fn matches(pattern: &[&str], topic: &[&str]) -> bool {
    match (pattern, topic) {
        ([], []) | ([">"], [_, ..]) => true,
        (["*", pattern @ ..], [_, topic @ ..]) => matches(pattern, topic),
        ([first, pattern @ ..], [token, topic @ ..]) => first == token && matches(pattern, topic),
        _ => false,
    }
}

pub fn has(pattern: &str, topic: &str) -> bool {
    matches(&pattern.split('.').collect::<Vec<_>>(), &topic.split('.').collect::<Vec<_>>())
}

fn may(rules: &[Rule], caller: &str, verb: &str, topic: &str) -> bool {
    rules.iter().any(|rule| {
        let is_for = rule.who.iter().any(|who| *who == "anyone" || *who == caller);
        is_for && rule.may.contains(&verb) && rule.topics.iter().any(|pattern| has(pattern, topic))
    })
}

fn topics() -> Vec<String> {
    let tokens = ["a", "b", "c"];
    let one = tokens.iter().map(ToString::to_string).collect::<Vec<_>>();
    let longer = |shorter: &[String]| {
        shorter.iter().flat_map(|topic| tokens.map(|token| format!("{topic}.{token}"))).collect::<Vec<_>>()
    };
    let two = longer(&one);
    let three = longer(&two);
    [one, two, three].concat()
}

pub fn some<T: Copy>(of: &[T]) -> Vec<T> {
    let chosen = of.iter().filter(|_| fastrand::bool()).copied().collect::<Vec<_>>();
    if chosen.is_empty() { vec![of[fastrand::usize(..of.len())]] } else { chosen }
}

fn pattern() -> String {
    let token = || ["a", "b", "c", "*", "*"][fastrand::usize(..5)];
    let mut tokens = (0..fastrand::usize(0..3)).map(|_| token()).collect::<Vec<_>>();
    tokens.push(if fastrand::bool() { ">" } else { token() });
    tokens.join(".")
}

fn rules() -> Vec<Rule> {
    let who = ["reader", "writer", "anyone"];
    let rule = || Rule {
        who: if fastrand::u8(..4) == 0 { some(&who) } else { vec![who[fastrand::usize(..2)]] },
        may: some(&VERBS),
        topics: (0..fastrand::usize(1..4)).map(|_| pattern()).collect(),
    };
    (0..fastrand::usize(1..5)).map(|_| rule()).collect()
}

fn text(rules: &[Rule]) -> String {
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    let quoted = |items: &[&str]| list(items.iter().map(|item| format!("'{item}'")).collect());
    let rule = |rule: &Rule| {
        let who = |who: &&str| if *who == "anyone" { "'anyone'".into() } else { format!("'token:{who}'") };
        let who = list(rule.who.iter().map(who).collect());
        let topics = list(rule.topics.iter().map(|topic| format!("'{topic}'")).collect());
        format!("[[rule]]\nwho = {who}\nmay = {}\ntopics = {topics}\n", quoted(&rule.may))
    };
    let operator = "[[rule]]\nwho = ['token:operator']\nmay = ['administer']\n";
    operator.to_owned() + &rules.iter().map(rule).collect::<String>()
}

/// The topics of the messages that a caller gets.
async fn read(house: &House, caller: &str, patterns: &[String]) -> Result<BTreeSet<String>, Code> {
    let request = MessagesRequest {
        topics: patterns.to_vec(),
        start: Some(Start::Earliest(true)),
        until_caught_up: true,
        ..Default::default()
    };
    let mut responses = Box::pin(house.client(Some(caller)).messages(request).responses());
    let mut found = BTreeSet::new();
    while let Some(response) = soon("a response", responses.next()).await {
        let messages = response.map_err(|error| error.code())?.messages;
        for message in messages {
            assert!(found.insert(message.topic));
        }
    }
    Ok(found)
}

#[tokio::test]
async fn the_server_decides_as_the_model() {
    let seed = fastrand::u64(..);
    fastrand::seed(seed);
    println!("seed {seed}");
    let (house, topics) = (House::new(), topics());
    let message = |topic: &String| PublishRequest { topic: topic.clone(), ..Default::default() };
    house.client(Some("operator")).publish_batch(topics.iter().map(message).collect()).await.unwrap();
    for round in 0..ROUNDS {
        let rules = rules();
        house.write_rules(&(text(&rules) + &format!("# {round}\n")));
        house.server.wait_for_log("the files of access are in use");
        for caller in CALLERS {
            let client = house.client(Some(caller));
            let of = |verb: &str| {
                topics
                    .iter()
                    .filter(|topic| may(&rules, caller, verb, topic))
                    .cloned()
                    .collect::<BTreeSet<_>>()
            };
            let has_rule = |verb: &str| {
                rules.iter().any(|rule| {
                    rule.may.contains(&verb) && rule.who.iter().any(|who| *who == "anyone" || *who == caller)
                })
            };
            let listed = client.list_topics("").await.map_err(|error| error.code());
            let listed =
                listed.map(|topics| topics.into_iter().map(|topic| topic.name).collect::<BTreeSet<_>>());
            let expected = if has_rule("list") { Ok(of("list")) } else { Err(Code::PermissionDenied) };
            assert_eq!(listed, expected, "{caller}\n{}", text(&rules));

            let patterns = (0..fastrand::usize(1..4)).map(|_| pattern()).collect::<Vec<_>>();
            let readable = of("subscribe");
            let is_denied = patterns.iter().any(|pattern| !readable.iter().any(|topic| has(pattern, topic)));
            let expected = readable.iter().filter(|topic| patterns.iter().any(|pattern| has(pattern, topic)));
            let found = read(&house, caller, &patterns).await;
            let text = format!("{caller} {patterns:?}\n{}", text(&rules));
            match found {
                Ok(found) => assert_eq!(found, expected.cloned().collect(), "{text}"),
                // A part that the universe of this test does not have is none for the model alone.
                Err(code) => assert!(is_denied && code == Code::PermissionDenied, "{code:?} {text}"),
            }
            for topic in some(&topics.iter().collect::<Vec<_>>()).into_iter().take(5) {
                // A request that changes nothing: it expects another sequence.
                let request = PublishRequest { expected_sequence: Some(1_000_000), ..message(topic) };
                let code = client.publish_batch(vec![request]).await.unwrap_err().code();
                let expected = if may(&rules, caller, "publish", topic) {
                    Code::Aborted
                } else {
                    Code::PermissionDenied
                };
                assert_eq!(code, expected, "{topic} {text}");
            }
            let topic = &topics[fastrand::usize(..topics.len())];
            let purged = client.purge_topic(topic, None).await.map_err(|error| error.code());
            if may(&rules, caller, "purge", topic) {
                assert_eq!(purged, Ok(1), "{topic} {text}");
                house.client(Some("operator")).publish(message(topic)).await.unwrap();
            } else {
                assert_eq!(purged, Err(Code::PermissionDenied), "{topic} {text}");
            }
        }
    }
}

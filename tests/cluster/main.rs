//! Several servers over three nodes of NATS: each shows the same, and nothing is lost or doubled while nodes and servers
//! fail.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test stops at its first surprise"
)]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../harness/nats.rs"]
mod nats;

mod failures;
mod history;
mod native;
mod together;

use harness::Server;
use nats::Nats;
use perennial::proto::{
    MessagesRequest, MessagesResponse, PublishRequest, messages_request::Start, publish_request,
    stored_message::Content,
};

/// The servers of a test.
const SERVERS: usize = 3;

/// The namespace.
const NAMESPACE: &str = "shop";

fn messages(nats: &Nats) -> String {
    format!("nats://{}/{NAMESPACE}", nats.hosts())
}

/// Servers over one cluster.
fn servers(nats: &Nats) -> Vec<Server> {
    let messages = messages(nats);
    (0..SERVERS).map(|_| Server::start_with(&["--messages", &messages])).collect()
}

fn text(topic: &str, text: &str) -> PublishRequest {
    PublishRequest {
        topic: topic.into(),
        content: Some(publish_request::Content::Text(text.into())),
        ..Default::default()
    }
}

fn from_the_start(topic: &str) -> MessagesRequest {
    MessagesRequest { topics: vec![topic.into()], start: Some(Start::Earliest(true)), ..Default::default() }
}

/// The sequences and texts of a response.
fn texts(response: &MessagesResponse) -> Vec<(i64, String)> {
    assert!(response.events.is_empty(), "{:?}", response.events);
    let messages = response.messages.iter().map(|message| match &message.content {
        Some(Content::Text(text)) => (message.sequence.unwrap(), text.clone()),
        other => panic!("{other:?}"),
    });
    messages.collect()
}

//! Short forms of the calls that all tests make.

use std::collections::HashMap;

use perennial::proto::{
    CancelCountdownRequest, Countdown, CountdownState, CreateCountdownRequest, DeleteCountdownRequest,
    EndMessage, ExtendCountdownRequest, GetCountdownRequest, ListCountdownsRequest, MessagesRequest,
    PauseCountdownRequest, ResumeCountdownRequest, StoredMessage,
    countdown_service_client::CountdownServiceClient, create_countdown_request::Target, end_message,
    messages_request,
};
use prost_types::{Duration, Timestamp};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;

use crate::harness::{Server, soon};

pub type Client = CountdownServiceClient<Channel>;

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// What can be done to a countdown.
#[derive(Clone, Copy, Debug)]
pub enum Verb {
    Pause,
    Resume,
    /// By this number of milliseconds.
    Extend(i64),
    Cancel,
}

/// Does something to a countdown, whatever its version.
pub async fn change(client: &Client, name: &str, verb: Verb) -> Result<Countdown, Status> {
    change_if(client, name, verb, None).await
}

/// Does something to a countdown, if it has a version.
pub async fn change_if(
    client: &Client,
    name: &str,
    verb: Verb,
    version: Option<i64>,
) -> Result<Countdown, Status> {
    let (name, mut client) = (name.to_owned(), client.clone());
    let countdown = match verb {
        Verb::Pause => {
            client.pause_countdown(PauseCountdownRequest { name, version }).await?.into_inner().countdown
        }
        Verb::Resume => {
            client.resume_countdown(ResumeCountdownRequest { name, version }).await?.into_inner().countdown
        }
        Verb::Extend(millis) => {
            let request = ExtendCountdownRequest { name, by: Some(span(millis)), version };
            client.extend_countdown(request).await?.into_inner().countdown
        }
        Verb::Cancel => {
            client.cancel_countdown(CancelCountdownRequest { name, version }).await?.into_inner().countdown
        }
    };
    Ok(countdown.unwrap())
}

/// A countdown that runs for this number of milliseconds.
pub fn running_for(name: &str, millis: i64) -> CreateCountdownRequest {
    let target = Some(Target::Duration(span(millis)));
    CreateCountdownRequest { name: name.into(), target, ..Default::default() }
}

/// One that publishes its name when it ends.
pub fn announced(name: &str, millis: i64, topic: &str) -> CreateCountdownRequest {
    CreateCountdownRequest { on_end: Some(words(topic, name)), ..running_for(name, millis) }
}

pub fn words(topic: &str, text: &str) -> EndMessage {
    let content = Some(end_message::Content::Text(text.into()));
    EndMessage { topic: topic.into(), content, ..Default::default() }
}

pub async fn create(client: &Client, request: CreateCountdownRequest) -> Result<Countdown, Status> {
    Ok(client.clone().create_countdown(request).await?.into_inner().countdown.unwrap())
}

pub async fn get(client: &Client, name: &str) -> Result<Countdown, Status> {
    let request = GetCountdownRequest { name: name.into() };
    Ok(client.clone().get_countdown(request).await?.into_inner().countdown.unwrap())
}

pub async fn delete(client: &Client, name: &str) -> Result<(), Status> {
    let request = DeleteCountdownRequest { name: name.into(), version: None };
    client.clone().delete_countdown(request).await.map(drop)
}

/// All of them, by pages that are small enough for there to be several.
pub async fn list(client: &Client) -> HashMap<String, Countdown> {
    let (mut client, mut all, mut page_token, mut before) =
        (client.clone(), HashMap::new(), String::new(), String::new());
    loop {
        let request = ListCountdownsRequest { page_size: Some(100), page_token };
        let page = soon("a page", Box::pin(client.list_countdowns(request))).await.unwrap().into_inner();
        for countdown in page.countdowns {
            assert!(before < countdown.name, "{} after {before}", countdown.name);
            before.clone_from(&countdown.name);
            all.insert(countdown.name.clone(), countdown);
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

/// All messages of topics.
pub async fn messages(server: &Server, topics: &str) -> Vec<StoredMessage> {
    let request = MessagesRequest {
        topics: vec![topics.into()],
        start: Some(messages_request::Start::Earliest(true)),
        until_caught_up: true,
        ..Default::default()
    };
    let mut stream = server.messages().await.messages(request).await.unwrap().into_inner();
    let mut all = Vec::new();
    while let Some(response) = soon("messages", stream.message()).await.unwrap() {
        assert!(response.events.is_empty(), "{:?}", response.events);
        all.extend(response.messages);
    }
    all
}

/// The text of a message.
pub fn text(message: &StoredMessage) -> &str {
    match &message.content {
        Some(perennial::proto::stored_message::Content::Text(text)) => text,
        other => panic!("{other:?}"),
    }
}

pub fn span(millis: i64) -> Duration {
    Duration { seconds: millis / 1_000, nanos: i32::try_from(millis % 1_000).unwrap() * 1_000_000 }
}

/// A moment, in nanoseconds since 1970.
pub fn moment(time: Option<Timestamp>) -> i128 {
    let Timestamp { seconds, nanos } = time.expect("a moment");
    i128::from(seconds) * NANOS_PER_SECOND + i128::from(nanos)
}

/// A span, in nanoseconds.
pub fn length(duration: Option<Duration>) -> i128 {
    let Duration { seconds, nanos } = duration.expect("a duration");
    i128::from(seconds) * NANOS_PER_SECOND + i128::from(nanos)
}

/// The system's clock, in nanoseconds since 1970.
pub fn now() -> i128 {
    jiff::Timestamp::now().as_nanosecond()
}

/// Why a call was refused: the code, the reason, and the field that the error names.
pub fn refusal(status: &Status) -> (Code, String, Option<String>) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no reason: {status:?}"));
    let field = details.bad_request().map(|bad| bad.field_violations[0].field.clone());
    (status.code(), info.reason.clone(), field)
}

pub fn assert_refused(status: &Status, code: Code, reason: &str) {
    assert_eq!(refusal(status), (code, reason.to_owned(), None), "{status:?}");
}

/// A fact that came with an error.
pub fn fact(status: &Status, key: &str) -> Option<String> {
    status.get_error_details().error_info()?.metadata.get(key).cloned()
}

/// The answer was lost: an error that the server makes has a reason.
pub fn is_lost(status: &Status) -> bool {
    status.get_error_details().error_info().is_none()
}

pub fn is(countdown: &Countdown, state: CountdownState) -> bool {
    countdown.state() == state
}

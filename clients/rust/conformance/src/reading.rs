//! The command `stream`.

use perennial::{
    client::{Client, CountdownEvent, Error, FileStore, Items, Kind, Value, Values},
    proto::{
        CountdownRequest, LineStreamEvent, MessageStreamEvent, MessagesRequest, ReadLinesRequest,
        countdown_stream_event,
    },
};
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    Command, End, Later,
    convert::{from_json, print, to_json},
    seconds,
};

/// The name of the type of the items, and the JSON form of an event that the client knows.
struct Names<R: Kind> {
    item: &'static str,
    event: fn(&R::Event) -> Option<serde_json::Value>,
}

pub async fn stream(
    client: &Client,
    command: Command,
    later: mpsc::UnboundedReceiver<Command>,
) -> Result<End, Error> {
    match command.kind.as_str() {
        "lines" => {
            let request: ReadLinesRequest = from_json("ReadLinesRequest", &command.request);
            let event = |it: &LineStreamEvent| it.event.as_ref().map(|_| to_json("LineStreamEvent", it));
            read(client.read_lines(request), command, later, &Names { item: "Line", event }).await
        }
        "messages" => {
            let request: MessagesRequest = from_json("MessagesRequest", &command.request);
            let event =
                |it: &MessageStreamEvent| it.event.as_ref().map(|_| to_json("MessageStreamEvent", it));
            let mut messages = client.messages(request);
            if let Some(every) = command.commit_every {
                messages = messages.commit_every(seconds(every));
            }
            read(messages, command, later, &Names { item: "StoredMessage", event }).await
        }
        _ => {
            let request: CountdownRequest = from_json("CountdownRequest", &command.request);
            let event = |it: &CountdownEvent| {
                it.event.as_ref().map(|event| match event {
                    countdown_stream_event::Event::Changed(it) => {
                        json!({"changed": to_json("CountdownChanged", it)})
                    }
                    countdown_stream_event::Event::ClockStepped(it) => {
                        json!({"clockStepped": to_json("CountdownClockStepped", it)})
                    }
                })
            };
            read(client.countdown(request), command, later, &Names { item: "Tick", event }).await
        }
    }
}

/// Items, with or without events.
enum Stream<R: Kind> {
    Items(Items<R>),
    Values(Values<R>),
}

impl<R: Kind> Stream<R> {
    async fn next(&mut self) -> Option<Result<Value<R::Item, R::Event>, Error>> {
        match self {
            Self::Items(items) => items.next().await.map(|item| item.map(Value::Item)),
            Self::Values(values) => values.next().await,
        }
    }

    fn state(&self) -> Option<String> {
        match self {
            Self::Items(items) => items.state(),
            Self::Values(values) => values.state(),
        }
    }

    fn skipped(&self) -> i64 {
        match self {
            Self::Items(items) => items.skipped(),
            Self::Values(values) => values.skipped(),
        }
    }

    /// Waits for the last save and the last commit.
    async fn close(self) -> Result<(), Error> {
        match self {
            Self::Items(items) => items.close().await,
            Self::Values(values) => values.close().await,
        }
    }

    async fn commit(&mut self) -> Result<(), Error> {
        match self {
            Self::Items(items) => items.commit().await,
            Self::Values(values) => values.commit().await,
        }
    }
}

async fn read<R: Kind>(
    mut items: Items<R>,
    command: Command,
    mut later: mpsc::UnboundedReceiver<Command>,
    names: &Names<R>,
) -> Result<End, Error>
where
    R::Item: prost::Message,
{
    if let Some(path) = &command.store {
        items = items.store(FileStore::new(path)).save_every(seconds(command.save_every));
    }
    if command.states || command.state.is_some() {
        items = items.resume(command.state.clone());
    }
    items = command.timeout.into_iter().fold(items, |items, it| items.timeout(seconds(it)));
    items = command.connect_timeout.into_iter().fold(items, |items, it| items.connect_timeout(seconds(it)));
    items = command.max_outage.into_iter().fold(items, |items, it| items.max_outage(seconds(it)));
    let mut stream = if command.events { Stream::Values(items.with_events()) } else { Stream::Items(items) };
    let (mut credit, mut shown) = (command.credit, 0);
    loop {
        let next = tokio::select! {
            next = stream.next() => next,
            line = next_line(&mut later) => {
                match line {
                    None => return stream.close().await.map(|()| End::Stopped),
                    Some(Later::More(items)) => credit.iter_mut().for_each(|credit| *credit += items),
                    Some(Later::Commit) => committed(&mut stream).await?,
                }
                continue;
            }
        };
        let is_value = matches!(next, Some(Ok(Value::Skipped(_))));
        if stream.skipped() > shown && !is_value && !command.events {
            print(&json!({"skipped": stream.skipped() - shown}));
            shown = stream.skipped();
        }
        let Some(value) = next.transpose()? else { return Ok(End::Ok) };
        let mut line = match &value {
            Value::Item(item) => json!({"item": to_json(names.item, item)}),
            Value::Event(event) => json!({"event": (names.event)(event).unwrap_or(json!({"unknown": true}))}),
            Value::Skipped(count) => json!({"skipped": count}),
            Value::CaughtUp => json!({"caught_up": true}),
            _ => json!({"event": {"unknown": true}}),
        };
        let is_item = matches!(value, Value::Item(_));
        if is_item && command.states {
            line["state"] = json!(stream.state());
        }
        print(&line);
        if !is_item {
            continue;
        }
        if command.consumer_commit {
            stream.commit().await?;
        }
        credit.iter_mut().for_each(|credit| *credit -= 1);
        // In the body of the loop: the item is not done.
        while credit.is_some_and(|credit| credit <= 0) {
            match next_line(&mut later).await {
                None => return stream.close().await.map(|()| End::Stopped),
                Some(Later::More(items)) => credit.iter_mut().for_each(|credit| *credit += items),
                Some(Later::Commit) => committed(&mut stream).await?,
            }
        }
    }
}

async fn committed<R: Kind>(stream: &mut Stream<R>) -> Result<(), Error> {
    stream.commit().await?;
    print(&json!({"committed": true}));
    Ok(())
}

/// What the kit says next; `None`: stop.
async fn next_line(later: &mut mpsc::UnboundedReceiver<Command>) -> Option<Later> {
    let command = later.recv().await?;
    match command.r#do.as_str() {
        "more" => Some(Later::More(command.items)),
        "commit" => Some(Later::Commit),
        _ => None,
    }
}

//! The client as the conformance kit drives it: one command on stdin, and lines of JSON on stdout. The protocol is in
//! `clients/conformance/README.md`.

use std::{
    io::{BufRead, Write},
    time::{Duration, Instant},
};

use perennial::{
    client::{Client, Credentials, Error, Token},
    proto::{
        CreateCountdownRequest, ListFilesRequest, PublishRequest, ReadLinesRequest,
        line_service_client::LineServiceClient,
    },
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

mod convert;
mod reading;

use convert::{described, from_json, print, to_json};

/// What the kit asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Command {
    r#do: String,
    server: String,
    kind: String,
    request: Value,
    state: Option<String>,
    store: Option<String>,
    save_every: f64,
    events: bool,
    states: bool,
    credit: Option<i64>,
    timeout: Option<f64>,
    connect_timeout: Option<f64>,
    max_outage: Option<f64>,
    consumer_commit: bool,
    commit_every: Option<f64>,
    token: Option<String>,
    token_file: Option<String>,
    ca: Option<String>,
    cert: Option<String>,
    key: Option<String>,
    topic: String,
    count: u64,
    first: u64,
    prefix: String,
    dedupe_window: Option<f64>,
    method: String,
    items: i64,
}

/// How a command ended.
enum End {
    Ok,
    Stopped,
}

/// A line of the kit after the command.
enum Later {
    More(i64),
    Commit,
}

#[tokio::main]
async fn main() {
    let (commands, mut received) = mpsc::unbounded_channel();
    // To read stdin blocks, and must not keep the program from its end.
    std::thread::spawn(move || {
        let lines = std::io::stdin().lock().lines().map_while(Result::ok);
        let commands_of_kit = lines.map_while(|line| serde_json::from_str::<Command>(&line).ok());
        for command in commands_of_kit {
            // The command has ended.
            if commands.send(command).is_err() {
                break;
            }
        }
    });
    let Some(command) = received.recv().await else { return };
    match run(command, received).await {
        Ok(End::Ok) => print(&json!({"end": "ok"})),
        Ok(End::Stopped) => print(&json!({"end": "stopped"})),
        Err(error) => {
            print(&json!({"error": described(&error)}));
            print(&json!({"end": "error"}));
        }
    }
    let _ = std::io::stdout().flush();
}

fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(value)
}

async fn run(command: Command, later: mpsc::UnboundedReceiver<Command>) -> Result<End, Error> {
    match command.r#do.as_str() {
        "info" => {
            let can = [
                "stream",
                "store",
                "events",
                "publish",
                "consumer",
                "call",
                "bench",
                "bench_generated",
                "token",
                "tls",
            ];
            let (package, version) = ("perennial", env!("CARGO_PKG_VERSION"));
            print(&json!({"info": {"package": package, "version": version, "language": "rust", "can": can}}));
            Ok(End::Ok)
        }
        "stream" => reading::stream(&connect(&command)?, command, later).await,
        "publish" => publish(&connect(&command)?, &command).await,
        "call" => call(&connect(&command)?, &command).await,
        "bench" => bench(&connect(&command)?, &command).await,
        "bench_generated" => generated(&command).await,
        _ => Err(Error::Options { fault: "the command is not known" }),
    }
}

fn connect(command: &Command) -> Result<Client, Error> {
    let Command { token, token_file, ca, cert, key, .. } = command;
    let mut credentials = Credentials::from_env();
    credentials.ca = ca.as_ref().map(Into::into);
    credentials.certificate = cert.as_ref().map(Into::into);
    credentials.key = key.as_ref().map(Into::into);
    let token = token.clone().map(Token::Text).or(token_file.as_ref().map(|path| Token::File(path.into())));
    credentials.token = token.or(credentials.token);
    let client = Client::with_credentials(&command.server, credentials)?;
    let client = match command.connect_timeout {
        Some(timeout) => client.with_connect_timeout(seconds(timeout)),
        None => client,
    };
    Ok(match command.dedupe_window {
        Some(window) => client.with_dedupe_window(seconds(window)),
        None => client,
    })
}

async fn publish(client: &Client, command: &Command) -> Result<End, Error> {
    let publisher = client.publisher();
    let (receipts, mut shown) = mpsc::unbounded_channel();
    let show = tokio::spawn(async move {
        while let Some((n, receipt)) = shown.recv().await {
            let receipt: perennial::client::Receipt = receipt;
            print(&match receipt.await {
                Ok(answer) => json!({"receipt": {
                    "n": n, "sequence": answer.sequence().to_string(), "duplicate": answer.duplicate,
                }}),
                Err(error) => json!({"receipt": {"n": n, "error": described(&error)}}),
            });
        }
    });
    let Command { topic, count, first, prefix, .. } = command;
    let mut failed = None;
    for n in *first..first + count {
        match publisher.publish(PublishRequest::new(topic, format!("{prefix}{n}"))).await {
            Ok(receipt) => drop(receipts.send((n, receipt))),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    drop(receipts);
    let closed = publisher.close().await;
    show.await.expect("receipts can be shown");
    failed.map_or(closed, Err).map(|()| End::Ok)
}

async fn call(client: &Client, command: &Command) -> Result<End, Error> {
    let text = |name: &str| command.request[name].as_str().unwrap_or_default().to_owned();
    let request = &command.request;
    let response = match command.method.as_str() {
        "GetCountdown" => {
            let countdown = client.get_countdown(&text("name")).await?;
            json!({"countdown": to_json("Countdown", &countdown)})
        }
        "CreateCountdown" => {
            let request: CreateCountdownRequest = from_json("CreateCountdownRequest", request);
            to_json("CreateCountdownResponse", &client.create_countdown(request).await?)
        }
        "ListTopics" => {
            let topics = client.list_topics(&text("pattern")).await?;
            json!({"topics": topics.iter().map(|it| to_json("TopicInfo", it)).collect::<Vec<_>>()})
        }
        "Publish" => {
            let request: PublishRequest = from_json("PublishRequest", request);
            to_json("PublishResponse", &client.publish(request).await?)
        }
        "ListFiles" => {
            let request: ListFilesRequest = from_json("ListFilesRequest", request);
            let files = client.list_files(&request.path).await?;
            json!({"files": files.iter().map(|it| to_json("FileInfo", it)).collect::<Vec<_>>()})
        }
        _ => return Err(Error::Options { fault: "the method is not known" }),
    };
    print(&json!({"response": response}));
    Ok(End::Ok)
}

/// Reads lines one by one, and makes a string of each.
async fn bench(client: &Client, command: &Command) -> Result<End, Error> {
    let request: ReadLinesRequest = from_json("ReadLinesRequest", &command.request);
    let (mut items, mut bytes, since) = (0_u64, 0, Instant::now());
    let mut lines = client.read_lines(request);
    while let Some(line) = lines.next().await {
        items += 1;
        bytes += line?.to_text().len();
    }
    report(items, bytes, since);
    Ok(End::Ok)
}

/// The same with generated code and tonic alone.
async fn generated(command: &Command) -> Result<End, Error> {
    let request: ReadLinesRequest = from_json("ReadLinesRequest", &command.request);
    let (mut items, mut bytes, since) = (0_u64, 0, Instant::now());
    let server = command.server.clone();
    let channel =
        tonic::transport::Endpoint::from_shared(server).expect("a URL").connect().await.expect("a server");
    let mut client = LineServiceClient::new(channel);
    let mut responses = client.read_lines(request).await.expect("a stream").into_inner();
    while let Some(response) = responses.message().await.expect("a response") {
        for line in response.lines {
            items += 1;
            bytes += line.to_text().len();
        }
    }
    report(items, bytes, since);
    Ok(End::Ok)
}

fn report(items: u64, bytes: usize, since: Instant) {
    let seconds = since.elapsed().as_secs_f64();
    print(&json!({"bench": {"items": items, "bytes": bytes, "seconds": seconds}}));
}

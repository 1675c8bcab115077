//! Publishers and readers that go from server to server, and the check that nothing was lost, doubled or reordered.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use perennial::proto::message_service_client::MessageServiceClient;
use tonic::{Code, transport::Endpoint};

use super::*;
use crate::harness::within;

/// The topic that all messages of a load have.
const TOPIC: &str = "load";

/// How long the whole of a load may take.
const LIMIT: Duration = Duration::from_secs(300);

/// The pause before a call that failed is made at the next server.
const AGAIN: Duration = Duration::from_millis(50);

/// Publishers and readers at servers that may be restarted.
pub struct Load {
    urls: Arc<Vec<String>>,
    is_over: Arc<AtomicBool>,
    /// The number of acknowledged messages.
    count: Arc<AtomicUsize>,
    publishers: Vec<tokio::task::JoinHandle<BTreeMap<i64, String>>>,
    readers: Vec<tokio::task::JoinHandle<Vec<(i64, String)>>>,
}

impl Load {
    /// Starts publishers and readers, of which each goes to the next server again and again.
    pub fn start(servers: &[Server], publishers: usize, readers: usize) -> Self {
        let mut load = Self {
            urls: Arc::new(servers.iter().map(Server::url).collect()),
            is_over: Arc::default(),
            count: Arc::default(),
            publishers: Vec::new(),
            readers: Vec::new(),
        };
        for id in 0..publishers {
            let (urls, is_over, count) = (load.urls.clone(), load.is_over.clone(), load.count.clone());
            load.publishers.push(tokio::spawn(publish(urls, id, is_over, count)));
        }
        for id in 0..readers {
            load.readers.push(tokio::spawn(read(load.urls.clone(), id)));
        }
        load
    }

    /// Waits until this many more messages are acknowledged.
    pub async fn acknowledged(&self, more: usize) {
        let until = self.count.load(Ordering::Relaxed) + more;
        let reached = async {
            while self.count.load(Ordering::Relaxed) < until {
                tokio::time::sleep(AGAIN).await;
            }
        };
        within(LIMIT, "publishing goes on", reached).await;
    }

    /// Ends the publishers, and checks what each reader has read.
    pub async fn check(self) {
        self.is_over.store(true, Ordering::Relaxed);
        let mut all = BTreeMap::new();
        for publisher in self.publishers {
            let acknowledged = within(LIMIT, "a publisher ends", publisher).await.unwrap();
            for (sequence, text) in acknowledged {
                assert_eq!(all.insert(sequence, text), None, "two messages have the sequence {sequence}");
            }
        }
        let last = connect(&self.urls, 0).publish(text(TOPIC, "last")).await.unwrap().into_inner();
        all.insert(last.sequence.unwrap(), "last".into());
        let all = all.into_iter().collect::<Vec<_>>();
        for reader in self.readers {
            let seen = within(LIMIT, "a reader ends", reader).await.unwrap();
            assert_eq!(seen.len(), all.len(), "as many as were acknowledged");
            assert!(seen == all, "all that was acknowledged, in its order");
        }
        println!("{} messages", all.len());
    }
}

fn connect(urls: &[String], n: usize) -> MessageServiceClient<tonic::transport::Channel> {
    let url = urls[n % urls.len()].clone();
    MessageServiceClient::new(Endpoint::from_shared(url).unwrap().connect_lazy())
}

/// Whether a call is made again: the server was restarted.
fn is_again(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::Cancelled | Code::Unknown)
}

/// Publishes until it is over. Returns the acknowledged messages by their sequences.
async fn publish(
    urls: Arc<Vec<String>>,
    id: usize,
    is_over: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
) -> BTreeMap<i64, String> {
    let (mut acknowledged, mut at) = (BTreeMap::new(), id);
    for n in 0.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let content = format!("{id}/{n}");
        let request = PublishRequest { message_id: Some(content.clone()), ..text(TOPIC, &content) };
        if n % 20 == 0 {
            at += 1;
        }
        let published = loop {
            match connect(&urls, at).publish(request.clone()).await {
                Ok(published) => break published.into_inner(),
                Err(status) if is_again(status.code()) => {
                    tokio::time::sleep(AGAIN).await;
                    at += 1;
                }
                Err(status) => panic!("{status}"),
            }
        };
        acknowledged.insert(published.sequence.unwrap(), content);
        count.fetch_add(1, Ordering::Relaxed);
    }
    acknowledged
}

/// Reads up to the message `last`; goes to the next server after some responses, with the cursor of the last one.
async fn read(urls: Arc<Vec<String>>, id: usize) -> Vec<(i64, String)> {
    let (mut seen, mut cursor) = (Vec::new(), None);
    for at in id.. {
        let request = MessagesRequest { cursor: cursor.clone(), ..from_the_start(TOPIC) };
        let mut stream = match connect(&urls, at).messages(request).await {
            Ok(stream) => stream.into_inner(),
            Err(status) if is_again(status.code()) => {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            Err(status) => panic!("{status}"),
        };
        for _ in 0..10 + at % 40 {
            let response = match stream.message().await {
                Ok(Some(response)) => response,
                Ok(None) => break,
                Err(status) if is_again(status.code()) => break,
                Err(status) => panic!("{status}"),
            };
            seen.extend(texts(&response));
            cursor = Some(response.cursor);
            if seen.last().is_some_and(|(_, text)| text == "last") {
                return seen;
            }
        }
    }
    unreachable!("it goes on until it has read the last message")
}

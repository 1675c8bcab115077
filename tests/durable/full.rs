//! A disk that is full: a real one, but small.

use std::{collections::BTreeMap, fs};

use perennial::proto::{
    ErrorReason, PublishRequest, PublishStreamRequest, message_service_client::MessageServiceClient,
    publish_result,
};
use rustix::process::{Resource, Rlimit, prlimit};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;

use crate::{
    everything,
    harness::{Server, mount::Mount, soon, until},
    text,
};

const MIB: usize = 1024 * 1024;

/// What was acknowledged: by sequence.
struct Published {
    client: MessageServiceClient<Channel>,
    stored: BTreeMap<i64, String>,
    count: usize,
}

impl Published {
    async fn by(server: &Server) -> Self {
        Self { client: server.messages().await, stored: BTreeMap::new(), count: 0 }
    }

    /// Publishes a large message; no two are alike.
    async fn publish(&mut self) -> Result<(), Status> {
        self.count += 1;
        let request = large(self.count);
        let answer = soon("an answer", Box::pin(self.client.publish(request))).await?.into_inner();
        self.stored.insert(answer.sequence.unwrap(), content(self.count));
        Ok(())
    }

    /// Publishes until a message is refused, and checks the reason.
    async fn fill(&mut self) {
        let refused = loop {
            assert!(self.count < 1_000, "the disk does not get full");
            if let Err(status) = self.publish().await {
                break status;
            }
        };
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
        assert_eq!(refused.get_error_details().error_info().unwrap().reason, "LOG_FULL");
        assert!(self.stored.len() > 100, "full after {} messages", self.stored.len());
    }

    /// Publishes again, as soon as it is not refused any more.
    async fn go_on(&mut self) {
        until("room", async || self.publish().await.is_ok()).await;
        for _ in 0..10 {
            self.publish().await.unwrap();
        }
    }
}

fn content(n: usize) -> String {
    format!("{n} {}", "x".repeat(MIB / 4))
}

fn large(n: usize) -> PublishRequest {
    text("full", &content(n))
}

/// All that was acknowledged is there, and nothing that was refused.
async fn is_whole(server: &Server, published: &Published) {
    let all = everything(server).await;
    assert!(all.keys().eq(published.stored.keys()), "{:?} {:?}", all.keys(), published.stored.keys());
    assert!(all == published.stored, "a message was changed");
}

/// As `ulimit -f` does, on a process that runs; `None` ends the limit.
fn limit_file_size(server: &Server, bytes: Option<u64>) {
    let pid = rustix::process::Pid::from_raw(server.id().cast_signed());
    let limit = Rlimit { current: bytes, maximum: None };
    prlimit(pid, Resource::Fsize, limit).unwrap();
}

#[tokio::test]
async fn a_limit_on_the_size_of_files_is_met_like_a_full_disk_and_does_not_end_the_server() {
    let mut server = Server::start();
    let mut published = Published::by(&server).await;
    for _ in 0..10 {
        published.publish().await.unwrap();
    }
    // The write that exceeds it would end the process with SIGXFSZ.
    limit_file_size(&server, Some(30 * MIB as u64));
    published.fill().await;
    assert!(server.is_running());
    is_whole(&server, &published).await;
    limit_file_size(&server, None);
    published.go_on().await;
    is_whole(&server, &published).await;
    server.kill();
    server.restart();
    is_whole(&server, &published).await;
}

#[tokio::test]
async fn a_server_that_starts_under_a_limit_on_the_size_of_files_keeps_what_it_acknowledges() {
    let mut server = Server::start_by(&["sh", "-c", "ulimit -S -f 1024; exec \"$@\"", "sh"]);
    let mut published = Published::by(&server).await;
    let refused = loop {
        match published.publish().await {
            Ok(()) => assert!(published.stored.len() < 1_000, "there is no limit"),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(server.is_running());
    is_whole(&server, &published).await;
    limit_file_size(&server, None);
    published.go_on().await;
    is_whole(&server, &published).await;
    server.kill();
    server.restart();
    is_whole(&server, &published).await;
}

#[tokio::test]
#[ignore = "mounts a tmpfs: needs root"]
async fn a_full_disk_refuses_messages_serves_those_it_has_and_takes_more_when_there_is_room() {
    let mount = Mount::new();
    let ballast = mount.ballast();
    let mut server = Server::start_in(mount.path());
    let mut published = Published::by(&server).await;
    published.fill().await;
    is_whole(&server, &published).await;

    let flow = [PublishStreamRequest { messages: vec![large(0)] }];
    let answers = published.client.publish_stream(tokio_stream::iter(flow)).await.unwrap();
    let answer = soon("an answer", answers.into_inner().message()).await.unwrap().unwrap();
    let Some(publish_result::Outcome::Error(error)) = &answer.results[0].outcome else {
        panic!("{answer:?}")
    };
    assert_eq!((error.code, error.reason()), (Code::ResourceExhausted as i32, ErrorReason::LogFull));

    fs::remove_file(ballast).unwrap();
    published.go_on().await;
    is_whole(&server, &published).await;
    server.kill();
    server.restart();
    is_whole(&server, &published).await;
}

#[tokio::test]
#[ignore = "mounts a tmpfs: needs root"]
async fn a_server_starts_on_a_full_disk_serves_what_it_has_and_takes_more_when_there_is_room() {
    let mount = Mount::new();
    let ballast = mount.ballast();
    let mut server = Server::start_in(mount.path());
    let mut published = Published::by(&server).await;
    published.fill().await;
    server.kill();
    // Not a byte is left, whatever the log had taken ahead.
    mount.fill();

    server.restart();
    published.client = server.messages().await;
    is_whole(&server, &published).await;
    let refused = published.publish().await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");

    fs::remove_file(ballast).unwrap();
    published.go_on().await;
    server.kill();
    server.restart();
    is_whole(&server, &published).await;
}
